"""What a case study shows: token strips, and the sentences that follow from its numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from featlib.cases.answers import judge_models
from featlib.cases.case import Case
from featlib.cases.detectors import feature_scores
from featlib.cases.edits import Edit, edited_losses, loss_changes
from featlib.cases.subjects import Found
from featlib.cases.text import busiest_block
from featlib.dictionaries.crosscoder import load_crosscoder
from featlib.dictionaries.features import load_features
from featlib.family import DOMAIN_NAMES, PRINT_NAMES
from featlib.matching.owners import SecondOpinion, opinion_by_correlation
from featlib.run import Run, needed
from featlib.show.figure import Markup
from featlib.show.strips import token_strips
from featlib.text.labels import Label


def feature_name(name: str, label: Label) -> str:
    """What the feature of the label `name` is called in a sentence."""
    return label.called or f"{name.replace('_', ' ')} feature"


def case_strips(case: Case, route: str, token_texts: Sequence[str], *, most: int = 96) -> Markup:
    """One held-out text, read by the feature and by its counterparts, on one scale.

    The text is the block of the test half with most labelled tokens. Each strip names its
    model, feature, and the correlation with the first. A token's label is read out with it.
    """
    test = case.stream.test.reshape(case.text.ids.shape)
    block = busiest_block(case.text, case.label, test)
    most = min(most, case.text.ids.shape[1])
    at = np.flatnonzero(case.text.masks[case.label][block])
    start = max(0, min(int(at[0]) - 8 if len(at) else 0, case.text.ids.shape[1] - most))
    rows = slice(block * case.text.ids.shape[1] + start, None)
    words = [token_texts[i] for i in case.text.ids[block, start : start + most]]
    marked = case.text.masks[case.label][block, start : start + most]
    strips = {
        _strip_name(case, item): feature_scores(item.subject.features, item.feature)[rows][:most]
        for item in case.counterparts(route)
    }
    return token_strips(
        words, strips, notes=[case.label.replace("_", " ") if m else "" for m in marked]
    )


def _strip_name(case: Case, item: Found) -> str:
    name = PRINT_NAMES[item.subject.name]
    if item.route == "labels" and item.subject.name == case.reference:
        return f"{name}, feature {item.feature}"
    row = case.fates.query("model == @item.subject.name and route == @item.route").iloc[0]
    which = (
        "the same feature, transferred" if item.route == "transfer" else f"feature {item.feature}"
    )
    return f"{name}, {which}: r = {row['r']:.2f}"


def text_table(case: Case) -> pd.DataFrame:
    """What the case was studied on: documents read and left out, tokens, labelled tokens."""
    rows = []
    for domain, read in case.text.read.items():
        here = case.text.domains == domain
        rows.append(
            {
                "text": DOMAIN_NAMES[domain],
                "documents": read,
                "do not parse": case.text.skipped[domain],
                "tokens": int(here.sum()) * case.text.ids.shape[1],
                "labelled tokens": int(case.text.masks[case.label][here].sum()),
            }
        )
    return pd.DataFrame(rows)


def halves_table(case: Case) -> pd.DataFrame:
    """The two halves of the case's text: documents, tokens, and tokens with each label."""
    documents = case.text.documents.reshape(-1)
    halves = {"selection": case.stream.selection, "test": case.stream.test}
    rows = [
        {"": "documents", **{k: len(np.unique(documents[v])) for k, v in halves.items()}},
        {"": "tokens", **{k: int(v.sum()) for k, v in halves.items()}},
    ]
    for name, stream in case.streams.items():
        own = {"selection": stream.selection, "test": stream.test}
        counts = {k: int(stream.mask[v].sum()) for k, v in own.items()}
        rows.append({"": f"labelled {name.replace('_', ' ')}", **counts})
    return pd.DataFrame(rows)


def context_table(case: Case) -> pd.DataFrame:
    """How much of each label's best feature in the reference the token alone explains."""
    rows = []
    for (label, model), fit in case.fits.items():
        if model != case.reference:
            continue
        rows.append(
            {
                "label": label.replace("_", " "),
                "feature": fit.feature,
                "F1": float(fit.row()["f1"]),
                "token rule's F1": float(fit.row("token rule")["f1"]),
                "explained by token": fit.token_share,
                "AUROC within tokens": fit.within_tokens,
                "labelled tokens (test)": fit.n_labelled,
            }
        )
    return pd.DataFrame(rows)


def ask_crosscoder(case: Case, run: Run) -> SecondOpinion:
    """What the crosscoder of chapter 11, trained in this run, says of the case's feature."""
    read = load_features(needed(run.crosscoder_features))
    home = case.subjects[case.reference]
    own = load_features(needed(run.features(case.reference, home.seed)))
    crosscoder = load_crosscoder(needed(run.crosscoder))
    return opinion_by_correlation(crosscoder, read, own, case.feature, parent=case.reference)


