"""A dense mixture of feed-forward experts: every axis's own whole feed-forward layers, mixed token by token.

The design of H3Fusion and TrinityX at our scale: each axis fine-tunes the full feed-forward weights of the bare base on
its data, and in every layer a linear router over the layer's input mixes the axes' outputs with softmax weights. The
router is trained on the mix split. All m copies run for every token, which is what this design costs.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignx.config import RunConfig
from alignx.data.prepare import read_splits
from alignx.errors import ModelError
from alignx.evaluate.comparators.gates import GateTraining, train_gates
from alignx.evaluate.comparators.interface import Comparator, Record
from alignx.models.fold import Updates, folded
from alignx.models.layers import decoder_layers, oriented
from alignx.models.lazy import LazyBase
from alignx.models.load import BaseModel
from alignx.models.named import named_owner
from alignx.models.scoring import answer_log_probs
from alignx.progress import notice
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.files import read_tensors, write_json, write_tensors
from alignx.stage1.checkpoints import Checkpoints
from alignx.stage1.dense_vector import INDEX_FILE, write_dense
from alignx.stage1.full import read_full_updates, training_weights
from alignx.stage1.loop import fit
from alignx.stage1.pipeline import axis_job, training_inputs
from alignx.stage1.schedule import TrainingJob
from alignx.stage2.pipeline import target_items

DENSE_MIXTURE = "dense-mixture"
# Rates of the feed-forward weights; the better one for the first axis on its mix prompts trains them all.
RATES = (1e-4, 3e-4)
ROUTER_TRAINING = GateTraining()
_FEED_FORWARD = "mlp"


class MixedFeedForward(nn.Module):
    """One layer's feed-forward experts and their router: y = sum_i softmax(G x + c)_i f_i(x).

    Args:
        experts: the axes' feed-forward modules, in the axes' order.
        hidden_size: width of x.
    """

    def __init__(self, experts: list[nn.Module], hidden_size: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.router = nn.Linear(hidden_size, len(experts))
        nn.init.zeros_(self.router.weight)  # an even mixture before training
        nn.init.zeros_(self.router.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., hidden) -> (..., hidden)."""
        weights = self.router(x).softmax(dim=-1)
        return torch.stack([weights[..., i, None] * expert(x) for i, expert in enumerate(self.experts)]).sum(dim=0)


def make_dense_mixture(config: RunConfig, run: RunDirectory, lazy: LazyBase) -> None:
    """Fine-tune every axis's feed-forward weights, then train the router on the mix split."""
    if _RECORD.is_done(config, run):
        notice("dense-mixture: up to date")
        return
    base, folder = lazy.base, _RECORD.folder(run)
    first = next(iter(config.axes))
    chosen = _choose_rate(config, run, base, first)
    for axis in config.axes:
        if axis != first or not chosen.is_kept:
            write_dense(_vector_folder(folder, axis), _train_axis(config, run, base, axis, chosen.rate).items())
    with _mixed(base, _updates(config, run, base)) as layers:
        routers = [parameter for layer in layers for parameter in layer.router.parameters()]
        record = train_gates(config, run, base, routers, name=DENSE_MIXTURE, settings=ROUTER_TRAINING)
        tensors = {
            f"{number}.{name}": tensor.detach().cpu().clone()
            for number, layer in enumerate(layers)
            for name, tensor in layer.router.state_dict().items()
        }
    write_tensors(folder / "router.safetensors", tensors)
    document = {"passes": _passes(config), "learning_rate": chosen.rate, "tried": chosen.tried, "router": record}
    write_json(folder / "training.json", document)
    _RECORD.mark_done(config, run)


@contextmanager
def install_dense_mixture(config: RunConfig, run: RunDirectory, base: BaseModel) -> Iterator[BaseModel]:
    """The base with every feed-forward layer replaced by the mixture."""
    _RECORD.check(run)
    tensors = read_tensors(_RECORD.folder(run) / "router.safetensors")
    with _mixed(base, _updates(config, run, base)) as layers:
        for number, layer in enumerate(layers):
            layer.router.load_state_dict({name: tensors[f"{number}.{name}"] for name in ("weight", "bias")})
        base.model.requires_grad_(False)
        yield base


def feed_forward_names(model: Any) -> list[str]:
    """Names of the decoder layers' feed-forward modules.

    Raises:
        ModelError: the architecture keeps them elsewhere.
    """
    modules = {id(module): name for name, module in model.named_modules()}
    found = [getattr(layer, _FEED_FORWARD, None) for layer in decoder_layers(model)]
    if any(module is None for module in found):
        raise ModelError(
            f"dense-mixture: {type(model).__name__} keeps its feed-forward layers under another name than "
            f"`{_FEED_FORWARD}`; leave this comparator out"
        )
    return [modules[id(module)] for module in found]


@contextmanager
def _mixed(base: BaseModel, by_axis: Mapping[str, Updates]) -> Iterator[list[MixedFeedForward]]:
    """The base with mixtures in place of its feed-forward modules; the originals are put back untouched."""
    model, names = base.model, feed_forward_names(base.model)
    originals = {name: model.get_submodule(name) for name in names}
    hidden = model.config.get_text_config().hidden_size
    layers = []
    try:
        for name, original in originals.items():
            experts = [_tuned(original, name, updates) for updates in by_axis.values()]
            layer = MixedFeedForward(experts, hidden).to(model.device)
            layers.append(layer)
            model.set_submodule(name, layer)
        yield layers
    finally:
        for name, original in originals.items():
            model.set_submodule(name, original)


