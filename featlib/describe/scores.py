"""How well explanations predict activations on text that they have not seen.

The text is cut into short windows. Whole documents go to one of two halves: explanations are found
in the first and scored in the second. Every feature is scored on the same number of windows: some
in which it fires, as many from each quantile of its strength, and as many in which it is silent.
Two scores, both without a threshold chosen on the scoring half:

- correlation (the paper's): Pearson between predicted and true activation over all tokens of those
  windows, zeros included;
- detection (EleutherAI's): does it fire anywhere in the window, yes or no? The share of right
  answers, half the windows being silent, so that guessing gives 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.optimize import linear_sum_assignment

from featlib import FeatlibError
from featlib.describe.cues import (
    STRONGEST,
    Rules,
    Text,
    explain,
    label_fits,
    read_sentence,
    simulate,
    write_sentence,
)

AT_ONCE = 64  # features whose dense predictions exist at one time


@dataclass(frozen=True)
class Windows:
    """Token indices [windows, window] of both halves; no document lies in both."""

    explain: np.ndarray
    score: np.ndarray

    @property
    def size(self) -> int:
        return self.explain.shape[1]


def split_windows(
    documents: np.ndarray, window: int, *, kinds: np.ndarray | None = None, seed: int
) -> Windows:
    """Cut `documents` [blocks, context] into windows, and documents into two halves.

    Documents are dealt out in random order to the half that has fewer tokens so far, for each of
    `kinds` (same shape; a number for each kind of text) apart, so that both halves hold each kind.
    A window with documents of both halves belongs to none. Windows do not cross blocks.
    """
    blocks, context = documents.shape
    if not 1 <= window <= context:
        raise FeatlibError(f"window is {window} tokens; it must be 1 to {context}, one block")
    flat = documents.reshape(-1)
    known, first, place, size = np.unique(
        flat, return_index=True, return_inverse=True, return_counts=True
    )
    kind = np.zeros(len(known), int) if kinds is None else np.asarray(kinds).reshape(-1)[first]
    half = np.zeros(len(known), dtype=np.int8)
    rng = np.random.default_rng(seed)
    held = {int(k): [0, 0] for k in kind}
    for d in rng.permutation(len(known)):
        have = held[int(kind[d])]
        half[d] = int(have[1] < have[0])
        have[half[d]] += int(size[d])
    per_block = context // window
    index = np.arange(blocks * context).reshape(blocks, context)[:, : per_block * window]
    index = index.reshape(-1, window)
    side = half[place.reshape(-1)][index]
    out = [index[(side == s).all(axis=1)] for s in (0, 1)]
    if min(map(len, out)) == 0:
        raise FeatlibError(
            f"{len(known)} documents cannot be parted into one half to explain and one to score: "
            "give more text (stream_tokens)"
        )
    return Windows(*out)


def choose_windows(
    peaks: np.ndarray, n: int, rng: np.random.Generator, quantiles: int = 4
) -> np.ndarray:
    """2n windows to score a feature on: n in which it fires, n in which it is silent.

    `peaks` [windows]: the feature's largest activation in each. As many windows (to within one)
    come from each quantile of the peaks above zero. Raises where there are too few of either.
    """
    fires, silent = np.flatnonzero(peaks > 0), np.flatnonzero(peaks <= 0)
    if min(len(fires), len(silent)) < n:
        raise FeatlibError(
            f"a feature fires in {len(fires)} of {len(peaks)} windows; scoring takes {n} with and "
            f"{n} without it: choose_features leaves such features out"
        )
    order = fires[np.argsort(peaks[fires], kind="stable")]
    parts = np.array_split(order, quantiles)
    wanted = [len(p) for p in np.array_split(np.arange(n), quantiles)]
    drawn = [
        rng.choice(p, min(k, len(p)), replace=False) for p, k in zip(parts, wanted, strict=True)
    ]
    drawn.append(rng.choice(silent, n, replace=False))
    return np.concatenate(drawn)


def window_peaks(activations: sp.sparray, windows: np.ndarray) -> sp.csc_array:
    """[windows, features] each feature's largest activation in each of `windows`."""
    part = sp.csr_array(activations)[windows.reshape(-1)].tocsc()
    part.sort_indices()
    row = part.indices // windows.shape[1]
    col = np.repeat(np.arange(part.shape[1]), np.diff(part.indptr))
    starts = np.ones(len(row), dtype=bool)
    starts[1:] = (row[1:] != row[:-1]) | (col[1:] != col[:-1])
    starts = np.flatnonzero(starts)
    peaks = np.maximum.reduceat(part.data, starts) if len(starts) else part.data
    shape = (len(windows), part.shape[1])
    return sp.csc_array((peaks, (row[starts], col[starts])), shape=shape)


