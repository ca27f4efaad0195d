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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from torch import Tensor
from torch.nn import functional

from featlib.cases import detectors
from featlib.cases.detectors import Draws, as_estimate
from featlib.cases.edits import Removal, Subject, feature_part, losses_after, remove_feature
from featlib.cases.peers import detect, peers_used
from featlib.cases.text import LabelledStream
from featlib.estimate import Estimate
from featlib.matching.correlation import pearson
from featlib.verdicts import BARS, QUESTIONS, Numbers, certainty, judge

COACTIVE = 0.5  # a feature that fires on this share of the labelled tokens is asked too
SHOWN = 5  # of them, those whose removal costs most
COLUMNS = (
    *("question", "model", "value", "low", "high", "base_rate", "percentile", "ceiling"),
    *("parent", "peers", "word", "certainty"),
)


@dataclass(frozen=True)
class Trace:
    """A feature and its peers, read in one model by transfer."""

    scores: np.ndarray  # float32 [tokens]
    f1: np.ndarray  # [n_boot + 1] of `f1_draws`
    removal: Removal  # at labelled tokens of the test half
    peers_f1: np.ndarray  # [n], each as a detector of its own ids,
    peers_label: np.ndarray  # [n], and of the label
    peers_low: np.ndarray  # nats that some of them cost beyond random directions, low ends


def trace_feature(
    subject: Subject, feature: int, peers: pd.DataFrame, stream: LabelledStream, draws: Draws
) -> Trace:
    """Measure `feature` of the autoencoder that `subject` is read with, and its peers."""
    f, at = subject.features, stream.labelled(stream.test)
    scores, used = detectors.feature_scores(f, feature), peers_used(subject, peers, stream, draws)
    removal = remove_feature(subject, feature, at, stream.documents[at], draws)
    of_ids, of_label = (detect(f, peers, stream, label=label)[1] for label in (False, True))
    f1 = detectors.f1_draws(scores, stream, draws)
    return Trace(scores, f1, removal, of_ids, of_label, used)


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


def best_of(matches: Sequence[Match], model: str) -> Match:
    """The best in the model's own autoencoders."""
    found = (m for m in matches if m.model == model and not m.text)
    return max(found, key=lambda match: match.r.value)


def best_match(
    mine: sp.csr_array,
    other: sp.csr_array,
    row: Tensor,
    decoder: Tensor,
    documents: np.ndarray,
    draws: Draws,
) -> tuple[int, Estimate, float, np.ndarray]:
    """The column of `other` [tokens, d_sae] that goes best with the first of `mine` [tokens, n].

    Returns what a `Match` ends with; the further columns of `mine` are the peers, `row` is what the
    first writes, `decoder` [d_sae, d_in] what `other` does.
    """
    r = pearson(mine, other)
    best = int(r[0].argmax())
    x, y = (m[:, [i]].toarray()[:, 0] for m, i in ((mine, 0), (other, best)))
    cosine = float(functional.cosine_similarity(decoder[best], row, dim=0))
    spread = detectors.correlation(x, y, documents.reshape(-1), draws)
    return best, spread, cosine, r[1:].max(axis=1)


def answer_questions(
    traces: Mapping[str, Trace],
    matches: Sequence[Match],
    rule: np.ndarray,
    probes: Mapping[str, float],
    *,
    reference: str,
    placebo: Trace | None,
    labelled: int,
    firings: int,
    same: float,
) -> pd.DataFrame:
    """A row of `COLUMNS` for each question and each model but the reference, which is `parent`.

    `traces` by model, the reference's too; `rule`: F1 [n_boot + 1] of the token rule, `probes`: F1
    of the probe by model; `labelled`: labelled tokens of the test half, `firings` of the feature on
    the common stream; `same`: the correlation from which two features count as one.

    Ceilings. readable: `placebo`, the base trained on with its own text (1 where the feature is not
    the base's). found: the mean over the reference's autoencoders that learned from the child's
    text (over its own others where there are none). used: all that the MLP writes there. concept:
    the probe. Peers. used: those that are taken out; the percentile is among random directions.
    concept: the peers as detectors of this label. Without peers base_rate is 1 and percentile 0.5:
    nothing then shows that the test can be failed.
    """
    own, above = traces[reference], np.nextafter(0, 1)
    own_f1 = own.f1.clip(1e-9)

    def ask(name: str) -> dict[str, tuple[Estimate, float, np.ndarray, float]]:
        """Each question's value, its ceiling, the same number of the peers, and the bar."""
        trace, there = traces[name], [m for m in matches if m.model == name]
        through = [m.r.value for m in there if m.text]
        through = through or [m.r.value for m in matches if m.model == reference]
        kept, more = as_estimate(trace.f1 / own_f1), as_estimate(trace.f1 - rule)
        ceiling = placebo.f1[0] / own_f1[0] if placebo else 1.0
        peers = np.max([m.peers_r for m in there if not m.text], axis=0)
        return {
            "readable": (kept, ceiling, trace.peers_f1 / own.peers_f1.clip(1e-9), BARS.keep_f1),
            "found": (best_of(there, name).r, float(np.mean(through)), peers, same),
            "used": (trace.removal.beyond, trace.removal.mlp, trace.peers_low, above),
            "concept": (more, probes[name] - rule[0], trace.peers_label - rule[0], above),
        }

    asked = {name: ask(name) for name in traces}
    parents = {question: values[0] for question, values in asked.pop(reference).items()}
    parents["readable"] = as_estimate(own.f1)
    rows = []
    for question in QUESTIONS:
        for name, answers in asked.items():
            value, ceiling, peers, bar = answers[question]
            n = firings if question == "found" else labelled
            word = judge(question, Numbers(value, parents[question], n, same))
            base_rate = float((peers >= bar).mean()) if len(peers) else 1.0
            below = float((peers < value.value).mean()) if len(peers) else 0.5
            percentile = traces[name].removal.rank if question == "used" else below
            rows.append(
                (question, name, value.value, value.low, value.high, base_rate, percentile, ceiling,
                 parents[question].value, len(peers), word, certainty(word, base_rate))
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def coactive_features(subject: Subject, feature: int, stream: LabelledStream) -> pd.DataFrame:
    """`feature`, and those that fire on `COACTIVE` of the labelled tokens: the costliest first.

    One of several that share a word may be a bystander, while another is what the model uses.
    Columns feature, fires_on. All on the selection half, so that the other can judge.
    """
    at = stream.labelled(stream.selection)
    active = subject.features.matrix[at]
    share = np.bincount(active.indices, minlength=subject.features.d_sae) / max(len(at), 1)
    often = np.union1d(np.flatnonzero(share >= COACTIVE), feature)
    parts = (feature_part(subject, int(j), at) for j in often)
    nats = losses_after(subject, at, parts).mean(axis=1)
    table = pd.DataFrame({"feature": often, "fires_on": share[often], "nats": nats})
    table = table.sort_values("nats", ascending=False, ignore_index=True)
    return table.head(SHOWN).drop(columns="nats")


def coactive_costs(
    subject: Subject, coactive: pd.DataFrame, stream: LabelledStream, draws: Draws
) -> pd.DataFrame:
    """`coactive`, and the nats that removing each costs at labelled tokens of the test half."""
    at = stream.labelled(stream.test)
    parts = (feature_part(subject, int(j), at) for j in coactive["feature"])
    means = detectors.Resampled(stream.documents[at], draws).mean(losses_after(subject, at, parts))
    return coactive.join(pd.DataFrame([as_estimate(row).named("nats") for row in means]))
