"""A case study of one run, from its files to its tables: what chapters 08 and 09 share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd

from featlib import FeatlibError
from featlib.cases.detectors import LabelledStream, labelled_stream, rank_features
from featlib.cases.edits import Edit, loss_changes
from featlib.cases.fit import LabelFit
from featlib.cases.series import follow_feature, gather_candidates
from featlib.cases.subjects import (
    Found,
    Subject,
    best_correlated,
    best_dictionary,
    fit_subjects,
    read_subjects,
    trace_feature,
    transfer_subject,
)
from featlib.cases.text import CODE, CaseText, gather_text, split_halves
from featlib.dictionaries.features import load_features
from featlib.dictionaries.sae import load_autoencoder
from featlib.family import BASE, DOMAINS, MERGE_OF, MODELS, PRINT_NAMES
from featlib.models import mistral as lm
from featlib.models.merging import merge_models
from featlib.models.training import read_snapshots
from featlib.params import derive_seed
from featlib.run import Run, needed
from featlib.text.labels import Label

OTHER = 0.1  # tokens of each other domain, as a share of those of code


@dataclass(frozen=True)
class Case:
    """A label studied in a run: what was found, and all that is needed to go on."""

    label: str
    reference: str  # the model in which the feature is found
    text: CaseText
    streams: dict[str, LabelledStream]  # by label
    dictionaries: dict[str, list[Subject]]  # by model: its autoencoders, as far as searched
    fits: dict[tuple[str, str], LabelFit]  # by label and model
    homes: dict[tuple[str, str], Subject]  # where each of them was found
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
        return {
            name: self.homes.get((self.label, name), own[0])
            for name, own in self.dictionaries.items()
        }

    @property
    def stream(self) -> LabelledStream:
        return self.streams[self.label]

    def counterparts(self, route: str) -> list[Found]:
        """The feature itself and, in each other model, its counterpart by `route`."""
        own = [f for f in self.found if f.subject.name == self.reference and not f.again]
        others = [f for f in self.found if f.route == route and f.subject.name != self.reference]
        return own + others


def study_label(
    run: Run,
    p: SimpleNamespace,
    label: str,
    labels: Mapping[str, Label],
    *,
    languages: Sequence[str],
    reference: str = "base",
) -> Case:
    """Find the feature of `label` in the reference, and its counterparts in the other models.

    `labels`: those that are fitted; `label` is one of them, and the one that is followed.
    `languages`: the kinds of code in the text. `p`: seed, sae_seeds, case_tokens, case_random,
    bootstrap.
    """
    seed = derive_seed(p.seed, "case", label)
    text = read_text(run, p, labels, languages)
    streams = split_halves(text, list(labels), seed=seed)
    if label not in streams:
        raise FeatlibError(
            f"{int(text.masks[label].sum())} tokens of the held-out text have the label {label!r}, "
            "in too few documents for two halves: raise case_tokens, or choose another label"
        )
    seeds = range(p.sae_seeds)
    dictionaries = {reference: _read_dictionaries(run, reference, seeds, text.ids)}
    own = best_dictionary(dictionaries[reference], streams[label])
    if own is None:
        raise FeatlibError(
            f"no feature of {PRINT_NAMES[reference]} fires in the text of label {label!r}"
        )
    # Equal seeds find equal features (chapter 11), so nobody else's autoencoder has the seed of
    # the one that holds the feature.
    for name in MODELS:
        if name != reference:
            others = [seed for seed in seeds if seed != own.seed]
            dictionaries[name] = _read_dictionaries(run, name, others, text.ids)
    options = {"seed": seed, "n_boot": p.bootstrap}
    fits, homes = fit_subjects(
        dictionaries, streams, chosen=label, n_random=p.case_random, **options
    )
    case = Case(
        label, reference, text, streams, dictionaries, fits, homes, [], pd.DataFrame(),
        pd.DataFrame(),
    )  # fmt: skip
    found = _find_counterparts(run, case, p, options)
    fates, effects = trace_feature(
        own, case.feature, found, streams[label], text.documents,
        n_random=p.case_random, **options,
    )  # fmt: skip
    return replace(case, found=found, fates=fates, effects=effects)


def read_text(
    run: Run,
    p: SimpleNamespace,
    labels: Mapping[str, Label],
    languages: Sequence[str],
    *,
    tokens: int | None = None,
) -> CaseText:
    """Held-out blocks of the `languages` and of both kinds of English, with all `labels`.

    `tokens` of code (default: `p.case_tokens`), and a tenth as many of each kind of English.
    """
    tokens = tokens or p.case_tokens
    documents = pd.read_parquet(needed(run.tokens / "documents.parquet"))
    ids = np.load(needed(run.tokens / "python.test.ids.npy"), mmap_mode="r")
    few, each = int(OTHER * tokens), tokens // len(languages)
    wanted = {d: each if d in languages else few for d in DOMAINS}
    kept = {d: n for d, n in wanted.items() if d in languages or d not in CODE}
    return gather_text(
        documents, lm.load_tokenizer(run.tokenizer), labels, kept,
        context=ids.shape[1], seed=derive_seed(p.seed, "case text"),
    )  # fmt: skip


def _read_dictionaries(run: Run, name: str, seeds: Iterable[int], ids: np.ndarray) -> list[Subject]:
    model = lm.load_checkpoint(needed(run.model(name)))
    saes = {seed: load_autoencoder(needed(run.autoencoder(name, seed))) for seed in seeds}
    return read_subjects(name, model, saes, ids)


def _find_counterparts(
    run: Run, case: Case, p: SimpleNamespace, options: Mapping[str, int]
) -> list[Found]:
    """The feature, then its counterparts: the reference's other autoencoders give the ceiling."""
    own = case.subjects[case.reference]
    in_stream = load_features(needed(run.features(case.reference, own.seed)))
    found = [Found(own, "labels", case.feature)]
    for name, searched in case.dictionaries.items():
        again = name == case.reference
        others = [subject for subject in searched if subject is not own]
        if again:
            second = best_dictionary(others, case.stream)
            if second is not None:
                best = int(rank_features(second.features, case.stream, 1)["feature"][0])
                found.append(Found(second, "labels", best, again=True))
        elif (case.label, name) in case.fits:
            fit = case.fits[case.label, name]
            found.append(Found(case.homes[case.label, name], "labels", fit.feature))
        matches = []
        for subject in others:
            stored = needed(run.features(name, subject.seed))
            best, r = best_correlated(in_stream, case.feature, load_features(stored))
            matches.append(Found(subject, "correlation", best, r, again=again))
        found.append(max(matches, key=lambda match: match.r_stream))
        if not again:
            moved = transfer_subject(
                own, case.feature, others[0], n_random=p.case_random, seed=options["seed"]
            )
            found.append(Found(moved, "transfer", 0))
    return found


