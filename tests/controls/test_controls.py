"""Controls by hand: what is counted, beside which ceiling, and what becomes of a third child."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from featlib.controls import tables
from featlib.controls.run import (
    RANDOM,
    ControlRun,
    Nulls,
    Transfers,
    find_recovered,
    persisting,
    read_fates,
    share_formatting,
)
from featlib.controls.trained import beside_others
from featlib.dictionaries.features import feature_activations
from featlib.estimate import NAN, Estimate
from featlib.family import BASE, CHILDREN, MERGE_OF, MERGED, MODELS, PAIRS, STEPS, step_name
from featlib.matching.fates import RULE, assign_fates, compare
from featlib.run import Run

ONE = (BASE, CHILDREN[0])


def control_run(**parts) -> ControlRun:
    """A run of which only `parts` are there; chapter 06's shares are made up."""
    shares = pd.DataFrame(
        {
            f"{kind}{end}": [0.1 * i + 0.01 * k + shift for k in range(len(PAIRS))]
            for i, kind in enumerate(("persist", "ceiling", "calibrated"), 1)
            for end, shift in (("", 0), ("_low", -0.01), ("_high", 0.01))
        },
        index=pd.MultiIndex.from_tuples(PAIRS),
    )
    fields = dict.fromkeys(ControlRun.__dataclass_fields__) | {"pairs": shares} | parts
    fields["p"] = SimpleNamespace(threshold=0.8, min_firings=30, sae_seeds=2)
    return ControlRun(**fields)


def fates(r: list[float], counts: list[int] | None = None):
    counts = counts or [50] * len(r)
    return assign_fates(np.diag(np.array(r, "f4")), np.array(counts), np.full(len(r), 100))


def sparse_features(seed: int, share: float = 0.1):
    rng = np.random.default_rng(seed)
    dense = rng.random((400, 12), dtype=np.float32) * (rng.random((400, 12)) < share)
    return feature_activations(dense)


def test_what_chapter_06_kept_is_what_it_found(tmp_path):
    run = Run("r", tmp_path)
    acts = {m: [sparse_features(9, share=0.5), sparse_features(i)] for i, m in enumerate(MODELS)}
    kept, found = [], {}
    for parent, child in PAIRS:
        found[parent, child] = f = compare(acts[parent][0].matrix, acts[child][1].matrix, RULE)
        for side, table in (("parent", f.parents), ("child", f.children)):
            kept.append(table.assign(parent=parent, child=child, side=side))
    run.save_table("matches", pd.concat(kept, ignore_index=True))
    for pair, read in read_fates(control_run(run=run)).items():
        for side in ("parents", "children"):
            pd.testing.assert_frame_equal(getattr(read, side), getattr(found[pair], side))


def test_every_share_stands_beside_its_parent_s_ceiling():
    c = control_run()
    kinds = {"matching": "persist", tables.CEILING: "ceiling"}
    ways = {way: {pair: c.share(pair, kind) for pair in PAIRS} for way, kind in kinds.items()}
    shown = tables.by_step(ways).set_index(["label", "way"])
    assert len(shown) == 2 * len(PAIRS)
    row = shown.loc[(step_name(*STEPS[2]), tables.CEILING)]
    assert row[["share", "low", "high"]].tolist() == pytest.approx([0.22, 0.21, 0.23])
    trained = beside_others(ways, (Estimate(0.15), 0.05), {ONE: Estimate(0.12)}, {})
    assert trained["label"].nunique() == 2, "the twin, and the one step that was trained for"
    own = trained.loc[trained["label"] == step_name(*ONE), "way"]
    assert own.tolist() == ["matching", tables.CEILING, "ceiling: other text"]
    assert beside_others(ways, None, {}, {}).empty


def test_seed_pairs_of_a_parent_stand_in_every_step_from_it(tmp_path):
    run = Run("r", tmp_path)
    rows = [(BASE, BASE, 0, 1, 0.2), (BASE, BASE, 1, 0, 0.3), (*ONE, 0, 2, 0.1)]
    columns = ["parent", "child", "parent_seed", "child_seed", "persist"]
    table = pd.DataFrame(rows, columns=columns).assign(persist_low=0.0, persist_high=1.0)
    run.save_table("seed_pairs", table)
    each = tables.every_seed_pair(control_run(run=run))
    one = each[each["label"] == step_name(*ONE)].set_index("way")
    assert one.loc[tables.CEILING, "share"].tolist() == [0.2, 0.3]
    assert one.loc[tables.CEILING, "seeds"].tolist() == ["0 → 1", "1 → 0"]
    assert one.loc["matching", "share"] == 0.1
    merged = each[each["label"] == step_name(BASE, MERGED)]
    assert merged["way"].tolist() == [tables.CEILING] * 2


