"""The models that `mixture.py` compares, all with the same base and the same adapters."""

import copy
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m"
AXES = ("helpful", "harmless", "honest")
RANK, WIDTH, DEPTHS = 16, 256, (0.125, 0.25, 0.375, 0.5)


def random_updates(model: Any, seed: int, rank: int = RANK) -> dict[str, Any]:
    """A LoRA adapter of random factors, small beside the weights: speed does not depend on what was learned."""
    import torch

    from alignx.models.layers import adapted_modules, linear_shape
    from alignx.models.low_rank import LowRankUpdate

    generator = torch.Generator().manual_seed(seed)
    updates = {}
    for name, module in adapted_modules(model, "all-linear").items():
        rows, columns = linear_shape(module)
        a = torch.randn(rank, columns, generator=generator) / columns**0.5
        b = torch.randn(rows, rank, generator=generator) * 0.02
        updates[name] = LowRankUpdate(a, b, 2.0)
    return updates


def build_alignx(run: Path | None, *, shared: bool, mixture: Path | None = None) -> Any:
    """The runtime: of a finished run, or of random experts under a mixture fitted on random signatures.

    Args:
        run: the finished run, if any.
        shared: random experts: a shared one too.
        mixture: folder the fitted mixture is read from, or written to where it is empty, so that a process can be
            measured that did not fit it.
    """
    from alignx.mixture.runtime import AlignX
    from alignx.models.gated import GatedModel
    from alignx.models.load import load_base
    from alignx.stage1.experts import SHARED

    if run:
        return AlignX.from_pretrained(run)
    base = load_base(MODEL)
    names = ([SHARED] if shared else []) + list(AXES)
    adapters = {name: random_updates(base.model, AXES.index(name) if name in AXES else 9) for name in names}
    space, mocae = _random_mixture(base.model, mixture)
    return AlignX(base, GatedModel(base.model, adapters), mocae, space)


def _random_mixture(model: Any, kept: Path | None) -> tuple[Any, Any]:
    """A latent space and a fitted mixture of the default sizes, on 360, 65 and 60 prompts an axis."""
    import torch
    from safetensors.torch import load_file, save_file

    from alignx.config.schema import Stage2Config
    from alignx.models.layers import decoder_layers
    from alignx.stage1.activations import depth_layers
    from alignx.stage1.latent import LatentSpace
    from alignx.stage2.fit import SplitFeatures, fit_mocae
    from alignx.stage2.mocae import Mocae

    generator = torch.Generator().manual_seed(0)
    hidden, m = model.config.hidden_size, len(AXES)
    layers = tuple(depth_layers(DEPTHS, len(decoder_layers(model))))
    directions = torch.linalg.qr(torch.randn(hidden, WIDTH, generator=generator))[0].T.contiguous()
    space = LatentSpace(layers, torch.zeros(len(layers), hidden), (directions,) * len(layers), torch.ones(len(layers)))
    if kept and (kept / "mocae.json").is_file():
        settings = json.loads((kept / "mocae.json").read_text())
        return space, Mocae.from_state(load_file(kept / "mocae.safetensors"), settings)
    centres = torch.randn(m, WIDTH * len(layers), generator=generator)

    def split(n: int) -> SplitFeatures:
        ids = torch.arange(n * m) % m
        signatures = centres[ids] + torch.randn(n * m, centres.shape[1], generator=generator)
        return SplitFeatures(signatures, ids, torch.rand(n * m, m, generator=generator, dtype=torch.float64) + 1)

    foreign = 5 * torch.randn(64, centres.shape[1], generator=generator)
    mocae = fit_mocae(
        AXES,
        layers,
        tuple(space.widths),
        train=split(360),
        mix=split(65),
        calibration=split(60),
        foreign=foreign,
        config=Stage2Config(),
    )
    if kept:
        save_file(
            {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in mocae.tensors().items()},
            kept / "mocae.safetensors",
        )
        (kept / "mocae.json").write_text(json.dumps(mocae.settings()))
    return space, mocae


def build_peft(names: tuple[str, ...], *, xlora: bool) -> Any:
    """PEFT with the same random adapters: all active at once, or mixed by X-LoRA."""
    from peft import PeftModel, XLoraConfig, get_peft_model

    from alignx.models.load import load_base
    from alignx.stage1.task_vector import TaskVector
    from alignx.stage1.write_adapter import write_task_vector

    model = load_base(MODEL).model
    with tempfile.TemporaryDirectory() as scratch:
        folders = []
        for number, _ in enumerate(AXES):
            folder = Path(scratch) / str(number)
            write_task_vector(folder, TaskVector(random_updates(model, number)), base=MODEL)
            folders.append(folder)
        if xlora:
            config = XLoraConfig(
                task_type="CAUSAL_LM",
                hidden_size=model.config.hidden_size,
                adapters={name: str(folder) for name, folder in zip(names, folders, strict=True)},
            )
            model.config.use_cache = False  # X-LoRA refuses a cache
            return get_peft_model(model, config).eval()
        wrapped = PeftModel.from_pretrained(model, folders[0], adapter_name=names[0])
        for name, folder in zip(names[1:], folders[1:], strict=True):
            wrapped.load_adapter(folder, adapter_name=name)
        wrapped.base_model.set_adapter(list(names))
        return wrapped.eval()


def build_dense_mixture() -> Any:
    """A mixture of three full feed-forward experts in every layer, weighted for every row of the batch."""
    import torch
    from torch import Tensor, nn

    from alignx.models.load import load_base

    class DenseMixture(nn.Module):
        """The weighted sum of three copies of a layer's feed-forward network."""

        def __init__(self, mlp: nn.Module) -> None:
            super().__init__()
            self.experts = nn.ModuleList([mlp, *(copy.deepcopy(mlp) for _ in AXES[1:])])

        def forward(self, x: Tensor) -> Tensor:
            """(b, s, hidden) -> the same."""
            weights = model.mixture_weights[:, : x.shape[0]]
            total = self.experts[0](x).mul_(weights[0])
            for expert, weight in zip(self.experts[1:], weights[1:], strict=True):
                total.addcmul_(expert(x), weight)
            return total

    model = load_base(MODEL).model
    model.mixture_weights = torch.tensor([0.5, 0.3, 0.2])[:, None, None, None].repeat(1, 64, 1, 1)
    for layer in model.get_decoder().layers:
        layer.mlp = DenseMixture(layer.mlp)
    return model


@contextmanager
def our_products(model: Any) -> Iterator[None]:
    """A bare model whose layers multiply by the kernel that AlignX uses, to tell its part in a figure."""
    from torch import nn

    from alignx.models.layers import adapted_modules
    from alignx.models.product import is_fast, product

    layers = [layer for layer in adapted_modules(model, "all-linear").values() if type(layer) is nn.Linear]
    for layer in layers:
        layer.forward = lambda x, layer=layer: product(x, layer.weight, layer.bias, fast=is_fast(x))
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def model_bytes(model: Any) -> int:
    """Bytes of a model's parameters and of the factors in its gates, each counted once."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors if tensor.numel() > 100}.values())
