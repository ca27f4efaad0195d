"""What stands of the paper's claims: words turn where the numbers do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featlib.estimate import NAN, Estimate
from featlib.verdicts import CLAIMS, EASY, LIKELY, OPEN, SURE, Findings, Step, judge_claim


def about(value: float, width: float = 0.02) -> Estimate:
    return Estimate(value, value - width, value + width)


STEP = Step(
    about(0.05), ceiling=about(0.2), other_text=about(0.12), transfer=about(0.3), cosine=0.6
)
FINDINGS = Findings(
    steps=[STEP, STEP],
    placebo=about(0.8),
    ends=[about(0.26), about(0.32)],
    merged=about(0.48),
    recovered=500,
    shuffled=0.0004,
    random=0.002,
    matched=0.3,
    formatting={"everything": about(0.2), "survivors": about(0.7), "found_again": about(0.2)},
    same_index={"equal": 0.5, "other": 0.001, "chance": 0.0005},
)


def with_step(**changes: Estimate | float) -> dict:
    """One of the two children has other numbers."""
    return {"steps": [STEP, replace(STEP, **changes)]}


def formatting(**changes: Estimate) -> dict:
    return {"formatting": {**FINDINGS.formatting, **changes}}


def same_index(**changes: float) -> dict:
    return {"same_index": {**FINDINGS.same_index, **changes}}


NEAR, FAR = about(0.06), about(0.5, 0.1)  # a ceiling that is no higher, most of the placebo's


CASES = {
    "few features persist": [
        ({}, "holds", SURE),
        (with_step(other_text=NEAR), "holds by transfer", LIKELY),
        (with_step(other_text=Estimate(NAN)), "holds by transfer", LIKELY),
        (with_step(transfer=FAR), "lost, but not most", LIKELY),
        ({"placebo": about(0.5)}, "lost, but not most", LIKELY),
        (with_step(transfer=FAR, other_text=NEAR), "not settled", OPEN),
    ],
    "no match, no feature": [
        ({}, "most would be missing anyway", SURE),
        (with_step(ceiling=about(0.9)), "holds in part", LIKELY),
        (with_step(ceiling=about(0.3, 0.3)), "holds in part", LIKELY),
    ],
    "features that correlate are the same": [
        ({}, "no accident", SURE),
        ({"random": 0.045, "matched": 0.08}, "some match anything", LIKELY),
        ({"random": 0.045, "matched": 0.5}, "no accident", SURE),
        ({"steps": [replace(STEP, cosine=0.2)]}, "they fire alike and write elsewhere", LIKELY),
        (with_step(cosine=0.2), "no accident", SURE),
        ({"shuffled": 0.2, "random": 0.3}, "some by accident", OPEN),
    ],
    "punctuation and formatting persist": [
        ({}, "holds", LIKELY),
        (formatting(found_again=about(0.6)), f"holds, {EASY}", LIKELY),
        (formatting(found_again=about(0.3, 0.15)), "holds", LIKELY),
        (formatting(survivors=about(0.4)), "more than its part", LIKELY),
        (
            formatting(survivors=about(0.4), found_again=about(0.5)),
            f"more than its part, {EASY}",
            LIKELY,
        ),
        (formatting(everything=about(0.7)), "a majority, as everywhere", LIKELY),
        (formatting(survivors=about(0.2)), "not seen", OPEN),
        (formatting(survivors=Estimate(NAN)), "no match", OPEN),
    ],
    "merging dilutes features": [
        ({}, "brings features back", SURE),
        ({"merged": about(0.34)}, "brings features back", LIKELY),
        ({"merged": about(0.3)}, "holds, but some are back", LIKELY),
        ({"merged": about(0.3), "recovered": 0}, "holds", LIKELY),
    ],
    "one seed serves all autoencoders": [
        ({}, "not harmless", SURE),
        (same_index(equal=0.002), "no effect seen", LIKELY),
        (same_index(other=0.2), "no effect seen", LIKELY),
        (same_index(equal=NAN), "too few matches", OPEN),
    ],
}


@pytest.mark.parametrize(
    "claim, changes, word, sure", [(claim, *row) for claim in CASES for row in CASES[claim]]
)
def test_words_turn_where_the_numbers_do(claim, changes, word, sure):
    assert judge_claim(claim, replace(FINDINGS, **changes)) == (word, sure)


def test_every_word_of_every_claim_can_be_reached():
    for claim, rows in CLAIMS.items():
        assert {row[1:] for row in CASES[claim]} == {row[1:] for row in rows}


def estimates() -> st.SearchStrategy[Estimate]:
    some = st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted)
    measured = some.map(lambda v: Estimate(v[1], v[0], v[2]))
    return st.one_of(measured, st.floats(0, 1).map(Estimate), st.just(Estimate(NAN)))


def findings() -> st.SearchStrategy[Findings]:
    share = st.floats(0, 1) | st.just(NAN)
    step = st.builds(Step, *[estimates()] * 4, share)
    return st.builds(
        Findings,
        steps=st.lists(step, min_size=1, max_size=3),
        ends=st.lists(estimates(), min_size=2, max_size=2),
        placebo=estimates(),
        merged=estimates(),
        recovered=st.integers(0, 9),
        **dict.fromkeys(("shuffled", "random", "matched"), share),
        formatting=st.fixed_dictionaries(dict.fromkeys(FINDINGS.formatting, estimates())),
        same_index=st.fixed_dictionaries(dict.fromkeys(FINDINGS.same_index, share)),
    )


@given(findings())
def test_any_run_has_a_word_for_every_claim(found):
    for claim, rows in CLAIMS.items():
        assert judge_claim(claim, found) in [(word, sure) for _, word, sure in rows]


@given(findings(), st.floats(0.5, 1))
def test_a_share_that_rises_never_makes_a_loss_surer(found, share):
    steps = [replace(step, transfer=Estimate(share, share, share)) for step in found.steps]
    before, after = (
        judge_claim("few features persist", f)[1] for f in (found, replace(found, steps=steps))
    )
    assert [SURE, LIKELY, OPEN].index(after) >= [SURE, LIKELY, OPEN].index(before)
