"""What answering costs, method by method: time to the first token, time a token, tokens a second, peak memory.

Methods take turns, each turn in a process of its own, and every second round runs backwards, so that a machine that
slows down or is shared favours none. Figures are medians over the rounds, with the smallest and the largest.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from alignx.config import RunConfig
from alignx.errors import ArtifactError, ConfigError
from alignx.evaluate.cost_worker import BATCH
from alignx.evaluate.joint import JOINT
from alignx.evaluate.methods import ALIGNX, BASE, expert_method, sources
from alignx.evaluate.pipeline import TEST, find_test_examples
from alignx.evaluate.prompts import judged_prompts
from alignx.progress import notice, progress
from alignx.runs.directory import RunDirectory
from alignx.runs.environment import describe_environment
from alignx.runs.files import read_json, write_json
from alignx.stage2.pipeline import check_current

COST = "cost"
FIGURES = ("first_token_s", "token_s", "tokens_per_second", "peak_gb", "accelerator_gb")
# Variables by which a launcher makes several processes of one job; a turn is alone.
_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class CostOptions:
    """How much is measured.

    Attributes:
        repeats: turns of every method.
        new_tokens: longest answer, at least 2.
        prompts: test prompts, of all axes in turn.
    """

    repeats: int = 5
    new_tokens: int = 64
    prompts: int = 8


def run_cost(config: RunConfig, run: RunDirectory, options: CostOptions) -> dict[str, Any]:
    """Measure every method and keep the figures in `eval/cost/metrics.json`.

    Args:
        config: the run's config.
        run: a run directory whose Stage 2 is finished.
        options: how much is measured.

    Returns:
        What that file holds: options, `methods` (method -> figure -> `median`, `min`, `max`), `environment`.

    Raises:
        ConfigError: options that measure nothing.
        ArtifactError: the run is not finished, or a turn failed.
    """
    if options.repeats < 1 or options.prompts < 1 or options.new_tokens < 2:
        raise ConfigError(
            f"{options.repeats} repeats, {options.prompts} prompts, {options.new_tokens} new tokens: give at least "
            "1 repeat, 1 prompt and 2 new tokens"
        )
    check_current(config, run)
    environment = describe_environment()
    path = run.evaluation_folder(COST) / "metrics.json"
    inputs = [sources(config, run), asdict(options), environment]
    if run.is_done(COST, inputs, path):
        notice("cost: up to date")
        return dict(read_json(path))
    names, prompts = cost_methods(config, run), _prompts(config, run, options.prompts)
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with progress("measure cost", options.repeats * len(names)) as advance:
        for turn in range(options.repeats):
            for name in names if turn % 2 == 0 else names[::-1]:
                task = {"run": str(run.root), "method": name, "prompts": prompts, "new_tokens": options.new_tokens}
                turns[name].append(_turn(task))
                advance(1)
    document = {
        **asdict(options),
        "prompts": len(prompts),
        "threads": turns[BASE][0]["threads"],
        "methods": {name: _figures(rows) for name, rows in turns.items()},
        "made_from": {ALIGNX: sources(config, run)[ALIGNX]},
        "environment": environment,
    }
    write_json(path, document)
    run.mark_done(COST, inputs, path)
    return document


def cost_methods(config: RunConfig, run: RunDirectory) -> list[str]:
    """What is measured: base, experts, joint LoRA and AlignX prompt by prompt, then base and AlignX as a batch."""
    joint = [JOINT] if (run.adapter_folder(JOINT) / "adapter_model.safetensors").is_file() else []
    return [BASE, *map(expert_method, config.axes), *joint, ALIGNX, BASE + BATCH, ALIGNX + BATCH]


def read_cost(run: RunDirectory) -> dict[str, Any] | None:
    """Kept figures, or none.

    Raises:
        ArtifactError: damaged.
    """
    path = run.evaluation_folder(COST) / "metrics.json"
    if not path.is_file():
        return None
    run.check(COST)
    return dict(read_json(path))


def _prompts(config: RunConfig, run: RunDirectory, count: int) -> list[str]:
    """The first test prompts, one of each axis in turn."""
    examples, _ = find_test_examples(config, run, None)
    by_axis: dict[str, list[str]] = {}
    for prompt in judged_prompts(config, examples, count):
        if prompt.group in config.axes:
            by_axis.setdefault(prompt.group, []).append(prompt.text)
    rows = [prompts[at] for at in range(count) for prompts in by_axis.values() if at < len(prompts)]
    if not rows:
        raise ArtifactError(f"{run.evaluation_folder(TEST)}: this run has no test prompt to answer")
    return rows[:count]


def _turn(task: dict[str, Any]) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name not in _LAUNCHER}
    done = subprocess.run(
        [sys.executable, "-m", "alignx.evaluate.cost_worker"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout.strip().rsplit("\n", 1)[-1])
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
        raise ArtifactError(
            f"cost of {task['method']}: its process ended without figures ({last[:200]}); try fewer --prompts or "
            "--new-tokens"
        ) from None
    if "error" in found:
        raise ArtifactError(f"cost of {task['method']}: {found['error']}")
    return dict(found["measured"])


def _figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Median, smallest and largest of each figure over the turns; none where a turn could not measure it."""
    found: dict[str, Any] = {"tokens": rows[0]["tokens"]}
    for name in FIGURES:
        values = [row[name] for row in rows if row[name] is not None]
        spread = {"median": statistics.median(values), "min": min(values), "max": max(values)} if values else None
        found[name] = spread
    return found
