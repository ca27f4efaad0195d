"""Charts of the controls: shares beside their ceilings, nulls, and features followed along t."""

from __future__ import annotations

from collections.abc import Iterable

import altair as alt
import numpy as np
import pandas as pd

from featlib.family import MODEL_COLORS
from featlib.show.feature_charts import need
from featlib.show.figure import (
    FATE_COLORS,
)

# How a share was measured: one colour each, on every chart of the controls.
WAY_COLORS = {
    "matching": FATE_COLORS["persists"],
    "ceiling: other seed": FATE_COLORS["untestable"],
    "ceiling: other model": FATE_COLORS["disappears"],
    "ceiling: other text": MODEL_COLORS["base"],
    "transfer": FATE_COLORS["emerges"],
    "neurons": MODEL_COLORS["tinystories"],
    "warm start": MODEL_COLORS["merged"],
}
NULL_COLORS = {
    "shifted within documents": MODEL_COLORS["base"],
    "documents permuted": MODEL_COLORS["lua"],
    "random dictionary": MODEL_COLORS["tinystories"],
}
KEPT_COLORS = {
    "both ends": MODEL_COLORS["merged"],
    "one end": FATE_COLORS["persists"],
    "neither end": FATE_COLORS["emerges"],
}
# What the crosscoder makes of a feature, beside what matching calls it.
KIND_COLORS = {
    "parent only": FATE_COLORS["disappears"],
    "between": FATE_COLORS["untestable"],
    "shared": FATE_COLORS["persists"],
    "child only": FATE_COLORS["emerges"],
}
_WAY_SHAPES = [
    "circle", "diamond", "square", "triangle-right", "triangle-up", "triangle-down", "cross",
]  # fmt: skip


def _known(names: Iterable[str], colours: dict[str, str]) -> list[str]:
    present = set(names)
    return [name for name in colours if name in present]


