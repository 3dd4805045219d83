"""Publish what `alignx ablate`, `tradeoff`, `probe`, `cost`, `variability` and judges of a run found, in RESULTS.md.

python scripts/publish_sections.py runs/small-0 small ablations dial judged
python scripts/publish_sections.py runs/small-0 small probe --seeds runs/small-1 runs/small-2

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
from alignx.evaluate.tradeoff.pipeline import pooled_path, read_tradeoff
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
    """How a section is made: its figures of a run (none where there are none), what shows them, and the command."""

    read: Callable[[RunDirectory], Mapping[str, Any] | None]
    show: Callable[[Any], Section | None]
    command: str


def _ablations(run: RunDirectory) -> Mapping[str, Any] | None:
    folder = run.evaluation_folder(ABLATE)
    found = [folder / name for name in ("pooled.json", "metrics.json") if (folder / name).is_file()]
    return read_json(found[0]) if found else None


def _dial(run: RunDirectory) -> Mapping[str, Any] | None:
    """Over all seeds, where there are several; only what the run's mixture has made."""
    alone, pooled = read_tradeoff(run), pooled_path(run)
    return read_json(pooled) if alone is not None and pooled.is_file() else alone


def _judged(run: RunDirectory) -> Mapping[str, Any] | None:
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
    "dial": _Published(_dial, tradeoff_section, "alignx tradeoff RUN ..."),
    "probe": _Published(read_probe, probe_section, "alignx probe RUN --answers 10"),
    "judged": _Published(_judged, _judged_section, "alignx evaluate RUN --judges trained"),
    "cost": _Published(read_cost, cost_section, "alignx cost RUN"),
    "variability": _Published(read_variability, variability_section, "alignx variability RUN"),
}


def publish(run: RunDirectory, name: str, section: str, root: Path, *, seeds: Sequence[RunDirectory] = ()) -> None:
    """Write one section's figures and its part of RESULTS.md under `root`.

    Args:
        run: whose section it is.
        name: of the results.
        section: of `SECTIONS`.
        root: of the repository.
        seeds: further seeds of a probe, whose headline figures stand beside the run's own.

    Raises:
        AlignXError: the run cannot be read, or has nothing for the section.
        ValueError: RESULTS.md has no such part.
    """
    published, config = SECTIONS[section], run.read_config()
    if seeds and section != "probe":
        raise ArtifactError(
            f"--seeds is for `probe`; `{section}` shows several seeds where `{published.command}` had them"
        )
    found = published.read(run)
    shown = published.show(found) if found else None
    if found is None or shown is None:
        raise ArtifactError(f"{run.root}: nothing to publish as `{section}`; run `{published.command}` first")
    if seeds:
        probes = [found, *(_probed(one) for one in seeds)]
        shown = replace(shown, blocks=[probe_by_seed_table(probes), *shown.blocks])
        found = {**found, "further_seeds": probes[1:]}
    results = root / "RESULTS.md"
    body = "\n\n".join([_facts(config, found, name), *section_blocks(shown)[1:]])
    text = with_part(results, f"{name}-{section}", body)
    write_json(root / "results" / f"{name}.{section}.json", found)
    write_text(results, text)


def _probed(run: RunDirectory) -> Mapping[str, Any]:
    found = read_probe(run)
    if found is None:
        raise ArtifactError(f"{run.root}: not probed; run `alignx probe {run.root}` first")
    return found


def _facts(config: RunConfig, found: Mapping[str, Any], name: str) -> str:
    environment = found["environment"]
    seeds = found.get("seeds") or [found.get("seed", config.seed)]
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
    parser.add_argument("--seeds", nargs="+", type=Path, default=[], help="further seeds of a probe", metavar="RUN")
    arguments = parser.parse_args()
    seeds = [RunDirectory(path) for path in arguments.seeds]
    try:
        for section in arguments.sections:
            publish(RunDirectory(arguments.run), arguments.name, section, ROOT, seeds=seeds)
    except (AlignXError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
