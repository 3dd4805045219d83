"""Publish what `alignx ablate`, `tradeoff`, `probe`, `cost`, `variability` and judges of a run found, in RESULTS.md.

python scripts/publish_sections.py runs/small-0 small ablations judged cost variability
python scripts/publish_sections.py runs/small-0 small dial probe --seeds runs/small-1 runs/small-2

Each section stands between its own markers (`<!-- small-dial: begin -->`), its figures in results/small.dial.json.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignx.config import RunConfig
from alignx.errors import AlignXError, ArtifactError
from alignx.evaluate.ablation.pipeline import ABLATE
from alignx.evaluate.cost import read_cost
from alignx.evaluate.pipeline import read_metrics
from alignx.evaluate.probe.pipeline import read_probe
from alignx.evaluate.seeds import check_poolable
from alignx.evaluate.tradeoff.pipeline import read_tradeoff
from alignx.evaluate.tradeoff.pooled import pool_tradeoffs
from alignx.evaluate.variability import read_variability
from alignx.report.ablation import ablation_section
from alignx.report.cost import cost_section
from alignx.report.judges import average_tables, judge_parts
from alignx.report.markdown import section_blocks, with_part
from alignx.report.probe import probe_by_seed_table, probe_section
from alignx.report.section import Section
from alignx.report.tradeoff_section import tradeoff_section
from alignx.report.variability import variability_section
from alignx.runs import RunDirectory
from alignx.runs.files import read_json, write_json, write_text

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class _Published:
    """How a section is made.

    Attributes:
        read: run and further seeds -> its figures; none where there are none.
        show: these -> the section.
        command: what makes them.
        takes_seeds: whether further seeds can be given here.
    """

    read: Callable[[RunDirectory, Sequence[RunDirectory]], Mapping[str, Any] | None]
    show: Callable[[Any], Section | None]
    command: str
    takes_seeds: bool = False


def _ablations(run: RunDirectory, seeds: Sequence[RunDirectory]) -> Mapping[str, Any] | None:
    folder = run.evaluation_folder(ABLATE)
    found = [folder / name for name in ("pooled.json", "metrics.json") if (folder / name).is_file()]
    return read_json(found[0]) if found else None


def _dial(run: RunDirectory, seeds: Sequence[RunDirectory]) -> Mapping[str, Any] | None:
    return pool_tradeoffs([run, *seeds]) if seeds else read_tradeoff(run)


def _probe(run: RunDirectory, seeds: Sequence[RunDirectory]) -> Mapping[str, Any] | None:
    """A run's probe, and those of further seeds as `further`."""
    found = []
    for one in (run, *seeds):
        of_run = read_probe(one)
        if of_run is None:
            return None
        found.append(of_run)
        if _as_probed(of_run) != _as_probed(found[0]):
            raise ArtifactError(f"{one.root}: probed with another limit or guard than {run.root}; probe both alike")
    return {**found[0], "seeds": [one["seed"] for one in found], "further": found[1:]} if seeds else found[0]


def _as_probed(found: Mapping[str, Any]) -> list[Any]:
    return [found["kinds"], found["limit"], found["guard_axis"]]


def _probe_section(found: Mapping[str, Any]) -> Section:
    section = probe_section(found)
    if not found.get("further"):
        return section
    by_seed = probe_by_seed_table([found, *found["further"]])
    return replace(section, blocks=[by_seed, *section.blocks])


def _judged(run: RunDirectory, seeds: Sequence[RunDirectory]) -> Mapping[str, Any] | None:
    metrics = read_metrics(run)
    if "judges" not in metrics:
        return None
    return {name: metrics[name] for name in ("judges", "model", "seed", "environment")}


def _judged_section(found: Mapping[str, Any]) -> Section:
    """Headline, every measure and what the judges are worth; pairs and categories are in the figures and the report."""
    parts = judge_parts(found)
    shown = [table for part in parts for table in part.tables if table.head == "method" or "Agreement" in table.caption]
    tables = [*average_tables(found), *shown]
    return Section("judged", "Answers, judged", [f"{part.title}. {part.summary}" for part in parts], tables)


SECTIONS = {
    "ablations": _Published(_ablations, ablation_section, "alignx ablate RUN ..."),
    "dial": _Published(_dial, tradeoff_section, "alignx tradeoff RUN ...", takes_seeds=True),
    "probe": _Published(_probe, _probe_section, "alignx probe RUN --answers 10", takes_seeds=True),
    "judged": _Published(_judged, _judged_section, "alignx evaluate RUN --judges trained"),
    "cost": _Published(lambda run, seeds: read_cost(run), cost_section, "alignx cost RUN"),
    "variability": _Published(lambda run, seeds: read_variability(run), variability_section, "alignx variability RUN"),
}


def publish(run: RunDirectory, name: str, section: str, root: Path, *, seeds: Sequence[RunDirectory] = ()) -> None:
    """Write one section's figures and its part of RESULTS.md under `root`.

    Args:
        run: whose section it is.
        name: of the results.
        section: of `SECTIONS`.
        root: of the repository.
        seeds: runs of the same config with further seeds.

    Raises:
        AlignXError: the run cannot be read, or has nothing for the section.
        ValueError: RESULTS.md has no such part.
    """
    published, config = SECTIONS[section], run.read_config()
    _check_seeds([run, *seeds], [section])
    found = published.read(run, seeds)
    shown = published.show(found) if found else None
    if found is None or shown is None:
        raise ArtifactError(f"{run.root}: nothing to publish as `{section}`; run `{published.command}` first")
    results = root / "RESULTS.md"
    body = "\n\n".join([_facts(config, found, name), *section_blocks(shown)[1:]])
    text = with_part(results, f"{name}-{section}", body)
    write_json(root / "results" / f"{name}.{section}.json", found)
    write_text(results, text)


def _check_seeds(runs: Sequence[RunDirectory], sections: Sequence[str]) -> None:
    alone = [section for section in sections if not SECTIONS[section].takes_seeds]
    if len(runs) > 1 and alone:
        raise ArtifactError(f"--seeds is not for `{alone[0]}`; leave it out, or publish that by itself")
    check_poolable([run.read_config() for run in runs], [run.root for run in runs])


def _facts(config: RunConfig, found: Mapping[str, Any], name: str) -> str:
    environment = found["environment"]
    named = found.get("seeds")  # of a variability it is a table
    seeds = named if isinstance(named, list) else [found.get("seed", config.seed)]
    return (
        f"Commit `{environment['commit']}`, config `configs/{name}.yaml`, model `{config.model}`, "
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}, test split, {environment['processor']}, "
        f"{environment['cores']} cores, {environment['accelerator'] or 'no GPU'}, torch {environment['torch']}."
    )


def main() -> int:
    """Publish, or say in one line why not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="finished run directory")
    parser.add_argument("name", help="name of the results, e.g. small")
    parser.add_argument("sections", nargs="+", choices=SECTIONS, help="what to publish")
    parser.add_argument("--seeds", nargs="+", type=Path, default=[], help="runs with further seeds", metavar="RUN")
    arguments = parser.parse_args()
    seeds = [RunDirectory(path) for path in arguments.seeds]
    try:
        _check_seeds([RunDirectory(arguments.run), *seeds], arguments.sections)
        for section in arguments.sections:
            publish(RunDirectory(arguments.run), arguments.name, section, ROOT, seeds=seeds)
    except (AlignXError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
