"""The page of the atlas in a browser with the network cut."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe import check_axe
from browser import visit
from made_atlas import HOSTILE, N_FEATURES, Made, read

from featlib.describe.atlas_files import dictionary_name
from featlib.family import MODELS

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.browser
ROWS = "[...document.querySelectorAll('.at-row')].map(a => a.hash.slice(1).split('?')[0])"


@pytest.fixture(scope="module")
def html(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The atlas page with the book's own style and scripts, without the theme around it."""
    folder = tmp_path_factory.mktemp("html")
    static = folder / "_static"
    static.mkdir()
    for name in ("featlib.css", "featlib.js", "atlas.css", "atlas-data.js", "atlas.js"):
        (static / name).write_bytes((ROOT / "book" / "_static" / name).read_bytes())
    (static / "atlas").symlink_to(made.folder)
    source = (ROOT / "book" / "atlas.md").read_text()
    body = re.search(r"```\{raw\} html\n(.*?)```", source, re.DOTALL)
    assert body is not None
    theme = (
        "<script>document.documentElement.dataset.theme = localStorage.theme</script><style>"
        "html{--pst-color-background:#fff;--pst-color-text-base:#222832;--pst-color-primary:#0a7d91;"
        "--pst-font-family-monospace:monospace}html[data-theme=dark]{--pst-color-background:#14181e;"
        "--pst-color-text-base:#ced6dd;--pst-color-primary:#3fb1c5}body{margin:1rem;"
        "background:var(--pst-color-background);color:var(--pst-color-text-base)}"
        "a{color:var(--pst-color-primary)}</style>"
    )
    (folder / "book").mkdir()
    (folder / "book" / "atlas.html").write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Feature atlas</title>'
        '<meta name="viewport" content="width=device-width">'
        f'{theme}<link rel="stylesheet" href="../_static/featlib.css">'
        '<script src="../_static/featlib.js" defer></script></head>'
        f"<body><main class='bd-article'><h1>Feature atlas</h1>{body.group(1)}</main></body></html>"
    )
    return folder / "book" / "atlas.html"


def shows(page: Any, feature: str) -> None:
    page.wait_for_function(
        "f => document.getElementById('fl-atlas').dataset.shown === f", arg=feature
    )


@pytest.mark.parametrize(
    ("mode", "size"), [("light", (1280, 900)), ("dark", (1280, 900)), ("light", (360, 780))]
)
def test_page_is_sound_and_accessible(html: Path, browser: Any, mode: str, size: tuple) -> None:
    with visit(browser, f"{html.as_uri()}#base/69", size=size, mode=mode) as seen:
        shows(seen.page, "base/69")
        assert seen.page.title() == "BabyPython s0/69 · Feature atlas"
        wide = seen.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 1 and seen.errors == [] and seen.requests == []
        assert check_axe(seen.page) == []
        seen.page.locator("details > summary").first.click()
        assert seen.page.locator("details .fl-strip").count() == 8


def test_hostile_text_stays_text(html: Path, browser: Any, made: Made) -> None:
    with visit(browser, f"{html.as_uri()}#base/3") as seen:
        shows(seen.page, "base/3")
        assert seen.page.locator(".at-why q").inner_text() == HOSTILE
        seen.page.locator("#at-query").fill("alert(2)")
        seen.page.wait_for_function("/^[1-9]/.test(document.querySelector('.at-found').innerText)")
        assert seen.page.locator("#fl-atlas :is(script, img, iframe, b)").count() == 0
        assert "\\u202e" in seen.page.evaluate("document.body.textContent")
        assert "\u202e" not in seen.page.evaluate("document.body.textContent")
        assert seen.errors == [] and seen.requests == []


def found(page: Any, text: str) -> None:
    page.wait_for_function(
        "t => document.querySelector('.at-found').innerText.startsWith(t)", arg=text
    )


def test_it_is_worked_by_keyboard_and_by_address(html: Path, browser: Any) -> None:
    with visit(browser, f"{html.as_uri()}#lua/66") as seen:
        page = seen.page
        shows(page, "lua/66")
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
        page.evaluate("location.hash = '#merged/12'")
        shows(page, "merged/12")
        assert page.locator("#at-query").input_value() == ""
        page.evaluate("location.hash = '#merged/9999'")
        page.wait_for_function(
            "document.body.innerText.includes('no page of a feature merged 9999')"
        )
        assert seen.errors == []


