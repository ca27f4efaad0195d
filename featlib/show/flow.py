"""How the models were made (Figure 1), and the features that flow through them (Figure 2).

Both read from left to right, in the order in which the models were made: the base, a lane for each
of its children, the merge. Widths of the flow are to scale, with the seed ceiling.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from featlib.family import (
    BASE,
    CHILDREN,
    DOMAIN_NAMES,
    MERGE_OF,
    MERGED,
    MODEL_COLORS,
    PARENTS,
    PRINT_NAMES,
    TRAINING_MIX,
)
from featlib.show.figure import Layered
from featlib.show.picks import list_features, picked_opacity
from featlib.show.scales import FATES

LANES = tuple((BASE, child, MERGED) if child in MERGE_OF else (BASE, child) for child in CHILDREN)
PLACES = ((0, 30), (35, 65), (70, 100))  # the columns of boxes, in percent of the width
ROW = 110.0  # pixels from one child's box to the next
TOP = 40.0  # pixels above the first lane
LANE = 150.0  # pixels of a lane: the model with the most features fills it
GAP = 62.0  # pixels between lanes, for names
EDGES = ((0.0, 2.6), (48.7, 51.3), (97.4, 100.0))  # the columns of bars, in percent of the width
STUB = 17.0  # length of what ends or begins, same unit
SAG = 14.0  # pixels by which what ends falls away, and from which what begins rises


def _place(height: float, x: str = "x", y: str = "y") -> dict[str, Any]:
    """Places in percent of the width and in pixels from the top, without axes drawn."""
    wide, high = (
        {"domain": ends, "nice": False, "zero": False} for ends in ([0, 100], [height, 0])
    )
    return {
        "x": alt.X(f"{x}:Q", axis=None, scale=alt.Scale(**wide)),
        "y": alt.Y(f"{y}:Q", axis=None, scale=alt.Scale(**high)),
    }


def _model_scale() -> alt.Scale:
    return alt.Scale(domain=list(MODEL_COLORS), range=list(MODEL_COLORS.values()))


def _eased(start: float, end: float, u: np.ndarray) -> np.ndarray:
    return start + (end - start) * (3 * u**2 - 2 * u**3)


# --- Figure 1 -------------------------------------------------------------------------------------


def design_diagram() -> Layered:
    """The models and how each was made."""
    lanes = {lane[1]: n for n, lane in enumerate(LANES)}
    middle, height = 45 + ROW * (len(lanes) - 1) / 2, 90 + ROW * (len(lanes) - 1)

    def fan(model: str) -> float:
        """Where on the sides of the middle boxes the arrow from or to a child stands."""
        return middle + 28 * (lanes[model] - (len(lanes) - 1) / 2)

    boxes, bends = [], []
    for model, parents in PARENTS.items():
        left, right = PLACES[len(parents)]
        y = 45 + ROW * lanes[model] if model in lanes else middle
        how = ("trained on", "fine-tuned on", "merged")[len(parents)]
        mix = " + ".join(DOMAIN_NAMES[d] for d in TRAINING_MIX[model])
        boxes.append(
            {
                "model": model, "name": PRINT_NAMES[model], "how": how,
                "detail": "by slerp" if len(parents) == 2 else mix,
                "x": left, "x2": right, "middle": (left + right) / 2,
                "y": y, "top": y - 34, "bottom": y + 34,
            }
        )  # fmt: skip
        for parent in parents:
            child = model if model in lanes else parent
            ends = (fan(child), y) if model in lanes else (45 + ROW * lanes[parent], fan(child))
            bends.append((left - 5, *ends))
    u = np.linspace(0, 1, 15)
    arrows = pd.concat(
        pd.DataFrame({"arrow": n, "x": x + 3.8 * u, "y": _eased(start, end, u)})
        for n, (x, start, end) in enumerate(bends)
    )
    line = alt.Chart(arrows).mark_line(style="ink", strokeWidth=1.6, opacity=0.7)
    head = alt.Chart(arrows.groupby("arrow").tail(1)).mark_point(
        shape="triangle-right", size=70, style="ink-fill"
    )
    table, place = pd.DataFrame(boxes), _place(height)
    box = alt.Chart(table).mark_rect(cornerRadius=8, fillOpacity=0.14, strokeWidth=2)
    words = alt.Chart(table).encode(**_place(height, "middle"))
    return alt.layer(
        line.encode(**place, detail="arrow:N"),
        head.encode(**place),
        box.encode(
            **_place(height, y="top"),
            x2="x2:Q",
            y2="bottom:Q",
            fill=alt.Fill("model:N", legend=None, scale=_model_scale()),
            stroke=alt.Stroke("model:N", legend=None, scale=_model_scale()),
            tooltip=["name:N", "how:N", "detail:N"],
        ),
        words.mark_text(dy=-15, style="strong").encode(text="name:N"),
        words.mark_text(dy=5, style="muted").encode(text="how:N"),
        words.mark_text(dy=20, style="muted").encode(text="detail:N"),
    ).properties(width="container", height=height)


# --- Figure 2 -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pair:
    """Counts of one pair of models; the parent's three fates add up to its features."""

    parent: str
    child: str
    counts: dict[str, float]  # means over pairs of autoencoders need not be whole
    ceiling: float  # share of testable parents; NaN where unknown
    children: float  # features of the child

    @property
    def testable(self) -> float:
        return self.counts["persists"] + self.counts["disappears"]

    @property
    def parents(self) -> float:
        return self.testable + self.counts["untestable"]


