"""What Stage 1's defaults rest on: the share of injected examples, and the shared expert at equal total budget.

    python benchmarks/training_choices.py --data-dir DATA [--work runs/choices] [--json FILE]

On the data and splits of `configs/small.yaml`. Everything is chosen on the mix split of seed 0 and reported on test
splits, in the format used at inference: the share on seed 0, the shared expert on three seeds. A budget of two passes
over all training prompts is spent as

    joint        one LoRA on all axes, up to two passes, no injection
    own          one expert an axis alone, up to two passes
    shared-own   one pass of a LoRA on all axes, then one pass of an expert an axis on top of it

Each arrangement has its own best learning rate and number of passes. A rate at the edge of those tried is halved or
doubled until that no longer helps. Work that is done is kept under `--work` and not done again; two trainings run
side by side.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

SEEDS = (0, 1, 2)
RATES = (5e-4, 1e-3)
INJECTION = (0.0, 0.5, 1.0)
AXES = ("helpful", "harmless", "honest")
WORKERS = 2


@dataclass(frozen=True)
class Training:
    """One adapter: on `axes` together, `below` folded into the base first."""

    seed: int
    axes: tuple[str, ...]
    learning_rate: float
    epochs: int
    injection_rate: float = 0.0
    below: str = ""

    @property
    def key(self) -> str:
        """Name of its folder."""
        parts = [f"s{self.seed}", "+".join(self.axes), f"{self.learning_rate:g}", f"x{self.epochs}"]
        return "_".join([*parts, f"i{self.injection_rate:g}", *([f"on-{self.below}"] if self.below else [])])


@dataclass(frozen=True)
class Arrangement:
    """How the budget is spent; `train` gives the adapters that answer for each axis."""

    name: str
    learning_rate: float
    epochs: int
    injection_rate: float

    def train(self, seed: int, shared_rate: float) -> list[Training]:
        """The trainings that carry the losses, one for all axes or one an axis."""
        if self.name == "joint":
            return [Training(seed, AXES, self.learning_rate, self.epochs)]
        below = shared(seed, shared_rate).key if self.name == "shared-own" else ""
        return [Training(seed, (axis,), self.learning_rate, self.epochs, self.injection_rate, below) for axis in AXES]


def shared(seed: int, rate: float) -> Training:
    """The shared expert: a joint LoRA of one pass."""
    return Training(seed, AXES, rate, 1)


class Study:
    """Trains and scores what is asked for, once.

    Args:
        work: where adapters and losses are kept.
        data_dir: the real files.
    """

    def __init__(self, work: Path, data_dir: Path) -> None:
        self.work = work
        self.data_dir = data_dir

    def losses(
        self, arrangements: list[Arrangement], seeds: Sequence[int], split: str, rate: float
    ) -> list[list[dict[str, float]]]:
        """Prompt -> loss on a split, for each arrangement and seed."""
        needed = [
            training for seed in seeds for arrangement in arrangements for training in arrangement.train(seed, rate)
        ]
        below = [(shared(seed, rate), "mix") for seed in seeds if any(training.below for training in needed)]
        # What others build on comes first, and what builds on nothing keeps the second process busy meanwhile.
        self._do([*below, *((training, split) for training in needed if not training.below)])
        self._do([(training, split) for training in needed])
        return [
            [
                {
                    prompt: loss
                    for training in arrangement.train(seed, rate)
                    for prompt, loss in json.loads(self._path(training, split).read_text()).items()
                }
                for seed in seeds
            ]
            for arrangement in arrangements
        ]

    def _path(self, training: Training, split: str) -> Path:
        return self.work / training.key / f"{split}.json"

    def _do(self, jobs: list[tuple[Training, str]]) -> None:
        todo = [job for job in dict.fromkeys(jobs) if not self._path(*job).is_file()]
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(self._in_a_process, todo))

    def _in_a_process(self, job: tuple[Training, str]) -> None:
        training, split = job
        command = [sys.executable, __file__, "--data-dir", str(self.data_dir), "--work", str(self.work)]
        command += ["--job", json.dumps({"training": asdict(training), "split": split})]
        threads = max(1, (os.cpu_count() or 1) // WORKERS)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        print(f"{training.key}: {split}", file=sys.stderr, flush=True)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{training.key} failed:\n{done.stderr[-3000:]}")


def do_job(job: dict[str, Any], work: Path, data_dir: Path) -> None:
    """Train the adapter unless it is there, then score one split of its axes."""
    from contextlib import nullcontext

    from alignx.config import load_config
    from alignx.data.prepare import prepare_axes
    from alignx.models.fold import folded
    from alignx.models.load import load_base
    from alignx.runs.files import write_json
    from alignx.stage1.experts import axis_instruction, dense_updates
    from alignx.stage1.schedule import TrainingJob
    from alignx.stage1.task_vector import read_task_vector
    from alignx.stage1.train import train_adapter

    training = Training(**{**job["training"], "axes": tuple(job["training"]["axes"])})
    config = load_config(Path(__file__).parents[1] / "configs" / "small.yaml")
    config = config.model_copy(update={"seed": training.seed})
    splits = {axis: prepared.splits for axis, prepared in prepare_axes(config, data_dir=data_dir).items()}
    base = load_base(config.model)
    folder = work / training.key / "adapter"
    below = dense_updates(read_task_vector(work / training.below / "adapter")) if training.below else {}
    with folded(base.model, below) if below else nullcontext():
        if not (folder / "adapter_model.safetensors").is_file():
            examples = [example for axis in training.axes for example in splits[axis].train]
            instructions = {axis: axis_instruction(config, axis) for axis in training.axes}
            spec = TrainingJob(
                training.key,
                examples,
                instructions if training.injection_rate else {},
                training.injection_rate,
                training.learning_rate,
                training.epochs,
                training.seed,
            )
            train_adapter(base, spec, config.stage1, folder, extra={})
        with folded(base.model, dense_updates(read_task_vector(folder))):
            found = {axis: _losses(config, base, splits[axis][job["split"]], job["split"]) for axis in training.axes}
    write_json(work / training.key / f"{job['split']}.json", {key: n for by in found.values() for key, n in by.items()})


def _losses(config: Any, base: Any, examples: Any, split: str) -> dict[str, float]:
    """`axis:prompt hash` -> mean nats a target token, in the precision that training used."""
    from alignx.models.scoring import answer_log_probs
    from alignx.stage2.pipeline import target_items

    items = target_items(base, examples, config.evaluate.max_tokens)
    scores = answer_log_probs(base, items, precision="auto")
    return {
        f"{example.axis}:{example.prompt_hash}": -score[0] / len(item.answers[0])
        for example, item, score in zip(examples, items, scores, strict=True)
    }


def choose(
    study: Study, candidates: list[Arrangement], rate: float
) -> tuple[dict[str, Arrangement], dict[str, list[dict[str, Any]]]]:
    """Each arrangement's best learning rate and passes on the mix split of seed 0."""
    tried: dict[Arrangement, float] = {}
    while candidates:
        found = study.losses(candidates, [0], "mix", rate)
        tried.update(
            (candidate, axis_average(by_seed[0])) for candidate, by_seed in zip(candidates, found, strict=True)
        )
        best = {
            name: min((candidate for candidate in tried if candidate.name == name), key=lambda one: tried[one])
            for name in dict.fromkeys(candidate.name for candidate in tried)
        }
        candidates = [
            replace(one, learning_rate=factor * one.learning_rate) for one in best.values() for factor in (0.5, 2.0)
        ]
        candidates = [one for one in candidates if _lies_outside(one, tried)]
    listed = {
        name: [{**asdict(one), "mix_loss": loss} for one, loss in tried.items() if one.name == name] for name in best
    }
    return best, listed


