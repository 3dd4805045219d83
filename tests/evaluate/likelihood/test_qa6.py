"""Multiple choice after the six-pair primer, against numbers that lm-evaluation-harness gave (golden/make_qa6.py)."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignx.config import RunConfig
from alignx.data.example import Example
from alignx.evaluate.likelihood.judge import judge, likelihood_items
from alignx.evaluate.likelihood.qa6 import primed_answers
from alignx.evaluate.pipeline import run_evaluate
from alignx.models.load import BaseModel, load_base
from alignx.models.scoring import answer_log_probs
from alignx.runs import RunDirectory
from qa6_golden import GOLDEN, golden_items, save_golden_model

DOCUMENT: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
# What rounding allows in the dtype that the harness's numbers were made in.
CLOSE = {"float64": 1e-6, "float32": 1e-5}[DOCUMENT["dtype"]]


@pytest.fixture(scope="module", params=["with_bos", "without_bos"])
def scored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[BaseModel, Any]:
    """The model that the harness scored, and what it found."""
    folder = tmp_path_factory.mktemp(request.param)
    save_golden_model(folder, begins_with_bos=request.param == "with_bos")
    return load_base(str(folder), dtype=DOCUMENT["dtype"]), DOCUMENT[request.param]


def example(item: dict[str, Any]) -> Example:
    mc2 = item["mc2_targets"]
    by_label = {
        label: tuple(text for text, of in zip(mc2["choices"], mc2["labels"], strict=True) if of == label)
        for label in (1, 0)
    }
    true = item["mc1_targets"]["choices"][0]
    return Example(
        axis="honest",
        instruction=item["question"],
        target=true,
        correct=by_label[1],
        incorrect=by_label[0],
        mc1=tuple(item["mc1_targets"]["choices"]),
    )


def test_the_items_are_those_that_were_scored() -> None:
    assert DOCUMENT["items"] == golden_items()


def test_mc1_and_mc2_are_the_harnesss(scored: tuple[BaseModel, Any]) -> None:
    base, golden = scored
    items = likelihood_items(
        [example(item) for item in golden_items()], base.template, max_tokens=1024, prompt_style="qa6"
    )
    scores = [[nats for part in answer_log_probs(base, item.parts) for nats in part] for item in items]
    found = [judge("base", item, log_probs) for item, log_probs in zip(items, scores, strict=True)]
    assert [one.mc1 for one in found] == [item["acc"] for item in golden["mc1"]["items"]]
    assert [one.mc2 for one in found] == pytest.approx([item["acc"] for item in golden["mc2"]["items"]], abs=CLOSE)
    assert sum(one.mc2 or 0.0 for one in found) / len(found) == pytest.approx(golden["mc2"]["acc"], abs=CLOSE)
    assert 0.1 < golden["mc2"]["acc"] < 0.9


def test_every_choices_log_likelihood_is_the_harnesss(scored: tuple[BaseModel, Any]) -> None:
    base, golden = scored
    for item, theirs in zip(golden_items(), golden["mc2"]["items"], strict=True):
        primed = primed_answers(base.template, item["question"], item["mc2_targets"]["choices"], max_tokens=1024)
        [ours] = answer_log_probs(base, [primed])
        assert ours == pytest.approx(theirs["log_likelihoods"], rel=CLOSE)


def test_the_styles_ask_differently(scored: tuple[BaseModel, Any]) -> None:
    base, _ = scored
    one = example(golden_items()[1])
    [chat], [qa6] = (
        likelihood_items([one], base.template, max_tokens=1024, prompt_style=style) for style in ("chat", "qa6")
    )
    assert len(chat.parts) == 1
    assert len(qa6.parts) == 2
    # What is not multiple choice is asked as before.
    assert qa6.parts[0].prompt_ids == chat.parts[0].prompt_ids
    assert qa6.parts[0].answers == chat.parts[0].answers[:1]
    assert chat.choices == qa6.choices
    without = replace(one, mc1=())
    [plain] = likelihood_items([without], base.template, max_tokens=1024, prompt_style="qa6")
    assert len(plain.parts) == 1


def test_a_prompt_that_does_not_fit_loses_its_beginning(scored: tuple[BaseModel, Any]) -> None:
    base, _ = scored
    item = golden_items()[0]
    whole = primed_answers(base.template, item["question"], item["mc2_targets"]["choices"], max_tokens=1024)
    cut = primed_answers(base.template, item["question"], item["mc2_targets"]["choices"], max_tokens=200)
    longest = max(map(len, whole.answers))
    assert cut.answers == whole.answers
    assert cut.prompt_ids == whole.prompt_ids[-(200 - longest) :]


def test_an_evaluation_names_its_style_and_scores_again_in_another(
    finished_run: Callable[[str], tuple[RunConfig, RunDirectory]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    config, finished = finished_run("llama")
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(finished.root, run.root)
    plain = config.evaluate.model_copy(update={"joint": False})
    found = {}
    for style in ("chat", "qa6", "chat"):
        capsys.readouterr()
        styled = config.model_copy(update={"evaluate": plain.model_copy(update={"prompt_style": style})})
        found[style] = run_evaluate(styled, run)
        assert "score alignx: up to date" not in capsys.readouterr().err
    assert {style: metrics["prompt_style"] for style, metrics in found.items()} == {"chat": "chat", "qa6": "qa6"}
    for method, losses in found["chat"]["loss"].items():  # other answers share the target's pass, so bits may differ
        assert found["qa6"]["loss"][method] == pytest.approx(losses, rel=1e-5)
    mc2 = {style: metrics["likelihood"]["base"]["honest"]["mc2"] for style, metrics in found.items()}
    assert mc2["chat"] != mc2["qa6"]
