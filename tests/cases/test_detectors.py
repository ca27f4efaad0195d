"""Detectors and their rivals against scikit-learn and brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from streams import random_features, random_stream

from featlib import FeatlibError
from featlib.cases import detectors, rivals
from featlib.cases.detectors import (
    Draws,
    LabelledStream,
    evaluate_detector,
    labelled_stream,
    rank_features,
)
from featlib.dictionaries.features import feature_activations

# ------------------------------------------------------------------------------ halves


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


def test_streams_that_cannot_be_judged_are_refused():
    ids, documents = np.zeros(8, int), np.repeat([0, 1], 4)
    with pytest.raises(FeatlibError, match="half holds 0 labelled"):
        labelled_stream(np.arange(8) < 2, ids, documents, seed=0)


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
        said = dense[:, feature] > table.loc[feature, "threshold"]
        claimed = table.loc[feature, "f1"]
        assert claimed == pytest.approx(best) == metrics.f1_score(stream.mask[here], said)
    assert table["f1"].is_monotonic_decreasing


def test_ranking_never_looks_at_the_test_half():
    rng = np.random.default_rng(1)
    stream, f = random_stream(rng), random_features(rng)
    dense = f.matrix.toarray()
    dense[stream.test] = rng.random((int(stream.test.sum()), f.d_sae))
    mask = np.where(stream.test, rng.random(len(stream.mask)) < 0.5, stream.mask)
    changed = replace(stream, mask=mask)
    other = feature_activations(dense)
    assert rank_features(f, stream, 20).equals(rank_features(other, changed, 20))
    score = dense[:, 0]
    assert detectors.best_threshold(score, stream) == detectors.best_threshold(score, changed)
    np.testing.assert_array_equal(rivals.token_rule(stream), rivals.token_rule(changed))
    index, _ = rivals.best_neuron(f.matrix.toarray(), stream)
    assert index == rivals.best_neuron(dense, changed)[0]


# ------------------------------------------------------------------------------ measuring


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
    one, two = rank_features(f, heavy, 5), rank_features(feature_activations(dense), copied, 5)
    np.testing.assert_allclose(one, two)
    np.testing.assert_allclose(rivals.best_neuron(dense, copied)[0], rivals.best_neuron(
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


def test_intervals_resample_documents():
    """Documents that are copies of one another have no spread."""
    rng = np.random.default_rng(3)
    score, mask = np.tile(rng.random(50), 10), np.tile(rng.random(50) < 0.3, 10)
    copies = labelled_stream(mask, np.zeros(500, int), np.repeat(np.arange(10), 50), seed=0)
    same = evaluate_detector(score, 0.5, copies, Draws(0, 200))
    for name in detectors.MEASURES[:4]:
        ends = same[f"{name}_low"], same[f"{name}_high"]
        assert ends == pytest.approx([same[name]] * 2)


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


# ------------------------------------------------------------------------------ baselines


def test_best_neuron_of_either_sign():
    rng = np.random.default_rng(6)
    stream = random_stream(rng)
    neurons = rng.normal(size=(len(stream.mask), 9)).astype(np.float32)
    neurons[:, 4] -= 4 * stream.mask
    index, values = rivals.best_neuron(neurons, stream)
    assert index == 4
    np.testing.assert_array_equal(values, -neurons[:, 4].astype(np.float64))
    cut = detectors.best_threshold(values, stream)
    mask, values = stream.mask[stream.selection], values[stream.selection]
    best = max(metrics.f1_score(mask, values >= at) for at in values)
    assert metrics.f1_score(mask, values > cut) == pytest.approx(best)


@pytest.mark.parametrize("most", [100, 20_000])
def test_probe_finds_a_planted_direction(most, monkeypatch):
    """And keeps its threshold where the unlabelled tokens were thinned out."""
    monkeypatch.setattr(rivals, "FITTED", most)
    rng = np.random.default_rng(7)
    stream = random_stream(rng, n=6000, n_documents=40, rate=0.05)
    direction = rng.normal(size=4)
    direction /= np.linalg.norm(direction)
    residual = rng.normal(size=(6000, 4)) + 2.5 * np.outer(stream.mask, direction)
    few = rivals.thin_selection(stream, seed=0)
    found = evaluate_detector(*rivals.residual_probe(residual, few), stream, Draws(0, 0))
    ideal = residual @ direction  # by construction no score is better
    at_best = detectors.best_threshold(ideal, stream)
    best = evaluate_detector(ideal, at_best, stream, Draws(0, 0))
    assert found["auroc"] == pytest.approx(best["auroc"], abs=0.02)
    assert found["f1"] == pytest.approx(best["f1"], abs=0.06)
    noise, _ = rivals.residual_probe(rng.normal(size=(6000, 4)), few)
    area = metrics.roc_auc_score(stream.mask[stream.test], noise[stream.test])
    assert area == pytest.approx(0.5, abs=0.08)


def test_token_rule_is_the_best_set_of_ids():
    """Against all 2^6 sets of ids."""
    rng = np.random.default_rng(8)
    n = 3000
    ids = rng.integers(0, 6, n)
    mask = rng.random(n) < np.array([0.9, 0.6, 0.3, 0.2, 0.05, 0.0])[ids]
    stream = labelled_stream(mask, ids, np.repeat(np.arange(30), 100), seed=0)
    score = rivals.token_rule(stream)
    cut = detectors.best_threshold(score, stream)
    here = stream.selection
    best = max(
        metrics.f1_score(mask[here], np.isin(ids[here], [i for i in range(6) if chosen >> i & 1]))
        for chosen in range(1, 64)
    )
    assert metrics.f1_score(mask[here], score[here] > cut) == pytest.approx(best)