def verdicts_by_route(
    case: Case, *, threshold: float, opinion: SecondOpinion | None = None
) -> pd.DataFrame:
    """The verdict on every other model by each route, side by side; last the ceiling.

    Columns model, by labels, by transfer, by correlation, by crosscoder (where there is an
    `opinion`), each a word with the number that it rests on. The last row is the reference itself,
    by its other autoencoders: what each route finds where nothing has happened to the model.
    """
    parent = PRINT_NAMES[case.reference]
    fates = case.fates[~case.fates["again"]].set_index(["route", "model"])
    again = case.fates[case.fates["again"]].set_index("route")
    words = {
        route: judge_models(case.fates, reference=case.reference, feature="", route=route)
        for route in ("labels", "transfer")
    }

    def same(r: float) -> str:
        return f"{'same' if r >= threshold else 'not the same'} (r {r:.2f})"

    rows = []
    for model in [name for name in case.dictionaries if name != case.reference]:
        row = {"model": PRINT_NAMES[model]}
        for route, judged in words.items():
            verdict = judged.get(PRINT_NAMES[model])
            row[f"by {route}"] = (
                "no feature"
                if verdict is None
                else f"{verdict.word} (F1 {fates.loc[(route, model), 'f1']:.2f})"
            )
        row["by correlation"] = same(fates.loc[("correlation", model), "r_stream"])
        if opinion is not None:
            part = opinion.models.set_index("model")["part"][model]
            row["by crosscoder"] = f"{opinion.verdict(model)} ({part:.0%})"
        rows.append(row)
    last = {"model": f"{parent}, again", "by transfer": "", "by crosscoder": ""}
    if "labels" in again.index:
        last["by labels"] = f"F1 {again.loc['labels', 'f1']:.2f}"
    last["by correlation"] = same(again.loc["correlation", "r_stream"])
    columns = list(rows[0]) if rows else list(last)
    return pd.DataFrame([*rows, last])[columns].fillna("")


def check_by_bridge(case: Case, run: Run, *, blocks: int = 4) -> float:
    """Largest difference between two ways to the change of loss under ablation [nats].

    One is the short way that all numbers here take (only the residual stream at tokens where the
    feature fires); the other runs the whole model through TransformerBridge with a hook.
    """
    from featlib.models.mistral import open_bridge

    subject = case.subjects[case.reference]
    counts = case.text.masks[case.label].sum(axis=1)
    chosen = np.sort(np.argsort(-counts, kind="stable")[:blocks])
    ids = case.text.ids[chosen]
    edit = Edit(case.feature)
    short = loss_changes(subject.model, subject.sae, subject.sites, subject.features, edit)[chosen]
    bridge = open_bridge(run.model(case.reference))
    long = edited_losses(bridge, ids, subject.sae, edit) - edited_losses(bridge, ids, subject.sae)
    return float(np.abs(long - short).max())


def say_keywords(case: Case) -> str:
    """Sentences on all four exception keywords, where a case of some of them has fitted those too.

    Empty where it has not. The bound is the F1 of a detector that takes every token of the case's
    own label, and no other, as its answer for all four keywords.
    """
    wide, key = "exception_keyword", ("exception_keyword", case.reference)
    if case.label == wide or key not in case.fits:
        return ""
    fit, stream = case.fits[key], case.streams[wide]
    part = case.text.masks[case.label].reshape(-1)
    every = stream.mask & stream.test
    hits = int((part & every).sum())
    bound = 2 * hits / (int((part & stream.test).sum()) + int(every.sum()))
    return (
        f" For all four keywords, `try` and `finally` included, the best single feature in "
        f"{len(case.dictionaries[case.reference])} autoencoders reaches F1 {fit.row()['f1']:.2f}, "
        f"and a set of {len(fit.members)} features {fit.row('feature set')['f1']:.2f}; a feature "
        f"of the {case.label.replace('_', ' ')} alone, and of all of it, would reach {bound:.2f}. "
        "After `raise` and `except` comes a name, after `try` a colon: who predicts the next token "
        "need not treat them as one thing."
    )


def describe_half_life(lives: pd.DataFrame, route: str, measure: str, unit: str) -> str:
    """A clause on where a measure has halved: "halves at t = 0.35" or how far it changes."""
    row = lives.set_index(["route", "measure"]).loc[(route, measure)]
    what = {"f1": "F1", "effect": "the effect"}[measure]
    ends = f"from {row['start']:.2f} to {row['end']:.2f}"
    if not row["start"] > 0:
        return f"{what} goes {ends} and has nothing to halve"
    if np.isfinite(row["half_life"]):
        return f"{what} goes {ends} and is halved at {unit} = {row['half_life']:.2f}"
    return f"{what} goes {ends} and is nowhere halved"
