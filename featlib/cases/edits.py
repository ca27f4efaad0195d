"""What a feature does to the model: ablate it, or add more of it, and read the predictions.

A feature j acts on the MLP's activations h (`blocks.0.mlp.hook_post`, raw) along its decoder row:
its contribution is a_j W_dec[j] / scale, with a_j its activation on scaled input. Every edit moves
h along that row alone, so that the autoencoder's error stays as it is:

    ablate   h - a_j W_dec[j] / scale
    steer    h + dose W_dec[j] / scale

Two ways to the same numbers. `edited_losses` runs the whole model with one hook function, through
TransformerBridge or on the plain Hugging Face model (4 times faster): it assumes nothing about the
model. All the rest uses that in a model of one layer nothing reads h but the residual stream of
the same position: the edit adds a multiple of one fixed vector there, W_down W_dec[j] / scale, and
only the tokens on which the feature fires need new predictions. That makes an ablation cost
milliseconds instead of a forward pass, so that controls and dose-response curves are affordable.
The tests hold all three against one another.

An edit at position p changes the prediction made at p, of token p + 1, and no other. A feature
that fires on ` raise` therefore cannot change how well ` raise` itself is predicted. Every effect
stands beside that of random features which fire about as often, since ablating anything costs
something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import MistralForCausalLM

from featlib.cases.detectors import Draws, LabelledStream, Resampled, as_estimate, feature_scores
from featlib.cases.rivals import similar_features
from featlib.cases.subjects import Subject
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.estimate import Estimate
from featlib.models.forward import edited, hooked_module, run_blocks
from featlib.text.labels import Label, find_vocabulary

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

LOGITS_AT_ONCE = 2**23  # elements: bounds memory
REGIONS = ("at", "labelled", "after", "elsewhere", "firing")
STEERED = 1_000  # tokens at which a feature is added
STEERED_RANDOM = 3  # random features beside it
STEERED_BOOT = 100  # resamples of documents
FOLLOWERS = 20  # token ids that follow the label


def ablate(hidden: Tensor, sae: SparseAutoencoder, feature: int) -> Tensor:
    """The hook function: raw activations [..., d_in] without what `feature` adds, same shape."""
    only = sae.only([feature])
    return hidden - only.encode(hidden * sae.scale) @ only.W_dec / sae.scale


def edited_losses(
    model: TransformerBridge | MistralForCausalLM,
    ids: np.ndarray,
    change: Callable[[Tensor], Tensor] | None = None,
) -> np.ndarray:
    """Loss of each predicted token with `change` made at every position: [blocks, context - 1].

    In nats, float32; a model of any depth, through its bridge or plain.
    """

    def read(batch: Tensor) -> Tensor:
        with edited(model, change):
            found = model(batch)
        logits = getattr(found, "logits", found)[:, :-1].float()
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none"
        )
        return loss.view(len(batch), -1).cpu()

    return torch.cat(list(run_blocks(model, ids, read))).numpy()


# ------------------------------------------------------------------------------ one layer


def feature_direction(model: MistralForCausalLM, sae: SparseAutoencoder, feature: int) -> Tensor:
    """What one unit of a feature's activation adds to the residual stream: [d_model]."""
    row = sae.W_dec.detach()[feature].to(hooked_module(model).weight.device)
    return hooked_module(model).weight.detach().float() @ row / sae.scale


@torch.no_grad()
def read_predictions(
    model: MistralForCausalLM, residual: Tensor, read: Callable[[Tensor, slice], Tensor]
) -> Tensor:
    """`read(log-probabilities [n, vocab], rows)` for residual streams [tokens, d_model], joined."""
    size = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    parts = []
    for start in range(0, len(residual), size):
        rows = slice(start, start + size)
        logits = model.lm_head(model.model.norm(residual[rows])).float()
        parts.append(read(torch.log_softmax(logits, dim=1), rows))
    return torch.cat(parts)


def loss_changes(subject: Subject, feature: int) -> np.ndarray:
    """Change of each predicted token's loss when `feature` is ablated: [blocks, context - 1] nats.

    Equals `edited_losses` with the edit less that without. Exactly 0 where the feature is silent.
    """
    model, sites = subject.model, subject.sites
    blocks, context = sites.ids.shape
    active = feature_scores(subject.features, feature)
    active.reshape(blocks, context)[:, -1] = 0  # predicts what lies outside the block
    rows = np.flatnonzero(active)
    result = np.zeros((blocks, context), dtype=np.float32)
    if len(rows):
        before = sites.residual[torch.from_numpy(rows).to(sites.residual.device)]
        step = torch.from_numpy(-active[rows]).to(before.device)
        after = before + step[:, None] * feature_direction(model, subject.sae, feature)
        targets = torch.from_numpy(sites.ids.reshape(-1)[rows + 1].astype(np.int64))
        targets = targets.to(before.device)[:, None]

        def read(logp: Tensor, at: slice) -> Tensor:
            return -logp.gather(1, targets[at])[:, 0]

        delta = read_predictions(model, after, read) - read_predictions(model, before, read)
        result.reshape(-1)[rows] = delta.cpu().numpy()
    return result[:, :-1]


# ------------------------------------------------------------------------------ effects


