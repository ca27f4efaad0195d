"""What the feature atlas says about each feature, as plain data ready for JSON.

Activations are told as levels: thousandths of the feature's own largest activation on the stream,
rounded, at least 1 where the feature fires at all. A window of text is [token, before, after,
offset, level, offset, level, ...]: the token it was chosen for (an index into the stream), how many
tokens stand before and after it, and the tokens that fire, counted from the window's first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from featlib.dictionaries.features import (
    FeatureActivations,
    activation_histograms,
    token_windows,
    tokens_fired_on,
)
from featlib.dictionaries.sae import SparseAutoencoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LEVELS = 1000
BEFORE, AFTER = 12, 6  # tokens of context around an example
QUANTILES = 4
PER_DOCUMENT = 2  # examples from one document among the strongest, for variety
TOKENS_SHOWN = 10  # promoted and suppressed tokens, and tokens that it fires on
COMPARED = 3  # strongest examples that are shown under the matches too
MATCHES = 3  # candidates in each other model
CUTS = (0.0, 0.25, 0.5)  # a feature says yes above these shares of its largest activation
FITS, LEAST_F1 = 3, 0.2  # labels that are told of a feature


@torch.no_grad()
def token_effects(model: PreTrainedModel, sae: SparseAutoencoder) -> np.ndarray:
    """Direct effect of each feature on each token's logit: float32 [d_sae, vocab].

    A feature's direction goes through down_proj into the residual stream and, with the gain of the
    final norm folded in, through the unembedding. With one layer nothing else reads it. Left out
    is the final norm's division, a positive number of each token that changes no order. A change
    of all logits alike means nothing, so the mean over the vocabulary is taken off; numbers are
    in standard deviations over the vocabulary, for the features of different models differ in unit.
    """
    direction = sae.W_dec.float()  # [d_sae, d_mlp]
    out = direction @ model.model.layers[-1].mlp.down_proj.weight.float().T  # [d_sae, d_model]
    logits = (out * model.model.norm.weight.float()) @ model.lm_head.weight.float().T
    centred = logits - logits.mean(dim=1, keepdim=True)
    return (centred / centred.std(dim=1, keepdim=True).clamp_min(1e-12)).cpu().numpy()


def nearest(r: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n columns of largest correlation in each row of r: indices and values, best first."""
    n = min(n, r.shape[1])
    some = np.argpartition(-r, n - 1, axis=1)[:, :n]
    rows = np.arange(len(r))[:, None]
    some = some[rows, np.argsort(-r[rows, some], axis=1, kind="stable")]
    return some, r[rows, some]


def extreme_tokens(effects: np.ndarray, n: int = TOKENS_SHOWN) -> tuple[list, list]:
    """The n most promoted and the n most suppressed tokens of each feature.

    `effects` [d_sae, vocab]; two lists over features of [[token id, tenths of a standard
    deviation], ...], largest effect first.
    """

    def told(sign: int) -> list:
        order, values = nearest(sign * effects, n)
        return np.stack([order, np.rint(10 * sign * values).astype(int)], axis=2).tolist()

    return told(1), told(-1)


class Levels:
    """Looks up the levels of features within windows of the stream, many at a time."""

    def __init__(self, f: FeatureActivations) -> None:
        c, peak = f.columns, activation_histograms(f)[1]
        feature = np.repeat(np.arange(f.d_sae, dtype=np.int64), np.diff(c.indptr))
        self.n_tokens = f.n_tokens
        self.keys = feature * f.n_tokens + c.indices  # ascending
        levels = np.maximum(np.rint(LEVELS * (c.data / peak[feature])), 1).astype(np.int64)
        self.told = np.stack([c.indices, levels], axis=1)  # token, level

    def within(self, feature: np.ndarray, start: np.ndarray, stop: np.ndarray) -> list[list[int]]:
        """[offset, level, ...] of each window [start, stop) under its feature."""
        base = np.asarray(feature, dtype=np.int64) * self.n_tokens
        low, high = (np.searchsorted(self.keys, base + edge) for edge in (start, stop))
        return [
            (self.told[a:b] - (first, 0)).reshape(-1).tolist()
            for a, b, first in zip(low, high, start, strict=True)
        ]


