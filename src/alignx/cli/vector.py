"""`alignx vector`: arithmetic on task vectors, from and to files."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignx.cli.app import app
from alignx.errors import ConfigError

if TYPE_CHECKING:
    from alignx.stage1.vector_files import SavedVector
    from alignx.stage1.vector_source import VectorSource

vector_app = typer.Typer(
    help="Add, scale, negate or merge task vectors, exactly: adapters, dense vectors, or RUN:AXIS.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(vector_app, name="vector")

_WHAT = "Adapter folder, dense task vector, or RUN:AXIS."
VectorsArgument = Annotated[list[str], typer.Argument(help=_WHAT, show_default=False, metavar="VECTOR...")]
VectorArgument = Annotated[str, typer.Argument(help=_WHAT, show_default=False)]
OutOption = Annotated[Path, typer.Option(help="Folder to write; new or empty.", show_default=False)]
WeightsOption = Annotated[
    str | None, typer.Option(help="One weight a vector, separated by commas, e.g. 0.5,0.5; default all 1.")
]
RankOption = Annotated[
    int | None, typer.Option(help="Cut to this rank, write an adapter and say what norm was dropped.", min=1)
]
DenseOption = Annotated[bool, typer.Option("--dense", help="Write dense even what has a low rank.")]
SameBaseOption = Annotated[bool, typer.Option("--same-base", help="Bases of different names are the same weights.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the drops.", min=0)]

# A factor may be negative, and would else be taken for an option.
_NEGATIVE_NUMBERS = {"ignore_unknown_options": True}


@vector_app.command()
def add(
    vectors: VectorsArgument,
    out: OutOption,
    weights: WeightsOption = None,
    rank: RankOption = None,
    dense: DenseOption = False,
    same_base: SameBaseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Weighted sum, exact. An adapter whose rank is the sum of the inputs' ranks, or dense if an input is."""
    from alignx.stage1.vector_merge import weighted_sum

    sources = _open(vectors, out, same_base)
    factors = _weights(weights) or [1.0] * len(sources)
    recipe = {"operation": "add", "weights": factors}
    _save(out, weighted_sum(sources, factors), sources, recipe, as_json, rank=rank, dense=dense)


@vector_app.command(context_settings=_NEGATIVE_NUMBERS)
def scale(
    vector: VectorArgument,
    factor: Annotated[float, typer.Argument(help="Factor on the update.", show_default=False)],
    out: OutOption,
    rank: RankOption = None,
    dense: DenseOption = False,
    as_json: JsonOption = False,
) -> None:
    """A vector times a number, exact."""
    from alignx.stage1.vector_merge import weighted_sum

    if not math.isfinite(factor):
        raise ConfigError(f"factor {factor} is not a finite number; give a number such as 0.5")
    sources = _open([vector], out)
    recipe = {"operation": "scale", "factor": factor}
    _save(out, weighted_sum(sources, [factor]), sources, recipe, as_json, rank=rank, dense=dense)


@vector_app.command()
def negate(
    vector: VectorArgument,
    out: OutOption,
    rank: RankOption = None,
    dense: DenseOption = False,
    as_json: JsonOption = False,
) -> None:
    """A vector times -1: what was learned, unlearned."""
    from alignx.stage1.vector_merge import weighted_sum

    sources = _open([vector], out)
    _save(out, weighted_sum(sources, [-1.0]), sources, {"operation": "negate"}, as_json, rank=rank, dense=dense)


@vector_app.command()
def ties(
    vectors: VectorsArgument,
    out: OutOption,
    density: Annotated[float, typer.Option(help="Share of entries kept in each update, by size.")] = 0.2,
    weights: WeightsOption = None,
    rank: RankOption = None,
    same_base: SameBaseOption = False,
    as_json: JsonOption = False,
) -> None:
    """TIES merge: trim, elect signs, average what agrees. Dense unless --rank is given (Yadav et al. 2023)."""
    from alignx.stage1.vector_merge import ties_merge

    sources = _open(vectors, out, same_base)
    factors = _weights(weights)
    recipe = {"operation": "ties", "density": density, "weights": factors or [1.0] * len(sources)}
    _save(out, ties_merge(sources, density=density, weights=factors), sources, recipe, as_json, rank=rank)


@vector_app.command()
def dare(
    vectors: VectorsArgument,
    out: OutOption,
    density: Annotated[float, typer.Option(help="Share of entries kept in each update, at random.")] = 0.5,
    seed: SeedOption = 0,
    weights: WeightsOption = None,
    rank: RankOption = None,
    same_base: SameBaseOption = False,
    as_json: JsonOption = False,
) -> None:
    """DARE merge: drop entries, rescale the rest, add. Dense unless --rank is given (Yu et al. 2024)."""
    from alignx.stage1.vector_merge import dare_merge

    sources = _open(vectors, out, same_base)
    factors = _weights(weights) or [1.0] * len(sources)
    recipe = {"operation": "dare", "density": density, "seed": seed, "weights": factors}
    _save(out, dare_merge(sources, factors, density=density, seed=seed), sources, recipe, as_json, rank=rank)


def _open(vectors: list[str], out: Path, same_base: bool = False) -> "list[VectorSource]":
    from alignx.stage1.vector_files import check_out
    from alignx.stage1.vector_source import check_same_base, open_vector

    check_out(out)
    sources = [open_vector(text) for text in vectors]
    check_same_base(sources, trust=same_base)
    return sources


def _weights(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--weights {text}: expected numbers separated by commas, e.g. --weights 0.5,0.5") from None


def _save(
    out: Path,
    updates: Any,
    sources: "list[VectorSource]",
    recipe: dict[str, Any],
    as_json: bool,
    *,
    rank: int | None = None,
    dense: bool = False,
) -> None:
    from alignx.stage1.vector_files import save_vector

    saved = save_vector(out, updates, sources, recipe=recipe, rank=rank, dense=dense)
    if as_json:
        typer.echo(json.dumps({**recipe, **saved.document()}))
    else:
        _print(saved)


def _print(saved: "SavedVector") -> None:
    kind = "dense task vector" if saved.rank is None else f"adapter of rank {saved.rank}"
    typer.echo(f"{kind}, {saved.n_parameters} parameters: {saved.folder}")
    cut = saved.truncation
    if cut is None:
        return
    name, share = cut.largest
    typer.echo(
        f"norm dropped: {cut.overall:.1%} of the whole; a parameter {cut.mean:.1%} on average, "
        f"at most {share:.1%} ({name})"
    )
    left_out = len(cut.norms) - len(cut.vector.updates)
    if left_out:
        typer.echo(f"{left_out} parameters that LoRA cannot hold (norms, biases, embeddings) are left out")
