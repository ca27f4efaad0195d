"""Which feature fits a label best, and what it takes it from: the token, or its context?

`fit_label` finds the feature and measures it beside its rivals. A model of one layer has seen
little context: much of what a feature detects may be the token itself, so `token_identity_share`
and `separation_within_tokens` say how much is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import sparse

from featlib.cases.detectors import (
    MEASURES,
    Draws,
    LabelledStream,
    best_threshold,
    evaluate_detector,
    feature_scores,
    feature_set_scores,
    rank_features,
    select_feature_set,
)
from featlib.cases.rivals import best_neuron, residual_probe, token_rule
from featlib.cases.subjects import Subject, best_dictionary
from featlib.dictionaries.features import FeatureActivations
from featlib.estimate import Estimate

TOP = 20  # candidates that a fit keeps


@dataclass(frozen=True)
class LabelFit:
    """A model's feature that fits a label best, and how well it and its rivals do on the test half.

    `test` has a row for each detector: detector, index, threshold, measures with intervals.
    """

    subject: Subject  # the model with the autoencoder in which the feature was found
    feature: int
    threshold: float
    candidates: pd.DataFrame  # rank_features, selection half
    members: pd.DataFrame  # select_feature_set, selection half
    test: pd.DataFrame
    n_labelled: int  # labelled tokens of the test half
    token_share: float  # of the feature's variance, explained by the token's identity alone
    within_tokens: float  # AUROC among tokens of one id; 0.5: context adds nothing

    def row(self, detector: str = "feature") -> pd.Series:
        """Numbers of one detector, by its name in `test`."""
        return self.test.set_index("detector").loc[detector]


def fit_label(
    subjects: Sequence[Subject],
    stream: LabelledStream,
    draws: Draws,
    *,
    rivals: bool = False,
) -> LabelFit | None:
    """Find the feature that detects the label best, and compare it with what a sceptic would try.

    `subjects`: one model with each of its autoencoders. Detectors: feature; feature set
    (`select_feature_set` of the autoencoder that has the best; index: how many); token rule; random
    feature, the mean over several features of like density, their lowest and highest as its
    interval; where `rivals` are asked for also neuron (the best one) and probe (logistic, on the
    residual stream). None where no feature fires on the selection half.
    """
    subject = best_dictionary(subjects, stream)
    if subject is None:
        return None
    f = subject.features
    candidates = rank_features(f, stream, TOP)
    feature, threshold = int(candidates["feature"][0]), float(candidates["threshold"][0])
    # Of sets that are equally good, the feature's own autoencoder has the first word.
    offered = [f, *(other.features for other in subjects if other is not subject)]
    sets = [select_feature_set(each, stream) for each in offered]
    home = int(np.argmax([found["f1"].max() if len(found) else 0.0 for found in sets]))
    by_token = token_rule(stream)
    rows: list[tuple[str, int, float, np.ndarray]] = [
        ("feature", feature, threshold, feature_scores(f, feature)),
        ("feature set", len(sets[home]), 1.0, feature_set_scores(offered[home], sets[home])),
        ("token rule", -1, best_threshold(by_token, stream), by_token),
    ]
    if rivals:
        index, values = best_neuron(subject.sites.neurons.cpu().numpy(), stream)
        rows.append(("neuron", index, best_threshold(values, stream), values))
        values, cut = residual_probe(subject.sites.residual.cpu().numpy(), stream, seed=draws.seed)
        rows.append(("probe", -1, cut, values))
    table: list[dict[str, float | str]] = []
    for name, index, cut, score in rows:
        measured = evaluate_detector(score, cut, stream, draws)
        table.append({"detector": name, "index": index, "threshold": cut, **measured})
    others = subject.with_controls(feature, draws.n_random, draws.seed)[1:]
    once = replace(draws, n_boot=0)
    chance = pd.DataFrame([evaluate_feature(f, i, stream, once) for i in others])
    table.append({"detector": "random feature", "index": -1, "threshold": np.nan})
    for name in MEASURES if len(chance) else ():
        found = chance[name]
        table[-1] |= Estimate(found.mean(), found.min(), found.max()).named(name)
    alone = FeatureActivations(f.matrix[:, [feature]])
    return LabelFit(
        subject=subject,
        feature=feature,
        threshold=threshold,
        candidates=candidates,
        members=sets[home],
        test=pd.DataFrame(table),
        n_labelled=int(stream.mask[stream.test].sum()),
        token_share=float(token_identity_share(alone, stream.ids, stream.selection)[0]),
        within_tokens=float(separation_within_tokens(alone, stream, stream.test)[0]),
    )


def evaluate_feature(
    f: FeatureActivations, feature: int, stream: LabelledStream, draws: Draws
) -> dict[str, float]:
    """Test-half numbers of one given feature: a match by correlation, or a transferred one.

    Its threshold is the best on the selection half, and never below 0: a silent feature does not
    say yes. Adds `threshold` to what `evaluate_detector` returns.
    """
    score = feature_scores(f, feature)
    cut = max(best_threshold(score, stream), 0.0)
    return {"threshold": cut} | evaluate_detector(score, cut, stream, draws)


def tally_tokens(
    said: np.ndarray, stream: LabelledStream, token_texts: Sequence[str], top: int
) -> pd.DataFrame:
    """Which tokens a detector takes for the label, which it misses: the test half by token id.

    `said` bool [tokens]; `token_texts` the text of each id. Columns token, hits (labelled, said),
    misses, false_alarms (said, not labelled); commonest first.
    """
    table = pd.DataFrame(
        {
            "token": stream.ids,
            "hits": said & stream.mask,
            "misses": ~said & stream.mask,
            "false_alarms": said & ~stream.mask,
        }
    )[stream.test]
    counts = table.groupby("token").sum()
    counts = counts[counts.any(axis=1)]
    order = np.argsort(-counts.sum(axis=1).to_numpy(), kind="stable")[:top]
    counts = counts.iloc[order].reset_index()
    return counts.assign(token=[token_texts[index] for index in counts["token"]])


# ------------------------------------------------------------------------------ token or context


def token_identity_share(f: FeatureActivations, ids: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Share of each feature's variance that the token's identity explains: R2, [d_sae].

    Each token is predicted by the mean activation on its id over the tokens `chosen` (bool
    [tokens]), and the error is counted on all others: means and test never share a token, since
    a rare id would explain itself. Ids not seen before get the overall mean. At most 1; about 0
    (or a little less) where identity says nothing; NaN for a feature silent on the others.
    """
    ids = np.asarray(ids).reshape(-1)
    parts = []
    for half in (chosen, ~chosen):
        one_hot = sparse.csr_array(
            (np.ones(half.sum(), np.float64), (ids[half], np.flatnonzero(half))),
            shape=(int(ids.max()) + 1, f.n_tokens),
        )
        counts = np.bincount(ids[half], minlength=one_hot.shape[0]).astype(np.float64)
        parts.append((counts, (one_hot @ f.matrix).tocsr()))
    (n_seen, seen), (n, total) = parts
    overall = seen.sum(axis=0) / n_seen.sum()  # [d_sae]
    known = n_seen > 0
    mean = sparse.diags_array(1 / np.maximum(n_seen, 1)) @ seen  # [vocabulary, d_sae], sparse
    squares = np.asarray(f.matrix[~chosen].astype(np.float64).power(2).sum(axis=0))
    sums = np.asarray(total.sum(axis=0))
    # Error of a known id: squares - 2 mean * sum + n mean^2; of an unknown one, with `overall`.
    error = squares - 2 * np.asarray(mean.multiply(total).sum(axis=0))
    error += np.asarray((sparse.diags_array(n) @ mean.power(2)).sum(axis=0))
    error += n[~known].sum() * overall**2 - 2 * overall * np.asarray(total[~known].sum(axis=0))
    variance = squares - sums**2 / n.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(variance > 1e-9 * np.maximum(squares, 1e-30), 1 - error / variance, np.nan)


