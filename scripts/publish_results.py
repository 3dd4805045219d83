"""Publish a finished run: results/NAME.json, results/NAME.prompts.jsonl and its tables in RESULTS.md.

python scripts/publish_results.py runs/small small
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

from alignx.evaluate.pipeline import read_metrics
from alignx.report.markdown import table_block
from alignx.report.summary import takeaways
from alignx.report.tables import calibration_table, likelihood_table, loss_table, versus_table
from alignx.runs import RunDirectory

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Copy the figures and rewrite the part of RESULTS.md between the markers of that name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="finished run directory")
    parser.add_argument("name", help="name of the results, e.g. small")
    arguments = parser.parse_args()
    run = RunDirectory(arguments.run)
    metrics = read_metrics(run)
    folder = ROOT / "results"
    folder.mkdir(exist_ok=True)
    shutil.copyfile(run.evaluation_folder("test") / "metrics.json", folder / f"{arguments.name}.json")
    shutil.copyfile(run.evaluation_folder("test") / "prompts.jsonl", folder / f"{arguments.name}.prompts.jsonl")

    environment = metrics["environment"]
    facts = (
        f"Commit `{environment['commit'] or 'unknown'}`, config `configs/{arguments.name}.yaml`, model "
        f"`{metrics['model']}`, seed {metrics['seed']}, judge `{metrics['judge']}` (prompt style "
        f"`{metrics['prompt_style']}`, scored in {metrics['precision']}), {environment['processor']}, "
        f"{environment['cores']} cores, {environment['accelerator'] or 'no GPU'}, torch {environment['torch']}, "
        f"transformers {environment['transformers']}, peft {environment['peft']}. Split: test; n = "
        f"{', '.join(f'{axis} {n}' for axis, n in metrics['n'].items())}."
    )
    tables = (loss_table(metrics), versus_table(metrics), calibration_table(metrics), likelihood_table(metrics))
    summary = "\n".join(f"- {line}" for line in takeaways(metrics))
    block = "\n\n".join([facts, summary, *(table_block(table).strip() for table in tables)])
    path = ROOT / "RESULTS.md"
    begin, end = f"<!-- {arguments.name}: begin -->", f"<!-- {arguments.name}: end -->"
    text, replaced = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}",
        lambda _: f"{begin}\n\n{block}\n\n{end}",
        path.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    if replaced != 1:
        sys.stderr.write(f"error: RESULTS.md needs the lines `{begin}` and `{end}` once\n")
        return 2
    path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
