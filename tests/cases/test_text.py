"""The text of a case: labels lie on the right tokens, English has none, halves share nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from featlib import FeatlibError
from featlib.cases.text import gather_text, languages_of
from featlib.text.labels import LABELS, Label
from featlib.text.tokens import token_strings, train_tokenizer

PYTHON = "def f{n}(x):\n    try:\n        y = x + {n}\n    except ValueError:\n        raise\n"
LUA = "local x{n} = {n}\nif x{n} then error('bad {n}') end\n"
ENGLISH = "We try to raise the flag number {n}, except on Sundays. "
SIZES = {"babylm": 200, "python": 600, "lua": 200}


@pytest.fixture(scope="module")
def documents() -> pd.DataFrame:
    texts = {"python": PYTHON * 4, "lua": LUA * 6, "babylm": ENGLISH * 4}
    rows = [(d, text.format(n=n)) for d, text in texts.items() for n in range(30)]
    return pd.DataFrame([*rows, ("python", "def broken(:\n")], columns=["domain", "text"])


@pytest.fixture(scope="module")
def tokenizer(documents):
    return train_tokenizer(documents["text"], 400)


@pytest.fixture
def text(documents, tokenizer):
    return gather_text(documents, tokenizer, LABELS, SIZES, context=20, seed=0)


def test_labels_lie_on_the_tokens_they_name(text, tokenizer):
    words = np.array(token_strings(tokenizer, text.ids.reshape(-1))).reshape(text.ids.shape)
    mask = text.masks["exception_header"]
    assert mask.any()
    said = {word.strip() for word in words[mask]}
    assert all(any(word in name for name in ("raise", "except", "error")) for word in said)
    python = text.domains == "python"
    whole = np.isin(np.char.strip(words.astype(str)), ["raise", "except"]) & python[:, None]
    assert mask[whole].all(), "in these sources each whole word is a keyword"


def test_english_has_no_labels_and_no_document_lies_in_two_domains(text):
    for mask in text.masks.values():
        assert not mask[text.domains == "babylm"].any()
    homes = [np.unique(text.documents[text.domains == d]) for d in SIZES]
    assert len(np.unique(np.concatenate(homes))) == sum(map(len, homes))


def test_blocks_with_the_label_come_first_and_each_stands_for_its_kind(documents, tokenizer):
    """Weighted, what was read is as many labelled tokens and blocks as there are in all."""
    labels = {"assignment": LABELS["assignment"]}
    sizes = {"python": 600, "babylm": 200}

    def read(sizes, seed=0):
        return gather_text(documents, tokenizer, labels, sizes, context=20, seed=seed)

    some, everything = read(sizes), read(dict.fromkeys(sizes, 10**6))
    assert (everything.weights == 1).all() and everything.read == {"python": 30, "babylm": 30}
    for domain in sizes:
        here, there = some.domains == domain, everything.domains == domain
        assert here.sum() == sizes[domain] // 20
        assert some.weights[here].sum() == pytest.approx(there.sum())
    holds = [text.masks["assignment"].any(axis=1) for text in (some, everything)]
    assert holds[0].sum() == 24, "four fifths of the room"
    assert some.weights @ holds[0] == pytest.approx(holds[1].sum())
    assert (read(sizes).ids == some.ids).all() and (read(sizes, 1).ids != some.ids).any()


def test_a_prediction_is_inside_where_its_target_is_of_the_same_document(text):
    inside = text.halves("exception_header", seed=0).inside.reshape(text.ids.shape)
    assert not inside[:, -1].any()
    same = text.documents[:, 1:] == text.documents[:, :-1]
    assert (inside[:, :-1] == same).all()


def test_rare_labels_have_no_halves(text):
    text.masks["never"] = np.zeros(text.ids.shape, dtype=bool)
    assert text.halves("never", seed=0) is None
    text.masks["once"] = text.documents == text.documents[-1, -1]
    assert text.halves("once", seed=0) is None


def test_a_case_is_studied_in_the_code_that_its_model_knows():
    both = Label("anything", {"python": lambda _: [], "lua": lambda _: []})
    assert languages_of(both, "base") == ("python",)
    assert languages_of(both, "lua") == languages_of(both, "merged") == ("lua",)
    assert languages_of(both, "tinystories") == ("python", "lua")
    assert languages_of(Label("Python only", {"python": lambda _: []}), "lua") == ("python",)
    with pytest.raises(FeatlibError, match="no domain"):
        languages_of(Label("nothing", {}), "base")
