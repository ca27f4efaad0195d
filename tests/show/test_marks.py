"""Charts: valid, within a telephone's width, coloured and ordered as everywhere else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert
from gallery import SHARE, every, gallery

from featlib import FeatlibError
from featlib.family import (
    CHILDREN,
    DOMAIN_COLORS,
    DOMAIN_NAMES,
    DOMAINS,
    MODEL_COLORS,
    MODELS,
    PRINT_NAMES,
)
from featlib.show.figure import INK, MUTED, chart_spec, set_width, theme
from featlib.show.hists import binned, hist, hists
from featlib.show.marks import POINTS, areas, averaged, bars, dots, lines
from featlib.show.scales import FATES, Axis, in_order, scale, t_axis

CHARTS = gallery()


def parts(spec: Any, channel: str) -> Iterator[dict[str, Any]]:
    """One channel wherever it stands in a specification."""
    if isinstance(spec, dict) and channel in spec.get("encoding", {}):
        yield spec["encoding"][channel]
    for part in spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ():
        yield from parts(part, channel)


@pytest.mark.parametrize("name", CHARTS)
def test_chart_is_valid_fits_a_telephone_and_keeps_colours_and_order(name: str) -> None:
    spec = chart_spec(CHARTS[name])
    # Altair checks against Vega-Lite's schema when it reads the specification back.
    alt.Chart.from_dict(spec) if "vconcat" not in spec else alt.VConcatChart.from_dict(spec)
    assert not re.search(r"https?://", json.dumps(spec, allow_nan=False))
    for mode in ("light", "dark"):
        svg = vl_convert.vegalite_to_svg(
            set_width(spec, 340), config=theme(mode), allowed_base_urls=[]
        )
        assert not re.search("NaN|undefined|Infinity", svg) and INK[mode] in svg
        width = float(re.search(r'width="([\d.]+)"', svg).group(1))
        assert width <= 352, "a legend or title is wider than the screen"
    known = {PRINT_NAMES[m]: MODEL_COLORS[m] for m in MODELS}
    known |= {DOMAIN_NAMES[d]: DOMAIN_COLORS[d] for d in DOMAINS} | FATES
    for color in parts(spec, "color"):
        names, colors = color["scale"]["domain"], color["scale"]["range"]
        assert names == in_order(reversed(names)) or not set(names) <= set(known)
        assert all(known.get(n, c) == c for n, c in zip(names, colors, strict=True))


def test_one_order_for_all_and_a_look_for_the_unknown() -> None:
    assert in_order([DOMAIN_NAMES[d] for d in reversed(DOMAINS)]) == list(DOMAIN_NAMES.values())
    assert in_order([PRINT_NAMES[m] for m in reversed(MODELS)]) == [PRINT_NAMES[m] for m in MODELS]
    assert in_order(["b", "Lua, again", "a", "Lua"]) == ["Lua", "Lua, again", "b", "a"]
    looks = scale(["Lua", "Lua, again", "b", "a"])
    assert looks.range[0] == looks.range[1] and looks.range[2] != looks.range[3]
    ends = [PRINT_NAMES[m] for m in CHILDREN]
    assert t_axis().title == f"t (0 = {ends[0]}, 1 = {ends[1]})"


@pytest.mark.parametrize("column", ["share", "t"])
def test_charts_refuse_what_they_cannot_draw(column: str) -> None:
    table, t = every(t=[0.0, 1.0], way=["matching"]), t_axis()
    assert dots(table.assign(low=np.nan), SHARE, "way", span=("low", "high")), "it is its dot"
    for draw in (
        lambda data: lines(data, t, SHARE, color="way"),
        lambda data: areas(data, t, SHARE, color="way"),
        lambda data: dots(data, Axis(column), "way"),
        lambda data: bars(data, Axis(column), "way"),
    ):
        assert draw(table)
        for bad in (np.nan, np.inf):
            with pytest.raises(FeatlibError, match="not finite"):
                draw(table.assign(**{column: [0.5, bad]}))
        with pytest.raises(FeatlibError, match=rf"needs columns \['{column}'\]"):
            draw(table.drop(columns=column))
        with pytest.raises(FeatlibError, match="no rows"):
            draw(table.head(0))


def test_stacked_marks_fill_in_the_order_of_the_legend() -> None:
    table = every(t=[0.0, 1.0], end=["neither end", "both ends", "one end"])
    for chart in (areas(table, t_axis(), SHARE, color="end"), bars(table, SHARE, "t", color="end")):
        first = chart.data.sort_values("rank")["end"].drop_duplicates().tolist()
        assert first == next(parts(chart_spec(chart), "color"))["scale"]["domain"]
        assert first == ["both ends", "one end", "neither end"]


def test_curves_are_averaged_and_keep_their_ends() -> None:
    tokens = np.arange(1, 20 * POINTS + 1.0)
    curve = pd.DataFrame({"model": "base", "tokens": tokens, "loss": tokens % 2})
    data = averaged(curve, "tokens", by="model")
    assert len(data) == POINTS and set(data["model"]) == {"base"}
    assert np.allclose(data["loss"], 0.5), "20 alternating zeros and ones average to a half"
    assert data["tokens"].iloc[0] == np.arange(1, 21).mean()
    assert len(averaged(curve.head(7), "tokens", by="model")) == 7


def test_every_value_is_in_one_bin() -> None:
    values = pd.Series([-9.0, 0.0, 0.02, 0.5, 0.52, 1.0], name="r")
    table = binned(values, [0, 0.25, 0.5, 0.75, 1])
    assert table["features"].tolist() == [3, 0, 2, 1] and table["share"].sum() == pytest.approx(1)
    outline = hist(values.to_frame().assign(of="a"), Axis("r"), [0, 0.5, 1], color="of").data
    assert outline["features"].tolist() == [3, 3, 0], "the last step is closed"
    middle = pd.DataFrame({"of": ["b", "a"], "median": 0.5, "low": 0.4, "high": 0.6})
    many = pd.DataFrame({"r": [-0.31, 1.0, 0.2], "of": ["a", "a", "b"]})
    panels = hists(many, "r", by="of", middle=middle).vconcat
    assert [panel.title.text for panel in panels] == ["b", "a"]
    assert [panel.data["features"].sum() for panel in panels] == [1, 2]


# --- colours ----------------------------------------------------------------------------------


def linear(colour: str) -> np.ndarray:
    channel = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, other))
    return (high + 0.05) / (low + 0.05)


# Machado, Oliveira and Fernandes (2009), complete deficiency; rows act on linear RGB.
SIGHT = {
    "full": np.eye(3),
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


PALETTES = [MODEL_COLORS, DOMAIN_COLORS, FATES]


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("palette", PALETTES)
def test_colours_keep_apart_for_every_eye(palette: dict[str, str], sight: str) -> None:
    seen = [lab(np.array(SIGHT[sight]) @ linear(c)) for c in palette.values()]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(distances) >= 15, "the difference just noticed is about 2"


def test_marks_stand_out_from_both_pages_and_text_is_readable() -> None:
    for mode, page in {"light": "#ffffff", "dark": "#121212"}.items():
        for colour in (c for palette in PALETTES for c in palette.values()):
            assert contrast(colour, page) >= 2.9, colour
        assert contrast(INK[mode], page) >= 7
        assert contrast(MUTED[mode], page) >= 4.5
    assert contrast("#ffffff", FATES["persists"]) >= 4.5, "white on the flow's band"
