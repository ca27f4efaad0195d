"""A case study of one run, from its files to its tables: what chapters 08 and 09 share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd

from featlib import autoencoder as sae_lib
from featlib import language_model as lm
from featlib.case_study import (
    Found,
    Subject,
    best_correlated,
    fit_subjects,
    read_subject,
    trace_feature,
    transfer_subject,
)
from featlib.case_sweeps import follow_feature, gather_candidates
from featlib.case_text import CaseText, check_label, gather_text, split_halves
from featlib.cases import LabelFit
from featlib.chapters import needed
from featlib.checkpoints import read_snapshots
from featlib.detectors import LabelledStream, labelled_stream, rank_features
from featlib.features import load_features
from featlib.interventions import Edit, loss_changes
from featlib.labels import Label
from featlib.merging import merge_models
from featlib.params import derive_seed
from featlib.runs import DOMAINS, MODELS, PRINT_NAMES, FeatlibError, Run

CODE = ("python", "lua")
OTHER = 0.2  # tokens of each other domain, as a share of those of code
REFERENCE_SEED, CHILD_SEED = 0, 1  # never equal: equal seeds find equal features (chapter 06)


@dataclass(frozen=True)
class Case:
    """A label studied in a run: what was found, and all that is needed to go on."""

    label: str
    reference: str  # the model in which the feature is found
    text: CaseText
    streams: dict[str, LabelledStream]  # by label
    subjects: dict[str, Subject]  # by model
    fits: dict[tuple[str, str], LabelFit]  # by label and model
    found: list[Found]  # the feature and its counterparts by every route
    fates: pd.DataFrame  # see trace_feature
    effects: pd.DataFrame

    @property
    def feature(self) -> int:
        """The feature, as an index into the reference's autoencoder."""
        return self.fits[self.label, self.reference].feature

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
    `languages`: the kinds of code in the text. `p`: seed, case_tokens, case_random, bootstrap.
    """
    check_label(label, labels)
    seed = derive_seed(p.seed, "case", label)
    text = read_text(run, p, labels, languages)
    streams = split_halves(text, list(labels), seed=seed)
    if label not in streams:
        raise FeatlibError(
            f"{int(text.masks[label].sum())} tokens of the held-out text have the label {label!r}, "
            "in too few documents for two halves: raise case_tokens, or choose another label"
        )
    subjects, second = {}, None
    for name in MODELS:
        model = lm.load_checkpoint(needed(run.model(name), "04_merging"))
        number = REFERENCE_SEED if name == reference else CHILD_SEED
        subjects[name] = read_subject(name, model, _autoencoder(run, name, number), text.ids)
        if name == reference:
            second = read_subject(name, model, _autoencoder(run, name, CHILD_SEED), text.ids)
    assert second is not None
    options = {"seed": seed, "n_boot": p.bootstrap}
    fits = fit_subjects(
        list(subjects.values()), streams, chosen=label, n_random=p.case_random, **options
    )
    if (label, reference) not in fits:
        raise FeatlibError(
            f"no feature of {PRINT_NAMES[reference]} fires in the text of label {label!r}"
        )
    found = _find_counterparts(
        run, label, reference, subjects, second, fits, streams[label], p, options
    )
    fates, effects = trace_feature(
        subjects[reference], fits[label, reference].feature, found, streams[label], text.documents,
        n_random=p.case_random, **options,
    )  # fmt: skip
    return Case(label, reference, text, streams, subjects, fits, found, fates, effects)


def read_text(
    run: Run, p: SimpleNamespace, labels: Mapping[str, Label], languages: Sequence[str]
) -> CaseText:
    """Held-out blocks of the `languages` and of both kinds of English, with all `labels`."""
    documents = pd.read_parquet(needed(run.tokens / "documents.parquet", "01_corpora"))
    ids = np.load(needed(run.tokens / "python.test.ids.npy", "01_corpora"), mmap_mode="r")
    few, each = int(OTHER * p.case_tokens), p.case_tokens // len(languages)
    wanted = {d: each if d in languages else few for d in DOMAINS}
    kept = {d: n for d, n in wanted.items() if d in languages or d not in CODE}
    return gather_text(
        documents, lm.load_tokenizer(run.tokenizer), labels, kept,
        context=ids.shape[1], seed=derive_seed(p.seed, "case text"),
    )  # fmt: skip


def _autoencoder(run: Run, model: str, number: int) -> sae_lib.SparseAutoencoder:
    return sae_lib.load_autoencoder(needed(run.autoencoder(model, number), "05_autoencoders"))


def _find_counterparts(
    run: Run,
    label: str,
    reference: str,
    subjects: Mapping[str, Subject],
    second: Subject,
    fits: Mapping[tuple[str, str], LabelFit],
    stream: LabelledStream,
    p: SimpleNamespace,
    options: Mapping[str, int],
) -> list[Found]:
    """The feature, then its counterparts: the second autoencoder of the reference among them."""
    own = subjects[reference]
    feature = fits[label, reference].feature
    in_stream = load_features(needed(run.features(reference, REFERENCE_SEED), "06_matching"))
    found = [Found(own, "labels", feature)]
    best, r = best_correlated(
        in_stream, feature, load_features(run.features(reference, CHILD_SEED))
    )
    found.append(Found(second, "correlation", best, r, again=True))
    best_again = rank_features(second.features, stream, 1)
    if len(best_again):
        found.append(Found(second, "labels", int(best_again["feature"][0]), again=True))
    for name, subject in subjects.items():
        if name == reference:
            continue
        if (label, name) in fits:
            found.append(Found(subject, "labels", fits[label, name].feature))
        other = load_features(needed(run.features(name, CHILD_SEED), "06_matching"))
        best, r = best_correlated(in_stream, feature, other)
        found.append(Found(subject, "correlation", best, r))
        moved = transfer_subject(
            own, feature, subject, n_random=p.case_random, seed=options["seed"]
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
    lua, stories = case.subjects["lua"].model, case.subjects["tinystories"].model
    ts = [round(float(t), 6) for t in np.arange(0, 1 + p.case_step / 2, p.case_step) if t <= 1]
    models = ((t, merge_models(lua, stories, t=t, method=p.merge_method)) for t in ts)
    return _follow(case, series, models, p)


def follow_fine_tunes(case: Case, series: Series, run: Run, p: SimpleNamespace) -> pd.DataFrame:
    """The feature along both fine-tunes: x = share of the steps done, 0 is BabyPython."""
    base = case.subjects["base"].model
    start = _follow(case, series, [(0.0, base)], p)
    tables = []
    for child in ("lua", "tinystories"):
        along = read_snapshots(needed(run.checkpoints(child), "03_fine_tuning"), base)
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
    for model, subject in case.subjects.items():
        fit = case.fits.get((label, model))
        values, on, off = {**silent, "set_f1": 0.0}, 0.0, 0.0
        if fit is not None:
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
