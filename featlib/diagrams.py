"""The two pictures that carry the story: the design of the experiment, and the flow of features.

Both read from left to right in the order in which the models were made, and both use the same
columns, so that a reader who has seen the first knows the way through the second.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from featlib.figures import FATE_COLORS, MODEL_COLORS, Layered
from featlib.params import PRINT_NAMES, FeatlibError

CHAINS = (("base", "lua", "merged"), ("base", "tinystories", "merged"))  # the two lanes
LANE = 150.0  # pixels of a lane: the model with the most features fills it
GAP = 62.0  # pixels between lanes, for names
EDGES = ((0.0, 2.6), (48.7, 51.3), (97.4, 100.0))  # the columns, in percent of the width
STUB = 17.0  # length of what ends or begins, same unit
SAG = 14.0  # pixels by which what ends falls away, and from which what begins rises

_SCALE = alt.Scale(domain=list(MODEL_COLORS), range=list(MODEL_COLORS.values()))


def _x(name: str) -> alt.X:
    return alt.X(name, axis=None, scale=alt.Scale(domain=[0, 100], nice=False, zero=False))


def _y(name: str, height: float) -> alt.Y:
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
    place, height = {"x": _x("x:Q"), "y": _y("y:Q", 200)}, 200
    line = alt.Chart(arrows).mark_line(style="ink", strokeWidth=1.6, opacity=0.7)
    head = alt.Chart(arrows.groupby("arrow").tail(1)).mark_point(
        shape="triangle-right", size=70, style="ink-fill"
    )
    box = alt.Chart(boxes).mark_rect(cornerRadius=8, fillOpacity=0.14, strokeWidth=2)
    words = alt.Chart(boxes).encode(x=_x("middle:Q"), y=_y("y:Q", height))
    return alt.layer(
        line.encode(**place, detail="arrow:N"),
        head.encode(**place),
        box.encode(
            x=_x("x:Q"),
            x2="x2:Q",
            y=_y("top:Q", height),
            y2="bottom:Q",
            fill=alt.Fill("model:N", legend=None, scale=_SCALE),
            stroke=alt.Stroke("model:N", legend=None, scale=_SCALE),
            tooltip=["name:N", "how:N", "detail:N"],
        ),
        words.mark_text(dy=-15, style="strong").encode(text="name:N"),
        words.mark_text(dy=5, style="muted").encode(text="how:N"),
        words.mark_text(dy=20, style="muted").encode(text="detail:N"),
    ).properties(width="container", height=height)


# --- the flow of features ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Pair:
    """Counts of one pair of models; the parent's three fates add up to its features."""

    parent: str
    child: str
    counts: dict[str, int]
    ceiling: float  # share of testable parents; NaN where unknown

    @property
    def parents(self) -> int:
        return self.counts["persists"] + self.counts["disappears"] + self.counts["untestable"]

    @property
    def children(self) -> int:
        return self.counts["persists"] + self.counts["emerges"]

    @property
    def testable(self) -> int:
        return self.counts["persists"] + self.counts["disappears"]


@dataclass
class _Drawing:
    """Rows of the tables behind the layers; y in pixels from the top."""

    bands: list[dict[str, Any]] = field(default_factory=list)
    words: list[dict[str, Any]] = field(default_factory=list)
    ceilings: list[dict[str, Any]] = field(default_factory=list)
    bars: list[dict[str, Any]] = field(default_factory=list)


def flow(flows: pd.DataFrame) -> Layered:
    """Features as they flow from BabyPython through both fine-tunes into LuaStories (Figure 2).

    `flows` has one row per pair of models and fate: parent, child, fate (persists, disappears,
    emerges, untestable), count, and ceiling: the share of the parent's testable features that a
    second autoencoder of the *same* model finds again (NaN where unknown). All widths are to one
    scale. What disappears has two shades: up to the ceiling it was lost; beyond it nobody can
    tell, since as much is lost between two autoencoders of one model.
    """
    pairs = _read_pairs(flows)
    scale = LANE / max(max(pair.parents, pair.children, 1) for pair in pairs.values())
    drawing = _Drawing()
    for lane, chain in enumerate(CHAINS):
        top = 40.0 + lane * (LANE + GAP)
        for column, model in enumerate(chain):
            sizes = [p.parents for p in pairs.values() if p.parent == model]
            sizes += [p.children for p in pairs.values() if p.child == model]
            if sizes:
                _draw_bar(drawing, model, column, max(sizes), top, scale)
        for column, key in enumerate(itertools.pairwise(chain)):
            if key in pairs:
                _draw_pair(drawing, pairs[key], column, top, scale)
    return _layers(flows, drawing, height=40.0 + len(CHAINS) * LANE + (len(CHAINS) - 1) * GAP + 12)


