"""The machine at hand: memory, processors, GPUs, and how fast it multiplies."""

import os
import time
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Machine:
    """What a run may use.

    Attributes:
        name: in words.
        device: `cpu` or `cuda`.
        memory: bytes a process may use on that device.
        devices: GPUs, or 1.
        flops: multiply-adds, counted as two operations each, that it does a second on one device.
        measured: whether `flops` was measured here; else it is an assumption.
    """

    name: str
    device: str
    memory: int
    devices: int
    flops: float
    measured: bool


# Dense bf16 peak of one A100 (NVIDIA's data sheet); what is assumed of a GPU that is not here.
_ASSUMED_GPU_FLOPS = 312e12


def machine_memory() -> int:
    """Bytes of memory this process may use: the control group's limit where there is one, else all of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="ascii") as file:
                text = file.read().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


def describe_machine(*, gpus: int | None, gpu_memory_gb: float | None, bf16: bool) -> Machine:
    """This machine, or the GPUs asked about.

    Args:
        gpus: GPUs to plan for; none: those PyTorch sees; 0: the processor.
        gpu_memory_gb: memory of one GPU, in GiB; none: read from the GPU here, else 80.
        bf16: whether matrix products are bf16.
    """
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = (here or (1 if gpu_memory_gb is not None else 0)) if gpus is None else gpus
    if not wanted:
        return Machine(f"{os.cpu_count()} processor cores", "cpu", machine_memory(), 1, matmul_flops("cpu", bf16), True)
    if here:
        properties = torch.cuda.get_device_properties(0)
        memory = int(gpu_memory_gb * 2**30) if gpu_memory_gb is not None else properties.total_memory
        return Machine(f"{wanted} x {properties.name}", "cuda", memory, wanted, matmul_flops("cuda", bf16), True)
    size = 80.0 if gpu_memory_gb is None else gpu_memory_gb
    return Machine(f"{wanted} GPU of {size:g} GiB", "cuda", int(size * 2**30), wanted, _ASSUMED_GPU_FLOPS, False)


def matmul_flops(device: str, bf16: bool, *, seconds: float = 0.3) -> float:
    """Operations a second of a square matrix product on an idle machine; the best of what fits in `seconds`.

    On a processor the time is this process's own on all its threads, so that other work does not slow the figure.

    Args:
        device: `cpu` or `cuda`.
        bf16: dtype of the factors, else float32.
        seconds: how long to measure.
    """
    on_cpu = device == "cpu"
    size, clock = (1024, time.process_time) if on_cpu else (8192, time.perf_counter)
    factor = torch.ones(size, size, dtype=torch.bfloat16 if bf16 else torch.float32, device=device)
    factor @ factor
    best, until = float("inf"), clock() + seconds
    while clock() < until or best == float("inf"):
        started = clock()
        product = factor @ factor
        if not on_cpu:
            product[0, 0].item()  # waits for the GPU
        best = min(best, max(clock() - started, 1e-9))
    return 2 * size**3 / best * (torch.get_num_threads() if on_cpu else 1)