def test_all_models_are_searched_at_once(html: Path, browser: Any, made: Made) -> None:
    with visit(browser, f"{html.as_uri()}#base/0?q=12") as seen:
        page = seen.page
        shows(page, "base/0")
        assert page.evaluate(ROWS)[:4] == [f"{m}/12" for m in MODELS]
        page.evaluate("location.hash = '#merged/60?q=word'")
        shows(page, "merged/60")
        page.locator("#at-query").fill("wor")
        page.wait_for_function("document.querySelector('.at-scroll').scrollTop === 0")
        page.wait_for_function(f"!{ROWS}.includes('merged/60') && {ROWS}.length === 80")
        page.locator("#at-query").fill("LuaStories 12")
        page.wait_for_function(f"{ROWS}[0] === 'merged/12'")

        def having(*words: str) -> set[str]:
            ids = {made.vocabulary.index(f" {word}") for word in words}
            out = set()
            for (m, seed), own in made.shown.items():
                known = read(made.folder / f"list-{dictionary_name(m, seed)}.js")
                for n, on, up in zip(own, known["on"], known["up"], strict=True):
                    if ids <= {*on, *up}:
                        out.add(f"{m}/{f's{seed}/' if seed else ''}{n}")
            return out

        page.locator("#at-query").fill("raise word9")
        both = having("raise", "word9")
        found(page, f"{len(both)} features of all models")
        assert set(page.evaluate(ROWS)) == both and both
        page.locator("#at-query").fill("word9")
        wanted = having("word9")
        found(page, f"{len(wanted)} features of all models")
        page.locator(".at-scroll").evaluate("e => e.scrollTo(0, 1e6)")
        page.wait_for_function(f"{ROWS}.length === {len(wanted)}")
        assert set(page.evaluate(ROWS)) == wanted
        assert len({m.split("/")[0] for m in wanted}) == 4
        assert seen.errors == []


def test_filters_and_orders(html: Path, browser: Any, made: Made) -> None:
    firings = (made.dense("base") > 0).sum(0)

    def numbers(order: Any) -> list[str]:
        return [f"base/{n}" for n in np.asarray(order).tolist()]

    with visit(browser, f"{html.as_uri()}#base/0?in=base") as seen:
        page = seen.page
        shows(page, "base/0")
        page.locator("#at-sort").select_option("firings")
        assert page.evaluate(ROWS) == numbers(np.lexsort((np.arange(70), -firings)))
        page.locator("#at-sort").select_option("")
        page.locator("#at-density").select_option("silent")
        assert page.evaluate(ROWS) == numbers(np.flatnonzero(firings == 0))
        page.locator("#at-density").select_option("")
        page.locator("#at-fate").select_option("base>lua/d")
        assert page.evaluate(ROWS) == numbers(range(1, N_FEATURES, 3))
        page.locator("#at-fate").select_option("")
        page.locator("#at-label").select_option("exception")
        fits = [n for n, f in enumerate(made.fits["base", 0]) if any(fit[0] == 3 for fit in f)]
        assert 69 in fits and page.evaluate(ROWS) == numbers(fits)
        page.evaluate("location.hash = '#base/69'")
        shows(page, "base/69")
        page.get_by_role("link", name="exception", exact=True).click()
        page.wait_for_function("document.querySelector('#at-label').value === 'exception'")
        assert page.evaluate(ROWS)[0] == "base/69", "its best fit first, in all models"
        page.locator(".at-chips a").click()
        page.wait_for_function("document.querySelector('#at-fate').value === 'base>lua/p'")
        assert page.evaluate(ROWS) == numbers(range(0, N_FEATURES, 3))
        assert seen.errors == []


def test_a_link_to_elsewhere_keeps_the_list_and_back_leads_back(
    html: Path, browser: Any, made: Made
) -> None:
    with visit(browser, f"{html.as_uri()}#base/1?in=base&fate=base-lua/d") as seen:
        page = seen.page
        shows(page, "base/1")
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
        assert page.url.endswith("#base/1") and seen.errors == []


