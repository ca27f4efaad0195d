"""The card of an autoencoder: how good it is, inside its model, on text that it did not see."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from featlib.dictionaries.features import count_firings
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.models.forward import harvest, score_tokens


def score_baselines(model: PreTrainedModel, ids: np.ndarray) -> dict[str, float]:
    """The losses (nats a token) an autoencoder is held against, on blocks `ids` [blocks, context].

    The model's as it is (ce), and with the MLP's activations replaced by 0 (ce_zero) or by their
    mean over this text (ce_mean). The same for every autoencoder of a model: compute once.
    """
    parts = [rows.sum(0, dtype=torch.float64) for rows in harvest(model, ids)]
    mean = (torch.stack(parts).sum(0) / ids.size).float()
    changes = {"ce": None, "ce_zero": torch.zeros_like, "ce_mean": lambda x: mean.expand_as(x)}
    return {
        name: score_tokens(model, ids, change=change, low_precision=False)[0].mean()
        for name, change in changes.items()
    }


def unexplained(sae: SparseAutoencoder, rows: Iterable[Tensor]) -> float:
    """FVU on rows [tokens, d_in] of scaled activations."""
    n, error, squares = 0, 0.0, 0.0
    total = torch.zeros(sae.d_in, dtype=torch.float64)
    for x in map(Tensor.cpu, rows):
        error += (x - sae.decode_sparse(sae.encode_sparse(x)).cpu()).double().square().sum().item()
        squares += x.double().square().sum().item()
        total += x.sum(0, dtype=torch.float64)
        n += len(x)
    return error / (squares - total.square().sum().item() / n)


def score_autoencoder(
    sae: SparseAutoencoder, model: PreTrainedModel, ids: np.ndarray, baselines: dict[str, float]
) -> tuple[dict[str, float], np.ndarray]:
    """An SAE's card on blocks `ids` [blocks, context], and its densities [d_sae].

    n_tokens      tokens read; the shares below are over all of them
    l0            mean number of active features per token
    fvu           fraction of variance unexplained: sum of squared error / sum of squares around
                  the mean activation of these tokens
    ce, ce_zero, ce_mean   see `score_baselines`
    ce_sae        loss with the reconstruction in place of the activations
    ce_delta      ce_sae - ce
    ce_recovered  (ce_zero - ce_sae) / (ce_zero - ce): 1 loses nothing, 0 is as bad as no MLP
    alive         share of features that fire at least once on these tokens
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
        firings += count_firings(f)
        error += (flat - rebuilt).square().sum(dtype=torch.float64).item()
        squares += flat.square().sum(dtype=torch.float64).item()
        total += flat.sum(0, dtype=torch.float64).cpu()
        return rebuilt.reshape(x.shape).to(x.dtype)

    ce_sae = score_tokens(model, ids, change=splice, low_precision=False)[0].mean()
    spread = squares - total.square().sum().item() / ids.size
    gap = baselines["ce_zero"] - baselines["ce"]
    densities = firings / ids.size
    return {
        "n_tokens": float(ids.size),
        "l0": float(firings.sum() / ids.size),
        "fvu": error / spread if spread > 0 else float("nan"),
        **baselines,
        "ce_sae": ce_sae,
        "ce_recovered": (baselines["ce_zero"] - ce_sae) / gap if gap else float("nan"),
        "ce_delta": ce_sae - baselines["ce"],
        "alive": float((firings > 0).mean()),
    }, densities
