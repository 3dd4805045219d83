"""Answers collected by prompt, good and bad, until all rows are read; then one example a prompt."""

from dataclasses import dataclass, field

from alignx.data.example import Example, normalise_prompt
from alignx.data.tally import Tally


@dataclass
class _Answers:
    instruction: str
    input: str
    good: dict[str, None] = field(default_factory=dict)
    bad: dict[str, bool] = field(default_factory=dict)  # answer -> whether it was a row of its own


class AnswerBook:
    """Gathers the answers of each prompt, in the order of first appearance.

    Args:
        axis: axis of the examples.
        tally: is told what is dropped.
        one_answer: keep a prompt's first answer alone; its later rows are duplicates.
    """

    def __init__(self, axis: str, tally: Tally, *, one_answer: bool = False) -> None:
        self._axis, self._tally, self._one_answer = axis, tally, one_answer
        self._prompts: dict[str, _Answers] = {}

    def add(self, prompt: str, answer: str, *, good: bool = True, input: str = "", rejected: str = "") -> None:
        """Take in one row.

        Args:
            prompt: what the user asks.
            answer: an answer to it.
            good: whether the answer may be a target.
            input: text the prompt works on.
            rejected: a worse answer that the same row holds.
        """
        if not prompt or not answer:
            self._tally.drop("empty_answer" if prompt else "empty_prompt")
            return
        held = self._prompts.setdefault(normalise_prompt(prompt), _Answers(prompt, input))
        if (self._one_answer and held.good) or normalise_prompt(input) != normalise_prompt(held.input):
            self._tally.drop("duplicate_prompt")
            return
        if answer in (held.good if good else held.bad) and (not rejected or rejected in held.bad):
            self._tally.drop("duplicate_answer")
            return
        if good:
            held.good[answer] = None
        else:
            held.bad[answer] = True
        if rejected:
            held.bad.setdefault(rejected, False)

    def examples(self) -> list[Example]:
        """One example for each prompt with a good answer; the first good answer is the target."""
        found = []
        for held in self._prompts.values():
            if not held.good:
                self._tally.drop("no_good_answer", len(held.bad))
                continue
            # A pair that carries both labels says nothing about either.
            self._tally.drop("both_labels", sum(own_row for answer, own_row in held.bad.items() if answer in held.good))
            found.append(
                Example(
                    axis=self._axis,
                    instruction=held.instruction,
                    input=held.input,
                    target=next(iter(held.good)),
                    correct=() if self._one_answer else tuple(held.good),
                    incorrect=tuple(answer for answer in held.bad if answer not in held.good),
                )
            )
        return found
