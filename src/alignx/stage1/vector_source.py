"""Finding and reading task vectors: adapters, dense folders, and the axes of run directories."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from torch import Tensor

from alignx.errors import ArtifactError
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.files import read_json
from alignx.stage1.dense_vector import INDEX_FILE, DenseVector
from alignx.stage1.task_vector import TaskVector, read_task_vector

ADAPTER_FILE = "adapter_model.safetensors"


@dataclass(frozen=True)
class VectorSource:
    """A task vector, low-rank or dense, with what is known about its base.

    Attributes:
        label: short name for messages and records; no path.
        vector: the updates.
        base: name of the base it was taken against; empty when unknown.
        base_digest: fingerprint of that base's weights; empty when unknown.
    """

    label: str
    vector: TaskVector | DenseVector
    base: str = ""
    base_digest: str = ""

    def names(self) -> list[str]:
        """Updated modules (for dense vectors also other parameters), in a fixed order."""
        return list(self.vector.updates) if isinstance(self.vector, TaskVector) else self.vector.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one update."""
        if isinstance(self.vector, DenseVector):
            return self.vector.shape(name)
        update = self.vector.updates[name]
        return (update.b.shape[0], update.a.shape[1])

    def tensor(self, name: str) -> Tensor:
        """One update, dense, float32."""
        return self.vector.tensor(name) if isinstance(self.vector, DenseVector) else self.vector.updates[name].dense()


def open_vector(text: str) -> VectorSource:
    """Open an adapter folder, a dense task vector's folder, or `RUN:AXIS`.

    Args:
        text: as typed; `RUN:shared`, `RUN:joint` and `RUN:joint-mr` name a run's other adapters.

    Raises:
        ArtifactError: nothing there; an unknown axis names the nearest one, a folder of another kind what it lacks.
    """
    folder = Path(text)
    if folder.is_dir():
        return _open_folder(folder, label=_short_name(folder))
    run_text, colon, axis = text.rpartition(":")
    if not colon or not run_text:
        raise ArtifactError(f"{text}: no such folder; give an adapter folder, a dense task vector, or RUN:AXIS")
    return run_vector(RunDirectory(Path(run_text)), axis)


def run_vector(run: RunDirectory, axis: str) -> VectorSource:
    """The task vector of one of a run's axes, or of its `shared` or `joint` adapter.

    Raises:
        ArtifactError: not a run directory, no such axis, or its expert is not trained yet.
    """
    axes = list(run.read_config().axes)
    # The adapter comes first: a dense vector beside it is a copy, and sums of copies would lose the low rank.
    folders = [run.adapter_folder(axis), run.task_vector_folder(axis)]
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        raise ArtifactError(f"{run.root}:{axis}: {_no_such_expert(run, axis, axes)}")
    source = _open_folder(found, label=f"{run.root.name}:{axis}")
    known = read_json(run.base_path) if run.base_path.is_file() else {}
    base = source.base or str(known.get("model") or "")
    return VectorSource(source.label, source.vector, base, fingerprint(known["tensors"]) if "tensors" in known else "")


def _open_folder(folder: Path, *, label: str) -> VectorSource:
    if (folder / INDEX_FILE).is_file():
        dense = DenseVector(folder)
        return VectorSource(label, dense, str(dense.about.get("base") or ""), str(dense.about.get("base_digest") or ""))
    if not (folder / "adapter_config.json").is_file():
        hint = f"; for a run directory give {folder}:AXIS" if (folder / "run.yaml").is_file() else ""
        raise ArtifactError(
            f"{folder}: neither a LoRA adapter (adapter_config.json) nor a dense task vector ({INDEX_FILE}){hint}"
        )
    vector = read_task_vector(folder)
    settings = read_json(folder / "adapter_config.json")
    note = folder / "task_vector.json"
    digest = str(read_json(note).get("base_digest") or "") if note.is_file() else ""
    return VectorSource(label, vector, str(settings.get("base_model_name_or_path") or ""), digest)


def _no_such_expert(run: RunDirectory, axis: str, axes: Sequence[str]) -> str:
    if axis in axes:
        return f"axis `{axis}` has no expert yet; train it with `alignx stage1` or `alignx run`"
    trained = [name for name in ("shared", "joint", "joint-mr") if run.adapter_folder(name).is_dir()]
    known = [*axes, *trained]
    near = get_close_matches(axis, known, n=1)
    return f"unknown axis; {f'did you mean `{near[0]}`?' if near else 'the run has ' + ', '.join(known)}"


def _short_name(folder: Path) -> str:
    """`honest/adapter` for a folder called `adapter`, else its own name."""
    resolved = folder.resolve()
    return "/".join(resolved.parts[-2:]) if resolved.name in {"adapter", "task_vector"} else resolved.name


def check_same_base(sources: Sequence[VectorSource], *, trust: bool = False) -> None:
    """Check that task vectors update the same parameters of the same base.

    Args:
        sources: at least one.
        trust: take bases of different names for the same one; shapes must agree all the same.

    Raises:
        ArtifactError: another base, other parameters, or another shape.
    """
    first = sources[0]
    shapes = {name: first.shape(name) for name in first.names()}
    for other in sources[1:]:
        if not trust and _differ(first, other):
            raise ArtifactError(
                f"{other.label} was taken against base `{other.base}`, {first.label} against "
                f"{'other weights of that name' if other.base == first.base else f'`{first.base}`'}; vectors of "
                "different bases do not add up. If both are the same weights, add --same-base"
            )
        stray = sorted(shapes.keys() ^ set(other.names()))
        if stray:
            raise ArtifactError(
                f"{other.label} and {first.label} update different parameters: `{stray[0]}` and {len(stray) - 1} more "
                "are in one alone; train them on one base with the same target_modules"
            )
        for name, shape in shapes.items():
            if other.shape(name) != shape:
                raise ArtifactError(
                    f"{other.label} updates `{name}` as {other.shape(name)}, {first.label} as {shape}; they were taken "
                    "against different bases"
                )


def _differ(one: VectorSource, other: VectorSource) -> bool:
    if one.base_digest and other.base_digest:
        return one.base_digest != other.base_digest
    # The same base is a hub id to one tool and a folder to another: the last part is what they share.
    names = [source.base.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].lower() for source in (one, other)]
    return all(names) and names[0] != names[1]
