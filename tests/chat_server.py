"""A real HTTP server that speaks the chat protocol, and misbehaves as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-secret-0123456789"


def completion(text: str, tokens: int | None = 7) -> bytes:
    reply: dict = {"choices": [{"message": {"role": "assistant", "content": text}}]}
    if tokens is not None:
        reply["usage"] = {"total_tokens": tokens}
    return json.dumps(reply).encode()


@dataclass
class Answer:
    """One reply: what is sent, and how badly."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0  # seconds before anything is sent
    drip: float = 0.0  # seconds between two bytes
    cut: bool = False  # promise more bytes than are sent, then hang up


@dataclass
class Server:
    url: str
    questions: list[dict] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    plan: list[Answer] = field(default_factory=list)  # used up first, one a request
    reply: Callable[[dict], str] = lambda question: "fine"  # after the plan


@contextmanager
def chat_server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            question = json.loads(self.rfile.read(length))
            state.questions.append({"path": self.path, **question})
            state.headers.append(dict(self.headers))
            answer = state.plan.pop(0) if state.plan else Answer(completion(state.reply(question)))
            time.sleep(answer.wait)
            with suppress(OSError):  # the client has hung up, as it should
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(answer.body) + 1000 * answer.cut))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                step = 1 if answer.drip else max(len(answer.body), 1)
                for start in range(0, len(answer.body), step):
                    self.wfile.write(answer.body[start : start + step])
                    time.sleep(answer.drip)
            self.close_connection = True

        def log_message(self, *words: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state = Server(f"http://127.0.0.1:{server.server_port}/v1")
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        try:
            yield state
        finally:
            server.shutdown()
