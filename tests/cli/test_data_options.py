"""What `alignx stage1` says about data: a user's own set, and every kind of bad file, by name, row or option."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from alignx.cli import run

GOOD = {"prompt": "p", "response": "a"}


@pytest.fixture
def stage1(tiny_models: dict[str, Path], tmp_path: Path) -> Callable[..., int]:
    """Runs `alignx stage1` on the tiny model into `tmp_path/run`."""

    def go(dataset: str, *options: str) -> int:
        place = ["--model", str(tiny_models["mistral"]), "--out", str(tmp_path / "run")]
        axis = ["--axis", "mine", "--instruction", "Be mine."]
        return run(["stage1", *place, "--dataset", dataset, *axis, "--splits", "16,8,8,8", *options])

    return go


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def own_rows(count: int = 40) -> list[dict[str, object]]:
    return [{"question": f"Is {n} even?", "answer": "Yes." if n % 2 == 0 else "No."} for n in range(count)]


def refused(stage1: Callable[..., int], capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail with one line; returns it."""
    assert stage1(*arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_an_own_set_is_trained_on_and_what_was_dropped_is_printed(stage1, capsys, tmp_path: Path) -> None:
    rows = [*own_rows(60), {"question": "is  0 EVEN?", "answer": "Yes."}, {"question": "Why?", "answer": None}]
    path = write_rows(tmp_path / "mine.jsonl", rows)
    options = [
        "--columns",
        "prompt=question,response=answer",
        "--metric",
        "loss",
        "--max-examples",
        "62",
        "--streaming",
    ]
    assert stage1(f"pairs={path}", *options) == 0
    out = capsys.readouterr().out
    assert "mine: 62 rows read from" in out
    assert "kept 60 prompts; dropped 1 without an answer, 1 repeating a prompt and its answer" in out
    assert "mine: trained on 16 examples; left out 0 that are too long; 0 lack their end token" in out
    document = json.loads((tmp_path / "run/splits.json").read_text())["axes"]["mine"]
    assert document["sets"][0]["dropped"] == {"empty_answer": 1, "duplicate_answer": 1}
    assert json.loads((tmp_path / "run/stage1/mine/training.json").read_text())["dropped"] == {"overlong": 0}


def test_a_draw_says_how_many_rows_there_are_and_how_many_answers_were_safe(stage1, capsys, tiny_data: Path) -> None:
    options = ["--max-examples", "70", "--splits", "8,4,4,4"]
    assert stage1(f"beavertails={tiny_data / 'beavertails.jsonl'}", *options) == 0
    out = capsys.readouterr().out
    assert "70 rows read of 80 (drawn by seed)" in out
    assert "of prompts without a safe answer" in out


@pytest.mark.parametrize(
    ("dataset", "options", "says"),
    [
        ("pair=x.jsonl", [], "--dataset pair=x.jsonl: unknown data set; did you mean `pairs`?"),
        ("pairs", [], "`source` is missing"),
        ("pairs=x.jsonl", ["--columns", "prompt"], "--columns prompt: expected FIELD=COLUMN"),
        ("pairs=x.jsonl", ["--columns", "prompt=a,prompt=b"], "`prompt` is given twice"),
        ("pairs=x.jsonl", ["--columns", "promt=a"], "did you mean `prompt`?"),
        ("pairs=x.jsonl", ["--metric", "mc3"], "did you mean `mc2`?"),
        ("pairs=x.jsonl", ["--metric", "mc2"], "needs multiple-choice answers"),
        ("pairs=x.json", ["--streaming"], "write it as jsonl"),
        ("pairs=x.jsonl", ["--max-examples", "0"], "--max-examples"),
    ],
)
def test_an_option_that_cannot_be_is_named(stage1, capsys, tmp_path: Path, dataset, options, says: str) -> None:
    assert says in refused(stage1, capsys, dataset, *options)
    assert not (tmp_path / "run").exists()


def test_own_data_without_a_name_for_the_axis_is_refused(capsys, tmp_path: Path) -> None:
    assert run(["stage1", "--model", "smollm2-135m", "--out", str(tmp_path / "run"), "--dataset", "pairs=x.jsonl"]) == 2
    assert "your own data need a name for their axis; add --axis NAME" in capsys.readouterr().err


# Rows that cannot serve: over-long, empty, None, numeric answers, duplicates, no row and one row.
@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{**GOOD, "prompt": f"p{n}", "response": "so " * 3000} for n in range(40)], "exceed `stage1.max_tokens: 512`"),
        ([{**GOOD, "response": ""}], "no usable row of the pairs schema (all prompts or answers are empty)"),
        ([{**GOOD, "response": None}], "no usable row of the pairs schema"),
        ([GOOD, {**GOOD, "response": 3}], "row 2: `response` is int, expected text; mend that row"),
        ([GOOD, {**GOOD, "prompt": ["p"]}], "row 2: `prompt`"),
        ([GOOD] * 50, "1 distinct usable prompts, but the splits ask for 40"),
        ([], "holds no rows"),
        ([GOOD], "1 distinct usable prompts, but the splits ask for 40 (train 16 + mix 8 + calibration 8 + test 8)"),
    ],
    ids=["over-long", "empty", "none", "number", "list", "duplicates", "no row", "one row"],
)
def test_rows_that_cannot_serve_are_named(stage1, capsys, tmp_path: Path, rows, says: str) -> None:
    path = write_rows(tmp_path / "mine.jsonl", rows)
    line = refused(stage1, capsys, f"pairs={path}")
    assert says in line
    assert "mine" in line
    assert not list(tmp_path.rglob("*.safetensors"))


