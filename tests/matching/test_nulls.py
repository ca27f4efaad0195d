"""Nulls keep what they promise to keep, break the rest, and stay at their stated rate."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from planted import csr, even_documents, firings, noisy_copy, sparse_features

from featlib.matching import nulls
from featlib.matching.fates import compare
from featlib.matching.nulls import random_dictionary, shift_within_documents


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


def test_a_shift_breaks_place_and_keeps_topic():
    """A topic feature fires throughout its documents, and another place there is as good."""
    rng = np.random.default_rng(2)
    documents = even_documents(20_000, 100)
    on = rng.random((200, 40)) < 0.1
    topic = csr(np.repeat(on, 100, axis=0) * rng.uniform(0.9, 1.1, (20_000, 40)))
    place = csr(sparse_features(20_000, 80, 0.02, rng))
    for x, passes in ((topic, 1), (place, 0)):
        assert compare(x, shift_within_documents(x, documents, rng)).persist == passes


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
