"""Numbers in, a word out: one table, and what holds for every table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featlib.estimate import NAN, Estimate
from featlib.verdicts import WORDS, Evidence, half_life, judge_survival


def evidence(f1: float, effect: float = NAN, low: float = NAN) -> Evidence:
    return Evidence(Estimate(f1, f1 - 0.03, f1 + 0.03), Estimate(effect, low, effect + 0.1))


PARENT = evidence(0.96, 0.5, 0.4)
NO_EFFECT = evidence(0.96, 0.01, -0.1)


@pytest.mark.parametrize(
    ("parent", "child", "word"),
    [
        (PARENT, evidence(0.90, 0.40, 0.30), "survives"),
        (PARENT, evidence(0.77, 0.25, 0.01), "survives"),  # keeps just enough of both
        (PARENT, evidence(0.76, 0.40, 0.30), "weakened"),  # detects worse
        (PARENT, evidence(0.90, 0.20, 0.10), "weakened"),  # acts less
        (PARENT, evidence(0.90, 0.30, -0.01), "weakened"),  # may not act at all
        (PARENT, evidence(0.90, 0.00, -0.10), "weakened"),  # detects, but nothing depends on it
        (PARENT, evidence(0.60, 0.02, -0.10), "lost"),  # neither detects well nor acts
        (PARENT, evidence(0.30, 0.40, 0.30), "lost"),  # no longer detects
        (NO_EFFECT, evidence(0.90, 0.00, -1.0), "survives"),  # the F1 alone decides
        (evidence(0.96), evidence(0.90), "survives"),
        (NO_EFFECT, evidence(0.60, 0.00, -1.0), "weakened"),
        (NO_EFFECT, evidence(0.30, 0.40, 0.30), "lost"),
        (evidence(0.31, 0.5, 0.4), evidence(0.96, 0.5, 0.4), "absent"),
    ],
)
def test_a_word_follows_from_the_numbers(parent, child, word):
    found = judge_survival(parent, child)
    assert found.word == word
    if word != "absent":
        assert found.kept_f1 == pytest.approx(child.f1.value / parent.f1.value)
        assert np.isnan(found.kept_effect) == (not parent.effect.low > 0)


shares = st.floats(0, 1)
effects = st.builds(lambda x, width: Estimate(x, x - width), st.floats(-1, 1), shares)
anything = st.builds(Evidence, st.builds(Estimate, shares), effects)


@given(anything, anything, shares)
def test_a_better_child_never_gets_a_worse_word(parent, child, f1):
    word = judge_survival(parent, child).word
    better = Evidence(Estimate(max(f1, child.f1.value)), child.effect)
    assert word in WORDS
    assert WORDS.index(judge_survival(parent, better).word) <= WORDS.index(word)


@given(anything)
def test_what_has_not_changed_is_not_lost(parent):
    assert judge_survival(parent, parent).word in ("survives", "absent")


@pytest.mark.parametrize(
    ("t", "value", "expected"),
    [
        ([0.0, 0.5, 1.0], [8.0, 7.0, 3.0], 0.875),
        ([0.2, 0.4], [8.0, 0.0], 0.1),  # counted from the first point
        ([0.0, 1.0], [8.0, 4.1], NAN),  # never
        ([0.0, 1.0], [-1.0, -2.0], NAN),  # nothing to halve
    ],
)
def test_half_life(t, value, expected):
    assert half_life(t, value) == pytest.approx(expected, nan_ok=True)


def test_the_half_life_of_decay_is_the_textbooks():
    times = np.linspace(0, 5, 1000)
    assert half_life(times, np.exp(-times)) == pytest.approx(np.log(2), abs=1e-3)
