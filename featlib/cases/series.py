"""Dose and response: one feature followed through a series of models.

A series is a merge at many t, or the checkpoints of a fine-tune. Training an autoencoder for each
model of a series would cost hours, so existing ones are carried over: *transfer* reads one
feature of the reference's autoencoder in every model; *labels* chooses, in every model anew, the
best of the features that the autoencoders of the case's models offer for the label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor
from transformers import MistralForCausalLM

from featlib.cases.detectors import LabelledStream, rank_features
from featlib.cases.edits import Sites, read_sites
from featlib.cases.effects import ablation_effects
from featlib.cases.fit import LabelFit, evaluate_feature
from featlib.cases.subjects import CHUNK, Subject, keep_with_controls
from featlib.dictionaries.features import FeatureActivations, encode_batches
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.verdicts import half_life


@dataclass(frozen=True)
class Candidates:
    """Features offered by one model's autoencoder: those to choose from, then the controls."""

    sae: SparseAutoencoder  # with these features only
    n: int  # the first n are candidates, the others random features of like density


def offer_candidates(
    subject: Subject, features: Sequence[int], *, n_random: int, seed: int
) -> Candidates:
    """`features` of a subject, best first, with random ones that fire as often as the first."""
    controls = keep_with_controls(subject.features, int(features[0]), n_random, seed)[1:]
    return Candidates(subject.sae.only([*features, *controls]), len(features))


def gather_candidates(
    subjects: Sequence[Subject],
    fits: Mapping[str, LabelFit],
    reference: str,
    *,
    n_random: int,
    seed: int,
    top: int = 12,
) -> tuple[Candidates, list[Candidates]]:
    """(the one feature to transfer, the candidates of all subjects): for `follow_feature`."""
    offered, transferred = [], None
    for subject in subjects:
        if subject.name not in fits:
            continue
        best = [int(index) for index in fits[subject.name].candidates["feature"][:top]]
        offered.append(offer_candidates(subject, best, n_random=n_random, seed=seed))
        if subject.name == reference:
            transferred = offer_candidates(subject, best[:1], n_random=n_random, seed=seed)
    assert transferred is not None, f"no fit for {reference}"
    return transferred, offered


def follow_feature(
    series: Iterable[tuple[float, MistralForCausalLM]],
    transferred: Candidates,
    offered: Sequence[Candidates],
    stream: LabelledStream,
    ids: np.ndarray,
    documents: np.ndarray,
    *,
    seed: int,
    n_boot: int,
) -> pd.DataFrame:
    """F1 and causal effect in each model of a series, by both routes.

    `series` gives (x, model). One row for each x and route: f1 (test half, threshold chosen on
    the selection half) and effect (nats that ablating costs at labelled tokens, beyond random
    features), each with its interval.
    """
    rows = []
    for x, model in series:
        sites = read_sites(model, ids)
        for route, pool in (("transfer", [transferred]), ("labels", offered)):
            chosen, f, best = _choose(sites.neurons, pool, stream)
            measured = evaluate_feature(f, best, stream, seed=seed, n_boot=n_boot)
            effect = _effect(
                model, sites, chosen, f, best, stream, documents, seed=seed, n_boot=n_boot
            )
            rows.append(
                {
                    "x": float(x),
                    "route": route,
                    **{k: measured[k] for k in ("f1", "f1_low", "f1_high", "auroc")},
                    **effect,
                }
            )
    return pd.DataFrame(rows)


def _choose(
    neurons: Tensor, pool: Sequence[Candidates], stream: LabelledStream
) -> tuple[Candidates, FeatureActivations, int]:
    """The candidate with the highest F1 on the selection half; the first if none ever fires."""
    best: tuple[float, int, int] = (-1.0, 0, 0)
    encoded = [encode_batches(neurons.split(CHUNK), offer.sae) for offer in pool]
    for number, (offer, f) in enumerate(zip(pool, encoded, strict=True)):
        ranked = rank_features(FeatureActivations(f.matrix[:, : offer.n]), stream, 1)
        if len(ranked) and ranked["f1"][0] > best[0]:
            best = (float(ranked["f1"][0]), number, int(ranked["feature"][0]))
    return pool[best[1]], encoded[best[1]], best[2]


def _effect(
    model: MistralForCausalLM,
    sites: Sites,
    chosen: Candidates,
    f: FeatureActivations,
    best: int,
    stream: LabelledStream,
    documents: np.ndarray,
    *,
    seed: int,
    n_boot: int,
) -> dict[str, float]:
    kept = [best, *range(chosen.n, chosen.sae.d_sae)]
    few = FeatureActivations(f.matrix[:, kept])
    alive = int((few.matrix[:, 1:].sum(axis=0) > 0).sum())
    if alive == 0:
        return dict.fromkeys(("effect", "effect_low", "effect_high"), 0.0)
    table = ablation_effects(
        model, chosen.sae.only(kept), sites, few, 0,
        mask=stream.mask.reshape(sites.ids.shape), documents=documents, seed=seed,
        n_random=alive, n_boot=n_boot,
    )  # fmt: skip
    at = table[(table["who"] == "difference") & (table["region"] == "at")].iloc[0]
    return {"effect": at["delta"], "effect_low": at["low"], "effect_high": at["high"]}


def half_lives(followed: pd.DataFrame) -> pd.DataFrame:
    """Where F1 and effect have fallen to half of what they are at the series' beginning.

    Columns route, measure, start, end, half_life (in units of x; NaN where it never halves).
    """
    rows = []
    for route, part in followed.groupby("route", sort=False):
        part = part.sort_values("x")
        for measure in ("f1", "effect"):
            values = part[measure].to_numpy()
            rows.append(
                {
                    "route": route,
                    "measure": measure,
                    "start": float(values[0]),
                    "end": float(values[-1]),
                    "half_life": half_life(part["x"].to_list(), values.tolist()),
                }
            )
    return pd.DataFrame(rows)
