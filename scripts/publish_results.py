"""Publish finished runs, one a seed: results/NAME.json, results/NAME.prompts.jsonl and their tables in RESULTS.md.

python scripts/publish_results.py runs/small-0 runs/small-1 runs/small-2 small

Every figure is over all seeds, its interval clustered by prompt; each seed's own stand beside it. Methods that only
some runs have (`alignx evaluate RUN --comparators ...`) have tables of their own.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignx.errors import AlignXError
from alignx.evaluate.pooled import pool, read_seeds
from alignx.report.markdown import table_block, with_part
from alignx.report.pooled import by_seed_table, calibration_by_seed_table, calibration_versus_table, partial_tables
from alignx.report.summary import takeaways
from alignx.report.tables import (
    calibration_table,
    likelihood_table,
    loss_table,
    versus_table,
)
from alignx.runs import RunDirectory
from alignx.runs.files import write_json, write_jsonl, write_text

ROOT = Path(__file__).resolve().parent.parent


def publish(runs: list[Path], name: str, root: Path) -> None:
    """Write the figures under `root`, and the part of its RESULTS.md between the markers of that name.

    Raises:
        AlignXError: a run that cannot be read, or runs that do not belong together.
        ValueError: RESULTS.md has no such part.
    """
    seeds = read_seeds([RunDirectory(run) for run in runs])
    pooled = pool(seeds)
    results = root / "RESULTS.md"
    text = with_part(results, name, _block(pooled, name))
    write_json(root / "results" / f"{name}.json", pooled)
    write_jsonl(root / "results" / f"{name}.prompts.jsonl", [row for seed in seeds for row in seed.rows])
    write_text(results, text)


def _block(pooled: Mapping[str, Any], name: str) -> str:
    tables = [
        loss_table(pooled),
        versus_table(pooled),
        by_seed_table(pooled),
        *partial_tables(pooled),
        calibration_table(pooled),
        calibration_versus_table(pooled),
        calibration_by_seed_table(pooled),
        likelihood_table(pooled),
    ]
    summary = "\n".join(f"- {line}" for line in takeaways(pooled))
    return "\n\n".join([_facts(pooled, name), summary, *(table_block(table).strip() for table in tables)])


def _facts(pooled: Mapping[str, Any], name: str) -> str:
    environment, n = pooled["environment"], pooled["n"]
    commits = ", ".join(f"`{commit}`" for commit in pooled["commits"])
    counted = ", ".join(
        f"{axis} {n[axis]} ({distinct} distinct)" for axis, distinct in pooled["distinct_prompts"].items()
    )
    return (
        f"Commit {commits}, config `configs/{name}.yaml`, model `{pooled['model']}`, "
        f"seeds {', '.join(map(str, pooled['seeds']))}, judge `{pooled['judge']}` (prompt style "
        f"`{pooled['prompt_style']}`, scored in {pooled['precision']}), {environment['processor']}, "
        f"{environment['cores']} cores, {environment['accelerator'] or 'no GPU'}, torch {environment['torch']}, "
        f"transformers {environment['transformers']}, peft {environment['peft']}. Split: {pooled['split']}; n, test "
        f"prompts of all seeds together: {counted}, average {n['average']}. A prompt that is a test prompt of several "
        "seeds is one cluster of the intervals."
    )


def main() -> int:
    """Publish, or say in one line why not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="finished run directories, one a seed")
    parser.add_argument("name", help="name of the results, e.g. small")
    arguments = parser.parse_args()
    try:
        publish(arguments.runs, arguments.name, ROOT)
    except (AlignXError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
