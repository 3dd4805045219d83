"""Trains an adapter as Accelerate's FSDP2 does on GPUs, on processors: stopped after a checkpoint, then to the end.

    torchrun --nproc_per_node 2 sharded.py MODEL OUT

Accelerate turns FSDP on for GPUs only, so its state is set here as it sets it there.
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor

from alignx.config import Stage1Config
from alignx.data.example import Example
from alignx.models.fingerprint import model_sha256
from alignx.models.load import load_base
from alignx.runs import processes
from alignx.stage1.checkpoints import Checkpoints
from alignx.stage1.schedule import TrainingJob
from alignx.stage1.train import train_adapter

SETTINGS = Stage1Config(
    rank=2, alpha=4, batch_size=4, precision="float32", max_tokens=96, checkpoint_steps=2, micro_batch_tokens=64
)
EXAMPLES = [Example("honest", f"What is {n} plus 1?", f"It is {n + 1}, {'so ' * n}yes.") for n in range(12)]
JOB = TrainingJob("honest", EXAMPLES, {"honest": "Be honest."}, 0.5, 1e-2, 2, 0)


class _Stopped(Exception):
    pass


def _save_and_stop(self, state, parameters, optimizer, save=Checkpoints.save):
    assert all(isinstance(parameter, DTensor) for parameter in parameters.values())
    save(self, state, parameters, optimizer)
    if state.step == 4:
        raise _Stopped


def _shard_from_now_on() -> None:
    joined = processes.join()
    Accelerator(cpu=True, mixed_precision="no")
    state = AcceleratorState()
    state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        reshard_after_forward=True,
        cpu_ram_efficient_loading=False,
    )
    joined.distributed_type = DistributedType.FSDP  # every AcceleratorState copies it from here


def main() -> None:
    torch.set_num_threads(1)
    base, out = load_base(sys.argv[1]), Path(sys.argv[2])
    before = model_sha256(base.model)
    if processes.world() > 1:
        _shard_from_now_on()
        save = Checkpoints.save
        Checkpoints.save = _save_and_stop
        try:
            train_adapter(base, JOB, SETTINGS, out / "adapter", extra={})
        except _Stopped:
            pass
        Checkpoints.save = save
    train_adapter(base, JOB, SETTINGS, out / "adapter", extra={})
    assert model_sha256(base.model) == before
    processes.leave()


main()