CSV = "prompt,response\np,a\n"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.jsonl", b'{"prompt": "p", "response": "a"}\n{"prompt": \n', "line 2 is not JSON"),
        ("m.jsonl", '{"prompt": "caf\xe9", "response": "a"}\n'.encode("latin-1"), "line 1 is not UTF-8; convert it"),
        ("m.csv", (CSV + "caf\xe9,a\n").encode("latin-1"), "line 3 is not UTF-8"),
        ("m.jsonl.gz", gzip.compress(b'{"prompt": "p", "response": "a"}\n' * 500)[:-12], "damaged gzip"),
        ("m.csv.gz", gzip.compress(CSV.encode())[:-9], "damaged gzip"),
        ("m.csv.gz", CSV.encode(), "damaged gzip"),
        ("m.csv", b"prompt,answer\np,a\n", "row 1 lacks column `response` of the pairs schema"),
        ("m.csv", b"prompt,response\np,a,b\n", "line 2 has not 2 columns"),
        ("m.parquet", b"PAR1 cut", "not a parquet file"),
        ("m.txt", b"p a", "unknown format"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_cannot_be_read_is_named_with_its_place(
    stage1, capsys, tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    line = refused(stage1, capsys, f"pairs={path}")
    assert str(path) in line and says in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.csv", "mine.json"])
def test_a_byte_order_mark_is_read_over(stage1, tmp_path: Path, name: str) -> None:
    rows = [{"prompt": f"Is {n} odd?", "response": "It may be."} for n in range(40)]
    texts = {
        "mine.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "mine.csv": "prompt,response\n" + "".join(f"{row['prompt']},{row['response']}\n" for row in rows),
        "mine.json": json.dumps(rows),
    }
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + texts[name].encode())
    assert stage1(f"pairs={tmp_path / name}") == 0


@pytest.mark.parametrize("dataset", ["alpaca", "beavertails", "truthfulqa", "pairs=owner/name", "alpaca --streaming"])
def test_the_hub_without_a_network_is_one_clear_line(
    stage1, capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dataset: str
) -> None:
    # What HF_HUB_OFFLINE=1 sets when these libraries are imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    line = refused(stage1, capsys, *dataset.split())
    assert "cannot be fetched from the hub" in line and "check the network, or give a local file" in line
    assert not (tmp_path / "run").exists()
