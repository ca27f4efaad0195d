"""A case study of one run: a label's feature in one model, and its counterparts in the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd

from featlib import FeatlibError
from featlib.cases.detectors import Draws, LabelledStream, feature_scores, rank_features
from featlib.cases.edits import ablation_effects, effect_at_label, loss_changes
from featlib.cases.fit import LabelFit, evaluate_feature, fit_label
from featlib.cases.subjects import Subject, best_dictionary, read_subjects
from featlib.cases.text import CaseText, gather_text, split_halves
from featlib.dictionaries.features import load_features
from featlib.dictionaries.sae import load_autoencoder
from featlib.estimate import Estimate
from featlib.family import CODE, DOMAINS, MODELS, PRINT_NAMES
from featlib.matching.correlation import pearson
from featlib.models.mistral import load_checkpoint, load_tokenizer
from featlib.params import check_choice, derive_seed
from featlib.run import Run, needed
from featlib.text.labels import Label
from featlib.verdicts import Evidence, Verdict, judge_survival

OTHER = 0.1  # tokens of each other domain, as a share of those of code


@dataclass(frozen=True)
class Found:
    """A counterpart of the case's feature in one model."""

    subject: Subject  # with the autoencoder that holds the counterpart
    route: str  # labels, correlation or transfer
    feature: int
    r_stream: float = float("nan")  # on the common stream of chapter 06, where it was chosen
    again: bool = False  # in another autoencoder of the reference: the ceiling


@dataclass(frozen=True)
class Case:
    """A label studied in a run: what was found, and all that is needed to go on."""

    label: str
    reference: str  # the model in which the feature is found
    draws: Draws
    text: CaseText
    streams: dict[str, LabelledStream]  # by label
    dictionaries: dict[str, list[Subject]]  # by model: its autoencoders, as far as searched
    fits: dict[tuple[str, str], LabelFit]  # by label and model
    found: list[Found]  # the feature and its counterparts by every route
    fates: pd.DataFrame  # see trace_feature
    effects: pd.DataFrame

    @property
    def feature(self) -> int:
        """The feature, as an index into the reference's autoencoder."""
        return self.fits[self.label, self.reference].feature

    @property
    def subjects(self) -> dict[str, Subject]:
        """By model: with the autoencoder that holds its best feature for the label."""
        fits = {name: self.fits.get((self.label, name)) for name in self.dictionaries}
        return {
            name: fit.subject if fit else self.dictionaries[name][0] for name, fit in fits.items()
        }

    @property
    def stream(self) -> LabelledStream:
        return self.streams[self.label]

    @property
    def detectors(self) -> pd.DataFrame:
        """Every detector of every fit: label, model, detector, index, threshold, measures."""
        return pd.concat(
            [fit.test.assign(label=label, model=name) for (label, name), fit in self.fits.items()],
            ignore_index=True,
        )

    def counterparts(self, route: str) -> list[Found]:
        """The feature itself and, in each other model, its counterpart by `route`."""
        own = [f for f in self.found if f.subject.name == self.reference and not f.again]
        others = [f for f in self.found if f.route == route and f.subject.name != self.reference]
        return own + others

    def evidence(self, route: str, model: str) -> Evidence:
        """What is known of the counterpart in `model` by `route`; "labels" for the reference."""
        row = self.fates[~self.fates["again"]].set_index(["route", "model"]).loc[(route, model)]
        return Evidence(Estimate.read(row, "f1"), Estimate.read(row, "effect"))

    def judge(self, route: str) -> dict[str, Verdict]:
        """The verdict on each other model that has a counterpart by `route`, in their order."""
        parent = self.evidence("labels", self.reference)
        models = {found.subject.name for found in self.counterparts(route)[1:]}
        return {
            model: judge_survival(parent, self.evidence(route, model))
            for model in MODELS
            if model in models
        }


def study_label(
    run: Run,
    p: SimpleNamespace,
    label: str,
    labels: Mapping[str, Label],
    *,
    languages: Sequence[str],
    reference: str,
) -> Case:
    """Find the feature of `label` in the reference, and its counterparts in the other models.

    `labels`: those that are fitted; `label` is one of them, and the one that is followed.
    `languages`: the kinds of code in the text. `p`: seed, sae_seeds, case_tokens, case_random,
    bootstrap.
    """
    check_choice("label", label, labels)
    draws = Draws(derive_seed(p.seed, "case", label), p.bootstrap, p.case_random)
    text = read_text(run, p, labels, languages)
    streams = split_halves(text, list(labels), seed=draws.seed)
    if label not in streams:
        raise FeatlibError(
            f"{int(text.masks[label].sum())} tokens of the held-out text have the label {label!r}, "
            "in too few documents for two halves: raise case_tokens, or choose another label"
        )
    dictionaries = {reference: _read_dictionaries(run, reference, range(p.sae_seeds), text.ids)}
    own = best_dictionary(dictionaries[reference], streams[label])
    if own is None:
        raise FeatlibError(
            f"no feature of {PRINT_NAMES[reference]} fires in the text of label {label!r}"
        )
    # Equal seeds find equal features (chapter 11), so nobody else's autoencoder has the seed of
    # the one that holds the feature.
    others = [seed for seed in range(p.sae_seeds) if seed != own.seed]
    for name in MODELS:
        if name != reference:
            dictionaries[name] = _read_dictionaries(run, name, others, text.ids)
    fits = {
        (each, name): fit
        for name, subjects in dictionaries.items()
        for each, stream in streams.items()
        if (fit := fit_label(subjects, stream, draws, rivals=each == label))
    }
    fit = fits[label, reference]
    found = _find_counterparts(run, fit, dictionaries, streams[label], draws)
    fates, effects = trace_feature(found, streams[label], text.documents, draws)
    return Case(label, reference, draws, text, streams, dictionaries, fits, found, fates, effects)


