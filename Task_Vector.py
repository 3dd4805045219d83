"""The published script's name for `alignx stage1`."""

import sys

from alignx.cli import main

main(["stage1", *sys.argv[1:]])
