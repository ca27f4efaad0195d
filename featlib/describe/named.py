"""The features that pages of the book name, so that the atlas has a page of each.

A chapter that names features saves them with `run.save_table("named_features_<chapter>", ...)`.
"""

from __future__ import annotations

import pandas as pd

from featlib.run import Run

COLUMNS = ["model", "seed", "feature", "why"]  # why: a few words, such as "exception, by labels"


def read_named(run: Run) -> pd.DataFrame:
    """All features that chapters of the run name: model, seed, feature, why; none is no error."""
    tables = sorted(run.table("").parent.glob("named_features_*.parquet"))
    named = [pd.read_parquet(path)[COLUMNS] for path in tables]
    every = pd.concat([pd.DataFrame(columns=COLUMNS), *named], ignore_index=True)
    return every.drop_duplicates(COLUMNS[:3], ignore_index=True)


def atlas_address(model: str, seed: int, feature: int) -> str:
    """Where the atlas shows a feature, from a page of a chapter: ../book/atlas.html#lua/s1/612."""
    return f"../book/atlas.html#{model}/s{seed}/{feature}"
