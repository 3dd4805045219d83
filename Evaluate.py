"""The published script's name for `alignx evaluate`."""

import sys

from alignx.cli import main

main(["evaluate", *sys.argv[1:]])
