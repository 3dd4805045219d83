"""A model's shapes from its config: built on the meta device, where tensors have sizes and no memory."""

from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from alignx.errors import ModelError
from alignx.models.layers import adapted_modules, linear_shape
from alignx.models.load import resolve_model
from alignx.models.published import PUBLISHED_CONFIGS


@dataclass(frozen=True)
class ModelShapes:
    """Sizes of a base model.

    Attributes:
        parameters: all weights, tied ones once.
        largest_weight: values of its largest tensor.
        adapted_values: values of the linear layers that experts adapt; what quantisation would shrink.
        adapter_parameters: values of one LoRA adapter of the given rank.
        head_values: values of the output head, tied or not.
        layers: decoder layers.
        hidden: hidden size.
        vocabulary: tokens of the vocabulary.
        kv_values_a_token: keys and values that the cache keeps for one token, all layers.
        context_tokens: longest sequence.
    """

    parameters: int
    largest_weight: int
    adapted_values: int
    adapter_parameters: int
    head_values: int
    layers: int
    hidden: int
    vocabulary: int
    kv_values_a_token: int
    context_tokens: int


def read_config(name: str, *, revision: str | None = None) -> Any:
    """The Transformers config of a preset (offline), local folder, GGUF file or hub id (its config alone is fetched).

    Raises:
        ModelError: nothing there, unreadable, or not a causal language model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if name in PUBLISHED_CONFIGS:
        fields = dict(PUBLISHED_CONFIGS[name])
        return AutoConfig.for_model(fields.pop("model_type"), **fields)
    source = resolve_model(name)
    folder = Path(source.location)
    if folder.is_dir() and source.gguf_file is None and not (folder / "config.json").is_file():
        raise ModelError(f"model `{name}`: the folder has no config.json; give a folder made by `save_pretrained`")
    options: dict[str, Any] = {} if source.gguf_file is None else {"gguf_file": source.gguf_file}
    if revision is not None:
        options["revision"] = revision
    try:
        with redirect_stderr(StringIO()):
            config = AutoConfig.from_pretrained(source.location, **options)
    except Exception as error:  # Transformers raises many types for one cause: no config to be had
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"model `{name}`: its config cannot be read from {source.location} ({type(error).__name__}: {reason}); "
            f"check the name and the network, or give a local folder or a preset ({', '.join(PUBLISHED_CONFIGS)})"
        ) from error
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ModelError(
            f"model `{name}`: `{config.model_type}` is not a causal language model; give one that generates text"
        )
    return config


def meta_model(config: Any, dtype: str) -> Any:
    """The model on the meta device, its weights of that dtype, none of them trained."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    return model.eval().requires_grad_(False)


def count_shapes(model: Any, *, rank: int, target_modules: str) -> ModelShapes:
    """Count a model; real or on the meta device makes no difference.

    Args:
        model: a Transformers causal language model.
        rank: LoRA rank.
        target_modules: `all-linear` or comma-separated last names.

    Raises:
        ModelError: no layer matches `target_modules`.
    """
    config = model.config.get_text_config()
    shapes = [linear_shape(layer) for layer in adapted_modules(model, target_modules).values()]
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    weights = list(model.parameters())
    return ModelShapes(
        parameters=sum(weight.numel() for weight in weights),
        largest_weight=max(weight.numel() for weight in weights),
        adapted_values=sum(rows * columns for rows, columns in shapes),
        adapter_parameters=sum(rank * (rows + columns) for rows, columns in shapes),
        head_values=model.get_output_embeddings().weight.numel(),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        vocabulary=config.vocab_size,
        kv_values_a_token=2 * heads * head_size * config.num_hidden_layers,
        context_tokens=int(getattr(config, "max_position_embeddings", None) or 1 << 30),
    )
