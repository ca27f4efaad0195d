"""How much of "disappearing" is real: seed ceilings, shares read against them, and by group.

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

from featlib.estimate import NAN, Estimate, bootstrap_estimate, proportion
from featlib.matching.correlation import pearson
from featlib.matching.fates import RULE, Fates, Rule, compare
from featlib.matching.nulls import shift_within_documents
from featlib.matching.resampling import persistence_draws

THRESHOLDS = np.arange(50, 96, 5) / 100  # where the convention of 0.8 could lie as well
PER_DECADE = 2  # bins of density
FATES = ["persists", "disappears", "emerges", "untestable"]
METRICS = (
    *("persist", "persist_low", "persist_high", "median_r"),
    *("ceiling", "calibrated", "testable", "same_index"),
)


@dataclass(frozen=True)
class SeedShare:
    """A persisting share averaged over pairs of autoencoder seeds.

    The interval of `share` is over documents and, with three seeds or more, over pairs of seeds;
    `draws` [n_boot] are the bootstrap's shares. `pairs`, one row per ordered pair: parent_seed,
    child_seed, persist with its interval, median_r, same_index, testable, and the numbers of
    `Fates.counts`. `fates` holds every pair's fates, by (parent_seed, child_seed).
    """

    share: Estimate
    pairs: pd.DataFrame
    draws: np.ndarray
    fates: dict[tuple[int, int], Fates]


def over_pairs(
    parents: Sequence[sp.csr_array],
    children: Sequence[sp.csr_array] | None = None,
    *,
    documents: np.ndarray,
    weights: np.ndarray,
    rng: np.random.Generator,
    rule: Rule = RULE,
) -> SeedShare:
    """Share of a parent's features that persist in a child, over pairs of *different* seeds.

    `parents[i]` and `children[i]` come from seed i. Pairs of equal seed are left out, so that a
    shared starting point cannot help; with one seed each, that single pair is used. Without
    `children` it is the *seed ceiling*: the share of a model's features that its own autoencoder of
    another seed finds again. Then every ordered pair counts, and both directions of a pair are
    drawn together, since they rest on the same r.
    """
    groups: list[list[np.ndarray]] = []  # draws that are resampled together
    rows = []
    fates: dict[tuple[int, int], Fates] = {}

    def add(i: int, j: int, a: sp.csr_array, b: sp.csr_array, r: np.ndarray) -> np.ndarray:
        found = fates[i, j] = compare(a, b, rule, r)
        draws = persistence_draws(a, b, documents, found, weights)
        rows.append(
            {
                "parent_seed": i,
                "child_seed": j,
                **bootstrap_estimate(found.persist, draws).named("persist"),
                "median_r": found.median_r,
                "same_index": found.same_index,
                "ceiling": NAN,  # of a step as a whole, like the next
                "calibrated": NAN,
                "testable": found.testable,
                **found.counts(),
            }
        )
        return draws

    others = parents if children is None else children
    every = list(itertools.product(range(len(parents)), range(len(others))))
    apart = [(i, j) for i, j in every if (i < j if children is None else i != j)]
    assert apart or children is not None, "a seed ceiling needs two seeds"
    for i, j in apart or every:
        a, b = parents[i], others[j]
        r = pearson(a, b)
        groups.append([add(i, j, a, b, r)])
        if children is None:
            groups[-1].append(add(j, i, b, a, r.T))
    table = pd.DataFrame(rows)
    share = float(table["persist"].mean(skipna=False))
    draws = np.stack([np.mean(g, axis=0) for g in groups])  # [pairs, n_boot]
    picked = rng.integers(0, len(groups), size=(len(groups), draws.shape[1]))
    draws = np.take_along_axis(draws, picked, axis=0).mean(0)
    return SeedShare(bootstrap_estimate(share, draws), table, draws, fates)


def calibrate(share: SeedShare, ceiling: SeedShare) -> Estimate:
    """share / ceiling; NaN where the ceiling is 0.

    Both must come from the same `weights`, so that the texts vary together; the interval is
    narrower for it. A ratio of 1 says that the child is no further from the parent than another
    autoencoder of the parent is; a ratio above 1 is possible by chance.
    """
    if not (ceiling.share.value > 0 and np.all(ceiling.draws > 0)):
        return Estimate(NAN)
    ratio = share.share.value / ceiling.share.value
    return bootstrap_estimate(ratio, share.draws / ceiling.draws, upper=np.inf)


# --- what chapter 06 says of every step -----------------------------------------------------------


def summarize_steps(
    matrices: Mapping[str, Sequence[sp.csr_array]],
    own: Mapping[str, SeedShare],
    crossed: Mapping[tuple[str, str], SeedShare],
    documents: np.ndarray,
    rng: np.random.Generator,
    rule: Rule = RULE,
) -> pd.DataFrame:
    """One row for each step of `crossed`, in order; `own` are the models' seed ceilings.

    Columns parent, child, `METRICS` and their intervals, emerge, and null: the share that
    "persists" although the child's activations are rotated within each document. same_index is that
    of two autoencoders of equal seed, 0 where nothing matches; testable and emerge are those of
    seeds 0 and 1.
    """
    rows = []
    for (parent, child), share in crossed.items():
        ceiling, fates = own[parent].share, share.fates[0, 1]
        ratio = calibrate(share, own[parent])
        equal = compare(matrices[parent][0], matrices[child][0], rule)
        shifted = shift_within_documents(matrices[child][1], documents, rng)
        rows.append(
            {
                "parent": parent,
                "child": child,
                **share.share.named("persist"),
                "median_r": share.pairs["median_r"].mean(),
                "ceiling": ceiling.value,
                "calibrated": ratio.value,
                "testable": fates.testable,
                "same_index": np.nan_to_num(equal.same_index),
                "calibrated_low": ratio.low,
                "calibrated_high": ratio.high,
                "ceiling_low": ceiling.low,
                "ceiling_high": ceiling.high,
                "emerge": fates.emerge,
                "null": compare(matrices[parent][0], shifted, rule).persist,
            }
        )
    return pd.DataFrame(rows)


def count_flows(
    own: Mapping[str, SeedShare], crossed: Mapping[tuple[str, str], SeedShare]
) -> pd.DataFrame:
    """Columns fate, count (a mean over pairs of seeds), parent, child, ceiling, for each step."""
    parts = [
        share.pairs[FATES]
        .mean()
        .rename_axis("fate")
        .rename("count")
        .reset_index()
        .assign(parent=parent, child=child, ceiling=own[parent].share.value)
        for (parent, child), share in crossed.items()
    ]
    return pd.concat(parts, ignore_index=True)


def step_metrics(steps: pd.DataFrame) -> dict[str, float]:
    """What `metrics.json` keeps of `summarize_steps`."""
    found: dict[str, float] = {}
    for row in steps.to_dict("records"):
        step = f"{row['parent']}.{row['child']}"
        found |= {f"match.{step}.{key}": row[key] for key in METRICS}
        found[f"null.{step}.persist"] = row["null"]
    return found


# --- shares by threshold and by group -------------------------------------------------------------


def persistence_by_threshold(fates: Fates) -> pd.DataFrame:
    """Persisting share of testable parents at other thresholds: columns threshold, persist."""
    r = fates.parents.loc[fates.parents["fate"] != "untestable", "r"].to_numpy()
    share = [(r >= t).mean() if len(r) else NAN for t in THRESHOLDS]
    return pd.DataFrame({"threshold": THRESHOLDS, "persist": share})


def density_bins(firings: np.ndarray, n_tokens: int) -> pd.Categorical:
    """[d] ordered label of each feature's density bin, "low-high" in firings per token, log steps.

    Silent features get no bin (NaN).
    """
    density = np.asarray(firings) / n_tokens
    step = np.full(len(density), np.nan)
    alive = density > 0
    step[alive] = np.floor(np.log10(density[alive]) * PER_DECADE + 1e-9)
    levels = np.unique(step[alive])
    labels = [f"{10 ** (s / PER_DECADE):.2g}-{10 ** ((s + 1) / PER_DECADE):.2g}" for s in levels]
    codes = np.where(alive, np.searchsorted(levels, np.nan_to_num(step, nan=np.inf)), -1)
    return pd.Categorical.from_codes(codes, labels, ordered=True)


def persistence_by(fates: Fates, groups: Sequence | np.ndarray | pd.Categorical) -> pd.DataFrame:
    """Persisting share by what features are: density bin, token class, anything per parent feature.

    `groups` [d_parent]. Columns group, features, testable, persists, share (of the testable; NaN
    without any), low, high (`estimate.proportion`).
    """
    table = pd.DataFrame({"group": groups, "fate": fates.parents["fate"].to_numpy()})
    rows = []
    for group, part in table.groupby("group", sort=True, observed=True):
        tested = int((part["fate"] != "untestable").sum())
        kept = int((part["fate"] == "persists").sum())
        share = proportion(kept, tested)
        rows.append((group, len(part), tested, kept, share.value, share.low, share.high))
    columns = ["group", "features", "testable", "persists", "share", "low", "high"]
    return pd.DataFrame(rows, columns=columns)
