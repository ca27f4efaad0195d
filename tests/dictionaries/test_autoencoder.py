import dataclasses
import json

import numpy as np
import pytest
import scipy.optimize
import torch
from safetensors.torch import load_file

from featlib import FeatlibError
from featlib.dictionaries import (
    gradients as sae_gradients,
)
from featlib.dictionaries import (
    sae as sae_model,
)
from featlib.dictionaries import (
    sparse as sparse_codes,
)
from featlib.dictionaries.autoencoder import score_autoencoder, score_baselines
from featlib.dictionaries.sae import (
    AutoencoderConfig,
    SparseAutoencoder,
    load_autoencoder,
    save_autoencoder,
)
from featlib.dictionaries.training import _Trainee, geometric_median, train_autoencoders
from featlib.models.mistral import build_model, evaluate

D_IN, D_SAE, K = 32, 64, 3


def random_weights(seed=0, d_in=D_IN, d_sae=D_SAE):
    draw = torch.Generator().manual_seed(seed)
    W_dec = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=draw), dim=1)
    return sae_gradients.Weights(
        W_dec + 0.1 * torch.randn(d_sae, d_in, generator=draw),
        0.1 * torch.randn(d_sae, generator=draw),
        W_dec,
        torch.randn(d_in, generator=draw),
    )


def random_rows(n, seed=1, d_in=D_IN):
    return 2 * torch.randn(n, d_in, generator=torch.Generator().manual_seed(seed))


