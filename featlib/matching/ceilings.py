"""How much of "disappearing" is real: ceilings, transfer, and shares read against them.

Matrices are [tokens, features] CSR over one token stream, `documents` holds one entry per token
(any shape), and every random choice comes out of the generator passed in.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy import stats

from featlib import FeatlibError
from featlib.matching.correlation import paired_pearson, pearson
from featlib.matching.fates import (
    MIN_FIRINGS,
    THRESHOLD,
    Fates,
    assign_fates,
    fate_of,
    persistence_draws,
    summarize_pair,
)
from featlib.matching.intervals import bootstrap_interval, document_weights


@dataclass(frozen=True)
class Ceiling:
    """A persisting share averaged over pairs of autoencoder seeds, with its interval.

    `pairs`, one row per ordered pair: parent_seed, child_seed, the keys of
    `matching.summarize_pair` and the numbers of `Fates.counts`. `draws` [n_boot] are the
    bootstrap's shares; the interval is over documents and, with three seeds or more, over pairs of
    seeds. `fates` holds every pair's fates, by (parent_seed, child_seed).
    """

    share: float
    low: float
    high: float
    pairs: pd.DataFrame
    draws: np.ndarray
    fates: dict[tuple[int, int], Fates]


def seed_ceiling(
    seeds: Sequence[sp.csr_array],
    documents: np.ndarray,
    *,
    n_boot: int = 200,
    rng: np.random.Generator,
    level: float = 0.95,
    threshold: float = THRESHOLD,
    min_firings: int = MIN_FIRINGS,
    weights: np.ndarray | None = None,
    device: str | None = None,
) -> Ceiling:
    """Share of a model's features that its own autoencoder of another seed finds again.

    `seeds`: two or more matrices of one model. Every ordered pair of different seeds counts. Both
    directions of a pair are drawn together in the bootstrap, since they rest on the same r.
    """
    if len(seeds) < 2:
        raise FeatlibError(
            f"a seed ceiling needs autoencoders of at least 2 seeds, got {len(seeds)}: raise the "
            f"number of seeds in the parameters"
        )
    return _over_pairs(
        seeds, None, documents, n_boot, rng, level, threshold, min_firings, weights, device
    )


def cross_share(
    parents: Sequence[sp.csr_array],
    children: Sequence[sp.csr_array],
    documents: np.ndarray,
    *,
    n_boot: int = 200,
    rng: np.random.Generator,
    level: float = 0.95,
    threshold: float = THRESHOLD,
    min_firings: int = MIN_FIRINGS,
    weights: np.ndarray | None = None,
    device: str | None = None,
) -> Ceiling:
    """Share of a parent's features that persist in a child, over pairs of *different* seeds.

    `parents[i]` and `children[i]` come from seed i. Pairs of equal seed are left out, so that a
    shared starting point cannot help: this is the share to divide by `seed_ceiling` (`calibrate`).
    With one seed each, that single pair is used.
    """
    if not parents or not children:
        raise FeatlibError("a cross-model share needs at least one autoencoder of each model")
    return _over_pairs(
        parents, children, documents, n_boot, rng, level, threshold, min_firings, weights, device
    )


def calibrate(
    share: Ceiling, ceiling: Ceiling, *, level: float = 0.95
) -> tuple[float, float, float]:
    """share / ceiling with its interval: (ratio, low, high); NaN where the ceiling is 0.

    Pass both the same `weights` (`document_weights`), so that the texts vary together; the interval
    is narrower for it. A ratio of 1 says that the child is no further from the parent than another
    autoencoder of the parent is; a ratio above 1 is possible by chance.
    """
    if not (ceiling.share > 0 and np.all(ceiling.draws > 0)):
        return (float("nan"),) * 3
    ratio = share.share / ceiling.share
    draws = share.draws / ceiling.draws
    return (ratio, *bootstrap_interval(ratio, draws, level, upper=np.inf))


def index_effect(fates: Fates) -> dict[str, float]:
    """Share of matches that carry the parent's own index, and what chance would give.

    Keys matches (persisting parents), same_index (share; NaN without matches), by_chance (1 / d),
    p (probability of so many equal indices or more by chance, binomial). Compare pairs of equal
    and of different seed: a shared starting point shows as a large difference.
    """
    kept = fates.parents[fates.parents["fate"] == "persists"]
    same, n, chance = (
        int((kept["best"] == kept["feature"]).sum()),
        len(kept),
        1 / len(fates.children),
    )
    return {
        "matches": float(n),
        "same_index": same / n if n else float("nan"),
        "by_chance": chance,
        "p": float(stats.binom.sf(same - 1, n, chance)) if n else float("nan"),
    }


# --- shares by threshold, by group, by model ------------------------------------------------------


def persistence_by_threshold(
    fates: Fates, thresholds: Sequence[float] = tuple(np.arange(50, 96, 5) / 100)
) -> pd.DataFrame:
    """Persisting share of testable parents at other thresholds: columns threshold, persist."""
    r = fates.parents.loc[fates.parents["fate"] != "untestable", "r"].to_numpy()
    share = [(r >= t).mean() if len(r) else float("nan") for t in thresholds]
    return pd.DataFrame({"threshold": list(thresholds), "persist": share})


def density_bins(firings: np.ndarray, n_tokens: int, per_decade: int = 2) -> pd.Categorical:
    """[d] ordered label of each feature's density bin, "low-high" in firings per token, log steps.

    Silent features get no bin (NaN).
    """
    density = np.asarray(firings) / n_tokens
    step = np.full(len(density), np.nan)
    alive = density > 0
    step[alive] = np.floor(np.log10(density[alive]) * per_decade + 1e-9)
    levels = np.unique(step[alive])
    labels = [f"{10 ** (s / per_decade):.2g}-{10 ** ((s + 1) / per_decade):.2g}" for s in levels]
    codes = np.where(alive, np.searchsorted(levels, np.nan_to_num(step, nan=np.inf)), -1)
    return pd.Categorical.from_codes(codes, labels, ordered=True)


def persistence_by(
    fates: Fates, groups: Sequence | np.ndarray | pd.Categorical, level: float = 0.95
) -> pd.DataFrame:
    """Persisting share by what features are: density bin, token class, anything per parent feature.

    `groups` [d_parent]. Columns group, features, testable, persists, share (of the testable; NaN
    without any), low, high (Wilson's interval, features taken as independent).
    """
    table = pd.DataFrame({"group": groups, "fate": fates.parents["fate"].to_numpy()})
    rows = []
    for group, part in table.groupby("group", sort=True, observed=True):
        tested, kept = (
            int((part["fate"] != "untestable").sum()),
            int((part["fate"] == "persists").sum()),
        )
        low = high = share = float("nan")
        if tested:
            ci = stats.binomtest(kept, tested).proportion_ci(level, method="wilson")
            low, high, share = ci.low, ci.high, kept / tested
        rows.append((group, len(part), tested, kept, share, low, high))
    columns = ["group", "features", "testable", "persists", "share", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def compare_sparsity(matrices: Mapping[str, sp.csr_array], tolerance: float = 0.1) -> pd.DataFrame:
    """Mean L0 of each model's autoencoder: columns model, l0, ratio (to the smallest), equal.

    `equal`: within `tolerance` of the smallest. A denser dictionary fires more alike, so shares of
    autoencoders that differ in L0 compare sparsity as much as models.
    """
    l0 = np.array([m.nnz / m.shape[0] for m in matrices.values()])
    ratio = l0 / l0.min()
    return pd.DataFrame(
        {"model": list(matrices), "l0": l0, "ratio": ratio, "equal": ratio <= 1 + tolerance}
    )


# --- transfer: one dictionary, two models ---------------------------------------------------------


def transfer_correlation(f_before: sp.csr_array, f_after: sp.csr_array) -> np.ndarray:
    """[d_sae] correlation of each feature with itself before and after fine-tuning or merging.

    Both matrices come from the *same* autoencoder, applied to the parent's and to the child's
    activations under the same scale rule. No second dictionary, hence no dictionary noise.
    """
    return paired_pearson(f_before, f_after)


def transfer_fates(
    f_before: sp.csr_array,
    f_after: sp.csr_array,
    *,
    threshold: float = THRESHOLD,
    min_firings: int = MIN_FIRINGS,
) -> Fates:
    """`Fates` in which every feature's only candidate is itself, so that all the rest applies.

    Children get the fate of the same features seen from the child: persists | emerges | untestable.
    """
    r = transfer_correlation(f_before, f_after)
    own = np.arange(len(r))
    tables = []
    for matrix, lost in ((f_before, "disappears"), (f_after, "emerges")):
        firings = np.bincount(matrix.indices, minlength=len(r))
        fate = fate_of(r, firings, lost, threshold, min_firings)
        columns = {"feature": own, "firings": firings, "best": own, "r": r, "mutual": True}
        tables.append(pd.DataFrame({**columns, "fate": fate}))
    parents, children = tables
    return Fates(parents, children, own[:, None].astype(np.int32), threshold, min_firings)


def recovered_features(
    correlations: Mapping[str, np.ndarray],
    firings: np.ndarray,
    *,
    merged: str = "merged",
    threshold: float = THRESHOLD,
    min_firings: int = MIN_FIRINGS,
) -> pd.DataFrame:
    """Follow each testable feature of the base through its children into their merge.

    `correlations`: for each model ([d_sae], by name, the merge under `merged`) the feature's
    correlation with itself (`transfer_correlation`) or with its best match (`Fates.parents["r"]`).
    Columns feature, firings, r_<model> for each, kept_by (children that kept it, joined by "+", or
    "none"), in_merged, and recovered: lost in at least one child and yet present in the merge.
    """
    if merged not in correlations or len(correlations) < 2:
        raise FeatlibError(
            f"following features needs correlations for {merged!r} and at least one child; got "
            f"{sorted(correlations)}"
        )
    children = [name for name in correlations if name != merged]
    kept = {name: np.asarray(r) >= threshold for name, r in correlations.items()}
    table = pd.DataFrame({"feature": np.arange(len(firings)), "firings": np.asarray(firings)})
    for name, r in correlations.items():
        table[f"r_{name}"] = np.asarray(r)
    by = [
        "+".join(itertools.compress(children, flags)) or "none"
        for flags in zip(*(kept[name] for name in children), strict=True)
    ]
    table["kept_by"] = pd.Categorical(by)
    table["in_merged"] = kept[merged]
    table["recovered"] = kept[merged] & ~np.logical_and.reduce([kept[name] for name in children])
    return table[table["firings"] >= min_firings].reset_index(drop=True)


def _over_pairs(
    parents: Sequence[sp.csr_array],
    children: Sequence[sp.csr_array] | None,
    documents: np.ndarray,
    n_boot: int,
    rng: np.random.Generator,
    level: float,
    threshold: float,
    min_firings: int,
    weights: np.ndarray | None,
    device: str | None,
) -> Ceiling:
    """Mean share over seed pairs; `children` None: the other seeds of the parents themselves."""
    if weights is None:
        weights = document_weights(documents, n_boot, rng)
    groups: list[list[np.ndarray]] = []  # draws that are resampled together
    rows = []
    fates_by_pair: dict[tuple[int, int], Fates] = {}

    def add(i: int, j: int, r: np.ndarray, a: sp.csr_array, b: sp.csr_array) -> np.ndarray:
        counts = [np.bincount(m.indices, minlength=m.shape[1]) for m in (a, b)]
        fates = assign_fates(r, *counts, threshold=threshold, min_firings=min_firings)
        fates_by_pair[i, j] = fates
        draws = persistence_draws(a, b, documents, fates, weights)
        interval = bootstrap_interval(fates.persist, draws, level)
        rows.append(
            {"parent_seed": i, "child_seed": j, **summarize_pair(fates, interval), **fates.counts()}
        )
        return draws

    if children is None:
        for i, j in itertools.combinations(range(len(parents)), 2):
            a, b = parents[i], parents[j]
            r = pearson(a, b, device=device)
            groups.append([add(i, j, r, a, b), add(j, i, r.T, b, a)])
    else:
        pairs = list(itertools.product(range(len(parents)), range(len(children))))
        for i, j in [p for p in pairs if p[0] != p[1]] or pairs:
            a, b = parents[i], children[j]
            groups.append([add(i, j, pearson(a, b, device=device), a, b)])
    table = pd.DataFrame(rows)
    share = float(table["persist"].mean(skipna=False))
    draws = np.stack([np.mean(g, axis=0) for g in groups])  # [pairs, n_boot]
    picked = rng.integers(0, len(groups), size=(len(groups), draws.shape[1]))
    draws = np.take_along_axis(draws, picked, axis=0).mean(0)
    low, high = bootstrap_interval(share, draws, level)
    return Ceiling(share, low, high, table, draws, fates_by_pair)
