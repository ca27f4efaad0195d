"""One feature in four models: what each model's own best feature does, and the feature's fate.

A `Subject` is one model with one of its autoencoders, read over the text of a case. From subjects
come tables: detectors of a label with their rivals, the routes by which a feature of one model is
sought in another, and what ablating costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from transformers import MistralForCausalLM

from featlib.cases.baselines import similar_features
from featlib.cases.detectors import LabelledStream, feature_scores, rank_features
from featlib.cases.edits import Sites, read_sites
from featlib.cases.effects import ablation_effects, steering_effects, typical_activation
from featlib.cases.fit import LabelFit, evaluate_feature, fit_label
from featlib.dictionaries.features import FeatureActivations, encode_batches
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.matching.correlation import pearson
from featlib.text.labels import Label, find_vocabulary

ROUTES = ("labels", "correlation", "transfer", "crosscoder")
CHUNK = 4096  # tokens encoded at once


@dataclass(frozen=True)
class Subject:
    """One model with one autoencoder, and what both do on the text of the case."""

    name: str  # as in MODELS
    model: MistralForCausalLM
    sae: SparseAutoencoder
    sites: Sites
    features: FeatureActivations
    seed: int = 0  # of the autoencoder


def read_subject(
    name: str, model: MistralForCausalLM, sae: SparseAutoencoder, ids: np.ndarray
) -> Subject:
    """Run `model` over blocks `ids` once, and encode what its MLP does with `sae`."""
    return read_subjects(name, model, {0: sae}, ids)[0]


def read_subjects(
    name: str,
    model: MistralForCausalLM,
    saes: Mapping[int, SparseAutoencoder],
    ids: np.ndarray,
) -> list[Subject]:
    """The same for several autoencoders of one model, by seed: the model itself runs once."""
    sites = read_sites(model, ids)
    return [
        Subject(name, model, sae, sites, encode_batches(sites.neurons.split(CHUNK), sae), seed)
        for seed, sae in saes.items()
    ]


# ------------------------------------------------------------------------------ detecting


def best_dictionary(subjects: Sequence[Subject], stream: LabelledStream) -> Subject | None:
    """The one whose best feature has the highest F1 on the selection half; None if all are silent.

    An autoencoder is one of many that training could have given. Which of them gave a concept a
    feature of its own is luck, so a feature is looked for in all of a model's autoencoders.
    """
    best: tuple[float, Subject | None] = (-1.0, None)
    for subject in subjects:
        ranked = rank_features(subject.features, stream, 1)
        if len(ranked) and ranked["f1"][0] > best[0]:
            best = (float(ranked["f1"][0]), subject)
    return best[1]


def fit_subjects(
    dictionaries: Mapping[str, Sequence[Subject]],
    streams: Mapping[str, LabelledStream],
    *,
    chosen: str,
    seed: int,
    n_random: int,
    n_boot: int,
) -> tuple[dict[tuple[str, str], LabelFit], dict[tuple[str, str], Subject]]:
    """(fits, homes) by (label, model): the best feature, and the subject in which it was found.

    `dictionaries`: the subjects of each model, one for each of its autoencoders. Neuron and probe
    stand beside `chosen` only.
    """
    fits, homes = {}, {}
    for model, subjects in dictionaries.items():
        for label, stream in streams.items():
            subject = best_dictionary(subjects, stream)
            if subject is None:  # no feature fires in the selection half
                continue
            rivals = label == chosen
            fits[label, model] = fit_label(
                subject.features,
                stream,
                seed=seed,
                others=[other.features for other in subjects if other is not subject],
                neurons=subject.sites.neurons.cpu().numpy() if rivals else None,
                residual=subject.sites.residual.cpu().numpy() if rivals else None,
                n_random=n_random,
                n_boot=n_boot,
            )
            homes[label, model] = subject
    return fits, homes


def detector_table(fits: Mapping[tuple[str, str], LabelFit]) -> pd.DataFrame:
    """Every detector of every fit: label, model, detector, index, threshold, measures."""
    parts = [fit.test.assign(label=label, model=model) for (label, model), fit in fits.items()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


# ------------------------------------------------------------------------------ fate


@dataclass(frozen=True)
class Found:
    """A counterpart of the reference's feature in one model."""

    subject: Subject  # with the autoencoder that holds the counterpart
    route: str
    feature: int
    r_stream: float = float("nan")  # on the common stream of chapter 06, where it was chosen
    again: bool = False  # in a second autoencoder of the reference: the ceiling


def best_correlated(
    reference: FeatureActivations, feature: int, other: FeatureActivations
) -> tuple[int, float]:
    """The feature of `other` that correlates best with one of `reference`, over the same tokens."""
    r = pearson(reference.matrix[:, [feature]], other.matrix)[0]
    best = int(np.argmax(r))
    return best, float(r[best])


