"""Figures that are live in a browser and still there on paper, and the colours of all of them.

A figure is one piece of HTML that needs no network: the chart's specification for the live drawing
(`book/_static/featlib.js` draws it), a static SVG for print and for readers without scripts, a
caption, the table behind it, and a line saying what made it. Colours come from one theme, so that
the book can redraw a chart in light and in dark without a change in the notebook.
"""

from __future__ import annotations

import base64
import html
import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import altair as alt
import pandas as pd
import vl_convert

from featlib import FeatlibError

Layered: TypeAlias = alt.LayerChart | alt.FacetChart  # what Altair says alt.layer gives

STATIC_WIDTH = 700  # pixels; the measure of a page of the book on a laptop
CSV_BYTES = 150_000  # a page stays light: longer tables are cut, and the link says so
TABLE_ROWS = 8

INK = {"light": "#1f2328", "dark": "#e6e8eb"}
MUTED = {"light": "#59636e", "dark": "#a4adb8"}
GRID = {"light": "#e3e6ea", "dark": "#343a42"}
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"


def theme(mode: Literal["light", "dark"], font: str = FONT) -> dict[str, Any]:
    """Vega-Lite configuration of every chart; only ink, grid and legend differ between modes."""
    ink, muted, grid = INK[mode], MUTED[mode], GRID[mode]
    sizes = {"labelFontSize": 12, "titleFontSize": 12}
    return {
        "background": None,
        "font": font,
        "aria": False,  # the figure itself carries the alternative text
        "padding": {"left": 2, "right": 6, "top": 6, "bottom": 2},
        "view": {"stroke": None},
        "axis": {
            **sizes,
            "labelColor": muted,
            "titleColor": ink,
            "titleFontWeight": 500,
            "titlePadding": 8,
            "labelPadding": 5,
            "gridColor": grid,
            "domainColor": grid,
            "ticks": False,
        },
        "axisY": {"domain": False},
        "axisX": {"grid": False, "tickCount": 6, "labelFlush": False},
        "legend": {
            **sizes,
            "labelColor": ink,
            "orient": "top",
            "direction": "horizontal",
            "layout": {"top": {"direction": "vertical", "anchor": "start"}},  # one below another
            "symbolSize": 90,
            "symbolBaseFillColor": muted,
            "symbolStrokeWidth": 2.5,
            "columnPadding": 14,
            "offset": 8,
        },
        "title": {
            "color": ink,
            "subtitleColor": muted,
            "fontSize": 13,
            "subtitleFontSize": 12,
            "fontWeight": 600,
            "anchor": "start",
            "frame": "bounds",
            "offset": 6,
        },
        "text": {"color": ink, "fontSize": 12},
        "tick": {"color": ink},
        "line": {"strokeWidth": 2.2},
        "point": {"filled": True, "opacity": 1},
        "style": {
            "ink": {"stroke": ink, "color": ink},
            "muted": {"color": muted, "fontSize": 11},
            "count": {"fontSize": 11},
            "on-colour": {"color": "#ffffff", "fontWeight": 600, "fontSize": 13},
            "ink-fill": {"fill": ink, "stroke": ink, "color": ink},
            "strong": {"fontWeight": 600, "fontSize": 13},
        },
    }


