"""Every setting of a run, with its unit, its range and its one default.

The defaults are what measured best on the embedded model; `presets.py` holds the published settings.
"""

from difflib import get_close_matches
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from alignx.config.axis import AxisConfig
from alignx.config.strict import StrictModel

MergeName = Literal["uniform", "task-arithmetic", "ties", "dare", "negate"]
MERGE_NAMES: tuple[MergeName, ...] = ("uniform", "task-arithmetic", "ties", "dare", "negate")


# Typed on the command line and shown in reports, so no spaces and no marks.
PresetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]

ComparatorName = Literal[
    "joint", "joint-mr", "task-arithmetic", "ties", "dare", "negate", "x-lora", "arrow", "dense-mixture"
]
COMPARATOR_NAMES: tuple[ComparatorName, ...] = get_args(ComparatorName)

# Names that artifacts and figures use beside the axes'.
RESERVED_AXES = {"shared", "joint", "joint-mr", "latent", "average", "interval", "nats"}


class Candidate(StrictModel):
    """One way to train the joint LoRA; the best on the mix split is kept."""

    learning_rate: float = Field(gt=0)
    epochs: int = Field(ge=1, description="passes over the training prompts")


class KeepConfig(StrictModel):
    """Large artifacts that can be made again from small ones, and are kept only when asked for."""

    dense: bool = Field(False, description="every expert's task vector, dense, in stage1/<axis>/task_vector")
    copy_base: bool = Field(False, description="the base's weights and tokenizer, in base/")
    merged: bool = Field(False, description="base and expert together as a plain model, in stage1/<axis>/merged")


class Stage1Config(StrictModel):
    """How experts are trained and what is extracted from them."""

    method: Literal["lora", "full"] = Field("lora", description="full: train the weights themselves, all of them")
    expert_rank: int | None = Field(None, ge=1, description="full only: rank of an expert's factors; none: `rank`")
    rank: int = Field(16, ge=1, description="rank of each expert")
    alpha: int = Field(32, ge=1, description="LoRA alpha; the update is (alpha / rank) B A")
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str = Field("all-linear", description="`all-linear` or a comma-separated list of module names")
    learning_rate: float = Field(1e-3, gt=0)
    epochs: int = Field(1, ge=1, description="passes over the axis's training prompts")
    batch_size: int = Field(8, ge=1, description="examples an optimiser step")
    micro_batch_tokens: int = Field(1024, ge=1, description="tokens a forward pass; a longer example goes alone")
    checkpoint_steps: int = Field(20, ge=1, description="optimiser steps between two checkpoints")
    weight_decay: float = Field(0.01, ge=0)
    warmup_fraction: float = Field(0.05, ge=0, lt=1, description="share of the steps that warm up")
    injection_rate: float = Field(0.0, ge=0, le=1, description="share of examples with the axis instruction")
    max_tokens: int = Field(512, ge=16, description="prompt + target tokens of a training example")
    overlong: Literal["drop", "cut"] = Field(
        "drop", description="an example longer than max_tokens: left out, or its answer cut before the end token"
    )
    precision: Literal["auto", "float32", "bf16"] = Field("auto", description="bf16: autocast around float32 weights")
    shared_expert: bool = Field(True, description="learn what all axes share first, then each axis on top of it")
    shared_epochs: int = Field(1, ge=1, description="passes of the shared expert over all axes")
    latent_size: int = Field(256, ge=1, description="k: principal directions a depth, and width of the sketches")
    depths: tuple[float, ...] = Field(
        (0.125, 0.25, 0.375, 0.5), description="routing depths as shares of the layers, ascending"
    )

    keep: KeepConfig = KeepConfig()

    @property
    def factor_rank(self) -> int:
        """Rank of the factors that stand for a fully fine-tuned expert where factors are needed."""
        return self.expert_rank or self.rank

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(not 0 < depth <= 1 for depth in self.depths) or list(self.depths) != sorted(set(self.depths)):
            raise ValueError("depths must be ascending shares of the layers in (0, 1]")
        return self


class EndToEndConfig(StrictModel):
    """The last step of Stage 2: language-model loss through the mixture, on the mix split."""

    enabled: bool = True
    epochs: int = Field(2, ge=1)
    learning_rate: float = Field(0.05, gt=0)
    batch_size: int = Field(8, ge=1, description="prompts an optimiser step")
    micro_batch_tokens: int = Field(
        1024, ge=1, description="tokens a forward pass, padding included; a longer example goes alone"
    )
    validation_share: float = Field(
        0.2, ge=0, le=0.5, description="share of an axis's mix prompts held out to choose the pass; 0: keep the last"
    )
    patience: int = Field(2, ge=1, description="passes without a lower validation loss before it stops")
    checkpoint_steps: int = Field(10, ge=1, description="optimiser steps between two checkpoints")
    label_weight: float = Field(0.0, ge=0, description="weight of cross-entropy to the best expert")
    entropy_weight: float = Field(0.0, ge=0, description="weight of the entropy bonus of the mixture")
    kl_weight: float = Field(0.1, ge=0, description="weight of KL(mixture || warm start)")


