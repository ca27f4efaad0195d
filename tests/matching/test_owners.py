"""What a crosscoder says of features: by hand, and through planted activations."""

from __future__ import annotations

import numpy as np
import pytest
from planted import crosscoder_by_hand, csr, even_documents, noisy_copy, sparse_features

from featlib import FeatlibError
from featlib.cases.detectors import labelled_stream
from featlib.dictionaries.features import feature_activations
from featlib.matching.owners import (
    VERDICTS,
    classify,
    lengths,
    opinion_by_correlation,
    opinion_by_label,
    relative_norm,
    spread_over_models,
    verdict_of,
)


def test_norms_and_kinds_by_hand():
    crosscoder = crosscoder_by_hand([[1, 1, 1], [1, 0.05, 0.1], [0.2, 0.1, 1], [0, 2, 1.4]])
    np.testing.assert_allclose(
        crosscoder.decoder_norms, [[1, 1, 1], [1, 0.05, 0.1], [0.2, 0.1, 1], [0, 2, 1.4]], rtol=1e-6
    )
    table = spread_over_models(crosscoder)
    assert table["kind"].tolist() == ["shared", "exclusive", "partial", "partial"]
    assert table["most"].tolist() == ["base", "base", "merged", "lua"]
    assert table.loc[3, ["base", "lua", "merged"]].tolist() == pytest.approx([0, 1, 0.7])
    np.testing.assert_allclose(
        relative_norm(crosscoder, "base", "lua"), [0.5, 0.05 / 1.05, 1 / 3, 1], rtol=1e-6
    )
    kinds = classify(np.array([0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1]))
    assert list(kinds) == [
        *("parent only", "parent only", "between", "shared", "shared", "shared"),
        *("between", "child only", "child only"),
    ]


def test_words_turn_at_the_stated_parts():
    parts = [0, 0.1, 0.11, 0.39, 0.4, 0.5, 0.6, 0.61, 0.89, 0.9, 1]
    words = ["absent"] * 2 + ["weaker"] * 2 + ["shared"] * 3 + ["stronger"] * 2 + ["only here"] * 2
    assert [verdict_of(part) for part in parts] == words
    assert set(words) == set(VERDICTS)


def test_lengths_of_one_feature_by_hand():
    table = lengths(crosscoder_by_hand([[1, 1, 1], [2, 0.1, 1]]), 1, "base").set_index("model")
    assert table["length"].tolist() == pytest.approx([1, 0.05, 0.5])
    assert table["part"].tolist() == pytest.approx([0.5, 0.1 / 2.1, 1 / 3])
    assert table["verdict"].tolist() == ["parent", "absent", "weaker"]
    silent = lengths(crosscoder_by_hand([[0, 0, 0]]), 0, "base")
    assert silent["length"].tolist() == [0, 0, 0]
    with pytest.raises(FeatlibError, match="does not read twin; it reads base, lua, merged"):
        relative_norm(crosscoder_by_hand([[1, 1, 1]]), "base", "twin")


def test_a_feature_s_verdict_is_that_of_the_latent_closest_to_it():
    rng = np.random.default_rng(0)
    truth = sparse_features(4000, 3, 0.05, rng)
    read = feature_activations(csr(noisy_copy(truth[:, [2, 0, 1]], 0.95, rng)))
    own = feature_activations(csr(truth))
    crosscoder = crosscoder_by_hand([[1, 1, 1], [1, 0.01, 0.2], [0.5, 1, 1]])
    opinion = opinion_by_correlation(crosscoder, read, own, 0)
    assert opinion.latent == 1
    assert opinion.quality > 0.85
    assert (opinion.verdict("lua"), opinion.verdict("merged")) == ("absent", "weaker")
    said = opinion.sentence(0.8)
    assert "Its feature 1 stands for it" in said and "Lua: absent (1% of" in said
    assert "BabyPython: " not in said
    assert "No feature of the crosscoder is clearly this one" in opinion.sentence(0.999)
    assert opinion_by_correlation(crosscoder, read, own, 2).verdict("lua") == "shared"
    with pytest.raises(FeatlibError, match="feature 3 is not one of the 3"):
        opinion_by_correlation(crosscoder, read, own, 3)


def test_a_label_s_verdict_is_that_of_the_latent_that_detects_it():
    rng = np.random.default_rng(1)
    truth = sparse_features(6000, 3, 0.05, rng)
    documents = even_documents(6000, 60)
    stream = labelled_stream(truth[:, 1] > 0, np.zeros(6000, int), documents, seed=0)
    read = feature_activations(csr(truth[:, [0, 2, 1]]))
    crosscoder = crosscoder_by_hand([[1, 1, 1], [1, 1, 1], [1, 0.5, 5]])
    opinion = opinion_by_label(crosscoder, read, stream)
    assert (opinion.latent, opinion.route) == (2, "label")
    assert opinion.quality == 1
    assert (opinion.verdict("lua"), opinion.verdict("merged")) == ("weaker", "stronger")
    assert "F1 = 1.00" in opinion.sentence(0.5)
