"""The crosscoder: planted shared and exclusive features, models in step, hand-made norms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import sparse_features
from small import random_ids, tiny_model

from featlib import FeatlibError
from featlib.dictionaries import crosscoder as crosscoder_module
from featlib.dictionaries.crosscoder import (
    Crosscoder,
    encode_joint,
    joint_batches,
    load_crosscoder,
    save_crosscoder,
    side_by_side,
    train_crosscoder,
)
from featlib.dictionaries.features import calibrate
from featlib.dictionaries.sae import AutoencoderConfig
from featlib.matching.correlation import pearson_dense
from featlib.matching.owners import spread_over_models
from featlib.models.forward import harvest

NAMES = ("base", "lua", "merged")
D, SHARED, OWN = 24, 12, 5  # width of one model; features in all three, and in one alone


SCALES = {"base": 2.0, "lua": 0.37}


@pytest.fixture(scope="module")
def pair():
    """Two models, blocks of ids, and the reference rows [tokens, both widths] of all of them."""
    models = {"base": tiny_model(0, width=12), "lua": tiny_model(1, width=12)}
    ids = random_ids(12)
    rows = [torch.cat(list(harvest(m, ids))) * SCALES[n] for n, m in models.items()]
    return models, ids, torch.cat(rows, dim=1)


def plant(seed: int) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Truth [tokens, features], whose each is (-1: of all) [features], and activations."""
    rng = np.random.default_rng(seed)
    n_features = SHARED + OWN * len(NAMES)
    truth = sparse_features(30_000, n_features, 0.075, rng)
    writes = rng.standard_normal((len(NAMES), n_features, D))
    writes /= np.linalg.norm(writes, axis=2, keepdims=True)
    owner = np.repeat(np.arange(-1, len(NAMES)), [SHARED, *[OWN] * len(NAMES)])
    for m in range(len(NAMES)):
        writes[m, (owner >= 0) & (owner != m)] = 0
    # As long over all models together, so that no kind of feature is worth more than another.
    writes /= np.linalg.norm(writes, axis=(0, 2), keepdims=True)
    x = np.concatenate([truth @ writes[m] for m in range(len(NAMES))], axis=1)
    return truth, owner, torch.from_numpy((x + 0.003 * rng.standard_normal(x.shape)).astype("f4"))


def fit(x: torch.Tensor, epochs: int, *, k: int = 2) -> Crosscoder:
    config = AutoencoderConfig(
        d_in=D * len(NAMES), d_sae=40, k=k, n_tokens=epochs * len(x), batch_size=250,
        lr=3e-3, dead_after=5_000,
    )  # fmt: skip
    batches = (x[s : s + 250] for _ in range(epochs) for s in range(0, len(x), 250))
    return train_crosscoder(batches, dict.fromkeys(NAMES, 1.0), config, seed=1)


def kinds_of(truth: np.ndarray, crosscoder: Crosscoder, found) -> tuple[np.ndarray, ...]:
    """Per planted feature: what its closest latent is called, of which model, and r."""
    r = pearson_dense(truth, found.matrix.toarray())
    table = spread_over_models(crosscoder).iloc[r.argmax(1)]
    return table["kind"].to_numpy(), table["most"].to_numpy(), r.max(1)


@pytest.fixture(scope="module")
def planted():
    """Truth, owners, the crosscoder fitted to them, what it finds, its FVU and the activations."""
    truth, owner, x = plant(0)
    crosscoder = fit(x, epochs=20)
    found, fvu = encode_joint(crosscoder, x.split(4_000))
    return truth, owner, crosscoder, found, fvu, x


def test_planted_features_come_back_shared_and_exclusive(planted):
    truth, owner, crosscoder, found, fvu, _ = planted
    kind, most, r = kinds_of(truth, crosscoder, found)
    assert (r > 0.9).mean() > 0.9
    assert (kind[owner < 0] == "shared").mean() > 0.9
    assert (kind[owner >= 0] == "exclusive").mean() > 0.9
    assert (most[owner >= 0] == np.array(NAMES)[owner[owner >= 0]]).all()
    assert max(fvu.values()) < 0.02
    # Nothing invented: no latent that fires as often as a feature is exclusive without being one.
    often = np.diff(found.columns.indptr) > 0.01 * found.n_tokens
    kinds = spread_over_models(crosscoder)["kind"].to_numpy()
    assert (kinds[often] == "exclusive").sum() <= OWN * len(NAMES)


@pytest.mark.parametrize("epochs, k", [(4, 2), (20, 4)])
def test_what_is_too_short_or_too_dense_blurs_and_invents_nothing(planted, epochs, k):
    """The two limits that the module states: they cost exclusive features and make up none."""
    truth, owner, good, found, _, x = planted
    poor = fit(x, epochs, k=k)
    kind, _, _ = kinds_of(truth, poor, encode_joint(poor, x.split(4_000))[0])
    best, _, _ = kinds_of(truth, good, found)
    own = owner >= 0
    assert (kind[own] == "exclusive").mean() < (best[own] == "exclusive").mean() - 0.2
    assert not (kind[~own] == "exclusive").any()


