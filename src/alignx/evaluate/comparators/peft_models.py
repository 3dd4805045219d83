"""PEFT's own mixtures of the run's experts: X-LoRA (a trained classifier) and Arrow (training-free).

Both get the very adapters that AlignX mixes. Where the run has a shared expert, the experts were trained on top of it,
so it is folded into the base below.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from alignx.config import RunConfig
from alignx.evaluate.comparators.gates import GateTraining, train_gates
from alignx.evaluate.comparators.interface import Comparator, Record
from alignx.models.fold import folded
from alignx.models.lazy import LazyBase
from alignx.models.load import BaseModel
from alignx.progress import notice
from alignx.runs.directory import RunDirectory
from alignx.runs.files import read_tensors, write_json, write_tensors
from alignx.stage1.adapter_files import check_adapter
from alignx.stage1.experts import shared_updates
from alignx.stage2.pipeline import expert_inputs

X_LORA, ARROW = "x-lora", "arrow"
X_LORA_DEPTH = 1
X_LORA_TRAINING = GateTraining()
ARROW_TOP_K = 3  # PEFT's default; at most as many as there are experts


def _x_lora_inputs(config: RunConfig, run: RunDirectory) -> dict[str, Any]:
    settings = {"depth": X_LORA_DEPTH, **X_LORA_TRAINING.settings()}
    scoring = [config.evaluate.max_tokens, config.stage1.precision]
    return expert_inputs(config, run) | {"x-lora": settings, "seed": config.seed, "scoring": scoring}


def _arrow_inputs(config: RunConfig, run: RunDirectory) -> dict[str, Any]:
    return expert_inputs(config, run) | {"top_k": ARROW_TOP_K, "seed": config.seed}


def _classifier(folder: Path) -> Path:
    return folder / "classifier.safetensors"


_X_LORA = Record(X_LORA, _x_lora_inputs, lambda _, folder: [_classifier(folder), folder / "training.json"])
_ARROW = Record(ARROW, _arrow_inputs, lambda _, folder: [folder / "settings.json"])


def make_x_lora(config: RunConfig, run: RunDirectory, lazy: LazyBase) -> None:
    """Train X-LoRA's classifier on the mix split; experts and base stay as they are."""
    if _X_LORA.is_done(config, run):
        notice("x-lora: up to date")
        return
    with _x_lora_model(config, run, lazy.base) as (base, classifier):
        parameters = list(classifier.parameters())
        for parameter in parameters:
            parameter.requires_grad_(True)
        record = train_gates(config, run, base, parameters, name=X_LORA, settings=X_LORA_TRAINING)
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in classifier.state_dict().items()}
    folder = _X_LORA.folder(run)
    write_tensors(_classifier(folder), tensors)
    write_json(folder / "training.json", {"depth": X_LORA_DEPTH, **record})
    _X_LORA.mark_done(config, run)


@contextmanager
def install_x_lora(config: RunConfig, run: RunDirectory, base: BaseModel) -> Iterator[BaseModel]:
    """The base with the experts under the trained classifier."""
    _X_LORA.check(run)
    with _x_lora_model(config, run, base) as (shown, classifier):
        classifier.load_state_dict(read_tensors(_classifier(_X_LORA.folder(run))))
        classifier.requires_grad_(False)
        yield shown


@contextmanager
def _x_lora_model(config: RunConfig, run: RunDirectory, base: BaseModel) -> Iterator[tuple[BaseModel, Any]]:
    from peft import XLoraConfig, get_peft_model

    folders = [check_adapter(run, axis) for axis in config.axes]
    settings = XLoraConfig(
        task_type="CAUSAL_LM",
        hidden_size=base.model.config.get_text_config().hidden_size,
        adapters={str(number): str(folder) for number, folder in enumerate(folders)},  # PEFT numbers them so
        xlora_depth=X_LORA_DEPTH,
    )
    torch.manual_seed(config.seed)  # the classifier's first values
    with folded(base.model, shared_updates(config, run, base)), _put_back(base) as adapted:
        base.model.config.use_cache = False  # X-LoRA refuses a model that keeps keys and values
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_peft_model(base.model, settings)
        model.eval()
        adapted.append(model.base_model.lora_model)
        yield replace(base, model=_Shown(base.model, _ThroughPeft(model))), model.base_model.internal_xlora_classifier


def make_arrow(config: RunConfig, run: RunDirectory, lazy: LazyBase) -> None:
    """Note Arrow's settings: nothing is trained, its router is made of the experts themselves."""
    if not _ARROW.is_done(config, run):
        write_json(_ARROW.folder(run) / "settings.json", {"top_k": arrow_top_k(config), "seed": config.seed})
        _ARROW.mark_done(config, run)


def arrow_top_k(config: RunConfig) -> int:
    """Experts that Arrow mixes for a token."""
    return min(ARROW_TOP_K, len(config.axes))


@contextmanager
def install_arrow(config: RunConfig, run: RunDirectory, base: BaseModel) -> Iterator[BaseModel]:
    """The base with the experts under Arrow's router."""
    from peft import ArrowConfig
    from peft.tuners.lora import create_arrow_model

    folders = [str(check_adapter(run, axis)) for axis in config.axes]
    settings = ArrowConfig(top_k=arrow_top_k(config), rng_seed=config.seed)
    with folded(base.model, shared_updates(config, run, base)), _put_back(base) as adapted:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = create_arrow_model(base.model, task_specific_adapter_paths=folders, arrow_config=settings)
        model.eval()
        model.requires_grad_(False)
        adapted.append(model.base_model)
        yield base  # PEFT has put its layers into the base itself


@contextmanager
def _put_back(base: BaseModel) -> Iterator[list[Any]]:
    """Take PEFT's layers out again; what was put into the list is unloaded."""
    adapted: list[Any] = []
    use_cache = base.model.config.use_cache
    try:
        yield adapted
    finally:
        for model in adapted:
            model.unload()
        if hasattr(base.model, "peft_config"):
            del base.model.peft_config
        base.model.config.use_cache = use_cache
        base.model.requires_grad_(False)
        base.model.eval()


class _ThroughPeft:
    """A decoder whose pass is PEFT's whole one: X-LoRA mixes in a hook around it, which the bare decoder goes past."""

    def __init__(self, model: Any) -> None:
        self._model = model
        takes = signature(model.get_base_model().forward).parameters
        self._last_logits_only = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        use_cache: bool = False,
    ) -> Any:
        """Last hidden states, as a decoder gives them."""
        found = self._model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            output_hidden_states=True,
            **self._last_logits_only,
        )
        return SimpleNamespace(last_hidden_state=found.hidden_states[-1])

    __call__ = forward


class _Shown:
    """A model with another decoder; everything else is the model's own."""

    def __init__(self, model: Any, decoder: _ThroughPeft) -> None:
        self._model = model
        self._decoder = decoder

    def get_decoder(self) -> _ThroughPeft:
        return self._decoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


COMPARATORS = (
    Comparator(
        X_LORA, "the experts; trains a classifier on the mix split", make_x_lora, _X_LORA.made_from, install_x_lora
    ),
    # PEFT 0.21's Arrow layer scatters scores that autocast made bf16 into a float32 tensor, which PyTorch refuses.
    Comparator(ARROW, "the experts; trains nothing", make_arrow, _ARROW.made_from, install_arrow, autocast=False),
)
