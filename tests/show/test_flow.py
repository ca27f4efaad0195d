"""The flow: to scale, complete, legible; and what can be chosen in a chart is on its list."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from gallery import SHARES, TESTABLE, UNTESTABLE, flows, gallery

from featlib.family import BASE, DOMAIN_NAMES, FAMILY, PRINT_NAMES, STEPS, Model
from featlib.show import flow as drawn
from featlib.show.figure import chart_spec
from featlib.show.picks import match_histogram
from featlib.show.scales import COLORS


def rows(chart: Any, key: str) -> pd.DataFrame:
    tables = chart_spec(chart)["datasets"].values()
    return pd.DataFrame([row for table in tables for row in table if key in row])


def bands(chart: Any) -> pd.DataFrame:
    frame = rows(chart, "band")
    return frame.assign(width=frame["y2"] - frame["y"])


def test_widths_are_to_scale_and_every_feature_is_accounted_for() -> None:
    found = bands(drawn.flow(flows())).groupby("band").first()
    assert np.allclose(found["width"] / found["features"], drawn.LANE / 2000, rtol=1e-4)
    sums = found.groupby(["step", "fate"])["features"].sum()
    for (parent, child), share in SHARES.items():
        pair = sums[f"{parent}>{child}"]
        assert pair.drop("emerges").sum() == pytest.approx(TESTABLE + UNTESTABLE)
        assert pair["persists"] == round(share * TESTABLE)
        assert pair["lost"] + pair["cannot tell"] == TESTABLE - pair["persists"]


def test_means_keep_the_sizes_of_the_models_and_bands_meet() -> None:
    table = flows().assign(children=2048.0)
    table["count"] += np.where(table["fate"] == "emerges", 20.25, -1 / 3)
    chart = drawn.flow(table)
    said = rows(chart, "text")["text"]
    assert set(said[said.str.contains("features")]) == {"1,999 features", "2,048 features"}
    of = bands(chart).set_index(["step", "fate"]).loc[">".join(STEPS[0])]
    assert of.loc["persists", "y2"].iloc[-1] == pytest.approx(of.loc["emerges", "y"].iloc[-1])


def test_shares_are_said_and_labels_keep_apart() -> None:
    words = rows(drawn.flow(flows()), "text")
    said = set(words["text"])
    assert {f"{share:.0%} persist" for share in SHARES.values()} <= said
    # Between two columns no two lines of text may lie on each other, even on a telephone, where
    # the left and the right label of a gap reach across its whole width.
    inside = words[words["style"].isin(["count", "on-colour"]) | words["text"].str.endswith("sist")]
    lane = inside["y"] > drawn.TOP + drawn.LANE + drawn.GAP / 2
    gaps = inside.groupby([inside["x"] > 50, lane])["y"]
    assert len(gaps) == 4
    assert all(np.diff(sorted(heights)).min() >= 10 for _, heights in gaps)


def test_a_third_child_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    new = Model("perl", "Perl", "#f0e442", parents=(BASE,), mix=("perl",))
    for names in (PRINT_NAMES, DOMAIN_NAMES):
        monkeypatch.setitem(names, "perl", "Perl")
    monkeypatch.setitem(COLORS, "Perl", new.color)
    monkeypatch.setattr(drawn, "FAMILY", (*FAMILY[:-1], new, FAMILY[-1]))
    monkeypatch.setattr(drawn, "LANES", (*drawn.LANES, (BASE, "perl")))
    more = flows()[lambda d: d["child"] == STEPS[0][1]].assign(child="perl")
    assert set(rows(drawn.flow(pd.concat([flows(), more])), "band")["to"]) >= {"Perl"}
    boxes = rows(drawn.design_diagram(), "how")
    assert len(boxes) == len(FAMILY) + 1 and boxes["bottom"].max() < drawn.ROW * 2 + 90
    assert rows(drawn.design_diagram(), "arrow")["arrow"].nunique() == len(STEPS) + 1


# --- what can be chosen -----------------------------------------------------------------------


def test_every_mark_that_can_be_chosen_is_among_the_choices() -> None:
    charts = gallery()
    for chart in (charts["flow"], charts["matches"]):
        features, marks = chart_spec(chart)["usermeta"]["features"], rows(chart, "choice")
        marks = marks[marks["choice"] != ""]
        assert len(marks)
        assert set(marks["step"]) <= set(features["steps"])
        assert set(marks["choice"]) <= set(features["choices"])


def test_matches_are_coloured_by_threshold_and_shared_out_once() -> None:
    parent, child = STEPS[0]
    best = pd.DataFrame({"parent": parent, "child": child, "r": [0.1, 0.79, 0.8, 0.95]})
    own = pd.DataFrame({"model": [parent] * 4, "r": [0.9, 0.9, 0.9, 0.1]})
    chart = match_histogram(best, own, threshold=0.8)
    data = rows(chart, "of").query("of == 'best match'")
    assert data.groupby("fate")["features"].sum().to_dict() == {"disappears": 2, "persists": 2}
    assert chart.vconcat[0].title.subtitle == "50% match; ceiling 75%"
    choices = chart_spec(chart)["usermeta"]["features"]["choices"].values()
    for r in (0, 1, 499, 500, 799, 800, 999, 1000):
        assert sum(low <= r < below for low, below in (c["r"] for c in choices)) == 1, r
