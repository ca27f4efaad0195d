"""How well explanations predict activations on text that they have not seen.

Explanations are found in the first half of `featlib.describe.windows` and scored in the second.
Two scores, both without a threshold:

- correlation (the paper's): Pearson between predicted and true activation over all tokens of those
  windows, zeros included;
- detection: how often a window in which the feature fires is predicted to fire more strongly than
  one in which it is silent (the area under the ROC curve; guessing gives 0.5).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.optimize import linear_sum_assignment

from featlib.describe import cues
from featlib.describe.cues import Text
from featlib.describe.windows import Windows, choose_windows
from featlib.estimate import Estimate, percentile_interval
from featlib.family import PRINT_NAMES

AT_ONCE = 64  # features whose dense predictions exist at one time
SHRINK = 2.0  # so many silent sightings count against every token of the table of all tokens
N_BOOT = 1000


def correlate(predicted: np.ndarray, true: np.ndarray) -> float:
    """Pearson over all tokens; 0 where either is constant: such a prediction says nothing."""
    x, y = (np.asarray(values, dtype=np.float64).ravel() for values in (predicted, true))
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 1e-12 else 0.0


def detect(predicted: np.ndarray, true: np.ndarray) -> float:
    """Detection, as above, from the largest values in each of the windows; [windows, window]."""
    said, fires = predicted.max(axis=1), true.max(axis=1) > 0
    yes, no = said[fires][:, None], said[~fires][None, :]
    return float(((yes > no) + 0.5 * (yes == no)).mean())


def explain_and_score(
    activations: sp.sparray, features: np.ndarray, text: Text, windows: Windows, *,
    n_windows: int, max_cues: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Explain `features` of one model on one half of the text, and score them on the other.

    `activations` [tokens, d_sae]. One row a feature: feature, firings, explanation, rules (see
    `cues`), correlation and detection, and the correlations of two others on the same windows:
    `other`, the explanation of another feature of the table, drawn at random, and `lookup`, the
    mean activation of every single token of the vocabulary, which is a table and no explanation.
    """
    activations = sp.csr_array(activations)[:, features]
    seen, unseen = windows.explain.reshape(-1), windows.score.reshape(-1)
    rules = cues.explain(activations, text, seen, max_cues)
    order = np.random.default_rng(seed).permutation(len(features))
    partner = np.empty_like(order)  # another feature for each: a random cycle through all
    partner[order] = np.roll(order, 1)
    rows = []
    for start in range(0, len(features), AT_ONCE):
        some = np.arange(start, min(start + AT_ONCE, len(features)))
        learned, truth = (activations[half][:, some].toarray() for half in (seen, unseen))
        predicted = {
            "correlation": cues.simulate([rules[j] for j in some], text, unseen),
            "other": cues.simulate([rules[j] for j in partner[some]], text, unseen),
            "lookup": token_means(text, seen, learned)[text.ids[unseen]],
        }
        for j, n in enumerate(some):
            cut = truth[:, j].reshape(windows.score.shape)
            rng = np.random.default_rng([seed, int(features[n])])
            drawn = choose_windows(cut.max(axis=1), n_windows, rng)
            guess = {k: v[:, j].reshape(cut.shape)[drawn] for k, v in predicted.items()}
            row = {
                "feature": int(features[n]),
                "firings": int((truth[:, j] > 0).sum() + (learned[:, j] > 0).sum()),
                "explanation": cues.write_sentence(rules[n], text),
                "rules": rules[n],
                **{score: correlate(values, cut[drawn]) for score, values in guess.items()},
                "detection": detect(guess["correlation"], cut[drawn]),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def token_means(text: Text, rows: np.ndarray, true: np.ndarray) -> np.ndarray:
    """[vocabulary, features] mean activation at each token; rarely seen ones are pulled to 0."""
    ones, shape = np.ones(len(rows), dtype=np.float32), (len(text.vocabulary), len(rows))
    at = sp.csr_array((ones, (text.ids[rows], np.arange(len(rows)))), shape=shape)
    return (at @ true) / (np.asarray(at.sum(axis=1)).reshape(-1, 1) + SHRINK)


def median_estimate(values: pd.Series, rng: np.random.Generator) -> Estimate:
    """Median and its interval from resampling the features."""
    draws = np.median(rng.choice(values.to_numpy(), (N_BOOT, len(values))), axis=1)
    return Estimate(float(values.median()), *percentile_interval(draws))


def group_features(found: pd.DataFrame, parent: str, child: str) -> dict[str, pd.DataFrame]:
    """Explained features by group; a group without any is left out.

    `found` as from `explain_and_score`, with columns model, sampled (drawn at random) and persists
    (in the step from `parent` to `child`). The groups: what was drawn of either model, what
    persists, and of what was drawn and does not persist as many that fire about as often.
    """
    sampled, stays = found[found["sampled"]], found[found["persists"]]
    own = sampled[sampled["model"] == parent]
    goes = own[~own["persists"]]
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
    return pd.DataFrame(
        {"group": group, "features": len(table), "median": found.value}
        | {"low": found.low, "high": found.high}
        for group, table in groups.items()
        for found in [median_estimate(table["correlation"], rng)]
    )


def alike_in_firings(firings: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each of `firings` a different entry of `among`, as near as can be: indices into `among`.

    At most as many as it has; the sum of distances between logarithms is the smallest possible.
    """
    distance = np.abs(np.log(np.asarray(firings)[:, None]) - np.log(np.asarray(among)[None, :]))
    return linear_sum_assignment(distance)[1]
