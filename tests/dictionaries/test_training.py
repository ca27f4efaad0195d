"""Training: planted dictionaries come back as sparse as asked, and a seed is only a start."""

from __future__ import annotations

import pytest
import torch
from small import D_IN, K, planted, random_weights, small_config, trained

from featlib.dictionaries.architectures import ARCHITECTURES
from featlib.dictionaries.card import unexplained
from featlib.dictionaries.features import count_firings
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.dictionaries.training import _Trainee, train_autoencoders


def recovered(sae, directions):
    cosines = torch.nn.functional.normalize(directions, dim=1) @ sae.W_dec.detach().T
    return cosines.max(dim=1).values.mean().item()


def l0_of(sae, x):
    return sae.encode_sparse(x).nnz / len(x)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_planted_dictionary_is_recovered_and_as_sparse_as_asked(name):
    x, directions = planted(170_000)
    x, held_out = x[:150_000], x[150_000:]
    config = small_config(
        architecture=name, d_sae=48, l1=0.7, n_tokens=len(x), lr=1e-2, beta2=0.999
    )
    (sae,) = train_autoencoders(x.split(256), config, [0])
    assert recovered(sae, directions) > 0.95
    assert unexplained(sae, [held_out]) < 0.1
    if name != "relu":
        assert l0_of(sae, held_out) == pytest.approx(K, rel=0.1)
    start = SparseAutoencoder(*(torch.zeros(1, 1),) * 2, torch.randn(48, D_IN), torch.zeros(1))
    start.W_dec.data /= start.W_dec.data.norm(dim=1, keepdim=True)
    assert recovered(start, directions) < 0.7  # the measure itself can fail


def test_more_l1_means_fewer_features():
    l0 = [l0_of(*trained(architecture="relu", l1=l1)) for l1 in (0.1, 4.0)]
    assert l0[1] < 0.8 * l0[0]


def test_features_learn_thresholds_of_their_own():
    sae, x = trained(60_000, architecture="jumprelu", lr=5e-3)
    often = count_firings(sae.encode_sparse(x)) > 100
    assert sae.threshold.min() >= 0
    assert sae.threshold[torch.from_numpy(often)].std() > 0.01
    assert trained()[0].threshold.unique().numel() == 1  # batchtopk has one for all


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_seeds_trained_together_equal_each_alone(name):
    x, _ = planted(4096)
    config = small_config(architecture=name)
    together = train_autoencoders(x.split(256), config, [5, 6], scale=2.0)
    for seed, sae in zip([5, 6], together, strict=True):
        (alone,) = train_autoencoders(x.split(256), config, [seed], scale=2.0)
        for part, value in alone.state_dict().items():
            assert torch.equal(value, sae.state_dict()[part]), part
    assert not torch.allclose(together[0].W_dec, together[1].W_dec)


def test_decoder_rows_stay_on_the_unit_sphere_and_the_threshold_is_a_mean_over_batches():
    x, _ = planted(2048)
    trainee, seen = _Trainee(small_config(lr=0.05), x[:256], 0, None), []
    with torch.no_grad():
        for batch in x.split(256):
            rows = trainee.w.W_dec.clone()
            trainee.update(batch, 0.05)
            gradient = trainee.w.W_dec.grad
            along = (gradient * rows).sum(1)
            assert (along.abs() <= 1e-5 * (1e-3 + gradient.norm(dim=1))).all()
            torch.testing.assert_close(trainee.w.W_dec.norm(dim=1), torch.ones(32))
            assert not torch.allclose(trainee.w.W_dec, rows)
            seen.append(trainee.last)
    finished = trainee.finish(1.0)
    torch.testing.assert_close(finished.W_dec.norm(dim=1), torch.ones(32), atol=2e-6, rtol=0)
    assert len(seen) == 8  # few: a mean that started from 0 would still lie below them all
    assert min(seen) < finished.threshold[0] < max(seen)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("weight", [1 / 8, 0.0])
def test_the_auxiliary_loss_revives_dead_features(name, weight):
    x, _ = planted(60_000)
    w = random_weights(d_sae=32)
    w.b_enc[:16] = -8.0  # below anything the data reaches
    start = SparseAutoencoder(w.W_enc.T.contiguous(), w.b_enc, w.W_dec, w.b_dec, threshold=0.5)
    config = small_config(
        architecture=name, n_tokens=len(x), aux_weight=weight, dead_after=1000, lr=5e-3
    )
    (sae,) = train_autoencoders(x.split(256), config, [0], start)
    revived = (count_firings(sae.encode_sparse(x))[:16] > 0).mean()
    assert not count_firings(start.encode_sparse(x))[:16].any()
    assert revived > 0.7 if weight else revived == 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_warm_start_goes_on_from_the_weights_given(name):
    x, _ = planted(40_000)
    config = small_config(architecture=name, n_tokens=len(x), lr=3e-3)
    (first,) = train_autoencoders(x.split(256), config, [0])
    kept = {k: v.clone() for k, v in first.state_dict().items()}
    again = train_autoencoders(
        x[:4096].split(256), small_config(architecture=name, lr=1e-5), [0, 1], first
    )
    assert unexplained(again[0], [x]) == pytest.approx(unexplained(first, [x]), abs=0.03)
    assert torch.equal(again[0].W_dec, again[1].W_dec)
    assert all(torch.equal(v, first.state_dict()[k]) for k, v in kept.items())
