"""The frame of a notebook: which parameters it runs with, and what is recorded when it ends.

A chapter starts with `start_chapter(name, globals())` right after the cell of parameters, and ends
with `finish(metrics)`. Between the two it uses `chapter.params` and `chapter.run`.

Values come, in this order, from what papermill (or the reader) set in this notebook, from
`runs/<run>/params.yaml`, and from the defaults in the notebook, which are those of `mini`.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import json
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import jinja2
import psutil

from featlib import FeatlibError
from featlib.params import Params, check_choice, check_params
from featlib.run import ROOT, Run, atomic_path, git_commit, write_json

if TYPE_CHECKING:
    import pandas as pd

    from featlib.show.figure import Figure

PROVENANCE = """\
{% set machine = whole.hardware %}
<section class="fl-provenance"><h2>How this page was made</h2><dl>
<dt>Run</dt><dd>{{ run }}</dd><dt>Commit</dt><dd>{{ whole.commit }}</dd>
<dt>Time</dt><dd>{{ "%.0f s, at most {:,} MB".format(entry.peak_memory_mb) % entry.seconds }}</dd>
<dt>Hardware</dt><dd>{{ machine.cpu }}, {{ machine.cores }} cores, {{ machine.memory_gb }} GB
{%- if machine.gpu %}, {{ machine.gpu }}{% endif %}</dd><dt>Versions</dt><dd>
{%- for name, version in whole.versions.items() %}{{ name }} {{ version }}
{%- if not loop.last %}, {% endif %}{% endfor %}</dd></dl>
<p>This repeats it:</p><pre><code>{{ command }}</code></pre>
<details><summary>Parameters of this chapter</summary><table><thead><tr>
<th>Parameter</th><th>Value</th><th>What it does</th></tr></thead><tbody>
{% for key, value in entry.parameters.items() %}<tr><td><code>{{ key }}</code></td>
<td>{{ value }}</td><td>{{ fields[key].description }}</td></tr>{% endfor %}
</tbody></table></details></section>"""
PUBLISHED = ROOT / "book" / "_data" / "controls"  # tables of notebooks/controls.py, kept as CSV
INJECTED = "# Parameters"  # how papermill starts the cell that it injects
ASSIGNED = re.compile(r"^(\w+)(?:: [^=\n]+)? = ", re.MULTILINE)


@dataclass
class Chapter:
    """One notebook at work: `params` holds exactly the parameters that the notebook declares."""

    name: str
    run: Run
    params: SimpleNamespace
    started: float = field(default_factory=time.monotonic)

    @cached_property
    def made_by(self) -> str:
        """What made a figure, as the line under it says."""
        return f"notebooks/{self.name}.ipynb, run {self.run.name}, commit {git_commit()}"

    def figure(self, chart: Any, **said: Any) -> Figure:
        """`show.figure.figure`, with the line that says what made it."""
        from featlib.show.figure import figure  # Altair is slow to import, and not always needed

        return figure(chart, **{"made_by": self.made_by} | said)

    def keep(self, name: str, table: pd.DataFrame) -> pd.DataFrame:
        """Keep a table where `published` finds it, beside what made it; gives it back."""
        about = {"commit": git_commit(), "parameters": vars(self.params), "run": self.run.name}
        with atomic_path(self.run.controls / f"{name}.csv") as tmp:
            table.to_csv(tmp, index=False, float_format="%.6g")
        write_json(self.run.controls / f"{name}.json", about)
        return table

    def published(self, name: str) -> pd.DataFrame:
        """A table of notebooks/controls.py: this run's own if it has one, else the book's.

        Its `attrs["made_by"]` is what made it, for `figure(..., made_by=...)`.
        """
        import pandas as pd

        places = (self.run.controls, PUBLISHED)
        found = [folder / name for folder in places if (folder / f"{name}.csv").exists()]
        if not found:
            raise FeatlibError(
                f"There is no table {name!r} in {' or '.join(map(str, places))}. "
                f"Make it once this run is done: make controls RUN={self.run.name}"
            )
        table = pd.read_csv(found[0].with_suffix(".csv"))
        about = json.loads(found[0].with_suffix(".json").read_text())
        words = "notebooks/controls.py, run {run}, commit {commit}"
        table.attrs["made_by"] = words.format_map(about)
        return table

    def finish(self, metrics: Mapping[str, float] | None = None, **facts: Any) -> Provenance:
        """Record numbers, seconds and peak memory; what it returns is the page's closing table."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        entry = {
            "seconds": round(time.monotonic() - self.started, 1),
            "peak_memory_mb": round(peak / (2**20 if sys.platform == "darwin" else 2**10)),
            "parameters": vars(self.params),
            **facts,
        }
        self.run.record_chapter(self.name, entry, metrics or {})
        return Provenance(self.name, self.run.name, entry, self.run.provenance())


@dataclass(frozen=True)
class Prose:
    """Markdown for a page; where it has a name, other pages may show it again (MyST-NB's glue)."""

    text: str
    name: str = ""

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        data = {"text/markdown": self.text, "text/plain": self.text}
        if not self.name:
            return data, {}
        from markdown_it import MarkdownIt  # glue takes HTML from one page to another, no Markdown

        html = MarkdownIt().enable("table").render(self.text)
        return {"text/html": html, **data}, {"scrapbook": {"name": self.name, "mime_prefix": ""}}


