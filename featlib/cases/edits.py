"""A model and one of its autoencoders over the text of a case, and what a feature does there.

A feature j acts on the MLP's activations h (`blocks.0.mlp.hook_post`, raw) along its decoder row:
its contribution is a_j W_dec[j] / scale, with a_j its activation on scaled input. Taking it out
moves h along that row alone, so that the autoencoder's error stays as it is:

    ablate           h - a_j W_dec[j] / scale
    random control   h - a_j u / scale           u a random direction of length one

In a model of one layer nothing reads h but the residual stream of the same position: an edit of h
is an edit of that, through W_down, and only the tokens on which the feature fires need new
predictions. The tests hold this against a hook in the whole model and in TransformerBridge.

An edit at position p changes the prediction made at p, of token p + 1, and no other. A feature
that fires on ` raise` therefore cannot change how well ` raise` itself is predicted. Removing
anything costs something: every effect stands beside removing as much, at the same tokens, along
random directions. (Other features would be no control, for they do not fire there.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import MistralForCausalLM

from featlib import FeatlibError
from featlib.cases.detectors import Draws, Resampled, as_estimate, feature_scores
from featlib.dictionaries.features import FeatureActivations, encode_batches
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.estimate import Estimate, percentile_interval
from featlib.models.forward import hooked_module, read_inputs, run_blocks

CHUNK = 4096  # tokens encoded at once
LOGITS_AT_ONCE = 2**23  # elements: bounds memory


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
            "then changed by the others; a case study reads models of one layer"
        )
    places = (hooked_module(model), model.model.norm)
    read = run_blocks(model, ids, lambda batch: read_inputs(model, batch, *places))
    neurons, residual = (torch.cat(each).flatten(0, 1) for each in zip(*read, strict=True))
    return Sites(ids, neurons.float(), residual.float())


@dataclass(frozen=True)
class Subject:
    """A model that was read, under an autoencoder: its own, or one carried over."""

    model: MistralForCausalLM
    sae: SparseAutoencoder
    sites: Sites
    seed: int = 0  # of the autoencoder

    @cached_property
    def features(self) -> FeatureActivations:
        return encode_batches(self.sites.neurons.split(CHUNK), self.sae)


@torch.no_grad()
def losses_after(subject: Subject, tokens: np.ndarray, moves: Iterable[Tensor]) -> np.ndarray:
    """Change of the loss of what follows each of `tokens` [n] under each of `moves`: [moves, n].

    In nats; positive: what was taken off had helped. A move [n, d_in] is taken off the MLP's raw
    activations. `tokens` (indices in reading order) are none of the last of a block.
    """
    model, sites = subject.model, subject.sites
    before = sites.residual[torch.from_numpy(tokens)]
    weight = hooked_module(model).weight.float()
    targets = torch.from_numpy(sites.ids.reshape(-1)[tokens + 1].astype(np.int64)).to(weight.device)
    size = max(1, LOGITS_AT_ONCE // model.config.vocab_size)

    def loss(residual: Tensor) -> Tensor:
        parts = []
        for some, following in zip(residual.split(size), targets.split(size), strict=True):
            logits = model.lm_head(model.model.norm(some)).float()
            parts.append(functional.cross_entropy(logits, following, reduction="none"))
        return torch.cat(parts)

    usual = loss(before)
    return torch.stack([loss(before - move @ weight.T) - usual for move in moves]).cpu().numpy()


def feature_part(subject: Subject, feature: int, tokens: np.ndarray) -> Tensor:
    """What a feature adds to the raw activations at `tokens` [n]: [n, d_in]."""
    sae, active = subject.sae, feature_scores(subject.features, feature)[tokens]
    row = sae.W_dec.detach()[feature] / sae.scale
    return torch.from_numpy(active).to(row.device)[:, None] * row


def loss_changes(subject: Subject, feature: int) -> np.ndarray:
    """Change of the loss of what follows each token when `feature` is ablated: [tokens] nats.

    Exactly 0 where the feature is silent, and on the last token of a block, which predicts nothing.
    """
    active = feature_scores(subject.features, feature).reshape(subject.sites.ids.shape)
    active[:, -1] = 0
    tokens, result = np.flatnonzero(active), np.zeros(active.size, dtype=np.float32)
    part = feature_part(subject, feature, tokens)
    result[tokens] = losses_after(subject, tokens, [part])[0]
    return result


@dataclass(frozen=True)
class Removal:
    """What it costs to take something off the MLP's activations at some tokens, nats a token."""

    own: Estimate  # the feature, as it is
    beyond: Estimate  # the feature, less a random direction
    rank: float  # share of random directions that cost less
    random: float  # their mean
    mlp: float  # all that the MLP writes there


def remove_feature(
    subject: Subject, feature: int, tokens: np.ndarray, documents: np.ndarray, draws: Draws
) -> Removal:
    """Take a feature out at `tokens` [n], and as much along random directions; `documents` [n].

    `tokens` are all that count, whether the feature fires there or not. The interval of `beyond`
    holds what documents and what directions leave to chance: each resampling of the documents is
    read against one of the directions, drawn anew. So a feature that costs no more than directions
    do now and then is not beyond them. Of fewer than two documents nothing can be said: zeros.
    """
    if len(np.unique(documents)) < 2:
        nothing = Estimate(0.0, 0.0, 0.0)
        return Removal(nothing, nothing, 0.0, 0.0, 0.0)
    part = feature_part(subject, feature, tokens)
    rng = np.random.default_rng(draws.seed)
    u = torch.from_numpy(rng.standard_normal((draws.n_random, part.shape[1]))).float()
    u = (u / u.norm(dim=1, keepdim=True)).to(part.device)
    length, everything = part.norm(dim=1, keepdim=True), subject.sites.neurons[tokens]
    moves = [part, *(length * row for row in u), everything.to(part.device)]
    resampled = Resampled(documents, draws, rng)
    cost = resampled.mean(losses_after(subject, tokens, moves))
    own, random, mlp = cost[0], cost[1:-1], cost[-1]
    drawn = random[rng.integers(draws.n_random, size=draws.n_boot), 1 + np.arange(draws.n_boot)]
    mean = float(random[:, 0].mean())
    beyond = Estimate(float(own[0]) - mean, *percentile_interval(own[1:] - drawn))
    rank = float((random[:, 0] < own[0]).mean())
    return Removal(as_estimate(own), beyond, rank, mean, float(mlp[0]))
