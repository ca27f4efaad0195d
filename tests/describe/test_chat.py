"""The chat client against a real server that is slow, refuses, hangs up and talks nonsense."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from chat_server import KEY, Answer, Server, completion

from featlib import FeatlibError
from featlib.describe import chat as chat_lib
from featlib.describe.chat import (
    RETRIES,
    Budget,
    BudgetSpent,
    Chat,
    ChatError,
    Endpoint,
    endpoint_from_environment,
    question_tokens,
)

CUT = Answer(b'{"choices": [{"mess', cut=True)


def client(server: Server, folder: Path, budget: Budget | None = None) -> Chat:
    return Chat(Endpoint(server.url, "small", KEY), budget or Budget(100, 100_000), folder)


def ask(chat: Chat, content: str = "which tokens?", max_tokens: int = 400) -> str:
    return chat.ask("be brief", content, max_tokens=max_tokens)


@pytest.fixture
def chat(server, tmp_path) -> Chat:
    return client(server, tmp_path)


def test_a_question_arrives_as_the_protocol_wants_it_and_nothing_else_leaves(
    server, chat, monkeypatch
):
    for name, value in zip(chat_lib.VARIABLES, (server.url, "small", KEY), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OPENAI_ORG_ID", "ours")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: mine")
    assert endpoint_from_environment() == chat.endpoint
    assert ask(chat, max_tokens=33) == "fine"
    [asked], [headers] = server.questions, server.headers
    assert asked["path"] == "/v1/chat/completions"
    assert (asked["model"], asked["max_tokens"]) == ("small", 33)
    said = [(m["role"], m["content"]) for m in asked["messages"]]
    assert said == [("system", "be brief"), ("user", "which tokens?")]
    sent = {name.lower(): value for name, value in headers.items()}
    assert sent["authorization"] == f"Bearer {KEY}"
    assert set(sent) <= chat_lib.TOLD


def test_nothing_is_asked_twice_not_even_by_another_client(server, chat, tmp_path):
    assert ask(chat) == "fine"
    second = client(server, tmp_path)
    server.reply = lambda question: "another answer"
    assert ask(second) == "fine"
    assert (len(server.questions), second.budget.spent_requests) == (1, 0)
    assert ask(second, max_tokens=5) == "another answer"  # another question
    for path in tmp_path.glob("*.json"):  # a damaged transcript is asked for again
        path.write_text(path.read_text()[:40])
    assert ask(second) == "another answer"


@pytest.mark.parametrize("bad", [Answer(status=500), Answer(status=429), CUT])
def test_what_may_pass_is_tried_again_within_the_budget(server, chat, tmp_path, bad):
    server.plan = [bad, bad]
    assert ask(chat) == "fine"
    assert len(server.questions) == chat.budget.spent_requests == 3
    server.plan = [bad] * 20
    with pytest.raises(BudgetSpent):
        ask(client(server, tmp_path, Budget(3, 10**6)), "again")
    assert len(server.questions) == 6
    with pytest.raises(ChatError):
        ask(chat, "again")
    assert len(server.questions) == 6 + 1 + RETRIES
    assert len(list(tmp_path.iterdir())) == 1  # nothing is kept of a failure


@pytest.mark.parametrize(
    "bad",
    [
        Answer(b"complete nonsense"),
        Answer(b"{", headers={"Content-Type": "application/json"}),
        Answer(b"[" * 5000, headers={"Content-Type": "application/json"}),
        Answer(b"[]"),
        Answer(b'{"choices": 5}'),
        Answer(b'{"choices": [{"message": {"content": null}}]}'),
        Answer(b'{"choices": [{"message": {"content": [1]}}]}'),
        Answer(completion("x" * 1_500_000)),
        Answer(completion("squeezed"), headers={"Content-Encoding": "gzip"}),
        *(Answer(b"no", status=status) for status in (400, 401, 404)),
        Answer(status=302, headers={"Location": "http://127.0.0.1:9/v1"}),
    ],
    ids=lambda bad: f"{bad.status}-{bad.body[:20]!r}",
)
def test_what_helps_nobody_ends_in_one_sentence(server, chat, tmp_path, bad):
    server.plan = [bad] * 20
    with pytest.raises(ChatError, match=r"^the chat endpoint [^\n]+ Check FEATLIB_CHAT_URL") as no:
        ask(chat)
    assert len(str(no.value)) < 600 and not list(tmp_path.iterdir())
    assert len(server.questions) <= 1 + RETRIES


@pytest.mark.parametrize("slow", [{"wait": 2.0}, {"drip": 0.05}], ids=["silent", "dripping"])
def test_a_slow_server_is_left_after_the_timeout(server, chat, slow, monkeypatch):
    monkeypatch.setattr(chat_lib, "TIMEOUT", 0.4)
    server.plan = [Answer(completion("late"), **slow)]
    assert ask(chat) == "fine"
    assert len(server.questions) == 2


def test_the_key_is_written_nowhere(server, chat, tmp_path):
    server.reply = lambda question: f"your key is {KEY}"
    assert KEY not in ask(chat)
    server.plan = [Answer(json.dumps({"error": {"message": KEY}}).encode(), status=401)]
    with pytest.raises(ChatError) as refused:
        ask(chat, "again")
    assert refused.value.__suppress_context__  # openai's own error holds what the server said
    assert KEY not in f"{refused.value} {chat!r}"
    [transcript] = tmp_path.iterdir()
    assert KEY not in transcript.read_text()
    assert "127.0.0.1" not in transcript.read_text()


def test_tokens_are_counted_as_the_server_says_else_as_estimated(server, chat):
    ask(chat, max_tokens=50)
    assert chat.budget.spent_tokens == 7
    guess = question_tokens("be briefwhich tokens?")
    # a server that says nothing, or would give tokens back
    server.plan = [Answer(completion("fine", tokens=None)), Answer(completion("fine", tokens=-5))]
    ask(chat, max_tokens=51)
    ask(chat, max_tokens=52)
    assert chat.budget.spent_tokens == 7 + 2 * guess + 51 + 52
    with pytest.raises(BudgetSpent):
        ask(chat, max_tokens=200_000)
    assert len(server.questions) == 3
    assert ask(chat, max_tokens=50) == "fine"  # known answers stay free


@pytest.mark.parametrize(
    ("url", "model", "key"),
    [
        ("host/v1", "m", ""),
        ("ftp://host", "m", ""),
        (f"https://me:{KEY}@host/v1", "m", ""),
        ("https://host", "", ""),
        ("https://host", "m", f"{KEY}\n"),
    ],
)
def test_a_wrong_endpoint_is_refused_without_naming_the_key(url, model, key):
    with pytest.raises(FeatlibError, match="FEATLIB_CHAT") as refused:
        Endpoint(url, model, key)
    assert KEY not in str(refused.value)


def test_openai_is_imported_only_by_who_asks():
    code = "import sys, featlib.describe.chat_protocol; print('openai' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False"
