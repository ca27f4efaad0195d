"""Sparse feature activations over one common token stream, and examples read out of them.

All four models read the same tokens in the same order; row t of every matrix is token t of that
stream, so features of different models can be compared row by row. Values are the autoencoder's
activations on scaled input (mean norm sqrt(d_in)), zero where a feature does not fire.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from featlib import FeatlibError
from featlib.dictionaries.activations import harvest
from featlib.run import atomic_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Encoder(Protocol):
    """What this module asks of an autoencoder."""

    scale: float

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """[tokens, d_in] scaled activations -> [tokens, d_sae], 0 where a feature is silent."""
        ...


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

    def of(self, feature: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [n] int (ascending) at which `feature` fires, and its activations [n] there."""
        if not 0 <= feature < self.d_sae:
            raise FeatlibError(
                f"feature {feature} does not exist: this autoencoder has {self.d_sae} features, "
                f"0 to {self.d_sae - 1}"
            )
        start, stop = self.columns.indptr[feature : feature + 2]
        return self.columns.indices[start:stop], self.columns.data[start:stop]


def feature_activations(matrix: sp.sparray | np.ndarray) -> FeatureActivations:
    """Put a [tokens, d_sae] matrix into canonical form; refuse negative or non-finite values."""
    m = sp.csr_array(matrix, dtype=np.float32)
    m.sum_duplicates()
    m.eliminate_zeros()
    if m.nnz and not (np.isfinite(m.data).all() and m.data.min() > 0):
        raise FeatlibError(
            "feature activations must be finite and at least 0; "
            "encode with a ReLU, JumpReLU or TopK autoencoder"
        )
    return FeatureActivations(_with_small_indices(m))


def encode_stream(
    model: PreTrainedModel,
    sae: Encoder,
    ids: np.ndarray,
    *,
    batch_size: int = 32,
) -> FeatureActivations:
    """Encode every token of `ids` [blocks, context]; row order is `ids.reshape(-1)`.

    `batch_size` counts blocks per forward pass. Dense activations exist one batch at a time only.
    """
    return encode_batches(harvest(model, ids, batch_size=batch_size), sae)


@torch.no_grad()
def threshold_for_l0(
    model: PreTrainedModel, sae: Encoder, ids: np.ndarray, l0: float, *, batch_size: int = 32
) -> float:
    """Threshold at which `sae` has `l0` active features per token on blocks `ids` of `model`.

    An autoencoder's own threshold fits the text that it was trained on. On text that its model was
    not adapted to more features pass it, and lists of different length match less. With this
    threshold all autoencoders are equally sparse on one common text, which is what BatchTopK does
    within a batch. Never below 0, so a ReLU stays a ReLU. Pre-activations are held for all of
    `ids` [blocks, context] at once: give some ten thousand tokens.

    Deviation: the paper compares autoencoders of different sparsity; we set their thresholds so
    that all use the same number of features per token of the common text, because a longer list of
    active features matches a shorter one less well.
    """
    return threshold_at(
        sae, (raw * sae.scale for raw in harvest(model, ids, batch_size=batch_size)), l0
    )


@torch.no_grad()
def threshold_at(sae: Encoder, batches: Iterable[torch.Tensor], l0: float) -> float:
    """`threshold_for_l0` over batches [tokens, d_in] of activations that are scaled already."""
    largest = []
    total = 0
    for x in batches:
        pre = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc).flatten()
        total += len(x)
        # Eight times the mean is more than one batch holds of the largest.
        largest.append(pre.topk(min(len(pre), round(8 * l0 * len(x)))).values)
    if not total:
        raise FeatlibError("no activations to set a threshold on: the token stream is empty")
    strongest = torch.cat(largest)
    rank = min(max(round(l0 * total), 1), len(strongest))
    return max(0.0, strongest.topk(rank)[0].min().item())


def encode_batches(batches: Iterable[torch.Tensor], sae: Encoder) -> FeatureActivations:
    """Encode a stream of raw activations, each batch [tokens, d_in], into one sparse matrix.

    Uses the autoencoder's `encode_sparse` where it has one (the same features, several times
    faster on a CPU), else the dense `encode`.
    """
    sparse = getattr(sae, "encode_sparse", None)
    parts = [
        sparse(x * sae.scale).to_csr() if sparse else _sparse_rows(sae.encode(x * sae.scale))
        for x in batches
    ]
    if not parts:
        raise FeatlibError("no activations to encode: the token stream is empty")
    return feature_activations(sp.vstack(parts, format="csr"))


def save_features(f: FeatureActivations, path: str | Path) -> None:
    """Write an .npz of plain arrays (no objects), complete or not at all."""
    # 16 bits hold every feature index up to 65,535: a quarter less to write and to keep.
    small = np.uint16 if f.d_sae <= 2**16 else np.int32
    with atomic_path(path) as tmp, tmp.open("wb") as file:
        np.savez(
            file,
            shape=np.array(f.matrix.shape, dtype=np.int64),
            indptr=f.matrix.indptr,
            indices=f.matrix.indices.astype(small),
            data=f.matrix.data,
        )


def load_features(path: str | Path) -> FeatureActivations:
    """Read what `save_features` wrote; a damaged file is an error that names it."""
    try:
        with np.load(path, allow_pickle=False) as z:
            shape = tuple(int(n) for n in z["shape"])
            arrays = (z["data"], z["indices"].astype(np.int32), z["indptr"])
            matrix = sp.csr_array(arrays, shape=shape)
            matrix.check_format()
    except FileNotFoundError:
        raise
    except Exception as error:
        raise FeatlibError(
            f"{path} is not a readable feature file ({error}); delete it and run its chapter again"
        ) from error
    return feature_activations(matrix)


