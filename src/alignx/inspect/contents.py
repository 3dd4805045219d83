"""Everything `alignx inspect` shows, gathered from a run directory without loading its base."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alignx.config import RunConfig
from alignx.errors import ArtifactError
from alignx.inspect.inventory import list_artifacts
from alignx.models.save import model_files
from alignx.runs.directory import RunDirectory
from alignx.runs.files import read_json, read_tensors, write_json
from alignx.stage1.experts import SHARED
from alignx.stage1.extracts import read_latent_space
from alignx.stage1.geometry import (
    cosines_of,
    kind_of,
    layer_of,
    main_directions,
    measure_vectors,
    summarise_angles,
    update_angles,
)
from alignx.stage1.keep import base_is_current
from alignx.stage1.task_vector import TaskVector
from alignx.stage1.vector_source import VectorSource, run_vector
from alignx.stage2.presets import preset_names

# Share of the variance that a task matrix's main directions hold.
SHARE = 0.9
_LAST = 10


def inspect_run(run: RunDirectory) -> dict[str, Any]:
    """What is there, in json values; parts that cannot be made yet are none.

    Returns:
        `artifacts`, `presets` (names of the dial's), `training`, `vectors` (norms and cosines), `angles` (one entry a
        pair), `latent`, `signatures` (points of the picture), and `problems` (one line a file that cannot be read).

    Raises:
        ArtifactError: not a run directory.
    """
    config = run.read_config()
    problems: list[str] = []
    sources = _sources(config, run, problems)
    found: dict[str, Any] = {
        "run": run.root.name,
        "model": config.model,
        "axes": list(config.axes),
        "method": config.stage1.method,
        "presets": preset_names(list(config.axes), config.presets),
        "artifacts": [asdict(artifact) for artifact in list_artifacts(config, run)],
        "training": _training(run, [*sources]),
        "vectors": None,
        "angles": [],
        "latent": None,
        "signatures": {},
    }
    if sources:
        found["vectors"] = _vectors(run, sources)
    matrices = _read_matrices(config, run, problems)
    found["angles"] = _angles(sources, matrices.get("task_matrix", {}))
    if run.latent_path.is_file() and (latent := _tolerant(lambda: read_latent_space(run), problems)) is not None:
        found["latent"] = {"layers": list(latent.layers), "widths": latent.widths}
        found["signatures"] = {
            axis: latent.block(signature, -1)[:, :2].tolist()
            for axis, signature in matrices["signature"].items()
            if signature.shape[1] == sum(latent.widths)
        }
    if found["vectors"] is not None and run.parameter_matrix_path.is_file():
        sketches = _tolerant(lambda: read_tensors(run.parameter_matrix_path), problems) or {}
        found["vectors"]["estimated_cosines"] = _estimated(sketches, list(sources))
    return found | {"problems": problems}


def expert_geometry(config: RunConfig, run: RunDirectory) -> dict[str, Any] | None:
    """Norms, cosines and principal angles of a run's experts; measured once and kept in `inspect/geometry.json`.

    Returns:
        `vectors` and `angles` as in `inspect_run`; none without an expert that can be read.
    """
    step, path = "geometry", run.root / "inspect" / "geometry.json"
    inputs = [run.step_fingerprint(f"train-{axis}") for axis in config.axes]
    inputs += [run.step_fingerprint("train-shared"), run.step_fingerprint("finish-stage1")]
    if run.is_done(step, inputs, path):
        kept: dict[str, Any] = read_json(path)
        return kept
    problems: list[str] = []
    sources = _sources(config, run, problems)
    if not sources:
        return None
    matrices = _read_matrices(config, run, problems)
    found = {"vectors": _vectors(run, sources), "angles": _angles(sources, matrices["task_matrix"])}
    if not problems:  # what lacks a damaged expert is shown, and measured again when it is whole
        write_json(path, found)
        run.mark_done(step, inputs, path)
    return found


def _sources(config: RunConfig, run: RunDirectory, problems: list[str]) -> dict[str, VectorSource]:
    """Task vectors there are, the shared one first."""
    names = [*([SHARED] if config.stage1.shared_expert else []), *config.axes]
    found = {}
    for name in names:
        if run.adapter_folder(name).is_dir() or run.task_vector_folder(name).is_dir():
            source = _tolerant(lambda name=name: run_vector(run, name), problems)
            if source is not None:
                found[name] = source
    return found


def _training(run: RunDirectory, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    records = {}
    for name in names:
        path = run.adapter_folder(name).parent / "training.json"
        if path.is_file():
            document = read_json(path)
            losses = list(document.get("losses") or [])
            wanted = ("examples", "epochs", "learning_rate", "steps", "tokens", "seconds")
            last = losses[-_LAST:]
            records[name] = {key: document.get(key) for key in wanted} | {
                "first_loss": losses[0] if losses else None,
                "last_loss": sum(last) / len(last) if last else None,
                "last_steps": len(last),
            }
    return records


def _vectors(run: RunDirectory, sources: Mapping[str, VectorSource]) -> dict[str, Any]:
    geometry = measure_vectors(list(sources.values()))
    norms = geometry.norms()
    base_norm = _base_norm(run, geometry.modules) if run.base_folder.is_dir() and base_is_current(run) else None
    return {
        "names": list(sources),
        "ranks": [_rank(source) for source in sources.values()],
        "norms": norms,
        "relative_norms": [norm / base_norm for norm in norms] if base_norm else None,
        "cosines": geometry.cosines(),
        "estimated_cosines": None,
        "norms_by_layer": geometry.norms_by(layer_of),
        "norms_by_kind": geometry.norms_by(kind_of),
    }


def _rank(source: VectorSource) -> int | None:
    """Largest rank of a low-rank vector's updates; none for a dense one."""
    if not isinstance(source.vector, TaskVector):
        return None
    return max(update.a.shape[0] for update in source.vector.updates.values())


