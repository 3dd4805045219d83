"""The benchmark's jobs on a tiny model: that they run and what they report, not how fast."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def jobs(monkeypatch, tiny_models, tiny_config):
    monkeypatch.syspath_prepend(str(FOLDER))
    import stage1_jobs

    config = tiny_config(tiny_models["llama"])
    monkeypatch.setattr(stage1_jobs, "benchmark_config", lambda data_dir: config)
    yield stage1_jobs
    for name in ("stage1_jobs", "extraction"):
        sys.modules.pop(name, None)


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs the `bench` extra")
def test_both_trainers_learn_the_same(jobs):
    figures = {name: jobs.train(name, None, score=True) for name in ("alignx", "trl", "trl-plain")}
    for found in figures.values():
        assert found["tokens_per_second"] > 0 and found["peak_gb"] > 0
        # TRL multiplies in bf16 whatever the processor, the tiny model's trainer in float32.
        assert found["held_out_loss"] == pytest.approx(figures["alignx"]["held_out_loss"], rel=0.01)


def test_a_turn_that_is_not_scored_has_no_loss(jobs):
    assert jobs.train("alignx", None, score=False).keys() == {"tokens_per_second", "peak_gb"}


def test_three_axes_are_trained_on_one_base(jobs, monkeypatch):
    from alignx.models import load

    loaded = []
    load_base = load.load_base
    monkeypatch.setattr(load, "load_base", lambda *words, **more: loaded.append(words) or load_base(*words, **more))
    figures = jobs.train_three_axes(None)
    assert len(loaded) == 1 and figures["peak_vs_one"] >= 1


def test_extraction_reports_its_ratios(jobs):
    from extraction import measure_extraction

    figures = measure_extraction(1, jobs.benchmark_config(None), None)
    assert figures.keys() == {
        "extraction_vs_forward",
        "extraction_vs_forward_at_default_depths",
        "forward_tokens_per_second",
    }
    assert all(value > 0 for value in figures.values())
