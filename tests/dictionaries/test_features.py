"""Sparse streams, examples and their contexts, against dense NumPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from featlib import FeatlibError
from featlib.dictionaries import features
from featlib.dictionaries.features import (
    activation_histograms,
    all_top_examples,
    densities,
    encode_batches,
    encode_stream,
    feature_activations,
    firing_counts,
    load_features,
    mean_l0,
    quantile_examples,
    save_features,
    threshold_for_l0,
    token_windows,
    top_examples,
)


class FakeAutoencoder:
    """ReLU of a fixed linear map, with a scale that must be applied."""

    scale = 0.5

    def __init__(self, d_in: int, d_sae: int) -> None:
        self.W = torch.from_numpy(np.random.default_rng(0).normal(size=(d_in, d_sae))).float()

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ self.W - 1)


def sparse_stream(n: int, d: int, density: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random((n, d)) < density, rng.exponential(size=(n, d)), 0).astype("f4")


# --- encoding -------------------------------------------------------------------------------------


def test_encoding_by_batches_equals_one_dense_pass():
    sae = FakeAutoencoder(7, 13)
    raw = torch.randn(50, 7, generator=torch.Generator().manual_seed(1))
    dense = sae.encode(raw * sae.scale).numpy()
    assert 0 < (dense > 0).mean() < 0.9
    f = encode_batches(raw.split(8), sae)
    np.testing.assert_array_equal(f.matrix.toarray(), dense)
    assert f.matrix.dtype == np.float32
    assert f.matrix.indices.dtype == np.int32
    assert (f.n_tokens, f.d_sae) == (50, 13)


def test_encode_stream_harvests_the_blocks_in_order(monkeypatch):
    ids = np.arange(12).reshape(4, 3)

    def harvest(model, ids, *, batch_size):
        for start in range(0, len(ids), batch_size):
            part = torch.from_numpy(ids[start : start + batch_size].reshape(-1, 1)).float()
            yield part * torch.ones(1, 5) * model

    monkeypatch.setattr(features, "harvest", harvest)

    class Doubler:
        scale = 3.0

        def encode(self, x):
            return x[:, :2] * 2

    f = encode_stream(10.0, Doubler(), ids, batch_size=3)
    np.testing.assert_array_equal(f.matrix.toarray()[:, 1], np.arange(12) * 10 * 3 * 2)


def test_a_faster_sparse_encoder_is_used_and_gives_the_same():
    class Fast(FakeAutoencoder):
        def encode_sparse(self, x):
            dense = super().encode(x).numpy()

            class Codes:
                @staticmethod
                def to_csr():
                    return sp.csr_array(dense)

            return Codes

        def encode(self, x):
            raise AssertionError("the dense encoder ran")

    raw = torch.randn(20, 7, generator=torch.Generator().manual_seed(2))
    slow = encode_batches(raw.split(6), FakeAutoencoder(7, 13))
    fast = encode_batches(raw.split(6), Fast(7, 13))
    np.testing.assert_array_equal(slow.matrix.toarray(), fast.matrix.toarray())


def small_model_and_autoencoder():
    from featlib.dictionaries.sae import SparseAutoencoder
    from featlib.models.mistral import build_model

    model = build_model(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        heads=2,
        kv_heads=1,
        context=8,
        seed=0,
    )
    g = torch.Generator().manual_seed(0)
    W = torch.randn(24, 40, generator=g)
    sae = SparseAutoencoder(
        W, torch.zeros(40), W.T.contiguous(), torch.zeros(24), threshold=0.5, scale=300.0
    )
    ids = np.random.default_rng(0).integers(0, 50, (5, 8))
    return model, sae, ids


def test_a_real_model_and_autoencoder_encode_in_step():
    """Row t is token t: the same as each block alone through the hook and the dense encoder."""
    from featlib.dictionaries.activations import harvest

    model, sae, ids = small_model_and_autoencoder()
    f = encode_stream(model, sae, ids, batch_size=2)
    rows = [sae.encode(x * sae.scale) for b in ids for x in harvest(model, b[None], batch_size=1)]
    dense = torch.cat(rows).detach().numpy()
    assert 0.05 < (dense > 0).mean() < 0.95
    np.testing.assert_allclose(f.matrix.toarray(), dense, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("l0", [2, 5])
def test_a_threshold_makes_any_autoencoder_as_sparse_as_asked(l0):
    model, sae, ids = small_model_and_autoencoder()
    assert abs(mean_l0(encode_stream(model, sae, ids)) - l0) > 1
    sae.threshold = threshold_for_l0(model, sae, ids, l0, batch_size=2)
    assert mean_l0(encode_stream(model, sae, ids)) == pytest.approx(l0, abs=0.05)


def test_a_threshold_never_lets_negative_activations_through():
    model, sae, ids = small_model_and_autoencoder()
    assert threshold_for_l0(model, sae, ids, l0=sae.d_sae) == 0.0


def test_an_empty_stream_is_refused():
    with pytest.raises(FeatlibError, match="empty"):
        encode_batches([], FakeAutoencoder(2, 3))


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_impossible_activations_are_refused(bad):
    with pytest.raises(FeatlibError, match="finite and at least 0"):
        feature_activations(np.array([[0.0, bad]]))


def test_stored_zeros_and_double_entries_are_cleaned():
    m = sp.coo_array(([1.0, 2.0, 0.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    f = feature_activations(m)
    assert f.matrix.nnz == 1
    assert firing_counts(f).tolist() == [0, 1]


# --- files ----------------------------------------------------------------------------------------


def test_saving_and_loading_keeps_every_bit(tmp_path):
    f = feature_activations(sparse_stream(40, 17, 0.2, 3))
    path = tmp_path / "features" / "base.seed-0.npz"
    save_features(f, path)
    g = load_features(path)
    assert g.matrix.shape == f.matrix.shape
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(g.matrix, part), getattr(f.matrix, part))
        assert getattr(g.matrix, part).dtype == getattr(f.matrix, part).dtype
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_more_features_than_16_bits_survive_a_file(tmp_path):
    m = sp.csr_array(([1.0], ([0], [70_000])), shape=(1, 70_001))
    save_features(feature_activations(m), tmp_path / "wide.npz")
    assert load_features(tmp_path / "wide.npz").matrix.indices.tolist() == [70_000]


@pytest.mark.parametrize("damage", ["truncated", "garbage", "missing array", "index too large"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "f.npz"
    f = feature_activations(sparse_stream(40, 17, 0.2, 3))
    save_features(f, path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "garbage":
        path.write_bytes(b"not a zip file")
    else:
        arrays = dict(np.load(path))
        if damage == "missing array":
            del arrays["indptr"]
        else:
            arrays["indices"][0] = 99
        np.savez(path, **arrays)
    with pytest.raises(FeatlibError, match=r"f\.npz is not a readable feature file"):
        load_features(path)


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_features(tmp_path / "none.npz")


# --- counts and histograms ------------------------------------------------------------------------


def test_counts_and_densities_equal_dense_ones():
    dense = sparse_stream(60, 9, 0.3, 4)
    dense[:, 5] = 0
    f = feature_activations(dense)
    np.testing.assert_array_equal(firing_counts(f), (dense > 0).sum(0))
    np.testing.assert_allclose(densities(f), (dense > 0).mean(0))
    assert mean_l0(f) == pytest.approx((dense > 0).sum(1).mean())


def test_histograms_equal_numpys():
    dense = sparse_stream(300, 6, 0.4, 5)
    dense[:, 2] = 0
    counts, maxima = activation_histograms(feature_activations(dense), bins=7)
    np.testing.assert_array_equal(counts.sum(1), (dense > 0).sum(0))
    np.testing.assert_array_equal(maxima, dense.max(0))
    for j in (0, 1, 3, 4, 5):
        values = dense[:, j][dense[:, j] > 0]
        expected, _ = np.histogram(values, bins=7, range=(0, values.max()))
        np.testing.assert_array_equal(counts[j], expected)


# --- windows --------------------------------------------------------------------------------------


def test_windows_by_hand():
    documents = np.array([[0, 0, 0, 0, 1, 1], [1, 1, 2, 2, 2, 2]])
    start, stop = token_windows(documents, np.array([0, 3, 4, 5, 6, 7, 9, 11]), 2, 1)
    assert start.tolist() == [0, 1, 4, 4, 6, 6, 8, 9]
    assert stop.tolist() == [2, 4, 6, 6, 8, 8, 11, 12]


@given(
    st.integers(1, 5),
    st.integers(1, 7),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 2**32 - 1),
)
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


# --- examples -------------------------------------------------------------------------------------


def stream_with_documents(seed: int = 6):
    dense = sparse_stream(8 * 16, 11, 0.3, seed)
    dense[:, 3] = 0
    dense[:, 4] = np.round(dense[:, 4])  # ties
    documents = np.repeat(np.arange(16), 8).reshape(8, 16)
    return dense, feature_activations(dense), documents


def test_top_examples_are_the_strongest_in_order():
    dense, f, documents = stream_with_documents()
    for j in range(11):
        table = top_examples(f, j, 10, documents=documents)
        order = np.argsort(-dense[:, j], kind="stable")[:10]
        order = order[dense[order, j] > 0]
        assert table["token"].tolist() == order.tolist()
        np.testing.assert_array_equal(table["activation"], dense[order, j])
        np.testing.assert_array_equal(table["block"] * 16 + table["pos"], table["token"])
        np.testing.assert_array_equal(table["document"], documents.reshape(-1)[order])
    assert len(top_examples(f, 3, 10, documents=documents)) == 0


def test_top_examples_can_be_spread_over_documents():
    dense, f, documents = stream_with_documents()
    table = top_examples(f, 0, 50, documents=documents, per_document=2)
    home = documents.reshape(-1)
    expected = []
    for token in np.argsort(-dense[:, 0], kind="stable"):
        earlier = sum(home[t] == home[token] for t in expected)
        if dense[token, 0] > 0 and earlier < 2:
            expected.append(token)
    assert table["token"].tolist() == expected
    assert table["document"].value_counts().max() == 2


def test_the_table_of_all_top_examples_repeats_each_feature_s_own():
    _, f, documents = stream_with_documents()
    table = all_top_examples(f, 5, documents=documents, before=3, after=2)
    assert set(table["feature"]) == set(range(11)) - {3}
    for j, part in table.groupby("feature"):
        own = top_examples(f, j, 5, documents=documents, before=3, after=2)
        assert part["rank"].tolist() == list(range(len(own)))
        for column in own:
            assert part[column].tolist() == own[column].tolist()


def test_quantile_examples_come_from_their_quantile():
    dense, f, documents = stream_with_documents()
    rng = np.random.default_rng(0)
    table = quantile_examples(f, 1, 4, 3, rng=rng, documents=documents)
    values = np.sort(dense[dense[:, 1] > 0, 1])
    parts = np.array_split(values, 4)
    assert table["quantile"].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    for q, part in table.groupby("quantile"):
        assert part["activation"].between(parts[q].min(), parts[q].max()).all()
        assert part["activation"].is_monotonic_decreasing
    np.testing.assert_array_equal(dense[table["token"], 1], table["activation"])
    assert table["token"].is_unique
    again = quantile_examples(f, 1, 4, 3, rng=np.random.default_rng(0), documents=documents)
    assert again.equals(table)
    other = quantile_examples(f, 1, 4, 3, rng=np.random.default_rng(1), documents=documents)
    assert other["token"].tolist() != table["token"].tolist()


def test_quantile_examples_of_rare_and_silent_features():
    dense = np.zeros((6, 2), dtype="f4")
    dense[[1, 4], 0] = [1, 2]
    f, documents = feature_activations(dense), np.zeros((1, 6), dtype=int)
    rng = np.random.default_rng(0)
    rare = quantile_examples(f, 0, 4, 5, rng=rng, documents=documents)
    assert rare[["quantile", "token"]].to_numpy().tolist() == [[0, 1], [1, 4]]
    assert quantile_examples(f, 1, 4, 5, rng=rng, documents=documents).empty


def test_a_feature_or_a_stream_that_does_not_fit_is_refused():
    _, f, documents = stream_with_documents()
    with pytest.raises(FeatlibError, match=r"feature 11 does not exist.*0 to 10"):
        top_examples(f, 11, documents=documents)
    with pytest.raises(FeatlibError, match="one entry per token"):
        top_examples(f, 0, documents=documents[:-1])