def _tuned(original: nn.Module, name: str, updates: Updates) -> nn.Module:
    """A copy of a feed-forward module with an axis's updates added, rounded once as `folded` does."""
    tuned = copy.deepcopy(original)
    with torch.no_grad():
        for parameter_name, parameter in tuned.named_parameters():
            update = updates.get(f"{name}.{parameter_name.removesuffix('.weight')}")
            if update is not None:
                added = oriented(update(), named_owner(tuned, parameter_name)).to(parameter.device)
                parameter.copy_((parameter.float() + added.float()).to(parameter.dtype))
    return tuned.requires_grad_(False)


@dataclass(frozen=True)
class _Choice:
    rate: float
    tried: dict[str, float]
    is_kept: bool


def _choose_rate(config: RunConfig, run: RunDirectory, base: BaseModel, axis: str) -> _Choice:
    """Train one axis at every rate, and keep what does best on its mix prompts."""
    if len(RATES) == 1:
        return _Choice(RATES[0], {}, is_kept=False)
    items = target_items(base, read_splits(run, axis).mix, config.evaluate.max_tokens)
    tried: dict[str, float] = {}
    for rate in RATES:
        learned = _train_axis(config, run, base, axis, rate)
        with folded(base.model, {name: partial(learned.__getitem__, name) for name in learned}):
            found = answer_log_probs(
                base,
                items,
                batch_size=config.evaluate.batch_size,
                precision=config.evaluate.precision,
                description=f"validate {axis} at {rate:g}",
            )
        loss = sum(-scores[0] / len(item.answers[0]) for scores, item in zip(found, items, strict=True)) / len(items)
        if not tried or loss < min(tried.values()):
            write_dense(_vector_folder(_RECORD.folder(run), axis), learned.items())
        tried[f"{rate:g}"] = loss
    return _Choice(min(RATES, key=lambda rate: tried[f"{rate:g}"]), tried, is_kept=True)


def _train_axis(config: RunConfig, run: RunDirectory, base: BaseModel, axis: str, rate: float) -> dict[str, Tensor]:
    """What one axis's feed-forward weights learn, as dense updates by parameter name."""
    job, _ = axis_job(config, axis, read_splits(run, axis).train, base.template)
    job = TrainingJob(
        f"{axis} feed-forward at {rate:g}", job.examples, job.instructions, job.injection_rate, rate, _passes(config),
        config.seed,
    )  # fmt: skip
    names = [
        f"{module}.{parameter}"
        for module in feed_forward_names(base.model)
        for parameter, _ in base.model.get_submodule(module).named_parameters()
    ]
    inputs = fingerprint([_inputs(config, run), axis, rate])
    folder = _RECORD.folder(run) / axis / f"checkpoints-{rate:g}"
    checkpoints = Checkpoints(folder, inputs, every=config.stage1.checkpoint_steps)
    torch.manual_seed(config.seed)
    with training_weights(base.model, names) as (parameters, originals):
        fit(base, parameters, job, config.stage1, checkpoints)
        learned = {
            name: oriented(parameter.data - originals[name].float(), named_owner(base.model, name)).cpu()
            for name, parameter in parameters.items()
        }
    checkpoints.remove()
    return learned


def _passes(config: RunConfig) -> int:
    """As many passes over an axis's prompts as its expert and the shared one below made."""
    return config.stage1.epochs + (config.stage1.shared_epochs if config.stage1.shared_expert else 0)


def _updates(config: RunConfig, run: RunDirectory, base: BaseModel) -> dict[str, Updates]:
    folder = _RECORD.folder(run)
    return {axis: read_full_updates(_vector_folder(folder, axis), base.model) for axis in config.axes}


def _vector_folder(folder: Path, axis: str) -> Path:
    return folder / axis / "task_vector"


def _inputs(config: RunConfig, run: RunDirectory) -> dict[str, Any]:
    settings = {"rates": RATES, "passes": _passes(config), "router": ROUTER_TRAINING.settings()}
    injection = {axis: axis_config.instruction for axis, axis_config in config.axes.items()}
    scoring = [config.evaluate.max_tokens, config.evaluate.precision]
    return training_inputs(
        config,
        run,
        list(config.axes),
        dense_mixture=settings,
        injection=[config.stage1.injection_rate, injection],
        scoring=scoring,
    )


def _files(config: RunConfig, folder: Path) -> list[Path]:
    vectors = [
        path
        for axis in config.axes
        for path in (
            _vector_folder(folder, axis) / INDEX_FILE,
            *sorted(_vector_folder(folder, axis).glob("*.safetensors")),
        )
    ]
    return [*vectors, folder / "router.safetensors", folder / "training.json"]


_RECORD = Record(DENSE_MIXTURE, _inputs, _files)
COMPARATOR = Comparator(
    DENSE_MIXTURE,
    "the data; fine-tunes every axis's feed-forward weights and trains a router",
    make_dense_mixture,
    _RECORD.made_from,
    install_dense_mixture,
)