def _lies_outside(candidate: Arrangement, tried: dict[Arrangement, float]) -> bool:
    """Whether a rate is below or above all that were tried of its arrangement."""
    rates = [one.learning_rate for one in tried if one.name == candidate.name]
    return not min(rates) <= candidate.learning_rate <= max(rates)


def first_candidates(share: float) -> list[Arrangement]:
    """Where the search starts; one pass at the lower rate is left out, which trains too little."""
    pairs = [(RATES[-1], 1), *((rate, 2) for rate in RATES)]
    return [
        *(Arrangement("joint", rate, epochs, 0.0) for rate, epochs in pairs),
        *(Arrangement("own", rate, epochs, share) for rate, epochs in pairs),
        *(Arrangement("shared-own", rate, 1, share) for rate in RATES),
    ]


def axis_average(losses: dict[str, float]) -> float:
    """Mean over axes of the mean over prompts."""
    by_axis: dict[str, list[float]] = {}
    for prompt, loss in losses.items():
        by_axis.setdefault(prompt.split(":")[0], []).append(loss)
    return sum(sum(found) / len(found) for found in by_axis.values()) / len(by_axis)


def difference(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> dict[str, Any]:
    """Paired relative difference in per cent, averaged over axes and seeds; bootstrap over an axis's prompts.

    Prompts that several seeds test are drawn together: intervals are clustered by prompt.
    """
    import numpy as np

    rows: dict[str, list[tuple[float, float]]] = {}
    for found, other in zip(ours, theirs, strict=True):
        for prompt, loss in found.items():
            rows.setdefault(prompt, []).append((loss, other[prompt]))
    by_axis = {axis: [found for prompt, found in rows.items() if prompt.startswith(axis)] for axis in AXES}
    sums = {axis: np.array([np.sum(found, axis=0) for found in by_axis[axis]]) for axis in AXES}
    counts = {axis: np.array([len(found) for found in by_axis[axis]]) for axis in AXES}
    generator = np.random.default_rng(0)

    def per_cent(chosen: dict[str, Any]) -> dict[str, float]:
        means = {axis: sums[axis][chosen[axis]].sum(axis=0) / counts[axis][chosen[axis]].sum() for axis in AXES}
        means["average"] = np.mean([means[axis] for axis in AXES], axis=0)
        return {name: 100 * float(pair[0] / pair[1] - 1) for name, pair in means.items()}

    whole = per_cent({axis: np.arange(len(counts[axis])) for axis in AXES})
    draws = [
        per_cent({axis: generator.integers(0, len(counts[axis]), len(counts[axis])) for axis in AXES})
        for _ in range(2000)
    ]
    return {
        name: {
            "per_cent": round(value, 3),
            "interval": [round(float(np.percentile([draw[name] for draw in draws], q)), 3) for q in (2.5, 97.5)],
        }
        for name, value in whole.items()
    }


def main() -> None:
    """Choose on seed 0, measure on all seeds, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the real files (docs/data.md)")
    parser.add_argument("--work", type=Path, default=Path("runs/choices"))
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        do_job(json.loads(options.job), options.work, options.data_dir)
        return
    study = Study(options.work, options.data_dir)
    rate = RATES[-1]
    injected = [Arrangement("shared-own", rate, 1, share) for share in INJECTION]
    found = study.losses(injected, [0], "mix", rate)
    by_share = {share: axis_average(by_seed[0]) for share, by_seed in zip(INJECTION, found, strict=True)}
    share = min(by_share, key=lambda one: by_share[one])
    print(f"injection: mix loss {by_share}; best {share}", flush=True)
    best, tried = choose(study, first_candidates(share), rate)
    print(f"chosen: {best}", flush=True)
    tested = dict(zip(best, study.losses(list(best.values()), SEEDS, "test", rate), strict=True))
    variants = [replace(best["shared-own"], injection_rate=candidate) for candidate in INJECTION]
    shares = dict(zip(INJECTION, study.losses(variants, [0], "test", rate), strict=True))
    from alignx.runs.environment import describe_environment

    figures = {
        "injection_mix_loss": {str(candidate): loss for candidate, loss in by_share.items()},
        "injection_rate_chosen": share,
        "chosen": {name: asdict(arrangement) for name, arrangement in best.items()},
        "tried": tried,
        "n": {axis: sum(prompt.startswith(axis) for prompt in tested["joint"][0]) for axis in AXES},
        "seeds": list(SEEDS),
        "test_loss": {name: [axis_average(losses) for losses in by_seed] for name, by_seed in tested.items()},
        "test_loss_by_axis": {
            name: {
                axis: [axis_average({k: n for k, n in losses.items() if k.startswith(axis)}) for losses in by_seed]
                for axis in AXES
            }
            for name, by_seed in tested.items()
        },
        "test_loss_by_injection_rate": {
            str(candidate): axis_average(by_seed[0]) for candidate, by_seed in shares.items()
        },
        "shared-own_against": {name: difference(tested["shared-own"], tested[name]) for name in ("joint", "own")},
        "injection_against_0": {
            str(candidate): difference(shares[candidate], shares[0.0]) for candidate in INJECTION if candidate
        },
        "environment": describe_environment(),
    }
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
