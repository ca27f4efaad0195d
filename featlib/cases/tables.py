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
    rows = {}
    for name, scores in case.scores.items():
        what = f"feature {case.home.feature}"
        if name != case.home.model:
            match = case.best_match(name)
            what = f"feature {match.feature}: r = {match.r.value:.2f}"
        rows[f"{PRINT_NAMES[name]}, {what}"] = scores[here]
    note = case.label.replace("_", " ")
    return {
        "tokens": [token_texts[i] for i in case.text.ids.reshape(-1)[here]],
        "rows": rows,
        "notes": [note if marked else "" for marked in mask.reshape(-1)[here]],
    }


def text_table(case: Case) -> pd.DataFrame:
    """What the case was studied on: documents, tokens there and read, labelled tokens by half."""
    rows, context = [], case.text.ids.shape[1]
    mask, selection = case.text.masks[case.label], case.stream.selection
    for domain, read in case.text.read.items():
        here = case.text.domains == domain
        chosen = selection.reshape(mask.shape)[here]
        rows.append(
            {
                "text": DOMAIN_NAMES[domain],
                "documents": read - case.text.skipped[domain],
                "tokens": round(case.text.weights[here].sum()) * context,
                "read": int(here.sum()) * context,
                "labelled, to choose on": int((mask[here] & chosen).sum()),
                "labelled, to judge on": int((mask[here] & ~chosen).sum()),
            }
        )
    return pd.DataFrame(rows)


def matches_table(case: Case) -> pd.DataFrame:
    """Every autoencoder that was searched by correlation: what goes best with the feature there."""
    return pd.DataFrame(
        [
            {
                "model": PRINT_NAMES[case.home.model if m.text else m.model],
                "learned from the text of": PRINT_NAMES[m.text or m.model],
                "seed": m.seed,
                "feature": m.feature,
                "r": format(m.r, ".2f"),
                "decoder cosine": m.cosine,
            }
            for m in case.matches
        ]
    )


def named_features(case: Case) -> pd.DataFrame:
    """The features that a page names: model, seed, feature, why (see `describe.atlas_files`)."""
    home, what = case.home, case.label.replace("_", " ")
    rows = [(home.model, home.seed, home.feature, what)]
    together = case.coactive.loc[case.coactive["model"] == home.model, "feature"]
    rows += [(home.model, home.seed, int(j), f"fires with {what}") for j in together]
    routes = case.counterparts[case.counterparts["route"] != "transfer"]
    rows += [(r.model, r.seed, r.feature, f"{what}, by {r.route}") for r in routes.itertuples()]
    return pd.DataFrame(rows, columns=["model", "seed", "feature", "why"])