@dataclass
class _Drawing:
    """Rows of the tables behind the layers; y in pixels from the top."""

    scale: float  # pixels of a feature
    bands: list[dict[str, Any]] = field(default_factory=list)
    words: list[dict[str, Any]] = field(default_factory=list)
    ceilings: list[dict[str, Any]] = field(default_factory=list)
    bars: list[dict[str, Any]] = field(default_factory=list)

    def word(self, text: str, x: float, y: float, kind: str, anchor: str = "left") -> None:
        self.words.append({"text": text, "x": x, "y": y, "kind": kind, "anchor": anchor})

    def band(
        self, pair: _Pair, fate: str, top: float, cut: tuple[float, float],
        x: tuple[float, float], sag: float = SAG, end: float = 0,
    ) -> None:  # fmt: skip
        """A band of the features from cut[0] to cut[1] of a bar; `end`: its last feature there."""
        start, stop = cut
        if stop <= start:
            return
        u = np.linspace(0, 1, 13)
        drop = sag * ((1 - u) ** 2 if fate == "emerges" else _eased(0, 1, u))
        last = _eased(stop, end or stop, u)
        for i in range(len(u)):
            self.bands.append(
                {
                    "band": f"{pair.parent} {pair.child} {fate}",
                    "fate": fate,
                    "from": PRINT_NAMES[pair.parent],
                    "to": PRINT_NAMES[pair.child],
                    "features": round(stop - start, 1),
                    "step": f"{pair.parent}>{pair.child}",
                    "choice": fate[0],
                    "x": x[0] + u[i] * (x[1] - x[0]),
                    "y": top + start * self.scale + drop[i],
                    "y2": top + last[i] * self.scale + drop[i],
                }
            )

    def bar(self, model: str, column: int, size: float, top: float) -> None:
        left, right = EDGES[column]
        self.bars.append(
            {
                "model": model, "name": PRINT_NAMES[model], "features": round(size),
                "x": left, "x2": right, "y": top, "y2": top + size * self.scale,
            }
        )  # fmt: skip
        x, anchor = ((left, "left"), ((left + right) / 2, "center"), (right, "right"))[column]
        self.word(PRINT_NAMES[model], x, top - 25, "name", anchor)
        self.word(f"{size:,.0f} features", x, top - 9, "note", anchor)

    def pair(self, pair: _Pair, column: int, top: float) -> None:
        left, right = EDGES[column][1], EDGES[column + 1][0]
        n, scale, kept, tested = pair.counts, self.scale, pair.counts["persists"], pair.testable
        possible = pair.ceiling * tested if np.isfinite(pair.ceiling) else tested
        lost = min(max(possible - kept, 0), n["disappears"])  # up to the ceiling
        begins, end = pair.children - n["emerges"], (left, left + STUB)
        self.band(pair, "persists", top, (0, kept), (left, right), sag=0, end=begins)
        self.band(pair, "disappears", top, (kept, kept + lost), end)
        self.band(pair, "disappears, beyond the ceiling", top, (kept + lost, tested), end)
        self.band(pair, "untestable", top, (tested, pair.parents), end)
        self.band(pair, "emerges", top, (begins, pair.children), (right - STUB, right))

        share, beside = kept / max(tested, 1), left + STUB + 0.6
        taken: list[float] = []  # heights that are written on
        if kept * scale >= 20:
            middle = (left + right) / 2
            self.word(f"{share:.0%} persist", middle, top + kept * scale / 2, "on-band", "center")
        else:
            taken = [top + kept * scale + 12]
            self.word(f"{share:.0%} persist", beside, taken[0], "share")
        if np.isfinite(pair.ceiling):
            y = top + pair.ceiling * tested * scale
            self.ceilings.append({"x": EDGES[column][0], "x2": left + STUB, "y": y})
            taken.append(max([y, *(t + 15 for t in taken)]))
            self.word(f"ceiling {pair.ceiling:.0%}", beside, taken[-1], "count")
            if pair.ceiling > 0:
                taken.append(taken[-1] + 13)
                self.word(f"{share / pair.ceiling:.0%} of it", beside, taken[-1], "count")

        def free(start: float, stop: float) -> float:
            """The height in a band farthest from what is written; below all if too near."""
            low, high = top + start * scale, top + stop * scale
            spots = np.arange(low + 9, max(high - 4, low + 10))
            far = [min((abs(spot - t) for t in taken), default=np.inf) for spot in spots]
            best = int(np.argmax(far))
            taken.append(float(spots[best]) if far[best] >= 12 else max(taken) + 13)
            return taken[-1]

        if n["untestable"] * scale >= 12:
            taken.append(top + pair.parents * scale - 7 + SAG / 3)
            self.word(f"{n['untestable']:,.0f} untestable", left + 1, taken[-1], "count")
        if n["disappears"]:
            y = free(kept, tested)
            self.word(f"{n['disappears']:,.0f} disappear", left + 1, y, "count")
        if n["emerges"]:
            y = free(begins, pair.children)
            self.word(f"{n['emerges']:,.0f} emerge", right - 1, y, "count", "right")


