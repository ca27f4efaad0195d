"""The answer to the front page's question, in words that follow from a case's table of fates."""

from __future__ import annotations

import pandas as pd

from featlib.family import PRINT_NAMES
from featlib.verdicts import (
    BARS,
    PHRASES,
    Evidence,
    Verdict,
    give_reasons,
    judge_survival,
    listed,
    open_answer,
)


def judge_models(
    fates: pd.DataFrame,
    *,
    reference: str,
    feature: str,
    route: str = "transfer",
) -> dict[str, Verdict]:
    """A verdict for each model but the reference (by name in print), on its counterpart by `route`.

    The correlation quoted is that of the best match on the common stream, as the paper would have
    it, whatever the route.
    """
    own = fates[~fates["again"]].set_index(["route", "model"])

    def evidence(route: str, model: str) -> Evidence:
        row, r = own.loc[(route, model)], float("nan")
        if ("correlation", model) in own.index:
            r = float(own.loc[("correlation", model), "r_stream"])
        keys = ("f1", "f1_low", "f1_high", "effect", "effect_low", "effect_high")
        return Evidence(*(float(row[key]) for key in keys), r=r)

    return {
        PRINT_NAMES[model]: judge_survival(
            evidence("labels", reference),
            evidence(route, model),
            model=PRINT_NAMES[model],
            parent_model=PRINT_NAMES[reference],
            feature=feature,
        )
        for model in PRINT_NAMES
        if model != reference and (route, model) in own.index
    }


def write_reasons(fates: pd.DataFrame, *, reference: str, feature: str) -> str:
    """What the short answer rests on, in full: by transfer, and what the dictionaries say.

    Transfer decides, since it asks the child itself; a child's own dictionary may lack a feature
    that the model has, as other dictionaries of the parent may (the ceiling).
    """
    moved = judge_models(fates, reference=reference, feature=feature)
    reasons = give_reasons(moved)
    own = judge_models(fates, reference=reference, feature=feature, route="labels")
    if not own or any(verdict.word == "absent" for verdict in moved.values()):
        return reasons
    f1 = fates[(fates["route"] == "labels") & ~fates["again"]].set_index("model")["f1"]
    again = fates[(fates["route"] == "labels") & fates["again"]]
    said = ", ".join(
        f"{PHRASES[verdict.word]} in {model} (F1 {f1[name]:.2f})"
        for name, model in PRINT_NAMES.items()
        for verdict in [own.get(model)]
        if verdict is not None
    )
    ceiling = ""
    if len(again):
        first = PRINT_NAMES[reference]
        ceiling = f"; other autoencoders of {first} itself reach {again['f1'].iloc[0]:.2f}"
    return (
        f"{reasons} All this is by transfer: the same feature, read in each model. Judged by the "
        f"best feature of each model's own autoencoders it {said}{ceiling}."
    )


def write_short_answer(
    fates: pd.DataFrame,
    *,
    reference: str,
    feature: str,
    words: str = "its tokens",
) -> str:
    """The answer in two sentences: the verdict by transfer, and the numbers that it rests on.

    `words`: what the feature detects, in print.
    """
    moved = judge_models(fates, reference=reference, feature=feature)
    opening = open_answer(moved, feature=feature)
    absent = [verdict for verdict in moved.values() if verdict.word == "absent"]
    if absent:
        return f"{opening} {absent[0].sentence}"
    own = fates[~fates["again"]].set_index(["route", "model"])
    models = [name for name, model in PRINT_NAMES.items() if model in moved]
    rows = {name: own.loc[("transfer", name)] for name in models}
    parent = own.loc[("labels", reference)]
    # What the paper would have looked at, in the last descendant, beside the instrument's limit.
    last = own.loc[("correlation", models[-1]), "r_stream"]
    if last >= BARS.same_feature:
        lists = f"and the dictionary of {PRINT_NAMES[models[-1]]} has it too, with r = {last:.2f}"
    else:
        lists = (
            f"but the dictionary of {PRINT_NAMES[models[-1]]} has nothing closer to it than r = "
            f"{last:.2f}"
        )
    ceiling = fates[fates["again"] & (fates["route"] == "correlation")]["r_stream"]
    limit = ""
    if len(ceiling):
        limit = (
            f" (between two dictionaries of {PRINT_NAMES[reference]} itself: {ceiling.iloc[0]:.2f})"
        )
    needed = all(row["effect_low"] > 0 for row in [parent, *rows.values()])
    misses = ", and each predicts worse without it" if needed else ""
    return (
        f"{opening} Read in each model, the same direction finds {words} with F1 "
        f"{parent['f1']:.2f} in {PRINT_NAMES[reference]}, "
        + listed([f"{row['f1']:.2f} in {PRINT_NAMES[name]}" for name, row in rows.items()])
        + f"{misses}; {lists}{limit}."
    )
