"""A small grammar of charts: dots, lines, bars and areas of tidy tables; `stack` joins panels.

A chart is a call in a notebook: a table, an `Axis` of numbers, and the columns that say what each
mark stands for. Names of models and domains are printed as in the book, and every name keeps its
colour, shape and dash wherever it appears (`COLORS`). A chart carries no theme and no fixed width:
`featlib.show.figure` and the page around it decide both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from featlib import FeatlibError
from featlib.show.figure import Layered
from featlib.show.scales import FATES, Axis, in_order, printed, scale


def read(
    data: pd.DataFrame, numbers: Iterable[str], names: Iterable[str | None],
    keep: Iterable[str] = (),
) -> pd.DataFrame:  # fmt: skip
    """The columns that a chart draws, names as the book prints them, in the book's order."""
    numbers, named = list(dict.fromkeys(numbers)), [n for n in dict.fromkeys(names) if n]
    drawn = list(dict.fromkeys([*named, *numbers, *keep]))
    if missing := [c for c in drawn if c not in data.columns]:
        raise FeatlibError(f"a chart needs columns {missing}; its table has {list(data.columns)}")
    if data.empty:
        raise FeatlibError("a chart has no rows to draw")
    table = data[drawn].reset_index(drop=True)
    if not np.isfinite(table[numbers].to_numpy(float)).all():
        raise FeatlibError(f"one of {numbers} is not finite in some row; drop or fill it first")
    for column in named:
        table[column] = table[column].map(printed)
    for column in reversed(named):
        table = table.sort_values(column, key=lambda c: c.map(in_order(c).index), kind="stable")
    return table


def looks(
    table: pd.DataFrame, symbol: str | None, columns: int | None = None, legend: bool = True,
    in_turn: bool = False, **channels: str | None,
) -> dict[str, Any]:  # fmt: skip
    """Channels color, shape and strokeDash of the columns given, with their legends."""
    made = {}
    for channel, column in channels.items():
        if column:
            key = alt.Legend(symbolOpacity=1)
            if symbol:
                key["symbolType"] = symbol
            if columns:
                key["columns"] = columns
            kind = {"color": alt.Color, "shape": alt.Shape, "strokeDash": alt.StrokeDash}[channel]
            shown = key if legend or channel == "shape" else None
            own = scale(table[column], channel, in_turn)
            made[channel] = kind(f"{column}:N", title=None, legend=shown, scale=own)
    return made


def name_axis(table: pd.DataFrame, column: str, order: Any = None, grid: bool = False) -> alt.Y:
    """Names from top to bottom, broken before an arrow and behind a comma."""
    names = table[column]
    lines = "split(replace(replace(datum.label, ' → ', '|→ '), ', ', '|'), '|')"
    both = all(" → " in name or ", " in name for name in names)
    axis = {"labelExpr": lines, "labelLimit": 160, "labelOffset": -7 * both, "grid": grid}
    return alt.Y(f"{column}:N", title=None, sort=order or in_order(names), axis=axis)


def beside_axis(table: pd.DataFrame, column: str | None) -> alt.YOffset:
    """What shares a name, side by side."""
    place = alt.Scale(domain=in_order(table[column]), paddingInner=0.25)
    return alt.YOffset(f"{column}:N", scale=place)


def marked(x: Axis, at: float, text: str = "", reach: Iterable[float] = ()) -> list[alt.Chart]:
    """An upright rule, and a muted word beside it, on the side that has room."""
    base = alt.Chart(pd.DataFrame({x.column: [at], "text": [text]})).encode(x=x.on(alt.X))
    rule = base.mark_rule(style="ink", strokeDash=[4, 3], opacity=0.7)
    low, high = min([*reach, at]), max([*reach, at])
    left = x.log or at <= low + 0.7 * (high - low)
    word = base.mark_text(align="left" if left else "right", dx=6 if left else -6, style="muted")
    return [rule, word.encode(text="text:N", y=alt.value(8))] if text else [rule]


def framed(layers: Sequence[Any], table: pd.DataFrame, height: Any, title: Any = None) -> Layered:
    more = {"title": title} if title else {}
    return alt.layer(*layers, data=table).properties(width="container", height=height, **more)


