"""Stage 1 beside TRL's SFTTrainer: tokens a second, peak memory, held-out loss; and the speed of activation extraction.

    python benchmarks/stage1.py --data-dir DATA [--json FILE]

Every training runs in a process of its own, the trainers take turns, and figures are medians over the turns. All get
the very same tokens, batch size, LoRA, learning rate and seed. `trl` is SFTTrainer as it comes (activation
checkpointing, random batches, padding, bf16 on a processor too); `trl-plain` is the same without checkpointing.
Needs the `bench` extra: `pip install -e '.[bench]'`.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

SPLITS = {"train": 22, "mix": 1, "calibration": 2, "test": 16}
TRAINERS = ("alignx", "trl", "trl-plain")
RATE, SEED = 1e-3, 0


def main() -> None:
    """Parse, run the trainers in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="published files (docs/data.md); none: the package's sample")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--train", choices=TRAINERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        print(json.dumps(_train(options.train, options.data_dir)))
        return
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in TRAINERS}
    for repeat in range(options.repeats):
        for name in TRAINERS:
            turns[name].append(_in_a_process(name, options.data_dir))
            print(f"turn {repeat + 1}: {name} {turns[name][-1]}", file=sys.stderr, flush=True)
    rows = {name: {key: median(turn[key] for turn in found) for key in found[0]} for name, found in turns.items()}
    from extraction import measure_extraction

    figures = _ratios(turns) | measure_extraction(options.repeats, options.data_dir)
    print(f"{'trainer':<10} {'tokens/s':>9} {'peak GB':>8} {'held-out loss':>14}")
    for name, row in rows.items():
        print(f"{name:<10} {row['tokens_per_second']:>9.0f} {row['peak_gb']:>8.2f} {row['held_out_loss']:>14.4f}")
    for key, value in figures.items():
        print(f"{key} = {value:.3f}")
    if options.json:
        options.json.write_text(json.dumps({**figures, "rows": rows, "turns": turns}, indent=2) + "\n")


def _ratios(turns: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Medians of the ratios turn by turn: neighbours in time share the machine's mood."""

    def ratio(key: str, other: str) -> float:
        return median(ours[key] / theirs[key] for ours, theirs in zip(turns["alignx"], turns[other], strict=True))

    return {
        "tokens_per_second_vs_trl": ratio("tokens_per_second", "trl"),
        "peak_memory_vs_trl": ratio("peak_gb", "trl"),
        "held_out_loss_vs_trl": ratio("held_out_loss", "trl"),
        "tokens_per_second_vs_trl_without_checkpointing": ratio("tokens_per_second", "trl-plain"),
        "peak_memory_vs_trl_without_checkpointing": ratio("peak_gb", "trl-plain"),
    }


def _in_a_process(name: str, data_dir: Path | None) -> dict[str, float]:
    command = [sys.executable, __file__, "--train", name, *(["--data-dir", str(data_dir)] if data_dir else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _train(name: str, data_dir: Path | None) -> dict[str, float]:
    """One training in this process: speed, this process's peak memory, and the loss on prompts not trained on."""
    from alignx.data.prepare import prepare_axes
    from alignx.models.load import load_base

    config = _config(data_dir)
    base = load_base(config.model)
    prepared = prepare_axes(config, data_dir=data_dir)
    examples = [example for axis in prepared.values() for example in axis.splits.train]
    random.Random(SEED).shuffle(examples)
    with tempfile.TemporaryDirectory() as scratch:
        adapter = Path(scratch) / name / "adapter"
        tokens, seconds = (_ours if name == "alignx" else _trl)(base, examples, config, adapter, name)
        # The peak is the training's: it is read before anything is scored.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        held_out = [example for axis in prepared.values() for example in axis.splits.test]
        loss = _held_out_loss(config, held_out, adapter)
    return {"tokens_per_second": tokens / seconds, "peak_gb": peak, "held_out_loss": loss}


def _config(data_dir: Path | None) -> Any:
    from alignx.config.files import parse_config

    sources = {
        "helpful": ("alpaca", "alpaca/alpaca_data_random.json.gz"),
        "harmless": ("beavertails", "beavertails/30k_test.jsonl.gz"),
        "honest": ("truthfulqa", "truthfulqa/TruthfulQA.csv"),
    }
    axes = {
        axis: {"dataset": dataset, "source": source if data_dir else "sample", "splits": SPLITS}
        for axis, (dataset, source) in sources.items()
    }
    return parse_config({"model": "smollm2-135m", "seed": SEED, "axes": axes}, source="benchmark")


def _ours(base: Any, examples: list[Any], config: Any, adapter: Path, name: str) -> tuple[int, float]:
    from alignx.stage1 import train
    from alignx.stage1.schedule import TrainingJob

    job = TrainingJob(name, examples, {}, 0.0, RATE, 1, SEED)
    started = time.monotonic()
    summary = train.train_adapter(base, job, config.stage1, adapter, extra={})
    return summary.tokens, time.monotonic() - started  # wrapping, saving and all


def _trl(base: Any, examples: list[Any], config: Any, adapter: Path, name: str) -> tuple[int, float]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    rows = []
    for example in examples:
        encoded = base.template.encode(example, max_tokens=config.stage1.max_tokens)
        mask = [0] * len(encoded.prompt_ids) + [1] * len(encoded.target_ids)
        rows.append({"input_ids": encoded.prompt_ids + encoded.target_ids, "completion_mask": mask})
    plain = {"activation_checkpointing": False} if name == "trl-plain" else {}
    trainer = SFTTrainer(
        model=base.model,
        processing_class=base.tokenizer,
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(
            r=config.stage1.rank,
            lora_alpha=config.stage1.alpha,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        args=SFTConfig(
            output_dir=str(adapter.parent / "trl"),
            learning_rate=RATE,
            num_train_epochs=1,
            per_device_train_batch_size=config.stage1.batch_size,
            seed=SEED,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **plain,
        ),
    )
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    trainer.model.save_pretrained(adapter)
    return sum(len(row["input_ids"]) for row in rows), seconds


def _held_out_loss(config: Any, examples: list[Any], adapter: Path) -> float:
    """Mean over prompts of mean nats a target token, on a base loaded anew: both trainers' adapters alike."""
    import torch

    from alignx.models.gated import GatedModel
    from alignx.models.load import load_base
    from alignx.models.scoring import answer_log_probs
    from alignx.stage1.task_vector import read_task_vector
    from alignx.stage2.pipeline import target_items

    base = load_base(config.model)
    items = target_items(base, examples, config.stage1.max_tokens)
    with GatedModel(base.model, {"trained": read_task_vector(adapter).updates}) as gated:
        found = answer_log_probs(base, items, gated=gated, weights=torch.ones(len(items), 1))
    return sum(-scores[0] / len(item.answers[0]) for scores, item in zip(found, items, strict=True)) / len(items)


if __name__ == "__main__":
    main()
