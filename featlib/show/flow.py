"""How the models were made (Figure 1), and the features that flow through them (Figure 2).

Both read from left to right, in the order in which the models were made: the base, a lane for each
of its children, the merge. Widths of the flow are to scale.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from featlib.family import BASE, CHILDREN, DOMAIN_NAMES, FAMILY, MERGE_OF, MERGED, PRINT_NAMES
from featlib.show.figure import Layered
from featlib.show.picks import list_features, picked_opacity
from featlib.show.scales import FATES, scale

LANES = tuple((BASE, child, MERGED) if child in MERGE_OF else (BASE, child) for child in CHILDREN)
BOXES = ((0, 30), (35, 65), (70, 100))  # the columns of boxes, in percent of the width
ROW = 110.0  # pixels from one child's box to the next
TOP = 40.0  # pixels above the first lane
LANE = 150.0  # pixels of a lane: the model with the most features fills it
GAP = 62.0  # pixels between lanes, for names
EDGES = ((0.0, 2.6), (48.7, 51.3), (97.4, 100.0))  # the columns of bars, in percent of the width
STUB = 17.0  # length of what ends or begins, same unit
SAG = 14.0  # pixels by which what ends falls away, and from which what begins rises
BANDS = {  # fate -> colour, and opacity at both ends of its band
    "persists": (FATES["persists"], 0.92, 0.92),
    "lost": (FATES["disappears"], 0.85, 0.0),
    "cannot tell": (FATES["disappears"], 0.3, 0.0),
    "untestable": (FATES["untestable"], 0.6, 0.0),
    "emerges": (FATES["emerges"], 0.0, 0.75),
}
CHOICES = {
    "p": {"text": "persist", "fates": "p", "filter": True},
    "l": {"text": "find no match", "fates": "d", "filter": True, "sort": "firings"},
    "e": {"text": "emerge", "fates": "e", "side": "child", "filter": True, "sort": "firings"},
    "u": {"text": "are untestable", "fates": "u", "filter": True, "sort": "firings"},
}


def _place(height: float, x: str = "x", y: str = "y") -> dict[str, Any]:
    """Places in percent of the width and in pixels from the top, without axes drawn."""
    wide = alt.Scale(domain=[0, 100], nice=False, zero=False)
    high = alt.Scale(domain=[height, 0], nice=False, zero=False)
    return {
        "x": alt.X(f"{x}:Q", axis=None, scale=wide),
        "y": alt.Y(f"{y}:Q", axis=None, scale=high),
    }


def _bend(start: float, end: float, u: np.ndarray) -> np.ndarray:
    return start + (end - start) * (3 * u**2 - 2 * u**3)


def design_diagram() -> Layered:
    """The models and how each was made."""
    lanes = {lane[1]: n for n, lane in enumerate(LANES)}
    middle, height = 45 + ROW * (len(lanes) - 1) / 2, 90 + ROW * (len(lanes) - 1)
    # Where a child's box stands, and where on the boxes beside it its arrows end.
    at = {child: 45 + ROW * n for child, n in lanes.items()}
    fan = {child: middle + 28 * (n - (len(lanes) - 1) / 2) for child, n in lanes.items()}
    boxes: list[dict[str, Any]] = []
    arrows: list[pd.DataFrame] = []
    u = np.linspace(0, 1, 15)
    for model in FAMILY:
        (left, right), y = BOXES[len(model.parents)], at.get(model.name, middle)
        how = ("trained on", "fine-tuned on", "merged")[len(model.parents)]
        texts = " + ".join(DOMAIN_NAMES[d] for d in model.mix)
        detail = "by slerp" if how == "merged" else texts
        box = {"model": model.print, "how": how, "detail": detail, "x": left, "x2": right, "y": y}
        boxes.append({**box, "middle": (left + right) / 2, "top": y - 34, "bottom": y + 34})
        for parent in model.parents:
            ends = (fan[model.name], y) if model.name in at else (at[parent], fan[parent])
            arrow = {"arrow": len(arrows), "x": left - 5 + 3.8 * u, "y": _bend(*ends, u)}
            arrows.append(pd.DataFrame(arrow))
    table, bends, place = pd.DataFrame(boxes), pd.concat(arrows), _place(height)
    line = alt.Chart(bends).mark_line(style="ink", strokeWidth=1.6, opacity=0.7)
    head = alt.Chart(bends.groupby("arrow").tail(1))
    head = head.mark_point(shape="triangle-right", size=70, style="ink-fill")
    box = alt.Chart(table).mark_rect(cornerRadius=8, fillOpacity=0.14, strokeWidth=2)
    colors = {"legend": None, "scale": scale(table["model"])}
    words = alt.Chart(table).encode(**_place(height, "middle"))
    return alt.layer(
        line.encode(**place, detail="arrow:N"),
        head.encode(**place),
        box.encode(
            **_place(height, y="top"),
            x2="x2:Q",
            y2="bottom:Q",
            fill=alt.Fill("model:N", **colors),
            stroke=alt.Stroke("model:N", **colors),
            tooltip=["model:N", "how:N", "detail:N"],
        ),
        words.mark_text(dy=-15, style="strong").encode(text="model:N"),
        words.mark_text(dy=5, style="muted").encode(text="how:N"),
        words.mark_text(dy=20, style="muted").encode(text="detail:N"),
    ).properties(width="container", height=height)


@dataclass
class _Drawing:
    """Rows of the tables behind the layers of the flow; y in pixels from the top."""

    scale: float  # pixels of a feature
    bands: list[pd.DataFrame] = field(default_factory=list)
    words: list[tuple[str, float, float, str, str]] = field(default_factory=list)
    bars: list[dict[str, Any]] = field(default_factory=list)

    def word(self, text: str, x: float, y: float, style: str, anchor: str = "left") -> None:
        self.words.append((text, x, y, style, anchor))

    def bar(self, model: str, column: int, size: float, top: float) -> None:
        (left, right), name, bottom = EDGES[column], PRINT_NAMES[model], top + size * self.scale
        bar = {"model": name, "features": round(size), "x": left, "x2": right}
        self.bars.append({**bar, "y": top, "y2": bottom})
        x, anchor = ((left, "left"), ((left + right) / 2, "center"), (right, "right"))[column]
        self.word(name, x, top - 25, "strong", anchor)
        self.word(f"{size:,.0f} features", x, top - 9, "muted", anchor)

    def pair(
        self, step: tuple[str, str], column: int, top: float, n: Mapping[str, float],
        children: float,
    ) -> None:  # fmt: skip
        """What becomes of the parent's features (`n`, by fate), and what is new in the child."""
        left, right = EDGES[column][1], EDGES[column + 1][0]
        scale, kept = self.scale, n["persists"]
        lost = kept + n["lost"]
        tested = lost + n["cannot tell"]
        every, begins = tested + n["untestable"], children - n["emerges"]
        u = np.linspace(0, 1, 13)
        end, falls = (left, left + STUB), SAG * _bend(0, 1, u)
        for fate, (start, stop, last), x, drop in (
            ("persists", (0, kept, begins), (left, right), 0 * u),
            ("lost", (kept, lost, lost), end, falls),
            ("cannot tell", (lost, tested, tested), end, falls),
            ("untestable", (tested, every, every), end, falls),
            ("emerges", (begins, children, children), (right - STUB, right), SAG * (1 - u) ** 2),
        ):
            if stop > start:
                band = {
                    "band": ">".join(step) + fate,
                    "fate": fate,
                    "from": PRINT_NAMES[step[0]],
                    "to": PRINT_NAMES[step[1]],
                    "features": round(stop - start, 1),
                    "step": ">".join(step),
                    "choice": "l" if fate == "cannot tell" else fate[0],  # both find no match
                    "x": np.interp(u, (0, 1), x),
                    "y": top + start * scale + drop,
                    "y2": top + _bend(stop, last, u) * scale + drop,
                }
                self.bands.append(pd.DataFrame(band))

        share, taken = kept / max(tested, 1), [float(top)]  # heights that are written on
        if kept * scale >= 20:
            middle = (left + right) / 2
            self.word(f"{share:.0%} persist", middle, top + kept * scale / 2, "on-colour", "center")
        else:
            taken = [top + kept * scale + 12]
            self.word(f"{share:.0%} persist", left + STUB + 0.6, taken[0], "strong")
        for fate, start, stop in (
            ("lost", kept, lost), ("cannot tell", lost, tested), ("untestable", tested, every)
        ):  # fmt: skip
            if n[fate]:
                middle = top + (start + stop) / 2 * scale + SAG / 3
                taken.append(max(middle, taken[-1] + 13))
                self.word(f"{n[fate]:,.0f} {fate}", left + 1, taken[-1], "count")
        if n["emerges"]:
            y = top + (begins + children) / 2 * scale
            while any(abs(t - y) < 12 for t in taken):
                y += 1
            self.word(f"{n['emerges']:,.0f} emerge", right - 1, y, "count", "right")


