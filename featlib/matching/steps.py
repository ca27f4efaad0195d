"""What chapter 06 says of every step from a parent to a child, and keeps for the chapters after.

Pairs are (parent, child); a model with itself is (model, model).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from featlib.estimate import Estimate
from featlib.family import DOMAINS
from featlib.matching.ceilings import SeedPairs, calibrate
from featlib.matching.correlation import pearson
from featlib.matching.directions import partner_cosines, pwmcc, subspace_overlap
from featlib.matching.fates import Fates, Rule, compare
from featlib.matching.nulls import random_dictionary, shift_within_documents

Pair = tuple[str, str]
Matrices = Mapping[int, sp.csr_array]  # by the seed of the autoencoder
A, B = 0, 1  # the seeds of the one pair that is kept feature by feature
FLOWS = ["persists", "lost", "cannot tell", "emerges", "untestable"]
SHARES = (  # each with its interval; `_real`: without features that random directions match
    *("persist", "ceiling", "text_ceiling", "persist_real", "ceiling_real"),
    *("calibrated", "of_text", "stable_persist"),
)
NUMBERS = (
    *("median_r", "testable", "same_index", "median_cosine", "ceiling_cosine"),
    *("lost_subspace", "ceiling_subspace"),
)


@dataclass(frozen=True)
class Compared:
    """Everything that chapter 06 measures, by pair.

    `own`: each model with itself; `through`: the parent through dictionaries of the child's text;
    `by_random`: best r of each parent feature with random directions in the child, by seed;
    `equal`: the pair with autoencoders of equal seed; `decoders`: `W_dec` by model and seed.
    """

    crossed: Mapping[Pair, SeedPairs]
    own: Mapping[str, SeedPairs]
    through: Mapping[Pair, SeedPairs]
    by_random: Mapping[Pair, Mapping[int, np.ndarray]]
    equal: Mapping[Pair, Fates]
    decoders: Mapping[str, Mapping[int, np.ndarray]]
    rule: Rule

    def hard(self, pair: Pair) -> dict[int, np.ndarray]:
        """By seed, which features of the parent random directions in the child do not match."""
        return {i: r < self.rule.threshold for i, r in self.by_random[pair].items()}

    def stable(self, model: str) -> dict[int, np.ndarray]:
        """By seed, which features of a model all of its other seeds find."""
        return {i: found == 1 for i, found in self.own[model].stability().items()}


def best_random_r(
    activations: np.ndarray,
    firings: np.ndarray,
    parents: Mapping[Pair, Matrices],
    rng: np.random.Generator,
) -> dict[Pair, dict[int, np.ndarray]]:
    """`Compared.by_random` of one child: `activations` [tokens, d_in] of its neurons.

    The random directions fire as often as given, [d_sae]: as one of the child's dictionaries does.
    """
    random = random_dictionary(activations, firings, rng)
    return {
        pair: {i: pearson(m, random).max(axis=1) for i, m in matrices.items()}
        for pair, matrices in parents.items()
    }


def summarize_steps(found: Compared) -> pd.DataFrame:
    """One row for each step, in order: parent, child, `SHARES` with intervals, `NUMBERS`, emerge.

    persist, ceiling (another seed of the parent) and text_ceiling (the parent through a dictionary
    of the child's text) are of all testable features. persist_real and ceiling_real leave out, of
    numerator and denominator, those that random directions of equal density match as well: in the
    child, and for the ceiling in the parent. They need nothing learned, and tell neither way.
    calibrated is persist / ceiling, of_text persist / text_ceiling, and stable_persist the share
    that is found in the child of those features that every other seed of the parent finds.
    Cosines are medians over persisting features, beside the same between two seeds of the parent;
    lost_subspace is that of what the child lost and no seed of the parent found, with what is new
    in the child (`directions.subspace_overlap`), beside the same between two seeds.
    """
    rows = []
    for pair, crossed in found.crossed.items():
        parent, child = pair
        own, through, fates = found.own[parent], found.through[pair], crossed.fates[A, B]
        share, ceiling, text = crossed.share(), own.share(), through.share()
        estimates = {
            "persist": share.estimate,
            "ceiling": ceiling.estimate,
            "text_ceiling": text.estimate,
            "persist_real": crossed.share(found.hard(pair)).estimate,
            "ceiling_real": own.share(found.hard((parent, parent))).estimate,
            "calibrated": calibrate(share, ceiling),
            "of_text": calibrate(share, text),
            "stable_persist": crossed.share(found.stable(parent)).estimate,
        }
        again, decoders = own.fates[A, B], found.decoders
        never = own.stability()[A] == 0
        row = {
            "parent": parent,
            "child": child,
            "median_r": np.mean([f.median_r for f in crossed.fates.values()]),
            "testable": fates.testable_share,
            "same_index": np.nan_to_num(found.equal[pair].same_index),
            "median_cosine": _median_cosine(fates, decoders[parent], decoders[child]),
            "ceiling_cosine": _median_cosine(again, decoders[parent], decoders[parent]),
            "lost_subspace": _lost_subspace(fates, never, decoders[parent], decoders[child]),
            "ceiling_subspace": _lost_subspace(again, never, decoders[parent], decoders[parent]),
            "emerge": fates.emerge,
        }
        for name, estimate in estimates.items():
            row |= estimate.named(name)
        rows.append(row)
    return pd.DataFrame(rows)


def _median_cosine(fates: Fates, rows: Mapping, others: Mapping) -> float:
    cosine = partner_cosines(rows[A], others[B], fates.parents["best"].to_numpy())
    return float(np.median(cosine[fates.persisting])) if fates.persisting.any() else float("nan")


def _lost_subspace(fates: Fates, never: np.ndarray, rows: Mapping, others: Mapping) -> float:
    lost = fates.testable & ~fates.persisting & never
    new = (fates.children["fate"] == "emerges").to_numpy()
    return subspace_overlap(rows[A][lost], others[B][new])


def list_matches(
    found: Compared,
    matrices: Mapping[str, Matrices],
    documents: np.ndarray,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Every feature of both sides of every step, from seeds `A` and `B`.

    Columns parent, child, side, those of `Fates`, cosine (of decoder rows with the best partner),
    and for the parent's side stability, r_own (best r with seed `B` of the parent itself), r_random
    (with random directions in the child) and r_shifted (with the child rotated within each
    document: nothing can rightly match).
    """
    listed = []
    for (parent, child), crossed in found.crossed.items():
        fates, own = crossed.fates[A, B], found.own[parent]
        shifted = shift_within_documents(matrices[child][B], documents, rng)
        rows, others = found.decoders[parent][A], found.decoders[child][B]
        back = fates.children["best"].to_numpy()
        parents = fates.parents.assign(
            cosine=partner_cosines(rows, others, fates.parents["best"].to_numpy()),
            stability=own.stability()[A],
            r_own=own.fates[A, B].parents["r"],
            r_random=found.by_random[parent, child][A],
            r_shifted=pearson(matrices[parent][A], shifted).max(axis=1),
        )
        children = fates.children.assign(cosine=partner_cosines(others, rows, back))
        for side, part in (("parent", parents), ("child", children)):
            listed.append(part.assign(parent=parent, child=child, side=side))
    return pd.concat(listed, ignore_index=True)


def count_flows(found: Compared) -> pd.DataFrame:
    """Columns fate, count (a mean over pairs of seeds), parent, child, for each step.

    A parent's feature that finds no match is lost if every other seed of the parent finds it;
    otherwise nobody can tell, since another description of the parent misses it as well.
    """
    parts = []
    for (parent, child), crossed in found.crossed.items():
        stable, counts = found.stable(parent), []
        for (i, _), fates in crossed.fates.items():
            gone = fates.testable & ~fates.persisting
            new = int((fates.children["fate"] == "emerges").sum())
            sets = (fates.persisting, gone & stable[i], gone & ~stable[i])
            counts.append([*(int(s.sum()) for s in sets), new, int((~fates.testable).sum())])
        table = pd.DataFrame({"fate": FLOWS, "count": np.mean(counts, axis=0)})
        parts.append(table.assign(parent=parent, child=child))
    return pd.concat(parts, ignore_index=True)


def shares_by_kind(
    pair: Pair, matrices: Mapping[str, Matrices], through: Matrices, kinds: np.ndarray, rule: Rule
) -> pd.DataFrame:
    """Of one step, per kind of text: persist, ceiling, text_ceiling, from seeds `A` and `B`.

    `through`: the parent through dictionaries of the child's text; `kinds`: every token's index
    into `DOMAINS`. On one kind alone features fire less often, so fewer are testable.
    """
    parent, child = pair
    others = {
        "persist": matrices[child][B],
        "ceiling": matrices[parent][B],
        "text_ceiling": through[B],
    }
    rows = []
    for n, domain in enumerate(DOMAINS):
        here = np.flatnonzero(kinds.reshape(-1) == n)
        a = matrices[parent][A][here]
        shares = {name: compare(a, b[here], rule).persist for name, b in others.items()}
        rows.append({"kind": domain, "parent": parent, "child": child, **shares})
    return pd.DataFrame(rows)


def list_seed_pairs(found: Compared) -> pd.DataFrame:
    """One row per pair of models and seeds: parent, child, their seeds, persist, same_index."""
    compared = {(m, m): own for m, own in found.own.items()} | dict(found.crossed)
    rows = [
        (*pair, i, j, fates.persist, fates.same_index)
        for pair, pairs in compared.items()
        for (i, j), fates in pairs.fates.items()
    ]
    columns = ["parent", "child", "parent_seed", "child_seed", "persist", "same_index"]
    return pd.DataFrame(rows, columns=columns)


def step_metrics(found: Compared, steps: pd.DataFrame, matches: pd.DataFrame) -> dict[str, float]:
    """What `metrics.json` keeps of chapter 06's comparisons; what is not defined stays out."""
    metrics: dict[str, float] = {}
    for row in steps.to_dict("records"):
        step = f"match.{row['parent']}.{row['child']}"
        metrics |= {f"{step}.{key}": row[key] for key in NUMBERS}
        for key in SHARES:
            metrics |= Estimate.read(row, key).named(f"{step}.{key}")
    parents = matches[(matches["side"] == "parent") & (matches["fate"] != "untestable")]
    for (parent, child), part in parents.groupby(["parent", "child"], sort=False):
        passes = part["r_shifted"] >= found.rule.threshold
        metrics[f"null.{parent}.{child}.persist"] = passes.mean()
    for model, decoders in found.decoders.items():
        metrics[f"sae.{model}.pwmcc"] = pwmcc(decoders[A], decoders[B])
        tested = found.own[model].fates[A, B].testable
        metrics[f"sae.{model}.stable"] = found.stable(model)[A][tested].mean()
    return {key: float(value) for key, value in metrics.items() if np.isfinite(value)}
