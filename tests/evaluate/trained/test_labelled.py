"""Labelled answers as published: three schemas, repeats, contradictions."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignx.errors import DataError
from alignx.evaluate.trained.labelled import read_labelled


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def truth(question: str, answer: str, completion: str, ending: str = "True") -> dict[str, str]:
    return {"prompt": f"Q: {question}\nA: {answer}\n{ending}:", "completion": completion}


def test_truthfulqas_files_are_read(tmp_path: Path) -> None:
    rows = [
        truth("Why?", "Because.\nIt is so.", " yes"),
        truth("Why?", "Because.\nIt is so.", " yes"),
        truth("why? ", "No idea.", " no"),
        truth("Who?", "Me.", " yes"),
        truth("Who?", "Me.", " no"),
    ]
    found = read_labelled([write(tmp_path / "t.jsonl", rows)], question="truth")
    assert [(one.prompt, one.answer, one.positive) for one in found.answers] == [
        ("Why?", "Because.\nIt is so.", True),
        ("why?", "No idea.", False),
    ]
    assert found.answers[0].prompt_hash == found.answers[1].prompt_hash
    assert (found.n_rows, found.n_repeated, found.n_both) == (5, 1, 1)


def test_unsafe_is_the_positive_label(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "response": "bad", "is_safe": False},
        {"prompt": "p", "response": "good", "is_safe": True},
        {"prompt": "", "response": "good", "is_safe": True},
    ]
    found = read_labelled([write(tmp_path / "b.jsonl", rows)])
    assert [(one.question, one.positive) for one in found.answers] == [("safety", True), ("safety", False)]
    assert found.n_empty == 1


def test_a_users_labels_need_a_question(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", [{"prompt": "p", "response": "r", "label": 1}])
    assert read_labelled([path], question="info").answers[0].question == "info"
    with pytest.raises(DataError, match="has the columns prompt, response, label"):
        read_labelled([path])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (truth("Why?", "Because.", " maybe"), "row 1 is not"),
        ({"prompt": "Why?", "completion": " yes"}, "row 1 is not"),
        (truth("Why?", "Because.", " yes", "Helpful"), "labelled for `info`, expected `truth`"),
        ({"question": "Why?"}, "has the columns question"),
    ],
)
def test_faults_are_named_by_row(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_labelled([write(tmp_path / "t.jsonl", [row])], question="truth")


def test_contradictions_alone_are_no_data(tmp_path: Path) -> None:
    rows = [truth("Who?", "Me.", " yes"), truth("Who?", "Me.", " no")]
    with pytest.raises(DataError, match="no answer with one clear label"):
        read_labelled([write(tmp_path / "t.jsonl", rows)], question="truth")
