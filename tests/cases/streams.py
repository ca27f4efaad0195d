"""Labelled streams, features and models that are known beforehand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from small_models import small_model

from featlib.cases.detectors import LabelledStream, labelled_stream
from featlib.dictionaries.features import FeatureActivations, feature_activations
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.models.forward import edited, run_blocks


def random_stream(rng, n=600, n_documents=12, n_ids=20, rate=0.15) -> LabelledStream:
    documents = np.sort(rng.integers(0, n_documents, n))
    mask = rng.random(n) < rate
    mask[[0, -1]] = True
    return labelled_stream(mask, rng.integers(0, n_ids, n), documents, seed=int(rng.integers(99)))


def random_features(rng, n=600, d_sae=30, density=0.2, levels=4) -> FeatureActivations:
    """Few distinct values, so that ties are common."""
    dense = rng.integers(1, levels + 1, (n, d_sae)) * (rng.random((n, d_sae)) < density)
    return feature_activations(dense)


def planted(rng, n=6000, n_documents=60):
    """Label decided half by the token, half by context; features that know one, both or nothing."""
    documents = np.repeat(np.arange(n_documents), n // n_documents)
    ids = rng.integers(0, 40, n)
    context = rng.random(n) < 0.5
    mask = (ids < 4) & context
    dense = np.zeros((n, 12))
    dense[:, 5] = mask * rng.uniform(1, 2, n)  # knows the label
    dense[:, 7] = (ids < 4) * rng.uniform(1.0, 1.1, n)  # knows the token
    dense[:, 3] = (rng.random(n) < mask.mean()) * rng.uniform(1, 2, n)  # knows nothing
    dense[:, 8:] = (rng.random((n, 4)) < 0.05) * rng.uniform(1, 2, (n, 4))
    stream = labelled_stream(mask, ids, documents, seed=1)
    return feature_activations(dense), stream, dense


def lively_model(factor: float, **sizes):
    """A fresh model predicts alike everywhere: this one cares."""
    model = small_model(**sizes)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(factor)
    return model.eval()


def ablate(hidden: torch.Tensor, sae: SparseAutoencoder, feature: int) -> torch.Tensor:
    """The hook function: raw activations [..., d_in] without what `feature` adds, same shape."""
    only = sae.only([feature])
    return hidden - only.encode(hidden * sae.scale) @ only.W_dec / sae.scale


def edited_losses(
    model,
    ids: np.ndarray,
    change: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> np.ndarray:
    """Loss of each predicted token with `change` made at every position: [blocks, context - 1].

    In nats, float32; a model of any depth, through its bridge or plain.
    """

    def read(batch: torch.Tensor) -> torch.Tensor:
        with edited(model, change):
            found = model(batch)
        logits = getattr(found, "logits", found)[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none"
        )
        return loss.view(len(batch), -1).cpu()

    return torch.cat(list(run_blocks(model, ids, read))).numpy()
