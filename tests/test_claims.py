"""The closing table: words turn where the numbers do."""

from __future__ import annotations

from featlib.claims import (
    LIKELY,
    OPEN,
    SURE,
    Share,
    StepShares,
    claims_table,
    judge_formatting,
    judge_index,
    judge_loss,
    judge_matches,
    judge_merge,
    judge_persistence,
)

NAN = float("nan")


def step(matching=0.05, ceiling=0.12, ratio=(0.45, 0.4, 0.5), transfer=(0.3, 0.28, 0.32)):
    return StepShares(Share(matching), Share(ceiling), Share(*ratio), Share(*transfer))


def test_few_persist_is_sure_only_by_both_measures():
    said, sure = judge_persistence({"Lua": step(), "TinyStories": step()})
    assert sure == SURE and said.startswith("It holds")
    assert "Lua: 5% by matching" in said and "12%" in said and "45% (40% to 50%)" in said
    assert "30% (28% to 32%) by transfer" in said
    assert (
        judge_persistence({"Lua": step(), "TinyStories": step(ratio=(0.9, 0.8, 1.1))})[1] == LIKELY
    )
    said, sure = judge_persistence({"Lua": step(transfer=(0.7, 0.6, 0.8))})
    assert sure == LIKELY and "not most of them" in said
    both = step(ratio=(0.9, 0.8, 1.1), transfer=(0.7, 0.6, 0.8))
    assert judge_persistence({"Lua": both})[1] == OPEN
    unknown = step(ratio=(NAN, NAN, NAN))
    assert judge_persistence({"Lua": unknown})[1] == LIKELY, "no ceiling is no evidence"


def test_the_instrument_s_part_of_the_loss_by_hand():
    said, sure = judge_loss({"Lua": step(matching=0.2, ceiling=0.4)})
    assert "80% find no match" in said and "60% find none" in said
    assert "(75% of the loss)" in said and "70% change" in said
    assert said.startswith("A missing match alone") and sure == SURE
    said, _ = judge_loss({"Lua": step(matching=0.2, ceiling=0.9)})
    assert said.startswith("Part of it") and "(12% of the loss)" in said


def test_mostly_formatting_needs_a_majority_and_an_excess():
    few, some = Share(0.2), Share(0.2)
    cases = {
        Share(0.7, 0.6, 0.8): ("It holds here too", LIKELY),
        Share(0.4, 0.3, 0.5): ("over-represented", LIKELY),
        Share(0.2, 0.1, 0.3): ("Not seen here", OPEN),
        Share(NAN): ("No feature was matched", OPEN),
    }
    for survivors, (words, sure) in cases.items():
        said = judge_formatting(few, survivors, some, some)
        assert words in said[0] and said[1] == sure
        assert "easiest" not in said[0]
    said, _ = judge_formatting(few, Share(0.7, 0.6, 0.8), Share(0.6), some)
    assert "easiest to find again" in said
    said, _ = judge_formatting(Share(0.7), Share(0.7, 0.6, 0.8), some, some)
    assert "no larger than among all" in said


def test_a_null_that_passes_puts_matches_in_doubt():
    said, sure = judge_matches(0.0004, 0.002, 0.3)
    assert sure == SURE and said.startswith("A match is no accident") and "0.04%" in said
    said, sure = judge_matches(0.0004, 0.045, 0.08)
    assert sure == LIKELY and "need no learned feature" in said and "4.5%" in said
    assert judge_matches(0.0004, 0.045, 0.5)[1] == SURE, "few beside the real matches"
    assert judge_matches(0.2, 0.3, 0.5)[1] == OPEN


def test_equal_seeds_are_found_out():
    assert judge_index(0.5, 0.001, 0.0005)[1] == SURE
    assert judge_index(0.002, 0.001, 0.0005)[0].startswith("No effect")
    assert judge_index(NAN, 0.1, 0.1)[1] == OPEN


def test_the_merge_brings_back_or_does_not():
    into = {"Lua": step(), "TinyStories": step()}
    said, sure = judge_merge(into, 0.48, {"Lua": 0.26, "TinyStories": 0.32}, 500, 2000)
    assert sure == SURE and said.startswith("It also brings features back")
    assert "500 of 2,000" in said and "48%" in said and "26% in Lua" in said
    said, sure = judge_merge(into, 0.3, {"Lua": 0.26, "TinyStories": 0.32}, 50, 2000)
    assert sure == LIKELY and said.startswith("No sign")


def test_the_table_has_one_row_a_claim():
    table = claims_table({"a": ("b", SURE), "c": ("d", OPEN)})
    assert table.to_numpy().tolist() == [["a", "b", SURE], ["c", "d", OPEN]]
    assert list(table.columns) == ["claim in the paper", "what our controls say", "how sure"]
