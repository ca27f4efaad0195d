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

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from featlib import FeatlibError
from featlib.dictionaries.features import FeatureActivations
from featlib.estimate import Estimate, document_weights, percentile_interval

MEASURES = ("precision", "recall", "f1", "auroc")
MEMBERS = 4  # features in a set, at most ...
GAIN = 0.01  # ... each of which raises the set's F1 by at least this


@dataclass(frozen=True)
class Draws:
    """What is left to chance, and how much of it is drawn."""

    seed: int
    n_boot: int  # resamples of documents behind an interval
    n_random: int = 0  # random features of like density beside one whose effect is measured


@dataclass(frozen=True)
class LabelledStream:
    """Tokens in reading order, which of them have the label, and which half each belongs to."""

    mask: np.ndarray  # bool [tokens], the label
    ids: np.ndarray  # int64 [tokens]
    documents: np.ndarray  # int64 [tokens]
    selection: np.ndarray  # bool [tokens]; the others are the test half

    @property
    def test(self) -> np.ndarray:
        return ~self.selection


def labelled_stream(
    mask: np.ndarray, ids: np.ndarray, documents: np.ndarray, *, seed: int
) -> LabelledStream:
    """Flatten arrays [blocks, context] (or [tokens]) and assign whole documents to two halves.

    Documents are drawn in random order into the selection half until it holds half of the
    labelled tokens. Both halves must hold labelled and unlabelled tokens.
    """
    flat, tokens, docs = (np.asarray(array).reshape(-1) for array in (mask, ids, documents))
    assert len(flat) == len(tokens) == len(docs), "three arrays of the same blocks"
    flat, docs = flat.astype(bool), docs.astype(np.int64)
    n_documents = int(docs.max(initial=-1)) + 1
    order = np.random.default_rng(seed).permutation(n_documents)
    labelled = np.bincount(docs, weights=flat, minlength=n_documents)[order]
    # A document goes where its middle labelled token would go: neither half gets a head start.
    chosen = np.zeros(n_documents, dtype=bool)
    chosen[order] = np.cumsum(labelled) - labelled / 2 < labelled.sum() / 2
    stream = LabelledStream(flat, tokens.astype(np.int64), docs, chosen[docs])
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
    table = _best_cuts_of(f.d_sae, *_selected(f, stream), stream, top=min(top, f.d_sae))
    table = table.sort_values(["f1", "feature"], ascending=[False, True])
    return table.head(top).reset_index(drop=True)


def select_feature_set(f: FeatureActivations, stream: LabelledStream) -> pd.DataFrame:
    """Features that together detect the label: any of them above its threshold says yes.

    An autoencoder may split one concept over several features (`raise` here, `try` there). Greedy:
    each step adds the feature and threshold that raise F1 on the selection half most, until it
    rises by less than `GAIN` or `MEMBERS` are taken. Columns feature, threshold, f1 (of the set up
    to here), in the order taken; the first is the best single feature.
    """
    feature, token, value = _selected(f, stream)
    said = np.zeros(f.n_tokens, dtype=bool)
    taken: list[tuple[int, float, float]] = []
    while len(taken) < MEMBERS:
        rest = ~said[token]
        least = taken[-1][2] + GAIN if taken else np.nextafter(0, 1)
        already = (int((said & stream.mask).sum()), int(said.sum()))
        table = _best_cuts_of(
            f.d_sae, feature[rest], token[rest], value[rest], stream, already=already, least=least
        )
        if table.empty or table["f1"].max() < least:
            break
        best = table.loc[table["f1"].idxmax()]
        taken.append((int(best["feature"]), float(best["threshold"]), float(best["f1"])))
        mine = (feature == taken[-1][0]) & (value.astype(np.float64) > taken[-1][1])
        said[token[mine]] = True
    return pd.DataFrame(taken, columns=["feature", "threshold", "f1"])