def transfer_subject(
    reference: Subject, feature: int, other: Subject, *, n_random: int, seed: int
) -> Subject:
    """`other`'s model under the reference's autoencoder: feature 0 is the feature transferred.

    The rest are random features of like density in the reference, for control.
    """
    kept = keep_with_controls(reference.features, feature, n_random, seed)
    sae = reference.sae.only(kept)
    features = encode_batches(other.sites.neurons.split(CHUNK), sae)
    return Subject(other.name, other.model, sae, other.sites, features)


def keep_with_controls(f: FeatureActivations, feature: int, n_random: int, seed: int) -> np.ndarray:
    """`feature`, then `n_random` others that fire about as often."""
    others = similar_features(f, feature, n_random, np.random.default_rng(seed))
    return np.array([feature, *others])


def trace_feature(
    reference: Subject,
    feature: int,
    found: Sequence[Found],
    stream: LabelledStream,
    documents: np.ndarray,
    *,
    seed: int,
    n_random: int,
    n_boot: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What each counterpart detects and does: (fates, effects).

    fates: model, route, again, feature, r (with the reference's feature, on the case's text),
    r_stream, f1, precision, recall, auroc, effect (nats at labelled tokens, beyond random
    features), each with its interval. effects: the tables of `ablation_effects`, with model, route
    and again.
    """
    own = feature_scores(reference.features, feature)
    shape = reference.sites.ids.shape
    fates, effects = [], []
    for item in found:
        f = item.subject.features
        score = feature_scores(f, item.feature)
        measured = evaluate_feature(f, item.feature, stream, seed=seed, n_boot=n_boot)
        others = int((f.matrix.sum(axis=0) > 0).sum()) - 1
        cost = ablation_effects(
            item.subject.model, item.subject.sae, item.subject.sites, f, item.feature,
            mask=stream.mask.reshape(shape), documents=documents, seed=seed,
            n_random=max(min(n_random, others), 0), n_boot=n_boot,
        )  # fmt: skip
        at = cost[(cost["who"] == "difference") & (cost["region"] == "at")].iloc[0]
        fates.append(
            {
                "model": item.subject.name,
                "route": item.route,
                "again": item.again,
                "feature": item.feature,
                "r": _correlation(own, score),
                "r_stream": item.r_stream,
                **measured,
                "effect": at["delta"],
                "effect_low": at["low"],
                "effect_high": at["high"],
            }
        )
        effects.append(cost.assign(model=item.subject.name, route=item.route, again=item.again))
    return pd.DataFrame(fates), pd.concat(effects, ignore_index=True)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


# ------------------------------------------------------------------------------ steering


def related_vocabulary(
    label: Label, token_texts: Sequence[str], stream: LabelledStream, *, most: int = 20
) -> np.ndarray:
    """Token ids whose probability steering should move.

    The `most` ids that follow a labelled token most in excess of chance, on the selection half;
    and those of the label's own `vocabulary` that are entries of the tokenizer's.
    """
    named = find_vocabulary(token_texts, label.vocabulary)
    at = np.flatnonzero(stream.mask[:-1] & stream.selection[:-1]) + 1
    counts = np.bincount(stream.ids[at], minlength=len(token_texts)).astype(float)
    usual = np.bincount(stream.ids[stream.selection], minlength=len(token_texts))
    excess = counts - usual * counts.sum() / max(usual.sum(), 1)
    ranked = np.argsort(-excess, kind="stable")[:most]
    return np.union1d(named, ranked[excess[ranked] > 0])


def steer_subjects(
    found: Sequence[Found],
    vocabulary: np.ndarray,
    documents: np.ndarray,
    *,
    doses: Sequence[float],
    seed: int,
    n_random: int = 3,
    n_positions: int = 1_000,
    n_boot: int = 100,
) -> pd.DataFrame:
    """Probability of `vocabulary` as features are added: model, who, dose, probability, ...

    `doses` are multiples of the feature's own typical activation; random features of like density
    get the same amounts. `who` is "feature" or "random" (means over the random ones).
    """
    parts = []
    for item in found:
        subject = item.subject
        unit = typical_activation(subject.features, item.feature)
        if unit == 0:
            continue
        rng = np.random.default_rng(seed)
        others = similar_features(subject.features, item.feature, n_random, rng)
        table = steering_effects(
            subject.model, subject.sae, subject.sites, [item.feature, *map(int, others)],
            [dose * unit for dose in doses], vocabulary, documents=documents, seed=seed,
            n_positions=n_positions, n_boot=n_boot,
        )  # fmt: skip
        table["dose"] = np.tile(np.asarray(doses, dtype=float), len(others) + 1)
        table["who"] = np.where(table["feature"] == item.feature, "feature", "random")
        means = table.groupby(["who", "dose"], as_index=False)[
            ["probability", "low", "high", "loss"]
        ].mean()
        parts.append(means.assign(model=subject.name))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
