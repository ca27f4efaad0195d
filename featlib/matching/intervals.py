"""Intervals by resampling documents: tokens of one document are no independent draws."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from featlib import FeatlibError
from featlib.matching.correlation import CONSTANT


def document_weights(documents: np.ndarray, n_boot: int, rng: np.random.Generator) -> np.ndarray:
    """[n_boot, n_documents] counts: how often each document is drawn, with replacement.

    Columns follow `np.unique(documents)`. Use one set of weights for all shares that will be
    compared or divided, so that they see the same resampled texts.
    """
    n = len(np.unique(documents))
    if n < 2:
        raise FeatlibError("an interval over documents needs at least 2 documents in the stream")
    return rng.multinomial(n, np.full(n, 1 / n), size=n_boot).astype(np.float64)


def bootstrap_interval(
    estimate: float, draws: np.ndarray, level: float = 0.95, upper: float = 1.0
) -> tuple[float, float]:
    """Interval (low, high) around `estimate` from resampled values, within 0..upper.

    A share of features above a threshold is biased under resampling: noise is added to
    correlations that hold noise already, and features cross the threshold out of the more crowded
    side. The draws' spread is right, their centre may not be. So this is the hull of two intervals,
    the draws' percentiles as they are and the same moved to have their mean at the estimate, which
    on planted data covers the truth at least about as often as it says; either alone may not.
    """
    tail = (1 - level) / 2
    ends = np.quantile(draws, [tail, 1 - tail])
    moved = ends - draws.mean() + estimate
    low, high = min(ends[0], moved[0], estimate), max(ends[1], moved[1], estimate)
    return float(np.clip(low, 0, upper)), float(np.clip(high, 0, upper))


def resampled_best(
    a: sp.csr_array,
    b: sp.csr_array,
    documents: np.ndarray,
    parents: np.ndarray,
    candidates: np.ndarray,
    weights: np.ndarray,
    *,
    block: int = 256,
) -> np.ndarray:
    """[n_boot, parents] each parent's largest correlation with its candidates, texts resampled.

    `a`, `b` [tokens, d], `documents` one entry per token (any shape), `parents` [p] columns of `a`,
    `candidates` [p, c] columns of `b`, `weights` [n_boot, n_documents]. Correlations are rebuilt
    exactly from per-document sums (n, x, x^2, y, y^2, xy), `block` features at a time. Beside the
    result and the matrices by feature, memory is about 8 * block * n_documents + 2 * n_boot * d.
    """
    home = _document_index(documents, a.shape[0], weights.shape[1])
    a, b = sp.csc_array(a, dtype=np.float64), sp.csc_array(b, dtype=np.float64)

    def resampled(m: sp.csc_array) -> np.ndarray:  # column sums [n_boot, columns]
        return weights @ _sums_by_document(m, home, weights.shape[1])

    def spread(square: np.ndarray, total: np.ndarray) -> np.ndarray:  # n^2 times the variance
        value = n * square - total**2
        return np.where(value > CONSTANT * n * square, value, 0.0)

    n = (weights @ np.bincount(home, minlength=weights.shape[1]))[:, None]  # [n_boot, 1] tokens
    children, place = np.unique(candidates, return_inverse=True)
    place = place.reshape(len(parents), -1)  # [parents, candidates] index into `children`
    sum_y, var_y = np.empty((2, len(weights), len(children)))
    for start in range(0, len(children), block):
        y = b[:, children[start : start + block]]
        sum_y[:, start : start + block] = s_y = resampled(y)
        var_y[:, start : start + block] = spread(resampled(y * y), s_y)
    out = np.full((len(weights), len(parents)), -1.0)
    for start in range(0, len(parents), block):
        rows = slice(start, start + block)
        x, best = a[:, parents[rows]], out[:, rows]
        s_x = resampled(x)
        var_x = spread(resampled(x * x), s_x)
        for c in place[rows].T:
            cov = n * resampled(x * b[:, children[c]]) - s_x * sum_y[:, c]
            var = var_x * var_y[:, c]
            r = np.divide(cov, np.sqrt(var), out=np.zeros_like(cov), where=var > 0)
            np.maximum(best, r, out=best)
    return out


def _document_index(documents: np.ndarray, n_tokens: int, n_documents: int) -> np.ndarray:
    home = np.unique(documents.reshape(-1), return_inverse=True)[1].reshape(-1)
    if len(home) != n_tokens or home.max() + 1 != n_documents:
        raise FeatlibError(
            f"documents name {len(home)} tokens of {home.max() + 1} documents, but the features "
            f"have {n_tokens} tokens and the weights {n_documents} documents; all three must "
            f"describe the same token stream"
        )
    return home


def _sums_by_document(m: sp.csc_array, home: np.ndarray, n_documents: int) -> np.ndarray:
    """Column sums of `m` [tokens, columns] within each document: [n_documents, columns]."""
    m.sort_indices()
    column = np.repeat(np.arange(m.shape[1]), np.diff(m.indptr))
    flat = home[m.indices] * m.shape[1] + column
    sums = np.bincount(flat, weights=m.data, minlength=n_documents * m.shape[1])
    return sums.reshape(n_documents, m.shape[1])
