"""Matches and fates: planted permutations, brute force, and counts that must add up."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from planted import csr, even_documents, firings, noisy_copy, sparse_features

from featlib import FeatlibError
from featlib.matching import fates as matching
from featlib.matching.correlation import pearson
from featlib.matching.fates import (
    assign_fates,
    best_matches,
    mutual_matches,
    one_to_one,
    persistence_draws,
    persistence_interval,
    summarize_pair,
)
from featlib.matching.intervals import document_weights

SMALL_R = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
    elements=st.floats(-1, 1, width=32),
)


def test_a_permuted_copy_matches_as_exactly_that_permutation():
    rng = np.random.default_rng(0)
    x = sparse_features(3000, 40, 0.05, rng)
    order = rng.permutation(40)
    y = x[:, order]  # child j is parent order[j]
    r = pearson(csr(x), csr(y))
    table = best_matches(r)
    assert order[table["child"]].tolist() == list(range(40))
    np.testing.assert_allclose(table["r"], 1, atol=1e-6)
    assert table["mutual"].all()
    assert (table["second_r"] < 0.2).all()
    for pairs in (mutual_matches(r), one_to_one(r), one_to_one(r, 0.8)):
        assert order[pairs["child"]].tolist() == pairs["parent"].tolist() == list(range(40))
    fates = assign_fates(r, firings(x), firings(y))
    assert (fates.parents["fate"] == "persists").all()
    assert (fates.children["fate"] == "persists").all()
    assert fates.persist == fates.testable == 1
    assert fates.emerge == 0
    interval = persistence_interval(
        csr(x), csr(y), even_documents(3000, 100), fates, n_boot=50, rng=rng
    )
    assert interval == (1, 1)


@given(SMALL_R)
def test_best_matches_equal_a_plain_search(r):
    table = best_matches(r)
    back = best_matches(np.ascontiguousarray(r.T))
    for i, row in table.iterrows():
        assert row["r"] == r[i].max()
        others = np.delete(r[i], r[i].argmax())
        assert row["second_r"] == (others.max() if len(others) else 0)
        if r[i].max() <= 0:
            assert row["child"] == -1
            assert not row["mutual"]
        else:
            assert row["child"] == r[i].argmax()
            assert row["mutual"] == (back["child"][row["child"]] == i)
    assert best_matches(r.T).equals(back)  # a transposed view is as good


@given(SMALL_R, st.floats(0, 1))
def test_mutual_matches_use_no_feature_twice_and_pass_the_threshold(r, threshold):
    pairs = mutual_matches(r, threshold)
    assert pairs["parent"].is_unique
    assert pairs["child"].is_unique
    for parent, child, value in pairs.itertuples(index=False):
        assert value == r[parent, child] == r[parent].max() == r[:, child].max() >= threshold


@settings(deadline=None)
@given(SMALL_R, st.sampled_from([0.0, 0.3, 0.8]))
def test_one_to_one_is_optimal_by_brute_force(r, floor):
    pairs = one_to_one(r, floor)
    assert pairs["parent"].is_unique
    assert pairs["child"].is_unique
    assert (pairs["r"] >= floor).all()
    assert (pairs["r"] > 0).all()
    gain = np.where((r >= floor) & (r > 0), r, 0).astype(np.float64)
    if gain.shape[0] > gain.shape[1]:
        gain = gain.T
    rows = np.arange(len(gain))
    best = max(
        gain[rows, list(p)].sum() for p in itertools.permutations(range(gain.shape[1]), len(rows))
    )
    assert pairs["r"].astype(np.float64).sum() == pytest.approx(best, abs=1e-6)


def test_one_to_one_by_components_equals_the_whole_assignment():
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(1)
    r = np.where(rng.random((80, 70)) < 0.02, rng.uniform(0.5, 1, (80, 70)), 0).astype("f4")
    i, j = linear_sum_assignment(r, maximize=True)
    assert one_to_one(r, 0.5)["r"].sum() == pytest.approx(r[i, j].sum(), rel=1e-6)


@given(SMALL_R, st.data())
def test_fates_add_up_exactly(r, data):
    counts = [
        np.array(data.draw(st.lists(st.integers(0, 60), min_size=d, max_size=d))) for d in r.shape
    ]
    threshold = data.draw(st.floats(0.1, 1))
    fates = assign_fates(r, *counts, threshold=threshold, min_firings=30)
    for table, count, lost, best in (
        (fates.parents, counts[0], "disappears", r.max(1)),
        (fates.children, counts[1], "emerges", r.max(0)),
    ):
        tally = table["fate"].value_counts()
        assert set(tally.index) == {"persists", lost, "untestable"}
        assert tally.sum() == len(count)
        assert tally["untestable"] == (count < 30).sum()
        assert tally["persists"] == ((count >= 30) & (best >= np.float32(threshold))).sum()
        assert table["feature"].tolist() == list(range(len(count)))
        assert table["firings"].tolist() == count.tolist()
    tested = (counts[0] >= 30).sum()
    alive = (counts[0] > 0).sum()
    if tested:
        assert fates.persist == (fates.parents["fate"] == "persists").sum() / tested
    else:
        assert np.isnan(fates.persist)
    assert alive == 0 or fates.testable == tested / alive
    kept = min(3, r.shape[1])
    np.testing.assert_array_equal(
        np.take_along_axis(r, fates.candidates, 1), -np.sort(-r, axis=1)[:, :kept]
    )


def test_several_parents_may_share_one_child():
    r = np.array([[0.9, 0.1], [0.85, 0.2], [0.1, 0.5]], dtype="f4")
    fates = assign_fates(r, np.full(3, 99), np.full(2, 99))
    assert fates.parents["fate"].tolist() == ["persists", "persists", "disappears"]
    assert fates.parents["mutual"].tolist() == [True, False, True]
    assert fates.children["fate"].tolist() == ["persists", "emerges"]
    assert fates.children["best"].tolist() == [0, 2]


def test_more_rows_than_a_block_are_searched_alike(monkeypatch):
    r = np.random.default_rng(2).uniform(-1, 1, (50, 30)).astype("f4")
    whole = best_matches(r)
    monkeypatch.setattr(matching, "_ROWS", 7)
    assert best_matches(r).equals(whole)


def test_a_known_common_share_comes_back_within_its_interval():
    rng = np.random.default_rng(3)
    n, d, common = 12_000, 60, 24  # 40 % are shared
    x = sparse_features(n, d, 0.02, rng)
    y = np.hstack([noisy_copy(x[:, :common], 0.93, rng), sparse_features(n, d - common, 0.02, rng)])
    y = y[:, rng.permutation(d)]
    fates = assign_fates(pearson(csr(x), csr(y)), firings(x), firings(y))
    assert fates.persist == pytest.approx(common / d, abs=0.02)
    assert fates.emerge == pytest.approx(1 - common / d, abs=0.02)
    low, high = persistence_interval(csr(x), csr(y), even_documents(n, 100), fates, rng=rng)
    assert low <= common / d <= high
    assert high - low < 0.1


def test_the_draw_that_takes_each_document_once_is_the_estimate_itself():
    rng = np.random.default_rng(4)
    x = sparse_features(4000, 50, 0.03, rng)
    y = noisy_copy(x, np.linspace(0.6, 1, 50), rng)
    documents = np.sort(rng.integers(0, 40, 4000))
    r = pearson(csr(x), csr(y))
    fates = assign_fates(r, firings(x), firings(y))
    once = np.ones((1, len(np.unique(documents))))
    draws = persistence_draws(csr(x), csr(y), documents, fates, once)
    assert 0.2 < fates.persist < 0.8
    assert draws[0] == fates.persist


def test_a_draw_equals_the_matrix_with_its_documents_repeated():
    rng = np.random.default_rng(5)
    x = sparse_features(3000, 30, 0.05, rng)
    y = noisy_copy(x, np.linspace(0.65, 0.95, 30), rng)
    documents = even_documents(3000, 60)
    fates = assign_fates(pearson(csr(x), csr(y)), firings(x), firings(y))
    weights = document_weights(documents, 5, rng)
    draws = persistence_draws(csr(x), csr(y), documents, fates, weights)
    for weight, draw in zip(weights, draws, strict=True):
        rows = np.repeat(np.arange(3000), weight[documents].astype(int))
        r = pearson(csr(x[rows]), csr(y[rows]))
        tested = (fates.parents["fate"] != "untestable").to_numpy()
        assert draw == pytest.approx((r.max(1)[tested] >= 0.8).mean(), abs=1e-12)
    assert len(set(draws)) > 1


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Whole documents carry the noise, so an interval that took tokens as independent would fail.

    Truth: the share of features whose correlation on endless text passes 0.8. Each document keeps
    or loses a feature as a whole, so correlations waver from text to text.
    """
    n, length, d = 4000, 100, 40
    agreement = np.linspace(0.6, 1.0, d)  # correlation of each feature in the long run
    truth = (agreement >= 0.8).mean()
    hits, widths = 0, []
    repetitions = 40
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        x = sparse_features(n, d, 0.05, rng)
        same = rng.random((n // length, d)) < agreement
        other = sparse_features(n, d, 0.05, rng)
        y = np.where(np.repeat(same, length, axis=0), x, other)
        fates = assign_fates(pearson(csr(x), csr(y)), firings(x), firings(y))
        low, high = persistence_interval(
            csr(x), csr(y), even_documents(n, length), fates, n_boot=100, rng=rng
        )
        hits += low <= truth <= high
        widths.append(high - low)
        assert low <= fates.persist <= high
    assert hits / repetitions >= 0.85
    assert 0.05 < np.mean(widths) < 0.3


def test_the_summary_s_numbers_by_hand():
    r = np.array([[0.95, 0.1, 0], [0.1, 0.3, 0.85], [0.2, 0.4, 0.1], [0.99, 0, 0]], dtype="f4")
    fates = assign_fates(r, np.array([50, 50, 50, 5]), np.array([50, 50, 50]))
    s = summarize_pair(fates, (0.5, 0.8), 0.8)
    assert s["persist"] == pytest.approx(2 / 3)
    assert (s["persist_low"], s["persist_high"]) == (0.5, 0.8)
    assert s["median_r"] == pytest.approx(0.85)
    assert s["same_index"] == 0.5
    assert s["testable"] == 0.75
    assert s["ceiling"] == 0.8
    assert s["calibrated"] == pytest.approx(2 / 3 / 0.8)
    nothing = summarize_pair(assign_fates(r, np.zeros(4, int), np.zeros(3, int)))
    assert all(np.isnan(v) for v in nothing.values())


def test_counts_that_do_not_fit_are_refused():
    with pytest.raises(FeatlibError, match="do not fit 3 parent and 3 child"):
        assign_fates(np.zeros((3, 2), "f4"), np.zeros(3), np.zeros(3))
