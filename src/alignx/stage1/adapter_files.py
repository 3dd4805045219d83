"""The files of one trained adapter, and whether they are the ones that were trained, on this run's base."""

from pathlib import Path

from alignx.errors import ArtifactError
from alignx.models.base_record import base_fingerprint
from alignx.runs.directory import RunDirectory
from alignx.runs.files import read_json


def adapter_files(folder: Path) -> list[Path]:
    """What a step that trains an adapter writes."""
    return [folder / "adapter_config.json", folder / "adapter_model.safetensors", folder.parent / "training.json"]


def check_adapter(run: RunDirectory, name: str) -> Path:
    """Folder of an adapter whose files are as they were written, and which was trained on this run's base.

    Raises:
        ArtifactError: a file has changed since, or the adapter was trained on another base.
    """
    run.check(f"train-{name}")
    folder = run.adapter_folder(name)
    notes = folder.parent / "training.json"
    record = read_json(notes) if notes.is_file() else {}
    if not isinstance(record, dict):
        raise ArtifactError(f"{notes}: damaged (no object); run `alignx run` or `alignx stage1` again")
    trained_on, base = record.get("base"), base_fingerprint(run)
    if trained_on and base and trained_on != base:
        raise ArtifactError(
            f"{folder}: was trained on another base than this run's ({trained_on}, not {base}); train it again with "
            "`alignx stage1`, or use it in the run it was made in"
        )
    return folder
