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
    ATTEMPTS,
    Budget,
    BudgetSpent,
    Chat,
    ChatError,
    Endpoint,
    endpoint_from_environment,
    estimate_tokens,
)

QUESTION = [{"role": "user", "content": "which tokens?"}]


def client(server: Server, folder: Path, budget: Budget | None = None) -> Chat:
    return Chat(Endpoint(server.url, "small", KEY), budget or Budget(100, 100_000), folder)


def ask(chat: Chat, content: str = "which tokens?", max_tokens: int = 400) -> str:
    return chat.ask([{"role": "user", "content": content}], str, max_tokens=max_tokens)


def test_a_question_arrives_as_the_protocol_wants_it_and_nothing_else_leaves(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "ours")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: mine")
    assert ask(client(server, tmp_path), max_tokens=33) == "fine"
    [asked], [headers] = server.questions, server.headers
    assert asked["path"] == "/v1/chat/completions"
    assert (asked["model"], asked["messages"], asked["max_tokens"]) == ("small", QUESTION, 33)
    sent = {name.lower(): value for name, value in headers.items()}
    assert sent["authorization"] == f"Bearer {KEY}"
    assert set(sent) <= chat_lib.HEADERS


def test_nothing_is_asked_twice_not_even_by_another_client(server: Server, tmp_path: Path) -> None:
    assert ask(client(server, tmp_path)) == "fine"
    second = client(server, tmp_path)
    server.reply = lambda question: "another answer"
    assert ask(second) == "fine"
    assert (len(server.questions), second.hits, second.budget.spent_requests) == (1, 1, 0)
    assert ask(second, max_tokens=5) == "another answer"  # another question
    for path in tmp_path.glob("*.json"):  # a damaged transcript is asked for again
        path.write_text(path.read_text()[:40])
    assert ask(second) == "another answer"


@pytest.mark.parametrize(
    "bad",
    [
        Answer(status=500),
        Answer(status=429),
        Answer(b'{"choices": [{"mess', cut=True),
        Answer(b"complete nonsense"),
        Answer(b"[" * 5000, headers={"Content-Type": "application/json"}),
        Answer(b"[]"),
        Answer(b'{"choices": 5}'),
        Answer(b'{"choices": [{"message": {"content": null}}]}'),
        Answer(b'{"choices": [{"message": {"content": [1]}}]}'),
        Answer(b"x" * 1_500_000),
        Answer(completion("fine"), headers={"Content-Encoding": "gzip"}),
    ],
    ids=lambda bad: f"{bad.status}-{bad.body[:20]!r}",
)
def test_what_may_pass_is_tried_again(server: Server, tmp_path: Path, bad: Answer) -> None:
    server.plan = [bad, bad]
    assert ask(client(server, tmp_path)) == "fine"
    assert len(server.questions) == 3


@pytest.mark.parametrize("slow", [{"wait": 2.0}, {"drip": 0.05}], ids=["silent", "dripping"])
def test_a_slow_server_is_left_after_the_timeout(
    server: Server, tmp_path: Path, slow: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_lib, "TIMEOUT", 0.4)
    server.plan = [Answer(completion("late"), **slow)]
    assert ask(client(server, tmp_path)) == "fine"
    assert len(server.questions) == 2


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Answer(status=500), "status 500"),
        (Answer(b"x" * 1_500_000), "1,000,000 bytes"),
        (Answer(b"nonsense"), "not a chat completion"),
        (Answer(b"{", cut=True), "does not answer"),
    ],
)
def test_giving_up_names_the_trouble_and_keeps_nothing(
    server: Server, tmp_path: Path, bad: Answer, said: str
) -> None:
    server.plan = [bad] * 9
    with pytest.raises(BudgetSpent):  # attempts that fail count
        ask(client(server, tmp_path, Budget(3, 10**6)))
    assert len(server.questions) == 3
    server.plan = [bad] * 9
    with pytest.raises(ChatError, match=said):
        ask(client(server, tmp_path))
    assert len(server.questions) == 3 + ATTEMPTS
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_a_refusal_is_not_repeated(server: Server, tmp_path: Path, status: int) -> None:
    moved = {"Location": f"{server.url}/elsewhere"}
    server.plan = [Answer(b"no", status=status, headers=moved if status == 302 else {})]
    with pytest.raises(ChatError, match=f"status {status}.*FEATLIB_CHAT_KEY"):
        ask(client(server, tmp_path))
    assert len(server.questions) == 1  # a redirect would carry the key elsewhere


def test_the_key_is_written_nowhere(server: Server, tmp_path: Path) -> None:
    chat = client(server, tmp_path)
    server.reply = lambda question: f"your key is {KEY}"
    assert KEY not in ask(chat)
    server.plan = [Answer(json.dumps({"error": {"message": KEY}}).encode(), status=401)]
    with pytest.raises(ChatError) as refused:
        ask(chat, "again")
    assert refused.value.__suppress_context__  # openai's own error holds what the server said
    assert KEY not in f"{refused.value} {chat!r}"
    files = list(tmp_path.iterdir())
    assert files
    assert all(KEY not in path.read_text() for path in files)
    assert "127.0.0.1" not in "".join(path.read_text() for path in files)


def test_useless_answers_are_not_kept(server: Server, tmp_path: Path) -> None:
    server.plan = [Answer(completion("eleven"))]
    server.reply = lambda question: "11"
    assert client(server, tmp_path).ask(QUESTION, int, max_tokens=9) == 11
    [path] = tmp_path.glob("*.json")
    assert json.loads(path.read_text())["answer"] == "11"


def test_no_request_is_sent_beyond_the_budget(server: Server, tmp_path: Path) -> None:
    chat = client(server, tmp_path, Budget(requests=2, tokens=10_000))
    for n in range(2):
        ask(chat, str(n))
    with pytest.raises(BudgetSpent, match="2 of 2 requests"):
        ask(chat, "one more")
    assert len(server.questions) == 2
    assert ask(chat, "0") == "fine"  # known answers stay free


def test_tokens_are_counted_as_the_server_says_else_as_estimated(
    server: Server, tmp_path: Path
) -> None:
    budget = Budget(10, 10_000)
    chat = client(server, tmp_path, budget)
    ask(chat, max_tokens=50)
    assert budget.spent_tokens == 7
    server.plan = [Answer(status=429), Answer(completion("fine", tokens=None))]
    ask(chat, max_tokens=51)  # what was turned away costs nothing
    assert budget.spent_tokens == 7 + estimate_tokens(QUESTION) + 51
    server.plan = [Answer(completion("fine", tokens=-5))]  # a server cannot give tokens back
    ask(chat, max_tokens=52)
    assert budget.spent_tokens == 7 + 2 * estimate_tokens(QUESTION) + 51 + 52
    with pytest.raises(BudgetSpent):
        ask(chat, max_tokens=20_000)
    assert len(server.questions) == 4


def test_the_environment_names_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(chat_lib.VARIABLES, ("https://host/v1", "m", KEY), strict=True):
        monkeypatch.setenv(name, value)
    assert endpoint_from_environment() == Endpoint("https://host/v1", "m", KEY)


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
def test_a_wrong_endpoint_is_refused_without_naming_the_key(url: str, model: str, key: str) -> None:
    with pytest.raises(FeatlibError, match="FEATLIB_CHAT") as refused:
        Endpoint(url, model, key)
    assert KEY not in str(refused.value)


def test_openai_is_imported_only_by_who_asks() -> None:
    code = "import sys, featlib.describe.chat_protocol; print('openai' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False"
