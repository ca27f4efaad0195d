"""Charts of autoencoders, their features, and how these match between models.

Tidy tables in, Altair charts out; `featlib.charts` holds the others and names them all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from featlib import FeatlibError
from featlib.family import DOMAIN_COLORS, DOMAIN_NAMES, DOMAINS, MODEL_COLORS, MODELS, PRINT_NAMES
from featlib.show.figure import (
    FATE_COLORS,
    Layered,
)
from featlib.show.picks import list_features, picked_opacity

LABELS = 90  # pixels of the names of models
GUTTER = (
    LABELS + 36
)  # pixels that stacked panels leave for these, and for half a number at the right


def need(data: pd.DataFrame, columns: Iterable[str], chart: str) -> pd.DataFrame:
    missing = [c for c in columns if c not in data.columns]
    if missing:
        raise FeatlibError(f"{chart}: the table lacks {missing}; it has {list(data.columns)}")
    if data.empty:
        raise FeatlibError(f"{chart}: the table has no rows")
    return data


def model_scale(models: Iterable[str]) -> alt.Scale:
    present = [m for m in MODELS if m in set(models)]
    return alt.Scale(
        domain=[PRINT_NAMES[m] for m in present], range=[MODEL_COLORS[m] for m in present]
    )


def domain_scale(domains: Iterable[str]) -> alt.Scale:
    present = [d for d in DOMAINS if d in set(domains)]
    return alt.Scale(
        domain=[DOMAIN_NAMES[d] for d in present], range=[DOMAIN_COLORS[d] for d in present]
    )


def name_pair(parent: str, child: str) -> str:
    return f"{PRINT_NAMES[parent]} → {PRINT_NAMES[child]}"


def list_pairs(data: pd.DataFrame) -> list[tuple[str, str]]:
    seen = set(zip(data["parent"], data["child"], strict=True))
    return sorted(seen, key=lambda pair: (MODELS.index(pair[0]), MODELS.index(pair[1])))


# --- autoencoders -----------------------------------------------------------------------------


def autoencoder_cards(cards: pd.DataFrame) -> alt.VConcatChart:
    """One dot per autoencoder and measure. Columns: model, seed, l0, fvu, ce_recovered, alive."""
    measures = {
        "l0": ("features active per token (L0)", ".1f"),
        "fvu": ("variance left unexplained (FVU)", ".3f"),
        "ce_recovered": ("loss recovered", ".1%"),
        "alive": ("features alive", ".1%"),
    }
    need(cards, ["model", "seed", *measures], "autoencoder_cards")
    data = cards.assign(Model=cards["model"].map(PRINT_NAMES))
    panels = []
    for column, (title, form) in measures.items():
        axis = alt.Axis(format=form.replace(".1%", "%").replace(".1f", ""), tickCount=5, grid=True)
        panels.append(
            alt.Chart(title=title)
            .mark_point(size=80, opacity=0.75)
            .encode(
                x=alt.X(f"{column}:Q", title=None, axis=axis, scale=alt.Scale(zero=False)),
                y=alt.Y("Model:N", title=None, sort=[PRINT_NAMES[m] for m in MODELS], axis=_left()),
                color=alt.Color("Model:N", scale=model_scale(data["model"]), legend=None),
                tooltip=["Model:N", "seed:N", alt.Tooltip(f"{column}:Q", format=form)],
            )
            .properties(width=500, height=alt.Step(17))
        )
    return _stack(panels, data)


def _left() -> alt.Axis:
    # Fixed, so that the panels of a stack line up and their widths can be set from the page's.
    return alt.Axis(minExtent=LABELS, maxExtent=LABELS)


def _stack(
    panels: Sequence[alt.Chart | Layered], data: pd.DataFrame, gutter: int = GUTTER
) -> alt.VConcatChart:
    return alt.vconcat(*panels, data=data, spacing=18, usermeta={"gutter": gutter})


def density_histogram(densities: pd.DataFrame, step: float = 0.25) -> alt.Chart:
    """How often features fire, one outline per model. Columns: model, log10_density."""
    need(densities, ["model", "log10_density"], "density_histogram")
    finite = densities[np.isfinite(densities["log10_density"])]
    low, high = -6.0, 0.0
    edges = np.arange(low, high + step / 2, step)
    rows = []
    for model, part in finite.groupby("model"):
        counts, _ = np.histogram(np.clip(part["log10_density"], low, high - 1e-9), edges)
        for left, count in zip(edges, [*counts, 0], strict=True):
            rows.append((model, PRINT_NAMES[model], left, count, count / len(part)))
    data = pd.DataFrame(rows, columns=["model", "Model", "log10_density", "features", "share"])
    names = (
        "datum.value == 0 ? 'always' : datum.value == -1 ? '1 in 10'"
        " : datum.value == -2 ? '1 in 100' : datum.value == -3 ? '1 in 1,000'"
        " : datum.value == -4 ? '1 in 10⁴' : datum.value == -5 ? '1 in 10⁵' : 'rarer'"
    )
    return (
        alt.Chart(data)
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X(
                "log10_density:Q",
                title="fires on one token in so many",
                scale=alt.Scale(domain=[low, high], nice=False),
                axis=alt.Axis(values=[-6, -5, -4, -3, -2, -1, 0], labelExpr=names, labelFlush=True),
            ),
            y=alt.Y("share:Q", title="share of features", axis=alt.Axis(format="%")),
            color=alt.Color("Model:N", scale=model_scale(data["model"])),
            tooltip=["Model:N", "features:Q", alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(width="container", height=240)
    )


# --- matching ---------------------------------------------------------------------------------


def match_histogram(
    best: pd.DataFrame, ceiling: pd.DataFrame | None = None, *, threshold: float = 0.8
) -> alt.VConcatChart:
    """Best correlation of every parent feature in the child, one panel per pair.

    A reader can choose a bar and see its features.

    `best`: parent, child, r. `ceiling`: model, r, the same between two autoencoders of one model;
    drawn as an outline over the panels of that parent. Bars from `threshold` on count as a match.
    """
    need(best, ["parent", "child", "r"], "match_histogram")
    edges = np.linspace(-0.05, 1.0, 22)
    tables, panels = [], []
    x = alt.X(
        "left:Q",
        bin="binned",
        title="best correlation in the child",
        scale=alt.Scale(domain=[edges[0], 1.0], nice=False),
        axis=alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    )
    y = alt.Y("share:Q", title=None, axis=_percent_left())
    fates = alt.Scale(domain=list(FATE_COLORS), range=list(FATE_COLORS.values()))
    tips = [
        alt.Tooltip("left:Q", title="r from", format=".2f"),
        alt.Tooltip("features:Q", format=","),
        alt.Tooltip("share:Q", format=".1%"),
    ]
    rule = alt.Chart(pd.DataFrame({"left": [threshold]})).mark_rule(style="ink", strokeDash=[4, 3])
    for parent, child in list_pairs(best):
        name = name_pair(parent, child)
        r = best.loc[(best["parent"] == parent) & (best["child"] == child), "r"].to_numpy(float)
        bars = _bins(r, edges)
        reaches = np.where(bars["left"] >= threshold - 1e-9, "persists", "disappears")
        choice = [f"{left:.2f}" for left in edges[:-1]]
        step = f"{parent}>{child}"
        tables.append(
            bars.assign(pair=name, of="best match", fate=reaches, step=step, choice=choice)
        )
        note = f"{(r >= threshold).mean():.0%} match"
        own = ceiling[ceiling["model"] == parent] if ceiling is not None else None
        if own is not None and len(own):
            other = own["r"].to_numpy(float)
            line = _bins(other, edges)
            line = pd.concat([line, line.tail(1).assign(left=1.0)])  # closes the last step
            tables.append(line.assign(pair=name, of="ceiling", fate="", step="", choice=""))
            note += f"; ceiling {(other >= threshold).mean():.0%}"
        of = f"datum.pair == '{name}' && datum.of == "
        layers = [
            alt.Chart()
            .transform_filter(of + "'best match'")
            .mark_bar(binSpacing=1, cursor="pointer")
            .encode(
                x=x,
                x2="right:Q",
                y=y,
                color=alt.Color("fate:N", scale=fates, legend=None),
                opacity=picked_opacity(0.8),
                tooltip=tips,
            ),
            rule.encode(x="left:Q"),
            alt.Chart()
            .transform_filter(of + "'ceiling'")
            .mark_line(interpolate="step-after", style="ink", strokeWidth=1.6)
            .encode(x="left:Q", y=y),
        ]
        title = alt.TitleParams(name, subtitle=note)
        panels.append(alt.layer(*layers).properties(width=500, height=105, title=title))
    chart = _stack(panels, pd.concat(tables, ignore_index=True), gutter=56)
    ends = itertools.pairwise(edges)
    choices = {
        f"{low:.2f}": {
            "text": f"have a best r of {low:.2f} to {high:.2f}",
            "fates": "pd",
            # The last bar holds r = 1 as well.
            "r": [round(1000 * low), round(1000 * high) + (high > 0.999)],
        }
        for low, high in ends
    }
    return list_features(chart, list_pairs(best), choices, "")


def _percent_left() -> alt.Axis:
    return alt.Axis(format="%", tickCount=4, minExtent=30, maxExtent=30)


def _bins(values: np.ndarray, edges: np.ndarray) -> pd.DataFrame:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return pd.DataFrame(
        {
            "left": edges[:-1],
            "right": edges[1:],
            "features": counts,
            "share": counts / max(len(values), 1),
        }
    )


def fate_bars(pairs: pd.DataFrame) -> Layered:
    """Share of testable features that persist, against the ceiling of two seeds.

    Columns: parent, child, persist, persist_low, persist_high, ceiling. The pale bar reaches to
    the ceiling, the tick is the ceiling itself, the thin line is the confidence interval.
    """
    columns = ["parent", "child", "persist", "persist_low", "persist_high", "ceiling"]
    need(pairs, columns, "fate_bars")
    data = pairs.assign(
        pair=[name_pair(p, c) for p, c in zip(pairs["parent"], pairs["child"], strict=True)],
        text=[f"{p:.0%} of {c:.0%}" if np.isfinite(c) else f"{p:.0%}"
              for p, c in zip(pairs["persist"], pairs["ceiling"], strict=True)],
        far=np.fmax(pairs["ceiling"], pairs["persist_high"]),
    )  # fmt: skip
    order = [name_pair(p, c) for p, c in list_pairs(pairs)]
    tips: list[Any] = ["pair:N", *[alt.Tooltip(f"{c}:Q", format=".1%") for c in columns[2:]]]
    two_lines = "split(replace(datum.label, ' → ', '|→ '), '|')"
    y = alt.Y("pair:N", sort=order, title=None, axis=alt.Axis(labelExpr=two_lines, labelOffset=-7))
    x_axis = alt.Axis(format="%", values=[0, 0.2, 0.4, 0.6, 0.8, 1])
    # Room at the right for the numbers, which stand beyond the ceiling on a telephone too.
    scale = alt.Scale(domain=[0, 2 * float(np.nanmax(data["far"]))], nice=False)

    def x(column: str) -> alt.X:
        return alt.X(f"{column}:Q", title="share of testable features", axis=x_axis, scale=scale)

    base = alt.Chart(data).encode(y=y, tooltip=tips)
    persists = FATE_COLORS["persists"]
    return alt.layer(
        base.mark_bar(height={"band": 0.5}, color=persists, opacity=0.2).encode(x=x("ceiling")),
        base.mark_bar(height={"band": 0.5}, color=persists).encode(x=x("persist")),
        base.mark_rule(style="ink", strokeWidth=1.6).encode(
            x=x("persist_low"), x2="persist_high:Q"
        ),
        base.mark_tick(thickness=3, bandSize=24).encode(x=x("ceiling")),
        base.mark_text(align="left", dx=9, fontWeight=600).encode(x=x("far"), text="text:N"),
        data=data,
    ).properties(width="container", height=alt.Step(42))


def correlation_by_firings(
    features: pd.DataFrame, *, threshold: float = 0.8, min_firings: int = 30
) -> Layered:
    """Best correlation against how often a feature fires: median and middle half, by pair.

    Columns: parent, child, firings, r. Features left of `min_firings` are untestable.
    """
    need(features, ["parent", "child", "firings", "r"], "correlation_by_firings")
    alive = features[features["firings"] > 0]
    level = np.floor(np.log2(alive["firings"].to_numpy(float)))
    groups = alive.assign(firings=2.0 ** (level + 0.5)).groupby(["parent", "child", "firings"])
    data = groups["r"].quantile([0.25, 0.5, 0.75]).reset_index(name="value")
    data = data.pivot_table(index=["parent", "child", "firings"], columns="level_3", values="value")
    data = data.set_axis(["low", "r", "high"], axis=1).assign(features=groups.size()).reset_index()
    data = data[data["features"] >= 5]  # quartiles of fewer say nothing
    if data.empty:
        raise FeatlibError("correlation_by_firings: no group of five features; use more tokens")
    data["pair"] = [name_pair(p, c) for p, c in zip(data["parent"], data["child"], strict=True)]
    data["step"] = data["parent"] + ">" + data["child"]
    data["choice"] = np.floor(np.log2(data["firings"])).astype(int).astype(str)
    order = [name_pair(p, c) for p, c in list_pairs(data)]
    # Dashes lead into the merged model: two pairs share the colour of one fine-tune.
    solid = alt.Legend(symbolType="stroke", symbolOpacity=1, columns=2)
    into_merged = [[5, 3] if c == "merged" else [1, 0] for _, c in list_pairs(data)]
    dash = alt.StrokeDash(
        "pair:N", sort=order, scale=alt.Scale(domain=order, range=into_merged), legend=solid
    )
    x = alt.X(
        "firings:Q",
        title="tokens on which the feature fires",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(format="~s", tickCount=6),
    )
    base = alt.Chart(data).encode(
        x=x,
        color=alt.Color(
            "pair:N",
            sort=order,
            scale=alt.Scale(domain=order, range=_pair_colours(data)),
            legend=solid,
        ),
    )
    y = alt.Y("r:Q", title="best correlation", scale=alt.Scale(domain=[0, 1]))
    marks = pd.DataFrame({"r": [threshold], "firings": [float(min_firings)]})
    chart = alt.layer(
        base.mark_area(opacity=0.14).encode(
            y=alt.Y("low:Q", title="best correlation"), y2="high:Q"
        ),
        base.mark_line().encode(y=y, strokeDash=dash),
        base.mark_point(size=60, cursor="pointer").encode(
            y=y,
            opacity=picked_opacity(),
            tooltip=[
                "pair:N",
                alt.Tooltip("firings:Q", format=",.0f"),
                "features:Q",
                alt.Tooltip("r:Q", format=".2f", title="median r"),
            ],
        ),
        alt.Chart(marks).mark_rule(strokeDash=[4, 3]).encode(y=y),
        alt.Chart(marks).mark_rule(strokeDash=[4, 3]).encode(x=x),
        data=data,
    ).properties(width="container", height=300)
    bins = sorted({int(n) for n in data["choice"]})
    choices = {
        str(n): {
            "text": f"fire on {2**n:,} to {2 ** (n + 1) - 1:,} tokens",
            "fates": "pdu",
            "firings": [2**n, 2 ** (n + 1)],
        }
        for n in bins
    }
    return list_features(chart, list_pairs(data), choices, "")


def _pair_colours(data: pd.DataFrame) -> list[str]:
    """The fine-tune's colour, whether the features lead into it or out of it."""
    return [MODEL_COLORS[c if p == "base" else p] for p, c in list_pairs(data)]


def chance_by_firings(chance: pd.DataFrame, *, min_firings: int) -> Layered:
    """Probability of a spurious match against the tokens it rests on. Columns: firings, chance."""
    need(chance, ["firings", "chance"], "chance_by_firings")
    x = alt.X("firings:Q", title="tokens that the correlation rests on")
    line = alt.Chart(chance).encode(
        x=x,
        y=alt.Y("chance:Q", title="chance of a spurious match", axis=alt.Axis(format="%")),
        tooltip=["firings:Q", alt.Tooltip("chance:Q", format=".2%")],
    )
    rule = alt.Chart(
        pd.DataFrame({"firings": [min_firings], "text": [f"testable from {min_firings} on"]})
    ).encode(x=x)
    return alt.layer(
        rule.mark_rule(style="ink", strokeDash=[4, 3]),
        line.mark_area(color=FATE_COLORS["untestable"], opacity=0.25),
        line.mark_line(color=FATE_COLORS["untestable"]),
        rule.mark_text(align="left", dx=6, style="muted").encode(text="text:N", y=alt.value(10)),
    ).properties(width="container", height=200)
