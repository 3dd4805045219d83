"""Bad input: one line that names what was given and the remedy, exit code 2, nothing half-written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignx.cli import run
from alignx.config import RunConfig
from alignx.runs import RunDirectory
from refusals import refused

Finished = Callable[[str], tuple[RunConfig, RunDirectory]]


@pytest.fixture
def write_config(
    tmp_path: Path, tiny_models: dict[str, Path], tiny_config: Callable[..., RunConfig]
) -> Callable[..., Path]:
    """A factory of config files for the tiny model; keys are overlaid, dotted names reach into mappings."""

    def write(**changes: Any) -> Path:
        document = tiny_config(tiny_models["llama"]).model_dump(mode="json")
        for dotted, value in changes.items():
            *parents, last = dotted.split("__")
            place = document
            for parent in parents:
                place = place[parent]
            place[last] = value
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return path

    return write


def test_an_unknown_key_names_the_nearest(capsys, write_config, tmp_path: Path) -> None:
    line = refused(capsys, "run", str(write_config(stage1__learning_rat=0.1)), "--out", str(tmp_path / "run"))
    assert "config.yaml: unknown key `stage1.learning_rat`; did you mean `learning_rate`?" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stage1__epochs": 0}, "`stage1.epochs`"),
        ({"axes": {}}, "`axes`"),
        ({"model": "no/such/model"}, "no such folder and not a hub id"),
        ({"template": "chatty"}, "`template`"),
        ({"stage1__target_modules": "nothing_like_it"}, "matches no linear layer; this model has: "),
        ({"axes__helpful__splits": {"train": 10_000}}, "40 distinct usable prompts, but the splits ask for"),
        ({"stage1__method": "half"}, "`stage1.method`"),
        ({"axes__helpful__splits__train": 2}, "the calibrators need more than 2"),
        (
            {"showcase": {"prompt": "x", "settings": [{"label": "a", "weights": {"helpful": -1}}]}},
            "greater than or equal to 0",
        ),
        ({"preset": ["paper"]}, "unknown preset"),
        ({"showcase": {"prompt": "x", "settings": [{"label": "a", "weights": {"kind": 1}}]}}, "names axis `kind`"),
        ({"presets": {"a": {"weights": {"harmles": 1}}}}, "names axis `harmles`, which this run lacks; did you mean"),
        ({"presets": {"a": {"floors": {"helpful": 0.6, "honest": 0.6}}}}, "preset `a`: floors add up to more than 1"),
        ({"presets": {"a": {"floors": {"helpful": 0.6}, "weights": {"helpful": 0}}}}, "a floor on axis `helpful`"),
        ({"presets": {"a": {"weights": {"helpful": 0, "harmless": 0, "honest": 0}}}}, "all axis weights are 0"),
        ({"presets": {"a": {"weigths": {"helpful": 2}}}}, "unknown key `presets.a.weigths`; did you mean `weights`"),
        ({"presets": {"a <b>": {}}}, "`presets.a <b>"),
    ],
)
def test_a_config_that_cannot_run_leaves_nothing(capsys, write_config, tmp_path: Path, changes, says: str) -> None:
    line = refused(capsys, "run", str(write_config(**changes)), "--out", str(tmp_path / "run"))
    assert says in line
    assert not (tmp_path / "run").exists()


def test_an_axis_without_instruction(capsys, write_config, tmp_path: Path, tiny_data: Path) -> None:
    axes = {"polite": {"dataset": "alpaca", "source": str(tiny_data / "alpaca.json")}}
    line = refused(capsys, "run", str(write_config(axes=axes)), "--out", str(tmp_path / "run"))
    assert "axis `polite` has no instruction; add `axes.polite.instruction:" in line


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.json", None, "gone.json"),
        ("empty.json", "[]", "empty.json"),
        ("blank.jsonl", "", "blank.jsonl"),
        ("bad.jsonl", '{"instruction": "a", "input": "", "output": "b"}\n{"instruction": \n', "line 2"),
        ("columns.json", '[{"prompt": "a", "answer": "b"}]', "lacks column `instruction`"),
        ("types.json", '[{"instruction": "a", "input": "", "output": 3}]', "row 1: `output` is int, expected text"),
        ("nothing.json", '[{"instruction": "", "input": "", "output": ""}]', "no usable row"),
        ("cut.json", '[{"instruction": "a"', "cut.json"),
    ],
)
def test_bad_data_names_file_and_row(capsys, write_config, tmp_path: Path, name: str, content, says: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content, encoding="utf-8")
    config = write_config(axes__helpful__source=str(path))
    line = refused(capsys, "run", str(config), "--out", str(tmp_path / "run"))
    assert name in line
    assert says in line
    assert not (tmp_path / "run").exists()


def test_a_diverging_loss_stops_with_its_step(capsys, write_config, tmp_path: Path) -> None:
    line = refused(capsys, "run", str(write_config(stage1__learning_rate=1e30)), "--out", str(tmp_path / "run"))
    assert "non-finite loss at step" in line
    assert "lower `stage1.learning_rate`" in line
    assert not list((tmp_path / "run").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--weight", "harmles=2"], "unknown axis; did you mean `harmless`?"),
        (["--weight", "harmless"], "expected AXIS=NUMBER"),
        (["--weight", "harmless=-1"], "must be a finite number, 0 or more"),
        (["--weight", "harmless=nan"], "expected AXIS=NUMBER"),
        (["--weight", "harmless=1", "--weight", "harmless=2"], "given twice"),
        (["--weight", "helpful=0", "--weight", "harmless=0", "--weight", "honest=0"], "all axis weights are 0"),
        (["--floor", "helpful=0.6", "--floor", "honest=0.6"], "floors add up to 1.2"),
        (["--floor", "helpful=0.1", "--weight", "helpful=0"], "contradicts weight helpful=0"),
        (["--strength", "inf"], "must be a finite number"),
        (["--strength", "much"], "--strength"),
        (["--preset", "cautius"], "preset cautius: unknown; did you mean `cautious`?"),
        (["--preset", "lean-kind"], "presets of this run: balanced, cautious, frank, eager, lean-helpful"),
        (["--preset", "cautious", "--weight", "harmless=0"], "floor harmless=0.2 contradicts weight harmless=0"),
        (["--preset", "cautious", "--floor", "honest=0.9"], "floors add up to 1.1"),
        (["--max-new-tokens", "0"], "max_new_tokens 0"),
        (["--sing"], "No such option"),
    ],
)
def test_a_wrong_dial(capsys, finished_run: Finished, arguments: list[str], says: str) -> None:
    root = finished_run("llama")[1].root
    assert says in refused(capsys, "generate", str(root), "Why?", *arguments)


@pytest.mark.parametrize("command", ["stage2", "evaluate", "report"])
def test_not_a_run_directory(capsys, tmp_path: Path, command: str) -> None:
    assert "not a run directory (no run.yaml)" in refused(capsys, command, str(tmp_path))


def test_an_unknown_method(capsys, finished_run: Finished) -> None:
    line = refused(capsys, "stage2", str(finished_run("llama")[1].root), "--method", "tie")
    assert "unknown method `tie`; give mocae or one of uniform" in line


def test_stage1_options(capsys, tmp_path: Path) -> None:
    out = ["--model", "smollm2-135m", "--out", str(tmp_path / "run")]
    assert "unknown data set" in refused(capsys, "stage1", *out, "--dataset", "alpacca")
    assert "expected four whole numbers" in refused(capsys, "stage1", *out, "--dataset", "alpaca", "--splits", "3,x")
    assert "no built-in instruction" in refused(capsys, "stage1", *out, "--dataset", "alpaca", "--axis", "polite")
    assert "reserved word" in refused(
        capsys, "stage1", *out, "--dataset", "alpaca=sample", "--axis", "shared", "--instruction", "x"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("missing", ["chat_template", "pad_and_end_token"])
def test_a_model_that_lacks_something(
    capsys, write_config, tiny_models: dict[str, Path], tmp_path: Path, missing: str
) -> None:
    import shutil

    folder = tmp_path / "model"
    changes: dict[str, Any] = {"model": str(folder)}
    if missing == "chat_template":
        shutil.copytree(tiny_models["mistral"], folder)
        changes["template"] = "chat"
        says = "no chat template; set `template: alpaca`"
    else:
        shutil.copytree(tiny_models["mistral"], folder)
        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text())
        for token in ("pad_token", "eos_token"):
            settings.pop(token, None)
        path.write_text(json.dumps(settings))
        says = "neither a pad nor an end token"
    line = refused(capsys, "run", str(write_config(**changes)), "--out", str(tmp_path / "run"))
    assert says in line
    assert not (tmp_path / "run").exists()


def test_help_and_nothing_at_all(capsys) -> None:
    assert run(["--help"]) == 0
    assert "generate" in capsys.readouterr().out
    assert run(["nonsense"]) == 2


def test_test_data_that_is_not_there(capsys, finished_run: Finished, tmp_path: Path) -> None:
    root = str(finished_run("llama")[1].root)
    assert "no such folder" in refused(capsys, "evaluate", root, "--test-data", str(tmp_path / "gone"))
    assert "no file for axis `helpful`" in refused(capsys, "evaluate", root, "--test-data", str(tmp_path))
