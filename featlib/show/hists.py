"""Histograms: outlines over one another, or panels of bars with what stands on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from featlib.show.figure import Layered
from featlib.show.marks import framed, lines, read, stack
from featlib.show.scales import DASHES, Axis, printed, scale

STEP = 0.05  # width of the bars of a score


def binned(values: pd.Series, edges: Sequence[float] | np.ndarray) -> pd.DataFrame:
    """How many values, and which share of them, lie from each edge to the next; none is left out.

    Columns: the name of the values (the lower edge), to, features, share.
    """
    counts, _ = np.histogram(np.clip(values.to_numpy(float), edges[0], edges[-1]), edges)
    table = pd.DataFrame({str(values.name): edges[:-1], "to": edges[1:], "features": counts})
    return table.assign(share=counts / max(len(values), 1))


def hist(
    data: pd.DataFrame, x: Axis, edges: Sequence[float] | np.ndarray, *, color: str,
    columns: int | None = None,
) -> Layered:  # fmt: skip
    """The outline of a histogram for each colour: shares of features by where `x` lies."""
    read(data, [x.column], [color])
    parts = []
    for name, part in data.groupby(color, sort=False):
        bins = binned(part[x.column], edges)
        end = bins.tail(1).assign(**{x.column: edges[-1], "features": 0, "share": 0.0})
        parts.append(pd.concat([bins, end]).assign(**{color: name}))
    table = pd.concat(parts, ignore_index=True)
    y = Axis("share", "share of features", "%", zero=True)
    dash = color if set(table[color]) <= set(DASHES) else None
    return lines(
        table, x, y, color=color, dash=dash, step=True, columns=columns, height=230,
        keep=["features"],
    )  # fmt: skip


def hist_panel(
    bins: pd.DataFrame, x: Axis, y: Axis, bar: Any, layers: Sequence[Any], name: str, note: str
) -> Layered:
    """Bars of a `binned` table, the mark `bar` in their looks, with other layers upon them."""
    low = x.on(alt.X)
    low["bin"] = "binned"  # else bars float at their tops
    tips = [alt.Tooltip(f"{c}:Q", format=".2f") for c in (x.column, "to")]
    tips += [alt.Tooltip("features:Q", format=","), y.tip()]
    bars = bar.encode(x=low, x2="to:Q", y=y.on(alt.Y, tickCount=4), tooltip=tips)
    title = alt.TitleParams(name, subtitle=note)
    return framed([bars, *layers], bins, 100, title)


def hists(data: pd.DataFrame, column: str, *, by: str, middle: pd.DataFrame) -> alt.VConcatChart:
    """A panel of bars for each group of features, its median marked; shares, since groups differ.

    `middle`: the group (named as in `by`), median, low, high; groups keep its order.
    """
    table = read(data, [column], [by])
    low = min(0.0, float(np.floor(table[column].min() / STEP) * STEP))
    edges = np.arange(round((1 - low) / STEP) + 1) * STEP + low
    found = {group: binned(part, edges) for group, part in table.groupby(by)[column]}
    top = 1.12 * max(bins["share"].max() for bins in found.values())
    y, colors = Axis("share", None, "%", domain=(0, top)), scale(middle[by].map(printed))
    looks = dict(zip(colors.domain, colors.range, strict=True))
    panels: list[Layered] = []
    for row in middle.assign(**{by: middle[by].map(printed)}).to_dict("records"):
        bins = found[row[by]].assign(**{by: row[by]})
        x = Axis(column, None if len(panels) + 1 < len(middle) else column, domain=(low, 1))
        at = alt.Chart(pd.DataFrame([row])).encode(x=x.on(alt.X, "median"))
        reach = at.mark_rect(style="ink", opacity=0.25).encode(x=x.on(alt.X, "low"), x2="high:Q")
        rule = at.mark_rule(style="ink", strokeWidth=1.5)
        note = f"median {row['median']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        bar = alt.Chart(bins).mark_bar(color=looks[row[by]], opacity=0.85)
        panels.append(hist_panel(bins, x, y, bar, [reach, rule], row[by], note))
    return stack(*panels, left=36)
