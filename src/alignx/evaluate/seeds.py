"""Runs that may be shown as one table: of one config, each with a seed of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignx.config import RunConfig
from alignx.errors import ConfigError


def check_poolable(configs: Sequence[RunConfig], roots: Sequence[Path], *, otherwise: str = "") -> None:
    """Refuse runs that differ in more than their seed (and with it their splits' salt).

    Args:
        configs: one a run.
        roots: their directories.
        otherwise: what to do with runs of other settings instead, for the message.

    Raises:
        ConfigError: two runs have one seed, or other settings.
    """
    seen: dict[int, Path] = {}
    first = _without_seed(configs[0])
    instead = f", or {otherwise}" if otherwise else ""
    for config, root in zip(configs, roots, strict=True):
        if config.seed in seen:
            raise ConfigError(
                f"{root}: has seed {config.seed}, as {seen[config.seed]}; give runs of different seeds{instead}"
            )
        seen[config.seed] = root
        if _without_seed(config) != first:
            raise ConfigError(
                f"{root}: its settings differ from those of {roots[0]} in more than the seed; give runs of one "
                f"config{instead}"
            )


def _without_seed(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude={"seed", "salt", "showcase"})
