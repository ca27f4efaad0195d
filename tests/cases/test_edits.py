"""Edits through TransformerBridge, through a plain hook and by the one-layer shortcut agree."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from streams import lively_model

from featlib import FeatlibError
from featlib.cases.detectors import Draws
from featlib.cases.edits import Subject, loss_changes, read_sites, remove_feature
from featlib.dictionaries.features import feature_activations
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.models.forward import edited, hooked_module, run_blocks
from featlib.models.mistral import open_bridge, save_checkpoint
from featlib.text.tokens import train_tokenizer

D_IN, D_SAE, SCALE, FEATURE = 48, 64, 3.0, 3
RNG = np.random.default_rng(2)
IDS = RNG.integers(3, 300, (12, 24)).astype(np.uint16)
DOCUMENTS = np.repeat(np.arange(18), 16).reshape(12, 24)  # some end inside a block


@pytest.fixture(scope="module")
def model():
    return lively_model(8, hidden_size=32, intermediate_size=D_IN, context=24)


@pytest.fixture(scope="module")
def sae():
    rng = torch.Generator().manual_seed(1)
    W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=rng), dim=1)
    b_dec = 0.1 * torch.randn(D_IN, generator=rng)
    return SparseAutoencoder(
        W_dec.T.clone(), -0.3 * torch.rand(D_SAE, generator=rng), W_dec, b_dec,
        architecture="batchtopk", threshold=0.2, scale=SCALE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def subject(model, sae):
    return Subject(model, sae, read_sites(model, IDS))


def ablate(hidden: torch.Tensor, sae: SparseAutoencoder, feature: int) -> torch.Tensor:
    """Raw activations [..., d_in] without what `feature` adds."""
    only = sae.only([feature])
    return hidden - only.encode(hidden * sae.scale) @ only.W_dec / sae.scale


def edited_losses(model, change=None) -> np.ndarray:
    """Loss of each predicted token of a model or its bridge, with `change` made at every position.

    [blocks, context - 1] nats.
    """

    def read(batch: torch.Tensor) -> torch.Tensor:
        with edited(model, change):
            found = model(batch)
        logits = getattr(found, "logits", found)[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none"
        )
        return loss.view(len(batch), -1).cpu()

    return torch.cat(list(run_blocks(model, IDS, read))).numpy()


def changes(model, change) -> np.ndarray:
    """Through the whole model."""
    return edited_losses(model, change) - edited_losses(model)


@pytest.fixture
def ablated(model, sae) -> np.ndarray:
    return changes(model, lambda hidden: ablate(hidden, sae, FEATURE))


def test_bridge_plain_hook_and_shortcut_agree(model, sae, subject, ablated, tmp_path):
    save_checkpoint(model, train_tokenizer(["abc"], 259), tmp_path / "model")
    bridge = open_bridge(tmp_path / "model")
    through_bridge = changes(bridge, lambda hidden: ablate(hidden, sae, FEATURE))
    assert np.abs(ablated).max() > 1e-2
    np.testing.assert_allclose(through_bridge, ablated, atol=4e-5)
    shortcut = loss_changes(subject, FEATURE).reshape(IDS.shape)
    np.testing.assert_allclose(shortcut[:, :-1], ablated, atol=5e-5)


def test_an_edit_changes_the_prediction_made_there_and_no_other(subject, ablated):
    fires = np.zeros(IDS.shape, dtype=bool)
    fires.reshape(-1)[subject.features.of(FEATURE)[0]] = True
    assert fires.any() and not fires.all()
    changed = loss_changes(subject, FEATURE).reshape(IDS.shape) != 0
    np.testing.assert_array_equal(changed[:, :-1], fires[:, :-1])
    assert not changed[:, -1].any()
    assert np.abs(ablated[~fires[:, :-1]]).max() == 0


def test_deeper_models_have_no_shortcut(model):
    deep = copy.deepcopy(model)
    deep.model.layers.append(deep.model.layers[0])
    with pytest.raises(FeatlibError, match="2 layers"):
        read_sites(deep, IDS)


def test_a_removal_is_a_mean_over_its_tokens(subject, ablated):
    at = np.flatnonzero(RNG.random(IDS.size) < 0.4)
    at = at[at % IDS.shape[1] != IDS.shape[1] - 1]
    found = remove_feature(subject, FEATURE, at, DOCUMENTS.reshape(-1)[at], Draws(0, 50, 6))
    own = np.pad(ablated, ((0, 0), (0, 1))).reshape(-1)[at]
    assert found.own.value == pytest.approx(own.mean(), abs=2e-5)
    assert found.own.low < found.own.value < found.own.high
    assert found.beyond.value == pytest.approx(found.own.value - found.random)
    assert found.beyond.high - found.beyond.low > found.own.high - found.own.low
    mlp = changes(subject.model, torch.zeros_like)
    mlp = np.pad(mlp, ((0, 0), (0, 1))).reshape(-1)[at].mean()
    assert found.mlp == pytest.approx(mlp, abs=2e-5)


def test_a_direction_that_predicts_matters_more_than_random_ones(model):
    """Planted: feature 0 writes towards the token that follows, feature 1 a random direction.

    A feature that is itself a random direction is beyond the others about as often as chance says:
    this is the base rate of the test.
    """
    marked, follower = 7, 11
    text = np.tile(IDS, (4, 1))
    text[:, ::4], text[:, 1::4] = marked, follower
    sites = read_sites(model, text)
    wanted = torch.linalg.pinv(hooked_module(model).weight.detach())
    W_dec = torch.randn(21, D_IN, generator=torch.Generator().manual_seed(5))
    W_dec[0] = wanted @ model.lm_head.weight.detach()[follower]
    W_dec = torch.nn.functional.normalize(W_dec, dim=1)
    planted = SparseAutoencoder(
        W_dec.T.clone(), torch.zeros(21), W_dec, torch.zeros(D_IN), architecture="relu", scale=SCALE
    )
    here = text.reshape(-1) == marked
    size = SCALE * 0.3 * float(sites.neurons[torch.from_numpy(here)].norm(dim=1).mean())
    dense = np.repeat(here[:, None] * size, 21, axis=1)
    f = feature_activations(dense)
    read = SimpleNamespace(model=model, sae=planted, sites=sites, features=f)
    at = np.flatnonzero(here)
    documents = np.repeat(np.arange(len(text)), text.shape[1])[at]
    found = [remove_feature(read, j, at, documents, Draws(j, 200, 20)) for j in range(21)]
    assert found[0].beyond.low > 0 and found[0].rank == 1
    assert np.mean([removal.beyond.low > 0 for removal in found[1:]]) <= 0.15
    assert 0.2 < np.mean([removal.rank for removal in found[1:]]) < 0.8
