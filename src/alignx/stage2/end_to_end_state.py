"""How far the end-to-end step is, on disk: after a kill it goes on from there, to the same bits.

Tensors lie in one safetensors file; `state.json`, replaced after them in one step, names that file and its sha256. What
does not fit is passed over, and said.
"""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from alignx.errors import ArtifactError
from alignx.progress import notice
from alignx.runs import processes
from alignx.runs.files import read_json, read_tensors, write_json, write_tensors

_STATE = "state.json"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class EndToEndState:
    """How far the step is.

    Attributes:
        step: optimiser steps done.
        losses: objective of every step (mean over its prompts).
        validation_nats: mean nats a target token of the held-out prompts after every pass; first the warm start's.
        best: parameters of the pass with the lowest of them.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    validation_nats: list[float] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best_pass(self) -> int:
        """The pass with the lowest validation loss, the first of equals; 0 is the warm start."""
        return self.validation_nats.index(min(self.validation_nats))


class EndToEndCheckpoint:
    """The one checkpoint of an end-to-end step.

    Args:
        folder: where it lies; removed when the step is finished.
        job: fingerprint of everything the step depends on; a checkpoint of another is not used.
        every: optimiser steps between two.
    """

    def __init__(self, folder: Path, job: str, every: int) -> None:
        self.folder = folder
        self.job = job
        self.every = every

    def save(self, state: EndToEndState, parameters: Mapping[str, Tensor], optimizer: Optimizer) -> None:
        """Write the state in place of the one before."""
        tensors = {f"now.{name}": parameter for name, parameter in parameters.items()}
        tensors |= {f"best.{name}": value for name, value in state.best.items()}
        for name, parameter in parameters.items():
            moments = optimizer.state.get(parameter, {})
            tensors |= {f"{key}.{name}": torch.as_tensor(moments[key]) for key in _MOMENTS if moments}
        path = self.folder / f"step-{state.step:08d}-{len(state.validation_nats)}.safetensors"
        write_tensors(path, tensors)
        document = {
            "job": self.job,
            "step": state.step,
            "losses": state.losses,
            "validation_nats": state.validation_nats,
            "file": path.name,
            "sha256": processes.from_main(lambda: _sha256(path)),
        }
        write_json(self.folder / _STATE, document)
        processes.from_main(lambda: self._drop_all_but(path.name))

    def restore(self, parameters: Mapping[str, Tensor], optimizer: Optimizer) -> EndToEndState:
        """Put the checkpoint's values into place; without a usable one, the state before the first step."""
        read = processes.from_main(lambda: self._read(parameters))
        if read is None:
            return EndToEndState()
        state, tensors = read
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[f"now.{name}"])
                if f"step.{name}" in tensors:
                    optimizer.state[parameter] = {key: tensors[f"{key}.{name}"] for key in _MOMENTS}
        notice(f"end to end: going on from step {state.step}")
        return state

    def remove(self) -> None:
        """Drop it: the step is finished."""
        processes.from_main(lambda: shutil.rmtree(self.folder, ignore_errors=True))

    def _read(self, parameters: Mapping[str, Tensor]) -> tuple[EndToEndState, dict[str, Tensor]] | None:
        if not (self.folder / _STATE).is_file():
            return None
        try:
            document = read_json(self.folder / _STATE)
            if document["job"] != self.job:
                raise ArtifactError("it belongs to a training with other data or settings")
            path = self.folder / Path(str(document["file"])).name
            if not path.is_file() or _sha256(path) != document["sha256"]:
                raise ArtifactError(f"`{path.name}` is missing or damaged")
            tensors = read_tensors(path)
            shapes = {name: tensors[f"now.{name}"].shape for name in parameters}
            if shapes != {name: parameter.shape for name, parameter in parameters.items()}:
                raise ArtifactError("it holds other parameters than those being trained")
            state = EndToEndState(
                int(document["step"]),
                [float(loss) for loss in document["losses"]],
                [float(nats) for nats in document["validation_nats"]],
                {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")},
            )
        except (ArtifactError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            notice(f"end to end: its checkpoint cannot be used ({reason}); starting it again")
            return None
        return state, tensors

    def _drop_all_but(self, name: str) -> None:
        for path in self.folder.glob("step-*.safetensors"):
            if path.name != name:
                path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
