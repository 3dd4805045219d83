"""The jobs of `stage1.py`, each run in a process of its own; the last line of output is the job's figures."""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SPLITS = {"train": 12, "mix": 1, "calibration": 2, "test": 16}
RATE, SEED = 1e-3, 0


def main() -> None:
    """Do one job and print its figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", help="train:TRAINER, three-axes or extraction:REPEATS")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--score", action="store_true", help="score the trained adapter on held-out prompts too")
    options = parser.parse_args()
    kind, _, argument = options.job.partition(":")
    if kind == "train":
        figures = train(argument, options.data_dir, score=options.score)
    elif kind == "three-axes":
        figures = train_three_axes(options.data_dir)
    else:
        from extraction import measure_extraction

        figures = measure_extraction(int(argument), benchmark_config(options.data_dir), options.data_dir)
    print(json.dumps(figures))


def benchmark_config(data_dir: Path | None) -> Any:
    """36 training prompts, 12 an axis, and 48 held-out ones; Stage 1's own defaults for the rest."""
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


def train(name: str, data_dir: Path | None, *, score: bool) -> dict[str, float]:
    """One training: speed, this process's peak memory, and the loss on prompts not trained on."""
    from alignx.data.prepare import prepare_axes
    from alignx.models.load import load_base

    config = benchmark_config(data_dir)
    base = load_base(config.model)
    prepared = prepare_axes(config, data_dir=data_dir)
    examples = [example for axis in prepared.values() for example in axis.splits.train]
    random.Random(SEED).shuffle(examples)
    with tempfile.TemporaryDirectory() as scratch:
        adapter = Path(scratch) / name / "adapter"
        trainer = _train_with_alignx if name == "alignx" else _train_with_trl
        tokens, seconds = trainer(base, examples, config, adapter, name)
        # The peak is the training's: it is read before anything is scored.
        figures = {"tokens_per_second": tokens / seconds, "peak_gb": _peak_gb()}
        if score:
            held_out = [example for axis in prepared.values() for example in axis.splits.test]
            figures["held_out_loss"] = _held_out_loss(config, held_out, adapter)
    return figures


def train_three_axes(data_dir: Path | None) -> dict[str, float]:
    """An adapter an axis, one after the other on one base: what the second and third add to the peak.

    The axis with the longest prompts and answers comes first, so that a later peak is not its larger batches'.
    """
    from alignx.data.prepare import prepare_axes
    from alignx.models.load import load_base

    config = benchmark_config(data_dir)
    base = load_base(config.model)
    splits = [prepared.splits.train for prepared in prepare_axes(config, data_dir=data_dir).values()]
    splits.sort(key=lambda examples: -max(len(example.instruction + example.target) for example in examples))
    peaks, tokens, seconds = [], 0, 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for examples in splits:
            axis = examples[0].axis
            done = _train_with_alignx(base, examples, config, Path(scratch) / axis / "adapter", axis)
            tokens, seconds = tokens + done[0], seconds + done[1]
            peaks.append(_peak_gb())
    return {"tokens_per_second": tokens / seconds, "peak_gb": peaks[-1], "peak_vs_one": peaks[-1] / peaks[0]}


def _train_with_alignx(base: Any, examples: list[Any], config: Any, adapter: Path, name: str) -> tuple[int, float]:
    from alignx.stage1.train import train_adapter

    started = time.monotonic()
    summary = train_adapter(base, _job(name, examples), config.stage1, adapter, extra={})
    return summary.tokens, time.monotonic() - started


def _train_with_trl(base: Any, examples: list[Any], config: Any, adapter: Path, name: str) -> tuple[int, float]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from trl import SFTConfig, SFTTrainer

    from alignx.stage1.schedule import training_steps

    settings = config.stage1
    steps = training_steps(_job(name, examples), base.template, settings)
    # Labels, and not a completion mask: SFTTrainer takes no notice of a mask unless it is told to.
    rows = [
        {
            "input_ids": example.prompt_ids + example.target_ids,
            "labels": [-100] * len(example.prompt_ids) + example.target_ids,
        }
        for step in steps
        for example in step.examples
    ]
    lora = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    # Wrapped here: given a LoraConfig, SFTTrainer draws random numbers of its own before the adapter's first values.
    torch.manual_seed(SEED)
    trainer = SFTTrainer(
        model=get_peft_model(base.model, lora),
        processing_class=base.tokenizer,
        train_dataset=Dataset.from_list(rows),
        args=SFTConfig(
            output_dir=str(adapter.parent / "trl"),
            # The recipe, which both share:
            learning_rate=RATE,
            lr_scheduler_type="cosine",
            warmup_steps=round(settings.warmup_fraction * len(steps)),
            weight_decay=settings.weight_decay,
            num_train_epochs=1,
            per_device_train_batch_size=settings.batch_size,
            train_sampling_strategy="sequential",  # in the order drawn above, so that the batches are the same
            seed=SEED,
            # Where it runs, and nothing but training:
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **({"activation_checkpointing": False} if name == "trl-plain" else {}),
        ),
    )
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    trainer.model.save_pretrained(adapter)
    return sum(len(row["input_ids"]) for row in rows), seconds


def _job(name: str, examples: list[Any]) -> Any:
    from alignx.stage1.schedule import TrainingJob

    return TrainingJob(name, examples, {}, 0.0, RATE, 1, SEED)


def _held_out_loss(config: Any, examples: list[Any], adapter: Path) -> float:
    """Mean over prompts of mean nats a target token, on a base loaded anew: all trainers' adapters alike."""
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


def _peak_gb() -> float:
    """This process's largest resident memory so far, in GB; the kernel counts bytes on macOS and KiB elsewhere."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


if __name__ == "__main__":
    main()
