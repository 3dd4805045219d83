import pytest
from transformers import AutoModelForCausalLM

from alignx.cli import run
from alignx.cli.show_example import show_training_example
from alignx.stage1.shown_example import Piece, ShownExample


def _shown(**changed) -> ShownExample:
    fields = {
        "axis": "honest",
        "n_examples": 3,
        "pieces": (
            Piece("<|im_start|>", False, True),
            Piece("Why <|im_end|> \x1b[31m?", False, False),
            Piece("It", True, False),
            Piece(" is", True, False),
            Piece("<|im_end|>", True, True),
        ),
        "n_prompt": 9,
        "n_target": 3,
        "end": "<|im_end|>",
        "ends": True,
        "max_tokens": 96,
        "injected": False,
        "injection_rate": 0.5,
        "style": "chat",
    }
    return ShownExample(**{**fields, **changed})


def test_without_a_terminal_marks_are_plain(capsys):
    show_training_example(_shown())
    out = capsys.readouterr().out
    assert "«<|im_start|>»Why <|im_end|> \\x1b[31m?[It][ is][«<|im_end|>»]\n" in out
    assert "\x1b" not in out
    assert "prompt: 9 tokens, not trained on; target: 3 tokens, trained on, the end token «<|im_end|>» last" in out
    assert "injection_rate 0.5: 50% of the examples" in out and "this one does not." in out


def test_a_cut_target_is_told(capsys):
    show_training_example(_shown(ends=False, injected=True))
    out = capsys.readouterr().out
    assert "cut at max_tokens 96, so without the end token" in out and "this one does." in out


@pytest.mark.parametrize(("name", "style"), [("llama", "chat"), ("mistral", "alpaca")])
def test_an_example_is_shown_without_weights_and_nothing_is_written(
    tiny_models, tiny_data, tmp_path, capsys, monkeypatch, name, style
):
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("weights were loaded"))
    words = ["stage1", "--model", str(tiny_models[name]), "--dataset", f"truthfulqa={tiny_data / 'truthfulqa.csv'}"]
    words += ["--out", str(tmp_path / "run"), "--splits", "16,8,8,8", "--show-example"]
    assert run(words) == 0
    out = capsys.readouterr().out
    assert f"axis honest, {style} template, the first of 16 training examples" in out
    assert "Nothing was trained or written" in out and "bring luck?" in out and "[«" in out
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_exists_lends_its_settings(finished_run, tiny_data, capsys):
    config, directory = finished_run("llama")
    before = sorted(directory.root.rglob("*"))
    words = ["stage1", "--model", config.model, "--dataset", f"truthfulqa={tiny_data / 'truthfulqa.csv'}"]
    assert run([*words, "--out", str(directory.root), "--splits", "16,8,8,8", "--show-example"]) == 0
    assert "the first of 16 training examples" in capsys.readouterr().out
    assert sorted(directory.root.rglob("*")) == before
