"""The chart of the atlas chapter."""

from __future__ import annotations

import altair as alt
import pandas as pd

from featlib.family import MODEL_COLORS, MODELS, PRINT_NAMES


def label_counts(fitting: pd.DataFrame) -> alt.Chart:
    """Features that fit a label, by label and model. `fitting`: model, label, features."""
    shown = fitting.assign(
        model=fitting["model"].map(PRINT_NAMES), label=fitting["label"].str.replace("_", " ")
    )
    names = [PRINT_NAMES[m] for m in MODELS]
    colors = [MODEL_COLORS[m] for m in MODELS]
    return (
        alt.Chart(shown)
        .mark_bar(height=7)
        .encode(
            x=alt.X("features:Q", title="features", axis=alt.Axis(format="d", tickMinStep=1)),
            y=alt.Y("label:N", sort="-x", title=None),
            yOffset=alt.YOffset("model:N", sort=names),
            color=alt.Color("model:N", sort=names, scale=alt.Scale(domain=names, range=colors)),
            tooltip=["model:N", "label:N", "features:Q"],
        )
        .properties(height=alt.Step(10))
    )