class Markup(str):
    """HTML that a notebook shows as HTML; our own code has escaped everything inside it.

    `data` is the table behind it, where there is one.
    """

    data: pd.DataFrame | None = None

    def _repr_html_(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Figure:
    """A figure of the book. A notebook shows it when it is the last value of a cell."""

    name: str
    alt: str  # the finding in words, for those who cannot see the drawing
    html: str  # the figure as one HTML element, whose anchor is fig-<name>

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> tuple[dict[str, str], dict[str, Any]]:
        data = {"text/html": self.html, "text/plain": f"Figure {self.name}: {self.alt}"}
        # Other pages may show it again: MyST-NB's `glue` under its name.
        return data, {"scrapbook": {"name": self.name, "mime_prefix": ""}}


def figure(
    chart: alt.TopLevelMixin | Markup, *, name: str, caption: str, alt: str,
    data: pd.DataFrame | None = None, made_by: str = "",
) -> Figure:  # fmt: skip
    """Make a chart, or token strips, a figure of the book.

    `name` is unique on its page (lower case, digits, hyphens). `caption` may hold `code` and
    *emphasis*. `alt` states the finding. `data` is the table behind the figure; without it, the
    table of the chart itself is taken. `made_by` names notebook, parameters and commit.

    Raises FeatlibError where the name, caption or alt text cannot serve a reader, and where the
    chart holds a number that is not finite.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise FeatlibError(f"figure name {name!r}: use lower-case words joined by hyphens")
    for what, text in {"caption": caption, "alt text": alt}.items():
        if len(text.split()) < 3:
            raise FeatlibError(f"figure {name}: the {what} {text!r} says too little; write a line")
    if data is None:
        tables = [part.data for part in [chart, *getattr(chart, "vconcat", [])]]
        tables = [table for table in tables if isinstance(table, pd.DataFrame)]
        data = pd.concat(tables, ignore_index=True) if tables else None
    label = html.escape(alt)
    if isinstance(chart, Markup):
        parts = [f'<div class="fl-html" role="group" aria-label="{label}">{chart}</div>']
    else:
        spec = chart_spec(chart)
        text = json.dumps(spec, ensure_ascii=False, separators=(",", ":"))
        text = re.sub("[<>&]", lambda sign: f"\\u{ord(sign[0]):04x}", text)  # no tag can begin
        parts = [
            '<div class="fl-chart">'
            f'<div class="fl-live" role="img" aria-label="{label}" hidden></div>'
            f'<div class="fl-static">{_static_svg(spec, name, label)}</div></div>',
            f'<script type="application/json" class="fl-spec">{text}</script>',
        ]
    said = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(caption, quote=False))
    said = re.sub(r"\*([^*]+)\*", r"<em>\1</em>", said)
    parts += [f"<figcaption><p>{said}</p>"]
    parts += [] if data is None else [_table_behind(data, name)]
    parts += [f'<p class="fl-made">Made by {html.escape(made_by)}</p>'] if made_by else []
    body = "\n".join([*parts, "</figcaption></figure>"])
    return Figure(name, alt, f'<figure class="fl-figure" id="fig-{name}">\n{body}')


def chart_spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """A chart's Vega-Lite specification, numbers rounded to six digits, none of them NaN."""
    try:
        text = json.dumps(chart.to_dict(), allow_nan=False)
    except ValueError:
        raise FeatlibError(
            "a chart holds a number that is not finite; drop or fill it first"
        ) from None
    spec = json.loads(text, parse_float=lambda number: float(f"{float(number):.6g}"))
    spec.pop("config", None)  # the theme of the book decides
    spec.pop("$schema", None)
    return spec


def set_width(spec: dict[str, Any], width: float) -> dict[str, Any]:
    """The specification at `width` pixels. Stacked panels share a gutter for their axis labels."""
    gutter = spec.get("usermeta", {}).get("gutter", 0)
    if "vconcat" in spec:
        return {**spec, "vconcat": [{**v, "width": width - gutter} for v in spec["vconcat"]]}
    return {**spec, "width": width, "autosize": {"type": "fit-x", "contains": "padding"}}


def _static_svg(spec: dict[str, Any], name: str, label: str) -> str:
    svg = vl_convert.vegalite_to_svg(
        set_width(spec, STATIC_WIDTH), config=theme("light", "sans-serif"), allowed_base_urls=[]
    )
    # Ids (clips, gradients) are unique in one SVG only; a page holds several.
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    # The drawing follows the ink of the page around it.
    of_page = {"currentColor": INK, "var(--fl-muted,{})": MUTED, "var(--fl-grid,{})": GRID}
    for css, colours in of_page.items():
        svg = svg.replace(f'"{colours["light"]}"', f'"{css.format(colours["light"])}"')
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def _table_behind(data: pd.DataFrame, name: str) -> str:
    csv, rows = data.to_csv(index=False, float_format="%.6g"), len(data)
    if len(csv.encode()) > CSV_BYTES:
        kept = csv.encode()[:CSV_BYTES].decode(errors="ignore").rsplit("\n", 1)[0] + "\n"
        csv, rows = kept, max(kept.count("\n") - 1, 0)
    uri = "data:text/csv;charset=utf-8;base64," + base64.b64encode(csv.encode()).decode()
    size = f"all {rows:,}" if rows == len(data) else f"the first {rows:,} of {len(data):,}"
    shown = f", the first {TABLE_ROWS} shown" if len(data) > TABLE_ROWS else ""
    return (
        f'<details class="fl-table"><summary>Table behind it ({len(data):,} rows{shown})</summary>'
        f'<div class="fl-scroll" tabindex="0" role="region" aria-label="Table behind {name}">'
        f"{table(data.head(TABLE_ROWS))}</div>"
        f'<p><a download="{name}.csv" href="{uri}">Download as CSV</a> ({size} rows)</p></details>'
    )


def fold(content: Markup, summary: str) -> Markup:
    """`content` behind a line to open it: what few readers need, and those find."""
    return Markup(
        f'<details class="fl-table"><summary>{html.escape(summary)}</summary>{content}</details>'
    )


def table(data: pd.DataFrame, digits: int = 4) -> Markup:
    """A small HTML table: numbers to the right and short, text escaped, a dash for what is missing.

    The numbers of a column named feature are names: they get no comma.
    """

    def cell(value: Any, column: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"<td>{html.escape(str(value))}</td>"
        if isinstance(value, float) and math.isnan(value):
            return '<td class="fl-num">–</td>'
        text = f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}"
        text = text.replace(",", "") if str(column).split(" ")[-1] == "feature" else text
        return f'<td class="fl-num">{text.replace("-", "−")}</td>'

    head = "".join(f'<th scope="col">{html.escape(str(c))}</th>' for c in data.columns)
    body = "".join(
        f"<tr>{''.join(map(cell, row, data.columns))}</tr>"
        for row in data.itertuples(index=False, name=None)
    )
    return Markup(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
