"""Where a training step's time goes, before and after packing and fusing, and how near that is to the machine's limit.

    python benchmarks/training_profile.py --data-dir DATA [--threads N] [--repeats N] [--json FILE]

`before` is PEFT's layers in Transformers' model: padded rows, logits for every token. `after` is Stage 1's own pass:
packed rows, fused LoRA layers, logits for target tokens. Both take gradients of the same eight examples under the same
autocast. Besides wall time, the processor's time is given: with one thread it is nearly blind to what else is running.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

# The first class whose words an operation's name contains; order matters.
CLASSES = {
    "matrix products": ("mm", "linear", "matmul", "mkldnn"),
    "attention": ("scaled_dot_product", "flash_attention", "softmax_backward"),
    "loss": ("log_softmax", "nll_loss", "cross_entropy", "index_put", "aten::index"),
    "casts and copies": ("copy_", "_to_copy", "aten::cat", "aten::clone", "contiguous", "fill_", "zero_"),
    "element-wise": ("mul", "add", "silu", "rsqrt", "pow", "mean", "neg", "div", "sum", "sigmoid", "expand"),
}


def main() -> None:
    """Measure, print three tables, write them if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="published files (docs/data.md); none: the package's sample")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures = profile_steps(options.data_dir, options.repeats)
    figures["limit_gflops"] = {name: round(best_gflops(dtype), 1) for name, dtype in DTYPES.items()}
    figures["threads"] = options.threads
    for name in ("before", "after"):
        row = figures[name]
        print(f"{name:<7} {row['tokens_per_second']:7.0f} tokens/s   {row['tokens_per_cpu_second']:7.0f} tokens/cpu s")
        for kind, share in row["share"].items():
            print(f"          {kind:<18} {100 * share:5.1f}%")
    print(f"after over before: {figures['speed_up']:.2f} by wall, {figures['speed_up_by_cpu']:.2f} by cpu time")
    print(f"limit: {figures['limit_gflops']} GFLOP/s")
    print(f"after: {figures['gflop_per_token']:.3f} GFLOP a token")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def best_gflops(dtype: torch.dtype, n_tokens: int = 640, seconds: float = 2.0) -> float:
    """The best of many matrix products at the model's shapes, in GFLOP/s: what the machine can do at most."""
    best = 0.0
    for n_in, n_out in ((576, 1536), (1536, 576), (576, 576)):
        x, w = torch.randn(n_tokens, n_in).to(dtype), torch.randn(n_out, n_in).to(dtype)
        until = time.monotonic() + seconds / 3
        while time.monotonic() < until:
            started = time.perf_counter()
            torch.nn.functional.linear(x, w)
            best = max(best, 2 * n_tokens * n_in * n_out / (time.perf_counter() - started) / 1e9)
    return best


def profile_steps(data_dir: Path | None, repeats: int) -> dict[str, Any]:
    """Both passes in turn, then each once under the profiler."""
    from peft import LoraConfig, get_peft_model
    from stage1_jobs import benchmark_config

    from alignx.data.prepare import prepare_axes
    from alignx.models.load import load_base

    config = benchmark_config(data_dir)
    base = load_base(config.model)
    prepared = prepare_axes(config, data_dir=data_dir)
    examples = [axis.splits.train[number] for axis in prepared.values() for number in range(3)][:8]
    tokens = [base.template.encode(example, max_tokens=config.stage1.max_tokens) for example in examples]
    n_tokens = sum(len(example.prompt_ids) + len(example.target_ids) for example in tokens)
    n_targets = sum(len(example.target_ids) for example in tokens)
    linear = sum(weight.numel() for name, weight in base.model.get_decoder().named_parameters() if weight.dim() == 2)
    head = base.model.get_output_embeddings().weight.numel()
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    peft_model = get_peft_model(base.model, lora).train()
    jobs = {"before": lambda: _before(base, peft_model, tokens), "after": lambda: _after(base, peft_model, tokens)}
    turns = [{name: _timed(job) for name, job in jobs.items()} for _ in range(repeats + 1)][1:]
    figures: dict[str, Any] = {
        name: {
            "tokens_per_second": n_tokens / median(turn[name][0] for turn in turns),
            "tokens_per_cpu_second": n_tokens / median(turn[name][1] for turn in turns),
            "share": _shares(job),
        }
        for name, job in jobs.items()
    }
    figures["speed_up"] = median(turn["before"][0] / turn["after"][0] for turn in turns)
    figures["speed_up_by_cpu"] = median(turn["before"][1] / turn["after"][1] for turn in turns)
    figures["tokens"], figures["target_tokens"] = n_tokens, n_targets
    # Forward and the gradient of the input, 2 operations a weight each; frozen weights get no gradient of their own.
    figures["gflop_per_token"] = 4 * (linear - head + head * n_targets / n_tokens) / 1e9
    return figures


def _before(base: Any, peft_model: Any, tokens: list[Any]) -> None:
    from alignx.data.batches import pad_batch
    from alignx.models.precision import autocast

    batch = pad_batch(tokens, list(range(len(tokens))), base.pad_token_id)
    labels = batch.input_ids.masked_fill(~batch.target_mask, -100)
    with autocast(base.model.device, "auto"):
        loss = peft_model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss
    loss.backward()
    peft_model.zero_grad()


def _after(base: Any, peft_model: Any, tokens: list[Any]) -> None:
    from alignx.models.fused_lora import fused_lora
    from alignx.models.packed import pack, packed_attention
    from alignx.stage1.loop import SupervisedLoss

    batch = pack(tokens)
    inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids}
    with fused_lora(peft_model), packed_attention(base.model):
        SupervisedLoss(base.model, "auto")(inputs, batch.target_mask, batch.lengths, 1.0).backward()
    peft_model.zero_grad()


def _timed(job: Callable[[], None]) -> tuple[float, float]:
    """Wall seconds and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    job()
    return time.perf_counter() - wall, time.process_time() - cpu


def _shares(job: Callable[[], None]) -> dict[str, float]:
    """Shares of the operations' own time, by class."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        job()
    totals = dict.fromkeys([*CLASSES, "other"], 0.0)
    for event in found.key_averages():
        if event.key.startswith("aten::"):
            totals[_class_of(event.key)] += event.self_cpu_time_total
    whole = sum(totals.values())
    return {name: round(total / whole, 4) for name, total in totals.items()}


def _class_of(name: str) -> str:
    if "scaled_dot_product" in name or "flash" in name:
        return "attention"
    return next((kind for kind, words in CLASSES.items() if any(word in name for word in words)), "other")


if __name__ == "__main__":
    main()
