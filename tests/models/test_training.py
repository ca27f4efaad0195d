"""Training: the loop against a plain one, the order of blocks, and what is kept on the way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_models import CONTEXT, TRAINING, VOCAB, small_model, weights_of

from featlib import FeatlibError
from featlib.models import training
from featlib.models.training import keep_snapshots, read_snapshots, train


def test_training_is_a_plain_loop(float32, ids, monkeypatch):
    """Oracle: Hugging Face's own loss, torch's unfused AdamW and its schedulers, step by step."""
    monkeypatch.setattr(training, "CLIP", 0.5)
    model, plain = small_model(), small_model()
    curve = train(model, ids, n_tokens=20 * 4 * CONTEXT, **TRAINING)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in plain.named_parameters() if "norm" not in n]},
            {"params": [p for n, p in plain.named_parameters() if "norm" in n], "weight_decay": 0},
        ],
        lr=1e-2,
        betas=(0.9, 0.99),
        weight_decay=0.1,
        fused=False,
    )
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, total_iters=1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=18)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], milestones=[2])
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(64), rng.permutation(64)])
    losses, rates = [], []
    for step in range(20):
        batch = torch.from_numpy(ids[order[4 * step : 4 * step + 4]].astype(np.int64))
        loss = plain(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
    np.testing.assert_allclose(curve["lr"], rates, rtol=1e-6)
    np.testing.assert_allclose(curve["loss"], losses, rtol=1e-3)
    for name, weight in weights_of(plain).items():
        torch.testing.assert_close(model.get_parameter(name).detach(), weight, atol=2e-4, rtol=1e-3)


def test_the_curve_is_a_table_and_the_loss_falls(ids):
    model = small_model()
    curve = train(model, ids, n_tokens=60 * 4 * CONTEXT + 5, **TRAINING)
    assert list(curve.columns) == ["step", "tokens", "loss", "lr"]
    assert curve["step"].tolist() == list(range(1, 61))
    assert curve["tokens"].iloc[-1] == 60 * 4 * CONTEXT
    assert curve["loss"].iloc[0] == pytest.approx(math.log(VOCAB), rel=0.05)
    assert curve["loss"].iloc[-1] < 0.75 * curve["loss"].iloc[0]
    assert not model.training
    assert model.config._attn_implementation == small_model().config._attn_implementation


def test_the_same_seed_gives_the_same_weights(ids, tmp_path):
    np.save(tmp_path / "ids.npy", ids)
    mapped = np.load(tmp_path / "ids.npy", mmap_mode="r")
    runs = []
    for blocks, seed in ((ids, 0), (mapped, 0), (ids, 1)):
        model = small_model()
        train(model, blocks, n_tokens=30 * 4 * CONTEXT, **{**TRAINING, "seed": seed})
        runs.append(weights_of(model))
    first, again, other = runs
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_every_block_is_seen_once_an_epoch(ids):
    batches = [b.numpy() for b in training._batches(ids, 8, 16, seed=0, device=torch.device("cpu"))]
    for epoch in (batches[:8], batches[8:]):
        seen = np.concatenate(epoch)
        np.testing.assert_array_equal(np.sort(seen[:, 0]), np.sort(ids[:, 0]))
    assert not np.array_equal(batches[0], batches[8])


def test_snapshots_come_at_their_fractions(ids):
    model = small_model()
    start, seen = weights_of(model), []
    train(
        model,
        ids,
        n_tokens=20 * 4 * CONTEXT,
        snapshots=(1, 0, 0.5),
        on_snapshot=lambda fraction, snapped: seen.append((fraction, weights_of(snapped))),
        **TRAINING,
    )
    fractions, (first, middle, last) = zip(*seen, strict=True)
    assert fractions == (0, 0.5, 1)
    for name, weight in weights_of(model).items():
        assert torch.equal(first[name], start[name])
        assert torch.equal(last[name], weight)
    assert not torch.equal(middle["lm_head.weight"], first["lm_head.weight"])
    assert not torch.equal(middle["lm_head.weight"], last["lm_head.weight"])


def test_kept_snapshots_come_back_in_order_and_replace_those_before(trained, tmp_path):
    for fractions in ([0.3], [0.5, 0.02, 1.0]):
        keep = keep_snapshots(tmp_path / "lua")
        for fraction in fractions:
            keep(fraction, trained)
    read = read_snapshots(tmp_path / "lua", small_model(1))
    found = [(fraction, weights_of(model)) for fraction, model in read]
    assert [fraction for fraction, _ in found] == [0.02, 0.5, 1.0]
    for name, was in weights_of(trained).items():
        assert torch.allclose(found[0][1][name], was, rtol=2**-8), name


def test_mistakes_are_named(ids):
    model = small_model()
    with pytest.raises(FeatlibError, match="warmup_steps 9 must be fewer than the 5 steps"):
        train(model, ids, n_tokens=5 * 4 * CONTEXT, **{**TRAINING, "warmup_steps": 9})
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(FeatlibError, match="lower lr"):
        train(model, ids, n_tokens=960, **TRAINING)
