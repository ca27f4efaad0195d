"""The flow of features through the four models (Figure 2), widths to scale, with the seed ceiling.

It reads from left to right, like the picture of the design, in the order in which the models were
made: one lane by way of Lua, one by way of TinyStories.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from featlib import FeatlibError
from featlib.family import PRINT_NAMES
from featlib.show.diagrams import MODEL_SCALE, x_axis, y_axis
from featlib.show.feature_lists import list_features, picked_opacity
from featlib.show.figure import FATE_COLORS, Layered

CHAINS = (("base", "lua", "merged"), ("base", "tinystories", "merged"))  # the two lanes
LANE = 150.0  # pixels of a lane: the model with the most features fills it
GAP = 62.0  # pixels between lanes, for names
EDGES = ((0.0, 2.6), (48.7, 51.3), (97.4, 100.0))  # the columns, in percent of the width
STUB = 17.0  # length of what ends or begins, same unit
SAG = 14.0  # pixels by which what ends falls away, and from which what begins rises


@dataclass(frozen=True)
class _Pair:
    """Counts of one pair of models; the parent's three fates add up to its features."""

    parent: str
    child: str
    counts: dict[str, float]  # means over pairs of autoencoders need not be whole
    ceiling: float  # share of testable parents; NaN where unknown
    children: float = 0.0  # features of the child

    @property
    def testable(self) -> float:
        return self.counts["persists"] + self.counts["disappears"]

    @property
    def parents(self) -> float:
        return self.testable + self.counts["untestable"]


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
    second autoencoder of the *same* model finds again (NaN where unknown). Optional: children, the
    number of the child's features, for a child that is nobody's parent. All widths are to one
    scale; the persisting band may narrow, since two features can find the same match. What
    disappears has two shades: up to the ceiling it was lost; beyond it nobody can tell, since as
    much is lost between two autoencoders of one model.
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
        counts = {f: float(group.loc[group["fate"] == f, "count"].sum()) for f in FATE_COLORS}
        if unknown := set(group["fate"]) - set(FATE_COLORS):
            raise FeatlibError(f"flow: unknown fate {sorted(unknown)}; use {list(FATE_COLORS)}")
        children = float(group["children"].iloc[0]) if "children" in group else 0.0
        pairs[parent, child] = _Pair(
            parent, child, counts, float(group["ceiling"].iloc[0]), children
        )
    if not pairs:
        raise FeatlibError("flow: the table has no rows")
    sizes = {pair.parent: pair.parents for pair in pairs.values()}
    return {
        key: replace(
            pair,
            children=sizes.get(pair.child)
            or pair.children
            or pair.counts["persists"] + pair.counts["emerges"],
        )
        for key, pair in pairs.items()
    }


