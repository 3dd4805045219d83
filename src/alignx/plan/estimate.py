"""The plan of a run: what it needs in memory and time, and which settings fit the machine."""

from dataclasses import dataclass, replace
from typing import Any

from alignx.config import RunConfig, Stage1Config
from alignx.models.precision import uses_bf16
from alignx.models.presets import MODEL_PRESETS
from alignx.plan import memory
from alignx.plan.machine import Machine
from alignx.plan.memory import Need
from alignx.plan.rehearsal import Pass, answering_bytes, mixture_bytes, training_bytes
from alignx.plan.shapes import ModelShapes, count_shapes, meta_model, read_config
from alignx.plan.work import Tokens, count_tokens, forward_operations, target_share, training_operations

# Share of a large matrix product's speed that training reaches, by the precision of its products: SmolLM2's rates
# beside the matrix product's, in one process on an idle machine (docs/plan.md).
UTILISATION = {"bf16": 0.17, "float32": 0.57}
# Share of the memory that a setting may need and still fit; the rest is the system's.
_MARGIN = 0.9
_WAYS = [*(("lora", storage) for storage in memory.STORAGES), ("full", "bfloat16"), ("full", "float32")]
_ANSWER_PROMPT, _ANSWER_NEW = 512, 256
# Quantised storages -> what `quantization` in a config calls them.
QUANTIZATION = {"8-bit": "8bit", "4-bit": "4bit"}
# Passes are filled longest example first, and long examples have long targets: the fullest pass's share of targets over
# the mean example's; measured 1.33 on Alpaca and 1.07 on BeaverTails (docs/plan.md).
_FULLEST_PASS = 1.33


@dataclass(frozen=True)
class Fit:
    """One way to train, and whether it fits.

    Attributes:
        method: `lora` or `full`.
        storage: of the base weights.
        available: whether this machine can train so; quantised bases need a CUDA GPU.
        need: memory of one device.
        fits: whether that is within what may be used.
    """

    method: str
    storage: str
    available: bool
    need: Need
    fits: bool


@dataclass(frozen=True)
class Plan:
    """What a run will need.

    Attributes:
        model: its name.
        shapes: its sizes.
        machine: what it was planned for.
        precision: `bf16` or `float32` matrix products in training.
        needs: memory of each part of the run, under the config's own settings.
        tokens: what is read.
        hours: estimated time of each part.
        fits: ways to train.
        advice: what to put into the config, or what is in the way.
        assumptions: what the numbers rest on, a sentence each.
    """

    model: str
    shapes: ModelShapes
    machine: Machine
    precision: str
    needs: list[Need]
    tokens: Tokens
    hours: dict[str, float]
    fits: list[Fit]
    advice: str
    assumptions: list[str]


def make_plan(config: RunConfig, machine: Machine) -> Plan:
    """Plan a run on a machine.

    Raises:
        ModelError: the model's config cannot be had, or no layer matches `target_modules`.
    """
    settings = config.stage1
    model_config = read_config(config.model, revision=config.revision)
    shapes = count_shapes(
        meta_model(model_config, config.dtype), rank=settings.rank, target_modules=settings.target_modules
    )
    style = _style(config)
    tokens = count_tokens(config, style)
    bf16 = uses_bf16(settings.precision) or machine.device == "cuda" and settings.precision != "float32"
    runtime = memory.RUNTIME_BYTES if machine.device == "cpu" else memory.CUDA_CONTEXT_BYTES
    work = training_pass(config, style, bf16=bf16)
    activations = {
        (method, dtype): training_bytes(model_config, dtype, method, settings.rank, settings.target_modules, work)
        for method in ("lora", "full")
        for dtype in ("float32", "bfloat16")
    }
    fits = [
        _fit(shapes, machine, method, storage, activations[method, _computed_in(method, storage)], runtime, settings)
        for method, storage in _WAYS
    ]
    return Plan(
        model=config.model,
        shapes=shapes,
        machine=machine,
        precision="bf16" if bf16 else "float32",
        needs=_needs(config, model_config, shapes, tokens, fits, bf16=bf16, runtime=runtime),
        tokens=tokens,
        hours=_hours(config, shapes, machine, tokens, target_share(config, style), bf16=bf16),
        fits=fits,
        advice=_advice(config, fits),
        assumptions=_assumptions(machine, work),
    )


