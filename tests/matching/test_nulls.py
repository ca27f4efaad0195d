"""Nulls keep what they promise to keep, break the rest, and stay at their stated rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import csr, even_documents, firings, noisy_copy, sparse_features

from featlib.matching import nulls
from featlib.matching.fates import compare
from featlib.matching.nulls import (
    chance_of_match,
    permute_documents,
    random_dictionary,
    shift_within_documents,
)


def numbered(n: int):
    """A matrix whose row t holds t + 1: where rows went can be read off."""
    return csr(np.arange(1, n + 1)[:, None])


def moved(m) -> np.ndarray:
    return m.toarray()[:, 0].astype(int) - 1


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 2**32 - 1))
def test_a_shift_rotates_every_document_and_leaves_no_longer_one_in_place(documents, seed):
    documents = np.array(documents)  # documents may be scattered, as shuffled blocks make them
    n = len(documents)
    source = moved(shift_within_documents(numbered(n), documents, np.random.default_rng(seed)))
    assert (documents[source] == documents).all()
    for g in np.unique(documents):
        own = np.flatnonzero(documents == g).tolist()
        got = source[own].tolist()
        k = own.index(got[0])
        assert got == own[k:] + own[:k]
        assert (k > 0) == (len(own) > 1)


def test_shifts_reach_every_distance():
    rng = np.random.default_rng(0)
    reached = {moved(shift_within_documents(numbered(5), np.zeros(5), rng))[0] for _ in range(100)}
    assert reached == {1, 2, 3, 4}


@given(st.integers(2, 8), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_permutation_moves_every_document_whole(n_documents, length, seed):
    documents = even_documents(n_documents * length, length)
    source = moved(
        permute_documents(numbered(len(documents)), documents, np.random.default_rng(seed))
    )
    blocks = source.reshape(n_documents, length)
    assert sorted(source) == list(range(len(documents)))
    assert (np.diff(blocks, axis=1) == 1).all()
    assert (blocks[:, 0] % length == 0).all()
    assert (documents[source] != documents).all()


def test_a_permutation_of_documents_of_unequal_length_loses_no_token():
    documents = np.array([3, 3, 3, 1, 1, 7])
    source = moved(permute_documents(numbered(6), documents, np.random.default_rng(0)))
    assert sorted(source) == list(range(6))


def test_what_only_documents_share_survives_a_shift_but_no_permutation():
    """A topic feature fires throughout its documents: the two nulls tell place from topic."""
    rng = np.random.default_rng(2)
    documents = even_documents(20_000, 100)
    on = rng.random((200, 40)) < 0.1
    topic = csr(np.repeat(on, 100, axis=0) * rng.uniform(0.9, 1.1, (20_000, 40)))
    place = csr(sparse_features(20_000, 80, 0.02, rng))
    for x, shifted, permuted in ((topic, 1, 0), (place, 0, 0)):
        assert compare(x, x).persist == 1
        assert compare(x, shift_within_documents(x, documents, rng)).persist == shifted
        assert compare(x, permute_documents(x, documents, rng)).persist == permuted


def test_unrelated_features_pass_a_low_threshold_as_often_as_the_normal_null_says():
    """For dense normal samples the rate is `chance_of_match`, candidates included."""
    rng = np.random.default_rng(3)
    for k, d, threshold in ((12, 5, 0.5), (20, 30, 0.6), (30, 200, 0.55)):
        x = rng.normal(size=(1500, d + 1, k))
        x -= x.mean(2, keepdims=True)
        x /= np.linalg.norm(x, axis=2, keepdims=True)
        best = np.einsum("tk,tdk->td", x[:, 0], x[:, 1:]).max(1)
        rate = (best >= threshold).mean()
        assert rate == pytest.approx(chance_of_match(k, d, threshold), abs=0.045)


def test_the_chance_at_the_paper_s_size():
    """Worked out from Student's t with 16,384 candidates: nearly sure at 10, 1 in 1,000 at 30."""
    chance = chance_of_match(np.array([2, 5, 10, 15, 20, 30, 1000]), 16_384, 0.8)
    assert chance[:3] == pytest.approx([1, 1, 1], abs=1e-3)
    assert chance[3] == pytest.approx(0.94, abs=0.01)
    assert chance[4] == pytest.approx(0.17, abs=0.01)
    assert chance[5] == pytest.approx(0.001, abs=0.0005)
    assert chance[6] < 1e-100
    assert (np.diff(chance) <= 0).all()


def test_a_random_dictionary_fires_exactly_as_often_and_along_random_directions(monkeypatch):
    monkeypatch.setattr(nulls, "_BLOCK", 3)
    rng = np.random.default_rng(4)
    x = rng.normal(size=(400, 12)).astype("f4") + 5
    wanted = np.array([0, 1, 7, 50, 399, 400, 1000])
    m = random_dictionary(x, wanted, np.random.default_rng(5))
    assert firings(m).tolist() == [0, 1, 7, 50, 399, 399, 399]
    directions = np.random.default_rng(5).standard_normal((12, 7)).astype("f4")
    along = (x - x.mean(0)) @ (directions / np.linalg.norm(directions, axis=0))
    for j, k in enumerate(wanted[:5]):
        order = np.argsort(-along[:, j])
        column = m.toarray()[:, j]
        assert set(np.flatnonzero(column)) == set(order[:k])
        expected = np.maximum(along[:, j] - along[order[k], j], 0)
        np.testing.assert_allclose(column, expected, atol=1e-4)


def test_a_random_dictionary_shares_little_with_a_planted_one():
    rng = np.random.default_rng(6)
    truth = sparse_features(5000, 48, 0.03, rng)
    x = truth @ rng.normal(size=(48, 32)).astype("f4")
    seen = noisy_copy(truth, 0.98, rng)
    assert compare(csr(truth), csr(seen)).persist == 1
    assert compare(csr(truth), random_dictionary(x, firings(truth), rng)).persist < 0.1
