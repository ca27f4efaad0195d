"""Controls that train something of their own: a twin of the base, warm starts, a crosscoder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from featlib import activations, controls, features, matching, tokens
from featlib import autoencoder as sae_lib
from featlib import crosscoder as cross
from featlib import crosscoder_verdicts as verdicts
from featlib import language_model as lm
from featlib.claims import Share
from featlib.control_run import STEPS, ControlRun, Transfers, compare_neurons, named
from featlib.control_tables import CEILING, DOTS, share_metrics
from featlib.params import DOMAINS, MODELS, PRINT_NAMES, TRAINING_MIX, derive_seed
from featlib.planted_features import Plants, count_plants, judge_plants, plant_features

CALIBRATION = 12_000  # tokens of the common text that set thresholds there, as in chapter 06


def recipe(c: ControlRun, chapter: str) -> dict[str, Any]:
    """The parameters with which an earlier chapter of this run was made."""
    return c.run.provenance()["chapters"][chapter]["parameters"]


def autoencoder_config(c: ControlRun) -> sae_lib.AutoencoderConfig:
    """How chapter 05 trained this run's autoencoders."""
    old = recipe(c, "05_autoencoders")
    return sae_lib.AutoencoderConfig(
        d_in=c.saes["base"].d_in,
        d_sae=c.saes["base"].d_sae,
        architecture=old["sae_architecture"],
        k=old["k"],
        l1=old["l1"],
        lr=old["sae_lr"],
        n_tokens=old["sae_tokens"],
        batch_size=old["sae_batch_size"],
    )


def calibration(c: ControlRun) -> np.ndarray:
    """Blocks [blocks, context] of the common text, those of chapter 06."""
    n_tokens = min(CALIBRATION, c.stream.n_tokens)
    seed = derive_seed(c.p.seed, "calibration")
    return tokens.take_tokens(c.stream, n_tokens, seed=seed).ids


def training_text(c: ControlRun, mix: tuple[str, ...], *purpose: str) -> tokens.TokenBlocks:
    parts = [tokens.load_blocks(c.run.tokens, f"{d}.train") for d in mix]
    return tokens.mix_blocks(parts, seed=derive_seed(c.p.seed, *purpose))


def read_features(
    c: ControlRun,
    model: torch.nn.Module,
    mix: tuple[str, ...],
    name: str,
    seeds: range,
    **start: Any,
) -> list[features.FeatureActivations]:
    """Train autoencoders as chapter 05 does and read the common text as chapter 06 does."""
    config = autoencoder_config(c)
    blocks = training_text(c, mix, "sae mix", name)
    scale = activations.activation_stats(model, blocks.ids[:512]).scale
    batches = activations.shuffled_batches(
        model,
        blocks.ids,
        n_tokens=config.n_tokens,
        batch_size=config.batch_size,
        seed=derive_seed(c.p.seed, "sae order", name),
        scale=scale,
    )
    trained, _ = sae_lib.train_autoencoders(batches, config, seeds=seeds, scale=scale, **start)
    if config.architecture == "batchtopk":
        ids = calibration(c)
        for sae in trained:
            sae.threshold = features.threshold_for_l0(model, sae, ids, config.k)
    return [features.encode_stream(model, sae, c.stream.ids) for sae in trained]


# --- the same recipe twice ------------------------------------------------------------------------


@dataclass(frozen=True)
class Twin:
    """BabyPython trained again: share of its features that the twin's autoencoders find."""

    share: Share
    neurons: float  # share of neurons with a like one in the twin
    seconds: float


