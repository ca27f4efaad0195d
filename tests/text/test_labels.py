"""Labels against sources written by hand: the marks say what must be found, to the character."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featlib import FeatlibError
from featlib.text import labels
from featlib.text.labels import INK, LABELS, LANGUAGES, Label, label_text, label_tokens
from featlib.text.lua_labels import lua_spans, lua_tokens
from featlib.text.python_labels import python_spans
from featlib.text.tokens import token_offsets, token_strings, tokenize_documents, train_tokenizer

# In the sources below «K:raise» is an exception keyword, T a type, M a message, A an assignment.
CODES = {
    "K": "exception_keyword",
    "T": "exception_type",
    "M": "exception_message",
    "A": "assignment",
}

PYTHON = {
    "plain": """\
«K:try»:
    x «A:=» int("1", base=10)
«K:except» «T:ValueError» as error:
    «K:raise» «T:TypeError»(«M:"bad"») from error
«K:finally»:
    assert x == 1, "not a message"
""",
    "handlers": """\
«K:try»: pass
«K:except» («T:KeyError», socket.«T:timeout», a.b.«T:Error») as e: «K:raise»
«K:except» «T:os_error»: «K:raise» e
«K:except» (*«T:A», («T:B»)): «K:raise» self.error
«K:except» tuple(found): pass
«K:except»: pass
else: x: int «A:=» 1
«K:finally»: x «A:+=» 1
""",
    "except star": "«K:try»: pass\n«K:except»* («T:A», «T:B») as g: pass\n«K:except»*«T:C»: pass\n",
    "raised": """\
def f(a, b=1, *, c="raise"):
    «K:raise» «T:StopIteration»
    «K:raise» errors.«T:NotFound»
    «K:raise» errors. \\
        «T:Missing»  («M:'x'», code=4, hint=«M:"y"»)
    «K:raise» make()(«M:"z"»)
    «K:raise» «T:A»(«M:"m"»).with_traceback(tb)
    «K:raise» «T:B» from «T:C»("cause")
    «K:raise» («T:_D»)
    «K:raise» (
        «T:D»  # raise ValueError("no")
    )(«M:"v"»)
""",
    "messages": """\
«K:raise» «T:E»(
    «M:"one "»   # "not this"
    «M:f"two {x['k']!r:=^{width}} {'nested'}"»
    «M:r'three'»,
    «M:"%s"» % d["key"], «M:"{}"».format(«M:"arg"»),
    b"bytes", 3, lambda: "later", «M:"yes"» if a == "b" else «M:"no"», [«M:'in list'»],
)
«K:raise» «T:E»(«M:'''several
lines'''» + «M:"x"») from None
print("raise", 'except', E("unraised"))
""",
    "assignment": """\
a «A:=» b «A:=» c, *d «A:=» (1, 2)
(a) «A:=» (b) «A:=» (  # = comment
    c == d)
x.y["z = 1"] «A:=» f(k=1, *a, **b) if p <= q else (r := s) != t >= u
x «A:**=» 2; x «A://=» 3; x «A:>>=» 4; x @ y; x «A:@=» y
n: dict[str, "a = b"]
n: dict[str, int] «A:=» {}
(n): int «A:=» 1
def g(a=1, *, b: int = 2, c = (lambda d=3: d)) -> "e = f": return a == b
@decorate(name="x", other = 3)
class C(B, metaclass=M): z «A:=» \\
    4  # type: int = 5
