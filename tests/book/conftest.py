"""Two books, each built once: one as small as can be, and that of a real run at toy size."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from build import build
from driver import ROOT, SMOKE, call, said
from gallery import gallery
from test_figures import HOSTILE

from featlib.run import Run
from featlib.show.figure import figure
from featlib.show.strips import token_strips

PAGES = {
    "index": """# Do features survive?

BabyPython predicts **{{ pct(m["lm.base.python.accuracy"]) }}** of Python's tokens, with
{{ num(p.d_sae) }} features, on {{ hardware.cpu }}, at {{ commit }}.

```{glue} flow
:doc: ../notebooks/01_gallery.ipynb
```
""",
    "maths": r"""# Maths

Reconstruction $\hat{x} = W_{\text{dec}} f + b$ with $f \in \mathbb{R}^{d}$, see {eq}`loss`.

$$
\mathcal{L} = \lVert x - \hat{x} \rVert_2^2 + \lambda \sum_i |f_i|
$$ (loss)

\begin{align}
\theta &= \arccos \frac{a \cdot b}{\lVert a \rVert \lVert b \rVert} \\
c &= \frac{\sin((1-t)\theta)}{\sin\theta} a + \frac{\sin(t\theta)}{\sin\theta} b
\end{align}

Shown by {cite:t}`horn2025tracking`.
""",
    "words": """# Words

A {term}`seed ceiling`, {term}`features <feature>`, {term}`BatchTopK`, and a table:

| feature | L0 |
|---|---|
| feature | 3 |
""",
}
TOC = """format: jb-book
root: book/index
parts:
  - caption: All
    numbered: true
    chapters:
      - file: book/maths
      - file: book/words
      - file: book/glossary
      - file: notebooks/01_gallery
      - file: notebooks/02_strips
      - file: book/references
"""


def cell(shown: Any) -> Any:
    bundle, about = {"text/html": str(shown), "text/plain": "strip"}, {}
    if not isinstance(shown, str):
        bundle, about = shown._repr_mimebundle_()
    made = nbformat.v4.new_code_cell("charts.figure(...)", execution_count=1)
    made.outputs = [
        nbformat.v4.new_output("execute_result", data=bundle, execution_count=1, metadata=about)
    ]
    return made


def write_notebook(path: Path, title: str, cells: list[Any]) -> None:
    head = nbformat.v4.new_markdown_cell(f"# {title}\n\nA persimmon, to be found by search.")
    notebook = nbformat.v4.new_notebook(cells=[head, *cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as small as can be, with the real configuration, and a finished run in it."""
    folder = tmp_path_factory.mktemp("project")
    run = folder / "runs" / "tiny"
    (run / "notebooks").mkdir(parents=True)
    (folder / "book").mkdir()
    shutil.copyfile(ROOT / "_config.yml", folder / "_config.yml")
    for name in ("_ext", "_static"):
        shutil.copytree(ROOT / "book" / name, folder / "book" / name)
    for name in ("references.bib", "references.md", "glossary.md"):
        shutil.copyfile(ROOT / "book" / name, folder / "book" / name)
    (folder / "_toc.yml").write_text(TOC)
    for name, text in PAGES.items():
        (folder / "book" / f"{name}.md").write_text(text)
    figures = [
        cell(figure(chart, name=name, caption=f"This is {name}.", alt=f"The finding of {name}."))
        for name, chart in gallery().items()
    ]
    write_notebook(run / "notebooks" / "01_gallery.ipynb", "Gallery", figures)
    strip = token_strips(["try", ":", "\n", " raise", HOSTILE], {"BabyPython": [0, 1, 0, 4, 2]})
    write_notebook(run / "notebooks" / "02_strips.ipynb", "Strips", [cell(strip)])
    (run / "notebooks" / "03_half.failed.ipynb").write_text("not a notebook")
    (run / "metrics.json").write_text(json.dumps({"lm.base.python.accuracy": 0.28612}))
    (run / "params.yaml").write_text("d_sae: 2048\nk: 16\n")
    provenance = {
        "commit": "abc1234",
        "run": "tiny",
        "hardware": {"cpu": "Abacus 3000", "cores": 2, "gpu": None},
        "versions": {"torch": "2.13.0"},
        "chapters": {"01_gallery": {"seconds": 60.0}, "02_strips": {"seconds": 31.0}},
    }
    (run / "provenance.json").write_text(json.dumps(provenance))
    return folder


@pytest.fixture(scope="session")
def html(project: Path) -> Path:
    return build(project / "runs" / "tiny", project).parent


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def smoke(runs) -> Run:
    done = call("snakemake", *SMOKE, runs=runs)
    assert done.returncode == 0, said(done)[-5000:]
    return Run("smoke", runs)
