"""Detectors and label fits against scikit-learn, brute force and planted features."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from featlib import FeatlibError
from featlib.cases import baselines, detectors
from featlib.cases import fit as cases
from featlib.cases.detectors import (
    LabelledStream,
    evaluate_detector,
    labelled_stream,
    rank_features,
)
from featlib.cases.fit import (
    evaluate_feature,
    fit_label,
    rank_context_features,
    separation_within_tokens,
    token_identity_share,
)
from featlib.dictionaries.features import FeatureActivations, feature_activations


def random_stream(rng, n=600, n_documents=12, n_ids=20, rate=0.15) -> LabelledStream:
    documents = np.sort(rng.integers(0, n_documents, n))
    mask = rng.random(n) < rate
    mask[[0, -1]] = True
    return labelled_stream(mask, rng.integers(0, n_ids, n), documents, seed=int(rng.integers(99)))


def random_features(rng, n=600, d_sae=30, density=0.2, levels=4) -> FeatureActivations:
    """Few distinct values, so that ties are common."""
    dense = rng.integers(1, levels + 1, (n, d_sae)) * (rng.random((n, d_sae)) < density)
    return feature_activations(dense)


def planted(rng, n=6000, n_documents=60):
    """Label decided half by the token, half by context; features that know one, both or nothing."""
    documents = np.repeat(np.arange(n_documents), n // n_documents)
    ids = rng.integers(0, 40, n)
    context = rng.random(n) < 0.5
    mask = (ids < 4) & context
    dense = np.zeros((n, 12))
    dense[:, 5] = mask * rng.uniform(1, 2, n)  # knows the label
    dense[:, 7] = (ids < 4) * rng.uniform(1.0, 1.1, n)  # knows the token
    dense[:, 3] = (rng.random(n) < mask.mean()) * rng.uniform(1, 2, n)  # knows nothing
    dense[:, 8:] = (rng.random((n, 4)) < 0.05) * rng.uniform(1, 2, (n, 4))
    stream = labelled_stream(mask, ids, documents, seed=1)
    return feature_activations(dense), stream, dense


# ------------------------------------------------------------------------------ halves


def test_halves_are_made_of_whole_documents():
    rng = np.random.default_rng(0)
    stream = random_stream(rng, n=3000, n_documents=100)
    for document in np.unique(stream.documents):
        assert len(np.unique(stream.selection[stream.documents == document])) == 1
    share = stream.mask[stream.selection].sum() / stream.mask.sum()
    assert 0.45 < share < 0.55
    same = labelled_stream(stream.mask, stream.ids, stream.documents, seed=3)
    again = labelled_stream(stream.mask, stream.ids, stream.documents, seed=3)
    other = labelled_stream(stream.mask, stream.ids, stream.documents, seed=4)
    assert (same.selection == again.selection).all()
    assert (same.selection != other.selection).any()


def test_streams_that_cannot_be_judged_are_refused():
    ids, documents = np.zeros(8, int), np.repeat([0, 1], 4)
    with pytest.raises(FeatlibError, match="half holds 0 labelled"):
        labelled_stream(np.arange(8) < 2, ids, documents, seed=0)
    with pytest.raises(FeatlibError, match="8, 8 and 7 tokens"):
        labelled_stream(np.arange(8) < 2, ids, documents[:7], seed=0)


# ------------------------------------------------------------------------------ ranking


def brute_best(score, mask):
    """Highest F1 over all thresholds at values above 0, counted out."""
    return max(
        (
            2 * (mask & (score >= cut)).sum() / (mask.sum() + (score >= cut).sum())
            for cut in np.unique(score[score > 0])
        ),
        default=-1.0,
    )


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([0.02, 0.2, 0.6]))
def test_ranking_equals_trying_every_threshold(seed, levels, density):
    rng = np.random.default_rng(seed)
    stream = random_stream(rng, n=200)
    f = random_features(rng, n=200, d_sae=12, density=density, levels=levels)
    here = stream.selection
    dense = f.matrix.toarray()[here]
    table = rank_features(f, stream, top=12).set_index("feature")
    for feature in range(12):
        best = brute_best(dense[:, feature], stream.mask[here])
        if best < 0:
            assert feature not in table.index
            continue
        row = table.loc[feature]
        assert row["f1"] == pytest.approx(best)
        said = dense[:, feature] > row["threshold"]
        assert row["f1"] == pytest.approx(metrics.f1_score(stream.mask[here], said))
        assert row["recall"] == pytest.approx(metrics.recall_score(stream.mask[here], said))
        assert row["precision"] == pytest.approx(metrics.precision_score(stream.mask[here], said))
        assert row["firings"] == (dense[:, feature] > 0).sum()
    assert table["f1"].is_monotonic_decreasing


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_a_short_ranking_is_the_head_of_the_whole(seed, top):
    rng = np.random.default_rng(seed)
    stream, f = random_stream(rng), random_features(rng, density=0.1)
    whole = rank_features(f, stream, top=f.d_sae)
    short = rank_features(f, stream, top=top)
    assert short["f1"].tolist() == whole["f1"].head(top).tolist()
    assert short["feature"].tolist() == whole["feature"].head(top).tolist()


def test_ranking_never_looks_at_the_test_half():
    rng = np.random.default_rng(1)
    stream, f = random_stream(rng), random_features(rng)
    dense = f.matrix.toarray()
    dense[stream.test] = rng.random((int(stream.test.sum()), f.d_sae))
    mask = np.where(stream.test, rng.random(len(stream.mask)) < 0.5, stream.mask)
    changed = LabelledStream(mask, stream.ids, stream.documents, stream.selection)
    a = rank_features(f, stream)
    b = rank_features(feature_activations(dense), changed)
    assert a.equals(b)
    score = dense[:, 0]
    assert detectors.best_threshold(score, stream) == detectors.best_threshold(score, changed)
    rule, other = baselines.token_rule(stream), baselines.token_rule(changed)
    np.testing.assert_array_equal(rule, other)
    index, _ = baselines.best_neuron(f.matrix.toarray(), stream)
    again, _ = baselines.best_neuron(dense, changed)
    assert index == again


def test_a_concept_split_over_features_is_put_together_again():
    rng = np.random.default_rng(20)
    n = 4000
    kind = rng.choice(4, n, p=[0.9, 0.06, 0.03, 0.01])  # the label has three faces
    dense = (rng.random((n, 10)) < 0.02) * rng.uniform(1, 2, (n, 10))
    for face, feature in ((1, 4), (2, 7), (3, 2)):
        dense[:, feature] = np.where(kind == face, rng.uniform(3, 4, n), dense[:, feature])
    stream = labelled_stream(kind > 0, kind, np.repeat(np.arange(40), 100), seed=0)
    f = feature_activations(dense)
    members = detectors.select_feature_set(f, stream)
    assert members["feature"].tolist() == [4, 7, 2]  # the noise below 2 is cut off by thresholds
    assert members["f1"].iloc[-1] == pytest.approx(1.0)
    assert members["f1"][0] == rank_features(f, stream, 1)["f1"][0]
    score = detectors.feature_set_scores(f, members)
    np.testing.assert_array_equal(score > 1, kind > 0)
    for step in (1, 2, 3):  # the F1 it claims is the F1 that it has
        said = detectors.feature_set_scores(f, members.head(step)) > 1
        here = stream.selection
        assert members["f1"][step - 1] == pytest.approx(
            metrics.f1_score(stream.mask[here], said[here])
        )
    assert len(detectors.select_feature_set(f, stream, most=2)) == 2
    assert detectors.select_feature_set(f, stream, gain=0.1)["feature"].tolist() == [4, 7]


# ------------------------------------------------------------------------------ measuring


def test_measures_equal_scikit_learns():
    rng = np.random.default_rng(2)
    stream = random_stream(rng)
    score = np.round(rng.random(len(stream.mask)) + 0.3 * stream.mask, 1)  # ties
    found = evaluate_detector(score, 0.65, stream, seed=0, n_boot=100)
    mask, test = stream.mask[stream.test], score[stream.test]
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(mask, test))
    for name in ("precision", "recall", "f1"):
        expected = getattr(metrics, f"{name}_score")(mask, test > 0.65)
        assert found[name] == pytest.approx(expected)
    for name in detectors.MEASURES:
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_intervals_resample_documents():
    """One replicate by hand; and documents that are copies of one another have no spread."""
    rng = np.random.default_rng(3)
    stream = random_stream(rng)
    score = rng.random(len(stream.mask)) + 0.5 * stream.mask
    home = np.unique(stream.documents[stream.test], return_inverse=True)[1]
    weights = rng.integers(0, 3, (5, home.max() + 1)).astype(float)
    found = detectors._auroc(score[stream.test], stream.mask[stream.test], home, weights)
    for row, value in zip(weights, found, strict=True):
        expected = metrics.roc_auc_score(
            stream.mask[stream.test], score[stream.test], sample_weight=row[home]
        )
        assert value == pytest.approx(expected)

    one_score, one_mask = rng.random(50), rng.random(50) < 0.3
    copies = labelled_stream(
        np.tile(one_mask, 10), np.zeros(500, int), np.repeat(np.arange(10), 50), seed=0
    )
    same = evaluate_detector(np.tile(one_score, 10), 0.5, copies, seed=0)
    for name in detectors.MEASURES:
        assert same[f"{name}_low"] == pytest.approx(same[name])
        assert same[f"{name}_high"] == pytest.approx(same[name])


def test_intervals_cover_at_their_rate():
    """95 % intervals of recall hold the true rate in most of many repetitions."""
    rng = np.random.default_rng(4)
    held = 0
    for repetition in range(60):
        n_documents, n = 60, 20
        rate = np.repeat(rng.beta(6, 4, n_documents), n)  # documents differ: mean 0.6
        mask = np.tile(np.arange(n) < 10, n_documents)
        score = np.where(mask, rng.random(n_documents * n) < rate, 0.0)
        documents = np.repeat(np.arange(n_documents), n)
        stream = labelled_stream(mask, np.zeros(len(mask), int), documents, seed=repetition)
        found = evaluate_detector(score, 0.5, stream, seed=repetition)
        held += found["recall_low"] <= 0.6 <= found["recall_high"]
    assert held >= 50


def test_a_detector_that_never_says_yes():
    stream = random_stream(np.random.default_rng(5))
    found = evaluate_detector(np.zeros(len(stream.mask)), 0.0, stream, seed=0)
    assert (found["precision"], found["recall"], found["f1"]) == (0, 0, 0)
    assert found["auroc"] == pytest.approx(0.5)


# ------------------------------------------------------------------------------ baselines


def test_best_neuron_of_either_sign():
    rng = np.random.default_rng(6)
    stream = random_stream(rng)
    neurons = rng.normal(size=(len(stream.mask), 9)).astype(np.float32)
    neurons[:, 4] -= 4 * stream.mask
    index, values = baselines.best_neuron(neurons, stream)
    assert index == 4
    np.testing.assert_array_equal(values, -neurons[:, 4].astype(np.float64))
    cut = detectors.best_threshold(values, stream)
    best = max(
        metrics.f1_score(stream.mask[stream.selection], values[stream.selection] >= at)
        for at in values[stream.selection]
    )
    said = values[stream.selection] > cut
    assert metrics.f1_score(stream.mask[stream.selection], said) == pytest.approx(best)


@pytest.mark.parametrize("most", [100, 20_000])
def test_probe_finds_a_planted_direction(most):
    """And keeps its threshold where the unlabelled tokens were thinned out."""
    rng = np.random.default_rng(7)
    stream = random_stream(rng, n=6000, n_documents=40, rate=0.05)
    direction = rng.normal(size=4)
    direction /= np.linalg.norm(direction)
    residual = rng.normal(size=(6000, 4)) + 2.5 * np.outer(stream.mask, direction)
    score, cut = baselines.residual_probe(residual, stream, seed=0, most=most)
    found = evaluate_detector(score, cut, stream, seed=0, n_boot=0)
    ideal = residual @ direction  # by construction no score is better
    at_best = detectors.best_threshold(ideal, stream)
    best = evaluate_detector(ideal, at_best, stream, seed=0, n_boot=0)
    assert found["auroc"] == pytest.approx(best["auroc"], abs=0.02)
    assert found["f1"] == pytest.approx(best["f1"], abs=0.06)
    noise, cut = baselines.residual_probe(rng.normal(size=(6000, 4)), stream, seed=0, most=most)
    found = evaluate_detector(noise, cut, stream, seed=0, n_boot=0)
    assert found["auroc"] == pytest.approx(0.5, abs=0.08)


def test_probe_does_not_choose_its_threshold_on_what_it_learnt_by_heart():
    """Noise in more directions than tokens: on new text saying yes to all is the best there is."""
    rng = np.random.default_rng(21)
    stream = random_stream(rng, n=240, n_documents=12, rate=0.3)
    score, cut = baselines.residual_probe(rng.normal(size=(240, 400)), stream, seed=0)
    assert evaluate_detector(score, cut, stream, seed=0, n_boot=0)["recall"] > 0.8


def test_token_rule_is_the_best_set_of_ids():
    """Against all 2^6 sets of ids."""
    rng = np.random.default_rng(8)
    n = 3000
    ids = rng.integers(0, 6, n)
    mask = rng.random(n) < np.array([0.9, 0.6, 0.3, 0.2, 0.05, 0.0])[ids]
    stream = labelled_stream(mask, ids, np.repeat(np.arange(30), 100), seed=0)
    score = baselines.token_rule(stream)
    cut = detectors.best_threshold(score, stream)
    here = stream.selection
    best = max(
        metrics.f1_score(mask[here], np.isin(ids[here], [i for i in range(6) if chosen >> i & 1]))
        for chosen in range(1, 64)
    )
    assert metrics.f1_score(mask[here], score[here] > cut) == pytest.approx(best)


def test_token_rule_trusts_no_id_seen_once_and_none_of_the_test_half():
    ids = np.array([1, 2, 2, 2, 3, 4, 1, 1, 5, 5])
    mask = np.array([1, 1, 1, 0, 0, 0, 0, 0, 1, 1], dtype=bool)
    stream = LabelledStream(mask, ids, np.zeros(10, int), np.arange(10) < 6)
    by_id = {1: 1 / 2, 2: 2 / 4, 3: 0, 4: 0, 5: 0}
    assert baselines.token_rule(stream).tolist() == [by_id[i] for i in ids.tolist()]


def test_random_features_are_of_like_density():
    rng = np.random.default_rng(9)
    dense = rng.random((2000, 60)) < np.geomspace(0.002, 0.5, 60)
    f = feature_activations(dense.astype(float))
    drawn = baselines.similar_features(f, 30, 4, rng)
    assert len(set(drawn.tolist())) == 4 and 30 not in drawn
    assert all(abs(int(index) - 30) <= 12 for index in drawn)
    with pytest.raises(FeatlibError, match="60 random features asked for, but only 59"):
        baselines.similar_features(f, 30, 60, rng)


def test_a_tally_says_which_tokens():
    ids = np.array([1, 1, 1, 2, 2, 3, 0, 0])
    mask = np.array([1, 1, 0, 0, 0, 1, 0, 1], dtype=bool)
    said = np.array([1, 0, 1, 1, 0, 0, 0, 1], dtype=bool)
    stream = LabelledStream(mask, ids, np.zeros(8, int), np.arange(8) >= 6)
    table = cases.tally_tokens(said, stream, ["a", " raise", "b", "c"]).set_index("token")
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
    assert np.isnan(
        separation_within_tokens(random_features(rng, n=400), stream, stream.test)
    ).all()


def test_context_features_come_first():
    f, stream, _ = planted(np.random.default_rng(13))
    table = rank_context_features(f, stream)
    assert table["feature"][0] == 5
    row = table.set_index("feature").loc
    assert row[5]["within_tokens_test"] == pytest.approx(1.0)
    assert row[7]["within_tokens_test"] == pytest.approx(0.5, abs=0.06)
    assert row[7]["token_share"] > 0.98


# ------------------------------------------------------------------------------ the whole


def test_a_planted_feature_is_found_and_beats_its_rivals():
    rng = np.random.default_rng(14)
    f, stream, dense = planted(rng)
    neurons = rng.normal(size=(len(dense), 6)) + 0.5 * dense[:, [5]]
    fit = fit_label(f, stream, seed=0, neurons=neurons, residual=neurons, n_random=4)
    assert fit.feature == 5
    assert fit.row()["f1"] == fit.row()["auroc"] == 1.0
    assert fit.members["feature"].tolist() == [5] and fit.row("feature set")["f1"] == 1.0
    assert fit.n_labelled == stream.mask[stream.test].sum()
    assert fit.test["detector"].tolist() == [
        *("feature", "feature set", "token rule", "neuron", "probe", "random feature"),
    ]
    # The token alone is right every other time and misses nothing: F1 2/3.
    assert fit.row("token rule")["f1"] == pytest.approx(2 / 3, abs=0.05)
    assert fit.row("random feature")["f1"] < 0.15
    assert fit.row("probe")["auroc"] > fit.row("neuron")["auroc"] > 0.6
    assert fit.within_tokens == pytest.approx(1.0) and 0.3 < fit.token_share < 0.6
    again = fit_label(f, stream, seed=0, neurons=neurons, residual=neurons, n_random=4)
    assert fit.test.equals(again.test)


def test_a_given_feature_is_measured_the_same_way():
    f, stream, _ = planted(np.random.default_rng(15))
    fit = fit_label(f, stream, seed=0, n_random=2)
    found = evaluate_feature(f, fit.feature, stream, seed=0)
    assert found["f1"] == fit.row()["f1"] and found["f1_low"] == fit.row()["f1_low"]
    assert evaluate_feature(f, 0, stream, seed=0)["f1"] == 0.0  # silent: no yes, not all yes
    assert evaluate_feature(f, 7, stream, seed=0, threshold=9.0)["recall"] == 0.0


def test_activations_of_other_tokens_are_refused():
    f, stream, _ = planted(np.random.default_rng(16))
    fewer = FeatureActivations(f.matrix[:100])
    for attempt in (
        lambda: fit_label(fewer, stream, seed=0),
        lambda: evaluate_feature(fewer, 0, stream, seed=0),
        lambda: cases.separation_within_tokens(fewer, stream, stream.test),
        lambda: baselines.best_neuron(np.zeros((100, 3)), stream),
    ):
        with pytest.raises(FeatlibError, match="activations of 100 tokens, but labels of 6000"):
            attempt()


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
    own, other = (feature_activations(part) for part in dense)
    alone = fit_label(own, stream, seed=0, n_random=2, n_boot=10)
    both = fit_label(own, stream, seed=0, others=[other], n_random=2, n_boot=10)
    assert (alone.set_home, both.set_home) == (0, 1)
    assert both.feature == alone.feature == 4
    assert set(both.members["feature"]) >= {3, 6}
    assert both.row("feature set")["f1"] > 0.9 > alone.row("feature set")["f1"]
