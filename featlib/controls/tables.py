"""Tables of chapter 11: what its figures draw, and what `metrics.json` keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from featlib.controls.run import TO_PLACEBO, ControlRun, Pair
from featlib.dictionaries.features import tokens_fired_on
from featlib.estimate import Estimate, proportion
from featlib.family import MERGE_OF, MERGED, PAIRS, PRINT_NAMES, step_name
from featlib.text.tokens import visible
from featlib.verdicts import Findings

# How a share is measured, and the column of chapter 06 that has it.
WAYS = {
    "matching": "persist",
    "ceiling: other seed": "ceiling",
    "ceiling: other text": "text_ceiling",
    "transfer": "transfer",
}
THRESHOLDS = np.arange(50, 96, 5) / 100  # where the convention of 0.8 could lie as well
EXAMPLES = 4  # recovered features shown of those that neither or one child had kept
LEAST = 5  # features in a group that is shown
NULLS = {"r_shifted": "shifted within documents", "r_random": "random dictionary"}
BIN = 20  # features in a bin of a null that is shown


def told(shares: pd.DataFrame) -> str:
    """A table of label, way and share for those who do not see its chart."""
    rows = shares[shares["share"].notna()].itertuples()
    return "; ".join(f"{row.label}, {row.way}: {row.share:.0%}" for row in rows)


def every_share(c: ControlRun, neurons: Mapping[Pair, float]) -> pd.DataFrame:
    """Columns label, way, share, low, high: every step in all `WAYS`, and the placebo's two."""
    rows = []
    for pair in (*PAIRS, TO_PLACEBO):
        ways = WAYS if pair in PAIRS else {"transfer": "transfer"}
        shares = {way: c.share(pair, kind) for way, kind in ways.items()}
        for way, share in (shares | {"neurons": Estimate(neurons[pair])}).items():
            rows.append((step_name(*pair), way, share.value, share.low, share.high))
    return pd.DataFrame(rows, columns=["label", "way", "share", "low", "high"])


def nulls_by_firings(c: ControlRun) -> pd.DataFrame:
    """null, firings (lower edge of a bin of a factor of two), features, share that passes."""
    parts = []
    for column, null in NULLS.items():
        alive = c.matches[c.matches["firings"] > 0]
        level = 2.0 ** np.floor(np.log2(alive["firings"].to_numpy(float)))
        passes = alive[column] >= c.p.threshold
        part = passes.groupby(level).agg(["size", "mean"]).reset_index()
        part.columns = ["firings", "features", "share"]
        parts.append(part[part["features"] >= BIN].assign(null=null))
    return pd.concat(parts, ignore_index=True)


def by_threshold(curves: Mapping[tuple[str, str], np.ndarray]) -> pd.DataFrame:
    """Columns label, way, threshold, share, from r of testable features by (label, way)."""
    rows = [
        (label, way, at, float((r >= at).mean()))
        for (label, way), r in curves.items()
        for at in THRESHOLDS
    ]
    return pd.DataFrame(rows, columns=["label", "way", "threshold", "share"])


def by_group(
    c: ControlRun, ways: Mapping[str, np.ndarray], groups: Sequence | np.ndarray
) -> pd.DataFrame:
    """Share that passes in each group of the base's testable features, by way (its r [d_sae]).

    Columns label, way, features, share, low, high. Small groups are left out, the largest first.
    """
    rows = []
    for way, r in ways.items():
        table = pd.DataFrame({"label": groups, "kept": c.kept(r)})[c.testable]
        for label, kept in table.groupby("label", sort=True, observed=True)["kept"]:
            share = proportion(int(kept.sum()), len(kept))
            rows.append((label, way, len(kept), share.value, share.low, share.high))
    table = pd.DataFrame(rows, columns=["label", "way", "features", "share", "low", "high"])
    return table[table["features"] >= LEAST].sort_values("features", ascending=False, kind="stable")


def in_print(kept_by: str) -> str:
    """`kept_by` of `transfer.recovered_features`, for a page."""
    return " and ".join(PRINT_NAMES.get(model, "neither") for model in kept_by.split("+"))


def recovered_examples(c: ControlRun, followed: pd.DataFrame) -> pd.DataFrame:
    """The clearest recovered features, `EXAMPLES` of those that neither or one child had kept."""
    recovered = followed[followed["recovered"]]
    gain = recovered[f"r_{MERGED}"] - recovered[[f"r_{end}" for end in MERGE_OF]].min(axis=1)
    clear = recovered.assign(gain=gain).sort_values("gain", ascending=False)
    clear = clear.groupby("kept_by", observed=True, sort=False).head(EXAMPLES)
    fires = tokens_fired_on(c.base, c.stream.ids, 5)
    tokens = [" ".join(visible(c.texts[t]) for t, _ in fires[i]) for i in clear["feature"]]
    table = clear[["feature"]].assign(**{"fires on": tokens})
    for model in (*MERGE_OF, MERGED):
        table[f"r in {PRINT_NAMES[model]}"] = clear[f"r_{model}"]
    return table.assign(**{"kept by": clear["kept_by"].map(in_print)})


def control_metrics(
    found: Findings, neurons: Mapping[Pair, float], followed: pd.DataFrame
) -> dict[str, float]:
    """What `metrics.json` keeps of the controls; what is no number stays out."""
    recovered = followed[followed["recovered"]]
    metrics = {
        "control.null.shuffled": found.shuffled,
        "control.null.random": found.random,
        "control.recovered.features": len(recovered),
        "control.recovered.by_neither": (recovered["kept_by"] == "none").sum(),
        "control.recovered.testable": len(followed),
        "control.formatting.all": found.formatting["everything"].value,
        "control.formatting.survivors": found.formatting["survivors"].value,
    }
    for (a, b), share in neurons.items():
        name = b if (a, b) == TO_PLACEBO else f"{a}.{b}"
        metrics[f"neurons.{name}.persist"] = share
    return {key: float(value) for key, value in metrics.items() if np.isfinite(value)}
