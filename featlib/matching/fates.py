"""Which features of two models are the same: `compare` two matrices, and every feature has a fate.

Matrices are [tokens, features] CSR over one common token stream (`features.FeatureActivations`'s
`matrix`); "parent" is the earlier model, "child" the later one. A match is a Pearson correlation of
at least `Rule.threshold` between two features' activations over the same tokens.

Deviation: the authors' first script correlates over the tokens on which both features fire, from
two up; we correlate over all tokens, zeros included, because over a handful of tokens one of
thousands of candidates always correlates by chance.
Deviation: the paper lets every feature persist or disappear; we call a feature with fewer than
`min_firings` firings untestable, because so few prove neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components

from featlib.dictionaries.features import count_firings
from featlib.matching.correlation import pearson

N_CANDIDATES = 3  # children kept per parent for the bootstrap
_ROWS = 256  # rows of r handled at a time: no second copy of a 1 GB matrix, and cache-sized


@dataclass(frozen=True)
class Rule:
    """From which correlation on two features count as one, and how often one must fire to tell."""

    threshold: float = 0.8  # the paper's
    min_firings: int = 30  # a best r >= 0.8 of 16,384 comes by chance once in 1,000 (Gaussian null)


RULE = Rule()


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
    rule: Rule

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

    @property
    def median_r(self) -> float:
        """Median best correlation of testable parents; NaN if there is none."""
        return float(self.parents.loc[self.parents["fate"] != "untestable", "r"].median())

    @property
    def same_index(self) -> float:
        """Share of persisting parents whose best child has their own index; NaN without any.

        Chance gives 1 / d. A shared starting point shows as far more, so compare pairs of equal and
        of different seed.
        """
        kept = self.parents[self.parents["fate"] == "persists"]
        return float((kept["best"] == kept["feature"]).mean()) if len(kept) else float("nan")

    def counts(self) -> dict[str, int]:
        """Numbers of features: persists, disappears, untestable (parents), emerges (children)."""
        number = self.parents["fate"].value_counts()
        return {
            **{fate: int(number[fate]) for fate in ("persists", "disappears", "untestable")},
            "emerges": int((self.children["fate"] == "emerges").sum()),
        }


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


def compare(
    a: sp.csr_array, b: sp.csr_array, rule: Rule = RULE, r: np.ndarray | None = None
) -> Fates:
    """Fates of `a`'s features [tokens, d_parent] among those of `b` [tokens, d_child].

    `r`: their correlations, where they are known already.
    """
    r = pearson(a, b) if r is None else r
    return assign_fates(r, count_firings(a), count_firings(b), rule)


def assign_fates(
    r: np.ndarray, parent_firings: np.ndarray, child_firings: np.ndarray, rule: Rule = RULE
) -> Fates:
    """Give every feature exactly one fate, so that the counts add up to d_parent and d_child.

    `r` [d_parent, d_child]; firings [d_parent] and [d_child]. A feature with fewer than
    `rule.min_firings` firings (a dead one has 0) is untestable, whatever its correlations; any
    other one persists if its best correlation reaches `rule.threshold`. Several parents may share
    one child, so the two numbers of persisting features differ; `mutual` marks exclusive pairs.
    """
    assert r.shape == (len(parent_firings), len(child_firings)), (r.shape, "firings of others")
    r = _row_major(r)
    candidates = _largest(r, min(N_CANDIDATES, r.shape[1]))
    best_parent = _best_row(r)
    tables = []
    for best, fired, lost in (
        (_best(r, candidates[0], best_parent), parent_firings, "disappears"),
        (_best(r.T, best_parent, candidates[0]), child_firings, "emerges"),
    ):
        tables.append(fate_table(fired, best, lost, rule))
    return Fates(*tables, candidates.T.astype(np.int32), rule)


def fate_table(
    fired: np.ndarray, best: Mapping[str, np.ndarray], lost: str, rule: Rule
) -> pd.DataFrame:
    """One side of `Fates`: `best` has its columns best, r and mutual; `lost` names who has none."""
    fate = np.where(np.asarray(best["r"]) >= rule.threshold, "persists", lost)
    fate = np.where(np.asarray(fired) < rule.min_firings, "untestable", fate)
    return pd.DataFrame(
        {
            "feature": np.arange(len(fate)),
            "firings": np.asarray(fired),
            **best,
            "fate": pd.Categorical(fate, categories=["persists", lost, "untestable"]),
        }
    )


def _best(r: np.ndarray, best: np.ndarray, best_back: np.ndarray) -> dict[str, np.ndarray]:
    """Best child of each row of `r`, given row maxima and column maxima (indices)."""
    here = np.arange(len(r))
    top = r[here, best]
    found = top > 0
    return {
        "best": np.where(found, best, -1),
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
