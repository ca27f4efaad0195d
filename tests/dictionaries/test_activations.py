import numpy as np
import pytest
import torch

from featlib import FeatlibError
from featlib.dictionaries.activations import (
    HOOK_NAME,
    activation_stats,
    harvest,
    hooked_module,
    shuffled_batches,
)
from featlib.models.mistral import build_model, open_bridge, save_checkpoint
from featlib.text.tokens import train_tokenizer

CONTEXT = 16


@pytest.fixture(scope="module")
def model():
    return build_model(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=24,
        heads=2,
        kv_heads=1,
        context=CONTEXT,
        seed=0,
    )


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(0).integers(3, 300, size=(40, CONTEXT)).astype(np.uint16)


@pytest.fixture(scope="module")
def rows(model, ids):
    return torch.cat(list(harvest(model, ids)))


def sorted_rows(x):
    x = x.numpy()
    return x[np.lexsort(x.T)]


def test_harvest_is_the_gated_product_in_reading_order(model, ids, rows):
    mlp, seen = model.model.layers[0].mlp, []
    handle = mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(input_ids=torch.from_numpy(ids.astype(np.int64)))
    handle.remove()
    x = seen[0].reshape(-1, 16).double()
    gate, up = mlp.gate_proj.weight.detach().double(), mlp.up_proj.weight.detach().double()
    z = x @ gate.T
    torch.testing.assert_close(
        rows.double(), z * torch.sigmoid(z) * (x @ up.T), atol=1e-6, rtol=1e-4
    )


def test_harvest_equals_the_bridge(model, ids, rows, tmp_path):
    tokenizer = train_tokenizer(["some text to learn from, some more"], 300)
    save_checkpoint(model, tokenizer, tmp_path / "checkpoint")
    bridge = open_bridge(tmp_path / "checkpoint")
    with torch.no_grad():
        _, cache = bridge.run_with_cache(
            torch.from_numpy(ids[:4].astype(np.int64)), names_filter=HOOK_NAME
        )
    theirs = cache[HOOK_NAME].reshape(-1, 24)
    torch.testing.assert_close(rows[: len(theirs)], theirs, atol=1e-5, rtol=0)


def test_harvest_does_not_depend_on_its_batches_and_leaves_no_trace(model, ids, rows):
    model.train()
    torch.testing.assert_close(torch.cat(list(harvest(model, ids, batch_size=7))), rows)
    assert model.training
    model.eval()
    stopped = harvest(model, ids, batch_size=7)
    next(stopped)
    stopped.close()
    assert not hooked_module(model)._forward_pre_hooks


def test_bfloat16_rows_are_close(model, ids, rows):
    low = torch.cat(list(harvest(model, ids, dtype=torch.bfloat16)))
    assert low.dtype == torch.bfloat16
    error = (low.float() - rows).norm() / rows.norm()
    assert 1e-4 < error < 0.02
    batch = next(
        shuffled_batches(model, ids, n_tokens=64, batch_size=64, dtype=torch.bfloat16, scale=3.0)
    )
    assert batch.dtype == torch.float32  # and rows keep what bfloat16 left, scaled in float32
    assert torch.equal((batch / 3.0).bfloat16().float() * 3.0, batch)


def test_scaled_activations_have_mean_norm_sqrt_d(model, ids, rows):
    stats = activation_stats(model, ids, batch_size=7)
    assert (rows * stats.scale).norm(dim=1).mean().item() == pytest.approx(24**0.5, rel=1e-5)
    torch.testing.assert_close(stats.mean, rows.mean(0))
    assert stats.n == ids.size


@pytest.mark.parametrize("buffer_tokens", [64, 200, 10_000])
@pytest.mark.parametrize("batch_size", [32, 33])
def test_one_round_gives_each_row_once(model, ids, rows, buffer_tokens, batch_size):
    batches = list(
        shuffled_batches(
            model,
            ids,
            n_tokens=ids.size,
            batch_size=batch_size,
            buffer_tokens=buffer_tokens,
            seed=1,
            scale=2.0,
            harvest_batch=3,
            dtype=torch.float32,
        )
    )
    assert [len(b) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
    given = torch.cat(batches) / 2.0
    np.testing.assert_allclose(sorted_rows(given), sorted_rows(rows), atol=1e-6)
    assert not torch.allclose(given, rows)


def test_more_tokens_than_text_go_round_again(model, ids, rows):
    n = 3 * ids.size + 5
    stream = shuffled_batches(
        model,
        ids,
        n_tokens=n,
        batch_size=50,
        buffer_tokens=100,
        harvest_batch=2,
        dtype=torch.float32,
    )
    given = torch.cat(list(stream))
    assert len(given) == n
    distances = torch.cdist(rows.double(), given.double())
    assert (distances.min(1).values < 1e-5).all()  # every row of the text was given
    assert (distances.min(0).values < 1e-5).all()  # and nothing else


def test_a_seed_is_an_order(model, ids):
    def first(seed):
        return next(shuffled_batches(model, ids, n_tokens=200, batch_size=64, seed=seed))

    assert torch.equal(first(3), first(3))
    assert not torch.equal(first(3), first(4))


def test_a_batch_mixes_blocks_and_the_buffer_bounds_memory(model, ids, rows, monkeypatch):
    read = []
    stream = shuffled_batches(
        model, ids, n_tokens=ids.size, batch_size=32, buffer_tokens=160, seed=0, harvest_batch=1
    )
    module = hooked_module(model)
    handle = module.register_forward_pre_hook(lambda _, args: read.append(args[0].shape[1]))
    given = 0
    blocks = []
    for batch in stream:
        assert sum(read) - given <= 160 + CONTEXT
        given += len(batch)
        nearest = torch.cdist(batch.double(), rows.double()).argmin(1)
        blocks.append(set((nearest // CONTEXT).tolist()))
    handle.remove()
    # 160 tokens are 10 blocks; 32 rows in reading order would be 2, and neighbours.
    assert min(map(len, blocks[:3])) >= 6
    assert max(blocks[0]) - min(blocks[0]) > 20


@pytest.mark.parametrize(
    "bad", [np.zeros((0, 4), np.int64), np.zeros(5, np.int64), np.zeros((2, 3))]
)
def test_what_is_no_block_of_tokens_is_refused(model, bad):
    with pytest.raises(FeatlibError, match=r"\[blocks, context\]"):
        next(harvest(model, bad))


def test_impossible_sizes_are_refused(model, ids):
    with pytest.raises(FeatlibError, match="at least 1"):
        next(shuffled_batches(model, ids, n_tokens=0, batch_size=1))
