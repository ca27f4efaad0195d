"""Figures: one piece of HTML that holds everything, safely."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import altair as alt
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from tables import figure_faults

from featlib import FeatlibError
from featlib.show.figure import CSV_BYTES, Markup, figure, fold, table
from featlib.show.strips import token_strips

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&\"'"


class Reader:
    """Tags, attributes and text of a page; script bodies apart."""

    def __init__(self, text: str) -> None:
        page = BeautifulSoup(text, "html.parser", multi_valued_attributes=None)
        self.tags = [(tag.name, tag.attrs) for tag in page.find_all(True)]
        self.scripts = [script.string for script in page.find_all("script")]
        self.text = [str(words) for words in page.strings if words.parent.name != "script"]

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]


def bars(labels: list[str], values: list[float]) -> alt.Chart:
    data = pd.DataFrame({"label": labels, "value": values})
    return alt.Chart(data).mark_bar().encode(x="value:Q", y="label:N").properties(width="container")


def download(text: str) -> pd.DataFrame:
    link = Reader(text).all("a")[0]["href"]
    return pd.read_csv(io.BytesIO(base64.b64decode(link.split("base64,")[1])))


def made(chart: alt.Chart | Markup, **changes: object) -> str:
    words = {"name": "bars", "caption": "Two bars of one.", "alt": "B is longer than A."} | changes
    return figure(chart, **words).html


def test_figure_holds_drawings_caption_and_finding_and_asks_for_nothing() -> None:
    text = made(bars(["a", "b"], [1, 2]), made_by="notebook 1")
    svg = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\"'\s<]+", text)) <= svg
    page = Reader(text)
    assert not any(page.all(tag) for tag in ("link", "iframe", "img"))
    assert page.all("figure")[0]["id"] == "fig-bars"
    images = [a for _, a in page.tags if a.get("role") == "img"]
    assert [a["aria-label"] for a in images] == ["B is longer than A."] * 2
    (spec,) = page.scripts
    assert json.loads(spec)["mark"] == {"type": "bar"}
    assert page.all("script") == [{"type": "application/json", "class": "fl-spec"}]
    assert page.all("svg") and page.all("path")
    assert "Made by notebook 1" in page.text
    assert 'fill="currentColor"' in text and "var(--fl-muted,#59636e)" in text, "the page's ink"


def test_hostile_labels_stay_text_and_captions_take_code_and_emphasis_only() -> None:
    words = f"Use `k < 3`, *never* {HOSTILE}"
    text = made(bars([HOSTILE, "b"], [1, 2]), alt=f"Hostile words: {HOSTILE}", caption=words)
    assert "<code>k &lt; 3</code>, <em>never</em> &lt;/script" in text
    page = Reader(text)
    assert len(page.scripts) == 1 and "<" not in page.scripts[0] and not page.all("img")
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert next(iter(json.loads(page.scripts[0])["datasets"].values()))[0]["label"] == HOSTILE


def test_ids_of_two_drawings_on_a_page_differ() -> None:
    def ids(name: str) -> set[str]:
        stops = [alt.GradientStop(color=c, offset=o) for c, o in (("red", 0), ("blue", 1))]
        fade = alt.LinearGradient(gradient="linear", stops=stops)
        chart = alt.Chart(pd.DataFrame({"x": [0, 1]})).mark_area(color=fade, clip=True)
        text = made(chart.encode(x="x:Q", y="x:Q"), name=name)
        found = set(re.findall(r'\bid="([^"]+)"', text))
        assert set(re.findall(r"url\(#([^)]+)\)", text)) <= found, "a reference without its target"
        assert len(found) >= 3
        return found

    assert not ids("one") & ids("two")


def test_table_behind_can_be_downloaded_and_a_long_one_is_cut_at_a_row_and_says_so() -> None:
    text = made(bars(["a", "b, c"], [1, 2.5]))
    assert Reader(text).all("a")[0]["download"] == "bars.csv"
    assert download(text).to_dict("list") == {"label": ["a", "b, c"], "value": [1.0, 2.5]}
    long = pd.DataFrame({"word": ["é" * 40] * 5000})
    text = made(bars(["a"], [1]), data=long)
    back = download(text)
    assert 1000 < len(back) < 5000 and set(back["word"]) == {"é" * 40}
    assert f"the first {len(back):,} of 5,000 rows" in text
    assert len(text) < 2 * CSV_BYTES


INFINITE = alt.Chart(pd.DataFrame({"a": [1]})).mark_rule().encode(x=alt.datum(float("inf")))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "My figure"}, "hyphens"),
        ({"alt": ""}, "alt text"),
        ({"caption": "Bars"}, "caption"),
        ({"chart": INFINITE}, "not finite"),
    ],
)
def test_figures_that_cannot_serve_a_reader_are_refused(changes, named) -> None:
    with pytest.raises(FeatlibError, match=named):
        made(**{"chart": bars(["a"], [1])} | changes)


def test_table_escapes_and_aligns_names_features_and_leaves_no_nan() -> None:
    row = {"<x>": HOSTILE, "n": 12345, "r": 0.123456, "ok": True, "best feature": 1463}
    text = table(pd.DataFrame([row | {"m": -1234, "none": float("nan")}]))
    folded = fold(text, "x < y")
    assert folded.startswith("<details") and folded.endswith(f"y</summary>{text}</details>")
    assert "<summary>x &lt; y<" in folded
    assert "<x>" not in text and "<script>" not in text and "<img" not in text
    assert '<td class="fl-num">12,345</td><td class="fl-num">0.1235</td><td>True</td>' in text
    assert '<td class="fl-num">1463</td>' in text
    assert ">–<" in text and ">−1,234<" in text and "nan" not in text
    assert text._repr_html_() == str(text)


def test_markup_says_its_finding_and_brings_its_table() -> None:
    strips = token_strips(["a", "b"], {"Lua 2": [0, 2.0]})
    text = made(strips, alt="It fires on b alone.")
    group = next(a for a in Reader(text).all("div") if a.get("class") == "fl-html")
    assert group["role"] == "group" and group["aria-label"] == "It fires on b alone."
    assert download(text).to_dict("list") == {"token": ["a", "b"], "Lua 2": [0, 2]}


def test_figures_without_finding_table_or_maker_are_found_out(tmp_path: Path) -> None:
    good = made(bars(["a", "b"], [1, 2]), alt="B is longer than A, 2 to 1.", made_by="chapter 1")
    (tmp_path / "good.html").write_text(good)
    assert figure_faults(tmp_path) == []
    (tmp_path / "bad.html").write_text(
        made(Markup("<p>x</p>"), alt="Two bars of one chart.")
        + made(bars(["é" * 80] * 2000, [1.0] * 2000), alt="One of 1.", made_by="chapter 1")
    )
    found = [fault.split(": ", 2)[2] for fault in figure_faults(tmp_path)]
    assert re.fullmatch(r"its table has \d+ rows to download, of 2000", found.pop())
    assert found == [
        "the alternative text 'Two bars of one chart.' states no finding",
        "nothing says what made it",
        "no table to download",
        "the alternative text 'One of 1.' states no finding",
    ]
