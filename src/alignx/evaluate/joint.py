"""The joint LoRA: one adapter on all axes' training prompts, the comparator that a mixture must not lose to.

It is trained in exactly the format it is tested in (no injection), on the prompts the experts were trained on, at the
experts' rank, and its rate and passes are chosen on the mix split. A baseline is never weakened: where the experts are
fully fine-tuned, so is the joint model, and it is chosen and scored whole. `joint-mr` is the same at m times the rank:
as many parameters as the m experts have together.
"""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from alignx.config import Candidate, RunConfig
from alignx.data.prepare import data_fingerprint, read_splits
from alignx.errors import ArtifactError
from alignx.models.fold import Updates, folded
from alignx.models.gated import GatedModel
from alignx.models.layers import adapted_modules
from alignx.models.lazy import LazyBase
from alignx.progress import notice
from alignx.runs import processes
from alignx.runs.directory import RunDirectory
from alignx.runs.files import read_json, write_json
from alignx.stage1.adapter_files import check_adapter
from alignx.stage1.experts import SHARED, expert_files, expert_updates
from alignx.stage1.full import TASK_VECTOR
from alignx.stage1.pipeline import shared_is_current, train_on_all_axes
from alignx.stage1.task_vector import TaskVector, read_task_vector
from alignx.stage2.logistic import equal_axis_weights
from alignx.stage2.pipeline import target_items, target_losses

JOINT = "joint"
JOINT_MR = "joint-mr"


def train_joint(config: RunConfig, run: RunDirectory, lazy: LazyBase) -> None:
    """Train every candidate that is missing, and keep the best on the mix split as `stage1/joint`."""
    names = {_adapter_name(config, run, candidate): candidate for candidate in joint_candidates(config)}
    _train_and_choose(config, run, lazy, JOINT, names)


def train_joint_mr(config: RunConfig, run: RunDirectory, lazy: LazyBase) -> None:
    """The same at m times the experts' rank as `stage1/joint-mr`: at the joint LoRA's setting unless others are named.

    The joint LoRA must have been chosen before where the config names no candidates.
    """
    _train_and_choose(widened(config), run, lazy, JOINT_MR, _joint_mr_names(config, run))


def joint_mr_is_current(config: RunConfig, run: RunDirectory) -> bool:
    """Whether a run has a `joint-mr` of the data and settings it has now, asked for by its config or not."""
    if not run.step_fingerprint(f"choose-{JOINT_MR}"):
        return False
    names = _joint_mr_names(config, run)
    wide = widened(config)
    return run.is_done(f"choose-{JOINT_MR}", _choice_inputs(wide, run, names), *expert_files(wide, run, JOINT_MR))


def _joint_mr_names(config: RunConfig, run: RunDirectory) -> dict[str, Candidate]:
    candidates = config.evaluate.joint_mr_candidates or (_chosen_joint(run),)
    return {f"{JOINT_MR}-{_setting_name(candidate)}": candidate for candidate in candidates}


def widened(config: RunConfig) -> RunConfig:
    """The config with m times the rank for m axes, and alpha with it: alpha / rank, an update's scale, stays."""
    m, stage1 = len(config.axes), config.stage1
    wide = stage1.model_copy(update={"rank": m * stage1.rank, "alpha": m * stage1.alpha})
    return config.model_copy(update={"stage1": wide})


def _train_and_choose(
    config: RunConfig, run: RunDirectory, lazy: LazyBase, kept_as: str, names: Mapping[str, Candidate]
) -> None:
    for name, candidate in names.items():
        if name != SHARED:
            train_on_all_axes(
                config, run, lazy, name=name, learning_rate=candidate.learning_rate, epochs=candidate.epochs
            )
    inputs = _choice_inputs(config, run, names)
    step, folder = f"choose-{kept_as}", run.adapter_folder(kept_as)
    if run.is_done(step, inputs, *expert_files(config, run, kept_as)):
        notice(f"{kept_as}: up to date")
        return
    losses = _mix_losses(config, run, lazy, list(names))
    best = min(losses, key=losses.__getitem__)
    processes.from_main(lambda: _copy_expert(run, best, kept_as))
    tried = [
        {"learning_rate": candidate.learning_rate, "epochs": candidate.epochs, "mix_loss": losses[name]}
        for name, candidate in names.items()
    ]
    chosen = {"learning_rate": names[best].learning_rate, "epochs": names[best].epochs}
    write_json(folder.parent / "choice.json", {"chosen": chosen, "tried": tried})
    run.mark_done(step, inputs, *expert_files(config, run, kept_as), folder.parent / "choice.json")


