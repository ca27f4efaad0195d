"""Put what a run found into the repository: `python book/_ext/publish.py runs/mini`.

The committed notebooks/*.ipynb then hold the outputs of a published run, so that the repository
reads well on a code host and `jupyter-book build .` works without running anything. Progress bars,
warnings and paths of the machine are left out. Outputs of code that no commit holds are refused.
With --controls only the tables that notebooks/controls.py made on that run, with --trainings those
of its headline numbers and answers and of its other trainings.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import nbformat
import pandas as pd
from build import DATA

from featlib import FeatlibError
from featlib.run import ASIDE, MAKES, ROOT, Run, atomic_path, git_commit

LARGEST = 1_000_000  # bytes of one committed notebook
HEADLINES = (
    r"lm\.\w+\.\w+\.accuracy", r"sae\.\w+\.\d+\.(l0|fvu|ce_recovered|alive)",
    r"match\.\w+\.\w+\.(persist|ceiling|calibrated|text_ceiling|persist_real|ceiling_real)",
    r"transfer\.[\w.]+\.persist", r"case\.exception\.header\.\w+\.f1", r"answer\.\w+\.\w+\.value",
)  # fmt: skip


def clean_notebook(executed: nbformat.NotebookNode, source: nbformat.NotebookNode) -> None:
    """Give `source` (the paired notebook) the outputs of `executed`, cell by cell, in place."""
    ran, own = (
        [cell for cell in notebook.cells if cell.cell_type == "code"]
        for notebook in (executed, source)
    )
    ran = [c for c in ran if "injected-parameters" not in c.metadata.get("tags", [])]
    if [cell.source for cell in ran] != [cell.source for cell in own]:
        raise FeatlibError(
            "the executed notebook is not the paired one: run the chapter again, then publish"
        )
    for cell, made in zip(own, ran, strict=True):
        cell.outputs = [o for o in made.outputs if o.get("name") != "stderr"]
        for part in [cell, *cell.outputs]:
            if "execution_count" in part:
                part["execution_count"] = None


def publish(run: Run, notebooks: Path, data: Path) -> list[Path]:
    """Write the notebooks and the numbers of `run`; all are checked before any is written."""
    made_by, now = run.provenance().get("commit"), git_commit()
    if made_by != now or "+changes" in now:
        raise FeatlibError(
            f"{run.folder} was made by commit {made_by}, this is {now}: commit all changes, run it "
            f"again (make book RUN={run.name}), then publish"
        )
    ready = {}
    for path in sorted(notebooks.glob("[0-9]*.ipynb")):
        if not run.notebook(path.stem).exists():
            raise FeatlibError(f"{run.notebook(path.stem)} is missing: make book RUN={run.name}")
        source = nbformat.read(path, as_version=4)
        clean_notebook(nbformat.read(run.notebook(path.stem), as_version=4), source)
        ready[path] = nbformat.writes(source) + "\n"
        if len(ready[path].encode()) > LARGEST:
            raise FeatlibError(f"{path.name} would be larger than {LARGEST / 1e6:g} MB")
    for path, text in ready.items():
        with atomic_path(path) as tmp:
            tmp.write_text(text, encoding="utf-8")
    for name in DATA:
        shutil.copyfile(run.folder / name, data / name)
    return list(ready)


def publish_controls(run: Run, folder: Path) -> list[Path]:
    """Copy the tables of notebooks/controls.py, each beside a file that says what made it."""
    made = sorted(run.controls.glob("*.json"))
    if not made or any("+changes" in path.read_text() for path in made):
        raise FeatlibError(
            f"{run.controls} has no tables, or some that code made which no commit holds: "
            f"commit, then make controls RUN={run.name}"
        )
    shutil.copytree(run.controls, folder, dirs_exist_ok=True)
    return made


def gather_trainings(run: Run, data: Path) -> list[Path]:
    """Write trainings.csv and answers.csv of `run` and its trainings from other seeds.

    A training that lacks a chapter is left out. Numbers of autoencoders are means over theirs.
    """
    numbers, answers = [], {}
    for folder in [run.folder, *run.folder.parent.glob(f"{run.name}-seed-*")]:
        training = Run(folder.name, folder.parent)
        seed = training.recorded_params().get("seed")
        if any(not training.notebook(c).exists() for c in MAKES if c not in ASIDE):
            print(f"{training.name} is not complete: left out")
            continue
        answers[seed] = training.read_table("answers").assign(run=run.name)
        for key, value in training.metrics().items():
            if any(re.fullmatch(pattern, key) for pattern in HEADLINES):
                numbers.append((re.sub(r"^(sae\.\w+)\.\d+", r"\1", key), seed, value))
    if not answers:
        raise FeatlibError(f"no training of {run.name} is complete: make replicate RUN={run.name}")
    table = pd.DataFrame(numbers, columns=["key", "seed", "value"])
    told = pd.concat(dict(sorted(answers.items())), names=["seed"]).droplevel(1)
    tables = {"trainings": table.groupby(["key", "seed"]).mean(), "answers": told}
    for name, made in tables.items():
        made.to_csv(data / f"{name}.csv", float_format="%.6g")
    return [data / f"{name}.csv" for name in tables]


if __name__ == "__main__":
    run, data = Run(Path(sys.argv[-1]).name, Path(sys.argv[-1]).parent), ROOT / "book/_data"
    try:
        if "--controls" in sys.argv:
            made = publish_controls(run, data / "controls")
        elif "--trainings" in sys.argv:
            made = gather_trainings(run, data)
        else:
            made = publish(run, ROOT / "notebooks", data)
        print(f"{len(made)} files hold what run {run.name} made; commit them")
    except FeatlibError as problem:
        sys.exit(f"\n{problem}\n")
