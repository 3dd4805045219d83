"""Training on weights that are spread over processes: Accelerate's FSDP (version 2) and DeepSpeed's ZeRO.

Both change a model for good, and the base must serve the next axis bit-equal. So a copy is trained and dropped, and
the adapter's whole tensors are taken out of it; meanwhile the base waits in the processor's memory.
"""

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from alignx.errors import ConfigError


def is_sharded(accelerator: Any) -> bool:
    """Whether a model prepared by this accelerator has its weights spread over processes.

    Raises:
        ConfigError: a way of spreading that this training does not know.
    """
    from accelerate.utils import DistributedType

    kind = accelerator.distributed_type
    if kind == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise ConfigError(
            "FSDP version 1 is not supported; set `fsdp_version: 2` in Accelerate's config, as "
            "configs/accelerate/fsdp.yaml does"
        )
    if kind not in {
        DistributedType.NO,
        DistributedType.MULTI_CPU,
        DistributedType.MULTI_GPU,
        DistributedType.FSDP,
        DistributedType.DEEPSPEED,
    }:
        raise ConfigError(f"distributed type {kind.value} is not supported; use a config of configs/accelerate")
    return kind in {DistributedType.FSDP, DistributedType.DEEPSPEED}


def is_deepspeed(accelerator: Any) -> bool:
    """Whether DeepSpeed's engine clips gradients and steps the optimiser itself, inside `backward`."""
    from accelerate.utils import DistributedType

    return bool(accelerator.distributed_type == DistributedType.DEEPSPEED)


def settle_deepspeed(accelerator: Any, max_gradient_norm: float) -> None:
    """Give DeepSpeed the settings that are this training's and not the launch config's."""
    accelerator.state.deepspeed_plugin.deepspeed_config |= {
        "train_micro_batch_size_per_gpu": 1,  # only counted with: passes are made by tokens
        "gradient_accumulation_steps": 1,  # the loss of each pass is its share of the step's already
        "gradient_clipping": max_gradient_norm,
    }


@contextmanager
def copied_for_sharding(model: Any) -> Iterator[Any]:
    """A copy of a model in the processor's memory; the model itself waits there until the block ends."""
    device = model.device
    model.to("cpu")
    try:
        yield copy.deepcopy(model)
    finally:
        model.to(device)


def whole(tensor: Tensor) -> Tensor:
    """A tensor's full value, whether it is spread over processes or not; all of them must call."""
    if hasattr(tensor, "full_tensor"):
        full: Tensor = tensor.full_tensor()
        return full
    if hasattr(tensor, "ds_id"):  # a parameter under ZeRO stage 3
        from deepspeed import zero

        with zero.GatheredParameters([tensor]):
            return tensor.detach().clone()
    return tensor


def spread_like(value: Tensor, like: Tensor) -> Tensor:
    """A full value on the device of `like`, and spread over processes as that is."""
    if not hasattr(like, "full_tensor"):
        return value.to(like.device)
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def step_seed(seed: int, step: int, process: int) -> int:
    """Seed of what is drawn in one step (dropout): a rerun from a checkpoint draws the same, each process its own."""
    return random.Random(f"{seed} {step} {process}").getrandbits(32)  # all the bits that PyTorch's CPU generator reads
