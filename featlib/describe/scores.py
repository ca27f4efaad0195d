"""How well explanations predict activations on text that they have not seen.

Explanations are found in the first half of `featlib.describe.windows` and scored in the second.
Two scores, both without a threshold chosen on the scoring half:

- correlation (the paper's): Pearson between predicted and true activation over all tokens of those
  windows, zeros included;
- detection (EleutherAI's): does it fire anywhere in the window, yes or no? The share of right
  answers, half the windows being silent, so that guessing gives 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.optimize import linear_sum_assignment

from featlib.describe import cues
from featlib.describe.cues import STRONGEST, Rules, Text
from featlib.describe.windows import Windows, choose_windows, window_firings
from featlib.estimate import Estimate, percentile_interval
from featlib.family import PRINT_NAMES

AT_ONCE = 64  # features whose dense predictions exist at one time
LABEL_F1 = 0.5  # from here on a sentence says that a feature fits a label
SHRINK = 2.0  # so many silent sightings count against every token of the table of all tokens
N_BOOT = 1000


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


def agreement(says: sp.csr_array, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How well saying yes tells each label: precision, recall and F1, [features, labels] each.

    `says` [tokens, features] holds 1 where a feature says yes; `truth` bool [tokens, labels].
    """
    hits = says.T @ truth.astype(np.float32)
    said = np.bincount(says.indices, weights=says.data, minlength=says.shape[1])[:, None]
    true = truth.sum(axis=0)
    f1 = 2 * hits / np.maximum(said + true, 1)
    return hits / np.maximum(said, 1), hits / np.maximum(true, 1), f1


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
    feature of the table, drawn at random); and `lookup_correlation`, of the mean activation of
    every single token, which is a table and no explanation.
    """
    activations = sp.csr_array(activations)[:, features]
    seen, unseen = windows.explain.reshape(-1), windows.score.reshape(-1)
    rules = cues.explain(activations, text, seen, max_cues)
    rules = _with_cuts(rules, activations, text, windows)
    _, _, f1 = agreement((activations[seen] > 0).astype(np.float32), text.labels[seen])
    sentences = []
    for j, r in enumerate(rules):
        fits = {text.label_names[i]: f1[j, i] for i in np.flatnonzero(f1[j] >= LABEL_F1)}
        sentences.append(cues.write_sentence(r, text, promoted[j] if promoted else (), fits))
    # From here on the sentences are all that is known.
    rules = [cues.read_sentence(sentence, text) for sentence in sentences]
    order = np.random.default_rng(seed).permutation(len(features))
    partner = np.empty_like(order)  # another feature for each: a random cycle through all
    partner[order] = np.roll(order, 1)
    rarity = _commonness(text, seen)
    parts = []
    for start in range(0, len(features), AT_ONCE):
        some = slice(start, min(start + AT_ONCE, len(features)))
        learned = activations[seen, some].toarray()
        truth = activations[unseen, some].toarray()
        own = cues.simulate(rules[some], text, unseen)
        others = [rules[j] for j in partner[some]]
        other = cues.simulate(others, text, unseen)
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
            parts.append(row)
    return pd.DataFrame(parts).assign(explanation=sentences)


def _with_cuts(
    rules: list[Rules], activations: sp.csr_array, text: Text, windows: Windows
) -> list[Rules]:
    fires = (window_firings(activations, windows.explain) > 0).toarray()
    out = []
    for start in range(0, len(rules), AT_ONCE):
        some = rules[start : start + AT_ONCE]
        guess = cues.simulate(some, text, windows.explain.reshape(-1))
        peaks = guess.reshape(len(windows.explain), windows.size, len(some)).max(axis=1)
        cuts = best_cut(peaks, fires[:, start : start + AT_ONCE])
        out += [replace(r, cut=int(c)) for r, c in zip(some, cuts, strict=True)]
    return out


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


def _table(ids: np.ndarray, true: np.ndarray, size: int) -> np.ndarray:
    """[vocabulary, features] mean activation at each token; rarely seen ones are pulled to 0."""
    ones = np.ones(len(ids), dtype=np.float32)
    at = sp.csr_array((ones, (ids, np.arange(len(ids)))), shape=(size, len(ids)))
    return (at @ true) / (np.asarray(at.sum(axis=1)).reshape(-1, 1) + SHRINK)


# --- summaries --------------------------------------------------------------------------------


def median_estimate(values: np.ndarray, rng: np.random.Generator) -> Estimate:
    """Median and its interval from resampling the features."""
    values = np.asarray(values, dtype=np.float64)
    draws = np.median(rng.choice(values, (N_BOOT, len(values))), axis=1)
    return Estimate(float(np.median(values)), *percentile_interval(draws))


def group_features(found: pd.DataFrame, parent: str, child: str) -> dict[str, pd.DataFrame]:
    """Explained features by group; a group without any is left out.

    `found` as from `explain_and_score`, with columns model, sampled (drawn at random) and persists
    (in the step from `parent` to `child`). The groups: what was drawn of either model, what
    persists, and of what was drawn and does not persist as many that fire about as often.
    """
    sampled = found[found["sampled"]]
    own = sampled[sampled["model"] == parent]
    stays, goes = found[found["persists"]], own[~own["persists"]]
    groups = {
        PRINT_NAMES[parent]: own,
        PRINT_NAMES[child]: sampled[sampled["model"] == child],
        f"{PRINT_NAMES[parent]}, persisting": stays,
        f"{PRINT_NAMES[parent]}, equally common": goes.iloc[
            alike_in_firings(stays["firings"], goes["firings"])
        ],
    }
    return {group: table for group, table in groups.items() if len(table)}


def group_medians(groups: Mapping[str, pd.DataFrame], rng: np.random.Generator) -> pd.DataFrame:
    """Columns group, features, median, low, high: of the correlations in each group."""
    rows = []
    for group, table in groups.items():
        middle = median_estimate(table["correlation"].to_numpy(), rng)
        rows.append((group, len(table), middle.value, middle.low, middle.high))
    return pd.DataFrame(rows, columns=["group", "features", "median", "low", "high"])


def alike_in_firings(firings: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each of `firings` a different entry of `among` that is as close to it as can be.

    Indices into `among`, at most as many as it has; distances are between logarithms, their sum
    is the smallest possible.
    """
    distance = np.abs(np.log(np.asarray(firings)[:, None]) - np.log(np.asarray(among)[None, :]))
    return linear_sum_assignment(distance)[1]
