"""Tables of the controls, by hand: what is counted, and against which ceiling."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from featlib.controls import tables as ct
from featlib.controls.run import (
    RANDOM,
    ControlRun,
    Nulls,
    Transfers,
    named,
    persisting,
    share_formatting,
)
from featlib.controls.trained import Retrained, Twin, trained_metrics, trained_shares
from featlib.estimate import Estimate
from featlib.family import PAIRS
from featlib.matching.fates import assign_fates


def control_run(**parts) -> ControlRun:
    """A run of which only `parts` are there; chapter 06's shares are made up."""
    columns = ["persist", "ceiling", "calibrated"]
    rows = {
        pair: {
            f"{column}{end}": 0.1 * (i + 1) + 0.01 * k + shift
            for i, column in enumerate(columns)
            for end, shift in (("", 0), ("_low", -0.01), ("_high", 0.01))
        }
        for k, pair in enumerate(PAIRS)
    }
    pairs = pd.DataFrame(rows).T.rename_axis(["parent", "child"])
    fields = dict.fromkeys(ControlRun.__dataclass_fields__) | {"pairs": pairs} | parts
    fields["p"] = SimpleNamespace(threshold=0.8, min_firings=30)
    return ControlRun(**fields)


def fates(r: list[float], counts: list[int] | None = None):
    counts = counts or [50] * len(r)
    return assign_fates(np.diag(np.array(r, "f4")), np.array(counts), np.full(len(r), 100))


def test_every_share_stands_beside_its_parent_s_ceiling():
    c = control_run()
    shown = ct.beside_ceilings(c).set_index(["label", "way"])
    assert len(shown) == 2 * len(PAIRS)
    row = shown.loc[(named("lua", "merged"), ct.CEILING)]
    assert row[["share", "low", "high"]].tolist() == pytest.approx([0.22, 0.21, 0.23])
    table = ct.calibrated_table(c).set_index("step")
    assert table.loc[named("base", "lua")].tolist() == ["10.0%", "20.0%", "0.30 (0.29 to 0.31)"]
    equal = {("base", "lua"): fates([0.9, 0.9, 0.1, 0.1])}
    different = {("base", "lua"): fates([0.1, 0.1, 0.1, 0.1])}
    index = ct.index_table(c, equal, different).iloc[0]
    assert index.tolist() == [named("base", "lua"), "50.0%", "0.0%", "20.0%", "100%", "no match"]


def test_seed_pairs_of_a_parent_stand_in_every_step_from_it():
    one = {"persist_low": 0.0, "persist_high": 1.0}
    table = pd.DataFrame(
        [
            {"parent": "base", "child": "base", "parent_seed": 0, "child_seed": 1, "persist": 0.2},
            {"parent": "base", "child": "base", "parent_seed": 1, "child_seed": 0, "persist": 0.3},
            {"parent": "base", "child": "lua", "parent_seed": 0, "child_seed": 2, "persist": 0.1},
        ]
    ).assign(**one)
    each = ct.every_seed_pair(control_run(), table)
    lua = each[each["label"] == named("base", "lua")].set_index("way")
    assert lua.loc[ct.CEILING, "share"].tolist() == [0.2, 0.3]
    assert lua.loc[ct.CEILING, "seeds"].tolist() == ["0 → 1", "1 → 0"]
    assert lua.loc["matching", "share"] == 0.1
    merged = each[each["label"] == named("base", "merged")]
    assert merged["way"].tolist() == [ct.CEILING] * 2


def test_sparsity_spans_the_seeds_of_a_model():
    table = pd.DataFrame(
        {
            "model": ["base", "base", "lua"],
            "own_l0": [15.9, 16.2, 16.0],
            "own_fvu": [0.101, 0.1014, 0.2],
            "l0": [16.0, 16.02, 17.0],
        }
    )
    shown = ct.sparsity_table(table).set_index("model")
    assert shown.loc["BabyPython"].tolist() == ["15.9 to 16.2", "16.0", "0.101"]
    assert shown.loc["Lua", "L0, common text"] == "17.0"


def null_result() -> Nulls:
    rows = [
        *[(RANDOM, "base", "lua", True, 2**i, 0.9 if i > 5 else 0.1) for i in range(10)] * 20,
        *[("documents permuted", "lua", "merged", True, 100, 0.1)] * 20,
        *[("documents permuted", "base", "lua", False, 0, 0.9)] * 20,
    ]
    found = pd.DataFrame(rows, columns=["null", "parent", "child", "whole", "firings", "r"])
    found["passes"] = found["r"] >= 0.8
    by = found[found["whole"]].groupby(["null", "parent", "child"], sort=False)["passes"].mean()
    return Nulls(found, by, np.zeros(3, bool))


