"""The small book in a real browser with the network cut."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import pytest
from gallery import gallery

from featlib import FeatlibError

pytestmark = pytest.mark.browser
PAGE_FILES = ("book/index", "book/maths", "notebooks/01_gallery", "notebooks/02_strips")
VIEWS = [("light", (1280, 900)), ("dark", (1280, 900)), ("light", (360, 780))]


@pytest.mark.parametrize(("mode", "size"), VIEWS)
@pytest.mark.parametrize("page", PAGE_FILES)
def test_page_is_sound(html: Path, browser: Any, page: str, mode: str, size: tuple) -> None:
    from browser import check_page

    assert check_page(browser, html / f"{page}.html", size=size, mode=mode) == []


def test_every_chart_is_drawn_live(html: Path, browser: Any) -> None:
    from browser import draw_charts, visit

    with visit(browser, html / "notebooks" / "01_gallery.html") as seen:
        assert draw_charts(seen.page) == len(gallery())
        assert seen.page.locator(".fl-live svg").count() == len(gallery())


def test_charts_follow_the_theme_button_and_the_width(html: Path, browser: Any) -> None:
    from browser import check_theme_switch, draw_charts, visit

    path = html / "notebooks" / "01_gallery.html"
    assert check_theme_switch(browser, path) == []
    with visit(browser, path) as seen:
        draw_charts(seen.page)
        seen.page.set_viewport_size({"width": 500, "height": 800})
        seen.page.wait_for_function(
            "() => [...document.querySelectorAll('.fl-live svg')]"
            ".every(s => s.getBoundingClientRect().right <= 501)"
        )


def test_paper_and_no_script_show_the_static_drawings(html: Path, browser: Any) -> None:
    from browser import check_print

    path = html / "notebooks" / "01_gallery.html"
    assert check_print(browser, path) == []
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator(".fl-static svg:visible").count() == len(gallery())
    assert page.locator(".fl-live:visible").count() == 0
    context.close()


def test_search_finds_words_of_notebooks(html: Path, browser: Any) -> None:
    from browser import check_search

    titles, faults = check_search(browser, html, "persimmon")
    assert faults == []
    assert any("Gallery" in title for title in titles)
    assert check_search(browser, html, "xylophone") == ([], [])


def test_search_names_a_term_and_says_nothing_twice(html: Path, browser: Any) -> None:
    from browser import check_search

    titles, faults = check_search(browser, html, "seed+ceiling")
    assert titles[0].endswith("Glossary > seed ceiling") and not faults
    assert len(titles) == len(set(titles))


def test_one_switch_opens_all_code_here_and_on_the_next_page(html: Path, browser: Any) -> None:
    from browser import visit

    with visit(browser, html / "notebooks" / "01_gallery.html") as seen:
        page = seen.page
        folds, opened = page.locator("details.hide"), page.locator("details.hide[open]")
        assert folds.count() == len(gallery()) and opened.count() == 0
        assert page.locator(".cell > .cell_input").count() == 0, "code that is not folded"
        page.locator(".fl-code-switch").focus()
        page.keyboard.press("Enter")
        assert opened.count() == folds.count()
        page.goto((html / "notebooks" / "02_strips.html").as_uri())
        assert opened.count() == folds.count() == 1
        page.locator(".fl-code-switch").click()
        page.reload()
        assert opened.count() == 0 and not seen.errors


def test_title_and_search_stay_above_the_list_of_pages(html: Path, browser: Any) -> None:
    from browser import visit

    with visit(browser, html / "notebooks" / "02_strips.html", size=(1280, 510)) as seen:
        assert seen.page.evaluate(
            """() => {
              const list = document.querySelector(".sidebar-primary-item:has(> .bd-docs-nav)");
              list.closest(".bd-sidebar-primary").scrollTop = list.scrollTop = 9999;
              return list.scrollTop > 0;
            }"""
        )
        for part in (
            ".bd-sidebar-primary .navbar-brand",
            ".bd-sidebar-primary .search-button__button",
        ):
            box = seen.page.locator(part).bounding_box()
            assert box and box["y"] >= 0


def test_weak_tokens_are_raised_in_the_dark_and_no_line_is_cut(html: Path, browser: Any) -> None:
    from browser import visit

    alphas = []
    for mode in ("light", "dark"):
        with visit(browser, html / "notebooks" / "02_strips.html", mode=mode) as seen:
            weak = "getComputedStyle(document.querySelectorAll('.fl-tok')[1])"
            alphas.append(seen.page.evaluate(f"+{weak}.backgroundColor.match(/[\\d.]+(?=\\))/)[0]"))
            assert (
                seen.page.evaluate(
                    "getComputedStyle(document.querySelector('.fl-tokens')).maxHeight"
                )
                == "none"
            )
    assert alphas[1] > 1.5 * alphas[0]


def test_strip_is_walked_with_one_stop_of_the_tab_key(html: Path, browser: Any) -> None:
    from browser import visit

    with visit(browser, html / "notebooks" / "02_strips.html") as seen:
        page = seen.page
        strip, readout = page.locator(".fl-tokens"), page.locator(".fl-readout")
        strip.focus()
        assert readout.inner_text() == "' raise' · 4", "the strongest token is read out first"
        page.keyboard.press("ArrowRight")
        assert "alert(1)" in readout.inner_text()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Home")
        assert readout.inner_text() == "'try' · 0"
        assert page.url.endswith("02_strips.html"), "arrow keys must not turn the page"
        page.locator(".fl-tok").nth(1).hover()
        assert readout.inner_text() == "':' · 1"
        assert "alert(1)" in strip.inner_text()
        assert page.evaluate("document.querySelectorAll('.fl-strip :is(img, script)').length") == 0
        page.keyboard.press("Tab")
        assert not page.evaluate("document.activeElement.closest('.fl-tokens')")


def test_pictures_are_taken_of_each_page_wide_and_narrow_light_and_dark(
    html: Path, project: Path, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import screenshots

    run = project / "runs" / "tiny"
    monkeypatch.setattr(screenshots, "open_browser", lambda: contextlib.nullcontext(browser))
    sheet = screenshots.take_screenshots(run, ["book/maths"])
    sizes, taken = {}, sorted(sheet.parent.glob("*.png"))
    for path in taken:
        sizes[path.name] = struct.unpack(">II", path.read_bytes()[16:24])
        assert path.name in sheet.read_text()
    assert [name.split("-")[1:] for name in sizes] == [
        ["1280", "dark.png"], ["1280", "light.png"], ["390", "dark.png"], ["390", "light.png"],
    ]  # fmt: skip
    assert [width for width, _ in sizes.values()] == [1280, 1280, 390, 390]
    assert all(height >= 900 for _, height in sizes.values())
    assert len({path.read_bytes() for path in taken}) == 4
    with pytest.raises(FeatlibError, match=r"no page book/none in the book; .* book/maths"):
        screenshots.take_screenshots(run, ["book/none"])
    with pytest.raises(FeatlibError, match="make book RUN=tiny2"):
        screenshots.take_screenshots(project / "runs" / "tiny2", ["book/none"])
    monkeypatch.setenv("CHROMIUM", "/nowhere")
    with pytest.raises(FeatlibError, match="no Chromium to take pictures with"):
        screenshots.take_screenshots(run, ["book/maths"])


def test_the_checks_see_faults(tmp_path: Path, browser: Any) -> None:
    """A page with every fault that check_page looks for: a check that cannot fail is no check."""
    from browser import check_page, check_print

    (tmp_path / "bad.html").write_text(
        "<main style='width:2000px'><p id=a></p><p id=a></p><span class=math>x</span>"
        "<img src=none.png><script src='https://example.org/x.js'></script>"
        "<script>console.error('oh')</script><figure class=fl-figure id=fig-lost>"
        "<div class=fl-static hidden><svg width=200 height=100></svg></div></figure></main>"
    )
    assert "fig-lost: printed still False" in check_print(browser, tmp_path / "bad.html")[0]
    found = "\n".join(check_page(browser, tmp_path / "bad.html"))
    for fault in ("id a used twice", "maths not shown", "none.png: broken", "px wider"):
        assert fault in found
    assert "request left: https://example.org/x.js" in found and "console: oh" in found


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("page", [*PAGE_FILES, "book/references", "book/words"])
def test_page_is_accessible(html: Path, browser: Any, page: str, mode: str) -> None:
    from axe import check_axe
    from browser import draw_charts, visit

    with visit(browser, html / f"{page}.html", mode=mode) as seen:
        draw_charts(seen.page, mode)
        assert check_axe(seen.page) == []