def planted(n, seed=0, d_in=D_IN, d_sae=32, active=3):
    """Rows that are sums of `active` known directions each, and the directions [d_sae, d_in]."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(d_sae, d_in))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    codes = np.zeros((n, d_sae))
    chosen = rng.random((n, d_sae)).argsort(1)[:, :active]
    np.put_along_axis(codes, chosen, rng.uniform(1, 2, size=chosen.shape), 1)
    rows = codes @ directions + 0.3
    scale = d_in**0.5 / np.linalg.norm(rows, axis=1).mean()
    return torch.tensor(rows * scale, dtype=torch.float32), torch.tensor(
        directions, dtype=torch.float32
    )


def batches(x, size):
    return [x[i : i + size] for i in range(0, len(x), size)]


def small_config(**changes):
    return AutoencoderConfig(
        **{
            "d_in": D_IN,
            "d_sae": 32,
            "k": K,
            "n_tokens": 4096,
            "batch_size": 256,
            "aux_k": 8,
            "dead_after": 2000,
        }
        | changes
    )


# Gradients


def autograd_step(w, x, k, l1):
    """The same loss by autograd, dense: the reference."""
    p = sae_gradients.Weights(*(t.detach().clone().requires_grad_() for t in w.tensors()))
    pre = (x - p.b_dec) @ p.W_enc.T + p.b_enc
    f = pre.relu()
    if k is not None:
        limit = f.flatten().topk(k * len(x)).values[-1]
        f = f * (f >= limit)
    error = x - (f @ p.W_dec + p.b_dec)
    # The rows' norms are 1 and stay so: no gradient is wanted through them.
    l1_norm = (f * p.W_dec.norm(dim=1).detach()).sum()
    ((error.square().sum() + l1 * l1_norm) / len(x)).backward()
    return p, f.detach(), error.detach()


def as_codes(f):
    return sparse_codes.from_dense(f)


@pytest.mark.parametrize(("k", "l1"), [(K, 0.0), (None, 1.5)])
@pytest.mark.parametrize("path", ["sparse", "dense"])
def test_gradients_equal_autograd(k, l1, path):
    w, x = random_weights(), random_rows(50)
    p, f, error = autograd_step(w, x, k, l1)
    step = (
        sae_gradients.sparse(w, x, as_codes(f), l1)
        if path == "sparse"
        else sae_gradients.dense(w, x, f, l1)
    )
    for mine, theirs in zip(step.gradients.tensors(), p.tensors(), strict=True):
        torch.testing.assert_close(mine, theirs.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(step.error, error, atol=1e-5, rtol=1e-4)
    assert step.counts.tolist() == (f > 0).sum(0).tolist()
    assert step.threshold == pytest.approx(f[f > 0].min().item())
    assert step.l1 == pytest.approx(f.sum().item() / len(x), rel=1e-5)


@pytest.mark.parametrize("n_dead", [5, 20])
def test_auxiliary_gradients_equal_autograd(n_dead):
    w, x, aux_k, weight = random_weights(), random_rows(50), 8, 0.25
    w.b_enc[4:6] = -40.0
    dead = torch.arange(D_SAE)[3 : 3 + n_dead]
    _, f, error = autograd_step(w, x, K, 0.0)
    step = sae_gradients.dense(w, x, f, 0.0)
    before = [g.clone() for g in step.gradients.tensors()]
    loss = sae_gradients.add_dead_gradients(w, x, step, dead, aux_k=aux_k, aux_weight=weight)
    p = sae_gradients.Weights(*(t.detach().clone().requires_grad_() for t in w.tensors()))
    pre = (x - p.b_dec.detach()) @ p.W_enc[dead].T + p.b_enc[dead]
    lift = pre.detach().max(0).values.clamp_max(0)  # 50 rows: 1 in 64 is the largest one
    assert (lift < 0).any() and (lift == 0).any()
    pre = (pre - lift).relu()
    top = pre.topk(min(aux_k, n_dead), dim=1)
    kept = torch.zeros_like(pre).scatter(1, top.indices, top.values)
    theirs = weight * (kept @ p.W_dec[dead] - error).square().sum(1).mean()
    theirs.backward()
    assert loss == pytest.approx(theirs.item(), rel=1e-5)
    for now, was, parameter in zip(step.gradients.tensors(), before, p.tensors(), strict=True):
        expected = was if parameter.grad is None else was + parameter.grad
        torch.testing.assert_close(now, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("hint", [None, 0.3, 1.0, 3.0])
def test_batchtopk_keeps_the_largest_of_the_batch_whatever_the_hint(precision, hint, monkeypatch):
    monkeypatch.setattr(sae_gradients, "compute_dtype", lambda _device: precision)
    monkeypatch.setattr(sae_gradients, "_DENSE_SHARE", 1.0)
    w, x = random_weights(d_sae=512), random_rows(200)
    pre = (x - w.b_dec) @ w.W_enc.T + w.b_enc
    limit = pre.flatten().topk(K * len(x)).values[-1].item()
    step = sae_gradients.take_step(
        w, x, k=K, l1=0.0, threshold=None if hint is None else hint * limit
    )
    assert step.counts.sum().item() == K * len(x)
    assert step.threshold == pytest.approx(limit, rel=1e-5)
    assert step.counts.tolist() == (pre >= limit - 1e-5).sum(0).tolist()


def test_batchtopk_never_keeps_what_is_not_positive():
    w, x = random_weights(), random_rows(20)
    w.b_enc[:] = -100.0
    w.b_enc[:2] = 100.0
    for hint in (None, 50.0):
        step = sae_gradients.take_step(w, x, k=K, l1=0.0, threshold=hint)
        assert step.counts.tolist() == [20, 20] + [0] * (D_SAE - 2)


# Training


def recovered(sae, directions):
    cosines = torch.nn.functional.normalize(directions, dim=1) @ sae.W_dec.detach().T
    return cosines.max(dim=1).values.mean().item()


@pytest.mark.parametrize("architecture", ["batchtopk", "relu"])
def test_a_planted_dictionary_is_recovered(architecture):
    x, directions = planted(150_000)
    config = small_config(
        architecture=architecture, d_sae=48, l1=0.7, n_tokens=len(x), lr=1e-2, beta2=0.999
    )
    (sae,), curve = train_autoencoders(batches(x, 256), config, [0])
    assert recovered(sae, directions) > 0.95
    assert curve["fvu"].iloc[-1] < 0.1
    start = SparseAutoencoder(*(torch.zeros(1, 1),) * 2, torch.randn(48, D_IN), torch.zeros(1))
    start.W_dec.data /= start.W_dec.data.norm(dim=1, keepdim=True)
    assert recovered(start, directions) < 0.7  # the measure itself can fail


@pytest.mark.parametrize("architecture", ["batchtopk", "relu"])
def test_seeds_trained_together_equal_each_alone(architecture):
    x, _ = planted(4096)
    config = small_config(architecture=architecture)
    together, curve = train_autoencoders(batches(x, 256), config, [5, 6], scale=2.0)
    for seed, sae in zip([5, 6], together, strict=True):
        (alone,), curve_alone = train_autoencoders(batches(x, 256), config, [seed], scale=2.0)
        assert alone.threshold == sae.threshold
        for name, value in alone.state_dict().items():
            assert torch.equal(value, sae.state_dict()[name]), name
        mine = curve[curve["seed"] == seed].reset_index(drop=True)
        assert mine.equals(curve_alone)
    assert not torch.allclose(together[0].W_dec, together[1].W_dec)


def test_decoder_rows_stay_on_the_unit_sphere_and_gradients_tangent_to_it():
    x, _ = planted(2048)
    trainee = _Trainee(small_config(lr=0.05), x[:256], 0, None)
    with torch.no_grad():
        for batch in batches(x, 256):
            rows = trainee.w.W_dec.clone()
            trainee.update(batch, 0.05, False)
            gradient = trainee.w.W_dec.grad
            along = (gradient * rows).sum(1)
            assert (along.abs() <= 1e-5 * (1e-3 + gradient.norm(dim=1))).all()
            torch.testing.assert_close(trainee.w.W_dec.norm(dim=1), torch.ones(32))
            assert not torch.allclose(trainee.w.W_dec, rows)
    finished = trainee.finish(1.0)
    torch.testing.assert_close(finished.W_dec.norm(dim=1), torch.ones(32), atol=2e-6, rtol=0)


def test_the_threshold_is_a_mean_of_the_batches_own():
    x, _ = planted(2048)
    (sae,), curve = train_autoencoders(batches(x, 256), small_config(n_tokens=2048), [0])
    assert len(curve) == 8  # few: a mean that started from 0 would still lie below them all
    assert curve["threshold"].min() < sae.threshold < curve["threshold"].max()


def test_l0_on_held_out_rows_is_k():
    x, _ = planted(80_000)
    config = small_config(n_tokens=60_000)
    (sae,), _ = train_autoencoders(batches(x[:60_000], 256), config, [0])
    assert len(sae.encode_sparse(x[60_000:]).cols) / 20_000 == pytest.approx(K, rel=0.1)


def test_more_l1_means_fewer_features():
    x, _ = planted(20_000)
    l0 = []
    for l1 in (0.1, 4.0):
        config = small_config(architecture="relu", l1=l1, n_tokens=20_000)
        (sae,), _ = train_autoencoders(batches(x, 256), config, [0])
        l0.append(len(sae.encode_sparse(x).cols) / len(x))
    assert l0[1] < 0.8 * l0[0]


@pytest.mark.parametrize("architecture", ["batchtopk", "relu"])
@pytest.mark.parametrize("weight", [1 / 8, 0.0])
def test_the_auxiliary_loss_revives_dead_features(architecture, weight):
    x, _ = planted(60_000)
    w = random_weights(d_sae=32)
    w.b_enc[:16] = -8.0  # below anything the data reaches
    start = SparseAutoencoder(w.W_enc.T.contiguous(), w.b_enc, w.W_dec, w.b_dec)
    config = small_config(
        architecture=architecture,
        n_tokens=len(x),
        aux_weight=weight,
        dead_after=1000,
        lr=5e-3,
    )
    (sae,), curve = train_autoencoders(batches(x, 256), config, [0], start)
    revived = (sae.encode_sparse(x).counts()[:16] > 0).mean()
    assert curve["dead"].max() >= 0.5
    assert revived > 0.7 if weight else revived == 0


def test_a_warm_start_goes_on_from_the_weights_given():
    x, _ = planted(40_000)
    config = small_config(n_tokens=len(x), lr=3e-3)
    (first,), curve = train_autoencoders(batches(x, 256), config, [0])
    kept = {k: v.clone() for k, v in first.state_dict().items()}
    again, more = train_autoencoders(
        batches(x[:4096], 256), small_config(lr=1e-5), [0, 1], [first, first]
    )
    assert more["fvu"].iloc[0] == pytest.approx(curve["fvu"].iloc[-1], abs=0.03)
    assert torch.equal(again[0].W_dec, again[1].W_dec)
    assert all(torch.equal(v, first.state_dict()[k]) for k, v in kept.items())


def test_geometric_median_minimises_the_summed_distance():
    x = random_rows(60, d_in=3)
    x[:5] += 40
    best = scipy.optimize.minimize(
        lambda c: np.linalg.norm(x.numpy() - c, axis=1).sum(), np.zeros(3), tol=1e-10
    ).x
    np.testing.assert_allclose(geometric_median(x).numpy(), best, atol=1e-3)
    assert (geometric_median(x) - x.mean(0)).norm() > 1


def test_the_curve_counts_tokens():
    x, _ = planted(1000)
    config = small_config(n_tokens=1000)
    _, curve = train_autoencoders(batches(x, 256), config, [0, 1])
    assert curve["tokens"].tolist() == [256, 256, 512, 512, 768, 768, 1000, 1000]
    assert curve["l0"].tolist() == [K] * 8


# Inference


def trained(**changes):
    x, _ = planted(20_000)
    config = small_config(n_tokens=len(x), **changes)
    return train_autoencoders(batches(x, 256), config, [0], scale=1.7)[0][0], x


@pytest.mark.parametrize("architecture", ["batchtopk", "relu"])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
def test_an_activation_does_not_depend_on_its_batch(architecture, precision, monkeypatch):
    monkeypatch.setattr(sae_model, "compute_dtype", lambda _device: precision)
    sae, x = trained(architecture=architecture)
    x = torch.cat([x[:200], 30 * x[:20]])  # long rows: where bfloat16 errs most
    whole = sae.encode_sparse(x).to_csr().toarray()
    one_by_one = np.vstack([sae.encode_sparse(row[None]).to_csr().toarray() for row in x])
    np.testing.assert_array_equal(whole, one_by_one)
    other = sae.encode_sparse(torch.cat([5 * x, x])).to_csr().toarray()
    np.testing.assert_array_equal(whole, other[len(x) :])


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
def test_sparse_and_dense_encoders_agree(precision, monkeypatch):
    monkeypatch.setattr(sae_model, "compute_dtype", lambda _device: precision)
    sae, x = trained()
    x = torch.cat([x[:3000], 30 * x[:100]])
    dense = sae.encode(x).detach()
    sparse = torch.from_numpy(sae.encode_sparse(x).to_csr().toarray())
    clear = (dense - sae.threshold).abs() > 1e-4  # away from the edge, where rounding decides
    torch.testing.assert_close(sparse[clear], dense[clear], atol=1e-4, rtol=1e-5)
    assert (sparse[sparse > 0] > sae.threshold).all()
    torch.testing.assert_close(
        sae.decode_sparse(sae.encode_sparse(x)), sae.decode(sparse), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(
        sae.reconstruct(x[:6].reshape(2, 3, D_IN) / sae.scale).reshape(6, D_IN),
        sae.decode(sparse[:6]) / sae.scale,
    )


# The folder


@pytest.mark.parametrize("architecture", ["batchtopk", "relu"])
def test_folder_round_trip_is_exact(architecture, tmp_path):
    sae, _ = trained(architecture=architecture)
    sae.scale = 1.6927152837261028
    save_autoencoder(sae, tmp_path / "sae", {"model_name": "base"})
    loaded = load_autoencoder(tmp_path / "sae")
    for name, value in sae.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert (loaded.threshold, loaded.scale, loaded.architecture) == (
        sae.threshold,
        sae.scale,
        architecture,
    )
    save_autoencoder(loaded, tmp_path / "again", {"model_name": "base"})
    for name in ("cfg.json", "sae_weights.safetensors"):
        assert (tmp_path / "sae" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("architecture", ["batchtopk", "relu"])
def test_saelens_reads_raw_activations_to_the_same_features(architecture, tmp_path):
    """SAELens's own inference formulas, written down here from its documentation."""
    sae, x = trained(architecture=architecture)
    raw = x[:500] / sae.scale
    save_autoencoder(sae, tmp_path / "sae", {"model_name": "base"})
    cfg = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    t = load_file(tmp_path / "sae" / "sae_weights.safetensors")
    assert (cfg["d_in"], cfg["d_sae"], cfg["dtype"]) == (D_IN, 32, "float32")
    assert cfg["apply_b_dec_to_input"] and cfg["normalize_activations"] == "none"
    assert cfg["metadata"]["hook_name"] == "blocks.0.mlp.hook_post"
    assert cfg["metadata"]["model_name"] == "base"
    assert all(v.dtype == torch.float32 for v in t.values())
    pre = (raw - t["b_dec"]) @ t["W_enc"] + t["b_enc"]
    if architecture == "batchtopk":
        assert cfg["architecture"] == "jumprelu" and set(t) - {"threshold"} == {
            "W_enc",
            "b_enc",
            "W_dec",
            "b_dec",
        }
        f = torch.relu(pre) * (pre > t["threshold"])
    else:
        assert cfg["architecture"] == "standard" and "threshold" not in t
        f = torch.relu(pre)
    rebuilt = f @ t["W_dec"] + t["b_dec"]
    mine = torch.from_numpy(sae.encode_sparse(x[:500]).to_csr().toarray())
    torch.testing.assert_close(f, mine, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rebuilt, sae.reconstruct(raw), atol=1e-4, rtol=1e-4)
    assert (mine > 0).sum() > 1000


