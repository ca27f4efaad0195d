"""Edits through TransformerBridge, through a plain hook and by the one-layer shortcut agree."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from streams import lively_model

from featlib import FeatlibError
from featlib.cases.detectors import Draws, labelled_stream
from featlib.cases.edits import (
    REGIONS,
    ablate,
    ablation_effects,
    edited_losses,
    effect_at_label,
    feature_direction,
    loss_changes,
    related_vocabulary,
    steering_effects,
)
from featlib.cases.subjects import Subject, read_sites, read_subjects
from featlib.dictionaries.features import feature_activations
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.models.mistral import open_bridge, save_checkpoint
from featlib.text.labels import Label
from featlib.text.tokens import train_tokenizer

D_IN, D_SAE, SCALE, FEATURE = 48, 64, 3.0, 3
IDS = np.random.default_rng(2).integers(3, 300, (12, 24)).astype(np.uint16)
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
    return read_subjects("base", model, {0: sae}, IDS)[0]


def changes(model, change) -> np.ndarray:
    """Through the whole model."""
    return edited_losses(model, IDS, change) - edited_losses(model, IDS)


@pytest.fixture
def ablated(model, sae) -> np.ndarray:
    return changes(model, lambda hidden: ablate(hidden, sae, FEATURE))


def logits_of(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.from_numpy(IDS.astype(np.int64))).logits[:, :-1]


# ------------------------------------------------------------------------------ the edit itself


def test_ablating_takes_out_the_features_contribution(sae):
    """Rebuilding before and after differs by the wanted multiple of the decoder row alone."""
    hidden = torch.randn(2, 7, D_IN, generator=torch.Generator().manual_seed(3))
    active = sae.encode(hidden * sae.scale)[..., FEATURE]
    silent = active == 0
    assert silent.any() and not silent.all()
    found = ablate(hidden, sae, FEATURE)
    moved = (found - hidden) * sae.scale
    torch.testing.assert_close(moved, -active[..., None] * sae.W_dec[FEATURE])
    assert torch.equal(found[silent], hidden[silent])  # what is silent cannot be ablated


def test_an_identity_autoencoder_can_ablate_one_neuron(model):
    """With each neuron its own feature, ablating feature 4 is setting neuron 4 to 0 where > 0."""
    eye = torch.eye(D_IN)
    plain = SparseAutoencoder(
        eye, torch.zeros(D_IN), eye, torch.zeros(D_IN), architecture="relu", scale=SCALE
    )

    def zero(hidden):
        kept = hidden.clone()
        kept[..., 4] = kept[..., 4].clamp(max=0)
        return kept

    found = changes(model, lambda hidden: ablate(hidden, plain, 4))
    np.testing.assert_allclose(found, changes(model, zero), atol=1e-5)
    assert np.abs(found).max() > 1e-3


# ------------------------------------------------------------------------------ three ways


def test_bridge_plain_hook_and_shortcut_agree(model, sae, subject, ablated, tmp_path):
    save_checkpoint(model, train_tokenizer(["abc"], 259), tmp_path / "model")
    bridge = open_bridge(tmp_path / "model")
    through_bridge = changes(bridge, lambda hidden: ablate(hidden, sae, FEATURE))
    assert np.abs(ablated).max() > 1e-2
    np.testing.assert_allclose(through_bridge, ablated, atol=4e-5)
    np.testing.assert_allclose(loss_changes(subject, FEATURE), ablated, atol=5e-5)


def test_losses_are_the_models_own_and_the_hook_is_taken_off_again(model):
    before = edited_losses(model, IDS)
    target = torch.from_numpy(IDS[:, 1:].astype(np.int64))
    logits = logits_of(model).transpose(1, 2)
    oracle = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    edited_losses(model, IDS, torch.zeros_like)
    np.testing.assert_allclose(edited_losses(model, IDS), before)
    np.testing.assert_allclose(before, oracle.numpy(), atol=1e-5)


def test_an_edit_changes_the_prediction_made_there_and_no_other(subject, ablated):
    fires = np.zeros(IDS.shape, dtype=bool)
    fires.reshape(-1)[subject.features.of(FEATURE)[0]] = True
    assert fires.any() and not fires.all()
    np.testing.assert_array_equal(loss_changes(subject, FEATURE) != 0, fires[:, :-1])
    assert np.abs(ablated[~fires[:, :-1]]).max() == 0


def test_sites_are_what_the_model_computes(model, subject):
    with torch.no_grad():
        hidden = model.model(input_ids=torch.from_numpy(IDS.astype(np.int64))).last_hidden_state
        residual = model.model.norm(subject.sites.residual)
    torch.testing.assert_close(residual, hidden.flatten(0, 1))


def test_deeper_models_have_no_shortcut(model):
    deep = copy.deepcopy(model)
    deep.model.layers.append(deep.model.layers[0])
    with pytest.raises(FeatlibError, match="2 layers"):
        read_sites(deep, IDS)


def test_picked_features_are_the_same_features(sae, subject):
    few = subject.only([5, FEATURE])
    carried = subject.through(sae.only([5, FEATURE]))
    expected = subject.features.matrix[:, [5, FEATURE]].toarray()
    np.testing.assert_array_equal(few.features.matrix.toarray(), expected)
    np.testing.assert_allclose(carried.features.matrix.toarray(), expected, atol=1e-5)
    np.testing.assert_allclose(loss_changes(carried, 1), loss_changes(subject, FEATURE), atol=1e-5)
    first, *others = subject.with_controls(FEATURE, 4, seed=0)
    assert first == FEATURE and len({first, *others}) == 5


# ------------------------------------------------------------------------------ effects


def test_effects_are_means_over_their_regions(subject, ablated):
    mask = np.random.default_rng(4).random(IDS.shape) < 0.3
    table = ablation_effects(subject, FEATURE, mask, DOCUMENTS, Draws(0, 50, 2))
    at_label = effect_at_label(table)
    table = table.set_index(["who", "region"])
    fires = (subject.features.matrix[:, [FEATURE]].toarray() > 0).reshape(IDS.shape)[:, :-1]
    inside = DOCUMENTS[:, 1:] == DOCUMENTS[:, :-1]
    at, target = mask[:, :-1], mask[:, 1:]
    regions = {
        "at": at, "labelled": target, "after": at & ~target, "elsewhere": ~at & ~target,
        "firing": fires,
    }  # fmt: skip
    assert tuple(regions) == REGIONS
    for name, region in regions.items():
        row = table.loc["feature", name]
        assert row["n"] == (region & inside).sum()
        assert row["delta"] == pytest.approx(ablated[region & inside].mean(), abs=2e-5)
        assert row["low"] <= row["delta"] <= row["high"]
        difference = row["delta"] - table.loc["random", name]["delta"]
        assert table.loc["difference", name]["delta"] == pytest.approx(difference)
    parts = table.loc["feature"].loc[["labelled", "after", "elsewhere"], "n"].sum()
    assert parts == inside.sum()
    assert at_label.value == table.loc["difference", "at"]["delta"]
    assert at_label.low < at_label.value < at_label.high


def test_a_feature_that_predicts_matters_and_random_ones_do_not(model):
    """Planted: feature 0 fires on marked tokens and pushes towards the token that follows."""
    marked, follower = 7, 11
    text = IDS.copy()
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
    read = Subject("base", model, planted, sites, feature_activations(dense))
    table = ablation_effects(read, 0, text == marked, DOCUMENTS, Draws(0, 200, 5))
    table = table.set_index(["who", "region"])
    assert table.loc["difference", "at"]["low"] > 0
    assert table.loc["feature", "elsewhere"]["delta"] == 0
    assert table.loc["feature", "at"]["delta"] > 3 * abs(table.loc["random", "at"]["delta"])

    steered = steering_effects(read, 0, np.array([follower]), DOCUMENTS, doses=(0, 1, 2), seed=0)
    own, random = (steered[steered["who"] == who] for who in ("feature", "random"))
    assert own["probability"].is_monotonic_increasing
    assert own["low"].iloc[2] > own["high"].iloc[0]
    assert own["probability"].iloc[0] == pytest.approx(random["probability"].iloc[0])
    assert random["probability"].iloc[2] < own["probability"].iloc[1]


def test_steering_equals_the_hooked_model(model, sae, subject):
    """All positions, two words: probability and loss from whole forward passes."""
    feature, dose, words = 9, 1.5, np.array([20, 30])
    _, active = subject.features.of(feature)
    table = steering_effects(subject, feature, words, DOCUMENTS, doses=(dose,), seed=0)
    found = table[table["who"] == "feature"].iloc[0]

    def add(hidden):
        return hidden + dose * float(active.mean()) * sae.W_dec[feature] / sae.scale

    assert found["loss"] == pytest.approx(edited_losses(model, IDS, add).mean(), abs=1e-5)
    hook = model.model.layers[0].mlp.down_proj.register_forward_pre_hook(lambda _, a: add(a[0]))
    expected = logits_of(model).softmax(-1)[..., words].sum(-1).mean()
    hook.remove()
    assert found["probability"] == pytest.approx(float(expected), abs=1e-6)
    assert found["low"] <= found["probability"] <= found["high"]


def test_effects_are_the_same_for_a_seed(subject):
    one, two, other = (
        ablation_effects(subject, FEATURE, IDS % 5 == 0, DOCUMENTS, Draws(s, 20, 3))
        for s in (0, 0, 1)
    )
    assert one.equals(two) and not one.equals(other)


def test_vocabulary_follows_the_label():
    word, follower = 7, 11
    text = IDS.copy()
    text[:, 5], text[:, 6] = word, follower
    stream = labelled_stream(text == word, text, DOCUMENTS, seed=0)
    texts = [str(i) for i in range(300)]
    words = related_vocabulary(Label("", {}), texts, stream)
    assert follower in words and not {38, 39} & set(words.tolist())
    texts[38:40] = " raise", "except"
    label = Label("", {}, vocabulary=("raise", "except"))
    assert {38, 39} <= set(related_vocabulary(label, texts, stream).tolist())
