"""The closing table: words turn where the numbers do."""

from __future__ import annotations

from featlib.claims import (
    LIKELY,
    OPEN,
    SURE,
    Judgement,
    Share,
    StepShares,
    claims_html,
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
    said, numbers, sure = judge_persistence({"Lua": step(), "TinyStories": step()})
    assert sure == SURE and said.startswith("It holds")
    assert "Lua: 5% by matching" in numbers and "12%" in numbers and "45% (40% to 50%)" in numbers
    assert "30% (28% to 32%) by transfer" in numbers
    other = judge_persistence({"Lua": step(), "TinyStories": step(ratio=(0.9, 0.8, 1.1))})
    assert other.sure == LIKELY
    said, _, sure = judge_persistence({"Lua": step(transfer=(0.7, 0.6, 0.8))})
    assert sure == LIKELY and "not most of them" in said
    both = step(ratio=(0.9, 0.8, 1.1), transfer=(0.7, 0.6, 0.8))
    assert judge_persistence({"Lua": both}).sure == OPEN
    near = StepShares(
        Share(0.08, 0.07, 0.1), Share(0.2), Share(0.4, 0.3, 0.5), Share(0.3, 0.2, 0.4)
    )
    assert judge_persistence({"Lua": near}).sure == SURE
    said, numbers, sure = judge_persistence({"Lua": near}, {"Lua": Share(0.1, 0.09, 0.11)})
    assert sure == LIKELY and "learned from other text" in said
    assert "10% (9% to 11%) in the parent itself" in numbers
    assert "learns from Lua's text" in numbers
    _, numbers, _ = judge_persistence({"TinyStories": near}, {"TinyStories": Share(0.1)})
    assert "learns from TinyStories' text" in numbers
    assert judge_persistence({"Lua": near}, {"Lua": Share(0.15, 0.12, 0.18)}).sure == SURE
    unknown = step(ratio=(NAN, NAN, NAN))
    assert judge_persistence({"Lua": unknown}).sure == LIKELY, "no ceiling is no evidence"


def test_the_instrument_s_part_of_the_loss_by_hand():
    said, numbers, sure = judge_loss({"Lua": step(matching=0.2, ceiling=0.4)})
    assert "80% find no match" in numbers and "60% find none" in numbers
    assert "(75% of the loss)" in numbers and "70% change" in numbers
    assert said.startswith("A missing match alone") and sure == SURE
    said, numbers, sure = judge_loss({"Lua": step(matching=0.2, ceiling=0.9)})
    assert said.startswith("Part of it") and "(12% of the loss)" in numbers and sure == LIKELY
    wide = StepShares(Share(0.2), Share(0.4, 0.1, 0.7), Share(0.5), Share(0.3))
    assert judge_loss({"Lua": wide}).sure == LIKELY, "the ceiling may be high after all"


def test_mostly_formatting_needs_a_majority_and_an_excess():
    few, some = Share(0.2), Share(0.2)
    cases = {
        Share(0.7, 0.6, 0.8): ("It holds here too", LIKELY),
        Share(0.4, 0.3, 0.5): ("over-represented", LIKELY),
        Share(0.2, 0.1, 0.3): ("Not seen here", OPEN),
        Share(NAN): ("No feature was matched", OPEN),
    }
    for survivors, (words, sure) in cases.items():
        judged = judge_formatting(few, survivors, some, some)
        assert words in judged.said and judged.sure == sure
        assert "easiest" not in judged.said
    excess = Share(0.7, 0.6, 0.8)
    assert "easiest to find again" in judge_formatting(few, excess, Share(0.6), some).said
    unsure = judge_formatting(few, excess, Share(0.3, 0.15, 0.5), some)
    assert "easiest" not in unsure.said
    assert "no larger than among all" in judge_formatting(Share(0.7), excess, some, some).said


def test_a_null_that_passes_puts_matches_in_doubt():
    said, numbers, sure = judge_matches(0.0004, 0.002, 0.3)
    assert sure == SURE and said.startswith("A match is no accident") and "0.04%" in numbers
    said, numbers, sure = judge_matches(0.0004, 0.045, 0.08)
    assert sure == LIKELY and "need no learned feature" in said and "4.5%" in numbers
    assert judge_matches(0.0004, 0.045, 0.5).sure == SURE, "few beside the real matches"
    assert judge_matches(0.2, 0.3, 0.5).sure == OPEN


def test_equal_seeds_are_found_out():
    assert judge_index(0.5, 0.001, 0.0005).sure == SURE
    assert judge_index(0.002, 0.001, 0.0005).said.startswith("No effect")
    assert judge_index(NAN, 0.1, 0.1).sure == OPEN


def test_the_merge_brings_back_or_does_not():
    into = {"Lua": step(), "TinyStories": step()}
    children = {"Lua": Share(0.26, 0.2, 0.3), "TinyStories": Share(0.32, 0.28, 0.36)}
    said, numbers, sure = judge_merge(into, Share(0.48, 0.4, 0.5), children, 500, 2000)
    assert sure == SURE and said.startswith("It also brings features back")
    assert "of 2,000, 500 that" in numbers and "48% (40% to 50%)" in numbers
    assert "26% (20% to 30%) in Lua" in numbers and "45% (40% to 50%) of what could" in numbers
    close = judge_merge(into, Share(0.34, 0.3, 0.38), children, 500, 2000)
    assert close.said == said and close.sure == LIKELY, "intervals overlap"
    fewer = judge_merge(into, Share(0.3, 0.28, 0.33), children, 50, 2000)
    assert fewer.sure == LIKELY and "some that were lost are back" in fewer.said
    assert judge_merge(into, Share(0.3), children, 0, 2000).said.startswith("It holds")


def test_the_table_has_one_row_a_claim_and_shows_numbers_small():
    table = claims_table({"a": Judgement("b < c", "1", SURE), "d": Judgement("e", "2", OPEN)})
    assert table.to_numpy().tolist() == [["a", "b < c", "1.", SURE], ["d", "e", "2.", OPEN]]
    page = claims_html(table)
    assert page.count("<tr>") == 3 and page.count("<th ") == 3
    assert "<strong>b &lt; c</strong><br><small>1.</small>" in page
