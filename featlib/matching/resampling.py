"""A share's draws on resampled texts: tokens of one document are no independent draws."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from featlib.matching.correlation import CONSTANT
from featlib.matching.fates import Fates

_BLOCK = 256  # features whose sums by document are held at a time


def resampled_matches(
    a: sp.csr_array, b: sp.csr_array, documents: np.ndarray, fates: Fates, weights: np.ndarray
) -> np.ndarray:
    """[n_boot, d_parent] bool: which parents persist on each resampled set of documents.

    `documents` one entry per token (any shape), `weights` [n_boot, n_documents] from
    `estimate.document_weights`. The testable features stay the same; each one's best correlation is
    taken anew among its `fates.candidates`, exactly, from sums by document (n, x, x^2, y, y^2, xy).
    A parent whose best correlation is below half the threshold is not resampled: it stays lost.
    Beside the result and the matrices by feature, memory is about 8 * _BLOCK * n_documents.
    """
    passes = np.zeros((len(weights), len(fates.parents)), dtype=bool)
    near = fates.testable & (fates.parents["r"].to_numpy() >= fates.rule.threshold / 2)
    parents = np.flatnonzero(near)
    home = np.unique(documents.reshape(-1), return_inverse=True)[1].reshape(-1)
    sizes = (len(home), home.max() + 1)
    assert sizes == (a.shape[0], weights.shape[1]), (sizes, "another token stream")
    a, b = sp.csc_array(a, dtype=np.float64), sp.csc_array(b, dtype=np.float64)

    def resampled(m: sp.csc_array) -> np.ndarray:  # column sums [n_boot, columns]
        m.sort_indices()
        flat = home[m.indices] * m.shape[1] + np.repeat(np.arange(m.shape[1]), np.diff(m.indptr))
        sums = np.bincount(flat, weights=m.data, minlength=weights.shape[1] * m.shape[1])
        return weights @ sums.reshape(-1, m.shape[1])

    def spread(square: np.ndarray, total: np.ndarray) -> np.ndarray:  # n^2 times the variance
        value = n * square - total**2
        return np.where(value > CONSTANT * n * square, value, 0.0)

    n = (weights @ np.bincount(home, minlength=weights.shape[1]))[:, None]  # [n_boot, 1] tokens
    candidates = fates.candidates[parents]
    children, place = np.unique(candidates, return_inverse=True)
    place = place.reshape(candidates.shape)  # index into `children`
    sum_y, var_y = np.empty((2, len(weights), len(children)))
    for start in range(0, len(children), _BLOCK):
        y = b[:, children[start : start + _BLOCK]]
        sum_y[:, start : start + _BLOCK] = s_y = resampled(y)
        var_y[:, start : start + _BLOCK] = spread(resampled(y * y), s_y)
    for start in range(0, len(parents), _BLOCK):
        rows = slice(start, start + _BLOCK)
        x, best = a[:, parents[rows]], np.full((len(weights), len(parents[rows])), -1.0)
        s_x = resampled(x)
        var_x = spread(resampled(x * x), s_x)
        for c in place[rows].T:
            cov = n * resampled(x * b[:, children[c]]) - s_x * sum_y[:, c]
            var = var_x * var_y[:, c]
            r = np.divide(cov, np.sqrt(var), out=np.zeros_like(cov), where=var > 0)
            np.maximum(best, r, out=best)
        # Rounding leaves r of two equal features a hair below 1, which a threshold of 1 must pass.
        passes[:, parents[rows]] = best >= fates.rule.threshold - 1e-9
    return passes
