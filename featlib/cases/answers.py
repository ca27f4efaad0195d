"""What became of a feature in other models: four questions, each a number beside its references.

readable   the feature itself, read in the model by transfer: the share of its F1 that is kept
found      the feature of the model's own autoencoders that goes best with it on the common stream
used       nats that taking it out costs, beyond taking out as much along a random direction
concept    its F1 less that of the best rule that sees the token alone

Every answer has an interval over documents; a `ceiling`, the same where nothing happened to the
model; and what the feature's peers do (`featlib.cases.peers`): `base_rate`, the share of them that
pass the same bar, and `percentile`, the share of them that the feature is above. The words follow
by the rules of `featlib.verdicts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from featlib.cases.detectors import (
    Draws,
    LabelledStream,
    Resampled,
    as_estimate,
    best_threshold,
    correlation,
    detector_draws,
    feature_scores,
)
from featlib.cases.edits import Removal, feature_part, losses_after, remove_feature
from featlib.cases.peers import Peers, detect_ids, detect_label, peers_used
from featlib.cases.rivals import token_rule
from featlib.cases.subjects import Subject
from featlib.cases.text import CaseText
from featlib.estimate import Estimate
from featlib.matching.correlation import pearson
from featlib.verdicts import BARS, QUESTIONS, Numbers, certainty, judge

COACTIVE = 0.5  # a feature that fires on this share of the labelled tokens is asked too
SHOWN = 5  # of them, those whose removal costs most


@dataclass(frozen=True)
class Trace:
    """A feature and its peers, read in one model by transfer."""

    scores: np.ndarray  # float32 [tokens]
    draws: dict[str, np.ndarray]  # of `detector_draws`
    removal: Removal  # at labelled tokens of the test half
    peers_f1: np.ndarray  # [n], each as a detector of its own ids,
    peers_label: np.ndarray  # [n], and of the label
    peers_low: np.ndarray  # nats that some of them cost beyond random directions, low ends


def trace_feature(
    subject: Subject,
    feature: int,
    peers: Peers,
    stream: LabelledStream,
    text: CaseText,
    draws: Draws,
) -> Trace:
    """Measure `feature` of the autoencoder that `subject` is read with, and its peers."""
    f = subject.features
    scores = feature_scores(f, feature)
    cut = max(best_threshold(scores, stream), 0.0)  # a silent feature does not say yes
    at = np.flatnonzero(text.inside(stream.mask & stream.test))
    return Trace(
        scores,
        detector_draws(scores, cut, stream, draws),
        remove_feature(subject, feature, at, stream.documents[at], draws),
        detect_ids(f, peers, stream),
        detect_label(f, peers, stream),
        peers_used(subject, peers, stream, text, draws),
    )


@dataclass(frozen=True)
class Match:
    """The feature of one autoencoder that goes best with the case's feature."""

    model: str
    text: str  # what that autoencoder learned from, if it is the reference read through other text
    seed: int
    feature: int
    r: Estimate  # on the common stream
    cosine: float  # between what the two write
    peers_r: np.ndarray  # [n], best correlation of each peer there


def best_match(
    mine: sp.csr_array,
    other: sp.csr_array,
    row: Tensor,
    decoder: Tensor,
    documents: np.ndarray,
    draws: Draws,
) -> tuple[int, Estimate, float, np.ndarray]:
    """The column of `other` [tokens, d_sae] that goes best with the first of `mine` [tokens, n].

    And its correlation, the cosine of its row of `decoder` with `row`, and the best correlation of
    each further column of `mine`, the peers.
    """
    r = pearson(mine, other)
    best = int(r[0].argmax())
    x, y = (m[:, [i]].toarray()[:, 0] for m, i in ((mine, 0), (other, best)))
    cosine = float(torch.nn.functional.cosine_similarity(decoder[best], row, dim=0))
    spread = correlation(x, y, documents.reshape(-1), draws)
    return best, spread, cosine, r[1:].max(axis=1)


