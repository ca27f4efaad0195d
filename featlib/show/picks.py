"""Charts whose parts can be chosen, to see the features behind them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from featlib.family import PAIRS, step_name
from featlib.show.hists import binned, hist_panel
from featlib.show.marks import marked, stack
from featlib.show.scales import FATES, Axis, scale

BINS = np.linspace(-0.05, 1.0, 22)  # of best correlations


def list_features(
    chart: Any, pairs: Iterable[tuple[str, str]], choices: Mapping[str, Any], note: str = ""
) -> Any:
    """Let a reader choose a part of the chart and see its features (`_static/feature-list.js`).

    `pairs` are steps (parent, child); `choices` by key: text (ends "features that ..."), fates (the
    first letters of those meant) and, where needed, r [thousandths] as [from, below], side (child:
    the child's features), sort, and filter (the atlas can filter by it). A mark whose datum has
    `step` ("base>lua") and `choice` (a key) is chosen by a click; `picked_opacity` makes the others
    pale.
    """
    meta = dict(chart.usermeta) if isinstance(chart.usermeta, dict) else {}
    steps = {f"{a}>{b}": step_name(a, b) for a, b in pairs}
    meta["features"] = {"steps": steps, "choices": choices, "note": note}
    return chart.add_params(alt.param(name="picked", value="")).properties(usermeta=meta)


def picked_opacity(full: float = 1.0) -> Any:
    """Opacity of a mark of a chart with `list_features`."""
    chosen = "picked == '' || picked == datum.step + datum.choice"
    return alt.condition(chosen, alt.value(full), alt.value(0.3 * full))


def match_histogram(best: pd.DataFrame, own: pd.DataFrame, *, threshold: float) -> Any:
    """Best correlation of every parent feature in the child, a panel a pair; choose a bar.

    `best`: parent, child, r. `own`: model, r, the same between two autoencoders of one model, drawn
    as an outline over the panels of that parent. Bars from `threshold` on count as a match.
    """
    ticks = (0, 0.2, 0.4, 0.6, 0.8, 1)
    x = Axis("r", "best correlation in the child", domain=(BINS[0], 1), values=ticks)
    y = Axis("share", None, "%", zero=True)
    found = dict(list(best.groupby(["parent", "child"])["r"]))
    pairs, panels = [pair for pair in PAIRS if pair in found], []
    for parent, child in pairs:
        r, ceiling = found[parent, child], own.loc[own["model"] == parent, "r"]
        bars, line = binned(r, BINS), binned(ceiling, BINS)
        bars["fate"] = np.where(bars["r"] >= threshold - 1e-9, "persists", "disappears")
        bars = bars.assign(step=f"{parent}>{child}", choice=[f"{low:.2f}" for low in BINS[:-1]])
        line = pd.concat([line, line.tail(1).assign(r=1.0)])  # closes the last step
        table = pd.concat([bars.assign(of="best match"), line.assign(of="ceiling")])
        table = table.fillna("").assign(pair=step_name(parent, child))
        base = alt.Chart(table)
        color = alt.Color("fate:N", scale=scale(FATES), legend=None)
        bar = base.transform_filter("datum.of == 'best match'")
        bar = bar.mark_bar(binSpacing=1, cursor="pointer")
        outline = base.transform_filter("datum.of == 'ceiling'")
        outline = outline.mark_line(interpolate="step-after", style="ink", strokeWidth=1.6)
        layers = [*marked(x, threshold), outline.encode(x=x.on(alt.X), y=y.on(alt.Y))]
        note = f"{(r >= threshold).mean():.0%} match; ceiling {(ceiling >= threshold).mean():.0%}"
        bar = bar.encode(color=color, opacity=picked_opacity(0.8))
        panels.append(hist_panel(table, x, y, bar, layers, step_name(parent, child), note))
    choices = {
        f"{low:.2f}": {
            "text": f"have a best r of {low:.2f} to {high:.2f}",
            "fates": "pd",
            # The last bar holds r = 1 as well.
            "r": [round(1000 * low), round(1000 * high) + (high > 0.999)],
        }
        for low, high in itertools.pairwise(BINS)
    }
    return list_features(stack(*panels, left=36), pairs, choices)