def stack(*panels: Layered, left: int) -> alt.VConcatChart:
    """Panels one above another; `left` pixels of each hold the names or numbers of its rows."""
    for panel in panels:
        for layer in panel.layer:
            y = layer.encoding.y
            if isinstance(y, alt.Y):
                old = y["axis"] if isinstance(y["axis"], dict) else {}
                y["axis"] = {**old, "minExtent": left, "maxExtent": left}
        panel.width = 500  # whatever the page has, less the gutter and some room for long numbers
    chart = alt.vconcat(*panels, spacing=18, usermeta={"gutter": left + 50})
    own = {"color": "independent", "strokeDash": "independent"}  # a legend each
    return chart.resolve_scale(**own, x="independent")


def dots(
    data: pd.DataFrame, x: Axis, y: str, *, color: str | None = None, shape: str | None = None,
    beside: str | None = None, span: tuple[str, str] | None = None,
    each: pd.DataFrame | None = None, order: Sequence[str] | str | None = None,
    rule: float | None = None, columns: int | None = None, title: str | None = None,
) -> Layered:  # fmt: skip
    """A dot a row of the table, by name (`y`); `beside` puts what shares a name side by side.

    `span` names the ends of an interval (where one is missing, the dot is all there is). `each`, a
    table of the same columns, puts a tick under a dot for every value of which it is the mean.
    """
    names = [y, beside, color, shape]
    if span:
        data = data.assign(**{end: data[end].fillna(data[x.column]) for end in span})
    table = read(data, [x.column, *(span or ())], names)
    rows = len(set(table[beside])) if beside else 1
    tips = [f"{n}:N" for n in dict.fromkeys(names) if n]
    tips += [x.tip(c) for c in (x.column, *(span or ()))]
    base = alt.Chart(table).encode(x=x.on(alt.X), y=name_axis(table, y, order, True), tooltip=tips)
    base = base.encode(**looks(table, None, columns, color != y, color=color))
    if beside:
        base = base.encode(yOffset=beside_axis(table, beside))
    layers = [] if rule is None else marked(x, rule)
    if each is not None:
        ticks = base.properties(data=read(each, [x.column], names)).encode(tooltip=tips[:-2])
        layers.append(ticks.mark_tick(thickness=1.5, size=14, opacity=0.6))
    if span:
        ends = base.mark_rule(strokeWidth=2, opacity=0.6)
        layers.append(ends.encode(x=x.on(alt.X, span[0]), x2=f"{span[1]}:Q"))
    point = base.mark_point(size=70)
    layers.append(point.encode(**looks(table, None, columns, shape=shape)))
    height = alt.Step(max(13, 40 // rows) if beside else 21)
    return framed(layers, table, height, title)


def lines(
    data: pd.DataFrame, x: Axis, y: Axis, *, color: str | None = None, dash: str | None = None,
    band: tuple[str, str] | None = None, points: bool = False, step: bool = False,
    rule: tuple[float, str] | None = None, levels: pd.DataFrame | None = None,
    legend: bool = True, columns: int | None = None, height: int = 260, keep: Sequence[str] = (),
) -> Layered:  # fmt: skip
    """A line for each colour and dash, with its dots (`points`) and its interval (`band`).

    `rule` is an upright rule with a word beside it; `levels` is a table of values of `y`, drawn as
    dashed levels in their own colours. `step`: y holds from its x to the next one. `keep` names
    columns that the table behind the chart has besides.
    """
    ends = band or ()
    table = read(data, [x.column, y.column, *ends], [color, dash], keep)
    if dash:  # the first name is drawn last, so that lines beneath it are seen through its gaps
        table = table[::-1]
    tips = [f"{n}:N" for n in dict.fromkeys((color, dash)) if n]
    tips += [x.tip(), *(y.tip(c) for c in (y.column, *ends))]
    colored = looks(table, "stroke", columns, legend, color=color)
    # Dashes that say what the colour does not are given in turn, so that no two are alike.
    dashed = looks(table, "stroke", columns, legend, dash != color, strokeDash=dash)
    grey = {} if color else {"color": FATES["untestable"]}
    base = alt.Chart(table).encode(x=x.on(alt.X), y=y.on(alt.Y), **colored)
    layers: list[Any] = marked(x, *rule, table[x.column]) if rule else []
    if levels is not None:
        own = alt.Chart(read(levels, [y.column], [color])).encode(y=y.on(alt.Y), **colored)
        own = own.encode(tooltip=[*tips[:1], y.tip()])
        layers.append(own.mark_rule(strokeDash=[5, 4], strokeWidth=1.5))
    if band:
        area = base.mark_area(opacity=0.18, **grey)
        layers.append(area.encode(y=y.on(alt.Y, band[0]), y2=f"{band[1]}:Q"))
    shape = {"interpolate": "step-after"} if step else {}
    layers.append(base.mark_line(**shape, **grey).encode(**dashed))
    dot = base.mark_point(size=40, opacity=float(points), **grey)
    layers.append(dot.encode(tooltip=tips))
    return framed(layers, table, height)


def areas(
    data: pd.DataFrame, x: Axis, y: Axis, *, color: str | None = None,
    rule: tuple[float, str] | None = None, columns: int | None = None, height: int = 260,
) -> Layered:  # fmt: skip
    """Areas upon one another, one for each colour, from the first name up."""
    table = read(data, [x.column, y.column], [color])
    colored = looks(table, "square", columns, color=color)
    filled = {"color": FATES["untestable"]}
    if color:
        table["rank"] = [in_order(table[color]).index(name) for name in table[color]]
        colored["order"], filled = alt.Order("rank:Q"), {}
    base = alt.Chart(table).encode(
        x=x.on(alt.X), y=y.on(alt.Y), tooltip=[*[f"{color}:N"] * bool(color), x.tip(), y.tip()]
    )
    layers = [base.mark_area(line=filled or True, opacity=0.5, **filled).encode(**colored)]
    return framed([*layers, *(marked(x, *rule, table[x.column]) if rule else [])], table, height)


def bars(
    data: pd.DataFrame, x: Axis, y: str, *, color: str | None = None, beside: bool = False,
    shade: str | None = None, order: Sequence[str] | str | None = None, text: str = "",
    upto: str = "", span: tuple[str, str] | None = None, columns: int | None = None,
    step: int | None = None,
) -> Layered:  # fmt: skip
    """A bar a row of the table, by name (`y`): stacked, or with `beside` one for each colour.

    `shade` makes a bar paler with each of its values, in the order of the table. `upto` is how far
    the bar could have reached, `span` the ends of an interval, `text` what stands behind the bar.
    """
    words = [text] if text not in ("", x.column) else []
    numbers = [x.column, *[upto] * bool(upto), *(span or ())]
    data = data.assign(**{c: data[c].fillna(data[x.column]) for c in numbers[1:]})
    shades = list(dict.fromkeys(map(printed, data[shade]))) if shade else []
    table = read(data, numbers, [y, color, shade], words)
    inner = table[shade or color or y]
    table["rank"] = [(shades or in_order(inner)).index(name) for name in inner]
    table["far"] = table[numbers].max(axis=1)
    tips = [f"{n}:N" for n in dict.fromkeys((y, color, shade)) if n] + [x.tip(c) for c in numbers]
    base = alt.Chart(table).encode(x=x.on(alt.X), y=name_axis(table, y, order), tooltip=tips)
    if beside:
        base = base.encode(yOffset=beside_axis(table, color))
    colored = looks(table, "square", columns, color != y, color=color)
    look: dict[str, Any] = {} if beside else {"height": {"band": 0.6}}
    look |= {} if color else {"color": FATES["persists"]}
    bar = base.mark_bar(**look).encode(**colored, order="rank:Q")
    if shade:
        paler = alt.Scale(domain=shades, range=list(np.linspace(0.95, 0.3, len(shades))))
        key = alt.Legend(symbolType="square")
        bar = bar.encode(opacity=alt.Opacity(f"{shade}:N", legend=key, scale=paler))
    layers = [bar]
    if upto:
        top = base.encode(x=x.on(alt.X, upto))
        layers.insert(0, top.mark_bar(**look, opacity=0.2))
        layers.append(top.mark_tick(thickness=3, bandSize=24))
    if span:
        ends = base.mark_rule(style="ink", strokeWidth=1.6)
        layers.append(ends.encode(x=x.on(alt.X, span[0]), x2=f"{span[1]}:Q"))
    if text:
        said = alt.Text(f"{text}:N") if words else alt.Text(f"{text}:Q", format=x.format)
        word = base.mark_text(align="left", dx=8, style="strong" if words else "muted")
        layers.append(word.encode(text=said, x=x.on(alt.X, "far")))
    return framed(layers, table, alt.Step(step or (17 if beside else 40)))


def averaged(curves: pd.DataFrame, along: str, by: str, points: int = 80) -> pd.DataFrame:
    """Each curve as the means of its numbers over at most `points` stretches of equal length."""
    parts = []
    for name, part in curves.sort_values(along).groupby(by, sort=False):
        stretch = np.minimum(np.arange(len(part)) * points // len(part), points - 1)
        parts.append(part.select_dtypes("number").groupby(stretch).mean().assign(**{by: name}))
    return pd.concat(parts, ignore_index=True)
