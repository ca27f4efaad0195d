"""What is committed of a run: outputs without progress bars, of the very code that is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from publish import clean_notebook, gather_trainings

from featlib import FeatlibError
from featlib.params import Params
from featlib.run import ASIDE, MAKES, Run

ROOT = Path(__file__).resolve().parents[2]


def executed(code: str = "x") -> nbformat.NotebookNode:
    injected = new_code_cell("run = 'r'", metadata={"tags": ["injected-parameters"]})
    shown = new_output("execute_result", {"text/plain": "1"}, execution_count=7)
    bar = new_output("stream", name="stderr", text="50%|##")
    return new_notebook(
        cells=[injected, new_code_cell(code, outputs=[bar, shown])],
        metadata={"papermill": {"input_path": "/somewhere/private"}},
    )


def test_outputs_come_over_without_bars_counts_or_paths():
    source = new_notebook(cells=[new_code_cell("x")])
    clean_notebook(executed(), source)
    assert [o.output_type for o in source.cells[0].outputs] == ["execute_result"]
    text = nbformat.writes(source)
    assert "private" not in text and '"execution_count": 7' not in text and "50%" not in text


def test_outputs_of_other_code_are_refused():
    with pytest.raises(FeatlibError, match="run the chapter again"):
        clean_notebook(executed("y"), new_notebook(cells=[new_code_cell("x")]))


def test_trainings_are_gathered_by_seed_and_what_is_not_complete_is_left_out(tmp_path):
    runs = [Run(name, tmp_path) for name in ("mini", "mini-seed-3", "mini-seed-4")]
    for seed, run in zip((0, 3, 4), runs, strict=True):
        run.folder.mkdir()
        run.write_params(Params(run_name=run.name, seed=seed))
        run.save_table("answers", pd.DataFrame({"question": ["used"], "word": [f"w{seed}"]}))
        metrics = {"sae.lua.0.fvu": 0.1 + seed, "sae.lua.1.fvu": 0.3 + seed, "merge.t": 0.58}
        run.record_chapter("05", {}, metrics | {"transfer.placebo.persist": 0.25})
        run.notebook("x").parent.mkdir()
        for chapter in set(MAKES) - {*ASIDE, *(["09_exception"] if seed == 4 else [])}:
            run.notebook(chapter).touch()
    assert len(gather_trainings(runs[0], tmp_path)) == 2
    table = pd.read_csv(tmp_path / "trainings.csv").set_index(["key", "seed"])["value"]
    assert table.to_dict() == {
        ("sae.lua.fvu", 0): 0.2, ("sae.lua.fvu", 3): 3.2,
        ("transfer.placebo.persist", 0): 0.25, ("transfer.placebo.persist", 3): 0.25,
    }  # fmt: skip
    answers = pd.read_csv(tmp_path / "answers.csv")
    assert answers[["seed", "word"]].to_numpy().tolist() == [[0, "w0"], [3, "w3"]]
    runs[0].notebook("05_autoencoders").unlink()
    runs[1].notebook("05_autoencoders").unlink()
    with pytest.raises(FeatlibError, match="make replicate RUN=mini"):
        gather_trainings(runs[0], tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_committed_notebooks_are_light_and_name_no_machine(path):
    assert path.stat().st_size < 1_000_000
    notebook = nbformat.read(path, as_version=4)
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert all(o.output_type != "error" and o.get("name") != "stderr" for o in outputs)
    assert "papermill" not in notebook.metadata


def test_the_repository_builds_as_it_is_committed(tmp_path):
    """`jupyter-book build .` at the root, without any run; every warning is an error."""
    project = tmp_path / "project"
    shutil.copytree(
        ROOT, project, ignore=shutil.ignore_patterns("runs", ".*", "_build", "__pycache__", "tests")
    )
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    words = ["build", ".", "-n", "-W", "--all", "--keep-going", "-q"]
    done = subprocess.run(
        [*command, *words], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    html = project / "_build" / "html"
    front = (html / "book" / "index.html").read_text()
    published = json.loads((ROOT / "book" / "_data" / "provenance.json").read_text())
    assert published["commit"] in front and "{{" not in front
    pages = {path.stem for path in (html / "notebooks").glob("*.html")}
    assert pages == {path.stem for path in (ROOT / "notebooks").glob("[0-9]*.py")}
    for page in pages:
        text = (html / "notebooks" / f"{page}.html").read_text()
        assert "cell_output" in text and "fl-provenance" in text, f"{page} has no outputs"


# --- the bibliography ---------------------------------------------------------------------------

WITHOUT_DOI = {"Transformer Circuits Thread"}  # journals that give their articles an address only


def entries() -> dict[str, dict[str, str]]:
    text = (ROOT / "book/references.bib").read_text()
    found = {}
    for key, body in re.findall(r"^@\w+\{([^,]+),\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        found[key] = dict(re.findall(r"^\s*(\w+) = \{(.*)\},?$", body, re.MULTILINE))
    assert len(found) == text.count("@")
    return found


@pytest.mark.parametrize("key", entries())
def test_every_reference_has_its_doi_and_is_cited(key):
    entry = entries()[key]
    assert {"title", "author", "year"} <= set(entry) and entry["year"] in key
    preprint = re.search(r"arXiv:(\d{4}\.\d{5})", entry.get("journal", ""))
    if preprint:
        assert entry["doi"] == f"10.48550/arXiv.{preprint[1]}"
        assert preprint[1][:2] == entry["year"][2:], "an arXiv number begins with the year"
    elif entry.get("journal") in WITHOUT_DOI:
        assert entry["url"].startswith("https://")
    else:
        assert re.fullmatch(r"10\.\d{4,9}/\S+", entry["doi"])
    prose = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.py")]
    cited = re.compile(rf"\{{cite:\w+\}}+`[^`]*\b{key}\b")
    assert any(cited.search(path.read_text()) for path in prose), f"nothing cites {key}"
