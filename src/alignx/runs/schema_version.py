"""The layout that artifacts are written in, and what to do about another one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignx.errors import ArtifactError

# Raised when files written before could no longer be read as what they are. Files without a number are of version 1.
SCHEMA_VERSION = 1


class SchemaVersionError(ArtifactError):
    """An artifact of another layout; not damaged, so never to be overwritten."""


def check_schema_version(document: Mapping[str, Any], path: Path) -> None:
    """Refuse a document of another layout.

    Raises:
        SchemaVersionError: it is of a newer or an older version, or its version is no whole number.
    """
    version = document.get("schema_version", 1)
    if not isinstance(version, int) or isinstance(version, bool):
        raise SchemaVersionError(
            f"{path}: schema_version {version!r:.40} is not a whole number; mend it, or use another --out"
        )
    if version > SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{path}: schema version {version}, written by a newer AlignX (this one reads {SCHEMA_VERSION}); upgrade "
            "with `pip install --upgrade alignx`, or use another --out"
        )
    if version < SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{path}: schema version {version}, written by an older AlignX (this one reads {SCHEMA_VERSION}); use the "
            "version that made it, or run its config again into another --out"
        )
