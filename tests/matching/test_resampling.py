"""Shares on resampled documents: against repeated text, and at the rate they state."""

from __future__ import annotations

import numpy as np
import pytest
from planted import csr, even_documents, noisy_copy, sparse_features

from featlib.estimate import Estimate, bootstrap_estimate, document_weights
from featlib.matching import resampling
from featlib.matching.correlation import pearson
from featlib.matching.fates import compare
from featlib.matching.resampling import resampled_best, resampled_matches


def persistence(x, y, documents, fates, n_boot, rng) -> Estimate:
    """`fates.persist` with its interval over documents."""
    weights = document_weights(documents, n_boot, rng)
    passes = resampled_matches(x, y, documents, fates, weights)
    return bootstrap_estimate(fates.persist, passes[:, fates.testable].mean(axis=1))


def test_correlations_rebuilt_from_sums_equal_numpys_on_repeated_text(monkeypatch):
    monkeypatch.setattr(resampling, "_BLOCK", 2)
    rng = np.random.default_rng(1)
    x, y = sparse_features(900, 12, 0.2, rng), sparse_features(900, 9, 0.2, rng)
    y[:, :6] += x[:, :6]
    x[:, 7], y[:, 8] = 0, 1.5  # silent; constant
    documents = np.sort(rng.integers(0, 20, 900)) * 3
    labels = np.unique(documents)
    weights = document_weights(documents, 4, rng)
    parents = np.array([0, 3, 5, 7, 11])
    candidates = np.array([[0, 1], [3, 2], [4, 5], [0, 8], [8, 6]])
    best = resampled_best(csr(x), csr(y), documents, parents, candidates, weights)
    for w, row in zip(weights, best, strict=True):
        rows = np.repeat(np.arange(900), w[np.searchsorted(labels, documents)].astype(int))
        for p, c, r in zip(parents, candidates, row, strict=True):
            with np.errstate(all="ignore"):
                each = [np.corrcoef(x[rows, p], y[rows, k])[0, 1] for k in c]
            each = [0 if p == 7 or k == 8 else e for e, k in zip(each, c, strict=True)]
            assert r == pytest.approx(max(each), abs=1e-6)


def test_a_draw_equals_the_matrix_with_its_documents_repeated():
    rng = np.random.default_rng(5)
    x = sparse_features(3000, 30, 0.05, rng)
    y = noisy_copy(x, np.linspace(0.65, 0.95, 30), rng)
    documents = even_documents(3000, 60)
    fates = compare(csr(x), csr(y))
    weights = np.vstack([np.ones((1, 50)), document_weights(documents, 5, rng)])
    passes = resampled_matches(csr(x), csr(y), documents, fates, weights)
    assert (passes[0] == fates.persisting).all(), "each document once is the text as it is"
    for weight, row in zip(weights, passes, strict=True):
        rows = np.repeat(np.arange(3000), weight[documents].astype(int))
        r = pearson(csr(x[rows]), csr(y[rows]))
        assert (row == (fates.testable & (r.max(1) >= 0.8))).all()
    assert len(set(passes.sum(axis=1))) > 1


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Whole documents carry the noise, so an interval that took tokens as independent would fail.

    Truth: the share of features whose correlation on endless text passes 0.8. Each document keeps
    or loses a feature as a whole, so correlations waver from text to text.
    """
    n, length, d = 4000, 100, 40
    agreement = np.linspace(0.6, 1.0, d)  # correlation of each feature in the long run
    truth = (agreement >= 0.8).mean()
    hits, widths = 0, []
    repetitions = 40
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        x = sparse_features(n, d, 0.05, rng)
        same = rng.random((n // length, d)) < agreement
        other = sparse_features(n, d, 0.05, rng)
        y = np.where(np.repeat(same, length, axis=0), x, other)
        fates = compare(csr(x), csr(y))
        found = persistence(csr(x), csr(y), even_documents(n, length), fates, 100, rng)
        hits += found.low <= truth <= found.high
        widths.append(found.high - found.low)
        assert found.low <= fates.persist <= found.high
    assert hits / repetitions >= 0.85
    assert 0.05 < np.mean(widths) < 0.3