def _choice_inputs(config: RunConfig, run: RunDirectory, names: Iterable[str]) -> dict[str, Any]:
    return {
        "candidates": {name: run.step_fingerprint(f"train-{name}") for name in names},
        "mix": {axis: data_fingerprint(run, axis) for axis in config.axes},
        "scoring": [config.evaluate.max_tokens, config.evaluate.precision],
    }


def joint_candidates(config: RunConfig) -> Sequence[Candidate]:
    """What is tried: the config's list, or Stage 1's own rate with up to as many passes as the experts had in all."""
    stage1 = config.stage1
    total = stage1.epochs + (stage1.shared_epochs if stage1.shared_expert else 0)
    own = tuple(Candidate(learning_rate=stage1.learning_rate, epochs=n) for n in range(1, total + 1))
    return config.evaluate.joint_candidates or own


def read_joint(config: RunConfig, run: RunDirectory, lazy: LazyBase, name: str = JOINT) -> TaskVector:
    """The chosen joint LoRA (or `joint-mr`); of a fully fine-tuned joint model what its factors keep."""
    run.check(f"choose-{name}")
    return read_task_vector(check_adapter(run, name), adapted_modules(lazy.base.model, config.stage1.target_modules))


def _adapter_name(config: RunConfig, run: RunDirectory, candidate: Candidate) -> str:
    """The shared expert is a joint LoRA: a candidate with its very settings is not trained again."""
    stage1 = config.stage1
    if (
        stage1.shared_expert
        and shared_is_current(config, run)
        and (candidate.learning_rate, candidate.epochs)
        == (
            stage1.learning_rate,
            stage1.shared_epochs,
        )
    ):
        return SHARED
    return f"{JOINT}-{_setting_name(candidate)}"


def _setting_name(candidate: Candidate) -> str:
    return f"rate-{candidate.learning_rate:g}-passes-{candidate.epochs}"


def _chosen_joint(run: RunDirectory) -> Candidate:
    run.check(f"choose-{JOINT}")
    path = run.adapter_folder(JOINT).parent / "choice.json"
    try:
        return Candidate.model_validate(read_json(path)["chosen"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: damaged; remove it and run `alignx run` again") from error


def _mix_losses(config: RunConfig, run: RunDirectory, lazy: LazyBase, names: Sequence[str]) -> dict[str, float]:
    base, axes = lazy.base, list(config.axes)
    examples = [example for axis in axes for example in read_splits(run, axis).mix]
    row_weights = equal_axis_weights(torch.tensor([axes.index(example.axis) for example in examples]), len(axes))
    items = target_items(base, examples, config.evaluate.max_tokens)
    modules = adapted_modules(base.model, config.stage1.target_modules)
    adapters = {name: read_task_vector(check_adapter(run, name), modules).updates for name in names}
    losses = {}
    with GatedModel(base.model, adapters) as gated:
        for number, name in enumerate(names):
            weights = torch.zeros(len(items), len(names))
            whole: Updates = {}
            if config.stage1.method == "full":
                whole = expert_updates(config, run, base, name)
            else:
                weights[:, number] = 1
            with folded(base.model, whole):
                nats = target_losses(base, items, gated, weights, config, f"validate {name}")
            losses[name] = float((nats * row_weights).sum() / row_weights.sum())
    return losses


def _copy_expert(run: RunDirectory, name: str, kept_as: str) -> None:
    """Copy an expert into `stage1/<kept_as>`; the step's record comes afterwards, so a kill in between is noticed."""
    source, target = run.adapter_folder(name).parent, run.adapter_folder(kept_as).parent
    for folder in ("adapter", TASK_VECTOR):
        shutil.rmtree(target / folder, ignore_errors=True)
        if (source / folder).is_dir():
            # Dense vectors are as large as the base; their files are replaced and never written to, so a link will do.
            shutil.copytree(source / folder, target / folder, copy_function=_link_or_copy)
    for file in ("svd.json", "training.json"):
        if (source / file).is_file():
            shutil.copyfile(source / file, target / file)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
