"""Settings: one frozen model per stage, YAML in, validated once."""

from alignx.config.axis import AxisConfig, MetricName, SourceConfig, SplitSizes
from alignx.config.files import load_config
from alignx.config.schema import (
    COMPARATOR_NAMES,
    MERGE_NAMES,
    Candidate,
    DialPreset,
    DialSetting,
    EndToEndConfig,
    EvaluateConfig,
    KeepConfig,
    MergeName,
    RunConfig,
    ShowcaseConfig,
    Stage1Config,
    Stage2Config,
)

__all__ = [
    "COMPARATOR_NAMES",
    "MERGE_NAMES",
    "AxisConfig",
    "Candidate",
    "DialPreset",
    "DialSetting",
    "EndToEndConfig",
    "EvaluateConfig",
    "KeepConfig",
    "MergeName",
    "MetricName",
    "RunConfig",
    "ShowcaseConfig",
    "SourceConfig",
    "SplitSizes",
    "Stage1Config",
    "Stage2Config",
    "load_config",
]
