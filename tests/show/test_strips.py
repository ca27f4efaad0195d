"""Token strips: what a reader sees is the text, and nothing in the text can act."""

from __future__ import annotations

import re

import pytest
from test_figures import HOSTILE, Reader

from featlib.show.strips import explained_feature, token_strips, visible


def token_strip(tokens, row, label="Lua 7", peak=None, notes=None) -> str:
    peaks = peak and {label: peak}
    return token_strips(tokens, {label: row}, peak=peaks, notes=notes)


def tokens_of(text: str) -> list[dict[str, str | None]]:
    return [a for a in Reader(text).all("span") if a.get("class") == "fl-tok"]


def test_shade_is_in_proportion_and_stops_at_the_peak() -> None:
    shown = tokens_of(token_strip(["a", "b", "c", "d", "e"], [0, 1, 2, 8, -1], peak=4))
    strength = [re.search(r"--a:([\d.]+)", a.get("style") or "--a:0").group(1) for a in shown]
    assert [float(s) for s in strength] == [0, 0.25, 0.5, 1, 0]
    assert shown[2]["title"] == "'c' · 2"


def test_hostile_text_stays_text() -> None:
    text = token_strip([HOSTILE, "\u202e", "\x00", "\u200b"], [1, 2, 3, 4], label=HOSTILE)
    page = Reader(text)
    assert not page.all("script") and not page.all("img")
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert "".join(page.text).count("alert(1)") == 4, "shown in label and token, never run"
    assert "\\u202e" in text and "\u202e" not in text, "text could be turned around by it"
    assert "\\u0000" in text and "\\u200b" in text


@pytest.mark.parametrize("code", [0x3164, 0x034F, 0xFE0F, 0xE0101, 0x00A0, 0x2028, 0xFEFF, 0xD800])
def test_what_has_no_ink_is_spelt_out(code: int) -> None:
    shown = "".join(Reader(visible("a" + chr(code))).text)
    assert chr(code) not in shown and f"\\u{code:04x}" in shown


def test_whitespace_is_visible_and_lines_break() -> None:
    page = Reader(token_strip([" a", "\n", "\t", "b", ""], [0] * 5))
    assert "".join(page.text).startswith("Lua 7·a↵⇥b∅")
    assert len(page.all("br")) == 1 and len(page.all("wbr")) == 3


def test_one_stop_of_the_tab_key_and_what_is_heard_there() -> None:
    page = Reader(token_strip(["x", " raise"], [0, 2.5], label="Lua 7"))
    [stop] = [attrs for _, attrs in page.tags if "tabindex" in attrs]
    assert stop["tabindex"] == "0"
    assert stop["aria-label"] == "Lua 7: 1 of 2 tokens fire, most on ' raise'"
    assert "no token fires" in token_strip(["x"], [0])
    strip = token_strip(["try", ":"], [0.5, 0.0], notes=["keyword <1>", ""])
    assert "&#x27;try&#x27; · 0.5 · keyword &lt;1&gt;" in strip
    assert strip.count("text-decoration:underline") == 1


def test_strips_of_several_models_share_one_scale_unless_told() -> None:
    rows = {"BabyPython 1": [0, 4.0], "Lua 2": [0, 2.0]}
    shared = token_strips(["a", "b"], rows)
    assert [a.get("style", "")[:7] for a in tokens_of(shared)] == ["", "--a:1.0", "", "--a:0.5"]
    assert shared.count("fl-legend") == 1
    assert shared.data.to_dict("list") == {"token": ["a", "b"], **rows}, "to download"
    own = token_strips(["a", "b"], rows, peak={"BabyPython 1": 4, "Lua 2": 2})
    assert own.count("--a:1.0") == 2 and own.count("fl-legend") == 0


def test_an_explanation_is_text() -> None:
    rows, scores = {"activation": [1.0]}, {"correlation": -0.5}
    shown = explained_feature(
        "Lua 7", "<b>bold</b> & more", ["<i>"], rows, scores, link='a.html#lua/7"><b>'
    )
    assert "<b>" not in shown and "<i>" not in shown and "correlation −0.50" in shown
    assert '<a href="a.html#lua/7&quot;&gt;&lt;b&gt;">Lua 7</a>' in shown