def flow(flows: pd.DataFrame) -> Layered:
    """Features as they flow from the base through its children into the merge (Figure 2).

    `flows` has one row per step and fate (`BANDS`): parent, child, fate, count (means over
    autoencoders need not be whole) and children (the number of the child's features). All widths
    are to one scale; the persisting band may narrow, since two features can find the same match.
    What finds no match has two shades: lost, if every other seed of the parent finds it; otherwise
    nobody can tell.
    """
    steps = dict(list(flows.groupby(["parent", "child"], sort=False)))
    counts = {
        step: dict.fromkeys(BANDS, 0.0) | group.set_index("fate")["count"].to_dict()
        for step, group in steps.items()
    }
    sizes = {child: group["children"].iloc[0] for (_, child), group in steps.items()}
    sizes |= {parent: sum(n.values()) - n["emerges"] for (parent, _), n in counts.items()}
    drawing, shown = _Drawing(scale=LANE / max(sizes.values())), []
    for lane, chain in enumerate(LANES):
        top = TOP + lane * (LANE + GAP)
        for column, model in enumerate(chain):
            if model in sizes:
                drawing.bar(model, column, sizes[model], top)
        for column, step in enumerate(itertools.pairwise(chain)):
            if step in steps:
                drawing.pair(step, column, top, counts[step], sizes[step[1]])
                shown.append(step)
    height = TOP + len(LANES) * (LANE + GAP) - GAP + 12
    chart = alt.layer(*_layers(drawing, _place(height)), data=flows)
    note = "The picture counts means over pairs of autoencoders; the list is of one pair."
    sized = chart.properties(width="container", height=height)
    return list_features(sized, shown, CHOICES, note)


