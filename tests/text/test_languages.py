"""What Python and Lua sources are made of, against sources written by hand."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marked_sources import LUA, PYTHON, read_marks

from featlib.text.labels import LABELS, LANGUAGES, label_text

INVALID = {"python": [
    "x = ", "print 'two'", "def f(:", "x = 'open", "  x = 1", "x = 1\x00", "x = '\ud800'",
    "raise E, 'm'", "f(", "if x:\npass", "(" * 5000 + ")" * 5000,
], "lua": [
    "x += 1", "f() = 1", "x = 'open", "x = [[open", "--[[ open", "x = [=[ open ]]", "(", "x)",
    "if x then", "end", "x = ((1)", "f(a = 1)", "if (!x) then end", "x = `a`", "function f( end",
    "repeat end", "= 1", "x = 'a\nb'", "do until x", "'s' = 1", "end = 1", "{ x }}", "a[b = 1]",
]}  # fmt: skip


def check(domain: str, marked: str) -> None:
    text, expected = read_marks(marked)
    found = LANGUAGES[domain].find_spans(text)
    assert found is not None, f"refused: {text!r}"
    assert {name: list(spans) for name, spans in found.items()} == expected, repr(text)
    header = {"raise", "except", "error", "assert"}
    keywords = expected["exception_keyword"]
    expected["exception_header"] = [span for span in keywords if text[slice(*span)] in header]
    assert {name: label.find[domain](text) for name, label in LABELS.items()} == expected


SOURCES = {"python": PYTHON, "lua": LUA}


@pytest.mark.parametrize(("domain", "name"), [(d, name) for d in SOURCES for name in SOURCES[d]])
def test_sources(domain, name):
    check(domain, SOURCES[domain][name])


@pytest.mark.parametrize(("domain", "text"), [(d, text) for d in INVALID for text in INVALID[d]])
def test_what_is_no_source_has_no_label(domain, text):
    assert LANGUAGES[domain].find_spans(text) is None
    assert label_text(text, domain, [(0, 1)]) is None


GAPS = {
    "python": ["\n", "\r\n", "\n\n# é😀 = 1\n", "\n'😀é'\n"],
    "lua": ["\n", "\r\n;", "\n--[[ é😀 = ]]\n", "\nf'😀'\n"],
}


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(list(SOURCES)), st.data())
def test_sources_one_after_the_other(domain, data):
    """Labels of joined sources are those of the parts, moved; so no offset can drift."""
    whole = [name for name in SOURCES[domain] if not name.startswith(("byte", "first", "empty"))]
    names = data.draw(st.lists(st.sampled_from(whole), min_size=1, max_size=5))
    gap = data.draw(st.sampled_from(GAPS[domain]))
    check(domain, gap.join(SOURCES[domain][name] for name in names))


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.integers(0, 3))
def test_what_a_string_or_comment_holds_is_never_labelled(held, level):
    quoted = repr(held) if repr(held).isprintable() else ascii(held)
    text = f"{quoted}; x = {quoted}; raise E({quoted})"
    found = LANGUAGES["python"].find_spans(text)
    first = text.index("; x = ") + 4
    assert found["assignment"] == ((first, first + 1),)
    assert len(found["exception_keyword"]) == 1
    close = "]" + "=" * level + "]"
    held = held.replace(close[:-1], "")
    text = f"s = [{'=' * level}[{held}{close} --[{'=' * level}[{held}{close} x = 1"
    expected = ((2, 3), (len(text) - 3, len(text) - 2))
    assert LANGUAGES["lua"].find_spans(text)["assignment"] == expected


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["x", "=", "==", "(", ")", "{", "}", "[", "]", "[[", "]]", "--",
                                 "'", '"', "error", "end", "if", "then", "\n", " ", "\\", "é",
                                 "1", "..", "raise", "try", ":", ";", "except", "#", "f'"]),
                max_size=30))  # fmt: skip
def test_any_text_is_labelled_or_refused(pieces):
    text = "".join(pieces)
    for language in LANGUAGES.values():
        for spans in (language.find_spans(text) or {}).values():
            assert list(spans) == sorted(set(spans))
            assert all(0 <= start < end <= len(text) for start, end in spans)
            assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def test_lua_tokens_and_the_space_between_them_are_the_text():
    text, position = read_marks(LUA["strings and comments"])[0], 0
    for _, (start, end), word in LANGUAGES["lua"].read_tokens(text):
        assert text[position:start].strip() == "" and text[start:end] == word
        position = end
    assert text[position:].strip() == ""
