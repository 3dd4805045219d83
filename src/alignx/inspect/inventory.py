"""Which artifacts of a run's layout are there, whether they fit its config and prompts, and their size on disk."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from alignx.config import MERGE_NAMES, RunConfig
from alignx.errors import ArtifactError
from alignx.evaluate.tradeoff.pipeline import tradeoff_is_current, tradeoff_path
from alignx.runs.directory import RunDirectory
from alignx.stage1.experts import SHARED
from alignx.stage1.extracts import extracts_are_current
from alignx.stage1.keep import base_is_current, dense_is_current, merged_is_current
from alignx.stage1.pipeline import expert_is_current, shared_is_current
from alignx.stage2.pipeline import check_current, merge_is_current

State = Literal["present", "stale", "missing"]


@dataclass(frozen=True)
class Artifact:
    """One artifact of a run.

    Attributes:
        name: what it is.
        path: relative to the run directory.
        state: `stale` when it was made from other prompts, settings or experts than the run now has, or is not whole.
        n_bytes: size on disk.
        remedy: what to type to have it made (again); empty when it is present.
    """

    name: str
    path: str
    state: State
    n_bytes: int
    remedy: str


def list_artifacts(config: RunConfig, run: RunDirectory) -> list[Artifact]:
    """Every artifact that the run has or should have, in the order they are made."""
    return [_look(run, *one) for one in _expected(config, run)]


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else 0


# Name, path, whether it is current, and the command that makes it.
_Expected = tuple[str, Path, Callable[[], bool], str]


def _expected(config: RunConfig, run: RunDirectory) -> Iterator[_Expected]:
    root = run.root
    train = "alignx run CONFIG, or alignx stage1"
    yield "config and environment", run.config_path, _always, ""
    yield "base weights' identity", run.base_path, _always, train
    yield "splits", run.splits_path, _always, train
    if config.stage1.shared_expert:
        yield "shared expert", run.adapter_folder(SHARED), partial(shared_is_current, config, run), train
    for axis in config.axes:
        folder = _expert_folder(run, axis)
        yield f"expert {axis}", folder, partial(expert_is_current, config, run, axis), train
    yield from _extracts(config, run)
    yield from _kept(config, run)
    yield "mixture", run.mocae_path, partial(_mixture_is_current, config, run), f"alignx stage2 {root}"
    for method in MERGE_NAMES:
        if run.merge_path(method).is_file() or method in config.stage2.merges:
            current = partial(merge_is_current, config, run, method)
            yield f"merge {method}", run.merge_path(method), current, f"alignx stage2 {root} --method {method}"
    for name in ("joint", "joint-mr"):
        if run.adapter_folder(name).is_dir():
            yield f"{name} LoRA", run.adapter_folder(name), _always, ""
    yield "scores", run.evaluation_folder("test") / "metrics.json", _always, f"alignx evaluate {root}"
    if tradeoff_path(run).is_file():
        yield "trade-off", tradeoff_path(run), partial(tradeoff_is_current, run), f"alignx tradeoff {root}"
    yield "report", root / "report.html", _always, f"alignx report {root}"


def _extracts(config: RunConfig, run: RunDirectory) -> Iterator[_Expected]:
    remedy = f"alignx stage2 {run.root}"
    current = partial(extracts_are_current, config, run)
    yield "latent space", run.latent_path, current, remedy
    yield "parameter matrix", run.parameter_matrix_path, current, remedy
    for axis in config.axes:
        yield f"task matrix {axis}", run.task_matrix_path(axis), current, remedy
        yield f"signature matrix {axis}", run.signature_path(axis), current, remedy


def _kept(config: RunConfig, run: RunDirectory) -> Iterator[_Expected]:
    """Large artifacts, where they are or are asked for."""
    keep, again = config.stage1.keep, "alignx run CONFIG, or alignx stage1"
    shared = [SHARED] if config.stage1.shared_expert else []
    for name in [*shared, *config.axes]:
        folder = run.task_vector_folder(name)
        if run.adapter_folder(name).is_dir() and (keep.dense or folder.is_dir()):
            yield f"dense task vector {name}", folder, partial(dense_is_current, run, name), f"{again} --dense"
    if keep.copy_base or run.base_folder.is_dir():
        yield "base weights", run.base_folder, partial(base_is_current, run), f"{again} --copy-base"
    for axis in config.axes:
        folder = run.merged_folder(axis)
        if keep.merged or folder.is_dir():
            yield f"merged model {axis}", folder, partial(merged_is_current, config, run, axis), f"{again} --merged"


def _look(run: RunDirectory, name: str, path: Path, current: Callable[[], bool], remedy: str) -> Artifact:
    state: State = "missing"
    if path.exists():
        state = "present" if _holds(current) else "stale"
    shown = str(path.relative_to(run.root)) + ("/" if path.is_dir() else "")
    return Artifact(name, shown, state, size_on_disk(path), "" if state == "present" else remedy)


def _holds(current: Callable[[], bool]) -> bool:
    """Whether a check passes; one that cannot be made, because a record it reads is missing or damaged, does not."""
    try:
        return current()
    except (ArtifactError, KeyError, TypeError):
        return False


def _always() -> bool:
    return True


def _mixture_is_current(config: RunConfig, run: RunDirectory) -> bool:
    check_current(config, run)
    return True


def _expert_folder(run: RunDirectory, axis: str) -> Path:
    """Where an axis's expert lies: its adapter, or the dense task vector of a fully fine-tuned one."""
    adapter, dense = run.adapter_folder(axis), run.task_vector_folder(axis)
    return dense if dense.is_dir() and not adapter.is_dir() else adapter
