"""Sentences of chapter 11 turn where their numbers do."""

from __future__ import annotations

import pandas as pd
import pytest

from featlib.claims import StepShares
from featlib.controls import text as say
from featlib.controls.tables import plants_table
from featlib.estimate import Estimate

NAN = float("nan")


def sparsity(ratio: float) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "model": ["base", "lua"],
            "own_l0": [16.0, 17.6],
            "own_fvu": [0.1, 0.2],
            "l0": [16, 16 * ratio],
            "ratio": [1, ratio],
            "equal": [True, ratio <= 1.1],
        }
    )


def test_equal_sparsity_is_said_only_where_it_holds():
    assert "6% between the 2 autoencoders, within the 10%" in say.say_sparsity(sparsity(1.06))
    said = say.say_sparsity(sparsity(1.3))
    assert "30%" in said and "more than the 10%" in said and "within" not in said
    assert "differs by 10%" in said and "0.10 and 0.20" in said


def test_nulls_are_called_what_they_are():
    few = Estimate(0.9, 0.8, 0.95)
    said = say.say_nulls(0.0, 0.04, 187, 82, few, "`↵` (70 of 87)")
    assert "no feature passes" in said and "pass for 4.0%" in said
    assert "90% are about punctuation" in said and "`↵` (70 of 87)" in said
    assert "Of the 187 features with a match in Lua, 82" in said
    assert "0.20% of the features pass at most" in say.say_nulls(0.002, 0.04, 1, 0, few, "x")
    nothing = say.say_nulls(0.0, 0.0, 187, 0, Estimate(NAN), "")
    assert "needs nothing learned" not in nothing and nothing.endswith("BabyPython's features.")


@pytest.mark.parametrize(
    "kept, matched, both, words, absent",
    [
        (300, 100, 80, "220 features stayed in the model", "same 80"),
        (300, 100, 80, "20 have a match though their own encoder", "same 80"),
        (300, 80, 80, "described them otherwise.", "lost sight"),
        (80, 80, 80, "The two ways name the same 80", "stayed in the model"),
        (80, 100, 80, "do not name the same", "stayed in the model"),
    ],
)
def test_transfer_beside_matching(kept, matched, both, words, absent):
    said = say.say_transfer(kept, matched, both)
    assert words in said and absent not in said


def followed(kept_by: list[str], merged: list[bool], worst: list[float]) -> pd.DataFrame:
    table = pd.DataFrame({"kept_by": kept_by, "in_merged": merged, "r_lua": worst})
    both = table["kept_by"] == "lua+tinystories"
    return table.assign(r_tinystories=0.99, recovered=table["in_merged"] & ~both)


MOVES = {"lua": 5.0, "tinystories": 6.0, "merged": 3.0, "cosine": 0.1}


def test_recovered_features_are_counted_by_who_had_kept_them():
    table = followed(
        ["lua", "tinystories", "tinystories", "none", "lua+tinystories", "none"],
        [True, True, True, True, True, False],
        [0.7, 0.7, 0.7, 0.7, 0.9, 0.2],
    )
    said = say.say_recovered(table, MOVES, 0.8)
    assert "4 of 6 testable features" in said
    assert "1 that Lua alone had kept, 2 that TinyStories alone had kept, and 1 that both" in said
    assert "more than choosing" in said and "nearer than either child" in said
    assert "largely different directions (cosine 0.10)" in said
    assert "median r of 0.70, those lost for good 0.20: what came back" in said
    said = say.say_recovered(table, MOVES | {"merged": 5.5, "cosine": 0.9}, 0.8)
    assert "not nearer than both" in said and "much the same direction" in said
    no_drift = followed(["lua", "none"], [True, False], [0.2, 0.7])
    assert "by degrees" not in say.say_recovered(no_drift, MOVES, 0.8)
    assert "more than choosing" not in say.say_recovered(no_drift, MOVES, 0.8)
    nobody = say.say_recovered(followed(["none"], [False], [0.1]), MOVES, 0.8)
    assert nobody.startswith("0 of 1") and "weights" not in nobody


def test_formatting_is_judged_against_what_any_dictionary_finds():
    kinds = {
        "everything": Estimate(0.3),
        "survivors": Estimate(0.6, 0.5, 0.7),
        "found_again": Estimate(0.45, 0.4, 0.5),
        "kept_by_transfer": Estimate(0.35, 0.3, 0.4),
    }
    said = say.say_formatting(kinds)
    assert "easier to find again in any model" in said and "60% (50% to 70%)" in said
    said = say.say_formatting(kinds | {"found_again": Estimate(0.31, 0.25, 0.36)})
    assert "the excess is the models' own" in said
    said = say.say_formatting(
        kinds | {"found_again": Estimate(0.31, 0.25, 0.36), "survivors": Estimate(0.3, 0.2, 0.4)}
    )
    assert "neither number shows an excess" in said


@pytest.mark.parametrize(
    "twin, words",
    [
        (Estimate(0.1, 0.08, 0.12), "as an individual"),
        (Estimate(0.3, 0.28, 0.32), "the twin's learned from the same"),
        (Estimate(0.2, 0.17, 0.22), "cannot be told apart"),
    ],
)
def test_the_twin_s_three_verdicts(twin, words):
    child = Estimate(0.2, 0.18, 0.22)
    said = say.say_twin(twin, Estimate(0.4, 0.35, 0.45), child, (0.1, 0.7), 61.4)
    assert words in said and "far more as they were" in said and "took 61 s" in said
    assert "far more" not in say.say_twin(twin, twin, child, (0.6, 0.7), 1)


