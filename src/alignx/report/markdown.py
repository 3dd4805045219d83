"""The report as markdown: the same words and tables, no pictures."""

import re
from collections.abc import Iterable
from pathlib import Path

from alignx.report.answers import AnswerGroup
from alignx.report.contents import Contents, EvaluationPart
from alignx.report.judges import JudgePart
from alignx.report.section import Picture, Section, SideBySide
from alignx.report.tables import Cell, Column, Table


def render_markdown(contents: Contents) -> str:
    """The whole report; ends with a newline."""
    blocks = [
        f"# AlignX report: {escape_inline(contents.model)} on {escape_inline(', '.join(contents.axes))}",
        "The same report with pictures: [report.html](report.html).",
        "## What to take away",
        escape_inline(contents.main.summary),
        *_key_figures(contents.main),
        *(block for section in contents.opening for block in section_blocks(section)),
        *_evaluation(contents.main, level=2),
        *(block for section in contents.sections for block in section_blocks(section)),
    ]
    if contents.answers:
        blocks += ["## Answers side by side", *(block for group in contents.answers for block in _answers(group))]
    if contents.training.table:
        blocks += ["## Training", table_block(contents.training.table)]
        blocks += [table_block(contents.training.choice)] if contents.training.choice else []
    for other in contents.others:
        blocks += [
            f"## Evaluation on other data: {escape_inline(other.name)}",
            escape_inline(other.summary),
            *(
                [f"Left out because this run trained on them: {escape_inline(other.left_out)}."]
                if other.left_out
                else []
            ),
            *_evaluation(other, level=3),
        ]
    blocks += ["## What this does not show", "\n".join(f"- {escape_inline(one)}" for one in contents.limitations)]
    blocks += ["## Provenance", *(table_block(table) for table in contents.provenance)]
    blocks += ["Resolved config:", fenced(contents.config, "yaml")]
    return "\n\n".join(blocks) + "\n"


def section_blocks(section: Section) -> list[str]:
    """A section without its pictures."""
    blocks = [f"## {escape_inline(section.title)}", *map(escape_inline, section.sentences)]
    for block in section.blocks:
        if isinstance(block, Table):
            blocks.append(table_block(block))
        elif isinstance(block, SideBySide):
            about = ["\n".join(f"- {escape_inline(one)}" for one in block.about)] if block.about else []
            blocks += [f"### {escape_inline(block.title)}", *about]
            for label, text in block.texts:
                blocks += [f"{escape_inline(label)}:", fenced(text)]
        else:
            assert isinstance(block, Picture)
    return blocks


def render_sections(title: str, lead: str, sections: Iterable[Section]) -> str:
    """A page that is sections only; ends with a newline."""
    blocks = [f"# {escape_inline(title)}", *([escape_inline(lead)] if lead else [])]
    return "\n\n".join([*blocks, *(block for section in sections for block in section_blocks(section))]) + "\n"


def with_part(path: Path, name: str, body: str) -> str:
    """A file's text with what stands between `<!-- name: begin -->` and `<!-- name: end -->` replaced.

    Raises:
        ValueError: the file does not have both lines, once each.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
    found, replaced = re.subn(
        pattern, lambda _: f"{begin}\n\n{body}\n\n{end}", path.read_text("utf-8"), flags=re.DOTALL
    )
    if replaced != 1:
        raise ValueError(f"{path} needs the lines `{begin}` and `{end}` once")
    return found


def escape_inline(text: str) -> str:
    r"""Any text as one line of markdown that shows exactly this text, inside a table cell too.

    Example:
        >>> escape_inline("a|b <script> *c*")
        'a\\|b \\<script\\> \\*c\\*'
    """
    return re.sub(r"([\\`*_\[\]<>|~$#&])", r"\\\1", " ".join(text.split()))


def fenced(text: str, language: str = "text") -> str:
    """Any text as a code block that it cannot end by itself."""
    lines = "\n".join(text.splitlines())
    longest = max((len(run) for run in re.findall(r"`+", lines)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{lines}\n{fence}"


def table_block(table: Table) -> str:
    """A table with its caption above and its note below."""
    heads = [table.head, *(_head(column) for column in table.columns)]
    lines = [
        f"**{escape_inline(table.caption)}**",
        "",
        _line(escape_inline(head) for head in heads),
        _line(["---", *("---" if column.is_text else "---:" for column in table.columns)]),
    ]
    for row in table.rows:
        label = escape_inline(row.label)
        lines.append(_line([f"**{label}**" if row.is_ours else label, *(_cell(cell) for cell in row.cells)]))
    if table.note:
        lines += ["", escape_inline(table.note)]
    return "\n".join(lines)


def _key_figures(part: EvaluationPart) -> list[str]:
    lines = [
        f"- {escape_inline(one.name)}: {escape_inline(one.value)} ({escape_inline(one.detail)}): {one.verdict}"
        for one in part.key_figures
    ]
    return ["\n".join(lines)]


def _evaluation(part: EvaluationPart, *, level: int) -> list[str]:
    mark = "#" * level
    return [
        f"{mark} Loss",
        table_block(part.loss),
        table_block(part.versus),
        f"{mark} Calibration",
        table_block(part.calibration),
        f"{mark} Mixture",
        table_block(part.mixture),
        table_block(part.confusion),
        table_block(part.routing_facts),
        f"{mark} Likelihood judge",
        table_block(part.likelihood),
        *map(table_block, part.averages),
        *(block for judge in part.judges for block in _judge(judge, mark)),
    ]


def _judge(part: JudgePart, mark: str) -> list[str]:
    blocks = [f"{mark} {escape_inline(part.title)}", escape_inline(part.summary)]
    return [*blocks, *map(table_block, part.tables)]


def _answers(group: AnswerGroup) -> list[str]:
    blocks = ["Prompt:", fenced(group.prompt)]
    for answer in group.answers:
        blocks += [f"### {escape_inline(answer.setting)}", fenced(answer.text)]
        blocks.append("\n".join(f"- {escape_inline(fact)}" for fact in answer.facts))
    return blocks


def _head(column: Column) -> str:
    return column.title if column.n is None else f"{column.title} (n = {column.n})"


def _cell(cell: Cell) -> str:
    return escape_inline(f"{cell.text} ({cell.interval})" if cell.interval else cell.text)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
