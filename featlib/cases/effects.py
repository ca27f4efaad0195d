"""What interventions do, in numbers with intervals: the cost of ablating, the pull of steering.

Every effect stands beside that of random features which fire about as often, since ablating
anything costs something.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import MistralForCausalLM

from featlib import FeatlibError
from featlib.cases.baselines import similar_features
from featlib.cases.detectors import feature_scores, resample_documents
from featlib.cases.edits import Edit, Sites, feature_direction, loss_changes, read_predictions
from featlib.dictionaries.features import FeatureActivations
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.estimate import percentile_interval

REGIONS = ("at", "labelled", "after", "elsewhere", "firing")


def ablation_effects(
    model: MistralForCausalLM,
    sae: SparseAutoencoder,
    sites: Sites,
    f: FeatureActivations,
    feature: int,
    *,
    mask: np.ndarray,
    documents: np.ndarray,
    seed: int,
    n_random: int = 10,
    kind: Literal["ablate", "replace"] = "ablate",
    n_boot: int = 200,
) -> pd.DataFrame:
    """What removing a feature costs, by kind of token, against random features of equal density.

    `mask`, `documents` [blocks, context]. `kind` "replace" puts each feature's mean activation in
    place of its activation. A prediction is made at position p, of token p + 1; the regions are

    - at: position p is labelled (where a feature that detects the label acts)
    - labelled: token p + 1 is labelled; after: only position p is; elsewhere: neither
    - firing: the feature itself fires at p

    Predictions across documents are left out. One row for each of who ("feature", "random",
    "difference") and region: delta (mean change of loss, nats a token; positive: the feature
    helped), low, high (resampling whole documents), n (predictions). `random` pools `n_random`
    features; `difference` is feature less random, resampled together.
    """
    mask, documents = np.asarray(mask, dtype=bool), np.asarray(documents)
    if not mask.shape == documents.shape == sites.ids.shape:
        raise FeatlibError(
            f"mask {mask.shape}, documents {documents.shape} and ids {sites.ids.shape} must have "
            "one shape, [blocks, context]"
        )
    rng = np.random.default_rng(seed)
    features = [feature, *similar_features(f, feature, n_random, rng)]
    inside = documents[:, 1:] == documents[:, :-1]
    home, weights = resample_documents(documents[:, :-1][inside], n_boot, rng)
    at, next_ = mask[:, :-1][inside], mask[:, 1:][inside]
    regions = {"at": at, "labelled": next_, "after": at & ~next_, "elsewhere": ~at & ~next_}

    def per_document(tokens: np.ndarray) -> np.ndarray:
        return np.bincount(home, weights=tokens, minlength=weights.shape[1])

    sums = np.zeros((len(features), len(REGIONS), weights.shape[1]))
    counts = np.zeros_like(sums)
    for row, index in enumerate(features):
        active = feature_scores(f, int(index)).reshape(sites.ids.shape)
        value = float(active.mean()) if kind == "replace" else 0.0
        delta = loss_changes(model, sae, sites, f, Edit(int(index), kind, value))[inside]
        firing = active[:, :-1][inside] > 0
        for column, region in enumerate([*regions.values(), firing]):
            sums[row, column] = per_document(delta * region)
            counts[row, column] = per_document(region)
    with np.errstate(invalid="ignore", divide="ignore"):
        own = (sums[0] @ weights.T) / (counts[0] @ weights.T)  # [regions, n_boot + 1]
        others = (sums[1:].sum(0) @ weights.T) / (counts[1:].sum(0) @ weights.T)
    n_own, n_others = counts[0].sum(-1), counts[1:].sum((0, -1))
    table = []
    for who, values, n in (
        ("feature", own, n_own),
        ("random", others, n_others),
        ("difference", own - others, n_own),
    ):
        for region, row, size in zip(REGIONS, values, n, strict=True):
            low, high = percentile_interval(row[1:])
            table.append((who, region, float(row[0]), low, high, int(size)))
    return pd.DataFrame(table, columns=["who", "region", "delta", "low", "high", "n"])


def steering_effects(
    model: MistralForCausalLM,
    sae: SparseAutoencoder,
    sites: Sites,
    features: Sequence[int],
    strengths: Sequence[float],
    vocabulary: np.ndarray,
    *,
    documents: np.ndarray,
    seed: int,
    n_positions: int = 2_000,
    n_boot: int = 200,
) -> pd.DataFrame:
    """How the probability of a set of words moves as more and more of a feature is added.

    At `n_positions` random tokens of the stream, `strengths` (in units of activation: 1 to 3 times
    `typical_activation` is a dose that occurs) of each of `features` are added, and the next
    token's probability summed over the ids `vocabulary`. Columns feature, strength, probability
    (mean over positions), low, high (resampling documents), loss (mean loss of the true next token:
    what the dose breaks). Give random features (`similar_features`) beside the one of interest.
    """
    rng = np.random.default_rng(seed)
    blocks, context = sites.ids.shape
    inner = np.arange(blocks * context).reshape(blocks, context)[:, :-1].reshape(-1)
    rows = np.sort(rng.permutation(inner)[:n_positions])
    base = sites.residual[torch.from_numpy(rows).to(sites.residual.device)]
    targets = torch.from_numpy(sites.ids.reshape(-1)[rows + 1].astype(np.int64)).to(base.device)
    chosen = torch.as_tensor(np.asarray(vocabulary, dtype=np.int64), device=base.device)
    home, weights = resample_documents(np.asarray(documents).reshape(-1)[rows], n_boot, rng)
    size = weights @ np.bincount(home)

    def read(logp: Tensor, at: slice) -> Tensor:
        mass = logp[:, chosen].exp().sum(1)
        return torch.stack([mass, -logp.gather(1, targets[at, None])[:, 0]], dim=1)

    table = []
    for feature in features:
        direction = feature_direction(model, sae, int(feature))
        for strength in strengths:
            found = read_predictions(model, base + float(strength) * direction, read).cpu().numpy()
            mass = weights @ np.bincount(home, weights=found[:, 0]) / size
            loss = float(found[:, 1].mean(dtype=np.float64))
            interval = percentile_interval(mass[1:])
            table.append((int(feature), float(strength), float(mass[0]), *interval, loss))
    columns = ["feature", "strength", "probability", "low", "high", "loss"]
    return pd.DataFrame(table, columns=columns)


def typical_activation(f: FeatureActivations, feature: int) -> float:
    """Mean activation of a feature where it fires; 0 if it never does."""
    _, values = f.of(feature)
    return float(values.mean()) if len(values) else 0.0
