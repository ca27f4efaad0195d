"""A chat model behind an OpenAI-compatible endpoint: asked carefully, and never twice.

The endpoint is named by three environment variables: FEATLIB_CHAT_URL (such as
https://host/v1), FEATLIB_CHAT_MODEL, and FEATLIB_CHAT_KEY where it wants one. The key goes into
one header of a request and nowhere else: not into transcripts, errors or notebooks.

The `openai` package asks, and asks again where that can help (too many requests, server errors, a
connection that is cut). What it leaves open is here: every answer is kept on disk under a hash of
the question, so a run that is repeated or resumed pays for new questions only; `Budget` is an upper
bound, checked before each request is sent, a failing one included; no redirect is followed, no
answer may be longer or take longer than the limits below.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from featlib import FeatlibError
from featlib.run import write_json

VARIABLES = ("FEATLIB_CHAT_URL", "FEATLIB_CHAT_MODEL", "FEATLIB_CHAT_KEY")
RETRIES = 4
TIMEOUT = 60.0  # seconds for a whole answer, not for one packet of it
LARGEST_ANSWER = 1_000_000  # bytes; a longer one is broken, or means harm
CHARACTERS_PER_TOKEN = 2  # a low guess, so that estimates of cost are high ones
OVERHEAD = 32  # tokens that a question costs beside its text
TOLD = {"host", "connection", "accept", "accept-encoding", "content-type", "content-length"}
TOLD |= {"user-agent", "authorization"}  # headers; openai would also tell what this machine is


class BudgetSpent(FeatlibError):
    """The next request could cost more than is left."""


class ChatError(FeatlibError):
    """The endpoint refuses, or gave no usable answer."""


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, and as whom."""

    url: str
    model: str
    key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        scheme, _, rest = self.url.partition("://")
        host = rest.partition("/")[0]
        address = scheme in ("http", "https") and host and "@" not in host
        key = self.key.isascii() and self.key.isprintable() and self.key == self.key.strip()
        if not (address and self.model and key):
            raise FeatlibError(
                "chat_features asks for a chat model that is not well named: FEATLIB_CHAT_URL must "
                "look like https://host/v1, with no user or password in it, FEATLIB_CHAT_MODEL "
                "name the model, and FEATLIB_CHAT_KEY, if it is set, hold no blanks"
            )


def endpoint_from_environment() -> Endpoint:
    """The endpoint that the three variables name."""
    return Endpoint(*(os.environ.get(name, "") for name in VARIABLES))


@dataclass
class Budget:
    """What may be spent, and what has been."""

    requests: int
    tokens: int
    spent_requests: int = 0
    spent_tokens: int = 0

    def reserve(self, tokens: int) -> None:
        """Take one request of at most `tokens`, or raise `BudgetSpent` and take nothing."""
        if self.spent_requests + 1 > self.requests or self.spent_tokens + tokens > self.tokens:
            raise BudgetSpent(
                f"the chat budget is spent: {self.spent_requests:,} of {self.requests:,} "
                f"requests and {self.spent_tokens:,} of {self.tokens:,} tokens are used, the "
                f"next request may take {tokens:,}. Answers so far are kept; raise "
                "chat_requests or chat_tokens to go on from here."
            )
        self.spent_requests += 1
        self.spent_tokens += tokens


@dataclass
class Chat:
    """Asks one endpoint; `cache` is the folder of transcripts."""

    endpoint: Endpoint
    budget: Budget
    cache: Path
    _reserved: int = 0  # tokens that a request of the present question may cost

    def ask(self, system: str, user: str, *, max_tokens: int) -> str:
        """The model's answer; `BudgetSpent` before it could cost too much, `ChatError` if none."""
        said = {"system": system, "user": user}
        body = {
            "model": self.endpoint.model,
            "messages": [{"role": role, "content": content} for role, content in said.items()],
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        # All that decides the answer names it; the endpoint's address and key do not.
        name = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        place = self.cache / f"{name}.json"
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # a damaged one
            return str(json.loads(place.read_text(encoding="utf-8"))["answer"])
        self._reserved = question_tokens(system + user) + max_tokens
        answer = self._send(body).replace(self.endpoint.key or "\0", "[key]")
        write_json(place, {"question": body, "answer": answer})
        return answer

    def _send(self, body: dict[str, Any]) -> str:
        import openai

        def sentence(trouble: str) -> ChatError:
            trouble = trouble.replace(self.endpoint.key or "\0", "[key]")[:300]
            return ChatError(f"the chat endpoint {trouble}. Check {', '.join(VARIABLES)}.")

        try:
            reply = self._client.chat.completions.create(**body)
            answer, used = reply.choices[0].message.content, reply.usage
        except openai.APIStatusError as error:
            text = error.response.text
            raise sentence(f"answers with status {error.status_code}: {text!r}") from None
        except openai.APIConnectionError as error:
            raise sentence(f"does not answer: {error.__cause__}") from None
        except BudgetSpent:
            raise
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError):
            answer, used = None, None
        if not isinstance(answer, str):
            raise sentence("sends what is no chat completion")
        total = getattr(used, "total_tokens", None)
        if isinstance(total, int) and 0 < total < 10**7:  # a server cannot give tokens back
            self.budget.spent_tokens += total - self._reserved
        return answer

    @cached_property
    def _client(self) -> Any:
        import httpx2
        import openai

        def before(request: httpx2.Request) -> None:
            self.budget.reserve(self._reserved)
            for name in set(request.headers) - TOLD:
                del request.headers[name]

        def after(response: Any) -> None:
            if "content-encoding" in response.headers:
                raise httpx2.ReadError("compressed, though asked not to be")
            body, ends = bytearray(), time.monotonic() + TIMEOUT
            with contextlib.closing(response.stream) as stream:
                for part in stream:
                    body += part
                    if len(body) > LARGEST_ANSWER:
                        raise httpx2.ReadError(f"more than {LARGEST_ANSWER:,} bytes")
                    if time.monotonic() > ends:  # a server that drips never times out by itself
                        raise httpx2.ReadTimeout(f"no whole answer within {TIMEOUT:g} s")
            response.stream = httpx2.ByteStream(bytes(body))

        return openai.OpenAI(
            base_url=self.endpoint.url,
            api_key=self.endpoint.key or "none",
            max_retries=RETRIES,
            http_client=httpx2.Client(
                timeout=TIMEOUT,
                follow_redirects=False,  # a redirect would carry the key elsewhere
                headers={"Accept-Encoding": "identity"},
                event_hooks={"request": [before], "response": [after]},
            ),
        )


def question_tokens(text: str) -> int:
    """Tokens that a question costs at most, roughly: no tokenizer is at hand, so a high guess."""
    return OVERHEAD + len(text) // CHARACTERS_PER_TOKEN
