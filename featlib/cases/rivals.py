"""What a sceptic would try instead of a feature: the token, a neuron, a direction, chance."""

from __future__ import annotations

import numpy as np

from featlib.cases.detectors import LabelledStream, best_threshold
from featlib.dictionaries.features import FeatureActivations

PROBE_TOKENS = 20_000  # unlabelled tokens that the probe is fitted to, at most


def best_neuron(neurons: np.ndarray, stream: LabelledStream) -> tuple[int, np.ndarray]:
    """The column of `neurons` [tokens, d_in] with the highest F1 on selection, either sign.

    Returns its index and its values [tokens], negated where low values mean the label.
    """
    chosen = np.ascontiguousarray(neurons[stream.selection].T)  # [d_in, tokens]
    mask = stream.mask[stream.selection]
    total = np.arange(1, len(mask) + 1) + mask.sum()
    best = (-1.0, 0, 1)
    for index, values in enumerate(chosen):
        order = np.argsort(values)
        for sign in (1, -1):
            down = order[::-1] if sign > 0 else order
            f1 = 2 * np.cumsum(mask[down]) / total
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
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    without = np.flatnonzero(stream.selection & ~stream.mask)
    fitted = stream.selection.copy()
    fitted[np.random.default_rng(seed).permutation(without)[PROBE_TOKENS:]] = False
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))

    def fit_scores(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        return probe.fit(residual[rows], stream.mask[rows]).decision_function(residual[wanted])

    held_out = np.zeros(len(residual))
    chosen = np.flatnonzero(stream.selection)
    folds = min(3, len(np.unique(stream.documents[fitted & stream.mask])))
    if folds < 2:  # one labelled document: nothing can be held out
        held_out[chosen] = fit_scores(np.flatnonzero(fitted), chosen)
    else:
        # Documents by labelled tokens, dealt out in turn: each fold has its share of the label.
        labelled = np.bincount(stream.documents, weights=stream.mask & stream.selection)
        fold = np.empty(len(labelled), dtype=np.int64)
        fold[np.argsort(-labelled, kind="stable")] = np.arange(len(labelled)) % folds
        for number in range(folds):
            out = fold[stream.documents] == number
            rows = np.flatnonzero(stream.selection & out)
            held_out[rows] = fit_scores(np.flatnonzero(fitted & ~out), rows)
    score = fit_scores(np.flatnonzero(fitted), np.arange(len(residual)))
    return score, best_threshold(held_out, stream)


def token_rule(stream: LabelledStream) -> np.ndarray:
    """Score [tokens] of the best rule that sees the token's identity alone.

    The share of the id's occurrences in the selection half that have the label, shrunk a little
    (one unlabelled occurrence added, so that an id seen once does not count as certain); thresholds
    on it give the sets of ids with the highest F1.
    """
    size = int(stream.ids.max()) + 1
    chosen = stream.ids[stream.selection]
    seen = np.bincount(chosen, minlength=size)
    labelled = np.bincount(chosen, weights=stream.mask[stream.selection], minlength=size)
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
