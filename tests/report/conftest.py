"""Metrics made by hand, and run directories that hold them: no model is needed to report."""

import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from alignx.config import AxisConfig, RunConfig
from alignx.data.example import Example
from alignx.report.page import write_report
from alignx.runs.directory import RunDirectory
from alignx.runs.files import write_json, write_jsonl

SIZES = {"helpful": 200, "harmless": 200, "honest": 140}
DATASETS = {"helpful": "alpaca", "harmless": "beavertails", "honest": "truthfulqa"}
# Loss of a method on its first axis; later axes add 0.2 each.
LOSSES = {"base": 2.31, "joint": 1.765, "uniform": 1.93, "alignx": 1.742}
ABLATIONS = {
    "ablation-best-probs": 1.75,
    "ablation-plain-router": 1.768,
    "ablation-shared-only": 1.81,
    "task-arithmetic": 1.9,
    "oracle-best-expert": 1.70,
}
SCRIPT = "<script>alert('x')</script>"


def make_metrics(axes: list[str]) -> dict[str, Any]:
    """What `metrics.json` holds, with good results; every number is chosen, none is measured."""
    losses = LOSSES | {f"expert-{axis}": 1.80 + 0.03 * at for at, axis in enumerate(axes)} | ABLATIONS
    n = {axis: SIZES.get(axis, 60) for axis in axes}
    loss = {method: _by_axis(start, axes) for method, start in losses.items()}
    versus = {
        method: difference(1.742 / start - 1, axes)
        for method, start in losses.items()
        if method != "alignx" and not method.startswith("oracle-")
    }
    return {
        "judge": "likelihood",
        "prompt_style": "chat",
        "model": "smollm2-135m",
        "seed": 0,
        "n": n | {"average": sum(n.values())},
        "left_out_because_trained": {},
        "loss": loss,
        "loss_interval": {
            method: {column: [value - 0.052, value + 0.057] for column, value in columns.items()}
            for method, columns in loss.items()
        },
        "regret": difference(0.0042, axes),
        "alignx_versus": versus,
        "likelihood": {
            method: _likelihood(start, axes) for method, start in losses.items() if not method.startswith("oracle-")
        },
        "calibration": {
            "axis": _predictors(0.018, 0.061, 0.031),
            "best_expert": _predictors(0.049, 0.172, 0.041),
        },
        "routing": {
            "mean_pi": {axis: _share(0.7, axis, axes) for axis in axes},
            "mean_scale": 1.04,
            "learned_strength": 1.12,
            "coefficients": {"router": 0.19, "fractal": 0.11, "natural": 0.09},
            "confusion": [[n[axis] - 12 * (len(axes) - 1) if axis == to else 12 for to in axes] for axis in axes],
            "known": 0.97,
            "foreign_auroc_on_development_set": [0.88, 0.93, 0.91, 0.9],
        },
        "environment": {
            "python": "3.11.7",
            "processor": "A processor",
            "cores": 2,
            "commit": "abc123+",
            "torch": "2.13.0",
        },
        "peak_gb": 2.5,
        "name": "test",
    }


def difference(value: float, axes: list[str], half: float = 0.006) -> dict[str, Any]:
    """A relative difference with an interval that reaches `half` to either side."""
    document: dict[str, Any] = {"average": value, "interval": [value - half, value + half], "nats": 1.7 * value}
    for at, axis in enumerate(axes):
        shifted = value + 0.002 * (at - 1)
        document |= {axis: shifted, f"{axis}_interval": [shifted - 2 * half, shifted + 2 * half]}
    return document


@pytest.fixture
def metrics() -> dict[str, Any]:
    return make_metrics(list(SIZES))