def firing_counts(f: FeatureActivations) -> np.ndarray:
    """[d_sae] int64: number of tokens on which each feature fires."""
    return np.bincount(f.matrix.indices, minlength=f.d_sae).astype(np.int64)


def densities(f: FeatureActivations) -> np.ndarray:
    """[d_sae] float64 in 0..1: share of tokens on which each feature fires."""
    return firing_counts(f) / max(f.n_tokens, 1)


def mean_l0(f: FeatureActivations) -> float:
    """Mean number of features that fire on a token."""
    return f.matrix.nnz / max(f.n_tokens, 1)


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


def top_examples(
    f: FeatureActivations,
    feature: int,
    n: int = 20,
    *,
    documents: np.ndarray,
    before: int = 12,
    after: int = 6,
    per_document: int | None = None,
) -> pd.DataFrame:
    """The `n` tokens on which `feature` fires most, strongest first (ties: earlier token first).

    `documents` [blocks, context]; `per_document` caps the examples from one document, for variety.
    Returns token, block, pos, document, activation, start, stop: the context is stream
    [start, stop), `token_windows`. Fewer than `n` rows where the feature fires less often.
    """
    tokens, values = f.of(feature)
    order = np.lexsort((tokens, -values))
    if per_document is not None:
        home = _flat_documents(f, documents)[tokens[order]]
        order = order[_rank_within(home) < per_document]
    return _examples(f, tokens[order[:n]], values[order[:n]], documents, before, after)


def all_top_examples(
    f: FeatureActivations,
    n: int = 20,
    *,
    documents: np.ndarray,
    before: int = 12,
    after: int = 6,
) -> pd.DataFrame:
    """`top_examples` of every feature in one table, with columns feature and rank (from 0)."""
    c = f.columns
    feature = np.repeat(np.arange(f.d_sae), np.diff(c.indptr))
    order = np.lexsort((c.indices, -c.data, feature))
    rank = np.arange(c.nnz) - c.indptr[feature]  # `feature` is sorted, so this fits `order`
    keep = rank < n
    order = order[keep]
    table = _examples(f, c.indices[order], c.data[order], documents, before, after)
    table.insert(0, "feature", feature[keep])
    table.insert(1, "rank", rank[keep])
    return table


def quantile_examples(
    f: FeatureActivations,
    feature: int,
    n_quantiles: int = 4,
    per_quantile: int = 5,
    *,
    rng: np.random.Generator,
    documents: np.ndarray,
    before: int = 12,
    after: int = 6,
) -> pd.DataFrame:
    """Random examples from each quantile of a feature's non-zero activations, weakest quantile 0.

    Quantiles hold equally many firings (to within one), by rank, as in automated explanation. The
    columns of `top_examples` and `quantile`, strongest first within a quantile.
    """
    tokens, values = f.of(feature)
    order = np.lexsort((-tokens, values))  # weakest first
    parts = np.array_split(order, n_quantiles)
    drawn = [rng.choice(p, size=min(per_quantile, len(p)), replace=False) for p in parts]
    drawn = [p[np.lexsort((tokens[p], -values[p]))] for p in drawn]
    picked = np.concatenate(drawn) if drawn else np.empty(0, dtype=np.int64)
    table = _examples(f, tokens[picked], values[picked], documents, before, after)
    table.insert(0, "quantile", np.repeat(np.arange(n_quantiles), [len(p) for p in drawn]))
    return table


def _examples(
    f: FeatureActivations,
    tokens: np.ndarray,
    values: np.ndarray,
    documents: np.ndarray,
    before: int,
    after: int,
) -> pd.DataFrame:
    home = _flat_documents(f, documents)
    start, stop = token_windows(documents, tokens, before, after)
    block, pos = np.divmod(tokens.astype(np.int64), documents.shape[1])
    return pd.DataFrame(
        {
            "token": tokens.astype(np.int64),
            "block": block,
            "pos": pos,
            "document": home[tokens],
            "activation": values,
            "start": start,
            "stop": stop,
        }
    )


def _flat_documents(f: FeatureActivations, documents: np.ndarray) -> np.ndarray:
    if documents.ndim != 2 or documents.size != f.n_tokens:
        raise FeatlibError(
            f"documents must be [blocks, context] with one entry per token: got shape "
            f"{documents.shape} for {f.n_tokens} tokens; pass the `documents` of the same blocks"
        )
    return documents.reshape(-1)


def _rank_within(groups: np.ndarray) -> np.ndarray:
    """[n] int: how many earlier entries carry the same group."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    first = np.searchsorted(ordered, ordered)
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = np.arange(len(groups)) - first
    return rank


def _sparse_rows(z: torch.Tensor) -> sp.csr_array:
    """The positive entries of z [tokens, d_sae]."""
    fires = z > 0
    indptr = np.concatenate([[0], fires.sum(1).cumsum(0).cpu().numpy()])
    columns = fires.nonzero()[:, 1].cpu().numpy()
    return sp.csr_array((z[fires].float().cpu().numpy(), columns, indptr), shape=tuple(z.shape))


def _with_small_indices(m: sp.csr_array) -> sp.csr_array:
    if m.nnz < 2**31:
        m.indices = m.indices.astype(np.int32, copy=False)
        m.indptr = m.indptr.astype(np.int32, copy=False)
    return m