class Stage2Config(StrictModel):
    """How prompts are routed and how that routing is calibrated."""

    fractal: bool = Field(True, description="use the fractal calibrator")
    natural: bool = Field(True, description="use the natural calibrator")
    uniform: bool = Field(False, description="ablation: ignore the router, every axis weighs the same")
    lambda_fractal: float = Field(0.6, ge=0)
    lambda_natural: float = Field(0.4, ge=0)
    learn_coefficients: bool = Field(True, description="learn a_F and a_N on the mix split; else both are 1")
    fit_temperature: bool = Field(True, description="fit temperatures on the calibration split; else all are 1")
    epsilon: float = Field(0.05, gt=0, description="resolution of the fractal calibrator, in median distances")
    neighbour: int = Field(2, ge=1, description="q: the neighbour whose distance is the cell radius")
    dimension_neighbours: tuple[int, int] = Field((16, 40), description="neighbours of the local dimension's fit")
    tie_tolerance: float = Field(0.01, ge=0, description="experts within this share of the lowest loss tie")
    fallback: Literal["prior", "base"] = Field("prior", description="what speaks where no expert applies")
    foreign_p_values: tuple[float, float] = Field((0.01, 0.05), description="g is 0 below and 1 above")
    merges: tuple[MergeName, ...] = Field((), description="static merges made beside the mixture, and scored")
    end_to_end: EndToEndConfig = EndToEndConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.foreign_p_values
        if not 0 < low < high <= 1:
            raise ValueError("foreign_p_values must be two ascending p-values in (0, 1]")
        if not 2 <= self.dimension_neighbours[0] < self.dimension_neighbours[1]:
            raise ValueError("dimension_neighbours must be two ascending counts, the first at least 2")
        return self


class EvaluateConfig(StrictModel):
    """What is scored, and how surely."""

    max_tokens: int = Field(1024, ge=16, description="prompt + target tokens of a scored example")
    batch_size: int = Field(16, ge=1, description="sequences a forward pass")
    precision: Literal["auto", "float32", "bf16"] = Field(
        "float32", description="bf16: autocast, faster, losses +-0.1%"
    )
    prompt_style: Literal["chat", "qa6"] = Field(
        "chat", description="multiple choice: in the chat format, or after TruthfulQA's six-pair primer"
    )
    bootstrap_draws: int = Field(2000, ge=100)
    calibration_bins: int = Field(15, ge=1)
    ablations: bool = Field(False, description="score the mixtures of best_probs and of the plain router too")
    joint: bool = Field(True, description="train and score the joint LoRA")
    joint_candidates: tuple[Candidate, ...] = Field((), description="empty: Stage 1's own rate, 1 and 2 passes")
    joint_mr: bool = Field(
        False, description="train and score a joint LoRA as wide as all experts together (m times their rank) too"
    )
    joint_mr_candidates: tuple[Candidate, ...] = Field((), description="empty: what was chosen for the joint LoRA")
    comparators: tuple[ComparatorName, ...] = Field(
        (), description="made and scored too, beside joint, joint_mr and stage2.merges"
    )


class DialPreset(StrictModel):
    """A setting of the dial; in `presets` the key is its name."""

    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        {}, description="axis -> factor on its odds"
    )
    floors: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field({}, description="axis -> least share of the mixture")
    strength: float = Field(1.0, allow_inf_nan=False, description="scale of all experts; 0 is the base")


class DialSetting(DialPreset):
    """A setting of the dial under a label of any words."""

    label: str = Field(min_length=1)


class ShowcaseConfig(StrictModel):
    """One prompt answered at several dial settings at the end of a run."""

    prompt: str = Field("", description="empty: no showcase")
    settings: tuple[DialSetting, ...] = Field((), description="empty: a lean towards each axis in turn")
    max_new_tokens: int = Field(96, ge=1)