def train_twin(c: ControlRun) -> Twin:
    """Train the base from another seed, with its text in another order, and its autoencoders."""
    started = time.monotonic()
    old = recipe(c, "02_base_model")
    blocks = training_text(c, TRAINING_MIX["base"], "mix", "twin")
    twin = lm.build_model(
        vocab_size=c.models["base"].config.vocab_size,
        hidden_size=old["hidden_size"],
        intermediate_size=old["intermediate_size"],
        heads=old["heads"],
        kv_heads=old["kv_heads"],
        context=blocks.context,
        embedding_std=old["embedding_std"],
        seed=derive_seed(c.p.seed, "init", "twin"),
    )
    lm.train(
        twin,
        blocks.ids,
        n_tokens=old["base_tokens"],
        batch_size=old["batch_size"],
        lr=old["base_lr"],
        warmup_steps=old["base_warmup_steps"],
        weight_decay=old["base_weight_decay"],
        betas=(0.9, old["adam_beta2"]),
        seed=derive_seed(c.p.seed, "order", "twin"),
    )
    found = read_features(c, twin, TRAINING_MIX["base"], "twin", range(c.p.sae_seeds))
    shared = controls.cross_share(
        [f.matrix for f in c.acts["base"]],
        [f.matrix for f in found],
        c.stream.documents,
        weights=c.weights,
        n_boot=c.p.bootstrap,
        rng=c.rng,
        **c.rule,
    )
    neurons = compare_neurons(c, c.models["base"], twin)
    share = Share(shared.share, shared.low, shared.high)
    return Twin(share, neurons, time.monotonic() - started)


# --- warm starts ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class WarmStart:
    """A child's autoencoder that started from its parent's."""

    share: Share  # of the parent's features that persist
    same_index: float  # share of these matches with the parent's own index
    seconds: float


def train_warm_starts(c: ControlRun) -> dict[tuple[str, str], WarmStart]:
    """For each step, the child's autoencoder trained once more from the parent's weights."""
    warm = {}
    for parent, child in STEPS:
        started = time.monotonic()
        (found,) = read_features(
            c, c.models[child], TRAINING_MIX[child], child, range(1), init=c.saes[parent]
        )
        a = c.acts[parent][0]
        fates = matching.assign_fates(
            matching.pearson(a.matrix, found.matrix),
            features.firing_counts(a),
            features.firing_counts(found),
            **c.rule,
        )
        draws = matching.persistence_draws(
            a.matrix, found.matrix, c.stream.documents, fates, c.weights
        )
        share = Share(fates.persist, *matching.bootstrap_interval(fates.persist, draws))
        index = controls.index_effect(fates)["same_index"]
        warm[parent, child] = WarmStart(share, index, time.monotonic() - started)
    return warm


# --- the crosscoder -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Joint:
    """The crosscoder over all four models, and what it says of the common text."""

    crosscoder: cross.Crosscoder
    read: features.FeatureActivations
    fvu: dict[str, float]  # by model
    own_fvu: dict[str, float]  # of each model's own autoencoder, on the same text
    testable: np.ndarray  # [d_sae] fires on `min_firings` tokens or more
    planted: dict[str, int]  # `count_plants`: what it made of features of known owners
    seconds: float

    @property
    def l0(self) -> float:
        return features.mean_l0(self.read)

    def norms(self) -> pd.DataFrame:
        """Per step and testable feature: label, relative (the child's part of two lengths)."""
        return pd.concat(
            [
                pd.DataFrame(
                    {
                        "label": named(*pair),
                        "relative": verdicts.relative_norm(self.crosscoder, *pair)[self.testable],
                    }
                )
                for pair in STEPS
            ],
            ignore_index=True,
        )

    def kinds(self) -> pd.DataFrame:
        """Shares of testable features by step (index: label) and kind (`verdicts.classify`)."""
        norms = self.norms()
        norms = norms.assign(kind=verdicts.classify(norms["relative"]))
        return norms.groupby("label", sort=False)["kind"].value_counts(normalize=True).unstack()

    def overall(self) -> pd.Series:
        """Shares of testable features that are shared by all, exclusive to one, or partial."""
        spread = verdicts.spread_over_models(self.crosscoder)[self.testable]
        return spread["kind"].value_counts(normalize=True)


