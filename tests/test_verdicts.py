"""Numbers in, a word out: one table, and what holds for every table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featlib.estimate import Estimate
from featlib.verdicts import (
    NOTHING,
    QUESTIONS,
    UNSURE,
    WORDS,
    YES,
    Numbers,
    certainty,
    judge,
)


def about(value: float, width: float = 0.03) -> Estimate:
    return Estimate(value, value - width, value + width)


@pytest.mark.parametrize(
    ("question", "parent", "child", "word"),
    [
        ("readable", about(0.9), about(0.95), "yes"),
        ("readable", about(0.9), about(0.82), "in part"),  # the low end must clear the bar
        ("readable", about(0.9), about(0.4), "no"),
        ("readable", about(0.52), about(0.95), NOTHING),
        ("found", about(0.9), about(0.9), "yes"),
        ("found", about(0.9), about(0.79), "in part"),
        ("found", about(0.9), about(0.3), "no"),
        ("found", about(0.7), about(0.9), NOTHING),
        ("used", about(0.2), about(0.15), "yes"),
        ("used", about(0.2), about(0.05), "in part"),
        ("used", about(0.2), about(0.01), "no"),
        ("used", about(0.2), about(0.05, 0.3), UNSURE),
        ("used", about(0.02), about(0.3), NOTHING),
        ("concept", about(0.2), about(0.1), "yes"),
        ("concept", about(0.2), about(-0.1), "no"),
        ("concept", about(0.2), about(0.01), UNSURE),
        ("concept", about(0.01), about(0.1), NOTHING),
    ],
)
def test_a_word_follows_from_the_numbers(question, parent, child, word):
    assert judge(question, Numbers(child, parent, labelled=500)) == word
    assert judge(question, Numbers(child, parent, labelled=50)) == UNSURE


ends = st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(sorted)
estimates = ends.map(lambda e: Estimate(e[1], e[0], e[2]))


@given(st.sampled_from(QUESTIONS), estimates, estimates, estimates)
def test_a_better_child_never_gets_a_worse_word(question, parent, one, two):
    ends = [
        sorted(pair)
        for pair in zip((one.value, one.low, one.high), (two.value, two.low, two.high), strict=True)
    ]
    worse, better = (Estimate(*(pair[i] for pair in ends)) for i in (0, 1))
    words = [judge(question, Numbers(child, parent, 500)) for child in (worse, better)]
    if NOTHING in words:
        assert words == [NOTHING, NOTHING], "that is a matter of the parent alone"
    else:
        assert WORDS.index(words[0]) <= WORDS.index(words[1])


@given(st.sampled_from(["found", "used", "concept"]), estimates)
def test_what_has_not_changed_is_not_lost(question, parent):
    assert judge(question, Numbers(parent, parent, 500)) in (YES, "in part", NOTHING)


def test_every_word_has_its_weight():
    assert certainty(YES, 0.95) != certainty(YES, 0.5) == certainty("no", 0.95)
    assert certainty(UNSURE, 0.1) == certainty(NOTHING, 0.1)
