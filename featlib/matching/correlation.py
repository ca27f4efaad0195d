"""Exact Pearson correlation between all features of two models, over every token.

With x' = sqrt(n) x / sqrt(n sum(x^2) - sum(x)^2) for each feature, the correlation of x and y over
n tokens is sum(x' y') - sum(x') sum(y') / n. Sums over tokens at which both fire are all it takes,
however many zeros there are: the first term is one sparse co-activation product A^T B, and costs
tokens * L0_a * L0_b steps where a dense product costs tokens * d_a * d_b. Sums run in float64, for
the difference cancels almost all digits of a feature that fires everywhere with a steady value.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from featlib.dictionaries.sparse import as_torch

# Below this share of n sum(x^2) a variance is rounding, and the feature counts as constant.
CONSTANT = 1e-12
_BLOCK_BYTES = 2**27  # of float64 product held at a time
# A sparse step costs about as much as this many steps of a dense product (measured, 2 cores).
_DENSE_STEPS = 150
_GPU_STEPS = 1e13  # from so many on a GPU takes the dense product: the paper's size has 8e13
_CHUNK = 8192  # tokens of a dense product at a time


def pearson(a: sp.csr_array, b: sp.csr_array) -> np.ndarray:
    """Correlation of every feature of `a` [tokens, d_a] with every one of `b` [tokens, d_b].

    Returns [d_a, d_b] float32, within 1e-5 of `numpy.corrcoef` on the dense matrices; a feature
    that is silent or constant correlates 0 with all. Beside the result, memory is bounded by copies
    of the sparse matrices and one 128 MB block. A large product goes to the GPU, where there is
    one, and takes [d_a, d_b] float64 of its memory.
    """
    assert a.shape[0] == b.shape[0], (a.shape, b.shape, "not the same tokens")
    a, b = _standardised(a), _standardised(b)
    steps = float(a.shape[0]) * a.shape[1] * b.shape[1]
    if steps > _GPU_STEPS and torch.cuda.is_available():
        return _dense(a, b, device="cuda")
    pairs = float(np.diff(a.indptr).astype(np.float64) @ np.diff(b.indptr))
    return _dense(a, b) if pairs * _DENSE_STEPS > steps else _sparse(a, b)


def pearson_dense(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`pearson` for dense activations (neurons), [tokens, d_a] and [tokens, d_b]: [d_a, d_b].

    Centred with float64 moments, multiplied in float32 by chunks of tokens. Arrays may be
    memory-mapped: only a chunk of each is in memory at a time.
    """
    assert len(a) == len(b), (len(a), len(b), "not the same tokens")
    parts = _parts(len(a))
    (mean_a, inv_a), (mean_b, inv_b) = _dense_moments(a, parts), _dense_moments(b, parts)
    out = torch.zeros(a.shape[1], b.shape[1], dtype=torch.float64)
    for part in parts:
        x = torch.from_numpy(((a[part] - mean_a) * inv_a).astype(np.float32))
        y = torch.from_numpy(((b[part] - mean_b) * inv_b).astype(np.float32))
        out += x.T @ y
    return out.clamp_(-1, 1).float().numpy()


def paired_pearson(a: sp.csr_array, b: sp.csr_array) -> np.ndarray:
    """Correlation of feature j of `a` with feature j of `b`, both [tokens, d]: [d] float64."""
    assert a.shape == b.shape, (a.shape, b.shape, "not one dictionary over the same tokens")
    n = a.shape[0]
    a, b = _standardised(a), _standardised(b)
    both = np.asarray(a.multiply(b).sum(axis=0)).reshape(-1)
    means = np.asarray(a.sum(axis=0)).reshape(-1) * np.asarray(b.sum(axis=0)).reshape(-1) / n
    return np.clip(both - means, -1, 1)


def _standardised(m: sp.csr_array) -> sp.csr_array:
    """Each column divided by sqrt(n) times its standard deviation (constant columns: zeroed)."""
    n, d = m.shape
    x = m.data.astype(np.float64)
    total = np.bincount(m.indices, weights=x, minlength=d)
    square = np.bincount(m.indices, weights=x * x, minlength=d)
    spread = n * square - total**2
    varies = spread > CONSTANT * n * square
    inverse = np.zeros(d)
    inverse[varies] = np.sqrt(n / spread[varies])
    # The 32-bit product of MKL takes 32-bit indices, and would copy 64-bit ones on every call.
    indices = m.indices.astype(np.int32, copy=False)
    out = sp.csr_array((x * inverse[m.indices], indices, m.indptr), shape=m.shape)
    out.indptr = out.indptr.astype(np.int32) if m.nnz < 2**31 else out.indptr
    return out


def _sparse(a: sp.csr_array, b: sp.csr_array) -> np.ndarray:
    n, d_a = a.shape
    d_b = b.shape[1]
    at = a.T.tocsr()  # [d_a, tokens]
    mean_a = torch.from_numpy(np.asarray(at.sum(axis=1)).reshape(-1) / np.sqrt(n))
    mean_b = torch.from_numpy(np.asarray(b.sum(axis=0)).reshape(-1) / np.sqrt(n))
    out = np.empty((d_a, d_b), dtype=np.float32)
    rows = max(1, _BLOCK_BYTES // (8 * max(d_b, 1)))
    for start in range(0, d_a, rows):
        part = at[start : start + rows]
        if torch.backends.mkl.is_available() and part.nnz and b.nnz:
            # MKL writes the dense result straight away: three times faster than SciPy's sparse
            # result, which is nearly full, and turned into a dense one afterwards.
            block = torch.empty(part.shape[0], d_b, dtype=torch.float64)
            torch.addmm(block, as_torch(part), as_torch(b), beta=0.0, out=block)
        else:
            block = torch.from_numpy((part @ b).toarray())
        block.addr_(mean_a[start : start + rows], mean_b, alpha=-1).clamp_(-1, 1)
        out[start : start + rows] = block.numpy()
    return out


def _dense(a: sp.csr_array, b: sp.csr_array, device: str = "cpu") -> np.ndarray:
    """For features that fire too often for sparseness to save anything, and for a GPU."""
    n = a.shape[0]
    mean_a, mean_b = (
        torch.from_numpy((np.asarray(m.sum(axis=0)).reshape(-1) / n).astype(np.float32)).to(device)
        for m in (a, b)
    )
    a, b = a.astype(np.float32), b.astype(np.float32)
    out = torch.zeros(a.shape[1], b.shape[1], dtype=torch.float64, device=device)
    for part in _parts(n):
        x = as_torch(a[part]).to(device).to_dense() - mean_a
        y = as_torch(b[part]).to(device).to_dense() - mean_b
        out += x.T @ y
    return out.clamp_(-1, 1).float().cpu().numpy()


def _parts(n: int) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, n, _CHUNK)]


def _dense_moments(x: np.ndarray, parts: list[slice]) -> tuple[np.ndarray, np.ndarray]:
    """Column means [d] and 1 / (sqrt(n) std) [d] in two passes, float64; 0 where constant."""
    n = len(x)
    mean = sum(x[p].sum(axis=0, dtype=np.float64) for p in parts) / n
    spread = sum(np.square(x[p] - mean).sum(axis=0) for p in parts)
    varies = spread > CONSTANT * np.maximum(n * mean**2, np.finfo(np.float64).tiny)
    inverse = np.zeros(len(mean))
    inverse[varies] = 1 / np.sqrt(spread[varies])
    return mean, inverse
