"""Fixtures of the tests of models: blocks that can be learned, and a model that learned them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import CONTEXT, TRAINING, VOCAB, small_model

from featlib.models.training import train


@pytest.fixture(scope="session")
def ids():
    """Blocks that count upwards from a random start: the next token is always sure."""
    start = np.random.default_rng(0).integers(3, VOCAB, size=(64, 1))
    return ((start + np.arange(CONTEXT)) % VOCAB).astype(np.uint16)


@pytest.fixture(scope="session")
def trained(ids):
    """Not to be changed by tests."""
    model = small_model()
    train(model, ids, n_tokens=30 * 4 * CONTEXT, **TRAINING)
    return model


@pytest.fixture
def float32(monkeypatch):
    """Plain arithmetic, so that oracles agree to rounding."""
    for module in ("loss", "forward"):
        monkeypatch.setattr(f"featlib.models.{module}.compute_dtype", lambda device: torch.float32)
