"""Next tokens on any device: precision, and the loss on top of hidden states.

At this size more than half of all work is the output layer, so the loss is our own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# Elements of the logits held at a time, in the compute dtype, and of their softmax, in float32.
# On a CPU the second stays in its cache; on a GPU both bound memory (1 GiB and 0.5 GiB).
LOGITS_AT_ONCE = {"cpu": 2**23, "cuda": 2**29}
SOFTMAX_AT_ONCE = {"cpu": 2**19, "cuda": 2**27}


def pick_device() -> torch.device:
    """A CUDA GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, else float32.

    Without native support a CPU emulates bfloat16, which is slower than float32, not faster.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported()
    else:
        has = torch.cpu.get_capabilities()
        native = has.get("avx512_bf16") or has.get("amx_bf16")
    return torch.bfloat16 if native else torch.float32


def autocast_context(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision as `compute_dtype` says: bfloat16 products, float32 weights and sums."""
    dtype = compute_dtype(device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def loss_buffers(n_rows: int, vocab_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Memory that `NextTokenLoss` writes over at each step of `n_rows` predicted tokens.

    Logits [rows at once, vocab] in the compute dtype, and softmax [fewer rows, vocab] float32.
    Fresh memory of this size comes from the operating system page by page each time, which on a
    CPU takes a third of the loss's own time.
    """
    fits, piece = (
        max(1, min(n_rows, at_once[device.type] // vocab_size))
        for at_once in (LOGITS_AT_ONCE, SOFTMAX_AT_ONCE)
    )
    return (
        torch.empty(fits, vocab_size, dtype=compute_dtype(device), device=device),
        torch.empty(piece, vocab_size, device=device),
    )


class NextTokenLoss(torch.autograd.Function):
    """Mean cross-entropy of next tokens from hidden states, without ever holding all logits.

    loss = mean_n ( logsumexp_v z[n, v] - z[n, target_n] ),  z = hidden @ weight.T
    The gradient of z is softmax(z) - onehot(target): it takes the place of z as soon as z is
    there, and the gradients of both inputs follow at once, so that nothing is kept for later.
    The three products run in hidden's dtype; softmax, loss and the sum over chunks in float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,  # [rows, d_model]
        weight: Tensor,  # [vocab, d_model] float32
        targets: Tensor,  # [rows] int64
        buffers: tuple[Tensor, Tensor],  # of `loss_buffers`
    ) -> Tensor:
        all_logits, softmax = buffers
        output = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight)
        loss = torch.zeros((), device=hidden.device)
        for rows in _chunks(len(hidden), len(all_logits)):
            logits = torch.mm(hidden[rows], output.T, out=all_logits[: len(hidden[rows])])
            loss += _loss_and_gradient(logits, targets[rows], softmax)
            torch.mm(logits, output, out=grad_hidden[rows])
            grad_weight += logits.T @ hidden[rows]
        ctx.save_for_backward(grad_hidden, grad_weight)
        return loss / len(hidden)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grad / len(grad_hidden)
        return grad_hidden * scale, grad_weight * scale, None, None


def _loss_and_gradient(logits: Tensor, targets: Tensor, softmax: Tensor) -> Tensor:
    """Summed loss of `logits` [chunk, vocab], which are overwritten by their gradient."""
    loss = torch.zeros((), device=logits.device)
    for rows in _chunks(len(logits), len(softmax)):
        target = targets[rows, None]
        probability = softmax[: len(target)]
        torch.softmax(logits[rows], 1, dtype=torch.float32, out=probability)
        at_target = probability.gather(1, target)
        loss -= at_target.clamp_min(1e-38).log().sum()
        # Assigned, not added: each row has one target, and scatter_add_ on a GPU has no order.
        probability.scatter_(1, target, at_target - 1)
        logits[rows] = probability
    return loss


def score_targets(
    hidden: Tensor,  # [rows, d_model]
    output: Tensor,  # [vocab, d_model], hidden's dtype
    targets: Tensor,  # [rows] int64
) -> tuple[Tensor, Tensor]:
    """Loss of each target, nats, [rows] float32, and whether it was the best guess, [rows] bool."""
    loss = torch.empty(len(targets), device=hidden.device)
    hit = torch.empty(len(targets), dtype=torch.bool, device=hidden.device)
    at_once = SOFTMAX_AT_ONCE[hidden.device.type] // len(output)
    for rows in _chunks(len(hidden), max(1, at_once)):
        logp = torch.log_softmax(hidden[rows] @ output.T, 1, dtype=torch.float32)
        loss[rows] = -logp.gather(1, targets[rows, None])[:, 0]
        hit[rows] = logp.argmax(1) == targets[rows]
    return loss, hit


def _chunks(total: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, total)) for start in range(0, total, size))
