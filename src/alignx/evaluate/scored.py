"""Judgements of every method, kept row by row: what was scored before in the same way is not scored again."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

from alignx.config import RunConfig
from alignx.errors import ArtifactError
from alignx.evaluate.comparators.registry import COMPARATORS
from alignx.evaluate.likelihood.judge import CHAT, Judgement, LikelihoodItem, judge
from alignx.evaluate.methods import Method
from alignx.models.fold import folded
from alignx.models.gated import GatedModel
from alignx.models.lazy import LazyBase
from alignx.models.load import BaseModel
from alignx.models.precision import resolved_precision
from alignx.models.scoring import answer_log_probs
from alignx.progress import notice
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.files import read_jsonl, write_jsonl

Judgements = dict[str, list[Judgement]]


class Scores:
    """The judgements of one evaluation in `judgments.jsonl`, by label of the method, kept under a fingerprint.

    Args:
        config: the run's config.
        run: the run directory.
        folder: of the evaluation.
        items: what is scored.
    """

    def __init__(self, config: RunConfig, run: RunDirectory, folder: Path, items: Sequence[LikelihoodItem]) -> None:
        self.config, self.run, self.items = config, run, items
        self._path, self._step = folder / "judgments.jsonl", f"judge-{folder.name}"
        try:
            run.check(self._step)
            self._kept = kept_judgements(self._path)
        except ArtifactError as error:
            notice(f"{str(error).partition('; ')[0]}; judging again")
            self._kept = {}
        shown = [
            [asdict(item.example), *(tokens for part in item.parts for tokens in (part.prompt_ids, part.answers))]
            for item in items
        ]
        style = config.evaluate.prompt_style
        self._asked = fingerprint(
            [shown, resolved_precision(config.evaluate.precision), *([] if style == CHAT else [style])]
        )

    def key(self, method: str, made_from: str) -> str:
        """Fingerprint of everything that a method's judgements depend on."""
        return fingerprint([self._asked, method, made_from])

    def has(self, key: str) -> bool:
        """Whether the judgements of that key are all there."""
        return len(self._kept.get(key, ())) == len(self.items)

    def only(self, keys: Sequence[str]) -> None:
        """Leave out what is kept under other keys; the file changes with the next judgements."""
        self._kept = {key: self._kept[key] for key in keys if self.has(key)}

    def judged(self, label: str, key: str, make: Callable[[], list[Judgement]]) -> list[Judgement]:
        """The judgements of a key: those kept, or made now and written."""
        if self.has(key):
            notice(f"score {label}: up to date")
            return self._kept[key]
        self._kept[key] = make()
        write_jsonl(self._path, [row.row(kept) for kept, rows in self._kept.items() for row in rows])
        self.run.mark_done(self._step, {}, self._path)
        return self._kept[key]


def judge_methods(scores: Scores, found: Sequence[Method], base: BaseModel, gated: GatedModel) -> Judgements:
    """Judgements of every method that runs behind gates or folded, by label."""
    # A part is scored with its item's mixture: routing has seen the prompt itself, whatever stands before it here.
    of_part = [number for number, item in enumerate(scores.items) for _ in item.parts]

    def score(method: Method) -> list[Judgement]:
        with folded(base.model, method.updates) if method.updates else nullcontext():
            log_probs = answer_log_probs(
                base,
                [part for item in scores.items for part in item.parts],
                gated=gated,
                weights=None if method.weights is None else method.weights[of_part],
                batch_size=scores.config.evaluate.batch_size,
                precision=scores.config.evaluate.precision,
                description=f"score {method.label}",
            )
        by_item: list[list[float]] = [[] for _ in scores.items]
        for number, part in zip(of_part, log_probs, strict=True):
            by_item[number] += part
        return [judge(method.name, item, one) for item, one in zip(scores.items, by_item, strict=True)]

    return {
        method.label: scores.judged(method.label, scores.key(method.name, method.made_from), partial(score, method))
        for method in found
    }


def own_model_sources(config: RunConfig, run: RunDirectory, scores: Scores) -> dict[str, str]:
    """Comparators with a model of their own -> what they are made from: those asked for, or scored here before.

    The others, made but neither asked for nor scored, would cost an evaluation nobody wants.
    """
    found = {}
    for name, comparator in COMPARATORS.items():
        made_from = comparator.made_from(config, run) if comparator.made_from else ""
        if made_from and (name in config.comparators or scores.has(scores.key(name, made_from))):
            found[name] = made_from
    return found


def judge_own_models(scores: Scores, sources: dict[str, str], lazy: LazyBase) -> Judgements:
    """Judgements of comparators that are models of their own: of targets only, other figures are absent.

    Args:
        scores: where judgements are kept.
        sources: as `own_model_sources` gives them.
        lazy: the base, nothing installed in it.
    """

    def score(name: str) -> list[Judgement]:
        install = COMPARATORS[name].installed
        precision = scores.config.evaluate.precision if COMPARATORS[name].autocast else "float32"
        if install is None:
            raise ValueError(f"{name} runs behind gates; score it with judge_methods")
        targets = [LikelihoodItem(item.example, [item.target], [], {}) for item in scores.items]
        with install(scores.config, scores.run, lazy.base) as model:
            log_probs = answer_log_probs(
                model,
                [item.target for item in targets],
                batch_size=scores.config.evaluate.batch_size,
                precision=precision,
                description=f"score {name}",
            )
        return [judge(name, item, one) for item, one in zip(targets, log_probs, strict=True)]

    return {
        name: scores.judged(name, scores.key(name, made_from), partial(score, name))
        for name, made_from in sources.items()
    }


def kept_judgements(path: Path) -> Judgements:
    """Judgements by the fingerprint of what they depend on: one group for each method, and each of its repeats.

    Raises:
        ArtifactError: a row is damaged.
    """
    kept: Judgements = {}
    for row in read_jsonl(path) if path.is_file() else []:
        try:
            kept.setdefault(row.pop("key"), []).append(Judgement(**row))
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: a row is damaged ({error}); remove the file and evaluate again") from error
    return kept
