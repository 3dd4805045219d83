"""What is known of a judge beside its verdicts: how far it agrees with labels, and what it was not asked.

A note lies beside the judge's rows, `judged/<judge>.json`; what `alignx judge check --run RUN` found lies in
`eval/judge_checks.json`, by judge, model, template and data file. Figures take both along.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignx.errors import ArtifactError, JudgeError
from alignx.evaluate.judges.interface import Judge
from alignx.progress import notice
from alignx.runs.directory import RunDirectory
from alignx.runs.files import read_json, write_json


def write_note(judged: Path, judge: Judge, left_out: Mapping[str, int], *, n_asked: int) -> None:
    """Keep what is known of a judge beside its rows, and say what it was not asked.

    Args:
        judged: the judge's rows.
        judge: the judge.
        left_out: group -> prompts it was not asked about because it was trained on them.
        n_asked: questions it was asked.

    Raises:
        JudgeError: it was trained on every prompt.
    """
    if left_out:
        parts = ", ".join(f"{count} of {group}" for group, count in left_out.items())
        remedy = f"`alignx judge train {judge.name.partition('-')[2]} --run RUN` makes one that was not"
        if not n_asked:
            raise JudgeError(
                f"judge `{judge.name}`: was trained on all {parts} prompts, so it may judge none; {remedy}"
            )
        notice(f"judge {judge.name}: left out prompts that it was trained on ({parts}); {remedy}")
    note = {"model": judge.model, "left_out": dict(left_out), "held_out": judge.held_out}
    write_json(judged.with_suffix(".json"), note)


def read_notes(folder: Path) -> dict[str, dict[str, Any]]:
    """Judge -> its note, of those that have one.

    Args:
        folder: of the judged rows.

    Raises:
        ArtifactError: a damaged one.
    """
    notes = {}
    for path in sorted(folder.glob("*.json")):
        note = read_json(path)
        if not isinstance(note, dict) or not {"model", "left_out", "held_out"} <= note.keys():
            raise ArtifactError(f"{path}: damaged; remove it and judge again")
        notes[path.stem] = note
    return notes


def checks_path(run: RunDirectory) -> Path:
    """Where a run keeps what its judges were found to be worth."""
    return run.root / "eval" / "judge_checks.json"


def keep_check(run: RunDirectory, check: Mapping[str, Any]) -> None:
    """Keep a check; one of the same judge, model, template and data is replaced."""
    names = ("judge", "model", "template", "data")
    others = [kept for kept in read_checks(run) if any(kept[name] != check[name] for name in names)]
    write_json(checks_path(run), [*others, dict(check)])


def read_checks(run: RunDirectory) -> list[dict[str, Any]]:
    """All checks of a run; none when there are none.

    Raises:
        ArtifactError: damaged.
    """
    path = checks_path(run)
    checks = read_json(path) if path.is_file() else []
    needed = {"judge", "model", "template", "data", "question"}
    if not isinstance(checks, list) or not all(isinstance(one, dict) and needed <= one.keys() for one in checks):
        raise ArtifactError(f"{path}: damaged; remove it and run `alignx judge check` again")
    return checks
