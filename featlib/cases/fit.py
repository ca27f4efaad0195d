"""Which feature fits a label best, and what it takes it from: the token, or its context?

A model of one layer has seen little context: much of what a feature detects may be the token
itself, so `token_identity_share` and AUROC within tokens say how much is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from featlib.cases import detectors
from featlib.cases.detectors import Draws
from featlib.cases.edits import Subject, loss_changes
from featlib.cases.text import LabelledStream
from featlib.estimate import Estimate

RANDOM = 5  # random features of like density beside the best
FITTED = 10_000  # unlabelled tokens that a neuron is chosen on and a probe fitted to, at most


@dataclass(frozen=True)
class LabelFit:
    """A model's feature that fits a label best, and how well it and its rivals do on the test half.

    `test` has a row for each detector: detector, index, threshold, measures with intervals.
    """

    seed: int  # of the autoencoder in which the feature was found
    feature: int
    test: pd.DataFrame
    token_share: float  # of the feature's variance, explained by the token's identity alone
    costs: tuple[float, ...]  # nats that ablating it costs, a token: on and off the label

    def row(self, detector: str = "feature") -> pd.Series:
        """Numbers of one detector, by its name in `test`."""
        return self.test.set_index("detector").loc[detector]


def find_best(
    subjects: Sequence[Subject], stream: LabelledStream
) -> tuple[Subject, int, float] | None:
    """The feature with the highest F1 on the selection half, where it is, and its threshold.

    Which of a model's autoencoders gave a concept a feature of its own is luck, so it is looked for
    in all of them. None if all are silent.
    """
    ranked = [(s, detectors.rank_features(s.features, stream)) for s in subjects]
    if not (found := [(s, table.iloc[0]) for s, table in ranked if len(table)]):
        return None
    subject, best = max(found, key=lambda item: item[1]["f1"])
    return subject, int(best["feature"]), float(best["threshold"])


def fit_label(
    subjects: Sequence[Subject], stream: LabelledStream, draws: Draws, *, rivals: bool = False
) -> LabelFit | None:
    """Find the feature that detects the label best, and compare it with what a sceptic would try.

    `subjects`: one model with each of its autoencoders. Detectors: feature; token rule; with
    `rivals` also neuron (the best one) and probe (logistic, on the residual stream); random
    feature, the mean over several of like density, with their lowest and highest. None where no
    feature fires on the selection half.
    """
    if (found := find_best(subjects, stream)) is None:
        return None
    subject, feature, threshold = found
    f = subject.features
    scores, by_token = detectors.feature_scores(f, feature), token_rule(stream)
    by_token_cut = detectors.best_threshold(by_token, stream)
    rows = [("feature", feature, threshold, scores), ("token rule", -1, by_token_cut, by_token)]
    if rivals:
        sites, few = subject.sites, thin_selection(stream, seed=draws.seed)
        index, values = best_neuron(sites.neurons.cpu().numpy(), few)
        rows.append(("neuron", index, detectors.best_threshold(values, stream), values))
        values, cut = residual_probe(sites.residual.cpu().numpy(), few)
        rows.append(("probe", -1, cut, values))
    table: list[dict[str, float | str]] = []
    for name, index, cut, score in rows:
        measured = detectors.evaluate_detector(score, cut, stream, draws)
        table.append({"detector": name, "index": index, **measured})
    # Random features: out of five times as many whose number of firings is nearest.
    others = np.flatnonzero((f.firings > 0) & (np.arange(f.d_sae) != feature))
    distance = np.abs(np.log(f.firings[others] / f.firings[feature]))
    near = others[np.argsort(distance, kind="stable")[: 5 * RANDOM]]
    rng, once = np.random.default_rng(draws.seed), replace(draws, n_boot=0)
    some = np.sort(rng.choice(near, size=min(RANDOM, len(near)), replace=False))
    scored = (detectors.feature_scores(f, i) for i in some)
    chance = pd.DataFrame(detectors.evaluate_detector(s, None, stream, once) for s in scored)
    table.append({"detector": "random feature", "index": -1, "threshold": np.nan})
    for name in detectors.MEASURES:
        values = chance[name]
        table[-1] |= Estimate(values.mean(), values.min(), values.max()).named(name)
    share, change = token_identity_share(scores, stream), loss_changes(subject, feature)
    regions = [(stream.inside & where) * stream.weights for where in (stream.mask, ~stream.mask)]
    costs = tuple(float(region @ change / max(region.sum(), 1e-9)) for region in regions)
    return LabelFit(subject.seed, feature, pd.DataFrame(table), share, costs)


def token_identity_share(score: np.ndarray, stream: LabelledStream) -> float:
    """Share of the variance of `score` [tokens] that the token's identity explains: R2.

    Each token of the test half is predicted by the mean over its id in the selection half (its own
    would let a rare id explain itself), or over all ids if it is new. At most 1; about 0 (or a
    little less) where identity says nothing; NaN for a score that does not vary.
    """
    ids, score = stream.ids, np.asarray(score, dtype=np.float64)
    halves = [stream.weights * half for half in (stream.selection, stream.test)]
    sums = [[np.bincount(ids, w) for w in (half * score, half)] for half in halves]
    overall = [total.sum() / n.sum() for total, n in sums]
    total, n = sums[0]
    guess = np.where(n > 0, total / np.maximum(n, 1e-9), overall[0])
    error = halves[1] @ np.square(score - guess[ids])
    variance = halves[1] @ np.square(score - overall[1])
    return float(1 - error / variance) if variance > 1e-9 * (halves[1] @ score**2) else float("nan")


def token_rule(stream: LabelledStream) -> np.ndarray:
    """Score [tokens] of the best rule that sees the token's identity alone.

    The share of the id's occurrences in the selection half that have the label, with one unlabelled
    added: an id seen once is not certain. Thresholds on it give the sets of ids of highest F1.
    """
    weight = stream.weights * stream.selection
    labelled, seen = (np.bincount(stream.ids, w) for w in (weight * stream.mask, weight))
    return (labelled / (seen + 1))[stream.ids]


def thin_selection(stream: LabelledStream, *, seed: int) -> LabelledStream:
    """The stream with `FITTED` unlabelled tokens in its selection half, drawn at random.

    Each stands for more of its kind. What is left out is in no half: choose on it, do not judge.
    """
    without = np.flatnonzero(stream.selection & ~stream.mask)
    few = np.random.default_rng(seed).permutation(without)[:FITTED]
    weights, selection = stream.weights.copy(), stream.selection & stream.mask
    weights[few] *= len(without) / len(few)
    selection[few] = True
    return replace(stream, selection=selection, weights=weights)


def best_neuron(neurons: np.ndarray, stream: LabelledStream) -> tuple[int, np.ndarray]:
    """The column of `neurons` [tokens, d_in] with the highest F1 on selection, either sign.

    Returns its index and its values [tokens], negated where low values mean the label.
    """
    chosen = np.ascontiguousarray(neurons[stream.selection].T)  # [d_in, tokens]
    weight = stream.weights[stream.selection]
    there = weight * stream.mask[stream.selection]
    best = (-1.0, 0, 1)
    for index, values in enumerate(chosen):
        order = np.argsort(values)
        for sign, down in ((1, order[::-1]), (-1, order)):
            f1 = 2 * np.cumsum(there[down]) / (np.cumsum(weight[down]) + there.sum())
            ordered = values[down]
            f1[:-1][ordered[1:] == ordered[:-1]] = -1.0
            best = max(best, (float(f1.max()), index, sign))
    _, index, sign = best
    return index, np.asarray(neurons[:, index], dtype=np.float64) * sign


def residual_probe(residual: np.ndarray, stream: LabelledStream) -> tuple[np.ndarray, float]:
    """Logistic regression on the residual stream [tokens, d_model]: the best single direction.

    Fitted to the selection half. Returns the score [tokens] and the threshold with the highest F1
    on documents of it that the probe had not seen: by its training scores it would be too strict.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    here = stream.selection
    x, y, home = residual[here], stream.mask[here], stream.documents[here]
    folds = min(3, len(np.unique(home[y])))
    score = probe.fit(x, y).decision_function(residual)
    if folds < 2:  # one labelled document: nothing can be held out
        return score, detectors.best_threshold(score, stream)
    by, held_out = StratifiedGroupKFold(folds), np.zeros(len(residual))
    held_out[here] = cross_val_predict(probe, x, y, groups=home, cv=by, method="decision_function")
    return score, detectors.best_threshold(held_out, stream)
