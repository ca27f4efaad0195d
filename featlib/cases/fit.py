"""Which feature fits a label best, and what it takes it from: the token, or its context?

`fit_label` finds the feature and measures it beside its rivals. A model of one layer has seen
little context: much of what a feature detects may be the token itself, so `token_identity_share`
and `separation_within_tokens` say how much is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from featlib.cases.detectors import (
    MEASURES,
    Draws,
    LabelledStream,
    best_threshold,
    evaluate_detector,
    feature_scores,
)
from featlib.cases.rivals import (
    best_neuron,
    residual_probe,
    similar_features,
    thin_selection,
    token_rule,
)
from featlib.cases.subjects import Subject, find_best
from featlib.dictionaries.features import FeatureActivations
from featlib.estimate import Estimate

RANDOM = 5  # random features of like density beside the best


@dataclass(frozen=True)
class LabelFit:
    """A model's feature that fits a label best, and how well it and its rivals do on the test half.

    `test` has a row for each detector: detector, index, threshold, measures with intervals.
    """

    seed: int  # of the autoencoder in which the feature was found
    feature: int
    test: pd.DataFrame
    token_share: float  # of the feature's variance, explained by the token's identity alone

    def row(self, detector: str = "feature") -> pd.Series:
        """Numbers of one detector, by its name in `test`."""
        return self.test.set_index("detector").loc[detector]


def fit_label(
    subjects: Sequence[Subject],
    stream: LabelledStream,
    draws: Draws,
    *,
    rivals: bool = False,
) -> LabelFit | None:
    """Find the feature that detects the label best, and compare it with what a sceptic would try.

    `subjects`: one model with each of its autoencoders. Detectors: feature; token rule; random
    feature, the mean over several features of like density, their lowest and highest as its
    interval; where `rivals` are asked for also neuron (the best one) and probe (logistic, on the
    residual stream). None where no feature fires on the selection half.
    """
    if (found := find_best(subjects, stream)) is None:
        return None
    subject, feature, threshold = found
    f = subject.features
    scores, by_token = feature_scores(f, feature), token_rule(stream)
    rows: list[tuple[str, int, float, np.ndarray]] = [
        ("feature", feature, threshold, scores),
        ("token rule", -1, best_threshold(by_token, stream), by_token),
    ]
    if rivals:
        sites, few = subject.sites, thin_selection(stream, seed=draws.seed)
        index, values = best_neuron(sites.neurons.cpu().numpy(), few)
        rows.append(("neuron", index, best_threshold(values, stream), values))
        values, cut = residual_probe(sites.residual.cpu().numpy(), few)
        rows.append(("probe", -1, cut, values))
    table: list[dict[str, float | str]] = []
    for name, index, cut, score in rows:
        measured = evaluate_detector(score, cut, stream, draws)
        table.append({"detector": name, "index": index, "threshold": cut, **measured})
    others = similar_features(f, feature, RANDOM, np.random.default_rng(draws.seed))
    once = replace(draws, n_boot=0)
    chance = pd.DataFrame([evaluate_feature(f, i, stream, once) for i in others])
    table.append({"detector": "random feature", "index": -1, "threshold": np.nan})
    for name in MEASURES if len(chance) else ():
        values = chance[name]
        table[-1] |= Estimate(values.mean(), values.min(), values.max()).named(name)
    share = token_identity_share(scores, stream)
    return LabelFit(subject.seed, feature, pd.DataFrame(table), share)


def evaluate_feature(
    f: FeatureActivations, feature: int, stream: LabelledStream, draws: Draws
) -> dict[str, float]:
    """Test-half numbers of one given feature: a match by correlation, or a transferred one.

    Its threshold is the best on the selection half, and never below 0: a silent feature does not
    say yes. Adds `threshold` to what `evaluate_detector` returns.
    """
    score = feature_scores(f, feature)
    cut = max(best_threshold(score, stream), 0.0)
    return {"threshold": cut} | evaluate_detector(score, cut, stream, draws)


def token_identity_share(score: np.ndarray, stream: LabelledStream) -> float:
    """Share of the variance of `score` [tokens] that the token's identity explains: R2.

    Each token of the test half is predicted by the mean over its id in the selection half: means
    and test never share a token, since a rare id would explain itself. Ids not seen before get the
    overall mean. At most 1; about 0 (or a little less) where identity says nothing; NaN for a score
    that does not vary.
    """
    ids, score = stream.ids, np.asarray(score, dtype=np.float64)
    means = []
    for half in (stream.selection, stream.test):
        weight = stream.weights * half
        total, n = (np.bincount(ids, w, int(ids.max()) + 1) for w in (weight * score, weight))
        overall = total.sum() / n.sum()
        means.append(np.where(n > 0, total / np.maximum(n, 1e-9), overall))
        means.append(overall)
    weight = stream.weights * stream.test
    error = weight @ np.square(score - means[0][ids])
    variance = weight @ np.square(score - means[3])
    return float(1 - error / variance) if variance > 1e-9 * (weight @ score**2) else float("nan")
