"""Every way of computing the correlation against `numpy.corrcoef` in float64."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from planted import csr, sparse_features

from featlib.matching import correlation
from featlib.matching.correlation import paired_pearson, pearson, pearson_dense

WIDTH = st.integers(1, 12)


def oracle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`numpy.corrcoef` in float64; 0 for features without variance."""
    with np.errstate(invalid="ignore", divide="ignore"):
        full = np.corrcoef(a.astype(np.float64), b.astype(np.float64), rowvar=False)
    return np.nan_to_num(np.atleast_2d(full)[: a.shape[1], a.shape[1] :])


def all_ways(a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    x, y = csr(a), csr(b)
    scaled = correlation._standardised(x), correlation._standardised(y)
    return {
        "pearson": pearson(x, y),
        "sparse": correlation._sparse(*scaled),
        "dense": correlation._dense(*scaled),
        "neurons": pearson_dense(a, b),
    }


def paired(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    d = min(a.shape[1], b.shape[1])
    return paired_pearson(csr(a[:, :d]), csr(b[:, :d]))


@pytest.fixture(autouse=True, scope="module")
def small_parts():
    """No result may depend on how many tokens or features are multiplied at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(correlation, "_CHUNK", 7)
        patch.setattr(correlation, "_BLOCK_BYTES", 8 * 11 * 5)
        yield


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 40), WIDTH, WIDTH, st.floats(0, 1), st.integers(0, 2**32 - 1))
@example(9, 4, 4, 0.0, 10)  # not a single firing
def test_every_way_equals_numpy_for_odd_shapes_silent_and_constant_features(n, d_a, d_b, p, seed):
    rng = np.random.default_rng(seed)
    a, b = sparse_features(n, d_a, p, rng), sparse_features(n, d_b, p, rng)
    a[:, 0] = rng.choice([0.0, 0.7])  # silent, or constant on every token
    b[:, -1] = rng.choice([0.0, 3.3])
    expected = oracle(a, b)
    expected[0], expected[:, -1] = 0, 0  # numpy gives rounding noise for constants
    for way, r in all_ways(a, b).items():
        assert r.dtype == np.float32
        assert r.shape == (d_a, d_b)
        np.testing.assert_allclose(r, expected, atol=1e-5, err_msg=way)
    np.testing.assert_allclose(paired(a, b), np.diag(expected), atol=1e-9)


@pytest.mark.parametrize("mkl", [True, False])
def test_it_equals_numpy_at_a_realistic_size(monkeypatch, mkl):
    if not mkl:
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    rng = np.random.default_rng(0)
    a, b = sparse_features(20_000, 60, 0.01, rng), sparse_features(20_000, 50, 0.02, rng)
    b[:, :25] = a[:, :25] * 0.7 + b[:, :25] * np.linspace(0, 1, 25, dtype="f4")
    expected = oracle(a, b)
    assert (expected > 0.8).sum() > 5
    np.testing.assert_allclose(pearson(csr(a), csr(b)), expected, atol=1e-6)


def test_a_feature_that_fires_everywhere_with_a_steady_value_keeps_its_digits():
    """Cancellation: a mean 1,000 times the spread takes 6 digits from every sum of products."""
    rng = np.random.default_rng(1)
    base = rng.normal(size=(50_000, 1))
    a = (1000 + base + rng.normal(size=(50_000, 4))).astype(np.float32)
    b = (1000 + base + rng.normal(size=(50_000, 3))).astype(np.float32)
    for r in all_ways(a, b).values():
        np.testing.assert_allclose(r, oracle(a, b), atol=1e-5)


def test_dense_features_and_a_gpu_take_the_dense_way(monkeypatch):
    taken = []
    for way in ("_sparse", "_dense"):
        monkeypatch.setattr(
            correlation, way, lambda a, b, device="cpu", way=way: taken.append((way, device))
        )
    rng = np.random.default_rng(3)
    sparse, dense = (csr(sparse_features(2000, 40, density, rng)) for density in (0.001, 0.9))
    pearson(sparse, sparse)
    pearson(dense, dense)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    pearson(sparse, sparse)  # too small for the way to a GPU
    monkeypatch.setattr(correlation, "_GPU_STEPS", 2000 * 40 * 40 - 1)
    pearson(sparse, sparse)
    assert taken == [("_sparse", "cpu"), ("_dense", "cpu"), ("_sparse", "cpu"), ("_dense", "cuda")]


def test_64_bit_indices_are_accepted():
    rng = np.random.default_rng(5)
    a = csr(sparse_features(200, 8, 0.2, rng))
    wide = sp.csr_array((a.data, a.indices.astype("i8"), a.indptr.astype("i8")), shape=a.shape)
    np.testing.assert_array_equal(pearson(wide, wide), pearson(a, a))


def test_constant_features_correlate_0_however_their_sums_round():
    rng = np.random.default_rng(7)
    constant = np.ones((3001, 1), "f4") * rng.uniform(0.01, 100, 40).astype("f4")
    other = sparse_features(3001, 40, 0.3, rng)
    for r in (*all_ways(constant, other).values(), paired(constant, other)):
        assert not r.any()
