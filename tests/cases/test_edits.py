"""Edits through TransformerBridge, through a plain hook and by the one-layer shortcut agree."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from featlib import FeatlibError
from featlib.cases.edits import (
    Edit,
    edit_activations,
    edited_losses,
    feature_direction,
    loss_changes,
    read_sites,
)
from featlib.cases.effects import REGIONS, ablation_effects, steering_effects, typical_activation
from featlib.dictionaries.features import encode_stream, feature_activations
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.models.mistral import build_model, open_bridge, save_checkpoint
from featlib.text.tokens import train_tokenizer

D_IN, D_SAE, SCALE = 48, 64, 3.0
EDITS = [Edit(3), Edit(5, "replace", 0.7), Edit(9, "add", 2.5)]


@pytest.fixture(scope="module")
def model():
    model = build_model(
        vocab_size=300, hidden_size=32, intermediate_size=D_IN, heads=4, kv_heads=2, context=24,
        seed=0,
    )  # fmt: skip
    with torch.no_grad():  # a fresh model predicts alike everywhere: make it care
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(8)
    return model.eval()


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
def ids():
    return np.random.default_rng(2).integers(3, 300, (12, 24)).astype(np.uint16)


@pytest.fixture(scope="module")
def documents():
    return np.repeat(np.arange(18), 16).reshape(12, 24)  # some end inside a block


@pytest.fixture(scope="module")
def sites(model, ids):
    return read_sites(model, ids, batch_size=5)


@pytest.fixture(scope="module")
def features(model, sae, ids):
    return encode_stream(model, sae, ids)


@pytest.fixture(scope="module")
def bridge(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    save_checkpoint(model, train_tokenizer(["abc"], 259), folder)
    return open_bridge(folder)


# ------------------------------------------------------------------------------ the edit itself


def test_edits_set_the_features_contribution(sae):
    """Rebuilding before and after differs by the wanted multiple of the decoder row alone."""
    hidden = torch.randn(2, 7, D_IN, generator=torch.Generator().manual_seed(3))
    active = sae.encode(hidden * sae.scale)[..., 3]
    assert (active > 0).any() and (active == 0).any()
    wanted = {
        Edit(3): -active,
        Edit(3, "replace", 0.7): 0.7 - active,
        Edit(3, "add", 2.5): torch.full_like(active, 2.5),
    }
    for edit, change in wanted.items():
        moved = (edit_activations(hidden, sae, edit) - hidden) * sae.scale
        torch.testing.assert_close(moved, change[..., None] * sae.W_dec[3])
    silent = active == 0
    same = edit_activations(hidden, sae, Edit(3))[silent]
    assert torch.equal(same, hidden[silent])  # what is silent cannot be ablated


def test_an_identity_autoencoder_can_ablate_one_neuron(model, ids):
    """With each neuron its own feature, ablating feature 4 is setting neuron 4 to 0 where > 0."""
    eye = torch.eye(D_IN)
    plain = SparseAutoencoder(
        eye, torch.zeros(D_IN), eye, torch.zeros(D_IN), architecture="relu", scale=SCALE
    )
    weight = model.model.layers[0].mlp.down_proj

    def zero(_, args):
        hidden = args[0].clone()
        hidden[..., 4] = hidden[..., 4].clamp(max=0)
        return (hidden,)

    handle = weight.register_forward_pre_hook(zero)
    expected = edited_losses(model, ids, plain)
    handle.remove()
    found = edited_losses(model, ids, plain, Edit(4))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - edited_losses(model, ids, plain)).max() > 1e-3


def test_features_that_do_not_exist_are_refused(sae):
    with pytest.raises(FeatlibError, match="feature 64 does not exist: the autoencoder has 64"):
        edit_activations(torch.zeros(1, D_IN), sae, Edit(64))


# ------------------------------------------------------------------------------ three ways


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.kind)
def test_bridge_plain_hook_and_shortcut_agree(model, bridge, sae, ids, sites, features, edit):
    plain = edited_losses(model, ids, sae, edit)
    through_bridge = edited_losses(bridge, ids, sae, edit)
    np.testing.assert_allclose(through_bridge, plain, atol=2e-5)
    changes = plain - edited_losses(model, ids, sae)
    assert np.abs(changes).max() > 1e-2
    np.testing.assert_allclose(loss_changes(model, sae, sites, features, edit), changes, atol=5e-5)


def test_the_plain_hook_is_taken_off_again(model, sae, ids):
    before = edited_losses(model, ids, sae)
    with torch.no_grad():
        batch = torch.from_numpy(ids.astype(np.int64))
        logits = model(input_ids=batch).logits
    oracle = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), batch[:, 1:], reduction="none"
    )
    edited_losses(model, ids, sae, EDITS[2])
    np.testing.assert_allclose(edited_losses(model, ids, sae), before)
    np.testing.assert_allclose(before, oracle.numpy(), atol=1e-5)


def test_an_edit_changes_the_prediction_made_there_and_no_other(model, sae, ids, sites, features):
    changes = loss_changes(model, sae, sites, features, Edit(3))
    fires = np.zeros(ids.shape, dtype=bool)
    fires.reshape(-1)[features.of(3)[0]] = True
    assert fires.any() and not fires.all()
    np.testing.assert_array_equal(changes != 0, fires[:, :-1])
    full = edited_losses(model, ids, sae, Edit(3)) - edited_losses(model, ids, sae)
    assert np.abs(full[~fires[:, :-1]]).max() == 0


def test_sites_are_what_the_model_computes(model, ids, sites):
    mlp = model.model.layers[0].mlp
    with torch.no_grad():
        hidden = model.model(input_ids=torch.from_numpy(ids.astype(np.int64))).last_hidden_state
        torch.testing.assert_close(model.model.norm(sites.residual), hidden.flatten(0, 1))
    assert sites.neurons.shape == (ids.size, mlp.down_proj.in_features)


def test_deeper_models_have_no_shortcut(model, ids):
    deep = copy.deepcopy(model)
    deep.model.layers.append(deep.model.layers[0])
    with pytest.raises(FeatlibError, match=r"2 layers.*use edited_losses"):
        read_sites(deep, ids)


def test_features_of_other_tokens_are_refused(model, sae, sites, features):
    fewer = feature_activations(features.matrix[:24])
    with pytest.raises(FeatlibError, match="features of 24 tokens, but sites of 288"):
        loss_changes(model, sae, sites, fewer, Edit(3))


# ------------------------------------------------------------------------------ effects


@pytest.mark.parametrize("kind", ["ablate", "replace"])
def test_effects_are_means_over_their_regions(model, sae, ids, sites, features, documents, kind):
    mask = np.random.default_rng(4).random(ids.shape) < 0.3
    table = ablation_effects(
        model, sae, sites, features, 3, mask=mask, documents=documents, seed=0, n_random=2,
        kind=kind, n_boot=50,
    ).set_index(["who", "region"])  # fmt: skip
    value = features.matrix[:, [3]].mean() if kind == "replace" else 0.0
    changes = edited_losses(model, ids, sae, Edit(3, kind, value)) - edited_losses(model, ids, sae)
    fires = (features.matrix[:, [3]].toarray() > 0).reshape(ids.shape)[:, :-1]
    inside = documents[:, 1:] == documents[:, :-1]
    at, target = mask[:, :-1], mask[:, 1:]
    regions = {
        "at": at, "labelled": target, "after": at & ~target, "elsewhere": ~at & ~target,
        "firing": fires,
    }  # fmt: skip
    assert tuple(regions) == REGIONS
    for name, region in regions.items():
        row = table.loc["feature", name]
        assert row["n"] == (region & inside).sum()
        assert row["delta"] == pytest.approx(changes[region & inside].mean(), abs=2e-5)
        assert row["low"] <= row["delta"] <= row["high"]
        difference = row["delta"] - table.loc["random", name]["delta"]
        assert table.loc["difference", name]["delta"] == pytest.approx(difference)
    parts = table.loc["feature"].loc[["labelled", "after", "elsewhere"], "n"].sum()
    assert parts == inside.sum()


def test_a_feature_that_predicts_matters_and_random_ones_do_not(model, ids, documents):
    """Planted: feature 0 fires on marked tokens and pushes towards the token that follows."""
    marked, follower = 7, 11
    text = ids.copy()
    text[:, ::4], text[:, 1::4] = marked, follower
    sites = read_sites(model, text)
    weight = model.model.layers[0].mlp.down_proj.weight.detach()
    wanted = torch.linalg.pinv(weight) @ (model.lm_head.weight.detach()[follower])
    rng = torch.Generator().manual_seed(5)
    W_dec = torch.nn.functional.normalize(torch.randn(20, D_IN, generator=rng), dim=1)
    W_dec[0] = wanted / wanted.norm()
    planted = SparseAutoencoder(
        W_dec.T.clone(), torch.zeros(20), W_dec, torch.zeros(D_IN), architecture="relu", scale=SCALE
    )
    size = 0.5 * float(sites.residual.norm(dim=1).mean() / feature_direction(
        model, planted, 0).norm())  # fmt: skip
    dense = (np.random.default_rng(6).random((text.size, 20)) < 0.25) * size
    dense[:, 0] = (text.reshape(-1) == marked) * size
    f = feature_activations(dense)
    table = ablation_effects(
        model, planted, sites, f, 0, mask=text == marked, documents=documents, seed=0, n_random=5
    ).set_index(["who", "region"])
    assert table.loc["difference", "at"]["low"] > 0
    assert table.loc["feature", "elsewhere"]["delta"] == 0
    assert table.loc["feature", "at"]["delta"] > 3 * abs(table.loc["random", "at"]["delta"])

    steered = steering_effects(
        model, planted, sites, [0, 4], [0.0, size, 2 * size], np.array([follower]),
        documents=documents, seed=0, n_positions=150,
    ).set_index(["feature", "strength"])  # fmt: skip
    doses = [steered.loc[(0, dose)]["probability"] for dose in (0.0, size, 2 * size)]
    assert doses[0] < doses[1] < doses[2]
    assert steered.loc[(0, 2 * size)]["low"] > steered.loc[(0, 0.0)]["high"]
    assert steered.loc[(0, 0.0)]["probability"] == steered.loc[(4, 0.0)]["probability"]
    assert steered.loc[(4, 2 * size)]["probability"] < doses[1]


def test_steering_equals_the_hooked_model(model, sae, ids, documents, sites):
    """All positions, two words: probability and loss from whole forward passes."""
    strength, words = 1.5, np.array([20, 30])
    table = steering_effects(
        model, sae, sites, [9], [strength], words, documents=documents, seed=0, n_positions=10**6
    )
    assert table["loss"][0] == pytest.approx(
        edited_losses(model, ids, sae, Edit(9, "add", strength)).mean(), abs=1e-5
    )
    hook = model.model.layers[0].mlp.down_proj.register_forward_pre_hook(
        lambda _, args: (edit_activations(args[0], sae, Edit(9, "add", strength)),)
    )
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(ids.astype(np.int64))).logits[:, :-1]
    hook.remove()
    expected = logits.softmax(-1)[..., words].sum(-1).mean()
    assert table["probability"][0] == pytest.approx(float(expected), abs=1e-6)
    assert table["low"][0] <= table["probability"][0] <= table["high"][0]


def test_effects_are_the_same_for_a_seed(model, sae, sites, features, documents, ids):
    mask = ids % 5 == 0
    options = {"mask": mask, "documents": documents, "n_random": 3, "n_boot": 20}
    one, two, other = (
        ablation_effects(model, sae, sites, features, 3, seed=seed, **options) for seed in (0, 0, 1)
    )
    assert one.equals(two) and not one.equals(other)
    with pytest.raises(FeatlibError, match="must have one shape"):
        ablation_effects(model, sae, sites, features, 3, seed=0, **{**options, "mask": mask[:3]})


def test_typical_activation_is_the_mean_where_it_fires():
    f = feature_activations(np.array([[2.0, 0], [4.0, 0], [0, 0]]))
    assert typical_activation(f, 0) == 3.0 and typical_activation(f, 1) == 0.0
