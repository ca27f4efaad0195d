"""What a crosscoder says of features: by hand, through planted activations, of planted features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import crosscoder_by_hand, csr, noisy_copy, sparse_features

from featlib.dictionaries.features import feature_activations
from featlib.matching import owners
from featlib.matching.owners import (
    COMMON,
    DENSITY,
    TIMES,
    VERDICTS,
    classify,
    judge_plants,
    lengths,
    opinion_by_correlation,
    plant_features,
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


def test_words_turn_at_the_stated_parts():
    parts = [0, 0.1, 0.11, 0.39, 0.4, 0.5, 0.6, 0.61, 0.89, 0.9, 1]
    words = ["absent"] * 2 + ["weaker"] * 2 + ["shared"] * 3 + ["stronger"] * 2 + ["only here"] * 2
    assert [verdict_of(part) for part in parts] == words
    assert set(words) == set(VERDICTS)
    kinds = ["parent only"] * 2 + ["between"] * 2 + ["shared"] * 3 + ["between"] * 2
    assert list(classify(np.array(parts))) == [*kinds, "child only", "child only"]


def test_lengths_of_one_feature_by_hand():
    table = lengths(crosscoder_by_hand([[1, 1, 1], [2, 0.1, 1]]), 1, "base").set_index("model")
    assert table["length"].tolist() == pytest.approx([1, 0.05, 0.5])
    assert table["part"].tolist() == pytest.approx([0.5, 0.1 / 2.1, 1 / 3])
    assert table["verdict"].tolist() == ["parent", "absent", "weaker"]
    silent = lengths(crosscoder_by_hand([[0, 0, 0]]), 0, "base")
    assert silent["length"].tolist() == [0, 0, 0]


def test_a_feature_s_verdict_is_that_of_the_latent_closest_to_it():
    rng = np.random.default_rng(0)
    truth = sparse_features(4000, 3, 0.05, rng)
    read = feature_activations(csr(noisy_copy(truth[:, [2, 0, 1]], 0.95, rng)))
    own = feature_activations(csr(truth))
    crosscoder = crosscoder_by_hand([[1, 1, 1], [1, 0.01, 0.2], [0.5, 1, 1]])
    opinion = opinion_by_correlation(crosscoder, read, own, 0, "base")
    assert opinion.latent == 1
    assert opinion.quality > 0.85
    assert (opinion.verdict("lua"), opinion.verdict("merged")) == ("absent", "weaker")
    assert opinion_by_correlation(crosscoder, read, own, 2, "base").verdict("lua") == "shared"


def test_plants_live_in_their_owner_alone_and_the_common_ones_everywhere():
    rng = np.random.default_rng(0)
    plants = plant_features(3, 10, 2.5, rng)
    assert plants.owner.tolist() == ([-1] * COMMON + [0] * 3 + [1] * 3 + [2] * 3) * 3
    assert plants.times.tolist() == [times for times in TIMES for _ in range(COMMON + 9)]
    length = plants.directions.reshape(-1, 3, 10).norm(dim=2)
    for owner, times, row in zip(plants.owner, plants.times, length, strict=True):
        expected = [2.5 * times if owner in (-1, m) else 0 for m in range(3)]
        assert row.tolist() == pytest.approx(expected, rel=1e-5)


def test_activations_are_as_rare_and_as_large_as_said():
    rng = np.random.default_rng(1)
    plants = plant_features(2, 4, 1.0, rng)
    drawn = plants.draw(20_000, rng)
    assert drawn.nnz / np.prod(drawn.shape) == pytest.approx(DENSITY, rel=0.1)
    assert drawn.data.min() >= 0.5
    assert drawn.data.mean() == pytest.approx(1, abs=0.05)
    x = torch.randn(20_000, 8)
    expected = x.numpy() + drawn.toarray() @ plants.directions.numpy()
    np.testing.assert_allclose(plants.add(x, drawn).numpy(), expected, atol=1e-5)
    first, second = plants.add_to([x, x], np.random.default_rng(2))
    assert not torch.equal(first, second), "every batch has draws of its own"
    touched = (first != x).any(dim=1).float().mean().item()
    assert touched == pytest.approx(1 - (1 - DENSITY) ** len(plants.owner), abs=0.02)


def test_plants_are_judged_by_the_latent_closest_to_them(monkeypatch):
    monkeypatch.setattr(owners, "EXCLUSIVE", 1)
    monkeypatch.setattr(owners, "COMMON", 2)
    rng = np.random.default_rng(3)
    plants = plant_features(3, 2, 1.0, rng)
    truth = plants.draw(4_000, rng)
    # Latents: the second plant (common, blurred), base's (exclusive), lua's taken for shared,
    # merged's (exclusive, but written in the wrong model), the first plant (common); noise.
    seen = np.hstack([truth.toarray()[:, [1, 2, 3, 4, 0]], rng.random((4_000, 1)) < 0.01])
    norms = [[1, 0.5, 1], [1, 0, 0], [1, 1, 1], [1, 0, 0], [1, 1, 1], [0, 0, 1]]
    crosscoder = crosscoder_by_hand(norms)
    read = feature_activations(csr(seen))
    counts = judge_plants(crosscoder, plants, read, truth, 0.8).set_index(["times", "own"])
    assert counts.loc[(1, True)].tolist() == [3, 3, 1, 1]  # planted, found, exclusive, shared
    assert counts.loc[(1, False)].tolist() == [2, 2, 0, 1]
    assert counts.loc[(4, True)].tolist() == [3, 0, 0, 0], "no latent reads the strong ones here"
    assert judge_plants(crosscoder, plants, read, truth, 1.1)[["found", "shared"]].sum().sum() == 0
