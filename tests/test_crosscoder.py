"""The crosscoder: planted shared and exclusive features, models in step, hand-made norms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import sparse_features

from featlib.activations import harvest
from featlib.autoencoder import AutoencoderConfig, SparseAutoencoder
from featlib.correlation import pearson_dense
from featlib.crosscoder import (
    Crosscoder,
    classify,
    encode_joint,
    joint_batches,
    read_stream,
    relative_norm,
    spread_over_models,
    train_crosscoder,
)
from featlib.language_model import build_model
from featlib.runs import FeatlibError

NAMES = ("base", "lua", "merged")
D, SHARED, OWN = 24, 12, 5  # width of one model; features in all three, and in one alone


def tiny_model(seed: int):
    return build_model(
        vocab_size=50, hidden_size=8, intermediate_size=12, heads=2, kv_heads=1, context=16,
        seed=seed,
    )  # fmt: skip


@pytest.fixture(scope="module")
def planted():
    """Truth [tokens, features], whose it is [features], and the crosscoder fitted to it."""
    rng = np.random.default_rng(0)
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
    x = torch.from_numpy((x + 0.003 * rng.standard_normal(x.shape)).astype(np.float32))
    config = AutoencoderConfig(
        d_in=D * len(NAMES), d_sae=40, k=2, n_tokens=6 * len(x), batch_size=250,
        lr=3e-3, dead_after=5_000,
    )  # fmt: skip
    batches = (x[s : s + 250] for _ in range(6) for s in range(0, len(x), 250))
    crosscoder = train_crosscoder(batches, NAMES, config, seed=1)
    found, fvu = encode_joint(crosscoder, x.split(4_000))
    return truth, owner, crosscoder, found, fvu, x


def test_planted_features_come_back_shared_and_exclusive(planted):
    truth, owner, crosscoder, found, fvu, _ = planted
    r = pearson_dense(truth, found.matrix.toarray())
    latent = r.argmax(1)
    assert (r.max(1) > 0.9).mean() > 0.95
    table = spread_over_models(crosscoder).iloc[latent]
    kind = table["kind"].to_numpy()
    assert (kind[owner < 0] == "shared").mean() > 0.8
    assert (kind[owner >= 0] == "exclusive").mean() > 0.6
    # What training blurs becomes partial: none is taken for the opposite of what it is.
    assert not (kind[owner < 0] == "exclusive").any()
    assert not (kind[owner >= 0] == "shared").any()
    assert (table["most"][owner >= 0] == np.array(NAMES)[owner[owner >= 0]]).all()
    assert max(fvu.values()) < 0.1
    # Nothing invented: no latent that fires as often as a feature is exclusive without being one.
    often = np.diff(found.columns.indptr) > 0.01 * found.n_tokens
    kinds = spread_over_models(crosscoder)["kind"].to_numpy()
    assert (kinds[often] == "exclusive").sum() <= OWN * len(NAMES) + 2


def test_relative_norms_say_the_same_of_two_models(planted):
    truth, owner, crosscoder, found, _, _ = planted
    latent = pearson_dense(truth, found.matrix.toarray()).argmax(1)
    kind = np.asarray(classify(relative_norm(crosscoder, "base", "lua")))[latent]
    assert (kind[owner < 0] == "shared").mean() > 0.8
    assert (kind[owner == 0] == "parent only").mean() > 0.6
    assert (kind[owner == 1] == "child only").mean() > 0.6


def test_fvu_is_that_of_each_model(planted):
    _, _, crosscoder, _, fvu, x = planted
    with torch.no_grad():
        error = (x - crosscoder.sae.decode(crosscoder.sae.encode(x))).numpy()
    for m, name in enumerate(NAMES):
        part = slice(m * D, (m + 1) * D)
        own = x.numpy()[:, part]
        expected = (error[:, part] ** 2).sum() / ((own - own.mean(0)) ** 2).sum()
        assert fvu[name] == pytest.approx(expected, rel=1e-3)


def by_hand(norms: list[list[float]]) -> Crosscoder:
    rows = torch.tensor(norms).repeat_interleave(2, dim=1) / 2**0.5  # [d_sae, models * 2]
    d_sae, d_in = rows.shape
    sae = SparseAutoencoder(rows.T.clone(), torch.zeros(d_sae), rows, torch.zeros(d_in))
    return Crosscoder(("base", "lua", "merged"), sae)


def test_norms_and_kinds_by_hand():
    crosscoder = by_hand([[1, 1, 1], [1, 0.05, 0.1], [0.2, 0.1, 1], [0, 2, 1.4]])
    np.testing.assert_allclose(
        crosscoder.decoder_norms, [[1, 1, 1], [1, 0.05, 0.1], [0.2, 0.1, 1], [0, 2, 1.4]], rtol=1e-6
    )
    table = spread_over_models(crosscoder)
    assert table["kind"].tolist() == ["shared", "exclusive", "partial", "partial"]
    assert table["most"].tolist() == ["base", "base", "merged", "lua"]
    assert table.loc[3, ["base", "lua", "merged"]].tolist() == pytest.approx([0, 1, 0.7])
    np.testing.assert_allclose(
        relative_norm(crosscoder, "base", "lua"), [0.5, 0.05 / 1.05, 1 / 3, 1], rtol=1e-6
    )
    kinds = classify(np.array([0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1]))
    assert list(kinds) == [
        *("parent only", "parent only", "between", "shared", "shared", "shared"),
        *("between", "child only", "child only"),
    ]


def test_every_row_is_one_token_in_all_models():
    models = {"base": tiny_model(0), "lua": tiny_model(1)}
    ids = np.random.default_rng(0).integers(0, 50, (12, 16))
    scales = {"base": 2.0, "lua": 0.5}
    rows = [torch.cat(list(harvest(m, ids))) * scales[n] for n, m in models.items()]
    reference = torch.cat(rows, dim=1)
    batches = torch.cat(
        list(
            joint_batches(
                models, ids, scales, n_tokens=192, batch_size=32, seed=3, buffer_tokens=64
            )
        )
    )
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


def test_the_stream_is_read_in_order():
    models = {"base": tiny_model(0), "lua": tiny_model(1)}
    ids = np.random.default_rng(0).integers(0, 50, (6, 16))
    scales = {"base": 2.0, "lua": 0.5}
    x = torch.cat([torch.cat(list(harvest(m, ids))) * scales[n] for n, m in models.items()], dim=1)
    config = AutoencoderConfig(d_in=x.shape[1], d_sae=8, k=2, n_tokens=960, batch_size=96)
    crosscoder = train_crosscoder([x] * 10, models, config, seed=0)
    found, fvu = read_stream(crosscoder, models, ids, scales)
    with torch.no_grad():
        expected = crosscoder.sae.encode(x).numpy()
    np.testing.assert_allclose(found.matrix.toarray(), expected, atol=1e-4)
    assert list(fvu) == ["base", "lua"]


def test_what_cannot_be_a_crosscoder_is_refused():
    config = AutoencoderConfig(d_in=10, d_sae=8, k=2)
    with pytest.raises(FeatlibError, match="d_in = 10 cannot be shared out equally among 3"):
        train_crosscoder([], NAMES, config, seed=0)
    relu = AutoencoderConfig(d_in=9, d_sae=8, k=2, architecture="relu")
    with pytest.raises(FeatlibError, match="must be batchtopk"):
        train_crosscoder([], NAMES, relu, seed=0)
    with pytest.raises(FeatlibError, match="stream is empty"):
        encode_joint(by_hand([[1, 1, 1]]), [])
