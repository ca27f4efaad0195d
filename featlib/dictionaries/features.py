"""Sparse feature activations over one common token stream.

All four models read the same tokens in the same order; row t of every matrix is token t of that
stream, so features of different models can be compared row by row. Values are the autoencoder's
activations on scaled input (mean norm sqrt(d_in)), zero where a feature does not fire.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from featlib import FeatlibError
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.run import atomic_path, damaged, needed


@dataclass(frozen=True)
class FeatureActivations:
    """Activations of one autoencoder's features over a token stream.

    `matrix` [tokens, d_sae] float32 CSR, int32 indices sorted within a row, no stored zeros.
    """

    matrix: sp.csr_array

    @property
    def n_tokens(self) -> int:
        return self.matrix.shape[0]

    @property
    def d_sae(self) -> int:
        return self.matrix.shape[1]

    @cached_property
    def columns(self) -> sp.csc_array:
        """The same numbers by feature (made once, on first use); tokens ascend within a column."""
        return self.matrix.tocsc()

    @property
    def l0(self) -> float:
        """Mean number of features that fire on a token."""
        return self.matrix.nnz / max(self.n_tokens, 1)

    @cached_property
    def firings(self) -> np.ndarray:
        """[d_sae] int64: number of tokens on which each feature fires."""
        return count_firings(self.matrix)

    def of(self, feature: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [n] int (ascending) at which `feature` fires, and its activations [n] there."""
        assert 0 <= feature < self.d_sae, (feature, self.d_sae)
        start, stop = self.columns.indptr[feature : feature + 2]
        return self.columns.indices[start:stop], self.columns.data[start:stop]


def count_firings(matrix: sp.csr_array) -> np.ndarray:
    """[d_sae] int64: number of rows of `matrix` [tokens, d_sae] in which each column is stored."""
    return np.bincount(matrix.indices, minlength=matrix.shape[1])


def feature_activations(matrix: sp.sparray | np.ndarray) -> FeatureActivations:
    """Put a [tokens, d_sae] matrix into canonical form; refuse negative or non-finite values."""
    m = sp.csr_array(matrix, dtype=np.float32)
    m.sum_duplicates()
    m.eliminate_zeros()
    if m.nnz and not (np.isfinite(m.data).all() and m.data.min() > 0):
        raise FeatlibError(
            "feature activations are not all finite and at least 0: the autoencoder's training "
            "may have diverged; lower sae_lr"
        )
    if m.nnz < 2**31:
        m.indices = m.indices.astype(np.int32, copy=False)
        m.indptr = m.indptr.astype(np.int32, copy=False)
    return FeatureActivations(m)


def encode_batches(batches: Iterable[torch.Tensor], sae: SparseAutoencoder) -> FeatureActivations:
    """Encode raw activations, one batch [tokens, d_in] after the other: a row for each token."""
    parts = [sae.encode_sparse(x * sae.scale) for x in batches]
    return feature_activations(sp.vstack(parts, format="csr"))


@torch.no_grad()
def calibrate(sae: SparseAutoencoder, batches: Iterable[torch.Tensor], l0: float) -> None:
    """Set thresholds at which `sae` has `l0` active features per token of `batches`.

    An autoencoder's own threshold fits the text that it was trained on; on text that its model was
    not adapted to more features pass it. Where features have thresholds of their own, all are moved
    by one number. Never below 0, so a ReLU stays a ReLU. `batches` [tokens, d_in] are of scaled
    activations; the largest pre-activations of all are held: give some ten thousand tokens.

    Deviation: the paper compares autoencoders of different sparsity; we set their thresholds so
    that all use the same number of features per token of the common text, because a longer list of
    active features matches a shorter one less well.
    """
    largest, total = [], 0
    above = sae.threshold - sae.threshold.min()  # the lowest: 0 for all where there is one
    for x in batches:
        pre = ((x - sae.b_dec) @ sae.W_enc + (sae.b_enc - above)).flatten()
        total += len(x)
        # Eight times the mean is more than one batch holds of the largest.
        largest.append(pre.topk(min(len(pre), round(8 * l0 * len(x)))).values)
    strongest = torch.cat(largest)
    rank = min(max(round(l0 * total), 1), len(strongest))
    sae.set_threshold((strongest.topk(rank)[0].min() + above).clamp_min(0))


def save_features(f: FeatureActivations, path: str | Path) -> None:
    """Write an .npz of plain arrays (no objects), complete or not at all."""
    # 16 bits hold every feature index up to 65,535: a quarter less to write and to keep.
    m, small = f.matrix, np.uint16 if f.d_sae <= 2**16 else np.int32
    indices = m.indices.astype(small)
    with atomic_path(path) as tmp, tmp.open("wb") as file:
        np.savez(file, shape=m.shape, indptr=m.indptr, indices=indices, data=m.data)


def load_features(path: Path) -> FeatureActivations:
    """Read what `save_features` wrote; a missing or damaged file is an error that names it."""
    needed(path)
    try:
        with np.load(path, allow_pickle=False) as z:
            arrays = (z["data"], z["indices"].astype(np.int32), z["indptr"])
            matrix = sp.csr_array(arrays, shape=tuple(z["shape"].tolist()))
            matrix.check_format()
    except Exception as error:
        raise damaged(path, error) from error
    return feature_activations(matrix)


def activation_histograms(f: FeatureActivations, bins: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Histogram of each feature's non-zero activations between 0 and its own maximum.

    Returns counts [d_sae, bins] int64 (each row adds up to the feature's firings) and the maxima
    [d_sae] float32 (0 for a silent feature); bin i spans maximum * (i, i + 1] / bins.
    """
    m = f.matrix
    maxima = np.zeros(f.d_sae, dtype=np.float32)
    np.maximum.at(maxima, m.indices, m.data)
    level = np.ceil(m.data.astype(np.float64) / maxima[m.indices] * bins).astype(np.int64) - 1
    flat = m.indices.astype(np.int64) * bins + np.clip(level, 0, bins - 1)
    return np.bincount(flat, minlength=f.d_sae * bins).reshape(f.d_sae, bins), maxima


def tokens_fired_on(f: FeatureActivations, ids: np.ndarray, n: int) -> list:
    """For each feature [[token id, thousandths of its summed activation], ...], largest first.

    `ids` [blocks, context] are the token ids of the stream; `n` tokens are told at most.
    """
    one_hot = (np.ones(ids.size, np.float32), ids.reshape(-1).astype(int), np.arange(ids.size + 1))
    mass = sp.csr_array(f.matrix.T @ sp.csr_array(one_hot))
    told = []
    for start, stop in zip(mass.indptr[:-1], mass.indptr[1:], strict=True):
        share, token = mass.data[start:stop], mass.indices[start:stop]
        order = np.lexsort((token, -share))[:n]
        share = np.rint(1000 * share[order] / max(share.sum(), 1e-30)).astype(int)
        told.append(np.column_stack([token[order], share]).tolist())
    return told


def token_windows(
    documents: np.ndarray, tokens: np.ndarray, before: int, after: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds [start, stop) of the context around each of `tokens`, as indices into the stream.

    `documents` [blocks, context]: the document of each token. A window stays inside its document,
    and inside its block too, for the model never saw what lies before the block's first token.
    """
    blocks, context = documents.shape
    flat = documents.reshape(-1)
    breaks = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.union1d(breaks, np.arange(0, blocks * context + 1, context))
    run = np.searchsorted(edges, tokens, side="right")
    start = np.maximum(edges[run - 1], np.asarray(tokens) - before)
    stop = np.minimum(edges[run], np.asarray(tokens) + after + 1)
    return start, stop
