"""Which features of two models are the same: correlations, matches, fates and their intervals.

Matrices are [tokens, features] CSR over one common token stream (`features.FeatureActivations`'s
`matrix`); "parent" is the earlier model, "child" the later one. A match is a Pearson correlation of
at least `threshold` (0.8 in the paper) between two features' activations over the same tokens.

Deviation: the authors' first script correlates over the tokens on which both features fire, from
two up; we correlate over all tokens, zeros included, because over a handful of tokens one of
thousands of candidates always correlates by chance.
Deviation: the paper lets every feature persist or disappear; we call a feature with fewer than
`min_firings` firings untestable, because so few prove neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components

from featlib import FeatlibError
from featlib.matching.correlation import pearson  # noqa: F401
from featlib.matching.intervals import bootstrap_interval, document_weights, resampled_best

THRESHOLD = 0.8  # the paper's
MIN_FIRINGS = 30  # a best r >= 0.8 of 16,384 comes by chance once in 1,000 at 30 (Gaussian null)
N_CANDIDATES = 3  # children kept per parent for the bootstrap
_ROWS = 256  # rows of r handled at a time: no second copy of a 1 GB matrix, and cache-sized


@dataclass(frozen=True)
class Fates:
    """What becomes of every feature of a parent, and where every feature of a child comes from.

    `parents`, one row per parent feature, in order: feature, firings, best (the child of largest r,
    -1 if none is positive), r (that correlation), mutual (each is the other's best), fate
    (persists | disappears | untestable). `children` likewise with persists | emerges | untestable.
    `candidates` [d_parent, c] int32 are the c children of largest r, best first.
    """

    parents: pd.DataFrame
    children: pd.DataFrame
    candidates: np.ndarray
    threshold: float
    min_firings: int

    @property
    def persist(self) -> float:
        """Persisting share of testable parents; NaN if there is none."""
        return _share(self.parents, "persists")

    @property
    def emerge(self) -> float:
        """Share of testable children without a match in the parent; NaN if there is none."""
        return _share(self.children, "emerges")

    @property
    def testable(self) -> float:
        """Share of alive parents (at least one firing) with `min_firings` firings or more."""
        alive = int((self.parents["firings"] > 0).sum())
        return int((self.parents["fate"] != "untestable").sum()) / alive if alive else float("nan")

    def counts(self) -> dict[str, int]:
        """Numbers of features: persists, disappears, untestable (parents), emerges (children)."""
        number = self.parents["fate"].value_counts()
        return {
            **{fate: int(number[fate]) for fate in ("persists", "disappears", "untestable")},
            "emerges": int((self.children["fate"] == "emerges").sum()),
        }


def best_matches(r: np.ndarray) -> pd.DataFrame:
    """The child of largest correlation for each parent. `r` is [d_parent, d_child].

    Columns parent, child (-1 if no correlation is positive), r, second_r (the runner-up's
    correlation), mutual (each is the other's best). One row per parent, in order.
    """
    r = _row_major(r)
    d_a = len(r)
    first, *rest = _largest(r, min(2, r.shape[1]))
    return pd.DataFrame(
        {
            "parent": np.arange(d_a),
            **_best(r, first, _best_row(r)),
            "second_r": r[np.arange(d_a), rest[0]] if rest else np.zeros(d_a, r.dtype),
        }
    )[["parent", "child", "r", "second_r", "mutual"]]


def mutual_matches(r: np.ndarray, threshold: float = THRESHOLD) -> pd.DataFrame:
    """Pairs that are each other's best with r >= `threshold`: columns parent, child, r."""
    m = best_matches(r)
    keep = m["mutual"] & (m["r"] >= threshold)
    return m.loc[keep, ["parent", "child", "r"]].reset_index(drop=True)


def one_to_one(r: np.ndarray, floor: float = 0.0) -> pd.DataFrame:
    """The pairing, no feature used twice, whose correlations add up to the most: parent, child, r.

    Only pairs with r > 0 and r >= `floor` may be used. Those form a graph that falls apart into
    components, each solved by itself (Hungarian method), so that 16,384 features at a floor of 0.5
    take moments where the whole matrix takes many minutes; the optimum is the same.
    """
    d_a, d_b = r.shape
    rows, cols = np.nonzero((r >= floor) & (r > 0))
    links = sp.coo_array((np.ones(len(rows), dtype=bool), (rows, cols + d_a)), (d_a + d_b,) * 2)
    n, component = connected_components(links, directed=False)
    parents, children = [], []
    order_a = np.argsort(component[:d_a], kind="stable")
    order_b = np.argsort(component[d_a:], kind="stable")
    bounds_a = np.searchsorted(component[:d_a][order_a], np.arange(n + 1))
    bounds_b = np.searchsorted(component[d_a:][order_b], np.arange(n + 1))
    for k in np.unique(component[rows]):
        a = order_a[bounds_a[k] : bounds_a[k + 1]]
        b = order_b[bounds_b[k] : bounds_b[k + 1]]
        weight = r[np.ix_(a, b)]
        allowed = (weight >= floor) & (weight > 0)
        i, j = linear_sum_assignment(np.where(allowed, weight, 0.0), maximize=True)
        used = allowed[i, j]
        parents.append(a[i[used]])
        children.append(b[j[used]])
    parent = np.concatenate(parents) if parents else np.empty(0, dtype=np.int64)
    child = np.concatenate(children) if children else np.empty(0, dtype=np.int64)
    order = np.argsort(parent)
    parent, child = parent[order], child[order]
    return pd.DataFrame({"parent": parent, "child": child, "r": r[parent, child]})


def assign_fates(
    r: np.ndarray,
    parent_firings: np.ndarray,
    child_firings: np.ndarray,
    *,
    threshold: float = THRESHOLD,
    min_firings: int = MIN_FIRINGS,
) -> Fates:
    """Give every feature exactly one fate, so that the counts add up to d_parent and d_child.

    `r` [d_parent, d_child]; firings [d_parent] and [d_child]. A feature with fewer than
    `min_firings` firings (a dead one has 0) is untestable, whatever its correlations; any other
    one persists if its best correlation reaches `threshold`. Several parents may share one child,
    so the two numbers of persisting features differ; `mutual` marks the pairs that are exclusive.
    """
    if r.shape != (len(parent_firings), len(child_firings)):
        raise FeatlibError(
            f"correlations of shape {r.shape} do not fit {len(parent_firings)} parent and "
            f"{len(child_firings)} child features; pass the firing counts of the same two matrices"
        )
    r = _row_major(r)
    candidates = _largest(r, min(N_CANDIDATES, r.shape[1]))
    best_parent = _best_row(r)
    tables = []
    for table, firings, lost in (
        (_best(r, candidates[0], best_parent), parent_firings, "disappears"),
        (_best(r.T, best_parent, candidates[0]), child_firings, "emerges"),
    ):
        fate = fate_of(table["r"], firings, lost, threshold, min_firings)
        rename = {"best": table["child"], "r": table["r"], "mutual": table["mutual"]}
        own = {"feature": np.arange(len(fate)), "firings": np.asarray(firings)}
        tables.append(pd.DataFrame({**own, **rename, "fate": fate}))
    parents, children = tables
    return Fates(parents, children, candidates.T.astype(np.int32), threshold, min_firings)


def fate_of(
    r: np.ndarray, firings: np.ndarray, lost: str, threshold: float, min_firings: int
) -> pd.Categorical:
    """[d] persists | `lost` | untestable, from each feature's best correlation and its firings."""
    fate = np.where(np.asarray(r) >= threshold, "persists", lost)
    fate = np.where(np.asarray(firings) < min_firings, "untestable", fate)
    return pd.Categorical(fate, categories=["persists", lost, "untestable"])


def persistence_draws(
    a: sp.csr_array,
    b: sp.csr_array,
    documents: np.ndarray,
    fates: Fates,
    weights: np.ndarray,
) -> np.ndarray:
    """[n_boot] persisting share of testable parents on each resampled set of documents.

    `documents` one entry per token (any shape), `weights` from `intervals.document_weights`. The
    testable features stay the same; each one's best correlation is taken anew among its
    `fates.candidates`. A parent whose best correlation is below half the threshold is not
    resampled: it stays lost. NaN throughout if no parent is testable.
    """
    testable = (fates.parents["fate"] != "untestable").to_numpy()
    if not testable.any():
        return np.full(len(weights), np.nan)
    near = testable & (fates.parents["r"].to_numpy() >= fates.threshold / 2)
    if not near.any():
        return np.zeros(len(weights))
    parents = np.flatnonzero(near)
    best = resampled_best(a, b, documents, parents, fates.candidates[parents], weights)
    # Rounding leaves r of two equal features a hair below 1, which a threshold of 1 must pass.
    return (best >= fates.threshold - 1e-9).sum(1) / testable.sum()


def persistence_interval(
    a: sp.csr_array,
    b: sp.csr_array,
    documents: np.ndarray,
    fates: Fates,
    *,
    n_boot: int = 200,
    rng: np.random.Generator,
    level: float = 0.95,
) -> tuple[float, float]:
    """Interval (low, high) of `fates.persist` over documents; the features are held fixed."""
    weights = document_weights(documents, n_boot, rng)
    draws = persistence_draws(a, b, documents, fates, weights)
    return bootstrap_interval(fates.persist, draws, level)


def summarize_pair(
    fates: Fates,
    interval: tuple[float, float] = (float("nan"), float("nan")),
    ceiling: float = float("nan"),
) -> dict[str, float]:
    """The numbers of one parent -> child comparison, by the names that `metrics.json` uses.

    persist: persisting / testable parents, with its interval persist_low, persist_high. median_r:
    median best correlation of testable parents. same_index: share of persisting parents whose best
    child has the parent's own index. ceiling: the same share between seeds of one model;
    calibrated: persist / ceiling. testable: testable / alive parents. NaN where undefined (no
    testable parent, no match, no ceiling or one of 0).
    """
    p = fates.parents
    matched = p[p["fate"] == "persists"]
    tested = p.loc[p["fate"] != "untestable", "r"]
    nan = float("nan")
    return {
        "persist": fates.persist,
        "persist_low": interval[0],
        "persist_high": interval[1],
        "median_r": float(tested.median()) if len(tested) else nan,
        "same_index": float((matched["best"] == matched["feature"]).mean())
        if len(matched)
        else nan,
        "ceiling": ceiling,
        "calibrated": fates.persist / ceiling if ceiling > 0 else nan,
        "testable": fates.testable,
    }


def _best(r: np.ndarray, best: np.ndarray, best_back: np.ndarray) -> dict[str, np.ndarray]:
    """Best child of each row of `r`, given row maxima and column maxima (indices)."""
    here = np.arange(len(r))
    top = r[here, best]
    found = top > 0
    return {
        "child": np.where(found, best, -1),
        "r": top,
        "mutual": found & (best_back[best] == here),
    }


def _largest(r: np.ndarray, k: int) -> np.ndarray:
    """[k, rows] column indices of the k largest entries of each row, largest first."""
    out = np.empty((k, len(r)), dtype=np.int64)
    for start in range(0, len(r), _ROWS):
        part = r[start : start + _ROWS].copy()
        here = np.arange(len(part))
        for i in range(k):  # k is 2 or 3: as many passes beat a partition, and ties go to the first
            out[i, start : start + _ROWS] = part.argmax(1)
            part[here, out[i, start : start + _ROWS]] = -np.inf
    return out


def _best_row(r: np.ndarray) -> np.ndarray:
    """[columns] row index of each column's largest entry, as `r.argmax(0)` but by whole rows.

    NumPy walks down the columns, which at 16,384 features misses the cache at every step.
    """
    best = np.zeros(r.shape[1], dtype=np.int64)
    top = r[0].copy()
    for i, row in enumerate(r):
        best[row > top] = i
        np.maximum(top, row, out=top)
    return best


def _row_major(r: np.ndarray) -> np.ndarray:
    """`r` in C order: a transposed view costs ten times as much to scan as to copy."""
    return r if r.flags.c_contiguous else torch.from_numpy(r).contiguous().numpy()


def _share(table: pd.DataFrame, fate: str) -> float:
    testable = int((table["fate"] != "untestable").sum())
    return int((table["fate"] == fate).sum()) / testable if testable else float("nan")
