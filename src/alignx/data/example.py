"""The one record every schema is read into."""

import hashlib
from dataclasses import dataclass


def normalise_prompt(text: str) -> str:
    """Strip, join white space, lower-case: prompts that agree so are the same prompt."""
    return " ".join(text.split()).lower()


def hash_prompt(text: str, *, salt: str = "") -> str:
    """sha256 (hex) of salt + normalised prompt: orders the splits and names prompts in artifacts."""
    return hashlib.sha256((salt + normalise_prompt(text)).encode("utf-8")).hexdigest()


@dataclass(frozen=True)
class Example:
    """A prompt with its target and the answers it may be judged against.

    Attributes:
        axis: the axis whose data it comes from.
        instruction: what the user asks; the prompt's identity.
        input: further text the instruction works on (Alpaca), or empty.
        target: the answer an expert learns.
        correct: answers known to be good (TruthfulQA: true; BeaverTails: safe).
        incorrect: answers known to be bad (TruthfulQA: false; BeaverTails: unsafe).
        mc1: answers of TruthfulQA's MC1, the true one first; empty elsewhere.
    """

    axis: str
    instruction: str
    target: str
    input: str = ""
    correct: tuple[str, ...] = ()
    incorrect: tuple[str, ...] = ()
    mc1: tuple[str, ...] = ()

    @property
    def prompt_hash(self) -> str:
        """Unsalted identity of the prompt."""
        return hash_prompt(self.instruction)