f"{x=} {x = !r:=^10} {y:{'='}>3}"; w «A:=» f"{a = }"
for i in range(3): pass
with open("f") as f: h «A:=» f"{ {'a': 1}['a'] }"
""",
    "wide characters": "s «A:=» 'é漢😀'; ñ «A:=» 2; «K:raise» «T:Größe»(«M:'ü😀'») from «T:Ωmega»",
    "wide attribute": "'漢'; «K:raise» ñé.漢.«T:Éa»(x, «M:'漢字'», é=«M:'y'»)",
    "tabs and form feed": "if x:\n\t\ty\t«A:=»\t1\n\t\t«K:raise»\t«T:E»(\t«M:'a'»)\n\fz «A:=» 2\n",
    "carriage returns": "x «A:=» '''a\r\nb''';y «A:=» 1\r\n«K:raise» «T:E»(\r\n  «M:'q'»)\r\n",
    "lone carriage returns": "x «A:=» 1\ry «A:=» 2\r«K:raise» «T:E»(«M:'q'»)\r",
    "other line ends": "s «A:=» 'a\x0bb\x0cc\x1cd\x85e\u2028f'\nx «A:=» 1 # \u2029 y\nz «A:=» 3",
    "byte-order mark": "\ufeffx «A:=» 'é'\n«K:raise» «T:E»\n",
    "encoding line": "# -*- coding: latin-1 -*-\nx «A:=» 'é'; y «A:=» 1\n",
    "soft keywords": "match «A:=» case «A:=» 1\nmatch x:\n    case C(a=1): type «A:=» 2\n",
    "invalid escape": "x «A:=» '\\d'\n",
    "no newline at the end": "x «A:=» 1",
    "only a comment": "# x = 1; raise E",
    "names": "raised «A:=» tries; excepted «A:=» raise_; x.error(y='try')",
    "empty": "",
}

LUA = {
    "plain": """\
local ok, err «A:=» «K:pcall»(function() «K:error»(«M:"bad"») end)
if not ok then «K:error»(«M:'worse: '» .. err, 2) end
«K:assert»(io.open("file = 1"), «M:"cannot open"»)
«K:xpcall»(f, function(e) x «A:=» e end)
""",
    "not the global": """\
log.error("a"); log:error("b"); _G.assert("c", "d"); pcall(error, "e")
local function error(m) end
function M.assert(x) end function M:pcall() end function xpcall() end
assert.equal(1, 2); local pcall «A:=» pcall; t «A:=» {error = 1, assert}
::error:: goto error
errors("a"); xerror("b"); errör("c")
""".replace("pcall(error", "«K:pcall»(error"),
    "calls without brackets": """\
«K:error» «M:"a"» «K:error»«M:[[b]]» «K:error» {code = "c"} «K:assert» "d"
x «A:=» y .. «K:error» «M:'e'» ::l:: «K:error»  -- comment "no"
  «M:"f"»
""",
    "messages": """\
«K:error»(«M:"a"» .. t["k"] .. f(«M:'b'») .. [[«M»]] .. (x or {«M:"c"», n = «M:"d"»}))
«K:error»(setmetatable({}, {__tostring = function() return "later" end}))
«K:assert»(f("a", "b"), «M:"c"» .. g("x", «M:"y"»)) «K:error»(«K:assert»(z, «M:"w"»))
«K:assert»(type(x) == "string") «K:pcall»("p", "q")
""".replace("[[«M»]]", "«M:[[m]]»").replace('g("x", ', 'g(«M:"x"», '),
    "assignment": """\
x, y «A:=» 1, 2; a.b["c"] «A:=» a == b; t[1][2] «A:=»x~=y
local z <const>, w <close> «A:=» 1, 2
local t «A:=» { a = 1, ["b"] = 2, c = { d = 3 }; 4,
  f = function(e) e «A:=» 1; for i = 1, 2 do g «A:=» {h = i} end end, j = x == y }
for i = 1, 10 do k «A:=» i <= 3 or i >= 4 end
for key, value in pairs(t) do t[key] «A:=» value end
repeat local u «A:=» 1 until u == 1
while a ~= b do if a then b «A:=» a elseif b then a «A:=» b else c «A:=» nil end end
f {a = 1}.b «A:=» 2 goto done ::done::
""",
    "strings and comments": """\