@pytest.mark.parametrize("begin_shared", [0.0, 1.0])
def test_no_verdict_follows_from_the_start(planted, monkeypatch, begin_shared):
    """Whether rows begin in one model or in all, training ends with whose they are."""
    truth, owner, _, _, _, x = planted
    monkeypatch.setattr(crosscoder_module, "BEGIN_SHARED", begin_shared)
    crosscoder = fit(x, epochs=20)
    kind, _, r = kinds_of(truth, crosscoder, encode_joint(crosscoder, x.split(4_000))[0])
    assert (r > 0.9).mean() > 0.9
    assert (kind[owner < 0] == "shared").mean() > 0.8
    assert (kind[owner >= 0] == "exclusive").mean() > 0.8


def test_half_of_the_rows_begin_in_one_model():
    x = torch.ones(4, 30)
    config = AutoencoderConfig(d_in=30, d_sae=24, k=2, n_tokens=4, batch_size=4, lr=1e-9)
    started = Crosscoder(NAMES, crosscoder_module._start(x, 3, config, seed=0), (1.0,) * 3)
    norms = started.decoder_norms
    np.testing.assert_allclose((norms**2).sum(1), 1, rtol=1e-5)
    assert ((norms > 0).sum(1) == 3).sum() == 12
    assert ((norms > 0).sum(1) == 1).sum() == 12
    assert (norms[12:] > 0).sum(0).tolist() == [4, 4, 4], "no model begins with more than another"
    assert torch.equal(started.sae.W_enc, started.sae.W_dec.T)
    assert torch.equal(started.sae.b_dec, x.mean(0))


def test_fvu_is_that_of_each_model(planted):
    _, _, crosscoder, _, fvu, x = planted
    with torch.no_grad():
        sae = crosscoder.sae
        error = (x - sae.encode(x) @ sae.W_dec - sae.b_dec).numpy()
    for m, name in enumerate(NAMES):
        part = slice(m * D, (m + 1) * D)
        own = x.numpy()[:, part]
        expected = (error[:, part] ** 2).sum() / ((own - own.mean(0)) ** 2).sum()
        assert fvu[name] == pytest.approx(expected, rel=1e-3)


def test_every_row_is_one_token_in_all_models(pair, monkeypatch):
    models, ids, reference = pair
    monkeypatch.setattr(crosscoder_module, "BUFFER", 64)
    config = AutoencoderConfig(d_in=24, d_sae=32, n_tokens=192, batch_size=32)
    batches = torch.cat(list(joint_batches(models, ids, SCALES, config, seed=3)))
    assert batches.shape == (192, reference.shape[1])
    token = torch.cdist(batches.double(), reference.double()).argmin(1)
    assert token.tolist() != list(range(192)), "rows are not shuffled"
    # Training reads bfloat16; a row whose halves are of two tokens is much further off.
    size = reference.norm(dim=1)[token]
    far = (batches - reference[token]).norm(dim=1) / size
    assert far.max() < 0.03, "a row mixes the tokens of two models"
    mixed = torch.cat([batches[:, :12], batches.roll(7, 0)[:, 12:]], dim=1)
    nearest = torch.cdist(mixed.double(), reference.double()).min(1).values
    assert (nearest / mixed.norm(dim=1)).median() > 0.1, "such a row would not be noticed"


def test_the_stream_is_read_in_order_and_back_from_a_folder_bit_for_bit(pair, tmp_path):
    models, ids, x = pair
    config = AutoencoderConfig(d_in=24, d_sae=80, k=2, n_tokens=960, batch_size=96)
    crosscoder = train_crosscoder([x] * 10, SCALES, config, seed=0)

    def read(crosscoder: Crosscoder):
        # The models may come in any order: they are read by name.
        return encode_joint(
            crosscoder, side_by_side(crosscoder, dict(reversed(models.items())), ids)
        )

    found, fvu = read(crosscoder)
    with torch.no_grad():
        expected = crosscoder.sae.encode(x).numpy()
    np.testing.assert_allclose(found.matrix.toarray(), expected, atol=1e-4)
    assert list(fvu) == ["base", "lua"]
    for l0 in (1, 3):
        calibrate(crosscoder.sae, side_by_side(crosscoder, models, ids), l0)
        assert read(crosscoder)[0].l0 == pytest.approx(l0, abs=0.05)

    save_crosscoder(crosscoder, tmp_path / "cc", {"seed": 0})
    assert {p.name for p in (tmp_path / "cc").iterdir()} == {"cfg.json", "sae_weights.safetensors"}
    again = load_crosscoder(tmp_path / "cc")
    assert (again.names, again.scales) == (crosscoder.names, crosscoder.scales)
    first, second = read(crosscoder), read(again)
    np.testing.assert_array_equal(first[0].matrix.toarray(), second[0].matrix.toarray())
    assert first[0].matrix.nnz and first[1] == second[1]
    with pytest.raises(FeatlibError, match="control_crosscoder is true"):
        load_crosscoder(tmp_path / "nothing")
