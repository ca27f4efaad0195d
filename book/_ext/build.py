"""Build the book of one run: `python book/_ext/build.py runs/mini`, prints the path of index.html.

The sources are staged in `<run>/book/src`: the pages of `book/`, the executed notebooks and the
numbers of the run. The html replaces `<run>/book/html` only when every page was built without a
warning.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from featlib import FeatlibError
from featlib.run import atomic_path

ROOT = Path(__file__).resolve().parents[2]
DATA = ("metrics.json", "params.yaml", "provenance.json")


def toc_files(toc: dict[str, Any]) -> Iterator[str]:
    """Every file that a table of contents names, in order."""
    if "root" in toc:
        yield toc["root"]
    if "file" in toc:
        yield toc["file"]
    for key in ("parts", "chapters", "sections", "entries", "subtrees"):
        for entry in toc.get(key, ()):
            yield from toc_files(entry)


def stage_notebook(source: Path, target: Path) -> None:
    """Copy a notebook; its parameters fold away (a table at the end of the page lists them)."""
    notebook = json.loads(source.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        tags = cell.get("metadata", {}).get("tags", [])
        if "injected-parameters" in tags:
            tags.append("remove-cell")
        elif "parameters" in tags:
            tags.append("hide-input")
    target.write_text(json.dumps(notebook, ensure_ascii=False), encoding="utf-8")


def stage(run: Path, project: Path, folder: Path) -> None:
    """Fill `folder` with all that one build reads. Raises FeatlibError where a file is missing."""
    for name in ("_config.yml", "_toc.yml"):
        if not (project / name).exists():
            raise FeatlibError(f"{project / name} is missing: it describes the book")
        shutil.copyfile(project / name, folder / name)
    shutil.copytree(
        project / "book", folder / "book", ignore=shutil.ignore_patterns("_data", "__pycache__")
    )
    (folder / "book" / "_data").mkdir()
    for name in DATA:
        if not (run / name).exists():
            raise FeatlibError(f"{run / name} is missing: is {run} the folder of a finished run?")
        shutil.copyfile(run / name, folder / "book" / "_data" / name)
    if (run / "atlas").is_dir():
        shutil.copytree(run / "atlas", folder / "book" / "_static" / "atlas")
    (folder / "notebooks").mkdir()
    for notebook in sorted((run / "notebooks").glob("[0-9]*.ipynb")):
        if not notebook.stem.endswith(".failed"):
            stage_notebook(notebook, folder / "notebooks" / notebook.name)
    missing = [
        name
        for name in toc_files(yaml.safe_load((folder / "_toc.yml").read_text()))
        if not any((folder / f"{name}{end}").exists() for end in ("", ".md", ".ipynb"))
    ]
    if missing:
        raise FeatlibError(
            f"_toc.yml lists files that are not there: {', '.join(missing)}. A page lies in book/, "
            f"a chapter in {run / 'notebooks'} once it has been run (snakemake does that). Write "
            "or run it, or take its line out of _toc.yml."
        )


def build(run: Path, project: Path = ROOT) -> Path:
    """Build the book of the run in folder `run`; the path of its index.html."""
    run = run.resolve()
    if not run.is_dir():
        raise FeatlibError(f"{run} is no folder; give the folder of a run, such as runs/mini")
    with atomic_path(run / "book" / "src") as source:
        source.mkdir()
        stage(run, project, source)
    source, made = run / "book" / "src", run / "book" / "build"
    shutil.rmtree(made, ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    options = ["--path-output", str(made), "-n", "-W", "--all", "--keep-going", "-q"]
    done = subprocess.run([*command, "build", str(source), *options], check=False)
    if done.returncode != 0 or not (made / "_build" / "html" / "index.html").exists():
        raise FeatlibError(
            "The book was not built: see the warnings above, each names its page. "
            f"The sources are in {source}; the former book, if any, is as it was."
        )
    with atomic_path(run / "book" / "html") as html:
        (made / "_build" / "html").rename(html)
    shutil.rmtree(made, ignore_errors=True)
    return run / "book" / "html" / "index.html"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished run, such as runs/mini")
    try:
        print(f"The book: {build(parser.parse_args().run)}")
    except FeatlibError as problem:
        sys.exit(f"\n{problem}\n")
