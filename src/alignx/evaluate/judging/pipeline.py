"""Judging, start to end: answers that are missing, questions that are missing, figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from alignx.config import RunConfig
from alignx.errors import ConfigError
from alignx.evaluate.joint import JOINT, JOINT_MR, read_joint, train_joint, train_joint_mr
from alignx.evaluate.judges.budget import Budget
from alignx.evaluate.judges.interface import Judge
from alignx.evaluate.judges.registry import make_judges
from alignx.evaluate.judges.settings import JudgeSettings
from alignx.evaluate.judging.answers import KeptAnswer, answer_key, answers_of, make_answers, read_answers
from alignx.evaluate.judging.asking import ask_all, missing_items
from alignx.evaluate.judging.figure import Certainty, Scores
from alignx.evaluate.judging.notes import read_checks, read_notes, write_note
from alignx.evaluate.judging.rows import (
    Ask,
    JudgedRow,
    as_document,
    judged_row,
    left_out_prompts,
    questions_to,
    read_judged,
)
from alignx.evaluate.judging.scores import judge_figures
from alignx.evaluate.judging.verdicts import VerdictStore
from alignx.evaluate.methods import BASE, is_main, joints, methods, sources
from alignx.evaluate.pipeline import evaluation_folder_name, find_test_examples
from alignx.evaluate.prompts import TestPrompt, judged_prompts
from alignx.evaluate.statistics.win_rate import win_rate
from alignx.models.lazy import LazyBase
from alignx.progress import notice
from alignx.runs import processes
from alignx.runs.directory import RunDirectory
from alignx.runs.files import read_json, read_jsonl, write_json, write_jsonl
from alignx.stage1.experts import expert_updates
from alignx.stage1.extracts import encode_prompts, read_latent_space
from alignx.stage2.experts import install_experts
from alignx.stage2.pipeline import check_current, read_mocae, read_signatures
from alignx.stage2.whole import read_whole_experts

DEFAULT_ANSWER_TOKENS = 256
# Characters a token, to guess the length of an answer that is not there yet.
_CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True)
class JudgingOptions:
    """What is judged by whom, and how much it may take.

    Attributes:
        judges: names of `JUDGE_NAMES`.
        methods: methods that answer; empty: base, experts, joint, uniform and AlignX.
        baseline: method that win rates are against.
        limit: most prompts of each group; none: all.
        max_new_tokens: longest answer.
        settings: of the judges.
        max_calls: most requests, retries among them; none: any number.
        max_cost: most US dollars; none: any amount.
        concurrency: requests at a time.
        coverage_floor: share of answers that must be scored for a figure to have a value.
    """

    judges: Sequence[str]
    methods: Sequence[str] = ()
    baseline: str = BASE
    limit: int | None = None
    max_new_tokens: int = DEFAULT_ANSWER_TOKENS
    settings: JudgeSettings = JudgeSettings()
    max_calls: int | None = None
    max_cost: float | None = None
    concurrency: int = 16
    coverage_floor: float = 0.95


@dataclass(frozen=True)
class PlannedJudge:
    """What asking one judge would take.

    Attributes:
        name: of the judge.
        model: of the judge.
        kept: questions whose verdict is kept.
        to_ask: questions to ask, those about answers that are not there yet among them.
        prompt_tokens: about how many.
        completion_tokens: at most about.
        cost: US dollars; none when prices are unknown.
    """

    name: str
    model: str
    kept: int
    to_ask: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None


@dataclass(frozen=True)
class Plan:
    """What judging would take; nothing was done."""

    answers_kept: int
    answers_missing: int
    judges: Sequence[PlannedJudge]


@dataclass(frozen=True)
class _Work:
    """What both a plan and its execution start from."""

    name: str
    all_prompts: Sequence[TestPrompt]
    prompts: Sequence[TestPrompt]
    sources: Mapping[str, str]
    asked: Sequence[str]
    answers_path: Path

    @property
    def chosen(self) -> dict[str, str]:
        return {method: self.sources[method] for method in self.asked}


def plan_judging(
    config: RunConfig, run: RunDirectory, options: JudgingOptions, *, test_data: Path | None = None
) -> Plan:
    """Count answers, questions, tokens and price, without a model and without a request.

    Raises:
        AlignXError: options or files that cannot be used.
    """
    work = _work(config, run, options, test_data)
    kept = answers_of(
        config, read_answers(work.answers_path), work.prompts, work.chosen, max_new_tokens=options.max_new_tokens
    )
    n_missing = sum(answer is None for rows in kept.values() for answer in rows)
    guessed = {
        method: [
            answer or _guessed(prompt, method, options.max_new_tokens)
            for answer, prompt in zip(rows, work.prompts, strict=True)
        ]
        for method, rows in kept.items()
    }
    judges = make_judges(options.judges, options.settings, Budget())
    with VerdictStore(verdicts_path(run)) as store:
        planned = [
            _planned(judge, _judged_answers(options, guessed), guessed[options.baseline], store) for judge in judges
        ]
    return Plan(sum(map(len, kept.values())) - n_missing, n_missing, planned)


def run_judging(
    config: RunConfig,
    run: RunDirectory,
    options: JudgingOptions,
    *,
    test_data: Path | None = None,
    lazy: LazyBase | None = None,
) -> dict[str, Any]:
    """Answer, judge and score; what is kept from before is not made again.

    Args:
        config: the run's config.
        run: a run directory whose Stage 2 is finished.
        options: who is asked what.
        test_data: folder of other test data, as in `run_evaluate`.
        lazy: the base, shared with other stages; none loads its own.

    Returns:
        What `metrics.json` holds, its `judges` made anew.

    Raises:
        AlignXError: of the step that could not be done; a rerun asks only what is missing.
    """
    check_current(config, run)
    if JOINT in config.comparators and (not options.methods or JOINT in (*options.methods, options.baseline)):
        train_joint(config, run, lazy := lazy or LazyBase(config, run))
    if JOINT_MR in joints(config, run) and JOINT_MR in (*options.methods, options.baseline):
        train_joint_mr(config, run, lazy := lazy or LazyBase(config, run))
    budget = Budget(max_calls=options.max_calls, max_cost=options.max_cost)
    judges = make_judges(options.judges, options.settings, budget)  # before answers are made: one may not be there
    work = _work(config, run, options, test_data)
    kept = _complete_answers(config, run, work, options, judges, lazy)
    folder = run.evaluation_folder(work.name)
    for judge in judges:
        asks = questions_to(judge, _judged_answers(options, kept), kept[options.baseline])
        write_note(
            judged_path(folder, judge.name), judge, left_out_prompts(judge, kept[options.baseline]), n_asked=len(asks)
        )
        # Of several processes one asks, or every question would be paid for by each of them.
        rows = processes.from_main(partial(_ask, judge, asks, verdicts_path(run), budget, options.concurrency))
        if rows:
            write_jsonl(judged_path(folder, judge.name), map(as_document, rows))
    return _write_metrics(config, run, work, options)


def refresh_judged(
    config: RunConfig, run: RunDirectory, metrics: dict[str, Any], *, test_data: Path | None = None
) -> dict[str, Any]:
    """The judges' part of an evaluation made anew from kept verdicts; its win rates by likelihood follow the losses.

    Args:
        config: the run's config.
        run: the run directory.
        metrics: what `run_evaluate` returned.
        test_data: as given to it.

    Returns:
        What `metrics.json` holds now; the same where nothing was judged.
    """
    judged = metrics.get("judges")
    if judged is None:
        return metrics
    options = JudgingOptions((), max_new_tokens=judged["max_new_tokens"], coverage_floor=judged["coverage_floor"])
    return _write_metrics(config, run, _work(config, run, options, test_data), options)


def verdicts_path(run: RunDirectory) -> Path:
    """The cache of verdicts, one for all evaluations of a run."""
    return run.root / "eval" / "verdicts.sqlite"


def judged_path(folder: Path, judge: str) -> Path:
    """Rows of one judge."""
    return folder / "judged" / f"{judge}.jsonl"


def _work(config: RunConfig, run: RunDirectory, options: JudgingOptions, test_data: Path | None) -> _Work:
    known = sources(config, run)
    named = [("--methods", name) for name in options.methods] + [("--baseline", options.baseline)]
    for option, name in named:
        if name not in known:
            near = get_close_matches(name, list(known), n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"this run has: {', '.join(known)}"
            raise ConfigError(f"{option} {name}: unknown method; {hint}")
    wanted = options.methods or [name for name in known if is_main(name)]
    asked = [name for name in known if name in wanted or name == options.baseline]
    examples, _ = find_test_examples(config, run, test_data)
    name = evaluation_folder_name(test_data)
    return _Work(
        name=name,
        all_prompts=judged_prompts(config, examples, None),
        prompts=judged_prompts(config, examples, options.limit),
        sources=known,
        asked=asked,
        answers_path=run.evaluation_folder(name) / "answers.jsonl",
    )


def _complete_answers(
    config: RunConfig,
    run: RunDirectory,
    work: _Work,
    options: JudgingOptions,
    judges: Sequence[Judge],
    lazy: LazyBase | None,
) -> dict[str, list[KeptAnswer]]:
    """Every asked method's answer to every prompt; the base is loaded only when one is missing."""

    def look() -> dict[str, list[KeptAnswer | None]]:
        kept = read_answers(work.answers_path)
        return answers_of(config, kept, work.prompts, work.chosen, max_new_tokens=options.max_new_tokens)

    found = look()
    if any(answer is None for rows in found.values() for answer in rows):
        for judge in judges:  # a missing key is better said now than after hours of answers
            judge.check()
        _generate(config, run, work, options, lazy or LazyBase(config, run))
        found = look()
    else:
        notice("answers: up to date")
    return {method: [answer for answer in rows if answer is not None] for method, rows in found.items()}


