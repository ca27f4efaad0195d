"""Language models: what is built, and folders that other programs open."""

from __future__ import annotations

import socket

import numpy as np
import pytest
import torch
from small_models import CONTEXT, VOCAB, small_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from featlib.models.forward import HOOK_NAME, hooked_module, read_inputs
from featlib.models.mistral import load_checkpoint, load_tokenizer, open_bridge, save_checkpoint
from featlib.text.tokens import train_tokenizer


def test_models_are_the_papers_and_come_from_their_seed():
    sizes = {"vocab_size": 32_000, "hidden_size": 512, "intermediate_size": 1024}
    model = small_model(**sizes, heads=16, kv_heads=8, context=256)
    assert sum(weight.numel() for weight in model.parameters()) == 35_128_832
    assert model.config.rms_norm_eps == 1e-6
    assert model.config.rope_parameters["rope_theta"] == 1e4
    for module in (model.lm_head, model.model.embed_tokens):
        assert module.weight.std().item() == pytest.approx(0.02, rel=0.01)
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
        raise OSError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tried


def test_checkpoints_are_ordinary_hugging_face_folders(ids, tmp_path, no_network):
    tokenizer = train_tokenizer(["one boat, two boats"], VOCAB)
    model, folder = small_model(), tmp_path / "base"
    for _ in range(2):  # again, over the first
        save_checkpoint(model, tokenizer, folder)
    assert list(tmp_path.iterdir()) == [folder]
    files = ("config.json", "model.safetensors", "tokenizer.json")
    assert all((folder / name).exists() for name in files)
    batch = torch.from_numpy(ids[:2].astype(np.int64))
    for load in (AutoModelForCausalLM.from_pretrained, load_checkpoint):
        again = load(folder)
        assert not again.training
        torch.testing.assert_close(again(batch).logits, model(batch).logits)
    text = "two <s> boats"
    for load in (AutoTokenizer.from_pretrained, load_tokenizer):
        assert load(folder)(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert no_network == []


def test_the_bridge_sees_what_the_model_computes(trained, ids, tmp_path, no_network):
    save_checkpoint(trained, train_tokenizer(["one boat"], VOCAB), tmp_path / "base")
    bridge = open_bridge(tmp_path / "base")
    assert not bridge.training
    batch = torch.from_numpy(ids[:8].astype(np.int64))
    with torch.no_grad():
        (fed,) = read_inputs(trained, batch, hooked_module(trained))
        logits = trained(batch).logits
        bridge_logits, cache = bridge.run_with_cache(batch)
    assert cache[HOOK_NAME].shape == (8, CONTEXT, 24)
    assert fed.abs().max() > 0.01
    torch.testing.assert_close(cache[HOOK_NAME], fed, atol=1e-5, rtol=0)
    torch.testing.assert_close(bridge_logits, logits, atol=1e-4, rtol=0)
    assert no_network == []
