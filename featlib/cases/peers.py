"""A feature's peers: all detectors of the same kind in its autoencoder, and how they fare.

A feature that detects a label may be one of hundreds that detect a word or two, and a test that
nearly all of those pass says little about this one. So every number about it stands beside that of
its peers: features of the same autoencoder that find all tokens of one id or two, about as often.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import scipy.sparse as sp

from featlib.cases.detectors import Draws, best_cuts
from featlib.cases.edits import Subject, remove_feature
from featlib.cases.text import LabelledStream
from featlib.dictionaries.features import FeatureActivations

LEAST_F1 = 0.85  # of a detector of one or two ids, on the selection half
LIKE = 4.0  # times as often, or as seldom, a peer may fire
LEAST_TOKENS = 20  # of its ids in the text, so that an F1 means something
ABLATED, AT = 12, 200  # peers that are taken out, and tokens at which each of them is


def find_peers(f: FeatureActivations, stream: LabelledStream, feature: int) -> pd.DataFrame:
    """The peers of `feature`, by their number: the two ids that each detects, -1 for none.

    They are chosen on the selection half, so that the other judges. Each feature is tried as a
    detector of the id on which it fires most often, and of that and the second.
    """
    weight = stream.weights * stream.selection
    shape = (int(stream.ids.max()) + 1, f.n_tokens)
    one_hot = sp.csr_array((weight, (stream.ids, np.arange(f.n_tokens))), shape=shape)
    fires = f.matrix.astype(bool).astype(np.float64)
    counts = sp.csr_array((one_hot @ fires).T)  # [d_sae, vocabulary]
    ids = np.full((f.d_sae, 2), -1)
    for row, (start, stop) in zip(ids, pairwise(counts.indptr), strict=True):
        most = np.argsort(-counts.data[start:stop], kind="stable")[:2]
        row[: len(most)] = counts.indices[start:stop][most]
    alone = ids * [1, 0] - [0, 1]
    f1 = np.array([detect(f, pd.DataFrame(each), stream)[0] for each in (alone, ids)])
    ids = np.where((f1[0] >= f1[1])[:, None], alone, ids)
    often = np.asarray(stream.weights @ fires)
    like = np.maximum(often, often[feature]) <= LIKE * np.minimum(often, often[feature])
    seen = np.where(ids >= 0, np.bincount(stream.ids)[ids], 0).sum(axis=1)
    chosen = (f1.max(axis=0) >= LEAST_F1) & like & (seen >= LEAST_TOKENS)
    chosen[feature] = False
    return pd.DataFrame(ids).loc[chosen]


def detect(
    f: FeatureActivations, peers: pd.DataFrame, stream: LabelledStream, *, label: bool = False
) -> np.ndarray:
    """F1 [2, n] of each peer's activations in `f` as a detector of its ids, or of the `label`.

    Thresholds are chosen on the selection half, whose F1 comes first; the other is the test half's.
    """
    c, n, ids = sp.csc_array(f.matrix[:, peers.index]), len(peers), peers.to_numpy()
    which = np.repeat(np.arange(n), np.diff(c.indptr))
    halves = [stream.weights * half for half in (stream.selection, stream.test)]
    if label:
        hit, totals = stream.mask[c.indices], [np.full(n, half @ stream.mask) for half in halves]
    else:
        hit = (stream.ids[c.indices, None] == ids[which]).any(axis=1)
        by_id = [np.bincount(stream.ids, half) for half in halves]
        totals = [np.where(ids >= 0, each[ids], 0).sum(axis=1) for each in by_id]
    weight, here = stream.weights[c.indices], stream.selection[c.indices]
    cuts = best_cuts(which[here], c.data[here], hit[here], weight[here], totals[0][which[here]])
    chosen, cut = np.zeros(n), np.full(n, np.inf)
    at = cuts["feature"].to_numpy(int)
    chosen[at], cut[at] = cuts["f1"], cuts["threshold"]
    said = (c.data > cut[which]) & ~here
    yes, hits = (np.bincount(which[s], weight[s], n) for s in (said, said & hit))
    return np.array([chosen, 2 * hits / np.maximum(yes + totals[1], 1e-9)])


def peers_used(
    subject: Subject, peers: pd.DataFrame, stream: LabelledStream, draws: Draws
) -> np.ndarray:
    """Nats beyond random directions that some of the peers cost at their own tokens, low ends [n].

    `ABLATED` of them, evenly spread over the autoencoder, at `AT` tokens of the test half each.
    """
    lows = []
    some = np.unique(np.linspace(0, len(peers) - 1, min(ABLATED, len(peers))).astype(int))
    for feature, *ids in peers.iloc[some].itertuples():
        own = replace(draws, seed=draws.seed + feature)
        at = np.flatnonzero(stream.inside & stream.test & np.isin(stream.ids, ids))
        at = np.sort(np.random.default_rng(own.seed).permutation(at)[:AT])
        lows.append(remove_feature(subject, feature, at, stream.documents[at], own).beyond.low)
    return np.array(lows)
