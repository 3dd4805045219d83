"""Training examples that are longer than a training sequence may be: left out or cut, and counted.

An answer that is cut has no end token, so it teaches the model not to stop: leaving the example out is the default.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignx.config import Stage1Config
from alignx.data.example import Example
from alignx.data.template import PromptTemplate
from alignx.errors import DataError


@dataclass(frozen=True)
class FittingExamples:
    """What an adapter is trained on, and what its length cost.

    Attributes:
        examples: the training examples.
        n_dropped: examples left out because they are longer than `stage1.max_tokens`.
        n_cut: examples kept although their answer is cut, so that it has no end token.
    """

    examples: list[Example]
    n_dropped: int
    n_cut: int

    @property
    def record(self) -> dict[str, Any]:
        """For `training.json`."""
        return {"dropped": {"overlong": self.n_dropped}, "without_end_token": self.n_cut}

    @property
    def line(self) -> str:
        """In words; empty when nothing was too long."""
        if self.n_dropped:
            return f"left out {self.n_dropped} examples longer than stage1.max_tokens"
        if self.n_cut:
            return f"cut {self.n_cut} answers at stage1.max_tokens; they teach no end token"
        return ""


def fitting_examples(
    name: str,
    examples: Sequence[Example],
    template: PromptTemplate,
    config: Stage1Config,
    instructions: Mapping[str, str],
) -> FittingExamples:
    """Leave out, or count, the examples whose prompt, target and end token exceed `stage1.max_tokens`.

    Each is measured with its axis's instruction injected where training may inject it, so that what is left out does
    not depend on the draw.

    Args:
        name: axis, `shared` or `joint`, for the message.
        examples: candidates.
        template: how they are written.
        config: the limit, and what to do about longer ones.
        instructions: axis -> instruction that may be injected.

    Raises:
        DataError: every example is too long.
    """
    fits = [
        _n_tokens(example, template, instructions.get(example.axis, "")) <= config.max_tokens for example in examples
    ]
    n_long = len(fits) - sum(fits)
    if config.overlong == "cut":
        return FittingExamples(list(examples), 0, n_long)
    kept = [example for example, fit in zip(examples, fits, strict=True) if fit]
    if examples and not kept:
        raise DataError(
            f"`{name}`: all {len(examples)} training examples exceed `stage1.max_tokens: {config.max_tokens}`; "
            "raise `stage1.max_tokens`, or set `stage1.overlong: cut` to train on answers without their end"
        )
    return FittingExamples(kept, n_long, 0)


def _n_tokens(example: Example, template: PromptTemplate, injected: str) -> int:
    prompt = template.encode_prompt(example.instruction, input=example.input, injected=injected)
    return len(prompt) + len(template.encode_target(example.target))
