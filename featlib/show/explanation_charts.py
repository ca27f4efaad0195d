"""Charts of how well explanations predict activations."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np
import pandas as pd

from featlib import FeatlibError
from featlib.family import DOMAIN_COLORS, MODEL_COLORS
from featlib.show.feature_charts import need
from featlib.show.figure import (
    FATE_COLORS,
    Markup,
)
from featlib.show.strips import token_strips

__all__ = ["explained_against_baselines", "explained_feature", "score_histograms"]

GROUP_COLORS = {
    "Lua": MODEL_COLORS["lua"],
    "LuaStories": MODEL_COLORS["merged"],
    "Lua, persisting": FATE_COLORS["persists"],
    "Lua, equally common": DOMAIN_COLORS["babylm"],
}
_BASELINES = {
    "other_correlation": "another's explanation",
    "frequency_correlation": "token frequency",
}


def score_histograms(
    scores: pd.DataFrame, medians: pd.DataFrame, *, column: str = "correlation", step: float = 0.05
) -> alt.VConcatChart:
    """One histogram of a score for each group of features (Figure 6), its median marked.

    `scores`: group, `column`. `medians`: group, median, low, high (drawn as an interval). Groups
    keep the order of `medians`; counts are shares, since groups differ in size.
    """
    need(scores, ["group", column], "score_histograms")
    need(medians, ["group", "median", "low", "high"], "score_histograms (medians)")
    low = min(0.0, float(np.floor(scores[column].min() / step) * step))
    edges = np.arange(round((1 - low) / step) + 1) * step + low
    rows = []
    for group, part in scores.groupby("group"):
        counts, _ = np.histogram(np.clip(part[column], edges[0], edges[-1]), edges)
        rows += [
            (group, a, a + step, int(n), n / len(part))
            for a, n in zip(edges[:-1], counts, strict=True)
        ]
    bins = pd.DataFrame(rows, columns=["group", "from", "to", "features", "share"])
    x = alt.Scale(domain=[low, 1], nice=False)
    y = alt.Scale(domain=[0, float(bins["share"].max()) * 1.12], nice=False)
    panels = []
    for i, row in enumerate(medians.itertuples(index=False)):
        colour = GROUP_COLORS.get(row.group, DOMAIN_COLORS["babylm"])
        last = i == len(medians) - 1
        axis = alt.Axis(labels=last, tickCount=6)
        # Of fixed extent, so that the panels line up and their width can be set from the page's.
        left = alt.Axis(format="%", tickCount=3, minExtent=36, maxExtent=36)
        bars = (
            alt.Chart(bins[bins["group"] == row.group])
            .mark_bar(color=colour, opacity=0.85)
            .encode(
                x=alt.X("from:Q", bin="binned", scale=x, axis=axis, title=column if last else None),
                x2="to:Q",
                y=alt.Y("share:Q", scale=y, title=None, axis=left),
                tooltip=[
                    alt.Tooltip("from:Q", format=".2f"),
                    alt.Tooltip("to:Q", format=".2f"),
                    "features:Q",
                    alt.Tooltip("share:Q", format=".1%"),
                ],
            )
        )
        at = alt.Chart(pd.DataFrame([row._asdict()])).encode(x=alt.X("median:Q", scale=x))
        words = alt.TitleParams(
            row.group, subtitle=f"median {row.median:.2f} ({row.low:.2f} to {row.high:.2f})"
        )
        band = at.mark_rect(style="ink", opacity=0.25).encode(x=alt.X("low:Q", scale=x), x2="high")
        panels.append(
            alt.layer(bars, band, at.mark_rule(style="ink", strokeWidth=1.5))
            .properties(width=600, height=96, title=words)
            .resolve_scale(y="shared")
        )
    return alt.vconcat(*panels, spacing=10, usermeta={"gutter": 60})


def explained_against_baselines(scores: pd.DataFrame) -> alt.LayerChart | alt.FacetChart:
    """Each feature's correlation by its explanation (up) against a baseline's (right).

    Columns: feature, correlation, other_correlation, frequency_correlation and, for dots that lead
    to the atlas, model. Above the diagonal the explanation is better. Dragging moves the picture,
    shift and wheel zoom into it.
    """
    need(scores, ["feature", "correlation", *_BASELINES], "explained_against_baselines")
    kept = scores[["feature", "correlation", *_BASELINES]]
    own = ["feature", "correlation"]
    if "model" in scores:
        kept = kept.assign(atlas=scores["model"] + "/" + scores["feature"].astype(str))
        own.append("atlas")
    data = (
        kept.melt(own, var_name="column", value_name="baseline")
        .assign(Baseline=lambda d: d["column"].map(_BASELINES))
        .drop(columns="column")
    )
    if not np.isfinite(data[["correlation", "baseline"]].to_numpy()).all():
        raise FeatlibError("explained_against_baselines: a score is not finite")
    low = float(min(data["baseline"].min(), data["correlation"].min(), 0))
    scale = alt.Scale(domain=[low, 1], nice=False)
    line = alt.Chart(pd.DataFrame({"baseline": [low, 1.0], "correlation": [low, 1.0]}))
    # No model's colour: a dot is a feature of one model, the two kinds are baselines.
    kinds = list(_BASELINES.values())
    colours = alt.Scale(domain=kinds, range=[FATE_COLORS["untestable"], FATE_COLORS["disappears"]])
    dots = (
        alt.Chart(data)
        .mark_point(size=26, opacity=0.55, cursor="pointer")
        .encode(
            x=alt.X("baseline:Q", scale=scale, title="correlation of the baseline"),
            y=alt.Y("correlation:Q", scale=scale, title="correlation of the explanation"),
            color=alt.Color("Baseline:N", scale=colours),
            shape=alt.Shape(
                "Baseline:N", scale=alt.Scale(domain=kinds, range=["circle", "diamond"])
            ),
            tooltip=[
                "feature:Q",
                alt.Tooltip("correlation:Q", format=".2f"),
                "Baseline:N",
                alt.Tooltip("baseline:Q", format=".2f"),
            ],
        )
    )
    rule = line.mark_line(style="ink", strokeDash=[4, 3], strokeWidth=1).encode(
        x="baseline:Q", y="correlation:Q"
    )
    # A bare wheel scrolls the page; a second click would be a double one, which resets.
    zoom = alt.selection_interval(bind="scales", zoom="wheel![event.shiftKey]", name="zoom")
    return alt.layer(rule, dots.add_params(zoom), data=data).properties(
        width="container", height=360
    )


def explained_feature(
    label: str,
    explanation: str,
    tokens: Sequence[str],
    rows: Mapping[str, Sequence[float]],
    scores: Mapping[str, float],
    peaks: Mapping[str, float] | None = None,
    link: str = "",
) -> Markup:
    """One feature: its explanation as text, its scores, and strips of true and predicted values.

    `rows` is label -> activation of each of `tokens`; each strip is shaded up to its own largest
    value unless `peaks` gives one for its label. `link` is where the label leads.
    """
    own = {name: max([float(v) for v in row if v > 0], default=1.0) for name, row in rows.items()}
    told = ", ".join(f"{name} {value:.2f}" for name, value in scores.items()).replace("-", "−")
    deepest = {f"{name} (deepest: {v:.3g})": v for name, v in {**own, **(peaks or {})}.items()}
    shown = dict(zip(deepest, rows.values(), strict=True))
    name = html.escape(label)
    if link:
        name = f'<a href="{html.escape(link, quote=True)}">{name}</a>'
    return Markup(
        f'<section class="fl-explained"><p class="fl-strip-label">{name} '
        f"({html.escape(told)})</p><p>{html.escape(explanation)}</p>"
        f"{token_strips(tokens, shown, peak=deepest, legend=False)}</section>"
    )
