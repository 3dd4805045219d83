"""Trains one expert many times, each killed at another change of the file system, then run again to the end.

    python killed.py WORK MODEL DATA STRIDE

Every training is a fork of this process, so that libraries are loaded once. The killed ones end by SIGKILL before or
after one call of `os.replace`, `os.unlink` or `os.rmdir`; what a rerun wrote is in WORK/<number of that call>.
WORK/undisturbed is a run that nothing happened to.
"""

import json
import os
import signal
import sys
from pathlib import Path

import accelerate  # noqa: F401  (loaded before the forks)
import peft  # noqa: F401
import torch
import transformers  # noqa: F401

from alignx import one_axis
from alignx.config import AxisConfig

CALLS = ("replace", "unlink", "rmdir")
SETTINGS = {"rank": 2, "alpha": 4, "batch_size": 4, "precision": "float32", "max_tokens": 96, "latent_size": 8}


def train(out: Path, model: str, data: str) -> None:
    splits = {"train": 16, "mix": 8, "calibration": 8, "test": 8}
    axis = AxisConfig.model_validate({"dataset": "alpaca", "source": data, "splits": splits})
    settings = {**SETTINGS, "epochs": 2, "learning_rate": 1e-2, "checkpoint_steps": 2}
    one_axis.add_axis(out, model=model, axis="helpful", data=axis, settings=settings, finish=True)


def die_at(number: int) -> list[int]:
    """Count changes of the file system, and die at the one of this number: even ones undone, odd ones done."""
    count = [0]

    def counted(call):
        def wrapper(*arguments, **options):
            count[0] += 1
            if count[0] == number and number % 2 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return call(*arguments, **options)
            finally:
                if count[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        return wrapper

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    return count


def forked(work) -> int:
    """Run in a fork; returns its exit status."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    work, model, data, stride = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    torch.set_num_threads(1)

    def undisturbed() -> None:
        count = die_at(0)
        train(work / "undisturbed", model, data)
        (work / "count.json").write_text(json.dumps(count[0]))

    assert forked(undisturbed) == 0
    changes = json.loads((work / "count.json").read_text())
    for number in range(1, changes + 1, stride):

        def killed(number: int = number) -> None:
            die_at(number)
            train(work / str(number), model, data)

        def again(number: int = number) -> None:
            sys.stderr.write(f"rerun of {number}\n")
            sys.stderr.flush()
            train(work / str(number), model, data)

        assert forked(killed) == -signal.SIGKILL, number
        assert forked(again) == 0, number


main()
