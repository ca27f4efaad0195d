"""How this book makes and reads a dictionary: chapter 05's training, chapter 06's reading.

Controls train dictionaries of their own and compare them with those, so there is one recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import torch
from transformers import PreTrainedModel

from featlib.dictionaries.activations import activation_scale, shuffled_batches
from featlib.dictionaries.architectures import ARCHITECTURES
from featlib.dictionaries.features import (
    FeatureActivations,
    calibrate,
    encode_batches,
    feature_activations,
    save_features,
)
from featlib.dictionaries.sae import AutoencoderConfig, SparseAutoencoder, save_autoencoder
from featlib.dictionaries.training import train_autoencoders
from featlib.family import TRAINING_MIX, on_text
from featlib.models.forward import harvest
from featlib.models.recipes import training_text
from featlib.params import derive_seed
from featlib.run import Run
from featlib.text import tokens

SCALE_BLOCKS = 512  # of the training text, on which a model's scale is measured
TEXT_SEEDS = (1, 2)  # of the dictionaries that read a parent and learn from its child's text
CALIBRATION = 12_000  # tokens of a text, spread over it, on which a threshold is guessed
SLACK = 1.5  # times as many features as wanted are read at first; the strongest stay


def autoencoder_config(p: SimpleNamespace, d_in: int) -> AutoencoderConfig:
    """From chapter 05's parameters, for activations of width `d_in`."""
    return AutoencoderConfig(
        d_in=d_in,
        d_sae=p.d_sae,
        architecture=p.sae_architecture,
        k=p.k,
        l1=p.l1,
        lr=p.sae_lr,
        beta2=p.sae_adam_beta2,
        n_tokens=p.sae_tokens,
        batch_size=p.sae_batch_size,
    )


def training_scale(model: PreTrainedModel, text: tokens.TokenBlocks) -> float:
    """What `model`'s activations are multiplied by."""
    return activation_scale(model, text.ids[:SCALE_BLOCKS])


def train_dictionaries(
    model: PreTrainedModel,
    run: Run,
    domains: Sequence[str],
    config: AutoencoderConfig,
    *,
    name: str,
    seeds: Sequence[int],
    seed: int,
    init: SparseAutoencoder | None = None,
    progress: str | None = None,
) -> list[SparseAutoencoder]:
    """Autoencoders of `model`, one for each of `seeds`, all from the same activations.

    `domains`: the kinds of text that it reads; `name` and the run's `seed` give their order.
    """
    text = training_text(run, domains, seed, "sae mix", name)
    scale = training_scale(model, text)
    batches = shuffled_batches(
        model,
        text.ids,
        n_tokens=config.n_tokens,
        batch_size=config.batch_size,
        seed=derive_seed(seed, "sae order", name),
        scale=scale,
    )
    return train_autoencoders(batches, config, seeds, init, scale=scale, progress=progress)


def read_common_text(
    model: PreTrainedModel, saes: Sequence[SparseAutoencoder], stream: tokens.TokenBlocks, *, k: int
) -> list[FeatureActivations]:
    """What `saes` find in `model` on the common text, at `k` features per token."""
    return [read_at_l0(model, sae, stream.ids, k) for sae in saes]


def read_through_text(
    run: Run,
    model: PreTrainedModel,
    parent: str,
    child: str,
    stream: tokens.TokenBlocks,
    *,
    k: int,
    seed: int,
) -> list[FeatureActivations]:
    """What a parent's `model` shows on the common text through dictionaries of a child's text.

    `TEXT_SEEDS` autoencoders of the parent are trained as chapter 05 trains its own, but for what
    they read and their seeds. They stay in the run, with thresholds of the common text, and so does
    what they find.
    """
    p = SimpleNamespace(**run.provenance()["chapters"]["05_autoencoders"]["parameters"])
    config = autoencoder_config(p, model.config.intermediate_size)
    name, mix = on_text(parent, child), TRAINING_MIX[child]
    saes = train_dictionaries(model, run, mix, config, name=name, seeds=TEXT_SEEDS, seed=seed)
    found = read_common_text(model, saes, stream, k=k)
    for n, sae, read in zip(TEXT_SEEDS, saes, found, strict=True):
        made = {"model_name": parent, "seed": n, "text": mix, "training": asdict(config)}
        save_autoencoder(sae, run.autoencoder(name, n), made)
        save_features(read, run.features(name, n))
    return found


def read_at_l0(
    model: PreTrainedModel, sae: SparseAutoencoder, ids: np.ndarray, l0: float
) -> FeatureActivations:
    """What `sae` finds in `model` over blocks `ids` when `l0` features fire on a token, on average.

    `sae` keeps the threshold that this takes (see `features.calibrate`). The count is exact, unless
    the architecture fixes its own or a threshold of 0 leaves fewer.
    """
    if not ARCHITECTURES[sae.architecture].calibrated:
        return encode_batches(harvest(model, ids), sae)
    some = ids[:: max(1, ids.size // CALIBRATION)]
    calibrate(sae, (raw * sae.scale for raw in harvest(model, some)), SLACK * l0)
    wide = encode_batches(harvest(model, ids), sae).matrix
    above = (sae.threshold - sae.threshold.min()).numpy()
    excess = wide.data - above[wide.indices]
    spare = len(excess) - round(l0 * ids.size)
    if spare > 0:
        cut = np.partition(excess, spare - 1)[spare - 1]  # the largest of those that go
        sae.set_threshold(torch.from_numpy(above + cut))
        wide.data[excess <= cut] = 0
    return feature_activations(wide)
