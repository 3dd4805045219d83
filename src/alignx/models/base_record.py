"""`base.json`: which weights a run was made with."""

from collections.abc import Mapping
from typing import Any

from alignx.errors import ArtifactError
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.files import read_json, write_json


def write_base_record(run: RunDirectory, identity: Mapping[str, Any], tensors: Mapping[str, str]) -> None:
    """Keep the identity of the base and the sha256 of every tensor."""
    write_json(run.base_path, {**identity, "fingerprint": fingerprint(tensors), "tensors": dict(tensors)})


def read_base_record(run: RunDirectory) -> dict[str, Any]:
    """What `write_base_record` kept.

    Raises:
        ArtifactError: missing or damaged.
    """
    record = read_json(run.base_path)
    tensors = record.get("tensors") if isinstance(record, dict) else None
    if not isinstance(tensors, dict) or record.get("fingerprint", fingerprint(tensors)) != fingerprint(tensors):
        raise ArtifactError(
            f"{run.base_path}: damaged (its checksum differs); remove it, and the next command writes it again"
        )
    return {**record, "fingerprint": fingerprint(tensors)}


def base_fingerprint(run: RunDirectory) -> str:
    """One number for all the base's weights, as kept beside every adapter; empty before the base was loaded."""
    return str(read_base_record(run)["fingerprint"]) if run.base_path.is_file() else ""