def answer_questions(
    traces: Mapping[str, Trace],
    matches: list[Match],
    rule: np.ndarray,
    probes: Mapping[str, float],
    *,
    reference: str,
    placebo: Trace | None,
    labelled: int,
    firings: int,
    same: float,
) -> pd.DataFrame:
    """Columns question, model, value, low, high, base_rate, percentile, ceiling, parent, word, ...

    `traces` by model, the reference's too; `rule`: F1 [n_boot + 1] of the token rule, `probes`: F1
    of the probe by model; `labelled`: labelled tokens of the test half, `firings` of the feature on
    the common stream; `same`: the correlation from which two features count as one. `parent` is the
    reference's own value, `certainty` what the answer is worth.

    Ceilings. readable: `placebo`, the base trained on with its own text (1 where the feature is not
    the base's). found: the mean over the reference's autoencoders that learned from the child's
    text (over its own others where there are none). used: all that the MLP writes there. concept:
    the probe. Peers. used: those that are taken out; the percentile is among random directions.
    concept: the peers as detectors of this label. Without peers base_rate is 1 and percentile 0.5:
    nothing then shows that the test can be failed.
    """
    own, above = traces[reference], np.nextafter(0, 1)
    own_f1 = own.draws["f1"].clip(1e-9)

    def best(name: str) -> Match:
        return max((m for m in matches if m.model == name and not m.text), key=lambda m: m.r.value)

    def readable(name: str) -> tuple[Estimate, float, np.ndarray, float]:
        kept = as_estimate(traces[name].draws["f1"] / own_f1)
        ceiling = placebo.draws["f1"][0] / own_f1[0] if placebo else 1.0
        peers = traces[name].peers_f1 / own.peers_f1.clip(1e-9)
        return kept, ceiling, peers, BARS.keep_f1

    def found(name: str) -> tuple[Estimate, float, np.ndarray, float]:
        through = [m.r.value for m in matches if m.model == name and m.text]
        through = through or [m.r.value for m in matches if m.model == reference]
        each = [m.peers_r for m in matches if m.model == name and not m.text]
        return best(name).r, float(np.mean(through)), np.max(each, axis=0), same

    def used(name: str) -> tuple[Estimate, float, np.ndarray, float]:
        removal = traces[name].removal
        return removal.beyond, removal.mlp, traces[name].peers_low, above

    def concept(name: str) -> tuple[Estimate, float, np.ndarray, float]:
        more = as_estimate(traces[name].draws["f1"] - rule)
        return more, probes[name] - rule[0], traces[name].peers_label - rule[0], above

    parents = {
        "readable": as_estimate(own.draws["f1"]),
        "found": best(reference).r,
        "used": own.removal.beyond,
        "concept": concept(reference)[0],
    }
    rows = []
    for question, ask in zip(QUESTIONS, (readable, found, used, concept), strict=True):
        for name in (name for name in traces if name != reference):
            value, ceiling, peers, bar = ask(name)
            n = firings if question == "found" else labelled
            word = judge(question, Numbers(value, parents[question], n, same))
            base_rate = float((peers >= bar).mean()) if len(peers) else 1.0
            below = float((peers < value.value).mean()) if len(peers) else 0.5
            rows.append(
                {
                    "question": question,
                    "model": name,
                    "value": value.value,
                    "low": value.low,
                    "high": value.high,
                    "base_rate": base_rate,
                    "percentile": traces[name].removal.rank if question == "used" else below,
                    "ceiling": ceiling,
                    "parent": parents[question].value,
                    "peers": len(peers),
                    "word": word,
                    "certainty": certainty(word, base_rate),
                }
            )
    return pd.DataFrame(rows)


def token_rule_draws(stream: LabelledStream, draws: Draws) -> np.ndarray:
    """F1 [n_boot + 1] of the best rule that sees the token alone, test half."""
    score = token_rule(stream)
    return detector_draws(score, best_threshold(score, stream), stream, draws)["f1"]


# ------------------------------------------------------------------------------ what fires with it


def coactive_features(
    subject: Subject, feature: int, stream: LabelledStream, text: CaseText
) -> pd.DataFrame:
    """`feature`, and those that fire on `COACTIVE` of the labelled tokens: by what removing costs.

    One of several that share a word may be a bystander, while another is what the model uses. All
    on the selection half, so that the other can judge. Columns feature, fires_on, nats; the
    costliest first.
    """
    at = np.flatnonzero(text.inside(stream.mask & stream.selection))
    active = subject.features.matrix[at]
    share = np.bincount(active.indices, minlength=subject.features.d_sae) / max(len(at), 1)
    often = np.union1d(np.flatnonzero(share >= COACTIVE), feature)
    parts = (feature_part(subject, int(j), at) for j in often)
    nats = losses_after(subject, at, parts).mean(axis=1)
    table = pd.DataFrame({"feature": often, "fires_on": share[often], "nats": nats})
    return table.sort_values("nats", ascending=False).head(SHOWN).reset_index(drop=True)


def coactive_costs(
    subject: Subject, features: pd.Series, stream: LabelledStream, text: CaseText, draws: Draws
) -> pd.DataFrame:
    """Nats that removing each of `features` costs at labelled tokens of the test half."""
    at = np.flatnonzero(text.inside(stream.mask & stream.test))
    resampled = Resampled(stream.documents[at], draws.n_boot, np.random.default_rng(draws.seed))
    parts = (feature_part(subject, int(j), at) for j in features)
    means = resampled.mean(losses_after(subject, at, parts))
    rows = [as_estimate(row).named("nats") for row in means]
    return pd.DataFrame(rows).assign(feature=features.to_numpy())
