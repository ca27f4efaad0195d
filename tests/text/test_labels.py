"""Labels of tokens: by overlap with the source, aligned with the blocks that models read."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from marked_sources import PYTHON, read_marks

from featlib import FeatlibError
from featlib.text import labels
from featlib.text.labels import INK, LABELS, Label, label_tokens
from featlib.text.tokens import token_offsets, token_strings, tokenize_documents, train_tokenizer


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=12), st.lists(st.integers(0, 5), max_size=12))
@example([1, 1], [])
@example([], [1, 1])
def test_tokens_are_labelled_by_overlap(widths, edges):
    """Against a count of shared characters."""
    ends = np.cumsum([0, *widths]).tolist()
    offsets = list(itertools.pairwise(ends))
    cuts = np.cumsum([0, *edges]).tolist()
    spans = list(zip(cuts[:-1:2], cuts[1::2], strict=False))
    expected = [any(set(range(*span)) & set(range(*token)) for span in spans) for token in offsets]
    assert label_tokens(spans, offsets).tolist() == expected


TEXTS = [read_marks(PYTHON[name])[0] for name in PYTHON if name != "empty"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 400)


def test_documents_become_aligned_masks(tokenizer):
    """Every document's own masks, in order, are what the stream holds; the invalid are skipped."""
    found = labels.label_documents(tokenizer, ["x = (", *TEXTS[:4], "x = ="], "python", 16)
    assert found.skipped == 2
    same = tokenize_documents(tokenizer, TEXTS[:4], 16)
    np.testing.assert_equal(vars(found.blocks), vars(same))
    offsets = [token_offsets(tokenizer, text)[1] for text in TEXTS[:4]]
    assert set(found.masks) == set(LABELS)
    for name, label in LABELS.items():
        spans = map(label.find["python"], TEXTS[:4])
        expected = np.concatenate(list(map(label_tokens, spans, offsets)))
        stream = found.masks[name].reshape(-1)
        np.testing.assert_array_equal(stream, expected[: len(stream)])
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
    with pytest.raises(FeatlibError, match="domain python"):
        labels.label_documents(tokenizer, ["x = ("], "python", 80)


@pytest.mark.parametrize(
    ("text", "domain", "expected"),
    [
        ("del é; # c", "python", "keyword identifier punctuation comment"),
        ("return f'{x} y' + 1.5", "python", "keyword string punctuation number"),
        ("if x ~= 'a b' then -- c", "lua", "keyword identifier punctuation string keyword comment"),
        ("x = [[a]] .. 0x1F", "lua", "identifier punctuation string punctuation number"),
        ("She’s 12, or don't_", "babylm", "word number punctuation word word punctuation"),
    ],
)  # fmt: skip
def test_classes_of_a_text(text, domain, expected):
    found = labels.classify_text(text, domain)
    assert [name for _, _, name in found] == expected.split()
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
        ("<s>", None, "special"), (" \n", None, "whitespace"), (" raise", "python", "keyword"),
        (" raise", "lua", "identifier"), (" raise", None, "word"), ("local", "lua", "keyword"),
        ("12", "lua", "number"), ("):", None, "punctuation"), ("_é", "python", "identifier"),
    ],
)  # fmt: skip
def test_class_of_a_vocabulary_entry(text, domain, expected):
    assert labels.token_class(text, domain) == expected