def test_a_folder_of_saelens_itself_can_be_read(tmp_path):
    sae, _ = trained()
    save_autoencoder(sae, tmp_path / "sae")
    cfg = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    del cfg["metadata"]
    (tmp_path / "sae" / "cfg.json").write_text(json.dumps(cfg))
    raw = random_rows(50)
    theirs = load_autoencoder(tmp_path / "sae")
    assert theirs.scale == 1.0
    torch.testing.assert_close(theirs.reconstruct(raw), sae.reconstruct(raw), atol=1e-4, rtol=1e-4)


def test_broken_folders_are_named(tmp_path):
    with pytest.raises(FeatlibError, match=r"cfg\.json is missing"):
        load_autoencoder(tmp_path / "nothing")
    sae, _ = trained()
    for name, damage in (
        ("cfg.json", b'{"architecture": "gated"}'),
        ("cfg.json", b"{"),
        ("sae_weights.safetensors", b"half a fi"),
    ):
        save_autoencoder(sae, tmp_path / "sae")
        (tmp_path / "sae" / name).write_bytes(damage)
        with pytest.raises(FeatlibError, match="run chapter 05 again"):
            load_autoencoder(tmp_path / "sae")


# The card


@pytest.fixture(scope="module")
def model():
    model = build_model(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=D_IN,
        heads=2,
        kv_heads=1,
        context=16,
        seed=0,
    )
    for p in model.parameters():
        p.data *= 3
    model.lm_head.weight.data *= 10  # so that the MLP matters for the loss
    return model