def read_text(
    run: Run, p: SimpleNamespace, labels: Mapping[str, Label], languages: Sequence[str]
) -> CaseText:
    """Held-out blocks of the `languages` and of both kinds of English, with all `labels`.

    `p.case_tokens` of code, and a tenth as many of each kind of English.
    """
    ids = np.load(needed(run.tokens / f"{CODE[0]}.test.ids.npy"), mmap_mode="r")
    few, each = int(OTHER * p.case_tokens), p.case_tokens // len(languages)
    return gather_text(
        pd.read_parquet(needed(run.tokens / "documents.parquet")),
        load_tokenizer(run.tokenizer),
        labels,
        {d: each if d in languages else few for d in DOMAINS if d in languages or d not in CODE},
        context=ids.shape[1],
        seed=derive_seed(p.seed, "case text"),
    )


def _read_dictionaries(run: Run, name: str, seeds: Iterable[int], ids: np.ndarray) -> list[Subject]:
    model = load_checkpoint(needed(run.model(name)))
    saes = {seed: load_autoencoder(needed(run.autoencoder(name, seed))) for seed in seeds}
    return read_subjects(name, model, saes, ids)


def _find_counterparts(
    run: Run,
    fit: LabelFit,
    dictionaries: Mapping[str, Sequence[Subject]],
    stream: LabelledStream,
    draws: Draws,
) -> list[Found]:
    """The feature, then its counterparts: the reference's other autoencoders give the ceiling."""
    own, feature = fit.subject, fit.feature
    in_stream = load_features(needed(run.features(own.name, own.seed))).matrix[:, [feature]]
    kept = own.with_controls(feature, draws.n_random, draws.seed)
    found = [Found(own, "labels", feature)]
    for name, searched in dictionaries.items():
        again = name == own.name
        others = [subject for subject in searched if subject is not own]
        best = best_dictionary(others, stream)
        if best is not None:
            chosen = int(rank_features(best.features, stream, 1)["feature"][0])
            found.append(Found(best, "labels", chosen, again=again))
        matches = []
        for subject in others:
            other = load_features(needed(run.features(name, subject.seed)))
            r = pearson(in_stream, other.matrix)[0]
            matches.append(
                Found(subject, "correlation", int(r.argmax()), float(r.max()), again=again)
            )
        found.append(max(matches, key=lambda match: match.r_stream))
        if not again:
            # Feature 0 is the feature; the rest are random ones of like density, for control.
            found.append(Found(others[0].through(own.sae.only(kept)), "transfer", 0))
    return found


def trace_feature(
    found: Sequence[Found],
    stream: LabelledStream,
    documents: np.ndarray,
    draws: Draws,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a feature, the first of `found`, and its counterparts detect and do: (fates, effects).

    fates: model, route, again, feature, r (with the feature, on the case's text), r_stream, f1,
    precision, recall, auroc, effect (nats at labelled tokens, beyond random features), each with
    its interval. effects: the tables of `ablation_effects`, with model, route and again.
    """
    own = feature_scores(found[0].subject.features, found[0].feature)
    fates: list[dict[str, object]] = []
    effects = []
    for item in found:
        subject, f = item.subject, item.subject.features
        who = {"model": subject.name, "route": item.route, "again": item.again}
        score = feature_scores(f, item.feature)
        cost = ablation_effects(
            subject, item.feature, stream.mask.reshape(documents.shape), documents, draws
        )
        fates.append(
            {
                **who,
                "feature": item.feature,
                "r": float(np.corrcoef(own, score)[0, 1]) if own.std() and score.std() else 0.0,
                "r_stream": item.r_stream,
                **evaluate_feature(f, item.feature, stream, draws),
                **effect_at_label(cost).named("effect"),
            }
        )
        effects.append(cost.assign(**who))
    return pd.DataFrame(fates), pd.concat(effects, ignore_index=True)


def case_metrics(case: Case, label: str, prefix: str) -> dict[str, float]:
    """`<prefix>.<model>.f1|precision|recall|auroc|set_f1|loss_delta_on|loss_delta_off` of a label.

    Of the best single feature; set_f1 of the best set of features. The last two are nats that
    ablating the model's best feature costs where it acts (predictions made at labelled tokens),
    and everywhere else. A model without a feature that fires, or a label too rare to judge, gets
    what a detector has that never says yes.
    """
    silent = {"f1": 0.0, "precision": 0.0, "recall": 0.0, "auroc": 0.5}
    inside = case.text.documents[:, 1:] == case.text.documents[:, :-1]
    at = case.text.masks[label][:, :-1]
    found: dict[str, float] = {}
    for model in case.dictionaries:
        values = {**silent, "set_f1": 0.0, "loss_delta_on": 0.0, "loss_delta_off": 0.0}
        fit = case.fits.get((label, model))
        if fit is not None:
            values |= {key: float(fit.row()[key]) for key in silent}
            values["set_f1"] = float(fit.row("feature set")["f1"])
            change = loss_changes(fit.subject, fit.feature)
            for key, where in (("loss_delta_on", at), ("loss_delta_off", ~at)):
                values[key] = float(change[inside & where].mean())
        found |= {f"{prefix}.{model}.{key}": value for key, value in values.items()}
    return found
