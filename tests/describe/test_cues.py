"""Explanations: planted features get the sentence they were planted by, and sentences suffice."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from featlib import FeatlibError
from featlib.describe import cues as ex
from featlib.family import DOMAINS
from featlib.text.labels import TOKEN_CLASSES

WORDS = ["<s>", " the", " cat", "raise", " raise", ".", "\n", " Error", "(", "7", " a", " b", " c"]
CONTEXT = 40
RAISE, DOT, PAREN = 4, 5, 8


def stream(seed: int = 0, blocks: int = 200) -> ex.Text:
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, len(WORDS), (blocks, CONTEXT))
    documents = np.repeat(np.arange(blocks), CONTEXT).reshape(blocks, CONTEXT)
    kinds = np.broadcast_to(np.arange(blocks)[:, None] % 2 + 1, ids.shape)  # python, lua
    labels = {"exception_keyword": (ids == RAISE) | (ids == 3)}
    return ex.read_text(ids, documents, WORDS, kinds, labels)


def planted(text: ex.Text) -> dict[str, np.ndarray]:
    ids, before = text.ids, text.previous
    return {
        "“·raise”": np.where(ids == RAISE, 5.0, 0),
        "anything after “.”": np.where(before == DOT, 3.0, 0),
        "“·cat” after “(”": np.where((ids == 2) & (before == PAREN), 2.0, 0),
        "anything before “↵”": np.where(text.following == 6, 1.0, 0),
        "all Lua text": np.where(text.kinds == DOMAINS.index("lua"), 1.0, 0),
        "any number token": np.where(ids == 9, 4.0, 0),
        "what is an exception keyword": np.where(text.labels[:, 0], 4.0, 0),
    }


def test_planted_features_are_explained_by_what_was_planted_and_predicted_on_other_text() -> None:
    text, unseen = stream(0), stream(1)
    features = planted(text)
    rows = np.arange(len(text))
    rules = ex.explain(sp.csr_array(np.stack(list(features.values()), 1)), text, rows)
    truths = planted(unseen)
    for (name, _), rule in zip(features.items(), rules, strict=True):
        sentence = ex.write_sentence(rule, text)
        # a class with one token is as well described by the token
        assert sentence.startswith((f"Fires on {name} (9)", "Fires on “7” (9)")), sentence
        predicted = ex.simulate([ex.read_sentence(sentence, unseen)], unseen, rows)[:, 0]
        assert np.corrcoef(predicted, truths[name])[0, 1] > 0.97, sentence


def test_graded_strengths_come_out_in_proportion() -> None:
    text = stream()
    values = np.select([text.ids == RAISE, text.ids == 2], [6.0, 2.0], 0)
    sentence = ex.write_sentence(
        ex.explain(sp.csr_array(values[:, None]), text, _all(text))[0], text
    )
    assert sentence == "Fires on “·raise” (9) and “·cat” (3). Read 1 and more as firing."


def test_exceptions_are_told() -> None:
    text = stream()
    values = np.where((text.ids == RAISE) & (text.previous != DOT), 5.0, 0)
    sentence = ex.write_sentence(
        ex.explain(sp.csr_array(values[:, None]), text, _all(text))[0], text
    )
    assert "Fires on “·raise” (9); less on “·raise” after “.” (8)" in sentence
    predicted = ex.simulate([ex.read_sentence(sentence, text)], text, _all(text))[:, 0]
    assert np.corrcoef(predicted, values)[0, 1] > 0.99


def test_only_the_rows_given_are_looked_at() -> None:
    text = stream()
    half = np.arange(len(text) // 2)
    values = np.where(text.ids == RAISE, 5.0, 0)
    values[len(half) :] = np.where(text.ids[len(half) :] == 2, 99.0, 0)
    sentence = ex.write_sentence(ex.explain(sp.csr_array(values[:, None]), text, half)[0], text)
    assert sentence.startswith("Fires on “·raise” (9).")


def test_simulation_is_the_clipped_sum_of_what_holds() -> None:
    text = stream()
    said = "Fires on “·raise” (9) and any word token (2); less on anything after “.” (3)."
    rule = ex.read_sentence(said + " Read 1 and more as firing.", text)
    word = np.array([TOKEN_CLASSES[text.classes[i]] == "word" for i in text.ids])
    expected = 9 * (text.ids == RAISE) + 2 * word - 3 * (text.previous == DOT)
    got = ex.simulate([rule], text, _all(text))[:, 0]
    np.testing.assert_array_equal(got, np.clip(expected, 0, 9))


def test_neighbours_end_with_their_document_and_block() -> None:
    ids = np.array([[1, 2, 4, 5], [6, 7, 8, 9]])
    text = ex.read_text(ids, np.array([[0, 0, 1, 1], [1, 1, 1, 2]]), WORDS, 0 * ids, {})
    assert text.previous.tolist() == [-1, 1, -1, 4, -1, 6, 7, -1]
    assert text.following.tolist() == [2, -1, 5, -1, 7, 8, -1, -1]


def test_a_feature_that_never_fires_says_so_and_predicts_nothing() -> None:
    text = stream()
    rules = ex.explain(sp.csr_array((len(text), 1), dtype=np.float32), text, _all(text))
    sentence = ex.write_sentence(rules[0], text)
    assert sentence == "Fires on nothing that could be told."
    assert not ex.simulate([ex.read_sentence(sentence, text)], text, _all(text)).any()


def test_what_is_said_for_people_does_not_reach_the_reader() -> None:
    text = stream()
    rule = ex.Rules({ex.read_sentence(plain("“·raise” (9)"), text).cues.popitem()[0]: 9}, 4)
    sentence = ex.write_sentence(rule, text, ["(", ".", "7"], {"exception_keyword": 0.9})
    assert "Makes “(”, “.” and “7” likelier next." in sentence
    assert "Fits the label exception keyword with F1 0.90." in sentence
    assert ex.read_sentence(sentence, text) == rule


NASTY = [
    "“",
    "”",
    "\\",
    " after ",
    "(9)",
    "; less on",
    ".",
    " and ",
    "\\n",
    "\n",
    "·",
    " ",
    "\t",
    "",
    "é",
]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_rule_survives_being_written_and_read(data: st.DataObject) -> None:
    none = np.zeros((1, len(NASTY)), int)
    text = ex.read_text(np.arange(len(NASTY))[None], none, NASTY, none, {})
    size = len(NASTY)
    cue = st.one_of(
        st.integers(0, size - 1).map(lambda i: int(ex._code("on", i))),
        st.integers(0, size**2 - 1).map(lambda i: int(ex._code("pair", i))),
        st.integers(0, size - 1).map(lambda i: int(ex._code("after", i))),
        st.integers(0, size - 1).map(lambda i: int(ex._code("before", i))),
        st.integers(0, len(TOKEN_CLASSES) - 1).map(lambda i: int(ex._code("class", i))),
        st.integers(0, len(DOMAINS) - 1).map(lambda i: int(ex._code("kind", i))),
    )
    strength = st.integers(-9, 9).filter(bool)
    cues = data.draw(st.dictionaries(cue, strength, min_size=1, max_size=6))
    if max(cues.values()) < 0:
        cues = {c: -s for c, s in cues.items()}
    rule = ex.Rules(cues, data.draw(st.integers(1, 9)))
    assert ex.read_sentence(ex.write_sentence(rule, text), text) == rule


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "Fires on cats.",
        "Fires on “·raise” (9).",
        "Fires on “unheard-of” (9). Read 1 and more as firing.",
    ],
)
def test_other_sentences_are_refused(sentence: str) -> None:
    with pytest.raises(FeatlibError, match="explanation"):
        ex.read_sentence(sentence, stream(blocks=1))


def plain(cue: str) -> str:
    return f"Fires on {cue}. Read 1 and more as firing."


def _all(text: ex.Text) -> np.ndarray:
    return np.arange(len(text))
