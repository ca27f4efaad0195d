"""A case's label in another language: is it the same feature that detects it there?

Lua has no `raise`, but it has `error`. If a model's exception feature were about exceptions, and
not about words of Python, it could take over Lua's words once the model has learnt Lua.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pandas as pd

from featlib import FeatlibError
from featlib.cases.baselines import token_rule
from featlib.cases.case import Case, read_text
from featlib.cases.detectors import LabelledStream, best_threshold, evaluate_detector, rank_features
from featlib.cases.fit import evaluate_feature
from featlib.cases.subjects import CHUNK, read_subject
from featlib.cases.text import CaseText, split_halves
from featlib.dictionaries.features import encode_batches
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.family import PRINT_NAMES
from featlib.params import derive_seed
from featlib.run import Run
from featlib.text.labels import Label
from featlib.verdicts import listed

SAME, BEST, RULE = "same feature, transferred", "best feature, its own", "token rule"
DETECTORS = (SAME, BEST, RULE)


def detect_elsewhere(
    run: Run, case: Case, label: Label, language: str, p: SimpleNamespace
) -> pd.DataFrame:
    """How well the case's feature, and the best of each model's own, detect `label` in `language`.

    One row for each model and detector (`SAME`, `BEST`, `RULE`): feature, n_labelled (test half),
    precision, recall, f1, auroc with intervals. Reads as much text as the case itself;
    empty where it holds too few such tokens to choose on and to judge on.
    """
    if language not in label.find:
        raise FeatlibError(f"the label {case.label!r} has no function that reads {language}")
    text = read_text(run, p, {case.label: label}, (language,))
    seed = derive_seed(p.seed, "case", case.label)
    streams = split_halves(text, [case.label], seed=seed)
    if case.label not in streams:
        return pd.DataFrame()
    stream = streams[case.label]
    options = {"seed": seed, "n_boot": p.bootstrap}
    own = case.subjects[case.reference]
    carried = own.sae.only([case.feature])
    by_token = token_rule(stream)
    rule = evaluate_detector(by_token, best_threshold(by_token, stream), stream, **options)
    rows = []
    for name in case.dictionaries:
        for detector, feature, measured in _detect_in(name, case, carried, text, stream, options):
            rows.append({"model": name, "detector": detector, "feature": feature, **measured})
        rows.append({"model": name, "detector": RULE, "feature": -1, **rule})
    return pd.DataFrame(rows).assign(n_labelled=int(np.sum(stream.mask & stream.test)))


def _detect_in(
    name: str,
    case: Case,
    carried: SparseAutoencoder,
    text: CaseText,
    stream: LabelledStream,
    options: Mapping[str, int],
) -> list[tuple[str, int, dict[str, float]]]:
    """Of one model, whose activations are let go before the next one's are read."""
    subject = case.subjects[name]
    here = read_subject(name, subject.model, subject.sae, text.ids)
    moved = encode_batches(here.sites.neurons.split(CHUNK), carried)
    found = [(SAME, case.feature, evaluate_feature(moved, 0, stream, **options))]
    best = rank_features(here.features, stream, 1)
    if len(best):
        feature = int(best["feature"][0])
        found.append((BEST, feature, evaluate_feature(here.features, feature, stream, **options)))
    return found


def say_elsewhere(table: pd.DataFrame, language: str, *, least: float = 0.5) -> str:
    """What the table of `detect_elsewhere` says, in words; `least`: the F1 that counts as found."""
    if table.empty:
        return f"The held-out {language} holds too few such tokens to tell."
    f1 = table.set_index(["detector", "model"])["f1"]
    carried, best = f1[SAME], f1[BEST] if BEST in f1.index else f1[SAME] * 0
    few = int(table["n_labelled"].iloc[0])
    took = [PRINT_NAMES[name] for name, value in carried.items() if value >= least]
    own = [PRINT_NAMES[name] for name, value in best.items() if value >= least]
    first = (
        f"The feature detects the label in {language} too, in {listed(took)}"
        if took
        else f"In no model does the feature detect the label in {language} (F1 at most "
        f"{carried.max():.2f}): it stands for words of its own language"
    )
    second = (
        f"{listed(own)} {'has a feature' if len(own) == 1 else 'have features'} of "
        f"{'its' if len(own) == 1 else 'their'} own for it"
        if own
        else f"no model has a clear feature of its own for it (best F1 {best.max():.2f})"
    )
    hint = f" With {few} labelled tokens in the test half this is a hint, no more."
    return f"{first}; {second}.{hint if few < 100 else ''}"
