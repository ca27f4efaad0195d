"""The book: built from executed notebooks, with the numbers of their run, or not at all."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from build import build
from links import broken_links

from featlib import FeatlibError


def test_numbers_of_the_run_stand_in_the_prose(html: Path) -> None:
    text = (html / "book" / "index.html").read_text()
    words = " ".join(re.sub(r"<[^>]+>", "", text).split())
    assert "<strong>28.6%</strong>" in text
    assert "2,048 features, on Abacus 3000, at abc1234." in words
    assert 'id="fig-flow"' in text, "the chapter's figure stands on the front page too"


def test_a_term_of_the_glossary_says_its_definition(html: Path) -> None:
    page = BeautifulSoup((html / "book" / "words.html").read_text(), "html.parser")
    links = page.select("article a:has(.std-term)")
    terms = ("seed-ceiling", "feature", "BatchTopK")
    assert [link["href"] for link in links] == [f"glossary.html#term-{term}" for term in terms]
    assert len({link["title"] for link in links}) == 3
    assert links[2]["title"].endswith("not a by-product."), "no citation in a tooltip"


def test_the_head_of_a_page_says_once_what_it_is_about(html: Path) -> None:
    about = {
        "book/index": ("Do features survive?", "BabyPython predicts 28.6% of Python’s tokens"),
        "book/glossary": ("Glossary", "Glossary"),
        "notebooks/01_gallery": ("Gallery", "A persimmon, to be found by search."),
    }
    for name, (title, begins) in about.items():
        head = BeautifulSoup((html / f"{name}.html").read_text(), "html.parser").head
        assert head.select_one("meta[name=description]")["content"].startswith(begins), name
        assert title in head.title.text
        assert len(head.select("meta[name=viewport]")) == 1
        assert head.title.text.count("Do features survive?") == 1
        icon = head.select_one("link[rel=icon]")["href"]
        assert (html / name).parent.joinpath(icon).exists()


def test_pages_load_nothing_from_outside_and_every_link_leads_somewhere(html: Path) -> None:
    assert broken_links(html) == []
    loads = re.compile(
        r"<(?:script|img|iframe|source)[^>]*\ssrc=\"([^\"]+)|<link[^>]*\shref=\"([^\"]+)"
    )
    for path in html.rglob("*.html"):
        for found in loads.finditer(path.read_text()):
            assert not re.match(r"(https?:)?//", found.group(1) or found.group(2)), path
    for path in [*html.rglob("*.css")]:
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", path.read_text()), path


def test_the_bundle_is_one_file_and_pages_are_light(html: Path) -> None:
    bundle = html / "_static" / "featlib-vega.js"
    assert 200_000 < bundle.stat().st_size < 1_500_000
    for path in html.rglob("*.html"):
        assert path.stat().st_size < 1_500_000, path
        assert "featlib-vega.js" not in path.read_text(), "fetched only where a figure is"


def test_an_unknown_number_stops_the_build_and_keeps_the_former_book(
    html: Path, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page, former = project / "book" / "maths.md", (html / "index.html").read_text()
    before = page.read_text()
    page.write_text(
        '# Maths\n\n{{ pct(m["lm.base.python.acuracy"]) }} and $\\foo{x}$ {{ p.kk }}\n'
        "\nA function that nobody documents, {py:func}`nowhere`.\n"
    )
    try:
        with pytest.raises(FeatlibError, match="former book"):
            build(project / "runs" / "tiny", project)
    finally:
        page.write_text(before)
    said = capfd.readouterr().err
    assert "book/maths.md:3" in said
    assert "the nearest is 'lm.base.python.accuracy'" in said
    assert "Unknown command" in said and "foo" in said
    assert "the nearest is 'k'" in said
    assert "reference target not found: nowhere" in said, "references are held to account as well"
    assert (html / "index.html").read_text() == former
    assert (html / "_static" / "featlib-vega.js").exists()


def test_a_chapter_that_was_not_run_is_named_before_anything_is_built(
    project: Path, tmp_path: Path
) -> None:
    shutil.copytree(project, tmp_path / "p")
    (tmp_path / "p" / "runs" / "tiny" / "notebooks" / "02_strips.ipynb").unlink()
    with pytest.raises(FeatlibError, match=r"_toc.yml lists .*: notebooks/02_strips\. A page"):
        build(tmp_path / "p" / "runs" / "tiny", tmp_path / "p")
    with pytest.raises(FeatlibError, match=r"metrics.json is missing"):
        (tmp_path / "p" / "runs" / "tiny" / "metrics.json").unlink()
        build(tmp_path / "p" / "runs" / "tiny", tmp_path / "p")
    with pytest.raises(FeatlibError, match="is no folder"):
        build(tmp_path / "p" / "runs" / "none", tmp_path / "p")
