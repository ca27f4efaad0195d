"""The loss of next tokens and its gradients against torch's, and where bfloat16 is used."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import VOCAB

from featlib.models import loss as next_token
from featlib.models.loss import NextTokenLoss, compute_dtype, loss_buffers

CPU = torch.device("cpu")


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
        buffers = torch.empty(500, VOCAB, dtype=dtype), torch.empty(100, VOCAB)
        loss = NextTokenLoss.apply(hidden.to(dtype), weight, targets, buffers)
        results.append((loss.item(), torch.autograd.grad(loss, weight)[0]))
    (low, low_gradient), (high, high_gradient) = results
    assert low == pytest.approx(high, rel=2e-3)
    assert (low_gradient - high_gradient).norm() < 0.01 * high_gradient.norm()


def test_bfloat16_only_where_it_is_native(monkeypatch):
    for flag, native in (("avx512_bf16", True), ("amx_bf16", True), ("avx512_f", False)):
        flags = {"avx512_bf16": False, flag: True}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags)
        assert compute_dtype(CPU) is (torch.bfloat16 if native else torch.float32)
