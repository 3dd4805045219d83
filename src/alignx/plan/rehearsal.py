"""One step of each kind, run on tensors that have shapes and no values, to count the bytes it keeps alive.

What is run is the library's own code (fused LoRA layers, packed attention, gated layers) on PyTorch's fake tensors, so
the count follows the code and the architecture instead of a formula. Layers are alike, so bytes are linear in
their number: two small depths are run, and the line through them gives the model's.
"""

import copy
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alignx.models.fused_lora import fused_lora
from alignx.models.gated import Gate, GatedModel
from alignx.models.head import head_logits
from alignx.models.layers import adapted_modules, linear_shape
from alignx.models.low_rank import LowRankUpdate
from alignx.models.packed import packed_attention, packed_lengths
from alignx.plan.shapes import meta_model

_DEPTHS = (2, 4)


@dataclass(frozen=True)
class Pass:
    """The tokens of one forward pass.

    Attributes:
        tokens: all of them, padding included.
        targets: those that logits are made for.
        rows: sequences.
        bf16: whether it runs under bf16 autocast.
    """

    tokens: int
    targets: int
    rows: int
    bf16: bool


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages made inside that are alive, and the most there were at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf, given)
        return result

    def _count(self, tensor: Tensor, given: set[int]) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes or key in given:  # an older storage, in place or seen through a view
            return
        self._sizes[key] = storage.nbytes()
        self.live += self._sizes[key]
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


def training_bytes(config: Any, dtype: str, method: str, rank: int, target_modules: str, work: Pass) -> int:
    """Most bytes that one forward and backward pass of Stage 1 keeps beside weights and gradients.

    Args:
        config: the model's Transformers config.
        dtype: of the base weights.
        method: `lora` or `full`.
        rank: LoRA rank.
        target_modules: which layers are adapted.
        work: the pass.
    """

    def at_depth(layers: int) -> int:
        model = meta_model(_with_layers(config, layers), dtype)
        trained = _with_lora(model, rank, target_modules) if method == "lora" else model.requires_grad_(True)
        with FakeTensorMode():
            _give_fake_values(trained)
            for parameter in trained.parameters():
                if parameter.requires_grad:  # as in every pass but a step's first: gradients are added up in place
                    parameter.grad = torch.empty_like(parameter)
            with fused_lora(trained):
                return _peak_of(lambda: _loss(model, work, packed=True).backward())  # type: ignore[no-untyped-call]

    return _extrapolated(config.get_text_config().num_hidden_layers, at_depth)


def mixture_bytes(config: Any, dtype: str, rank: int, adapters: int, target_modules: str, work: Pass) -> int:
    """The same for a step of Stage 2's end-to-end training: gradients reach the gates of every layer."""

    def at_depth(layers: int) -> int:
        model = meta_model(_with_layers(config, layers), dtype)
        with FakeTensorMode():
            _give_fake_values(model)
            gates = torch.ones(work.rows, adapters, requires_grad=True)
            with _gated(model, rank, adapters, target_modules, gates):
                return _peak_of(lambda: _loss(model, work, packed=False).backward())  # type: ignore[no-untyped-call]

    return _extrapolated(config.get_text_config().num_hidden_layers, at_depth)


def answering_bytes(config: Any, dtype: str, rank: int, adapters: int, target_modules: str, work: Pass) -> int:
    """Most bytes beside the weights while prompts are read through the mixture; the key-value cache is among them."""

    def at_depth(layers: int) -> int:
        model = meta_model(_with_layers(config, layers), dtype)
        with FakeTensorMode(), torch.no_grad():
            _give_fake_values(model)
            ids = torch.zeros(work.rows, work.tokens // work.rows, dtype=torch.long)
            with _gated(model, rank, adapters, target_modules, torch.ones(work.rows, adapters)):
                return _peak_of(lambda: model(input_ids=ids, use_cache=True, logits_to_keep=1))

    return _extrapolated(config.get_text_config().num_hidden_layers, at_depth)


def _extrapolated(layers: int, at_depth: Callable[[int], int]) -> int:
    """The line through two small depths, at the model's own."""
    if layers <= _DEPTHS[1]:
        return at_depth(layers)
    low, high = map(at_depth, _DEPTHS)
    return low + (high - low) * (layers - _DEPTHS[0]) // (_DEPTHS[1] - _DEPTHS[0])


def _with_layers(config: Any, layers: int) -> Any:
    shallow = copy.deepcopy(config)
    text = shallow.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = list(text.layer_types)[:layers]
    return shallow


def _with_lora(model: Any, rank: int, target_modules: str) -> Any:
    from peft import LoraConfig, get_peft_model

    names = "all-linear" if target_modules == "all-linear" else sorted(adapted_modules(model, target_modules))
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # the notice about an attribute that PEFT reads (transformers 5.23)
        return get_peft_model(model, LoraConfig(r=rank, target_modules=names, task_type="CAUSAL_LM"))


@contextmanager
def _gated(model: Any, rank: int, adapters: int, target_modules: str, gates: Tensor) -> Iterator[None]:
    updates = {
        name: LowRankUpdate(torch.empty(rank, columns), torch.empty(rows, rank), 1.0)
        for name, layer in adapted_modules(model, target_modules).items()
        for rows, columns in [linear_shape(layer)]
    }
    gated = GatedModel(model, {str(number): updates for number in range(adapters)})
    # `GatedModel.using` looks at the gates' values, which are not there; this is what it makes of gates all in use.
    token = gated._gate.set(Gate(gates.repeat_interleave(rank, dim=1), None))
    try:
        yield
    finally:
        gated._gate.reset(token)


def _give_fake_values(model: nn.Module) -> None:
    """Replace meta tensors by fake ones that say they are on the processor; tied ones stay tied."""
    made: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            is_parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(empty, requires_grad=tensor.requires_grad) if is_parameter else empty
        return made[id(tensor)]

    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is not None:
                    store[name] = fake(tensor)  # type: ignore[assignment]


def _loss(model: Any, work: Pass, *, packed: bool) -> Tensor:
    """The loss of `stage1.loop` and of `models.scoring`, on token numbers that do not matter."""
    width = work.tokens // work.rows
    shape = (1, width * work.rows) if packed else (work.rows, width)
    inputs = {"input_ids": torch.zeros(shape, dtype=torch.long), "position_ids": torch.zeros(shape, dtype=torch.long)}
    targets = torch.zeros(work.targets, dtype=torch.long)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=work.bf16):
        if packed:
            with packed_attention(model), packed_lengths([width] * work.rows):
                hidden = model.get_decoder()(**inputs, use_cache=False).last_hidden_state
        else:
            hidden = model.get_decoder()(input_ids=inputs["input_ids"], use_cache=False).last_hidden_state
        logits = head_logits(model, hidden.flatten(0, 1)[targets])
    loss: Tensor = nn.functional.cross_entropy(logits, targets, reduction="sum")
    return loss


def _peak_of(step: Callable[[], object]) -> int:
    with _LiveBytes() as counter:
        step()
    peak: int = counter.peak
    return peak