def flow(flows: pd.DataFrame) -> Layered:
    """Features as they flow from the base through its children into the merge (Figure 2).

    `flows` has one row per step and fate: parent, child, fate, count, children (the number of the
    child's features) and ceiling: the share of the parent's testable features that a second
    autoencoder of the *same* model finds again (NaN where unknown). All widths are to one scale;
    the persisting band may narrow, since two features can find the same match. What disappears has
    two shades: up to the ceiling it was lost; beyond it nobody can tell, since as much is lost
    between two autoencoders of one model.
    """
    pairs = {}
    for (parent, child), group in flows.groupby(["parent", "child"], sort=False):
        counts = dict.fromkeys(FATES, 0.0) | dict(zip(group["fate"], group["count"], strict=True))
        first = group.iloc[0]
        pairs[parent, child] = _Pair(parent, child, counts, first["ceiling"], first["children"])
    sizes = {pair.child: pair.children for pair in pairs.values()}
    sizes |= {pair.parent: pair.parents for pair in pairs.values()}
    drawing = _Drawing(scale=LANE / max(sizes.values()))
    shown = []
    for lane, chain in enumerate(LANES):
        top = TOP + lane * (LANE + GAP)
        for column, model in enumerate(chain):
            if model in sizes:
                drawing.bar(model, column, sizes[model], top)
        for column, step in enumerate(itertools.pairwise(chain)):
            if step in pairs:
                drawing.pair(pairs[step], column, top)
                shown.append(step)
    height = TOP + len(LANES) * (LANE + GAP) - GAP + 12
    chart = alt.layer(*_layers(drawing, height), data=flows)
    chart = chart.properties(width="container", height=height)
    choices = {
        "p": {"text": "persist", "fates": "p", "filter": True},
        "d": {"text": "disappear", "fates": "d", "filter": True, "sort": "firings"},
        "e": {"text": "emerge", "fates": "e", "side": "child", "filter": True, "sort": "firings"},
        "u": {"text": "are untestable", "fates": "u", "filter": True, "sort": "firings"},
    }
    note = "The picture counts means over pairs of autoencoders; the list is of one pair."
    return list_features(chart, shown, choices, note)


_FADES = {  # fate -> opacity at both ends of its band
    "persists": (0.92, 0.92),
    "disappears": (0.75, 0.0),
    "disappears, beyond the ceiling": (0.32, 0.0),
    "untestable": (0.6, 0.0),
    "emerges": (0.0, 0.75),
}
_STYLES = {
    "name": "strong",
    "share": "strong",
    "on-band": "on-colour",
    "note": "muted",
    "count": "count",
}


def _layers(drawing: _Drawing, height: float) -> list[alt.Chart]:
    place, layers = _place(height), []
    bands, words = pd.DataFrame(drawing.bands), pd.DataFrame(drawing.words)
    for fate, part in bands.groupby("fate", sort=False):
        color = _faded(FATES[fate.split(",")[0]], *_FADES[fate])
        layers.append(
            alt.Chart(part)
            .mark_area(color=color, cursor="pointer")
            .encode(
                **place,
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
            **place,
            x2="x2:Q",
            y2="y2:Q",
            color=alt.Color("model:N", scale=_model_scale(), legend=None),
            tooltip=[alt.Tooltip("name:N", title="model"), alt.Tooltip("features:Q", format=",")],
        )
    )
    if drawing.ceilings:
        rule = alt.Chart(pd.DataFrame(drawing.ceilings)).encode(**place, x2="x2:Q")
        layers.append(rule.mark_rule(style="ink", strokeDash=[4, 3], strokeWidth=1.6))
    for (kind, anchor), part in words.groupby(["kind", "anchor"]):
        word = alt.Chart(part).encode(**place, text="text:N")
        layers.append(word.mark_text(align=anchor, baseline="middle", style=_STYLES[kind]))
    return layers


def _faded(color: str, start: float, stop: float) -> Any:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    if start == stop:
        return f"rgba({red},{green},{blue},{start})"
    ends = [
        alt.GradientStop(color=f"rgba({red},{green},{blue},{opacity})", offset=offset)
        for offset, opacity in ((0, start), (1, stop))
    ]
    return alt.LinearGradient(gradient="linear", x1=0, x2=1, y1=0, y2=0, stops=ends)
