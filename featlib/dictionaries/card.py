"""The card of an autoencoder: how good it is, inside its model, on text that it did not see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from featlib.dictionaries.activations import harvest, hooked_module
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.models.forward import check_blocks, hidden_states, to_device
from featlib.models.loss import compute_dtype, score_targets

ULTRA_RARE = 1e-4  # a feature that fires, but on fewer than 1 in 10,000 tokens


@dataclass(frozen=True)
class Baselines:
    """Mean next-token loss (nats) of one model on one text, without any autoencoder."""

    ce: float  # as it is
    ce_zero: float  # the MLP's activations replaced by 0
    ce_mean: float  # replaced by their mean over this text


@torch.inference_mode()
def score_baselines(model: PreTrainedModel, ids: np.ndarray) -> Baselines:
    """The losses an autoencoder is held against, on blocks `ids` [blocks, context].

    The same for every autoencoder of a model: compute once, give to `score_autoencoder`.
    """
    parts = [rows.sum(0, dtype=torch.float64) for rows in harvest(model, ids)]
    mean = (torch.stack(parts).sum(0) / ids.size).float()
    return Baselines(
        ce=_loss(model, ids, None),
        ce_zero=_loss(model, ids, torch.zeros_like),
        ce_mean=_loss(model, ids, lambda x: mean.expand_as(x)),
    )


@torch.inference_mode()
def score_autoencoder(
    sae: SparseAutoencoder, model: PreTrainedModel, ids: np.ndarray, baselines: Baselines
) -> tuple[dict[str, float], np.ndarray]:
    """An SAE's card on blocks `ids` [blocks, context], and its densities [d_sae].

    n_tokens      tokens read; the shares below are over all of them
    l0            mean number of active features per token
    fvu           fraction of variance unexplained: sum of squared error / sum of squares around
                  the mean activation of these tokens
    ce, ce_zero, ce_mean   see `Baselines`
    ce_sae        loss with the reconstruction in place of the activations
    ce_delta      ce_sae - ce
    ce_recovered  (ce_zero - ce_sae) / (ce_zero - ce): 1 loses nothing, 0 is as bad as no MLP
    alive         share of features that fire at least once on these tokens
    ultra_rare    share of features that fire, but on under 1 in 10,000 tokens (`ULTRA_RARE`)
    densities     share of tokens on which each feature fires
    """
    firings = np.zeros(sae.d_sae, np.int64)
    error = squares = 0.0
    total = torch.zeros(sae.d_in, dtype=torch.float64)

    def splice(x: Tensor) -> Tensor:
        nonlocal error, squares, firings, total
        flat = x.reshape(-1, sae.d_in).float()
        f = sae.encode_sparse(flat * sae.scale)
        rebuilt = (sae.decode_sparse(f) / sae.scale).to(flat.device)
        firings += f.counts()
        error += (flat - rebuilt).square().sum(dtype=torch.float64).item()
        squares += flat.square().sum(dtype=torch.float64).item()
        total += flat.sum(0, dtype=torch.float64).cpu()
        return rebuilt.reshape(x.shape).to(x.dtype)

    ce_sae = _loss(model, ids, splice)
    spread = squares - total.square().sum().item() / ids.size
    gap = baselines.ce_zero - baselines.ce
    densities = firings / ids.size
    return {
        "n_tokens": float(ids.size),
        "l0": float(firings.sum() / ids.size),
        "fvu": error / spread if spread > 0 else float("nan"),
        "ce": baselines.ce,
        "ce_sae": ce_sae,
        "ce_zero": baselines.ce_zero,
        "ce_mean": baselines.ce_mean,
        "ce_recovered": (baselines.ce_zero - ce_sae) / gap if gap else float("nan"),
        "ce_delta": ce_sae - baselines.ce,
        "alive": float((firings > 0).mean()),
        "ultra_rare": float(((firings > 0) & (densities < ULTRA_RARE)).mean()),
    }, densities


def _loss(
    model: PreTrainedModel,
    ids: np.ndarray,
    change: Callable[[Tensor], Tensor] | None,
    batch_size: int = 32,
) -> float:
    """Mean loss with the activations at `HOOK_NAME` replaced by change(activations)."""
    check_blocks(model, ids)
    device = next(model.parameters()).device
    output = model.lm_head.weight.to(compute_dtype(device))
    handle = None
    if change is not None:
        handle = hooked_module(model).register_forward_pre_hook(
            lambda _module, args: (change(args[0]),)
        )
    total, n = 0.0, 0
    training = model.training
    model.eval()
    try:
        for start in range(0, len(ids), batch_size):
            batch = to_device(ids[start : start + batch_size], device)
            loss, _ = score_targets(hidden_states(model, batch), output, batch[:, 1:].reshape(-1))
            total += loss.sum(dtype=torch.float64).item()
            n += len(loss)
    finally:
        model.train(training)
        if handle is not None:
            handle.remove()
    return total / n
