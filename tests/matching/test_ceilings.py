"""Shares over pairs of seeds, on planted dictionaries whose truth is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from planted import csr, even_documents, noisy_copy, sparse_features

from featlib.estimate import document_weights
from featlib.matching.ceilings import _draw_seeds, calibrate, over_pairs
from featlib.matching.fates import compare

N, D, LENGTH = 6000, 50, 60
DOCUMENTS = even_documents(N, LENGTH)


def find(truth: np.ndarray, stable: int, rng: np.random.Generator, shuffle: bool = True):
    """An autoencoder of another seed: finds `stable` of the true features, invents the others."""
    d = truth.shape[1]
    own = sparse_features(len(truth), d - stable, 0.04, rng)
    found = np.hstack([noisy_copy(truth[:, :stable], 0.96, rng), own])
    return csr(found[:, rng.permutation(d)] if shuffle else found)


def seeds_of(truth: np.ndarray, stable: list[int], rng: np.random.Generator, shuffle: bool = True):
    return {n: find(truth, k, rng, shuffle) for n, k in enumerate(stable)}


def draws(rng: np.random.Generator) -> dict:
    weights = document_weights(DOCUMENTS, 60, rng)
    return {"documents": DOCUMENTS, "weights": weights, "rng": rng}


def test_the_ceiling_is_the_planted_share_over_every_ordered_pair():
    rng = np.random.default_rng(0)
    truth = sparse_features(N, D, 0.04, rng)
    seeds = seeds_of(truth, [30, 30, 30], rng)
    c = over_pairs(seeds, **draws(rng))
    share = c.share().estimate
    assert share.value == pytest.approx(0.6, abs=0.02)
    assert share.low <= 0.6 <= share.high < share.low + 0.15
    assert set(c.fates) == set(itertools.permutations(range(3), 2))
    assert share.value == pytest.approx(np.mean([f.persist for f in c.fates.values()]))
    for (i, j), fates in c.fates.items():
        assert fates.persist == compare(seeds[i], seeds[j]).persist
    first, second = (over_pairs(seeds, **draws(np.random.default_rng(9))) for _ in range(2))
    assert first.share().estimate == second.share().estimate, "the same generator, the same numbers"


def test_seeds_that_differ_widen_the_ceiling_s_interval():
    rng = np.random.default_rng(1)
    truth = sparse_features(N, D, 0.04, rng)
    common = draws(rng)
    widths = []
    for found in ([30, 30, 30], [45, 45, 10]):
        c = over_pairs(seeds_of(truth, found, rng), **common)
        share = c.share().estimate
        assert share.low <= share.value <= share.high
        widths.append(share.high - share.low)
    assert max(f.persist for f in c.fates.values()) > share.value + 0.1, "a mean, not the best pair"
    assert widths[1] > 2 * widths[0] + 0.1


@pytest.mark.parametrize("own", [True, False])
def test_seeds_are_resampled_and_every_draw_has_a_pair(own):
    pairs = list(itertools.permutations(range(3), 2))
    drawn = _draw_seeds(pairs, own, 4000, np.random.default_rng(2))
    assert (drawn.sum(axis=1) > 0).all()
    share = (drawn / drawn.sum(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(share, 1 / 6, atol=0.02)  # none is preferred
    there = drawn > 0
    lone = [not (there[:, pairs.index((0, 1))] & ~there[:, pairs.index((1, 0))]).any()]
    assert all(lone) == own, "of one model both directions come together"


@pytest.mark.parametrize("kept", [30, 15])
def test_the_ratio_is_the_drift_seen_through_the_instrument_s_noise(kept):
    """The raw share mixes drift and noise; the ratio gives the drift back, 1 for the same model."""
    rng = np.random.default_rng(3)
    truth = sparse_features(N, D, 0.04, rng)
    drifted = np.hstack([truth[:, :kept], sparse_features(N, D - kept, 0.04, rng)])
    common = draws(rng)
    parent, child = (seeds_of(t, [30, 30, 30], rng) for t in (truth, drifted))
    ceiling = over_pairs(parent, **common).share()
    crossed = over_pairs(parent, child, **common)
    assert crossed.share().estimate.value == pytest.approx(kept / D, abs=0.03)
    assert len(crossed.fates) == 6 and all(i != j for i, j in crossed.fates)
    ratio = calibrate(crossed.share(), ceiling)
    assert ratio.value == crossed.share().estimate.value / ceiling.estimate.value
    assert ratio.value == pytest.approx(kept / 30, abs=0.1)
    assert ratio.low <= kept / 30 <= ratio.high < ratio.low + 0.35


def test_a_share_among_chosen_features_is_the_share_of_these_alone():
    rng = np.random.default_rng(6)
    truth = sparse_features(N, D, 0.04, rng)
    child = np.hstack([truth[:, :20], sparse_features(N, 30, 0.04, rng)])
    parents = seeds_of(truth, [30, 30, 30], rng, shuffle=False)
    own, crossed = (
        over_pairs(parents, other, **draws(rng))
        for other in (None, seeds_of(child, [30, 30, 30], rng))
    )
    stability = own.stability()
    for found in stability.values():
        assert (found[30:] == 0).all() and (found[:30] == 1).mean() > 0.85
    stable = {i: found == 1 for i, found in stability.items()}
    kept = crossed.share(stable).estimate
    assert kept.value == pytest.approx(2 / 3, abs=0.04), "20 of the 30 that every seed finds"
    assert kept.low <= kept.value <= kept.high
    assert np.isnan(crossed.share(dict.fromkeys(range(3), np.zeros(D, bool))).estimate.value)


def test_strangers_have_no_ratio_and_single_autoencoders_are_compared_though_seeds_are_equal():
    rng = np.random.default_rng(4)
    strangers = {n: csr(sparse_features(N, 10, 0.04, rng)) for n in range(2)}
    c = over_pairs(strangers, **draws(rng)).share()
    assert c.estimate.value == 0
    assert np.isnan(list(calibrate(c, c).named("x").values())).all()
    one = over_pairs({0: strangers[0]}, {0: strangers[0]}, **draws(rng)).share().estimate
    assert (one.value, one.low, one.high) == (1, 1, 1)
