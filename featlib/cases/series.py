"""The feature where nobody trained an autoencoder: along the merge, and in another language."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd

from featlib.cases.answers import token_rule_draws
from featlib.cases.case import Case, read_text
from featlib.cases.detectors import (
    LabelledStream,
    as_estimate,
    best_threshold,
    correlation,
    detector_draws,
    feature_scores,
)
from featlib.cases.edits import remove_feature
from featlib.cases.fit import evaluate_feature
from featlib.cases.subjects import read_sites, read_with
from featlib.cases.text import split_halves
from featlib.family import BASE, MERGE_OF
from featlib.models.merging import merge_models
from featlib.models.mistral import load_checkpoint
from featlib.params import derive_seed
from featlib.run import Run, needed
from featlib.text.labels import Label
from featlib.verdicts import BARS


def follow_merge(case: Case, run: Run, p: SimpleNamespace) -> pd.DataFrame:
    """The feature, by transfer, as t goes from one child of the merge to the other.

    Columns t, question, value, low, high, as `answers` has them, but for "found": no autoencoder is
    trained at every t, so that is the correlation of the feature with itself in its own model.
    On `case_sweep_tokens` of the case's text. `p`: seed, case_step, case_sweep_tokens,
    merge_method.
    """
    text, stream = case.text, case.stream
    rng = np.random.default_rng(derive_seed(p.seed, "case sweep"))
    blocks, context = text.ids.shape
    kept = np.sort(rng.permutation(blocks)[: max(2, p.case_sweep_tokens // context)])
    tokens = (kept[:, None] * context + np.arange(context)).reshape(-1)
    inside = text.inside(stream.mask & stream.test)[tokens]
    part = LabelledStream(*(array[tokens] for array in vars(stream).values()))
    models = {name: load_checkpoint(needed(run.model(name))) for name in (*MERGE_OF, BASE)}
    own, rule = case.traces[case.home.model].scores[tokens], token_rule_draws(part, case.draws)
    own_f1 = detector_draws(own, max(best_threshold(own, part), 0.0), part, case.draws)["f1"]
    rows = []
    for t in np.arange(0, 1 + p.case_step / 2, p.case_step).clip(max=1).round(6):
        merged = merge_models(*models.values(), t=float(t), method=p.merge_method)
        alone = case.home.carry_into(merged).only([case.home.feature])
        here = read_with(merged, alone, read_sites(merged, text.ids[kept]))
        score, at = feature_scores(here.features, 0), np.flatnonzero(inside)
        f1 = detector_draws(score, max(best_threshold(score, part), 0.0), part, case.draws)["f1"]
        found = {
            "readable": as_estimate(f1 / own_f1.clip(1e-9)),
            "found": correlation(own, score, part.documents, case.draws),
            "used": remove_feature(here, 0, at, part.documents[at], case.draws).beyond,
            "concept": as_estimate(f1 - rule),
        }
        for question, value in found.items():
            ends = {"low": value.low, "high": value.high}
            rows.append({"t": float(t), "question": question, "value": value.value, **ends})
    return pd.DataFrame(rows)


def detect_elsewhere(
    case: Case, run: Run, p: SimpleNamespace, label: Label, language: str
) -> tuple[int, pd.DataFrame]:
    """How well the feature, by transfer, detects the label in another language, model by model.

    Lua has no `raise`, but it has `error`: a feature that stood for more than words of Python could
    take that over. Returns the labelled tokens on which to judge, and columns model, rule (F1 of
    the rule that sees the token alone) and the measures; no rows where the tokens are too few.
    """
    text = read_text(run, p, {case.label: label}, (language,))
    stream = split_halves(text, [case.label], seed=case.draws.seed).get(case.label)
    if stream is None:
        return 0, pd.DataFrame()
    labelled = int((stream.mask & stream.test).sum())
    rows = []
    for name in case.traces if labelled >= BARS.few_labelled else ():
        model = load_checkpoint(needed(run.model(name)))
        here = read_with(model, case.home.carry_into(model), read_sites(model, text.ids))
        measured = evaluate_feature(here.features, case.home.feature, stream, case.draws)
        rule = float(token_rule_draws(stream, case.draws)[0])
        rows.append({"model": name, "rule": rule, **measured})
    return labelled, pd.DataFrame(rows)
