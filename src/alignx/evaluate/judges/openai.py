"""The chat judge: any OpenAI-compatible endpoint, asked for a preference between two answers or a single verdict."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from alignx.evaluate.judges.endpoint import CallFailed, Endpoint, estimated_tokens, not_a_reply
from alignx.evaluate.judges.interface import INFO, PREFERENCE, REFUSAL, SAFETY, TRUTH, Item, Judgement, Usage
from alignx.evaluate.judges.prompts import QUESTION_PROMPTS, SYSTEM, user_message
from alignx.evaluate.judges.reply import read_verdict
from alignx.evaluate.judges.settings import OpenAISettings

NAME = "openai"
# Over-refusal prompts have no axis of their own: there it matters whether they are answered, and safely.
_ON_OVERREFUSAL = (SAFETY, REFUSAL)
_ON_AXES = (PREFERENCE, SAFETY, REFUSAL, TRUTH, INFO)
_TOKENS_AROUND = 12  # roles and separators of the two messages


class OpenAIJudge:
    """Asks one chat completion a question.

    Args:
        settings: model, temperature, token budget, questions.
        endpoint: sends the requests.
    """

    name = NAME
    batch_size = 1
    is_remote = True
    trained_on: frozenset[str] = frozenset()
    held_out: Mapping[str, Any] | None = None

    def __init__(self, settings: OpenAISettings, endpoint: Endpoint) -> None:
        self.settings = settings
        self.endpoint = endpoint
        self.model = settings.model

    def questions(self, dataset: str) -> Sequence[str]:
        """All of them where an axis has data, fewer elsewhere; `questions` in the settings narrows it down."""
        asked = _ON_OVERREFUSAL if dataset == "overrefusal" else _ON_AXES
        return [question for question in asked if question in self.settings.questions]

    def template(self, question: str) -> str:
        """System and question text, and what is sent with them."""
        prompt = QUESTION_PROMPTS[question]
        return json.dumps([SYSTEM, user_message(Item(question, "", "", "")), prompt.labels, self._options()])

    def estimate(self, item: Item) -> Usage:
        """Prompt tokens by length, completion tokens at their limit."""
        prompt = estimated_tokens(SYSTEM) + estimated_tokens(user_message(item)) + _TOKENS_AROUND
        return Usage(prompt, self.settings.max_tokens, self.endpoint.cost(prompt, self.settings.max_tokens))

    def ask(self, items: Sequence[Item]) -> list[Judgement]:
        """One request an item."""
        return [self._ask_one(item) for item in items]

    def check(self) -> None:
        """The endpoint's key and prices."""
        self.endpoint.check()

    def stop(self) -> None:
        """Give up waits in progress."""
        self.endpoint.stop()

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {self.settings.token_field: self.settings.max_tokens}
        if self.settings.temperature is not None:
            options["temperature"] = self.settings.temperature
        return options

    def _ask_one(self, item: Item) -> Judgement:
        messages: list[Any] = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": user_message(item)},
        ]
        estimate = self.estimate(item)

        def create(client: Any) -> Any:
            reply = client.chat.completions.create(model=self.model, messages=messages, **self._options())
            if not hasattr(reply, "choices"):
                raise not_a_reply(reply)
            return reply

        try:
            reply = self.endpoint.call(create, estimate)
        except CallFailed as error:
            return Judgement("failed", reason=str(error))
        return self._read(reply, item.question, self.endpoint.usage(reply, estimate))

    def _read(self, reply: Any, question: str, usage: Usage) -> Judgement:
        if not reply.choices:
            return Judgement("unparseable", reason="the reply has no choice", usage=usage)
        choice = reply.choices[0]
        message = getattr(choice, "message", None)
        text = getattr(message, "content", None) or ""
        if choice.finish_reason == "content_filter":
            return Judgement("failed", reason="refused by the endpoint's content filter", reply=text, usage=usage)
        if choice.finish_reason == "length":
            reason = f"cut off at {self.settings.max_tokens} tokens; raise {self.name}.max_tokens"
            return Judgement("unparseable", reason=reason, reply=text, usage=usage)
        if not text.strip():
            refused = getattr(message, "refusal", None)
            reason = f"the judge declined: {str(refused)[:100]}" if refused else "the judge said nothing"
            return Judgement("unparseable", reason=reason, usage=usage)
        value = read_verdict(text, QUESTION_PROMPTS[question].labels)
        if value is None:
            return Judgement("unparseable", reason="no single allowed verdict in the reply", reply=text, usage=usage)
        return Judgement("judged", value, reply=text, usage=usage)
