"""A chat server whose waits between attempts are cut short, and a small atlas."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chat_server import Server, chat_server
from made_atlas import Made


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    import openai._base_client as client

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(client, "INITIAL_RETRY_DELAY", 0.01)
    with chat_server() as running:
        yield running


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("atlas") / "atlas")