@pytest.mark.parametrize(
    "other, words",
    [
        (Estimate(0.15, 0.13, 0.17), "50% of the way from the ceiling down to Lua is the text's"),
        (Estimate(0.15, 0.13, 0.17), "and the rest the model's"),
        (Estimate(0.11, 0.09, 0.13), "90% of the way"),
        (Estimate(0.11, 0.09, 0.13), "room for all of it"),
        (Estimate(0.03, 0.02, 0.04), "Lua has more of them than BabyPython itself"),
        (Estimate(0.25, 0.24, 0.26), "0% of the way"),
    ],
)
def test_what_other_text_explains(other, words):
    found = {"Lua": (other, Estimate(0.2, 0.18, 0.22), Estimate(0.1, 0.08, 0.12))}
    said = say.say_other_text(found, 12.3)
    assert words in said and "20% (18% to 22%)" in said and "took 12 s" in said
    assert said.startswith("Read through a dictionary that learned from Lua's text")


def test_a_warm_start_brings_more_or_it_does_not():
    scratch = {"a": 0.1, "b": 0.2}
    kind = {"a": (Estimate(0.5, 0.4, 0.6), 0.8), "b": (Estimate(0.5, 0.4, 0.6), NAN)}
    said = say.say_warm(kind, scratch, 20.2)
    assert "in every step" in said and said.count("own index") == 1 and "took 20 s" in said
    assert "brings nothing" in say.say_warm(
        {k: (Estimate(0.1, 0.05, 0.1), NAN) for k in scratch}, scratch, 1
    )
    mixed = kind | {"b": (Estimate(0.2, 0.1, 0.3), NAN)}
    assert "in 1 of 2 steps" in say.say_warm(mixed, scratch, 1)


def steps(transfer: Estimate) -> StepShares:
    return StepShares(Estimate(0.1), Estimate(0.2), Estimate(0.5, 0.4, 0.6), transfer)


def test_the_loss_is_called_real_only_if_one_dictionary_shows_it():
    real, none = steps(Estimate(0.3, 0.2, 0.4)), steps(Estimate(0.97, 0.95, 0.99))
    merged = Estimate(0.5)
    assert "not all noise" in say.say_verdict({"Lua": real, "TinyStories": real}, merged)
    assert "noise altogether" in say.say_verdict({"Lua": none, "TinyStories": none}, merged)
    plain = say.say_verdict({"Lua": real}, merged)
    assert "changed at all. A share" in plain
    told = say.say_verdict({"Lua": real}, merged, {"Lua": Estimate(0.11)})
    assert "learns from a child's text, 11% for Lua's. A share" in told
    mixed = say.say_verdict({"Lua": none, "TinyStories": real}, merged)
    assert "in every child" in mixed and "97% in Lua and 30% in TinyStories" in mixed
    assert "3% and 70% changed" in mixed and "finds 20% of BabyPython" in mixed


def test_limits_fit_the_run():
    small = say.say_limits(0.2, 192, twin=False)
    assert "ceiling is low" in small and "one small family" in small and "twin" not in small
    paper = say.say_limits(0.4, 512, twin=True)
    assert "ceiling is low" not in paper and "of the paper's size" in paper
    assert "and, for BabyPython, one twin" in paper
    assert "larger than the paper's" in say.say_limits(0.4, 768, twin=False)


def test_the_crosscoder_s_shares_are_said_step_by_step():
    kinds = pd.DataFrame({"shared": [0.6], "parent only": [0.1]}, index=["BabyPython → Lua"])
    fvu = {"base": 0.3, "lua": 0.2}
    said = say.say_crosscoder({"shared": 0.5}, kinds, fvu, {"base": 0.2, "lua": 0.1}, 16.02, 44.4)
    assert "20% to 30%" in said and "10% to 20%: a common list costs something" in said
    assert "50% are shared by all four, 0% are exclusive" in said and "16.0 features" in said
    assert "BabyPython → Lua 60% shared, 10% the parent's alone, 0% the child's alone" in said
    assert "costs" not in say.say_crosscoder({}, kinds, fvu, {"base": 0.4, "lua": 0.1}, 16, 1)


@pytest.mark.parametrize(
    "exclusive, invented, words",
    [
        ((0, 1, 4), 0, ("misses much", "lower bound, and it makes no exclusive feature up")),
        ((0, 5, 11), 0, ("from 4 times the average on", "weaker ones escape it, and it makes no")),
        ((0, 11, 12), 2, ("from 2 times the average on", "and it makes exclusive features up")),
        ((11, 12, 12), 0, ("sees nearly all", "and it makes no exclusive")),
    ],
)
def test_planted_features_say_how_far_to_trust_it(exclusive, invented, words):
    rows = [
        row
        for times, n in zip((1, 2, 4), exclusive, strict=True)
        for row in ((times, True, 12, 12, n, 0), (times, False, 12, 11, invented, 9))
    ]
    columns = ["times", "own", "planted", "found", "exclusive", "shared"]
    planted = pd.DataFrame(rows, columns=columns)
    said = say.say_plants(planted)
    assert all(word in said for word in words)
    assert "36 features had been planted in one model only and 36 in all four" in said
    assert f"found 36 and called {sum(exclusive)} of these exclusive" in said
    assert f"found 33 and called 27 of these shared and {3 * invented} exclusive" in said
    table = plants_table(planted)
    assert table.iloc[1].tolist() == ["2 times", "12 of 12", exclusive[1], "11 of 12", 9]
