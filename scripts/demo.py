"""Run configs/demo.yaml into runs/demo and say what it took; `make demo` calls this."""

import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the command as a user would; its time and its largest resident memory end the output."""
    started = time.monotonic()
    command = [sys.executable, "-m", "alignx", "run", "configs/demo.yaml", "--out", "runs/demo"]
    code = subprocess.run(command, cwd=ROOT).returncode
    if code == 0:
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(f"demo_seconds={time.monotonic() - started:.0f} peak_gb={peak / 1e9:.2f}")  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
