"""Rows for training: each token's once a round, mixed over blocks, in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import random_ids, tiny_model

from featlib import FeatlibError
from featlib.dictionaries.activations import activation_scale, shuffled_batches
from featlib.models import forward
from featlib.models.forward import BATCH, harvest, hooked_module

CONTEXT = 16


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def ids():
    return random_ids(40)


@pytest.fixture(scope="module")
def rows(model, ids):
    return torch.cat(list(harvest(model, ids)))


@pytest.fixture
def exact(monkeypatch):
    """Read rows in float32."""
    monkeypatch.setattr(
        forward, "autocast_context", lambda device: torch.autocast(device.type, enabled=False)
    )


def give(model, ids, **changes):
    options = {"n_tokens": ids.size, "batch_size": 32, "seed": 1, "scale": 1.0}
    return shuffled_batches(model, ids, **{**options, **changes})


def sorted_rows(x):
    x = x.numpy()
    return x[np.lexsort(x.T)]


def test_scaled_activations_have_mean_norm_sqrt_d(model, ids, rows):
    scale = activation_scale(model, ids)
    assert (rows * scale).norm(dim=1).mean().item() == pytest.approx(24**0.5, rel=1e-5)


def test_a_model_without_activations_is_an_error(ids):
    dead = tiny_model()
    dead.model.layers[0].mlp.up_proj.weight.data.zero_()
    with pytest.raises(FeatlibError, match="not trained"):
        activation_scale(dead, ids)


@pytest.mark.parametrize("buffer_tokens", [64, 200, 10_000])
@pytest.mark.parametrize("batch_size", [32, 33])
def test_one_round_gives_each_row_once(model, ids, rows, buffer_tokens, batch_size, exact):
    batches = list(give(model, ids, batch_size=batch_size, buffer_tokens=buffer_tokens, scale=2.0))
    assert [len(b) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
    given = torch.cat(batches) / 2.0
    np.testing.assert_allclose(sorted_rows(given), sorted_rows(rows), atol=1e-6)
    assert not torch.allclose(given, rows)


def test_more_tokens_than_text_go_round_again(model, ids, rows, exact):
    n = 3 * ids.size + 5
    given = torch.cat(list(give(model, ids, n_tokens=n, batch_size=50, buffer_tokens=100)))
    assert len(given) == n
    distances = torch.cdist(rows.double(), given.double())
    assert (distances.min(1).values < 1e-5).all()  # every row of the text was given
    assert (distances.min(0).values < 1e-5).all()  # and nothing else


def test_a_batch_mixes_blocks_and_the_buffer_bounds_memory(model):
    ids, read = random_ids(400), []
    rows = torch.cat(list(harvest(model, ids)))
    handle = hooked_module(model).register_forward_pre_hook(
        lambda _, args: read.append(args[0][..., 0].numel()), prepend=True
    )
    given, blocks = 0, []
    for batch in give(model, ids, buffer_tokens=1600):
        assert sum(read) - given <= 1600 + BATCH * CONTEXT
        given += len(batch)
        nearest = torch.cdist(batch.double(), rows.double()).argmin(1)
        blocks.append(set((nearest // CONTEXT).tolist()))
    handle.remove()
    # 1,600 tokens are 100 blocks; 32 rows in reading order would be 2, and neighbours.
    assert min(map(len, blocks[:3])) >= 20
    assert max(blocks[0]) - min(blocks[0]) > 100
