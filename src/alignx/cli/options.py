"""Option values that are more than a word or a number."""

import math

from alignx.config import SplitSizes
from alignx.data.splits import SPLITS
from alignx.errors import ConfigError


def parse_pairs(option: str, pairs: list[str] | None) -> dict[str, float]:
    """Read `axis=number` pairs.

    Raises:
        ConfigError: not of that form, not a finite number, or an axis given twice.
    """
    values: dict[str, float] = {}
    for pair in pairs or []:
        axis, equals, number = pair.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not axis or not equals or not math.isfinite(value):
            raise ConfigError(f"{option} {pair}: expected AXIS=NUMBER, e.g. {option} harmless=0.5")
        if axis in values:
            raise ConfigError(f"{option} {pair}: `{axis}` is given twice; keep one of them")
        values[axis] = value
    return values


def parse_splits(text: str) -> SplitSizes:
    """Read `TRAIN,MIX,CALIBRATION,TEST`.

    Raises:
        ConfigError: not four whole numbers, or one too small.
    """
    try:
        return SplitSizes.model_validate(dict(zip(SPLITS, map(int, text.split(",")), strict=True)))
    except ValueError:
        raise ConfigError(
            f"--splits {text}: expected four whole numbers TRAIN,MIX,CALIBRATION,TEST (at least 3,1,2,1), e.g. "
            "72,24,24,36"
        ) from None


def parse_columns(text: str | None) -> dict[str, str]:
    """Read `field=column,field=column`.

    Raises:
        ConfigError: not of that form, or a field given twice.
    """
    columns: dict[str, str] = {}
    for pair in text.split(",") if text else []:
        field, equals, column = (part.strip() for part in pair.partition("="))
        if not field or not equals or not column:
            raise ConfigError(
                f"--columns {text}: expected FIELD=COLUMN,..., e.g. --columns prompt=question,response=answer"
            )
        if field in columns:
            raise ConfigError(f"--columns {text}: `{field}` is given twice; keep one of them")
        columns[field] = column
    return columns


def parse_names(option: str, text: str | None) -> list[str]:
    """Read `a,b,c`, each once; nothing when the option was not given.

    Raises:
        ConfigError: given, but empty.
    """
    if text is None:
        return []
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ConfigError(f"{option} {text!r}: expected names with commas between, e.g. {option} base,alignx")
    return names
