"""A third child: what CONTRIBUTING.md says has to be touched is all that has to be touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from featlib.family import KINDS
from featlib.text.documents import Document
from featlib.text.sources import sample_embedded

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = """    Domain(
        "javascript", "JavaScript", "#b8860b", megabytes=3.0, code=True, suffixes=(".js",)
    ),
)
# Parents before"""
MODEL = """    Model("javascript", "JavaScript", "#b8860b", parents=("base",), mix=("javascript",)),
    Model(
        "merged","""


def replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


def scripts() -> list[str]:
    """Small documents of JavaScript: the book's own, in pieces of twenty lines."""
    lines = [
        line
        for path in sorted((ROOT / "book/_static").glob("*.js"))
        for line in path.read_text().splitlines()
    ]
    return ["\n".join(lines[start : start + 20]) for start in range(0, len(lines), 20)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke run of a copy of the project whose family has a child more."""
    project = tmp_path_factory.mktemp("third") / "project"
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in tracked.stdout.splitlines():
        if (ROOT / name).exists() and not name.startswith(("tests/", "benchmarks/")):
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, project / name)
    family, first = project / "featlib/family.py", project / "notebooks/01_corpora.py"
    text = replaced(family.read_text(), ")\n# Parents before", DOMAIN)
    family.write_text(replaced(text, '    Model(\n        "merged",', MODEL))
    sizes = "tinystories_mb: float = 3.0  # megabytes of short stories\n"
    more = sizes + "javascript_mb: float = 3.0  # megabytes of JavaScript\n"
    first.write_text(replaced(first.read_text(), sizes, more))

    corpora = project / "corpora"
    for kind in KINDS:
        (corpora / kind.name).mkdir(parents=True)
        documents: list[Document] = sample_embedded(kind.name, 200_000, 0, Counter())
        lines = [json.dumps({"text": document.text}) for document in documents]
        (corpora / kind.name / "text.jsonl").write_text("\n".join(lines))
    (corpora / "javascript").mkdir()
    for number, script in enumerate(scripts()):
        (corpora / "javascript" / f"{number}.js").write_text(script)
    params = yaml.safe_load((project / "params/smoke.yaml").read_text())
    params |= {"run_name": "third", "source": "files", "corpora_folder": str(corpora)}
    params |= {"evaluation_tokens": 1_000, "stream_tokens": 2_000}  # of few and small texts
    params |= {"validation_share": 0.2, "test_share": 0.2}
    params |= {key: False for key in params if key.startswith("control_") and params[key] is True}
    (project / "params/third.yaml").write_text(yaml.safe_dump(params))

    environment = {**os.environ, "PYTHONPATH": str(project), "FEATLIB_RUNS": str(project / "runs")}
    command = ["snakemake", "--cores", "2", "--configfile", "params/third.yaml"]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return project / "runs" / "third"


def test_every_number_of_the_third_child_is_there(made: Path) -> None:
    metrics = json.loads((made / "metrics.json").read_text())
    for key in (
        "lm.javascript.javascript.accuracy",
        "sae.javascript.0.l0",
        "match.base.javascript.persist",
        "transfer.base.javascript.persist",
        "case.exception.header.javascript.f1",
        "case.assignment.javascript.f1",
        "explain.javascript.correlation_median",
    ):
        assert key in metrics, key
    assert "match.javascript.merged.persist" not in metrics, "the merge is of the other two"


def test_the_book_shows_the_third_child(made: Path) -> None:
    html = made / "book/html"
    for page, figure in (
        ("01_corpora", "fig-design"), ("04_merging", "fig-scores"),
        ("07_flow", "fig-flow"), ("11_controls", "fig-transfer"), ("09_exception", "fig-routes"),
    ):  # fmt: skip
        text = (html / "notebooks" / f"{page}.html").read_text()
        shown = text[text.index(f'id="{figure}"') :]
        assert "JavaScript" in shown[: shown.index("</figure>")], page
    assert '"javascript"' in (html / "_static/atlas/index.js").read_text()
