"""What answering costs: turns in processes of their own, figures by method."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from alignx.cli import run as alignx
from alignx.config import RunConfig
from alignx.data.prepare import read_splits
from alignx.errors import ArtifactError, ConfigError
from alignx.evaluate import cost, cost_worker
from alignx.evaluate.cost import CostOptions, cost_methods, run_cost
from alignx.models.lazy import LazyBase
from alignx.report.cost import cost_section
from alignx.report.page import write_report
from alignx.runs import RunDirectory
from alignx.runs.files import read_jsonl

Pair = tuple[RunDirectory, RunDirectory]
Finished = Callable[[str], tuple[RunConfig, RunDirectory]]


def test_every_method_answers_and_is_timed(evaluated_runs: Pair) -> None:
    run, _ = evaluated_runs
    methods = cost_methods(run.read_config(), run)
    assert methods[:2] == ["base", "expert-helpful"] and methods[-2:] == ["base-batch", "alignx-batch"]
    assert "joint" in methods
    assert "joint" not in cost_methods(evaluated_runs[1].read_config(), evaluated_runs[1])
    for method in ("base", "expert-honest", "joint", "alignx", "alignx-batch"):
        task = {"run": str(run.root), "method": method, "prompts": ["Why?", "How so?"], "new_tokens": 4}
        found = cost_worker.measure(task)
        assert 2 <= found["tokens"] <= 8
        assert 0 < found["first_token_s"] < 60 and found["tokens_per_second"] > 0 and found["peak_gb"] > 0.05


def test_experts_by_peft_are_the_runs_experts(evaluated_runs: Pair) -> None:
    run, _ = evaluated_runs
    config = run.read_config()
    rows = {row["prompt_hash"]: row for row in read_jsonl(run.evaluation_folder("test") / "prompts.jsonl")}
    for method in ("expert-honest", "joint"):
        base = LazyBase(config, run).base
        example = read_splits(run, "honest").test[0]
        encoded = base.template.encode(example, max_tokens=120)
        model = cost_worker._with_adapters(config, run, base, method)
        ids = torch.tensor([encoded.prompt_ids + encoded.target_ids])
        with torch.no_grad():
            log_probs = model(input_ids=ids).logits[0].log_softmax(dim=-1)
        places = range(len(encoded.prompt_ids) - 1, ids.shape[1] - 1)
        loss = -sum(float(log_probs[at, ids[0, at + 1]]) for at in places) / len(encoded.target_ids)
        assert loss == pytest.approx(rows[example.prompt_hash]["loss"][method], rel=1e-4)


def test_turns_run_in_processes_and_are_kept(
    evaluated_runs: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = evaluated_runs
    monkeypatch.setattr(cost, "cost_methods", lambda config, run: ["base", "alignx-batch"])
    arguments = ["cost", str(run.root), "--repeats", "1", "--new-tokens", "3", "--prompts", "4"]
    try:
        assert alignx([*arguments, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["prompts"] == 4 and set(found["methods"]) == {"base", "alignx-batch"}
        for row in found["methods"].values():
            figure = row["first_token_s"]
            assert 0 < figure["min"] <= figure["median"] <= figure["max"]
        assert alignx(arguments) == 0
        captured = capsys.readouterr()
        assert "cost: up to date" in captured.err and "AlignX, one batch" in captured.out
        page, markdown = (path.read_text(encoding="utf-8") for path in write_report(run))
        for text in (page, markdown):
            assert "Cost of answering 4 test prompts" in text and "Evaluation on other data" not in text
    finally:
        (run.evaluation_folder("cost") / "metrics.json").unlink(missing_ok=True)


def test_bad_options_and_failing_turns_are_said(evaluated_runs: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = evaluated_runs
    config = run.read_config()
    with pytest.raises(ConfigError, match="at least 1 repeat"):
        run_cost(config, run, CostOptions(new_tokens=1))
    monkeypatch.setattr(cost.sys, "executable", "/bin/false")
    with pytest.raises(ArtifactError, match="cost of base: its process ended without figures"):
        run_cost(config, run, CostOptions(repeats=1, prompts=1, new_tokens=2))
    assert not (run.evaluation_folder("cost") / "metrics.json").exists()


def test_figures_are_medians_and_ratios_to_the_base() -> None:
    def row(first: float, token: float | None) -> dict[str, object]:
        times = {"first_token_s": first, "token_s": token, "tokens_per_second": 9.0, "peak_gb": 1.0}
        return {**times, "accelerator_gb": None, "tokens": 8}

    base = cost._figures([row(0.3, 0.02), row(0.1, 0.01), row(0.2, 0.03)])
    assert base["first_token_s"] == {"median": 0.2, "min": 0.1, "max": 0.3}
    assert base["accelerator_gb"] is None
    assert cost._figures([row(0.3, None)])["token_s"] is None
    found = {
        **{"repeats": 3, "new_tokens": 4, "prompts": 2, "threads": 1},
        "methods": {"base": base, "alignx": cost._figures([row(0.3, 0.03)])},
        "environment": {"processor": "p", "accelerator": "", "torch": "2", "transformers": "5"},
    }
    section = cost_section(found)
    assert section is not None
    assert section.sentences[0] == (
        "Prompt by prompt, a token takes 1.50 times what it takes the base and the first token, routing among it, "
        "takes 1.50 times what it takes the base."
    )
    assert cost_section(None) is None
