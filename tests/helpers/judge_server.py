"""A local server in the shape of OpenAI's, and one that speaks in raw bytes: what judges are tested against."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
Reply = dict[str, Any] | Response


def chat_reply(text: str | None, *, finish: str = "stop", usage: tuple[int, int] | None = (100, 10)) -> dict[str, Any]:
    """A chat completion that says `text`."""
    counted = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)} if usage else None
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
        "usage": counted,
    }


def verdict(label: str) -> dict[str, Any]:
    """A chat completion with one verdict."""
    return chat_reply(json.dumps({"verdict": label}))


def failure(status: int, *, code: str = "", message: str = "no", param: str = "", **headers: str) -> Response:
    """An error in OpenAI's shape."""
    body = {"error": {"message": message, "type": "error", "code": code or None, "param": param or None}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(json.dumps(body), status=status, content_type="application/json", headers=named)


class Asked:
    """Counts requests and answers them one by one from a list, the last one again and again, or by a function."""

    def __init__(self, server: HTTPServer, replies: list[Reply] | Callable[[dict[str, Any]], Reply], path: str) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.base_url = server.url_for("/v1")
        self._replies = replies
        self._lock = threading.Lock()
        server.expect_request(path, method="POST").respond_with_handler(self._answer)

    @property
    def count(self) -> int:
        """Requests so far."""
        return len(self.bodies)

    def _answer(self, request: Request) -> Response:
        body = request.get_json()
        with self._lock:
            self.bodies.append(body)
            self.headers.append(dict(request.headers))
            if callable(self._replies):
                reply = self._replies(body)
            else:
                reply = self._replies[min(self.count, len(self._replies)) - 1]
        if isinstance(reply, Response):
            return reply
        return Response(json.dumps(reply), content_type="application/json")


@contextmanager
def raw_server(*responses: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that sends these bytes, one connection each, the last one again and again, and hangs up.

    An empty response is a reset: the connection is closed with data unread.

    Yields:
        The base URL, and the requests' first bytes as they come in.
    """
    requests: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                response = responses[min(len(requests), len(responses) - 1)]
                if response:
                    requests.append(_whole_request(connection))
                    connection.sendall(response)
                else:
                    requests.append(connection.recv(1))
                    linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", requests
    finally:
        # Closing alone does not wake a thread that waits in accept.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=5)


def http_bytes(body: bytes, *, status: str = "200 OK", length: int | None = None, kind: str = "json") -> bytes:
    """A response as bytes; `length` is what its header claims."""
    claimed = len(body) if length is None else length
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: application/{kind}",
        f"Content-Length: {claimed}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _whole_request(connection: socket.socket) -> bytes:
    got = b""
    while b"\r\n\r\n" not in got:
        got += connection.recv(65536)
    head, _, body = got.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
