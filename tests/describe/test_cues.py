"""Explanations: planted features get the sentence they were planted by, and sentences suffice."""

from __future__ import annotations

import numpy as np
import pytest
from planted import csr, even_documents

from featlib.describe import cues as ex
from featlib.family import DOMAINS
from featlib.text.labels import TOKEN_CLASSES

WORDS = ["<s>", " the", " cat", "raise", " raise", ".", "\n", " Error", "(", "7", " a", " b", " c"]
BLOCKS, CONTEXT = 200, 40
RAISE, DOT, PAREN = 4, 5, 8


def stream(seed: int = 0) -> ex.Text:
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, len(WORDS), (BLOCKS, CONTEXT))
    documents = even_documents(ids.size, CONTEXT).reshape(ids.shape)
    kinds = documents % 2 + 1  # python, lua
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


def explained(values: np.ndarray, text: ex.Text) -> tuple[ex.Rules, str]:
    [rules] = ex.explain(csr(values[:, None]), text, np.arange(len(text.ids)), 10)
    return rules, ex.write_sentence(rules, text)


def predicted(rules: ex.Rules, text: ex.Text) -> np.ndarray:
    return ex.simulate([rules], text, np.arange(len(text.ids)))[:, 0]


@pytest.fixture(scope="module")
def text() -> ex.Text:
    return stream()


def test_planted_features_are_explained_by_what_was_planted_and_predicted_on_other_text(
    text: ex.Text,
) -> None:
    unseen = stream(1)
    for name, values in planted(text).items():
        rules, sentence = explained(values, text)
        # a class with one token is as well described by the token
        assert sentence.startswith((f"Fires on {name} (9)", "Fires on “7” (9)")), sentence
        truth = planted(unseen)[name]
        assert np.corrcoef(predicted(rules, unseen), truth)[0, 1] > 0.97, sentence


def test_graded_strengths_come_out_in_proportion_and_exceptions_are_told(text: ex.Text) -> None:
    values = np.select([text.ids == RAISE, text.ids == 2], [6.0, 2.0], 0)
    assert explained(values, text)[1] == "Fires on “·raise” (9) and “·cat” (3)."
    values = np.where((text.ids == RAISE) & (text.previous != DOT), 5.0, 0)
    rules, sentence = explained(values, text)
    assert "Fires on “·raise” (9); less on “·raise” after “.” (8)" in sentence
    assert np.corrcoef(predicted(rules, text), values)[0, 1] > 0.99


def test_simulation_is_the_clipped_sum_of_what_holds(text: ex.Text) -> None:
    word_class = TOKEN_CLASSES.index("word")
    told = {("on", RAISE): 9, ("class", word_class): 2, ("after", DOT): -3}
    rules = {int(ex._code(*cue)): strength for cue, strength in told.items()}
    word = np.array([TOKEN_CLASSES[text.classes[i]] == "word" for i in text.ids])
    expected = 9 * (text.ids == RAISE) + 2 * word - 3 * (text.previous == DOT)
    np.testing.assert_array_equal(predicted(rules, text), np.clip(expected, 0, 9))
    rules, sentence = explained(np.zeros(len(text.ids)), text)
    assert sentence == "Fires on nothing that could be told."
    assert not predicted(rules, text).any()


def test_neighbours_end_with_their_document_and_block() -> None:
    ids = np.array([[1, 2, 4, 5], [6, 7, 8, 9]])
    text = ex.read_text(ids, np.array([[0, 0, 1, 1], [1, 1, 1, 2]]), WORDS, 0 * ids, {})
    assert text.previous.tolist() == [-1, 1, -1, 4, -1, 6, 7, -1]
    assert text.following.tolist() == [2, -1, 5, -1, 7, 8, -1, -1]


NASTY = ["“", "”", "\\", " after ", "(9)", "; less on", ".", " and ", "\\n", "\n", "·", " ", "\t"]
NASTY += ["", "é", " {}"]


def test_no_two_cues_have_one_name() -> None:
    """So a sentence says all that its prediction is made of."""
    ids = np.arange(len(NASTY))[None]
    text = ex.read_text(ids, 0 * ids, NASTY, 0 * ids, {"a_label": ids > 0, "other": ids > 1})
    about = [
        (family, i)
        for family, names in text.names.items()
        for i in range(len(names) ** (1 + (family == "pair")))
    ]
    sentences = {ex.write_sentence({int(ex._code(*cue)): 5}, text) for cue in about}
    assert len(sentences) == len(about)
