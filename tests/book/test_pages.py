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
VIEWS = [("light", (1280, 900)), ("dark", (360, 780))]


@pytest.mark.parametrize(("mode", "size"), VIEWS)
@pytest.mark.parametrize("page", PAGE_FILES)
def test_page_is_sound_and_shuts_no_one_out(
    html: Path, browser: Any, page: str, mode: str, size: tuple
) -> None:
    from axe import check_axe
    from browser import check_page, draw_charts, visit

    assert check_page(browser, html / f"{page}.html", size=size, mode=mode) == []
    with visit(browser, html / f"{page}.html", mode=mode) as seen:
        assert draw_charts(seen.page, mode) == len(gallery()) * page.endswith("gallery") + (
            page == "book/index"
        )
        assert check_axe(seen.page) == []


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


def test_search_finds_notebooks_and_terms_and_says_nothing_twice(html: Path, browser: Any) -> None:
    from browser import check_search

    titles, faults = check_search(browser, html, "persimmon")
    assert faults == [] and any("Gallery" in title for title in titles)
    assert check_search(browser, html, "xylophone") == ([], [])
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
        page.wait_for_timeout(500)  # what is kept reaches the next page's process in its own time
        page.goto((html / "notebooks" / "02_strips.html").as_uri())
        assert opened.count() == folds.count() == 1
        page.locator(".fl-code-switch").click()
        page.reload()
        assert opened.count() == 0 and not seen.errors


def test_strip_is_walked_with_one_stop_of_the_tab_key(html: Path, browser: Any) -> None:
    from browser import visit

    with visit(browser, html / "notebooks" / "02_strips.html") as seen:
        page = seen.page
        strip, readout = page.locator(".fl-tokens"), page.locator(".fl-readout")
        strip.focus()
        assert readout.inner_text() == "' raise' · 4", "the strongest token is read out first"
        page.keyboard.press("ArrowRight")
        assert "alert(1)" in readout.inner_text()
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
    taken = {path.name: path.read_bytes() for path in sheet.parent.glob("*.png")}
    assert all(name in sheet.read_text() for name in taken) and len(set(taken.values())) == 4
    assert {struct.unpack(">I", picture[16:20])[0] for picture in taken.values()} == {390, 1280}
    with pytest.raises(FeatlibError, match=r"no page book/none in the book; .* book/maths"):
        screenshots.take_screenshots(run, ["book/none"])
    monkeypatch.setenv("CHROMIUM", "/nowhere")
    with pytest.raises(FeatlibError, match="no Chromium to take pictures with"):
        screenshots.take_screenshots(run, ["book/maths"])


def test_the_checks_see_faults(tmp_path: Path, browser: Any) -> None:
    """A page with every fault that check_page looks for: a check that cannot fail is no check."""
    from axe import check_axe
    from browser import check_page, check_print, visit

    (tmp_path / "bad.html").write_text(
        "<main style='width:2000px'><p id=a></p><p id=a></p><span class=math>x</span>"
        "<p style='color:#bbb;background:#fff'>too pale to read</p>"
        "<img src=none.png><script src='https://example.org/x.js'></script>"
        "<script>console.error('oh')</script><figure class=fl-figure id=fig-lost>"
        "<div class=fl-static hidden><svg width=200 height=100></svg></div></figure></main>"
    )
    assert "fig-lost: printed still False" in check_print(browser, tmp_path / "bad.html")[0]
    found = "\n".join(check_page(browser, tmp_path / "bad.html"))
    for fault in ("id a used twice", "maths not shown", "none.png: broken", "px wider"):
        assert fault in found
    assert "request left: https://example.org/x.js" in found and "console: oh" in found
    with visit(browser, tmp_path / "bad.html") as seen:
        found = " ".join(check_axe(seen.page))
    assert "color-contrast" in found and "image-alt" in found and "html-has-lang" in found
