"""Build the book of one run, or a page that compares several; prints the path of index.html.

    python book/_ext/build.py runs/mini
    python book/_ext/build.py --compare mini again

The sources are staged in `<run>/book/src`: the pages of `book/`, the executed notebooks and the
numbers of the run. The html replaces `<run>/book/html` only when every page was built without a
warning.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from featlib import FeatlibError
from featlib.run import ROOT, Run, atomic_path

DATA = ("metrics.json", "params.yaml", "provenance.json")


def stage_notebook(source: Path, target: Path) -> None:
    """Copy a notebook with all its code folded, and without the cell that set its parameters."""
    notebook = json.loads(source.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        tags = cell.setdefault("metadata", {}).setdefault("tags", [])
        if "injected-parameters" in tags:
            tags.append("remove-cell")
        elif cell["cell_type"] == "code" and not any("-" in tag for tag in tags):  # remove-, hide-
            tags.append("hide-input")
    target.write_text(json.dumps(notebook, ensure_ascii=False), encoding="utf-8")


def stage(run: Path, project: Path, folder: Path) -> None:
    """Fill `folder` with all that one build reads. Raises FeatlibError where a file is missing."""
    own_toc = run / "_toc.yml"  # of a page that is no chapter of the book
    needed = [project / "_config.yml", own_toc if own_toc.exists() else project / "_toc.yml"]
    for path in [*needed, *(run / name for name in DATA)]:
        if not path.exists():
            raise FeatlibError(f"{path} is missing: is {run} the folder of a finished run?")
    for path in needed:
        shutil.copyfile(path, folder / path.name)
    left_out = ("_data", "__pycache__", *(["*.md"] if own_toc.exists() else []))
    shutil.copytree(project / "book", folder / "book", ignore=shutil.ignore_patterns(*left_out))
    (folder / "book" / "_data").mkdir()
    for name in DATA:
        shutil.copyfile(run / name, folder / "book" / "_data" / name)
    if (run / "atlas").is_dir():
        shutil.copytree(run / "atlas", folder / "book" / "_static" / "atlas")
    (folder / "notebooks").mkdir()
    for notebook in sorted((run / "notebooks").glob("[!.]*.ipynb")):
        if not notebook.stem.endswith(".failed"):
            stage_notebook(notebook, folder / "notebooks" / notebook.name)
    toc = (folder / "_toc.yml").read_text()
    missing = [
        name
        for name in re.findall(r"^[ -]*(?:root|file): (\S+)", toc, re.MULTILINE)
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


def compare(names: Sequence[str]) -> Path:
    """Execute notebooks/compare.py for these runs and build its page; the path of that."""
    import jupytext
    import papermill

    folder = Run("compare").folder / "-".join(names)
    with atomic_path(folder) as made:
        (made / "notebooks").mkdir(parents=True)
        page = made / "notebooks" / "compare.ipynb"
        jupytext.write(jupytext.read(ROOT / "notebooks" / "compare.py"), page)
        quiet = {"kernel_name": "python3", "language": "python", "progress_bar": False}
        try:
            papermill.execute_notebook(page, page, {"runs": " ".join(names)}, **quiet)
        except papermill.PapermillExecutionError as error:
            raise FeatlibError(error.evalue) from None  # the notebook says it for people
        (made / "_toc.yml").write_text("format: jb-book\nroot: notebooks/compare\n")
        for name in DATA:
            shutil.copyfile(Run(names[0]).folder / name, made / name)
    return build(folder)


if __name__ == "__main__":
    try:
        words = sys.argv[1:]
        made = compare(words[1:]) if words[:1] == ["--compare"] else build(Path(*words))
        print(f"The book: {made}")
    except FeatlibError as problem:
        sys.exit(f"\n{problem}\n")
