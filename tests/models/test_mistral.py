"""Language models: the loss against torch's, the loop against a plain one, folders, the bridge."""

from __future__ import annotations

import math
import socket

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from featlib import FeatlibError
from featlib.models import loss as next_token
from featlib.models import training
from featlib.models.loss import NextTokenLoss, compute_dtype, loss_buffers
from featlib.models.mistral import (
    build_model,
    evaluate,
    load_checkpoint,
    load_tokenizer,
    open_bridge,
    save_checkpoint,
    token_losses,
)
from featlib.models.training import train
from featlib.text.tokens import train_tokenizer

VOCAB, CONTEXT = 300, 12
CPU = torch.device("cpu")
TRAINING = {"batch_size": 4, "lr": 1e-2, "warmup_steps": 2, "weight_decay": 0.1, "seed": 0}


def small_model(seed: int = 0, **changes):
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": 16,
        "intermediate_size": 24,
        "heads": 4,
        "kv_heads": 2,
        "context": CONTEXT,
    }
    return build_model(**{**sizes, **changes}, seed=seed)


@pytest.fixture
def ids():
    """Blocks that count upwards from a random start: the next token is always sure."""
    start = np.random.default_rng(0).integers(3, VOCAB, size=(64, 1))
    return ((start + np.arange(CONTEXT)) % VOCAB).astype(np.uint16)


@pytest.fixture
def float32(monkeypatch):
    """Plain arithmetic, so that oracles agree to rounding."""
    monkeypatch.setattr(next_token, "compute_dtype", lambda device: torch.float32)
    monkeypatch.setattr("featlib.language_model.compute_dtype", lambda device: torch.float32)


def weights_of(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(1, 200), st.integers(0, 99))
def test_the_loss_and_both_gradients_are_torchs(rows, vocab, at_once, seed):
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 5, generator=draw, requires_grad=True)
    weight = torch.randn(vocab, 5, generator=draw, requires_grad=True)
    targets = torch.randint(0, vocab, (rows,), generator=draw)
    with pytest.MonkeyPatch.context() as patch:  # chunks of every size, the last one ragged
        patch.setattr(next_token, "LOGITS_AT_ONCE", {"cpu": at_once * 2})
        patch.setattr(next_token, "SOFTMAX_AT_ONCE", {"cpu": at_once})
        patch.setattr(next_token, "compute_dtype", lambda device: torch.float32)
        buffers = loss_buffers(rows, vocab, CPU)
    loss = NextTokenLoss.apply(hidden, weight, targets, buffers)
    ours = torch.autograd.grad(3 * loss, (hidden, weight))
    expected = F.cross_entropy(hidden @ weight.T, targets)
    theirs = torch.autograd.grad(3 * expected, (hidden, weight))
    torch.testing.assert_close(loss, expected)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_the_loss_in_bfloat16_is_near_that_in_float32():
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(500, 32, generator=draw)
    weight = torch.randn(VOCAB, 32, generator=draw, requires_grad=True)
    targets = torch.randint(0, VOCAB, (500,), generator=draw)
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        buffers = next_token.LossBuffers(
            torch.empty(500, VOCAB, dtype=dtype), torch.empty(100, VOCAB)
        )
        loss = NextTokenLoss.apply(hidden.to(dtype), weight, targets, buffers)
        results.append((loss.item(), torch.autograd.grad(loss, weight)[0]))
    (low, low_gradient), (high, high_gradient) = results
    assert low == pytest.approx(high, rel=2e-3)
    assert (low_gradient - high_gradient).norm() < 0.01 * high_gradient.norm()


