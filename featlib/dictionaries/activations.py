"""Streams of MLP activations: what the sparse autoencoders are trained on.

The site is `blocks.0.mlp.hook_post` of TransformerLens: the input of the MLP's output matrix,
silu(gate(x)) * up(x), width d_mlp. A plain forward pass of the Hugging Face model with one hook
reads it four times faster than the bridge and gives the same numbers (the tests compare them).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from featlib import FeatlibError
from featlib.models.loss import compute_dtype

HOOK_NAME = "blocks.0.mlp.hook_post"


@dataclass(frozen=True)
class ActivationStats:
    """What is fixed once per model before its autoencoders are trained."""

    scale: float  # sqrt(d_in) / mean norm: scaled activations have mean norm sqrt(d_in)
    mean: Tensor  # [d_in], of the raw activations
    n: int  # tokens counted


def hooked_module(model: nn.Module) -> nn.Linear:
    """The module whose input is `HOOK_NAME`: the first block's `down_proj`."""
    return model.model.layers[0].mlp.down_proj


def harvest(
    model: nn.Module, ids: np.ndarray, *, batch_size: int = 32, dtype: torch.dtype = torch.float32
) -> Iterator[Tensor]:
    """Activations [batch * pos, d_in] of blocks `ids` [blocks, context], in reading order.

    dtype float32 is exact; bfloat16 runs the forward pass under autocast, faster where the
    hardware multiplies it natively, for rows that are off by up to 1 % of their size.
    Nothing after the hooked module runs.
    """
    check_ids(ids)
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        for start in range(0, len(ids), batch_size):
            batch = torch.from_numpy(ids[start : start + batch_size].astype(np.int64))
            yield _read_hook(model, batch.to(device), dtype).flatten(0, 1)
    finally:
        model.train(training)


class _HookReachedError(Exception):
    """Carries the activations out of a forward pass that need not go on."""


@torch.no_grad()
def _read_hook(model: nn.Module, batch: Tensor, dtype: torch.dtype) -> Tensor:
    """Activations [batch, pos, d_in] at the hook, for token ids [batch, pos]."""

    def stop(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        raise _HookReachedError(args[0])

    handle = hooked_module(model).register_forward_pre_hook(stop)
    low = dtype != torch.float32
    try:
        with torch.autocast(batch.device.type, dtype if low else None, enabled=low):
            model.model(input_ids=batch, use_cache=False)
    except _HookReachedError as reached:
        return reached.args[0].to(dtype)
    finally:
        handle.remove()
    raise FeatlibError(f"{type(model).__name__} ran without reaching {HOOK_NAME}.")


def activation_stats(model: nn.Module, ids: np.ndarray, *, batch_size: int = 32) -> ActivationStats:
    """Scale and mean of a model's activations over blocks `ids` [blocks, context].

    The scale is fixed per model, so that one L1 coefficient and one learning rate mean the same
    for every model and width (Conerly et al., Transformer Circuits, April 2024 update).
    Deviation: the paper feeds raw activations, whose size differs from model to model; we multiply
    each model's by one fixed number, so that their mean length is `sqrt(d_in)`, because one penalty
    and one learning rate then mean the same in every model.
    """
    norms, total, n, d_in = 0.0, None, 0, 0
    for rows in harvest(model, ids, batch_size=batch_size):
        norms += rows.norm(dim=1).sum(dtype=torch.float64).item()
        part = rows.sum(dim=0, dtype=torch.float64)
        total = part if total is None else total + part
        n, d_in = n + len(rows), rows.shape[1]
    if norms == 0:
        raise FeatlibError(f"Every activation at {HOOK_NAME} is zero: this model is not trained.")
    return ActivationStats(scale=d_in**0.5 * n / norms, mean=(total / n).float(), n=n)


def shuffled_batches(
    model: nn.Module,
    ids: np.ndarray,
    *,
    n_tokens: int,
    batch_size: int,
    buffer_tokens: int = 131_072,
    seed: int = 0,
    scale: float = 1.0,
    harvest_batch: int = 32,
    dtype: torch.dtype | None = None,
) -> Iterator[Tensor]:
    """Batches [batch_size, d_in] of scaled activations in random order, `n_tokens` rows in all.

    Blocks are drawn in a random order, a new one each time round `ids`; rows are drawn at random
    from a buffer whose used half is refilled, so that one batch holds rows of many blocks while
    memory stays bounded (about 2 * buffer_tokens * d_in numbers). The last batch may be smaller.
    The same seed gives the same rows. Rows are harvested as `dtype`, by default bfloat16 where the
    device multiplies it natively: an error far below what an autoencoder leaves unexplained.
    """
    check_ids(ids)
    if min(n_tokens, batch_size, buffer_tokens) < 1:
        raise FeatlibError(
            "n_tokens, batch_size and buffer_tokens must be at least 1, not "
            f"{n_tokens}, {batch_size} and {buffer_tokens}."
        )
    rng = np.random.default_rng(seed)
    dtype = dtype or compute_dtype(next(model.parameters()).device)
    rows = _endless_rows(model, ids, rng, harvest_batch, dtype)
    kept: list[Tensor] = []
    left = n_tokens  # rows still to give
    while left > 0:
        parts, have = kept, sum(len(part) for part in kept)
        while have < min(max(buffer_tokens, 2 * batch_size), left):
            parts.append(next(rows))
            have += len(parts[-1])
        buffer = torch.cat(parts)
        order = torch.from_numpy(rng.permutation(have)).to(buffer.device)
        # Half of the buffer stays behind to mix with the next rows, unless no more are needed.
        take = left if have >= left else have // 2 // batch_size * batch_size
        for start in range(0, take, batch_size):
            yield buffer[order[start : min(start + batch_size, take)]].float() * scale
        kept = [buffer[order[take:]]]
        left -= take


def _endless_rows(
    model: nn.Module, ids: np.ndarray, rng: np.random.Generator, batch: int, dtype: torch.dtype
) -> Iterator[Tensor]:
    while True:
        yield from harvest(model, ids[rng.permutation(len(ids))], batch_size=batch, dtype=dtype)


def check_ids(ids: np.ndarray) -> None:
    """Refuse token blocks that are not [blocks, context] integers or hold nothing."""
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer) or ids.size == 0:
        raise FeatlibError(
            "Token blocks must be a non-empty integer array [blocks, context], not "
            f"{ids.dtype} of shape {ids.shape}."
        )
