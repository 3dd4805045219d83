"""What a comparator is: a way to use the same data or experts without AlignX's mixture, made once and then scored."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignx.config import RunConfig
from alignx.models.lazy import LazyBase
from alignx.models.load import BaseModel
from alignx.runs.directory import RunDirectory

Make = Callable[[RunConfig, RunDirectory, LazyBase], None]
Install = Callable[[RunConfig, RunDirectory, BaseModel], AbstractContextManager[BaseModel]]


@dataclass(frozen=True)
class Comparator:
    """One comparator.

    Attributes:
        name: in configs, on the command line and in the tables.
        needs: what making it takes, in words.
        make: makes what is missing or stale; nothing when a rerun finds it made.
        made_from: fingerprint of what its scores depend on, besides the prompts; empty while it is not made or stale.
            None where `methods.sources` says it, because the comparator runs behind gates like the mixture itself.
        installed: the base with the comparator in place, for scoring; the base is bit-equal afterwards. None as above.
        autocast: whether it can run under bf16 autocast; else it is scored in float32 whatever the others are.
    """

    name: str
    needs: str
    make: Make
    made_from: Callable[[RunConfig, RunDirectory], str] | None = None
    installed: Install | None = None
    autocast: bool = True


@dataclass(frozen=True)
class Record:
    """The step of a comparator with files of its own, in `eval/comparators/<name>`.

    Attributes:
        name: of the comparator.
        inputs: config and run -> everything its files depend on.
        files: config and its folder -> what it consists of.
    """

    name: str
    inputs: Callable[[RunConfig, RunDirectory], Mapping[str, Any]]
    files: Callable[[RunConfig, Path], list[Path]]

    def folder(self, run: RunDirectory) -> Path:
        """Where its files lie."""
        return run.root / "eval" / "comparators" / self.name

    def is_done(self, config: RunConfig, run: RunDirectory) -> bool:
        """Whether it is made, for a step that makes it otherwise."""
        return run.is_done(self._step, self.inputs(config, run), *self.files(config, self.folder(run)))

    def mark_done(self, config: RunConfig, run: RunDirectory) -> None:
        """Record that it is made; written last."""
        run.mark_done(self._step, self.inputs(config, run), *self.files(config, self.folder(run)))

    def made_from(self, config: RunConfig, run: RunDirectory) -> str:
        """Fingerprint of what it was made from, and of its tensors; empty when it is missing or stale."""
        current = run.is_current(self._step, self.inputs(config, run), *self.files(config, self.folder(run)))
        return run.step_fingerprint(self._step) if current else ""

    def check(self, run: RunDirectory) -> None:
        """Compare its files with what was written.

        Raises:
            ArtifactError: one is missing or has changed since.
        """
        run.check(self._step)

    @property
    def _step(self) -> str:
        return f"comparator-{self.name}"
