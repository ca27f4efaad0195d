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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from featlib.describe.windows import from_each_quarter
from featlib.dictionaries.features import (
    FeatureActivations,
    activation_histograms,
    token_windows,
    tokens_fired_on,
)
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.matching.correlation import pearson
from featlib.text.stream import Stream

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LEVELS = 1000
BEFORE, AFTER = 12, 6  # tokens of context around an example
PER_DOCUMENT = 2  # examples from one document among the strongest, for variety
TOKENS_SHOWN = 10  # promoted and suppressed tokens, and tokens that it fires on
COMPARED = 3  # strongest examples that are shown under the counterparts too
CUTS = (0.0, 0.25, 0.5)  # a feature says yes above these shares of its largest activation
FITS, LEAST_F1 = 3, 0.2  # labels that are told of a feature
Key = tuple[str, int]  # a model, and the seed of one of its autoencoders


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


def extreme_tokens(effects: np.ndarray) -> list[list]:
    """The most promoted tokens of each feature: [[token id, tenths of a standard deviation], ...].

    `effects` [features, vocab]; largest first. Of `-effects` they are the most suppressed.
    """
    n = min(TOKENS_SHOWN, effects.shape[1])
    order = np.argpartition(-effects, n - 1, axis=1)[:, :n]
    values = np.take_along_axis(effects, order, axis=1)
    first = np.argsort(-values, axis=1, kind="stable")
    order, values = (np.take_along_axis(x, first, axis=1) for x in (order, values))
    return np.stack([order, np.rint(10 * values).astype(int)], axis=2).tolist()


class Levels:
    """The levels of features within windows of the stream, many at a time."""

    def __init__(self, f: FeatureActivations) -> None:
        c, peak = f.columns, activation_histograms(f)[1]
        feature = np.repeat(np.arange(f.d_sae, dtype=np.int64), np.diff(c.indptr))
        self.n_tokens = f.n_tokens
        self.keys = feature * f.n_tokens + c.indices  # ascending
        levels = np.maximum(np.rint(LEVELS * (c.data / peak[feature])), 1).astype(np.int64)
        self.told = np.stack([c.indices, levels], axis=1)  # token, level

    def within(self, features: np.ndarray, windows: pd.DataFrame) -> list[list[int]]:
        """[offset, level, ...] of each window: start to stop, under the feature at row."""
        row, start, stop = windows[["row", "start", "stop"]].to_numpy(dtype=int).T
        base = features[row].astype(np.int64) * self.n_tokens
        low, high = (np.searchsorted(self.keys, base + edge) for edge in (start, stop))
        return [
            (self.told[a:b] - (first, 0)).reshape(-1).tolist()
            for a, b, first in zip(low, high, start, strict=True)
        ]


@dataclass(frozen=True)
class Counterparts:
    """What stands beside each feature with a page: by `route`, one feature of another dictionary.

    Routes: "match", the best correlation; "transfer", the feature itself, read in another model.
    """

    route: str
    where: str  # the model or dictionary, as the atlas names it
    features: np.ndarray  # one for each page
    r: np.ndarray
    levels: Levels


def best_matches(
    shown: FeatureActivations, features: np.ndarray, where: str, other: FeatureActivations
) -> Counterparts:
    """The best correlated feature of another dictionary for each of `features`."""
    r = pearson(shown.matrix[:, features], other.matrix)
    best = r.argmax(axis=1)
    return Counterparts("match", where, best, r[np.arange(len(r)), best], Levels(other))


def best_fits(f: FeatureActivations, masks: Mapping[str, np.ndarray]) -> list[list[list[int]]]:
    """Labels that each feature fits: [[label, precision, recall, F1, cut], ...], best F1 first.

    `masks` bool over the stream, by label. A feature says yes on a token where it exceeds `cut`, a
    share of its largest activation, the best of `CUTS` for the label; numbers are per cent, `label`
    counts in the order of `masks`. At most `FITS`, none with F1 under `LEAST_F1`. Chosen and
    measured on the same tokens, so a little flattering; chapters 08 and 09 measure on others.
    """
    truth = np.stack([mask.reshape(-1) for mask in masks.values()], axis=1).astype(np.float32)
    m, peak, true = f.matrix, activation_histograms(f)[1], truth.sum(axis=0, dtype=float)
    best = np.zeros((f.d_sae, len(masks), 4))  # precision, recall, F1, cut
    for cut in CUTS:
        says = (m.data > cut * peak[m.indices]).astype(np.float32)
        hits = sp.csr_array((says, m.indices, m.indptr), shape=m.shape).T @ truth
        said = np.bincount(m.indices, weights=says, minlength=f.d_sae)[:, None]
        f1 = 2 * hits / np.maximum(said + true, 1)
        values = (hits / np.maximum(said, 1), hits / np.maximum(true, 1), f1, np.full_like(f1, cut))
        better = f1 > best[:, :, 2]
        best[better] = np.stack(values, axis=2)[better]
    order = np.argsort(-best[:, :, 2], axis=1, kind="stable")[:, :FITS]
    return [
        [
            [int(label), *np.rint(100 * best[feature, label]).astype(int).tolist()]
            for label in order[feature]
            if best[feature, label, 2] >= LEAST_F1
        ]
        for feature in range(f.d_sae)
    ]


