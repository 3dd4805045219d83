"""How fast activations are read, beside the bare forward pass over the same prompts in the same batches.

Part of `stage1.py`. The bare pass is the decoder alone: no hooks, nothing kept. Extraction reads the last prompt
token's states and writes them to disk, as Stage 1 does: down to the last layer, for a like-for-like figure, and at the
default depths, where the layers above are not run.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

_BATCH = 16  # prompts a forward pass, as in Stage 1


def measure_extraction(repeats: int, config: Any, data_dir: Path | None) -> dict[str, float]:
    """Tokens a second of extraction over those of the forward pass: medians of paired ratios.

    Args:
        repeats: turns, after one that warms up.
        config: names the model, the data and the depths.
        data_dir: folder of the published files.

    Returns:
        `extraction_vs_forward` at full depth, `extraction_vs_forward_at_default_depths`, and the forward pass's
        non-pad tokens a second.
    """
    from alignx.data.prepare import prepare_axes
    from alignx.models.load import load_base
    from alignx.stage1.activations import depth_layers, iter_prompt_states
    from alignx.stage1.extracts import encode_prompts
    from alignx.stage1.state_file import StateFile

    base = load_base(config.model)
    prepared = prepare_axes(config, data_dir=data_dir)
    prompts = encode_prompts(base, [example for axis in prepared.values() for example in axis.splits.train])
    n_layers = len(base.model.get_decoder().layers)
    default = config.stage1.depths

    def extract(depths: tuple[float, ...]) -> None:
        states = iter_prompt_states(base, prompts, depth_layers(depths, n_layers), batch_size=_BATCH)
        with tempfile.TemporaryDirectory() as scratch:
            StateFile.write(Path(scratch) / "states", states)

    jobs: list[Callable[[], None]] = [
        lambda: _forward(base, prompts),
        lambda: extract((*default[:-1], 1.0)),
        lambda: extract(default),
    ]
    turns = [[_seconds(job) for job in jobs] for _ in range(repeats + 1)][1:]
    return {
        "extraction_vs_forward": median(plain / whole for plain, whole, _ in turns),
        "extraction_vs_forward_at_default_depths": median(plain / lower for plain, _, lower in turns),
        "forward_tokens_per_second": sum(map(len, prompts)) / median(plain for plain, _, _ in turns),
    }


def _forward(base: Any, prompts: list[list[int]]) -> None:
    import torch

    from alignx.data.batches import pad_batch, rows_by_length
    from alignx.data.template import TokenisedExample

    examples = [TokenisedExample(prompt, []) for prompt in prompts]
    with torch.no_grad():
        for rows in rows_by_length([len(prompt) for prompt in prompts], _BATCH):
            batch = pad_batch(examples, rows, base.pad_token_id)
            base.model.get_decoder()(
                input_ids=batch.input_ids.to(base.model.device),
                attention_mask=batch.attention_mask.to(base.model.device),
                use_cache=False,
            )


def _seconds(job: Callable[[], None]) -> float:
    started = time.monotonic()
    job()
    return time.monotonic() - started