IDS = np.random.default_rng(0).integers(3, 300, size=(40, 16)).astype(np.uint16)


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
    card, densities = score_autoencoder(sae, model, IDS)
    assert card["fvu"] == pytest.approx(0, abs=1e-12)
    assert card["ce_recovered"] == pytest.approx(1, abs=1e-3)
    assert card["ce_delta"] == pytest.approx(0, abs=1e-5)
    assert card["l0"] == pytest.approx(D_IN, abs=0.1)
    assert card["n_tokens"] == IDS.size
    assert densities.shape == (2 * D_IN,) and card["alive"] == (densities > 0).mean()


def test_a_dead_autoencoder_is_a_constant(model):
    nothing = identity(D_IN)
    nothing.threshold = 1e9
    card, densities = score_autoencoder(nothing, model, IDS)
    assert card["ce_recovered"] == pytest.approx(0, abs=1e-9)
    assert card["ce_sae"] == card["ce_zero"]
    assert (card["alive"], card["l0"], densities.sum()) == (0, 0, 0)
    assert card["fvu"] >= 1


def test_the_mean_alone_explains_nothing_and_scores_as_mean_ablation(model):
    from featlib.dictionaries.activations import harvest

    nothing = identity(D_IN)
    nothing.threshold, nothing.scale = 1e9, 2.5
    nothing.b_dec.data = 2.5 * torch.cat(list(harvest(model, IDS))).mean(0)
    card, _ = score_autoencoder(nothing, model, IDS)
    assert card["fvu"] == pytest.approx(1, abs=1e-4)
    assert card["ce_sae"] == pytest.approx(card["ce_mean"], abs=1e-5)


