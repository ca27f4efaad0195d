"""One feature followed: along a merge, along fine-tunes, in other dictionaries and languages.

A series is a merge at many t, or the checkpoints of a fine-tune. Training an autoencoder for each
model of a series would cost hours, so existing ones are carried over: *transfer* reads one
feature of the reference's autoencoder in every model; *labels* chooses, in every model anew, the
best of the features that the autoencoders of the case's models offer for the label.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
from transformers import MistralForCausalLM

from featlib import FeatlibError
from featlib.cases.case import Case, read_text
from featlib.cases.detectors import (
    Draws,
    LabelledStream,
    Resampled,
    as_estimate,
    best_threshold,
    evaluate_detector,
    labelled_stream,
    rank_features,
)
from featlib.cases.edits import ablation_effects, effect_at_label, loss_changes
from featlib.cases.fit import evaluate_feature
from featlib.cases.rivals import token_rule
from featlib.cases.subjects import Subject, read_subjects
from featlib.cases.text import split_halves
from featlib.dictionaries.features import FeatureActivations
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.estimate import Estimate
from featlib.family import BASE, CHILDREN, CODE, MERGE_OF, MERGED
from featlib.models.merging import merge_models
from featlib.models.training import read_snapshots
from featlib.params import derive_seed
from featlib.run import Run, needed
from featlib.text.labels import Label
from featlib.verdicts import half_life

OFFERED = 12  # features of each model's autoencoder, to choose from by label
CONTROLS = 4  # random features of like density beside them
BOOT = 100  # resamples of documents for each model of a series, at most
SAME, BEST, RULE = "same feature, transferred", "best feature, its own", "token rule"
DETECTORS = (SAME, BEST, RULE)

# ------------------------------------------------------------------------------ models in a row


@dataclass(frozen=True)
class Offer:
    """Features of one model's autoencoder: those to choose from, then random controls."""

    sae: SparseAutoencoder  # with these features only
    n: int  # the first n are to choose from, the others fire about as often as the first


def follow_merge(case: Case, p: SimpleNamespace) -> pd.DataFrame:
    """The feature as t goes from one child of the merge to the other: `follow_feature`, x = t."""
    first, second, base = (case.subjects[name].model for name in (*MERGE_OF, BASE))
    ts = [round(float(t), 6) for t in np.arange(0, 1 + p.case_step / 2, p.case_step) if t <= 1]
    models = ((t, merge_models(first, second, base, t=t, method=p.merge_method)) for t in ts)
    return _follow(case, models, p).assign(model=MERGED)


def follow_fine_tunes(case: Case, run: Run, p: SimpleNamespace) -> pd.DataFrame:
    """The feature along every fine-tune: x = share of the steps done, 0 is the base."""
    base = case.subjects[BASE].model
    start = _follow(case, [(0.0, base)], p)
    tables = []
    for child in CHILDREN:
        rest = _follow(case, read_snapshots(needed(run.checkpoints(child)), base), p)
        tables.append(pd.concat([start, rest], ignore_index=True).assign(model=child))
    return pd.concat(tables, ignore_index=True)


def _follow(
    case: Case, models: Iterable[tuple[float, MistralForCausalLM]], p: SimpleNamespace
) -> pd.DataFrame:
    def offer(subject: Subject, features: list[int]) -> Offer:
        controls = subject.with_controls(features[0], CONTROLS, case.draws.seed)[1:]
        return Offer(subject.sae.only([*features, *controls]), len(features))

    offers = [offer(case.subjects[case.reference], [case.feature])]
    for name in case.dictionaries:
        if fit := case.fits.get((case.label, name)):
            offers.append(offer(fit.subject, fit.candidates["feature"].head(OFFERED).to_list()))
    blocks, stream = _some_code(case, p)
    draws = replace(case.draws, n_boot=min(case.draws.n_boot, BOOT))
    ids, documents = case.text.ids[blocks], case.text.documents[blocks]
    return follow_feature(models, offers, stream, ids, documents, draws)


