"""What an autoencoder computes, alone and in part, and its folder, which SAELens reads too."""

from __future__ import annotations

import json
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small import D_IN, K, random_rows, trained, with_scale

from featlib import FeatlibError
from featlib.dictionaries import sae as sae_module
from featlib.dictionaries.architectures import ARCHITECTURES
from featlib.dictionaries.sae import SparseAutoencoder, load_autoencoder, save_autoencoder
from featlib.params import Params

PRECISIONS = pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
EACH = pytest.mark.parametrize("name", ARCHITECTURES)
PARTS = {"W_enc", "b_enc", "W_dec", "b_dec"}


@pytest.fixture
def sparse_ways(monkeypatch, precision):
    """Take the sparse encoder however few the features are, ruling out in `precision`."""
    monkeypatch.setattr(sae_module, "FEW", 0)
    monkeypatch.setattr(sae_module, "compute_dtype", lambda _device: precision)


def features_of(sae: SparseAutoencoder, x: torch.Tensor) -> np.ndarray:
    return sae.encode_sparse(x).toarray()


@EACH
@PRECISIONS
def test_an_activation_does_not_depend_on_its_batch(name, sparse_ways):
    sae, x = trained(architecture=name)
    x = torch.cat([x[:200], 30 * x[:20]])  # long rows: where bfloat16 errs most
    whole = features_of(sae, x)
    one_by_one = np.vstack([features_of(sae, row[None]) for row in x])
    np.testing.assert_array_equal(whole, one_by_one)
    np.testing.assert_array_equal(whole, features_of(sae, torch.cat([5 * x, x]))[len(x) :])


@EACH
@PRECISIONS
def test_sparse_and_dense_encoders_agree(name, sparse_ways):
    sae, x = trained(architecture=name)
    x = torch.cat([x[:3000], 30 * x[:100]])
    dense = sae.encode(x).detach()
    sparse = torch.from_numpy(features_of(sae, x))
    edge = sae.threshold
    if name == "topk":
        assert ((sparse > 0).sum(1) <= K).all()
        edge = dense.topk(K, dim=1).values[:, -1:]
    clear = (dense - edge).abs() > 1e-4  # away from the edge, where rounding decides
    torch.testing.assert_close(sparse[clear], dense[clear], atol=1e-4, rtol=1e-5)
    assert (sparse > 0).sum() > 1000 and (sparse[sparse > 0] > 0).all()
    assert not ((sparse > 0) & (sparse <= sae.threshold)).any()
    rebuilt = sae.decode_sparse(sae.encode_sparse(x))
    torch.testing.assert_close(rebuilt, sparse @ sae.W_dec + sae.b_dec, atol=1e-4, rtol=1e-4)


@EACH
def test_chosen_features_are_as_active_as_in_the_whole(name):
    sae, x = trained(architecture=name)
    sae.set_threshold(torch.linspace(0, 1, sae.d_sae) if name == "jumprelu" else sae.threshold)
    chosen = [5, 0, 31]
    part = sae.only(chosen)
    torch.testing.assert_close(part.encode(x), sae.encode(x)[:, chosen], atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(
        features_of(part, x), features_of(sae, x)[:, chosen], atol=1e-5, rtol=1e-5
    )
    assert torch.equal(part.W_dec, sae.W_dec[chosen]) and part.scale == sae.scale


@EACH
def test_folder_round_trip_is_exact(name, tmp_path):
    sae, _ = trained(architecture=name)
    sae.scale = 1.6927152837261028
    save_autoencoder(sae, tmp_path / "sae", {"model_name": "base"})
    loaded = load_autoencoder(tmp_path / "sae")
    for part, value in sae.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[part]), part
    assert (loaded.scale, loaded.architecture, loaded.k) == (sae.scale, name, sae.k)
    save_autoencoder(loaded, tmp_path / "again", {"model_name": "base"})
    for file in ("cfg.json", "sae_weights.safetensors"):
        assert (tmp_path / "sae" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


@EACH
def test_saelens_reads_raw_activations_to_the_same_features(name, tmp_path):
    """SAELens 6.54's own inference, written down here from its standard, jumprelu and topk."""
    sae, x = trained(architecture=name)
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
    if cfg["architecture"] == "topk":
        assert set(t) == PARTS and not cfg["rescale_acts_by_decoder_norm"]
        top = torch.topk(pre, k=cfg["k"], dim=-1, sorted=False)
        f = torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())
    elif cfg["architecture"] == "jumprelu":
        assert set(t) == PARTS | {"threshold"} and t["threshold"].shape == (32,)
        f = torch.relu(pre) * (pre > t["threshold"])
    else:
        assert cfg["architecture"] == "standard" and set(t) == PARTS
        f = torch.relu(pre)
    mine = torch.from_numpy(features_of(sae, x[:500]))
    torch.testing.assert_close(f, mine, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(f @ t["W_dec"] + t["b_dec"], with_scale(sae, raw), atol=1e-4, rtol=0)
    assert (mine > 0).sum() > 1000


@EACH
def test_a_folder_of_saelens_itself_can_be_read(name, tmp_path):
    sae, _ = trained(architecture=name)
    save_autoencoder(sae, tmp_path / "sae")
    cfg = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    del cfg["metadata"]
    (tmp_path / "sae" / "cfg.json").write_text(json.dumps(cfg))
    raw = random_rows(50)
    theirs = load_autoencoder(tmp_path / "sae")
    assert theirs.scale == 1.0
    torch.testing.assert_close(with_scale(theirs, raw), with_scale(sae, raw), atol=1e-4, rtol=1e-4)


def test_broken_folders_are_named(tmp_path):
    with pytest.raises(FeatlibError, match=r"cfg\.json is missing"):
        load_autoencoder(tmp_path / "nothing")
    sae, _ = trained()
    for name, damage in (
        ("cfg.json", b'{"architecture": "gated"}'),
        ("cfg.json", b"{"),
        ("cfg.json", b'{"architecture": "topk", "rescale_acts_by_decoder_norm": true}'),
        ("sae_weights.safetensors", b"half a fi"),
    ):
        save_autoencoder(sae, tmp_path / "sae")
        (tmp_path / "sae" / name).write_bytes(damage)
        with pytest.raises(FeatlibError, match="run chapter 05 again"):
            load_autoencoder(tmp_path / "sae")


def test_every_architecture_is_a_choice_of_a_run():
    assert get_args(Params.model_fields["sae_architecture"].annotation) == tuple(ARCHITECTURES)
