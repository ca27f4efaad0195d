"""Fixtures that several test modules share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("busy", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("busy")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, one for the whole session; skips where there is none."""
    pytest.importorskip("playwright")
    from browser import find_chromium, open_browser

    if find_chromium() is None:
        pytest.skip("no Chromium: install Debian's chromium, or name one in $CHROMIUM")
    with open_browser() as opened:
        yield opened