def _selected(
    f: FeatureActivations, stream: LabelledStream
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(feature, token, value) of all firings in the selection half, by feature: [n] each."""
    assert f.n_tokens == len(stream.mask), "activations of the very tokens that are labelled"
    c = f.columns
    here = stream.selection[c.indices]
    feature = np.repeat(np.arange(f.d_sae), np.diff(c.indptr))
    return feature[here], c.indices[here], c.data[here]


def _best_cuts_of(
    d_sae: int,
    feature: np.ndarray,
    token: np.ndarray,
    value: np.ndarray,
    stream: LabelledStream,
    *,
    top: int = 1,
    already: tuple[int, int] = (0, 0),
    least: float = 0.0,
) -> pd.DataFrame:
    """`best_cuts` of the features that may be among the `top` and reach an F1 of `least`."""
    positive = stream.mask[token]
    n_positive = int(stream.mask[stream.selection].sum())
    firings = np.bincount(feature, minlength=d_sae)
    hits = already[0] + np.bincount(feature[positive], minlength=d_sae)
    # Reached by "fires at all"; at best all hits are kept and every false alarm goes.
    reached = 2 * hits / (already[1] + firings + n_positive)
    bound = 2 * hits / (already[1] + hits - already[0] + n_positive)
    least = max(np.partition(reached, -top)[-top], least)
    rows = ((bound >= least) & (firings > 0))[feature]
    return best_cuts(
        feature[rows], value[rows], positive[rows], n_positive, floor=0.0, already=already
    )


def best_cuts(
    group: np.ndarray,
    value: np.ndarray,
    positive: np.ndarray,
    n_positive: int,
    *,
    floor: float,
    already: tuple[int, int] = (0, 0),
) -> pd.DataFrame:
    """For each group of entries [n], the threshold on `value` that gives the highest F1.

    Entries that are not listed count as lower than all others. The threshold lies half-way between
    the lowest value kept and the next (`floor` where there is none). Ties in F1: fewest tokens.
    `already` (hits, tokens said yes to) counts what other detectors found beside these entries.
    """
    order = np.lexsort((-value, group))
    group, value, positive = group[order], value[order].astype(np.float64), positive[order]
    first, last = np.diff(group, prepend=-1) != 0, np.diff(group, append=-1) != 0  # of its group
    starts, home = np.flatnonzero(first), np.cumsum(first) - 1
    hits = np.cumsum(positive)
    hits = already[0] + hits - (hits - positive)[starts][home]
    said = already[1] + np.arange(1, len(group) + 1) - starts[home]
    f1 = 2 * hits / (said + n_positive)
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
    score, mask = score[stream.selection], stream.mask[stream.selection]
    group = np.zeros(len(score), dtype=np.int64)
    floor = float(score.min()) - 1.0
    return float(best_cuts(group, score, mask, int(mask.sum()), floor=floor)["threshold"][0])


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

    def by_document(self, values: np.ndarray) -> np.ndarray:
        """[documents] sums of `values` [tokens]."""
        return np.bincount(self.home, weights=values, minlength=self.weights.shape[1])

    def total(self, values: np.ndarray) -> np.ndarray:
        """[n_boot + 1] sums of `values` [tokens], row 0 as they are."""
        return self.weights @ self.by_document(values)


def as_estimate(draws: np.ndarray) -> Estimate:
    """Draws [n_boot + 1] of a quantity, the first without resampling, as value and interval."""
    return Estimate(float(draws[0]), *percentile_interval(draws[1:]))


def evaluate_detector(
    score: np.ndarray, threshold: float, stream: LabelledStream, draws: Draws
) -> dict[str, float]:
    """Precision, recall, F1 and AUROC of `score` > `threshold` on the test half.

    Each with `_low` and `_high`, percentiles over resamplings of the documents; a detector that
    never says yes has precision 0. Ties in `score` count one half in AUROC.
    """
    score = np.asarray(score)[stream.test].astype(np.float64)
    mask, said = stream.mask[stream.test], score > threshold
    rng = np.random.default_rng(draws.seed)
    resampled = Resampled(stream.documents[stream.test], draws.n_boot, rng)
    hits, yes, positive = (resampled.total(tokens) for tokens in (said & mask, said, mask))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "precision": np.where(yes > 0, hits / np.maximum(yes, 1), 0.0),
            "recall": hits / positive,
            "f1": 2 * hits / (yes + positive),
            "auroc": _auroc(score, mask, resampled.home, resampled.weights),
        }
    named = (as_estimate(values).named(name) for name, values in found.items())
    return {key: value for part in named for key, value in part.items()}


def _auroc(
    score: np.ndarray, mask: np.ndarray, home: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """AUROC for every weighting of documents, `weights` [n, documents]: [n]."""
    values, level = np.unique(score, return_inverse=True)
    shape = (len(values), weights.shape[1])
    results = []
    for rows in np.array_split(weights, max(1, len(weights) * len(values) // 4_000_000)):
        at_level = [
            sparse.csr_array((np.ones(kind.sum()), (level[kind], home[kind])), shape=shape) @ rows.T
            for kind in (mask, ~mask)
        ]
        positive, negative = at_level  # [levels, rows]
        below = np.cumsum(negative, axis=0) - negative / 2
        results.append((positive * below).sum(0) / (positive.sum(0) * negative.sum(0)))
    return np.concatenate(results)


def feature_scores(f: FeatureActivations, feature: int) -> np.ndarray:
    """Activation of one feature on every token, zeros included: float32 [tokens]."""
    score = np.zeros(f.n_tokens, dtype=np.float32)
    tokens, values = f.of(feature)
    score[tokens] = values
    return score


def feature_set_scores(f: FeatureActivations, members: pd.DataFrame) -> np.ndarray:
    """Largest activation of a set's `members` in units of each one's threshold: [tokens].

    Above 1 the set says yes.
    """
    score = np.zeros(f.n_tokens, dtype=np.float64)
    for member in members.itertuples():
        score = np.maximum(score, feature_scores(f, member.feature) / member.threshold)
    return score
