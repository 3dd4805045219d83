"""The schemas: rows -> one `Example` a prompt, and a count of every row that serves nothing.

Published ones are read as published. Alpaca: Taori et al. 2023. BeaverTails: Ji et al. 2023, arXiv:2307.04657 (only
safe answers are targets; unsafe ones are kept to evaluate against). TruthfulQA: Lin et al. 2022, arXiv:2109.07958.
For a user's own data: `pairs`, `preference` and `messages`, and a column map for every schema.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

from alignx.config.axis import OPTIONAL_FIELDS, SCHEMA_FIELDS
from alignx.data.answers import AnswerBook
from alignx.data.cells import conversation, label, only_answer, text
from alignx.data.example import Example, normalise_prompt
from alignx.data.files import Row
from alignx.data.tally import Tally
from alignx.errors import DataError

# A row with its number in the source, counted from 1.
NumberedRow = tuple[int, Row]
# Spellings under which Alpaca rows say that there is no input.
_NO_INPUT = {"", "noinput", "no input", "n/a", "none"}
# The hub's copy of TruthfulQA spells its columns so.
_HUB_SPELLINGS = {
    "Question": "question",
    "Best Answer": "best_answer",
    "Correct Answers": "correct_answers",
    "Incorrect Answers": "incorrect_answers",
}


@dataclass(frozen=True)
class Schema:
    """How rows of one data set become examples.

    Attributes:
        read: numbered rows (fields under the schema's names), axis, source and tally -> examples, one a prompt, in
            the order of first appearance.
        hub: (data set, configuration, split) the axis is fetched from when no file is given.
        licence: licence of the published data, repeated in every report.
    """

    read: Callable[[Iterable[NumberedRow], str, str, Tally], list[Example]]
    hub: tuple[str, str | None, str]
    licence: str


def read_examples(
    rows: Iterable[Row],
    *,
    schema: str,
    axis: str,
    source: str,
    columns: Mapping[str, str] | None = None,
    tally: Tally | None = None,
) -> list[Example]:
    """Turn rows into examples, one a prompt.

    Args:
        rows: rows in their order.
        schema: name of the schema.
        axis: axis of the examples.
        source: what messages call the rows' origin.
        columns: field -> the rows' own column.
        tally: is told what was read and what was dropped.

    Raises:
        DataError: a column is missing, a cell has the wrong type, or no row can be used.
    """
    return read_numbered(
        enumerate(rows, start=1), schema=schema, axis=axis, source=source, columns=columns or {}, tally=tally or Tally()
    )


def read_numbered(
    rows: Iterable[NumberedRow], *, schema: str, axis: str, source: str, columns: Mapping[str, str], tally: Tally
) -> list[Example]:
    """`read_examples` for rows drawn from more: they bring their numbers, which messages name."""
    named = _with_fields(rows, schema, columns, source, tally)
    examples = SCHEMAS[schema].read(named, axis, source, tally)
    if not examples:
        raise DataError(f"{source}: no usable row of the {schema} schema ({_why_none(tally)})")
    return examples


def required_columns(schema: str, columns: Mapping[str, str]) -> tuple[str, ...]:
    """Columns that every row must have, as the user's file calls them."""
    optional = OPTIONAL_FIELDS.get(schema, ())
    return tuple(
        columns.get(field, field) for field in SCHEMA_FIELDS[schema] if field not in optional or field in columns
    )


def _with_fields(
    rows: Iterable[NumberedRow], schema: str, columns: Mapping[str, str], source: str, tally: Tally
) -> Iterator[NumberedRow]:
    """Rows with the schema's own field names; each is checked to have them."""
    wanted = required_columns(schema, columns)
    for number, row in rows:
        tally.rows += 1
        spellings = dict(columns)
        if schema == "truthfulqa" and "Question" not in row and "question" in row:
            spellings = {**_HUB_SPELLINGS, **columns}
        missing = next((column for column in wanted if spellings.get(column, column) not in row), None)
        if missing is not None:
            raise DataError(_lacks(missing, row, number, schema, columns, source))
        yield (
            number,
            {
                field: row[spellings.get(field, field)]
                for field in SCHEMA_FIELDS[schema]
                # A column called `label` may mean anything, so it counts only when it is mapped.
                if spellings.get(field, field) in row and (field != "label" or field in columns)
            },
        )


def _lacks(column: str, row: Row, number: int, schema: str, columns: Mapping[str, str], source: str) -> str:
    field = next((field for field, own in columns.items() if own == column), column)
    found = [str(name) for name in row]
    near = get_close_matches(column, found, n=1)
    hint = f" (did you mean `{near[0]}`?)" if near else ""
    return (
        f"{source}: row {number} lacks column `{column}` of the {schema} schema{hint}; found: "
        f"{', '.join(found) or 'nothing'}; name yours with `columns: {{{field}: YOURS}}` or --columns {field}=YOURS, "
        "or give another `dataset`"
    )


def _why_none(tally: Tally) -> str:
    if tally.dropped["no_good_answer"]:
        return "no answer is labelled good"
    return "all prompts or answers are empty"


def _read_alpaca(rows: Iterable[NumberedRow], axis: str, source: str, tally: Tally) -> list[Example]:
    book = AnswerBook(axis, tally, one_answer=True)
    for number, row in rows:
        extra = text(row, "input", number, source)
        if extra.strip("<>[]() .").lower() in _NO_INPUT:
            extra = ""
        book.add(text(row, "instruction", number, source), text(row, "output", number, source), input=extra)
    return book.examples()


def _read_labelled(rows: Iterable[NumberedRow], axis: str, source: str, tally: Tally) -> list[Example]:
    """BeaverTails (`is_safe`) and a user's pairs (`label` and `input`, where there are such)."""
    book = AnswerBook(axis, tally)
    for number, row in rows:
        name = next((name for name in ("is_safe", "label") if name in row), "")
        good = label(row, name, number, source) if name else True
        extra = text(row, "input", number, source) if "input" in row else ""
        book.add(text(row, "prompt", number, source), text(row, "response", number, source), good=good, input=extra)
    return book.examples()


def _read_preference(rows: Iterable[NumberedRow], axis: str, source: str, tally: Tally) -> list[Example]:
    """A chosen and a rejected answer a row, as text or as the exchange that ends with it."""
    book = AnswerBook(axis, tally)
    for number, row in rows:
        prompt, early, several = conversation(row, "prompt", number, source)
        chosen, more = only_answer(row, "chosen", number, source)
        rejected, even_more = only_answer(row, "rejected", number, source)
        if early or several or more or even_more:
            tally.drop("several_turns")
        else:
            book.add(prompt, chosen, rejected=rejected)
    return book.examples()


def _read_messages(rows: Iterable[NumberedRow], axis: str, source: str, tally: Tally) -> list[Example]:
    book = AnswerBook(axis, tally)
    for number, row in rows:
        prompt, answer, shortened = conversation(row, "messages", number, source)
        tally.shortened += shortened
        book.add(prompt, answer)
    return book.examples()


def _read_truthfulqa(rows: Iterable[NumberedRow], axis: str, source: str, tally: Tally) -> list[Example]:
    seen: dict[str, Example] = {}
    for number, row in rows:
        question, best = text(row, "Question", number, source), text(row, "Best Answer", number, source)
        correct = _distinct([best, *_answers(row, "Correct Answers", number, source)])
        incorrect = _distinct(_answers(row, "Incorrect Answers", number, source))
        key = normalise_prompt(question)
        if not question or not best:
            tally.drop("empty_answer" if question else "empty_prompt")
        elif key in seen:
            tally.drop("duplicate_prompt")
        else:
            seen[key] = Example(
                axis=axis,
                instruction=question,
                target=best,
                correct=correct,
                incorrect=incorrect,
                mc1=(best, *incorrect),
            )
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
        replaced.append(replace(example, correct=true2, incorrect=false2, mc1=mc1_answers))
    return replaced


def _answers(row: Row, column: str, number: int, source: str) -> list[str]:
    value = row[column]
    if isinstance(value, list):  # the hub's copy holds lists where the CSV holds `; `
        return [str(answer).strip() for answer in value if str(answer).strip()]
    return [answer.strip() for answer in text(row, column, number, source).split(";") if answer.strip()]


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


_NOT_STATED = "not stated"
_OWN: tuple[str, str | None, str] = ("", None, "train")
SCHEMAS: dict[str, Schema] = {
    "alpaca": Schema(_read_alpaca, ("tatsu-lab/alpaca", None, "train"), "CC BY-NC 4.0"),
    "beavertails": Schema(_read_labelled, ("PKU-Alignment/BeaverTails", None, "30k_train"), "CC BY-NC 4.0"),
    "truthfulqa": Schema(_read_truthfulqa, ("truthfulqa/truthful_qa", "generation", "validation"), "Apache-2.0"),
    "pairs": Schema(_read_labelled, _OWN, _NOT_STATED),
    "preference": Schema(_read_preference, _OWN, _NOT_STATED),
    "messages": Schema(_read_messages, _OWN, _NOT_STATED),
}
