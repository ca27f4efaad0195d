"""Sparse feature activations in compressed rows, and the few products an autoencoder needs.

A token has about 16 active features of 2,048 (or 16,384), so every product but the encoder's own
can skip more than 99 % of the terms. The kernels are torch's (embedding bags, and dense times dense
sampled at a pattern) and numpy's (compare, pick, partition), which are fast on any CPU.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

BF16_ROUNDING = 2.0**-8  # largest relative error of rounding a float32 to bfloat16


@dataclass(frozen=True)
class Codes:
    """A sparse matrix [tokens, d_sae] by rows: row i holds values[crow[i] : crow[i + 1]]."""

    crow: np.ndarray  # [tokens + 1] int32
    cols: np.ndarray  # [n] int32, ascending inside a row
    values: np.ndarray  # [n] float32
    d_sae: int

    @property
    def n_tokens(self) -> int:
        return len(self.crow) - 1

    def counts(self) -> np.ndarray:
        """How many tokens each feature is active on, [d_sae] int64."""
        return np.bincount(self.cols, minlength=self.d_sae)

    def to_csr(self) -> scipy.sparse.csr_array:
        """The same matrix for scipy, sharing memory."""
        shape = (self.n_tokens, self.d_sae)
        return scipy.sparse.csr_array((self.values, self.cols, self.crow), shape=shape)


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


def pattern_at(flat: np.ndarray, n_tokens: int, d_sae: int) -> Codes:
    """Codes of zeros at ascending flat positions [n] of a [n_tokens, d_sae] matrix."""
    crow = np.searchsorted(flat, np.arange(n_tokens + 1, dtype=np.int64) * d_sae)
    zeros = np.zeros(len(flat), np.float32)
    return Codes(crow.astype(np.int32), (flat % d_sae).astype(np.int32), zeros, d_sae)


def from_dense(f: Tensor) -> Codes:
    """Codes of the non-zero entries of f [tokens, d_sae]."""
    rows, cols = f.nonzero(as_tuple=True)
    crow = np.searchsorted(rows.cpu().numpy(), np.arange(len(f) + 1))
    values = f[rows, cols].float().cpu().numpy()
    return Codes(crow.astype(np.int32), cols.cpu().numpy().astype(np.int32), values, f.shape[1])


def keep(codes: Codes, mask: np.ndarray) -> Codes:
    """The entries of `codes` where mask [n] is true."""
    kept = np.concatenate([[0], np.cumsum(mask)])
    return Codes(
        kept[codes.crow].astype(np.int32), codes.cols[mask], codes.values[mask], codes.d_sae
    )


def among_largest(codes: Codes, k: int) -> np.ndarray:
    """Whether an entry [n] is one of the k largest of its row."""
    rows = np.repeat(np.arange(codes.n_tokens), np.diff(codes.crow))
    order = np.lexsort((-codes.values, rows))  # row by row, largest first
    chosen = np.empty(len(rows), dtype=bool)
    chosen[order] = np.arange(len(rows)) - codes.crow[rows] < k
    return chosen


def sampled_product(codes: Codes, left: Tensor, right: Tensor) -> np.ndarray:
    """left[i] . right[j] for every entry (i, j) of `codes`; left [tokens, d], right [d_sae, d].

    Each entry is its own dot product in float32, so its value depends on nothing but its two rows.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        pattern = torch.sparse_csr_tensor(
            *map(torch.from_numpy, (codes.crow, codes.cols, codes.values)),
            size=(codes.n_tokens, codes.d_sae),
            check_invariants=False,
        )
    return torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values().numpy()


def product(codes: Codes, dense: Tensor) -> Tensor:
    """codes @ dense, [tokens, d], for dense [d_sae, d]: a weighted sum of rows per token.

    That is an embedding bag, whose kernel is nine times faster than CSR times dense here.
    """
    parts = (codes.crow, codes.cols, codes.values)
    crow, cols, values = (torch.from_numpy(part).to(dense.device) for part in parts)
    return embedding_bag(
        cols, dense, crow, mode="sum", per_sample_weights=values, include_last_offset=True
    )


def transposed_products(pairs: list[tuple[np.ndarray, Tensor]], codes: Codes) -> list[Tensor]:
    """For each (values [n], dense [tokens, d]): A^T @ dense [d_sae, d], A = values at the pattern.

    The pattern is turned round once for all pairs.
    """
    index = np.arange(len(codes.cols), dtype=np.int32)
    pattern = scipy.sparse.csr_array(
        (index, codes.cols, codes.crow), shape=(codes.n_tokens, codes.d_sae)
    ).tocsc()
    order, rows, starts = pattern.data, pattern.indices, pattern.indptr
    return [
        product(Codes(starts, rows, values[order], codes.n_tokens), dense)
        for values, dense in pairs
    ]
