"""The run directory: all artifacts of one alignment, written whole or not at all."""

from alignx.runs.directory import RunDirectory

__all__ = ["RunDirectory"]
