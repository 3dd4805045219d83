"""The report of a run: one self-contained page with pictures, and the same in markdown."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from alignx.report.contents import Contents, EvaluationPart, gather
from alignx.report.figures import loss_figure, mixture_figure, reliability_figure, training_figure, versus_figure
from alignx.report.markdown import render_markdown
from alignx.report.tradeoff_figures import dial_figure, pair_figure, triangle_figure
from alignx.runs.directory import RunDirectory
from alignx.runs.files import write_text

TEMPLATE = "report.html.j2"


def write_report(run: RunDirectory) -> tuple[Path, Path]:
    """Write `report.html` and `report.md` into a run directory.

    Args:
        run: a run that was evaluated on its test split.

    Returns:
        Paths of the page and of the markdown.

    Raises:
        ArtifactError: the run was not evaluated, or a file is missing or damaged.
    """
    contents = gather(run)
    page, markdown = run.root / "report.html", run.root / "report.md"
    write_text(page, render_html(contents))
    write_text(markdown, render_markdown(contents))
    return page, markdown


def render_html(contents: Contents) -> str:
    """The page: one file, no script, nothing fetched; equal contents give equal text."""
    environment = Environment(
        loader=PackageLoader("alignx.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    evaluations = [contents.main, *contents.others]
    return environment.get_template(TEMPLATE).render(
        contents=contents,
        figures={part.name: _figures(part, f"e{at}") for at, part in enumerate(evaluations)},
        training_figure=Markup(training_figure(contents.training.losses)),
        dial_figures=_dial_figures(contents),
    )


def _dial_figures(contents: Contents) -> dict[str, Markup]:
    """Pictures of the sweep; none without one."""
    if contents.tradeoff is None:
        return {}
    drawn = {"dial": dial_figure, "triangle": triangle_figure, "pair": pair_figure}
    return {name: Markup(draw(contents.tradeoff.metrics, prefix=f"sweep-{name}")) for name, draw in drawn.items()}


def _figures(part: EvaluationPart, prefix: str) -> dict[str, Markup]:
    """Pictures of one evaluation. They are ours from end to end, so they alone are not escaped again."""
    drawn = {
        "loss": loss_figure,
        "versus": versus_figure,
        "reliability": reliability_figure,
        "mixture": mixture_figure,
    }
    return {name: Markup(draw(part.metrics, prefix=f"{prefix}-{name}")) for name, draw in drawn.items()}
