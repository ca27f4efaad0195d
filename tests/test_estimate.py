"""A value with its interval: how it is printed, and that it covers what it should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from featlib import FeatlibError
from featlib.estimate import (
    Estimate,
    bootstrap_estimate,
    document_weights,
    over_trainings,
    percentile_interval,
    proportion,
)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_it_prints_its_value_and_both_ends(a, b, c):
    low, value, high = sorted((a, b, c))
    assert f"{Estimate(value, low, high):.3f}" == f"{value:.3f} ({low:.3f} to {high:.3f})"
    assert str(Estimate(value)) == f"{value:.0%}", "no interval is known"
    assert Estimate(value, low, high).named("x") == {"x": value, "x_low": low, "x_high": high}


def test_weights_draw_as_many_documents_as_there_are():
    documents = np.array([[4, 4, 7], [7, 9, 9]])
    w = document_weights(documents, 500, np.random.default_rng(0))
    assert w.shape == (500, 3)
    assert (w.sum(1) == 3).all()
    np.testing.assert_allclose(w.mean(0), 1, atol=0.15)
    np.testing.assert_allclose(w.var(0), 1 - 1 / 3, atol=0.15)  # a binomial's: draws do differ
    assert (w == document_weights(documents, 500, np.random.default_rng(0))).all()
    with pytest.raises(FeatlibError, match="at least 2 documents"):
        document_weights(np.zeros(5), 10, np.random.default_rng(0))


def test_the_interval_holds_both_the_draws_and_the_value_with_their_spread():
    draws = np.random.default_rng(0).normal(0.3, 0.02, 20_000)
    for value, low, high in (  # draws off the value: from the one's lower end to the other's upper
        (draws.mean(), 0.3 - 0.0392, 0.3 + 0.0392),
        (0.5, 0.3 - 0.0392, 0.5 + 0.0392),
        (0.1, 0.1 - 0.0392, 0.3 + 0.0392),
    ):
        found = bootstrap_estimate(value, draws)
        assert found.value == value
        assert (found.low, found.high) == pytest.approx((low, high), abs=0.002)
    assert bootstrap_estimate(0.99, draws).high == 1
    assert bootstrap_estimate(1.2, draws, upper=np.inf).high > 1.2
    # All draws but one equal: no rounding may push the value out.
    narrow = bootstrap_estimate(0.5, np.array([0.5] * 199 + [0.4]))
    assert (narrow.low, narrow.high) == (0.5, pytest.approx(0.5005))


def test_percentiles_leave_out_what_is_undefined():
    values = np.r_[np.linspace(0, 1, 201), np.nan, np.inf]
    assert percentile_interval(values) == pytest.approx((0.025, 0.975))
    assert all(np.isnan(percentile_interval(np.full(3, np.nan))))


def test_an_interval_over_trainings_is_student_s():
    values = [0.31, 0.29, 0.36, 0.33]
    found, ci = over_trainings(values), stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.value, found.high) == pytest.approx((ci.low, 0.3225, ci.high))
    assert str(over_trainings([0.5])) == "50%", "of one training there is none"


@given(st.integers(0, 50), st.integers(1, 50))
def test_a_proportion_has_wilson_s_interval(k, n):
    k = min(k, n)
    share = proportion(k, n)
    z, p = stats.norm.ppf(0.975), k / n
    centre, half = p + z**2 / 2 / n, z * np.sqrt(p * (1 - p) / n + z**2 / 4 / n**2)
    expected = ((centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n))
    assert (share.low, share.high) == pytest.approx(expected, abs=1e-9)
    assert share.value == p
    assert np.isnan(proportion(0, 0).value)
