"""The loss of a sparse autoencoder and its gradients, written out by hand.

    loss = ( sum ||x - x^||^2 + l1 sum_j f_j + aux_weight ||error - error^||^2 ) / tokens

Written out because autograd can neither skip the features that are not active (99 % of the work
at 16 of 2,048) nor be steered round them; the tests hold these gradients against autograd's.
`sparse` and `dense` give the same numbers: the first for CPUs, the second for GPUs and for the
first steps of a ReLU autoencoder, when half of all features are still active.

W_enc is kept transposed, [d_sae, d_in], so that a feature is one stretch of memory in both
matrices. L1 is weighted by the decoder's row norms, which are 1 by construction.

A learned threshold changes the loss in jumps, so that its gradient is estimated straight through
them (Rajamanoharan et al. 2024, section 3): with the entries as near as BANDWIDTH / 2,

    d f_j / d threshold_j = -threshold_j / BANDWIDTH,     d L0 / d threshold_j = -1 / BANDWIDTH.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import linear

from featlib.dictionaries import sparse as codes
from featlib.dictionaries.architectures import BANDWIDTH, L0_WEIGHT, Architecture, Limit
from featlib.models.loss import compute_dtype

_DENSE_SHARE = 0.06  # above this share of candidates the dense products are the faster ones


@dataclass
class Weights:
    """One autoencoder in training."""

    W_enc: Tensor  # [d_sae, d_in], transposed
    b_enc: Tensor  # [d_sae]
    W_dec: Tensor  # [d_sae, d_in]
    b_dec: Tensor  # [d_in]
    threshold: Tensor | None = None  # [d_sae], where it is learned

    def tensors(self) -> list[Tensor]:
        learned = [] if self.threshold is None else [self.threshold]
        return [self.W_enc, self.b_enc, self.W_dec, self.b_dec, *learned]


@dataclass
class Step:
    """What one batch gives: gradients, and what the next step needs to know."""

    gradients: Weights
    error: Tensor  # [tokens, d_in], x - x^
    counts: Tensor  # [d_sae] int64, tokens on which each feature was active
    threshold: float  # smallest value that stayed active


def take_step(
    w: Weights, x: Tensor, rule: Architecture, *, k: int, l1: float, hint: float | None
) -> Step:
    """Loss gradients on scaled activations x [tokens, d_in].

    k: features per token, for the architectures that count them; l1: for those with that penalty.
    hint: the smallest value that stayed active in the last batch. It only saves work: whatever it
    is, the same features stay active.
    """
    expected = hint if w.threshold is None else w.threshold
    if x.device.type == "cpu":
        found = _candidates(w, x, rule, k, expected)
        if found is not None:
            return sparse(w, x, *found, k=k, l1=l1)
    pre = _matmul(x - w.b_dec, w.W_enc.T) + w.b_enc
    return dense(w, x, pre, pre.relu() * (pre >= rule.limit(pre, k, expected)), k=k, l1=l1)


def _candidates(
    w: Weights, x: Tensor, rule: Architecture, k: int, expected: Limit
) -> tuple[csr_array, csr_array] | None:
    """All entries that may be active, and those of them that are.

    None where they are so many that dense is faster. Where the CPU has native bfloat16, the
    product that ranks the candidates is done in it (four times faster) and the candidates are then
    computed again in float32, so that bfloat16 decides at most which of two nearly equal features
    is the last to stay.
    """
    tokens, d_sae = len(x), len(w.W_enc)
    xc = x - w.b_dec
    rank = compute_dtype(x.device)
    pre = linear(xc.to(rank), w.W_enc.to(rank), w.b_enc.to(rank))
    floor = rule.floor(pre, k, expected)
    while floor is not None:
        flat = codes.positions_above(pre, floor)
        if len(flat) > _DENSE_SHARE * tokens * d_sae:
            return None
        found = codes.pattern_at(flat, (tokens, d_sae))
        if rank == torch.float32:
            found.data = pre.numpy().reshape(-1)[flat]
        else:
            found.data = codes.sampled_product(found, xc, w.W_enc) + w.b_enc.numpy()[found.indices]
        active = rule.choose(found, k, expected)
        if active is None and floor <= 0:
            active = found.data > 0  # fewer positive values than tokens * k
        if active is not None:
            return found, codes.keep(found, active)
        floor = floor * 0.7 if floor > 1e-3 else 0.0
    return None


def sparse(w: Weights, x: Tensor, found: csr_array, f: csr_array, *, k: int, l1: float) -> Step:
    """The step through the active features `f` only; `found` are all that are nearly so."""
    tokens, xc = len(x), x - w.b_dec
    error = xc - codes.product(f, w.W_dec)
    d_out = error * (-2 / tokens)  # gradient of the loss by x^, [tokens, d_in]
    d_pre = codes.sampled_product(f, d_out, w.W_dec) + np.float32(l1 / tokens)  # [n]
    d_W_dec, d_W_enc = codes.transposed_products([(f.data, d_out), (d_pre, xc)], f)
    step = Step(
        _gradients(w, d_W_enc, _by_feature(f, d_pre), d_W_dec, d_out),
        error,
        torch.from_numpy(np.bincount(f.indices, minlength=f.shape[1])),
        float(f.data.min(initial=np.inf)),
    )
    if w.threshold is not None:
        limit = w.threshold.numpy()[found.indices]
        near = codes.keep(found, np.abs(found.data - limit) < BANDWIDTH / 2)
        d_f = codes.sampled_product(near, d_out, w.W_dec)
        lowered = w.threshold.numpy()[near.indices] * d_f + _l0_slope(step, tokens, k)
        step.gradients.threshold = _by_feature(near, lowered) / -BANDWIDTH
    return step


def dense(w: Weights, x: Tensor, pre: Tensor, f: Tensor, *, k: int, l1: float) -> Step:
    """The step with pre-activations and features [tokens, d_sae] as full matrices."""
    tokens, xc, active = len(x), x - w.b_dec, f > 0
    error = xc - _matmul(f, w.W_dec)
    d_out = error * (-2 / tokens)
    d_f = _matmul(d_out, w.W_dec.T)
    d_pre = (d_f + l1 / tokens) * active
    step = Step(
        _gradients(w, _matmul(d_pre.T, xc), d_pre.sum(0), _matmul(f.T, d_out), d_out),
        error,
        active.sum(0),
        f.masked_fill(~active, torch.inf).min().item(),
    )
    if w.threshold is not None:
        near = (pre - w.threshold).abs() < BANDWIDTH / 2
        lowered = (w.threshold * d_f + _l0_slope(step, tokens, k)) * near
        step.gradients.threshold = lowered.sum(0) / -BANDWIDTH
    return step


def _l0_slope(step: Step, tokens: int, k: int) -> float:
    """Gradient of L0_WEIGHT (L0 / k - 1)^2 by one more active feature of one token."""
    l0 = step.counts.sum().item() / tokens
    return 2 * L0_WEIGHT * (l0 / k - 1) / (k * tokens)


def _by_feature(f: csr_array, values: np.ndarray) -> Tensor:
    """Sums [d_sae] of values [n] at the pattern of `f`."""
    sums = np.bincount(f.indices, weights=values, minlength=f.shape[1])
    return torch.from_numpy(sums.astype(np.float32))


def _gradients(w: Weights, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, d_out: Tensor) -> Weights:
    # b_dec enters twice: added to the output and taken from the input.
    return Weights(W_enc, b_enc, W_dec, d_out.sum(0) - b_enc @ w.W_enc)


def add_dead_gradients(
    w: Weights, x: Tensor, step: Step, dead: Tensor, *, aux_k: int, aux_weight: float
) -> None:
    """Add the auxiliary loss to `step`'s gradients: dead features rebuild what the rest left over.

    dead: [n] indices. Every token's aux_k largest dead features rebuild `step.error`, held fixed
    as is b_dec (Gao et al. 2024, appendix A.2). Only the first tokens of a large batch take part:
    dead features need a direction, not precision.

    Deviation: Gao et al. leave a feature whose ReLU never opens without a gradient; we lift one
    that is positive on fewer than 1 in 64 of these tokens until it is, because it would otherwise
    stay dead for ever.
    """
    rows = slice(0, 1024)
    xc, target = (x - w.b_dec)[rows], step.error[rows]
    W_enc, W_dec = w.W_enc[dead], w.W_dec[dead]
    pre = xc @ W_enc.T + w.b_enc[dead]
    lift = pre.topk(math.ceil(len(pre) / 64), dim=0).values[-1].clamp_max(0)  # [n]
    f = (pre - lift).relu()
    if len(dead) > aux_k:
        f = f * (f >= f.topk(aux_k, dim=1).values[:, -1:])
    d_out = (f @ W_dec - target) * (2 * aux_weight / len(target))
    d_pre = (d_out @ W_dec.T) * (f > 0)
    g = step.gradients
    g.W_dec[dead] += f.T @ d_out
    g.W_enc[dead] += d_pre.T @ xc
    g.b_enc[dead] += d_pre.sum(0)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in float32, on a GPU through bfloat16 with float32 sums."""
    if a.device.type != "cuda":
        return a @ b
    return (a.to(torch.bfloat16) @ b.to(torch.bfloat16)).float()
