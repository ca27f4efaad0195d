"""Charts whose parts lead to features: by click and by keyboard, with the network cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import vl_convert
from axe import check_axe
from browser import draw_charts, visit
from gallery import flows
from made_atlas import N_FEATURES, Made, read, write_page
from test_figures import HOSTILE

from featlib.show.figure import figure, theme
from featlib.show.flow import flow

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("atlas") / "atlas")


def write_flow(folder: Path, made: Made | None = None) -> Path:
    """A page with the flow and what draws it, with or without an atlas beside it."""
    shown = figure(flow(flows()), name="flow", caption="The flow of features.", alt="a b c")
    page = write_page(folder / "notebooks" / "page.html", shown.html, made)
    themes = json.dumps({mode: theme(mode) for mode in ("light", "dark")})
    script = f"(() => {{{vl_convert.javascript_bundle()}\nwindow.featlibThemes = {themes};}})();"
    (folder / "_static" / "featlib-vega.js").write_text(script)
    return page


@pytest.fixture(scope="module")
def html(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flow(tmp_path_factory.mktemp("html"), made)


ROWS = "[...document.querySelectorAll('.fl-list tbody a')].map(a => a.getAttribute('aria-label'))"


def test_features_of_a_fate_are_listed_by_keyboard(html: Path, browser: Any, made: Made) -> None:
    with visit(browser, html) as seen:
        page = seen.page
        draw_charts(page)
        page.get_by_label("Step").focus()
        page.keyboard.type("BabyPython → L")
        page.keyboard.press("Tab")
        page.keyboard.type("find")
        page.wait_for_selector(".fl-list tbody tr")
        letters = read(made.folder / "list-base.js")["fates"]["base>lua"]
        wanted = [n for n in range(N_FEATURES) if letters[n] == "d"]
        said = f"{len(wanted)} of BabyPython’s features find no match"
        assert said in page.inner_text(".fl-list")
        page.get_by_role("button", name="more").click()
        firings = (made.dense("base") > 0).sum(0)
        order = sorted(wanted, key=lambda n: (-firings[n], n))
        assert page.evaluate(ROWS) == [f"BabyPython s0/{n}" for n in order]
        page.get_by_role("button", name="feature").click()
        assert page.evaluate(ROWS) == [f"BabyPython s0/{n}" for n in wanted]
        assert (
            page.locator(".fl-list tbody a")
            .first.evaluate("a => a.href")
            .endswith(f"/book/atlas.html#base/{wanted[0]}?in=base&fate=base-lua/d")
        )
        assert HOSTILE.replace(" ", "·") in page.inner_text(".fl-list"), "as text, and only as that"
        assert page.locator(".fl-list :is(script, img, iframe)").count() == 0
        assert seen.errors == [] and seen.requests == []
        assert check_axe(page) == []
        page.reload()  # as when the reader comes back from the atlas
        page.wait_for_selector(".fl-list tbody tr")
        assert page.get_by_label("Features").input_value() == "l"
        page.get_by_role("button", name="clear").click()
        assert page.evaluate(ROWS) == []


def test_a_click_on_a_band_chooses_it(html: Path, browser: Any) -> None:
    with visit(browser, html) as seen:
        page = seen.page
        draw_charts(page)
        page.wait_for_selector(".fl-list")
        page.locator(".fl-live .mark-area path").nth(0).click()
        page.wait_for_selector(".fl-list-said strong")
        step, fate = (page.get_by_label(n).input_value() for n in ("Step", "Features"))
        assert (step, fate) == ("base>lua", "p")
        paths = "[...document.querySelectorAll('.fl-live .mark-area path')]"
        bright = f"{paths}.filter(p => +getComputedStyle(p).opacity === 1).length"
        page.wait_for_function(f"{bright} === 1")
        assert seen.errors == []


def test_without_an_atlas_the_chart_says_so(browser: Any, tmp_path: Path) -> None:
    with visit(browser, write_flow(tmp_path)) as seen:
        draw_charts(seen.page)
        seen.page.get_by_label("Step").select_option("base>lua")
        seen.page.get_by_label("Features").select_option("p")
        seen.page.wait_for_function(
            "document.querySelector('.fl-list-said').innerText.includes('atlas of this run')"
        )
