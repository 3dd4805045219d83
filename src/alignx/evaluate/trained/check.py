"""`alignx judge check`: any judge, an endpoint's included, against labelled answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignx.errors import ConfigError, JudgeError
from alignx.evaluate.judges.budget import Budget
from alignx.evaluate.judges.interface import Item, Judge, Judgement
from alignx.evaluate.judges.registry import make_judges
from alignx.evaluate.judges.settings import JudgeSettings
from alignx.evaluate.judging.asking import ask_all
from alignx.evaluate.judging.notes import keep_check
from alignx.evaluate.judging.verdicts import VerdictStore, template_hash
from alignx.evaluate.trained.labelled import LabelledAnswer, read_labelled
from alignx.evaluate.trained.quality import Quality, judge_quality
from alignx.evaluate.trained.train import limited
from alignx.progress import notice
from alignx.runs.directory import RunDirectory


@dataclass(frozen=True)
class CheckOptions:
    """How a judge is checked.

    Attributes:
        limit: most answers, whole prompts at a time; none: all.
        seed: of the draw and the intervals.
        settings: of the judges.
        max_calls: most requests; none: any number.
        max_cost: most US dollars; none: any amount.
        concurrency: requests at a time.
    """

    limit: int | None = None
    seed: int = 0
    settings: JudgeSettings = JudgeSettings()
    max_calls: int | None = None
    max_cost: float | None = None
    concurrency: int = 16


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        judge: its name.
        model: its model.
        template: hash of its template and settings.
        data: name of the labelled file.
        quality: how far it agrees.
        left_out: answers not asked about because the judge was trained on their prompts.
        n_asked: questions asked now; the other verdicts were kept from before.
        cost: US dollars of this check.
    """

    judge: str
    model: str
    template: str
    data: str
    quality: Quality
    left_out: int
    n_asked: int
    cost: float

    def document(self) -> dict[str, Any]:
        """For json."""
        named = {name: getattr(self, name) for name in ("judge", "model", "template", "data", "left_out")}
        return {**named, **self.quality.document()}


def check_judge(
    name: str, data: Path, options: CheckOptions, *, verdicts: Path, run: RunDirectory | None = None
) -> Check:
    """Ask a judge about labelled answers and compare.

    Args:
        name: of the judge.
        data: labelled answers of one question.
        options: how.
        verdicts: cache of verdicts.
        run: a run whose report shall repeat what was found.

    Raises:
        ConfigError: the judge is not asked such questions, or there is none at its place.
        DataError: see `read_labelled`.
        JudgeError: it can answer nothing, or was trained on every prompt.
    """
    budget = Budget(max_calls=options.max_calls, max_cost=options.max_cost)
    judge = next(one for one in make_judges([name], options.settings, budget) if one.name == name)
    question = _only_question(judge, data)
    answers = read_labelled([data], question=question).answers
    fresh = [answer for answer in answers if answer.prompt_hash not in judge.trained_on]
    left_out = len(answers) - len(fresh)
    if left_out:
        notice(f"judge {name}: left out {left_out} of {len(answers)} answers, to prompts that it was trained on")
    if not fresh:
        raise JudgeError(f"judge `{name}`: was trained on every prompt of {data}; give other data")
    chosen = limited(fresh, options.limit, options.seed)
    if not chosen:
        raise ConfigError(f"--limit {options.limit}: fewer than the answers of one prompt; raise it")
    items = [Item(question, answer.prompt, answer.answer) for answer in chosen]
    with VerdictStore(verdicts) as store:
        asked = ask_all(judge, items, store, budget=budget, concurrency=options.concurrency)
    check = Check(
        judge=name,
        model=judge.model,
        template=template_hash(judge, question),
        data=data.name,
        quality=_quality(question, chosen, asked.judgements, options.seed),
        left_out=left_out,
        n_asked=asked.n_asked,
        cost=budget.spent,
    )
    if budget.refused:
        notice(f"judge {name}: {budget.refused}; run the command again with a higher cap to ask the rest")
    if run is not None:
        keep_check(run, check.document())
    return check


def stated_probability(judgement: Judgement) -> float | None:
    """Probability of a positive that a judge states; none where it speaks in words."""
    detail = judgement.detail
    if "categories" in detail:  # unsafe when any category is: the largest decides
        return max(map(float, detail["categories"].values()))
    found = detail.get("probability", detail.get("yes_probability"))
    return None if found is None else float(found)


def _only_question(judge: Judge, data: Path) -> str:
    """The question that a file's labels answer, if the judge is asked it."""
    asked = judge.questions("truthfulqa")
    only = asked[0] if len(asked) == 1 else None
    question = read_labelled([data], question=only if only in ("safety", "truth", "info") else None).answers[0].question
    if question not in asked:
        raise ConfigError(
            f"judge `{judge.name}`: is not asked about `{question}`, which {data} is labelled for; it is asked about "
            f"{', '.join(asked)}"
        )
    return question


def _quality(question: str, answers: Sequence[LabelledAnswer], judgements: Sequence[Judgement], seed: int) -> Quality:
    return judge_quality(
        question,
        positive=[answer.positive for answer in answers],
        verdicts=[judgement.value if judgement.state == "judged" else None for judgement in judgements],
        probabilities=[stated_probability(judgement) for judgement in judgements],
        prompts=[answer.prompt_hash for answer in answers],
        seed=seed,
    )
