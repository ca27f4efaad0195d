"""Planted dictionaries: sparse features whose common share and exact correlation are known."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def sparse_features(
    n: int, d: int, density: float, rng: np.random.Generator, scale: float = 1.0
) -> np.ndarray:
    """[n, d] float32: independent features, each firing on its own share of tokens."""
    share = density * rng.uniform(0.5, 1.5, d)
    fires = rng.random((n, d)) < share
    return np.where(fires, scale * rng.exponential(size=(n, d)) + 0.1, 0).astype(np.float32)


def noisy_copy(x: np.ndarray, r: np.ndarray | float, rng: np.random.Generator) -> np.ndarray:
    """[n, d] features whose correlation with those of `x` is about `r`, and as sparse.

    Each firing stays with probability r and moves to a random token otherwise, value and all: the
    share of common variance is r, up to the overlap of chance.
    """
    y = np.zeros_like(x)
    r = np.broadcast_to(r, x.shape[1])
    for j in range(x.shape[1]):
        tokens = np.flatnonzero(x[:, j])
        moves = rng.random(len(tokens)) >= r[j]
        new = tokens.copy()
        free = np.setdiff1d(np.arange(len(x)), tokens)
        new[moves] = rng.choice(free, moves.sum(), replace=False)
        y[new, j] = x[tokens, j]
    return y


def even_documents(n: int, length: int) -> np.ndarray:
    """[n] document of each token, all of one length."""
    return np.arange(n) // length


def csr(x: np.ndarray) -> sp.csr_array:
    """As the library's functions want it."""
    return sp.csr_array(x, dtype=np.float32)


def firings(x: np.ndarray | sp.csr_array) -> np.ndarray:
    """[d] firings per feature."""
    return np.asarray((x > 0).sum(axis=0)).reshape(-1)
