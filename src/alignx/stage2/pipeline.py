"""Stage 2, start to end: experts' losses, the calibrated router, the end-to-end step, static merges."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alignx.config import RunConfig
from alignx.data.example import Example
from alignx.data.files import read_rows
from alignx.data.prepare import data_fingerprint, read_splits
from alignx.data.sources import SAMPLE_FOLDER
from alignx.errors import ArtifactError, TrainingError
from alignx.models.fold import folded
from alignx.models.gated import GatedModel
from alignx.models.lazy import LazyBase
from alignx.models.load import BaseModel
from alignx.models.scoring import PromptAnswers, answer_log_probs
from alignx.progress import notice
from alignx.runs import processes
from alignx.runs.checksums import file_checksum
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.files import read_json, read_named_tensor, read_tensors, write_json, write_tensors
from alignx.runs.schema_version import SCHEMA_VERSION, check_schema_version
from alignx.stage1.activations import last_prompt_states
from alignx.stage1.adapter_config import check_not_pickled
from alignx.stage1.experts import SHARED, expert_files
from alignx.stage1.extracts import encode_prompts, finish_stage1, read_latent_space
from alignx.stage1.latent import LatentSpace
from alignx.stage1.pipeline import stage1_is_current
from alignx.stage2.end_to_end import EndToEndRecord, train_end_to_end
from alignx.stage2.end_to_end_state import EndToEndCheckpoint
from alignx.stage2.experts import install_experts
from alignx.stage2.fit import FittingInputs, SplitFeatures
from alignx.stage2.logistic import equal_axis_weights
from alignx.stage2.merges import COEFFICIENTS, DARE_DENSITY, TIES_DENSITY, Merge, checked_merge
from alignx.stage2.mocae import BEST_HEAD_READS, Mocae
from alignx.stage2.mocae_file import checked_mocae
from alignx.stage2.whole import fixed_form, merge_form, read_whole_experts

FOREIGN_DEVELOPMENT_SET = SAMPLE_FOLDER / "foreign_dev.jsonl"
# Splits whose targets no expert has seen: the only ones whose losses say which expert is best.
_SCORED_SPLITS = ("mix", "calibration")


def run_stage2(config: RunConfig, run: RunDirectory, *, lazy: LazyBase | None = None) -> None:
    """Fit and train the mixture, and make the static merges that the config names.

    Args:
        config: the run's config.
        run: a run directory whose Stage 1 is finished.
        lazy: the base, shared with other stages; none loads its own.

    Raises:
        AlignXError: of the step that could not be done.
    """
    lazy = lazy or LazyBase(config, run)
    _check_stage1(config, run)
    finish_stage1(config, run, lazy)
    score_experts(config, run, lazy)
    _fit(config, run, lazy)
    for method in config.stage2.merges:
        make_merge(config, run, method, lazy=lazy)


def read_mocae(run: RunDirectory) -> Mocae:
    """The trained mixture of a run.

    Raises:
        ArtifactError: Stage 2 was not run, or its files are damaged.
    """
    if not run.mocae_path.is_file():
        raise ArtifactError(f"{run.root}: no mixture yet; run `alignx stage2 {run.root}`")
    run.check("mocae")
    settings = read_json(run.mocae_settings_path)
    try:
        check_schema_version(settings, run.mocae_settings_path)
        return checked_mocae(read_tensors(run.mocae_path), settings, run.mocae_path)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, ArtifactError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(
            f"{run.mocae_settings_path}: damaged ({reason}); remove it and run `alignx stage2 {run.root}`"
        ) from error


def check_current(config: RunConfig, run: RunDirectory) -> None:
    """Refuse a mixture that was fitted on other experts, prompts or settings than the run now has.

    Raises:
        ArtifactError: something it was made from has changed since.
    """
    _check_stage1(config, run)
    fitted = run.is_current("expert-losses", _loss_inputs(config, run)) and run.is_current(
        "mocae", _mocae_inputs(config, run), run.mocae_path, run.mocae_settings_path
    )
    if not (fitted and stage1_is_current(config, run)):
        raise ArtifactError(
            f"{run.root}: its experts, prompts or settings have changed since the mixture was fitted; "
            f"run `alignx stage2 {run.root}`, or `alignx run` with its config"
        )


def read_signatures(base: BaseModel, space: LatentSpace, prompts: Sequence[Sequence[int]], *, what: str) -> Tensor:
    """Signatures (n, sum of widths) of prompts given as token ids, as the bare base sees them."""
    return space.signature(last_prompt_states(base, prompts, space.layers, description=what))


def read_fitting_inputs(config: RunConfig, run: RunDirectory, base: BaseModel) -> FittingInputs:
    """What a run's mixture is fitted on: signatures and experts' losses of every split that teaches it."""
    space = read_latent_space(run)
    mix, calibration = (_split_features(config, run, base, space, split) for split in _SCORED_SPLITS)
    return FittingInputs(
        tuple(config.axes),
        space.layers,
        tuple(space.widths),
        train=_train_features(config, run),
        mix=mix,
        calibration=calibration,
        foreign=_foreign_signatures(base, space),
        foreign_kinds=_foreign_kinds(),
    )


def score_experts(config: RunConfig, run: RunDirectory, lazy: LazyBase) -> None:
    """Every expert's loss on every mix and calibration prompt, into `stage2/expert_losses.json`."""
    path = run.root / "stage2" / "expert_losses.json"
    inputs = _loss_inputs(config, run)
    if run.is_done("expert-losses", inputs, path):
        notice("experts' losses on mix and calibration prompts: up to date")
        return
    base, axes = lazy.base, list(config.axes)
    examples = [
        (split, axis, example) for split in _SCORED_SPLITS for axis in axes for example in read_splits(run, axis)[split]
    ]
    items = target_items(base, [example for *_, example in examples], config.evaluate.max_tokens)
    whole = read_whole_experts(config, run, base)
    with install_experts(config, run, base) as gated:
        columns = []
        for axis in axes:
            weights, updates = fixed_form(whole, gated.names, {axis: 1.0}, len(items))
            with folded(base.model, updates):
                column = target_losses(base, items, gated, weights, config, f"score expert {axis}")
            if not bool(torch.isfinite(column).all()):
                raise TrainingError(
                    f"expert `{axis}`: non-finite loss on unseen prompts; lower `stage1.learning_rate` and train again"
                )
            columns.append(column)
    losses = torch.stack(columns, dim=1).tolist()
    document: dict[str, dict[str, list[list[float]]]] = {split: {axis: [] for axis in axes} for split in _SCORED_SPLITS}
    for (split, axis, _), row in zip(examples, losses, strict=True):
        document[split][axis].append(row)
    write_json(path, {"axes": axes, "losses": document})
    run.mark_done("expert-losses", inputs, path)


