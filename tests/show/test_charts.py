"""Charts: valid, coloured as everywhere else, and to scale."""

from __future__ import annotations

import json
import re
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert
from examples import CEILINGS, PAIRS, SHARES, every_chart, flows, sweep

from featlib import FeatlibError
from featlib.family import DOMAIN_COLORS, DOMAINS, MODEL_COLORS, MODELS, PRINT_NAMES
from featlib.show import charts
from featlib.show import flow as flow_diagram
from featlib.show.figure import (
    FATE_COLORS,
    INK,
    chart_spec,
    set_width,
    theme,
)

CHARTS = every_chart()


def rows(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for table in spec.get("datasets", {}).values() for row in table]


@pytest.mark.parametrize("name", CHARTS)
def test_chart_is_valid_and_draws_offline(name: str) -> None:
    spec = chart_spec(CHARTS[name])
    # Altair checks against Vega-Lite's schema when it reads the specification back.
    alt.Chart.from_dict(spec) if "vconcat" not in spec else alt.VConcatChart.from_dict(spec)
    json.dumps(spec, allow_nan=False)
    for mode in ("light", "dark"):
        svg = vl_convert.vegalite_to_svg(
            set_width(spec, 350), config=theme(mode), allowed_base_urls=[]
        )
        assert not re.search("NaN|undefined|Infinity", svg)
        assert INK[mode] in svg


@pytest.mark.parametrize("name", CHARTS)
def test_chart_fits_a_telephone(name: str) -> None:
    svg = vl_convert.vegalite_to_svg(
        set_width(chart_spec(CHARTS[name]), 340), config=theme("light"), allowed_base_urls=[]
    )
    width = float(re.search(r'width="([\d.]+)"', svg).group(1))
    assert width <= 352, "a legend or title is wider than the screen"


@pytest.mark.parametrize("name", ["loss", "scores", "cards", "density"])
def test_each_model_keeps_its_colour(name: str) -> None:
    text = json.dumps(CHARTS[name].to_dict())
    domain = re.search(r'"scale": \{"domain": (\[[^]]*\]), "range": (\[[^]]*\])', text)
    pairs = dict(zip(json.loads(domain.group(1)), json.loads(domain.group(2)), strict=True))
    assert pairs.items() <= {PRINT_NAMES[m]: MODEL_COLORS[m] for m in MODELS}.items()


def test_charts_refuse_what_they_cannot_draw() -> None:
    with pytest.raises(FeatlibError, match=r"loss_curves.*lacks.*'tokens'"):
        charts.loss_curves(pd.DataFrame({"model": ["base"], "loss": [1.0]}))
    with pytest.raises(FeatlibError, match="no rows"):
        charts.density_histogram(pd.DataFrame({"model": [], "log10_density": []}))
    base = pd.DataFrame({"domain": DOMAINS, "accuracy": 0.3})
    with pytest.raises(FeatlibError, match=r"'cubic'.*'linear', 'slerp'"):
        charts.merge_sweep(sweep(), base, method="cubic")


def test_loss_curve_averages_and_keeps_the_ends() -> None:
    tokens = np.arange(1, 1001.0)
    curve = pd.DataFrame({"model": "base", "tokens": tokens, "loss": tokens % 2})
    data = charts.loss_curves(curve, points=50).data
    assert len(data) == 50
    assert np.allclose(data["loss"], 0.5), "20 alternating zeros and ones average to a half"
    assert data["tokens"].iloc[0] == np.arange(1, 21).mean()
    assert len(charts.loss_curves(curve.head(7), points=50).data) == 7


def test_difference_is_in_points_and_zero_at_the_ends() -> None:
    data = charts.merge_difference(sweep()).data
    middle = data[(data["t"] == 0.5) & (data["method"] == "slerp") & (data["domain"] == "lua")]
    assert middle["points"].item() == pytest.approx(100 * 0.02 * 0.25)
    assert np.allclose(data.loc[data["t"].isin([0, 1]), "points"], 0)


def test_density_histogram_shares_count_silent_features_out() -> None:
    values = pd.DataFrame({"model": "lua", "log10_density": [-np.inf, -2.1, -2.2, -9.0, 0.0]})
    data = charts.density_histogram(values).data
    assert data["share"].sum() == pytest.approx(1), "of the features that ever fire"
    assert data["features"].sum() == 4
    assert data.loc[data["log10_density"] == -6, "features"].item() == 1, "rarer ones go first"


def test_match_histogram_colours_by_threshold_and_says_the_shares() -> None:
    r = np.array([0.1, 0.79, 0.8, 0.95])
    best = pd.DataFrame({"parent": "base", "child": "lua", "r": r})
    ceiling = pd.DataFrame({"model": ["base"] * 4, "r": [0.9, 0.9, 0.9, 0.1]})
    chart = charts.match_histogram(best, ceiling)
    data = chart.data[chart.data["of"] == "best match"]
    assert data.groupby("fate")["features"].sum().to_dict() == {"disappears": 2, "persists": 2}
    assert chart.vconcat[0].title.subtitle == "50% match; ceiling 75%"


def test_correlation_by_firings_gives_the_median() -> None:
    frame = pd.DataFrame({"parent": "base", "child": "lua", "firings": 40, "r": np.arange(9) / 8})
    data = charts.correlation_by_firings(frame).data
    assert data[["low", "r", "high", "features"]].to_numpy().tolist() == [[0.25, 0.5, 0.75, 9]]
    assert 32 < data["firings"].item() < 64
    with pytest.raises(FeatlibError, match="more tokens"):
        charts.correlation_by_firings(frame.head(3))