def test_what_the_book_names_has_a_page_with_its_relatives(
    html: Path, browser: Any, made: Made
) -> None:
    with visit(browser, html.as_uri()) as seen:
        page = seen.page
        shows(page, "merged/s1/66")  # where no feature is asked for, the first that is named
        assert page.inner_text("#at-name") == "LuaStories s1/66"
        told = {
            (where, n): r
            for route, where, n, r in read(made.folder / "index.js")["relatives"]["merged-s1/66"]
            if route == "alike"
        }
        links = page.locator(".at-seeds").first.locator("a")
        assert {tuple(link.get_attribute("data-to").split("/")) for link in links.all()} == {
            (where, str(n)) for where, n in told
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


def test_no_match_means_something_only_where_the_own_second_autoencoder_has_one(
    html: Path, browser: Any
) -> None:
    with visit(browser, f"{html.as_uri()}#base/1") as seen:
        for feature, marked in (("base/1", 0), ("base/67", 1), ("base/0", 0)):
            seen.page.evaluate(f"location.hash = '#{feature}'")
            shows(seen.page, feature)
            assert seen.page.locator(".at-chips .at-disappears").count() == marked
            assert seen.page.locator(".at-section .at-disappears").count() == marked
            doubted = seen.page.locator(".at-chips > .at-doubt:first-child + .at-no-match")
            assert doubted.count() == (feature == "base/1")


def test_on_a_narrow_screen_a_hit_is_in_sight_and_leads_back_to_the_list(
    html: Path, browser: Any
) -> None:
    top = "document.querySelector('[aria-current]').getBoundingClientRect().top"
    with visit(browser, f"{html.as_uri()}#base/0", size=(390, 844)) as seen:
        shows(seen.page, "base/0")
        seen.page.locator("#at-query").fill("raise")
        seen.page.wait_for_function(f"location.hash !== '#base/0' && {top} < innerHeight")
        seen.page.locator(".at-row").nth(1).click()
        seen.page.wait_for_function(f"{top} < 0")
        seen.page.locator(".at-back").click()
        seen.page.wait_for_function(f"{top} >= 0 && {top} < innerHeight")
        assert seen.page.evaluate("document.activeElement.matches('[aria-current]')")


def test_a_feature_far_down_the_list_has_its_neighbours(html: Path, browser: Any) -> None:
    with visit(browser, f"{html.as_uri()}#merged/30") as seen:
        shows(seen.page, "merged/30")
        drawn = seen.page.evaluate(ROWS)
        assert len(drawn) < 4 * N_FEATURES, "the rows before it are not all drawn"
        assert {"merged/28", "merged/29", "merged/31"} <= set(drawn)
        up = "document.querySelector('.at-scroll').scrollTo(0, 0)"
        seen.page.wait_for_function(f"() => ({up}, {ROWS}[0] === 'base/0')")
        drawn = [name.split("/") for name in seen.page.evaluate(ROWS)]
        places = [(MODELS.index(m), int(n)) for m, *_, n in drawn if not _]
        assert places == sorted(places)


def test_a_shard_that_does_not_come_is_named_and_can_be_asked_for_again(
    html: Path, browser: Any, made: Made
) -> None:
    with visit(browser, f"{html.as_uri()}#base/0") as seen:
        page = seen.page
        shows(page, "base/0")
        shard, away = made.folder / "lua-1.js", made.folder.parent / "away"
        shard.rename(away)
        try:
            page.evaluate("location.hash = '#lua/66'")
            page.wait_for_selector("[role=alert]")
            assert "Lua s0/66 cannot be shown: lua-1.js" in page.inner_text(".at-detail")
        finally:
            away.rename(shard)
        page.locator(".at-again").click()
        shows(page, "lua/66")


def test_a_list_that_does_not_come_leaves_the_feature_to_be_read(
    html: Path, browser: Any, made: Made
) -> None:
    part, away = made.folder / "list-merged.js", made.folder.parent / "away-list"
    part.rename(away)
    try:
        with visit(browser, f"{html.as_uri()}#base/0") as seen:
            seen.page.wait_for_function(
                "document.body.innerText.includes('cannot be shown: list-merged.js')"
            )
            seen.page.wait_for_selector("#at-name")
            assert seen.page.inner_text("#at-name") == "BabyPython s0/0"
            seen.page.locator("button[value=base]").click()
            found(seen.page, f"{N_FEATURES} features of BabyPython")
    finally:
        away.rename(part)


def test_a_model_that_no_script_has_heard_of_has_its_pages_and_its_colour(
    html: Path, browser: Any, made: Made, tmp_path: Path
) -> None:
    shutil.copytree(html.parents[1], tmp_path / "book")
    for path in (tmp_path / "book" / "_static" / "atlas").iterdir():
        text = path.read_text().replace("tinystories", "es_2024").replace("#009e73", "#f0e442")
        path.unlink()
        path.with_name(path.name.replace("tinystories", "es_2024")).write_text(text)
    with visit(browser, f"{(tmp_path / 'book/book/atlas.html').as_uri()}#es_2024/66") as seen:
        shows(seen.page, "es_2024/66")
        ink = "getComputedStyle(document.querySelector('#at-name')).color"
        assert re.match(r"oklch\(0\.5 0\.\d+ 1\d\d", seen.page.evaluate(ink))  # a darker yellow
        assert seen.errors == [] and check_axe(seen.page) == []


def test_where_there_is_no_data_the_page_says_so(html: Path, browser: Any, tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "_static").mkdir()
    (tmp_path / "book" / "atlas.html").write_text(html.read_text())
    for path in (html.parents[1] / "_static").glob("*.*s"):
        (tmp_path / "_static" / path.name).write_bytes(path.read_bytes())
    with visit(browser, tmp_path / "book" / "atlas.html") as seen:
        seen.page.wait_for_selector("[role=alert]")
        assert "index.js is not there" in seen.page.inner_text("#fl-atlas")