def _generate(config: RunConfig, run: RunDirectory, work: _Work, options: JudgingOptions, lazy: LazyBase) -> None:
    base, mocae, space = lazy.base, read_mocae(run), read_latent_space(run)
    examples = [prompt.example for prompt in work.prompts]
    signatures = read_signatures(base, space, encode_prompts(base, examples), what="read test prompts")
    experts = read_whole_experts(config, run, base)
    also = {name: read_joint(config, run, lazy, name) for name in (JOINT, JOINT_MR) if name in work.asked}
    joint = expert_updates(config, run, base, JOINT) if JOINT in also and experts.run_folded else None
    with install_experts(config, run, base, also=also) as gated:
        found = methods(config, run, experts, gated, mocae, signatures, joint=joint)
        make_answers(
            config,
            base,
            gated,
            [method for method in found if method.label in work.asked],  # of repeats, the first
            work.prompts,
            work.answers_path,
            max_new_tokens=options.max_new_tokens,
        )


def _judged_answers(options: JudgingOptions, kept: dict[str, list[KeptAnswer]]) -> dict[str, list[KeptAnswer]]:
    """Answers to judge: of the methods that were named, or of all."""
    return {method: rows for method, rows in kept.items() if not options.methods or method in options.methods}


def _ask(judge: Judge, asks: Sequence[Ask], verdicts: Path, budget: Budget, concurrency: int) -> list[JudgedRow]:
    items = [ask.item for ask in asks if ask.item is not None]
    with VerdictStore(verdicts) as store:
        asked = ask_all(judge, items, store, budget=budget, concurrency=concurrency)
    notice(f"judge {judge.name} ({judge.model}): {asked.n_asked} asked, {asked.n_kept} kept from before")
    if judge.is_remote and budget.refused:
        notice(f"judge {judge.name}: {budget.refused}; run the command again with a higher cap to ask the rest")
    judgements = iter(asked.judgements)
    return [judged_row(judge, ask, None if ask.item is None else next(judgements)) for ask in asks]