def _some_code(case: Case, p: SimpleNamespace) -> tuple[np.ndarray, LabelledStream]:
    """`case_sweep_tokens` of the case's code, labelled blocks not preferred: blocks, and the label.

    All of the code where that part holds too few labelled tokens.
    """
    text, mask = case.text, case.text.masks[case.label]
    rows = np.flatnonzero(np.isin(text.domains, CODE))
    rng = np.random.default_rng(derive_seed(p.seed, "case sweep"))
    some = np.sort(rng.permutation(rows)[: max(1, p.case_sweep_tokens // text.ids.shape[1])])
    for blocks in (some, rows):
        with contextlib.suppress(FeatlibError):
            return blocks, labelled_stream(
                mask[blocks], text.ids[blocks], text.documents[blocks], seed=case.draws.seed
            )
    raise FeatlibError(f"too little text with the label {case.label!r}: raise case_tokens")


def follow_feature(
    models: Iterable[tuple[float, MistralForCausalLM]],
    offers: Sequence[Offer],
    stream: LabelledStream,
    ids: np.ndarray,
    documents: np.ndarray,
    draws: Draws,
) -> pd.DataFrame:
    """F1 and causal effect in each model of a series, by both routes.

    `models` gives (x, model); the first of `offers` holds the feature that is transferred, the
    others those to choose from. One row for each x and route: f1 (test half, threshold chosen on
    the selection half) and effect (nats that ablating costs at labelled tokens, beyond random
    features), each with its interval.
    """
    mask, saes = stream.mask.reshape(ids.shape), dict(enumerate(o.sae for o in offers))
    rows = []
    for x, model in models:
        read = list(zip(offers, read_subjects("", model, saes, ids), strict=True))
        for route, pool in (("transfer", read[:1]), ("labels", read[1:])):
            n, subject, best = _choose(pool, stream)
            measured = evaluate_feature(subject.features, best, stream, draws)
            few = subject.only([best, *range(n, subject.features.d_sae)])
            alive, effect = int((few.features.firings[1:] > 0).sum()), Estimate(0.0, 0.0, 0.0)
            if alive:
                all_of_them = replace(draws, n_random=alive)
                effect = effect_at_label(ablation_effects(few, 0, mask, documents, all_of_them))
            row = {key: measured[key] for key in ("f1", "f1_low", "f1_high", "auroc")}
            rows.append({"x": float(x), "route": route, **row, **effect.named("effect")})
    return pd.DataFrame(rows)


def _choose(
    pool: Sequence[tuple[Offer, Subject]], stream: LabelledStream
) -> tuple[int, Subject, int]:
    """The one on offer with the highest F1 on the selection half; the first if none ever fires."""
    best = (-1.0, 0, 0)
    for number, (offer, subject) in enumerate(pool):
        ranked = rank_features(FeatureActivations(subject.features.matrix[:, : offer.n]), stream, 1)
        if len(ranked) and ranked["f1"][0] > best[0]:
            best = (float(ranked["f1"][0]), number, int(ranked["feature"][0]))
    offer, subject = pool[best[1]]
    return offer.n, subject, best[2]


def half_lives(followed: pd.DataFrame) -> pd.DataFrame:
    """Where F1 and effect have fallen to half of what they are at a series' beginning.

    Columns model, route, measure, start, end, half_life (in units of x; NaN: it never halves).
    """
    rows = []
    for key, part in followed.sort_values("x", kind="stable").groupby(
        ["model", "route"], sort=False
    ):
        for measure in ("f1", "effect"):
            values = part[measure].tolist()
            life = half_life(part["x"].tolist(), values)
            rows.append((*key, measure, values[0], values[-1], life))
    return pd.DataFrame(rows, columns=["model", "route", "measure", "start", "end", "half_life"])


# ------------------------------------------------------------------------------ other dictionaries


def compare_dictionaries(case: Case) -> pd.DataFrame:
    """Each autoencoder's own best feature for the label, transferred to every model.

    Two autoencoders of one model may give a label features that detect it equally well and yet
    write different directions, so that removing the one costs much and removing the other nothing.
    One row for each autoencoder of the reference and each model: autoencoder (its seed), feature,
    model, f1 (test half) and effect (nats that ablating costs at labelled tokens of both halves,
    in the mean), each with its interval.
    """
    documents, draws = case.text.documents, case.draws
    at = case.text.masks[case.label][:, :-1] & (documents[:, 1:] == documents[:, :-1])
    resampled = Resampled(documents[:, :-1][at], draws.n_boot, np.random.default_rng(draws.seed))
    counts = resampled.total(np.ones(len(resampled.home)))
    rows = []
    for subject in case.dictionaries[case.reference]:
        for feature in rank_features(subject.features, case.stream, 1)["feature"]:
            sae = subject.sae.only([feature])
            for name, other in case.subjects.items():
                read = other.through(sae)
                found = evaluate_feature(read.features, 0, case.stream, draws)
                effect = as_estimate(resampled.total(loss_changes(read, 0)[at]) / counts)
                row = {"autoencoder": subject.seed, "feature": feature, "model": name}
                row |= {key: found[key] for key in ("f1", "f1_low", "f1_high")}
                rows.append(row | effect.named("effect"))
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------ other languages


def detect_elsewhere(
    run: Run, case: Case, label: Label, language: str, p: SimpleNamespace
) -> pd.DataFrame:
    """How well the case's feature, and the best of each model's own, detect `label` in `language`.

    Lua has no `raise`, but it has `error`. If a model's exception feature were about exceptions,
    and not about words of Python, it could take over Lua's words once the model has learnt Lua.
    One row for each model and detector (`SAME`, `BEST`, `RULE`): feature, n_labelled (test half),
    precision, recall, f1, auroc with intervals. Reads as much text as the case itself;
    empty where it holds too few such tokens to choose on and to judge on.
    """
    text = read_text(run, p, {case.label: label}, (language,))
    stream = split_halves(text, [case.label], seed=case.draws.seed).get(case.label)
    if stream is None:
        return pd.DataFrame()
    carried = case.subjects[case.reference].sae.only([case.feature])
    by_token = token_rule(stream)
    rule = evaluate_detector(by_token, best_threshold(by_token, stream), stream, case.draws)
    rows = []
    for name, subject in case.subjects.items():
        [here] = read_subjects(name, subject.model, {subject.seed: subject.sae}, text.ids)
        tried = [(SAME, case.feature, here.through(carried).features, 0)]
        for best in rank_features(here.features, stream, 1)["feature"]:
            tried.append((BEST, best, here.features, best))
        for detector, feature, f, index in tried:
            measured = evaluate_feature(f, index, stream, case.draws)
            rows.append({"model": name, "detector": detector, "feature": feature, **measured})
        rows.append({"model": name, "detector": RULE, "feature": -1, **rule})
        del here, tried  # a model's activations are let go before the next one's are read
    return pd.DataFrame(rows).assign(n_labelled=int(np.sum(stream.mask & stream.test)))
