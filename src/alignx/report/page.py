"""The report of a run: one self-contained page with pictures, and the same in markdown."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from alignx.report.contents import Contents, EvaluationPart, gather
from alignx.report.figures import loss_figure, mixture_figure, reliability_figure, training_figure, versus_figure
from alignx.report.markdown import render_markdown
from alignx.report.section import Section
from alignx.runs.directory import RunDirectory
from alignx.runs.files import write_text

TEMPLATE = "report.html.j2"
SECTIONS_TEMPLATE = "sections.html.j2"


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
    evaluations = [contents.main, *contents.others]
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            contents=contents,
            figures={part.name: _figures(part, f"e{at}") for at, part in enumerate(evaluations)},
            training_figure=Markup(training_figure(contents.training.losses)),
        )
    )


def render_section_page(*, kicker: str, title: str, lead: str, sections: Sequence[Section]) -> str:
    """A page that is sections only, in the report's own dress."""
    template = _environment().get_template(SECTIONS_TEMPLATE)
    return template.render(kicker=kicker, title=title, lead=lead, sections=sections)


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("alignx.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _figures(part: EvaluationPart, prefix: str) -> dict[str, Markup]:
    """Pictures of one evaluation. They are ours from end to end, so they alone are not escaped again."""
    drawn = {
        "loss": loss_figure,
        "versus": versus_figure,
        "reliability": reliability_figure,
        "mixture": mixture_figure,
    }
    return {name: Markup(draw(part.metrics, prefix=f"{prefix}-{name}")) for name, draw in drawn.items()}