def test_nulls_are_binned_by_firings_and_silent_features_left_out():
    rows = [
        *[(RANDOM, *ONE, True, 2**i, 0.9 if i > 5 else 0.1) for i in range(10)] * 20,
        *[("documents permuted", *STEPS[2], True, 100, 0.1)] * 20,
        *[("documents permuted", *ONE, False, 0, 0.9)] * 20,
    ]
    found = pd.DataFrame(rows, columns=["null", "parent", "child", "whole", "firings", "r"])
    found["passes"] = found["r"] >= 0.8
    by = found[found["whole"]].groupby(["null", "parent", "child"], sort=False)["passes"].mean()
    nothing = Nulls(found, by)
    assert (nothing.shuffled, nothing.random) == (0, pytest.approx(0.4))
    table = nothing.by_firings()
    random = table[table["null"] == RANDOM].set_index("firings")
    assert random.loc[32.0, "share"] == 0 and random.loc[64.0, "share"] == 1
    assert (random["features"] == 20).all() and len(random) == 10
    assert table[table["null"] == "documents permuted"]["firings"].tolist() == [64.0]
    assert nothing.easy(CHILDREN[0]).tolist() == ([False] * 6 + [True] * 4) * 20


def test_a_feature_persists_if_any_comparison_keeps_it():
    matched = fates([0.9, 0.9, 0.1, 0.1, 0.9], [50, 50, 50, 50, 3])
    kept = fates([0.9, 0.1, 0.9, 0.9, 0.9])
    assert persisting(matched, kept).tolist() == [True] * 5
    assert persisting(matched).tolist() == [True, True, False, False, False]
    about = np.array(["punctuation", "word", "whitespace", np.nan, "word"], dtype=object)
    share = share_formatting(about, persisting(matched))
    assert share.value == 0.5 and share.low < 0.5 < share.high
    assert share_formatting(about, np.array([1, 0, 1, 0, 0], bool)).value == 1


def test_features_come_back_in_the_merge_of_two_whatever_other_children_there_are():
    r = {MERGE_OF[0]: [0.9, 0.1, 0.1], MERGE_OF[1]: [0.9, 0.9, 0.1], MERGED: [0.9, 0.9, 0.1]}
    moved = Transfers({(BASE, model): fates(own) for model, own in r.items()}, {})
    acts = {BASE: [feature_activations(np.ones((40, 3), np.float32))]}
    followed = find_recovered(control_run(acts=acts), moved)
    assert followed["recovered"].tolist() == [False, True, False]
    shown = [tables.in_print(kept_by) for kept_by in followed["kept_by"]]
    assert shown == ["Lua and TinyStories", "TinyStories", "neither"]


def test_groups_are_sorted_by_size_unless_they_have_an_order():
    compared = {"matching": fates([0.9] * 3 + [0.1] * 9)}
    table = tables.by_group(compared, ["rare"] * 5 + ["often"] * 6 + ["lone"])
    assert table["label"].tolist() == ["often", "rare"]
    assert table.set_index("label").loc["rare", "share"] == pytest.approx(0.6)
    ordered = pd.Categorical(["a"] * 5 + ["b"] * 7, ["a", "b"], ordered=True)
    assert tables.by_group(compared, ordered)["label"].tolist() == ["a", "b"]


def test_metrics_leave_out_what_is_not_defined():
    followed = pd.DataFrame({"kept_by": ["none", "lua"], "recovered": [True, False]})
    kinds = {"everything": Estimate(0.3), "survivors": Estimate(NAN)}
    found = SimpleNamespace(shuffled=0.0, random=0.1, formatting=kinds)
    moved = Transfers({}, {ONE: Estimate(0.5, 0.4, 0.6)})
    share = {ONE: Estimate(0.12, 0.1, 0.14)}
    kept = tables.control_metrics(
        found, moved, {ONE: 0.7}, followed, (Estimate(0.15), 0.05), share, share
    )
    assert kept["transfer.base.lua.persist_high"] == 0.6
    assert kept["control.recovered.features"] == kept["control.recovered.by_neither"] == 1
    assert kept["control.text.lua.persist_high"] == 0.14 and kept["warm.base.lua.persist"] == 0.12
    assert kept["control.twin.persist"] == 0.15 and "control.twin.persist_low" not in kept
    assert "control.formatting.survivors" not in kept
    bare = tables.control_metrics(found, moved, {}, followed, None, {}, {})
    assert not any("twin" in key or "text" in key or "warm" in key for key in bare)
