"""Transfer: one dictionary read in several models, so that no second dictionary adds noise.

An autoencoder trained on a parent is applied to a child's activations as it is. Only the scale
follows the rule of training: activations are multiplied by one number per model, such that their
mean norm over the common stream is what the parent's is there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from featlib.dictionaries.activations import activation_stats, harvest
from featlib.dictionaries.features import FeatureActivations, encode_stream
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.matching.ceilings import transfer_correlation, transfer_fates
from featlib.matching.fates import MIN_FIRINGS, THRESHOLD, Fates, persistence_draws
from featlib.matching.intervals import bootstrap_interval
from featlib.models.merging import merge_models
from featlib.text.tokens import visible

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def read_neurons(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    """Activations [tokens, d_in] float32 over blocks `ids`, with no copy beside the result."""
    out = np.empty((ids.size, model.config.intermediate_size), dtype=np.float32)
    start = 0
    for rows in harvest(model, ids):
        out[start : start + len(rows)] = rows.cpu().numpy()
        start += len(rows)
    return out


def read_with(
    sae: SparseAutoencoder,
    parent_scale: float,
    child: PreTrainedModel,
    ids: np.ndarray,
    child_scale: float | None = None,
) -> FeatureActivations:
    """Features of a parent's `sae` in `child`, over blocks `ids` [blocks, context].

    `parent_scale`: `activation_stats(parent, ids).scale`, over the same blocks, and `child_scale`
    likewise (measured here if not given). With the parent itself as the child this gives
    `encode_stream(parent, sae, ids)`.
    """
    other = copy.copy(sae)  # the same weights, another scale
    own = activation_stats(child, ids).scale if child_scale is None else child_scale
    other.scale = sae.scale * own / parent_scale
    return encode_stream(child, other, ids)


def transfer_share(
    before: FeatureActivations,
    after: FeatureActivations,
    documents: np.ndarray,
    weights: np.ndarray,
    *,
    threshold: float = THRESHOLD,
    min_firings: int = MIN_FIRINGS,
) -> tuple[Fates, tuple[float, float]]:
    """Fates by transfer and the interval of `Fates.persist` over documents.

    `weights` from `intervals.document_weights`: the same for all shares that will be compared.
    """
    fates = transfer_fates(
        before.matrix, after.matrix, threshold=threshold, min_firings=min_firings
    )
    draws = persistence_draws(before.matrix, after.matrix, documents, fates, weights)
    return fates, bootstrap_interval(fates.persist, draws)


def follow_merges(
    sae: SparseAutoencoder,
    parent_scale: float,
    before: FeatureActivations,
    children: tuple[PreTrainedModel, PreTrainedModel],
    ids: np.ndarray,
    ts: Sequence[float],
    *,
    method: str = "slerp",
) -> dict[float, np.ndarray]:
    """For each t the correlation [d_sae] of each feature with itself in the merge at t.

    `before`: the parent's own activations of `sae`; `children`: the models at t = 0 and t = 1.
    """
    found = {}
    for t in ts:
        model = merge_models(*children, t=t, method=method)
        after = read_with(sae, parent_scale, model, ids)
        found[float(t)] = transfer_correlation(before.matrix, after.matrix)
    return found


def share_by_t(
    correlations: Mapping[float, np.ndarray],
    firings: np.ndarray,
    *,
    threshold: float = THRESHOLD,
    min_firings: int = MIN_FIRINGS,
) -> pd.DataFrame:
    """Along t: columns t, kept, both, one, none (shares of testable features; kept is their sum).

    A feature that is itself in the merge at t is counted under both, one or none, by how many of
    the two ends (the smallest and the largest t) had kept it.
    """
    testable = np.asarray(firings) >= min_firings
    ts = sorted(correlations)
    ends = [correlations[t][testable] >= threshold for t in (ts[0], ts[-1])]
    how_many = ends[0].astype(int) + ends[1]
    rows = []
    for t in ts:
        kept = correlations[t][testable] >= threshold
        shares = [float((kept & (how_many == n)).sum()) / max(len(kept), 1) for n in (2, 1, 0)]
        rows.append((t, sum(shares), *shares))
    return pd.DataFrame(rows, columns=["t", "kept", "both", "one", "none"])


def top_tokens(
    f: FeatureActivations,
    ids: np.ndarray,
    features: Sequence[int],
    texts: Sequence[str],
    n: int = 5,
) -> list[str]:
    """For each of `features`, its `n` tokens of the largest summed activation, "·a b ·c".

    `texts`: the text of every id (`tokens.token_strings`).
    """
    flat = np.asarray(ids).reshape(-1)
    said = []
    for feature in features:
        where, value = f.of(int(feature))
        mass = np.bincount(flat[where], weights=value)
        best = np.argsort(-mass, kind="stable")[:n]
        said.append(" ".join(visible(texts[i]) for i in best if mass[i] > 0))
    return said
