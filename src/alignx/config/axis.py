"""One axis: its data (one set or several), the instruction it is taught with, and the figure it is judged by.

Everything here is checked before a file is opened: a column map that names no field, a figure the data cannot give,
a set that cannot be streamed.
"""

from difflib import get_close_matches
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from alignx.config.strict import StrictModel

DatasetName = Literal["alpaca", "beavertails", "truthfulqa", "pairs", "preference", "messages"]
MetricName = Literal["loss", "win_rate", "safe_preferred", "mc1", "mc2"]
ColumnName = Annotated[str, Field(min_length=1)]

# Fields of each schema, under the names the published files use; those in OPTIONAL_FIELDS may be absent.
SCHEMA_FIELDS: dict[str, tuple[str, ...]] = {
    "alpaca": ("instruction", "input", "output"),
    "beavertails": ("prompt", "response", "is_safe"),
    "truthfulqa": ("Question", "Best Answer", "Correct Answers", "Incorrect Answers"),
    "pairs": ("prompt", "response", "input", "label"),
    "preference": ("prompt", "chosen", "rejected"),
    "messages": ("messages",),
}
OPTIONAL_FIELDS: dict[str, tuple[str, ...]] = {"pairs": ("input", "label")}
# The figure that stands for an axis unless its `metric` names another.
DEFAULT_METRIC: dict[str, MetricName] = {
    "alpaca": "win_rate",
    "beavertails": "safe_preferred",
    "truthfulqa": "mc2",
    "pairs": "win_rate",
    "preference": "safe_preferred",
    "messages": "win_rate",
}
# Schemas with a published set that an empty `source` reads, and those with a sample in the package.
ON_THE_HUB = ("alpaca", "beavertails", "truthfulqa")
SAMPLES = ("alpaca", "beavertails", "truthfulqa", "pairs")


class SplitSizes(StrictModel):
    """Prompts a split; what is left over is not used."""

    train: int = Field(360, ge=1, description="experts, latent space, anchors, warm start of the router")
    mix: int = Field(65, ge=1, description="everything Stage 2 learns, and the joint LoRA's validation")
    calibration: int = Field(60, ge=2, description="scales, temperatures, p-values")
    test: int = Field(140, ge=1, description="never trains anything")


class SetConfig(StrictModel):
    """Where one set lies, how its columns are called and how much of it is read."""

    source: str = Field("", description="file (relative to --data-dir), `sample`, or a hub name; empty: the hub")
    mc_source: str = Field("", description="truthfulqa only: an mc_task.json; empty: the CSV's own columns")
    columns: dict[str, ColumnName] = Field({}, description="field of the schema -> the set's own column")
    max_examples: int | None = Field(None, ge=1, description="rows read, drawn by seed, before any filter")
    streaming: bool = Field(False, description="read rows one at a time: memory holds only what is kept")


class SourceConfig(SetConfig):
    """One of an axis's sets."""

    dataset: DatasetName = Field(description="schema of the set")
    weight: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="share of every split drawn from this set, over the weights' sum"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_set(self.dataset, self)
        return self


class AxisConfig(SetConfig):
    """One axis: whose data, which instruction, which figure."""

    dataset: DatasetName | None = Field(None, description="schema of the data, when it is one set")
    sources: tuple[SourceConfig, ...] = Field((), description="several sets, instead of the keys that describe one")
    instruction: str = Field("", description="injected axis instruction; empty: the built-in one of that name")
    metric: MetricName | None = Field(None, description="figure the axis is judged by; none: that of its first set")
    splits: SplitSizes = SplitSizes()

    @field_validator("sources")
    @classmethod
    def _weights_of_all_or_none(cls, sources: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
        if len({source.weight is None for source in sources}) > 1:
            raise ValueError("give every set a `weight`, or none (then every prompt of all sets is as likely)")
        return sources

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = next((name for name in ("dataset", *SetConfig.model_fields) if getattr(self, name)), None)
        if self.sources and given:
            raise ValueError(f"`{given}` and `sources` are both given; move `{given}` into the sets of `sources`")
        if not self.sources:
            if self.dataset is None:
                known = ", ".join(SCHEMA_FIELDS)
                raise ValueError(f"`dataset` is missing; give one of {known}, or several sets as `sources`")
            check_set(self.dataset, self)
        check_metric(self)
        return self

    @property
    def sets(self) -> tuple[SourceConfig, ...]:
        """The axis's sets, whether the config gives one or several."""
        if self.sources or self.dataset is None:
            return self.sources
        one = {name: getattr(self, name) for name in SetConfig.model_fields}
        return (SourceConfig(dataset=self.dataset, **one),)

    @property
    def judged_by(self) -> MetricName:
        """The figure that stands for the axis in the report."""
        return self.metric or DEFAULT_METRIC[self.sets[0].dataset]


def check_set(dataset: str, config: SetConfig) -> None:
    """Refuse what no file could make good.

    Raises:
        ValueError: a column map that names no field of the schema or one column twice; no source where there is no
            published set; no such sample; a set that cannot be streamed.
    """
    _check_columns(dataset, config.columns)
    source = config.source
    if not source and dataset not in ON_THE_HUB:
        raise ValueError(f"`source` is missing; the {dataset} schema is for your own data: give a file or a hub name")
    if source == "sample" and dataset not in SAMPLES:
        raise ValueError(f"`source: sample`: the package has no sample of {dataset}, only of {', '.join(SAMPLES)}")
    if config.mc_source and dataset != "truthfulqa":
        raise ValueError(f"`mc_source` is for truthfulqa, and this set is {dataset}; leave it out")
    if config.streaming:
        _check_streaming(source)


def _check_columns(dataset: str, columns: dict[str, str]) -> None:
    fields = SCHEMA_FIELDS[dataset]
    for field in columns:
        if field not in fields:
            near = get_close_matches(field, fields, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"its fields: {', '.join(fields)}"
            raise ValueError(f"`columns` names `{field}`, which the {dataset} schema lacks; {hint}")
    names = list(columns.values())
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"`columns` maps two fields to `{twice}`; give each its own column")


def _check_streaming(source: str) -> None:
    if source == "sample":
        raise ValueError("`streaming` with `source: sample`: the sample is small; leave `streaming` out")
    if source.removesuffix(".gz").endswith(".json"):
        raise ValueError(f"`streaming`: {source} is a JSON list, which is read whole; write it as jsonl, a row a line")
    if source.endswith(".parquet.gz"):
        raise ValueError(f"`streaming`: {source} has to be unpacked whole; unpack it (parquet compresses by itself)")


def check_metric(axis: AxisConfig) -> None:
    """Refuse a figure that none of the axis's sets can give.

    Raises:
        ValueError: what the figure needs.
    """
    datasets = [one.dataset for one in axis.sets]
    if axis.metric in {"mc1", "mc2"} and "truthfulqa" not in datasets:
        raise ValueError(
            f"`metric: {axis.metric}` needs multiple-choice answers, which only truthfulqa has; give "
            "loss, win_rate, or data with wrong answers and safe_preferred"
        )
    labelled = any(
        one.dataset in {"beavertails", "preference"} or (one.dataset == "pairs" and "label" in one.columns)
        for one in axis.sets
    )
    if axis.metric == "safe_preferred" and not labelled:
        raise ValueError(
            "`metric: safe_preferred` needs worse answers to compare with: beavertails or preference data, or pairs "
            "with `columns: {label: ...}`; else give loss or win_rate"
        )
