"""How far small judges trained here agree with labels of prompts that they have not seen.

    python benchmarks/judges.py --data-dir DATA --json results/judges.json

DATA is a folder with the published files (docs/data.md). Trains one judge of each kind on the embedded model, on
all answers of its file (moderation also on instruction data whose answers are taken as safe), and prints accuracy, AUC
and calibration on held-out prompts, with 95% intervals over prompts.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignx.errors import AlignXError
from alignx.evaluate.trained.train import TrainingOptions, train_judge
from alignx.runs.environment import processor_name

FILES = {
    "moderation": "beavertails/30k_test.jsonl.gz",
    "truth": "truthfulqa/finetune_truth.jsonl.gz",
    "info": "truthfulqa/finetune_info.jsonl.gz",
}
ASSUMED_SAFE = ("alpaca/alpaca_data_random.json.gz", "beavertails/safety_only_data_Instructions.json")


def measure(kind: str, data: Path, out: Path, options: TrainingOptions) -> dict[str, Any]:
    """Train one judge and return its figures."""
    started, cpu = time.perf_counter(), time.process_time()
    if kind == "moderation":
        options = replace(options, assume_safe=tuple(data / name for name in ASSUMED_SAFE))
    artifact = train_judge(kind, [data / FILES[kind]], out / kind, options)
    return {
        "judge": artifact.identity,
        "data": FILES[kind],
        "training": artifact.record["training"],
        "reading": artifact.record["reading"],
        "held_out": artifact.held_out,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with the published files")
    parser.add_argument("--kinds", default=",".join(FILES), help="with commas between")
    parser.add_argument("--limit", type=int, default=20_000, help="most answers of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, default=Path("judges"), help="where the judges are kept")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    options = TrainingOptions(model=given.model, limit=given.limit, seed=given.seed)
    found: dict[str, Any] = {"processor": processor_name(), "cores": os.cpu_count(), "model": given.model, "judges": {}}
    unknown = set(given.kinds.split(",")) - FILES.keys()
    if unknown:
        parser.error(f"--kinds {given.kinds}: unknown {', '.join(sorted(unknown))}; give some of {', '.join(FILES)}")
    for kind in given.kinds.split(","):
        try:
            figures = measure(kind, given.data_dir, given.out, options)
        except AlignXError as error:
            parser.error(str(error))
        found["judges"][kind] = figures
        held = figures["held_out"]
        print(
            f"{kind}: AUC {held['auc']:.3f} [{held['auc_interval'][0]:.3f}, {held['auc_interval'][1]:.3f}], accuracy "
            f"{held['accuracy']:.3f} [{held['accuracy_interval'][0]:.3f}, {held['accuracy_interval'][1]:.3f}], ECE "
            f"{held['ece']:.3f} ({held['ece_by_chance']:.3f} by chance), Brier {held['brier']:.3f}; {held['n']} "
            f"answers to {held['n_prompts']} held-out prompts; {figures['cpu_seconds']:.0f} processor seconds"
        )
        if "assumed" in held:
            safe = held["assumed"]
            low, high = (1 - end for end in reversed(safe["accuracy_interval"]))
            print(
                f"  false alarms on {safe['n']} held-out answers that are taken as safe: {1 - safe['accuracy']:.3f} "
                f"[{low:.3f}, {high:.3f}]"
            )
        if given.json:
            given.json.parent.mkdir(parents=True, exist_ok=True)
            given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
