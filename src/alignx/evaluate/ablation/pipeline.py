"""The ablation table of a finished run: variants refitted from kept features, their mixtures scored on test prompts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignx.config import RunConfig
from alignx.data.prepare import read_splits
from alignx.errors import ArtifactError
from alignx.evaluate.ablation.beside import beside_rows
from alignx.evaluate.ablation.figures import RowPrompt, aligned_losses, by_seed, parsed_rows, row_figures
from alignx.evaluate.ablation.losses import KeptLosses
from alignx.evaluate.ablation.variants import BESIDE, PARTS, Variant, choose, variants
from alignx.evaluate.methods import ALIGNX, sources
from alignx.models.lazy import LazyBase
from alignx.models.precision import resolved_precision
from alignx.progress import notice
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.environment import describe_environment
from alignx.runs.files import read_json, read_jsonl, write_json, write_jsonl
from alignx.stage1.extracts import encode_prompts, read_latent_space
from alignx.stage2.experts import gate_weights, install_experts
from alignx.stage2.fit import FittingInputs
from alignx.stage2.mocae import Mocae
from alignx.stage2.narrower import Narrowing
from alignx.stage2.pipeline import check_current, read_fitting_inputs, read_mocae, read_signatures, target_items
from alignx.stage2.whole import WholeExperts, fixed_form, read_whole_experts

ABLATE = "ablate"


@dataclass(frozen=True)
class AblationOptions:
    """What is asked for.

    Attributes:
        only: rows or groups; empty: all.
        limit: most test prompts of each axis; none: all.
        sweep_limit: most prompts of each axis on which the rows of a sweep are scored; their calibration is measured on
            all prompts, which costs nothing.
        beside: other finished runs whose AlignX is a row.
    """

    only: tuple[str, ...] = ()
    limit: int | None = None
    sweep_limit: int = 40
    beside: tuple[Path, ...] = ()


def run_ablation(
    config: RunConfig, run: RunDirectory, options: AblationOptions, *, lazy: LazyBase | None = None
) -> dict[str, Any]:
    """Make the ablation table of a run whose Stage 2 is finished; see `docs/ablations.md`.

    Returns:
        What `eval/ablate/metrics.json` holds.

    Raises:
        AlignXError: the run is not finished, or a step could not be done.
    """
    mocae = read_mocae(run)
    check_current(config, run)
    found = choose(variants(config.stage2, mocae.widths, shared_expert=config.stage1.shared_expert), options.only)
    beside = [RunDirectory(path) for path in options.beside]
    inputs = _inputs(config, run, options, [variant.name for variant in found], beside)
    folder = run.evaluation_folder(ABLATE)
    paths = (folder / "metrics.json", folder / "prompts.jsonl")
    if run.is_done(ABLATE, inputs, *paths):
        notice("ablations: up to date")
        return read_ablation(run)
    lazy = lazy or LazyBase(config, run)
    table = _Table(config, run, lazy, mocae, options)
    rows = table.rows(found)
    others = [beside_rows(config, other, table.examples) for other in beside]
    rows += [row for _, other in others for row in other]
    labels = {variant.name: (variant.label, variant.group) for variant in found}
    labels |= {name: (name, BESIDE) for name, _ in others}
    metrics = metrics_of(rows, labels, config) | {
        "limit": options.limit,
        "sweep_limit": options.sweep_limit,
        "made_from": {ALIGNX: sources(config, run)[ALIGNX]},
        "environment": describe_environment(),
    }
    for row in metrics["rows"]:
        row["foreign_auroc"] = table.aurocs.get(row["name"])
    write_jsonl(paths[1], [asdict(row) for row in rows])
    write_json(paths[0], metrics)
    run.mark_done(ABLATE, inputs, *paths)
    notice(f"ablations: {len(metrics['rows'])} rows, {table.kept.n_scored} prompts scored")
    return metrics


def metrics_of(rows: Sequence[RowPrompt], labels: dict[str, tuple[str, str]], config: RunConfig) -> dict[str, Any]:
    """Figures of every row of a table, in the order of `labels` (name -> label and group)."""
    aligned = aligned_losses(rows)
    axes = list(config.axes)
    by_variant: dict[str, list[RowPrompt]] = {name: [] for name in labels}
    for row in rows:
        by_variant[row.variant].append(row)
    settings = config.evaluate
    figures = []
    for name, (label, group) in labels.items():
        document = row_figures(
            by_variant[name],
            aligned,
            axes,
            tie_tolerance=config.stage2.tie_tolerance,
            n_bins=settings.calibration_bins,
            n_draws=settings.bootstrap_draws,
            seed=config.seed,
        )
        row_head = {"name": name, "label": label, "group": group}
        figures.append(row_head | document | {"by_seed": by_seed(by_variant[name], aligned)})
    return {
        "name": ABLATE,
        "model": config.model,
        "seeds": sorted({row.seed for row in rows}),
        "axes": axes,
        "precision": resolved_precision(settings.precision),
        "rows": figures,
    }


def read_ablation(run: RunDirectory) -> dict[str, Any]:
    """A run's ablation table.

    Raises:
        ArtifactError: it was not made, or is damaged.
    """
    path = run.evaluation_folder(ABLATE) / "metrics.json"
    if not path.is_file():
        raise ArtifactError(f"{run.root}: no ablations yet; run `alignx ablate {run.root}`")
    run.check(ABLATE)
    metrics: dict[str, Any] = read_json(path)
    if not isinstance(metrics, dict) or not {"rows", "axes", "seeds"} <= metrics.keys():
        raise ArtifactError(f"{path}: damaged; remove it and run `alignx ablate {run.root}`")
    return metrics


def read_ablation_rows(run: RunDirectory) -> list[RowPrompt]:
    """Its prompts.

    Raises:
        ArtifactError: missing or damaged.
    """
    path = run.evaluation_folder(ABLATE) / "prompts.jsonl"
    run.check(ABLATE)
    return parsed_rows(read_jsonl(path), path)


def _inputs(
    config: RunConfig, run: RunDirectory, options: AblationOptions, names: list[str], beside: list[RunDirectory]
) -> dict[str, Any]:
    return {
        "mocae": run.step_fingerprint("mocae"),
        "rows": names,
        "limits": [options.limit, options.sweep_limit],
        "evaluate": config.evaluate.model_dump(mode="json", include=_EVALUATE_FIELDS),
        "precision": resolved_precision(config.evaluate.precision),
        "beside": [[str(other.root), other.step_fingerprint("mocae"), _evaluated(other)] for other in beside],
    }


_EVALUATE_FIELDS = {"max_tokens", "bootstrap_draws", "calibration_bins"}


def _evaluated(run: RunDirectory) -> str:
    path = run.root / "steps" / "evaluate-test.json"
    return fingerprint(read_json(path)) if path.is_file() else ""


class _Table:
    """Everything the rows are made from, read once."""

    def __init__(
        self, config: RunConfig, run: RunDirectory, lazy: LazyBase, mocae: Mocae, options: AblationOptions
    ) -> None:
        self.config, self.run, self.mocae, self.options = config, run, mocae, options
        self.axes = list(config.axes)
        self.examples = [e for axis in self.axes for e in read_splits(run, axis).test[: options.limit]]
        self.aurocs: dict[str, float] = {}
        base = lazy.base
        self._base = base
        self._inputs: FittingInputs = read_fitting_inputs(config, run, base)
        prompts = encode_prompts(base, self.examples)
        self._signatures = read_signatures(base, read_latent_space(run), prompts, what="read test prompts")
        self._narrowed = cache(lambda k: Narrowing(self._inputs, k))
        self._whole: WholeExperts = read_whole_experts(config, run, base)

    def rows(self, found: Sequence[Variant]) -> list[RowPrompt]:
        """All rows' prompts; losses that are kept are not made again."""
        items = target_items(self._base, self.examples, self.config.evaluate.max_tokens)
        everything = list(range(len(items)))
        with install_experts(self.config, self.run, self._base) as gated:
            self._gated = gated
            self.kept = KeptLosses(self.config, self.run, self._base, gated, items, self._made_from())
            self._experts = torch.stack(
                [self._fixed({axis: 1.0}, everything, f"expert {axis}") for axis in self.axes], dim=1
            )
            return [row for variant in found for row in self._rows_of(variant)]

    def _rows_of(self, variant: Variant) -> list[RowPrompt]:
        mocae, signatures = self._fitted(variant)
        routing = mocae.route(signatures)
        pi, scale = variant.weigh(mocae, routing, signatures)
        rows = self._scored_rows(variant)
        if variant.fixed:
            coefficients = dict(zip(self.axes, pi[0].tolist(), strict=True))
            losses = self._fixed(coefficients, rows, variant.name)
        else:
            weights = gate_weights(self._gated.names, self.axes, pi[rows], scale[rows]).float()
            losses = self.kept.losses(rows, weights, {}, variant.name)
        by_row = dict(zip(rows, losses.tolist(), strict=True))
        probs = variant.read_outs(mocae, routing, signatures) if variant.read_outs else None
        if probs is not None:
            self.aurocs[variant.name] = mocae.detector.auroc[mocae.detector.depth]
        return [
            RowPrompt(
                variant.name,
                self.config.seed,
                example.prompt_hash,
                example.axis,
                by_row.get(row),
                pi[row].tolist(),
                probs[0][row].tolist() if probs else None,
                probs[1][row].tolist() if probs else None,
                self._experts[row].tolist(),
            )
            for row, example in enumerate(self.examples)
        ]

    def _fitted(self, variant: Variant) -> tuple[Mocae, Tensor]:
        """The row's mixture, and the test prompts as it sees them."""
        if variant.source == "own":
            return self.mocae, self._signatures
        settings = variant.settings(self.config.stage2)
        notice(f"fit {variant.name}")
        if variant.latent_size is None:
            # No setting changes the plain router, which takes longest to fit.
            router = (self.mocae.router_weight, self.mocae.router_bias)
            return self._inputs.fit(settings, router=router), self._signatures
        narrowing = self._narrowed(variant.latent_size)
        return narrowing.fitting_inputs().fit(settings), narrowing.signatures(self._signatures)

    def _fixed(self, coefficients: dict[str, float], rows: Sequence[int], name: str) -> Tensor:
        weights, updates = fixed_form(self._whole, self._gated.names, coefficients, len(rows))
        return self.kept.losses(rows, weights, updates, name)

    def _scored_rows(self, variant: Variant) -> list[int]:
        if variant.group == PARTS:
            return list(range(len(self.examples)))
        counts: dict[str, int] = {}
        rows = []
        for row, example in enumerate(self.examples):
            counts[example.axis] = counts.get(example.axis, 0) + 1
            if counts[example.axis] <= self.options.sweep_limit:
                rows.append(row)
        return rows

    def _made_from(self) -> str:
        names = [*self.axes, *(["shared"] if self.config.stage1.shared_expert else [])]
        return fingerprint([self.run.step_fingerprint(f"train-{name}") for name in names])
