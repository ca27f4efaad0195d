"""A chat model behind an OpenAI-compatible endpoint: asked carefully, and never twice.

The endpoint is named by three environment variables: FEATLIB_CHAT_URL (such as
https://host/v1), FEATLIB_CHAT_MODEL, and FEATLIB_CHAT_KEY where it wants one. The key goes into
one header of a request and nowhere else: not into transcripts, errors or notebooks.

The `openai` package sends a question, and again where that can help (too many requests, server
errors, a connection that is cut). Here is what it leaves open: every answer is kept on disk under a
hash of the question, so a run that is repeated or resumed pays for new questions only; `Budget` is
an upper bound, checked before each request is sent, a failing one included; no redirect is
followed, no answer may be longer or take longer than the limits below.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from featlib import FeatlibError
from featlib.run import write_json

VARIABLES = ("FEATLIB_CHAT_URL", "FEATLIB_CHAT_MODEL", "FEATLIB_CHAT_KEY")
ATTEMPTS = 5  # to get an answer at all, and to get one that is of use
TIMEOUT = 60.0  # seconds for a whole answer, not for one packet of it
LARGEST_ANSWER = 1_000_000  # bytes; a longer one is broken, or means harm
CHARACTERS_PER_TOKEN = 2  # a low guess, so that estimates of cost are high ones
OVERHEAD = 16  # tokens a message costs beside its text
HEADERS = frozenset(  # that leave this machine; openai would also tell what the machine is
    {"host", "connection", "accept", "accept-encoding", "content-type", "content-length"}
    | {"user-agent", "authorization"}
)
Message = dict[str, str]
Parsed = TypeVar("Parsed")


class BudgetSpent(FeatlibError):
    """The next request could cost more than is left."""


class ChatError(FeatlibError):
    """The endpoint refuses, or gave no usable answer in any attempt."""


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
    hits: int = 0  # questions answered from the cache
    _reserved: int = 0  # tokens that each request of the present question may cost

    def ask(
        self, messages: Sequence[Message], parse: Callable[[str], Parsed], *, max_tokens: int
    ) -> Parsed:
        """What `parse` makes of the model's answer to `messages`.

        `parse` raises ValueError for an answer that is of no use (such as one in the wrong form),
        which is asked for again, and not kept. Raises `BudgetSpent` before a request that could
        cost too much, and `ChatError` where no attempt succeeded.
        """
        body = {
            "model": self.endpoint.model,
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        # All that decides the answer names it; the endpoint's address and key do not.
        name = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        place = self.cache / f"{name}.json"
        unreadable = (OSError, ValueError, LookupError, TypeError, RecursionError)
        with contextlib.suppress(*unreadable):  # a damaged one is asked for again
            record = json.loads(place.read_text(encoding="utf-8"))
            if record["question"] == body:
                known = parse(record["answer"])
                self.hits += 1
                return known
        self._reserved = estimate_tokens(messages) + max_tokens
        for _ in range(ATTEMPTS):
            try:
                answer, used = self._send(body)
                parsed = parse(answer)
            except FeatlibError:
                raise
            except ValueError as error:
                trouble = self._without_key(str(error))[:200]
                continue
            write_json(place, {"question": body, "answer": answer, "tokens": used})
            return parsed
        raise ChatError(f"no answer in {ATTEMPTS} attempts was of any use; the last: {trouble}")

    def _send(self, body: dict[str, Any]) -> tuple[str, int | None]:
        """The answer, and the tokens that the server says it used. ValueError: it is no answer."""
        import openai

        try:
            reply = self._client.chat.completions.create(**body)
            answer = reply.choices[0].message.content
        except openai.APIStatusError as error:
            raise ChatError(
                f"the chat endpoint answers with status {error.status_code}: "
                f"{self._without_key(error.response.text)[:300]!r}. Check {', '.join(VARIABLES)}."
            ) from None
        except openai.APIConnectionError as error:
            why = self._without_key(f"{type(error.__cause__).__name__}: {error.__cause__}")[:200]
            raise ChatError(f"the chat endpoint does not answer ({why})") from None
        except (AttributeError, LookupError, TypeError, RecursionError):
            raise ValueError("not a chat completion") from None
        if not isinstance(answer, str):
            raise ValueError("an answer without text")
        used = getattr(reply.usage, "total_tokens", None)
        if isinstance(used, int) and 0 < used < 10**7:  # a server cannot give tokens back
            self.budget.spent_tokens += used - self._reserved
        return self._without_key(answer), used

    @cached_property
    def _client(self) -> Any:
        import httpx2
        import openai

        def before(request: httpx2.Request) -> None:
            self.budget.reserve(self._reserved)
            for name in set(request.headers) - HEADERS:
                del request.headers[name]

        def after(response: httpx2.Response) -> None:
            if response.status_code == 429:  # turned away before any work: costs no tokens
                self.budget.spent_tokens -= self._reserved
            if "content-encoding" in response.headers:
                raise httpx2.ReadError("compressed, though asked not to be")
            body, ends, stream = bytearray(), time.monotonic() + TIMEOUT, response.stream
            assert isinstance(stream, httpx2.SyncByteStream)
            with contextlib.closing(stream):
                for part in stream:
                    body += part
                    if len(body) > LARGEST_ANSWER:
                        raise httpx2.ReadError(f"more than {LARGEST_ANSWER:,} bytes")
                    if time.monotonic() > ends:  # a server that drips never times out by itself
                        raise httpx2.ReadTimeout(f"no whole answer within {TIMEOUT:g} s")
            response.stream = httpx2.ByteStream(bytes(body))

        line = httpx2.Client(
            timeout=TIMEOUT,
            follow_redirects=False,  # a redirect would carry the key elsewhere
            headers={"Accept-Encoding": "identity"},
            event_hooks={"request": [before], "response": [after]},
        )
        return openai.OpenAI(
            base_url=self.endpoint.url,
            api_key=self.endpoint.key or "none",
            max_retries=ATTEMPTS - 1,
            timeout=TIMEOUT,
            http_client=line,
        )

    def _without_key(self, text: str) -> str:
        return text.replace(self.endpoint.key, "[key]") if self.endpoint.key else text


def estimate_tokens(messages: Sequence[Message]) -> int:
    """Tokens that `messages` cost at most, roughly: no tokenizer is at hand, so a high guess."""
    return sum(OVERHEAD + len(m["content"]) // CHARACTERS_PER_TOKEN + 1 for m in messages)
