"""Controls by hand: what is counted, beside which reference, and what is left out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from featlib.controls import tables
from featlib.controls.run import TO_PLACEBO, ControlRun, find_recovered, share_formatting
from featlib.dictionaries.features import feature_activations
from featlib.estimate import NAN, Estimate, proportion
from featlib.family import BASE, CHILDREN, MERGE_OF, MERGED, PAIRS, STEPS, step_name

ONE = (BASE, CHILDREN[0])


def indexed(rows: list, columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["parent", "child", *columns]).set_index(["parent", "child"])


def control_run(**parts) -> ControlRun:
    """A run of which only `parts` are there."""
    fields = dict.fromkeys(ControlRun.__dataclass_fields__) | parts
    fields["p"] = SimpleNamespace(threshold=0.8, min_firings=30)
    return ControlRun(**fields)


def fires(counts: list[int]):
    """Features that fire on so many of 60 tokens."""
    return feature_activations((np.arange(60)[:, None] < np.array(counts)).astype(np.float32))


def test_every_share_stands_beside_its_ceilings_and_the_placebo():
    kinds = ("persist", "ceiling", "text_ceiling")
    names = [f"{kind}{end}" for kind in kinds for end in ("", "_low", "_high")]
    spread = [0.1 * i + shift for i in range(3) for shift in (0, -0.01, 0.01)]
    pairs = indexed([(*pair, *spread) for pair in PAIRS], names)
    moved = indexed([(*pair, 0.3, 0.2, 0.4) for pair in (*PAIRS, TO_PLACEBO)], names[:3])
    neurons = dict.fromkeys((*PAIRS, TO_PLACEBO), 0.9)
    shares = tables.every_share(control_run(pairs=pairs, transfers=moved), neurons)
    shown = shares.set_index(["label", "way"])[["share", "low", "high"]]
    step = shown.loc[step_name(*STEPS[2])]
    assert step.loc["ceiling: other text"].tolist() == pytest.approx([0.2, 0.19, 0.21])
    assert list(step.index) == [*tables.WAYS, "neurons"]
    placebo = shown.loc[step_name(*TO_PLACEBO)]
    assert placebo["share"].to_dict() == {"transfer": 0.3, "neurons": 0.9}


def test_nulls_are_binned_by_firings_and_silent_features_left_out():
    rows = [(*ONE, 2**i, 0.1, 0.9 if i > 5 else 0.1) for i in range(10)] * 20
    rows += [(*STEPS[2], 0, 0.9, 0.9)] * 40
    matches = indexed(rows, ["firings", "r_shifted", "r_random"])
    table = tables.nulls_by_firings(control_run(matches=matches)).set_index(["null", "firings"])
    assert (table["features"] == 20).all() and len(table) == 20
    assert (table.loc["shifted within documents", "share"] == 0).all()
    random = table.loc["random dictionary", "share"]
    assert random[32.0] == 0 and random[64.0] == 1


def test_features_come_back_in_the_merge_of_two_whatever_other_children_there_are():
    r = {MERGE_OF[0]: [0.9, 0.1, 0.1], MERGE_OF[1]: [0.9, 0.9, 0.1], MERGED: [0.9, 0.9, 0.1]}
    rows = [(BASE, model, own) for model, found in r.items() for own in found]
    c = control_run(base=fires([40, 40, 40]), moved=indexed(rows, ["r"]))
    followed = find_recovered(c)
    assert followed["recovered"].tolist() == [False, True, False]
    shown = [tables.in_print(kept_by) for kept_by in followed["kept_by"]]
    assert shown == ["Lua and TinyStories", "TinyStories", "neither"]


def test_only_testable_features_that_pass_are_kept_and_counted():
    c = control_run(base=fires([50, 50, 50, 50, 3]))
    r = np.array([0.9, 0.9, 0.8, 0.1, 0.9])
    assert c.kept(r).tolist() == [True, True, True, False, False]
    about = np.array(["punctuation", "word", "whitespace", np.nan, "word"], dtype=object)
    assert share_formatting(about, c.kept(r)) == proportion(2, 3)
    curve = tables.by_threshold({("a", "b"): r[c.testable]}).set_index("threshold")["share"]
    assert curve[[0.5, 0.8, 0.85]].tolist() == [0.75, 0.75, 0.5]


def test_groups_are_sorted_by_size():
    c = control_run(base=fires([50] * 11 + [3, 50]))
    ways = {"matching": np.array([0.9] * 3 + [0.1] * 10)}
    table = tables.by_group(c, ways, ["rare"] * 5 + ["often"] * 7 + ["lone"])
    assert table["label"].tolist() == ["often", "rare"]
    assert table["features"].tolist() == [6, 5], "the untestable one does not count"
    row = table.set_index("label").loc["rare", ["share", "low", "high"]]
    assert row.tolist() == list(proportion(3, 5).named("share").values())


def test_metrics_leave_out_what_is_not_defined():
    followed = pd.DataFrame({"kept_by": ["none", "lua"], "recovered": [True, False]})
    kinds = {"everything": Estimate(0.3), "survivors": Estimate(NAN)}
    found = SimpleNamespace(shuffled=0.0, random=0.1, formatting=kinds)
    kept = tables.control_metrics(found, {ONE: 0.7, TO_PLACEBO: 0.9}, followed)
    assert kept["control.recovered.features"] == kept["control.recovered.by_neither"] == 1
    assert kept[f"neurons.{BASE}.{CHILDREN[0]}.persist"] == 0.7
    assert kept["neurons.placebo.persist"] == 0.9
    assert "control.formatting.survivors" not in kept
