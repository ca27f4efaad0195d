"""Planted features: added where they belong, and judged by what the crosscoder wrote."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import crosscoder_by_hand, csr

from featlib import FeatlibError
from featlib.dictionaries.features import feature_activations
from featlib.matching.plants import count_plants, judge_plants, plant_features


def test_plants_live_in_their_owner_alone_and_the_common_ones_everywhere():
    rng = np.random.default_rng(0)
    plants = plant_features(3, 10, 2.5, rng, exclusive=4, common=5)
    assert plants.owner.tolist() == ([-1] * 5 + [0] * 4 + [1] * 4 + [2] * 4) * 3
    assert plants.times.tolist() == [1] * 17 + [2] * 17 + [4] * 17
    length = plants.directions.reshape(-1, 3, 10).norm(dim=2)
    for owner, times, row in zip(plants.owner, plants.times, length, strict=True):
        expected = [2.5 * times if owner in (-1, m) else 0 for m in range(3)]
        assert row.tolist() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(FeatlibError, match="strength above 0, not 0"):
        plant_features(3, 10, 0, rng)


def test_activations_are_as_rare_and_as_large_as_said():
    rng = np.random.default_rng(1)
    plants = plant_features(2, 4, 1.0, rng, density=0.02)
    drawn = plants.draw(20_000, rng)
    assert drawn.nnz / np.prod(drawn.shape) == pytest.approx(0.02, rel=0.1)
    assert drawn.data.min() >= 0.5
    assert drawn.data.mean() == pytest.approx(1, abs=0.05)
    x = torch.randn(20_000, 8)
    expected = x.numpy() + drawn.toarray() @ plants.directions.numpy()
    np.testing.assert_allclose(plants.add(x, drawn).numpy(), expected, atol=1e-5)
    first, second = plants.add_to([x, x], np.random.default_rng(2))
    assert not torch.equal(first, second), "every batch has draws of its own"
    touched = (first != x).any(dim=1).float().mean().item()
    assert touched == pytest.approx(1 - (1 - 0.02) ** len(plants.owner), abs=0.02)


def test_plants_are_judged_by_the_latent_closest_to_them():
    rng = np.random.default_rng(3)
    plants = plant_features(3, 2, 1.0, rng, exclusive=1, common=2)
    truth = plants.draw(4_000, rng)
    # Latents: the second plant (common, blurred), base's (exclusive), lua's taken for shared,
    # merged's (exclusive, but written in the wrong model), the first plant (common); noise.
    seen = np.hstack([truth.toarray()[:, [1, 2, 3, 4, 0]], rng.random((4_000, 1)) < 0.01])
    norms = [[1, 0.5, 1], [1, 0, 0], [1, 1, 1], [1, 0, 0], [1, 1, 1], [0, 0, 1]]
    crosscoder = crosscoder_by_hand(norms)
    judged = judge_plants(crosscoder, plants, feature_activations(csr(seen)), truth)
    assert judged["owner"].tolist() == ["all", "all", "base", "lua", "merged"] * 3
    weak = judged[judged["times"] == 1]
    assert weak["latent"].tolist() == [4, 0, 1, 2, 3]
    assert weak["kind"].tolist() == ["shared", "partial", "exclusive", "shared", "exclusive"]
    counts = count_plants(judged, 0.8).set_index(["times", "own"])
    assert counts.loc[(1, True)].tolist() == [3, 3, 1, 1]  # planted, found, exclusive, shared
    assert counts.loc[(1, False)].tolist() == [2, 2, 0, 1]
    assert counts.loc[(4, True)].tolist() == [3, 0, 0, 0], "no latent reads the strong ones here"
    assert count_plants(judged.assign(r=0.5), 0.8)[["found", "shared"]].to_numpy().sum() == 0