def share_dots(
    shares: pd.DataFrame,
    *,
    each: pd.DataFrame | None = None,
    title: str = "share of testable features",
) -> alt.LayerChart:
    """Shares of features by group and by way of measuring, with 95 % intervals.

    Columns: label (a row of the chart, in the order given), way (one of `WAY_COLORS`), share, low,
    high. Rows whose share is NaN are left out. `each` (label, way, share, seeds) puts a tick under
    a dot for every pair of seeds of which the dot is the mean.
    """
    need(shares, ["label", "way", "share", "low", "high"], "share_dots")
    data = need(shares[shares["share"].notna()], [], "share_dots").copy()
    data["low"], data["high"] = (data[c].fillna(data["share"]) for c in ("low", "high"))
    ways = _known(data["way"], WAY_COLORS)
    y = alt.Y(
        "label:N",
        sort=list(dict.fromkeys(data["label"])),
        title=None,
        axis=alt.Axis(labelExpr="split(replace(datum.label, ' → ', '|→ '), '|')", grid=True),
    )
    offset = alt.YOffset("way:N", sort=ways, scale=alt.Scale(domain=ways, paddingInner=0.3))
    axis = alt.Axis(format="%", tickCount=5)
    base = alt.Chart(data).encode(
        y=y,
        yOffset=offset,
        color=alt.Color(
            "way:N",
            scale=alt.Scale(domain=ways, range=[WAY_COLORS[w] for w in ways]),
            legend=alt.Legend(symbolOpacity=1, columns=2),
        ),
    )
    x = alt.X("share:Q", title=title, axis=axis, scale=alt.Scale(domainMin=0))
    tips = [
        "label:N",
        "way:N",
        *[alt.Tooltip(f"{c}:Q", format=".1%") for c in ("share", "low", "high")],
    ]
    ticks = []
    if each is not None:
        need(each, ["label", "way", "share", "seeds"], "share_dots")
        mark = base.properties(data=each).mark_tick(thickness=1.5, size=14, opacity=0.6)
        seen = ["label:N", "way:N", "seeds:N", alt.Tooltip("share:Q", format=".1%")]
        ticks.append(mark.encode(x=x, tooltip=seen))
    return alt.layer(
        *ticks,
        base.mark_rule(strokeWidth=2, opacity=0.55).encode(
            x=alt.X("low:Q", title=title, axis=axis), x2="high:Q"
        ),
        base.mark_point(size=65, opacity=1).encode(
            x=x,
            shape=alt.Shape("way:N", scale=alt.Scale(domain=ways, range=_WAY_SHAPES[: len(ways)])),
            tooltip=tips,
        ),
        data=data,
    ).properties(width="container", height=alt.Step(max(12, 40 // len(ways))))


def threshold_curves(curves: pd.DataFrame, *, threshold: float) -> alt.LayerChart:
    """Persisting share against the threshold, beside the ceiling's. The rule marks ours.

    Columns: label, way (`WAY_COLORS`), threshold, share. One line for each label and way.
    """
    need(curves, ["label", "way", "threshold", "share"], "threshold_curves")
    data = need(curves[curves["share"].notna()], [], "threshold_curves")
    ways, labels = _known(data["way"], WAY_COLORS), list(dict.fromkeys(data["label"]))
    dashes = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [1, 3]]
    x = alt.X(
        "threshold:Q",
        title="correlation from which two features count as one",
        scale=alt.Scale(zero=False, nice=False),
        axis=alt.Axis(format=".1f"),
    )
    base = alt.Chart(data).encode(
        x=x,
        y=alt.Y("share:Q", title="share of testable features", axis=alt.Axis(format="%")),
        color=alt.Color(
            "way:N",
            scale=alt.Scale(domain=ways, range=[WAY_COLORS[w] for w in ways]),
            legend=alt.Legend(symbolType="stroke", symbolOpacity=1, columns=1),
        ),
        strokeDash=alt.StrokeDash(
            "label:N",
            scale=alt.Scale(domain=labels, range=dashes[: len(labels)]),
            legend=alt.Legend(symbolType="stroke", symbolOpacity=1, columns=1),
        ),
    )
    tips = [
        "label:N",
        "way:N",
        alt.Tooltip("threshold:Q", format=".2f"),
        alt.Tooltip("share:Q", format=".1%"),
    ]
    rule = alt.Chart(
        pd.DataFrame({"threshold": [threshold], "text": [f"in use: {threshold:g}"]})
    ).encode(x=x)
    return alt.layer(
        rule.mark_rule(style="ink", strokeDash=[4, 3]),
        base.mark_line(),
        base.mark_point(size=40, opacity=0).encode(tooltip=tips),
        rule.mark_text(align="right", dx=-6, style="muted").encode(text="text:N", y=alt.value(10)),
    ).properties(width="container", height=260)


def null_by_firings(null: pd.DataFrame, *, min_firings: int) -> alt.LayerChart:
    """Share of features that pass the threshold by chance, by how often they fire.

    Columns: null (one of `NULL_COLORS`), firings (lower edge of a bin), features, share.
    """
    need(null, ["null", "firings", "features", "share"], "null_by_firings")
    names = _known(null["null"], NULL_COLORS)
    data = null[null["firings"] > 0]
    x = alt.X(
        "firings:Q",
        title="tokens on which the feature fires",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(format="~s", tickCount=6),
    )
    base = alt.Chart(data).encode(
        x=x,
        y=alt.Y("share:Q", title="passes by chance", axis=alt.Axis(format="%")),
        color=alt.Color(
            "null:N",
            scale=alt.Scale(domain=names, range=[NULL_COLORS[n] for n in names]),
            legend=alt.Legend(symbolType="stroke", symbolOpacity=1, columns=1),
        ),
    )
    rule = alt.Chart(
        pd.DataFrame({"firings": [min_firings], "text": [f"testable from {min_firings} on"]})
    ).encode(x=x)
    tips = ["null:N", "firings:Q", "features:Q", alt.Tooltip("share:Q", format=".2%")]
    return alt.layer(
        rule.mark_rule(style="ink", strokeDash=[4, 3]),
        base.mark_line(),
        base.mark_point(size=40).encode(tooltip=tips),
        rule.mark_text(align="left", dx=6, style="muted").encode(text="text:N", y=alt.value(10)),
    ).properties(width="container", height=220)


def kept_along_t(kept: pd.DataFrame, *, t: float) -> alt.LayerChart:
    """Which features are themselves in the merge at each t, by how many ends had kept them.

    Columns of `transfer.share_by_t`: t, both, one, none (shares of testable features). The rule
    marks the merge that all other chapters use.
    """
    need(kept, ["t", "both", "one", "none"], "kept_along_t")
    names = dict(zip(("both", "one", "none"), KEPT_COLORS, strict=True))
    data = kept.melt("t", list(names), var_name="key", value_name="share")
    data = data.assign(by=data["key"].map(names), rank=data["key"].map(list(names).index))
    ends = "datum.value == 0 ? ['0', 'Lua'] : datum.value == 1 ? ['1', 'TinyStories'] : datum.label"
    x = alt.X(
        "t:Q",
        title="t (0 = Lua, 1 = TinyStories)",
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2~f", labelExpr=ends),
    )
    areas = (
        alt.Chart(data)
        .mark_area(line=True, opacity=0.55)
        .encode(
            x=x,
            y=alt.Y("share:Q", title="share of testable features", axis=alt.Axis(format="%")),
            color=alt.Color(
                "by:N",
                title="kept by",
                scale=alt.Scale(domain=list(KEPT_COLORS), range=list(KEPT_COLORS.values())),
                legend=alt.Legend(symbolType="square", symbolOpacity=1, columns=3),
            ),
            order=alt.Order("rank:Q"),
            tooltip=[
                "by:N",
                alt.Tooltip("t:Q", format=".2f"),
                alt.Tooltip("share:Q", format=".1%"),
            ],
        )
    )
    rule = alt.Chart(pd.DataFrame({"t": [t], "text": [f"used: t = {t:g}"]})).encode(x=x)
    return alt.layer(
        areas,
        rule.mark_rule(style="ink", opacity=0.5),
        rule.mark_text(align="left", dx=5, style="muted").encode(text="text:N", y=alt.value(6)),
    ).properties(width="container", height=260)


def kind_bars(kinds: pd.DataFrame) -> alt.LayerChart:
    """What the crosscoder's features are to each parent and child: one bar a step, to 100 %.

    Index: the step; columns: shares by kind (`KIND_COLORS`).
    """
    need(kinds.reset_index(), ["label", *KIND_COLORS], "kind_bars")
    names = {"between": "more in one"}
    data = kinds.reset_index().melt("label", list(KIND_COLORS), var_name="kind", value_name="share")
    data = data.assign(
        rank=data["kind"].map(list(KIND_COLORS).index),
        kind=data["kind"].replace(names),
        share=data["share"].fillna(0.0),
    )
    order = [names.get(kind, kind) for kind in KIND_COLORS]
    axis = alt.Axis(labelExpr="split(replace(datum.label, ' → ', '|→ '), '|')")
    base = alt.Chart(data).encode(y=alt.Y("label:N", sort=list(kinds.index), title=None, axis=axis))
    bars = base.mark_bar(height={"band": 0.6}).encode(
        x=alt.X(
            "share:Q",
            title="share of the crosscoder's testable features",
            axis=alt.Axis(format="%", tickCount=5),
            scale=alt.Scale(domain=[0, 1], nice=False),
        ),
        color=alt.Color(
            "kind:N",
            scale=alt.Scale(domain=order, range=list(KIND_COLORS.values())),
            legend=alt.Legend(symbolType="square", symbolOpacity=1, columns=2),
        ),
        order=alt.Order("rank:Q"),
        tooltip=["label:N", "kind:N", alt.Tooltip("share:Q", format=".1%")],
    )
    return alt.layer(bars, data=data).properties(width="container", height=alt.Step(34))


def norm_histogram(norms: pd.DataFrame, step: float = 0.05) -> alt.Chart:
    """How the crosscoder's features lie between a parent (0) and its child (1).

    Columns: label (the pair), relative (`crosscoder.relative_norm`, one row per feature).
    """
    need(norms, ["label", "relative"], "norm_histogram")
    edges = np.linspace(0, 1, round(1 / step) + 1)
    rows = []
    for label, part in norms.groupby("label", sort=False):
        counts, _ = np.histogram(part["relative"], edges)
        rows += [
            (label, left, n, n / len(part)) for left, n in zip(edges, [*counts, 0], strict=True)
        ]
    data = pd.DataFrame(rows, columns=["label", "relative", "features", "share"])
    labels = list(dict.fromkeys(data["label"]))
    colours = [MODEL_COLORS[m] for m in ("lua", "tinystories", "base", "merged")]
    names = "datum.value == 0 ? 'parent only' : datum.value == 1 ? 'child only' : datum.label"
    return (
        alt.Chart(data)
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X(
                "relative:Q",
                title="child's part of the two decoder norms",
                scale=alt.Scale(domain=[0, 1], nice=False),
                axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2~f", labelExpr=names),
            ),
            y=alt.Y("share:Q", title="share of features", axis=alt.Axis(format="%")),
            color=alt.Color(
                "label:N",
                scale=alt.Scale(domain=labels, range=colours[: len(labels)]),
                legend=alt.Legend(symbolType="stroke", symbolOpacity=1, columns=1),
            ),
            tooltip=["label:N", "features:Q", alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(width="container", height=230)
    )
