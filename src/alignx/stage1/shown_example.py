"""One training example taken apart for the eye: what each token is, and whether it is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignx.config import Stage1Config
from alignx.data.template import PromptTemplate
from alignx.stage1.schedule import TrainingJob, training_steps

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Piece:
    """The text of one token, or of the few that share a character.

    Attributes:
        text: as the tokenizer decodes it.
        supervised: whether the loss is taken on it.
        control: whether it is a control token; text that only looks like one is not.
    """

    text: str
    supervised: bool
    control: bool


@dataclass(frozen=True)
class ShownExample:
    """A training example as it enters the model, and what decided its form.

    Attributes:
        axis: whose expert it trains.
        n_examples: training examples of the axis.
        pieces: the tokens in order.
        n_prompt: tokens of the prompt, not trained on.
        n_target: tokens of the target, trained on.
        end: text of the end token.
        ends: whether the target closes with it; false when it was cut at `max_tokens`.
        max_tokens: prompt and target tokens an example may have.
        injected: whether this example carries the axis instruction.
        injection_rate: share of the examples that do.
        style: `chat` or `alpaca`.
    """

    axis: str
    n_examples: int
    pieces: tuple[Piece, ...]
    n_prompt: int
    n_target: int
    end: str
    ends: bool
    max_tokens: int
    injected: bool
    injection_rate: float
    style: str


def first_example(job: TrainingJob, template: PromptTemplate, config: Stage1Config) -> ShownExample:
    """The first example of a job's first step, token for token as it will be trained."""
    step = training_steps(job, template, config)[0]
    example, tokens = job.examples[step.rows[0]], step.examples[0]
    plain = template.encode(example, max_tokens=config.max_tokens)
    prompt = _pieces(template.tokenizer, tokens.prompt_ids, supervised=False)
    target = _pieces(template.tokenizer, tokens.target_ids, supervised=True)
    return ShownExample(
        axis=job.name,
        n_examples=len(job.examples),
        pieces=(*prompt, *target),
        n_prompt=len(tokens.prompt_ids),
        n_target=len(tokens.target_ids),
        end=template.tokenizer.decode([template.end_token_id]),
        ends=tokens.target_ids[-1:] == [template.end_token_id],
        max_tokens=config.max_tokens,
        injected=tokens.prompt_ids != plain.prompt_ids,
        injection_rate=job.injection_rate,
        style=template.style,
    )


def _pieces(tokenizer: Any, ids: Sequence[int], *, supervised: bool) -> list[Piece]:
    """Decode token by token, so that pieces put together are the text; tokens that share a character stay together."""
    control = set(tokenizer.all_special_ids)
    control |= {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    pieces: list[Piece] = []
    run: list[int] = []  # text tokens since the last control token: what came before may change how one decodes
    shown = ""
    for number in ids:
        if number in control:
            if len(_decode(tokenizer, run)) > len(shown):
                pieces.append(Piece(_decode(tokenizer, run)[len(shown) :], supervised, False))
            pieces.append(Piece(_decode(tokenizer, [number]), supervised, True))
            run, shown = [], ""
            continue
        run.append(number)
        text = _decode(tokenizer, run)
        if not text.endswith(_UNFINISHED) and len(text) > len(shown):
            pieces.append(Piece(text[len(shown) :], supervised, False))
            shown = text
    rest = _decode(tokenizer, run)[len(shown) :]
    return [*pieces, Piece(rest, supervised, False)] if rest else pieces


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
