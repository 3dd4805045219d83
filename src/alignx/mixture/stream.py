"""An answer as it comes: a thread generates, the caller takes pieces of text."""

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from transformers import StoppingCriteria

from alignx.mixture.answers import Answer

_BROKEN = "�"  # what a decoder writes for a character whose last bytes are still to come


class TokenTap:
    """A Transformers streamer that passes on the tokens after the prompt."""

    def __init__(self, take: Callable[[list[int]], None]) -> None:
        self._take = take
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        """Called by `generate`: first with the prompt, then with every step's tokens."""
        if self._prompt_seen:
            self._take(value.view(-1).tolist())
        self._prompt_seen = True

    def end(self) -> None:
        """Called by `generate` when it is done."""


class StopWhenSet(StoppingCriteria):  # type: ignore[misc]
    """Ends generation at the next token once an event is set."""

    def __init__(self, event: Event) -> None:
        self._event = event

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """(b,) True for the rows that stop."""
        return input_ids.new_full((input_ids.shape[0],), self._event.is_set(), dtype=bool)


class AnswerStream(Iterator[str]):
    """Pieces of one answer's text; together they are the answer's text.

    Closing it early (`close`, or leaving its `with` block) stops the generation and returns when the base is as it
    was. Errors of the generation are raised where the next piece would have come.

    Args:
        generate: makes the answer; is given a streamer and an event that asks it to stop.
        decode: token ids -> text, without control tokens.
    """

    def __init__(self, generate: Callable[[TokenTap, Event], Answer], decode: Callable[[list[int]], str]) -> None:
        self.answer: Answer | None = None
        self._decode = decode
        self._queue: SimpleQueue[list[int] | Answer | BaseException] = SimpleQueue()
        self._stop = Event()
        self._tokens: list[int] = []
        self._said = ""
        self._done = False
        # The thread knows the queue and not this object, so that an abandoned stream can go.
        self._thread = Thread(target=_work, args=(generate, self._queue, self._stop), name="alignx-stream", daemon=True)
        self._thread.start()

    def __next__(self) -> str:
        while not self._done:
            found = self._queue.get()
            if isinstance(found, BaseException):
                self.close()
                raise found
            if isinstance(found, Answer):
                self.answer, self._done = found, True
                self._thread.join()
                piece = found.text[len(self._said) :]
            else:
                self._tokens += found
                piece = self._stable()
            if piece:
                self._said += piece
                return piece
        raise StopIteration

    def _stable(self) -> str:
        """New text that later tokens cannot change: no half characters, no white space that may be the last."""
        text = self._decode(self._tokens).lstrip().rstrip(_BROKEN).rstrip()
        return text[len(self._said) :] if text.startswith(self._said) else ""

    def close(self) -> None:
        """Stop generating; returns when the base is as it was."""
        self._stop.set()
        self._thread.join()
        self._done = True

    def __enter__(self) -> "AnswerStream":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._stop.set()


def _work(generate: Callable[[TokenTap, Event], Answer], queue: Any, stop: Event) -> None:
    try:
        queue.put(generate(TokenTap(queue.put), stop))
    except BaseException as error:  # raised again in the thread that reads
        queue.put(error)