class RunConfig(StrictModel):
    """A whole run."""

    model: str = Field("smollm2-135m", description="preset, hub id, local folder or GGUF file")
    revision: str | None = Field(None, description="hub revision")
    template: Literal["auto", "chat", "alpaca"] = Field("auto", description="auto: chat when the model has one")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="dtype of the base weights")
    quantization: Literal["none", "8bit", "4bit"] = Field("none", description="of the base's linear layers; LoRA only")
    seed: int = Field(0, ge=0)
    salt: str = Field("", description="splits' salt; empty: made from the seed")
    axes: dict[str, AxisConfig] = Field(min_length=1)
    stage1: Stage1Config = Stage1Config()
    stage2: Stage2Config = Stage2Config()
    evaluate: EvaluateConfig = EvaluateConfig()
    showcase: ShowcaseConfig = ShowcaseConfig()
    presets: dict[PresetName, DialPreset] = Field({}, description="own settings of the dial, by name")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.axes:
            if not name.replace("-", "").replace("_", "").isalnum() or name in RESERVED_AXES:
                raise ValueError(f"axis name `{name}` must be letters, digits, - or _, and not a reserved word")
        for name, axis in self.axes.items():
            if axis.splits.train <= max(self.stage2.neighbour, 2):
                raise ValueError(
                    f"axis `{name}` has {axis.splits.train} training prompts; the calibrators need more than "
                    f"{max(self.stage2.neighbour, 2)}"
                )
        if self.quantization != "none":
            self._check_quantised()
        self._check_comparators()
        for setting in self.showcase.settings:
            self._check_dial(f"showcase setting `{setting.label}`", setting)
        for name, preset in self.presets.items():
            self._check_dial(f"preset `{name}`", preset)
        return self

    def _check_dial(self, what: str, setting: DialPreset) -> None:
        unknown = sorted((setting.weights.keys() | setting.floors.keys()) - self.axes.keys())
        if unknown:
            near = get_close_matches(unknown[0], self.axes, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"axes of this run: {', '.join(self.axes)}"
            raise ValueError(f"{what} names axis `{unknown[0]}`, which this run lacks; {hint}")
        if sum(setting.floors.values()) > 1 + 1e-9:
            raise ValueError(f"{what}: floors add up to more than 1; lower them")
        if all(setting.weights.get(axis, 1.0) == 0 for axis in self.axes):
            raise ValueError(f"{what}: all axis weights are 0; leave one on, or set `strength: 0` for the base")
        off = sorted(axis for axis, floor in setting.floors.items() if floor > 0 and setting.weights.get(axis) == 0)
        if off:
            raise ValueError(f"{what}: a floor on axis `{off[0]}`, whose weight is 0; drop one of them")

    @property
    def comparators(self) -> tuple[str, ...]:
        """What is made and scored beside base, experts, uniform merge and AlignX, in the order of making."""
        asked = {"joint": self.evaluate.joint, "joint-mr": self.evaluate.joint_mr}
        wanted = {*(name for name, on in asked.items() if on), *self.stage2.merges, *self.evaluate.comparators}
        return tuple(name for name in COMPARATOR_NAMES if name in wanted)

    def _check_comparators(self) -> None:
        asked = self.comparators
        if "joint-mr" in asked and not ("joint" in asked or self.evaluate.joint_mr_candidates):
            raise ValueError(
                "joint_mr is trained as the joint LoRA was; set `evaluate.joint: true` or give `joint_mr_candidates`"
            )
        if self.stage1.method == "full" and "joint-mr" in asked:
            raise ValueError("a fully fine-tuned joint model has no rank to widen; set `evaluate.joint_mr: false`")
        if self.stage1.method == "full" and {"x-lora", "arrow"} & set(asked):
            raise ValueError("comparators x-lora and arrow mix LoRA experts; set `stage1.method: lora`")
        if self.quantization != "none" and "dense-mixture" in asked:
            raise ValueError("comparator dense-mixture trains weights, and quantised ones cannot be; leave it out")

    def _check_quantised(self) -> None:
        """Nothing can be added to quantised weights; experts behind gates do not need it."""
        asked = f"quantization `{self.quantization}`"
        if self.stage1.method == "full":
            raise ValueError(f"{asked}: quantised weights cannot be fine-tuned; set `stage1.method: lora`")
        if self.stage1.shared_expert:
            raise ValueError(
                f"{asked}: experts learn on top of a shared one folded into the weights, which quantised weights do "
                "not allow; set `stage1.shared_expert: false`"
            )
        dense = [name for name in self.comparators if name in {"ties", "dare"}]
        if dense:
            raise ValueError(f"{asked}: merge `{dense[0]}` adds to the weights; leave it out of `stage2.merges`")

    @property
    def split_salt(self) -> str:
        """Salt of the splits: each seed has its own unless one is given."""
        return self.salt or f"alignx-{self.seed}"
