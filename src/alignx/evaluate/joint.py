"""The joint LoRA: one adapter on all axes' training prompts, the comparator that a mixture must not lose to.

It is trained in exactly the format it is tested in (no injection), on the prompts the experts were trained on, at the
experts' rank, and its rate and passes are chosen on the mix split. A baseline is never weakened: where the experts are
fully fine-tuned, so is the joint model, and it is chosen and scored whole.
"""

import os
import shutil
from collections.abc import Sequence

import torch

from alignx.config import Candidate, RunConfig
from alignx.data.prepare import data_fingerprint, read_splits
from alignx.models.fold import Updates, folded
from alignx.models.gated import GatedModel
from alignx.models.layers import adapted_modules
from alignx.models.lazy import LazyBase
from alignx.progress import notice
from alignx.runs import processes
from alignx.runs.directory import RunDirectory
from alignx.runs.files import write_json
from alignx.stage1.adapter_files import check_adapter
from alignx.stage1.experts import SHARED, expert_files, expert_updates
from alignx.stage1.full import TASK_VECTOR
from alignx.stage1.pipeline import shared_is_current, train_on_all_axes
from alignx.stage1.task_vector import TaskVector, read_task_vector
from alignx.stage2.logistic import equal_axis_weights
from alignx.stage2.pipeline import target_items, target_losses

JOINT = "joint"


def train_joint(config: RunConfig, run: RunDirectory, lazy: LazyBase) -> None:
    """Train every candidate that is missing, and keep the best on the mix split as `stage1/joint`."""
    candidates = joint_candidates(config)
    names = {_adapter_name(config, run, candidate): candidate for candidate in candidates}
    for name, candidate in names.items():
        if name != SHARED:
            train_on_all_axes(
                config, run, lazy, name=name, learning_rate=candidate.learning_rate, epochs=candidate.epochs
            )
    inputs = {
        "candidates": {name: run.step_fingerprint(f"train-{name}") for name in names},
        "mix": {axis: data_fingerprint(run, axis) for axis in config.axes},
        "scoring": [config.evaluate.max_tokens, config.evaluate.precision],
    }
    folder = run.adapter_folder(JOINT)
    if run.is_done("choose-joint", inputs, *expert_files(config, run, JOINT)):
        notice("joint: up to date")
        return
    losses = _mix_losses(config, run, lazy, list(names))
    best = min(losses, key=losses.__getitem__)
    processes.from_main(lambda: _copy_expert(run, best))
    tried = [
        {"learning_rate": candidate.learning_rate, "epochs": candidate.epochs, "mix_loss": losses[name]}
        for name, candidate in names.items()
    ]
    chosen = {"learning_rate": names[best].learning_rate, "epochs": names[best].epochs}
    write_json(folder.parent / "choice.json", {"chosen": chosen, "tried": tried})
    run.mark_done("choose-joint", inputs, *expert_files(config, run, JOINT), folder.parent / "choice.json")


def joint_candidates(config: RunConfig) -> Sequence[Candidate]:
    """What is tried: the config's list, or Stage 1's own rate with up to as many passes as the experts had in all."""
    stage1 = config.stage1
    total = stage1.epochs + (stage1.shared_epochs if stage1.shared_expert else 0)
    own = tuple(Candidate(learning_rate=stage1.learning_rate, epochs=n) for n in range(1, total + 1))
    return config.evaluate.joint_candidates or own


def read_joint(config: RunConfig, run: RunDirectory, lazy: LazyBase) -> TaskVector:
    """The chosen joint LoRA; of a fully fine-tuned joint model what its factors keep."""
    run.check("choose-joint")
    return read_task_vector(check_adapter(run, JOINT), adapted_modules(lazy.base.model, config.stage1.target_modules))


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
    return f"joint-rate-{candidate.learning_rate:g}-passes-{candidate.epochs}"


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


def _copy_expert(run: RunDirectory, name: str) -> None:
    """Copy an expert into `stage1/joint`; the step's record is written afterwards, so a kill in between is noticed."""
    source, target = run.adapter_folder(name).parent, run.adapter_folder(JOINT).parent
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
