"""A trained judge on disk: `judge.json` and `head.safetensors` in a folder, written whole or not at all.

The first holds all there is to know but the weights, its own checksum and that of the weights; loading compares both,
and the base's fingerprint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from alignx.errors import AlignXError, ArtifactError, ConfigError
from alignx.evaluate.trained.features import Reading
from alignx.evaluate.trained.head import Head
from alignx.evaluate.trained.labelled import KINDS
from alignx.models.fingerprint import model_sha256, tensor_sha256
from alignx.models.load import BaseModel
from alignx.runs.directory import fingerprint
from alignx.runs.files import read_json, read_tensors, write_json, write_tensors
from alignx.runs.folders import write_folder
from alignx.runs.schema_version import SCHEMA_VERSION, check_schema_version
from alignx.runs.tensor_schema import check_tensors

RECORD, TENSORS = "judge.json", "head.safetensors"


def base_digest(base: BaseModel) -> str:
    """One number for all weights of a loaded model."""
    return fingerprint(model_sha256(base.model))


@dataclass(frozen=True)
class TrainedArtifact:
    """What a judge's folder says of it; the weights are read when asked for.

    Attributes:
        folder: where it lies.
        record: `judge.json`, checked against its checksum.
    """

    folder: Path
    record: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.record["kind"])

    @property
    def model(self) -> str:
        """Name of the model it reads answers with, as given when it was trained."""
        return str(self.record["base"]["model"])

    @property
    def identity(self) -> str:
        """Kind, base and weights: another of these is another judge."""
        base, digest = self.record["base"], self.record["weights"]
        return f"{self.kind} on {base['identity']} {base['fingerprint'][:8]}, {digest[:12]}"

    @cached_property
    def trained_on(self) -> frozenset[str]:
        """Hashes of the prompts it has learned from."""
        return frozenset(self.record["trained_on"])

    @property
    def reading(self) -> Reading:
        """How it reads answers."""
        given = self.record["reading"]
        return Reading(**{**given, "layers": tuple(given["layers"])})

    @property
    def held_out(self) -> dict[str, Any]:
        """Its quality on held-out prompts, as measured when it was trained."""
        return dict(self.record["held_out"])

    def head(self, base: BaseModel) -> Head:
        """Its weights, for the model that they were trained on.

        Raises:
            ArtifactError: damaged, of another shape, or trained on another base.
        """
        remedy = f"train it again with `alignx judge train {self.kind}`"
        head = self._head(self.reading.width(base.model.config.get_text_config().hidden_size))
        found = base_digest(base)
        if found != self.record["base"]["fingerprint"]:
            raise ArtifactError(
                f"{self.folder}: was trained on another base than `{base.source.identity}` "
                f"({self.record['base']['fingerprint']}, not {found}); give its own with --judge-option "
                f"trained.model=..., or {remedy}"
            )
        return head

    def check_weights(self) -> None:
        """Compare the weights with their checksum.

        Raises:
            ArtifactError: missing or damaged.
        """
        self._head("d")

    def _head(self, width: int | str) -> Head:
        path = self.folder / TENSORS
        tensors = read_tensors(path)
        check_tensors(path, tensors, {"weight": (torch.float32, [width]), "bias": (torch.float32, [1])})
        head = Head(tensors["weight"], tensors["bias"])
        if _digest(head) != self.record["weights"]:
            raise ArtifactError(
                f"{path}: is not what was written (its checksum differs); train it again with "
                f"`alignx judge train {self.kind}`"
            )
        return head


def write_trained(folder: Path, head: Head, about: Mapping[str, Any]) -> None:
    """Write a judge in a folder's place.

    Args:
        folder: its place.
        head: the weights.
        about: everything else that `judge.json` holds.
    """
    content = {**about, "weights": _digest(head)}
    document = {"schema_version": SCHEMA_VERSION, "checksum": fingerprint(content), **content}

    def fill(new: Path) -> None:
        write_tensors(new / TENSORS, {"weight": head.weight, "bias": head.bias})
        write_json(new / RECORD, document)

    write_folder(folder, fill)


def read_trained(folder: Path, *, kind: str) -> TrainedArtifact:
    """A judge of a kind, its weights not yet read.

    Raises:
        ConfigError: nothing there.
        ArtifactError: damaged, of another layout, or a judge of another kind.
    """
    path = folder / RECORD
    if not path.is_file():
        raise ConfigError(
            f"{folder}: no trained judge there; make one with `alignx judge train {kind} --data FILE --out {folder}`, "
            f"or name its folder with --judge-option trained.{kind}=FOLDER"
        )
    remedy = f"remove the folder and train it again with `alignx judge train {kind}`"
    document = read_json(path)
    if not isinstance(document, dict):
        raise ArtifactError(f"{path}: damaged (no object); {remedy}")
    check_schema_version(document, path)
    content = {name: value for name, value in document.items() if name not in ("schema_version", "checksum")}
    if document.get("checksum") != fingerprint(content):
        raise ArtifactError(f"{path}: is not what was written (its checksum differs); {remedy}")
    try:
        artifact = TrainedArtifact(folder, content)
        _ = artifact.identity, artifact.model, artifact.reading, artifact.trained_on, artifact.held_out
    except (AlignXError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: damaged ({error}); {remedy}") from error
    if artifact.kind not in KINDS or artifact.kind != kind:
        raise ArtifactError(f"{folder}: is a judge of `{artifact.kind}`, expected `{kind}`; give another folder")
    return artifact


def _digest(head: Head) -> str:
    return fingerprint([tensor_sha256(head.weight), tensor_sha256(head.bias)])
