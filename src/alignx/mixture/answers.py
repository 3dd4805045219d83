"""What the runtime returns: a prompt's mixture, and an answer with it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MixtureWeights:
    """What one prompt was given.

    Attributes:
        pi: axis -> mixture weight.
        scale: factor on all experts: the user's strength, times what was learned for mixtures this even.
        axis_probs: axis -> probability that the prompt is like its data.
        best_probs: axis -> probability that its expert serves the prompt best.
        known: g in [0, 1]; 0 where no expert applies and the fallback speaks.
    """

    pi: dict[str, float]
    scale: float
    axis_probs: dict[str, float]
    best_probs: dict[str, float]
    known: float

    @property
    def out_of_distribution(self) -> bool:
        """Whether the fallback has more say than the router."""
        return self.known < 0.5


@dataclass(frozen=True)
class Answer:
    """An answer and what made it.

    Attributes:
        text: the answer, without control tokens.
        weights: mixture of its prompt.
        n_tokens: tokens generated, the end token among them.
        finished: whether the model ended the answer itself.
        prompt_cut: tokens taken off the prompt's start to fit the context.
    """

    text: str
    weights: MixtureWeights
    n_tokens: int
    finished: bool
    prompt_cut: int = 0