s «A:=» "x = 1 -- no" .. 'error("no") \\' = ' -- y = 2; error("c")
t «A:=» [==[ ]] ]=] x = 1
error("no") ]==] u «A:=» 1 --[[ v = 1
--]] v «A:=» 2 --[==[ w = 3 ]] ]==] w «A:=» 4
--[ only a line: x = 5
--[=x = 6
x «A:=» "a\\
b = 1" y «A:=» "c\\z
   d = 2" z «A:=» 'e\\x41\\u{7A}\\65'
a «A:=» b[c[1]] d «A:=» #e - -f --g = h
""",
    "numbers": "x «A:=» 0x1p4 y «A:=» 1e+5 z «A:=» .5e-3 w «A:=» 3. v «A:=» 42ULL u «A:=» 0xA.8p0",
    "operators": "x «A:=» a//b ~ c << d >> e & f | g y «A:=» a .. b h «A:=» ...\n",
    "wide characters": "s «A:=» 'é漢😀' «K:error»(«M:'ü😀'») ñ «A:=» 1\n",
    "carriage returns": 'x «A:=» 1\r\n-- y = 2\r\nz «A:=» "a\\\r\nb"\r\n«K:error»(\r\n«M:"q"»)\r\n',
    "byte-order mark": "\ufeffx «A:=» 1",
    "first line": "#!/usr/bin/lua x = 'é\nx «A:=» 1",
    "typed": "local x: number «A:=» 1\n",
    "empty": "",
}

INVALID_PYTHON = [
    "x = ", "print 'two'", "def f(:", "x = 'open", "  x = 1", "x = 1\x00", "x = '\ud800'",
    "raise E, 'm'", "f(", "if x:\npass", "(" * 5000 + ")" * 5000,
]  # fmt: skip
INVALID_LUA = [
    "x += 1", "f() = 1", "x = 'open", "x = [[open", "--[[ open", "x = [=[ open ]]", "(", "x)",
    "if x then", "end", "x = ((1)", "f(a = 1)", "if (!x) then end", "x = `a`", "function f( end",
    "repeat end", "= 1", "x = 'a\nb'", "do until x", "'s' = 1", "end = 1", "{ x }}", "a[b = 1]",
]  # fmt: skip


def read_marks(marked: str) -> tuple[str, dict[str, list[tuple[int, int]]]]:
    text, position = "", 0
    spans: dict[str, list[tuple[int, int]]] = {name: [] for name in CODES.values()}
    for match in re.finditer(r"«([KTMA]):(.*?)»", marked, re.DOTALL):
        text += marked[position : match.start()]
        spans[CODES[match.group(1)]].append((len(text), len(text) + len(match.group(2))))
        text += match.group(2)
        position = match.end()
    return text + marked[position:], spans


def check(domain: str, marked: str) -> None:
    """The marks, the labels made out of them, and all of them as masks over characters."""
    text, expected = read_marks(marked)
    found = LANGUAGES[domain].spans(text)
    assert found is not None, f"refused: {text!r}"
    assert {name: list(spans) for name, spans in found.items()} == expected, repr(text)
    parts = ("exception_keyword", "exception_type", "exception_message")
    expected["exception"] = sorted({s for part in parts for s in expected[part]})
    header = {"raise", "except", "error", "assert"}
    keywords = expected["exception_keyword"]
    expected["exception_header"] = [span for span in keywords if text[slice(*span)] in header]
    assert {name: label.find[domain](text) for name, label in LABELS.items()} == expected


@pytest.mark.parametrize("name", PYTHON)
def test_python_sources(name):
    check("python", PYTHON[name])


@pytest.mark.parametrize("name", LUA)
def test_lua_sources(name):
    check("lua", LUA[name])


@pytest.mark.parametrize(
    ("domain", "text"),
    [*(("python", text) for text in INVALID_PYTHON), *(("lua", text) for text in INVALID_LUA)],
)
def test_what_is_no_source_has_no_label(domain, text):
    assert LANGUAGES[domain].spans(text) is None
    assert label_text(text, domain, [(0, 1)]) is None


def test_a_sum_of_a_thousand_strings_is_read():
    """Deep trees: no recursion of ours may be the reason why a source is left out."""
    text = "raise E(" + " + ".join(['"a"'] * 900) + ")"
    found = python_spans(text)
    assert found is not None and len(found["exception_message"]) == 900


WHOLE = {name: [key for key in table if not key.startswith(("byte", "first", "empty"))]
         for name, table in (("python", PYTHON), ("lua", LUA))}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(WHOLE["python"]), min_size=1, max_size=5), st.data())
def test_python_sources_one_after_the_other(names, data):
    """Labels of joined sources are those of the parts, moved; so no offset can drift."""
    gap = data.draw(st.sampled_from(["\n", "\r\n", "\n\n# é😀 = 1\n", "\n'😀é'\n"]))
    check("python", gap.join(PYTHON[name] for name in names))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(WHOLE["lua"]), min_size=1, max_size=5), st.data())
def test_lua_sources_one_after_the_other(names, data):
    gap = data.draw(st.sampled_from(["\n", "\r\n;", "\n--[[ é😀 = ]]\n", "\nf'😀'\n"]))
    check("lua", gap.join(LUA[name] for name in names))


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_what_a_python_string_holds_is_never_labelled(held):
    quoted = repr(held) if repr(held).isprintable() else ascii(held)
    text = f"{quoted}; x = {quoted}; raise E({quoted})"
    found = python_spans(text)
    assert found is not None
    first = text.index("; x = ") + 4
    assert found["assignment"] == ((first, first + 1),)
    assert found["exception_message"] == ((len(text) - len(quoted) - 1, len(text) - 1),)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.integers(0, 3))
def test_what_a_lua_string_or_comment_holds_is_never_labelled(held, level):
    close = "]" + "=" * level + "]"
    held = held.replace(close[:-1], "")
    text = f"s = [{'=' * level}[{held}{close} --[{'=' * level}[{held}{close} x = 1"
    assert lua_spans(text)["assignment"] == ((2, 3), (len(text) - 3, len(text) - 2))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["x", "=", "==", "(", ")", "{", "}", "[", "]", "[[", "]]", "--",
                                 "'", '"', "error", "end", "if", "then", "\n", " ", "\\", "é",
                                 "1", "..", "raise", "try", ":", ";", "except", "#", "f'"]),
                max_size=30))  # fmt: skip
def test_any_text_is_labelled_or_refused(pieces):
    text = "".join(pieces)
    for language in LANGUAGES.values():
        for spans in (language.spans(text) or {}).values():
            assert list(spans) == sorted(set(spans))
            assert all(0 <= start < end <= len(text) for start, end in spans)
            assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def test_lua_tokens_and_the_space_between_them_are_the_text():
    text = read_marks(LUA["strings and comments"])[0]
    position = 0
    for _, (start, end), word in lua_tokens(text):
        assert text[position:start].strip() == "" and text[start:end] == word
        position = end
    assert text[position:].strip() == ""


# ------------------------------------------------------------------------------ tokens


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=12), st.lists(st.integers(0, 5), max_size=12))
def test_tokens_are_labelled_by_overlap(widths, edges):
    """Against a count of shared characters."""
    ends = np.cumsum([0, *widths]).tolist()
    offsets = list(itertools.pairwise(ends))
    cuts = np.cumsum([0, *edges]).tolist()
    spans = list(zip(cuts[:-1:2], cuts[1::2], strict=False))
    expected = [any(set(range(*span)) & set(range(*token)) for span in spans) for token in offsets]
    assert label_tokens(spans, offsets).tolist() == expected


def test_no_spans_and_no_tokens():
    assert label_tokens([], [(0, 1), (1, 2)]).tolist() == [False, False]
    assert label_tokens([(0, 1)], []).tolist() == []


TEXTS = [read_marks(PYTHON[name])[0] for name in PYTHON if name != "empty"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 400)


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip_through_bpe(tokenizer, text):
    """Characters of the labelled tokens hold every span, and no token beside one is labelled."""
    ids, offsets = token_offsets(tokenizer, text)
    for spans in python_spans(text).values():
        mask = label_tokens(spans, offsets)
        covered = {i for token in np.array(offsets)[mask].tolist() for i in range(*token)}
        wanted = {i for span in spans for i in range(*span)}
        assert wanted <= covered
        for token in np.array(offsets)[mask].tolist():
            assert wanted & set(range(*token))
    assert len(ids) == len(offsets)


def test_documents_become_aligned_masks(tokenizer):
    texts = ["x = (", *TEXTS[:4], "x = ="]
    found = labels.label_documents(tokenizer, texts, "python", 16)
    assert found.skipped == 2
    assert set(found.masks) == set(LABELS)
    same = tokenize_documents(tokenizer, TEXTS[:4], 16)
    np.testing.assert_array_equal(found.blocks.ids, same.ids)
    np.testing.assert_array_equal(found.blocks.documents, same.documents)
    shown = token_strings(tokenizer, found.blocks.ids.reshape(-1))
    mask = found.masks["exception_keyword"].reshape(-1)
    assert mask.any()
    for text, on in zip(shown, mask, strict=True):
        assert not on or any(text.strip() in w for w in ("raise", "try", "except", "finally"))
    # Every document's own masks, in order, are what the stream holds.
    parts = []
    for text in TEXTS[:4]:
        offsets = token_offsets(tokenizer, text, bos=True)[1]
        parts.append(label_tokens(python_spans(text)["assignment"], offsets))
    stream = found.masks["assignment"].reshape(-1)
    np.testing.assert_array_equal(stream, np.concatenate(parts)[: len(stream)])
    assert stream.any()


def test_a_label_of_ones_own(tokenizer):
    def find_numbers(text):
        return [match.span() for match in re.finditer(r"\d+", text)]

    mine = {"number": Label("digits", {"python": find_numbers})}
    found = labels.label_documents(tokenizer, ["x = 12 + y\n" * 9, "x = (1"], "python", 8, mine)
    words = token_strings(tokenizer, range(len(tokenizer)))
    number = np.array([word.strip().isdigit() for word in words])
    np.testing.assert_array_equal(found.masks["number"], number[found.blocks.ids])
    assert found.masks["number"].any() and found.skipped == 1
    english = labels.label_documents(tokenizer, ["He had 12 sons. " * 9], "babylm", 8, mine)
    assert not english.masks["number"].any()


@pytest.mark.parametrize("domain", ["python", "babylm"])
def test_too_little_text_is_an_error_for_people(tokenizer, domain):
    with pytest.raises(FeatlibError, match=f"1 held-out texts of domain {domain}"):
        labels.label_documents(tokenizer, ["x = ("], domain, 80)


def test_vocabulary_of_words():
    texts = ["<s>", " raise", "raise", "raised", "\n", "Error", " Error "]
    assert labels.find_vocabulary(texts, ["raise", "Error"]).tolist() == [1, 2, 5, 6]
    assert not len(labels.find_vocabulary(texts, ["finally"]))


# ------------------------------------------------------------------------------ token classes


@pytest.mark.parametrize(
    ("text", "domain", "expected"),
    [
        ("while é: # c", "python", "keyword identifier punctuation comment"),
        ("return f'{x} y' + 1.5", "python", "keyword string punctuation number"),
        ("if x ~= 'a b' then -- c", "lua", "keyword identifier punctuation string keyword comment"),
        ("x = [[a]] .. 0x1F", "lua", "identifier punctuation string punctuation number"),
        ("She’s 12, or don't_", "babylm", "word number punctuation word word punctuation"),
    ],
)  # fmt: skip
def test_classes_of_a_text(text, domain, expected):
    text += {"python": "\n    pass" if text[:2] == "wh" else "", "lua": ""}.get(domain, "")
    found = labels.classify_text(text, domain)
    shown = [name for _, _, name in found][: len(expected.split())]
    assert shown == expected.split()
    inside = {i for start, end, _ in found for i in range(start, end)}
    assert all(text[i].isspace() for i in set(range(len(text))) - inside)


def test_a_token_holds_what_it_overlaps():
    text = "if x:  # 'a'\n    y = f('b', 12)\n"
    offsets = [(0, 0), (0, 4), (4, 9), (9, 17), (17, 23), (23, 31)]
    masks = labels.classify_tokens(text, "python", offsets)
    holds = [" ".join(name for name in INK if masks[name][i]) for i in range(len(offsets))]
    assert holds == [
        "", "keyword identifier", "punctuation comment", "comment", "punctuation identifier",
        "punctuation number string",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "domain", "expected"),
    [
        ("<s>", None, "special"),
        (" \n", None, "whitespace"),
        (" raise", "python", "keyword"),
        (" raise", "lua", "identifier"),
        (" raise", None, "word"),
        ("local", "lua", "keyword"),
        ("12", "lua", "number"),
        ("):", None, "punctuation"),
        ("_é", "python", "identifier"),
    ],
)
def test_class_of_a_vocabulary_entry(text, domain, expected):
    assert labels.token_class(text, domain) == expected
