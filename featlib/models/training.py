"""The training loop of the language models, and the weights kept on the way."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import MistralForCausalLM

from featlib import FeatlibError
from featlib.models.forward import check_blocks, hidden_states, to_device
from featlib.models.loss import NextTokenLoss, autocast_context, loss_buffers, pick_device
from featlib.run import atomic_path

BETA1 = 0.9
CLIP = 1.0  # norm to which gradients are cut
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
    beta2: float,
    seed: int,
    label: str = "training",
    snapshots: Sequence[float] = (),
    on_snapshot: Callable[[float, MistralForCausalLM], None] = lambda fraction, model: None,
) -> pd.DataFrame:
    """Train `model` in place on blocks `ids` [blocks, context]; returns the loss curve.

    AdamW with linear warm-up, then cosine decay to 0; weight decay on matrices only. `n_tokens`
    are seen in all, rounded down to whole batches of `batch_size` blocks, each epoch in a new order
    drawn from `seed`: the same seed gives the same weights on the same machine.
    `on_snapshot(fraction, model)` is called once `fraction` of the steps are done, for each
    fraction 0..1 in `snapshots`. The curve has one row a step: step, tokens (seen so far), loss
    (nats a token, of that step's batch before its update), lr.

    Deviation: the paper has betas (0.9, 0.999) and names no clipping; we clip gradients, and small
    runs have (0.9, 0.99), because short trainings need high learning rates and a steady start.
    """
    device = pick_device()
    check_blocks(model, ids)
    batch_tokens = batch_size * ids.shape[1]
    n_steps = n_tokens // batch_tokens
    if warmup_steps >= n_steps:
        raise FeatlibError(
            f"warmup_steps {warmup_steps} must be fewer than the {n_steps} steps of this training "
            f"({n_tokens:,} tokens in batches of {batch_size} blocks of {ids.shape[1]})"
        )
    at_step = sorted((round(fraction * n_steps), fraction) for fraction in snapshots)
    model.to(device).train()  # type: ignore[arg-type]
    gains = [weight for weight in model.parameters() if weight.ndim <= 1]
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    groups = [{"params": matrices}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr, (BETA1, beta2), weight_decay=weight_decay, fused=True)
    rng = np.random.default_rng(seed)
    epochs = range(math.ceil(n_steps * batch_size / len(ids)))
    order = np.concatenate([rng.permutation(len(ids)) for _ in epochs])[: n_steps * batch_size]
    buffers = loss_buffers(batch_tokens - batch_size, model.config.vocab_size, device)
    losses = torch.zeros(n_steps, device=device)  # stays on the device: no wait for it each step
    learning_rates = [lr * _schedule(step, n_steps, warmup_steps) for step in range(n_steps)]
    bar = tqdm(total=n_steps * batch_tokens, desc=label, unit="token", unit_scale=True)
    # Eager attention trains 1.2 times faster than sdpa on a CPU (whose fused bfloat16 backward is
    # slow), and unlike the fused kernels of a GPU it adds up in a fixed order.
    attention = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with bar:
        for step, rows in enumerate(order.reshape(n_steps, batch_size)):
            while at_step and at_step[0][0] <= step:
                on_snapshot(at_step.pop(0)[1], model)
            for group in optimizer.param_groups:
                group["lr"] = learning_rates[step]
            batch = to_device(ids[rows], device)
            with autocast_context(device):
                hidden = hidden_states(model, batch)
            targets = batch[:, 1:].reshape(-1)
            loss = NextTokenLoss.apply(hidden, model.lm_head.weight, targets, buffers)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
            losses[step] = loss.detach()
            if (step + 1) % REPORT_EVERY == 0 or step + 1 == n_steps:
                recent = losses[bar.n // batch_tokens : step + 1].mean().item()
                if not math.isfinite(recent):
                    raise FeatlibError(
                        f"the loss is {recent} at step {step + 1}: lower lr (now {lr:g})"
                    )
                bar.set_postfix_str(f"loss {recent:.3f}", refresh=False)
                bar.update((step + 1) * batch_tokens - bar.n)
        for _, fraction in at_step:
            on_snapshot(fraction, model)
    model.set_attn_implementation(attention)
    model.eval()
    curve = pd.DataFrame({"step": np.arange(1, n_steps + 1)})
    tokens = curve["step"] * batch_tokens
    return curve.assign(tokens=tokens, loss=losses.cpu().numpy(), lr=learning_rates)


def _schedule(step: int, n_steps: int, warmup_steps: int) -> float:
    """Share of the peak learning rate at `step`: a line up, then half a cosine down to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (n_steps - warmup_steps)))


def keep_snapshots(folder: Path) -> Callable[[float, MistralForCausalLM], None]:
    """What to give `train` as `on_snapshot`: writes `<folder>/<fraction>.safetensors`.

    Files of an earlier training are removed first. bfloat16: half the size, and the range of
    float32; a feature's activation moves by less than a percent.
    """
    shutil.rmtree(folder, ignore_errors=True)

    def keep(fraction: float, model: MistralForCausalLM) -> None:
        state = model.state_dict()
        weights = {n: w.to("cpu", torch.bfloat16).contiguous() for n, w in state.items()}
        with atomic_path(folder / f"{fraction:.6f}.safetensors") as path:
            save_file(weights, path)

    return keep


def read_snapshots(
    folder: Path, like: MistralForCausalLM
) -> Iterator[tuple[float, MistralForCausalLM]]:
    """(fraction, model) of each file in `folder`, in order; one model at a time, reused."""
    files = sorted(folder.glob("[0-9]*.safetensors"))
    assert files, f"{folder} holds no checkpoints"
    model = copy.deepcopy(like)
    for path in files:
        model.load_state_dict({name: t.float() for name, t in load_file(path).items()})
        yield float(path.stem), model.eval()
