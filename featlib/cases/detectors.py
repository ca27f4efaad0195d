"""Detectors of a label: choosing them on one half of the documents, measuring on the other.

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
from featlib.estimate import document_weights, percentile_interval

MEASURES = ("precision", "recall", "f1", "auroc")


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
    mask: np.ndarray, ids: np.ndarray, documents: np.ndarray, *, seed: int, share: float = 0.5
) -> LabelledStream:
    """Flatten arrays [blocks, context] (or [tokens]) and assign whole documents to two halves.

    Documents are drawn in random order into the selection half until it holds `share` of the
    labelled tokens. Both halves must hold labelled and unlabelled tokens.
    """
    flat, tokens, docs = (np.asarray(array).reshape(-1) for array in (mask, ids, documents))
    if not len(flat) == len(tokens) == len(docs):
        raise FeatlibError(
            f"mask, ids and documents have {len(flat)}, {len(tokens)} and {len(docs)} tokens: "
            "pass three arrays of the same blocks"
        )
    flat, docs = flat.astype(bool), docs.astype(np.int64)
    n_documents = int(docs.max(initial=-1)) + 1
    order = np.random.default_rng(seed).permutation(n_documents)
    labelled = np.bincount(docs, weights=flat, minlength=n_documents)[order]
    # A document goes where its middle labelled token would go: neither half gets a head start.
    chosen = np.zeros(n_documents, dtype=bool)
    chosen[order] = np.cumsum(labelled) - labelled / 2 < share * labelled.sum()
    stream = LabelledStream(flat, tokens.astype(np.int64), docs, chosen[docs])
    for name, half in (("selection", stream.selection), ("test", stream.test)):
        if not flat[half].any() or flat[half].all():
            raise FeatlibError(
                f"the {name} half holds {int(flat[half].sum())} labelled tokens of "
                f"{int(half.sum())}: both kinds are needed; give more documents"
            )
    return stream


# ------------------------------------------------------------------------------ choosing


def rank_features(f: FeatureActivations, stream: LabelledStream, top: int = 20) -> pd.DataFrame:
    """The `top` features by F1, each at its own best threshold, on the selection half alone.

    Columns feature, threshold (in activation units: fires above it), precision, recall, f1,
    firings; best first. The ranking is exact: a feature is left out early only where even the
    best conceivable threshold could not bring it among the first `top`.
    """
    check_rows(f.n_tokens, stream)
    c = f.columns
    here = stream.selection[c.indices]
    feature = np.repeat(np.arange(f.d_sae), np.diff(c.indptr))[here]
    positive, value = stream.mask[c.indices[here]], c.data[here]
    firings = np.bincount(feature, minlength=f.d_sae)
    hits = np.bincount(feature[positive], minlength=f.d_sae)
    n_positive = int(stream.mask[stream.selection].sum())
    # Reached by "fires at all"; at best all hits are kept and every false alarm goes.
    reached, bound = 2 * hits / (firings + n_positive), 2 * hits / (hits + n_positive)
    top = min(top, f.d_sae)
    worth = (bound >= np.partition(reached, -top)[-top]) & (firings > 0)
    rows = worth[feature]
    table = best_cuts(feature[rows], value[rows], positive[rows], n_positive, floor=0.0)
    table["firings"] = firings[table["feature"]]
    table = table.sort_values(["f1", "feature"], ascending=[False, True])
    return table.head(top).reset_index(drop=True)


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
    n = len(group)
    last = np.ones(n, dtype=bool)  # of its group
    last[:-1] = group[1:] != group[:-1]
    starts = np.flatnonzero(np.r_[True, last[:-1]][:n])
    lengths = np.diff(np.r_[starts, n])
    first = np.repeat(starts, lengths)
    hits = np.cumsum(positive)
    hits = already[0] + hits - np.repeat(hits[starts] - positive[starts], lengths)
    said = already[1] + np.arange(n) - first + 1
    f1 = 2 * hits / (said + n_positive)
    following = np.append(value[1:], floor)
    following[last] = floor
    f1[(following == value) & ~last] = -1.0  # equal values cannot be told apart by a threshold
    best = np.zeros(0, dtype=np.int64)
    if n:
        highest = np.repeat(np.maximum.reduceat(f1, starts), lengths)
        at_best = np.flatnonzero(f1 == highest)
        best = at_best[np.unique(group[at_best], return_index=True)[1]]
    return pd.DataFrame(
        {
            "feature": group[best],
            "threshold": (value[best] + following[best]) / 2,
            "precision": hits[best] / said[best],
            "recall": hits[best] / n_positive,
            "f1": f1[best],
        }
    )


def select_feature_set(
    f: FeatureActivations, stream: LabelledStream, *, most: int = 4, gain: float = 0.01
) -> pd.DataFrame:
    """Features that together detect the label: any of them above its threshold says yes.

    An autoencoder may split one concept over several features (`raise` here, `try` there). Greedy:
    each step adds the feature and threshold that raise F1 on the selection half most, until it
    rises by less than `gain` or `most` are taken. Columns feature, threshold, f1 (of the set up
    to here), in the order taken; the first is the best single feature.
    """
    check_rows(f.n_tokens, stream)
    c = f.columns
    here = stream.selection[c.indices]
    feature = np.repeat(np.arange(f.d_sae), np.diff(c.indptr))[here]
    token, value = c.indices[here], c.data[here]
    n_positive = int(stream.mask[stream.selection].sum())
    said = np.zeros(f.n_tokens, dtype=bool)
    taken: list[tuple[int, float, float]] = []
    while len(taken) < most:
        rest = ~said[token]
        already = (int((said & stream.mask).sum()), int(said.sum()))
        firings = np.bincount(feature[rest], minlength=f.d_sae)
        hits = np.bincount(feature[rest], weights=stream.mask[token[rest]], minlength=f.d_sae)
        # Of the features that remain, leave out those that could not win even if all their false
        # alarms went: F1 must rise by `gain`, and reach what another gives by firing at all.
        reached = 2 * (already[0] + hits) / (already[1] + firings + n_positive)
        bound = 2 * (already[0] + hits) / (already[1] + hits + n_positive)
        least = max(float(reached.max()), taken[-1][2] + gain if taken else 0.0)
        rest &= ((hits > 0) & (bound >= least))[feature]
        table = best_cuts(
            feature[rest], value[rest], stream.mask[token[rest]], n_positive,
            floor=0.0, already=already,
        )  # fmt: skip
        if table.empty:
            break
        best = table.loc[table["f1"].idxmax()]
        if taken and best["f1"] < taken[-1][2] + gain:
            break
        taken.append((int(best["feature"]), float(best["threshold"]), float(best["f1"])))
        mine = (feature == taken[-1][0]) & (value.astype(np.float64) > taken[-1][1])
        said[token[mine]] = True
    return pd.DataFrame(taken, columns=["feature", "threshold", "f1"])


def feature_set_scores(f: FeatureActivations, members: pd.DataFrame) -> np.ndarray:
    """Largest activation of a set's `members` in units of each one's threshold: [tokens].

    Above 1 the set says yes.
    """
    score = np.zeros(f.n_tokens, dtype=np.float64)
    for member in members.itertuples():
        score = np.maximum(score, feature_scores(f, member.feature) / member.threshold)
    return score


def best_threshold(score: np.ndarray, stream: LabelledStream) -> float:
    """The threshold on `score` [tokens] with the highest F1 on the selection half."""
    score, mask = score[stream.selection], stream.mask[stream.selection]
    group = np.zeros(len(score), dtype=np.int64)
    floor = float(score.min()) - 1.0
    return float(best_cuts(group, score, mask, int(mask.sum()), floor=floor)["threshold"][0])


def check_rows(n_tokens: int, stream: LabelledStream) -> None:
    """Refuse activations that are not of the very tokens of `stream`."""
    if n_tokens != len(stream.mask):
        raise FeatlibError(
            f"activations of {n_tokens} tokens, but labels of {len(stream.mask)}: encode the very "
            "blocks that the labels belong to"
        )


# ------------------------------------------------------------------------------ measuring


def evaluate_detector(
    score: np.ndarray,
    threshold: float,
    stream: LabelledStream,
    *,
    seed: int,
    n_boot: int = 200,
) -> dict[str, float]:
    """Precision, recall, F1 and AUROC of `score` > `threshold` on the test half.

    Each with `_low` and `_high`, percentiles over `n_boot` resamplings of the documents; a
    detector that never says yes has precision 0. Ties in `score` count one half in AUROC.
    """
    score = np.asarray(score)[stream.test].astype(np.float64)
    mask, documents = stream.mask[stream.test], stream.documents[stream.test]
    home, weights = resample_documents(documents, n_boot, np.random.default_rng(seed))

    def total(tokens: np.ndarray) -> np.ndarray:
        return weights @ np.bincount(home, weights=tokens, minlength=weights.shape[1])

    said = score > threshold
    hits, yes, positive = total(said & mask), total(said), total(mask)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "precision": np.where(yes > 0, hits / np.maximum(yes, 1), 0.0),
            "recall": hits / positive,
            "f1": 2 * hits / (yes + positive),
            "auroc": _auroc(score, mask, home, weights),
        }
    result: dict[str, float] = {}
    for name, values in found.items():
        low, high = percentile_interval(values[1:])
        result |= {name: float(values[0]), f"{name}_low": low, f"{name}_high": high}
    return result


def resample_documents(
    documents: np.ndarray, n_boot: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap over documents, as weights: the document of each token, and how often it is drawn.

    `documents` [tokens] any integers; returns home [tokens] int in 0..n_documents - 1 and weights
    [n_boot + 1, n_documents], whose row 0 takes each document once, as it is.
    """
    _, home = np.unique(documents, return_inverse=True)
    drawn = document_weights(documents, n_boot, rng)
    return home, np.vstack([np.ones((1, drawn.shape[1])), drawn])


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
