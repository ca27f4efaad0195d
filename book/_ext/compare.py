"""Put runs side by side: `python book/_ext/compare.py mini again`, prints the path of a page.

The page, `runs/compare/<a>-<b>/index.html`, is one file that needs nothing else: every number of
every run, how it differs from the first run's, and charts; the parameters that differ; the time
that each chapter took.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from featlib import FeatlibError
from featlib.family import DOMAIN_NAMES, PRINT_NAMES
from featlib.run import Run, atomic_path
from featlib.show.figure import Figure, figure, table, theme

STATIC = Path(__file__).resolve().parents[1] / "_static"
# Colour-blind-safe, at least 3 to 1 against white and against the dark page, and none of them a
# model's: a colour here is a run.
COLORS = ("#7b6cd9", "#b88300", "#2f8f46", "#c2567a", "#3f8fb5", "#75787c")
NAMES = {"base": "", **DOMAIN_NAMES, **PRINT_NAMES}  # models, and domains, in the book's order
SECTIONS = {
    "lm": "Language models",
    "merge": "Merging",
    "sae": "Autoencoders",
    "match": "Matching",
    "null": "Nulls",
    "case": "Case studies",
    "explain": "Explanations",
    "transfer": "Transfer",
    "control": "Controls",
    "warm": "Warm start",
}
# Each chart: its name, the keys that it shows (their groups name the row), the title of its axis.
CHARTS = (
    ("accuracy", r"lm\.(\w+)\.(\w+)\.accuracy", "next-token accuracy"),
    ("persistence", r"match\.(\w+)\.(\w+)\.persist", "share that persists"),
    ("calibrated", r"match\.(\w+)\.(\w+)\.calibrated", "persisting share over seed ceiling"),
    ("recovered", r"sae\.(\w+)\.(\d+)\.ce_recovered", "cross-entropy recovered"),
    ("cases", r"case\.(.+)\.(\w+)\.f1", "F1"),
    ("explanations", r"explain\.(\w+)\.(\w+)_median", "median score"),
)


def gather(runs: Sequence[Run]) -> pd.DataFrame:
    """All metrics, one row a key and one column a run; NaN where a run lacks the number."""
    columns = {}
    for run in runs:
        if not run.metrics():
            known = sorted(p.parent.name for p in run.folder.parent.glob("*/metrics.json"))
            raise FeatlibError(
                f"{run.folder} has no metrics.json: no such run, or none of its chapters is done. "
                f"There are: {', '.join(known) or 'none'}."
            )
        columns[run.name] = pd.Series(run.metrics(), dtype=float)
    return pd.DataFrame(columns).sort_index()


def differences(numbers: pd.DataFrame) -> pd.DataFrame:
    """`numbers` with, for every run but the first, its difference from the first."""
    first, *others = numbers.columns
    shown = numbers.rename_axis("number").reset_index()
    for run in others:
        shown[f"{run} − {first}"] = (numbers[run] - numbers[first]).to_numpy()
    return shown


def chart_rows(numbers: pd.DataFrame, pattern: str) -> pd.DataFrame:
    """Long table of the numbers whose key matches `pattern` in full: row, run, value."""
    found = [
        {"row": " · ".join(map(_name, m.groups())), "run": run, "value": value}
        for m, values in _in_order(numbers, pattern)
        for run, value in values.dropna().items()
    ]
    return pd.DataFrame(found, columns=["row", "run", "value"])


def _in_order(numbers: pd.DataFrame, pattern: str) -> list[tuple[re.Match[str], pd.Series]]:
    """The matching keys and their rows, models and domains in the book's order."""
    places = {name: f"{place:03}" for place, name in enumerate(NAMES)}
    found = [
        (match, values)
        for key, values in numbers.iterrows()
        if (match := re.fullmatch(pattern, str(key)))
    ]
    return sorted(found, key=lambda pair: [places.get(g, g) for g in pair[0].groups()])


def _name(group: str) -> str:
    return f"seed {group}" if group.isdigit() else NAMES.get(group, group.replace(".", " "))