def _write_metrics(config: RunConfig, run: RunDirectory, work: _Work, options: JudgingOptions) -> dict[str, Any]:
    """Figures of every judge whose rows are about answers that the run still gives."""
    folder = run.evaluation_folder(work.name)
    current = {
        answer_key(config, prompt, method, made_from, options.max_new_tokens)
        for method, made_from in work.sources.items()
        for prompt in work.all_prompts  # what another judge was asked about more prompts stays
    }
    rows = [
        row for path in sorted(folder.glob("judged/*.jsonl")) for row in read_judged(path) if row.answer_key in current
    ]
    path, step = folder / "metrics.json", f"evaluate-{work.name}"
    run.check(step)
    metrics: dict[str, Any] = read_json(path) if path.is_file() else {"name": work.name}
    certainty = Certainty(options.coverage_floor, config.evaluate.bootstrap_draws, config.seed)
    judged = {
        "made_from": {method: work.sources[method] for method in dict.fromkeys(row.method for row in rows)},
        "max_new_tokens": options.max_new_tokens,
        "coverage_floor": options.coverage_floor,
        **judge_figures(
            rows,
            certainty,
            notes=read_notes(folder / "judged"),
            checks=read_checks(run),
            wins=_likelihood_wins(folder, metrics, work),
        ),
    }
    metrics |= {"judges": judged}
    write_json(path, metrics)
    run.mark_done(step, {}, *(file for file in (folder / "prompts.jsonl", path) if file.is_file()))
    return metrics


