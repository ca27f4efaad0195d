"""Sphinx extension of the book: numbers of the run in prose, live charts and maths, all offline.

- `{{ pct(m["lm.base.python.accuracy"]) }}` in a page prints a number of the run; `p` holds its
  parameters, `hardware` its machine, `commit` its commit; `figure` shows a figure again. All come
  from `book/_data/` (metrics.json, params.yaml, provenance.json): a build of a run puts the run's
  own there, the committed ones belong to the published run. An unknown key is a warning that names
  the page and the nearest key.
- Maths is converted to MathML, which browsers draw without any script.
- Vega, Vega-Lite and Vega-Embed are bundled once into `_static`, with the charts' two themes.
"""

from __future__ import annotations

import difflib
import html
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
import yaml
from deviations import tabulate_deviations
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

import featlib
from featlib.params import Params
from featlib.show.figure import theme

LOGGER = logging.getLogger(__name__)
STATIC = Path(__file__).resolve().parent.parent / "_static"
DATA = "book/_data"  # below the source folder
NBSP = "\u00a0"
# What a plain build shows for a committed cell that was edited since the last published run.
STALE = "*This has changed since it was last run; `make book` fills it in.*"


class UnknownKey(Exception):
    """A page asks for a number that the run does not have. (Jinja would hide a LookupError.)"""