def _draw_bar(
    drawing: _Drawing, model: str, column: int, size: float, top: float, scale: float
) -> None:
    left, right = EDGES[column]
    drawing.bars.append(
        {
            "model": model,
            "name": PRINT_NAMES[model],
            "features": round(size),
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
        {"text": f"{size:,.0f} features", "x": x, "y": top - 9, "kind": "note", "anchor": anchor},
    ]


def _draw_pair(drawing: _Drawing, pair: _Pair, column: int, top: float, scale: float) -> None:
    left, right = EDGES[column][1], EDGES[column + 1][0]
    n, share = pair.counts, pair.counts["persists"] / max(pair.testable, 1)
    kept = n["persists"]
    possible = pair.ceiling * pair.testable if np.isfinite(pair.ceiling) else pair.testable
    lost = min(max(possible - kept, 0), n["disappears"])  # up to the ceiling
    tested, all_parents, begins = pair.testable, pair.parents, pair.children - n["emerges"]

    def band(
        fate: str, cut: tuple[float, float], x: tuple[float, float], *, sag: float, ends: float = 0
    ) -> None:
        """A band of the features from cut[0] to cut[1] of a bar; `ends`: its last feature there."""
        start, stop = cut
        if stop <= start:
            return
        facts = {
            "band": len(drawing.bands),
            "fate": fate,
            "from": PRINT_NAMES[pair.parent],
            "to": PRINT_NAMES[pair.child],
            "features": round(stop - start, 1),
            "step": f"{pair.parent}>{pair.child}",
            "choice": fate[0],
        }
        for u in np.linspace(0, 1, 13):
            ease = 3 * u**2 - 2 * u**3
            drop = sag * ((1 - u) ** 2 if fate == "emerges" else ease)
            last = stop + (ends - stop) * ease if ends else stop
            drawing.bands.append(
                {
                    **facts,
                    "x": x[0] + u * (x[1] - x[0]),
                    "y": top + start * scale + drop,
                    "y2": top + last * scale + drop,
                }
            )

    end, begin = (left, left + STUB), (right - STUB, right)
    band("persists", (0, kept), (left, right), sag=0, ends=begins)
    band("disappears", (kept, kept + lost), end, sag=SAG)
    band("disappears, beyond the ceiling", (kept + lost, tested), end, sag=SAG)
    band("untestable", (tested, all_parents), end, sag=SAG)
    band("emerges", (begins, pair.children), begin, sag=SAG)
    middle, beside_stub = (left + right) / 2, left + STUB + 0.6

    def word(text: str, x: float, y: float, kind: str, anchor: str) -> None:
        drawing.words.append({"text": text, "x": x, "y": y, "kind": kind, "anchor": anchor})

    lowest = top + all_parents * scale
    if kept * scale >= 20:
        word(f"{share:.0%} persist", middle, top + kept * scale / 2, "on-band", "center")
        taken = []
    else:
        taken = [top + kept * scale + 12]
        word(f"{share:.0%} persist", beside_stub, taken[0], "share", "left")
    if np.isfinite(pair.ceiling):
        y = top + pair.ceiling * tested * scale
        drawing.ceilings.append({"x": EDGES[column][0], "x2": left + STUB, "y": y})
        beside = max([y, *(t + 15 for t in taken)])
        taken.append(beside)
        word(f"ceiling {pair.ceiling:.0%}", beside_stub, beside, "count", "left")
        if pair.ceiling > 0:
            taken.append(beside + 13)
            word(f"{share / pair.ceiling:.0%} of it", beside_stub, taken[-1], "count", "left")

    def free(start: float, stop: float) -> float:
        """The height in a band farthest from what is written already; below all if too near."""
        spots = np.arange(top + start * scale + 9, top + max(stop * scale - 4, start * scale + 10))
        far = [min((abs(spot - t) for t in taken), default=np.inf) for spot in spots]
        best = int(np.argmax(far))
        taken.append(float(spots[best]) if far[best] >= 12 else max(taken) + 13)
        return taken[-1]

    if n["untestable"] * scale >= 12:
        taken.append(lowest - 7 + SAG / 3)
        word(f"{n['untestable']:,.0f} untestable", left + 1, taken[-1], "count", "left")
    if n["disappears"]:
        word(f"{n['disappears']:,.0f} disappear", left + 1, free(kept, tested), "count", "left")
    if n["emerges"]:
        word(
            f"{n['emerges']:,.0f} emerge", right - 1, free(begins, pair.children), "count", "right"
        )


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
                .mark_area(color=_fade(FATE_COLORS[fate.split(",")[0]], *fade), cursor="pointer")
                .encode(
                    x=x_axis("x:Q"),
                    y=y_axis("y:Q", height),
                    y2="y2:Q",
                    detail="band:N",
                    opacity=picked_opacity(),
                    tooltip=["from:N", "to:N", "fate:N", alt.Tooltip("features:Q", format=",")],
                )
            )
    layers.append(
        alt.Chart(pd.DataFrame(drawing.bars))
        .mark_rect()
        .encode(
            x=x_axis("x:Q"),
            x2="x2:Q",
            y=y_axis("y:Q", height),
            y2="y2:Q",
            color=alt.Color("model:N", scale=MODEL_SCALE, legend=None),
            tooltip=[alt.Tooltip("name:N", title="model"), alt.Tooltip("features:Q", format=",")],
        )
    )
    if drawing.ceilings:
        layers.append(
            alt.Chart(pd.DataFrame(drawing.ceilings))
            .mark_rule(style="ink", strokeDash=[4, 3], strokeWidth=1.6)
            .encode(x=x_axis("x:Q"), x2="x2:Q", y=y_axis("y:Q", height))
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
            .encode(x=x_axis("x:Q"), y=y_axis("y:Q", height), text="text:N")
        )
    pairs = [pair for chain in CHAINS for pair in itertools.pairwise(chain)]
    known = set(zip(flows["parent"], flows["child"], strict=True))
    choices = {
        "p": {"text": "persist", "fates": "p", "filter": True},
        "d": {"text": "disappear", "fates": "d", "filter": True, "sort": "firings"},
        "e": {"text": "emerge", "fates": "e", "side": "child", "filter": True, "sort": "firings"},
        "u": {"text": "are untestable", "fates": "u", "filter": True, "sort": "firings"},
    }
    chart = alt.layer(*layers, data=flows).properties(width="container", height=height)
    return list_features(
        chart,
        [pair for pair in pairs if pair in known],
        choices,
        "The picture counts means over pairs of autoencoders; the list is of one pair.",
    )


def _fade(colour: str, start: float, stop: float) -> Any:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    if start == stop:
        return f"rgba({red},{green},{blue},{start})"
    ends = [
        alt.GradientStop(color=f"rgba({red},{green},{blue},{opacity})", offset=offset)
        for offset, opacity in ((0, start), (1, stop))
    ]
    return alt.LinearGradient(gradient="linear", x1=0, x2=1, y1=0, y2=0, stops=ends)
