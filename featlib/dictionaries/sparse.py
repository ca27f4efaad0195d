"""The few products that an autoencoder needs, with sparse feature activations.

A token has about 16 active features of 2,048 (or 16,384), so every product but the encoder's own
can skip more than 99 % of the terms. The kernels are torch's (embedding bags, and dense times dense
sampled at a pattern) and numpy's (compare, pick, partition), which are fast on any CPU.

Matrices are CSR [tokens, d_sae], float32 with int32 indices that ascend inside a row; their n
entries are `data`.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from torch import Tensor
from torch.nn.functional import embedding_bag

BF16_ROUNDING = 2.0**-8  # largest relative error of rounding a float32 to bfloat16


def positions_above(pre: Tensor, floor: float | Tensor) -> np.ndarray:
    """Flat positions (ascending, int64) in `pre` [tokens, d_sae] of values > `floor`.

    `floor`: a number >= 0, or a tensor that broadcasts.
    """
    if isinstance(floor, Tensor):
        return _nonzero((pre > floor.to(pre.dtype)).numpy().reshape(-1))
    if pre.dtype == torch.bfloat16:
        # Positive bfloat16 numbers are ordered like their bits, negative ones have a negative bit
        # pattern: one integer comparison, at memory speed where the float one is not.
        limit = torch.tensor(max(floor, 0.0)).bfloat16().view(torch.int16).item()
        return _nonzero((pre.view(torch.int16).numpy() > np.int16(limit)).reshape(-1))
    return _nonzero((pre.numpy() > np.float32(floor)).reshape(-1))


def _nonzero(mask: np.ndarray) -> np.ndarray:
    """np.flatnonzero of a sparse boolean array [n], eight entries at a time where n allows it."""
    if len(mask) % 8:
        return np.flatnonzero(mask)
    words = np.flatnonzero(mask.view(np.uint64) != 0)
    inside = np.flatnonzero(mask.reshape(-1, 8)[words])
    return (words[inside >> 3] << 3) + (inside & 7)


def pattern_at(flat: np.ndarray, shape: tuple[int, int]) -> csr_array:
    """Zeros at ascending flat positions [n] of a matrix."""
    starts = np.searchsorted(flat, np.arange(shape[0] + 1, dtype=np.int64) * shape[1])
    parts = (np.zeros(len(flat), np.float32), flat % shape[1], starts)
    return csr_array(parts, shape=shape)


def from_dense(f: Tensor) -> csr_array:
    """The non-zero entries of f [tokens, d_sae]."""
    some = f.float().to_sparse().cpu()
    return coo_array((some.values().numpy(), some.indices().numpy()), shape=f.shape).tocsr()


def keep(m: csr_array, mask: np.ndarray) -> csr_array:
    """The entries of `m` where mask [n] is true."""
    kept = np.concatenate([[0], np.cumsum(mask)]).astype(np.int32)
    return csr_array((m.data[mask], m.indices[mask], kept[m.indptr]), shape=m.shape)


def among_largest(m: csr_array, k: int) -> np.ndarray:
    """Whether an entry [n] is one of the k largest of its row."""
    rows = np.repeat(np.arange(m.shape[0]), np.diff(m.indptr))
    order = np.lexsort((-m.data, rows))  # row by row, largest first
    chosen = np.empty(len(rows), dtype=bool)
    chosen[order] = np.arange(len(rows)) - m.indptr[rows] < k
    return chosen


def as_torch(m: csr_array) -> Tensor:
    """The same matrix as PyTorch has it, on the same memory."""
    parts = (torch.from_numpy(x) for x in (m.indptr, m.indices, m.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(*parts, size=m.shape, check_invariants=False)


def sampled_product(m: csr_array, left: Tensor, right: Tensor) -> np.ndarray:
    """left[i] . right[j] for every entry (i, j) of `m`; left [tokens, d], right [d_sae, d].

    Each entry is its own dot product in float32, so its value depends on nothing but its two rows.
    """
    return torch.sparse.sampled_addmm(as_torch(m), left, right.T, beta=0.0).values().numpy()


def product(m: csr_array, dense: Tensor) -> Tensor:
    """m @ dense, [tokens, d], for dense [d_sae, d]: a weighted sum of rows per token.

    That is an embedding bag, whose kernel is nine times faster than CSR times dense here.
    """
    parts = (m.indptr, m.indices, m.data)
    starts, cols, values = (torch.from_numpy(part).to(dense.device) for part in parts)
    return embedding_bag(
        cols, dense, starts, mode="sum", per_sample_weights=values, include_last_offset=True
    )


def transposed_products(pairs: list[tuple[np.ndarray, Tensor]], m: csr_array) -> list[Tensor]:
    """For each (values [n], dense [tokens, d]): A^T @ dense [d_sae, d], A = `m` with those values.

    The pattern is turned round once for all pairs.
    """
    order = np.arange(m.nnz, dtype=np.int32)
    turned = csr_array((order, m.indices, m.indptr), shape=m.shape).T.tocsr()
    parts, shape = (turned.indices, turned.indptr), turned.shape
    return [
        product(csr_array((values[turned.data], *parts), shape=shape), dense)
        for values, dense in pairs
    ]
