"""Controls that train something of their own: a twin of the base, and other autoencoders."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch

from featlib.controls.run import CHILDREN, STEPS, ControlRun, Transfers, compare_neurons, named
from featlib.controls.tables import CEILING, DOTS
from featlib.dictionaries import features, recipes
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.estimate import Estimate, bootstrap_estimate
from featlib.family import BASE, PRINT_NAMES, TRAINING_MIX
from featlib.matching import ceilings as controls
from featlib.matching import fates as matching
from featlib.matching.resampling import persistence_draws
from featlib.models.recipes import build_base, train_base, training_text
from featlib.params import derive_seed


def recipe(c: ControlRun, chapter: str) -> SimpleNamespace:
    """The parameters with which an earlier chapter of this run was made."""
    return SimpleNamespace(**c.run.provenance()["chapters"][chapter]["parameters"])


def read_features(
    c: ControlRun,
    model: torch.nn.Module,
    mix: tuple[str, ...],
    name: str,
    seeds: range,
    init: SparseAutoencoder | None = None,
) -> list[features.FeatureActivations]:
    """Train autoencoders as chapter 05 does and read the common text as chapter 06 does."""
    config = recipes.autoencoder_config(recipe(c, "05_autoencoders"), c.saes["base"].d_in)
    trained = recipes.train_dictionaries(
        model, c.run, mix, config, name=name, seeds=seeds, seed=c.p.seed, init=init
    )
    return recipes.read_common_text(model, trained, c.stream, k=config.k, seed=c.p.seed)


# --- the same recipe twice ------------------------------------------------------------------------


@dataclass(frozen=True)
class Twin:
    """BabyPython trained again: share of its features that the twin's autoencoders find."""

    share: Estimate
    neurons: float  # share of neurons with a like one in the twin
    seconds: float


def train_twin(c: ControlRun) -> Twin:
    """Train the base from another seed, with its text in another order, and its autoencoders."""
    started = time.monotonic()
    old = recipe(c, "02_base_model")
    blocks = training_text(c.run, TRAINING_MIX[BASE], c.p.seed, "mix", "twin")
    twin = build_base(
        old,
        vocab_size=c.models[BASE].config.vocab_size,
        context=blocks.context,
        seed=derive_seed(c.p.seed, "init", "twin"),
    )
    order = derive_seed(c.p.seed, "order", "twin")
    train_base(twin, blocks.ids, old, seed=order, label="twin")
    found = read_features(c, twin, TRAINING_MIX["base"], "twin", range(c.p.sae_seeds))
    shared = controls.over_pairs(
        [f.matrix for f in c.acts["base"]],
        [f.matrix for f in found],
        documents=c.stream.documents,
        weights=c.weights,
        rng=c.rng,
        rule=c.rule,
    )
    neurons = compare_neurons(c, c.models["base"], twin)
    return Twin(shared.share, neurons, time.monotonic() - started)


# --- the same model, other text -------------------------------------------------------------------


@dataclass(frozen=True)
class Retrained:
    """One more autoencoder of a model: the share of the parent's features that it finds."""

    share: Estimate
    same_index: float  # share of these matches with the parent's own index
    seconds: float


def train_on_other_text(c: ControlRun) -> dict[str, Retrained]:
    """For each child, the base's autoencoder trained on that child's text, from another seed.

    The model is the base all along: what it does not find again is lost to the text alone.
    """
    return {
        child: _retrain(c, "base", "base", TRAINING_MIX[child], f"base on {child}", range(1, 2))
        for child in CHILDREN
    }


def _retrain(
    c: ControlRun,
    parent: str,
    model: str,
    mix: tuple[str, ...],
    name: str,
    seeds: range,
    **start: Any,
) -> Retrained:
    started = time.monotonic()
    (found,) = read_features(c, c.models[model], mix, name, seeds, **start)
    a, b = c.acts[parent][0].matrix, found.matrix
    fates = matching.compare(a, b, c.rule)
    draws = persistence_draws(a, b, c.stream.documents, fates, c.weights)
    share = bootstrap_estimate(fates.persist, draws)
    return Retrained(share, fates.same_index, time.monotonic() - started)


# --- warm starts ----------------------------------------------------------------------------------


def train_warm_starts(c: ControlRun) -> dict[tuple[str, str], Retrained]:
    """For each step, the child's autoencoder trained once more from the parent's weights."""
    return {
        (parent, child): _retrain(
            c, parent, child, TRAINING_MIX[child], child, range(1), init=c.saes[parent]
        )
        for parent, child in STEPS
    }


# --- all of them ----------------------------------------------------------------------------------


def trained_shares(
    c: ControlRun,
    moved: Transfers,
    twin: Twin | None,
    other_text: Mapping[str, Retrained],
    warm: Mapping[tuple[str, str], Retrained],
) -> pd.DataFrame:
    """Columns `control_tables.DOTS`: what was trained beside the shares that train nothing."""
    rows = []
    if twin:
        base = PRINT_NAMES["base"]
        rows += [
            (f"{base} → its twin", "ceiling: other model", *vars(twin.share).values()),
            (f"{base} → its twin", CEILING, *vars(c.share(("base", "lua"), "ceiling")).values()),
            (f"{base} → its twin", "neurons", twin.neurons, np.nan, np.nan),
        ]
    for pair in STEPS:
        trained = {}
        if pair in warm:
            trained["warm start"] = warm[pair].share
        if pair[0] == "base" and pair[1] in other_text:
            trained["ceiling: other text"] = other_text[pair[1]].share
        if trained:
            trained |= {"matching": c.share(pair), CEILING: c.share(pair, "ceiling")}
            trained["transfer"] = moved.shares[pair]
        rows += [(named(*pair), way, *vars(share).values()) for way, share in trained.items()]
    return pd.DataFrame(rows, columns=DOTS)


def trained_metrics(
    twin: Twin | None,
    other_text: Mapping[str, Retrained],
    warm: Mapping[tuple[str, str], Retrained],
) -> dict[str, float]:
    """What `metrics.json` keeps of those that were trained."""
    metrics: dict[str, float] = {}
    if twin:
        metrics |= twin.share.named("control.twin.persist")
        metrics["control.twin.neurons"] = twin.neurons
    for child, retrained in other_text.items():
        metrics |= retrained.share.named(f"control.text.{child}.persist")
    metrics |= {f"warm.{a}.{b}.persist": w.share.value for (a, b), w in warm.items()}
    return {key: value for key, value in metrics.items() if np.isfinite(value)}