class Numbers(Mapping[str, Any]):
    """A mapping whose missing keys are explained. `p.k` and `p["k"]` are the same."""

    def __init__(self, name: str, source: str, values: Mapping[str, Any]) -> None:
        self._name, self._source, self._values = name, source, dict(values)

    def __getitem__(self, key: str) -> Any:
        if key in self._values:
            return self._values[key]
        near = difflib.get_close_matches(str(key), list(self._values), n=1, cutoff=0.0)
        hint = f"the nearest is {near[0]!r}" if near else f"{self._source} is missing or empty"
        raise UnknownKey(f"{self._name} has no {key!r} in {self._source}; {hint}")

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __getattr__(self, key: str) -> Any:
        if key.startswith("_"):  # copying and pickling ask for these
            raise AttributeError(key)
        return self[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Formatter:
    """Prints a number for prose. (An object, because Sphinx stores no function in its cache.)"""

    def __init__(self, scale: float, sign: str, unit: str, digits: int) -> None:
        self.scale, self.sign, self.unit, self.digits = scale, sign, unit, digits

    def __call__(self, value: float, digits: int | None = None) -> str:
        form = f"{self.sign},.{self.digits if digits is None else digits}f"
        return f"{self.scale * value:{form}}{self.unit}".replace("-", "\u2212")


pct = Formatter(100, "", "%", 1)  # 0.2861 -> 28.6%
points = Formatter(100, "+", "", 1)  # a difference of shares in percentage points: 0.031 -> +3.1
num = Formatter(1, "", "", 0)  # 16384.2 -> 16,384; num(x, 2) keeps two decimals


class FigureFinder:
    """`{{ figure("07_flow", "flow") }}` on a line of its own shows a figure of a chapter again."""

    def __init__(self, notebooks: str) -> None:
        self.notebooks = notebooks

    def __call__(self, chapter: str, name: str) -> str:
        path = Path(self.notebooks) / f"{chapter}.ipynb"
        if not path.exists():
            raise UnknownKey(f"no chapter {chapter!r} to take figure {name!r} from ({path})")
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        outputs = [o for cell in cells for o in cell.get("outputs", ())]
        shown = ["".join(o.get("data", {}).get("text/html", "")) for o in outputs]
        figures = {m.group(1): h for h in shown if (m := re.search(r'id="fig-([a-z0-9-]+)"', h))}
        if name not in figures and any(_never_run(c) and f'"{name}"' in _source(c) for c in cells):
            return STALE
        if name not in figures:
            raise UnknownKey(f"chapter {chapter} has no figure {name!r}, only {sorted(figures)}")
        return f"``````{{raw}} html\n{figures[name]}\n``````"


def tabulate_parameters(values: Mapping[str, Any], notebooks: Path) -> str:
    """Every parameter, what it does and what this run has: a table a chapter, in Markdown.

    A parameter stands with the first chapter that declares it; those of none come first.
    """
    chapters: dict[str, list[str]] = {"The run": []}
    where: dict[str, str] = {}
    for path in sorted(notebooks.glob("[0-9]*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        title = next(iter(re.findall(r"^# (.+)", _source(cells[0]) if cells else "")), path.stem)
        heading = f"[{title}](../notebooks/{path.stem})"
        chapters[heading] = []
        declared = [c for c in cells if "parameters" in c.get("metadata", {}).get("tags", ())]
        for name in re.findall(r"^(\w+):", "\n".join(map(_source, declared)), re.MULTILINE):
            where.setdefault(name, heading)
    for key, field in Params.model_fields.items():
        shared = key in ("run_name", "seed")
        value = values.get(key, field.default)
        long = isinstance(value, int) and value >= 10_000
        shown = f"{value:_}" if long else json.dumps(value).strip('"') or "(none)"
        heading = "The run" if shared else where.get(key, "The run")
        chapters.setdefault(heading, []).append(f"| `{key}` | {shown} | {field.description} |")
    head = f"| parameter | this{NBSP}run | what it does |\n|---|---|---|\n"
    return "\n\n".join(f"**{name}**\n\n{head}" + "\n".join(r) for name, r in chapters.items() if r)


class OutputFinder:
    """`{{ output("09_exception", "answer") }}` prints what a tagged cell of a chapter says."""

    def __init__(self, notebooks: str) -> None:
        self.notebooks = notebooks

    def __call__(self, chapter: str, tag: str) -> str:
        path = Path(self.notebooks) / f"{chapter}.ipynb"
        if not path.exists():
            raise UnknownKey(f"no chapter {chapter!r} to take {tag!r} from ({path})")
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for cell in cells:
            if tag in cell.get("metadata", {}).get("tags", ()):
                if _never_run(cell):
                    return STALE
                for output in cell.get("outputs", ()):
                    if "text/markdown" in output.get("data", {}):
                        return "".join(output["data"]["text/markdown"])
        raise UnknownKey(f"chapter {chapter} has no cell tagged {tag!r} that says something")


def _source(cell: Mapping[str, Any]) -> str:
    return "".join(cell.get("source", ""))


def _never_run(cell: Mapping[str, Any]) -> bool:
    code = cell.get("cell_type") == "code"
    return code and not cell.get("outputs") and cell.get("execution_count") is None


def load_substitutions(source: Path) -> dict[str, Any]:
    """What pages may use between double braces, read from `book/_data` below `source`."""
    folder = source / DATA

    def read(name: str, parse: Any) -> Any:
        path = folder / name
        return (parse(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}

    provenance, where = read("provenance.json", json.loads), f"{DATA}/provenance.json"
    chapters = provenance.get("chapters", {}).values()
    return {
        "m": Numbers("m", f"{DATA}/metrics.json", read("metrics.json", json.loads)),
        "p": Numbers("p", f"{DATA}/params.yaml", read("params.yaml", yaml.safe_load)),
        "provenance": Numbers("provenance", where, provenance),
        "commit": provenance.get("commit", "unknown"),
        "minutes": sum(c.get("seconds", 0) for c in chapters) / 60,
        "memory_gb": max((c.get("peak_memory_mb", 0) for c in chapters), default=0) / 1000,
        "hardware": Numbers("hardware", where, provenance.get("hardware", {})),
        "parameter_tables": tabulate_parameters(
            read("params.yaml", yaml.safe_load), source / "notebooks"
        ),
        "deviation_table": tabulate_deviations(Path(featlib.__file__).parent),
        "figure": FigureFinder(str(source / "notebooks")),
        "output": OutputFinder(str(source / "notebooks")),
        "pct": pct,
        "points": points,
        "num": num,
    }


def configure(app: Sphinx, config: Config) -> None:
    config.myst_substitutions = {
        **(config.myst_substitutions or {}),
        **load_substitutions(Path(app.srcdir)),
    }
    config.html_static_path = [*config.html_static_path, str(STATIC)]


def fill_code(app: Sphinx, doctree: nodes.document) -> None:
    """Print `{{ commit }}` in code type too, where MyST would leave the braces as they stand."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    for node in doctree.findall(nodes.literal):
        if re.fullmatch(r"\{\{.*\}\}", node.astext()):
            try:
                text = environment.from_string(node.astext()).render(app.config.myst_substitutions)
            except (UnknownKey, jinja2.TemplateError) as error:
                LOGGER.warning("%s: %s", node.astext(), error, location=node)
            else:
                node.children = [nodes.Text(text)]


def plain_citations(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Leave out the roles that docutils gives a bibliography: its list has entries, no items."""
    if "body" in context:
        context["body"] = re.sub(
            r' role="(?:list|doc-biblioentry)"(?= class="citation)|'
            r'(?<=<div class="citation") (id="[^"]*") role="doc-biblioentry"',
            lambda m: f" {m[1]}" if m[1] else "",
            context["body"],
        )


def say_provenance(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """End a page of prose as chapters end themselves: the run behind it, and how to repeat it."""
    path = Path(app.srcdir) / DATA / "provenance.json"
    if "body" not in context or not pagename.startswith("book/") or not path.exists():
        return
    known = json.loads(path.read_text(encoding="utf-8"))
    machine = known.get("hardware", {})
    seconds = sum(c.get("seconds", 0) for c in known.get("chapters", {}).values())
    facts = {
        "Run": known.get("run", ""),
        "Commit": known.get("commit", ""),
        "Time": f"{seconds / 60:.1f} minutes, all chapters together",
        "Hardware": ", ".join(
            f"{machine[key]}{unit}"
            for key, unit in {"cpu": "", "cores": " cores", "memory_gb": " GB", "gpu": ""}.items()
            if machine.get(key)
        ),
        "Versions": ", ".join(f"{name} {v}" for name, v in known.get("versions", {}).items()),
    }
    rows = "".join(
        f"<dt>{name}</dt><dd>{html.escape(str(fact))}</dd>" for name, fact in facts.items() if fact
    )
    parameters = ""
    if pagename != "book/parameters":
        address = app.builder.get_relative_uri(pagename, "book/parameters")
        parameters = f'<p><a href="{address}">All parameters of the run</a></p>'
    context["body"] += (
        f'<section class="fl-provenance"><h2>How this page was made</h2><dl>{rows}</dl>'
        "<p>This repeats it, with the whole book:</p>"
        f"<pre><code>make book RUN={html.escape(known.get('run', 'mini'))}</code></pre>"
        f"{parameters}</section>"
    )


# --- maths ------------------------------------------------------------------------------------


def mathml(latex: str, *, block: bool) -> str:
    """LaTeX as MathML. Raises ValueError where something in it is not understood."""
    from latex2mathml.converter import convert

    if re.search(r"\{\{ \w", latex):
        raise ValueError("a number of the run cannot stand in maths: write it outside")
    # Numbers are Sphinx's, one a block; and of all such forms the library knows only two.
    latex = re.sub(r"\\(begin|end)\{(?:align|split)(?:ed)?\*?\}", r"\\\1{align*}", latex)
    latex = re.sub(r"\\(begin|end)\{gather(?:ed)?\*?\}", r"\\\1{matrix}", latex)
    latex = re.sub(r"\\(begin|end)\{equation\*?\}", "", latex)
    try:
        found = convert(latex, display="block" if block else "inline")
    except Exception as error:  # the library has a dozen kinds, all of them about the input
        raise ValueError(f"{type(error).__name__} {error}".strip()) from error
    if "<mi>\\" in found or "<mo>\\" in found:  # an unknown command comes through as it stands
        unknown = found.split(">\\", 1)[1].split("<", 1)[0]
        raise ValueError(f"unknown command \\{unknown}")
    # A bar that no \left or \right made would otherwise grow to the height of its row.
    return re.sub(r"<mo>(&#x02016;|&#x0007C;|[|‖∥])</mo>", r'<mo stretchy="false">\1</mo>', found)


def _convert(node: nodes.Element, *, block: bool) -> str:
    text = node.astext()
    try:
        return mathml(text, block=block)
    except ValueError as error:
        LOGGER.warning("maths %r cannot be shown: %s", text, error, location=node)
        return f"<code>{html.escape(text)}</code>"


def visit_inline_math(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(self.starttag(node, "span", "", CLASS="math"))
    self.body.append(_convert(node, block=False) + "</span>")
    raise nodes.SkipNode


def visit_block_math(self: HTML5Translator, node: nodes.math_block) -> None:
    aligned = " fl-aligned" if re.search(r"\{(align|split)", node.astext()) else ""
    self.body.append(self.starttag(node, "div", CLASS=f"math fl-equation{aligned}"))
    if node["number"]:
        number = get_node_equation_number(self, node)
        self.body.append(f'<span class="eqno">({number})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append(_convert(node, block=True))
    self.body.append("</div>\n")
    raise nodes.SkipNode


# --- charts -----------------------------------------------------------------------------------


def write_bundle(app: Sphinx, error: Exception | None) -> None:
    """Put the chart library into the built book: one file for all pages, fetched when needed."""
    if error is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    themes = json.dumps({mode: theme(mode) for mode in ("light", "dark")})
    # Wrapped, so that the bundle's many short names stay out of the page's.
    (static / "featlib-vega.js").write_text(
        f"(() => {{{vl_convert.javascript_bundle()}\nwindow.featlibThemes = {themes};}})();\n",
        encoding="utf-8",
    )


def setup(app: Sphinx) -> dict[str, Any]:
    # Jupyter Book sets this whether or not its comments extension, which we leave out, is loaded.
    app.add_config_value("comments_config", {}, "", [dict])
    app.connect("config-inited", configure, priority=400)
    app.connect("doctree-read", fill_code)
    app.connect("html-page-context", plain_citations)
    app.connect("html-page-context", say_provenance)
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(visit_inline_math, None),
        block_renderers=(visit_block_math, None),
    )
    app.add_css_file("featlib.css")
    app.add_js_file("featlib.js", loading_method="defer")
    app.connect("build-finished", write_bundle)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
