"""A base that is loaded when first needed, and once."""

from functools import cached_property

from alignx.config import RunConfig
from alignx.errors import ArtifactError
from alignx.models.base_record import read_base_record, write_base_record
from alignx.models.fingerprint import model_sha256
from alignx.models.load import BaseModel, load_base
from alignx.models.support import check_supported
from alignx.progress import notice
from alignx.runs import processes
from alignx.runs.directory import RunDirectory


class LazyBase:
    """The base of a run; loading checks it against `base.json`, or writes that file."""

    def __init__(self, config: RunConfig, run: RunDirectory) -> None:
        self.config = config
        self.run = run

    def load(self) -> None:
        """Load now what would be loaded when first used."""
        _ = self.base

    @cached_property
    def base(self) -> BaseModel:
        """The loaded base.

        Raises:
            ModelError: it cannot be loaded, or not be aligned (see `check_supported`).
            ArtifactError: its weights are not those the run was made with.
        """
        notice(f"loading {self.config.model}")
        base = load_base(
            self.config.model,
            template=self.config.template,
            dtype=self.config.dtype,
            revision=self.config.revision,
            quantization=self.config.quantization,
        )
        check_supported(base.model, self.config.stage1.target_modules)
        self.check(base)
        return base

    def check(self, base: BaseModel) -> None:
        """Compare every tensor's sha256 with `base.json`; write that file when there is none.

        Raises:
            ArtifactError: a tensor differs, or that file is damaged.
        """
        tensors = model_sha256(base.model)
        identity = {"model": base.source.identity, "revision": self.config.revision, "dtype": self.config.dtype}
        if self.config.quantization != "none":
            identity["quantization"] = self.config.quantization
        known = processes.from_main(lambda: read_base_record(self.run) if self.run.base_path.is_file() else None)
        if known is None:
            write_base_record(self.run, identity, tensors)
            return
        differing = sorted(name for name, _ in tensors.items() ^ known["tensors"].items())
        if differing or known.get("dtype") != self.config.dtype:
            raise ArtifactError(
                f"{self.run.base_path}: the base `{base.source.identity}` is not the one this run was made with "
                f"({differing[0] if differing else 'dtype'} differs); use that base, or another --out"
            )