def prose(template: str, *, glue: str = "", **numbers: Any) -> Prose:
    """Words that follow from `numbers`: a Jinja template; an absent number stops the chapter.

    Filters: pct ("12%"), num ("0.12"; both take digits, and write a true minus), listed ("a, b and
    c"). An `Estimate` prints itself with its interval. `glue` names what other pages show again.
    """
    page = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)
    page.filters |= {"pct": pct, "num": num, "listed": listed}
    return Prose(page.from_string(template).render(numbers), glue)


def pct(value: float, digits: int = 0) -> str:
    return f"{value:.{digits}%}".replace("-", "−")


def num(value: float, digits: int = 2) -> str:
    return f"{value:,.{digits}f}".replace("-", "−")


def listed(words: Iterable[str]) -> str:
    """a; a and b; a, b and c."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


@dataclass(frozen=True)
class Provenance:
    """How a page was made: shown at its end, with the command that repeats it."""

    chapter: str
    run: str
    entry: dict[str, Any]
    whole: dict[str, Any]

    @property
    def command(self) -> str:
        words = [f"papermill notebooks/{self.chapter}.ipynb out.ipynb -p run {self.run}"]
        for key, value in self.entry["parameters"].items():
            if value != Params.model_fields[key].default:
                # papermill reads True, not true, as a truth value.
                said = value if isinstance(value, bool) else json.dumps(value).strip('"')
                words.append(f"-p {key} {said}")
        return " ".join(words)

    def _repr_html_(self) -> str:
        page = jinja2.Environment(autoescape=True).from_string(PROVENANCE)
        return page.render(**vars(self), command=self.command, fields=Params.model_fields)

    def __repr__(self) -> str:
        return f"{self.chapter}: {self.entry['seconds']} s. Repeat with: {self.command}"


def start_chapter(name: str, namespace: Mapping[str, Any]) -> Chapter:
    """Resolve a notebook's parameters and open its run.

    `namespace` is the notebook's `globals()`. A parameter that no run's file has is the notebook's
    own, and is taken as it stands there. Raises `FeatlibError` for a parameter that the
    notebook does not declare (papermill itself only warns), for an impossible value, and where
    an earlier chapter has not been run.
    """
    cells = [cell for cell in namespace.get("In", []) if isinstance(cell, str)]
    given = [cell for cell in cells if cell.startswith(INJECTED)]
    injected = dict.fromkeys(key for cell in given for key in ASSIGNED.findall(cell))
    cells_set = (ASSIGNED.findall(cell) for cell in cells if cell not in given)
    declared = next((keys for keys in cells_set if "run" in keys), None)
    if declared is None:
        raise FeatlibError(
            f"notebook {name}: run the cell of parameters first (it is the first code cell)."
        )
    for key in injected:
        check_choice(f"notebook {name}: a parameter", key, declared)
    run = Run(str(namespace["run"]))
    recorded, defaults = run.recorded_params(), Params()
    own = {key: namespace[key] for key in declared if key not in {"run", *Params.model_fields}}
    values: dict[str, Any] = {}
    for key in (key for key in declared if key not in {"run", *own}):
        chosen = key in injected or namespace[key] != getattr(defaults, key)
        values[key] = namespace[key] if chosen or key not in recorded else recorded[key]
    params = check_params({**recorded, **values, "run_name": run.name}, where=f"notebook {name}")
    run.folder.mkdir(parents=True, exist_ok=True)
    run.write_params(params)
    _end_with_driver(run)
    used = {key: getattr(params, key) for key in values} | own
    # The folder holds this execution's files from here on. A page that was made with other
    # parameters would describe what is no longer there; Snakemake then makes it anew.
    made_with = run.provenance().get("chapters", {}).get(name, {}).get("parameters", used)
    if made_with != used:
        run.notebook(name).unlink(missing_ok=True)
    return Chapter(name, run, SimpleNamespace(**used))


def _end_with_driver(run: Run) -> None:
    """Where Snakemake started this chapter, end when it is gone: no work goes on unseen.

    The rule's shell is named in the environment; it gets another parent when Snakemake dies. Until
    this process has ended it holds a lock, for which the next start waits.
    """
    if shell := os.environ.get("FEATLIB_SHELL"):
        lock = (run.folder / ".chapters").open("w")
        fcntl.flock(lock, fcntl.LOCK_SH)
        threading.Thread(target=_watch, args=(int(shell), lock), daemon=True).start()


def _watch(shell: int, lock: Any) -> None:
    driver = int(os.environ["FEATLIB_DRIVER"])
    while psutil.pid_exists(shell) and psutil.Process(shell).ppid() == driver:
        time.sleep(0.5)
    for process in (shell, os.getppid(), os.getpid()):  # Papermill is the parent
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def declared_parameters(source: str) -> dict[str, Any]:
    """Names and defaults in the first cell tagged `parameters` of a py:percent notebook."""
    _, _, rest = source.partition('tags=["parameters"')
    cell = rest.split("\n# %%", 1)[0].partition("\n")[2]
    return {
        node.target.id: ast.literal_eval(node.value)
        for node in ast.parse(cell).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value
    }
