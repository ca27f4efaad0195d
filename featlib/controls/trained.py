"""Controls that train something of their own: a twin, other autoencoders, a crosscoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from featlib.controls.run import ControlRun, Pair, compare_neurons
from featlib.controls.tables import CEILING, by_step, dots
from featlib.dictionaries import crosscoder as cross
from featlib.dictionaries import features, recipes
from featlib.dictionaries.sae import AutoencoderConfig, SparseAutoencoder
from featlib.estimate import Estimate, bootstrap_estimate
from featlib.family import (
    BASE,
    CHILDREN,
    DOMAINS,
    MODELS,
    PRINT_NAMES,
    SKIPPED,
    STEPS,
    TRAINING_MIX,
    step_name,
)
from featlib.matching import owners
from featlib.matching.ceilings import over_pairs
from featlib.matching.fates import Fates, compare
from featlib.matching.owners import Plants, judge_plants, plant_features
from featlib.matching.resampling import persistence_draws
from featlib.models.recipes import build_base, train_base, training_text
from featlib.params import derive_seed


def recipe(c: ControlRun, chapter: str) -> SimpleNamespace:
    """The parameters with which an earlier chapter of this run was made."""
    return SimpleNamespace(**c.run.provenance()["chapters"][chapter]["parameters"])


def dictionary_config(c: ControlRun) -> AutoencoderConfig:
    return recipes.autoencoder_config(recipe(c, "05_autoencoders"), c.saes[BASE].d_in)


def read_features(
    c: ControlRun,
    model: PreTrainedModel,
    mix: tuple[str, ...],
    name: str,
    seeds: range,
    init: SparseAutoencoder | None = None,
) -> list[features.FeatureActivations]:
    """Train autoencoders as chapter 05 does and read the common text as chapter 06 does."""
    config = dictionary_config(c)
    trained = recipes.train_dictionaries(
        model, c.run, mix, config, name=name, seeds=seeds, seed=c.p.seed, init=init
    )
    return recipes.read_common_text(model, trained, c.stream, k=config.k)


# --- the same recipe twice ------------------------------------------------------------------------


def train_twin(c: ControlRun) -> tuple[Estimate, float]:
    """Train the base from another seed, with its text in another order, and its autoencoders.

    Shares of the base's features, and of its neurons, that have a like one in this twin.
    """
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
    found = read_features(c, twin, TRAINING_MIX[BASE], "twin", range(c.p.sae_seeds))
    shared = over_pairs(
        [f.matrix for f in c.acts[BASE]],
        [f.matrix for f in found],
        documents=c.stream.documents,
        weights=c.weights,
        rng=c.rng,
        rule=c.rule,
    )
    neurons = compare_neurons(c, {BASE: c.models[BASE], "twin": twin}, [(BASE, "twin")])
    return shared.share, neurons[BASE, "twin"]


# --- the same model, other text; a warm start -----------------------------------------------------


def train_on_other_text(c: ControlRun) -> dict[Pair, Estimate]:
    """For each child, the base's autoencoder trained on that child's text, from another seed.

    The model is the base all along: what it does not find again is lost to the text alone.
    """
    found = {}
    for child in CHILDREN:
        name = f"{BASE} on {child}"
        (read,) = read_features(c, c.models[BASE], TRAINING_MIX[child], name, range(1, 2))
        found[BASE, child] = _share(c, BASE, read)[1]
    return found


def train_warm_starts(c: ControlRun) -> dict[Pair, tuple[Fates, Estimate]]:
    """For each step, the child's autoencoder trained once more from the parent's weights."""
    found = {}
    for parent, child in STEPS:
        model, mix, init = c.models[child], TRAINING_MIX[child], c.saes[parent]
        (read,) = read_features(c, model, mix, child, range(1), init)
        found[parent, child] = _share(c, parent, read)
    return found


def _share(
    c: ControlRun, parent: str, found: features.FeatureActivations
) -> tuple[Fates, Estimate]:
    a, b = c.acts[parent][0].matrix, found.matrix
    fates = compare(a, b, c.rule)
    draws = persistence_draws(a, b, c.stream.documents, fates, c.weights)
    return fates, bootstrap_estimate(fates.persist, draws)


def beside_others(
    ways: Mapping[str, Mapping[Pair, Estimate]],
    twin: tuple[Estimate, float] | None,
    other_text: Mapping[Pair, Estimate],
    warm: Mapping[Pair, Estimate],
) -> pd.DataFrame:
    """`tables.by_step` where something was trained, beside the `ways` that train nothing."""
    ways = {**ways, "ceiling: other text": other_text, "warm start": warm}
    steps = {*other_text, *warm}
    table = by_step({way: {x: by[x] for x in by if x in steps} for way, by in ways.items()})
    if not twin:
        return table
    measured = {
        "ceiling: other model": twin[0],
        CEILING: ways[CEILING][SKIPPED],  # of the base, whatever the step
        "neurons": Estimate(twin[1]),
    }
    return pd.concat([dots(f"{PRINT_NAMES[BASE]} → its twin", measured), table])


# --- one dictionary for all models ----------------------------------------------------------------


@dataclass(frozen=True)
class Joint:
    """The crosscoder over all models, and what it says of the common text."""

    crosscoder: cross.Crosscoder
    read: features.FeatureActivations
    fvu: dict[str, float]  # by model
    own_fvu: dict[str, float]  # of each model's own autoencoder, on the same text
    testable: np.ndarray  # [d_sae] fires on `min_firings` tokens or more
    planted: pd.DataFrame  # `judge_plants`: what it made of features of known owners

    @cached_property
    def norms(self) -> pd.DataFrame:
        """Per step and testable feature: label, relative (the child's part of two lengths)."""
        parts = {
            step_name(*pair): owners.relative_norm(self.crosscoder, *pair)[self.testable]
            for pair in STEPS
        }
        return pd.DataFrame(parts).melt(var_name="label", value_name="relative")

    @cached_property
    def kinds(self) -> pd.DataFrame:
        """Shares of testable features by step (index: label) and kind (`owners.classify`)."""
        norms = self.norms.assign(kind=owners.classify(self.norms["relative"]))
        return norms.groupby("label", sort=False)["kind"].value_counts(normalize=True).unstack()

    @cached_property
    def overall(self) -> pd.Series:
        """Shares of testable features that are shared by all, exclusive to one, or partial."""
        spread = owners.spread_over_models(self.crosscoder)[self.testable]
        return spread["kind"].value_counts(normalize=True)

    def metrics(self) -> dict[str, float]:
        """What `metrics.json` keeps of it."""
        found = {"crosscoder.l0": self.read.l0}
        for own, part in self.planted.groupby("own"):
            counts = part[["planted", "found", "exclusive", "shared"]].sum()
            name = f"crosscoder.planted.{'own' if own else 'all'}"
            found |= {f"{name}.{key}": n for key, n in counts.items()}
        found |= {f"crosscoder.{model}.fvu": value for model, value in self.fvu.items()}
        return found | {f"crosscoder.{kind}": x for kind, x in self.overall.items()}


def train_joint(c: ControlRun) -> Joint:
    """Train the crosscoder on equal parts of all kinds of text, and keep it in the run.

    It gets the autoencoders' number of features, k and learning rate, and a few planted features of
    known owners to be judged by. `Run.crosscoder` and `Run.crosscoder_features` hold what chapter
    09 needs of it; on real text the planted features are silent.
    """
    own = dictionary_config(c)
    config = replace(
        own,
        architecture="batchtopk",
        d_in=own.d_in * len(MODELS),
        n_tokens=c.p.crosscoder_tokens,
        # As many activations in a batch, since a token brings those of all models. More and smaller
        # steps are what unlearning takes: a row of W_dec starts equally long in every model.
        batch_size=max(1, own.batch_size // len(MODELS)),
    )
    blocks = training_text(c.run, DOMAINS, c.p.seed, "crosscoder")
    scales = {m: recipes.training_scale(model, blocks) for m, model in c.models.items()}
    rng = np.random.default_rng(derive_seed(c.p.seed, "plants"))
    strength = float(c.acts[BASE][0].matrix.data.mean())
    plants = plant_features(len(MODELS), own.d_in, strength, rng)
    seed = derive_seed(c.p.seed, "crosscoder")
    batches = cross.joint_batches(c.models, blocks.ids, scales, config, seed)
    crosscoder = cross.train_crosscoder(plants.add_to(batches, rng), scales, config, seed=0)
    ids = recipes.calibration_ids(c.stream, c.p.seed)
    rows = cross.side_by_side(crosscoder, c.models, ids)
    features.calibrate(crosscoder.sae, rows, config.k)
    read, fvu = read_common(c, crosscoder)
    cross.save_crosscoder(crosscoder, c.run.crosscoder, {"training": asdict(config)})
    features.save_features(read, c.run.crosscoder_features)
    alone = {m: cross.Crosscoder((m,), sae, (sae.scale,)) for m, sae in c.saes.items()}
    return Joint(
        crosscoder=crosscoder,
        read=read,
        fvu=fvu,
        own_fvu={m: read_common(c, one)[1][m] for m, one in alone.items()},
        testable=read.firings >= c.p.min_firings,
        planted=find_plants(c, crosscoder, plants, rng),
    )


def read_common(
    c: ControlRun, crosscoder: cross.Crosscoder
) -> tuple[features.FeatureActivations, dict[str, float]]:
    """Features on the common text, and each model's FVU there."""
    return cross.encode_joint(crosscoder, cross.side_by_side(crosscoder, c.models, c.stream.ids))


def find_plants(
    c: ControlRun, crosscoder: cross.Crosscoder, plants: Plants, rng: np.random.Generator
) -> pd.DataFrame:
    """`judge_plants` on the common text, with the plants' activations drawn anew."""
    truth = plants.draw(c.stream.n_tokens, rng)

    def rows() -> Iterator[torch.Tensor]:
        start = 0
        for x in cross.side_by_side(crosscoder, c.models, c.stream.ids):
            yield plants.add(x, truth[start : start + len(x)])
            start += len(x)

    read = cross.encode_joint(crosscoder, rows())[0]
    return judge_plants(crosscoder, plants, read, truth, c.p.threshold)
