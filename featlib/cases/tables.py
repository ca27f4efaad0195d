"""What chapters 08 and 09 both show of a case: its text, its tokens, its verdicts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from featlib.cases.case import Case
from featlib.cases.detectors import feature_scores
from featlib.cases.edits import ablate, edited_losses, loss_changes
from featlib.family import DOMAIN_NAMES, PRINT_NAMES
from featlib.matching.owners import SecondOpinion
from featlib.models.mistral import open_bridge
from featlib.run import Run

STRIP = 96  # tokens shown
BEFORE = 8  # of them before the first labelled one


def case_strips(case: Case, route: str, token_texts: Sequence[str]) -> dict[str, object]:
    """One held-out text, read by the feature and by its counterparts: for `token_strips`.

    The text is the block of the test half with most labelled tokens, of one document if there is a
    choice: a strip that runs across documents reads like nonsense. `rows`: activations by the
    name of model, feature, and its correlation with the first. `notes`: the label, where a token
    has it.
    """
    mask, (_, context) = case.text.masks[case.label], case.text.ids.shape
    whole = (case.text.documents == case.text.documents[:, :1]).all(axis=1)
    counts = (mask & case.stream.test.reshape(mask.shape)).sum(axis=1)
    block = int(np.argmax(counts * 2 + whole))
    first = int(np.argmax(mask[block])) - BEFORE
    start = max(0, min(first, context - STRIP))
    here = slice(block * context + start, block * context + min(start + STRIP, context))
    r = case.fates[~case.fates["again"]].set_index(["model", "route"])["r"]
    rows = {}
    for item in case.counterparts(route):
        name, what = item.subject.name, f"feature {item.feature}"
        if name != case.reference:
            what += f": r = {r[name, route]:.2f}"
        scores = feature_scores(item.subject.features, item.feature)
        rows[f"{PRINT_NAMES[name]}, {what}"] = scores[here]
    note = case.label.replace("_", " ")
    return {
        "tokens": [token_texts[i] for i in case.text.ids.reshape(-1)[here]],
        "rows": rows,
        "notes": [note if marked else "" for marked in mask.reshape(-1)[here]],
    }


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


def context_table(case: Case) -> pd.DataFrame:
    """How much of each label's best feature in the reference the token alone explains."""
    return pd.DataFrame(
        [
            {
                "label": label.replace("_", " "),
                "feature": fit.feature,
                "F1": float(fit.row()["f1"]),
                "token rule's F1": float(fit.row("token rule")["f1"]),
                "explained by token": fit.token_share,
                "AUROC within tokens": fit.within_tokens,
                "labelled tokens (test)": fit.n_labelled,
            }
            for (label, model), fit in case.fits.items()
            if model == case.reference
        ]
    )


def verdicts_by_route(
    case: Case, *, threshold: float, opinion: SecondOpinion | None = None
) -> pd.DataFrame:
    """The verdict on every other model by each route, side by side; last the ceiling.

    Columns model, by labels, by transfer, by correlation, by crosscoder (where there is an
    `opinion`), each a word with the number that it rests on. The last row is the reference itself,
    by its other autoencoders: what each route finds where nothing has happened to the model.
    """
    fates = case.fates[(case.fates["model"] != case.reference) | case.fates["again"]]
    words = {route: case.judge(route) for route in ("labels", "transfer")}
    cells = []
    for row in fates.itertuples():
        f1, r = f"F1 {row.f1:.2f}", f"r {row.r_stream:.2f}"
        if row.route == "correlation":
            cells.append(f"{'same' if row.r_stream >= threshold else 'not the same'} ({r})")
        else:
            cells.append(f1 if row.again else f"{words[row.route][row.model].word} ({f1})")
    models = fates["model"].map(PRINT_NAMES) + np.where(fates["again"], ", again", "")
    table = fates.assign(model=models, cell=cells).pivot(
        index="model", columns="route", values="cell"
    )
    others = [PRINT_NAMES[name] for name in case.dictionaries if name != case.reference]
    table = table.loc[[*others, *(table.index.difference(others))]]  # the ceiling comes last
    table = table[["labels", "transfer", "correlation"]].add_prefix("by ").rename_axis(columns=None)
    table["by labels"] = table["by labels"].fillna("no feature")
    if opinion is not None:
        parts = opinion.models.set_index("model")["part"]
        said = {PRINT_NAMES[m]: f"{opinion.verdict(m)} ({part:.0%})" for m, part in parts.items()}
        said[table.index[-1]] = f"closest feature: r {opinion.quality:.2f}"
        table["by crosscoder"] = table.index.map(said)
    return table.fillna("").reset_index()


def check_by_bridge(case: Case, run: Run) -> float:
    """Largest difference between two ways to the change of loss under ablation, in four blocks.

    One is the short way that all numbers here take (only the residual stream at tokens where the
    feature fires); the other runs the whole model through TransformerBridge with a hook.
    """
    subject = case.fits[case.label, case.reference].subject
    counts = case.text.masks[case.label].sum(axis=1)
    chosen = np.sort(np.argsort(-counts, kind="stable")[:4])
    bridge = open_bridge(run.model(case.reference))
    edited = edited_losses(
        bridge, case.text.ids[chosen], lambda hidden: ablate(hidden, subject.sae, case.feature)
    )
    long = edited - edited_losses(bridge, case.text.ids[chosen])
    return float(np.abs(long - loss_changes(subject, case.feature)[chosen]).max())
