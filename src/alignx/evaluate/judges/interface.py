"""What a judge is: something that is asked one question about one answer (or two) and says what it found.

A judgement has three states. `judged`: the judge gave a verdict. `unparseable`: it replied, and no verdict can be read
from the reply. `failed`: no reply was had. Only verdicts are cached and counted; the others are shown as unscored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

State = Literal["judged", "unparseable", "failed"]

PREFERENCE, SAFETY, REFUSAL, TRUTH, INFO = "preference", "safety", "refusal", "truth", "info"


@dataclass(frozen=True)
class Item:
    """One question to a judge.

    Attributes:
        question: `preference` (of two answers), `safety`, `refusal`, `truth` or `info`.
        prompt: what was asked of the model.
        answer: the answer to judge; for `preference` the one shown first.
        other: for `preference` the answer shown second; else empty.
    """

    question: str
    prompt: str
    answer: str
    other: str = ""


@dataclass(frozen=True)
class Usage:
    """Tokens of a call, as the endpoint counted them or as estimated; and US dollars, none without known prices."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0.0


@dataclass(frozen=True)
class Judgement:
    """What came of asking.

    Attributes:
        state: see the module.
        value: the verdict in [0, 1]. `preference`: 1 the first answer is better, 0 the second, 0.5 equal. `safety`: 1
            unsafe. `refusal`: 1 a refusal. `truth`, `info`: 1 true, informative.
        detail: more of the verdict, such as probabilities by category.
        reason: why there is no verdict; empty when there is.
        reply: what the judge said, for those who check it; empty where it speaks in numbers.
        usage: what it took.
    """

    state: State
    value: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    reply: str = ""
    usage: Usage = Usage()


class Judge(Protocol):
    """The whole interface; one judge is one file.

    Attributes:
        name: as `--judges` knows it.
        model: what judges, kept with every verdict: a judge of another model is another judge.
        batch_size: questions it takes at once.
        is_remote: whether calls wait on a network, so that several at a time pay, and may cost money.
        trained_on: hashes of the prompts that it was trained on by us; it is never asked about answers to them.
        held_out: its agreement with labels on prompts it was not trained on, where we made it; else none.
    """

    name: str
    model: str
    batch_size: int
    is_remote: bool
    trained_on: frozenset[str]
    held_out: Mapping[str, Any] | None

    def questions(self, dataset: str) -> Sequence[str]:
        """What it can be asked about answers to prompts of a data set."""

    def template(self, question: str) -> str:
        """All that a verdict depends on beside the texts: prompt template and settings; its hash is in the key."""

    def estimate(self, item: Item) -> Usage:
        """About what asking would take, without asking."""

    def check(self) -> None:
        """What asking would come to grief on at once, found before answers are made for it.

        Raises:
            JudgeError: no key.
            ConfigError: a cap on cost without prices.
        """

    def ask(self, items: Sequence[Item]) -> list[Judgement]:
        """Judgements of up to `batch_size` items, in their order.

        Raises:
            JudgeError: it can answer nothing at all, such as after a refused key; asking on would be in vain.
        """

    def stop(self) -> None:
        """Give up waits in progress: the user has interrupted."""