def target_items(base: BaseModel, examples: Sequence[Example], max_tokens: int) -> list[PromptAnswers]:
    """Each example's prompt with its target, in the format used at inference."""
    items = []
    for example in examples:
        encoded = base.template.encode(example, max_tokens=min(max_tokens, base.context_tokens))
        items.append(PromptAnswers(encoded.prompt_ids, [encoded.target_ids]))
    return items


def target_losses(
    base: BaseModel, items: Sequence[PromptAnswers], gated: GatedModel, weights: Tensor, config: RunConfig, what: str
) -> Tensor:
    """Mean nats a target token of every item, (n,) float64; `weights` are (n, adapters)."""
    log_probs = answer_log_probs(
        base,
        items,
        gated=gated,
        weights=weights.float(),
        batch_size=config.evaluate.batch_size,
        precision=config.evaluate.precision,
        description=what,
    )
    nats = [-found[0] / len(item.answers[0]) for found, item in zip(log_probs, items, strict=True)]
    return torch.tensor(nats, dtype=torch.float64)


def _fit(config: RunConfig, run: RunDirectory, lazy: LazyBase) -> None:
    inputs = _mocae_inputs(config, run)
    checkpoint = EndToEndCheckpoint(
        run.root / "stage2" / "checkpoint", fingerprint(inputs), config.stage2.end_to_end.checkpoint_steps
    )
    if run.is_done("mocae", inputs, run.mocae_path, run.mocae_settings_path):
        checkpoint.remove()  # a kill may have come between the record and this
        notice("mixture: up to date")
        return
    base = lazy.base
    features = read_fitting_inputs(config, run, base)
    mocae = features.fit(config.stage2)
    record: EndToEndRecord | None = None
    if config.stage2.end_to_end.enabled and not config.stage2.uniform:
        limit = min(config.evaluate.max_tokens, base.context_tokens)
        examples = [
            base.template.encode(example, max_tokens=limit)
            for axis in config.axes
            for example in read_splits(run, axis).mix
        ]
        with install_experts(config, run, base) as gated:
            mocae, record = train_end_to_end(
                base,
                gated,
                mocae,
                features.mix,
                examples,
                config.stage2,
                precision=config.stage1.precision,
                seed=config.seed,
                checkpoint=checkpoint,
            )
    # The settings go last: a mixture without them is not one, so a kill in between is noticed.
    processes.from_main(lambda: run.mocae_settings_path.unlink(missing_ok=True))
    write_tensors(run.mocae_path, mocae.tensors())
    write_json(
        run.mocae_settings_path,
        {
            "schema_version": SCHEMA_VERSION,
            **mocae.settings(),
            "end_to_end": record.document() if record is not None else None,
        },
    )
    run.mark_done("mocae", inputs, run.mocae_path, run.mocae_settings_path)
    checkpoint.remove()


