"""Transfer: one dictionary in several models, scales, features followed through merges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import csr, even_documents, noisy_copy, sparse_features
from small import random_ids, tiny_model

from featlib.dictionaries.activations import activation_scale
from featlib.dictionaries.features import encode_batches
from featlib.dictionaries.sae import AutoencoderConfig
from featlib.dictionaries.training import train_autoencoders
from featlib.estimate import document_weights
from featlib.matching.correlation import paired_pearson
from featlib.matching.fates import Rule
from featlib.matching.transfer import (
    carry,
    read_neurons,
    recovered_features,
    share_by_t,
    transfer_share,
)
from featlib.models.forward import harvest
from featlib.models.merging import merge_models


@pytest.fixture(scope="module")
def family():
    ids, base, other = random_ids(40), tiny_model(0), tiny_model(1)
    scale = activation_scale(base, ids)
    x = torch.cat(list(harvest(base, ids))) * scale
    config = AutoencoderConfig(
        d_in=24, d_sae=32, k=4, n_tokens=30 * len(x), batch_size=len(x), lr=1e-2
    )
    (sae,) = train_autoencoders([x] * 30, config, seeds=[0], scale=scale)
    return ids, base, other, sae, scale


def test_neurons_are_the_harvest(family):
    ids, base, _, _, _ = family
    expected = torch.cat(list(harvest(base, ids))).numpy()
    np.testing.assert_array_equal(read_neurons(base, ids), expected)


def test_a_dictionary_read_at_home_is_the_dictionary(family):
    ids, base, _, sae, scale = family
    before, threshold = encode_batches(harvest(base, ids), sae), sae.threshold.clone()
    same, home = carry(sae, scale, base, ids, l0=before.l0)
    np.testing.assert_allclose(home.matrix.toarray(), before.matrix.toarray(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(same.threshold, threshold, rtol=0, atol=1e-2)
    assert sae.scale == scale and torch.equal(sae.threshold, threshold), "the one given stays"


@pytest.mark.parametrize("l0", [1.5, 4.0, 7.0])
def test_in_another_model_as_many_features_fire_as_asked_for(family, l0):
    ids, _, other, sae, scale = family
    carried, found = carry(sae, scale, other, ids, l0=l0)
    assert found.l0 == pytest.approx(l0, rel=1e-3)
    again = encode_batches(harvest(other, ids), carried)
    np.testing.assert_allclose(again.matrix.toarray(), found.matrix.toarray(), atol=1e-4)


def test_a_model_that_only_grew_keeps_every_feature(family):
    """The scale rule: activations k times as long are the same activations."""
    ids, base, _, sae, scale = family
    grown = merge_models(base, base, base, t=0, method="slerp")
    grown.model.layers[0].mlp.up_proj.weight.data *= 3
    before = encode_batches(harvest(base, ids), sae)
    _, after = carry(sae, scale, grown, ids, l0=before.l0)
    np.testing.assert_allclose(after.matrix.toarray(), before.matrix.toarray(), atol=1e-3)
    documents = even_documents(640, 64)
    weights = document_weights(documents, 20, np.random.default_rng(0))
    rule = Rule(min_firings=3)
    fates, share = transfer_share(before.matrix, after.matrix, documents, weights, rule)
    assert (fates.persist, share.value, share.low, share.high) == (1, 1, 1, 1)


def test_shares_along_t_by_hand():
    r = {
        0.0: np.array([0.9, 0.9, 0.1, 0.1, 0.9]),
        0.5: np.array([0.9, 0.9, 0.1, 0.9, 0.9]),
        1.0: np.array([0.9, 0.1, 0.9, 0.1, 0.9]),
    }
    table = share_by_t(r, np.array([50, 50, 50, 50, 2])).set_index("t")
    assert table.loc[0.0].tolist() == [0.5, 0.25, 0.25, 0]
    assert table.loc[0.5].tolist() == [0.75, 0.25, 0.25, 0.25]
    assert table.loc[1.0].tolist() == [0.5, 0.25, 0.25, 0]
    assert share_by_t(r, np.zeros(5))["kept"].tolist() == [0, 0, 0]


def test_transfer_gives_each_feature_s_correlation_with_itself():
    rng = np.random.default_rng(7)
    before = sparse_features(6000, 30, 0.04, rng)
    kept = np.linspace(0.3, 1, 30)
    after = noisy_copy(before, kept, rng)
    after[:, 4] = 0
    r = paired_pearson(csr(before), csr(after))
    assert r[4] == 0
    np.testing.assert_allclose(np.delete(r, 4), np.delete(kept, 4), atol=0.25)
    documents = even_documents(6000, 60)
    weights = document_weights(documents, 60, rng)
    fates, share = transfer_share(csr(before), csr(after), documents, weights)
    assert fates.parents["best"].tolist() == list(range(30))
    assert ((fates.parents["fate"] == "persists") == (r >= 0.8)).all()
    assert fates.children["fate"][4] == "untestable"
    assert fates.persist == pytest.approx((r >= 0.8).mean())
    assert share.low <= share.value == fates.persist <= share.high < 0.7


def test_features_recovered_by_the_merge_by_hand():
    table = recovered_features(
        {
            "lua": np.array([0.9, 0.9, 0.1, 0.1, 0.9, 0.9]),
            "tinystories": np.array([0.9, 0.1, 0.9, 0.1, 0.9, 0.1]),
            "merged": np.array([0.9, 0.9, 0.9, 0.9, 0.1, 0.1]),
        },
        np.array([50, 50, 50, 50, 50, 4]),
    )
    assert table["feature"].tolist() == [0, 1, 2, 3, 4]  # the last one is untestable
    both = "lua+tinystories"
    assert table["kept_by"].tolist() == [both, "lua", "tinystories", "none", both]
    assert table["in_merged"].tolist() == [True, True, True, True, False]
    assert table["recovered"].tolist() == [False, True, True, True, False]
    assert table["r_lua"].tolist() == [0.9, 0.9, 0.1, 0.1, 0.9]
