"""Detectors of a label: chosen on one half of the documents, judged on the other.

A detector is a number per token and a threshold above which it says yes. All that is chosen (the
feature, its threshold, the probe's weights) is chosen on the selection half of the documents; every
number that is reported comes from the other, with intervals from resampling whole documents.

Deviation: the paper shows its case studies as shaded text; we choose a feature by its F1 on one
half of the documents and measure it on the other, because a feature picked by eye can tell any
story.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from featlib.cases.text import LabelledStream
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


def rank_features(f: FeatureActivations, stream: LabelledStream) -> pd.DataFrame:
    """Features by F1, each at its own best threshold, on the selection half alone.

    Columns feature, threshold (fires above it), f1; best first. Left out is what even the best
    conceivable threshold could not bring to the first place.
    """
    c = f.columns
    here = stream.selection[c.indices]
    feature = np.repeat(np.arange(f.d_sae), np.diff(c.indptr))[here]
    token, value = c.indices[here], c.data[here]
    positive, weight = stream.mask[token], stream.weights[token]
    n_positive = float(stream.weights[stream.mask & stream.selection].sum())
    firings = np.bincount(feature, weight, minlength=f.d_sae)
    hits = np.bincount(feature, weight * positive, minlength=f.d_sae)
    # Reached by "fires at all"; at best all hits are kept and every false alarm goes.
    reached, bound = 2 * hits / (firings + n_positive), 2 * hits / (hits + n_positive)
    least = reached.max() * (1 - 1e-9)  # sums of weights are rounded
    rows = ((bound >= least) & (firings > 0))[feature]
    table = best_cuts(feature[rows], value[rows], positive[rows], weight[rows], n_positive)
    return table.sort_values(["f1", "feature"], ascending=[False, True], ignore_index=True)


def best_cuts(
    group: np.ndarray,
    value: np.ndarray,
    positive: np.ndarray,
    weight: np.ndarray,
    n_positive: float | np.ndarray,
    floor: float = 0.0,
) -> pd.DataFrame:
    """For each group of entries [n], the threshold on `value` that gives the highest F1.

    Columns feature (the group), threshold, f1. Entries that are not listed count as lower than all
    others. `weight` [n]: how many tokens an entry stands for; `n_positive` (or [n], that of each
    entry's group): how many are to be found. The threshold lies half-way between the lowest value
    kept and the next (`floor` where there is none). Ties in F1: fewest tokens.
    """
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
    cuts = (value[best] + following[best]) / 2
    return pd.DataFrame({"feature": group[best], "threshold": cuts, "f1": f1[best]})


def best_threshold(score: np.ndarray, stream: LabelledStream, least: float = -np.inf) -> float:
    """The threshold on `score` [tokens] with the highest F1 on the selection half.

    `least` is 0 for a feature: a silent one does not say yes.
    """
    here = stream.selection
    score, mask, weight = score[here], stream.mask[here], stream.weights[here]
    group = np.zeros(len(score), dtype=np.int64)
    total, floor = float(weight[mask].sum()), float(score.min()) - 1.0
    return max(float(best_cuts(group, score, mask, weight, total, floor)["threshold"][0]), least)


class Resampled:
    """Sums over tokens, once as they are and once for each of `n_boot` resamplings of documents.

    `home` [tokens]: each one's document; `weights` [n_boot + 1, documents]: how often it is drawn.
    """

    def __init__(
        self, documents: np.ndarray, draws: Draws, rng: np.random.Generator | None = None
    ) -> None:
        _, self.home = np.unique(documents, return_inverse=True)
        drawn = document_weights(documents, draws.n_boot, rng or np.random.default_rng(draws.seed))
        self.weights = np.vstack([np.ones((1, drawn.shape[1])), drawn])

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

    Each [n_boot + 1], without and with resampling of documents: the same resamplings for one stream
    and seed, so that two detectors may be compared draw by draw. Who never says yes has precision
    0. Ties in `score` count one half in AUROC. `within` compares tokens of the same id only: 0.5
    for what knows the token alone, NaN where no id occurs with and without the label.
    """
    test = stream.test
    arrays = (np.asarray(score, np.float64), stream.mask, stream.weights, stream.ids)
    score, mask, weight, ids = (array[test] for array in arrays)
    said, resampled = score > threshold, Resampled(stream.documents[test], draws)
    hits, yes, positive = (resampled.total(k * weight) for k in (said & mask, said, mask))
    tokens = (score, mask, weight, resampled.home)
    won, pairs = _pairs(resampled.weights, np.zeros_like(ids), *tokens)
    both = np.isin(ids, np.intersect1d(ids[mask], ids[~mask]))
    within = (array[both] for array in (ids, *tokens))
    inner, inner_pairs = _pairs(resampled.weights, *within)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "precision": hits / np.maximum(yes, 1e-9),
            "recall": hits / positive,
            "f1": 2 * hits / (yes + positive),
            "auroc": won / pairs,
            "within": inner / inner_pairs,
        }


