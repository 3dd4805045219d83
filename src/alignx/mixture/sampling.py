"""Options of Transformers' `generate` that a caller may give, checked before anything is computed."""

import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from alignx.errors import ConfigError

# What only means something while sampling.
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "top_h", "epsilon_cutoff", "eta_cutoff")
# What the runtime sets itself -> what to do instead.
_OURS = {
    "max_length": "give max_new_tokens",
    "min_length": "give min_new_tokens",
    "eos_token_id": "the template's end token ends answers",
    "pad_token_id": "the tokenizer's is used",
    "bos_token_id": "the template writes the prompt's start",
    "num_return_sequences": "must be 1; repeat the prompt to get several answers",
    "return_dict_in_generate": "answers are returned as text",
    "output_scores": "use next_token_logits",
    "output_logits": "use next_token_logits",
    "output_attentions": "use as_transformers()",
    "output_hidden_states": "use as_transformers()",
    "use_cache": "the cache is always on",
    "streamer": "use stream()",
    "input_ids": "give prompts as text",
    "inputs": "give prompts as text",
    "attention_mask": "it follows from the prompts",
    "generation_config": "give its settings as options",
}
_OBJECTS = ("logits_processor", "stopping_criteria")

_number: Callable[[Any], bool] = lambda value: (  # noqa: E731
    isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
)
_whole: Callable[[Any], bool] = lambda value: isinstance(value, int) and not isinstance(value, bool)  # noqa: E731
_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "do_sample": (lambda value: isinstance(value, bool), "True or False"),
    "temperature": (lambda value: _number(value) and value >= 0, "a finite number, 0 or more; 0 is greedy"),
    "top_k": (lambda value: _whole(value) and value >= 0, "a whole number, 0 or more; 0 keeps all tokens"),
    "top_p": (lambda value: _number(value) and 0 < value <= 1, "in (0, 1]"),
    "min_p": (lambda value: _number(value) and 0 <= value <= 1, "in [0, 1]"),
    "typical_p": (lambda value: _number(value) and 0 < value <= 1, "in (0, 1]"),
    "repetition_penalty": (lambda value: _number(value) and value > 0, "a positive number"),
    "no_repeat_ngram_size": (lambda value: _whole(value) and value >= 0, "a whole number, 0 or more"),
    "num_beams": (lambda value: _whole(value) and value >= 1, "a whole number, at least 1"),
    "min_new_tokens": (lambda value: _whole(value) and value >= 0, "a whole number, 0 or more"),
    "num_return_sequences": (lambda value: value == 1, "1; repeat the prompt to get several answers"),
}


def checked_sampling(options: Mapping[str, Any], *, max_new_tokens: int) -> dict[str, Any]:
    """Options as `generate` is to get them: greedy, unless they ask for sampling.

    A temperature, `top_p` and the like ask for it by themselves; a temperature of 0 is greedy whatever else is given.

    Args:
        options: keyword -> value; None is the same as not given.
        max_new_tokens: longest answer.

    Raises:
        ConfigError: an unknown keyword, one that the runtime sets itself, or a value it cannot have.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        _check(name, value)
    if given.get("min_new_tokens", 0) > max_new_tokens:
        raise ConfigError(f"min_new_tokens {given['min_new_tokens']}: more than max_new_tokens {max_new_tokens}")
    given.pop("num_return_sequences", None)
    asked = [name for name in _SAMPLING if name in given]
    if given.get("temperature") == 0:
        return {name: value for name, value in given.items() if name not in asked} | {"do_sample": False}
    if asked and given.get("do_sample") is False:
        raise ConfigError(f"{asked[0]} {given[asked[0]]}: has no effect with do_sample False; drop one of them")
    return {"do_sample": bool(asked)} | given


def _check(name: str, value: Any) -> None:
    if name in _RANGES:
        is_right, says = _RANGES[name]
        if not is_right(value):
            raise ConfigError(f"{name} {value!r}: must be {says}")
    elif name in _OURS:
        raise ConfigError(f"{name}: {_OURS[name]}")
    elif name not in _known():
        near = get_close_matches(name, [*_known(), *_RANGES], n=1)
        hint = f"did you mean `{near[0]}`?" if near else "see the options of Transformers' GenerationConfig"
        raise ConfigError(f"{name}: no option of `generate`; {hint}")


@cache
def _known() -> frozenset[str]:
    from transformers import GenerationConfig

    public = (name for name in vars(GenerationConfig()) if not name.startswith("_"))
    return frozenset(name for name in (*public, *_OBJECTS) if name != "transformers_version")
