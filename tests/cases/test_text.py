"""The text of a case: labels lie on the right tokens, English has none, halves share nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from featlib import FeatlibError
from featlib.cases.text import gather_text, languages_of, split_halves
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


def read(documents, tokenizer, seed=0, labels=LABELS):
    return gather_text(documents, tokenizer, labels, SIZES, context=20, seed=seed)


def test_labels_lie_on_the_tokens_they_name(documents, tokenizer):
    text = read(documents, tokenizer)
    words = np.array(token_strings(tokenizer, text.ids.reshape(-1))).reshape(text.ids.shape)
    mask = text.masks["exception_header"]
    assert mask.any()
    said = {word.strip() for word in words[mask]}
    assert all(any(word in name for name in ("raise", "except", "error")) for word in said)
    python = text.domains == "python"
    whole = np.isin(np.char.strip(words.astype(str)), ["raise", "except"]) & python[:, None]
    assert mask[whole].all(), "in these sources each whole word is a keyword"


def test_english_has_no_exceptions(documents, tokenizer):
    text = read(documents, tokenizer)
    for mask in text.masks.values():
        assert not mask[text.domains == "babylm"].any()


def test_documents_of_two_domains_stay_distinct(documents, tokenizer):
    text = read(documents, tokenizer)
    homes = [set(np.unique(text.documents[text.domains == d])) for d in SIZES]
    assert not (homes[0] & homes[1] or homes[1] & homes[2] or homes[0] & homes[2])


def test_sizes_seeds_and_what_does_not_parse(documents, tokenizer):
    text = read(documents, tokenizer)
    for domain, n in SIZES.items():
        assert (text.domains == domain).sum() == n // 20
    assert (read(documents, tokenizer).ids == text.ids).all()
    assert (read(documents, tokenizer, seed=1).ids != text.ids).any()
    everything = gather_text(
        documents, tokenizer, LABELS, {"python": 10**6}, context=20, seed=0
    )  # fmt: skip
    assert everything.skipped == {"python": 1}
    assert everything.read == {"python": 31}


def test_a_label_of_ones_own(documents, tokenizer):
    def find(text: str) -> list[tuple[int, int]]:
        at = text.find("flag")
        return [(at, at + 4)] if at >= 0 else []

    documents = documents[documents["domain"] != "babylm"]
    english = {"python": find}
    text = gather_text(
        documents, tokenizer, {"flag": Label("", english)}, {"python": 400}, context=20, seed=0
    )
    assert not text.masks["flag"].any()


def test_halves_share_no_document_and_rare_labels_are_left_out(documents, tokenizer):
    text = read(documents, tokenizer)
    text.masks["never"] = np.zeros(text.ids.shape, dtype=bool)
    streams = split_halves(text, ["exception_header", "never"], seed=0)
    assert list(streams) == ["exception_header"]
    stream = streams["exception_header"]
    assert not set(stream.documents[stream.selection]) & set(stream.documents[stream.test])


def test_a_case_is_studied_in_the_code_that_its_model_knows():
    both = Label("anything", {"python": lambda _: [], "lua": lambda _: []})
    assert languages_of(both, "base") == ("python",)
    assert languages_of(both, "lua") == languages_of(both, "merged") == ("lua",)
    assert languages_of(both, "tinystories") == ("python", "lua")
    assert languages_of(Label("Python only", {"python": lambda _: []}), "lua") == ("python",)
    with pytest.raises(FeatlibError, match="reads no domain: give it a function for python or lua"):
        languages_of(Label("nothing", {}), "base")