def test_training_is_a_plain_loop(float32, ids):
    """Oracle: Hugging Face's own loss, torch's unfused AdamW and its schedulers, step by step."""
    model, plain = small_model(), small_model()
    curve = train(model, ids, n_tokens=20 * 4 * CONTEXT, clip=0.5, **TRAINING)
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
    assert list(curve.columns) == ["step", "tokens", "loss", "lr", "tokens_per_second"]
    assert curve["step"].tolist() == list(range(1, 61))
    assert curve["tokens"].iloc[-1] == 60 * 4 * CONTEXT
    assert curve["loss"].iloc[0] == pytest.approx(math.log(VOCAB), rel=0.05)
    assert curve["loss"].iloc[-1] < 0.75 * curve["loss"].iloc[0]
    assert curve["lr"].max() == pytest.approx(1e-2)
    assert curve["lr"].iloc[-1] < 1e-4
    assert (curve["tokens_per_second"] > 0).all()
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
    batches = [b.numpy() for b in training._batches(ids, 8, 16, seed=0, device=CPU)]
    for epoch in (batches[:8], batches[8:]):
        seen = np.concatenate(epoch)
        np.testing.assert_array_equal(np.sort(seen[:, 0]), np.sort(ids[:, 0]))
    assert not np.array_equal(batches[0], batches[8])


def test_snapshots_come_at_their_fractions(ids):
    model = small_model()
    start, seen = weights_of(model), []

    def remember(fraction, snapped):
        assert not snapped.training
        seen.append((fraction, weights_of(snapped)))

    train(
        model,
        ids,
        n_tokens=20 * 4 * CONTEXT,
        snapshots=(1, 0, 0.5),
        on_snapshot=remember,
        **TRAINING,
    )
    assert [fraction for fraction, _ in seen] == [0, 0.5, 1]
    assert all(torch.equal(seen[0][1][name], start[name]) for name in start)
    assert all(torch.equal(seen[2][1][name], model.get_parameter(name)) for name in start)
    moved = [(seen[1][1]["lm_head.weight"] - w["lm_head.weight"]).norm() for _, w in seen[::2]]
    assert min(moved) > 0
    plain = small_model()
    train(plain, ids, n_tokens=20 * 4 * CONTEXT, **TRAINING)
    assert torch.equal(plain.lm_head.weight, model.lm_head.weight)  # looking changes nothing


def test_scores_are_hugging_faces(float32, ids):
    model = small_model()
    train(model, ids, n_tokens=30 * 4 * CONTEXT, **TRAINING)
    batch = torch.from_numpy(ids.astype(np.int64))
    with torch.no_grad():
        logits = model(batch).logits[:, :-1]
    expected = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none")
    losses = token_losses(model, ids, batch_size=7)
    assert losses.shape == (64, CONTEXT - 1)
    assert losses.dtype == np.float32
    np.testing.assert_allclose(losses.ravel(), expected.numpy(), rtol=1e-4, atol=1e-5)
    score = evaluate(model, ids, batch_size=7)
    assert score.loss == pytest.approx(expected.mean().item(), rel=1e-5)
    assert score.accuracy == pytest.approx(
        (logits.argmax(-1) == batch[:, 1:]).float().mean().item()
    )
    assert 0.05 < score.accuracy < 1
    assert score.n_tokens == 64 * (CONTEXT - 1)


def test_mixed_precision_scores_are_near_those_in_float32(ids):
    model = small_model()
    train(model, ids, n_tokens=30 * 4 * CONTEXT, **TRAINING)
    mixed = evaluate(model, ids)
    batch = torch.from_numpy(ids.astype(np.int64))
    with torch.no_grad():
        loss = model(batch, labels=batch).loss.item()
    assert mixed.loss == pytest.approx(loss, abs=0.01)


