"""The checkers of built pages see the faults that they are there for."""

from __future__ import annotations

from pathlib import Path

from links import broken_links


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a b.html").write_text("<p id='there'></p><p data-deep-links='index.js'>")
    (tmp_path / "index.js").write_text(
        'featlibAtlas("index",{"dictionaries":[{"name":"m","features":13}]});\n'
    )
    (tmp_path / "sub" / "page.html").write_text(
        "<a href='../a%20b.html#there'></a><a href='../a%20b.html#m/12?q=x'></a><a href='#top'></a>"
        "<p id='top'><a href='https://example.org/none'></a><img src='data:,'>"
        "<a href='../a%20b.html#gone'></a><a href='none.html'></a><img src='none.png'>"
        "<a href='../a%20b.html#m/13'></a><a href='#m/12'></a><a href='../../out.html'></a>"
    )
    (tmp_path / "s.css").write_text("a{background:url(x.png)} b{background:url('data:,')}")
    assert {fault.split()[1] for fault in broken_links(tmp_path)} == {
        "../a%20b.html#gone",
        "../a%20b.html#m/13",
        "#m/12",
        "none.html",
        "none.png",
        "../../out.html",
        "x.png",
    }