def separation_within_tokens(
    f: FeatureActivations, stream: LabelledStream, chosen: np.ndarray
) -> np.ndarray:
    """How well each feature tells labelled from unlabelled tokens of the same id: AUROC [d_sae].

    Over the tokens `chosen` (bool [tokens]): the share of pairs of tokens with equal id, one
    labelled and one not, in which the labelled one has the higher activation (ties one half).
    0.5 for whatever knows the token only; NaN if no id occurs with and without the label.
    """
    size = int(stream.ids.max()) + 1
    positive = np.bincount(stream.ids[chosen & stream.mask], minlength=size).astype(np.float64)
    negative = np.bincount(stream.ids[chosen & ~stream.mask], minlength=size).astype(np.float64)
    pairs = positive * negative  # [vocabulary]
    if pairs.sum() == 0:
        return np.full(f.d_sae, np.nan)
    c = f.columns
    feature = np.repeat(np.arange(f.d_sae), np.diff(c.indptr))
    rows = chosen[c.indices] & (pairs[stream.ids[c.indices]] > 0)
    feature, token, value = feature[rows], c.indices[rows], c.data[rows]
    label = stream.mask[token]
    group = feature.astype(np.int64) * size + stream.ids[token]
    order = np.lexsort((value, group))
    feature, group, value, label = feature[order], group[order], value[order], label[order]
    ids = stream.ids[token[order]]
    first = np.diff(group, prepend=-1) != 0
    tie = np.cumsum(first | (np.diff(value, prepend=-1) != 0)) - 1
    starts, group = np.flatnonzero(first), np.cumsum(first) - 1
    feature, ids = feature[starts], ids[starts]  # of each group
    # Mann and Whitney: from the sum of the labelled tokens' ranks among all of one id. Tokens that
    # are not listed have activation 0 and share the lowest ranks; equal values share theirs.
    place = np.arange(1, len(group) + 1) - starts[group]
    rank = (np.bincount(tie, weights=place) / np.bincount(tie))[tie]
    listed = np.bincount(group, weights=label)  # labelled ones that are
    silent = positive[ids] + negative[ids] - np.bincount(group)
    ranks = np.bincount(group, weights=rank * label) + listed * silent
    ranks += (positive[ids] - listed) * (silent + 1) / 2
    won = ranks - positive[ids] * (positive[ids] + 1) / 2
    # An id on which a feature is wholly silent has no group: all its pairs are ties.
    more = np.bincount(feature, weights=won - pairs[ids] / 2, minlength=f.d_sae)
    return (pairs.sum() / 2 + more) / pairs.sum()


def rank_context_features(
    f: FeatureActivations, stream: LabelledStream, *, among: int, top: int
) -> pd.DataFrame:
    """Features that detect the label by more than the token's identity, best first.

    Of the `among` best by F1 on the selection half, ordered by F1 times the part of the variance
    that identity leaves unexplained. Columns: feature, f1, token_share (both of the selection half)
    and within_tokens (of the test half: what to report).
    """
    table = rank_features(f, stream, among)
    # Within the selection half: means from half of its documents, error on the other half.
    used = np.unique(stream.documents[stream.selection])
    first = stream.selection & (np.searchsorted(used, stream.documents) % 2 == 0)
    inner = FeatureActivations(f.matrix[stream.selection])
    share = token_identity_share(inner, stream.ids[stream.selection], first[stream.selection])
    table["token_share"] = share[table["feature"]]
    table["within_tokens"] = separation_within_tokens(f, stream, stream.test)[table["feature"]]
    worth = table["f1"] * (1 - table["token_share"].clip(0, 1).fillna(1))
    table = table.iloc[np.argsort(-worth.to_numpy(), kind="stable")]
    return table.drop(columns="threshold").head(top).reset_index(drop=True)