def train_joint(c: ControlRun) -> Joint:
    """Train the crosscoder on equal parts of all four kinds of text, and keep it in the run.

    It gets the autoencoders' number of features, k and learning rate, and a few planted features of
    known owners to be judged by. `Run.crosscoder` and `Run.crosscoder_features` hold what chapter
    09 needs of it; on real text the planted features are silent.
    """
    started = time.monotonic()
    own = autoencoder_config(c)
    config = replace(
        own,
        architecture="batchtopk",
        d_in=own.d_in * len(MODELS),
        n_tokens=c.p.crosscoder_tokens,
        # As many activations in a batch, since a token brings those of all models. More and smaller
        # steps are what unlearning takes: a row of W_dec starts equally long in every model.
        batch_size=max(1, own.batch_size // len(MODELS)),
    )
    blocks = training_text(c, DOMAINS, "crosscoder")
    scales = {
        m: activations.activation_stats(model, blocks.ids[:512]).scale
        for m, model in c.models.items()
    }
    rng = np.random.default_rng(derive_seed(c.p.seed, "plants"))
    strength = float(c.acts["base"][0].matrix.data.mean())
    plants = plant_features(len(MODELS), own.d_in, strength, rng)
    batches = cross.joint_batches(
        c.models,
        blocks.ids,
        scales,
        n_tokens=config.n_tokens,
        batch_size=config.batch_size,
        seed=derive_seed(c.p.seed, "crosscoder"),
    )
    crosscoder = cross.train_crosscoder(plants.add_to(batches, rng), scales, config, seed=0)
    cross.set_threshold(crosscoder, c.models, calibration(c), config.k)
    read, fvu = cross.read_stream(crosscoder, c.models, c.stream.ids)
    cross.save_crosscoder(crosscoder, c.run.crosscoder, {"training": asdict(config)})
    features.save_features(read, c.run.crosscoder_features)
    own_fvu = {
        m: cross.read_stream(cross.Crosscoder((m,), sae, (sae.scale,)), c.models, c.stream.ids)[1][
            m
        ]
        for m, sae in c.saes.items()
    }
    return Joint(
        crosscoder=crosscoder,
        read=read,
        fvu=fvu,
        own_fvu=own_fvu,
        testable=features.firing_counts(read) >= c.p.min_firings,
        planted=count_plants(find_plants(c, crosscoder, plants, rng), c.p.threshold),
        seconds=time.monotonic() - started,
    )


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

    return judge_plants(crosscoder, plants, cross.encode_joint(crosscoder, rows())[0], truth)


# --- all of them ----------------------------------------------------------------------------------


def trained_shares(
    c: ControlRun,
    moved: Transfers,
    twin: Twin | None,
    warm: Mapping[tuple[str, str], WarmStart],
) -> pd.DataFrame:
    """Columns `control_tables.DOTS`: twin and warm starts beside the shares that train nothing."""
    rows = []
    if twin:
        ceiling = c.share(("base", "lua"), "ceiling")
        base = PRINT_NAMES["base"]
        rows += [
            (f"{base} → its twin", "ceiling: other model", *vars(twin.share).values()),
            (f"{base} → its twin", CEILING, *vars(ceiling).values()),
            (f"{base} → its twin", "neurons", twin.neurons, np.nan, np.nan),
        ]
    for pair, started in warm.items():
        rows += [
            (named(*pair), "warm start", *vars(started.share).values()),
            (named(*pair), "matching", *vars(c.share(pair)).values()),
            (named(*pair), CEILING, *vars(c.share(pair, "ceiling")).values()),
            (named(*pair), "transfer", *vars(moved.shares[pair]).values()),
        ]
    return pd.DataFrame(rows, columns=DOTS)


def trained_metrics(
    twin: Twin | None, warm: Mapping[tuple[str, str], WarmStart], joint: Joint | None
) -> dict[str, float]:
    """What `metrics.json` keeps of those that were trained."""
    metrics: dict[str, float] = {}
    if twin:
        metrics |= share_metrics("control.twin.persist", twin.share)
        metrics["control.twin.neurons"] = twin.neurons
    metrics |= {f"warm.{a}.{b}.persist": w.share.value for (a, b), w in warm.items()}
    if joint:
        metrics["crosscoder.l0"] = joint.l0
        metrics |= {f"crosscoder.planted.{key}": float(n) for key, n in joint.planted.items()}
        metrics |= {f"crosscoder.{model}.fvu": value for model, value in joint.fvu.items()}
        metrics |= {f"crosscoder.{kind}": float(share) for kind, share in joint.overall().items()}
    return {key: value for key, value in metrics.items() if np.isfinite(value)}
