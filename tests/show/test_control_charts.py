"""Charts of the controls: valid, within a telephone's width, colours and order kept."""

from __future__ import annotations

import json
import re

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert

from featlib import FeatlibError
from featlib.show import control_charts as cc
from featlib.show.figure import chart_spec, set_width, theme


def shares() -> pd.DataFrame:
    rows = [
        (label, way, s, s - 0.03, s + 0.04)
        for label, s in (("BabyPython → Lua", 0.1), ("TinyStories → LuaStories", 0.3))
        for way in ("matching", "ceiling: other seed", "transfer")
    ]
    rows.append(("BabyPython → Lua", "neurons", 0.7, np.nan, np.nan))
    rows.append(("BabyPython → Lua", "warm start", np.nan, np.nan, np.nan))
    return pd.DataFrame(rows, columns=["label", "way", "share", "low", "high"])


def curves() -> pd.DataFrame:
    rows = [
        (label, way, t, 1 - t)
        for label, way in (
            ("BabyPython → Lua", "matching"),
            ("BabyPython → TinyStories", "transfer"),
            ("BabyPython, two seeds", "ceiling: other seed"),
        )
        for t in np.arange(0.5, 0.96, 0.05)
    ]
    return pd.DataFrame(rows, columns=["label", "way", "threshold", "share"])


def null() -> pd.DataFrame:
    rows = [(n, 2.0**i, 100, 0.1 / 2**i) for n in cc.NULL_COLORS for i in range(1, 9)]
    return pd.DataFrame(rows, columns=["null", "firings", "features", "share"])


def kept() -> pd.DataFrame:
    t = np.array([0, 0.25, 0.58, 1])
    table = pd.DataFrame({"t": t, "both": 0.15, "one": 0.2, "none": 0.3 * t * (1 - t)})
    return table.assign(kept=table[["both", "one", "none"]].sum(axis=1))


def norms() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "label": np.repeat(["BabyPython → Lua", "Lua → LuaStories"], 50),
            "relative": rng.random(100),
        }
    )


def kinds() -> pd.DataFrame:
    shares = {"parent only": [0.1, 0.0], "between": 0.3, "shared": [0.5, 0.6], "child only": 0.1}
    steps = pd.Index(["BabyPython → Lua", "Lua → LuaStories"], name="label")
    return pd.DataFrame(shares, index=steps)


def seed_pairs() -> pd.DataFrame:
    rows = [
        ("BabyPython → Lua", way, share, "0 → 1")
        for way in ("matching", "ceiling: other seed")
        for share in (0.08, 0.12)
    ]
    return pd.DataFrame(rows, columns=["label", "way", "share", "seeds"])


CHARTS = {
    "shares": cc.share_dots(shares()),
    "shares with seed pairs": cc.share_dots(shares(), each=seed_pairs()),
    "kinds": cc.kind_bars(kinds()),
    "thresholds": cc.threshold_curves(curves(), threshold=0.8),
    "nulls": cc.null_by_firings(null(), min_firings=30),
    "kept": cc.kept_along_t(kept(), t=0.58),
    "norms": cc.norm_histogram(norms()),
}


@pytest.mark.parametrize("name", CHARTS)
def test_chart_is_valid_and_fits_a_telephone(name):
    spec = chart_spec(CHARTS[name])
    alt.Chart.from_dict(spec)
    json.dumps(spec, allow_nan=False)
    svg = vl_convert.vegalite_to_svg(
        set_width(spec, 340), config=theme("light"), allowed_base_urls=[]
    )
    assert not re.search("NaN|undefined|Infinity", svg)
    assert float(re.search(r'width="([\d.]+)"', svg).group(1)) <= 352


def test_shares_keep_their_order_their_colours_and_no_blank_row():
    data = CHARTS["shares"].data
    assert "warm start" not in set(data["way"])
    assert data.loc[data["way"] == "neurons", ["low", "high"]].to_numpy().tolist() == [[0.7, 0.7]]
    text = json.dumps(CHARTS["shares"].to_dict())
    present = ["matching", "ceiling: other seed", "transfer", "neurons"]
    assert json.dumps([cc.WAY_COLORS[w] for w in present]) in text
    with pytest.raises(FeatlibError, match="no rows"):
        cc.share_dots(shares().assign(share=np.nan))


def test_areas_along_t_stack_to_what_is_kept():
    areas = CHARTS["kept"].layer[0].data
    total = areas.groupby("t")["share"].sum()
    np.testing.assert_allclose(total, kept()["kept"])
    assert list(dict.fromkeys(areas.sort_values("rank")["by"])) == list(cc.KEPT_COLORS)


def test_norms_are_binned_between_parent_and_child():
    table = pd.DataFrame({"label": "a", "relative": [0.0, 0.02, 0.5, 0.52, 1.0]})
    data = cc.norm_histogram(table, step=0.25).data
    assert data["features"].tolist() == [2, 0, 2, 1, 0]
    assert data["relative"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert data["share"].sum() == pytest.approx(1)


def test_every_pair_of_seeds_is_a_tick_under_its_mean():
    ticks = CHARTS["shares with seed pairs"].layer[0]
    assert ticks.mark.type == "tick"
    assert ticks.data["share"].tolist() == seed_pairs()["share"].tolist()
    assert all(layer.mark.type != "tick" for layer in CHARTS["shares"].layer)


def test_kinds_fill_each_bar_in_the_order_of_the_legend():
    data = CHARTS["kinds"].data
    assert data.groupby("label")["share"].sum().tolist() == pytest.approx([1, 1])
    ordered = data.sort_values("rank")["kind"].drop_duplicates().tolist()
    assert ordered == ["parent only", "more in one", "shared", "child only"]
    gap = cc.kind_bars(kinds().assign(shared=np.nan)).data
    assert gap.loc[gap["kind"] == "shared", "share"].tolist() == [0, 0]
