"""What chapters 08 and 09 both show of a case: its text, a strip, its counterparts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from featlib.cases.case import Case
from featlib.family import DOMAIN_NAMES, PRINT_NAMES

STRIP = 96  # tokens shown
BEFORE = 8  # of them before the first labelled one


def case_strips(case: Case, token_texts: Sequence[str]) -> dict[str, object]:
    """One held-out text, read by the feature and by its best matches: for `token_strips`.

    The text is the block of the test half with most labelled tokens, of one document if there is a
    choice: a strip that runs across documents reads like nonsense.
    """
    text, mask = case.text, case.text.masks[case.label]
    context, whole = mask.shape[1], (text.documents == text.documents[:, :1]).all(axis=1)
    counts = (mask & case.stream.test.reshape(mask.shape)).sum(axis=1)
    block = int(np.argmax(counts * 2 + whole))
    start = max(0, min(int(np.argmax(mask[block])) - BEFORE, context - STRIP))
    here = slice(block * context + start, block * context + min(start + STRIP, context))
    rows = {}
    for name, scores in case.scores.items():
        match, what = case.best_match(name), f"{case.own.feature}"
        if name != case.model:
            what = f"{match.feature}: r = {match.r.value:.2f}"
        rows[f"{PRINT_NAMES[name]}, feature {what}"] = scores[here]
    note = case.label.replace("_", " ")
    return {
        "tokens": [token_texts[i] for i in case.stream.ids[here]],
        "rows": rows,
        "notes": [note if marked else "" for marked in case.stream.mask[here]],
    }


def text_table(case: Case) -> pd.DataFrame:
    """What the case was studied on: documents, tokens there and read, labelled tokens by half."""
    text, mask = case.text, case.text.masks[case.label]
    chosen, context = case.stream.selection.reshape(mask.shape), mask.shape[1]
    kinds = {domain: text.domains == domain for domain in text.read}
    rows = [
        {
            "text": DOMAIN_NAMES[domain],
            "documents": text.read[domain],
            "tokens": round(text.weights[here].sum()) * context,
            "read": int(here.sum()) * context,
            "labelled, to choose on": int((mask & chosen)[here].sum()),
            "labelled, to judge on": int((mask & ~chosen)[here].sum()),
        }
        for domain, here in kinds.items()
    ]
    return pd.DataFrame(rows)


def matches_table(case: Case) -> pd.DataFrame:
    """Every autoencoder that was searched by correlation: what goes best with the feature there."""
    rows = [
        {
            "model": PRINT_NAMES[case.model if m.text else m.model],
            "learned from the text of": PRINT_NAMES[m.text or m.model],
            "seed": m.seed,
            "feature": m.feature,
            "r": format(m.r, ".2f"),
            "decoder cosine": m.cosine,
        }
        for m in case.matches
    ]
    return pd.DataFrame(rows)


def named_features(case: Case) -> pd.DataFrame:
    """The features that a page names: model, seed, feature, why (see `describe.atlas_files`)."""
    own, what = case.own, case.label.replace("_", " ")
    rows = [(case.model, own.seed, own.feature, what)]
    together = case.coactive.loc[case.coactive["model"] == case.model, "feature"]
    rows += [(case.model, own.seed, int(j), f"fires with {what}") for j in together]
    routes = case.counterparts[case.counterparts["route"] != "transfer"]
    rows += [(r.model, r.seed, r.feature, f"{what}, by {r.route}") for r in routes.itertuples()]
    return pd.DataFrame(rows, columns=["model", "seed", "feature", "why"])
