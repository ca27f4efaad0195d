"""Transfer: one dictionary read in several models, so that no second dictionary adds noise.

An autoencoder trained on a parent is applied to a child's activations with the weights it has. Two
numbers follow the child: activations are scaled such that their mean norm over the common stream is
the parent's there, and the threshold is set such that as many features fire.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from featlib.dictionaries.activations import activation_scale
from featlib.dictionaries.features import FeatureActivations, count_firings
from featlib.dictionaries.recipes import read_at_l0
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.estimate import Estimate, bootstrap_estimate
from featlib.family import BASE, MERGED, PAIRS, PLACEBO
from featlib.matching.correlation import paired_pearson
from featlib.matching.fates import RULE, Fates, Rule, fate_table
from featlib.matching.resampling import resampled_matches
from featlib.models.forward import harvest
from featlib.text.tokens import TokenBlocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def read_neurons(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    """Activations [tokens, d_in] float32 over blocks `ids`, with no copy beside the result."""
    out = np.empty((ids.size, model.config.intermediate_size), dtype=np.float32)
    start = 0
    for rows in harvest(model, ids):
        out[start : start + len(rows)] = rows.cpu().numpy()
        start += len(rows)
    return out


def carry(
    sae: SparseAutoencoder,
    parent_scale: float,
    child: PreTrainedModel,
    ids: np.ndarray,
    *,
    l0: float,
) -> tuple[SparseAutoencoder, FeatureActivations]:
    """A parent's `sae` made ready for `child`, and what it finds there over blocks `ids`.

    `parent_scale` is `activation_scale(parent, ids)`, over the same blocks; `l0` features fire on a
    token as in the parent. With the parent as the child nothing changes.
    """
    other = copy.deepcopy(sae)
    other.scale = sae.scale * activation_scale(child, ids) / parent_scale
    return other, read_at_l0(child, other, ids, l0)


def transfer_share(
    before: sp.csr_array,
    after: sp.csr_array,
    documents: np.ndarray,
    weights: np.ndarray,
    rule: Rule = RULE,
) -> tuple[Fates, Estimate]:
    """`Fates` in which every feature's only candidate is itself, and the share that persists.

    Both matrices come from the *same* autoencoder, read in the parent and in the child under the
    same scale rule. Children get the fate of the same features seen from the child. `weights` from
    `estimate.document_weights`: the same for all shares that will be compared.
    """
    r = paired_pearson(before, after)
    own = np.arange(len(r))
    best = {"best": own, "r": r, "mutual": np.ones(len(r), dtype=bool)}
    parents = fate_table(best, count_firings(before), "disappears", rule)
    children = fate_table(best, count_firings(after), "emerges", rule)
    fates = Fates(parents, children, own[:, None].astype(np.int32), rule)
    passes = resampled_matches(before, after, documents, fates, weights)
    draws = passes[:, fates.testable].mean(axis=1) if fates.testable.any() else np.array([np.nan])
    return fates, bootstrap_estimate(fates.persist, draws)


def follow_family(
    models: Mapping[str, PreTrainedModel],
    own: Mapping[str, tuple[SparseAutoencoder, FeatureActivations]],
    stream: TokenBlocks,
    weights: np.ndarray,
    rule: Rule = RULE,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Each parent's autoencoder read in its children, and the base's in the placebo.

    `own`: an autoencoder of each model, and what it finds there. Returns two tables by parent and
    child: of every feature (feature, firings, r with itself, fate), and of shares (persist with its
    interval, l0_ratio: the child's features per token by the parent's).
    """
    features, shares = [], []
    scales = {parent: activation_scale(models[parent], stream.ids) for parent, _ in PAIRS}
    for parent, child in (*PAIRS, (BASE, PLACEBO)):
        sae, before = own[parent]
        _, after = carry(sae, scales[parent], models[child], stream.ids, l0=before.l0)
        fates, share = transfer_share(before.matrix, after.matrix, stream.documents, weights, rule)
        names = {"parent": parent, "child": child}
        features.append(fates.parents.drop(columns=["best", "mutual"]).assign(**names))
        shares.append({**names, **share.named("persist"), "l0_ratio": after.l0 / before.l0})
    return pd.concat(features, ignore_index=True), pd.DataFrame(shares)


def transfer_metrics(shares: pd.DataFrame) -> dict[str, float]:
    """What `metrics.json` keeps of the shares of `follow_family`."""
    metrics: dict[str, float] = {}
    for row in shares.to_dict("records"):
        step = PLACEBO if row["child"] == PLACEBO else f"{row['parent']}.{row['child']}"
        metrics |= Estimate.read(row, "persist").named(f"transfer.{step}.persist")
        metrics[f"transfer.{step}.l0_ratio"] = row["l0_ratio"]
    return metrics


def share_by_t(
    correlations: Mapping[float, np.ndarray], fired: np.ndarray, rule: Rule = RULE
) -> pd.DataFrame:
    """Along t: columns t, kept, both, one, none (shares of testable features; kept is their sum).

    A feature that is itself in the merge at t is counted under both, one or none, by how many of
    the two ends (the smallest and the largest t) had kept it.
    """
    testable = np.asarray(fired) >= rule.min_firings
    kept = {t: correlations[t][testable] >= rule.threshold for t in sorted(correlations)}
    first, *_, last = kept.values()
    how_many, rows = first.astype(int) + last, []
    for t, here in kept.items():
        shares = [float((here & (how_many == n)).sum()) / max(len(here), 1) for n in (2, 1, 0)]
        rows.append((t, sum(shares), *shares))
    return pd.DataFrame(rows, columns=["t", "kept", "both", "one", "none"])


def recovered_features(
    correlations: Mapping[str, np.ndarray], fired: np.ndarray, rule: Rule = RULE
) -> pd.DataFrame:
    """Follow each testable feature of the base through its children into their merge.

    `correlations`: for each model, the merge among them, the feature's correlation [d_sae] with
    itself (`transfer_share`) or with its best match; `fired` [d_sae], its firings in the base.
    Columns feature, firings, r_<model> for each, kept_by (children that kept it, joined by "+", or
    "none"), in_merged, and recovered: lost in at least one child and yet present in the merge.
    """
    children = [name for name in correlations if name != MERGED]
    kept = {name: np.asarray(r) >= rule.threshold for name, r in correlations.items()}
    by_child = np.stack([kept[name] for name in children], axis=1)
    by = ["+".join(itertools.compress(children, flags)) or "none" for flags in by_child]
    table = pd.DataFrame(
        {"feature": np.arange(len(fired)), "firings": np.asarray(fired)}
        | {f"r_{name}": np.asarray(r) for name, r in correlations.items()}
        | {"kept_by": pd.Categorical(by), "in_merged": kept[MERGED]}
    )
    table["recovered"] = kept[MERGED] & ~by_child.all(axis=1)
    return table[table["firings"] >= rule.min_firings].reset_index(drop=True)
