"""`python -m alignx`."""

from alignx.cli import main

main()
