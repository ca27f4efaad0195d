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

from featlib.dictionaries.features import count_firings
from featlib.matching.correlation import pearson

N_CANDIDATES = 3  # children kept per parent for the bootstrap
_ROWS = 256  # rows of r handled at a time: no second copy of a 1 GB matrix, and cache-sized


@dataclass(frozen=True)
class Rule:
    """From which correlation on two features count as one, and how often one must fire to tell."""

    threshold: float = 0.8  # the paper's
    min_firings: int = 30  # out of step, nothing passes from about 16 on (measured; chapter 11)


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
    def testable(self) -> np.ndarray:
        """[d_parent] whether a parent's feature fires often enough to tell."""
        return (self.parents["fate"] != "untestable").to_numpy()

    @property
    def persisting(self) -> np.ndarray:
        """[d_parent] whether a parent's feature persists."""
        return (self.parents["fate"] == "persists").to_numpy()

    @property
    def persist(self) -> float:
        """Persisting share of testable parents; NaN if there is none."""
        return float(self.parents["fate"].eq("persists")[self.testable].mean())

    @property
    def emerge(self) -> float:
        """Share of testable children without a match in the parent; NaN if there is none."""
        fate = self.children["fate"]
        return float(fate.eq("emerges")[fate != "untestable"].mean())

    @property
    def testable_share(self) -> float:
        """Share of alive parents (at least one firing) with `min_firings` firings or more."""
        return float(self.parents["fate"].ne("untestable")[self.parents["firings"] > 0].mean())

    @property
    def median_r(self) -> float:
        """Median best correlation of testable parents; NaN if there is none."""
        return float(self.parents.loc[self.testable, "r"].median())

    @property
    def same_index(self) -> float:
        """Share of persisting parents whose best child has their own index; NaN without any.

        Chance gives 1 / d. A shared starting point shows as far more, so compare pairs of equal and
        of different seed.
        """
        kept = self.parents[self.persisting]
        return float((kept["best"] == kept["feature"]).mean())


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
    candidates = _largest(r, min(N_CANDIDATES, r.shape[1]))
    # By PyTorch: NumPy walks down columns, and at 16,384 features misses the cache at every step.
    best_parent = torch.from_numpy(r).argmax(0).numpy()
    parents = _best(r, candidates[0], best_parent)
    children = _best(r.T, best_parent, candidates[0])
    return Fates(
        fate_table(parents, parent_firings, "disappears", rule),
        fate_table(children, child_firings, "emerges", rule),
        candidates.T.astype(np.int32),
        rule,
    )


def fate_table(
    best: Mapping[str, np.ndarray], firings: np.ndarray, lost: str, rule: Rule
) -> pd.DataFrame:
    """One side of `Fates`: `best` has its columns best, r and mutual; `lost` names who has none."""
    fate = np.where(best["r"] >= rule.threshold, "persists", lost)
    fate = np.where(firings < rule.min_firings, "untestable", fate)
    fate = pd.Categorical(fate, categories=["persists", lost, "untestable"])
    own = {"feature": np.arange(len(fate)), "firings": firings}
    return pd.DataFrame({**own, **best, "fate": fate})


def _best(r: np.ndarray, best: np.ndarray, best_back: np.ndarray) -> dict[str, np.ndarray]:
    """Best child of each row of `r`, given row maxima and column maxima (indices)."""
    here = np.arange(len(r))
    top = r[here, best]
    mutual = (top > 0) & (best_back[best] == here)
    return {"best": np.where(top > 0, best, -1), "r": top, "mutual": mutual}


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
