"""Decoder rows against scipy and by construction."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from featlib.matching.directions import LEADING, partner_cosines, pwmcc, subspace_overlap


def rows(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def test_cosines_are_those_of_the_partners():
    a, b, best = rows(5, 4, 0), rows(3, 4, 1), np.array([2, 0, -1, 1, 2])
    found = partner_cosines(a, b, best)
    for i, j in enumerate(best):
        cosine = a[i] @ b[j] / np.linalg.norm(a[i]) / np.linalg.norm(b[j])
        assert np.isnan(found[i]) if j < 0 else found[i] == pytest.approx(cosine)


def test_pwmcc_is_the_best_of_all_pairings():
    a, b = rows(5, 3, 2), rows(5, 3, 3)
    cosine = (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    every = [cosine[range(5), list(order)].mean() for order in itertools.permutations(range(5))]
    assert pwmcc(a, b) == pytest.approx(max(every))
    assert pwmcc(a, a[[3, 1, 4, 0, 2]] * 7) == pytest.approx(1)


def test_overlap_is_scipy_s_principal_angles():
    a, b = rows(40, 32, 4), rows(30, 32, 5)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    leading = [np.linalg.svd(x)[2][: int(LEADING * 32)].T for x in unit]
    expected = np.mean(np.cos(subspace_angles(*leading)) ** 2)
    assert subspace_overlap(a, b) == pytest.approx(expected)


def test_one_subspace_under_two_bases_overlaps_wholly_and_random_ones_by_chance():
    plane = rows(8, 64, 6)  # unstable features: other directions, the same span
    mixed = [rows(50, 8, seed) @ plane for seed in (7, 8)]
    assert subspace_overlap(*mixed) == pytest.approx(1)
    chance = [subspace_overlap(rows(8, 64, 2 * i), rows(8, 64, 2 * i + 1)) for i in range(50)]
    assert np.mean(chance) == pytest.approx(LEADING, abs=0.02)
    assert np.isnan(subspace_overlap(rows(7, 64, 0), rows(50, 64, 1)))
