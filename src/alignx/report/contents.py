"""What a report says: a run's figures and records gathered in one place, for the page and for markdown alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from alignx.config import RunConfig
from alignx.errors import ArtifactError
from alignx.evaluate.ablation.pipeline import ABLATE, read_ablation
from alignx.evaluate.cost import COST, read_cost
from alignx.evaluate.methods import made_now
from alignx.evaluate.pipeline import TEST, read_metrics
from alignx.evaluate.probe.pipeline import PROBE, read_probe
from alignx.evaluate.tradeoff.pipeline import TRADEOFF, read_tradeoff
from alignx.evaluate.variability import VARIABILITY, read_variability
from alignx.inspect.contents import expert_geometry
from alignx.progress import notice
from alignx.report.ablation import ablation_section
from alignx.report.answers import AnswerGroup, group_answers
from alignx.report.cost import cost_section
from alignx.report.diagnosis import diagnosis_section
from alignx.report.extremes import extremes_section
from alignx.report.headline import headline_section
from alignx.report.judges import JudgePart, average_tables, judge_parts
from alignx.report.probe import probe_section
from alignx.report.provenance import data_table, environment_table, model_table
from alignx.report.section import Section
from alignx.report.summary import KeyFigure, key_figures, limitations, takeaways
from alignx.report.tables import (
    Table,
    calibration_table,
    confusion_table,
    likelihood_table,
    loss_table,
    mixture_table,
    routing_facts_table,
    versus_table,
)
from alignx.report.tradeoff_section import tradeoff_section
from alignx.report.training import TrainingPart, gather_training
from alignx.report.variability import variability_section
from alignx.runs.directory import RunDirectory
from alignx.runs.files import read_json, read_jsonl

SHOWCASE = "showcase"
# Kept beside the evaluations, and shown in sections of their own.
_STALE = "These scores are of other experts or another mixture than the run has now; run `alignx evaluate` again."
_MEASURES = {ABLATE, COST, PROBE, TRADEOFF, VARIABILITY}
_KEYS = frozenset(
    {
        "judge",
        "prompt_style",
        "model",
        "seed",
        "n",
        "left_out_because_trained",
        "loss",
        "loss_interval",
        "regret",
        "alignx_versus",
        "likelihood",
        "calibration",
        "routing",
        "environment",
    }
)


@dataclass(frozen=True)
class EvaluationPart:
    """One evaluation in words and tables; `metrics` is for the pictures."""

    name: str
    metrics: Mapping[str, Any]
    summary: str
    key_figures: Sequence[KeyFigure]
    loss: Table
    versus: Table
    calibration: Table
    mixture: Table
    confusion: Table
    routing_facts: Table
    likelihood: Table
    left_out: str
    averages: Sequence[Table]
    judges: Sequence[JudgePart]


@dataclass(frozen=True)
class Contents:
    """Everything a report says, in its order.

    Attributes:
        model: name of the base model.
        axes: names of the axes.
        main: the evaluation on the run's own test split.
        others: evaluations on other folders, by name.
        answers: the showcase; empty when the run has none.
        training: what Stage 1 recorded.
        limitations: what the report does not show.
        provenance: model, data and environment.
        config: the resolved config as YAML.
        opening: sections that follow the summary.
        sections: sections that follow the main evaluation.
    """

    model: str
    axes: Sequence[str]
    main: EvaluationPart
    others: Sequence[EvaluationPart]
    answers: Sequence[AnswerGroup]
    training: TrainingPart
    limitations: Sequence[str]
    provenance: Sequence[Table]
    config: str
    opening: Sequence[Section] = ()
    sections: Sequence[Section] = ()


def gather(run: RunDirectory) -> Contents:
    """Read everything that a report needs.

    Raises:
        ArtifactError: the run was not evaluated, or a file is missing or damaged.
    """
    main = _evaluation(run, TEST)
    config, trained_in = run.read_config(), run.read_environment()
    splits = read_json(run.splits_path)
    folder = run.evaluation_folder(TEST).parent
    names = sorted(path.parent.name for path in folder.glob("*/metrics.json"))
    answers_path = run.evaluation_folder(SHOWCASE) / "answers.jsonl"
    axes = list(config.axes)
    licences = {axis: str(record["licence"]) for axis, record in splits["axes"].items()}
    return Contents(
        model=config.model,
        axes=axes,
        main=replace(main, averages=()),  # they stand in the headline
        others=[_evaluation(run, name) for name in names if name not in {TEST, *_MEASURES}],
        answers=group_answers(read_jsonl(answers_path), answers_path) if answers_path.is_file() else [],
        training=gather_training(run, axes),
        limitations=limitations(main.metrics, licences),
        provenance=[
            model_table(run, config, main.metrics),
            data_table(splits),
            environment_table(trained_in, main.metrics["environment"]),
        ],
        config=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        opening=[headline_section(main.metrics)],
        sections=_sections(config, run, main.metrics),
    )


def _sections(config: RunConfig, run: RunDirectory, metrics: Mapping[str, Any]) -> list[Section]:
    """Sections of their own that this run has something for, in order."""

    def current(figures: dict[str, Any] | None, command: str) -> dict[str, Any] | None:
        if figures is None or made_now(figures, config, run):
            return figures
        notice(f"{run.root}: {command}'s figures are of other experts or another mixture; left out until it runs again")
        return None

    swept, probed = read_tradeoff(run), current(read_probe(run), "alignx probe")
    has_ablation = (run.evaluation_folder(ABLATE) / "metrics.json").is_file()
    ablated = current(read_ablation(run), "alignx ablate") if has_ablation else None
    found = [
        tradeoff_section(swept) if swept else None,
        ablation_section(ablated) if ablated else None,
        diagnosis_section(metrics, expert_geometry(config, run)),
        probe_section(probed) if probed else None,
        extremes_section(config, run, metrics),
        cost_section(current(read_cost(run), "alignx cost")),
        variability_section(current(read_variability(run), "alignx variability")),
    ]
    return [section for section in found if section is not None]


def _evaluation(run: RunDirectory, name: str) -> EvaluationPart:
    metrics = read_metrics(run, name)
    missing = sorted(_KEYS - metrics.keys())
    if missing:
        path = run.evaluation_folder(name) / "metrics.json"
        raise ArtifactError(f"{path}: `{missing[0]}` is missing; run `alignx evaluate {run.root}`, without --judges")
    left_out = {axis: count for axis, count in metrics["left_out_because_trained"].items() if count}
    stale = [] if made_now(metrics, run.read_config(), run) else [_STALE]
    if stale:
        notice(f"{run.root}: {_STALE}")
    return EvaluationPart(
        name=name,
        metrics=metrics,
        summary=" ".join([*stale, *takeaways(metrics)]),
        key_figures=key_figures(metrics),
        loss=loss_table(metrics),
        versus=versus_table(metrics),
        calibration=calibration_table(metrics),
        mixture=mixture_table(metrics),
        confusion=confusion_table(metrics),
        routing_facts=routing_facts_table(metrics),
        likelihood=likelihood_table(metrics),
        left_out=", ".join(f"{axis} {count}" for axis, count in left_out.items()),
        averages=average_tables(metrics),
        judges=judge_parts(metrics),
    )