def make_merge(config: RunConfig, run: RunDirectory, method: str, *, lazy: LazyBase | None = None) -> Merge:
    """Make one static merge and keep its settings in `stage2/<method>.json`.

    `uniform` and `negate` have nothing to choose; the others' coefficient is the one of `COEFFICIENTS` with the lowest
    loss on the mix split, every axis weighing the same (of DARE, at the first of its seeds).

    Raises:
        ConfigError: unknown method.
    """
    name = checked_merge(method)
    _check_stage1(config, run)
    lazy = lazy or LazyBase(config, run)
    inputs = _merge_inputs(config, run, name)
    path = run.merge_path(name)
    if run.is_done(f"merge-{name}", inputs, path):
        notice(f"{name}: up to date")
        return read_merge(run, name)
    share = 1 / len(config.axes)
    if name in {"uniform", "negate"}:
        merge = Merge(name, share if name == "uniform" else -share, config.seed)
    else:
        tried = {c: _mix_loss(config, run, lazy.base, Merge(name, c, config.seed)) for c in COEFFICIENTS}
        best = min(tried, key=tried.__getitem__)
        merge = Merge(name, best, config.seed, {f"{c:g}": loss for c, loss in tried.items()})
    write_json(path, merge.settings())
    run.mark_done(f"merge-{name}", inputs, path)
    return merge


def read_merge(run: RunDirectory, method: str) -> Merge:
    """A merge made before.

    Raises:
        ArtifactError: missing or damaged.
    """
    run.check(f"merge-{method}")
    settings = read_json(run.merge_path(method))
    try:
        return Merge.from_settings(settings)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{run.merge_path(method)}: damaged ({error}); remove it and run `alignx stage2` with --method {method}"
        ) from error


def _mix_loss(config: RunConfig, run: RunDirectory, base: BaseModel, merge: Merge) -> float:
    axes = list(config.axes)
    examples = [example for axis in axes for example in read_splits(run, axis).mix]
    ids = torch.tensor([axes.index(example.axis) for example in examples])
    items = target_items(base, examples, config.evaluate.max_tokens)
    what = f"try {merge.method} at {merge.coefficient:g}"
    whole = read_whole_experts(config, run, base)
    with install_experts(config, run, base) as gated:
        weights, updates = merge_form(whole, gated.names, merge, len(items))
        with folded(base.model, updates):
            losses = target_losses(base, items, gated, weights, config, what)
    row_weights = equal_axis_weights(ids, len(axes))
    return float((losses * row_weights).sum() / row_weights.sum())


