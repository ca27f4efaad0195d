"""The feature where nobody trained an autoencoder: along the merge, and in another language."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd

from featlib.cases import detectors
from featlib.cases.case import Case, read_text
from featlib.cases.edits import Subject, read_sites, remove_feature
from featlib.cases.fit import token_rule
from featlib.cases.text import LabelledStream
from featlib.family import BASE, MERGE_OF
from featlib.models.merging import merge_models
from featlib.models.mistral import load_checkpoint
from featlib.params import derive_seed
from featlib.run import Run
from featlib.text.labels import Label
from featlib.verdicts import BARS


def follow_merge(case: Case, run: Run, p: SimpleNamespace) -> pd.DataFrame:
    """The feature, by transfer, as t goes from one child of the merge to the other.

    Columns t, question, value, low, high, as `answers` has them, but for "found": no autoencoder is
    trained at every t, so that is the correlation of the feature with itself in its own model. `p`:
    seed, case_step, case_sweep_tokens (of the case's text), merge_method.
    """
    text, stream = case.text, case.stream
    rng = np.random.default_rng(derive_seed(p.seed, "case sweep"))
    blocks, context = text.ids.shape
    kept = np.sort(rng.permutation(blocks)[: max(2, p.case_sweep_tokens // context)])
    tokens = (kept[:, None] * context + np.arange(context)).reshape(-1)
    part = LabelledStream(*(array[tokens] for array in vars(stream).values()))
    models = {name: load_checkpoint(run.model(name)) for name in (*MERGE_OF, BASE)}
    own, draws = case.traces[case.model].scores[tokens], case.draws
    own_f1, rule = (detectors.f1_draws(score, part, draws) for score in (own, token_rule(part)))
    at, rows = part.labelled(part.test), []
    for t in np.arange(0, 1 + p.case_step / 2, p.case_step).clip(max=1).round(6):
        merged = merge_models(*models.values(), t=float(t), method=p.merge_method)
        alone = case.carry(merged)[0].only([case.own.feature])
        here = Subject(merged, alone, read_sites(merged, text.ids[kept]))
        score = detectors.feature_scores(here.features, 0)
        f1 = detectors.f1_draws(score, part, draws)
        found = {
            "readable": detectors.as_estimate(f1 / own_f1.clip(1e-9)),
            "found": detectors.correlation(own, score, part.documents, draws),
            "used": remove_feature(here, 0, at, part.documents[at], draws).beyond,
            "concept": detectors.as_estimate(f1 - rule),
        }
        for question, value in found.items():
            rows.append({"t": float(t), "question": question, **vars(value)})
    return pd.DataFrame(rows)


def detect_elsewhere(
    case: Case, run: Run, p: SimpleNamespace, label: Label, language: str
) -> tuple[int, pd.DataFrame]:
    """How well the feature, by transfer, detects the label in another language, model by model.

    Lua has no `raise`, but it has `error`: a feature that stood for more than words of Python could
    take that over. Returns the labelled tokens on which to judge, and a row for each model, none
    where they are too few.
    """
    text = read_text(run, p, {case.label: label}, (language,))
    stream, rows = text.halves(case.label, case.draws.seed), []
    labelled = int((stream.mask & stream.test).sum()) if stream else 0
    if stream is None or labelled < BARS.few_labelled:
        return labelled, pd.DataFrame()
    for name in case.traces:
        model = load_checkpoint(run.model(name))
        here = Subject(model, case.carry(model)[0], read_sites(model, text.ids))
        scores = detectors.feature_scores(here.features, case.own.feature)
        rows.append(
            {"model": name, **detectors.evaluate_detector(scores, None, stream, case.draws)}
        )
    return labelled, pd.DataFrame(rows)
