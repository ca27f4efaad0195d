"""A model and one of its autoencoders, read over the text of a case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import MistralForCausalLM

from featlib import FeatlibError
from featlib.cases.detectors import LabelledStream, rank_features
from featlib.dictionaries.features import FeatureActivations, encode_batches
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.models.forward import hooked_module, read_inputs, run_blocks

CHUNK = 4096  # tokens encoded at once


@dataclass(frozen=True)
class Sites:
    """What a model of one layer computes on each token of a stream, read in one pass."""

    ids: np.ndarray  # [blocks, context]
    neurons: Tensor  # [tokens, d_in], raw activations at HOOK_NAME
    residual: Tensor  # [tokens, d_model], what the last norm reads


def read_sites(model: MistralForCausalLM, ids: np.ndarray) -> Sites:
    """Neurons and final residual stream of blocks `ids` [blocks, context], in reading order."""
    if len(model.model.layers) != 1:
        raise FeatlibError(
            f"the model has {len(model.model.layers)} layers: what an edit does in the first is "
            "then changed by the others; use edited_losses"
        )
    places = (hooked_module(model), model.model.norm)

    def read(batch: Tensor) -> list[Tensor]:
        return [found.flatten(0, 1).float() for found in read_inputs(model, batch, *places)]

    neurons, residual = zip(*run_blocks(model, ids, read), strict=True)
    return Sites(ids, torch.cat(neurons), torch.cat(residual))


@dataclass(frozen=True)
class Subject:
    """One model with one autoencoder, and what both do on the text of the case."""

    model: MistralForCausalLM
    sae: SparseAutoencoder
    sites: Sites
    features: FeatureActivations
    seed: int = 0  # of the autoencoder


def read_with(
    model: MistralForCausalLM, sae: SparseAutoencoder, sites: Sites, seed: int = 0
) -> Subject:
    """A model that was read (`sites`), under an autoencoder: its own, or one carried over."""
    return Subject(model, sae, sites, encode_batches(sites.neurons.split(CHUNK), sae), seed)


def find_best(
    subjects: Sequence[Subject], stream: LabelledStream
) -> tuple[Subject, int, float] | None:
    """The feature with the highest F1 on the selection half, where it is, and its threshold.

    An autoencoder is one of many that training could have given. Which of them gave a concept a
    feature of its own is luck, so a feature is looked for in all of a model's autoencoders. None
    if all are silent.
    """
    ranked = [(s, rank_features(s.features, stream, 1)) for s in subjects]
    found = [(s, table.iloc[0]) for s, table in ranked if len(table)]
    if not found:
        return None
    subject, best = max(found, key=lambda item: item[1]["f1"])
    return subject, int(best["feature"]), float(best["threshold"])
