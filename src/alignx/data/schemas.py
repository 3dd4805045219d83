"""The published schemas, read as published: one `Example` a prompt.

Alpaca: Taori et al. 2023. BeaverTails: Ji et al. 2023, arXiv:2307.04657 (only safe answers are targets; unsafe ones
are kept to evaluate against). TruthfulQA: Lin et al. 2022, arXiv:2109.07958.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from alignx.data.example import Example, normalise_prompt
from alignx.data.files import Row
from alignx.errors import DataError

# Spellings under which Alpaca rows say that there is no input.
_NO_INPUT = {"", "noinput", "no input", "n/a", "none"}


@dataclass(frozen=True)
class Schema:
    """How rows of one data set become examples.

    Attributes:
        columns: columns that must be present.
        read: rows, axis and source -> examples, one a prompt, in the order of first appearance.
        hub: (data set, configuration, split) the axis is fetched from when no file is given.
        licence: licence of the published data, repeated in every report.
    """

    columns: tuple[str, ...]
    read: Callable[[list[Row], str, str], list[Example]]
    hub: tuple[str, str | None, str]
    licence: str


def read_examples(rows: list[Row], *, schema: str, axis: str, source: str) -> list[Example]:
    """Turn rows into examples, one a prompt.

    Raises:
        DataError: a column is missing, a cell has the wrong type, or no row can be used.
    """
    for number, row in enumerate(rows, start=1):
        missing = [column for column in SCHEMAS[schema].columns if column not in row]
        if missing:
            raise DataError(
                f"{source}: row {number} lacks column `{missing[0]}` of the {schema} schema "
                f"(found: {', '.join(map(str, row)) or 'nothing'}); rename the column or give another --dataset"
            )
    examples = SCHEMAS[schema].read(rows, axis, source)
    if not examples:
        raise DataError(f"{source}: no usable row of the {schema} schema (all prompts or answers are empty)")
    return examples


def _read_alpaca(rows: list[Row], axis: str, source: str) -> list[Example]:
    seen: dict[str, Example] = {}
    for number, row in enumerate(rows, start=1):
        instruction, target = _text(row, "instruction", number, source), _text(row, "output", number, source)
        extra = _text(row, "input", number, source)
        if extra.strip("<>[]() .").lower() in _NO_INPUT:
            extra = ""
        if instruction and target:
            example = Example(axis=axis, instruction=instruction, input=extra, target=target)
            seen.setdefault(normalise_prompt(instruction), example)
    return list(seen.values())


def _read_beavertails(rows: list[Row], axis: str, source: str) -> list[Example]:
    prompts: dict[str, str] = {}
    answers: dict[str, dict[bool, list[str]]] = {}
    for number, row in enumerate(rows, start=1):
        prompt, response = _text(row, "prompt", number, source), _text(row, "response", number, source)
        safe = row["is_safe"]
        if isinstance(safe, str) and safe.lower() in {"true", "false"}:
            safe = safe.lower() == "true"
        if not isinstance(safe, bool):
            raise DataError(f"{source}: row {number}: `is_safe` is {safe!r}, expected true or false; mend that row")
        if prompt and response:
            key = normalise_prompt(prompt)
            prompts.setdefault(key, prompt)
            answers.setdefault(key, {True: [], False: []})[safe].append(response)
    return [
        Example(
            axis=axis,
            instruction=prompts[key],
            target=found[True][0],
            correct=_distinct(found[True]),
            # A pair that carries both labels says nothing about either.
            incorrect=tuple(answer for answer in _distinct(found[False]) if answer not in found[True]),
        )
        for key, found in answers.items()
        if found[True]
    ]


def _read_truthfulqa(rows: list[Row], axis: str, source: str) -> list[Example]:
    seen: dict[str, Example] = {}
    for number, row in enumerate(rows, start=1):
        question, best = _text(row, "Question", number, source), _text(row, "Best Answer", number, source)
        correct = _distinct([best, *_answers(row, "Correct Answers", number, source)])
        incorrect = _distinct(_answers(row, "Incorrect Answers", number, source))
        if question and best:
            example = Example(
                axis=axis,
                instruction=question,
                target=best,
                correct=correct,
                incorrect=incorrect,
                mc1=(best, *incorrect),
            )
            seen.setdefault(normalise_prompt(question), example)
    return list(seen.values())


def with_mc_task(examples: list[Example], rows: list[Row], *, source: str) -> list[Example]:
    """Replace the multiple-choice answers by those of an `mc_task.json`; questions it lacks keep the CSV's.

    Raises:
        DataError: a row without `question`, `mc1_targets` and `mc2_targets`, or without exactly one true MC1 answer.
    """
    items: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {}
    for number, row in enumerate(rows, start=1):
        mc1, mc2 = row.get("mc1_targets"), row.get("mc2_targets")
        if "question" not in row or not isinstance(mc1, dict) or not isinstance(mc2, dict):
            raise DataError(f"{source}: row {number} lacks `question`, `mc1_targets` or `mc2_targets`; mend that row")
        true1 = [answer for answer, label in mc1.items() if label == 1]
        if len(true1) != 1:
            raise DataError(f"{source}: row {number} has {len(true1)} true MC1 answers, expected one; mend that row")
        items[normalise_prompt(str(row["question"]))] = (
            (true1[0], *(answer for answer, label in mc1.items() if label != 1)),
            tuple(answer for answer, label in mc2.items() if label == 1),
            tuple(answer for answer, label in mc2.items() if label != 1),
        )
    replaced = []
    for example in examples:
        mc1_answers, true2, false2 = items.get(
            normalise_prompt(example.instruction), (example.mc1, example.correct, example.incorrect)
        )
        replaced.append(
            Example(
                axis=example.axis,
                instruction=example.instruction,
                target=example.target,
                correct=true2,
                incorrect=false2,
                mc1=mc1_answers,
            )
        )
    return replaced


def _text(row: Row, column: str, number: int, source: str) -> str:
    value = row[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{source}: row {number}: `{column}` is {type(value).__name__}, expected text; mend that row")
    if not value.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise DataError(f"{source}: row {number}: `{column}` holds half of a surrogate pair; mend that row")
    return value.strip()


def _answers(row: Row, column: str, number: int, source: str) -> list[str]:
    value = row[column]
    if isinstance(value, list):  # the hub's copy holds lists where the CSV holds `; `
        return [str(answer).strip() for answer in value if str(answer).strip()]
    return [answer.strip() for answer in _text(row, column, number, source).split(";") if answer.strip()]


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


SCHEMAS: dict[str, Schema] = {
    "alpaca": Schema(
        columns=("instruction", "input", "output"),
        read=_read_alpaca,
        hub=("tatsu-lab/alpaca", None, "train"),
        licence="CC BY-NC 4.0",
    ),
    "beavertails": Schema(
        columns=("prompt", "response", "is_safe"),
        read=_read_beavertails,
        hub=("PKU-Alignment/BeaverTails", None, "30k_train"),
        licence="CC BY-NC 4.0",
    ),
    "truthfulqa": Schema(
        columns=("Question", "Best Answer", "Correct Answers", "Incorrect Answers"),
        read=_read_truthfulqa,
        hub=("truthfulqa/truthful_qa", "generation", "validation"),
        licence="Apache-2.0",
    ),
}
