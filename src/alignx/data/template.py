"""Text -> tokens: the chat template or Alpaca's, with or without the axis instruction.

Text that came from data or a user never becomes a control token: it is tokenised with special tokens split.
"""

from dataclasses import dataclass
from typing import Any

import jinja2

from alignx.data.example import Example
from alignx.errors import ModelError

_ALPACA_PREAMBLE = {
    False: "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    True: "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.",
}
_MARK = "ALIGNXMARK"


@dataclass(frozen=True)
class TokenisedExample:
    """Prompt and target as token ids; the target ends with the end token unless it was cut."""

    prompt_ids: list[int]
    target_ids: list[int]


@dataclass(frozen=True)
class PromptTemplate:
    """How prompts and targets are written for one tokenizer.

    Attributes:
        tokenizer: a Transformers tokenizer.
        style: `chat` (the tokenizer's own template) or `alpaca`.
        end_token_id: the token that ends an answer.
        unmarked_controls: texts of control tokens that the tokenizer does not mark as special, so does not split.
    """

    tokenizer: Any
    style: str
    end_token_id: int
    unmarked_controls: tuple[str, ...] = ()

    @classmethod
    def for_tokenizer(cls, tokenizer: Any, style: str = "auto") -> "PromptTemplate":
        """Choose the style and find the end token.

        Args:
            tokenizer: a Transformers tokenizer.
            style: `chat`, `alpaca`, or `auto` (chat when the tokenizer has a template).

        Raises:
            ModelError: `chat` without a template, or no token can end an answer.
        """
        has_chat = bool(getattr(tokenizer, "chat_template", None))
        if style == "chat" and not has_chat:
            raise ModelError("the model has no chat template; set `template: alpaca` (or `auto`)")
        chosen = "chat" if style in {"auto", "chat"} and has_chat else "alpaca"
        end_token_id = _chat_end_token(tokenizer) if chosen == "chat" else None
        if end_token_id is None:
            end_token_id = tokenizer.eos_token_id
        if end_token_id is None:
            raise ModelError("the tokenizer has no end-of-sequence token; set `tokenizer.eos_token` and save it again")
        unmarked = _unmarked_controls(tokenizer, int(end_token_id))
        return cls(tokenizer=tokenizer, style=chosen, end_token_id=int(end_token_id), unmarked_controls=tuple(unmarked))

    def encode_prompt(self, instruction: str, *, input: str = "", injected: str = "") -> list[int]:
        """Token ids of everything before the answer.

        Args:
            instruction: what the user asks.
            input: text it works on, or empty.
            injected: axis instruction put into the prompt, or empty.
        """
        if self.style == "alpaca":
            return self._alpaca_prompt(instruction, input, injected)
        user = f"{instruction}\n\n{input}" if input else instruction
        messages = [{"role": "user", "content": user}]
        if injected:
            messages = [{"role": "system", "content": injected}, *messages]
        try:
            return self._chat_ids(messages)
        except jinja2.TemplateError as error:
            if not injected:
                raise ModelError(f"the chat template refuses a user turn ({error}); set `template: alpaca`") from error
            # Templates such as Gemma's refuse a system role: the instruction joins the user turn.
            return self._chat_ids([{"role": "user", "content": f"{injected}\n\n{user}"}])

    def encode_target(self, text: str, *, end: bool = True) -> list[int]:
        """Token ids of an answer, with the end token unless `end` is false."""
        ids = self._plain_ids(text)
        return [*ids, self.end_token_id] if end else ids

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text that stands alone, begun as the tokenizer itself begins one; no template."""
        ids = self._plain_ids(text)
        bos = self.tokenizer.bos_token_id
        adds_bos = bos is not None and bos in self.tokenizer("a")["input_ids"][:1]
        return [int(bos), *ids] if adds_bos else ids

    def encode(
        self, example: Example, *, injected: str = "", target: str | None = None, max_tokens: int
    ) -> TokenisedExample:
        """Prompt and target of an example; what exceeds `max_tokens` is cut from the target's end.

        A prompt that leaves no room keeps its last `max_tokens - 1` tokens and one target token.
        """
        prompt_ids = self.encode_prompt(example.instruction, input=example.input, injected=injected)
        prompt_ids = prompt_ids[-(max_tokens - 1) :]
        target_ids = self.encode_target(example.target if target is None else target)
        return TokenisedExample(prompt_ids, target_ids[: max_tokens - len(prompt_ids)])

    def _chat_ids(self, messages: list[dict[str, str]]) -> list[int]:
        encoded = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, sanitize_control_tokens=True
        )
        return [int(token) for token in encoded["input_ids"]]

    def _alpaca_prompt(self, instruction: str, input: str, injected: str) -> list[int]:
        parts = [_ALPACA_PREAMBLE[bool(input)]]
        if injected:
            parts.append(injected)
        parts.append(f"### Instruction:\n{instruction}")
        if input:
            parts.append(f"### Input:\n{input}")
        parts.append("### Response:\n")
        return self.encode_text("\n\n".join(parts))

    def _plain_ids(self, text: str) -> list[int]:
        pieces = [text]
        for control in self.unmarked_controls:  # cut after its first letter, so that it is never read as one
            pieces = [part for piece in pieces for part in _cut_inside(piece, control)]
        encoded = [self.tokenizer(piece, add_special_tokens=False, split_special_tokens=True) for piece in pieces]
        return [int(token) for part in encoded for token in part["input_ids"]]


def _cut_inside(text: str, control: str) -> list[str]:
    first, *others = text.split(control)
    parts = [first]
    for other in others:
        parts[-1] += control[0]
        parts.append(control[1:] + other)
    return parts


def _unmarked_controls(tokenizer: Any, end_token_id: int) -> list[str]:
    """Added tokens that the chat template writes, or that end an answer, without being marked as special."""
    template = str(getattr(tokenizer, "chat_template", None) or "")
    return sorted(
        token.content
        for number, token in tokenizer.added_tokens_decoder.items()
        if not token.special and token.content.strip() and (token.content in template or number == end_token_id)
    )


def _chat_end_token(tokenizer: Any) -> int | None:
    """The first control token that the template writes after an assistant turn; none when it writes none.

    Raises:
        ModelError: the template fails, or does not show the turn as it was written.
    """
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    except Exception as error:  # a template is a program of its own: any of its faults comes out here
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"the chat template refuses a conversation ({reason}); set `template: alpaca`") from error
    _, mark, after = text.rpartition(_MARK)
    if not mark:
        raise ModelError("the chat template changes the text of an assistant turn; set `template: alpaca`")
    control = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    blank = {token for token in control if not str(tokenizer.convert_ids_to_tokens(token)).strip()}
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    return next((int(token) for token in ids if token in control - blank), None)