def test_baselines_are_the_models_own_losses(model):
    baselines = score_baselines(model, IDS, batch_size=7)
    assert baselines.ce == pytest.approx(evaluate(model, IDS).loss, rel=1e-3)
    down = model.model.layers[0].mlp.down_proj.weight
    kept = down.data.clone()
    down.data.zero_()
    try:
        assert baselines.ce_zero == pytest.approx(evaluate(model, IDS).loss, rel=1e-3)
    finally:
        down.data = kept
    assert abs(baselines.ce_zero / baselines.ce - 1) > 0.01


def test_ultra_rare_features_fire_but_hardly(model):
    ids = np.random.default_rng(0).integers(3, 300, size=(1000, 16))
    sae = identity(D_IN)
    card, densities = score_autoencoder(sae, model, ids)
    rare = (densities > 0) & (densities < 1e-4)
    assert card["ultra_rare"] == rare.mean()
    sae.threshold = float("inf")
    assert score_autoencoder(sae, model, ids)[0]["ultra_rare"] == 0


# Refusals


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 33}, "more than the d_sae"),
        ({"k": 0}, "k must be at least 1"),
        ({"architecture": "topk"}, "batchtopk or relu"),
        ({"bias": "median"}, "mean or geometric_median"),
        ({"decay": 0.99, "warmup": 0.02}, "at most 1"),
        ({"lr": 0.0}, "lr must be positive"),
    ],
)
def test_impossible_configurations_are_refused(change, words):
    with pytest.raises(FeatlibError, match=words):
        small_config(**change)


def test_wrong_input_is_named():
    x, _ = planted(1024)
    config = small_config()
    with pytest.raises(FeatlibError, match="ended after 1,024 of n_tokens = 4,096"):
        train_autoencoders(batches(x, 256), config, [0])
    with pytest.raises(FeatlibError, match="not \\[tokens, 32\\]"):
        train_autoencoders([torch.zeros(4, 5)], config, [0])
    with pytest.raises(FeatlibError, match="different numbers"):
        train_autoencoders([], config, [1, 1])
    with pytest.raises(FeatlibError, match="start from"):
        train_autoencoders(
            batches(x, 256), dataclasses.replace(config, d_sae=40), [0], identity(D_IN)
        )
