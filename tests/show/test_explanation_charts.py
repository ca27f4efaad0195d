"""Charts of explanations: bars stand on zero, groups keep their order, text is escaped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from featlib import FeatlibError
from featlib.show import explanation_charts as charts
from featlib.show.figure import chart_spec, figure


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    scores = pd.DataFrame({"group": ["Lua"] * 60 + ["LuaStories"] * 40})
    scores["correlation"] = np.clip(rng.normal(0.6, 0.3, 100), -0.3, 1)
    medians = pd.DataFrame(
        [("LuaStories", 0.6, 0.5, 0.7), ("Lua", 0.5, 0.4, 0.6)],
        columns=["group", "median", "low", "high"],
    )
    return scores, medians


def test_every_feature_is_in_one_bar() -> None:
    scores, medians = tables()
    spec = chart_spec(charts.score_histograms(scores, medians))
    titles = [panel["title"]["text"] for panel in spec["vconcat"]]
    assert titles == ["LuaStories", "Lua"]
    for panel, n in zip(spec["vconcat"], (40, 60), strict=True):
        bars = panel["layer"][0]
        rows = spec["datasets"][bars["data"]["name"]]
        assert sum(row["features"] for row in rows) == n
        assert sum(row["share"] for row in rows) == pytest.approx(1, abs=1e-4)
        assert bars["encoding"]["x"]["bin"] == "binned"  # else bars float at their tops


def test_figures_can_be_drawn() -> None:
    scores, medians = tables()
    some = pd.DataFrame(
        {
            "feature": [1, 2],
            "correlation": [0.5, 0.6],
            "other_correlation": [-0.1, 0.0],
            "frequency_correlation": [0.1, 0.2],
        }
    )
    for chart in (
        charts.score_histograms(scores, medians),
        charts.explained_against_baselines(some),
    ):
        assert "<svg" in figure(chart, name="x", caption="a b c", alt="a b c").html()


def test_dots_lead_to_the_atlas_and_a_bare_wheel_scrolls_the_page() -> None:
    some = pd.DataFrame(
        {
            "model": ["lua", "base"],
            "feature": [7, 12],
            "correlation": [0.5, 0.6],
            "other_correlation": [-0.1, 0.0],
            "frequency_correlation": [0.1, 0.2],
        }
    )
    spec = chart_spec(charts.explained_against_baselines(some))
    rows = [row for table in spec["datasets"].values() for row in table if "feature" in row]
    assert {(row["atlas"], row["feature"]) for row in rows} == {("lua/7", 7), ("base/12", 12)}
    assert len(rows) == 4, "one dot a feature and baseline"
    (zoom,) = (p["select"] for p in spec["params"] if p["name"] == "zoom")
    assert zoom["zoom"] == "wheel![event.shiftKey]"
    assert "atlas" not in str(charts.explained_against_baselines(some.drop(columns="model")).data)


def test_scores_that_are_not_finite_are_refused() -> None:
    bad = pd.DataFrame({"feature": [1], "correlation": [np.nan]})
    with pytest.raises(FeatlibError):
        charts.explained_against_baselines(
            bad.assign(other_correlation=0.0, frequency_correlation=0.0)
        )


def test_an_explanation_is_text() -> None:
    shown = charts.explained_feature(
        "Lua 7", "<b>bold</b> & more", ["<i>"], {"activation": [1.0]}, {"correlation": 0.5}
    )
    assert "<b>" not in shown
    assert "<i>" not in shown
    assert "correlation 0.50" in shown
    led = charts.explained_feature("Lua 7", "x", ["a"], {"y": [1.0]}, {}, link='a.html#lua/7"><b>')
    assert '<a href="a.html#lua/7&quot;&gt;&lt;b&gt;">Lua 7</a>' in led
