"""One short Stage 1 training of the embedded model in a process of its own; prints what it took as JSON.

python train_once.py MICRO_BATCH_TOKENS PRECISION
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from alignx.config import AxisConfig, Stage1Config
from alignx.data.sources import load_axis
from alignx.models.load import load_base
from alignx.stage1.schedule import TrainingJob, training_steps
from alignx.stage1.train import train_adapter


def main(micro_batch_tokens: int, precision: str) -> None:
    """Train on as many of the sample's Alpaca rows as make one full pass and a bit."""
    examples = load_axis("helpful", AxisConfig(dataset="alpaca", source="sample"), data_dir=None, seed=0).examples
    base = load_base("smollm2-135m")
    loading = peak()
    settings = Stage1Config(
        micro_batch_tokens=micro_batch_tokens,
        max_tokens=min(512, micro_batch_tokens),
        precision=precision,  # type: ignore[arg-type]
        batch_size=1000,
    )
    count = 1
    while training_steps(job(examples[:count]), base.template, settings)[0].n_tokens < 1.1 * micro_batch_tokens:
        count += 1
    chosen = job(examples[:count])
    targets = training_steps(chosen, base.template, settings)[0].n_targets
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        summary = train_adapter(base, chosen, settings, Path(folder) / "adapter", extra={})
    document = {
        "loading": loading,
        "peak": peak(),
        "tokens": summary.tokens,
        "targets": targets,
        "cpu_seconds": time.process_time() - started,
        "threads": torch.get_num_threads(),
    }
    sys.stdout.write(json.dumps(document) + "\n")


def job(examples: list) -> TrainingJob:
    """One pass over examples, not injected."""
    return TrainingJob("helpful", examples, {}, 0.0, 1e-3, 1, 0)


def peak() -> int:
    """Most bytes of memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
