"""Fits of labels against counting pairs, held-out means and planted features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics
from streams import planted, random_features, random_stream

from featlib.cases.detectors import Draws
from featlib.cases.fit import (
    fit_label,
    token_identity_share,
)
from featlib.cases.subjects import Sites, Subject
from featlib.dictionaries.features import feature_activations

DRAWS = Draws(seed=0, n_boot=10, n_random=4)


# ------------------------------------------------------------------------------ token or context


def test_token_share_equals_r2_of_held_out_means():
    rng = np.random.default_rng(10)
    stream = random_stream(rng, n_ids=30)
    ids = stream.ids.copy()
    ids[stream.test & (ids == 3)] = 35  # an id that the chosen half never saw
    f = random_features(rng, d_sae=6)
    dense = f.matrix.toarray().astype(np.float64)
    dense[:, 0] += 12 * (ids == 2)
    stream = replace(stream, ids=ids)
    found = [token_identity_share(dense[:, feature], stream) for feature in range(6)]
    for feature in range(6):
        a, b = dense[stream.selection, feature], dense[stream.test, feature]
        means = {i: a[ids[stream.selection] == i].mean() for i in set(ids[stream.selection])}
        guess = np.array([means.get(i, a.mean()) for i in ids[stream.test]])
        assert found[feature] == pytest.approx(metrics.r2_score(b, guess), abs=1e-5)
    assert found[0] > 0.3


# ------------------------------------------------------------------------------ the whole


def subject(f, neurons=None) -> Subject:
    """What a fit reads of a model; its neurons serve as residual stream too."""
    sites = None if neurons is None else Sites(None, *2 * [torch.from_numpy(neurons)])
    return Subject(None, None, sites, f)


def fit(stream, *subjects, **options):
    return fit_label(subjects, stream, DRAWS, **options)


def test_a_planted_feature_is_found_and_beats_its_rivals():
    rng = np.random.default_rng(14)
    f, stream, dense = planted(rng)
    read = subject(f, rng.normal(size=(len(dense), 6)) + 0.5 * dense[:, [5]])
    found = fit(stream, read, rivals=True)
    assert found.feature == 5 and found.seed == read.seed
    assert found.row()["f1"] == found.row()["auroc"] == 1.0
    assert found.test["detector"].tolist() == [
        *("feature", "token rule", "neuron", "probe", "random feature"),
    ]
    # The token alone is right every other time and misses nothing: F1 2/3.
    assert found.row("token rule")["f1"] == pytest.approx(2 / 3, abs=0.05)
    assert found.row("random feature")["f1"] < 0.25
    assert found.row("probe")["auroc"] > found.row("neuron")["auroc"] > 0.6
    assert found.row()["within"] == pytest.approx(1.0) and 0.3 < found.token_share < 0.6
    assert found.test.equals(fit(stream, read, rivals=True).test)


def test_a_feature_is_looked_for_in_every_autoencoder():
    f, stream, dense = planted(np.random.default_rng(16))
    poor = replace(subject(feature_activations(dense[:, :5])), seed=4)
    rich = replace(subject(f), seed=9)
    assert fit(stream, poor, rich).seed == fit(stream, rich, poor).seed == 9
    assert fit(stream, subject(feature_activations(np.zeros((6000, 2))))) is None  # nothing fires