def _likelihood_wins(folder: Path, metrics: Mapping[str, Any], work: _Work) -> dict[str, dict[str, Scores]]:
    """Method -> axis -> wins over the base by likelihood, of methods that are what the likelihood judge scored."""
    made_from, rows = metrics.get("made_from", {}), folder / "prompts.jsonl"
    current = [method for method, source in made_from.items() if work.sources.get(method) == source]
    wins: dict[str, dict[str, Scores]] = {}
    for row in read_jsonl(rows) if BASE in current else []:
        for method in current:
            [won] = win_rate([-row["loss"][method]], [-row["loss"][BASE]]).tolist()
            wins.setdefault(method, {}).setdefault(row["axis"], {})[row["prompt_hash"]] = won
    return wins


def _planned(
    judge: Judge, answers: Mapping[str, Sequence[KeptAnswer]], baseline: Sequence[KeptAnswer], store: VerdictStore
) -> PlannedJudge:
    items = [ask.item for ask in questions_to(judge, answers, baseline) if ask.item is not None]
    missing = [item for _, item in missing_items(judge, items, store)]
    usages = [judge.estimate(item) for item in missing]
    costs = [usage.cost for usage in usages]
    return PlannedJudge(
        name=judge.name,
        model=judge.model,
        kept=len(set(items)) - len(missing),
        to_ask=len(missing),
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cost=None if any(cost is None for cost in costs) else sum(cost for cost in costs if cost is not None),
    )


def _guessed(prompt: TestPrompt, method: str, max_new_tokens: int) -> KeptAnswer:
    """Stands for an answer that is not there yet, as long as it may become."""
    text = f"{method} ".ljust(_CHARACTERS_A_TOKEN * max_new_tokens, "x")
    return KeptAnswer(
        key="",
        prompt_hash=prompt.example.prompt_hash,
        group=prompt.group,
        dataset=prompt.dataset,
        method=method,
        prompt=prompt.text,
        answer=text,
        finished=False,
        n_tokens=max_new_tokens,
        prompt_cut=0,
    )
