"""What stands for a name (one colour, shape and dash on all charts) and for a number (an axis)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from featlib.family import (
    BASE,
    DOMAIN_COLORS,
    DOMAIN_NAMES,
    FAMILY,
    MERGE_OF,
    MERGED,
    MODEL_COLORS,
    PAIRS,
    PRINT_NAMES,
    TRAINED_ON,
    step_name,
)

VIOLET, OCHRE, CYAN, GREY = "#6a51c7", "#a8741a", "#1fa0c4", "#6f7276"
BLUE, VERMILION, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
FATES = {"persists": VIOLET, "disappears": OCHRE, "emerges": CYAN, "untestable": GREY}
NAMES = DOMAIN_NAMES | PRINT_NAMES  # as tables have it -> as a reader sees it
# How a share was measured, and how a feature was found again: colour and shape.
WAYS = {
    "matching": (VIOLET, "circle"),
    "ceiling: other seed": (GREY, "diamond"),
    "ceiling: other model": (OCHRE, "triangle-left"),
    "ceiling: other text": (BLUE, "triangle-right"),
    "labels": (GREY, "triangle-up"),
    "correlation": (VIOLET, "circle"),
    "transfer": (CYAN, "square"),
    "crosscoder": (OCHRE, "triangle-left"),
    "neurons": (GREEN, "triangle-down"),
    "warm start": (PINK, "cross"),
    "the feature": (VIOLET, "circle"),
    "random features": (GREY, "diamond"),
}
# Of these a chart shows one row each; their order is the order of every chart.
_TOGETHER = (
    {"shifted within documents": BLUE, "documents permuted": VERMILION, "random dictionary": GREEN},
    {"both ends": PINK, "one end": VIOLET, "neither end": CYAN},  # of a merge, keep a feature
    {"parent only": OCHRE, "more in one": GREY, "shared": VIOLET, "child only": CYAN},
    {"spherical": PINK, "linear (fallback)": GREY},
    {"another's explanation": GREY, "token frequency": OCHRE},
    {"persisting": VIOLET, "equally common": GREY},  # features "Lua, persisting"
)
COLORS: dict[str, str] = {}
for _model in (*FAMILY, TRAINED_ON):
    COLORS |= {DOMAIN_NAMES[domain]: DOMAIN_COLORS[domain] for domain in _model.mix}
    COLORS[_model.print] = _model.color
# A step has the colour of its fine-tune, whether it leads there or on from there.
COLORS |= {step_name(a, b): MODEL_COLORS[b if a == BASE else a] for a, b in PAIRS}
COLORS |= FATES | {way: color for way, (color, _) in WAYS.items()}
for _names in _TOGETHER:
    COLORS |= _names
SHAPES = {way: shape for way, (_, shape) in WAYS.items()}
# Two steps have the colour of one fine-tune; the search by labels often runs upon transfer's line.
DASHES = {step_name(a, b): [5, 3] if b == MERGED else [1, 0] for a, b in PAIRS}
DASHES |= {"labels": [4, 4], "transfer": [1, 0]}
OTHERS: dict[str, list[Any]] = {  # what names that the book does not know get, in turn
    "color": [BLUE, VERMILION, GREEN, PINK, VIOLET, OCHRE, CYAN, GREY],
    "shape": ["circle", "diamond", "square", "triangle-up", "cross", "triangle-right"],
    "strokeDash": [[1, 0], [5, 3], [2, 2], [8, 3, 2, 3], [1, 3]],
}
KNOWN: dict[str, Mapping[str, Any]] = {"color": COLORS, "shape": SHAPES, "strokeDash": DASHES}


def printed(name: Any) -> str:
    """A name in a table as a reader sees it."""
    return NAMES.get(name, str(name).replace("_", " "))


def in_order(names: Iterable[str]) -> list[str]:
    """Each name once, in the book's order; those that it does not know last, as they come."""
    places = {name: place for place, name in enumerate(COLORS)}

    def place(name: str) -> tuple[int, bool]:
        return places.get(name, places.get(name.split(", ")[0], len(places))), name not in places

    return sorted(dict.fromkeys(names), key=place)


def scale(names: Iterable[str], channel: str = "color", in_turn: bool = False) -> alt.Scale:
    """The names in order, each with its own colour, shape or dash (`in_turn`: with the next one).

    A name with a comma that has none of its own looks like the part behind it, or else before it.
    """
    order, others = in_order(names), iter(OTHERS[channel] * 9)
    known = {} if in_turn else KNOWN[channel]
    parts = [(name, *reversed(name.split(", "))) for name in order]
    looks = [next((known[p] for p in tried if p in known), None) or next(others) for tried in parts]
    return alt.Scale(domain=order, range=looks)


@dataclass(frozen=True)
class Axis:
    """A column of numbers, and how its axis is drawn."""

    column: str
    title: str | list[str] | None = None
    format: str = ""  # of the numbers along it (d3)
    domain: tuple[float, float] | None = None  # what lies beyond is drawn at the end
    zero: bool = False  # whether it has to reach down to 0
    log: bool = False
    values: Sequence[float] = ()  # where numbers stand
    words: Mapping[float, str | list[str]] = field(default_factory=dict)  # instead of a number

    def on(self, channel: type, column: str = "", **look: Any) -> Any:
        """The axis as an Altair channel, of another column (the end of an interval) if need be."""
        scale: dict[str, Any] = {"zero": self.zero, "nice": not (self.domain or self.log)}
        if self.domain:
            scale |= {"domain": list(self.domain), "clamp": True}
        if self.log:
            scale = {"type": "log", "nice": False}
        if self.format:
            look["format"] = self.format
        if self.values:
            look["values"] = list(self.values)
        if self.words:
            said = [f"datum.value == {at} ? {json.dumps(w)}" for at, w in self.words.items()]
            look |= {"labelExpr": " : ".join([*said, "datum.label"]), "labelFlush": True}
        name = f"{column or self.column}:Q"
        return channel(name, title=self.title, scale=alt.Scale(**scale), axis=look or alt.Undefined)

    def tip(self, column: str = "") -> alt.Tooltip:
        form = ".2~%" if self.format.endswith("%") else ",.3~f"
        return alt.Tooltip(f"{column or self.column}:Q", format=form)


def t_axis(column: str = "t") -> Axis:
    """The way between the two merged models, named at its ends."""
    first, second = (PRINT_NAMES[model] for model in MERGE_OF)
    return Axis(
        column, f"t (0 = {first}, 1 = {second})", ".2~f", domain=(0, 1),
        values=(0, 0.25, 0.5, 0.75, 1), words={0: ["0", first], 1: ["1", second]},
    )  # fmt: skip
