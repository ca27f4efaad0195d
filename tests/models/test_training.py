"""Training: the loop against a plain one, the order of blocks, and what is kept on the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import CONTEXT, TRAINING, small_model, weights_of

from featlib import FeatlibError
from featlib.models import training
from featlib.models.training import keep_snapshots, read_snapshots, train


def test_training_is_a_plain_loop(float32, ids, monkeypatch):
    """Oracle: Hugging Face's own loss, torch's unfused AdamW and its schedulers, step by step."""
    monkeypatch.setattr(training, "CLIP", 0.5)
    model, plain = small_model(), small_model()
    attention = model.config._attn_implementation
    curve = train(model, ids, n_tokens=20 * 4 * CONTEXT + 5, **TRAINING)
    assert not model.training and model.config._attn_implementation == attention
    assert curve["step"].tolist() == list(range(1, 21))
    assert (curve["tokens"] == curve["step"] * 4 * CONTEXT).all()
    named = list(plain.named_parameters())
    gains = {"params": [p for name, p in named if "norm" in name], "weight_decay": 0}
    matrices = {"params": [p for name, p in named if "norm" not in name], "weight_decay": 0.1}
    groups = [matrices, gains]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.99), fused=False)
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
    torch.testing.assert_close(weights_of(model), weights_of(plain), atol=2e-4, rtol=1e-3)


def test_the_same_seed_gives_the_same_weights(ids, tmp_path):
    np.save(tmp_path / "ids.npy", ids)
    mapped = np.load(tmp_path / "ids.npy", mmap_mode="r")
    runs = []
    for blocks, seed in ((ids, 0), (mapped, 0), (ids, 1)):
        model = small_model()
        train(model, blocks, n_tokens=30 * 4 * CONTEXT, **{**TRAINING, "seed": seed})
        runs.append(weights_of(model))
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)
    assert not torch.equal(runs[0]["lm_head.weight"], runs[2]["lm_head.weight"])


def test_snapshots_come_at_their_fractions(ids):
    model = small_model()
    start, seen = weights_of(model), []

    def keep(fraction, snapped):
        seen.append((fraction, weights_of(snapped)))

    how = {"snapshots": (1, 0, 0.5), "on_snapshot": keep}
    train(model, ids, n_tokens=20 * 4 * CONTEXT, **how, **TRAINING)
    fractions, (first, middle, last) = zip(*seen, strict=True)
    assert fractions == (0, 0.5, 1)
    torch.testing.assert_close([first, last], [start, weights_of(model)], rtol=0, atol=0)
    for end in (first, last):
        assert not torch.equal(middle["lm_head.weight"], end["lm_head.weight"])


def test_kept_snapshots_come_back_in_order_and_replace_those_before(trained, tmp_path):
    for fractions in ([0.3], [0.5, 0.02, 1.0]):
        keep = keep_snapshots(tmp_path / "lua")
        for fraction in fractions:
            keep(fraction, trained)
    read = read_snapshots(tmp_path / "lua", small_model(1))
    fractions, found = zip(*((at, weights_of(model)) for at, model in read), strict=True)
    assert fractions == (0.02, 0.5, 1.0)
    torch.testing.assert_close(found[0], weights_of(trained), rtol=2**-8, atol=1e-8)


def test_mistakes_are_named(ids):
    model = small_model()
    with pytest.raises(FeatlibError, match="warmup_steps"):
        train(model, ids, n_tokens=5 * 4 * CONTEXT, **{**TRAINING, "warmup_steps": 9})
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(FeatlibError, match="lr"):
        train(model, ids, n_tokens=960, **TRAINING)
