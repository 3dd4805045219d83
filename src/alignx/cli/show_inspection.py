"""What `alignx inspect` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from alignx.cli.show import WIDTH

_SIDES = {"input": "updates read", "output": "updates write", "prompts": "prompts"}


def show_inspection(found: Mapping[str, Any]) -> None:
    """All tables of an inspection, those that there is something for."""
    console = Console(width=WIDTH, highlight=False)
    console.print(Text(f"{found['run']}: {found['model']}, axes {', '.join(found['axes'])}"))
    console.print(Text(f"presets of the dial: {', '.join(found['presets'])}"), soft_wrap=True)
    console.print(_artifacts(found["artifacts"]))
    for artifact in found["artifacts"]:
        if artifact["state"] == "stale":
            console.print(Text(f"{artifact['name']} is stale: run {artifact['remedy']}"), soft_wrap=True)
    if found["training"]:
        console.print(_training(found["training"]))
    vectors = found["vectors"]
    if vectors is None:
        console.print("no expert is trained yet: no norms, cosines or angles")
    else:
        console.print(_norms(vectors))
        if len(vectors["names"]) > 1:
            console.print(_cosines(vectors))
    if found["angles"]:
        console.print(_angles(found["angles"]))
    if found["latent"]:
        pairs = zip(found["latent"]["layers"], found["latent"]["widths"], strict=True)
        console.print("latent space: " + ", ".join(f"{width} directions at layer {layer}" for layer, width in pairs))
    for problem in found["problems"]:
        console.print(Text(f"problem: {problem}"), soft_wrap=True)


def size_words(n_bytes: int) -> str:
    """`4.2 MB`."""
    size = float(n_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1))


def _titled(title: str, table: Table) -> Group:
    """A table under its title; rich would break a title that is wider than its table."""
    return Group(Text(title, style="bold"), table)


def _artifacts(artifacts: Sequence[Mapping[str, Any]]) -> Group:
    table = _table()
    for column in ("artifact", "state", "size", "path, or what makes it"):
        table.add_column(column, justify="right" if column == "size" else "left")
    for one in artifacts:
        missing = one["state"] == "missing"
        where = f"made by {one['remedy']}" if missing and one["remedy"] else one["path"]
        size = "" if missing else size_words(one["n_bytes"])
        table.add_row(Text(one["name"]), one["state"], size, Text(where, style="dim" if missing else ""))
    return _titled("artifacts", table)


def _training(records: Mapping[str, Mapping[str, Any]]) -> Group:
    table = _table()
    table.add_column("adapter")
    for column in ("examples", "epochs", "rate", "steps", "tokens", "seconds", "first loss", "last losses"):
        table.add_column(column, justify="right")
    for name, one in records.items():
        last = "" if one["last_loss"] is None else f"{one['last_loss']:.3f} (mean of {one['last_steps']})"
        first = "" if one["first_loss"] is None else f"{one['first_loss']:.3f}"
        figures = [one[key] for key in ("examples", "epochs", "learning_rate", "steps", "tokens", "seconds")]
        table.add_row(Text(name), *("" if value is None else f"{value:,}" for value in figures), first, last)
    return _titled("training (loss in nats per target token)", table)


def _norms(vectors: Mapping[str, Any]) -> Group:
    table = _table()
    table.add_column("expert")
    for column in ("rank", "norm", *(["of base"] if vectors["relative_norms"] else [])):
        table.add_column(column, justify="right")
    for kind in vectors["norms_by_kind"]:
        table.add_column(Text(kind.removesuffix("_proj")), justify="right")
    for at, name in enumerate(vectors["names"]):
        row = [str(vectors["ranks"][at] or "dense"), f"{vectors['norms'][at]:.3f}"]
        row += [f"{vectors['relative_norms'][at]:.2%}"] if vectors["relative_norms"] else []
        row += [f"{norms[at]:.3f}" for norms in vectors["norms_by_kind"].values()]
        table.add_row(Text(name), *row)
    return _titled("norms of the task vectors, whole and by kind of module", table)


def _cosines(vectors: Mapping[str, Any]) -> Group:
    estimated = vectors["estimated_cosines"]
    beside = "; in brackets: estimated from the parameter matrix" if estimated else ""
    table = _table()
    table.add_column("")
    for name in vectors["names"]:
        table.add_column(Text(name), justify="right")
    for row, name in enumerate(vectors["names"]):
        cells = []
        for column in range(len(vectors["names"])):
            guess = estimated[row][column] if estimated else None
            cells.append(f"{vectors['cosines'][row][column]:.3f}" + ("" if guess is None else f" ({guess:.2f})"))
        table.add_row(Text(name), *cells)
    return _titled(f"cosines between task vectors, exact{beside}", table)


def _angles(angles: Sequence[Mapping[str, Any]]) -> Group:
    table = _table()
    for column in ("pair", "between", "mean", "smallest", "overlap"):
        table.add_column(column, justify="left" if column in {"pair", "between"} else "right")
    for entry in angles:
        pair = " and ".join(entry["pair"])
        for side, words in _SIDES.items():
            one = entry[side]
            if one is None:
                continue
            sizes = f" ({one['directions'][0]} and {one['directions'][1]} directions)" if side == "prompts" else ""
            overlap = f"{one['overlap']:.3f} ({one['chance']:.3f})"
            table.add_row(Text(pair), words + sizes, f"{one['mean']:.1f}", f"{one['smallest']:.1f}", overlap)
            pair = ""
    return _titled("principal angles in degrees; overlap: 0 orthogonal, 1 contained (by chance)", table)
