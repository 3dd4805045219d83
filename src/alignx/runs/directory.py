"""Paths of a run directory and the record of what was done from which inputs."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from alignx.config import RunConfig
from alignx.errors import ArtifactError
from alignx.progress import notice
from alignx.runs import processes
from alignx.runs.checksums import file_checksum, matches
from alignx.runs.files import read_json, write_json, write_text
from alignx.runs.schema_version import SCHEMA_VERSION, SchemaVersionError, check_schema_version


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
        """Where an expert's dense task vector lies, when it is kept."""
        return self.root / "stage1" / name / "task_vector"

    def merged_folder(self, axis: str) -> Path:
        """Where the weights of base and expert together lie as a plain model, when they are kept."""
        return self.root / "stage1" / axis / "merged"

    @property
    def base_folder(self) -> Path:
        return self.root / "base"

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
        content = {"config": config.model_dump(mode="json"), "environment": dict(environment)}
        document = {"schema_version": SCHEMA_VERSION, "checksum": fingerprint(content), **content}
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
            check_schema_version(document, self.config_path)
            content = {name: document.get(name) for name in ("config", "environment")}
            if document.get("checksum", fingerprint(content)) != fingerprint(content):
                raise ValueError("it is not what was written: its checksum differs")
            return RunConfig.model_validate(document["config"]), dict(document.get("environment") or {})
        except SchemaVersionError:
            raise
        except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ArtifactError(
                f"{self.config_path}: damaged ({reason}); run again from the original config"
            ) from error

    def check_schema(self) -> None:
        """Refuse a directory that another layout was written into; one without a readable config passes.

        Raises:
            SchemaVersionError: see `check_schema_version`.
        """
        try:
            self.read_config()
        except SchemaVersionError:
            raise
        except ArtifactError:
            pass

    def is_done(self, step: str, inputs: Any, *outputs: Path) -> bool:
        """`is_current`, for a step that is about to be done otherwise.

        A record that does not fit, or whose files are damaged, is dropped: were the step killed half-way, it must not
        vouch for new files. Of several processes the main one looks and drops, so that all do the step or none.
        """

        def look() -> bool:
            try:
                current = self._is_current(step, inputs, outputs)
            except ArtifactError as error:
                notice(f"{str(error).partition('; ')[0]}; doing `{step}` again")
                current = False
            if not current:
                self._record_path(step).unlink(missing_ok=True)
            return current

        return processes.from_main(look)

    def is_current(self, step: str, inputs: Any, *outputs: Path) -> bool:
        """Whether a step was finished from these very inputs and its outputs are still there.

        Raises:
            ArtifactError: it was, but a file has changed since, or the record is damaged.
        """
        return processes.from_main(lambda: self._is_current(step, inputs, outputs))

    def _is_current(self, step: str, inputs: Any, outputs: Sequence[Path]) -> bool:
        record = self._record(step)
        if record is None or not all(path.exists() for path in outputs) or record["inputs"] != fingerprint(inputs):
            return False
        self.check(step)
        return True

    def mark_done(self, step: str, inputs: Any, *outputs: Path) -> None:
        """Record that a step was finished from these inputs; written last, so a killed step is not done.

        Args:
            step: its name.
            inputs: everything its outputs depend on.
            outputs: files in this directory; their checksums are recorded, and compared before use.
        """
        files = processes.from_main(
            lambda: {path.relative_to(self.root).as_posix(): file_checksum(path) for path in outputs}
        )
        write_json(self._record_path(step), {"step": step, "inputs": fingerprint(inputs), "outputs": files})

    def check(self, step: str) -> None:
        """Compare a step's files with what it wrote; nothing is done for a step that has no record.

        Raises:
            ArtifactError: a file is missing or has changed since, or the record is damaged.
        """
        record = self._record(step)
        for name, checksum in (record or {}).get("outputs", {}).items():
            path = self.root / name
            if not matches(path, checksum):
                fault = "is not what was written (its checksum differs)" if path.is_file() else "is missing"
                raise ArtifactError(f"{path}: {fault}; {self._remedy(step)}")

    def step_fingerprint(self, step: str) -> str:
        """Fingerprint of the inputs a finished step used and the tensors it wrote; empty when it was not run.

        Raises:
            ArtifactError: the record is damaged.
        """
        record = self._record(step)
        if record is None:
            return ""
        tensors = {name: file["sha256"] for name, file in record["outputs"].items() if name.endswith(".safetensors")}
        return fingerprint([record["inputs"], tensors]) if tensors else str(record["inputs"])

    def _record(self, step: str) -> dict[str, Any] | None:
        path = self._record_path(step)
        if not path.is_file():
            return None
        record = read_json(path)
        try:
            files = {str(name): (file["bytes"], file["sha256"]) for name, file in record.get("outputs", {}).items()}
            return {
                "inputs": str(record["inputs"]),
                "outputs": {name: {"bytes": size, "sha256": digest} for name, (size, digest) in files.items()},
            }
        except (AttributeError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: damaged ({error!r:.80}); {self._remedy(step)}") from error

    def _remedy(self, step: str) -> str:
        made_by_stage2 = step in {"finish-stage1", "expert-losses", "mocae"} or step.startswith("merge-")
        again = f"`alignx stage2 {self.root}`" if made_by_stage2 else "the command that made it (such as `alignx run`)"
        return f"run {again} again, which makes anew what is missing or damaged"

    def _record_path(self, step: str) -> Path:
        return self.root / "steps" / f"{step}.json"
