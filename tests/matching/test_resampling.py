"""Shares on resampled documents: against repeated text, and at the rate they state."""

from __future__ import annotations

import numpy as np
from planted import csr, even_documents, noisy_copy, sparse_features

from featlib.estimate import bootstrap_estimate, document_weights
from featlib.matching import resampling
from featlib.matching.fates import compare
from featlib.matching.resampling import resampled_matches


def test_a_draw_equals_numpys_on_the_text_with_its_documents_repeated(monkeypatch):
    monkeypatch.setattr(resampling, "_BLOCK", 7)
    rng = np.random.default_rng(5)
    x = sparse_features(3000, 30, 0.05, rng)
    y = noisy_copy(x, np.linspace(0.65, 0.95, 30), rng)
    x[:, 7], y[:, 8] = 0, 1.5  # silent; constant
    documents = np.sort(rng.integers(0, 50, 3000)) * 3
    labels = np.unique(documents)
    fates = compare(csr(x), csr(y))
    weights = np.vstack([np.ones((1, len(labels))), document_weights(documents, 5, rng)])
    passes = resampled_matches(csr(x), csr(y), documents, fates, weights)
    assert (passes[0] == fates.persisting).all(), "each document once is the text as it is"
    for weight, row in zip(weights, passes, strict=True):
        rows = np.repeat(np.arange(3000), weight[np.searchsorted(labels, documents)].astype(int))
        with np.errstate(all="ignore"):
            r = np.nan_to_num(np.corrcoef(x[rows], y[rows], rowvar=False)[:30, 30:])
        r[:, 8] = 0
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
        documents = even_documents(n, length)
        weights = document_weights(documents, 100, rng)
        passes = resampled_matches(csr(x), csr(y), documents, fates, weights)
        found = bootstrap_estimate(fates.persist, passes[:, fates.testable].mean(axis=1))
        hits += found.low <= truth <= found.high
        widths.append(found.high - found.low)
        assert found.low <= fates.persist <= found.high
    assert hits / repetitions >= 0.85
    assert 0.05 < np.mean(widths) < 0.3
