"""Sparse streams, their counts and contexts, against dense NumPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted import sparse_features
from small import random_ids, tiny_model

from featlib import FeatlibError
from featlib.dictionaries.architectures import ARCHITECTURES
from featlib.dictionaries.features import (
    activation_histograms,
    calibrate,
    encode_batches,
    feature_activations,
    load_features,
    save_features,
    token_windows,
    tokens_fired_on,
)
from featlib.dictionaries.recipes import read_common_text
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.models.forward import harvest
from featlib.text.tokens import TokenBlocks

SIDE = st.integers(0, 9)


def random_autoencoder(d_in: int, d_sae: int = 80, **options) -> SparseAutoencoder:
    W = torch.randn(d_in, d_sae, generator=torch.Generator().manual_seed(0))
    return SparseAutoencoder(W, torch.zeros(d_sae), W.T.contiguous(), torch.zeros(d_in), **options)


@pytest.fixture(scope="module")
def read():
    """A model, and blocks of ids for it."""
    return tiny_model(context=8), random_ids(40, 8)


@pytest.mark.parametrize("d_sae", [13, 80], ids=["few", "many"])
def test_a_real_model_and_autoencoder_encode_in_step(read, d_sae):
    """Row t is token t: the same as each block alone through the hook and the dense encoder."""
    model, ids = read
    sae = random_autoencoder(24, d_sae, threshold=0.5, scale=300.0)
    rows = [sae.encode(x * sae.scale) for block in ids for x in harvest(model, block[None])]
    dense = torch.cat(rows).detach().numpy()
    assert 0.05 < (dense > 0).mean() < 0.95
    f = encode_batches(harvest(model, ids), sae)
    np.testing.assert_allclose(f.matrix.toarray(), dense, rtol=1e-4, atol=1e-4)
    assert (f.matrix.dtype, f.matrix.indices.dtype) == (np.float32, np.int32)
    assert (f.n_tokens, f.d_sae) == (ids.size, d_sae)


@pytest.mark.parametrize(("l0", "own"), [(2, True), (5, False)])
def test_thresholds_make_any_autoencoder_as_sparse_as_asked(read, l0, own):
    threshold = torch.linspace(0.1, 2, 80) if own else 0.5
    sae = random_autoencoder(24, threshold=threshold, scale=300.0)
    before = sae.threshold
    assert abs(encode_batches(harvest(read[0], read[1]), sae).l0 - l0) > 1
    calibrate(sae, (x * sae.scale for x in harvest(*read)), l0)
    assert encode_batches(harvest(read[0], read[1]), sae).l0 == pytest.approx(l0, abs=0.05)
    moved = sae.threshold - before
    torch.testing.assert_close(moved, moved[:1].expand(80))  # all by one number
    calibrate(sae, (x * sae.scale for x in harvest(*read)), sae.d_sae)
    assert sae.threshold.min() == 0, "no negative activation passes"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_common_text_is_read_equally_sparsely(read, name):
    model, ids = read
    sae = random_autoencoder(24, architecture=name, k=2, scale=300.0)
    stream = TokenBlocks(ids, np.zeros_like(ids))
    before = encode_batches(harvest(model, ids), sae).l0
    (f,) = read_common_text(model, [sae], stream, k=2)
    assert f.l0 == pytest.approx(before if name == "relu" else 2, abs=0.05)


def test_impossible_activations_are_refused_and_untidy_ones_cleaned():
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(FeatlibError, match="finite and at least 0"):
            feature_activations(np.array([[0.0, bad]]))
    m = sp.coo_array(([1.0, 2.0, 0.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    f = feature_activations(m)
    assert f.matrix.nnz == 1 and f.firings.tolist() == [0, 1]


@pytest.mark.parametrize("d_sae", [17, 70_001], ids=["16 bits", "more"])
def test_saving_and_loading_keeps_every_bit(tmp_path, d_sae):
    f = feature_activations(sparse_features(40, d_sae, 0.2, np.random.default_rng(3)))
    path = tmp_path / "features" / "base.seed-0.npz"
    save_features(f, path)
    g = load_features(path)
    assert g.matrix.shape == f.matrix.shape
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(g.matrix, part), getattr(f.matrix, part))
        assert getattr(g.matrix, part).dtype == getattr(f.matrix, part).dtype
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_damaged_file_is_named(tmp_path):
    path, cut, torn = (tmp_path / f"{name}.npz" for name in ("f", "cut", "torn"))
    save_features(feature_activations(np.eye(40, 17)), path)
    cut.write_bytes(path.read_bytes()[:-200])
    arrays = dict(np.load(path))
    np.savez(torn, **{name: array for name, array in arrays.items() if name != "indptr"})
    arrays["indices"][0] = 99
    np.savez(path, **arrays)
    for damaged in (path, cut, torn, tmp_path / "none.npz"):
        with pytest.raises(FeatlibError, match=damaged.name):
            load_features(damaged)


def test_counts_and_histograms_equal_numpys():
    dense = sparse_features(300, 6, 0.4, np.random.default_rng(5))
    dense[:, 2] = 0
    f = feature_activations(dense)
    assert f.l0 == pytest.approx((dense > 0).sum(1).mean())
    counts, maxima = activation_histograms(f, bins=7)
    for firings in (f.firings, counts.sum(1)):
        np.testing.assert_array_equal(firings, (dense > 0).sum(0))
    np.testing.assert_array_equal(maxima, dense.max(0))
    for j in (0, 1, 3, 4, 5):
        values = dense[:, j][dense[:, j] > 0]
        expected, _ = np.histogram(values, bins=7, range=(0, values.max()))
        np.testing.assert_array_equal(counts[j], expected)


def test_tokens_are_told_by_summed_activation():
    f = feature_activations(np.array([[1, 0], [0, 5], [2, 0], [4, 0], [0, 1]], "f4"))
    ids = np.array([[7, 1, 7, 2, 0]])
    assert tokens_fired_on(f, ids, 1) == [[[2, 571]], [[1, 833]]]
    assert tokens_fired_on(f, ids, 9) == [[[2, 571], [7, 429]], [[1, 833], [0, 167]]]


@given(st.integers(1, 5), st.integers(1, 7), SIDE, SIDE, st.integers(0, 2**32 - 1))
def test_windows_are_the_largest_that_stay_in_document_and_block(b, c, before, after, seed):
    documents = np.random.default_rng(seed).integers(0, 3, b * c)
    documents = np.sort(documents).reshape(b, c)
    flat, tokens = documents.reshape(-1), np.arange(b * c)
    starts, stops = token_windows(documents, tokens, before, after)
    for t, start, stop in zip(tokens, starts, stops, strict=True):

        def allowed(u, t=t):
            return 0 <= u < b * c and flat[u] == flat[t] and u // c == t // c

        assert start <= t < stop
        assert all(allowed(u) for u in range(start, stop))
        assert t - start == before or not allowed(start - 1)
        assert stop - 1 - t == after or not allowed(stop)
