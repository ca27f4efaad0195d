"""Detectors of a label: chosen on one half of the documents, judged on the other.

A detector is a number per token and a threshold above which it says yes. Everything that is
chosen (the feature, its threshold, the probe's weights) is chosen on the selection half of the
documents; every number that is reported comes from the other half, with intervals from resampling
whole documents, since tokens of one document are not independent.

Deviation: the paper shows its case studies as shaded text; we choose a feature by its F1 on one
half of the documents and measure it on the other, because a feature picked by eye can tell any
story.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from featlib import FeatlibError
from featlib.dictionaries.features import FeatureActivations
from featlib.estimate import Estimate, document_weights, percentile_interval

LEVELS = 5_000  # of a score, from the lowest to the highest, that AUROC tells apart
MEASURES = ("precision", "recall", "f1", "auroc", "within")


@dataclass(frozen=True)
class Draws:
    """What is left to chance, and how much of it is drawn."""

    seed: int
    n_boot: int  # resamples of documents behind an interval
    n_random: int = 0  # random directions beside a feature that is removed


@dataclass(frozen=True)
class LabelledStream:
    """Tokens in reading order, which of them have the label, and which half each belongs to."""

    mask: np.ndarray  # bool [tokens], the label
    ids: np.ndarray  # int64 [tokens]
    documents: np.ndarray  # int64 [tokens]
    selection: np.ndarray  # bool [tokens]; the others are the test half
    weights: np.ndarray  # float [tokens]: how many tokens of the held-out text each stands for

    @property
    def test(self) -> np.ndarray:
        return ~self.selection


def labelled_stream(
    mask: np.ndarray,
    ids: np.ndarray,
    documents: np.ndarray,
    *,
    seed: int,
    weights: np.ndarray | None = None,
) -> LabelledStream:
    """Flatten arrays [blocks, context] (or [tokens]) and assign whole documents to two halves.

    Documents are drawn in random order into the selection half until it holds half of the
    labelled tokens. Both halves must hold labelled and unlabelled tokens. `weights` [blocks]: how
    many blocks each stands for; 1 if not given.
    """
    each = 1.0 if weights is None else np.repeat(weights, np.asarray(ids).shape[1])
    flat, tokens, docs = (np.asarray(array).reshape(-1) for array in (mask, ids, documents))
    assert len(flat) == len(tokens) == len(docs), "three arrays of the same blocks"
    flat, docs = flat.astype(bool), docs.astype(np.int64)
    n_documents = int(docs.max(initial=-1)) + 1
    order = np.random.default_rng(seed).permutation(n_documents)
    labelled = np.bincount(docs, weights=flat, minlength=n_documents)[order]
    # A document goes where its middle labelled token would go: neither half gets a head start.
    chosen = np.zeros(n_documents, dtype=bool)
    chosen[order] = np.cumsum(labelled) - labelled / 2 < labelled.sum() / 2
    each = np.broadcast_to(each, flat.shape)
    stream = LabelledStream(flat, tokens.astype(np.int64), docs, chosen[docs], each)
    for name, half in (("selection", stream.selection), ("test", stream.test)):
        if not flat[half].any() or flat[half].all():
            raise FeatlibError(
                f"the {name} half holds {int(flat[half].sum())} labelled tokens of "
                f"{int(half.sum())}: both kinds are needed; give more documents"
            )
    return stream


# ------------------------------------------------------------------------------ choosing


def rank_features(f: FeatureActivations, stream: LabelledStream, top: int) -> pd.DataFrame:
    """The `top` features by F1, each at its own best threshold, on the selection half alone.

    Columns feature, threshold (in activation units: fires above it), f1; best first. The ranking
    is exact: a feature is left out early only where even the best conceivable threshold could not
    bring it among the first `top`.
    """
    c, top = f.columns, min(top, f.d_sae)
    assert f.n_tokens == len(stream.mask), "activations of the very tokens that are labelled"
    here = stream.selection[c.indices]
    feature = np.repeat(np.arange(f.d_sae), np.diff(c.indptr))[here]
    token, value = c.indices[here], c.data[here]
    positive, weight = stream.mask[token], stream.weights[token]
    n_positive = float(stream.weights[stream.mask & stream.selection].sum())
    firings = np.bincount(feature, weight, minlength=f.d_sae)
    hits = np.bincount(feature, weight * positive, minlength=f.d_sae)
    # Reached by "fires at all"; at best all hits are kept and every false alarm goes.
    reached, bound = 2 * hits / (firings + n_positive), 2 * hits / (hits + n_positive)
    least = np.partition(reached, -top)[-top] * (1 - 1e-9)  # sums of weights are rounded
    rows = ((bound >= least) & (firings > 0))[feature]
    table = best_cuts(
        feature[rows], value[rows], positive[rows], weight[rows], n_positive, floor=0.0
    )
    table = table.sort_values(["f1", "feature"], ascending=[False, True])
    return table.head(top).reset_index(drop=True)


def best_cuts(
    group: np.ndarray,
    value: np.ndarray,
    positive: np.ndarray,
    weight: np.ndarray,
    n_positive: float | np.ndarray,
    *,
    floor: float,
) -> pd.DataFrame:
    """For each group of entries [n], the threshold on `value` that gives the highest F1.

    Entries that are not listed count as lower than all others. `weight` [n] says how many tokens an
    entry stands for, `n_positive` (one number, or that of each entry's group [n]) how many there
    are to be found. The threshold lies half-way between the lowest value kept and the next
    (`floor` where there is none). Ties in F1: fewest tokens.
    """
    if not len(group):
        return pd.DataFrame(columns=["feature", "threshold", "f1"], dtype=float)
    order = np.lexsort((-value, group))
    group, value, weight = group[order], value[order].astype(np.float64), weight[order]
    positive = weight * positive[order]
    first, last = np.diff(group, prepend=-1) != 0, np.diff(group, append=-1) != 0  # of its group
    starts, home = np.flatnonzero(first), np.cumsum(first) - 1
    hits, said = np.cumsum(positive), np.cumsum(weight)
    hits = hits - (hits - positive)[starts][home]
    said = said - (said - weight)[starts][home]
    f1 = 2 * hits / (said + np.broadcast_to(n_positive, len(order))[order])
    following = np.append(value, floor)[1:]
    following[last] = floor
    f1[(following == value) & ~last] = -1.0  # equal values cannot be told apart by a threshold
    at_best = np.flatnonzero(f1 == np.maximum.reduceat(f1, starts)[home])
    best = at_best[np.unique(group[at_best], return_index=True)[1]]
    return pd.DataFrame(
        {
            "feature": group[best],
            "threshold": (value[best] + following[best]) / 2,
            "f1": f1[best],
        }
    )


def best_threshold(score: np.ndarray, stream: LabelledStream) -> float:
    """The threshold on `score` [tokens] with the highest F1 on the selection half."""
    here = stream.selection
    score, mask, weight = score[here], stream.mask[here], stream.weights[here]
    group = np.zeros(len(score), dtype=np.int64)
    total, floor = float(weight[mask].sum()), float(score.min()) - 1.0
    return float(best_cuts(group, score, mask, weight, total, floor=floor)["threshold"][0])


# ------------------------------------------------------------------------------ measuring


class Resampled:
    """Sums over tokens, once as they are and once for each of `n_boot` resamplings of documents.

    `documents` [tokens] any integers. `weights` [n_boot + 1, documents] says how often each is
    drawn; row 0 takes each once, as it is.
    """

    def __init__(self, documents: np.ndarray, n_boot: int, rng: np.random.Generator) -> None:
        _, self.home = np.unique(documents, return_inverse=True)  # of each token
        drawn = document_weights(documents, n_boot, rng)
        self.weights = np.vstack([np.ones((1, drawn.shape[1])), drawn])

    def of(self, chosen: np.ndarray) -> Resampled:
        """The same resamplings of some of the tokens [tokens]."""
        part = copy.copy(self)
        part.home = self.home[chosen]
        return part

    def total(self, values: np.ndarray) -> np.ndarray:
        """[n_boot + 1] sums of `values` [tokens], row 0 as they are."""
        return self.weights @ np.bincount(self.home, values, self.weights.shape[1])

    def mean(self, values: np.ndarray) -> np.ndarray:
        """[rows, n_boot + 1] means over the tokens of each row of `values` [rows, tokens]."""
        return np.stack([self.total(row) for row in values]) / self.total(np.ones(len(self.home)))


def as_estimate(draws: np.ndarray) -> Estimate:
    """Draws [n_boot + 1] of a quantity, the first without resampling, as value and interval."""
    return Estimate(float(draws[0]), *percentile_interval(draws[1:]))


def detector_draws(
    score: np.ndarray, threshold: float, stream: LabelledStream, draws: Draws
) -> dict[str, np.ndarray]:
    """Precision, recall, F1, AUROC and AUROC within tokens of `score` > `threshold`, test half.

    Each [n_boot + 1], without and with resampling of the documents: the same resamplings for one
    stream and seed, so that two detectors may be compared draw by draw. A detector that never says
    yes has precision 0. Ties in `score` count one half in AUROC. `within` compares labelled and
    unlabelled tokens of the same id only, 0.5 for whatever knows the token alone; NaN where no id
    occurs with and without the label.
    """
    test = stream.test
    score, weight = np.asarray(score)[test].astype(np.float64), stream.weights[test]
    mask, said = stream.mask[test], score > threshold
    resampled = Resampled(stream.documents[test], draws.n_boot, np.random.default_rng(draws.seed))
    kinds = (said & mask, said, mask)
    hits, yes, positive = (resampled.total(tokens * weight) for tokens in kinds)
    ids = stream.ids[test]
    both = np.isin(ids, np.intersect1d(ids[mask], ids[~mask]))
    won, pairs = _pairs(score, mask, weight, resampled)
    inner, inner_pairs = _pairs(
        score[both], mask[both], weight[both], resampled.of(both), ids[both]
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "precision": np.where(yes > 0, hits / np.maximum(yes, 1e-9), 0.0),
            "recall": hits / positive,
            "f1": 2 * hits / (yes + positive),
            "auroc": won / pairs,
            "within": inner / inner_pairs,
        }


def correlation(x: np.ndarray, y: np.ndarray, documents: np.ndarray, draws: Draws) -> Estimate:
    """Pearson correlation of x and y [tokens], with its interval over documents."""
    resampled = Resampled(documents, draws.n_boot, np.random.default_rng(draws.seed))
    x, y = x.astype(np.float64), y.astype(np.float64)
    n, sx, sy, xx, yy, xy = map(resampled.total, (np.ones(len(x)), x, y, x * x, y * y, x * y))
    spread = (n * xx - sx**2) * (n * yy - sy**2)
    return as_estimate((n * xy - sx * sy) / np.sqrt(np.where(spread > 0, spread, np.inf)))


def evaluate_detector(
    score: np.ndarray, threshold: float, stream: LabelledStream, draws: Draws
) -> dict[str, float]:
    """`detector_draws` as values, each with `_low` and `_high`, percentiles over resamplings."""
    found = detector_draws(score, threshold, stream, draws)
    named = (as_estimate(values).named(name) for name, values in found.items())
    return {key: value for part in named for key, value in part.items()}


def _pairs(
    score: np.ndarray,
    mask: np.ndarray,
    weight: np.ndarray,
    resampled: Resampled,
    group: np.ndarray | None = None,
) -> np.ndarray:
    """Pairs of a labelled and an unlabelled token in which the labelled one has the higher score.

    And all pairs, of one `group` [tokens] if given: [2, n_boot + 1], for every resampling.
    """
    if not len(score):
        return np.zeros((2, len(resampled.weights)))
    group = np.zeros(len(score), np.int64) if group is None else group
    if len(score) > LEVELS:  # a neuron has a value of its own on every token
        score = np.rint(score * (LEVELS / max(np.ptp(score), 1e-30)))
    order = np.lexsort((score, group))
    first = np.diff(group[order], prepend=-1) != 0
    new = first | (np.diff(score[order], prepend=np.nan) != 0)
    level = np.empty(len(score), np.int64)
    level[order] = np.cumsum(new) - 1
    home = (np.cumsum(first) - 1)[new]  # group of each level
    starts = np.flatnonzero(np.diff(home, prepend=-1))
    shape = (len(home), resampled.weights.shape[1])
    results = []
    parts = max(1, len(resampled.weights) * len(home) // 4_000_000)
    for rows in np.array_split(resampled.weights, parts):
        positive, negative = (  # [levels, rows]
            sparse.csr_array((weight[kind], (level[kind], resampled.home[kind])), shape=shape)
            @ rows.T
            for kind in (mask, ~mask)
        )
        below = np.cumsum(negative, axis=0)
        below -= (below - negative)[starts][home] + negative / 2
        pairs = np.add.reduceat(positive, starts) * np.add.reduceat(negative, starts)
        results.append([(positive * below).sum(0), pairs.sum(0)])
    return np.concatenate(results, axis=1)


def feature_scores(f: FeatureActivations, feature: int) -> np.ndarray:
    """Activation of one feature on every token, zeros included: float32 [tokens]."""
    score = np.zeros(f.n_tokens, dtype=np.float32)
    tokens, values = f.of(feature)
    score[tokens] = values
    return score
