"""Settings: one frozen model per stage, YAML in, validated once."""

from alignx.config.files import load_config
from alignx.config.schema import (
    AxisConfig,
    Candidate,
    EndToEndConfig,
    EvaluateConfig,
    RunConfig,
    SplitSizes,
    Stage1Config,
    Stage2Config,
)

__all__ = [
    "AxisConfig",
    "Candidate",
    "EndToEndConfig",
    "EvaluateConfig",
    "RunConfig",
    "SplitSizes",
    "Stage1Config",
    "Stage2Config",
    "load_config",
]