def f1_draws(score: np.ndarray, stream: LabelledStream, draws: Draws) -> np.ndarray:
    """F1 [n_boot + 1], test half, of `score` [tokens] >= 0 above its best threshold."""
    return detector_draws(score, best_threshold(score, stream, 0.0), stream, draws)["f1"]


def correlation(x: np.ndarray, y: np.ndarray, documents: np.ndarray, draws: Draws) -> Estimate:
    """Pearson correlation of x and y [tokens], with its interval over documents."""
    resampled = Resampled(documents, draws)
    x, y = x.astype(np.float64), y.astype(np.float64)
    n, sx, sy, xx, yy, xy = map(resampled.total, (np.ones(len(x)), x, y, x * x, y * y, x * y))
    spread = (n * xx - sx**2) * (n * yy - sy**2)
    return as_estimate((n * xy - sx * sy) / np.sqrt(np.where(spread > 0, spread, np.inf)))


def evaluate_detector(
    score: np.ndarray, threshold: float | None, stream: LabelledStream, draws: Draws
) -> dict[str, float]:
    """`threshold` (a feature's best if None), and `detector_draws` with their intervals."""
    cut = best_threshold(score, stream, 0.0) if threshold is None else threshold
    measured = {"threshold": cut}
    for name, values in detector_draws(score, cut, stream, draws).items():
        measured |= as_estimate(values).named(name)
    return measured


def _pairs(
    drawn: np.ndarray,
    group: np.ndarray,
    score: np.ndarray,
    mask: np.ndarray,
    weight: np.ndarray,
    document: np.ndarray,
) -> np.ndarray:
    """Pairs of a labelled and an unlabelled token of one group: won by the first, and all.

    [2, n_boot + 1]. `drawn` [n_boot + 1, documents]: how often each is; the others are [tokens].
    """
    if not len(score):
        return np.zeros((2, len(drawn)))
    if len(score) > LEVELS:  # a neuron has a value of its own on every token
        score = np.rint(score * (LEVELS / max(np.ptp(score), 1e-30)))
    order = np.lexsort((score, group))
    first = np.diff(group[order], prepend=-1) != 0
    new = first | (np.diff(score[order], prepend=np.nan) != 0)
    level = np.empty(len(score), np.int64)
    level[order] = np.cumsum(new) - 1
    home = (np.cumsum(first) - 1)[new]  # group of each level
    starts = np.flatnonzero(np.diff(home, prepend=-1))
    shape = (len(home), drawn.shape[1])
    results = []
    for rows in np.array_split(drawn, max(1, len(drawn) * len(home) // 4_000_000)):
        positive, negative = (  # [levels, rows]
            sparse.csr_array((weight[kind], (level[kind], document[kind])), shape=shape) @ rows.T
            for kind in (mask, ~mask)
        )
        below = np.cumsum(negative, axis=0)
        below -= (below - negative)[starts][home] + negative / 2
        pairs = np.add.reduceat(positive, starts) * np.add.reduceat(negative, starts)
        results.append([(positive * below).sum(0), pairs.sum(0)])
    return np.concatenate(results, axis=1)


def feature_scores(f: FeatureActivations, feature: int) -> np.ndarray:
    """Activation of one feature on every token, zeros included: float32 [tokens]."""
    return f.columns[:, [feature]].toarray()[:, 0]
