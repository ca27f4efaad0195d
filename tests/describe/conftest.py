"""A small atlas for the tests of this folder."""

from __future__ import annotations

import pytest
from made_atlas import Made


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("atlas") / "atlas")
