"""Paths of a run directory and the record of what was done from which inputs."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from alignx.config import RunConfig
from alignx.errors import ArtifactError
from alignx.runs.files import read_json, write_json, write_text


def fingerprint(inputs: Any) -> str:
    """sha256 (hex, 16 digits) of anything JSON can write: equal inputs, equal fingerprint."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


class RunDirectory:
    """One alignment on disk; the layout is the contract between the stages.

    Attributes:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    @property
    def config_path(self) -> Path:
        return self.root / "run.yaml"

    @property
    def base_path(self) -> Path:
        return self.root / "base.json"

    @property
    def splits_path(self) -> Path:
        return self.root / "splits.json"

    @property
    def latent_path(self) -> Path:
        return self.root / "stage1" / "latent.safetensors"

    @property
    def parameter_matrix_path(self) -> Path:
        return self.root / "stage1" / "parameter_matrix.safetensors"

    @property
    def mocae_path(self) -> Path:
        return self.root / "stage2" / "mocae.safetensors"

    @property
    def mocae_settings_path(self) -> Path:
        return self.root / "stage2" / "mocae.json"

    def adapter_folder(self, name: str) -> Path:
        """Where an expert's adapter lies; `shared` and `joint` are kept the same way."""
        return self.root / "stage1" / name / "adapter"

    def task_vector_folder(self, name: str) -> Path:
        """Where a dense task vector lies."""
        return self.root / "stage1" / name / "task_vector"

    def task_matrix_path(self, axis: str) -> Path:
        return self.root / "stage1" / axis / "task_matrix.safetensors"

    def signature_path(self, axis: str) -> Path:
        return self.root / "stage1" / axis / "signature.safetensors"

    def merge_path(self, method: str) -> Path:
        return self.root / "stage2" / f"{method}.json"

    def evaluation_folder(self, name: str) -> Path:
        return self.root / "eval" / name

    def write_config(self, config: RunConfig, environment: Mapping[str, Any]) -> None:
        """Write the resolved config and the environment it ran in."""
        document = {"config": config.model_dump(mode="json"), "environment": dict(environment)}
        write_text(self.config_path, yaml.safe_dump(document, sort_keys=False, allow_unicode=True))

    def read_config(self) -> RunConfig:
        """The resolved config.

        Raises:
            ArtifactError: not a run directory, or its config is damaged.
        """
        return self._document()[0]

    def read_environment(self) -> dict[str, Any]:
        """The environment noted when the run was made."""
        return self._document()[1]

    def _document(self) -> tuple[RunConfig, dict[str, Any]]:
        if not self.config_path.is_file():
            raise ArtifactError(
                f"{self.root}: not a run directory (no run.yaml); make one with `alignx run CONFIG.yaml`"
            )
        try:
            document = yaml.safe_load(self.config_path.read_text(encoding="utf-8"))
            return RunConfig.model_validate(document["config"]), dict(document.get("environment") or {})
        except (yaml.YAMLError, ValidationError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ArtifactError(
                f"{self.config_path}: damaged ({reason}); run again from the original config"
            ) from error

    def is_done(self, step: str, inputs: Any, *outputs: Path) -> bool:
        """`is_current`, for a step that is about to be done otherwise.

        A record that does not fit is dropped: were the step killed half-way, it must not vouch for new files.
        """
        current = self.is_current(step, inputs, *outputs)
        if not current:
            self._record_path(step).unlink(missing_ok=True)
        return current

    def is_current(self, step: str, inputs: Any, *outputs: Path) -> bool:
        """Whether a step was finished from these very inputs and its outputs are still there."""
        record = self._record_path(step)
        if not record.is_file() or not all(path.exists() for path in outputs):
            return False
        return bool(read_json(record).get("inputs") == fingerprint(inputs))

    def mark_done(self, step: str, inputs: Any) -> None:
        """Record that a step was finished from these inputs; written last, so a killed step is not done."""
        write_json(self._record_path(step), {"step": step, "inputs": fingerprint(inputs)})

    def step_fingerprint(self, step: str) -> str:
        """Fingerprint of the inputs a finished step used; empty when it was not run."""
        record = self._record_path(step)
        return str(read_json(record)["inputs"]) if record.is_file() else ""

    def _record_path(self, step: str) -> Path:
        return self.root / "steps" / f"{step}.json"