# ------------------------------------------------------------------------------ series


@dataclass(frozen=True)
class Series:
    """What `follow_feature` reads in every model: a part of the case's code."""

    ids: np.ndarray
    documents: np.ndarray
    stream: LabelledStream


def code_series(case: Case, p: SimpleNamespace) -> Series:
    """`case_sweep_tokens` of the case's code: labelled blocks are not preferred."""
    rows = np.flatnonzero(np.isin(case.text.domains, CODE))
    rng = np.random.default_rng(derive_seed(p.seed, "case sweep"))
    kept = np.sort(rng.permutation(rows)[: max(1, p.case_sweep_tokens // case.text.ids.shape[1])])
    for chosen in (kept, rows):  # all of the code where the part holds too few labelled tokens
        text = case.text.take(chosen)
        try:
            stream = labelled_stream(
                text.masks[case.label], text.ids, text.documents,
                seed=derive_seed(p.seed, "case", case.label),
            )  # fmt: skip
        except FeatlibError:
            continue
        return Series(text.ids, text.documents, stream)
    raise FeatlibError(f"too little text with the label {case.label!r}: raise case_tokens")


def follow_merge(case: Case, series: Series, run: Run, p: SimpleNamespace) -> pd.DataFrame:
    """The feature as t goes from Lua to TinyStories: `follow_feature` with x = t."""
    models = [case.subjects[name].model for name in (*MERGE_OF, BASE)]
    ts = [round(float(t), 6) for t in np.arange(0, 1 + p.case_step / 2, p.case_step) if t <= 1]
    merges = ((t, merge_models(*models, t=t, method=p.merge_method)) for t in ts)
    return _follow(case, series, merges, p)


def follow_fine_tunes(case: Case, series: Series, run: Run, p: SimpleNamespace) -> pd.DataFrame:
    """The feature along both fine-tunes: x = share of the steps done, 0 is BabyPython."""
    base = case.subjects["base"].model
    start = _follow(case, series, [(0.0, base)], p)
    tables = []
    for child in ("lua", "tinystories"):
        along = read_snapshots(needed(run.checkpoints(child)), base)
        rest = _follow(case, series, along, p)
        tables.append(pd.concat([start, rest], ignore_index=True).assign(model=child))
    return pd.concat(tables, ignore_index=True)


def _follow(case: Case, series: Series, models, p: SimpleNamespace) -> pd.DataFrame:
    seed = derive_seed(p.seed, "case", case.label)
    fits = {name: fit for (label, name), fit in case.fits.items() if label == case.label}
    transferred, offered = gather_candidates(
        list(case.subjects.values()), fits, case.reference, n_random=4, seed=seed
    )
    return follow_feature(
        models, transferred, offered, series.stream, series.ids, series.documents,
        seed=seed, n_boot=min(p.bootstrap, 100),
    )  # fmt: skip


def case_metrics(case: Case, label: str, prefix: str) -> dict[str, float]:
    """`<prefix>.<model>.f1|precision|recall|auroc|set_f1|loss_delta_on|loss_delta_off` of a label.

    Of the best single feature; set_f1 of the best set of features. The last two are nats that
    ablating the model's best feature costs where it acts (predictions made at labelled tokens),
    and everywhere else. A model without a feature that fires, or a label too rare to judge, gets
    what a detector has that never says yes.
    """
    silent = {"f1": 0.0, "precision": 0.0, "recall": 0.0, "auroc": 0.5}
    inside = case.text.documents[:, 1:] == case.text.documents[:, :-1]
    found = {}
    for model in case.dictionaries:
        fit = case.fits.get((label, model))
        values, on, off = {**silent, "set_f1": 0.0}, 0.0, 0.0
        if fit is not None:
            subject = case.homes[label, model]
            row = fit.row()
            values = {key: float(row[key]) for key in silent}
            values["set_f1"] = float(fit.row("feature set")["f1"])
            change = loss_changes(
                subject.model, subject.sae, subject.sites, subject.features, Edit(fit.feature)
            )
            at = case.text.masks[label][:, :-1]
            on, off = (float(change[inside & where].mean()) for where in (at, ~at))
        values |= {"loss_delta_on": on, "loss_delta_off": off}
        found |= {f"{prefix}.{model}.{key}": value for key, value in values.items()}
    return found