def _read_pairs(flows: pd.DataFrame) -> dict[tuple[str, str], _Pair]:
    if missing := {"parent", "child", "fate", "count", "ceiling"} - set(flows.columns):
        raise FeatlibError(f"flow: the table lacks {sorted(missing)}")
    known = {pair for chain in CHAINS for pair in itertools.pairwise(chain)}
    pairs = {}
    for (parent, child), group in flows.groupby(["parent", "child"], sort=False):
        if (parent, child) not in known:
            raise FeatlibError(f"flow: no arrow leads from {parent!r} to {child!r}")
        counts = {f: int(group.loc[group["fate"] == f, "count"].sum()) for f in FATE_COLORS}
        if unknown := set(group["fate"]) - set(FATE_COLORS):
            raise FeatlibError(f"flow: unknown fate {sorted(unknown)}; use {list(FATE_COLORS)}")
        pairs[parent, child] = _Pair(parent, child, counts, float(group["ceiling"].iloc[0]))
    if not pairs:
        raise FeatlibError("flow: the table has no rows")
    return pairs


def _draw_bar(
    drawing: _Drawing, model: str, column: int, size: int, top: float, scale: float
) -> None:
    left, right = EDGES[column]
    drawing.bars.append(
        {
            "model": model,
            "name": PRINT_NAMES[model],
            "features": size,
            "x": left,
            "x2": right,
            "y": top,
            "y2": top + size * scale,
        }
    )
    anchor = {0: "left", 1: "center", 2: "right"}[column]
    x = (left, (left + right) / 2, right)[column]
    drawing.words += [
        {"text": PRINT_NAMES[model], "x": x, "y": top - 25, "kind": "name", "anchor": anchor},
        {"text": f"{size:,} features", "x": x, "y": top - 9, "kind": "note", "anchor": anchor},
    ]


def _draw_pair(drawing: _Drawing, pair: _Pair, column: int, top: float, scale: float) -> None:
    left, right = EDGES[column][1], EDGES[column + 1][0]
    n, share = pair.counts, pair.counts["persists"] / max(pair.testable, 1)
    kept = n["persists"]
    possible = round(pair.ceiling * pair.testable) if np.isfinite(pair.ceiling) else pair.testable
    lost = min(max(possible - kept, 0), n["disappears"])  # up to the ceiling
    tested, all_parents = pair.testable, pair.parents

    def band(fate: str, start: float, stop: float, x: tuple[float, float], sag: float) -> None:
        if stop <= start:
            return
        facts = {
            "band": len(drawing.bands),
            "fate": fate,
            "from": PRINT_NAMES[pair.parent],
            "to": PRINT_NAMES[pair.child],
            "features": int(stop - start),
        }
        for u in np.linspace(0, 1, 13):
            drop = sag * (3 * u**2 - 2 * u**3) if fate != "emerges" else sag * (1 - u) ** 2
            drawing.bands.append(
                {
                    **facts,
                    "x": x[0] + u * (x[1] - x[0]),
                    "y": top + start * scale + drop,
                    "y2": top + stop * scale + drop,
                }
            )

    end, begin = (left, left + STUB), (right - STUB, right)
    band("persists", 0, kept, (left, right), 0)
    band("disappears", kept, kept + lost, end, SAG)
    band("disappears, beyond the ceiling", kept + lost, tested, end, SAG)
    band("untestable", tested, all_parents, end, SAG)
    band("emerges", kept, pair.children, begin, SAG)
    middle = (left + right) / 2

    def word(text: str, x: float, y: float, kind: str, anchor: str) -> None:
        drawing.words.append({"text": text, "x": x, "y": y, "kind": kind, "anchor": anchor})

    lowest = top + all_parents * scale
    if kept * scale >= 20:
        word(f"{share:.0%} persist", middle, top + kept * scale / 2, "on-band", "center")
        taken = []
    else:
        taken = [top + kept * scale + 12]
        word(f"{share:.0%} persist", middle, taken[0], "share", "center")
    if np.isfinite(pair.ceiling):
        y = top + pair.ceiling * tested * scale
        drawing.ceilings.append({"x": EDGES[column][0], "x2": left + STUB, "y": y})
        beside = max([y, *(t + 15 for t in taken)])
        taken.append(beside)
        word(f"ceiling {pair.ceiling:.0%}", left + STUB + 0.6, beside, "count", "left")

    def free(start: float, stop: float) -> float:
        """The height in a band farthest from what is written already; below all if too near."""
        spots = np.arange(top + start * scale + 9, top + max(stop * scale - 4, start * scale + 10))
        far = [min((abs(spot - t) for t in taken), default=np.inf) for spot in spots]
        best = int(np.argmax(far))
        taken.append(float(spots[best]) if far[best] >= 12 else max(taken) + 13)
        return taken[-1]

    if n["untestable"] * scale >= 12:
        taken.append(lowest - 7 + SAG / 3)
        word(f"{n['untestable']:,} untestable", left + 1, taken[-1], "count", "left")
    if n["disappears"]:
        word(f"{n['disappears']:,} disappear", left + 1, free(kept, tested), "count", "left")
    if n["emerges"]:
        word(f"{n['emerges']:,} emerge", right - 1, free(kept, pair.children), "count", "right")


