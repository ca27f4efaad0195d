"""The book of a real run at toy size: every page of it, in a real browser."""

from __future__ import annotations

import re

from bs4 import BeautifulSoup
from driver import CHAPTERS, ROOT


def test_no_page_of_the_real_book_has_a_fault(smoke, browser):
    """Each page, in light and on a narrow dark screen, network cut: nothing missing, no error."""
    from browser import NARROW, WIDE, check_page

    html = smoke.folder / "book/html"
    pages = sorted([*html.glob("book/*.html"), *html.glob("notebooks/*.html")])
    assert len(pages) >= len(CHAPTERS) + 4
    faults = [
        fault
        for page in pages
        for mode, size in (("light", WIDE), ("dark", NARROW))
        for fault in check_page(browser, page, size=size, mode=mode)
    ]
    # what a notebook shows as nothing must not become a line of Python
    faults += [
        f"{page.name} prints an object" for page in pages if "IPython.core" in page.read_text()
    ]
    assert not faults, "\n".join(faults)


def test_every_link_of_the_real_book_leads_somewhere(smoke):
    from links import broken_links

    assert broken_links(smoke.folder / "book/html") == []


def test_every_figure_of_the_real_book_has_its_finding_and_its_table(smoke):
    from tables import figure_faults

    assert figure_faults(smoke.folder / "book/html") == []


def test_no_page_of_the_real_book_shuts_anyone_out_and_each_prints(smoke, browser):
    """axe-core finds nothing serious, in light and in dark; paper has every figure."""
    from axe import check_axe
    from browser import draw_charts, print_faults, switch_mode, visit

    html = smoke.folder / "book/html"
    pages = sorted([*html.glob("book/*.html"), *html.glob("notebooks/*.html")])
    faults, charts = [], 0
    for page in pages:
        with visit(browser, page, mode="light") as seen:
            charts += draw_charts(seen.page, "light")
            faults += [f"{page.name} (light): {fault}" for fault in check_axe(seen.page)]
            switch_mode(seen.page, "dark")
            faults += [f"{page.name} (dark): {fault}" for fault in check_axe(seen.page)]
            faults += [f"{page.name} (printed): {fault}" for fault in print_faults(seen.page)]
    assert charts > len(CHAPTERS) and not faults, "\n".join(faults)


def test_every_page_of_the_real_book_says_what_made_it_and_the_front_page_has_its_parts(smoke):
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
    front = BeautifulSoup((html / "book/index.html").read_text(encoding="utf-8"), "html.parser")
    doors = [link["href"] for link in front.select(".fl-doors a")]
    assert doors == ["experiment.html", "atlas.html", "run-it-yourself.html"]
    assert front.select("blockquote") and front.select("figure.fl-figure")
    answer = front.select_one(".fl-answer p").text
    assert 1 < len(re.findall(r"\.(?=\s|$)", answer)) < 5, f"not a short answer: {answer}"


def test_the_real_book_searches(smoke, browser):
    from browser import check_search

    html = smoke.folder / "book/html"
    titles, faults = check_search(browser, html, "slerp")
    assert any("LuaStories" in title for title in titles) and not faults


def test_the_real_book_is_light_and_names_nothing_of_this_machine(smoke):
    html = smoke.folder / "book/html"
    for page in html.rglob("*.html"):
        assert page.stat().st_size < 1_500_000, page
        assert str(ROOT) not in page.read_text(encoding="utf-8"), page
