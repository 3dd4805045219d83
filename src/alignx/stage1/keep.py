"""The large artifacts of Stage 1, kept on request: dense task vectors, the base's weights, merged models.

All of them can be made again from the adapters and the base; none of them changes a training.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from alignx.config import RunConfig
from alignx.models.fold import folded
from alignx.models.lazy import LazyBase
from alignx.models.save import model_files, save_plain_model
from alignx.progress import notice
from alignx.runs.directory import RunDirectory, fingerprint
from alignx.runs.files import read_json
from alignx.runs.folders import check_space
from alignx.stage1.dense_vector import INDEX_FILE, MAX_SHARD_BYTES, write_dense
from alignx.stage1.experts import SHARED
from alignx.stage1.vector_source import VectorSource, check_same_base, run_vector


def keep_artifacts(
    config: RunConfig, run: RunDirectory, lazy: LazyBase, *, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write what `stage1.keep` asks for, of the experts that are trained, as far as it is missing or stale.

    Args:
        config: the run's config.
        run: where the experts are and the artifacts go.
        lazy: the base; loaded only when its weights are needed.
        max_shard_bytes: of dense task vectors.

    Raises:
        ArtifactError: a damaged adapter, or too little room on the disk.
    """
    axes = [axis for axis in config.axes if run.step_fingerprint(f"train-{axis}")]
    shared = [SHARED] if config.stage1.shared_expert and run.step_fingerprint(f"train-{SHARED}") else []
    if config.stage1.keep.dense:
        for name in [*shared, *axes]:
            # A fully fine-tuned expert has no adapter: its dense task vector is what training wrote.
            if run.adapter_folder(name).is_dir():
                _keep_dense(run, name, max_shard_bytes)
    if config.stage1.keep.copy_base:
        _keep_base(run, lazy)
    if config.stage1.keep.merged:
        for axis in axes:
            _keep_merged(run, lazy, axis, shared)


def _keep_dense(run: RunDirectory, name: str, max_shard_bytes: int) -> None:
    inputs = _inputs(run, [name])
    folder = run.task_vector_folder(name)
    if run.is_done(f"keep-dense-{name}", inputs, *_dense_files(folder)):
        notice(f"dense task vector {name}: up to date")
        return
    source = run_vector(run, name)
    n_bytes = sum(4 * out * width for out, width in map(source.shape, source.names()))
    check_space(folder.parent, n_bytes)
    about = {"expert": name, "base": source.base, "base_digest": source.base_digest}
    tensors = ((module, source.tensor(module)) for module in source.names())
    write_dense(folder, tensors, max_shard_bytes=max_shard_bytes, about=about)
    run.mark_done(f"keep-dense-{name}", inputs)
    notice(f"dense task vector {name}: {n_bytes / 1e9:.2f} GB")


def _keep_base(run: RunDirectory, lazy: LazyBase) -> None:
    inputs = _inputs(run, [])
    if run.is_done("keep-base", inputs, *model_files(run.base_folder)):
        notice("base weights: up to date")
        return
    difference = save_plain_model(run.base_folder, lazy.base)
    run.mark_done("keep-base", inputs)
    notice(f"base weights: kept; read back, largest logit difference {difference:.2g}")


def _keep_merged(run: RunDirectory, lazy: LazyBase, axis: str, shared: list[str]) -> None:
    inputs = _inputs(run, [*shared, axis])
    folder = run.merged_folder(axis)
    if run.is_done(f"keep-merged-{axis}", inputs, *model_files(folder)):
        notice(f"merged model {axis}: up to date")
        return
    sources = [run_vector(run, name) for name in [*shared, axis]]
    with folded(lazy.base.model, summed_updates(sources)):
        difference = save_plain_model(folder, lazy.base)
    lazy.check(lazy.base)
    run.mark_done(f"keep-merged-{axis}", inputs)
    notice(f"merged model {axis}: kept; read back, largest logit difference {difference:.2g}")


def dense_is_current(run: RunDirectory, name: str) -> bool:
    """Whether a kept dense task vector is whole and that of the present expert."""
    return run.is_current(f"keep-dense-{name}", _inputs(run, [name]), *_dense_files(run.task_vector_folder(name)))


def base_is_current(run: RunDirectory) -> bool:
    """Whether the kept base weights are whole and those of the run's base."""
    return run.is_current("keep-base", _inputs(run, []), *model_files(run.base_folder))


def merged_is_current(config: RunConfig, run: RunDirectory, axis: str) -> bool:
    """Whether a kept merged model is whole and made of the present experts."""
    shared = [SHARED] if config.stage1.shared_expert else []
    return run.is_current(f"keep-merged-{axis}", _inputs(run, [*shared, axis]), *model_files(run.merged_folder(axis)))


def summed_updates(sources: list[VectorSource]) -> dict[str, Callable[[], Tensor]]:
    """Sum of task vectors, as `folded` takes it: added up in float32, so that the weights are rounded once.

    Raises:
        ArtifactError: they update different parameters.
    """
    check_same_base(sources, trust=True)

    def update(name: str) -> Tensor:
        total = sources[0].tensor(name)
        for other in sources[1:]:
            total = total + other.tensor(name)
        return total

    return {name: partial(update, name) for name in sources[0].names()}


def _inputs(run: RunDirectory, experts: list[str]) -> dict[str, Any]:
    """What a kept artifact depends on."""
    tensors = read_json(run.base_path)["tensors"] if run.base_path.is_file() else {}
    return {"base": fingerprint(tensors), "experts": {name: run.step_fingerprint(f"train-{name}") for name in experts}}


def _dense_files(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    if not index.is_file():
        return [index]
    return [index, *(folder / str(shard) for shard in sorted(set(read_json(index)["weight_map"].values())))]
