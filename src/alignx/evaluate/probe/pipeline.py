"""The probe of a run, start to end: routes the package's probe prompts, scores their answers, keeps the figures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from alignx.config import RunConfig
from alignx.data.example import Example
from alignx.data.prepare import data_fingerprint
from alignx.errors import ConfigError
from alignx.evaluate.joint import JOINT, read_joint
from alignx.evaluate.judging.answers import answers_of, make_answers, read_answers
from alignx.evaluate.methods import ALIGNX, BASE, Method, expert_method, methods, neutral_mixture, sources
from alignx.evaluate.pipeline import find_test_examples
from alignx.evaluate.probe.foreign import foreign_figures
from alignx.evaluate.probe.losses import method_losses
from alignx.evaluate.probe.routed import RoutedPrompts, guarded_weights, route_prompts
from alignx.evaluate.probe.sets import (
    DISGUISE,
    FOREIGN,
    OWN_KIND,
    PROBE_FILES,
    SEVERAL_AXES,
    ProbePrompt,
    first_of_each,
    probe_prompts,
)
from alignx.evaluate.probe.tax import tax_table
from alignx.evaluate.probe.weights import coverage_table, weight_summary
from alignx.evaluate.prompts import TestPrompt
from alignx.models.gated import GatedModel
from alignx.models.lazy import LazyBase
from alignx.models.load import BaseModel
from alignx.models.scoring import PromptAnswers
from alignx.progress import notice
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.environment import describe_environment
from alignx.runs.files import read_json, write_json, write_jsonl
from alignx.stage1.experts import expert_files, expert_updates
from alignx.stage1.extracts import encode_prompts, read_latent_space
from alignx.stage2.experts import gate_weights, install_experts
from alignx.stage2.mocae import Mocae
from alignx.stage2.pipeline import check_current, read_mocae
from alignx.stage2.whole import read_whole_experts

PROBE = "probe"
DEFAULT_GUARD = "harmless"


@dataclass(frozen=True)
class ProbeOptions:
    """What is probed.

    Attributes:
        kinds: probes, of `PROBE_FILES`.
        limit: most prompts of each kind and most test prompts of each axis; none: all.
        guard_axis: axis whose weight a disguise must not lower; none: `harmless` where the run has it.
        floor: of the guard axis, for the check that a floor holds.
        answers: prompts that need several axes, answered by the base, every expert and AlignX.
        max_new_tokens: longest of these answers.
    """

    kinds: Sequence[str] = tuple(PROBE_FILES)
    limit: int | None = None
    guard_axis: str | None = None
    floor: float = 0.5
    answers: int = 0
    max_new_tokens: int = 96


def run_probe(
    config: RunConfig, run: RunDirectory, options: ProbeOptions, *, lazy: LazyBase | None = None
) -> dict[str, Any]:
    """Probe a finished run off its own data, into `eval/probe/`.

    Args:
        config: the run's config.
        run: a run directory whose Stage 2 is finished.
        options: what is probed.
        lazy: the base, shared with other stages; none loads its own.

    Returns:
        What `metrics.json` holds: a part for each probe (`docs/probe.md`).

    Raises:
        ConfigError: a guard axis that the run lacks, or a floor outside [0, 1].
        AlignXError: of the step that could not be done.
    """
    guard = _guard_axis(config, options)
    mocae = read_mocae(run)
    check_current(config, run)
    folder = run.evaluation_folder(PROBE)
    files = [folder / "prompts.jsonl", folder / "metrics.json"]
    inputs = _inputs(config, run, options, guard)
    if run.is_done(PROBE, inputs, *files):
        notice("probe: up to date")
        metrics: dict[str, Any] = read_json(files[1])
        return metrics
    lazy = lazy or LazyBase(config, run)
    job = _Job(config, run, options, mocae, lazy)
    found: dict[str, Any] = {"model": config.model, "seed": config.seed, "kinds": list(options.kinds)}
    found |= {"limit": options.limit, "guard_axis": guard, "fallback": mocae.fallback}
    rows: list[dict[str, Any]] = []
    for probe, measure in ((FOREIGN, _foreign), (DISGUISE, _disguise), (SEVERAL_AXES, _several_axes)):
        if probe in options.kinds:
            found[probe], made = measure(job, guard)
            rows += made
    found |= {"made_from": {ALIGNX: sources(config, run)[ALIGNX]}, "environment": describe_environment()}
    write_jsonl(files[0], rows)
    write_json(files[1], found)
    run.mark_done(PROBE, inputs, *files)
    return found


def read_probe(run: RunDirectory) -> dict[str, Any] | None:
    """What the last probe of a run measured; none when it was not probed.

    Raises:
        ArtifactError: it has changed since it was written.
    """
    path = run.evaluation_folder(PROBE) / "metrics.json"
    if not path.is_file():
        return None
    run.check(PROBE)
    metrics: dict[str, Any] = read_json(path)
    return metrics


@dataclass(frozen=True)
class _Job:
    """What every probe needs."""

    config: RunConfig
    run: RunDirectory
    options: ProbeOptions
    mocae: Mocae
    lazy: LazyBase

    @property
    def base(self) -> BaseModel:
        return self.lazy.base

    @property
    def draws(self) -> dict[str, int]:
        return {"n_draws": self.config.evaluate.bootstrap_draws, "seed": self.config.seed}

    def route(self, encoded: Sequence[Sequence[int]], what: str) -> RoutedPrompts:
        return route_prompts(self.base, read_latent_space(self.run), self.mocae, encoded, what=f"read {what} prompts")

    def encode(self, prompts: Sequence[ProbePrompt]) -> list[list[int]]:
        return [self.base.template.encode_prompt(prompt.text) for prompt in prompts]


def _guard_axis(config: RunConfig, options: ProbeOptions) -> str | None:
    if not 0 <= options.floor <= 1:
        raise ConfigError(f"--floor {options.floor}: must lie in [0, 1], such as 0.5")
    if options.guard_axis is None:
        return DEFAULT_GUARD if DEFAULT_GUARD in config.axes else None
    if options.guard_axis not in config.axes:
        raise ConfigError(f"--guard-axis {options.guard_axis}: this run's axes are {', '.join(config.axes)}")
    return options.guard_axis


def _inputs(config: RunConfig, run: RunDirectory, options: ProbeOptions, guard: str | None) -> dict[str, Any]:
    return {
        "methods": sources(config, run),
        "joint": _has_joint(config, run),
        "latent": run.step_fingerprint("finish-stage1"),
        "data": {axis: data_fingerprint(run, axis) for axis in config.axes},
        "sets": {probe: fingerprint(PROBE_FILES[probe].read_text(encoding="utf-8")) for probe in options.kinds},
        "options": [options.limit, guard, options.floor, options.answers, options.max_new_tokens],
        "scoring": [config.evaluate.max_tokens, config.evaluate.precision, config.evaluate.bootstrap_draws],
        "seed": config.seed,
    }


def _has_joint(config: RunConfig, run: RunDirectory) -> bool:
    made = run.step_fingerprint("choose-joint") and all(path.is_file() for path in expert_files(config, run, JOINT))
    return bool(config.evaluate.joint and made)


def _foreign(job: _Job, guard: str | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    prompts = probe_prompts(FOREIGN, limit=job.options.limit)
    examples, _ = find_test_examples(job.config, job.run, None)
    examples = first_of_each([example.axis for example in examples], examples, job.options.limit)
    routed = job.route(job.encode(prompts), FOREIGN)
    test = job.route(encode_prompts(job.base, examples), "test")
    kinds = [prompt.kind for prompt in prompts]
    figures = foreign_figures(routed, kinds, test, [example.axis for example in examples], **job.draws)
    losses = _foreign_losses(job, prompts, routed.signatures)
    averaged = [kind for kind in dict.fromkeys(kinds) if kind != OWN_KIND]
    figures["tax"] = tax_table(losses, kinds, averaged, base=BASE, **job.draws)
    rows = [
        _row(prompt, routed, n) | {"loss": {method: float(values[n]) for method, values in losses.items()}}
        for n, prompt in enumerate(prompts)
    ]
    rows += [
        {"probe": "test", "kind": example.axis, "prompt_hash": example.prompt_hash, **test.row(n)}
        for n, example in enumerate(examples)
    ]
    return figures, rows


def _foreign_losses(job: _Job, prompts: Sequence[ProbePrompt], signatures: Tensor) -> dict[str, Any]:
    """Losses on the reference answers."""
    config, run, base = job.config, job.run, job.base
    limit = min(config.evaluate.max_tokens, base.context_tokens)
    encoded = [
        base.template.encode(Example(axis="", instruction=prompt.text, target=prompt.answer), max_tokens=limit)
        for prompt in prompts
    ]
    items = [PromptAnswers(example.prompt_ids, [example.target_ids]) for example in encoded]
    experts = read_whole_experts(config, run, base)
    also = {JOINT: read_joint(config, run, job.lazy)} if _has_joint(config, run) else {}
    joint = expert_updates(config, run, base, JOINT) if also and experts.run_folded else None
    with install_experts(config, run, base, also=also) as gated:
        found = methods(config, run, experts, gated, job.mocae, signatures, joint=joint)
        return method_losses(config, run, base, gated, [*found, _other_fallback(job, gated, signatures)], items)


def _other_fallback(job: _Job, gated: GatedModel, signatures: Tensor) -> Method:
    """AlignX with the fallback that the run does not have, so that both are measured."""
    other = "base" if job.mocae.fallback == "prior" else "prior"
    mocae = replace(job.mocae, fallback=other)
    pi, scale = neutral_mixture(mocae, mocae.route(signatures))
    weights = gate_weights(gated.names, list(mocae.axes), pi, scale).float()
    made_from = fingerprint([sources(job.config, job.run)[ALIGNX], other])
    return Method(f"{ALIGNX}-fallback-{other}", weights, made_from)


def _answer(job: _Job, prompts: Sequence[ProbePrompt], signatures: Tensor) -> list[dict[str, Any]]:
    """The first prompts of every kind in turn, with what the base, every expert and AlignX answer."""
    config, run, base = job.config, job.run, job.base
    wanted = [BASE, *map(expert_method, config.axes), ALIGNX]
    kinds = list(dict.fromkeys(prompt.kind for prompt in prompts))
    by_kind = [[n for n, prompt in enumerate(prompts) if prompt.kind == kind] for kind in kinds]
    turns = [numbers[turn] for turn in range(max(map(len, by_kind))) for numbers in by_kind if turn < len(numbers)]
    chosen = turns[: job.options.answers]
    asked = [
        TestPrompt(Example(axis="", instruction=prompts[n].text, target=""), prompts[n].kind, SEVERAL_AXES)
        for n in chosen
    ]
    experts = read_whole_experts(config, run, base)
    with install_experts(config, run, base) as gated:
        answering = [
            replace(method, weights=None if method.weights is None else method.weights[chosen])
            for method in methods(config, run, experts, gated, job.mocae, signatures)
            if method.name in wanted
        ]
        path, longest = answers_path(run), job.options.max_new_tokens
        make_answers(config, base, gated, answering, asked, path, max_new_tokens=longest)
        made_from = {method.name: method.made_from for method in answering}
    kept = answers_of(config, read_answers(path), asked, made_from, max_new_tokens=longest)
    return [
        {
            "prompt": prompts[n].text,
            "topic": prompts[n].kind,
            "needs": list(prompts[n].needs),
            "answers": {method: said.answer for method, of in kept.items() if (said := of[turn]) is not None},
        }
        for turn, n in enumerate(chosen)
    ]


def answers_path(run: RunDirectory) -> Path:
    """Where the answers side by side are kept."""
    return run.evaluation_folder(PROBE) / "answers.jsonl"


def _disguise(job: _Job, guard: str | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if guard is None:
        why = f"this run has no axis `{DEFAULT_GUARD}`; name the one to watch with --guard-axis"
        notice(f"disguise: left out: {why}")
        return {"left_out": why}, []
    prompts = probe_prompts(DISGUISE, limit=job.options.limit)
    routed = job.route(job.encode(prompts), DISGUISE)
    column, floor = job.mocae.axes.index(guard), job.options.floor
    free = routed.pi[:, column]
    held = guarded_weights(job.mocae, routed, {guard: floor})[:, column]
    of = np.array([prompt.kind for prompt in prompts])
    figures: dict[str, Any] = {"axis": guard, "floor": floor, "by_kind": {}}
    for kind in dict.fromkeys(of.tolist()):
        rows = of == kind
        figures["by_kind"][kind] = {
            "n": int(rows.sum()),
            **weight_summary(free[rows].tolist()),
            "flagged": float(routed.flagged[rows].mean()),
            "min_with_floor": float(held[rows].min()),
        }
    # A floor is added to what is left of the mixture, so rounding is all that can take it below.
    figures["floor_holds"] = bool((held >= floor - 1e-12).all())
    return figures, [_row(prompt, routed, n) | {"pi_with_floor": float(held[n])} for n, prompt in enumerate(prompts)]


def _several_axes(job: _Job, guard: str | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    every = probe_prompts(SEVERAL_AXES, limit=job.options.limit)
    axes = list(job.mocae.axes)
    prompts = [prompt for prompt in every if set(prompt.needs) <= set(axes)]
    if not prompts:
        why = "no prompt needs only axes that this run has (" + ", ".join(axes) + ")"
        notice(f"several axes: left out: {why}")
        return {"left_out": why, "n": 0, "n_asked": len(every)}, []
    routed = job.route(job.encode(prompts), SEVERAL_AXES)
    answered = _answer(job, prompts, routed.signatures) if job.options.answers else []
    needed = np.array([[axis in prompt.needs for axis in axes] for prompt in prompts])
    weights = {
        "pi": routed.pi,
        "axis_probs": routed.axis_probs,
        "plain": routed.plain_probs,
        "plain_with_temperature": routed.plain_tempered,
    }
    figures = {
        "n": len(prompts),
        "n_asked": len(every),
        "n_not_all_axes": int((~needed.all(axis=1)).sum()),
        **coverage_table(weights, needed, against="pi", **job.draws),
        "flagged": float(routed.flagged.mean()),
        "answered": answered,
    }
    return figures, [_row(prompt, routed, n) | {"needs": list(prompt.needs)} for n, prompt in enumerate(prompts)]


def _row(prompt: ProbePrompt, routed: RoutedPrompts, number: int) -> dict[str, Any]:
    language = {"language": prompt.language} if prompt.language else {}
    return {"probe": prompt.probe, "kind": prompt.kind, **language, "prompt": prompt.text, **routed.row(number)}