def training_pass(config: RunConfig, style: str, *, bf16: bool) -> Pass:
    """The largest forward pass of training: full of typical examples, or one longest example alone."""
    settings = config.stage1
    typical = count_tokens(config, style).longest_example
    size = max(settings.micro_batch_tokens, settings.max_tokens)
    rows = max(1, size // typical)
    share = min(1.0, _FULLEST_PASS * target_share(config, style))
    total = rows * (size // rows)
    return Pass(total, round(share * total), rows, bf16)


def _computed_in(method: str, storage: str) -> str:
    """The dtype that layers run in: full fine-tuning in float32; quantised weights are multiplied in bfloat16."""
    if method == "full":
        return "float32"
    return storage if storage in {"float32", "bfloat16"} else "bfloat16"


def stored_as(config: RunConfig) -> str:
    """How a config keeps the base's weights, as one of `memory.STORAGES`."""
    return next((name for name, chosen in QUANTIZATION.items() if chosen == config.quantization), config.dtype)


def _style(config: RunConfig) -> str:
    preset = MODEL_PRESETS.get(config.model)
    chosen = preset.template if preset and config.template == "auto" else config.template
    return "alpaca" if chosen == "alpaca" else "chat"


def _fit(
    shapes: ModelShapes,
    machine: Machine,
    method: str,
    storage: str,
    activations: int,
    runtime: int,
    settings: Stage1Config,
) -> Fit:
    need = memory.training(
        shapes,
        method=method,
        storage=storage,
        activations=activations,
        runtime=runtime,
        shared_expert=settings.shared_expert and storage not in QUANTIZATION,
        shards=machine.devices,
    )
    available = storage not in QUANTIZATION or machine.device == "cuda"
    return Fit(method, storage, available, need, need.total <= _MARGIN * machine.memory)


def _needs(
    config: RunConfig,
    model_config: Any,
    shapes: ModelShapes,
    tokens: Tokens,
    fits: list[Fit],
    *,
    bf16: bool,
    runtime: int,
) -> list[Need]:
    """The run's own parts, each on one device and unsharded but for training."""
    settings, storage = config.stage1, config.dtype
    own = next(fit.need for fit in fits if (fit.method, fit.storage) == (settings.method, stored_as(config)))
    adapters = len(config.axes) + settings.shared_expert
    shape_options = (settings.rank, adapters, settings.target_modules)
    end_to_end = config.stage2.end_to_end
    rows = max(1, min(end_to_end.batch_size, end_to_end.micro_batch_tokens // tokens.longest_example))
    # Padded to the widest row: 1.66 times the mean for the median batch of 8 Alpaca rows; never above the setting,
    # but for an example that is longer and goes alone.
    width = max(tokens.longest_example, min(2 * tokens.longest_example, end_to_end.micro_batch_tokens // rows))
    step = Pass(rows * width, round(rows * width / 2), rows, bf16)
    prompt = Pass(_ANSWER_PROMPT, 1, 1, False)
    return [
        memory.loading(shapes, storage),
        replace(own, name=f"Stage 1, training ({own.name})"),
        memory.extraction(
            shapes,
            method=settings.method,
            storage=storage,
            depths=len(settings.depths),
            shared_expert=settings.shared_expert,
            runtime=runtime,
        ),
        memory.mixing(
            shapes,
            name="Stage 2, end to end",
            storage=storage,
            adapters=adapters,
            activations=mixture_bytes(model_config, storage, *shape_options, step),
            runtime=runtime,
        ),
        memory.mixing(
            shapes,
            name=f"answering, {_ANSWER_PROMPT} + {_ANSWER_NEW} tokens",
            storage=storage,
            adapters=adapters,
            activations=answering_bytes(model_config, storage, *shape_options, prompt),
            runtime=runtime,
            cache_tokens=_ANSWER_NEW,
        ),
    ]


def _hours(
    config: RunConfig, shapes: ModelShapes, machine: Machine, tokens: Tokens, share: float, *, bf16: bool
) -> dict[str, float]:
    one = _utilisation(bf16) * machine.flops * 3600
    speed = one * machine.devices
    train, read = training_operations(shapes, config.stage1.method, share), forward_operations(shapes, share)
    return {
        "Stage 1, training": sum(tokens.experts.values()) * train / speed,
        "Stage 1, latent space": tokens.extraction * read / one,
        "Stage 2": (tokens.scoring * read + tokens.mixture * training_operations(shapes, "lora", share)) / one,
    }


def _utilisation(bf16: bool) -> float:
    return UTILISATION["bf16" if bf16 else "float32"]


def _advice(config: RunConfig, fits: list[Fit]) -> str:
    usable = [fit for fit in fits if fit.available and fit.fits]
    own = next(fit for fit in fits if (fit.method, fit.storage) == (config.stage1.method, stored_as(config)))
    if own.fits and own.available:
        return f"the settings fit: method {own.method}, dtype {own.storage}, {config.stage1.micro_batch_tokens} tokens"
    if usable:
        best = usable[0]
        if best.storage in QUANTIZATION:
            return f"set `quantization: {QUANTIZATION[best.storage]}` and `stage1.shared_expert: false`"
        return f"set `stage1.method: {best.method}` and `dtype: {best.storage}`"
    smallest = min((fit for fit in fits if fit.available), key=lambda fit: fit.need.total)
    activations = smallest.need.parts["activations"]
    lower = config.stage1.micro_batch_tokens > config.stage1.max_tokens and activations > smallest.need.total / 4
    if lower:
        return (
            f"nothing fits; lower `stage1.micro_batch_tokens` (now {config.stage1.micro_batch_tokens}) and plan again"
        )
    return f"nothing fits: {smallest.need.total / 2**30:.1f} GiB is the least; take a larger machine, or more GPUs"


def _assumptions(machine: Machine, work: Pass) -> list[str]:
    speed = "measured here, as if idle" if machine.measured else "assumed (peak of an A100 in bf16)"
    lines = [
        f"speed {machine.flops / 1e12:.2f} TFLOP/s a device, {speed}; {_utilisation(work.bf16):.0%} of it is reached",
        "tokens from the data sets' mean lengths under SmolLM2's tokenizer; time without attention's own products",
        f"a training pass of {work.tokens} tokens, {work.targets} of them targets; "
        f"allocators hold {memory.ALLOCATOR_SHARE - 1:.0%} more than tensors",
        f"a setting fits when it needs at most {_MARGIN:.0%} of the memory",
    ]
    if machine.device == "cuda":
        lines.append("no GPU figure was checked against a GPU; attention counts as on a processor, in float32")
    if machine.devices > 1:
        lines.append("training is sharded over the GPUs (FSDP); Stage 2 and answering run on one")
    return lines
