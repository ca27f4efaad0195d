"""Charts of the cases: valid, offline, fit a telephone, and say what the tables say."""

from __future__ import annotations

import json
import re

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert

from featlib import FeatlibError
from featlib.family import DOMAIN_COLORS, DOMAIN_NAMES, MODEL_COLORS, MODELS, PRINT_NAMES
from featlib.show import case_charts
from featlib.show.figure import (
    chart_spec,
    set_width,
    theme,
)


def spans(table: pd.DataFrame, *values: str) -> pd.DataFrame:
    for n, value in enumerate(values):
        table[value] = np.linspace(0.2, 0.9 - n / 10, len(table))
        table[f"{value}_low"], table[f"{value}_high"] = table[value] - 0.05, table[value] + 0.05
    return table


def product(**columns: list) -> pd.DataFrame:
    return pd.MultiIndex.from_product(list(columns.values()), names=list(columns)).to_frame(False)


def fates() -> pd.DataFrame:
    table = product(model=list(MODELS), route=["labels", "correlation", "transfer"])
    table["again"], table["r"] = False, 0.5
    extra = table[table["model"] == "base"].assign(again=True)
    return spans(pd.concat([table, extra], ignore_index=True), "f1", "effect")


def every_chart() -> dict[str, alt.TopLevelMixin]:
    detectors = product(model=list(MODELS), detector=list(case_charts.DETECTORS))
    labels = product(model=list(MODELS), label=["exception_header", "exception_type"])
    effects = product(
        model=list(MODELS), who=["feature", "random", "difference"],
        region=["at", "labelled", "after", "elsewhere", "firing"],
    )  # fmt: skip
    effects = spans(effects, "delta").rename(columns={"delta_low": "low", "delta_high": "high"})
    steered = product(model=list(MODELS), who=["feature", "random"], dose=[0.0, 1.0, 2.0])
    steered = spans(steered, "probability")
    steered = steered.rename(columns={"probability_low": "low", "probability_high": "high"})
    followed = product(x=[0.0, 0.5, 1.0], route=["transfer", "labels"])
    accuracy = product(t=[0.0, 0.5, 1.0], domain=["python", "lua", "tinystories"])
    along = product(model=["lua", "tinystories"], x=[0.0, 0.5, 1.0], route=["transfer", "labels"])
    return {
        "detectors": case_charts.detector_dots(spans(detectors, "f1")),
        "labels": case_charts.label_dots(spans(labels, "f1")),
        "routes": case_charts.route_dots(fates()),
        "ablation": case_charts.ablation_dots(effects),
        "steering": case_charts.steering_lines(steered),
        "dose": case_charts.dose_response(
            spans(followed, "f1", "effect"), accuracy.assign(accuracy=0.3), t=0.58
        ),
        "fading": case_charts.fading(spans(along, "f1", "effect")),
    }


CHARTS = every_chart()


@pytest.mark.parametrize("name", CHARTS)
def test_chart_is_valid_and_draws_offline(name):
    spec = chart_spec(CHARTS[name])
    json.dumps(spec, allow_nan=False)
    for width in (340, 700):
        svg = vl_convert.vegalite_to_svg(
            set_width(spec, width), config=theme("dark"), allowed_base_urls=[]
        )
        assert not re.search("NaN|undefined|Infinity", svg)
        assert float(re.search(r'width="([\d.]+)"', svg).group(1)) <= width * 1.035


def test_the_ceiling_stands_beside_the_model_it_belongs_to():
    svg = vl_convert.vegalite_to_svg(
        set_width(chart_spec(CHARTS["routes"]), 700), config=theme("light"), allowed_base_urls=[]
    )
    names = re.findall(r">((?:BabyPython|Lua|TinyStories|again)[^<]*)<", svg)
    assert names[:4] == ["BabyPython", "BabyPython", "again", "Lua"]
    assert set(PRINT_NAMES.values()) <= set(names)


def test_fading_follows_the_transferred_feature_only():
    tables = chart_spec(CHARTS["fading"])["datasets"].values()
    assert {row["route"] for rows in tables for row in rows} == {"transfer"}


def scales(spec, channel):
    """The scale of one channel wherever it stands in a specification."""
    if isinstance(spec, dict):
        found = spec.get("encoding", {}).get(channel, {})
        if "scale" in found:
            yield found["scale"]
    for part in spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ():
        yield from scales(part, channel)


@pytest.mark.parametrize("name", CHARTS)
def test_a_model_has_its_own_colour_and_nothing_else_has_it(name):
    known = {PRINT_NAMES[m]: MODEL_COLORS[m] for m in MODELS}
    allowed = known | {DOMAIN_NAMES[d]: DOMAIN_COLORS[d] for d in DOMAIN_NAMES}
    seen = [
        pair
        for scale in scales(chart_spec(CHARTS[name]), "color")
        for pair in zip(scale["domain"], scale["range"], strict=True)
    ]
    assert seen
    for what, colour in seen:
        if what in allowed:
            assert colour == allowed[what]
        else:  # the route that is followed in the merge is drawn as the merge
            assert colour not in known.values() or (name, what) == ("dose", "transfer"), what


def test_what_ablating_costs_is_on_one_scale_everywhere():
    domains = [s["domain"] for s in scales(chart_spec(CHARTS["ablation"]), "x")]
    assert len(domains) >= 6 and all(d == domains[0] for d in domains)
    assert domains[0][0] < 0 < domains[0][1]


def test_steering_starts_at_no_change_and_the_feature_is_solid():
    spec = chart_spec(CHARTS["steering"])
    rows = [row for table in spec["datasets"].values() for row in table]
    assert {row["points"] for row in rows if row["dose"] == 0} == {0}
    assert all(
        row["points"] == pytest.approx(100 * (row["probability"] - rest["probability"]), abs=1e-3)
        for row in rows
        for rest in rows
        if (rest["model"], rest["who"], rest["dose"]) == (row["model"], row["who"], 0)
    )
    dash = next(iter(scales(spec, "strokeDash")))
    assert dict(zip(dash["domain"], dash["range"], strict=True))["the feature"] == [1, 0]


def test_charts_refuse_what_they_cannot_draw():
    with pytest.raises(FeatlibError, match=r"route_dots.*lacks.*'r'"):
        case_charts.route_dots(fates().drop(columns="r"))
