"""What a feature does to the model: take it out, and read the predictions.

A feature j acts on the MLP's activations h (`blocks.0.mlp.hook_post`, raw) along its decoder row:
its contribution is a_j W_dec[j] / scale, with a_j its activation on scaled input. Taking it out
moves h along that row alone, so that the autoencoder's error stays as it is:

    ablate           h - a_j W_dec[j] / scale
    random control   h - a_j u / scale           u a random direction of length one

In a model of one layer nothing reads h but the residual stream of the same position: an edit of h
is an edit of that, through W_down, and only the tokens on which the feature fires need new
predictions. The tests hold this against the whole model with a hook, plain and through
TransformerBridge.

An edit at position p changes the prediction made at p, of token p + 1, and no other. A feature
that fires on ` raise` therefore cannot change how well ` raise` itself is predicted. Removing
anything costs something: every effect stands beside removing as much, at the same tokens, along
random directions. (Other features would be no control, for they do not fire there.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from featlib.cases.detectors import Draws, Resampled, feature_scores
from featlib.cases.subjects import Subject
from featlib.estimate import Estimate, percentile_interval
from featlib.models.forward import hooked_module

LOGITS_AT_ONCE = 2**23  # elements: bounds memory


def losses_after(subject: Subject, tokens: np.ndarray, moves: Iterable[Tensor]) -> np.ndarray:
    """Change of the loss of what follows each of `tokens` [n] under each of `moves`.

    A move [n, d_in] is taken off the MLP's raw activations there. [moves, n] nats, positive: what
    was taken off had helped. `tokens` (indices in reading order) are none of the last of a block.
    """
    model, sites = subject.model, subject.sites
    rows = torch.from_numpy(tokens).to(sites.residual.device)
    before, weight = sites.residual[rows], hooked_module(model).weight.detach().float()
    targets = torch.from_numpy(sites.ids.reshape(-1)[tokens + 1].astype(np.int64))
    targets = targets.to(before.device)[:, None]
    size = max(1, LOGITS_AT_ONCE // model.config.vocab_size)

    @torch.no_grad()
    def loss(residual: Tensor) -> Tensor:
        parts = []
        for at in torch.arange(len(residual), device=residual.device).split(size):
            logp = torch.log_softmax(model.lm_head(model.model.norm(residual[at])).float(), dim=1)
            parts.append(-logp.gather(1, targets[at])[:, 0])
        return torch.cat(parts) if parts else residual.new_zeros(0)

    usual = loss(before)
    with torch.no_grad():
        found = [loss(before - move @ weight.T) - usual for move in moves]
    return torch.stack(found).cpu().numpy()


def feature_part(subject: Subject, feature: int, tokens: np.ndarray) -> Tensor:
    """What a feature adds to the raw activations at `tokens` [n]: [n, d_in]."""
    sae, active = subject.sae, feature_scores(subject.features, feature)[tokens]
    row = sae.W_dec.detach()[feature] / sae.scale
    return torch.from_numpy(active).to(row.device)[:, None] * row


def loss_changes(subject: Subject, feature: int) -> np.ndarray:
    """Change of each predicted token's loss when `feature` is ablated: [blocks, context - 1] nats.

    Equals `edited_losses` with the edit less that without. Exactly 0 where the feature is silent.
    """
    blocks, context = subject.sites.ids.shape
    active = feature_scores(subject.features, feature).reshape(blocks, context)
    active[:, -1] = 0  # predicts what lies outside the block
    tokens = np.flatnonzero(active)
    result = np.zeros((blocks, context), dtype=np.float32)
    part = feature_part(subject, feature, tokens)
    result.reshape(-1)[tokens] = losses_after(subject, tokens, [part])[0]
    return result[:, :-1]


# ------------------------------------------------------------------------------ effects


@dataclass(frozen=True)
class Removal:
    """What it costs to take something off the MLP's activations at some tokens, nats a token."""

    own: Estimate  # the feature, as it is
    beyond: Estimate  # the feature, less a random direction
    rank: float  # share of random directions that cost less
    random: float  # their mean
    mlp: float  # all that the MLP writes there


def remove_feature(
    subject: Subject,
    feature: int,
    tokens: np.ndarray,
    documents: np.ndarray,
    draws: Draws,
    *,
    mlp: bool = True,
) -> Removal:
    """Take a feature out at `tokens` [n], and as much along random directions; `documents` [n].

    `tokens` are all that count, whether the feature fires there or not. The interval of `beyond`
    holds both what documents and what directions are left to chance: each resampling of the
    documents is read against one of the random directions, drawn anew. So a feature that costs no
    more than directions do now and then is not beyond them. Of fewer than two documents nothing can
    be said: zeros.
    """
    if len(np.unique(documents)) < 2:
        nothing = Estimate(0.0, 0.0, 0.0)
        return Removal(nothing, nothing, 0.0, 0.0, 0.0)
    part = feature_part(subject, feature, tokens)
    rng = np.random.default_rng(draws.seed)
    u = torch.from_numpy(rng.standard_normal((draws.n_random, part.shape[1]))).float()
    u = (u / u.norm(dim=1, keepdim=True)).to(part.device)
    length = part.norm(dim=1, keepdim=True)
    moves = [part, *(length * row for row in u)]
    if mlp:
        moves.append(subject.sites.neurons[torch.from_numpy(tokens)].to(part.device))
    resampled = Resampled(documents, draws.n_boot, rng)
    cost = resampled.mean(losses_after(subject, tokens, moves))
    own, random = cost[0], cost[1 : draws.n_random + 1]
    drawn = random[rng.integers(draws.n_random, size=draws.n_boot), 1 + np.arange(draws.n_boot)]
    mean = float(random[:, 0].mean())
    return Removal(
        own=Estimate(float(own[0]), *percentile_interval(own[1:])),
        beyond=Estimate(float(own[0]) - mean, *percentile_interval(own[1:] - drawn)),
        rank=float((random[:, 0] < own[0]).mean()),
        random=mean,
        mlp=float(cost[-1, 0]) if mlp else float("nan"),
    )
