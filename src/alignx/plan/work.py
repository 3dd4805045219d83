"""How many tokens a run reads, and how many operations that is."""

from dataclasses import dataclass

from alignx.config import AxisConfig, RunConfig
from alignx.plan.shapes import ModelShapes

# Mean tokens of (prompt, prompt with the built-in axis instruction, target): 300 drawn examples of each published data
# set, cut to 512 tokens, under SmolLM2's tokenizer (docs/plan.md). Other tokenizers differ by some 10%.
_MEAN_TOKENS = {
    "chat": {"alpaca": (46.9, 50.9, 57.9), "beavertails": (45.7, 51.7, 66.7), "truthfulqa": (43.0, 47.0, 11.7)},
    "alpaca": {"alpaca": (51.1, 73.1, 57.9), "beavertails": (45.7, 69.7, 66.7), "truthfulqa": (43.0, 65.0, 11.7)},
}


@dataclass(frozen=True)
class Tokens:
    """Tokens a run reads.

    Attributes:
        experts: Stage 1, forward and backward, by axis; the shared expert under `shared`.
        extraction: Stage 1, forward only, at the end.
        scoring: Stage 2, forward only: every expert on mix and calibration prompts.
        mixture: Stage 2, forward and backward, end to end.
        longest_example: mean tokens of an example of the axis that has the most.
    """

    experts: dict[str, int]
    extraction: int
    scoring: int
    mixture: int
    longest_example: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.experts.values()) + self.extraction + self.scoring + self.mixture


def count_tokens(config: RunConfig, style: str) -> Tokens:
    """Tokens of a run, from its splits' sizes and the data sets' mean lengths; `style` is `chat` or `alpaca`."""
    settings, end_to_end = config.stage1, config.stage2.end_to_end
    experts: dict[str, int] = {}
    prompts = injected_prompts = scored = mixed = longest = 0.0
    for axis, axis_config in config.axes.items():
        prompt, injected, target = _mean_tokens(axis_config, style)
        rate, splits = settings.injection_rate, axis_config.splits
        example = rate * injected + (1 - rate) * prompt + target
        experts[axis] = round(settings.epochs * splits.train * example)
        prompts += splits.train * prompt
        injected_prompts += splits.train * injected
        scored += (splits.mix + splits.calibration) * (prompt + target)
        mixed += splits.mix * (prompt + target)
        longest = max(longest, example)
    if settings.shared_expert:
        plain = 0.0
        for axis_config in config.axes.values():
            prompt, _, target = _mean_tokens(axis_config, style)
            plain += axis_config.splits.train * (prompt + target)
        experts["shared"] = round(settings.shared_epochs * plain)
    # The base reads prompts up to the deepest routing depth only.
    extraction = settings.depths[-1] * (prompts + injected_prompts)
    # A held-out prompt is read forward only, a third of a pass; the warm start's own validation is one more.
    held = end_to_end.validation_share
    passes = end_to_end.epochs * (1 - held) + (end_to_end.epochs + 1) * held / 3 if end_to_end.enabled else 0
    return Tokens(experts, round(extraction), round(len(config.axes) * scored), round(passes * mixed), round(longest))


def _mean_tokens(axis: AxisConfig, style: str) -> tuple[float, float, float]:
    """Mean tokens of an axis's examples; a set of the user's own counts as the longest of the published ones."""
    known = _MEAN_TOKENS[style]
    longest = max(known.values(), key=sum)
    found = [known.get(source.dataset, longest) for source in axis.sets]
    prompt, injected, target = (sum(column) / len(found) for column in zip(*found, strict=True))
    return prompt, injected, target


def target_share(config: RunConfig, style: str) -> float:
    """Share of target tokens in the axis that has most of them, in (0, 1)."""
    rate = config.stage1.injection_rate
    shares = []
    for axis in config.axes.values():
        prompt, injected, target = _mean_tokens(axis, style)
        shares.append(target / (rate * injected + (1 - rate) * prompt + target))
    return max(shares)


def forward_operations(shapes: ModelShapes, share: float) -> float:
    """Operations a token of a forward pass: two a weight, the head's for target tokens only.

    Attention's own products are left out.
    """
    return 2.0 * (shapes.adapted_values + share * shapes.head_values)


def training_operations(shapes: ModelShapes, method: str, share: float) -> float:
    """Operations a token of forward and backward: twice the forward's with a frozen base, thrice without."""
    forward = forward_operations(shapes, share)
    return 3 * forward if method == "full" else 2 * forward + 6.0 * shapes.adapter_parameters
