"""How much of "disappearing" is real: shares over pairs of seeds, and what to read them against.

Matrices are [tokens, features] CSR over one token stream, by the seed of their autoencoder;
`documents` holds one entry per token (any shape), and every random choice comes out of the
generator passed in.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from featlib.estimate import NAN, Estimate, bootstrap_estimate
from featlib.matching.correlation import pearson
from featlib.matching.fates import RULE, Fates, Rule, compare
from featlib.matching.resampling import resampled_matches

Seeds = tuple[int, int]  # of the parent's autoencoder and of the child's


@dataclass(frozen=True)
class Share:
    """A share of features with its interval; `draws` [n_boot] are the bootstrap's shares."""

    estimate: Estimate
    draws: np.ndarray


@dataclass(frozen=True)
class SeedPairs:
    """Two models, or one with itself, compared through autoencoders of different seeds.

    By pair of seeds: `fates`, and `passes` [n_boot, d_parent] bool, which parents persist on each
    resampled set of documents. `weights` [n_boot, pairs] says how often each resample holds each
    pair: seeds are resampled and not pairs, since pairs that share a seed are not independent.
    """

    fates: dict[Seeds, Fates]
    passes: dict[Seeds, np.ndarray]
    weights: np.ndarray

    def share(self, among: Mapping[int, np.ndarray] | None = None) -> Share:
        """Share of testable parents that persist, a mean over pairs of seeds.

        `among`: by the parent's seed, which features [d_parent] count at all; the others are taken
        out of numerator and denominator. Undefined if a pair has none that counts.
        """
        values, draws = [], []
        for (i, j), fates in self.fates.items():
            counted = fates.testable & (True if among is None else among[i])
            if not counted.any():
                return Share(Estimate(NAN), np.full(len(self.weights), NAN))
            values.append(fates.persisting[counted].mean())
            draws.append(self.passes[i, j][:, counted].mean(axis=1))
        resampled = (self.weights.T * draws).sum(axis=0) / self.weights.sum(axis=1)
        return Share(bootstrap_estimate(float(np.mean(values)), resampled), resampled)

    def stability(self) -> dict[int, np.ndarray]:
        """Of one model: by seed, [d] the share of its other seeds in which a feature is found.

        Gerasimov et al. (2026), arXiv 2606.12138, call a feature stable if other seeds find it.
        """
        found: dict[int, list[np.ndarray]] = {}
        for (i, _), fates in self.fates.items():
            found.setdefault(i, []).append(fates.persisting)
        return {i: np.mean(others, axis=0) for i, others in found.items()}


def over_pairs(
    parents: Mapping[int, sp.csr_array],
    children: Mapping[int, sp.csr_array] | None = None,
    *,
    documents: np.ndarray,
    weights: np.ndarray,
    rng: np.random.Generator,
    rule: Rule = RULE,
) -> SeedPairs:
    """Compare a parent's autoencoders with a child's, over all pairs of *different* seeds.

    Pairs of equal seed are left out, so that a shared starting point cannot help; with one seed
    each, that single pair is used. Without `children` it is the *seed ceiling*: what a model's
    autoencoder of another seed finds again of its features, in both directions of each pair.
    """
    own = children is None
    others = parents if children is None else children
    every = list(itertools.product(parents, others))
    pairs = [(i, j) for i, j in every if (i < j if own else i != j)]
    assert pairs or not own, "a seed ceiling needs two seeds"
    fates: dict[Seeds, Fates] = {}
    passes: dict[Seeds, np.ndarray] = {}
    for i, j in pairs or every:
        a, b = parents[i], others[j]
        r = pearson(a, b)
        for seeds, x, y, both in [((i, j), a, b, r), ((j, i), b, a, r.T)][: 1 + own]:
            fates[seeds] = compare(x, y, rule, both)
            passes[seeds] = resampled_matches(x, y, documents, fates[seeds], weights)
    drawn = _draw_seeds(list(fates), own, len(weights), rng)
    return SeedPairs(fates, passes, drawn)


def _draw_seeds(pairs: list[Seeds], own: bool, n_boot: int, rng: np.random.Generator) -> np.ndarray:
    """[n_boot, pairs]: how often each pair is there when seeds are drawn with replacement.

    A draw without any pair (all seeds the same one) is drawn again.
    """
    (i, n), (j, m) = (
        (np.unique(seeds, return_inverse=True)[1], len(set(seeds)))
        for seeds in zip(*pairs, strict=True)
    )
    out = np.zeros((n_boot, len(pairs)))
    while (empty := ~out.any(axis=1)).any():
        first = rng.multinomial(n, np.full(n, 1 / n), size=empty.sum())
        second = first if own else rng.multinomial(m, np.full(m, 1 / m), size=empty.sum())
        out[empty] = first[:, i] * second[:, j]
    return out


def calibrate(share: Share, ceiling: Share) -> Estimate:
    """share / ceiling; NaN where the ceiling is 0.

    Both must come from the same documents' weights, so that the texts vary together; the interval
    is narrower for it. A ratio of 1 says that the child is no further from the parent than the
    ceiling's autoencoder is; a ratio above 1 is possible by chance.
    """
    if not (ceiling.estimate.value > 0 and np.all(ceiling.draws > 0)):
        return Estimate(NAN)
    ratio = share.estimate.value / ceiling.estimate.value
    return bootstrap_estimate(ratio, share.draws / ceiling.draws, upper=np.inf)
