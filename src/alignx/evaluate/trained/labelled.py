r"""Labelled answers: a prompt, an answer and what people said of it, from the published files or a user's own.

Three schemas are told apart by their columns: BeaverTails (`prompt, response, is_safe`), TruthfulQA's fine-tuning files
(`prompt` = `Q: ...\nA: ...\nTrue:` or `Helpful:`, `completion` = ` yes` or ` no`), and `prompt, response, label` with a
label that says yes or no to the question itself.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from alignx.data.cells import label, text
from alignx.data.example import hash_prompt, normalise_prompt
from alignx.data.files import Row, iterate_rows
from alignx.data.schemas import read_examples
from alignx.errors import ConfigError, DataError
from alignx.evaluate.judges.interface import INFO, SAFETY, TRUTH
from alignx.evaluate.prompts import TestPrompt

# Kind of trained judge -> the question it answers.
KINDS = {"moderation": SAFETY, "truth": TRUTH, "info": INFO}
_TRUTHFULQA = re.compile(r"\AQ: (.*?)\nA: (.*)\n(True|Helpful):\s*\Z", re.DOTALL)
_ENDINGS = {"True": TRUTH, "Helpful": INFO}
_COMPLETIONS = {"yes": True, "no": False}


@dataclass(frozen=True)
class LabelledAnswer:
    """One answer and its label.

    Attributes:
        question: `safety`, `truth` or `info`.
        prompt: what was asked.
        answer: what was answered.
        positive: the label: unsafe, true, informative.
        instruction: what the prompt's identity is, where it is only a part of the text asked (Alpaca's rows with an
            input); empty: all of it.
    """

    question: str
    prompt: str
    answer: str
    positive: bool
    instruction: str = ""

    @property
    def prompt_hash(self) -> str:
        """Unsalted identity of the prompt."""
        return hash_prompt(self.instruction or self.prompt)

    @property
    def known_hashes(self) -> set[str]:
        """Under which a judge that learned from it must know its prompt again."""
        return {self.prompt_hash, hash_prompt(self.prompt)}


@dataclass(frozen=True)
class LabelledAnswers:
    """What a file or several hold.

    Attributes:
        answers: one a (prompt, answer), in the order of first appearance.
        n_rows: rows read.
        n_repeated: rows that repeat an earlier one.
        n_both: (prompt, answer) pairs left out because they carry both labels, which says nothing about either.
        n_empty: rows without a prompt.
    """

    answers: Sequence[LabelledAnswer]
    n_rows: int
    n_repeated: int
    n_both: int
    n_empty: int


def check_kind(kind: str) -> str:
    """The question that a kind of judge answers.

    Raises:
        ConfigError: unknown kind; names the nearest.
    """
    if kind not in KINDS:
        near = get_close_matches(kind, list(KINDS), n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(KINDS)}"
        raise ConfigError(f"judge kind `{kind}`: unknown; {hint}")
    return KINDS[kind]


def read_labelled(paths: Iterable[Path], *, question: str | None = None) -> LabelledAnswers:
    """Read labelled answers; equal (prompt, answer) pairs once.

    Args:
        paths: json, jsonl, csv or parquet files, each optionally .gz.
        question: what their labels must be about; none: what the files say.

    Raises:
        DataError: a row of no known schema, about another question, or with an unknown label; no usable row.
    """
    found: dict[tuple[str, str, str], tuple[LabelledAnswer, set[bool]]] = {}
    n_rows = n_empty = n_repeated = 0
    names = [str(path) for path in paths]
    for name in names:
        for number, row in enumerate(iterate_rows(Path(name)), start=1):
            n_rows += 1
            answer = _read(row, number, name, question)
            if not answer.prompt:
                n_empty += 1
                continue
            key = (answer.question, normalise_prompt(answer.prompt), answer.answer)
            _, labels = found.setdefault(key, (answer, set()))
            n_repeated += answer.positive in labels
            labels.add(answer.positive)
    clear = [answer for answer, labels in found.values() if len(labels) == 1]
    if not clear:
        raise DataError(f"{', '.join(names)}: no answer with one clear label; give other data")
    return LabelledAnswers(clear, n_rows, n_repeated, len(found) - len(clear), n_empty)


def read_assumed_safe(paths: Iterable[Path]) -> list[LabelledAnswer]:
    """Answers of instruction data, which nobody has labelled and which are taken as safe; one a prompt.

    Args:
        paths: files in Alpaca's schema (`instruction, input, output`), in the formats of `read_labelled`.

    Raises:
        DataError: a row of another schema, or no usable row.
    """
    found: dict[str, LabelledAnswer] = {}
    for path in paths:
        for example in read_examples(iterate_rows(path), schema="alpaca", axis="", source=str(path)):
            asked = TestPrompt(example, "", "").text
            answer = LabelledAnswer(SAFETY, asked, example.target, False, instruction=example.instruction)
            found.setdefault(answer.prompt_hash, answer)
    return list(found.values())


def _read(row: Row, number: int, source: str, wanted: str | None) -> LabelledAnswer:
    answer = _by_schema(row, number, source, wanted)
    if wanted is not None and answer.question != wanted:
        raise DataError(
            f"{source}: row {number} is labelled for `{answer.question}`, expected `{wanted}`; give the file for it"
        )
    return answer


def _by_schema(row: Row, number: int, source: str, wanted: str | None) -> LabelledAnswer:
    if "prompt" in row and "completion" in row:
        return _truthfulqa(row, number, source)
    if {"prompt", "response", "is_safe"} <= row.keys():
        safe = label(row, "is_safe", number, source)
        return LabelledAnswer(
            SAFETY, text(row, "prompt", number, source), text(row, "response", number, source), not safe
        )
    if {"prompt", "response", "label"} <= row.keys() and wanted is not None:
        said = label(row, "label", number, source)
        return LabelledAnswer(wanted, text(row, "prompt", number, source), text(row, "response", number, source), said)
    raise DataError(
        f"{source}: row {number} has the columns {', '.join(map(str, row)) or 'none'}; expected prompt, response and "
        "is_safe (BeaverTails), prompt and completion (TruthfulQA's fine-tuning files), or prompt, response and label"
    )


def _truthfulqa(row: Row, number: int, source: str) -> LabelledAnswer:
    parts = _TRUTHFULQA.match(text(row, "prompt", number, source))
    completion = _COMPLETIONS.get(text(row, "completion", number, source).lower())
    if parts is None or completion is None:
        raise DataError(
            f"{source}: row {number} is not `Q: ...`, `A: ...` and `True:` or `Helpful:` on lines of their own with "
            "the completion yes or no; mend that row"
        )
    prompt, answer, ending = parts.groups()
    return LabelledAnswer(_ENDINGS[ending], prompt.strip(), answer.strip(), completion)
