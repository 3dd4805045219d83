"""The aligned model as an object that Transformers' own tools take for one of theirs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from alignx.errors import ConfigError
from alignx.mixture.engine import MixtureEngine
from alignx.models.load import BaseModel

_KEPT_ON_CACHE = "_alignx_gates"


def routed_model(base: BaseModel, engine: MixtureEngine, gates: Callable[[list[list[int]]], Tensor]) -> Any:
    """An instance of the base's own class whose forward pass routes.

    It shares the base's modules, and so its weights. A forward pass without a cache, or with an empty one, routes every
    row by its tokens; the weights are kept on the cache, which brings them to the passes that continue it.

    Args:
        base: the base, with gates installed.
        engine: runs it.
        gates: token ids of rows -> their weights (b, adapters).

    Returns:
        A `PreTrainedModel`, with the tokenizer as `tokenizer`.
    """
    plain: Any = type(base.model)
    # Named as the base's class, by which pipelines know what a model can do.
    routed: Any = type(plain.__name__, (_Routed, plain), {"forward": _forward_like(plain)})
    model = routed.__new__(routed)
    model.__dict__.update(base.model.__dict__)
    model._alignx_engine = engine
    model._alignx_route = gates
    model.tokenizer = base.tokenizer
    return model


class _Routed:
    """What a routed model does not do."""

    def save_pretrained(self, *arguments: Any, **options: Any) -> None:
        """Refused: a Transformers checkpoint cannot hold a mixture made for every prompt.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("save_pretrained: a mixture that is made for every prompt is no checkpoint; keep the run")


def _forward_like(plain: Any) -> Any:
    @functools.wraps(plain.forward)  # its signature too: `generate` asks it what the model takes
    def forward(self: Any, input_ids: Tensor | None = None, *arguments: Any, **options: Any) -> Any:
        if arguments:
            raise ConfigError("give the routed model everything but input_ids by name")
        if input_ids is None:
            raise ConfigError("the routed model needs input_ids: it routes by tokens")
        cache = options.get("past_key_values")
        weights = _weights(self, input_ids, options.get("attention_mask"), cache)
        with self._alignx_engine.lock.reading(), self._alignx_engine.gated.using(weights):
            output = plain.forward(self, input_ids=input_ids, **options)
        made = getattr(output, "past_key_values", None)
        for kept in (cache, made):
            if kept is not None:
                setattr(kept, _KEPT_ON_CACHE, weights)
        return output

    return forward


def _weights(model: Any, input_ids: Tensor, attention_mask: Tensor | None, cache: Any) -> Tensor:
    """Weights (b, adapters) of a forward pass: the cache's, or made for its rows."""
    if cache is not None and cache.get_seq_length() > 0:
        kept: Tensor | None = getattr(cache, _KEPT_ON_CACHE, None)
        if kept is None or input_ids.shape[0] % kept.shape[0]:
            raise ConfigError(
                "past_key_values: this cache was not made by this model for these rows, so their mixtures are not "
                "known; start without a cache"
            )
        return kept
    with torch.no_grad():
        made: Tensor = model._alignx_route(_rows(input_ids, attention_mask, model.tokenizer.pad_token_id))
    return made


def _rows(input_ids: Tensor, attention_mask: Tensor | None, pad_token_id: int) -> list[list[int]]:
    """Token ids of each row without padding; without a mask, pad tokens at the end of a batch's rows are padding."""
    rows: list[list[int]] = input_ids.tolist()
    if attention_mask is not None and attention_mask.dim() == 2 and attention_mask.shape == input_ids.shape:
        keep = attention_mask.bool().tolist()
        return [
            [token for token, on in zip(row, mask, strict=True) if on] for row, mask in zip(rows, keep, strict=True)
        ]
    return [_without_end(row, pad_token_id) for row in rows] if len(rows) > 1 else rows


def _without_end(row: Sequence[int], pad_token_id: int) -> list[int]:
    length = len(row)
    while length > 1 and row[length - 1] == pad_token_id:
        length -= 1
    return list(row[:length])
