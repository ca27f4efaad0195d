"""The picture of the design of the experiment (Figure 1): four models and how each was made."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from featlib.family import MODEL_COLORS, PRINT_NAMES
from featlib.show.figure import (
    Layered,
)

MODEL_SCALE = alt.Scale(domain=list(MODEL_COLORS), range=list(MODEL_COLORS.values()))


def x_axis(name: str) -> alt.X:
    """Horizontal place in percent of the width, without an axis drawn."""
    return alt.X(name, axis=None, scale=alt.Scale(domain=[0, 100], nice=False, zero=False))


def y_axis(name: str, height: float) -> alt.Y:
    """Vertical place in pixels from the top, without an axis drawn."""
    return alt.Y(name, axis=None, scale=alt.Scale(domain=[height, 0], nice=False, zero=False))


def design_diagram(t: float | None = None) -> Layered:
    """The four models and how each was made (Figure 1); `t` is the merge's."""
    merge = "by slerp" if t is None else f"by slerp, t = {t:g}"
    boxes = pd.DataFrame(
        [
            ("base", 0, 30, 100, "trained on", "English + Python"),
            ("lua", 35, 65, 45, "fine-tuned", "on Lua"),
            ("tinystories", 35, 65, 155, "fine-tuned", "on short stories"),
            ("merged", 70, 100, 100, "merged", merge),
        ],
        columns=["model", "x", "x2", "y", "how", "detail"],
    ).assign(
        name=lambda d: d["model"].map(PRINT_NAMES),
        middle=lambda d: (d["x"] + d["x2"]) / 2,
        top=lambda d: d["y"] - 34,
        bottom=lambda d: d["y"] + 34,
    )
    bends = [(30, 86, 45), (30, 114, 155), (65, 45, 86), (65, 155, 114)]  # x, from y, to y
    arrows = pd.DataFrame(
        [
            {"arrow": arrow, "x": x + 3.8 * u, "y": start + (end - start) * (3 * u**2 - 2 * u**3)}
            for arrow, (x, start, end) in enumerate(bends)
            for u in np.linspace(0, 1, 15)
        ]
    )
    place, height = {"x": x_axis("x:Q"), "y": y_axis("y:Q", 200)}, 200
    line = alt.Chart(arrows).mark_line(style="ink", strokeWidth=1.6, opacity=0.7)
    head = alt.Chart(arrows.groupby("arrow").tail(1)).mark_point(
        shape="triangle-right", size=70, style="ink-fill"
    )
    box = alt.Chart(boxes).mark_rect(cornerRadius=8, fillOpacity=0.14, strokeWidth=2)
    words = alt.Chart(boxes).encode(x=x_axis("middle:Q"), y=y_axis("y:Q", height))
    return alt.layer(
        line.encode(**place, detail="arrow:N"),
        head.encode(**place),
        box.encode(
            x=x_axis("x:Q"),
            x2="x2:Q",
            y=y_axis("top:Q", height),
            y2="bottom:Q",
            fill=alt.Fill("model:N", legend=None, scale=MODEL_SCALE),
            stroke=alt.Stroke("model:N", legend=None, scale=MODEL_SCALE),
            tooltip=["name:N", "how:N", "detail:N"],
        ),
        words.mark_text(dy=-15, style="strong").encode(text="name:N"),
        words.mark_text(dy=5, style="muted").encode(text="how:N"),
        words.mark_text(dy=20, style="muted").encode(text="detail:N"),
    ).properties(width="container", height=height)