@pytest.fixture
def two_axes_metrics() -> dict[str, Any]:
    return make_metrics(["helpful", "honest"])


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDirectory]:
    """Writes a run directory with the files that a report reads."""

    def make(
        metrics: dict[str, Any], *, name: str = "run", answers: list[dict[str, Any]] | None = None, seed: int = 0
    ) -> RunDirectory:
        return write_run(tmp_path / name, metrics, answers, seed=seed)

    return make


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Page and markdown of a whole run, made once: to be read only."""
    run = write_run(tmp_path_factory.mktemp("report") / "run", make_metrics(list(SIZES)), make_answers())
    page, markdown = write_report(run)
    return page.read_text(encoding="utf-8"), markdown.read_text(encoding="utf-8")


@pytest.fixture
def answers() -> list[dict[str, Any]]:
    return make_answers()


@pytest.fixture(scope="session")
def hostile_run() -> Callable[[Path, list[str], list[str]], RunDirectory]:
    """Writes a run of these axes whose prompts, answers and settings are these texts."""

    def make(root: Path, axes: list[str], texts: list[str]) -> RunDirectory:
        shares = {axis: 1 / len(axes) for axis in axes}
        answers = [
            {**answer, "setting": text, "prompt": text, "answer": text, "pi": shares, "axis_probs": shares}
            | {"best_probs": shares}
            for text, answer in zip(texts, make_answers() * len(texts), strict=False)
        ]
        run = write_run(root, make_metrics(axes), answers)
        examples = [
            Example(axis=axis, instruction=f"{text} {number}", target=text)
            for number, axis in enumerate(axes)
            for text in texts
        ]
        for axis in axes:
            own = [{"split": "test", **asdict(example)} for example in examples if example.axis == axis]
            write_jsonl(run.root / "data" / f"{axis}.jsonl", own)
        write_jsonl(
            run.evaluation_folder("test") / "prompts.jsonl",
            [
                {"axis": one.axis, "prompt_hash": one.prompt_hash, "loss": {"base": 2.0, "alignx": 1.5 + 0.01 * at}}
                for at, one in enumerate(examples)
            ],
        )
        write_json(run.evaluation_folder("cost") / "metrics.json", make_cost(axes))
        write_json(run.evaluation_folder("variability") / "metrics.json", make_variability(axes))
        return run

    return make


@pytest.fixture
def bad_metrics() -> dict[str, Any]:
    """AlignX behind its experts, the joint LoRA, the uniform merge and the base, and badly calibrated."""
    axes = list(SIZES)
    found = make_metrics(axes)
    found["regret"] = difference(0.051, axes)
    found["alignx_versus"] |= {name: difference(0.03, axes) for name in ("base", "joint", "uniform")}
    found["calibration"] = {"axis": _predictors(0.2, 0.1, 0.03), "best_expert": _predictors(0.3, 0.1, 0.03)}
    return found


def write_run(
    root: Path, metrics: dict[str, Any], answers: list[dict[str, Any]] | None = None, *, seed: int = 0
) -> RunDirectory:
    """A finished run of these metrics."""
    run = RunDirectory(root)
    axes = [axis for axis in metrics["n"] if axis != "average"]
    by_axis = {axis: AxisConfig(dataset=DATASETS.get(axis, "pairs"), source="sample") for axis in axes}
    config = RunConfig(axes=by_axis, seed=seed)
    run.write_config(config, metrics["environment"] | {"commit": "older"})
    write_json(run.base_path, {"model": "smollm2-135m", "revision": None, "dtype": "float32", "tensors": {}})
    write_json(run.splits_path, {"salt": "alignx-0", "axes": {axis: _data_record(axis) for axis in axes}})
    for at, name in enumerate(["shared", *axes, "joint-rate-0.001-passes-2", "joint"]):
        steps = (135 if name == "shared" else 270) if name not in axes else 45
        record = _training_record(name, steps, seed=min(at, len(axes) + 1))
        write_json(run.adapter_folder(name).parent / "training.json", record)
    write_json(
        run.adapter_folder("joint").parent / "choice.json",
        {
            "chosen": {"learning_rate": 0.001, "epochs": 2},
            "tried": [
                {"learning_rate": 0.001, "epochs": 1, "mix_loss": 1.801},
                {"learning_rate": 0.001, "epochs": 2, "mix_loss": 1.779},
            ],
        },
    )
    write_json(run.evaluation_folder("test") / "metrics.json", metrics)
    if answers is not None:
        write_jsonl(run.evaluation_folder("showcase") / "answers.jsonl", answers)
    return run


def make_cost(axes: list[str]) -> dict[str, Any]:
    """What `eval/cost/metrics.json` holds; every number is chosen, none is measured."""

    def spread(value: float) -> dict[str, float]:
        return {"median": value, "min": 0.9 * value, "max": 1.2 * value}

    names = ["base", *(f"expert-{axis}" for axis in axes), "joint", "alignx", "base-batch", "alignx-batch"]
    return {
        **{"repeats": 5, "new_tokens": 64, "prompts": 8, "threads": 2},
        "methods": {
            name: {
                "tokens": 500 + at,
                "first_token_s": spread(0.08 + 0.01 * at),
                "token_s": spread(0.03),
                "tokens_per_second": spread(31.0),
                "peak_gb": spread(1.2),
                "accelerator_gb": None,
            }
            for at, name in enumerate(names)
        },
        "environment": {"processor": "A processor", "accelerator": "", "torch": "2.13.0", "transformers": "5.23.0"},
    }


def make_variability(axes: list[str]) -> dict[str, Any]:
    """What `eval/variability/metrics.json` holds; every number is chosen, none is measured."""
    methods = ["base", *(f"expert-{axis}" for axis in axes), "joint", "uniform", "alignx"]
    loss = {method: _by_axis(1.7 + 0.02 * at, axes) for at, method in enumerate(methods)}
    spread = {method: {column: 0.012 for column in columns} for method, columns in loss.items()}
    versus = {method: 0.004 for method in methods if method != "alignx"}
    settings = [("float32", 1), ("float32", 8), ("bf16", 1), ("bf16", 8)]
    n = {axis: 20 for axis in axes}
    seeds = {
        **{"seeds": [0, 1], "n": [{**n, "average": 20 * len(axes)}] * 2, "loss": [loss, loss], "spread": spread},
        **{"versus": versus, "also_differing": ["stage1.rank"]},
    }
    return {
        **{"limit": 20, "n": n, "spread": spread, "versus": versus, "largest_of_one_answer": 0.31, "seeds": seeds},
        "settings": [{"precision": precision, "batch_size": batch, "loss": loss} for precision, batch in settings],
        **{"published_per_cent": 10.0, "environment": {}},
    }


def make_answers() -> list[dict[str, Any]]:
    """One prompt at three settings; the answers try to break out of the page and of the markdown."""
    texts = {
        "lean to helpful": f"Sleep, move and talk to someone.\n\n1. Walk every day.\n2. {SCRIPT}",
        "cautious | harmless=4": "Please see a doctor first.\n\n```\n# not a heading\n````\n| a | b |",
        "base: strength 0": "",
    }
    return [
        {
            "setting": setting,
            "prompt": "How do I treat depression <b>without</b> medication?",
            "answer": text,
            "pi": {"helpful": 0.62, "harmless": 0.3, "honest": 0.08},
            "scale": 0.0 if "base" in setting else 1.03,
            "axis_probs": {"helpful": 0.3, "harmless": 0.69, "honest": 0.01},
            "best_probs": {"helpful": 0.5, "harmless": 0.4, "honest": 0.1},
            "known": 0.98,
            "out_of_distribution": False,
            "finished": at == 0,
            "n_tokens": 40 + at,
        }
        for at, (setting, text) in enumerate(texts.items())
    ]


def _by_axis(start: float, axes: list[str]) -> dict[str, float]:
    values = {axis: round(start + 0.2 * at, 4) for at, axis in enumerate(axes)}
    return values | {"average": sum(values.values()) / len(values)}


def _likelihood(start: float, axes: list[str]) -> dict[str, Any]:
    def share(value: float, n: int) -> dict[str, Any]:
        return {"value": value, "interval": [value - 6.5, value + 6.1], "n": n}

    found: dict[str, Any] = {
        axis: {"win_rate": share(50 + 40 * (LOSSES["base"] - start), SIZES.get(axis, 60))} for axis in axes
    }
    if "harmless" in found:
        found["harmless"]["safe_preferred"] = share(71.5, 188)
    if "honest" in found:
        found["honest"] |= {"mc1": share(31.4, 140), "mc2": share(47.9, 140)}
    return found | {"average": 58.3}


def _predictors(ours: float, plain: float, p95: float) -> dict[str, Any]:
    def one(ece: float) -> dict[str, Any]:
        points = [[0.4 + 0.04 * at, max(0.0, 0.4 + 0.04 * at - ece * (1 + at % 3) / 2), 36] for at in range(15)]
        return {
            "ece": ece,
            "perfect_mean": p95 * 0.6,
            "perfect_p95": p95,
            "brier": 0.15 + ece,
            "log_loss": 0.27 + ece,
            "accuracy": 0.90 - ece,
            "confidence": 0.90,
            "reliability": points,
        }

    return {"alignx": one(ours), "plain": one(plain), "plain_with_temperature": one((ours + plain) / 2)}


def _share(most: float, axis: str, axes: list[str]) -> dict[str, float]:
    rest = (1 - most) / max(1, len(axes) - 1)
    return {to: most if to == axis else rest for to in axes}


def _data_record(axis: str) -> dict[str, Any]:
    sizes = {"train": 360, "mix": 65, "calibration": 60, "test": SIZES.get(axis, 60)}
    return {
        "source": "sample",
        "licence": "Apache-2.0" if axis == "honest" else "CC BY-NC 4.0",
        "rows_read": 1000,
        "usable_prompts": 900,
        "shared_with_other_axes": 0,
        "fingerprint": "f" * 16,
        "splits": {split: [f"{axis}-{split}-{at}" for at in range(count)] for split, count in sizes.items()},
    }


def _training_record(name: str, steps: int, *, seed: int) -> dict[str, Any]:
    noise = random.Random(seed)
    return {
        "name": "joint-rate-0.001-passes-2" if name == "joint" else name,
        "examples": 360,
        "epochs": 1,
        "learning_rate": 0.001,
        "injection_rate": 0.5,
        "seed": 0,
        "steps": steps,
        "tokens": 37965,
        "seconds": 152.5,
        "losses": [round(1.6 + 0.9 * 0.96**step + noise.gauss(0, 0.15), 5) for step in range(steps)],
        "on_top_of": "",
    }