def expert_inputs(config: RunConfig, run: RunDirectory) -> dict[str, object]:
    """What everything that is made of the experts depends on."""
    names = [*config.axes, *([SHARED] if config.stage1.shared_expert else [])]
    return {
        "axes": list(config.axes),
        "experts": {name: run.step_fingerprint(f"train-{name}") for name in names},
        "data": {axis: data_fingerprint(run, axis) for axis in config.axes},
    }


def merge_is_current(config: RunConfig, run: RunDirectory, method: str) -> bool:
    """Whether a static merge was made from the run's present experts and prompts."""
    return run.is_current(f"merge-{method}", _merge_inputs(config, run, method), run.merge_path(method))


def _scoring(config: RunConfig) -> dict[str, object]:
    return {"max_tokens": config.evaluate.max_tokens, "precision": config.evaluate.precision}


def _loss_inputs(config: RunConfig, run: RunDirectory) -> dict[str, object]:
    return expert_inputs(config, run) | _scoring(config)


def _mocae_inputs(config: RunConfig, run: RunDirectory) -> dict[str, object]:
    return {
        "losses": run.step_fingerprint("expert-losses"),
        "latent": run.step_fingerprint("finish-stage1"),
        "settings": config.stage2.model_dump(mode="json", exclude={"merges"}),
        "foreign": file_checksum(FOREIGN_DEVELOPMENT_SET)["sha256"],
        "precision": config.stage1.precision,
        "seed": config.seed,
        "best_head_reads": BEST_HEAD_READS,
    }


def _merge_inputs(config: RunConfig, run: RunDirectory, method: str) -> dict[str, object]:
    chosen_by = {"tried": COEFFICIENTS, "densities": [TIES_DENSITY, DARE_DENSITY], "seed": config.seed}
    return expert_inputs(config, run) | _scoring(config) | {"merge": method} | chosen_by


def _check_stage1(config: RunConfig, run: RunDirectory) -> None:
    missing = [axis for axis in config.axes if not all(path.is_file() for path in expert_files(config, run, axis))]
    if missing:
        check_not_pickled(run.adapter_folder(missing[0]))
        raise ArtifactError(f"{run.root}: no expert for axis `{missing[0]}`; run `alignx stage1` for it first")


def _train_features(config: RunConfig, run: RunDirectory) -> SplitFeatures:
    run.check("finish-stage1")
    signatures = [read_named_tensor(run.signature_path(axis), "signature") for axis in config.axes]
    ids = [torch.full((rows.shape[0],), number) for number, rows in enumerate(signatures)]
    return SplitFeatures(torch.cat(signatures), torch.cat(ids), torch.empty(0, len(config.axes), dtype=torch.float64))


def _split_features(
    config: RunConfig, run: RunDirectory, base: BaseModel, space: LatentSpace, split: str
) -> SplitFeatures:
    document = read_json(run.root / "stage2" / "expert_losses.json")
    examples = [example for axis in config.axes for example in read_splits(run, axis)[split]]
    ids = [number for number, axis in enumerate(config.axes) for _ in read_splits(run, axis)[split]]
    losses = [row for axis in config.axes for row in document["losses"][split][axis]]
    return SplitFeatures(
        read_signatures(base, space, encode_prompts(base, examples), what=f"read {split} prompts"),
        torch.tensor(ids),
        torch.tensor(losses, dtype=torch.float64),
    )


def _foreign_kinds() -> Tensor:
    """Kind of each foreign development prompt, as a number."""
    kinds = [str(row["kind"]) for row in read_rows(FOREIGN_DEVELOPMENT_SET)]
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    return torch.tensor([numbers[kind] for kind in kinds])


def _foreign_signatures(base: BaseModel, space: LatentSpace) -> Tensor:
    prompts = [base.template.encode_prompt(str(row["prompt"])) for row in read_rows(FOREIGN_DEVELOPMENT_SET)]
    return read_signatures(base, space, prompts, what="read foreign prompts")
