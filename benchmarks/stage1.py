"""Stage 1 beside TRL's SFTTrainer: tokens a second, peak memory, held-out loss; and the speed of activation extraction.

    python benchmarks/stage1.py --data-dir DATA [--json FILE]

Every training runs in a process of its own, the trainers take turns, and figures are medians over the turns. All get
the very same tokens in the very same batches, the same first LoRA values, and the same recipe: learning rate,
schedule, weight decay and gradient clipping. What makes a trainer fast or slow is left as it comes:

    alignx      packed passes, fused LoRA layers, logits for target tokens only
    trl         SFTTrainer's defaults: activation checkpointing, padding, bf16 autocast on a processor too
    trl-plain   the same without checkpointing
    three axes  alignx, one adapter after the other in one process on one base

TRL's time is that of `train()` alone; ours holds wrapping and unwrapping the base and saving the adapter too.
Needs the `bench` extra: `pip install -e '.[bench]'`.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

TRAINERS = ("alignx", "trl", "trl-plain")
Row = dict[str, float]


def main() -> None:
    """Parse, run the trainers in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="published files (docs/data.md); none: the package's sample")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--repeats", type=int, default=5, help="turns of every trainer (about a minute each)")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats}: at least one turn is needed, e.g. --repeats 5")
    if importlib.util.find_spec("trl") is None:
        sys.exit("error: TRL, which this compares with, is not installed; run `pip install -e '.[bench]'`")
    started = time.monotonic()
    turns: dict[str, list[Row]] = {name: [] for name in TRAINERS}
    for repeat in range(options.repeats):
        for name in TRAINERS:
            # A trainer's adapter is the same in every turn, so its held-out loss is scored once.
            turns[name].append(_in_a_process(f"train:{name}", options.data_dir, score=repeat == 0))
            _note(f"turn {repeat + 1}: {name} {turns[name][-1]}")
    three = _in_a_process("three-axes", options.data_dir)
    extraction = _in_a_process(f"extraction:{options.repeats}", options.data_dir)
    rows = {
        name: {key: median(turn[key] for turn in found if key in turn) for key in found[0]}
        for name, found in turns.items()
    }
    rows["three axes"] = {"tokens_per_second": three["tokens_per_second"], "peak_gb": three["peak_gb"]}
    figures = _ratios(turns) | {"three_axes_peak_vs_one": three["peak_vs_one"]} | extraction
    _show(rows, figures)
    print(f"benchmark_seconds = {time.monotonic() - started:.0f}")
    if options.json:
        from alignx.runs.environment import describe_environment

        document = {**figures, "rows": rows, "turns": turns, "environment": describe_environment()}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def _ratios(turns: dict[str, list[Row]]) -> Row:
    """Medians of the ratios turn by turn: neighbours in time share the machine's mood."""

    def ratio(key: str, other: str) -> float:
        pairs = zip(turns["alignx"], turns[other], strict=True)
        return median(ours[key] / theirs[key] for ours, theirs in pairs if key in ours and key in theirs)

    return {
        "tokens_per_second_vs_trl": ratio("tokens_per_second", "trl"),
        "peak_memory_vs_trl": ratio("peak_gb", "trl"),
        "held_out_loss_vs_trl": ratio("held_out_loss", "trl"),
        "tokens_per_second_vs_trl_without_checkpointing": ratio("tokens_per_second", "trl-plain"),
        "peak_memory_vs_trl_without_checkpointing": ratio("peak_gb", "trl-plain"),
        "held_out_loss_vs_trl_without_checkpointing": ratio("held_out_loss", "trl-plain"),
    }


def _show(rows: dict[str, Row], figures: Row) -> None:
    print(f"{'trainer':<11} {'tokens/s':>9} {'peak GB':>8} {'held-out loss':>14}")
    for name, row in rows.items():
        loss = f"{row['held_out_loss']:.4f}" if "held_out_loss" in row else ""
        print(f"{name:<11} {row['tokens_per_second']:>9.0f} {row['peak_gb']:>8.2f} {loss:>14}")
    for key, value in figures.items():
        print(f"{key} = {value:.4g}")


def _in_a_process(job: str, data_dir: Path | None, *, score: bool = False) -> Row:
    """Run one job of `stage1_jobs.py`; its last line of output is its figures."""
    command = [sys.executable, str(Path(__file__).with_name("stage1_jobs.py")), job]
    command += ["--score"] if score else []
    command += ["--data-dir", str(data_dir)] if data_dir else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {job} failed:\n{done.stderr[-3000:]}")
    found: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