def dot_chart(rows: pd.DataFrame, runs: Sequence[str], title: str) -> alt.LayerChart:
    """One line a number, one dot a run, and a rule from the least to the greatest."""
    color = alt.Color("run:N", scale=alt.Scale(domain=list(runs), range=list(COLORS[: len(runs)])))
    names = list(dict.fromkeys(rows["row"]))
    row = alt.Y("row:N", title=None, sort=names, axis=alt.Axis(labelLimit=260))
    spans = rows.groupby("row")["value"].agg(low="min", high="max").reset_index()
    base = alt.Chart(rows).properties(height=alt.Step(20))
    rule = alt.Chart(spans).mark_rule(style="muted", strokeWidth=1.5)
    dots = base.mark_point(filled=True, size=70, opacity=0.9).encode(
        x=alt.X("value:Q", title=title, scale=alt.Scale(zero=False, padding=12)),
        y=row,
        color=color,
        shape=alt.Shape("run:N", scale=alt.Scale(domain=list(runs))),
        tooltip=["row:N", "run:N", alt.Tooltip("value:Q", format=".4f")],
    )
    return alt.layer(rule.encode(x="low:Q", x2="high:Q", y=row), dots)


def make_figures(numbers: pd.DataFrame) -> list[Figure]:
    """The charts for which the runs have numbers."""
    runs = [str(c) for c in numbers.columns]
    made = []
    for name, pattern, title in CHARTS:
        rows = chart_rows(numbers, pattern)
        if rows.empty:
            continue
        spread = rows.groupby("row")["value"].agg(lambda v: v.max() - v.min())
        most = f"the runs differ most, by {spread.max():.2g}, in {spread.idxmax()}"
        made.append(
            figure(
                dot_chart(rows, runs, title),
                name=name,
                caption=f"{title[0].upper()}{title[1:]}: {most}.",
                alt=f"{title}: {most}.",
                data=rows.pivot(index="row", columns="run", values="value").reset_index(),
            )
        )
    return made


def parameters_that_differ(runs: Sequence[Run]) -> pd.DataFrame:
    """Parameter, and its value in each run, where not all are equal."""
    columns = {run.name: run.recorded_params() for run in runs}
    keys = list(dict.fromkeys(key for values in columns.values() for key in values))
    rows = [
        {"parameter": key, **{run: _text(values.get(key)) for run, values in columns.items()}}
        for key in keys
        if key != "run_name" and len({_text(v.get(key)) for v in columns.values()}) > 1
    ]
    return pd.DataFrame(rows, columns=["parameter", *columns])


def facts(runs: Sequence[Run]) -> pd.DataFrame:
    """Commit, hardware and the seconds of each chapter."""
    columns: dict[str, dict[str, Any]] = {}
    for run in runs:
        known = run.provenance()
        machine, chapters = known.get("hardware", {}), known.get("chapters", {})
        seconds = {f"{name}, seconds": _text(c.get("seconds")) for name, c in chapters.items()}
        columns[run.name] = {
            "commit": known.get("commit", "unknown"),
            "hardware": f"{machine.get('cpu', 'unknown')}, {machine.get('cores', '?')} cores",
            **dict(sorted(seconds.items())),
            "all chapters, seconds": f"{sum(c.get('seconds', 0) for c in chapters.values()):.0f}",
        }
    keys = list(dict.fromkeys(key for values in columns.values() for key in values))
    keys.append(keys.pop(keys.index("all chapters, seconds")))
    return pd.DataFrame(
        [{"": key, **{run: v.get(key, "–") for run, v in columns.items()}} for key in keys]
    )


def _text(value: Any) -> str:
    return "–" if value is None else str(value)


