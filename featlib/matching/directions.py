"""Where features write: decoder rows compared, beside when features fire.

`rows` are an autoencoder's `W_dec` [d_sae, d_in]; models of one family share their neurons, so the
rows of two models lie in one space.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

LEADING = 1 / 8  # of d_in: size of the subspaces that are compared


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def partner_cosines(rows: np.ndarray, others: np.ndarray, best: np.ndarray) -> np.ndarray:
    """[d_sae] cosine between each feature's row and that of its `best` partner; NaN without one."""
    cosine = np.einsum("fd,fd->f", _unit(rows), _unit(others)[best])
    return np.where(best >= 0, cosine, np.nan)


def pwmcc(rows: np.ndarray, others: np.ndarray) -> float:
    """Pairwise mean correlation coefficient of two dictionaries, 1 if they are the same.

    Song et al. (2025), arXiv 2505.20254: the mean cosine of decoder rows under the one-to-one
    pairing that makes it largest. Signs count here, since activations are never negative. An
    assignment of 16,384 features takes some minutes.
    """
    cosine = _unit(rows) @ _unit(others).T
    return float(cosine[linear_sum_assignment(cosine, maximize=True)].mean())


def subspace_overlap(rows: np.ndarray, others: np.ndarray) -> float:
    """How far two sets of rows span one subspace: mean squared cosine of its principal angles.

    The leading subspace of `rows` [n, d_in] is spanned by their first `LEADING` * d_in right
    singular vectors. 1 says that it is the same one; random subspaces of this size give `LEADING`.
    NaN if either set has fewer rows than that.
    """
    size = max(1, round(LEADING * rows.shape[1]))
    if min(len(rows), len(others)) < size:
        return float("nan")
    a, b = (np.linalg.svd(_unit(x), full_matrices=False)[2][:size] for x in (rows, others))
    return float(np.square(a @ b.T).sum() / size)
