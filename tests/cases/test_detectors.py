"""Detectors and their rivals against scikit-learn and brute force."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from streams import labelled_stream, planted, random_features, random_stream

from featlib.cases import detectors, fit
from featlib.cases.detectors import Draws, evaluate_detector, rank_features
from featlib.cases.text import LabelledStream
from featlib.dictionaries.features import feature_activations


def test_halves_are_made_of_whole_documents():
    rng = np.random.default_rng(0)
    stream = random_stream(rng, n=3000, n_documents=100)
    for document in np.unique(stream.documents):
        assert len(np.unique(stream.selection[stream.documents == document])) == 1
    share = stream.mask[stream.selection].sum() / stream.mask.sum()
    assert 0.45 < share < 0.55
    same, again, other = (
        labelled_stream(stream.mask, stream.ids, stream.documents, seed=seed) for seed in (3, 3, 4)
    )
    assert (same.selection == again.selection).all()
    assert (same.selection != other.selection).any()


def brute_best(score, mask):
    """Highest F1 over all thresholds at values above 0, counted out."""
    cuts = np.unique(score[score > 0])
    return max((metrics.f1_score(mask, score >= cut) for cut in cuts), default=-1.0)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([0.02, 0.2, 0.6]))
def test_ranking_equals_trying_every_threshold(seed, levels, density):
    rng = np.random.default_rng(seed)
    stream = random_stream(rng, n=200)
    f = random_features(rng, n=200, d_sae=12, density=density, levels=levels)
    here = stream.selection
    dense = f.matrix.toarray()[here]
    table = rank_features(f, stream)
    best = [brute_best(score, stream.mask[here]) for score in dense.T]
    assert table["f1"][0] == pytest.approx(max(best)) and table["f1"].is_monotonic_decreasing
    for row in table.itertuples():
        f1 = metrics.f1_score(stream.mask[here], dense[:, row.feature] > row.threshold)
        assert row.f1 == pytest.approx(best[row.feature]) == f1


def test_ranking_never_looks_at_the_test_half():
    rng = np.random.default_rng(1)
    stream, f = random_stream(rng), random_features(rng)
    dense = f.matrix.toarray()
    dense[stream.test] = rng.random((int(stream.test.sum()), f.d_sae))
    mask = np.where(stream.test, rng.random(len(stream.mask)) < 0.5, stream.mask)
    changed = replace(stream, mask=mask)
    other = feature_activations(dense)
    assert rank_features(f, stream).equals(rank_features(other, changed))
    score = dense[:, 0]
    assert detectors.best_threshold(score, stream) == detectors.best_threshold(score, changed)
    np.testing.assert_array_equal(fit.token_rule(stream), fit.token_rule(changed))
    index, _ = fit.best_neuron(f.matrix.toarray(), stream)
    assert index == fit.best_neuron(dense, changed)[0]


def test_measures_equal_scikit_learns():
    rng = np.random.default_rng(2)
    stream = random_stream(rng)
    score = np.round(rng.random(len(stream.mask)) + 0.3 * stream.mask, 1)  # ties
    found = evaluate_detector(score, 0.65, stream, Draws(0, 100))
    mask, test = stream.mask[stream.test], score[stream.test]
    said = test > 0.65
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(mask, said, average="binary")
    expected = precision, recall, f1, metrics.roc_auc_score(mask, test), pairs_within(stream, score)
    assert [found[name] for name in detectors.MEASURES] == pytest.approx(expected)
    for name in detectors.MEASURES:
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def pairs_within(stream, score) -> float:
    """AUROC among tokens of one id, by counting pairs."""
    won = pairs = 0.0
    for token in np.unique(stream.ids):
        here = stream.test & (stream.ids == token)
        a, b = score[here & stream.mask][:, None], score[here & ~stream.mask][None, :]
        won += (a > b).sum() + (a == b).sum() / 2
        pairs += a.size * b.size
    return won / pairs


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_weight_is_that_many_tokens(seed):
    """Tokens of weight 2 count as if each stood there twice: choosing and judging alike."""
    rng = np.random.default_rng(seed)
    stream, f = random_stream(rng, n=200, n_ids=6), random_features(rng, n=200, d_sae=5)
    times = rng.integers(1, 4, 200)
    heavy = replace(stream, weights=times.astype(float))
    arrays = vars(stream).values()
    copied = LabelledStream(*(np.repeat(array, times) for array in arrays))
    dense = np.repeat(f.matrix.toarray(), times, axis=0)
    one, two = rank_features(f, heavy), rank_features(feature_activations(dense), copied)
    np.testing.assert_allclose(one, two)
    np.testing.assert_allclose(fit.best_neuron(dense, copied)[0], fit.best_neuron(
        f.matrix.toarray(), heavy)[0])  # fmt: skip
    for feature, cut in zip(one["feature"].astype(int), one["threshold"], strict=True):
        weighed = evaluate_detector(f.matrix.toarray()[:, feature], cut, heavy, Draws(0, 3))
        assert weighed == pytest.approx(
            evaluate_detector(dense[:, feature], cut, copied, Draws(0, 3)), nan_ok=True
        )


def test_correlations_are_numpys():
    rng = np.random.default_rng(5)
    x, y = rng.random((2, 300))
    found = detectors.correlation(x, y, np.repeat(np.arange(10), 30), Draws(0, 50))
    assert found.value == pytest.approx(np.corrcoef(x, y)[0, 1]) and found.low < found.high
    assert detectors.correlation(x, 0 * y, np.arange(300), Draws(0, 9)).value == 0


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
        found = evaluate_detector(score, 0.5, stream, Draws(repetition, 200))
        held += found["recall_low"] <= 0.6 <= found["recall_high"]
    assert held >= 50


def test_best_neuron_of_either_sign():
    rng = np.random.default_rng(6)
    stream = random_stream(rng)
    neurons = rng.normal(size=(len(stream.mask), 9)).astype(np.float32)
    neurons[:, 4] -= 4 * stream.mask
    index, values = fit.best_neuron(neurons, stream)
    assert index == 4
    np.testing.assert_array_equal(values, -neurons[:, 4].astype(np.float64))
    cut = detectors.best_threshold(values, stream)
    mask, values = stream.mask[stream.selection], values[stream.selection]
    best = max(metrics.f1_score(mask, values >= at) for at in values)
    assert metrics.f1_score(mask, values > cut) == pytest.approx(best)


@pytest.mark.parametrize("most", [100, 20_000])
def test_probe_finds_a_planted_direction(most, monkeypatch):
    """And keeps its threshold where the unlabelled tokens were thinned out."""
    monkeypatch.setattr(fit, "FITTED", most)
    rng = np.random.default_rng(7)
    stream = random_stream(rng, n=6000, n_documents=40, rate=0.05)
    direction = rng.normal(size=4)
    direction /= np.linalg.norm(direction)
    residual = rng.normal(size=(6000, 4)) + 2.5 * np.outer(stream.mask, direction)
    few = fit.thin_selection(stream, seed=0)
    found = evaluate_detector(*fit.residual_probe(residual, few), stream, Draws(0, 0))
    ideal = residual @ direction  # by construction no score is better
    at_best = detectors.best_threshold(ideal, stream)
    best = evaluate_detector(ideal, at_best, stream, Draws(0, 0))
    assert found["auroc"] == pytest.approx(best["auroc"], abs=0.02)
    assert found["f1"] == pytest.approx(best["f1"], abs=0.06)
    noise, _ = fit.residual_probe(rng.normal(size=(6000, 4)), few)
    area = metrics.roc_auc_score(stream.mask[stream.test], noise[stream.test])
    assert area == pytest.approx(0.5, abs=0.08)


def test_token_rule_is_the_best_set_of_ids():
    """Against all 2^6 sets of ids."""
    rng = np.random.default_rng(8)
    n = 3000
    ids = rng.integers(0, 6, n)
    mask = rng.random(n) < np.array([0.9, 0.6, 0.3, 0.2, 0.05, 0.0])[ids]
    stream = labelled_stream(mask, ids, np.repeat(np.arange(30), 100), seed=0)
    score = fit.token_rule(stream)
    cut = detectors.best_threshold(score, stream)
    here = stream.selection
    best = max(
        metrics.f1_score(mask[here], np.isin(ids[here], [i for i in range(6) if chosen >> i & 1]))
        for chosen in range(1, 64)
    )
    assert metrics.f1_score(mask[here], score[here] > cut) == pytest.approx(best)


DRAWS = Draws(seed=0, n_boot=10, n_random=4)


def test_token_share_equals_r2_of_held_out_means():
    rng = np.random.default_rng(10)
    stream = random_stream(rng, n_ids=30)
    ids = stream.ids.copy()
    ids[stream.test & (ids == 3)] = 35  # an id that the chosen half never saw
    f = random_features(rng, d_sae=6)
    dense = f.matrix.toarray().astype(np.float64)
    dense[:, 0] += 12 * (ids == 2)
    stream = replace(stream, ids=ids)
    found = [fit.token_identity_share(dense[:, feature], stream) for feature in range(6)]
    for feature in range(6):
        a, b = dense[stream.selection, feature], dense[stream.test, feature]
        means = {i: a[ids[stream.selection] == i].mean() for i in set(ids[stream.selection])}
        guess = np.array([means.get(i, a.mean()) for i in ids[stream.test]])
        assert found[feature] == pytest.approx(metrics.r2_score(b, guess), abs=1e-5)
    assert found[0] > 0.3


@pytest.fixture
def fit_label(monkeypatch):
    """`fit.fit_label` of subjects that have no model to edit."""
    monkeypatch.setattr(fit, "loss_changes", lambda subject, _: np.zeros(subject.features.n_tokens))
    return fit.fit_label


def subject(f, neurons=None, seed=0):
    """What a fit reads of a model; its neurons serve as residual stream too."""
    sites = SimpleNamespace(neurons=neurons, residual=neurons)
    return SimpleNamespace(features=f, sites=sites, seed=seed)


def test_a_planted_feature_is_found_and_beats_its_rivals(fit_label):
    rng = np.random.default_rng(14)
    f, stream, dense = planted(rng)
    noise = rng.normal(size=(len(dense), 6))
    read = subject(f, torch.from_numpy(noise + 0.5 * dense[:, [5]]))
    found = fit_label([read], stream, DRAWS, rivals=True)
    assert found.feature == 5 and found.seed == read.seed
    assert found.row()["f1"] == found.row()["auroc"] == 1.0
    assert found.test["detector"].tolist() == [
        *("feature", "token rule", "neuron", "probe", "random feature")
    ]
    # The token alone is right every other time and misses nothing: F1 2/3.
    assert found.row("token rule")["f1"] == pytest.approx(2 / 3, abs=0.05)
    assert found.row("random feature")["f1"] < 0.25
    assert found.row("probe")["auroc"] > found.row("neuron")["auroc"] > 0.6
    assert found.row()["within"] == pytest.approx(1.0) and 0.3 < found.token_share < 0.6
    assert found.test.equals(fit_label([read], stream, DRAWS, rivals=True).test)


def test_a_feature_is_looked_for_in_every_autoencoder(fit_label):
    f, stream, dense = planted(np.random.default_rng(16))
    poor, rich = subject(feature_activations(dense[:, :5]), seed=4), subject(f, seed=9)
    for both in ((poor, rich), (rich, poor)):
        assert fit_label(both, stream, DRAWS).seed == 9
    silent = subject(feature_activations(np.zeros((6000, 2))))
    assert fit_label([silent], stream, DRAWS) is None
