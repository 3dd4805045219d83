"""One method answers some prompts and is timed: a process of its own, so that its peak memory is its own.

Reads a task as JSON from standard input, writes what it measured as the last line of standard output. Every method goes
the same way: encode, pad on the left, `generate`, greedily; AlignX also routes. Loading is not timed.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from alignx.config import RunConfig
from alignx.errors import AlignXError
from alignx.evaluate.joint import JOINT
from alignx.evaluate.methods import ALIGNX, BASE, expert_method
from alignx.evaluate.pipeline import peak_gb
from alignx.mixture.padding import left_padded
from alignx.mixture.runtime import AlignX
from alignx.models.lazy import LazyBase
from alignx.models.load import BaseModel
from alignx.runs.directory import RunDirectory
from alignx.stage1.experts import SHARED
from alignx.stage2.dial import Dial

BATCH = "-batch"
LEAN = 8.0  # how far a row of a batch leans towards its axis, so that no two neighbours have one mixture
# Prompts, longest answer -> tokens of each answer.
Generate = Callable[[Sequence[str], int], list[int]]


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Time one method.

    Args:
        task: `run`, `method`, `prompts`, `new_tokens`.

    Returns:
        `first_token_s` (mean over calls), `token_s` (none when no answer has a second token), `tokens_per_second`,
        `tokens` in all, `peak_gb` of the process, `accelerator_gb` (none without one).
    """
    run, method = RunDirectory(Path(task["run"])), str(task["method"])
    config = run.read_config()
    generate = _alignx(run, method) if method.startswith(ALIGNX) else _transformers(config, run, method)
    prompts: list[str] = task["prompts"]
    calls = [prompts] if method.endswith(BATCH) else [[prompt] for prompt in prompts]
    generate(calls[0], 2)  # what is built once, such as kernels and caches, is not timed
    first, whole, tokens, steps = 0.0, 0.0, 0, 0
    for call in calls:
        first += _timed(generate, call, 1)[0]
        seconds, lengths = _timed(generate, call, int(task["new_tokens"]))
        whole += seconds
        tokens += sum(lengths)
        steps += max(lengths)
    further = steps - len(calls)
    on_device = torch.cuda.is_available()
    return {
        "first_token_s": first / len(calls),
        "token_s": (whole - first) / further if further > 0 and whole > first else None,
        "tokens_per_second": tokens / whole,
        "tokens": tokens,
        "peak_gb": peak_gb(),
        "accelerator_gb": torch.cuda.max_memory_allocated() / 1e9 if on_device else None,
        "threads": torch.get_num_threads(),
    }


def _timed(generate: Generate, prompts: Sequence[str], new_tokens: int) -> tuple[float, list[int]]:
    started = time.perf_counter()
    lengths = generate(prompts, new_tokens)  # its answers are on the host, so the accelerator is done
    return time.perf_counter() - started, lengths


def _alignx(run: RunDirectory, method: str) -> Generate:
    model = AlignX.from_pretrained(run.root)

    def generate(prompts: Sequence[str], new_tokens: int) -> list[int]:
        dials = None
        if method.endswith(BATCH):
            dials = [Dial({model.axes[row % len(model.axes)]: LEAN}) for row in range(len(prompts))]
        answers = model.generate(list(prompts), dials, max_new_tokens=new_tokens)
        return [answer.n_tokens for answer in answers]

    return generate


def _transformers(config: RunConfig, run: RunDirectory, method: str) -> Generate:
    """Transformers' own `generate`, on the base or with the method's adapters on it by PEFT."""
    base = LazyBase(config, run).base
    model = _with_adapters(config, run, base, method.removesuffix(BATCH))

    def generate(prompts: Sequence[str], new_tokens: int) -> list[int]:
        room = base.context_tokens - new_tokens
        ids = [base.template.encode_prompt(prompt)[-room:] for prompt in prompts]
        input_ids, attention_mask = left_padded(ids, base.pad_token_id)
        with torch.no_grad():
            output = model.generate(
                input_ids=input_ids.to(base.model.device),
                attention_mask=attention_mask.to(base.model.device),
                max_new_tokens=new_tokens,
                eos_token_id=base.template.end_token_id,
                pad_token_id=base.pad_token_id,
                do_sample=False,
            )
        new: list[list[int]] = output[:, input_ids.shape[1] :].tolist()
        end = base.template.end_token_id
        return [row.index(end) + 1 if end in row else len(row) for row in new]

    return generate


def _with_adapters(config: RunConfig, run: RunDirectory, base: BaseModel, method: str) -> Any:
    if method == BASE:
        return base.model
    from peft import PeftModel

    axis = next((axis for axis in config.axes if expert_method(axis) == method), JOINT)
    # An expert is trained on top of what all axes share; the joint LoRA stands alone.
    names = [SHARED, axis] if config.stage1.shared_expert and axis != JOINT else [axis]
    model = PeftModel.from_pretrained(base.model, run.adapter_folder(names[0]), adapter_name=names[0])
    for name in names[1:]:
        model.load_adapter(run.adapter_folder(name), adapter_name=name)
    model.base_model.set_adapter(names)
    return model.eval()


def main() -> None:
    """Read a task, measure, answer."""
    try:
        found: dict[str, Any] = {"measured": measure(json.load(sys.stdin))}
    except AlignXError as error:
        found = {"error": str(error)}
    sys.stdout.write(f"\n{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
