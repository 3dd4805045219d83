"""Checkpoints inside a training: after a kill it goes on from the last whole one, to the same bits.

A checkpoint is a folder of trained weights, AdamW's moments and the losses so far, in safetensors and json; its
manifest, written last, holds the sha256 of every file. What does not fit its manifest is passed over, and said.
"""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alignx.errors import ArtifactError
from alignx.progress import notice
from alignx.runs import processes
from alignx.runs.files import read_json, read_tensors, write_json, write_tensors
from alignx.stage1.sharded import spread_like, whole

_WEIGHTS, _MOMENTS, _STATE, _MANIFEST = "weights.safetensors", "moments.safetensors", "state.json", "manifest.json"
_KEPT = 2  # the one before the last is what remains when the last is damaged


@dataclass(frozen=True)
class TrainingState:
    """How far a training is.

    Attributes:
        step: optimiser steps done.
        losses: mean nats a target token, by step.
        seconds: wall time of those steps.
    """

    step: int
    losses: list[float]
    seconds: float


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: where they lie; removed when the training is finished.
        job: fingerprint of everything the training depends on; checkpoints of another are removed.
        every: optimiser steps between two.
    """

    def __init__(self, folder: Path, job: str, every: int) -> None:
        self.folder = folder
        self.job = job
        self.every = every

    def save(self, state: TrainingState, parameters: dict[str, nn.Parameter], optimizer: Optimizer) -> None:
        """Write a checkpoint, then drop the oldest; all processes call, the main one writes."""
        target = self.folder / f"step-{state.step:08d}"
        processes.from_main(lambda: shutil.rmtree(target, ignore_errors=True))
        weights = {name: whole(parameter.data) for name, parameter in parameters.items()}
        moments = {
            f"{name}.{key}": whole(torch.as_tensor(value))
            for name, parameter in parameters.items()
            for key, value in optimizer.state[parameter].items()
        }
        write_tensors(target / _WEIGHTS, weights)
        write_tensors(target / _MOMENTS, moments)
        write_json(target / _STATE, {"step": state.step, "losses": state.losses, "seconds": state.seconds})
        files = processes.from_main(lambda: {name: _sha256(target / name) for name in (_WEIGHTS, _MOMENTS, _STATE)})
        write_json(target / _MANIFEST, {"job": self.job, "sha256": files})
        processes.from_main(lambda: _remove(self._newest_first()[_KEPT:]))

    def restore(self, parameters: dict[str, nn.Parameter], optimizer: Optimizer) -> TrainingState:
        """Put the newest whole checkpoint into place; without one, the state before the first step.

        What cannot be used is removed: it would push out, as the newest, the checkpoints that can.
        """
        shapes = {name: parameter.shape for name, parameter in parameters.items()}
        folder = processes.from_main(lambda: self._newest_whole(shapes))
        if folder is None:
            return TrainingState(0, [], 0.0)
        state, weights, moments = self._read(folder, shapes)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(spread_like(weights[name], parameter))
                optimizer.state[parameter] = {
                    "step": moments[f"{name}.step"].to(parameter.device),
                    "exp_avg": spread_like(moments[f"{name}.exp_avg"], parameter),
                    "exp_avg_sq": spread_like(moments[f"{name}.exp_avg_sq"], parameter),
                }
        notice(f"going on from step {state.step}")
        return state

    def remove(self) -> None:
        """Drop all checkpoints: the training is finished."""
        processes.from_main(lambda: shutil.rmtree(self.folder, ignore_errors=True))

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True)

    def _newest_whole(self, shapes: dict[str, torch.Size]) -> Path | None:
        for folder in self._newest_first():
            try:
                self._read(folder, shapes)
            except (ArtifactError, KeyError, TypeError, ValueError) as error:
                reason = " ".join(str(error).split())
                notice(f"{folder.name}: this checkpoint cannot be used ({reason}); going back to the one before")
                _remove([folder])
            else:
                return folder
        return None

    def _read(
        self, folder: Path, shapes: dict[str, torch.Size]
    ) -> tuple[TrainingState, dict[str, Tensor], dict[str, Tensor]]:
        manifest = read_json(folder / _MANIFEST)
        try:
            job, sha256 = manifest["job"], {name: manifest["sha256"][name] for name in (_WEIGHTS, _MOMENTS, _STATE)}
        except (KeyError, TypeError):
            raise ArtifactError(f"`{_MANIFEST}` is damaged") from None
        if job != self.job:
            raise ArtifactError("it belongs to a training with other data or settings")
        for name, expected in sha256.items():
            if not (folder / name).is_file() or _sha256(folder / name) != expected:
                raise ArtifactError(f"`{name}` is missing or damaged")
        document: dict[str, Any] = read_json(folder / _STATE)
        state = TrainingState(int(document["step"]), list(document["losses"]), float(document["seconds"]))
        weights, moments = read_tensors(folder / _WEIGHTS), read_tensors(folder / _MOMENTS)
        if shapes != {name: weight.shape for name, weight in weights.items()}:
            raise ArtifactError("it holds other weights than those being trained")
        return state, weights, moments


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
