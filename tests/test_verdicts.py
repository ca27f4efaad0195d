"""One test for each word, and sentences that say the numbers that they were given."""

from __future__ import annotations

import numpy as np
import pytest

from featlib import FeatlibError
from featlib.verdicts import (
    Evidence,
    give_reasons,
    half_life,
    judge_survival,
    open_answer,
)

PARENT = Evidence(0.96, 0.94, 0.98, effect=0.50, effect_low=0.40, effect_high=0.60)


def evidence(f1=0.9, effect=0.4, effect_low=0.3, r=float("nan")):
    return Evidence(f1, f1 - 0.03, f1 + 0.03, effect, effect_low, effect + 0.1, r)


def judge(child, parent=PARENT):
    return judge_survival(parent, child, model="Lua", feature="exception feature")


def test_survives():
    verdict = judge(evidence(f1=0.90, effect=0.40, r=0.85))
    assert verdict.word == "survives"
    assert verdict.relative_f1 == pytest.approx(0.9375)
    assert verdict.relative_effect == pytest.approx(0.8)
    assert verdict.sentence == (
        "In Lua the exception feature survives: it detects its label with F1 0.90 (0.87 to 0.93), "
        "94% of the 0.96 in BabyPython, and ablating it costs 0.40 (0.30 to 0.50) nats more than "
        "ablating random features, 80% of the 0.50 in BabyPython. By correlation alone (r = 0.85, "
        "the paper asks for 0.8) it counts as the same feature."
    )


def test_lost():
    assert judge(evidence(f1=0.30)).word == "lost"  # no longer detects
    assert judge(evidence(f1=0.60, effect=0.02, effect_low=-0.1)).word == "lost"  # nor acts
    assert "is lost" in judge(evidence(f1=0.30)).sentence


@pytest.mark.parametrize(
    "child",
    [
        evidence(f1=0.60),  # detects worse
        evidence(f1=0.90, effect=0.20),  # acts less
        evidence(f1=0.90, effect=0.30, effect_low=-0.01),  # may not act at all
        evidence(f1=0.90, effect=0.00, effect_low=-0.10),  # detects, but nothing depends on it
    ],
)
def test_weakened(child):
    verdict = judge(child)
    assert verdict.word == "weakened" and "is weakened" in verdict.sentence
    assert ("cannot be told from none" in verdict.sentence) == (child.effect_low <= 0)


def test_absent():
    weak = Evidence(0.31, 0.20, 0.40)
    verdict = judge(evidence(), parent=weak)
    assert verdict.word == "absent" and np.isnan(verdict.relative_f1)
    assert "no exception feature that could survive in Lua" in verdict.sentence
    assert "0.31 (0.20 to 0.40), below 0.50" in verdict.sentence


def test_without_a_causal_effect_in_the_parent_f1_decides():
    for parent in (Evidence(0.96, 0.94, 0.98), Evidence(0.96, 0.94, 0.98, 0.01, -0.1, 0.1)):
        verdict = judge(evidence(f1=0.9, effect=0.0, effect_low=-1), parent=parent)
        assert verdict.word == "survives" and "F1 alone decides" in verdict.sentence
        assert judge(evidence(f1=0.6), parent=parent).word == "weakened"
        assert judge(evidence(f1=0.3), parent=parent).word == "lost"


def test_a_missing_number_is_an_error():
    with pytest.raises(FeatlibError, match="F1 of exception feature in BabyPython or Lua"):
        judge(Evidence(float("nan"), 0, 0))


def answer(verdicts, **named) -> str:
    return f"{open_answer(verdicts, **named)}\n\n{give_reasons(verdicts)}"


def test_the_answer_follows_from_the_verdicts():
    good, weak, gone = judge(evidence()), judge(evidence(f1=0.6)), judge(evidence(f1=0.1))
    yes = answer({"Lua": good, "LuaStories": good})
    assert yes.startswith("Yes: the feature survives in Lua and LuaStories.\n\n- In Lua the ")
    no = answer({"Lua": gone}, feature="exception feature")
    assert no.startswith("No: the exception feature is lost in Lua.\n\n")
    mixed = answer({"Lua": gone, "TinyStories": good, "LuaStories": weak})
    assert mixed.startswith(
        "In part: the feature survives in TinyStories, is weakened in LuaStories and is lost in "
        "Lua.\n\n"
    )
    assert gone.sentence in mixed and good.sentence in mixed and "keeps 80%" in mixed
    absent = judge(evidence(), parent=Evidence(0.1, 0.0, 0.2))
    assert answer({"Lua": absent}).startswith("The question does not arise.\n\nBabyPython")
    assert answer({"Lua": weak}).startswith("In part: the feature is weakened in Lua.\n\n")
    with pytest.raises(FeatlibError, match="no verdict"):
        answer({})


def test_half_life():
    assert half_life([0.0, 0.5, 1.0], [8.0, 7.0, 3.0]) == pytest.approx(0.875)
    assert half_life([0.2, 0.4], [8.0, 0.0]) == pytest.approx(0.1)
    assert half_life([0.0, 1.0], [8.0, 3.0], start=16.0) == 0.0
    assert np.isnan(half_life([0.0, 1.0], [8.0, 4.1]))
    assert np.isnan(half_life([0.0, 1.0], [-1.0, -2.0]))
    times = np.linspace(0, 5, 1000)
    assert half_life(times, np.exp(-times)) == pytest.approx(np.log(2), abs=1e-3)
    with pytest.raises(FeatlibError, match="ascending"):
        half_life([1.0, 0.0], [1.0, 2.0])