def seeds_by_models(
    named: pd.DataFrame, acts: Mapping[Key, FeatureActivations], fits: Mapping[Key, Sequence[list]]
) -> pd.DataFrame:
    """For each named feature one feature of every other dictionary by each of two routes.

    "alike" is the best correlated one; "label" the one that best fits the label that the named one
    fits best, if it fits any. `named` has columns model, seed, feature; `fits` from `best_fits`.
    Columns model, seed, feature, route, other_model, other_seed, other, and value: r or F1 in
    thousandths.
    """
    best: dict[tuple[Key, int], tuple[int, int]] = {}
    for key, every in fits.items():
        for feature, own in enumerate(every):
            for label, _, _, f1, _ in own:
                best[key, label] = max(best.get((key, label), (0, 0)), (10 * f1, -feature))
    rows: list[tuple] = []
    for (model, seed), own in named.groupby(["model", "seed"]):
        features = own["feature"].to_numpy(dtype=np.int64)
        a = acts[model, seed].matrix[:, features]
        for key in acts.keys() - {(model, seed)}:
            r = pearson(a, acts[key].matrix)
            for feature, row in zip(features.tolist(), r, strict=True):
                here = (model, seed, feature)
                rows.append((*here, "alike", *key, int(row.argmax()), thousandths(row.max())))
                first = [fit[0] for fit in fits[model, seed][feature][:1]]
                for f1, other in [best[key, label] for label in first if (key, label) in best]:
                    rows.append((*here, "label", *key, -other, f1))
    columns = ["model", "seed", "feature", "route", "other_model", "other_seed", "other", "value"]
    return pd.DataFrame(rows, columns=columns).sort_values(columns[:6], ignore_index=True)


def thousandths(r: float) -> int:
    """A correlation in thousandths, cut and not rounded: 0.7996 has not reached 0.8.

    A millionth is forgiven, which float32 may take from a number like 0.7.
    """
    return math.floor(1000 * float(r) + 1e-3)


def choose_examples(
    f: FeatureActivations, features: np.ndarray, documents: np.ndarray, *,
    top: int, per_quarter: int, rng: np.random.Generator,
) -> pd.DataFrame:  # fmt: skip
    """The strongest examples of each feature, and random ones from the quarters of its firings.

    Columns row (place in `features`), strongest, token, start, stop; strongest ones first.
    """
    flat = np.asarray(documents).reshape(-1)
    rows: list[tuple[int, bool, int]] = []
    for row, feature in enumerate(features):
        tokens, values = f.of(feature)
        seen: Counter[int] = Counter()
        end = len(rows) + top
        for token in tokens[np.lexsort((tokens, -values))]:
            seen[flat[token]] += 1
            if seen[flat[token]] <= PER_DOCUMENT:
                rows.append((row, True, token))
            if len(rows) == end:
                break
        some = from_each_quarter(values, 4 * per_quarter, rng)
        some = some[np.lexsort((tokens[some], -values[some]))]
        rows += [(row, False, token) for token in tokens[some]]
    chosen = pd.DataFrame(rows, columns=["row", "strongest", "token"])
    start, stop = token_windows(documents, chosen["token"].to_numpy(dtype=int), BEFORE, AFTER)
    return chosen.assign(start=start, stop=stop)


def describe_features(
    f: FeatureActivations, features: np.ndarray, stream: Stream, effects: np.ndarray, *,
    beside: Sequence[Counterparts], fits: Sequence[list], top: int, per_quarter: int,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:  # fmt: skip
    """One dictionary for each of `features` of one autoencoder, with everything its page shows.

    `effects` [features, vocab] from `token_effects`; `fits` of all features, from `best_fits`.
    Keys: firings, peak, hist (20 bins between 0 and peak), on, up, down, mix (firings by kind of
    text), labels, top and typical (windows), and beside: for each counterpart [route, where,
    feature, thousandths of r, and the first windows of `top` under it: [offset, level, ...] each].
    """
    assert len(effects) == len(features), "effects of other features"
    counts, peaks = activation_histograms(f)
    up, down = extreme_tokens(effects), extreme_tokens(-effects)
    fired_on = tokens_fired_on(f, stream.ids, TOKENS_SHOWN)
    kinds, m = stream.kinds.reshape(-1), f.matrix
    cells = (m.indices, np.repeat(kinds, np.diff(m.indptr)))
    mix = sp.coo_array((np.ones(m.nnz, int), cells), (f.d_sae, int(kinds.max()) + 1)).toarray()
    told: list[dict[str, Any]] = [
        {
            "firings": int(counts[n].sum()),
            "peak": float(f"{peaks[n]:.4g}"),
            "hist": counts[n].tolist(),
            "on": fired_on[n],
            "up": up[row],
            "down": down[row],
            "mix": mix[n].tolist(),
            "labels": fits[n],
            "top": [],
            "typical": [],
            "beside": [
                [c.route, c.where, int(c.features[row]), thousandths(c.r[row]), []] for c in beside
            ],
        }
        for row, n in enumerate(features)
    ]
    chosen = choose_examples(
        f, features, stream.documents, top=top, per_quarter=per_quarter, rng=rng
    )
    for e, fires in zip(chosen.itertuples(), Levels(f).within(features, chosen), strict=True):
        window = [e.token, e.token - e.start, e.stop - 1 - e.token, *fires]
        told[e.row]["top" if e.strongest else "typical"].append(window)
    first = chosen[chosen["strongest"]].groupby("row").head(COMPARED)
    for place, c in enumerate(beside):
        under = c.levels.within(c.features, first)
        for row, fires in zip(first["row"], under, strict=True):
            told[row]["beside"][place][4].append(fires)
    return told
