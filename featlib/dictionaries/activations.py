"""Streams of MLP activations: what the sparse autoencoders are trained on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from featlib import FeatlibError
from featlib.models.forward import HOOK_NAME, harvest


def activation_scale(model: nn.Module, ids: np.ndarray) -> float:
    """What makes the mean norm of a model's activations over blocks `ids` sqrt(d_in).

    As Conerly et al. have it (Transformer Circuits, April 2024 update).

    Deviation: the paper feeds raw activations, whose size differs from model to model; we multiply
    each model's by one fixed number, so that their mean length is `sqrt(d_in)`, because one penalty
    and one learning rate then mean the same in every model.
    """
    norms, d_in = 0.0, 0
    for rows in harvest(model, ids):
        norms += rows.norm(dim=1).sum(dtype=torch.float64).item()
        d_in = rows.shape[1]
    if norms == 0:
        raise FeatlibError(f"Every activation at {HOOK_NAME} is zero: this model is not trained.")
    return d_in**0.5 * ids.size / norms


def shuffled_batches(
    model: nn.Module,
    ids: np.ndarray,
    *,
    n_tokens: int,
    batch_size: int,
    seed: int,
    scale: float,
    buffer_tokens: int = 131_072,
) -> Iterator[Tensor]:
    """Batches [batch_size, d_in] of scaled activations in random order, `n_tokens` rows in all.

    Blocks are drawn in a random order, a new one each time round `ids`; rows are drawn at random
    from a buffer whose used half is refilled, so that one batch holds rows of many blocks while
    memory stays bounded (about 2 * buffer_tokens * d_in numbers). The last batch may be smaller.
    The same seed gives the same rows. Rows are read in low precision where the device has it: an
    error far below what an autoencoder leaves unexplained.
    """
    rng = np.random.default_rng(seed)
    rows = itertools.chain.from_iterable(
        harvest(model, ids[rng.permutation(len(ids))], low_precision=True)
        for _ in itertools.count()
    )
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
