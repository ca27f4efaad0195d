"""The page of the atlas in a browser with the network cut."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe import check_axe
from browser import visit
from made_atlas import HOSTILE, N_FEATURES, ROOT, Made, read, write_page

from featlib.describe.atlas_files import dictionary_name
from featlib.family import MODELS

pytestmark = pytest.mark.browser
ROWS = "[...document.querySelectorAll('.at-row')].map(a => a.hash.slice(1).split('?')[0])"
THEME = (
    "<script>document.documentElement.dataset.theme = localStorage.theme</script><style>"
    "html{--pst-color-background:#fff;--pst-color-text-base:#222832;--pst-color-primary:#0a7d91;"
    "--pst-font-family-monospace:monospace}html[data-theme=dark]{--pst-color-background:#14181e;"
    "--pst-color-text-base:#ced6dd;--pst-color-primary:#3fb1c5}body{margin:1rem;"
    "background:var(--pst-color-background);color:var(--pst-color-text-base)}"
    "a{color:var(--pst-color-primary)}</style>"
)
BODY = re.search(r"```\{raw\} html\n(.*?)```", (ROOT / "book/atlas.md").read_text(), re.DOTALL)[1]


@pytest.fixture(scope="module")
def html(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("html") / "book/atlas.html", BODY, made, THEME)


@contextmanager
def opened(browser: Any, html: Path, feature: str, axe: bool = False, **look: Any) -> Iterator[Any]:
    """The page of a feature, and at its end that nothing went wrong and nothing was fetched.

    Then axe may look at it, which reads style sheets in ways that a page from disk refuses.
    """
    with visit(browser, f"{html.as_uri()}#{feature}", **look) as seen:
        shows(seen.page, feature.split("?")[0])
        yield seen.page
        assert seen.errors == [] and seen.requests == []
        assert not axe or check_axe(seen.page) == []


def shows(page: Any, feature: str) -> None:
    shown = "f => document.getElementById('fl-atlas').dataset.shown === f"
    page.wait_for_function(shown, arg=feature)


def go(page: Any, feature: str) -> None:
    page.evaluate(f"location.hash = '#{feature}'")
    shows(page, feature.split("?")[0])


def found(page: Any, text: str) -> None:
    page.wait_for_function(
        "t => document.querySelector('.at-found').innerText.startsWith(t)", arg=text
    )


@pytest.mark.parametrize(
    ("mode", "size"), [("light", (1280, 900)), ("dark", (1280, 900)), ("light", (360, 780))]
)
def test_page_is_sound_accessible_and_hostile_text_stays_text(
    html: Path, browser: Any, mode: str, size: tuple
) -> None:
    with opened(browser, html, "base/69", axe=True, size=size, mode=mode) as page:
        assert page.title() == "BabyPython s0/69 · Feature atlas"
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 1
        page.locator("details > summary").first.click()
        assert page.locator("details .fl-strip").count() == 8
        go(page, "base/3")
        assert page.locator(".at-why q").inner_text() == HOSTILE
        page.locator("#at-query").fill("alert(2)")
        page.wait_for_function("/^[1-9]/.test(document.querySelector('.at-found').innerText)")
        assert page.locator("#fl-atlas :is(script, img, iframe, b)").count() == 0
        text = page.evaluate("document.body.textContent")
        assert "\\u202e" in text and "\u202e" not in text


def test_it_is_worked_by_keyboard_and_by_address(html: Path, browser: Any) -> None:
    with opened(browser, html, "lua/66") as page:
        assert page.locator("[aria-current] .at-number").inner_text() == "s0/66"
        assert page.evaluate("scrollY") == 0, "marking the row moves the list, not the page"
        page.keyboard.press("j")
        shows(page, "lua/67")
        assert page.url.endswith("#lua/67")
        page.keyboard.press("k")
        shows(page, "lua/66")
        entries = page.evaluate("history.length")
        page.keyboard.press("/")
        page.keyboard.type("exception")
        shows(page, "base/69")  # the best fit, at once
        assert page.evaluate(ROWS)[0] == "base/69" and page.evaluate("history.length") == entries
        assert page.evaluate("document.activeElement.id") == "at-query", "to type on"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.hash") == "#base/69?q=exception"
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "at-query"
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.hash") == "#base/69?q=exception"
        go(page, "merged/12")
        assert page.locator("#at-query").input_value() == ""
        page.evaluate("location.hash = '#merged/9999'")
        none = "document.body.innerText.includes('no page of a feature merged 9999')"
        page.wait_for_function(none)


def test_all_models_are_searched_at_once(html: Path, browser: Any, made: Made) -> None:
    def having(*words: str) -> set[str]:
        ids = {made.vocabulary.index(f" {word}") for word in words}
        out = set()
        for (m, seed), own in made.shown.items():
            known = read(made.folder / f"list-{dictionary_name(m, seed)}.js")
            for n, on, up in zip(own, known["on"], known["up"], strict=True):
                if ids <= {*on, *up}:
                    out.add(f"{m}/{f's{seed}/' if seed else ''}{n}")
        return out

    with opened(browser, html, "base/0?q=12") as page:
        assert page.evaluate(ROWS)[:4] == [f"{m}/12" for m in MODELS]
        go(page, "merged/60?q=word")
        page.locator("#at-query").fill("wor")
        page.wait_for_function("document.querySelector('.at-scroll').scrollTop === 0")
        page.wait_for_function(f"!{ROWS}.includes('merged/60') && {ROWS}.length === 80")
        page.locator("#at-query").fill("LuaStories 12")
        page.wait_for_function(f"{ROWS}[0] === 'merged/12'")
        for words in (["raise", "word9"], ["word9"]):
            page.locator("#at-query").fill(" ".join(words))
            wanted = having(*words)
            found(page, f"{len(wanted)} features of all models")
            page.locator(".at-scroll").evaluate("e => e.scrollTo(0, 1e6)")
            page.wait_for_function(f"{ROWS}.length === {len(wanted)}")
            assert set(page.evaluate(ROWS)) == wanted and wanted
        assert len({m.split("/")[0] for m in wanted}) == 4


def test_filters_and_orders(html: Path, browser: Any, made: Made) -> None:
    firings = (made.dense("base") > 0).sum(0)
    fits = [n for n, f in enumerate(made.fits["base", 0]) if any(fit[0] == 3 for fit in f)]
    persist = range(0, N_FEATURES, 3)
    assert 69 in fits

    def lists(order: Any) -> bool:
        return page.evaluate(ROWS) == [f"base/{n}" for n in np.asarray(order).tolist()]

    with opened(browser, html, "base/0?in=base") as page:
        for box, value, order in (
            ("#at-sort", "firings", np.lexsort((np.arange(70), -firings))),
            ("#at-density", "silent", np.flatnonzero(firings == 0)),
            ("#at-fate", "base>lua/d", range(1, N_FEATURES, 3)),
            ("#at-label", "exception", fits),
        ):
            page.locator(box).select_option(value)
            assert lists(order)
            page.locator(box).select_option("")
        go(page, "base/69")
        page.get_by_role("link", name="exception", exact=True).click()
        page.wait_for_function("document.querySelector('#at-label').value === 'exception'")
        assert page.evaluate(ROWS)[0] == "base/69", "its best fit first, in all models"
        page.locator(".at-chips a").click()
        page.wait_for_function("document.querySelector('#at-fate').value === 'base>lua/p'")
        assert lists(persist)


def test_a_link_to_elsewhere_keeps_the_list_and_back_leads_back(
    html: Path, browser: Any, made: Made
) -> None:
    with opened(browser, html, "base/1?in=base&fate=base-lua/d") as page:
        wanted = [f"base/{n}" for n in range(1, N_FEATURES, 3)]
        assert page.evaluate(ROWS) == wanted
        page.evaluate("scrollTo(0, 1e6)")
        link = page.locator(".at-line a").first
        other = link.get_attribute("data-to")
        link.click()
        shows(page, other)
        assert page.evaluate(ROWS) == wanted, "the reader's list stays"
        assert "is not among them" in page.inner_text(".at-side")
        assert page.evaluate("document.activeElement.id") == "at-name", "where the new page begins"
        assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
        page.go_back()
        shows(page, "base/1")
        assert page.evaluate(ROWS) == wanted and page.url.endswith("in=base&fate=base-lua/d")
        page.locator(".at-reset").click()
        found(page, f"{sum(map(len, made.shown.values()))} features of all models")
        assert page.url.endswith("#base/1")


def test_what_the_book_names_has_a_page_with_its_relatives(
    html: Path, browser: Any, made: Made
) -> None:
    with visit(browser, html.as_uri()) as seen:
        page = seen.page
        shows(page, "merged/s1/66")  # where no feature is asked for, the first that is named
        assert page.inner_text("#at-name") == "LuaStories s1/66"
        relatives = read(made.folder / "index.js")["relatives"]["merged-s1/66"]
        links = page.locator(".at-seeds").first.locator("a")
        assert {link.get_attribute("data-to") for link in links.all()} == {
            f"{where}/{n}" for route, where, n, _ in relatives if route == "alike"
        }
        assert "this feature" in page.inner_text(".at-seeds")
        links.first.click()
        page.wait_for_function("document.querySelector('#at-name').innerText.startsWith('Baby')")
        page.locator("#at-label").select_option("named in the book")
        found(page, "2 features of all models")
        assert page.evaluate(ROWS) == ["base/69", "merged/s1/66"]
        page.locator("#at-label").select_option("")
        page.locator("#at-query").fill("LuaStories s1/66")
        page.wait_for_function(f"{ROWS}[0] === 'merged/s1/66'")
        page.evaluate("location.hash = '#base/s0/69'")
        shows(page, "base/69")
        assert HOSTILE in page.inner_text(".at-named")
        assert page.locator(".at-line").count() == 3 * 5  # itself, carried over, three matches
        assert seen.errors == [] and seen.requests == []


def test_no_match_counts_where_the_own_second_autoencoder_has_one(html, browser) -> None:
    with opened(browser, html, "base/1") as page:
        for feature, marked in (("base/1", 0), ("base/67", 1), ("base/0", 0)):
            go(page, feature)
            for place in (".at-chips", ".at-section"):
                assert page.locator(f"{place} .at-disappears").count() == marked
            doubted = page.locator(".at-chips > .at-doubt:first-child + .at-no-match")
            assert doubted.count() == (feature == "base/1")


def test_on_a_narrow_screen_a_hit_is_in_sight_and_leads_back(html: Path, browser: Any) -> None:
    top = "document.querySelector('[aria-current]').getBoundingClientRect().top"
    with opened(browser, html, "base/0", size=(390, 844)) as page:
        page.locator("#at-query").fill("raise")
        page.wait_for_function(f"location.hash !== '#base/0' && {top} < innerHeight")
        page.locator(".at-row").nth(1).click()
        page.wait_for_function(f"{top} < 0")
        page.locator(".at-back").click()
        page.wait_for_function(f"{top} >= 0 && {top} < innerHeight")
        assert page.evaluate("document.activeElement.matches('[aria-current]')")


def test_a_feature_far_down_the_list_has_its_neighbours(html: Path, browser: Any) -> None:
    with opened(browser, html, "merged/30") as page:
        drawn = page.evaluate(ROWS)
        assert len(drawn) < 4 * N_FEATURES, "the rows before it are not all drawn"
        assert {"merged/28", "merged/29", "merged/31"} <= set(drawn)
        up = "document.querySelector('.at-scroll').scrollTo(0, 0)"
        page.wait_for_function(f"() => ({up}, {ROWS}[0] === 'base/0')")
        drawn = [name.split("/") for name in page.evaluate(ROWS)]
        places = [(MODELS.index(m), int(n)) for m, *_, n in drawn if not _]
        assert places == sorted(places)


@contextmanager
def away(path: Path) -> Iterator[None]:
    elsewhere = path.parents[1] / "away"
    path.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(path)


def test_a_file_that_does_not_come_is_named_and_the_rest_can_be_read(
    html: Path, browser: Any, made: Made
) -> None:
    with visit(browser, f"{html.as_uri()}#base/0") as seen:
        shows(seen.page, "base/0")
        with away(made.folder / "lua-1.js"):
            seen.page.evaluate("location.hash = '#lua/66'")
            seen.page.wait_for_selector("[role=alert]")
            assert "Lua s0/66 cannot be shown: lua-1.js" in seen.page.inner_text(".at-detail")
        seen.page.locator(".at-again").click()
        shows(seen.page, "lua/66")
    said = "document.body.innerText.includes('cannot be shown: list-merged.js')"
    with away(made.folder / "list-merged.js"), visit(browser, f"{html.as_uri()}#base/0") as seen:
        seen.page.wait_for_function(said)
        seen.page.wait_for_selector("#at-name")
        assert seen.page.inner_text("#at-name") == "BabyPython s0/0"
        seen.page.locator("button[value=base]").click()
        found(seen.page, f"{N_FEATURES} features of BabyPython")


def test_a_model_that_no_script_has_heard_of_has_its_pages_and_its_colour(
    html: Path, browser: Any, made: Made, tmp_path: Path
) -> None:
    shutil.copytree(html.parents[1], tmp_path / "book")
    for path in (tmp_path / "book" / "_static" / "atlas").iterdir():
        text = path.read_text().replace("tinystories", "es_2024").replace("#009e73", "#f0e442")
        path.unlink()
        path.with_name(path.name.replace("tinystories", "es_2024")).write_text(text)
    with opened(browser, tmp_path / "book/book/atlas.html", "es_2024/66", axe=True) as page:
        ink = "getComputedStyle(document.querySelector('#at-name')).color"
        assert re.match(r"oklch\(0\.5 0\.\d+ 1\d\d", page.evaluate(ink))  # a darker yellow


def test_where_there_is_no_data_the_page_says_so(browser: Any, tmp_path: Path) -> None:
    with visit(browser, write_page(tmp_path / "book/atlas.html", BODY)) as seen:
        seen.page.wait_for_selector("[role=alert]")
        assert "index.js is not there" in seen.page.inner_text("#fl-atlas")
