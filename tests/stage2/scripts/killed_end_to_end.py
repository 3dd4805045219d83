"""Runs the end-to-end step many times, each killed at another change of the file system, then run again to the end.

    python killed_end_to_end.py WORK RUN CONFIG STRIDE

RUN is a finished run directory and CONFIG its config as json; every run is a fork on a copy without its mixture. The
killed ones end by SIGKILL before or after one call of `os.replace`, `os.unlink` or `os.rmdir`; what a rerun wrote is in
WORK/<number of that call>, and WORK/undisturbed is a run that nothing happened to.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import torch
import transformers  # noqa: F401  (loaded before the forks)

from alignx.config import RunConfig
from alignx.runs import RunDirectory
from alignx.stage2 import fit
from alignx.stage2.pipeline import run_stage2

CALLS = ("replace", "unlink", "rmdir")


def train(out: Path, config: RunConfig) -> None:
    run_stage2(config, RunDirectory(out))


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
    work, run, stride = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[4])
    config = RunConfig.model_validate_json(Path(sys.argv[3]).read_text())
    torch.set_num_threads(1)
    fit.choose_l2 = lambda *arguments: 0.1  # choosing it takes most of the time

    def copy(name: str) -> Path:
        shutil.copytree(run, work / name)
        for path in ("steps/mocae.json", "stage2/mocae.json", "stage2/mocae.safetensors"):
            (work / name / path).unlink()
        return work / name

    def undisturbed() -> None:
        out = copy("undisturbed")
        count = die_at(0)
        train(out, config)
        (work / "count.json").write_text(json.dumps(count[0]))

    assert forked(undisturbed) == 0
    changes = json.loads((work / "count.json").read_text())
    for number in range(1, changes + 1, stride):

        def killed(number: int = number) -> None:
            out = copy(str(number))
            die_at(number)
            train(out, config)

        def again(number: int = number) -> None:
            train(work / str(number), config)

        assert forked(killed) == -signal.SIGKILL, number
        sys.stderr.write(f"rerun of {number}\n")
        sys.stderr.flush()
        assert forked(again) == 0, number


main()
