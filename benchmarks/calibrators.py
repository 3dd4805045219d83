"""How both calibrators grow with the number of anchors: seconds to fit and to score, and memory.

    python benchmarks/calibrators.py [--json FILE] [--image FILE.svg]

Every size runs in a process of its own, which starts with random anchors of 256 numbers in three clusters and scores
1,000 prompts. Times are medians over the repeats; memory is the peak above what the process held with the anchors made.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

SIZES = (6_250, 12_500, 25_000, 50_000)
WIDTH, AXES, PROMPTS = 256, 3, 1_000


def main() -> None:
    """Measure every size, print the table, write figures and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--image", type=Path, help="draw the growth curves here")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--anchors", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.anchors:
        print(json.dumps(measure(options.anchors, options.repeats)))
        return
    rows = [_in_a_process(size, options.repeats) for size in SIZES]
    print(f"{'anchors':>8} {'fit, s':>8} {'score 1,000, s':>15} {'peak, MB':>9}")
    for row in rows:
        print(f"{row['anchors']:>8} {row['fit_seconds']:>8.2f} {row['score_seconds']:>15.2f} {row['peak_mb']:>9.0f}")
    growth = (rows[-1]["peak_mb"] / rows[0]["peak_mb"]) / (SIZES[-1] / SIZES[0])
    figures = {
        "fit_seconds_50k": rows[-1]["fit_seconds"],
        "score_seconds_50k": rows[-1]["score_seconds"],
        "memory_growth_per_anchor_growth": growth,
    }
    for name, value in figures.items():
        print(f"{name} = {value:.3f}")
    if options.json:
        options.json.write_text(json.dumps({**figures, "rows": rows}, indent=2) + "\n")
    if options.image:
        draw(rows, options.image)


def measure(n_anchors: int, repeats: int) -> dict[str, Any]:
    """Fit and score at one size, in this process."""
    import torch

    from alignx.stage2.fractal import FractalCalibrator
    from alignx.stage2.natural import NaturalCalibrator

    generator = torch.Generator().manual_seed(0)
    axis_ids = torch.arange(n_anchors) % AXES
    centres = torch.randn(AXES, WIDTH, generator=generator)
    anchors = centres[axis_ids] + torch.randn(n_anchors, WIDTH, generator=generator)
    prompts = torch.randn(PROMPTS, WIDTH, generator=generator)
    before = _peak_mb()
    fits, scores = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        fractal = FractalCalibrator.fit(anchors, axis_ids, AXES)
        natural = NaturalCalibrator.fit(anchors, axis_ids, AXES)
        fits.append(time.perf_counter() - started)
        started = time.perf_counter()
        found = fractal.scores(prompts) + natural.scores(prompts)
        scores.append(time.perf_counter() - started)
        if not bool(found.isfinite().all()):
            raise SystemExit("a score is not finite")
    return {
        "anchors": n_anchors,
        "fit_seconds": median(fits),
        "score_seconds": median(scores),
        "peak_mb": _peak_mb() - before,
    }


def _in_a_process(n_anchors: int, repeats: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--anchors", str(n_anchors), "--repeats", str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{n_anchors} anchors failed:\n{done.stderr[-3000:]}")
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def draw(rows: list[dict[str, Any]], image: Path) -> None:
    """Growth curves on doubly logarithmic axes: a slope of one is growth in step with the anchors."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    anchors = [row["anchors"] for row in rows]
    figure, panels = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
    for panel, key, title in zip(
        panels,
        ("fit_seconds", "score_seconds", "peak_mb"),
        ("fit, seconds", "score 1,000 prompts, seconds", "peak memory, MB"),
        strict=True,
    ):
        values = [row[key] for row in rows]
        panel.loglog(anchors, values, marker="o", label="measured")
        panel.loglog(anchors, [values[0] * n / anchors[0] for n in anchors], ls=":", color="gray", label="slope 1")
        panel.set_xticks(anchors, [f"{n:,}" for n in anchors], rotation=30)
        panel.minorticks_off()
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("anchors")
    panels[0].legend(fontsize=8)
    figure.savefig(image)


if __name__ == "__main__":
    main()
