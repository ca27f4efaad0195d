"""Ceilings, calibrated shares and transfer on planted dictionaries whose truth is known."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from planted import csr, even_documents, noisy_copy, sparse_features

from featlib.estimate import document_weights, proportion
from featlib.family import PAIRS, PARENTS
from featlib.matching.ceilings import (
    METRICS,
    THRESHOLDS,
    calibrate,
    count_flows,
    density_bins,
    over_pairs,
    persistence_by,
    persistence_by_threshold,
    step_metrics,
    summarize_steps,
)
from featlib.matching.fates import Rule, assign_fates, compare

N, D, LENGTH = 6000, 50, 60
DOCUMENTS = even_documents(N, LENGTH)


def find(truth: np.ndarray, stable: int, rng: np.random.Generator, shuffle: bool = True):
    """An autoencoder of another seed: finds `stable` of the true features, invents the others."""
    d = truth.shape[1]
    own = sparse_features(len(truth), d - stable, 0.04, rng)
    found = np.hstack([noisy_copy(truth[:, :stable], 0.96, rng), own])
    return csr(found[:, rng.permutation(d)] if shuffle else found)


def draws(rng: np.random.Generator) -> dict:
    weights = document_weights(DOCUMENTS, 60, rng)
    return {"documents": DOCUMENTS, "weights": weights, "rng": rng}


def test_the_ceiling_is_the_planted_share_over_every_ordered_pair():
    rng = np.random.default_rng(0)
    truth = sparse_features(N, D, 0.04, rng)
    seeds = [find(truth, 30, rng) for _ in range(3)]
    c = over_pairs(seeds, **draws(rng))
    assert c.share.value == pytest.approx(0.6, abs=0.02)
    assert c.share.low <= 0.6 <= c.share.high
    assert c.share.high - c.share.low < 0.15
    ordered = {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}
    assert set(zip(c.pairs["parent_seed"], c.pairs["child_seed"], strict=True)) == ordered
    assert c.share.value == pytest.approx(c.pairs["persist"].mean())
    for i, j, persist in c.pairs[["parent_seed", "child_seed", "persist"]].itertuples(index=False):
        assert persist == c.fates[i, j].persist == compare(seeds[i], seeds[j]).persist
    first, second = (over_pairs(seeds, **draws(np.random.default_rng(9))) for _ in range(2))
    assert first.share == second.share, "the same generator gives the same numbers"


def test_seeds_that_differ_widen_the_ceiling_s_interval():
    rng = np.random.default_rng(1)
    truth = sparse_features(N, D, 0.04, rng)
    common = draws(rng)
    alike = [find(truth, 30, rng) for _ in range(3)]
    unlike = [find(truth, k, rng) for k in (45, 45, 10)]
    widths = []
    for seeds in (alike, unlike):
        c = over_pairs(seeds, **common)
        assert c.share.low <= c.share.value <= c.share.high
        assert c.share.value == pytest.approx(c.pairs["persist"].mean())
        widths.append(c.share.high - c.share.low)
    assert c.pairs["persist"].max() > c.share.value + 0.1, "it is the mean, not the best pair"
    assert widths[1] > 2 * widths[0] + 0.1


@pytest.mark.parametrize("kept", [30, 15])
def test_the_ratio_is_the_drift_seen_through_the_instrument_s_noise(kept):
    """The raw share mixes drift and noise; the ratio gives the drift back, 1 for the same model."""
    rng = np.random.default_rng(3)
    truth = sparse_features(N, D, 0.04, rng)
    drifted = np.hstack([truth[:, :kept], sparse_features(N, D - kept, 0.04, rng)])
    common = draws(rng)
    parent, child = ([find(t, 30, rng) for _ in range(3)] for t in (truth, drifted))
    ceiling = over_pairs(parent, **common)
    share = over_pairs(parent, child, **common)
    assert share.share.value == pytest.approx(kept / D, abs=0.03)
    assert len(share.pairs) == 6
    assert (share.pairs["parent_seed"] != share.pairs["child_seed"]).all()
    ratio = calibrate(share, ceiling)
    assert ratio.value == pytest.approx(share.share.value / ceiling.share.value)
    assert ratio.value == pytest.approx(kept / 30, abs=0.1)
    assert ratio.low <= kept / 30 <= ratio.high < ratio.low + 0.3


def test_an_impossible_ratio_is_not_a_number():
    rng = np.random.default_rng(4)
    strangers = [csr(sparse_features(N, 10, 0.04, rng)) for _ in range(2)]
    c = over_pairs(strangers, **draws(rng))
    assert c.share.value == 0
    assert np.isnan(list(calibrate(c, c).named("x").values())).all()


def test_single_autoencoders_are_compared_though_their_seed_is_equal():
    rng = np.random.default_rng(5)
    truth = sparse_features(N, 20, 0.04, rng)
    one = over_pairs([csr(truth)], [csr(truth)], **draws(rng)).share
    assert (one.value, one.low, one.high) == (1, 1, 1)


def chain(r: list[float], counts: list[int]):
    d = len(r)
    return assign_fates(np.diag(np.array(r, "f4")), np.array(counts), np.full(d, 100))


def test_shares_by_threshold_by_hand():
    fates = chain([0.55, 0.72, 0.83, 0.97, 0.99], [50, 50, 50, 50, 3])
    table = persistence_by_threshold(fates)
    np.testing.assert_allclose(table["threshold"], THRESHOLDS)
    expected = [1, 1, 0.75, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert table["persist"].tolist() == expected
    at = table.loc[np.isclose(table["threshold"], 0.8), "persist"].item()
    assert at == fates.persist


def test_shares_by_group_by_hand():
    fates = chain([0.9, 0.9, 0.1, 0.9, 0.2, 0.95], [50, 50, 50, 2, 50, 0])
    table = persistence_by(fates, ["a", "a", "a", "a", "b", "c"]).set_index("group")
    assert table.loc["a", ["features", "testable", "persists"]].tolist() == [4, 3, 2]
    assert table.loc["b", ["features", "testable", "persists"]].tolist() == [1, 1, 0]
    assert np.isnan(table.loc["c", "share"])
    expected = proportion(2, 3).named("share")
    assert table.loc["a", ["share", "low", "high"]].tolist() == list(expected.values())


def test_density_bins_hold_the_densities_they_name():
    counts = np.array([0, 1, 9, 10, 31, 32, 100, 999, 1000])
    bins = density_bins(counts, 1000)
    assert pd.isna(bins[0])
    assert bins.ordered
    for count, label in zip(counts[1:], list(bins)[1:], strict=True):
        low, high = map(float, re.split(r"(?<!e)-", label))
        assert low * 0.98 <= count / 1000 <= high * 1.02
    assert list(bins.codes[1:]) == sorted(bins.codes[1:])
    table = persistence_by(chain([0.9] * 9, counts.tolist()), bins)
    assert table["features"].sum() == 8  # the silent feature has no density


def test_the_steps_of_a_family_are_summed_up_as_each_by_itself():
    rng = np.random.default_rng(10)
    truth = sparse_features(N, 20, 0.04, rng)
    matrices = {m: [find(truth, 14, rng) for _ in range(2)] for m in PARENTS}
    common = draws(rng) | {"rule": Rule(0.7, 20)}
    own = {m: over_pairs(matrices[m], **common) for m in matrices}
    crossed = {(a, b): over_pairs(matrices[a], matrices[b], **common) for a, b in PAIRS}
    steps = summarize_steps(matrices, own, crossed, DOCUMENTS, rng, common["rule"])
    assert list(zip(steps["parent"], steps["child"], strict=True)) == list(PAIRS)
    metrics, flows = step_metrics(steps), count_flows(own, crossed)
    for row in steps.itertuples():
        pair = (row.parent, row.child)
        assert row.calibrated == row.persist / row.ceiling
        assert row.persist_low == crossed[pair].share.low
        assert row.ceiling_high == own[row.parent].share.high
        assert row.null == 0
        for key in METRICS:
            assert metrics[f"match.{row.parent}.{row.child}.{key}"] == getattr(row, key)
        counts = flows[(flows["parent"] == row.parent) & (flows["child"] == row.child)]
        counts = counts.set_index("fate")["count"]
        assert counts[["persists", "disappears", "untestable"]].sum() == 20
        assert counts["persists"] == crossed[pair].pairs["persists"].mean()
    assert len(metrics) == len(PAIRS) * (len(METRICS) + 1)
