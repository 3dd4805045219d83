"""The published script's name for `alignx stage2`."""

import sys

from alignx.cli import main

main(["stage2", *sys.argv[1:]])
