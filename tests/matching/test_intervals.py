"""Resampling documents: weights, moved percentiles, and correlations rebuilt from sums."""

from __future__ import annotations

import numpy as np
import pytest
from planted import csr, sparse_features

from featlib import FeatlibError
from featlib.matching.intervals import bootstrap_interval, document_weights, resampled_best


def test_weights_draw_as_many_documents_as_there_are():
    documents = np.array([[4, 4, 7], [7, 9, 9]])
    w = document_weights(documents, 500, np.random.default_rng(0))
    assert w.shape == (500, 3)
    assert (w.sum(1) == 3).all()
    np.testing.assert_allclose(w.mean(0), 1, atol=0.15)
    np.testing.assert_allclose(w.var(0), 1 - 1 / 3, atol=0.15)  # a binomial's: draws do differ
    assert (w == document_weights(documents, 500, np.random.default_rng(0))).all()
    with pytest.raises(FeatlibError, match="at least 2 documents"):
        document_weights(np.zeros(5), 10, np.random.default_rng(0))


def test_the_interval_holds_both_the_draws_and_the_estimate_with_their_spread():
    draws = np.random.default_rng(0).normal(0.3, 0.02, 20_000)
    low, high = bootstrap_interval(draws.mean(), draws)
    assert (low, high) == pytest.approx((0.3 - 0.0392, 0.3 + 0.0392), abs=0.002)
    low, high = bootstrap_interval(draws.mean(), draws, level=0.5)
    assert (low, high) == pytest.approx((0.3 - 0.0135, 0.3 + 0.0135), abs=0.001)
    # Draws off the estimate: from the one's lower end to the other's upper end.
    low, high = bootstrap_interval(0.5, draws)
    assert (low, high) == pytest.approx((0.3 - 0.0392, 0.5 + 0.0392), abs=0.002)
    low, high = bootstrap_interval(0.1, draws)
    assert (low, high) == pytest.approx((0.1 - 0.0392, 0.3 + 0.0392), abs=0.002)
    assert bootstrap_interval(0.99, draws)[1] == 1
    assert bootstrap_interval(1.2, draws, upper=np.inf)[1] > 1.2
    # All draws but one equal: no rounding may push the estimate out.
    assert bootstrap_interval(0.5, np.array([0.5] * 199 + [0.4])) == (0.5, pytest.approx(0.5005))


def test_correlations_rebuilt_from_sums_equal_numpys_on_repeated_text():
    rng = np.random.default_rng(1)
    x, y = sparse_features(900, 12, 0.2, rng), sparse_features(900, 9, 0.2, rng)
    y[:, :6] += x[:, :6]
    x[:, 7], y[:, 8] = 0, 1.5  # silent; constant
    documents = np.sort(rng.integers(0, 20, 900)) * 3
    labels = np.unique(documents)
    weights = document_weights(documents, 4, rng)
    parents = np.array([0, 3, 5, 7, 11])
    candidates = np.array([[0, 1], [3, 2], [4, 5], [0, 8], [8, 6]])
    best = resampled_best(csr(x), csr(y), documents, parents, candidates, weights, block=2)
    for w, row in zip(weights, best, strict=True):
        rows = np.repeat(np.arange(900), w[np.searchsorted(labels, documents)].astype(int))
        for p, c, r in zip(parents, candidates, row, strict=True):
            with np.errstate(all="ignore"):
                each = [np.corrcoef(x[rows, p], y[rows, k])[0, 1] for k in c]
            each = [0 if p == 7 or k == 8 else e for e, k in zip(each, c, strict=True)]
            assert r == pytest.approx(max(each), abs=1e-6)


def test_documents_that_do_not_fit_the_stream_are_refused():
    x, w = csr(np.eye(6)), np.ones((2, 3))
    one = np.array([[0]])
    for documents in (np.arange(6) // 3, np.arange(9) // 3):  # 2 documents; 9 tokens
        with pytest.raises(FeatlibError, match="same token stream"):
            resampled_best(x, x, documents, one[0], one, w)