def choose_examples(
    f: FeatureActivations,
    documents: np.ndarray,
    *,
    top: int,
    per_quantile: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """The strongest examples of every feature, and random ones from each quarter of its firings.

    Columns feature, quantile (-1 among the strongest; 0 weakest quarter to 3), token, start, stop.
    """
    flat = np.asarray(documents).reshape(-1)
    rows: list[tuple[int, int, int]] = []
    for feature in range(f.d_sae):
        tokens, values = f.of(feature)
        order = np.lexsort((tokens, -values))
        seen: Counter[int] = Counter()
        strongest: list[int] = []
        for token in tokens[order]:
            seen[flat[token]] += 1
            if seen[flat[token]] <= PER_DOCUMENT:
                strongest.append(token)
            if len(strongest) == top:
                break
        rows += [(feature, -1, token) for token in strongest]
        for quantile, part in enumerate(np.array_split(order[::-1], QUANTILES)):
            some = rng.choice(part, size=min(per_quantile, len(part)), replace=False, shuffle=False)
            some = some[np.lexsort((tokens[some], -values[some]))]
            rows += [(feature, quantile, token) for token in tokens[some]]
    chosen = pd.DataFrame(rows, columns=["feature", "quantile", "token"], dtype=np.int64)
    start, stop = token_windows(documents, chosen["token"].to_numpy(), BEFORE, AFTER)
    return chosen.assign(start=start, stop=stop)


def agreement(says: sp.csr_array, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How well saying yes tells each label: precision, recall and F1, [features, labels] each.

    `says` [tokens, features] holds 1 where a feature says yes; `truth` bool [tokens, labels].
    """
    hits = says.T @ truth.astype(np.float32)
    said = np.bincount(says.indices, weights=says.data, minlength=says.shape[1])[:, None]
    true = truth.sum(axis=0)
    f1 = 2 * hits / np.maximum(said + true, 1)
    return hits / np.maximum(said, 1), hits / np.maximum(true, 1), f1


def best_fits(f: FeatureActivations, masks: Mapping[str, np.ndarray]) -> list[list[list[int]]]:
    """Labels that each feature fits: [[label, precision, recall, F1, cut], ...], best F1 first.

    `masks` bool over the stream, by label. A feature says yes on a token where it exceeds `cut`, a
    share of its largest activation, the best of `CUTS` for the label; numbers are per cent, `label`
    counts in the order of `masks`. At most `FITS`, none with F1 under `LEAST_F1`. Chosen and
    measured on the same tokens, so a little flattering; chapters 08 and 09 measure on others.
    """
    truth = np.stack([mask.reshape(-1) for mask in masks.values()], axis=1)
    m, peak = f.matrix, activation_histograms(f)[1]
    best = np.zeros((f.d_sae, len(masks), 4))  # precision, recall, F1, cut
    for cut in CUTS:
        says = (m.data > cut * peak[m.indices]).astype(np.float32)
        found = agreement(sp.csr_array((says, m.indices, m.indptr), shape=m.shape), truth)
        values = np.stack([*found, np.full_like(found[2], cut)], axis=2)
        better = values[:, :, 2] > best[:, :, 2]
        best[better] = values[better]
    order = np.argsort(-best[:, :, 2], axis=1, kind="stable")[:, :FITS]
    return [
        [
            [int(label), *np.rint(100 * best[feature, label]).astype(int).tolist()]
            for label in order[feature]
            if best[feature, label, 2] >= LEAST_F1
        ]
        for feature in range(f.d_sae)
    ]


def thousandths(r: float) -> int:
    """A correlation in thousandths, cut and not rounded: 0.7996 has not reached 0.8.

    A millionth is forgiven, which float32 may take from a number like 0.7.
    """
    return math.floor(1000 * float(r) + 1e-3)


def describe_features(
    f: FeatureActivations,
    ids: np.ndarray,
    documents: np.ndarray,
    effects: np.ndarray,
    *,
    matches: Mapping[str, tuple[np.ndarray, np.ndarray]],
    others: Mapping[str, Levels],
    domains: np.ndarray,
    fits: Sequence[list],
    top: int,
    per_quantile: int,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """One dictionary for each feature of one model, with everything its page shows.

    `ids`, `documents` and `domains` (small integers) [blocks, context]; `effects` from
    `token_effects`; `matches` by model from `nearest`; `others` are the levels of those models;
    `fits` from `best_fits`. Keys: firings, peak, hist (20 bins between 0 and peak),
    on, up, down, mix (firings by domain), labels, top and quantiles (windows), matches (by model
    [[feature, thousandths of r], ...]) and compared (by model, the first windows of `top` under
    the best match there, [offset, level, ...] each).
    """
    assert effects.shape[0] == len(fits) == f.d_sae, "effects or fits of another dictionary"
    levels = Levels(f)
    counts, peaks = activation_histograms(f)
    up, down = extreme_tokens(effects)
    fired_on = tokens_fired_on(f, ids, TOKENS_SHOWN)
    mix = _firings_by(f, np.asarray(domains).reshape(-1))
    told: list[dict[str, Any]] = [
        {
            "firings": int(counts[n].sum()),
            "peak": float(f"{peaks[n]:.4g}"),
            "hist": counts[n].tolist(),
            "on": fired_on[n],
            "up": up[n],
            "down": down[n],
            "mix": mix[n].tolist(),
            "labels": fits[n],
            "top": [],
            "quantiles": [[] for _ in range(QUANTILES)],
            "matches": {
                model: [[int(g), thousandths(v)] for g, v in zip(i[n], r[n], strict=True)]
                for model, (i, r) in matches.items()
            },
            "compared": {model: [] for model in matches},
        }
        for n in range(f.d_sae)
    ]
    chosen = choose_examples(f, documents, top=top, per_quantile=per_quantile, rng=rng)
    inside = levels.within(*chosen[["feature", "start", "stop"]].to_numpy().T)
    for (feature, quantile, token, start, stop), fires in zip(
        chosen.itertuples(index=False, name=None), inside, strict=True
    ):
        window = [token, token - start, stop - 1 - token, *fires]
        here = told[feature]
        (here["top"] if quantile < 0 else here["quantiles"][quantile]).append(window)
    strongest = chosen[chosen["quantile"] < 0].groupby("feature").head(COMPARED)
    feature, start, stop = strongest[["feature", "start", "stop"]].to_numpy().T
    for model, (index, _) in matches.items():
        under = others[model].within(index[feature, 0], start, stop)
        for n, fires in zip(feature.tolist(), under, strict=True):
            told[n]["compared"][model].append(fires)
    return told


def _firings_by(f: FeatureActivations, group: np.ndarray) -> np.ndarray:
    """[d_sae, groups] int64: firings of each feature in each group of tokens."""
    n = int(group.max(initial=0)) + 1
    rows = np.repeat(group.astype(np.int64), np.diff(f.matrix.indptr))
    flat = f.matrix.indices.astype(np.int64) * n + rows
    return np.bincount(flat, minlength=f.d_sae * n).reshape(f.d_sae, n)
