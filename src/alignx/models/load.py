"""Resolving a model name and loading it, ready to be adapted."""

import importlib.util
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alignx.data.template import PromptTemplate
from alignx.errors import ModelError
from alignx.models.presets import MODEL_PRESETS


@dataclass(frozen=True)
class ModelSource:
    """Where weights are read from.

    Attributes:
        identity: portable name (no path of this machine), kept in artifacts.
        location: hub id or folder.
        gguf_file: file inside the folder, or none.
        template: prompt template the source asks for.
        hub_id: published name, written into adapters so that other tools find the base; empty when unknown.
    """

    identity: str
    location: str
    gguf_file: str | None = None
    template: str = "auto"
    hub_id: str = ""


@dataclass(frozen=True)
class BaseModel:
    """A loaded base: weights, tokenizer, template.

    Attributes:
        model: the Transformers model, in eval mode, no gradients.
        tokenizer: its tokenizer, with a pad token.
        template: how prompts are written for it.
        source: where it came from.
    """

    model: Any
    tokenizer: Any
    template: PromptTemplate
    source: ModelSource

    @property
    def pad_token_id(self) -> int:
        """Token used for padding; always set by `load_base`."""
        return int(self.tokenizer.pad_token_id)

    @property
    def context_tokens(self) -> int:
        """Longest sequence the model was made for."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit else 1 << 30


def resolve_model(name: str) -> ModelSource:
    """Turn a preset, hub id, local folder or GGUF path into a source.

    Raises:
        ModelError: a path that does not exist.
    """
    preset = MODEL_PRESETS.get(name)
    if preset is not None:
        spec = importlib.util.find_spec(preset.package) if preset.package else None
        if spec is not None and spec.submodule_search_locations:
            folder = Path(next(iter(spec.submodule_search_locations)))
            if (folder / preset.gguf_file).is_file():
                return ModelSource(name, str(folder), preset.gguf_file, preset.template, preset.hub_id)
        return ModelSource(name, preset.hub_id, None, preset.template, preset.hub_id)
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"model `{name}`: no such GGUF file; give an existing path")
        return ModelSource(path.name, str(path.parent), path.name)
    if name.strip() and path.is_dir():
        return ModelSource(path.name, str(path))
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(
            f"model `{name}`: no such folder and not a hub id; give a preset ({', '.join(sorted(MODEL_PRESETS))}), "
            "owner/name, a local folder or a .gguf file"
        )
    return ModelSource(name, name, hub_id=name)


def load_base(name: str, *, template: str = "auto", dtype: str = "float32", revision: str | None = None) -> BaseModel:
    """Load a causal language model and its tokenizer for use as a base, onto the GPU where there is one.

    Args:
        name: preset, hub id, local folder or GGUF file.
        template: `auto`, `chat` or `alpaca`; `auto` takes the preset's choice first.
        dtype: `float32` or `bfloat16`.
        revision: hub revision.

    Raises:
        ModelError: nothing there, not a causal language model, no way to pad or end a sequence.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = resolve_model(name)
    options: dict[str, Any] = {} if source.gguf_file is None else {"gguf_file": source.gguf_file}
    if revision is not None:
        options["revision"] = revision
    with quiet_loading():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.location, **options)
            model = AutoModelForCausalLM.from_pretrained(source.location, dtype=getattr(torch, dtype), **options)
        except Exception as error:  # Transformers raises many types for one cause: it could not be loaded
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"model `{name}` cannot be loaded from {source.location} ({type(error).__name__}: {reason}); "
                "check the name and the network, or give a local folder"
            ) from error
    _clear_gguf_marks(model)
    _settle_padding(tokenizer, model)
    if torch.cuda.is_available():
        model.to("cuda")
    model.eval()
    model.requires_grad_(False)
    chosen = source.template if template == "auto" else template
    return BaseModel(model, tokenizer, PromptTemplate.for_tokenizer(tokenizer, chosen), source)


def _clear_gguf_marks(model: Any) -> None:
    """Forget that the weights were dequantised from GGUF, or `save_pretrained` refuses (transformers 5.23)."""
    if getattr(model.config, "quantization_config", None) is None:
        return
    if str(getattr(model, "quantization_method", "")).lower().endswith("gguf"):
        for mark in ("hf_quantizer", "quantization_method"):
            if hasattr(model, mark):
                delattr(model, mark)
        model.is_quantized = False
        del model.config.quantization_config


def _settle_padding(tokenizer: Any, model: Any) -> None:
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer has neither a pad nor an end token; set `tokenizer.pad_token` and save it")
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked by position, so sharing a token is safe
    model.generation_config.pad_token_id = tokenizer.pad_token_id


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Transformers' bars and notices off while loading: our own progress says what happens."""
    from transformers.utils import logging

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():  # the GGUF reader's bar has no switch
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