def test_nulls_are_binned_by_firings_and_silent_features_left_out():
    result = null_result()
    assert (result.shuffled, result.random) == (0, pytest.approx(0.4))
    table = result.by_firings()
    random = table[table["null"] == RANDOM].set_index("firings")
    assert random.loc[32.0, "share"] == 0 and random.loc[64.0, "share"] == 1
    assert (random["features"] == 20).all() and len(random) == 10
    assert table[table["null"] == "documents permuted"]["firings"].tolist() == [64.0]
    assert result.by_firings(least=21).empty
    neurons = {("base", "lua"): 0.7, ("lua", "merged"): 0.9}
    shown = ct.null_table(result, neurons).set_index("step")
    assert shown.loc[named("base", "lua"), RANDOM] == "40.00%"
    assert shown.loc[named("lua", "merged"), RANDOM] == ""
    assert shown.loc[named("lua", "merged"), "documents permuted"] == "0.00%"


def test_transfer_and_matching_are_counted_over_testable_features():
    matched = fates([0.9, 0.9, 0.1, 0.1, 0.9], [50, 50, 50, 50, 3])
    kept = fates([0.9, 0.1, 0.9, 0.9, 0.9], [50, 50, 50, 50, 50])
    assert ct.both_ways(matched, kept) == (3, 2, 1)
    assert persisting(matched, kept).tolist() == [True] * 5
    assert persisting(matched).tolist() == [True, True, False, False, False]
    about = np.array(["punctuation", "word", "whitespace", np.nan, "word"], dtype=object)
    share = share_formatting(about, persisting(matched))
    assert share.value == 0.5 and share.low < 0.5 < share.high
    assert share_formatting(about, np.array([1, 0, 1, 0, 0], bool)).value == 1


def test_recovered_features_are_listed_by_who_had_kept_them():
    kept_by = pd.Categorical(["none", "none", "lua+tinystories", "lua"])
    followed = pd.DataFrame({"kept_by": kept_by, "in_merged": [True, False, True, False]})
    table = ct.recovered_table(followed).set_index("kept by")
    assert table.loc["neither", ["features", "in LuaStories", "share"]].tolist() == [2, 1, 0.5]
    assert table.loc["Lua and TinyStories", "in LuaStories"] == 1
    assert table.loc["Lua", "share"] == 0
    assert ct.list_models("tinystories") == "TinyStories"


def test_groups_are_sorted_by_size_unless_they_have_an_order():
    compared = {"matching": fates([0.9] * 3 + [0.1] * 9)}
    table = ct.by_group(compared, ["rare"] * 5 + ["often"] * 6 + ["lone"])
    assert table["label"].tolist() == ["often", "rare"]
    assert table.set_index("label").loc["rare", "share"] == pytest.approx(0.6)
    ordered = pd.Categorical(["a"] * 5 + ["b"] * 7, ["a", "b"], ordered=True)
    assert ct.by_group(compared, ordered)["label"].tolist() == ["a", "b"]


def test_shares_of_trained_controls_stand_beside_those_that_train_nothing():
    c = control_run()
    moved = Transfers({}, {pair: Estimate(0.5, 0.4, 0.6) for pair in PAIRS})
    warm = {("base", "lua"): Retrained(Estimate(0.6, 0.5, 0.7), 0.8, 3.0)}
    twin = Twin(Estimate(0.15, 0.1, 0.2), 0.05, 9.0)
    other = {"lua": Retrained(Estimate(0.12, 0.1, 0.14), 0.0, 1.0)}
    table = trained_shares(c, moved, twin, other, warm)
    assert table.loc[table["label"] == "BabyPython → its twin", "way"].tolist() == [
        "ceiling: other model", ct.CEILING, "neurons",
    ]  # fmt: skip
    step = table[table["label"] == named("base", "lua")].set_index("way")["share"]
    assert step.to_dict() == pytest.approx(
        {
            "warm start": 0.6,
            "ceiling: other text": 0.12,
            "matching": 0.1,
            ct.CEILING: 0.2,
            "transfer": 0.5,
        }
    )
    alone = trained_shares(c, moved, None, other, {})
    assert set(alone["way"]) == {"ceiling: other text", "matching", ct.CEILING, "transfer"}
    metrics = trained_metrics(twin, other, warm)
    assert metrics["control.text.lua.persist_high"] == 0.14
    assert metrics["control.twin.persist_low"] == 0.1 and metrics["warm.base.lua.persist"] == 0.6
    assert trained_metrics(None, {}, {}) == {}
    assert trained_shares(c, moved, None, {}, {}).empty


def test_metrics_leave_out_what_is_not_defined():
    followed = pd.DataFrame({"kept_by": ["none", "lua"], "recovered": [True, False]})
    kinds = {"everything": Estimate(0.3), "survivors": Estimate(float("nan"))}
    moved = Transfers({}, {("base", "lua"): Estimate(0.5, 0.4, 0.6)})
    found = ct.control_metrics(moved, {("base", "lua"): 0.7}, null_result(), followed, kinds, 0.4)
    assert found["transfer.base.lua.persist_high"] == 0.6
    assert found["control.recovered.features"] == found["control.recovered.by_neither"] == 1
    assert found["control.recovered.testable"] == 2
    assert "control.formatting.survivors" not in found
    assert all(np.isfinite(value) for value in found.values())