def choose_features(activations: sp.sparray, windows: Windows, n_windows: int) -> np.ndarray:
    """Features that can be explained and scored: in both halves they fire in at least `n_windows`
    windows, and are silent in as many."""
    ok = np.ones(activations.shape[1], dtype=bool)
    for half in (windows.explain, windows.score):
        firing = np.diff(window_peaks(activations, half).indptr)
        ok &= (firing >= n_windows) & (len(half) - firing >= n_windows)
    return np.flatnonzero(ok)


# --- scores -----------------------------------------------------------------------------------


def correlate(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Pearson along the last axis; 0 where either is constant: such a prediction says nothing."""
    x = np.asarray(predicted, dtype=np.float64)
    y = np.asarray(true, dtype=np.float64)
    x, y = x - x.mean(axis=-1, keepdims=True), y - y.mean(axis=-1, keepdims=True)
    norm = np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1))
    return np.divide((x * y).sum(axis=-1), norm, out=np.zeros_like(norm), where=norm > 1e-12)


def detection_score(says: np.ndarray, fires: np.ndarray) -> float:
    """Mean of the shares of right answers in windows with and without the feature; [windows]."""
    return float((says[fires].mean() + (~says[~fires]).mean()) / 2)


def best_cut(predicted: np.ndarray, fires: np.ndarray) -> np.ndarray:
    """The strength 1..9 from which saying yes is right most often, by `detection_score`.

    `predicted` [windows, features] the largest in each window, `fires` the truth. [features] int.
    """
    yes = fires.sum(axis=0).clip(1)
    no = (~fires).sum(axis=0).clip(1)
    scores = []
    for cut in range(1, STRONGEST + 1):
        says = predicted >= cut
        scores.append((says & fires).sum(axis=0) / yes + (~says & ~fires).sum(axis=0) / no)
    return np.argmax(scores, axis=0) + 1


def explain_and_score(
    activations: sp.sparray,
    features: np.ndarray,
    text: Text,
    windows: Windows,
    *,
    n_windows: int = 20,
    max_cues: int = 10,
    promoted: Sequence[Sequence[str]] | None = None,
    seed: int,
) -> pd.DataFrame:
    """Explain `features` of one model on one half of the text, and score them on the other.

    `activations` [tokens, d_sae]; `promoted` the shown tokens that each of `features` makes
    likelier. One row a feature: feature, firings, explanation; correlation and detection; the same
    of two baselines on the same windows, `frequency_*` (strength by how common, or how rare, a
    token is; the better of the two on the first half) and `other_*` (the explanation of another
    feature of the table, drawn at random); `lookup_correlation`, of the mean activation of every
    single token, a table and no explanation; `correlation_everywhere`, over all scoring text.
    """
    activations = sp.csr_array(activations)[:, features]
    seen, unseen = windows.explain.reshape(-1), windows.score.reshape(-1)
    rules = explain(activations, text, seen, max_cues=max_cues)
    rules = _with_cuts(rules, activations, text, windows)
    fits = label_fits(activations, text, seen)
    sentences = [
        write_sentence(r, text, promoted[j] if promoted is not None else (), fits[j])
        for j, r in enumerate(rules)
    ]
    # From here on the sentences are all that is known.
    rules = [read_sentence(sentence, text) for sentence in sentences]
    partner = _partners(len(features), np.random.default_rng(seed))
    rarity = _commonness(text, seen)
    parts = []
    for start in range(0, len(features), AT_ONCE):
        some = slice(start, min(start + AT_ONCE, len(features)))
        learned = activations[seen, some].toarray()
        truth = activations[unseen, some].toarray()
        own = simulate(rules[some], text, unseen)
        others = [rules[j] for j in partner[some]]
        other = simulate(others, text, unseen)
        common, common_cut = _frequency_rule(rarity[text.ids[seen]], learned, windows.size)
        predictions: dict[str, tuple[np.ndarray, Sequence[int]]] = {
            "": (own, [r.cut for r in rules[some]]),
            "other_": (other, [r.cut for r in others]),
            "frequency_": (_either_way(rarity[text.ids[unseen]], common), list(common_cut)),
        }
        table = _table(text.ids[seen], learned, len(text.vocabulary))[text.ids[unseen]]
        peaks = truth.reshape(-1, windows.size, truth.shape[1]).max(axis=1)
        for j, feature in enumerate(features[some]):
            rng = np.random.default_rng([seed, int(feature)])
            drawn = choose_windows(peaks[:, j], n_windows, rng)
            true = truth[:, j].reshape(-1, windows.size)[drawn]
            firings = int((truth[:, j] > 0).sum() + (learned[:, j] > 0).sum())
            row: dict[str, float] = {"feature": int(feature), "firings": firings}
            for name, (values, cuts) in predictions.items():
                guess = values[:, j].reshape(-1, windows.size)[drawn]
                row[f"{name}correlation"] = float(correlate(guess.ravel(), true.ravel()))
                says = guess.max(axis=1) >= cuts[j]
                row[f"{name}detection"] = detection_score(says, true.max(axis=1) > 0)
            looked_up = table[:, j].reshape(-1, windows.size)[drawn]
            row["lookup_correlation"] = float(correlate(looked_up.ravel(), true.ravel()))
            row["correlation_everywhere"] = float(correlate(own[:, j], truth[:, j]))
            parts.append(row)
    return pd.DataFrame(parts).assign(explanation=sentences)


def _with_cuts(
    rules: list[Rules], activations: sp.csr_array, text: Text, windows: Windows
) -> list[Rules]:
    fires = (window_peaks(activations, windows.explain) > 0).toarray()
    out = []
    for start in range(0, len(rules), AT_ONCE):
        some = rules[start : start + AT_ONCE]
        guess = simulate(some, text, windows.explain.reshape(-1))
        peaks = guess.reshape(len(windows.explain), windows.size, len(some)).max(axis=1)
        cuts = best_cut(peaks, fires[:, start : start + AT_ONCE])
        out += [replace(r, cut=int(c)) for r, c in zip(some, cuts, strict=True)]
    return out


def _partners(n: int, rng: np.random.Generator) -> np.ndarray:
    """[n] another one for each: a random cycle through all."""
    order = rng.permutation(n)
    partner = np.empty(n, dtype=np.int64)
    partner[order] = np.roll(order, 1)
    return partner


# --- baselines --------------------------------------------------------------------------------


def _commonness(text: Text, rows: np.ndarray) -> np.ndarray:
    """[vocabulary] 0 (rarest) to 9 (most common) by the logarithm of a token's count."""
    counts = np.log1p(np.bincount(text.ids[rows], minlength=len(text.vocabulary)))
    return STRONGEST * counts / max(counts.max(), 1e-12)


def _either_way(commonness: np.ndarray, common: np.ndarray) -> np.ndarray:
    """[tokens, features] strength grows with how common a token is, or with how rare."""
    return np.where(common[None, :], commonness[:, None], STRONGEST - commonness[:, None])


def _frequency_rule(
    commonness: np.ndarray, true: np.ndarray, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which way round fits each feature better on this half, and its cut: both [features]."""
    common = (commonness - commonness.mean()) @ true >= 0  # the sign of their covariance
    guess = _either_way(commonness, common)
    shape = (-1, window, true.shape[1])
    peaks, fires = guess.reshape(shape).max(axis=1), true.reshape(shape).max(axis=1) > 0
    return common, best_cut(peaks, fires)


def _table(ids: np.ndarray, true: np.ndarray, size: int, shrink: float = 2.0) -> np.ndarray:
    """[vocabulary, features] mean activation at each token; rarely seen ones are pulled to 0."""
    ones = np.ones(len(ids), dtype=np.float32)
    at = sp.csr_array((ones, (ids, np.arange(len(ids)))), shape=(size, len(ids)))
    return (at @ true) / (np.asarray(at.sum(axis=1)).reshape(-1, 1) + shrink)


# --- summaries --------------------------------------------------------------------------------


def median_interval(
    values: np.ndarray, rng: np.random.Generator, *, n_boot: int = 1000, level: float = 0.95
) -> tuple[float, float, float]:
    """Median and its interval from resampling the features: (median, low, high)."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise FeatlibError("a median needs at least one feature")
    draws = np.median(rng.choice(values, (n_boot, len(values))), axis=1)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(np.median(values)), float(low), float(high)


def alike_in_firings(firings: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each of `firings` a different entry of `among` that is as close to it as can be.

    Indices into `among`, at most as many as it has; distances are between logarithms, their sum
    is the smallest possible.
    """
    distance = np.abs(np.log(np.asarray(firings)[:, None]) - np.log(np.asarray(among)[None, :]))
    return linear_sum_assignment(distance)[1]
