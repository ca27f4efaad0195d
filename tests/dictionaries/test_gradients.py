"""The hand-written step against autograd in float64, and what stays active against a sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import D_SAE, K, random_rows, random_weights

from featlib.dictionaries import gradients
from featlib.dictionaries.architectures import ARCHITECTURES, BANDWIDTH, L0_WEIGHT
from featlib.dictionaries.gradients import Weights, add_dead_gradients, take_step


class Step(torch.autograd.Function):
    """1 where z [tokens, d] is above thresholds [d], as Rajamanoharan et al. 2024 write it down."""

    @staticmethod
    def forward(ctx, z, threshold):
        ctx.save_for_backward(z, threshold)
        return (z > threshold).double()

    @staticmethod
    def backward(ctx, gradient):
        z, threshold = ctx.saved_tensors
        kernel = (((z - threshold) / BANDWIDTH).abs() < 0.5).double()
        return torch.zeros_like(z), (-kernel / BANDWIDTH * gradient).sum(0)


def autograd_step(w, x, name, l1=0.0):
    """The same loss by autograd, dense, in float64: parameters with gradients, features, error."""
    p = Weights(*(t.detach().double().requires_grad_() for t in w.tensors()))
    x = x.double()
    pre = (x - p.b_dec) @ p.W_enc.T + p.b_enc
    f, more = pre.relu(), 0.0
    if name == "batchtopk":
        f = f * (f >= f.flatten().topk(K * len(x)).values[-1])
    elif name == "topk":
        top = f.topk(K, dim=1)
        f = torch.zeros_like(f).scatter(1, top.indices, top.values)
    elif name == "jumprelu":
        above = Step.apply(pre, p.threshold)
        # Their JumpReLU: to a threshold it changes by the threshold itself, not by z.
        f = pre * above.detach() + p.threshold.detach() * (above - above.detach())
        more = L0_WEIGHT * (above.sum() / len(x) / K - 1) ** 2
    error = x - (f @ p.W_dec + p.b_dec)
    # The rows' norms are 1 and stay so: no gradient is wanted through them.
    l1_norm = (f * p.W_dec.norm(dim=1).detach()).sum()
    ((error.square().sum() + l1 * l1_norm) / len(x) + more).backward()
    return p, f.detach(), error.detach()


def close(mine, theirs):
    torch.testing.assert_close(mine, theirs.float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("share", [1.0, 0.0], ids=["sparse", "dense"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_equal_autograd(name, share, monkeypatch):
    monkeypatch.setattr(gradients, "compute_dtype", lambda _device: torch.float32)
    monkeypatch.setattr(gradients, "_DENSE_SHARE", share)
    rule, x = ARCHITECTURES[name], random_rows(50)
    w = random_weights(learned=rule.learns_threshold)
    l1 = 1.5 if rule.has_l1 else 0.0
    p, f, error = autograd_step(w, x, name, l1)
    step = take_step(w, x, rule, k=K, l1=l1, hint=f[f > 0].min().item())
    for mine, theirs in zip(step.gradients.tensors(), p.tensors(), strict=True):
        close(mine, theirs.grad)
    close(step.error, error)
    assert step.counts.tolist() == (f > 0).sum(0).tolist()
    assert step.threshold == pytest.approx(f[f > 0].min().item(), abs=1e-5)


@pytest.mark.parametrize("n_dead", [5, 20])
def test_auxiliary_gradients_equal_autograd(n_dead):
    w, x, aux_k, weight = random_weights(), random_rows(50), 8, 0.25
    w.b_enc[4:6] = -40.0
    dead = torch.arange(D_SAE)[3 : 3 + n_dead]
    step = take_step(w, x, ARCHITECTURES["topk"], k=K, l1=0.0, hint=None)
    before = [g.clone() for g in step.gradients.tensors()]
    add_dead_gradients(w, x, step, dead, aux_k=aux_k, aux_weight=weight)
    p = Weights(*(t.detach().clone().requires_grad_() for t in w.tensors()))
    pre = (x - p.b_dec.detach()) @ p.W_enc[dead].T + p.b_enc[dead]
    lift = pre.detach().max(0).values.clamp_max(0)  # 50 rows: 1 in 64 is the largest one
    assert (lift < 0).any() and (lift == 0).any()
    pre = (pre - lift).relu()
    top = pre.topk(min(aux_k, n_dead), dim=1)
    kept = torch.zeros_like(pre).scatter(1, top.indices, top.values)
    theirs = weight * (kept @ p.W_dec[dead] - step.error).square().sum(1).mean()
    theirs.backward()
    for now, was, parameter in zip(step.gradients.tensors(), before, p.tensors(), strict=True):
        close(now, was if parameter.grad is None else was + parameter.grad)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("hint", [None, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("name", ["batchtopk", "topk"])
def test_the_largest_stay_active_whatever_the_hint(name, hint, precision, monkeypatch):
    monkeypatch.setattr(gradients, "compute_dtype", lambda _device: precision)
    monkeypatch.setattr(gradients, "_DENSE_SHARE", 1.0)
    w, x = random_weights(d_sae=512), random_rows(200)
    pre = (x - w.b_dec) @ w.W_enc.T + w.b_enc
    limit = pre.flatten().topk(K * len(x)).values[-1].item()
    step = take_step(
        w, x, ARCHITECTURES[name], k=K, l1=0.0, hint=None if hint is None else hint * limit
    )
    own = pre.topk(K, dim=1).values[:, -1:] if name == "topk" else limit
    assert step.counts.sum().item() == K * len(x)
    assert step.counts.tolist() == (pre >= own - 1e-5).sum(0).tolist()


@pytest.mark.parametrize("name", ["batchtopk", "topk"])
def test_nothing_that_is_not_positive_stays_active(name):
    w, x = random_weights(), random_rows(20)
    w.b_enc[:] = -100.0
    w.b_enc[:2] = 100.0
    for hint in (None, 50.0):
        step = take_step(w, x, ARCHITECTURES[name], k=K, l1=0.0, hint=hint)
        assert step.counts.tolist() == [20, 20] + [0] * (D_SAE - 2)


def test_bfloat16_only_proposes_what_a_threshold_learns_from(monkeypatch):
    """Gradients by way of a bfloat16 ranking are those of float32, but for the band's far edge."""
    w, x = random_weights(d_sae=512, learned=True), random_rows(400)
    found = []
    for precision in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(gradients, "compute_dtype", lambda _device, p=precision: p)
        monkeypatch.setattr(gradients, "_DENSE_SHARE", 1.0)
        found.append(take_step(w, x, ARCHITECTURES["jumprelu"], k=K, l1=0.0, hint=None))
    low, exact = found
    assert low.counts.tolist() == exact.counts.tolist()
    error = (low.gradients.threshold - exact.gradients.threshold).norm()
    assert error < 0.05 * exact.gradients.threshold.norm()
    assert np.isfinite(low.threshold)
