"""What a sceptic would try instead of a feature: the token, a neuron, a direction, chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from featlib.cases.detectors import LabelledStream, best_threshold
from featlib.dictionaries.features import FeatureActivations

PROBE_TOKENS = 20_000  # unlabelled tokens that the probe is fitted to, at most


def best_neuron(neurons: np.ndarray, stream: LabelledStream) -> tuple[int, np.ndarray]:
    """The column of `neurons` [tokens, d_in] with the highest F1 on selection, either sign.

    Returns its index and its values [tokens], negated where low values mean the label.
    """
    chosen = np.ascontiguousarray(neurons[stream.selection].T)  # [d_in, tokens]
    mask, weight = stream.mask[stream.selection], stream.weights[stream.selection]
    there = weight * mask
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


def residual_probe(
    residual: np.ndarray, stream: LabelledStream, *, seed: int
) -> tuple[np.ndarray, float]:
    """Logistic regression on the residual stream [tokens, d_model]: the best single direction.

    Fitted to the selection half (`PROBE_TOKENS` unlabelled tokens at most, drawn at random).
    Returns the score [tokens] and the threshold with the highest F1 on documents that the probe
    had not seen (3 folds of the selection half): one chosen on its own training scores would be
    too strict.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    without = np.flatnonzero(stream.selection & ~stream.mask)
    few = np.random.default_rng(seed).permutation(without)[:PROBE_TOKENS]
    rows = np.sort(np.concatenate([few, np.flatnonzero(stream.selection & stream.mask)]))
    x, y, home = residual[rows], stream.mask[rows], stream.documents[rows]
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    folds = min(3, len(np.unique(home[y])))
    held_out = np.zeros(len(residual))
    if folds > 1:
        by = StratifiedGroupKFold(folds)
        held_out[rows] = cross_val_predict(
            probe, x, y, groups=home, cv=by, method="decision_function"
        )
    score = probe.fit(x, y).decision_function(residual)
    if folds < 2:  # one labelled document: nothing can be held out
        held_out = score
    weights = stream.weights.copy()
    weights[few] *= len(without) / len(few)
    part = replace(stream, selection=np.isin(np.arange(len(residual)), rows), weights=weights)
    return score, best_threshold(held_out, part)


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