def _number_table(shown: pd.DataFrame) -> str:
    """Numbers with four digits, differences with a sign, what a run lacks as a dash."""
    head = "".join(f'<th scope="col">{html.escape(str(c))}</th>' for c in shown.columns)
    body = []
    for _, row in shown.iterrows():
        cells = [f'<th scope="row"><code>{html.escape(str(row.iloc[0]))}</code></th>']
        for name, value in row.iloc[1:].items():
            form = "+.4f" if " − " in str(name) and abs(value) >= 0.00005 else ".4f"
            text = "–" if pd.isna(value) else f"{value:{form}}".replace("-0.0000", "0.0000")
            text = text.replace("-", "−")
            cells.append(f'<td class="fl-num">{text}</td>')
        body.append("<tr>" + "".join(cells) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def render(runs: Sequence[Run]) -> str:
    """The whole page."""
    numbers = gather(runs)
    names = [html.escape(run.name) for run in runs]
    title = f"{', '.join(names[:-1])} and {names[-1]}"
    shown, changed = differences(numbers), parameters_that_differ(runs)
    parts = [f"<h1>Runs {title}</h1>", "<h2>What differs in the parameters</h2>"]
    parts.append(
        str(table(changed)) if len(changed) else "<p>Nothing: all parameters are equal.</p>"
    )
    parts.append("<h2>Charts</h2>")
    parts += [f.html() for f in make_figures(numbers)]
    parts.append("<h2>Every number</h2>")
    kind = shown["number"].str.split(".").str[0]
    for prefix in dict.fromkeys([*SECTIONS, *kind]):
        rows, name = shown[kind == prefix], SECTIONS.get(prefix, prefix.capitalize())
        if len(rows):
            inner = _scrolling(_number_table(rows), name)
            head = f"{html.escape(name)} <small>({len(rows)})</small>"
            parts.append(f"<details><summary>{head}</summary>{inner}</details>")
    parts += [
        "<h2>How they were made</h2>",
        _scrolling(str(table(facts(runs))), "How they were made"),
    ]
    return PAGE.format(title=title, style=_style(), script=_script(), body="\n".join(parts))


def _scrolling(inner: str, label: str) -> str:
    name = html.escape(label, quote=True)
    return f'<div class="wide" tabindex="0" role="region" aria-label="{name}">{inner}</div>'


def _style() -> str:
    return (STATIC / "featlib.css").read_text(encoding="utf-8") + STYLE


def _script() -> str:
    themes = json.dumps({mode: theme(mode) for mode in ("light", "dark")})
    code = (
        f"(() => {{{vl_convert.javascript_bundle()}\nwindow.featlibThemes = {themes};}})();\n"
        + (STATIC / "featlib.js").read_text(encoding="utf-8")
    )
    # In a page, a script ends at the first of these, even inside one of its strings.
    return re.sub(r"<(/script|!--|script)", r"\\x3c\1", code, flags=re.IGNORECASE)


STYLE = """
html { --pst-color-background: #fff; --pst-color-text-base: #1f2328; --pst-color-primary: #0b5f94;
  --pst-font-family-monospace: ui-monospace, monospace; font-family: var(--fl-sans); }
html[data-theme="dark"] { --pst-color-background: #14181e; --pst-color-text-base: #dfe3e8;
  --pst-color-primary: #6bb8ee; color-scheme: dark; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; line-height: 1.6;
  background: var(--pst-color-background); color: var(--pst-color-text-base); }
a { color: var(--pst-color-primary); }
.bd-article tbody th { font-weight: 400; }
.wide { overflow-x: auto; }
.wide th code { white-space: normal; overflow-wrap: anywhere; }
main > details { margin: 0.4rem 0; border-bottom: 1px solid var(--fl-grid); }
main > details > summary { padding: 0.4rem 0; cursor: pointer; font-weight: 600; }
main > details small { color: var(--fl-muted); font-weight: 400; }
@media print { main > details::details-content { content-visibility: visible; } }
"""
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Runs {title}</title>
<style>{style}</style>
<script>
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => (document.documentElement.dataset.theme = dark.matches ? "dark" : "light");
dark.addEventListener("change", follow);
follow();
</script>
</head>
<body>
<main class="bd-article">
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def compare(names: Sequence[str], root: str | Path | None = None) -> Path:
    """Write the page of these runs; its path."""
    if len(set(names)) < 2 or len(set(names)) != len(names):
        raise FeatlibError(
            f"{' '.join(names) or 'nothing'} to compare: name two runs or more, each once, such as "
            'make compare RUNS="mini again"'
        )
    if len(names) > len(COLORS):
        raise FeatlibError(f"{len(names)} runs are too many to tell apart; at most {len(COLORS)}")
    runs = [Run(name, root) for name in names]
    page = render(runs)
    with atomic_path(runs[0].folder.parent / "compare" / "-".join(names) / "index.html") as tmp:
        tmp.write_text(page, encoding="utf-8")
    return runs[0].folder.parent / "compare" / "-".join(names) / "index.html"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="*", help="names of finished runs, such as: mini again")
    try:
        print(f"The page: {compare(parser.parse_args().runs)}")
    except FeatlibError as problem:
        sys.exit(f"\n{problem}\n")