def test_models_are_the_papers_and_come_from_their_seed():
    model = small_model(
        vocab_size=32_000,
        hidden_size=512,
        intermediate_size=1024,
        heads=16,
        kv_heads=8,
        context=256,
    )
    assert sum(weight.numel() for weight in model.parameters()) == 35_128_832
    assert model.config.rms_norm_eps == 1e-6
    assert model.config.rope_parameters["rope_theta"] == 1e4
    for name, std in (("lm_head.weight", 0.02), ("model.embed_tokens.weight", 0.02)):
        assert model.get_parameter(name).std().item() == pytest.approx(std, rel=0.01)
    wide = small_model(embedding_std=0.1).model.embed_tokens.weight
    assert wide.std().item() == pytest.approx(0.1, rel=0.05)
    before = torch.get_rng_state()
    one, same, other = small_model(0), small_model(0), small_model(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.lm_head.weight, same.lm_head.weight)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)
    assert not torch.equal(one.lm_head.weight, one.model.embed_tokens.weight)


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to reach another machine fails, and is remembered."""
    tried = []

    def refuse(*arguments, **options):
        tried.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tried


def test_checkpoints_are_ordinary_hugging_face_folders(ids, tmp_path, no_network):
    tokenizer = train_tokenizer(["one boat, two boats"], VOCAB)
    model = small_model()
    save_checkpoint(model, tokenizer, tmp_path / "base")
    save_checkpoint(model, tokenizer, tmp_path / "base")  # again, over the first
    assert [p.name for p in tmp_path.iterdir()] == ["base"]
    names = {p.name for p in (tmp_path / "base").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    batch = torch.from_numpy(ids[:2].astype(np.int64))
    for again in (
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"),
        load_checkpoint(tmp_path / "base", device="cpu"),
    ):
        assert not again.training
        torch.testing.assert_close(again(batch).logits, model(batch).logits)
    text = "two <s> boats"
    for again in (
        AutoTokenizer.from_pretrained(tmp_path / "base"),
        load_tokenizer(tmp_path / "base"),
    ):
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert no_network == []


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    tokenizer = train_tokenizer(["one boat"], 259)
    save_checkpoint(small_model(0), tokenizer, tmp_path / "base")
    before = (tmp_path / "base" / "model.safetensors").read_bytes()

    def full(*arguments, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(type(tokenizer), "save_pretrained", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(small_model(1), tokenizer, tmp_path / "base")
    assert (tmp_path / "base" / "model.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["base"]


def test_the_bridge_sees_what_the_model_computes(ids, tmp_path, no_network):
    model = small_model()
    train(model, ids, n_tokens=30 * 4 * CONTEXT, **TRAINING)
    save_checkpoint(model, train_tokenizer(["one boat"], VOCAB), tmp_path / "base")
    bridge = open_bridge(tmp_path / "base", device="cpu")
    assert not bridge.training
    fed = []
    model.model.layers[0].mlp.down_proj.register_forward_pre_hook(
        lambda module, inputs: fed.append(inputs[0])
    )
    batch = torch.from_numpy(ids[:8].astype(np.int64))
    with torch.no_grad():
        logits = model(batch).logits
        bridge_logits, cache = bridge.run_with_cache(batch)
    assert cache["blocks.0.mlp.hook_post"].shape == (8, CONTEXT, 24)
    assert fed[0].abs().max() > 0.01
    torch.testing.assert_close(cache["blocks.0.mlp.hook_post"], fed[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(bridge_logits, logits, atol=1e-4, rtol=0)
    assert no_network == []


def test_bfloat16_only_where_it_is_native(monkeypatch):
    for flags, dtype in (
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "avx512_f": True}, torch.float32),
        ({}, torch.float32),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags)
        assert compute_dtype(CPU) is dtype


def test_mistakes_are_named(ids, tmp_path):
    model = small_model()
    with pytest.raises(FeatlibError, match="hidden_size 16"):
        small_model(heads=3)
    with pytest.raises(FeatlibError, match="kv_heads"):
        small_model(kv_heads=3)
    with pytest.raises(FeatlibError, match="less than one batch"):
        train(model, ids, n_tokens=10, **TRAINING)
    with pytest.raises(FeatlibError, match="warmup_steps 9 must be fewer than the 5 steps"):
        train(model, ids, n_tokens=5 * 4 * CONTEXT, **{**TRAINING, "warmup_steps": 9})
    with pytest.raises(FeatlibError, match="fractions"):
        train(model, ids, n_tokens=960, snapshots=[2], **TRAINING)
    with pytest.raises(FeatlibError, match=r"token id 300 .* vocabulary of 300"):
        evaluate(model, np.full((1, CONTEXT), VOCAB))
    with pytest.raises(FeatlibError, match="shorter than one block"):
        evaluate(model, ids[:0])
    with pytest.raises(FeatlibError, match=r"has no config\.json"):
        load_checkpoint(tmp_path)
    with pytest.raises(FeatlibError, match=r"has no tokenizer\.json"):
        load_tokenizer(tmp_path)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(FeatlibError, match="lower lr"):
        train(model, ids, n_tokens=960, **TRAINING)