def _base_norm(run: RunDirectory, modules: Sequence[str]) -> float:
    """Norm of the updated modules' weights in the kept base."""
    wanted = {f"{module}.weight" for module in modules}
    square = 0.0
    for path in model_files(run.base_folder)[1:]:
        try:
            with safe_open(path, framework="pt") as file:
                for key in wanted & set(file.keys()):
                    square += float(file.get_tensor(key).double().square().sum())
        except (OSError, SafetensorError) as error:
            raise ArtifactError(
                f"{path}: damaged ({error}); remove the folder and run the step that makes it"
            ) from error
    return float(square**0.5)


def _read_matrices(config: RunConfig, run: RunDirectory, problems: list[str]) -> dict[str, dict[str, Tensor]]:
    """Signature and task matrices by kind and axis."""
    paths = {"task_matrix": run.task_matrix_path, "signature": run.signature_path}
    found: dict[str, dict[str, Tensor]] = {kind: {} for kind in paths}
    for kind, path_of in paths.items():
        for axis in config.axes:
            path: Path = path_of(axis)
            tensors = _tolerant(lambda path=path: read_tensors(path), problems) if path.is_file() else None
            if tensors is not None and kind in tensors:
                found[kind][axis] = tensors[kind]
    return found


def _angles(sources: Mapping[str, VectorSource], task_matrices: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Angles of every pair: between the subspaces of the updates, and between the task matrices' main directions."""
    low_rank = {name: source.vector for name, source in sources.items() if isinstance(source.vector, TaskVector)}
    directions = {axis: main_directions(matrix, SHARE) for axis, matrix in task_matrices.items()}
    by_pair: dict[tuple[str, str], dict[str, Any]] = {
        pair: {side: angles and asdict(angles) for side, angles in sides.items()}
        for pair, sides in update_angles(low_rank).items()
    }
    axes = list(directions)
    for at, one in enumerate(axes):
        for other in axes[at + 1 :]:
            if directions[one].shape[0] != directions[other].shape[0]:
                continue  # of an older latent space; the inventory shows it as stale
            angles = summarise_angles([(directions[one], directions[other])])
            by_pair.setdefault((one, other), {})["prompts"] = angles and {
                **asdict(angles),
                "directions": [directions[one].shape[1], directions[other].shape[1]],
            }
    empty = dict.fromkeys(("input", "output", "prompts"))
    return [{"pair": list(pair), **empty, **sides} for pair, sides in by_pair.items()]


def _estimated(sketches: Mapping[str, Tensor], names: Sequence[str]) -> list[list[float | None]] | None:
    """Cosines as the parameter matrix estimates them, by vector; none where it holds no sketch of one."""
    known = [name for name in names if name in sketches]
    if not known or len({sketches[name].shape for name in known}) > 1:
        return None
    rows = torch.stack([sketches[name].flatten() for name in known]).double()
    cosines = cosines_of(rows @ rows.T)
    return [
        [cosines[known.index(one)][known.index(other)] if {one, other} <= set(known) else None for other in names]
        for one in names
    ]


def _tolerant(read: Any, problems: list[str]) -> Any:
    """What `read` gives; a file that cannot be read becomes a line among the problems and none."""
    try:
        return read()
    except ArtifactError as error:
        problems.append(str(error))
    except KeyError as error:
        problems.append(f"a tensor named {error} is missing from the latent space; run Stage 2 again")
    return None
