"""The training loop of the language models."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import MistralForCausalLM, PreTrainedModel

from featlib import FeatlibError
from featlib.models.loss import (
    NextTokenLoss,
    autocast_context,
    check_blocks,
    hidden_states,
    loss_buffers,
    pick_device,
    to_device,
)

REPORT_EVERY = 20  # steps between two looks at the loss: each look makes a GPU wait


def train(
    model: MistralForCausalLM,
    ids: np.ndarray,
    *,
    n_tokens: int,
    batch_size: int,
    lr: float,
    warmup_steps: int,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.99),
    clip: float = 1.0,
    seed: int,
    device: str | torch.device | None = None,
    label: str = "",
    snapshots: Sequence[float] = (),
    on_snapshot: Callable[[float, MistralForCausalLM], None] | None = None,
) -> pd.DataFrame:
    """Train `model` in place on blocks `ids` [blocks, context]; returns the loss curve.

    AdamW with linear warm-up, then cosine decay to 0; weight decay on matrices only. `n_tokens`
    are seen in all, rounded down to whole batches of `batch_size` blocks, each epoch in a new
    order drawn from `seed`: the same seed gives the same weights on the same machine. `ids` may
    be memory-mapped.
    `on_snapshot(fraction, model)` is called once `fraction` of the steps are done, for each
    fraction 0..1 in `snapshots`. The curve has one row a step: step, tokens (seen so far), loss
    (nats a token, of that step's batch before its update), lr, tokens_per_second.

    Deviation: the paper has betas (0.9, 0.999) and names no clipping; we clip gradients, and small
    runs have (0.9, 0.99), because short trainings need high learning rates and a steady start.
    """
    device = pick_device(device)
    check_blocks(model, ids)
    if n_tokens < batch_size * ids.shape[1]:
        raise FeatlibError(
            f"n_tokens {n_tokens:,} is less than one batch ({batch_size} blocks of {ids.shape[1]} "
            "tokens); train on more tokens or use a smaller batch"
        )
    if any(not 0 <= fraction <= 1 for fraction in snapshots):
        raise FeatlibError(f"snapshots {list(snapshots)} must be fractions of training, 0 to 1")
    n_steps = n_tokens // (batch_size * ids.shape[1])
    if warmup_steps >= n_steps:
        raise FeatlibError(
            f"warmup_steps {warmup_steps} must be fewer than the {n_steps} steps of this training "
            f"({n_tokens:,} tokens in batches of {batch_size} blocks of {ids.shape[1]})"
        )
    at_step = sorted((round(fraction * n_steps), fraction) for fraction in snapshots)
    model.to(device).train()  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(
        _decay_groups(model, weight_decay), lr=lr, betas=betas, fused=device.type in ("cpu", "cuda")
    )
    n_predicted = batch_size * (ids.shape[1] - 1)
    buffers = loss_buffers(n_predicted, model.config.vocab_size, device)
    losses = torch.zeros(n_steps, device=device)  # stays on the device: no wait for it each step
    rates = np.zeros(n_steps)
    learning_rates = [lr * _schedule(step, n_steps, warmup_steps) for step in range(n_steps)]
    bar = tqdm(total=n_steps, desc=label or "training", unit="step", mininterval=0.5)
    seen, since, reported = 0, time.perf_counter(), 0
    # Eager attention trains 1.2 times faster than sdpa on a CPU (whose fused bfloat16 backward is
    # slow), and unlike the fused kernels of a GPU it adds up in a fixed order.
    with _attention(model, "eager"), bar:
        for step, batch in enumerate(_batches(ids, batch_size, n_steps, seed, device)):
            while at_step and at_step[0][0] <= step:
                since += _snapshot(model, at_step.pop(0)[1], on_snapshot)
            for group in optimizer.param_groups:
                group["lr"] = learning_rates[step]
            with autocast_context(device):
                hidden = hidden_states(model, batch)
            targets = batch[:, 1:].reshape(-1)
            loss = NextTokenLoss.apply(hidden, model.lm_head.weight, targets, buffers)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
            losses[step] = loss.detach()
            seen += batch.numel()
            if (step + 1) % REPORT_EVERY == 0 or step + 1 == n_steps:
                value = _finite(losses[reported : step + 1].mean().item(), step, lr)
                now = time.perf_counter()
                rates[reported : step + 1] = (step + 1 - reported) * batch.numel() / (now - since)
                bar.set_postfix_str(f"loss {value:.3f}, {rates[step]:,.0f} tokens/s", refresh=False)
                bar.update(step + 1 - reported)
                since, reported = now, step + 1
        for _, fraction in at_step:
            _snapshot(model, fraction, on_snapshot)
    model.eval()
    steps = np.arange(1, n_steps + 1)
    return pd.DataFrame(
        {
            "step": steps,
            "tokens": steps * (seen // n_steps),
            "loss": losses.cpu().numpy(),
            "lr": learning_rates,
            "tokens_per_second": rates,
        }
    )


def _batches(
    ids: np.ndarray, batch_size: int, n_steps: int, seed: int, device: torch.device
) -> Iterator[Tensor]:
    """`n_steps` batches [batch, context] int64; blocks in a new random order each epoch."""
    rng = np.random.default_rng(seed)
    order = np.empty(0, np.int64)
    for _ in range(n_steps):
        while len(order) < batch_size:
            order = np.concatenate([order, rng.permutation(len(ids))])
        yield to_device(ids[order[:batch_size]], device)
        order = order[batch_size:]


def _schedule(step: int, n_steps: int, warmup_steps: int) -> float:
    """Share of the peak learning rate at `step`: a line up, then half a cosine down to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (n_steps - warmup_steps)))


def _decay_groups(model: PreTrainedModel, weight_decay: float) -> list[dict[str, Any]]:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": weight_decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},  # norms' gains
    ]


def _snapshot(model: MistralForCausalLM, fraction: float, on_snapshot: Callable | None) -> float:
    """Seconds that the callback took: they do not count as training time."""
    start = time.perf_counter()
    if on_snapshot is not None:
        model.eval()
        on_snapshot(fraction, model)
        model.train()
    return time.perf_counter() - start


def _finite(loss: float, step: int, lr: float) -> float:
    if not math.isfinite(loss):
        raise FeatlibError(f"the loss is {loss} at step {step + 1}: lower lr (now {lr:g})")
    return loss


@contextlib.contextmanager
def _attention(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
