"""`make compare`: two runs on one page that needs nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_book import load
from test_figures import HOSTILE

from featlib import FeatlibError
from featlib.params import Params
from featlib.run import Run

compare = load("compare")


def make_run(root: Path, name: str, shift: float, **params: Any) -> Run:
    run = Run(name, root)
    run.folder.mkdir(parents=True)
    run.write_params(Params(run_name=name, **params))
    metrics = {
        "lm.base.python.accuracy": 0.28 + shift,
        "lm.base.lua.accuracy": 0.2,
        "match.base.lua.persist": 0.06,
        "match.base.lua.persist_low": 0.05,
        "sae.base.0.ce_recovered": 0.91 - shift,
        "odd.number": 3.0,
    }
    run.record_chapter("06_matching", {"seconds": 12.5 + shift, "parameters": {}}, metrics)
    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_run(tmp_path, "mini", 0.0)
    again = make_run(tmp_path, "again", 0.031, seed=1, k=8)
    metrics = json.loads((again.folder / "metrics.json").read_text())
    del metrics["match.base.lua.persist_low"]
    metrics[f"case.{HOSTILE}.base.f1"] = 0.5
    (again.folder / "metrics.json").write_text(json.dumps(metrics))
    return tmp_path


def test_differences_are_from_the_first_run(root: Path) -> None:
    numbers = compare.gather([Run("mini", root), Run("again", root)])
    shown = compare.differences(numbers).set_index("number")
    assert list(shown.columns) == ["mini", "again", "again − mini"]
    assert shown.loc["lm.base.python.accuracy", "again − mini"] == pytest.approx(0.031)
    assert shown.loc["odd.number", "again − mini"] == 0
    assert np.isnan(shown.loc["match.base.lua.persist_low", "again − mini"])
    changed = compare.parameters_that_differ([Run("mini", root), Run("again", root)])
    assert changed.to_dict("records") == [
        {"parameter": "seed", "mini": "0", "again": "1"},
        {"parameter": "k", "mini": "16", "again": "8"},
    ]


def test_chart_rows_take_whole_keys_only(root: Path) -> None:
    numbers = pd.DataFrame(
        {"a": {"match.base.lua.persist": 0.1, "match.base.lua.persist_low": 0.0}, "b": {}}
    )
    rows = compare.chart_rows(numbers, r"match\.(\w+)\.(\w+)\.persist")
    assert rows.to_dict("records") == [{"row": "BabyPython · Lua", "run": "a", "value": 0.1}]


def test_rows_come_in_the_order_of_the_book_and_say_what_a_number_is() -> None:
    keys = ("sae.lua.0.l0", "sae.merged.0.l0", "sae.base.1.l0", "sae.tinystories.0.l0")
    numbers = pd.DataFrame({"a": dict.fromkeys(keys, 1.0)})
    rows = compare.chart_rows(numbers, r"sae\.(\w+)\.(\d)\.l0")
    models = ["BabyPython", "Lua", "TinyStories", "LuaStories"]
    assert [row.partition(" · ")[0] for row in rows["row"]] == models
    assert rows["row"][0] == "BabyPython · seed 1"
    chart = json.dumps(compare.dot_chart(rows, ["a"], "L0").to_dict())
    assert chart.count(json.dumps(list(rows["row"]))) == 2, "both layers are drawn in this order"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["mini"], "name two runs or more"),
        (["mini", "mini"], "each once"),
        (["mini", "agan"], r"no such run.* There are: again, mini\."),
    ],
)
def test_what_cannot_be_compared_is_said(root: Path, names: list[str], words: str) -> None:
    with pytest.raises(FeatlibError, match=words):
        compare.compare(names, root)
    assert not (root / "compare").exists()


def test_command_line_names_the_page(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, compare.__file__, "mini", "none"],
        capture_output=True,
        text=True,
        env={"FEATLIB_RUNS": str(root), "PATH": "", "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 1 and "no such run" in done.stderr and "Trace" not in done.stderr


@pytest.mark.browser
@pytest.mark.parametrize(("mode", "size"), [("light", (1280, 900)), ("dark", (360, 780))])
def test_the_page_is_whole_in_itself(root: Path, browser: Any, mode: str, size: tuple) -> None:
    from axe import check_axe
    from browser import check_page, draw_charts, visit

    path = compare.compare(["mini", "again"], root)
    assert path == root / "compare" / "mini-again" / "index.html"
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]
    assert check_page(browser, path, size=size, mode=mode) == []
    with visit(browser, path, size=size, mode=mode) as seen:
        assert draw_charts(seen.page, mode) == 4
        assert check_axe(seen.page) == []
        assert not seen.page.get_by_text("+0.0310").is_visible(), "tables are folded away"
        for summary in seen.page.locator("main > details > summary").all():
            summary.click()
        assert check_axe(seen.page) == []
        assert seen.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 1
        text = seen.page.inner_text("main")
        assert "+0.0310" in text and "−0.0310" in text and HOSTILE in text
        assert seen.page.locator("main :is(img, iframe)").count() == 0
