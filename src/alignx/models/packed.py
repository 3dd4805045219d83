"""Several sequences in one row without padding and without cross-talk.

Tokens of all sequences follow each other in a batch of one row, positions start anew with each sequence, and attention
is causal within each sequence. No token is computed for nothing, and no mask of (tokens x tokens) is made.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alignx.data.template import TokenisedExample
from alignx.models.positions import takes_positions
from alignx.models.rounding import equal_but_for_rounding

_NAME = "alignx_packed"
_lengths: ContextVar[list[int] | None] = ContextVar("packed_lengths", default=None)


@dataclass(frozen=True)
class PackedBatch:
    """Sequences in one row.

    Attributes:
        input_ids: (1, t) tokens.
        position_ids: (1, t) places in each sequence, from 0.
        target_mask: (1, t) True on target tokens; never on a sequence's first token, which nothing predicts.
        lengths: tokens of each sequence; they add up to t.
    """

    input_ids: Tensor
    position_ids: Tensor
    target_mask: Tensor
    lengths: list[int]


def pack(examples: Sequence[TokenisedExample]) -> PackedBatch:
    """Put examples, each of at least one token, into one row."""
    tokens: list[int] = []
    positions: list[int] = []
    targets: list[bool] = []
    lengths = []
    for example in examples:
        length = len(example.prompt_ids) + len(example.target_ids)
        tokens += [*example.prompt_ids, *example.target_ids]
        positions += range(length)
        targets += [0 < place and len(example.prompt_ids) <= place for place in range(length)]
        lengths.append(length)
    return PackedBatch(torch.tensor([tokens]), torch.tensor([positions]), torch.tensor([targets]), lengths)


@contextmanager
def packed_attention(model: Any) -> Iterator[None]:
    """Let a model's attention layers keep packed sequences apart; `packed_lengths` says where they end.

    The model's config is changed until the block ends: not for models that other threads use meanwhile.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attend)
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    before = {key: config._attn_implementation for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation = _NAME
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]


@contextmanager
def packed_lengths(lengths: list[int]) -> Iterator[None]:
    """Lengths of the sequences in the forward pass made inside."""
    token = _lengths.set(lengths)
    try:
        yield
    finally:
        _lengths.reset(token)


@torch.no_grad()
def can_pack(model: Any, max_tokens: int) -> bool:
    """Whether packed sequences get what they would get alone, tried on two short ones.

    Models whose attention is not Transformers' common one, or whose positions are not told by position ids (ALiBi),
    cannot be packed; nor can sequences longer than a sliding window.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    short_window = window is not None and window < max_tokens
    if config._attn_implementation != "sdpa" or short_window or not takes_positions(model):
        return False
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randint(0, config.vocab_size, (1, length), generator=generator) for length in (5, 7)]
    decoder = model.get_decoder()
    alone = [decoder(input_ids=part.to(model.device), use_cache=False).last_hidden_state[0] for part in parts]
    positions = torch.cat([torch.arange(part.shape[1]) for part in parts])[None]
    try:
        with packed_attention(model), packed_lengths([5, 7]):
            together = decoder(
                input_ids=torch.cat(parts, dim=1).to(model.device),
                position_ids=positions.to(model.device),
                use_cache=False,
            ).last_hidden_state[0]
    except (TypeError, ValueError, KeyError, RuntimeError):  # the architecture takes no positions, or other shapes
        return False
    return equal_but_for_rounding(together, torch.cat(alone))


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sequence; (1, heads, t, d) -> (1, t, heads, d)."""
    lengths = _lengths.get()
    if lengths is None or kwargs.get("softcap") is not None:
        raise ValueError("packed attention needs `packed_lengths`, and has no soft cap")
    dtype = query.dtype
    on_cpu = query.device.type == "cpu"
    with torch.autocast(query.device.type, enabled=False):
        # The processor's attention kernel is slower backwards in bf16 than in float32 (docs/performance.md).
        parts = [tensor.float() if on_cpu else tensor for tensor in (query, key, value)]
        rows = zip(*(torch.split(tensor, lengths, dim=2) for tensor in parts), strict=True)
        mixed = [
            nn.functional.scaled_dot_product_attention(
                q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
            )
            for q, k, v in rows
        ]
    return torch.cat(mixed, dim=2).to(dtype).transpose(1, 2).contiguous(), None