def test_short_names_of_tensors() -> None:
    short = charts.short_tensor
    assert short("model.layers.0.self_attn.q_proj.weight") == "attention q"
    assert short("model.layers.0.mlp.down_proj.weight") == "MLP down"
    assert short("model.norm.weight") == "final norm"
    assert short("model.layers.0.input_layernorm.weight") == "norm before attention"


# --- the flow diagram -------------------------------------------------------------------------


def bands(chart: alt.LayerChart) -> pd.DataFrame:
    """First and last cut through each band: its widths at both ends."""
    frame = pd.DataFrame(r for r in rows(chart.to_dict()) if "band" in r)
    return frame.assign(width=frame["y2"] - frame["y"]).groupby("band").first()


def test_flow_widths_are_to_scale() -> None:
    found = bands(charts.flow(flows()))
    assert np.allclose(found["width"] / found["features"], flow_diagram.LANE / 2000, rtol=1e-6)


def test_flow_accounts_for_every_feature() -> None:
    found = bands(charts.flow(flows())).reset_index()
    sums = found.groupby(["from", "to", "fate"])["features"].sum()
    for parent, child in PAIRS:
        pair = sums[PRINT_NAMES[parent], PRINT_NAMES[child]]
        assert pair.drop("emerges").sum() == pytest.approx(2000), "the parent's fates add up"
        assert pair["persists"] == round(SHARES[parent, child] * 1870)
        reach = max(CEILINGS[parent] * 1870, pair["persists"])
        found_again = pair["persists"] + pair.get("disappears", 0)
        assert found_again == pytest.approx(reach, abs=0.2), "the dark shade ends at the ceiling"


def test_flow_of_means_keeps_the_sizes_of_the_models() -> None:
    table = flows().assign(children=2048.0)
    table["count"] += np.where(table["fate"] == "emerges", 20.25, -1 / 3)
    said = [str(r["text"]) for r in rows(charts.flow(table).to_dict()) if "text" in r]
    assert {t for t in said if "features" in t} == {"1,999 features", "2,048 features"}
    frame = pd.DataFrame(r for r in rows(charts.flow(table).to_dict()) if "band" in r)
    kept = frame[(frame["fate"] == "persists") & (frame["from"] == "Lua")]
    born = frame[(frame["fate"] == "emerges") & (frame["from"] == "Lua")]
    assert kept["y2"].iloc[-1] == pytest.approx(born["y"].iloc[-1]), "they meet at the child's bar"
    share = kept["features"].iloc[0] / 1999
    width = (kept["y2"] - kept["y"]).iloc[0]
    assert width == pytest.approx(share * 1999 * flow_diagram.LANE / 2048, rel=1e-3)


def test_flow_says_share_and_ceiling_and_keeps_labels_apart() -> None:
    spec = charts.flow(flows()).to_dict()
    words = [r for r in rows(spec) if "text" in r]
    said = [w["text"] for w in words]
    assert {"44% persist", "3% persist", "40% persist", "90% persist"} <= set(said)
    assert "ceiling 62%" in said and "71% of it" in said, "44 of 62"
    # Between two columns no two lines of text may lie on each other, even on a telephone, where
    # the left and the right label of a gap reach across its whole width.
    gaps: dict[tuple[int, int], list[float]] = {}
    for word in words:
        if word["kind"] in ("count", "share", "on-band"):
            lane = int(word["y"] > 40 + flow_diagram.LANE + flow_diagram.GAP / 2)
            gaps.setdefault((int(word["x"] > 50), lane), []).append(word["y"])
    assert len(gaps) == 4
    for heights in gaps.values():
        assert np.diff(sorted(heights)).min() >= 10


def test_flow_without_a_ceiling_marks_none() -> None:
    spec = charts.flow(flows().assign(ceiling=np.nan)).to_dict()
    assert not any("ceiling" in str(r.get("text", "")) for r in rows(spec))
    assert not any("beyond" in str(r.get("fate", "")) for r in rows(spec))


def test_flow_refuses_what_has_no_place_in_it() -> None:
    with pytest.raises(FeatlibError, match="no arrow leads from 'lua' to 'base'"):
        charts.flow(flows().assign(parent="lua", child="base"))
    with pytest.raises(FeatlibError, match="'sleeps'"):
        charts.flow(flows().replace({"fate": {"emerges": "sleeps"}}))


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


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("palette", [MODEL_COLORS, DOMAIN_COLORS, FATE_COLORS])
def test_colours_keep_apart_for_every_eye(palette: dict[str, str], sight: str) -> None:
    seen = [lab(np.array(SIGHT[sight]) @ linear(c)) for c in palette.values()]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(distances) >= 15, "the difference just noticed is about 2"


@pytest.mark.parametrize("palette", [MODEL_COLORS, DOMAIN_COLORS, FATE_COLORS])
def test_marks_stand_out_from_both_pages(palette: dict[str, str]) -> None:
    for colour in palette.values():
        assert contrast(colour, "#ffffff") >= 2.9, colour
        assert contrast(colour, "#121212") >= 2.9, colour


def test_text_is_readable_on_both_pages() -> None:
    from featlib.show.figure import MUTED

    for mode, page in {"light": "#ffffff", "dark": "#121212"}.items():
        assert contrast(INK[mode], page) >= 7
        assert contrast(MUTED[mode], page) >= 4.5
    assert contrast("#ffffff", FATE_COLORS["persists"]) >= 4.5, "white on the flow's band"
