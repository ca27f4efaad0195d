"""Fits of labels against counting pairs, held-out means and planted features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from streams import planted, random_features, random_stream

from featlib.cases.detectors import Draws, LabelledStream, labelled_stream
from featlib.cases.fit import (
    evaluate_feature,
    fit_label,
    rank_context_features,
    separation_within_tokens,
    tally_tokens,
    token_identity_share,
)
from featlib.cases.subjects import Sites, Subject
from featlib.dictionaries.features import feature_activations

DRAWS = Draws(seed=0, n_boot=10, n_random=4)


def test_a_tally_says_which_tokens():
    ids = np.array([1, 1, 1, 2, 2, 3, 0, 0])
    mask = np.array([1, 1, 0, 0, 0, 1, 0, 1], dtype=bool)
    said = np.array([1, 0, 1, 1, 0, 0, 0, 1], dtype=bool)
    stream = LabelledStream(mask, ids, np.zeros(8, int), np.arange(8) >= 6)
    table = tally_tokens(said, stream, ["a", " raise", "b", "c"], top=9).set_index("token")
    assert table.loc[" raise"].tolist() == [1, 1, 1]
    assert table.loc["b"].tolist() == [0, 0, 1] and table.loc["c"].tolist() == [0, 1, 0]
    assert "a" not in table.index  # in the selection half only
    assert table.index[0] == " raise"


# ------------------------------------------------------------------------------ token or context


def test_token_share_equals_r2_of_held_out_means():
    rng = np.random.default_rng(10)
    stream = random_stream(rng, n_ids=30)
    ids = stream.ids.copy()
    ids[stream.test & (ids == 3)] = 35  # an id that the chosen half never saw
    f = random_features(rng, d_sae=6)
    dense = f.matrix.toarray().astype(np.float64)
    dense[:, 0] += 12 * (ids == 2)
    found = token_identity_share(feature_activations(dense), ids, stream.selection)
    for feature in range(6):
        a, b = dense[stream.selection, feature], dense[stream.test, feature]
        means = {i: a[ids[stream.selection] == i].mean() for i in set(ids[stream.selection])}
        guess = np.array([means.get(i, a.mean()) for i in ids[stream.test]])
        assert found[feature] == pytest.approx(metrics.r2_score(b, guess), abs=1e-5)
    assert found[0] > 0.3


def test_token_share_of_features_that_know_the_token_the_context_or_nothing():
    f, stream, _ = planted(np.random.default_rng(11))
    share = token_identity_share(f, stream.ids, stream.selection)
    assert share[7] > 0.98  # the token and nothing else
    assert 0.3 < share[5] < 0.6  # half of it is context
    assert abs(share[3]) < 0.05  # nothing
    assert np.isnan(share[0])  # never fires


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.sampled_from([0.05, 0.3, 0.9]))
def test_separation_within_tokens_equals_counting_pairs(seed, levels, density):
    rng = np.random.default_rng(seed)
    stream = random_stream(rng, n=150, n_ids=6)
    f = random_features(rng, n=150, d_sae=5, density=density, levels=levels)
    found = separation_within_tokens(f, stream, stream.test)
    dense = f.matrix.toarray()
    for feature in range(5):
        won = pairs = 0.0
        for token in np.unique(stream.ids):
            here = stream.test & (stream.ids == token)
            a = dense[here & stream.mask, feature][:, None]
            b = dense[here & ~stream.mask, feature][None, :]
            won += (a > b).sum() + (a == b).sum() / 2
            pairs += a.size * b.size
        assert found[feature] == pytest.approx(won / pairs)


def test_separation_is_undefined_where_the_token_decides():
    rng = np.random.default_rng(12)
    ids = rng.integers(0, 5, 400)
    stream = labelled_stream(ids == 2, ids, np.repeat(np.arange(20), 20), seed=0)
    f = random_features(rng, n=400)
    assert np.isnan(separation_within_tokens(f, stream, stream.test)).all()


def test_context_features_come_first():
    f, stream, _ = planted(np.random.default_rng(13))
    table = rank_context_features(f, stream, among=200, top=10)
    assert table["feature"][0] == 5
    row = table.set_index("feature").loc
    assert row[5]["within_tokens"] == pytest.approx(1.0)
    assert row[7]["within_tokens"] == pytest.approx(0.5, abs=0.06)
    assert row[7]["token_share"] > 0.98


# ------------------------------------------------------------------------------ the whole


def subject(f, neurons=None) -> Subject:
    """What a fit reads of a model; its neurons serve as residual stream too."""
    sites = None if neurons is None else Sites(None, *2 * [torch.from_numpy(neurons)])
    return Subject("base", None, None, sites, f)


def fit(stream, *subjects, **options):
    return fit_label(subjects, stream, DRAWS, **options)


def test_a_planted_feature_is_found_and_beats_its_rivals():
    rng = np.random.default_rng(14)
    f, stream, dense = planted(rng)
    read = subject(f, rng.normal(size=(len(dense), 6)) + 0.5 * dense[:, [5]])
    found = fit(stream, read, rivals=True)
    assert found.feature == 5 and found.subject is read
    assert found.row()["f1"] == found.row()["auroc"] == 1.0
    assert found.members["feature"].tolist() == [5] and found.row("feature set")["f1"] == 1.0
    assert found.n_labelled == stream.mask[stream.test].sum()
    assert found.test["detector"].tolist() == [
        *("feature", "feature set", "token rule", "neuron", "probe", "random feature"),
    ]
    # The token alone is right every other time and misses nothing: F1 2/3.
    assert found.row("token rule")["f1"] == pytest.approx(2 / 3, abs=0.05)
    assert found.row("random feature")["f1"] < 0.15
    assert found.row("probe")["auroc"] > found.row("neuron")["auroc"] > 0.6
    assert found.within_tokens == pytest.approx(1.0) and 0.3 < found.token_share < 0.6
    assert found.test.equals(fit(stream, read, rivals=True).test)


def test_a_given_feature_is_measured_the_same_way():
    f, stream, _ = planted(np.random.default_rng(15))
    found = fit(stream, subject(f))
    measured = evaluate_feature(f, found.feature, stream, DRAWS)
    assert measured["f1"] == found.row()["f1"] and measured["f1_low"] == found.row()["f1_low"]
    silent = evaluate_feature(f, 0, stream, DRAWS)  # it never says yes, rather than always
    assert (silent["precision"], silent["recall"], silent["f1"], silent["auroc"]) == (0, 0, 0, 0.5)


def test_a_set_is_looked_for_in_every_autoencoder():
    """One has the better single feature; only the other has both faces of the label."""
    rng = np.random.default_rng(21)
    n = 4000
    kind = rng.choice(3, n, p=[0.9, 0.06, 0.04])
    dense = (rng.random((2, n, 8)) < 0.02) * rng.uniform(1, 2, (2, n, 8))
    dense[0][:, 4] = np.where(kind == 1, 4.0, dense[0][:, 4])
    dense[1][:, 6] = np.where((kind == 1) & (rng.random(n) < 0.9), 4.0, dense[1][:, 6])
    dense[1][:, 3] = np.where(kind == 2, 4.0, dense[1][:, 3])
    stream = labelled_stream(kind > 0, kind, np.repeat(np.arange(40), 100), seed=0)
    own, other = (subject(feature_activations(part)) for part in dense)
    alone, both = fit(stream, own), fit(stream, other, own)
    assert both.feature == alone.feature == 4 and both.subject is own
    assert set(both.members["feature"]) >= {3, 6}
    assert both.row("feature set")["f1"] > 0.9 > alone.row("feature set")["f1"]
    assert fit(stream, subject(feature_activations(np.zeros((n, 2))))) is None  # nothing fires