def _layers(drawing: _Drawing, place: dict[str, Any]) -> list[alt.Chart]:
    number = alt.Tooltip("features:Q", format=",")
    layers, look = [], {"y2": "y2:Q", "detail": "band:N", "opacity": picked_opacity()}
    for fate, part in pd.concat(drawing.bands).groupby("fate", sort=False):
        band = alt.Chart(part).mark_area(color=_faded(*BANDS[str(fate)]), cursor="pointer")
        layers.append(band.encode(**place, **look, tooltip=["from:N", "to:N", "fate:N", number]))
    bars = pd.DataFrame(drawing.bars)
    color = alt.Color("model:N", scale=scale(bars["model"]), legend=None)
    bar = alt.Chart(bars).encode(**place, x2="x2:Q", y2="y2:Q", color=color)
    layers.append(bar.mark_rect().encode(tooltip=["model:N", number]))
    words = pd.DataFrame(drawing.words, columns=["text", "x", "y", "style", "anchor"])
    for (style, anchor), part in words.groupby(["style", "anchor"]):
        word = alt.Chart(part).encode(**place, text="text:N")
        layers.append(word.mark_text(align=anchor, baseline="middle", style=style))
    return layers


def _faded(color: str, start: float, stop: float) -> Any:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    ends = [
        alt.GradientStop(color=f"rgba({red},{green},{blue},{opacity})", offset=offset)
        for offset, opacity in ((0, start), (1, stop))
    ]
    return alt.LinearGradient(gradient="linear", x1=0, x2=1, y1=0, y2=0, stops=ends)
