"""The chat client against a real server that is slow, refuses, hangs up and talks nonsense."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from chat_server import KEY, Answer, Server, chat_server, completion

from featlib import FeatlibError
from featlib.describe.chat import (
    Budget,
    BudgetSpent,
    Chat,
    ChatError,
    Endpoint,
    endpoint_from_environment,
    estimate_tokens,
)

QUESTION = [{"role": "user", "content": "which tokens?"}]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with chat_server() as running:
        yield running


def client(server: Server, folder: Path, waits: list[float] | None = None, **options) -> Chat:
    waits = [] if waits is None else waits
    budget = options.pop("budget", Budget(100, 100_000))
    options = {"timeout": 5.0, **options}
    endpoint = Endpoint(server.url, "small", KEY)
    return Chat(endpoint, budget, folder, sleep=waits.append, **options)


def test_a_question_arrives_as_the_protocol_wants_it(server: Server, tmp_path: Path) -> None:
    assert client(server, tmp_path).ask(QUESTION, max_tokens=33) == "fine"
    [asked], [headers] = server.questions, server.headers
    assert asked["path"] == "/v1/chat/completions"
    assert (asked["model"], asked["messages"], asked["max_tokens"]) == ("small", QUESTION, 33)
    assert headers["Authorization"] == f"Bearer {KEY}"


def test_nothing_is_asked_twice_not_even_by_another_client(server: Server, tmp_path: Path) -> None:
    first = client(server, tmp_path)
    assert first.ask(QUESTION) == "fine"
    second = client(server, tmp_path)
    server.reply = lambda question: "another answer"
    assert second.ask(QUESTION) == "fine"
    assert (len(server.questions), second.hits, second.budget.spent_requests) == (1, 1, 0)
    assert second.ask(QUESTION, max_tokens=5) == "another answer"  # another question


def test_a_damaged_transcript_is_asked_for_again(server: Server, tmp_path: Path) -> None:
    client(server, tmp_path).ask(QUESTION)
    [path] = tmp_path.glob("*.json")
    path.write_text(path.read_text()[:40])
    assert client(server, tmp_path).ask(QUESTION) == "fine"
    assert len(server.questions) == 2


@pytest.mark.parametrize(
    "bad",
    [
        Answer(status=500),
        Answer(status=503, body=b"<html>try later</html>"),
        Answer(status=429),
        Answer(b'{"choices": [{"mess', cut=True),
        Answer(b"complete nonsense"),
        Answer(b"[" * 5000),
        Answer(b'{"choices": []}'),
        Answer(b'{"choices": [{"message": {"content": null}}]}'),
        Answer(b"x" * 1_500_000),
        Answer(b"\xff\xfe\x00"),
    ],
    ids=["500", "503", "429", "cut", "garbage", "deep", "empty", "null", "huge", "bytes"],
)
def test_what_may_pass_is_tried_again(server: Server, tmp_path: Path, bad: Answer) -> None:
    server.plan = [bad, bad]
    waits: list[float] = []
    assert client(server, tmp_path, waits).ask(QUESTION) == "fine"
    assert len(server.questions) == 3
    assert waits == [1.0, 2.0]  # longer each time


def test_a_server_that_says_when_is_obeyed_up_to_a_limit(server: Server, tmp_path: Path) -> None:
    soon = formatdate(time.time() + 20, usegmt=True)
    server.plan = [
        Answer(status=429, headers={"Retry-After": header})
        for header in ("7", soon, "99999", "soon")
    ]
    waits: list[float] = []
    client(server, tmp_path, waits).ask(QUESTION)
    assert waits[0] == 7
    assert 15 < waits[1] <= 20
    assert waits[2] == 60
    assert waits[3] == 8


@pytest.mark.parametrize("slow", [{"wait": 2.0}, {"drip": 0.05}], ids=["silent", "dripping"])
def test_a_slow_server_is_left_after_the_timeout(
    server: Server, tmp_path: Path, slow: dict[str, float]
) -> None:
    server.plan = [Answer(completion("late"), **slow)]
    chat = client(server, tmp_path, timeout=0.4)
    assert chat.ask(QUESTION) == "fine"
    assert len(server.questions) == 2


def test_giving_up_names_the_trouble(server: Server, tmp_path: Path) -> None:
    server.plan = [Answer(status=500)] * 9
    with pytest.raises(ChatError, match=r"3 attempts.*status 500"):
        client(server, tmp_path, attempts=3).ask(QUESTION)
    assert len(server.questions) == 3
    assert not list(tmp_path.iterdir())


def test_nobody_listening_is_an_error_for_people(tmp_path: Path) -> None:
    with chat_server() as gone:
        pass
    with pytest.raises(ChatError, match="connection failed"):
        client(gone, tmp_path, attempts=2).ask(QUESTION)


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_a_refusal_is_not_repeated(server: Server, tmp_path: Path, status: int) -> None:
    moved = {"Location": f"{server.url}/elsewhere"}
    server.plan = [Answer(b"no", status=status, headers=moved if status == 302 else {})]
    with pytest.raises(ChatError, match=f"status {status}.*FEATLIB_CHAT_KEY"):
        client(server, tmp_path).ask(QUESTION)
    assert len(server.questions) == 1  # a redirect would carry the key elsewhere


def test_the_key_is_written_nowhere(server: Server, tmp_path: Path) -> None:
    chat = client(server, tmp_path)
    server.reply = lambda question: f"your key is {KEY}"
    assert KEY not in chat.ask(QUESTION)
    server.plan = [Answer(f"bad key {KEY}".encode(), status=401)]
    with pytest.raises(ChatError) as refused:
        chat.ask([{"role": "user", "content": "again"}])
    assert KEY not in str(refused.value)
    assert KEY not in repr(chat)
    files = list(tmp_path.iterdir())
    assert files
    assert all(KEY not in path.read_text() for path in files)
    assert "127.0.0.1" not in "".join(path.read_text() for path in files)


def test_useless_answers_are_not_kept(server: Server, tmp_path: Path) -> None:
    server.plan = [Answer(completion("eleven"))]
    server.reply = lambda question: "11"
    assert client(server, tmp_path).ask(QUESTION, accept=int) == "11"
    [path] = tmp_path.glob("*.json")
    assert json.loads(path.read_text())["answer"] == "11"


def test_no_request_is_sent_beyond_the_budget(server: Server, tmp_path: Path) -> None:
    budget = Budget(requests=2, tokens=10_000)
    chat = client(server, tmp_path, budget=budget)
    for n in range(2):
        chat.ask([{"role": "user", "content": str(n)}])
    with pytest.raises(BudgetSpent, match="2 of 2 requests"):
        chat.ask([{"role": "user", "content": "one more"}])
    assert len(server.questions) == 2
    assert chat.ask([{"role": "user", "content": "0"}]) == "fine"  # known answers stay free


def test_retries_count(server: Server, tmp_path: Path) -> None:
    server.plan = [Answer(status=500)] * 9
    with pytest.raises(BudgetSpent):
        client(server, tmp_path, budget=Budget(3, 10**6)).ask(QUESTION)
    assert len(server.questions) == 3


def test_tokens_are_counted_as_the_server_says_else_as_estimated(
    server: Server, tmp_path: Path
) -> None:
    budget = Budget(10, 10_000)
    chat = client(server, tmp_path, budget=budget)
    chat.ask(QUESTION, max_tokens=50)
    assert budget.spent_tokens == 7
    server.plan = [Answer(completion("fine", tokens=None))]
    chat.ask(QUESTION, max_tokens=51)
    assert budget.spent_tokens == 7 + estimate_tokens(QUESTION) + 51
    server.plan = [Answer(completion("fine", tokens=-5))]  # a server cannot give tokens back
    chat.ask(QUESTION, max_tokens=52)
    assert budget.spent_tokens == 7 + 2 * estimate_tokens(QUESTION) + 51 + 52
    with pytest.raises(BudgetSpent):
        chat.ask(QUESTION, max_tokens=20_000)
    assert len(server.questions) == 3


def test_the_environment_names_the_endpoint() -> None:
    assert endpoint_from_environment({}) is None
    named = {"FEATLIB_CHAT_URL": "https://host/v1", "FEATLIB_CHAT_MODEL": "m"}
    assert endpoint_from_environment(named) == Endpoint("https://host/v1", "m")
    assert endpoint_from_environment({**named, "FEATLIB_CHAT_KEY": KEY}).key == KEY


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
