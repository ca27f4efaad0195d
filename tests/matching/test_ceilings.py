"""Ceilings, calibrated shares and transfer on planted dictionaries whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from planted import csr, even_documents, firings, noisy_copy, sparse_features
from scipy import stats

from featlib import FeatlibError
from featlib.matching.ceilings import (
    calibrate,
    compare_sparsity,
    cross_share,
    density_bins,
    index_effect,
    persistence_by,
    persistence_by_threshold,
    recovered_features,
    seed_ceiling,
    transfer_correlation,
    transfer_fates,
)
from featlib.matching.correlation import pearson
from featlib.matching.fates import assign_fates, persistence_interval
from featlib.matching.intervals import document_weights

N, D, LENGTH = 6000, 50, 60
DOCUMENTS = even_documents(N, LENGTH)


def find(truth: np.ndarray, stable: int, rng: np.random.Generator, shuffle: bool = True):
    """An autoencoder of another seed: finds `stable` of the true features, invents the others."""
    d = truth.shape[1]
    own = sparse_features(len(truth), d - stable, 0.04, rng)
    found = np.hstack([noisy_copy(truth[:, :stable], 0.96, rng), own])
    return csr(found[:, rng.permutation(d)] if shuffle else found)


def test_the_ceiling_is_the_planted_share_over_every_ordered_pair():
    rng = np.random.default_rng(0)
    truth = sparse_features(N, D, 0.04, rng)
    seeds = [find(truth, 30, rng) for _ in range(3)]
    c = seed_ceiling(seeds, DOCUMENTS, n_boot=60, rng=rng)
    assert c.share == pytest.approx(0.6, abs=0.02)
    assert c.low <= 0.6 <= c.high
    assert c.high - c.low < 0.15
    ordered = {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}
    assert set(zip(c.pairs["parent_seed"], c.pairs["child_seed"], strict=True)) == ordered
    assert c.share == pytest.approx(c.pairs["persist"].mean())
    for i, j, persist in c.pairs[["parent_seed", "child_seed", "persist"]].itertuples(index=False):
        r = pearson(seeds[i], seeds[j])
        assert persist == assign_fates(r, firings(seeds[i]), firings(seeds[j])).persist


def test_seeds_that_differ_widen_the_ceiling_s_interval():
    rng = np.random.default_rng(1)
    truth = sparse_features(N, D, 0.04, rng)
    weights = document_weights(DOCUMENTS, 60, rng)
    alike = [find(truth, 30, rng) for _ in range(3)]
    unlike = [find(truth, k, rng) for k in (45, 45, 10)]
    widths = []
    for seeds in (alike, unlike):
        c = seed_ceiling(seeds, DOCUMENTS, rng=rng, weights=weights)
        assert c.low <= c.share <= c.high
        assert c.share == pytest.approx(c.pairs["persist"].mean())
        widths.append(c.high - c.low)
    assert c.pairs["persist"].max() > c.share + 0.1, "the mean and the best pair are told apart"
    assert widths[1] > 2 * widths[0] + 0.1


def test_one_seed_is_no_ceiling():
    with pytest.raises(FeatlibError, match="at least 2 seeds, got 1"):
        seed_ceiling([csr(np.eye(3))], np.arange(3), rng=np.random.default_rng(0))


def test_a_model_s_calibrated_persistence_with_itself_is_1():
    rng = np.random.default_rng(2)
    truth = sparse_features(N, D, 0.04, rng)
    parent = [find(truth, 25, rng) for _ in range(3)]
    same = [find(truth, 25, rng) for _ in range(3)]
    weights = document_weights(DOCUMENTS, 60, rng)
    ceiling = seed_ceiling(parent, DOCUMENTS, rng=rng, weights=weights)
    share = cross_share(parent, same, DOCUMENTS, rng=rng, weights=weights)
    assert ceiling.share == pytest.approx(0.5, abs=0.03)
    assert len(share.pairs) == 6
    assert (share.pairs["parent_seed"] != share.pairs["child_seed"]).all()
    ratio, low, high = calibrate(share, ceiling)
    assert ratio == pytest.approx(share.share / ceiling.share)
    assert ratio == pytest.approx(1, abs=0.1)
    assert low <= 1 <= high
    assert high - low < 0.3


def test_a_model_that_lost_half_is_seen_through_the_instrument_s_noise():
    """The raw share mixes drift and noise; the ratio gives the drift back."""
    rng = np.random.default_rng(3)
    truth = sparse_features(N, D, 0.04, rng)
    drifted = np.hstack([truth[:, :15], sparse_features(N, D - 15, 0.04, rng)])
    weights = document_weights(DOCUMENTS, 60, rng)
    parent, child = ([find(t, 30, rng) for _ in range(2)] for t in (truth, drifted))
    ceiling = seed_ceiling(parent, DOCUMENTS, rng=rng, weights=weights)
    share = cross_share(parent, child, DOCUMENTS, rng=rng, weights=weights)
    _, low, high = calibrate(share, ceiling)
    assert share.share == pytest.approx(0.3, abs=0.03)
    assert low <= 0.5 <= high
    assert high < 0.8


def test_an_impossible_ratio_is_not_a_number():
    rng = np.random.default_rng(4)
    strangers = [csr(sparse_features(N, 10, 0.04, rng)) for _ in range(2)]
    c = seed_ceiling(strangers, DOCUMENTS, n_boot=10, rng=rng)
    assert c.share == 0
    assert all(np.isnan(v) for v in calibrate(c, c))


def test_single_autoencoders_are_compared_though_their_seed_is_equal():
    rng = np.random.default_rng(5)
    truth = sparse_features(N, 20, 0.04, rng)
    one = cross_share([csr(truth)], [csr(truth)], DOCUMENTS, n_boot=10, rng=rng)
    assert (one.share, one.low, one.high) == (1, 1, 1)


def test_a_shared_start_shows_as_equal_indices():
    rng = np.random.default_rng(6)
    truth = sparse_features(N, D, 0.04, rng)
    effects = []
    for shuffle in (False, True):
        a, b = (find(truth, 30, rng, shuffle) for _ in range(2))
        effects.append(index_effect(assign_fates(pearson(a, b), firings(a), firings(b))))
    assert effects[0]["matches"] == effects[1]["matches"] == 30
    assert effects[0]["same_index"] == 1
    assert effects[0]["p"] < 1e-20
    assert effects[1]["same_index"] < 0.2
    assert effects[1]["p"] > 0.001
    assert effects[1]["by_chance"] == 1 / D
    nothing = index_effect(assign_fates(np.zeros((2, 2), "f4"), np.full(2, 50), np.full(2, 50)))
    assert nothing["matches"] == 0
    assert np.isnan(nothing["same_index"])


def chain(r: list[float], counts: list[int]):
    d = len(r)
    return assign_fates(np.diag(np.array(r, "f4")), np.array(counts), np.full(d, 100))


def test_shares_by_threshold_by_hand():
    fates = chain([0.55, 0.72, 0.83, 0.97, 0.99], [50, 50, 50, 50, 3])
    table = persistence_by_threshold(fates)
    np.testing.assert_allclose(table["threshold"], np.arange(0.5, 0.951, 0.05))
    expected = [1, 1, 0.75, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert table["persist"].tolist() == expected
    at = table.loc[np.isclose(table["threshold"], 0.8), "persist"].item()
    assert at == fates.persist


def test_shares_by_group_by_hand():
    fates = chain([0.9, 0.9, 0.1, 0.9, 0.2, 0.95], [50, 50, 50, 2, 50, 0])
    table = persistence_by(fates, ["a", "a", "a", "a", "b", "c"]).set_index("group")
    assert table.loc["a", ["features", "testable", "persists"]].tolist() == [4, 3, 2]
    assert table.loc["b", ["features", "testable", "persists"]].tolist() == [1, 1, 0]
    assert table.loc["a", "share"] == pytest.approx(2 / 3)
    assert np.isnan(table.loc["c", "share"])
    z, p, n = stats.norm.ppf(0.975), 2 / 3, 3  # Wilson's interval written out
    centre, half = (p + z**2 / 2 / n), z * np.sqrt(p * (1 - p) / n + z**2 / 4 / n**2)
    expected = ((centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n))
    assert (table.loc["a", "low"], table.loc["a", "high"]) == pytest.approx(expected)
    assert table["features"].sum() == 6


def test_density_bins_hold_the_densities_they_name():
    counts = np.array([0, 1, 9, 10, 31, 32, 100, 999, 1000])
    bins = density_bins(counts, 1000)
    assert pd.isna(bins[0])
    assert bins.ordered
    for count, label in zip(counts[1:], list(bins)[1:], strict=True):
        low, high = map(
            float, label.replace("e-", "e~").replace("-", " ").replace("~", "-").split()
        )
        assert low * 0.98 <= count / 1000 <= high * 1.02
    assert list(bins.codes[1:]) == sorted(bins.codes[1:])
    table = persistence_by(chain([0.9] * 9, counts.tolist()), bins)
    assert table["features"].sum() == 8  # the silent feature has no density


def test_unequal_sparsity_is_told():
    dense, thin = csr(np.ones((10, 8))), csr(np.eye(10, 8))
    table = compare_sparsity({"base": dense, "lua": thin, "merged": dense}).set_index("model")
    assert table["l0"].tolist() == [8, 0.8, 8]
    assert table["equal"].tolist() == [False, True, False]
    ten, more, most = (csr(np.arange(130).reshape(10, 13) % 13 < n) for n in (10, 11, 12))
    assert compare_sparsity({"a": ten, "b": more})["equal"].all(), "10 % more is still equal"
    assert compare_sparsity({"a": ten, "b": most})["equal"].tolist() == [True, False]


def test_transfer_gives_each_feature_s_correlation_with_itself():
    rng = np.random.default_rng(7)
    before = sparse_features(N, 30, 0.04, rng)
    kept = np.linspace(0.3, 1, 30)
    after = noisy_copy(before, kept, rng)
    after[:, 4] = 0
    r = transfer_correlation(csr(before), csr(after))
    np.testing.assert_allclose(r, np.diag(pearson(csr(before), csr(after))), atol=1e-6)
    assert r[4] == 0
    np.testing.assert_allclose(np.delete(r, 4), np.delete(kept, 4), atol=0.25)
    fates = transfer_fates(csr(before), csr(after))
    assert fates.parents["best"].tolist() == list(range(30))
    assert ((fates.parents["fate"] == "persists") == (r >= 0.8)).all()
    assert fates.children["fate"][4] == "untestable"
    assert fates.persist == pytest.approx((r >= 0.8).mean())
    low, high = persistence_interval(csr(before), csr(after), DOCUMENTS, fates, n_boot=60, rng=rng)
    assert low <= fates.persist <= high < 0.7


def test_features_recovered_by_the_merge_by_hand():
    table = recovered_features(
        {
            "lua": np.array([0.9, 0.9, 0.1, 0.1, 0.9, 0.9]),
            "tinystories": np.array([0.9, 0.1, 0.9, 0.1, 0.9, 0.1]),
            "merged": np.array([0.9, 0.9, 0.9, 0.9, 0.1, 0.1]),
        },
        np.array([50, 50, 50, 50, 50, 4]),
    )
    assert table["feature"].tolist() == [0, 1, 2, 3, 4]  # the last one is untestable
    both = "lua+tinystories"
    assert table["kept_by"].tolist() == [both, "lua", "tinystories", "none", both]
    assert table["in_merged"].tolist() == [True, True, True, True, False]
    assert table["recovered"].tolist() == [False, True, True, True, False]
    assert table["r_lua"].tolist() == [0.9, 0.9, 0.1, 0.1, 0.9]
    with pytest.raises(FeatlibError, match="'merged' and at least one child"):
        recovered_features({"lua": np.ones(3)}, np.ones(3))


def test_the_same_generator_gives_the_same_numbers():
    truth = sparse_features(N, 20, 0.04, np.random.default_rng(8))
    seeds = [find(truth, 10, np.random.default_rng(s)) for s in range(3)]
    first, second = (
        seed_ceiling(seeds, DOCUMENTS, n_boot=20, rng=np.random.default_rng(9)) for _ in range(2)
    )
    np.testing.assert_array_equal(first.draws, second.draws)
    assert (first.low, first.high) == (second.low, second.high)
