"""The card of an autoencoder: ends of the scale that are known beforehand."""

from __future__ import annotations

import pytest
import torch
from small import D_IN, random_ids, tiny_model

from featlib.dictionaries.card import score_autoencoder, score_baselines
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.models.forward import harvest, score_tokens

IDS = random_ids(40)


@pytest.fixture(scope="module")
def model():
    model = tiny_model(width=D_IN)
    for p in model.parameters():
        p.data *= 3
    model.lm_head.weight.data *= 10  # so that the MLP matters for the loss
    return model


def identity(d_in):
    both = torch.cat([torch.eye(d_in), -torch.eye(d_in)])
    return SparseAutoencoder(
        both.T.contiguous(), torch.zeros(2 * d_in), both, torch.zeros(d_in), architecture="relu"
    )


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_an_identity_loses_nothing(model, scale):
    sae = identity(D_IN)
    sae.scale = scale
    sae.b_dec.data += 0.3  # any centre will do
    card, densities = score_autoencoder(sae, model, IDS, score_baselines(model, IDS))
    assert card["fvu"] == pytest.approx(0, abs=1e-12)
    assert card["ce_recovered"] == pytest.approx(1, abs=1e-3)
    assert card["ce_delta"] == pytest.approx(0, abs=1e-5)
    assert card["l0"] == pytest.approx(D_IN, abs=0.1)
    assert card["n_tokens"] == IDS.size
    assert densities.shape == (2 * D_IN,) and card["alive"] == (densities > 0).mean()


def test_a_dead_autoencoder_is_a_constant_and_the_mean_scores_as_mean_ablation(model):
    nothing = identity(D_IN)
    nothing.set_threshold(1e9)
    card, densities = score_autoencoder(nothing, model, IDS, score_baselines(model, IDS))
    assert card["ce_recovered"] == pytest.approx(0, abs=1e-9)
    assert card["ce_sae"] == card["ce_zero"]
    assert (card["alive"], card["l0"], densities.sum()) == (0, 0, 0)
    assert card["fvu"] >= 1
    nothing.scale = 2.5
    nothing.b_dec.data = 2.5 * torch.cat(list(harvest(model, IDS))).mean(0)
    card, _ = score_autoencoder(nothing, model, IDS, score_baselines(model, IDS))
    assert card["fvu"] == pytest.approx(1, abs=1e-4)
    assert card["ce_sae"] == pytest.approx(card["ce_mean"], abs=1e-5)


def test_baselines_are_the_models_own_losses(model):
    baselines = score_baselines(model, IDS)
    assert baselines["ce"] == pytest.approx(score_tokens(model, IDS)[0].mean(), rel=1e-3)
    down = model.model.layers[0].mlp.down_proj.weight
    kept = down.data.clone()
    down.data.zero_()
    try:
        assert baselines["ce_zero"] == pytest.approx(score_tokens(model, IDS)[0].mean(), rel=1e-3)
    finally:
        down.data = kept
    assert abs(baselines["ce_zero"] / baselines["ce"] - 1) > 0.01
