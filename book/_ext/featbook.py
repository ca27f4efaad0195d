"""Sphinx extension of the book: numbers of the run in prose, live charts and maths, all offline.

- `{{ pct(m["lm.base.python.accuracy"]) }}` in a page prints a number of the run; `p` holds its
  parameters, `hardware` its machine, `commit` its commit. All come from `book/_data/`: a build of a
  run puts the run's own numbers there, the committed ones belong to the published run. An unknown
  key is a warning that names the page and the nearest key.
- Maths is converted to MathML, which browsers draw without any script.
- Vega, Vega-Lite and Vega-Embed are bundled once into `_static`, with the charts' two themes.
"""

from __future__ import annotations

import difflib
import html
import json
import re
import textwrap
from collections import UserDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import vl_convert
import yaml
from deviations import tabulate_deviations
from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

from featlib.chapter import declared_parameters
from featlib.params import Params
from featlib.run import ROOT
from featlib.show.figure import theme

LOGGER = logging.getLogger(__name__)
DATA = "book/_data"  # below the source folder
NBSP = "\u00a0"


class UnknownKey(Exception):
    """A page asks for a number that the run does not have. (Jinja would hide a LookupError.)"""


class Numbers(UserDict[str, Any]):
    """A dictionary whose missing keys are explained. `p.k` and `p["k"]` are the same."""

    def __init__(self, name: str, source: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._name, self._source = name, source

    def __missing__(self, key: str) -> Any:
        near = difflib.get_close_matches(str(key), list(self), n=1, cutoff=0.0)
        hint = f"the nearest is {near[0]!r}" if near else f"{self._source} is missing or empty"
        raise UnknownKey(f"{self._name} has no {key!r} in {self._source}; {hint}")

    def __getattr__(self, key: str) -> Any:
        if key == "data" or key.startswith("_"):  # copying and pickling ask for these
            raise AttributeError(key)
        return self[key]


def print_number(scale: float, unit: str, usual: int, value: float, digits: int = -1) -> str:
    """A number for prose, with a true minus."""
    return f"{scale * value:,.{digits if digits >= 0 else usual}f}{unit}".replace("-", "\u2212")


# Partial objects, because Sphinx stores no function in its cache.
pct = partial(print_number, 100, "%", 1)  # 0.2861 -> 28.6%
num = partial(print_number, 1, "", 0)  # 16384.2 -> 16,384; num(x, 2) keeps two decimals


def tabulate_parameters(values: Mapping[str, Any], notebooks: Path) -> str:
    """Every parameter, what it does and what this run has: a table a chapter, in Markdown.

    A parameter stands with the first chapter that declares it; those of none come first.
    """
    chapters: dict[str, list[str]] = {"The run": []}
    where: dict[str, str] = {}
    for path in sorted(notebooks.glob("[0-9]*.py")):
        text = path.read_text(encoding="utf-8")
        title = re.findall(r"^# # (.+)", text, re.MULTILINE)[0]
        heading = f"[{title}](../notebooks/{path.stem})"
        chapters[heading] = []
        for name in declared_parameters(text):
            where.setdefault(name, heading)
    for key, field in Params.model_fields.items():
        value = values.get(key, field.default)
        long = isinstance(value, int) and value >= 10_000
        shown = f"{value:_}" if long else json.dumps(value).strip('"') or "(none)"
        heading = "The run" if key in ("run_name", "seed") else where.get(key, "The run")
        chapters.setdefault(heading, []).append(f"| `{key}` | {shown} | {field.description} |")
    head = f"| parameter | this{NBSP}run | what it does |\n|---|---|---|\n"
    return "\n\n".join(f"**{name}**\n\n{head}" + "\n".join(r) for name, r in chapters.items() if r)


def load_substitutions(source: Path) -> dict[str, Any]:
    """What pages may use between double braces, read from `book/_data` below `source`."""
    folder = source / DATA

    def read(name: str, parse: Any) -> Any:
        path = folder / name
        return (parse(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}

    provenance = read("provenance.json", json.loads)
    values = read("params.yaml", yaml.safe_load)
    chapters = provenance.get("chapters", {}).values()
    return {
        "m": Numbers("m", f"{DATA}/metrics.json", read("metrics.json", json.loads)),
        "p": Numbers("p", f"{DATA}/params.yaml", values),
        "commit": provenance.get("commit", "unknown"),
        "run_name": provenance.get("run", "mini"),
        "minutes": sum(c.get("seconds", 0) for c in chapters) / 60,
        "memory_gb": max((c.get("peak_memory_mb", 0) for c in chapters), default=0) / 1000,
        "hardware": Numbers("hardware", f"{DATA}/provenance.json", provenance.get("hardware", {})),
        "parameter_tables": tabulate_parameters(values, ROOT / "notebooks"),
        "deviation_table": tabulate_deviations(ROOT / "featlib"),
        "pct": pct,
        "num": num,
    }


def configure(app: Sphinx, config: Config) -> None:
    config.myst_substitutions = load_substitutions(Path(app.srcdir))
    config.html_static_path = [*config.html_static_path, str(Path(app.srcdir, "book/_static"))]


def define_terms(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """A link to a term of the glossary says the definition when it is pointed at."""
    said = {}
    if "book/glossary" in app.env.found_docs:
        for item in app.env.get_doctree("book/glossary").findall(nodes.definition_list_item):
            body = item[-1].deepcopy()
            for citation in list(body.findall(addnodes.pending_xref)):
                citation.parent.remove(citation)
            text = re.sub(r"\s+([.,;)])", r"\1", " ".join(body.astext().split()))
            said |= {term["ids"][0]: text for term in item.findall(nodes.term) if term["ids"]}
    for link in doctree.findall(nodes.reference):
        if definition := said.get(link.get("refuri", "").rpartition("#")[2]):
            link["reftitle"] = definition


def finish_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Say in the head what a page is about, and below prose its run; chapters say more of that."""
    if doctree is None:
        return
    body = context["body"].replace(' role="doc-biblioentry"', "")  # of a list without any item
    context["body"] = body.replace(' role="list" class="citation', ' class="citation')
    title, said = app.env.titles[pagename].astext(), doctree.findall(nodes.paragraph)
    first = next((p for p in said if p.parent.tagname in ("section", "block_quote")), None)
    about = textwrap.shorten(first.astext() if first else title, 200, placeholder=" …")
    context["metatags"] += f'<meta name="description" content="{html.escape(about)}" />'
    if pagename == app.config.root_doc:
        context["docstitle"] = ""  # the book's title is this page's own
    if pagename.startswith("book/"):
        values = app.config.myst_substitutions
        name, commit = html.escape(values["run_name"]), html.escape(values["commit"])
        context["body"] += (
            f'<p class="fl-made">Run {name}, commit {commit}. '
            f"<code>make book RUN={name}</code> makes this page again, with the whole book.</p>"
        )


# --- maths ------------------------------------------------------------------------------------


def mathml(latex: str, *, block: bool) -> str:
    """LaTeX as MathML. Raises ValueError where something in it is not understood."""
    if re.search(r"\{\{ \w", latex):
        raise ValueError("a number of the run cannot stand in maths: write it outside")
    # Numbers are Sphinx's, one a block.
    latex = re.sub(r"\\(begin|end)\{(?:align|split)(?:ed)?\*?\}", r"\\\1{aligned}", latex)
    latex = re.sub(r"\\(begin|end)\{equation\*?\}", "", latex)
    try:
        return LatexToMathML(fancy_error=False).convert_with_local_state(latex, displaystyle=block)
    except LatexError as error:
        raise ValueError(str(error)) from None


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
    """Put the chart library into the book, one file fetched when needed; one viewport a page."""
    if error is not None or app.builder.format != "html":
        return
    themes = json.dumps({mode: theme(mode) for mode in ("light", "dark")})
    # Wrapped, so that the bundle's many short names stay out of the page's.
    Path(app.outdir, "_static", "featlib-vega.js").write_text(
        f"(() => {{{vl_convert.javascript_bundle()}\nwindow.featlibThemes = {themes};}})();\n",
        encoding="utf-8",
    )
    for page in Path(app.outdir).rglob("*.html"):  # docutils, Sphinx and the theme each set one
        first, *rest = re.split(r"(<meta name=.viewport.[^>]*>)", page.read_text(encoding="utf-8"))
        page.write_text(first + "".join(rest[:1] + rest[1::2]), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    # Jupyter Book sets this whether or not its comments extension, which we leave out, is loaded.
    app.add_config_value("comments_config", {}, "", [dict])
    app.connect("config-inited", configure, priority=400)
    app.connect("doctree-resolved", define_terms)
    app.connect("html-page-context", finish_page)
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(visit_inline_math, None),
        block_renderers=(visit_block_math, None),
    )
    app.add_css_file("featlib.css")
    app.add_js_file("featlib.js", loading_method="defer")
    app.connect("build-finished", write_bundle)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
