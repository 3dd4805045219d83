"""Bytes by part: training, loading, Stage 2 and answering."""

from dataclasses import dataclass

from alignx.plan.shapes import ModelShapes

# Python with torch, transformers and peft imported and a tokenizer read; measured (docs/plan.md).
RUNTIME_BYTES = 426 * 2**20
# What a CUDA context takes of a GPU's memory; assumed, not measured.
CUDA_CONTEXT_BYTES = 512 * 2**20
# What a process holds for its tensors, over the bytes of those alive: 1.40 and 1.59 in the trainings of docs/plan.md.
# The larger training's is taken, since the smaller one's is mostly what does not grow with the pass.
ALLOCATOR_SHARE = 1.4

_FLOAT32, _MOMENTS = 4, 2
# Bytes a value of a quantised layer: 8 bits and a scale a row; 4 bits and an 8-bit scale for every 64 values.
_QUANTISED = {"8-bit": 1.0, "4-bit": 0.5 + 1 / 64}
_PLAIN = {"float32": 4.0, "bfloat16": 2.0}
STORAGES = (*_PLAIN, *_QUANTISED)


@dataclass(frozen=True)
class Need:
    """The memory that one part of a run takes at its peak.

    Attributes:
        name: what is done.
        parts: what takes it -> bytes.
    """

    name: str
    parts: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())


def weight_bytes(shapes: ModelShapes, storage: str) -> int:
    """Bytes of the base's weights.

    Args:
        shapes: the model.
        storage: `float32`, `bfloat16`, `8-bit` or `4-bit`; the last two keep what experts do not adapt in bfloat16.
    """
    if storage in _PLAIN:
        return int(_PLAIN[storage] * shapes.parameters)
    rest = shapes.parameters - shapes.adapted_values
    return int(_QUANTISED[storage] * shapes.adapted_values + _PLAIN["bfloat16"] * rest)


def loading(shapes: ModelShapes, storage: str) -> Need:
    """Reading the weights into main memory; the largest tensor is there twice more, in float32, for a moment."""
    parts = {
        "runtime": RUNTIME_BYTES,
        "base weights": weight_bytes(shapes, storage),
        "conversion": 2 * _FLOAT32 * shapes.largest_weight,
    }
    return Need("loading", parts)


def training(
    shapes: ModelShapes,
    *,
    method: str,
    storage: str,
    activations: int,
    runtime: int = RUNTIME_BYTES,
    shared_expert: bool = False,
    shards: int = 1,
) -> Need:
    """One process's share of training one axis.

    Full fine-tuning learns in float32 beside the base's own weights, and every GPU holds all of it.

    Args:
        shapes: the model.
        method: `lora` or `full`.
        storage: of the base weights; `full` needs a plain one.
        activations: bytes a forward and backward pass keeps, see `rehearsal.training_bytes`.
        runtime: fixed bytes.
        shared_expert: whether a shared expert is folded in meanwhile, which keeps the weights it changes twice.
        shards: GPUs that weights, gradients and moments are cut into; activations are each GPU's own.
    """
    full = method == "full"
    trained = shapes.parameters if full else shapes.adapter_parameters
    shards = 1 if full else shards
    parts = {"runtime": runtime, "base weights": weight_bytes(shapes, storage) // shards}
    parts["float32 weights" if full else "adapter"] = _FLOAT32 * trained // shards
    parts["gradients"] = _FLOAT32 * trained // shards
    parts["AdamW moments"] = _MOMENTS * _FLOAT32 * trained // shards
    if shared_expert and storage in _PLAIN:
        changed = shapes.parameters if full else shapes.adapted_values
        parts["weights below shared expert"] = int(_PLAIN[storage] * changed) // shards
    parts["activations"] = int(ALLOCATOR_SHARE * activations)
    return Need(f"{method} {storage}", parts)


def extraction(
    shapes: ModelShapes, *, method: str, storage: str, depths: int, shared_expert: bool, runtime: int
) -> Need:
    """The end of Stage 1: experts folded in one at a time, and the moments of hidden states, which wait on disk."""
    copies = 2 if shared_expert else 1
    changed = shapes.parameters if method == "full" else shapes.adapted_values
    parts = {
        "runtime": runtime,
        "base weights": weight_bytes(shapes, storage),
        "weights below experts": copies * int(_PLAIN[storage] * changed),
        # Two matrices a depth, and as much again for the eigenvectors of one.
        "moments of hidden states": (2 * depths + 2) * 8 * shapes.hidden**2,
    }
    return Need("Stage 1, latent space", parts)


def mixing(
    shapes: ModelShapes,
    *,
    name: str,
    storage: str,
    adapters: int,
    activations: int,
    runtime: int,
    cache_tokens: int = 0,
) -> Need:
    """Base, gated experts and one pass: Stage 2's end-to-end step, or answering.

    Args:
        shapes: the model.
        name: what is done.
        storage: of base and stacked experts.
        adapters: experts installed, the shared one among them.
        activations: bytes of the pass, see `rehearsal`.
        runtime: fixed bytes.
        cache_tokens: tokens whose keys and values are kept beside the pass's own.
    """
    parts = {
        "runtime": runtime,
        "base weights": weight_bytes(shapes, storage),
        "experts": int(adapters * shapes.adapter_parameters * _PLAIN[storage]),
        "activations": int(ALLOCATOR_SHARE * activations),
    }
    if cache_tokens:
        parts["key-value cache"] = int(cache_tokens * shapes.kv_values_a_token * _PLAIN[storage])
    return Need(name, parts)
