"""What a sceptic would try instead of a feature: the token, a neuron, a direction, chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from featlib.cases.detectors import LabelledStream, best_threshold
from featlib.dictionaries.features import FeatureActivations

FITTED = 10_000  # unlabelled tokens that a neuron is chosen on and a probe fitted to, at most


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
        for sign in (1, -1):
            down = order[::-1] if sign > 0 else order
            f1 = 2 * np.cumsum(there[down]) / (np.cumsum(weight[down]) + there.sum())
            ordered = values[down]
            f1[:-1][ordered[1:] == ordered[:-1]] = -1.0
            best = max(best, (float(f1.max()), index, sign))
    _, index, sign = best
    return index, np.asarray(neurons[:, index], dtype=np.float64) * sign


def residual_probe(residual: np.ndarray, stream: LabelledStream) -> tuple[np.ndarray, float]:
    """Logistic regression on the residual stream [tokens, d_model]: the best single direction.

    Fitted to the selection half. Returns the score [tokens] and the threshold with the highest F1
    on documents that the probe had not seen (3 folds of that half): one chosen on its own training
    scores would be too strict.
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
        return score, best_threshold(score, stream)
    by, held_out = StratifiedGroupKFold(folds), np.zeros(len(residual))
    held_out[here] = cross_val_predict(probe, x, y, groups=home, cv=by, method="decision_function")
    return score, best_threshold(held_out, stream)


def token_rule(stream: LabelledStream) -> np.ndarray:
    """Score [tokens] of the best rule that sees the token's identity alone.

    The share of the id's occurrences in the selection half that have the label, shrunk a little
    (one unlabelled occurrence added, so that an id seen once does not count as certain); thresholds
    on it give the sets of ids with the highest F1.
    """
    size = int(stream.ids.max()) + 1
    weight = stream.weights * stream.selection
    seen = np.bincount(stream.ids, weight, size)
    labelled = np.bincount(stream.ids, weight * stream.mask, size)
    return (labelled / (seen + 1))[stream.ids]


def similar_features(
    f: FeatureActivations, feature: int, n: int, rng: np.random.Generator
) -> np.ndarray:
    """`n` random features (or all) that fire about as often as `feature`: the control of an effect.

    Drawn without replacement from the 5 n others whose number of firings is nearest.
    """
    others = np.flatnonzero((f.firings > 0) & (np.arange(f.d_sae) != feature))
    distance = np.abs(np.log(f.firings[others] / max(f.firings[feature], 1)))
    near = others[np.argsort(distance, kind="stable")[: 5 * n]]
    return np.sort(rng.choice(near, size=min(n, len(near)), replace=False))
