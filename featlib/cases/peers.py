"""A feature's peers: all detectors of the same kind in its autoencoder, and how they fare.

A feature that detects a label may be one of hundreds that detect a word or two, and a test that
nearly all of those pass says little about this one. So every number about the feature stands beside
the same number about its peers: features of the same autoencoder that find all tokens of one id or
of two, and fire about as often.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from featlib.cases.detectors import Draws, LabelledStream, best_cuts
from featlib.cases.edits import remove_feature
from featlib.cases.subjects import Subject
from featlib.cases.text import CaseText
from featlib.dictionaries.features import FeatureActivations

LEAST_F1 = 0.85  # of a detector of one or two ids, on the selection half
LIKE = 4.0  # times as often, or as seldom, a peer may fire
LEAST_TOKENS = 20  # of its ids in the text, so that an F1 means something
ABLATED, AT = 12, 200  # peers that are taken out, and tokens at which each of them is


@dataclass(frozen=True)
class Peers:
    """Features [n] of one autoencoder, and the ids that each detects, [n, 2]; -1 for none."""

    features: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.features)


def find_peers(f: FeatureActivations, stream: LabelledStream, feature: int) -> Peers:
    """The peers of `feature`: chosen on the selection half of the code, so that the other judges.

    Each feature is tried as a detector of the id on which it fires most often, and of that and the
    second. Few features may have no peers.
    """
    weight = stream.weights * stream.selection
    vocabulary = int(stream.ids.max()) + 1
    one_hot = sp.csr_array(
        (weight, (stream.ids, np.arange(f.n_tokens))), shape=(vocabulary, f.n_tokens)
    )
    fires = f.matrix.astype(bool).astype(np.float64)
    counts = sp.csr_array((one_hot @ fires).T)  # [d_sae, vocabulary]
    ids = np.full((f.d_sae, 2), -1)
    for j, (start, stop) in enumerate(zip(counts.indptr[:-1], counts.indptr[1:], strict=True)):
        most = np.argsort(-counts.data[start:stop], kind="stable")[:2]
        ids[j, : len(most)] = counts.indices[start:stop][most]
    alone = np.stack([ids[:, 0], np.full(f.d_sae, -1)], axis=1)
    selected = np.stack(
        [
            detect_ids(f, Peers(np.arange(f.d_sae), one), stream, judged=False)
            for one in (alone, ids)
        ]
    )
    ids = np.where(selected[0, :, None] >= selected[1, :, None], alone, ids)
    often = np.asarray(stream.weights @ fires)
    like = np.maximum(often, often[feature]) <= LIKE * np.minimum(often, often[feature])
    there = np.isin(np.arange(vocabulary), ids)
    seen = np.bincount(stream.ids, minlength=vocabulary) * there
    enough = np.where(ids >= 0, seen[ids], 0).sum(axis=1) >= LEAST_TOKENS
    chosen = (selected.max(axis=0) >= LEAST_F1) & like & enough
    chosen[feature] = False
    return Peers(np.flatnonzero(chosen), ids[chosen])


def detect_ids(
    f: FeatureActivations, peers: Peers, stream: LabelledStream, *, judged: bool = True
) -> np.ndarray:
    """F1 [n] of each peer's activations in `f` as a detector of its ids.

    The threshold is chosen on the selection half; the F1 is the test half's if `judged`, else that
    of the choice.
    """
    c = sp.csc_array(f.matrix[:, peers.features])
    which = np.repeat(np.arange(len(peers)), np.diff(c.indptr))
    hit = (stream.ids[c.indices, None] == peers.ids[which]).any(axis=1)
    totals = []
    for half in (stream.selection, stream.test):
        per_id = np.bincount(stream.ids, stream.weights * half, int(stream.ids.max()) + 1)
        totals.append(np.where(peers.ids >= 0, per_id[peers.ids], 0).sum(axis=1))
    return _detect(c, hit, np.array(totals), stream)[int(judged)]


def detect_label(f: FeatureActivations, peers: Peers, stream: LabelledStream) -> np.ndarray:
    """F1 [n], test half, of each peer's activations in `f` as a detector of the label."""
    c = sp.csc_array(f.matrix[:, peers.features])
    totals = [(stream.weights * stream.mask) @ half for half in (stream.selection, stream.test)]
    each = np.repeat(np.array(totals)[:, None], len(peers), axis=1)
    return _detect(c, stream.mask[c.indices], each, stream)[1]


def _detect(
    c: sp.csc_array, hit: np.ndarray, totals: np.ndarray, stream: LabelledStream
) -> np.ndarray:
    """F1 of each column on both halves [2, n]; `hit`: entries to be found, of `totals` [2, n]."""
    n, weight, here = c.shape[1], stream.weights[c.indices], stream.selection[c.indices]
    which = np.repeat(np.arange(n), np.diff(c.indptr))
    cuts = best_cuts(
        which[here], c.data[here], hit[here], weight[here], totals[0][which[here]], floor=0.0
    )
    chosen, cut = np.zeros(n), np.full(n, np.inf)
    at = cuts["feature"].to_numpy(int)
    chosen[at], cut[at] = cuts["f1"], cuts["threshold"]
    said = (c.data > cut[which]) & ~here
    yes, hits = (np.bincount(which[s], weight[s], n) for s in (said, said & hit))
    return np.array([chosen, 2 * hits / np.maximum(yes + totals[1], 1e-9)])


def peers_used(
    subject: Subject, peers: Peers, stream: LabelledStream, text: CaseText, draws: Draws
) -> np.ndarray:
    """Nats beyond random directions that some of the peers cost at their own tokens, low ends [n].

    `ABLATED` of them, evenly spread over the autoencoder, at `AT` tokens of the test half each.
    """
    lows = []
    for i in np.unique(np.linspace(0, len(peers) - 1, ABLATED).astype(int)) if len(peers) else ():
        at = np.flatnonzero(text.inside(stream.test & np.isin(stream.ids, peers.ids[i])))
        rng = np.random.default_rng(draws.seed + int(peers.features[i]))
        at = np.sort(rng.permutation(at)[:AT])
        own = replace(draws, seed=draws.seed + int(peers.features[i]))
        removed = remove_feature(
            subject, int(peers.features[i]), at, stream.documents[at], own, mlp=False
        )
        lows.append(removed.beyond.low)
    return np.array(lows)
