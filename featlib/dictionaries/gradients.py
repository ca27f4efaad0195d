"""The loss of a sparse autoencoder and its gradients, written out by hand.

    loss = ( sum ||x - x^||^2 + l1 sum_j f_j + aux_weight ||error - error^||^2 ) / tokens

Written out because autograd can neither skip the features that are not active (99 % of the work
at 16 of 2,048) nor be steered round them; the tests hold these gradients against autograd's.
`sparse` and `dense` give the same numbers: the first for CPUs, the second for GPUs and for the
first steps of a ReLU autoencoder, when half of all features are still active.

W_enc is kept transposed, [d_sae, d_in], so that a feature is one stretch of memory in both
matrices. L1 is weighted by the decoder's row norms, which are 1 by construction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from featlib.dictionaries import sparse as codes
from featlib.models.loss import compute_dtype

_DENSE_SHARE = 0.06  # above this share of candidates the dense products are the faster ones
_SLACK = 0.9  # candidates are sought down to this share of the running threshold


@dataclass
class Weights:
    """One autoencoder in training."""

    W_enc: Tensor  # [d_sae, d_in], transposed
    b_enc: Tensor  # [d_sae]
    W_dec: Tensor  # [d_sae, d_in]
    b_dec: Tensor  # [d_in]

    def tensors(self) -> list[Tensor]:
        return [self.W_enc, self.b_enc, self.W_dec, self.b_dec]


@dataclass
class Step:
    """What one batch gives: gradients, and what the next step needs to know."""

    gradients: Weights
    error: Tensor  # [tokens, d_in], x - x^
    counts: Tensor  # [d_sae] int64, tokens on which each feature was active
    l1: float  # sum of the activations / tokens
    threshold: float  # smallest value that stayed active


def take_step(w: Weights, x: Tensor, *, k: int | None, l1: float, threshold: float | None) -> Step:
    """Loss gradients on scaled activations x [tokens, d_in].

    k: features per token, the tokens * k largest of the batch stay active (BatchTopK); None: every
    positive one does (ReLU). threshold: the last batch's, a hint that only saves work: whatever
    it is, the same features stay active.
    """
    if x.device.type == "cpu":
        active = _active_codes(w, x, k, threshold)
        if active is not None:
            return sparse(w, x, active, l1)
    pre = _matmul(x - w.b_dec, w.W_enc.T) + w.b_enc
    limit = 0.0 if k is None else _batch_threshold(pre, k * len(x), threshold)
    return dense(w, x, pre.relu() * (pre >= limit), l1)


def _active_codes(
    w: Weights, x: Tensor, k: int | None, threshold: float | None
) -> codes.Codes | None:
    """The active features of every token; None where too many are, so that dense is faster.

    Where the CPU has native bfloat16, the product that ranks the candidates is done in it (four
    times faster) and the candidates are then computed again in float32, so that bfloat16 decides
    at most which of two nearly equal features is the last to stay.
    """
    if k is not None and threshold is None:
        return None
    tokens, d_sae = len(x), len(w.W_enc)
    xc = x - w.b_dec
    rank = compute_dtype(x.device)
    pre = linear(xc.to(rank), w.W_enc.to(rank), w.b_enc.to(rank))
    floor = _SLACK * threshold if k is not None and threshold is not None else 0.0
    while True:
        flat = codes.positions_above(pre, floor)
        if len(flat) > _DENSE_SHARE * tokens * d_sae:
            return None
        found = codes.pattern_at(flat, tokens, d_sae)
        if rank != torch.float32:
            values = codes.sampled_product(found, xc, w.W_enc) + w.b_enc.numpy()[found.cols]
        else:
            values = pre.numpy().reshape(-1)[flat]
        found = replace(found, values=values)
        if k is None:
            return codes.keep(found, values > 0)
        spare = len(flat) - k * tokens
        if spare >= 0:
            limit = np.partition(values, spare)[spare]
            return codes.keep(found, (values >= limit) & (values > 0))
        if floor <= 0:
            return codes.keep(found, values > 0)  # fewer positive values than tokens * k
        floor = floor * 0.7 if floor > 1e-3 else 0.0


def _batch_threshold(pre: Tensor, n: int, hint: float | None) -> Tensor:
    """The n-th largest entry of `pre` [tokens, d_sae], without sorting all of it."""
    flat = pre.flatten()
    if hint is not None:
        some = flat[flat > _SLACK * hint]
        flat = some if len(some) >= n else flat
    if flat.device.type == "cpu":
        return torch.tensor(np.partition(flat.numpy(), len(flat) - n)[len(flat) - n])
    return flat.topk(n, sorted=False).values.min()


def sparse(w: Weights, x: Tensor, f: codes.Codes, l1: float) -> Step:
    """The step through the active features only."""
    tokens, xc = len(x), x - w.b_dec
    error = xc - codes.product(f, w.W_dec)
    d_out = error * (-2 / tokens)  # gradient of the loss by x^, [tokens, d_in]
    d_pre = codes.sampled_product(f, d_out, w.W_dec) + np.float32(l1 / tokens)  # [n]
    d_W_dec, d_W_enc = codes.transposed_products([(f.values, d_out), (d_pre, xc)], f)
    sums = np.bincount(f.cols, weights=d_pre, minlength=f.d_sae).astype(np.float32)
    return Step(
        _gradients(w, d_W_enc, torch.from_numpy(sums), d_W_dec, d_out),
        error,
        torch.from_numpy(f.counts()),
        float(f.values.sum(dtype=np.float64)) / tokens,
        float(f.values.min(initial=np.inf)),
    )


def dense(w: Weights, x: Tensor, f: Tensor, l1: float) -> Step:
    """The step with features f [tokens, d_sae] as a full matrix."""
    tokens, xc, active = len(x), x - w.b_dec, f > 0
    error = xc - _matmul(f, w.W_dec)
    d_out = error * (-2 / tokens)
    d_pre = (_matmul(d_out, w.W_dec.T) + l1 / tokens) * active
    return Step(
        _gradients(w, _matmul(d_pre.T, xc), d_pre.sum(0), _matmul(f.T, d_out), d_out),
        error,
        active.sum(0),
        f.sum().item() / tokens,
        f.masked_fill(~active, torch.inf).min().item(),
    )


def _gradients(w: Weights, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, d_out: Tensor) -> Weights:
    # b_dec enters twice: added to the output and taken from the input.
    return Weights(W_enc, b_enc, W_dec, d_out.sum(0) - b_enc @ w.W_enc)


def add_dead_gradients(
    w: Weights, x: Tensor, step: Step, dead: Tensor, *, aux_k: int, aux_weight: float
) -> float:
    """Add the auxiliary loss to `step`'s gradients: dead features rebuild what the rest left over.

    dead: [n] indices. Every token's aux_k largest dead features rebuild `step.error`, held fixed
    as is b_dec (Gao et al. 2024, appendix A.2). Returns the loss. Only the first tokens of a
    large batch take part: dead features need a direction, not precision.

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
    left = f @ W_dec - target
    d_out = left * (2 * aux_weight / len(target))
    d_pre = (d_out @ W_dec.T) * (f > 0)
    g = step.gradients
    g.W_dec[dead] += f.T @ d_out
    g.W_enc[dead] += d_pre.T @ xc
    g.b_enc[dead] += d_pre.sum(0)
    return aux_weight * left.square().sum().item() / len(target)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in float32, on a GPU through bfloat16 with float32 sums."""
    if a.device.type != "cuda":
        return a @ b
    return (a.to(torch.bfloat16) @ b.to(torch.bfloat16)).float()
