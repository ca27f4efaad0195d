"""The same case in every autoencoder of the reference: how far does the answer hang on one of them?

Two autoencoders of one model may give a label features that detect it equally well and yet write
different directions, so that removing the one costs much and removing the other nothing.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd

from featlib.cases.case import Case
from featlib.cases.detectors import rank_features, resample_documents
from featlib.cases.edits import Edit, loss_changes
from featlib.cases.fit import evaluate_feature
from featlib.cases.subjects import CHUNK
from featlib.dictionaries.features import encode_batches
from featlib.estimate import percentile_interval
from featlib.family import PRINT_NAMES
from featlib.params import derive_seed
from featlib.verdicts import BARS


def compare_dictionaries(case: Case, p: SimpleNamespace) -> pd.DataFrame:
    """Each autoencoder's own best feature for the label, transferred to every model.

    One row for each autoencoder of the reference and each model: autoencoder (its seed), feature,
    model, f1 (test half) and effect (nats that ablating costs at labelled tokens of both halves,
    in the mean), each with its interval.
    """
    seed = derive_seed(p.seed, "case", case.label)
    inside = case.text.documents[:, 1:] == case.text.documents[:, :-1]
    at = case.text.masks[case.label][:, :-1] & inside
    home, weights = resample_documents(
        case.text.documents[:, :-1][at], p.bootstrap, np.random.default_rng(seed)
    )
    counts = weights @ np.bincount(home, minlength=weights.shape[1])
    rows = []
    for subject in case.dictionaries[case.reference]:
        ranked = rank_features(subject.features, case.stream, 1)
        if not len(ranked):
            continue
        feature = int(ranked["feature"][0])
        sae = subject.sae.only([feature])
        for name, other in case.subjects.items():
            f = encode_batches(other.sites.neurons.split(CHUNK), sae)
            found = evaluate_feature(f, 0, case.stream, seed=seed, n_boot=p.bootstrap)
            lost = loss_changes(other.model, sae, other.sites, f, Edit(0))[at]
            mean = weights @ np.bincount(home, weights=lost, minlength=weights.shape[1]) / counts
            low, high = percentile_interval(mean[1:])
            rows.append(
                {
                    "autoencoder": subject.seed,
                    "feature": feature,
                    "model": name,
                    **{key: found[key] for key in ("f1", "f1_low", "f1_high")},
                    **{"effect": float(mean[0]), "effect_low": low, "effect_high": high},
                }
            )
    return pd.DataFrame(rows)


def dictionary_table(compared: pd.DataFrame) -> pd.DataFrame:
    """`compare_dictionaries` for reading: a row for each autoencoder, a column for each model."""
    rows = []
    for (number, feature), part in compared.groupby(["autoencoder", "feature"], sort=False):
        row = {"autoencoder": int(number), "feature": int(feature)}
        for model in part.itertuples():
            effect = f"{model.effect:.2f}".replace("-", "−")
            row[PRINT_NAMES[model.model]] = f"F1 {model.f1:.2f}, {effect} nats"
        rows.append(row)
    return pd.DataFrame(rows)


def say_dictionaries(compared: pd.DataFrame, *, reference: str) -> str:
    """How many of the autoencoders agree: on F1, and on whether the models miss the feature."""
    kept, acts = 0, 0
    parts = [part.set_index("model") for _, part in compared.groupby("autoencoder")]
    for part in parts:
        children = part.drop(index=reference)
        kept += bool((children["f1"] >= BARS.keep_f1 * part.loc[reference, "f1"]).all())
        acts += bool((part["effect_low"] > 0).all())
    said = (
        f"In {kept} of {len(parts)} autoencoders of {PRINT_NAMES[reference]} the best feature "
        f"keeps at least {BARS.keep_f1:.0%} of its F1 in every other model; in {acts} of "
        f"{len(parts)} every model predicts worse without it, the interval of the cost lying above "
        "0."
    )
    if 0 < acts < len(parts):
        said += (
            " Features that detect alike can write differently, so a verdict rests most safely on "
            "detection; what removing costs depends on which feature one happens to hold."
        )
    return said
