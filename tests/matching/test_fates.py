"""Matches and fates: planted permutations, brute force, and counts that must add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from planted import csr, even_documents, sparse_features

from featlib.estimate import document_weights
from featlib.matching import fates as matching
from featlib.matching.fates import Rule, assign_fates, compare
from featlib.matching.resampling import resampled_matches

SMALL_R = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
    elements=st.floats(-1, 1, width=32),
)


@pytest.fixture(autouse=True, scope="module")
def small_parts():
    """No result may depend on how many rows are searched at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "_ROWS", 2)
        yield


def test_a_permuted_copy_matches_as_exactly_that_permutation():
    rng = np.random.default_rng(0)
    x = sparse_features(3000, 40, 0.05, rng)
    order = rng.permutation(40)
    a, b = csr(x), csr(x[:, order])  # child j is parent order[j]
    fates = compare(a, b)
    assert order[fates.parents["best"]].tolist() == list(range(40))
    np.testing.assert_allclose(fates.parents["r"], 1, atol=1e-6)
    assert fates.parents["mutual"].all()
    assert (fates.parents["fate"] == "persists").all()
    assert (fates.children["fate"] == "persists").all()
    assert fates.persist == fates.testable_share == 1
    assert fates.emerge == 0
    weights = document_weights(even_documents(3000, 100), 50, rng)
    assert resampled_matches(a, b, even_documents(3000, 100), fates, weights).all()


@given(SMALL_R)
def test_best_matches_equal_a_plain_search(r):
    enough = [np.full(d, 99) for d in r.shape]
    fates = assign_fates(r, *enough)
    back = assign_fates(np.ascontiguousarray(r.T), *enough[::-1])
    for i, row in fates.parents.iterrows():
        assert row["r"] == r[i].max()
        if r[i].max() <= 0:
            assert row["best"] == -1
            assert not row["mutual"]
        else:
            assert row["best"] == r[i].argmax()
            assert row["mutual"] == (back.parents["best"][row["best"]] == i)
    exclusive = fates.parents[fates.parents["mutual"]]
    assert exclusive["best"].is_unique, "no feature is used twice"
    same = ["feature", "best", "r", "mutual"]
    assert fates.children[same].equals(back.parents[same])
    assert assign_fates(r.T, *enough[::-1]).parents.equals(back.parents), "a view is as good"


@given(SMALL_R, st.data())
def test_fates_add_up_exactly(r, data):
    counts = [
        np.array(data.draw(st.lists(st.integers(0, 60), min_size=d, max_size=d))) for d in r.shape
    ]
    threshold = data.draw(st.floats(0.1, 1))
    fates = assign_fates(r, *counts, Rule(threshold, 30))
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
    kept = (fates.parents["fate"] == "persists").sum()
    assert fates.persist == kept / tested if tested else np.isnan(fates.persist)
    assert alive == 0 or fates.testable_share == tested / alive
    largest = -np.sort(-r, axis=1)[:, :3]
    np.testing.assert_array_equal(np.take_along_axis(r, fates.candidates, 1), largest)


def test_fates_and_shares_by_hand():
    r = np.array([[0.95, 0.1, 0], [0.1, 0.3, 0.85], [0.2, 0.4, 0.1], [0.99, 0, 0]], dtype="f4")
    fates = assign_fates(r, np.array([50, 50, 50, 5]), np.array([50, 50, 50]))
    assert fates.parents["best"].tolist() == [0, 2, 1, 0], "two parents may share one child"
    assert fates.parents["mutual"].tolist() == [False, True, True, True]
    assert fates.parents["fate"].tolist() == ["persists", "persists", "disappears", "untestable"]
    assert fates.children["best"].tolist() == [3, 2, 1]
    assert fates.children["fate"].tolist() == ["persists", "emerges", "persists"]
    assert (fates.persist, fates.emerge) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert fates.median_r == pytest.approx(0.85)
    assert fates.same_index == 0.5
    assert fates.testable_share == 0.75
    assert fates.testable.tolist() == [True, True, True, False]
    assert fates.persisting.tolist() == [True, True, False, False]
    nothing = assign_fates(r, np.zeros(4, int), np.zeros(3, int))
    shares = (nothing.persist, nothing.emerge, nothing.testable_share)
    assert np.isnan([*shares, nothing.median_r, nothing.same_index]).all()