_FADES = {  # fate -> opacity at both ends of its band
    "persists": (0.92, 0.92),
    "disappears": (0.75, 0.0),
    "disappears, beyond the ceiling": (0.32, 0.0),
    "untestable": (0.6, 0.0),
    "emerges": (0.0, 0.75),
}


def _layers(flows: pd.DataFrame, drawing: _Drawing, height: float) -> Layered:
    bands, words = pd.DataFrame(drawing.bands), pd.DataFrame(drawing.words)
    layers: list[alt.Chart] = []
    for fate, fade in _FADES.items():
        part = bands[bands["fate"] == fate] if len(bands) else bands
        if len(part):
            layers.append(
                alt.Chart(part)
                .mark_area(color=_fade(FATE_COLORS[fate.split(",")[0]], *fade))
                .encode(
                    x=_x("x:Q"),
                    y=_y("y:Q", height),
                    y2="y2:Q",
                    detail="band:N",
                    tooltip=["from:N", "to:N", "fate:N", alt.Tooltip("features:Q", format=",")],
                )
            )
    layers.append(
        alt.Chart(pd.DataFrame(drawing.bars))
        .mark_rect()
        .encode(
            x=_x("x:Q"),
            x2="x2:Q",
            y=_y("y:Q", height),
            y2="y2:Q",
            color=alt.Color("model:N", scale=_SCALE, legend=None),
            tooltip=[alt.Tooltip("name:N", title="model"), alt.Tooltip("features:Q", format=",")],
        )
    )
    if drawing.ceilings:
        layers.append(
            alt.Chart(pd.DataFrame(drawing.ceilings))
            .mark_rule(style="ink", strokeDash=[4, 3], strokeWidth=1.6)
            .encode(x=_x("x:Q"), x2="x2:Q", y=_y("y:Q", height))
        )
    styles = {
        "name": "strong",
        "share": "strong",
        "on-band": "on-colour",
        "note": "muted",
        "count": "count",
    }
    for (kind, anchor), part in words.groupby(["kind", "anchor"]):
        layers.append(
            alt.Chart(part)
            .mark_text(align=anchor, baseline="middle", style=styles[kind])
            .encode(x=_x("x:Q"), y=_y("y:Q", height), text="text:N")
        )
    return alt.layer(*layers, data=flows).properties(width="container", height=height)


def _fade(colour: str, start: float, stop: float) -> Any:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    if start == stop:
        return f"rgba({red},{green},{blue},{start})"
    ends = [
        alt.GradientStop(color=f"rgba({red},{green},{blue},{opacity})", offset=offset)
        for offset, opacity in ((0, start), (1, stop))
    ]
    return alt.LinearGradient(gradient="linear", x1=0, x2=1, y1=0, y2=0, stops=ends)
