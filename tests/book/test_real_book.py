"""The book of a real run at toy size: every page of it, in a real browser."""

from __future__ import annotations

from bs4 import BeautifulSoup
from driver import CHAPTERS, ROOT
from links import broken_links
from reading import reading_minutes
from tables import figure_faults


def test_no_page_of_the_real_book_has_a_fault_or_shuts_anyone_out_and_each_prints(smoke, browser):
    """Each page, wide in light and narrow in the dark, network cut; axe-core finds nothing."""
    from axe import check_axe
    from browser import NARROW, WIDE, check_page, draw_charts, print_faults, switch_mode, visit

    html = smoke.folder / "book/html"
    pages = sorted([*html.glob("book/*.html"), *html.glob("notebooks/*.html")])
    assert len(pages) >= len(CHAPTERS) + 4
    faults, charts = [], 0
    for page in pages:
        faults += check_page(browser, page, mode="light", size=WIDE)
        faults += check_page(browser, page, mode="dark", size=NARROW)
        with visit(browser, page, mode="light") as seen:
            charts += draw_charts(seen.page, "light")
            faults += [f"{page.name} (light): {fault}" for fault in check_axe(seen.page)]
            switch_mode(seen.page, "dark")
            faults += [f"{page.name} (dark): {fault}" for fault in check_axe(seen.page)]
            faults += [f"{page.name} (printed): {fault}" for fault in print_faults(seen.page)]
        # what a notebook shows as nothing must not become a line of Python
        faults += ["prints an object"] * ("IPython.core" in page.read_text())
    assert charts > len(CHAPTERS) and not faults, "\n".join(faults)


def test_links_figures_and_pages_of_the_real_book_are_whole(smoke):
    """Every link leads somewhere, every figure has its finding and its table, nothing is heavy."""
    html = smoke.folder / "book/html"
    assert broken_links(html) == [] and figure_faults(html) == []
    for page in html.rglob("*.html"):
        assert page.stat().st_size < 1_500_000, page
        assert str(ROOT) not in page.read_text(encoding="utf-8"), page


def test_every_page_of_the_real_book_says_what_made_it(smoke):
    html = smoke.folder / "book/html"
    for path in [*html.glob("book/*.html"), *html.glob("notebooks/*.html")]:
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        if path.parent.name == "book":
            assert f"make book RUN={smoke.name}" in page.select(".fl-made")[-1].text, path
            continue
        (made,) = page.select(".fl-provenance")
        words = {term.text for term in made.select("dt")}
        assert words == {"Run", "Commit", "Time", "Hardware", "Versions"}, path
        assert f"papermill notebooks/{path.stem}.ipynb" in made.select_one("pre").text, path
        assert made.select("details table"), path
    assert reading_minutes(html)["book/index"] > 0.5


def test_the_real_book_searches(smoke, browser):
    from browser import check_search

    html = smoke.folder / "book/html"
    titles, faults = check_search(browser, html, "slerp")
    assert any("LuaStories" in title for title in titles) and not faults
