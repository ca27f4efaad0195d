"""`make compare`: two runs on one page in the book's manner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from build import compare
from test_figures import HOSTILE

from featlib import FeatlibError
from featlib.params import Params
from featlib.run import Run


def make_run(root: Path, name: str, shift: float, more: dict[str, float], **params: Any) -> None:
    run = Run(name, root)
    run.folder.mkdir(parents=True)
    run.write_params(Params(run_name=name, **params))
    metrics = {
        "lm.base.python.accuracy": 0.28 + shift,
        "lm.base.lua.accuracy": 0.2,
        "match.base.lua.persist": 0.06,
        "sae.base.0.ce_recovered": 0.91 - shift,
        "odd.number": 3.0,
    }
    run.record_chapter("06_matching", {"seconds": 12.5, "parameters": {}}, metrics | more)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATLIB_RUNS", str(root))
        make_run(root, "mini", 0.0, {"match.base.lua.persist_low": 0.05})
        make_run(root, "again", 0.031, {f"case.{HOSTILE}.base.f1": 0.5}, seed=1, k=8)
        for names, words in (
            (["mini"], "name two runs or more"),
            (["mini", "mini"], "each once"),
            (["mini", "agan"], r"no such run.* There are: again, mini\."),
        ):
            with pytest.raises(FeatlibError, match=words):
                compare(names)
        assert not list((root / "compare").glob("[!.]*")), "what cannot be compared leaves nothing"
        yield compare(["mini", "again"])


@pytest.mark.browser
def test_the_page_shows_every_difference(page: Path, browser: Any) -> None:
    from axe import check_axe
    from browser import check_page, draw_charts, visit

    page = page.parent / "notebooks" / "compare.html"
    assert check_page(browser, page, size=(390, 780), mode="dark") == []
    with visit(browser, page) as seen:
        assert draw_charts(seen.page) == 4
        assert check_axe(seen.page) == []
        for summary in seen.page.locator("article details > summary").all():
            summary.click()
        text = seen.page.inner_text("article")
        assert "+0.0310" in text and "−0.0310" in text and HOSTILE in text
        assert "seed" in text and "k" in text and "12" in text
        assert seen.page.locator("article :is(img, iframe)").count() == 0
