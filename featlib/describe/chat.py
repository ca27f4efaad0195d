"""A chat model behind an OpenAI-compatible endpoint: asked carefully, and never twice.

The endpoint is named by three environment variables: FEATLIB_CHAT_URL (such as
https://host/v1), FEATLIB_CHAT_MODEL, and FEATLIB_CHAT_KEY where it wants one. The key goes into
one header of a request and nowhere else: not into transcripts, errors or notebooks.

`Chat.ask` waits and asks again where that can help (too many requests, server errors, a connection
that is cut, an answer that is no answer), up to a limit. Every answer is kept on disk under a hash
of the question, so a run that is repeated or resumed pays for new questions only. `Budget` is an
upper bound, checked before each request is sent; a request that fails counts as well.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from featlib import FeatlibError
from featlib.run import atomic_path

VARIABLES = ("FEATLIB_CHAT_URL", "FEATLIB_CHAT_MODEL", "FEATLIB_CHAT_KEY")
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})  # asking again may help
LARGEST_ANSWER = 1_000_000  # bytes; a longer one is broken, or means harm
CHARACTERS_PER_TOKEN = 2  # a low guess, so that estimates of cost are high ones
_OVERHEAD = 16  # tokens a message costs beside its text


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
        try:
            parts = httpx.URL(self.url)
        except (httpx.InvalidURL, TypeError):
            parts = httpx.URL("")
        if parts.scheme not in ("http", "https") or not parts.host or parts.userinfo:
            raise FeatlibError(
                "the chat model's address (FEATLIB_CHAT_URL) must look like https://host/v1, with "
                "no user or password in it; a key belongs in FEATLIB_CHAT_KEY"
            )
        if not self.model:
            raise FeatlibError("name the chat model: set FEATLIB_CHAT_MODEL")
        if not (self.key.isascii() and self.key.isprintable()) or self.key != self.key.strip():
            raise FeatlibError("FEATLIB_CHAT_KEY holds blanks or characters no header can carry")


def endpoint_from_environment(environment: dict[str, str] | None = None) -> Endpoint | None:
    """The endpoint that FEATLIB_CHAT_URL, _MODEL and _KEY name; None where no address is set."""
    values = os.environ if environment is None else environment
    url, model, key = (values.get(name, "") for name in VARIABLES)
    return Endpoint(url, model, key) if url else None


@dataclass
class Budget:
    """What may be spent, and what has been. Safe to share between threads."""

    requests: int
    tokens: int
    spent_requests: int = 0
    spent_tokens: int = 0
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def reserve(self, tokens: int) -> None:
        """Take one request of at most `tokens`, or raise `BudgetSpent` and take nothing."""
        with self._lock:
            if self.spent_requests + 1 > self.requests or self.spent_tokens + tokens > self.tokens:
                raise BudgetSpent(
                    f"the chat budget is spent: {self.spent_requests:,} of {self.requests:,} "
                    f"requests and {self.spent_tokens:,} of {self.tokens:,} tokens are used, the "
                    f"next request may take {tokens:,}. Answers so far are kept; raise "
                    "chat_requests or chat_tokens to go on from here."
                )
            self.spent_requests += 1
            self.spent_tokens += tokens

    def settle(self, reserved: int, used: int) -> None:
        """Replace what was reserved for an answered request by what it did cost."""
        with self._lock:
            self.spent_tokens += used - reserved


Message = dict[str, str]


@dataclass
class Chat:
    """Asks one endpoint; `cache` is the folder of transcripts."""

    endpoint: Endpoint
    budget: Budget
    cache: Path
    timeout: float = 60.0  # seconds for a whole answer, not for one packet of it
    attempts: int = 5
    longest_wait: float = 60.0  # seconds between two attempts
    sleep: Callable[[float], None] = time.sleep
    hits: int = 0  # questions answered from the cache

    def ask(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 400,
        accept: Callable[[str], Any] | None = None,
    ) -> str:
        """The model's answer to `messages`.

        `accept` raises ValueError for an answer that is of no use (such as one in the wrong form);
        it counts as a failed attempt, and is not kept. Raises `BudgetSpent` before a request that
        could cost too much, and `ChatError` where no attempt succeeded.
        """
        body = {
            "model": self.endpoint.model,
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        place = self.cache / f"{question_hash(body)}.json"
        kept = _read_transcript(place, body)
        if kept is not None and _usable(kept, accept):
            self.hits += 1
            return kept
        reserved = estimate_tokens(messages) + max_tokens
        trouble, wait = "", 0.0
        for attempt in range(self.attempts):
            if attempt:
                self.sleep(min(max(wait, 2.0 ** (attempt - 1)), self.longest_wait))
            self.budget.reserve(reserved)
            try:
                answer, used = self._send(body)
                if used is not None:
                    self.budget.settle(reserved, used)
                if accept is not None:
                    accept(answer)
            except _Passing as error:
                if error.free:
                    self.budget.settle(reserved, 0)
                trouble, wait = str(error), error.wait
                continue
            except FeatlibError:
                raise
            except ValueError as error:
                trouble, wait = f"the answer is of no use: {str(error)[:200]}", 0.0
                continue
            record = {"question": body, "answer": self._without_key(answer), "tokens": used}
            with atomic_path(place) as tmp:
                tmp.write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")
            return record["answer"]
        raise ChatError(
            f"the chat model gave no usable answer in {self.attempts} attempts; the last: "
            f"{self._without_key(trouble)}"
        )

    def _send(self, body: dict[str, Any]) -> tuple[str, int | None]:
        """One request. Returns the answer and the tokens that the server says it used."""
        headers = {"Authorization": f"Bearer {self.endpoint.key}"} if self.endpoint.key else {}
        address = self.endpoint.url.rstrip("/") + "/chat/completions"
        ends = time.monotonic() + self.timeout
        content = bytearray()
        try:
            # A redirect is not followed: it would carry the key elsewhere.
            with (
                httpx.Client(timeout=self.timeout, follow_redirects=False) as client,
                client.stream("POST", address, json=body, headers=headers) as response,
            ):
                for part in response.iter_bytes():
                    content += part
                    if len(content) > LARGEST_ANSWER:
                        raise _Passing(f"an answer of more than {LARGEST_ANSWER:,} bytes")
                    if time.monotonic() > ends:  # a server that drips never times out by itself
                        raise _Passing(f"no whole answer within {self.timeout:g} s")
        except httpx.TimeoutException:
            raise _Passing(f"no answer within {self.timeout:g} s") from None
        except httpx.HTTPError as error:
            raise _Passing(f"connection failed ({type(error).__name__})") from None
        if response.status_code in PASSING:
            status = response.status_code
            raise _Passing(f"status {status}", _retry_after(response.headers), free=status == 429)
        text = bytes(content).decode(errors="replace")
        if response.status_code != 200:
            raise ChatError(
                f"the chat endpoint refuses with status {response.status_code}: "
                f"{self._without_key(text)[:300]!r}. Check {', '.join(VARIABLES)}."
            )
        try:
            reply = json.loads(text)
            answer = reply["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise _Passing("an answer that is no chat completion") from None
        if not isinstance(answer, str):
            raise _Passing("an answer without text")
        return answer, _tokens_used(reply)

    def _without_key(self, text: str) -> str:
        return text.replace(self.endpoint.key, "[key]") if self.endpoint.key else text


class _Passing(Exception):
    """An attempt failed in a way that may pass; `wait`: what the server asked for, seconds.

    `free`: the server turned the request away before any work, so it costs no tokens.
    """

    def __init__(self, what: str, wait: float = 0.0, *, free: bool = False) -> None:
        super().__init__(what)
        self.wait, self.free = wait, free


def estimate_tokens(messages: Sequence[Message]) -> int:
    """Tokens that `messages` cost at most, roughly: no tokenizer is at hand, so a high guess."""
    return sum(_OVERHEAD + len(m["content"]) // CHARACTERS_PER_TOKEN + 1 for m in messages)


def question_hash(body: dict[str, Any]) -> str:
    """Names a question by all that decides its answer; the endpoint's address and key do not."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _read_transcript(path: Path, body: dict[str, Any]) -> str | None:
    """The kept answer, None where there is none that can be read: it is then asked for again."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["question"] == body and isinstance(record["answer"], str):
            return str(record["answer"])
    return None


def _usable(answer: str, accept: Callable[[str], Any] | None) -> bool:
    if accept is not None:
        try:
            accept(answer)
        except ValueError:
            return False
    return True


def _tokens_used(reply: dict[str, Any]) -> int | None:
    """What the server counts, where that is a sensible number."""
    with contextlib.suppress(LookupError, TypeError, AttributeError):
        used = reply["usage"]["total_tokens"]
        if isinstance(used, int) and not isinstance(used, bool) and 0 < used < 10**7:
            return used
    return None


def _retry_after(headers: httpx.Headers) -> float:
    """Seconds that Retry-After asks for, as a number or a date; 0 where that is unclear."""
    value = headers.get("retry-after", "").strip()
    with contextlib.suppress(ValueError):
        seconds = float(value)
        return seconds if 0 <= seconds < 1e6 else 0.0
    with contextlib.suppress(ValueError, TypeError):
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return 0.0