def ablation_effects(
    subject: Subject,
    feature: int,
    mask: np.ndarray,
    documents: np.ndarray,
    draws: Draws,
) -> pd.DataFrame:
    """What removing a feature costs, by kind of token, against random features of equal density.

    `mask` (the label), `documents` [blocks, context]. A prediction is made at position p, of token
    p + 1; the regions are

    - at: position p is labelled (where a feature that detects the label acts)
    - labelled: token p + 1 is labelled; after: only position p is; elsewhere: neither
    - firing: the feature itself fires at p

    Predictions across documents are left out. One row for each of who ("feature", "random",
    "difference") and region: delta (mean change of loss, nats a token; positive: the feature
    helped), low, high (resampling whole documents), n (predictions). `random` pools
    several features; `difference` is feature less random, resampled together.
    """
    shape = subject.sites.ids.shape
    assert mask.shape == documents.shape == shape, "of the very blocks that were read"
    rng = np.random.default_rng(draws.seed)
    features = [feature, *similar_features(subject.features, feature, draws.n_random, rng)]
    inside = documents[:, 1:] == documents[:, :-1]
    resampled = Resampled(documents[:, :-1][inside], draws.n_boot, rng)
    at, next_ = mask[:, :-1][inside], mask[:, 1:][inside]
    regions = (at, next_, at & ~next_, ~at & ~next_)
    sums = np.zeros((len(features), len(REGIONS), resampled.weights.shape[1]))
    counts = np.zeros_like(sums)
    for row, index in enumerate(features):
        delta = loss_changes(subject, index)[inside]
        active = feature_scores(subject.features, index).reshape(shape)
        for column, region in enumerate([*regions, active[:, :-1][inside] > 0]):
            sums[row, column] = resampled.by_document(delta * region)
            counts[row, column] = resampled.by_document(region)
    each = {"feature": slice(1), "random": slice(1, None)}
    with np.errstate(invalid="ignore", divide="ignore"):
        means = {  # [regions, n_boot + 1]
            who: (sums[rows].sum(0) @ resampled.weights.T)
            / (counts[rows].sum(0) @ resampled.weights.T)
            for who, rows in each.items()
        }
    means["difference"] = means["feature"] - means["random"]
    table = []
    for who, values in means.items():
        n = counts[each.get(who, each["feature"])].sum((0, -1))
        for region, row, size in zip(REGIONS, values, n, strict=True):
            found = as_estimate(row)
            table.append((who, region, found.value, found.low, found.high, int(size)))
    return pd.DataFrame(table, columns=["who", "region", "delta", "low", "high", "n"])


def effect_at_label(effects: pd.DataFrame) -> Estimate:
    """Of `ablation_effects`: the nats that it costs at labelled tokens, beyond random features."""
    row = effects.set_index(["who", "region"]).loc[("difference", "at")]
    return Estimate(*(float(row[key]) for key in ("delta", "low", "high")))


def steering_effects(
    subject: Subject,
    feature: int,
    vocabulary: np.ndarray,
    documents: np.ndarray,
    *,
    doses: Sequence[float],
    seed: int,
) -> pd.DataFrame:
    """How the probability of a set of words moves as more and more of a feature is added.

    At `STEERED` random tokens `doses` of the feature are added, in units of its mean activation
    where it fires, and the next token's probability is summed over the ids `vocabulary`. Columns
    model, who ("feature", or "random": the mean over features of like density, given the same
    amounts), dose, probability (mean over positions), low, high (resampling documents), loss (mean
    loss of the true next token: what the dose breaks). Empty for a silent feature.
    """
    model, sites = subject.model, subject.sites
    _, active = subject.features.of(feature)
    features = subject.with_controls(feature, STEERED_RANDOM, seed)
    rng = np.random.default_rng(seed)
    blocks, context = sites.ids.shape
    inner = np.arange(blocks * context).reshape(blocks, context)[:, :-1].reshape(-1)
    rows = np.sort(rng.permutation(inner)[:STEERED])
    base = sites.residual[torch.from_numpy(rows).to(sites.residual.device)]
    targets = torch.from_numpy(sites.ids.reshape(-1)[rows + 1].astype(np.int64)).to(base.device)
    chosen = torch.as_tensor(np.asarray(vocabulary, dtype=np.int64), device=base.device)
    resampled = Resampled(documents.reshape(-1)[rows], STEERED_BOOT, rng)
    size = resampled.total(np.ones(len(rows)))

    def read(logp: Tensor, at: slice) -> Tensor:
        mass = logp[:, chosen].exp().sum(1)
        return torch.stack([mass, -logp.gather(1, targets[at, None])[:, 0]], dim=1)

    table = []
    for index in features if len(active) else ():
        direction = feature_direction(model, subject.sae, index)
        for dose in doses:
            amount = float(dose) * float(active.mean())
            found = read_predictions(model, base + amount * direction, read).cpu().numpy()
            mass = as_estimate(resampled.total(found[:, 0]) / size)
            loss = float(found[:, 1].mean(dtype=np.float64))
            who = "feature" if index == feature else "random"
            table.append((who, float(dose), mass.value, mass.low, mass.high, loss))
    columns = ["who", "dose", "probability", "low", "high", "loss"]
    means = pd.DataFrame(table, columns=columns).groupby(["who", "dose"], as_index=False).mean()
    return means.assign(model=subject.name)


def related_vocabulary(
    label: Label, token_texts: Sequence[str], stream: LabelledStream
) -> np.ndarray:
    """Token ids whose probability steering should move.

    The `FOLLOWERS` ids that follow a labelled token most in excess of chance, on the selection
    half, and the label's own words that are entries of the vocabulary.
    """
    named = find_vocabulary(token_texts, label.vocabulary)
    at = np.flatnonzero(stream.mask[:-1] & stream.selection[:-1]) + 1
    counts = np.bincount(stream.ids[at], minlength=len(token_texts)).astype(float)
    usual = np.bincount(stream.ids[stream.selection], minlength=len(token_texts))
    excess = counts - usual * counts.sum() / max(usual.sum(), 1)
    ranked = np.argsort(-excess, kind="stable")[:FOLLOWERS]
    return np.union1d(named, ranked[excess[ranked] > 0])
