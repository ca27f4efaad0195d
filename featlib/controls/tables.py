"""Tables of chapter 11: what its figures draw, and what `metrics.json` keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from featlib.controls.run import ControlRun, Pair, Transfers
from featlib.dictionaries.features import tokens_fired_on
from featlib.estimate import Estimate
from featlib.family import BASE, MERGE_OF, MERGED, PAIRS, PRINT_NAMES, step_name
from featlib.matching.ceilings import persistence_by, persistence_by_threshold
from featlib.matching.fates import Fates
from featlib.text.tokens import visible
from featlib.verdicts import Findings

CEILING = "ceiling: other seed"
DOTS = ["label", "way", "share", "low", "high"]  # what a chart of shares draws
EXAMPLES = 6  # recovered features shown of those that neither or one child had kept
LEAST = 5  # testable features in a group that is shown


def pct(share: float, digits: int = 0) -> str:
    return "–" if pd.isna(share) else f"{share:.{digits}%}"


def span(values: pd.Series) -> str:
    """The smallest to the largest, in three digits."""
    return " to ".join(dict.fromkeys(f"{x:.3g}" for x in (values.min(), values.max())))


def told(shares: pd.DataFrame) -> str:
    """A table of `DOTS` for those who do not see its chart."""
    rows = shares[shares["share"].notna()].itertuples()
    return "; ".join(f"{row.label}, {row.way}: {row.share:.0%}" for row in rows)


def dots(label: str, ways: Mapping[str, Estimate]) -> pd.DataFrame:
    """Columns `DOTS`, one row for each way of measuring."""
    rows = [(label, way, share.value, share.low, share.high) for way, share in ways.items()]
    return pd.DataFrame(rows, columns=DOTS)


def by_step(ways: Mapping[str, Mapping[Pair, Estimate]]) -> pd.DataFrame:
    """Columns `DOTS`: every pair of models, in all ways in which it was measured."""
    measured = {pair: {way: by[pair] for way, by in ways.items() if pair in by} for pair in PAIRS}
    return pd.concat([dots(step_name(*pair), found) for pair, found in measured.items()])


def of_steps(columns: Mapping[str, Mapping[Pair, Any]]) -> pd.DataFrame:
    """One row for each pair of models, as a page lists them."""
    pairs = list(next(iter(columns.values())))
    cells = {name: [by[pair] for pair in pairs] for name, by in columns.items()}
    return pd.DataFrame({"step": [step_name(*pair) for pair in pairs], **cells})


def every_seed_pair(c: ControlRun) -> pd.DataFrame:
    """Columns `DOTS` and seeds: one row per step and pair of seeds, from chapter 06's table."""
    table, parts = c.run.read_table("seed_pairs"), []
    for parent, child in PAIRS:
        for way, other in (("matching", child), (CEILING, parent)):
            part = table[(table["parent"] == parent) & (table["child"] == other)]
            seeds = part["parent_seed"].astype(str) + " → " + part["child_seed"].astype(str)
            shares = part[["persist", "persist_low", "persist_high"]].set_axis(DOTS[2:], axis=1)
            parts.append(shares.assign(label=step_name(parent, child), way=way, seeds=seeds))
    return pd.concat(parts, ignore_index=True)[[*DOTS, "seeds"]]


def by_threshold(curves: Mapping[Pair, Fates]) -> pd.DataFrame:
    """Columns label, way, threshold, share, from fates by (label, way)."""
    parts = [persistence_by_threshold(f).assign(label=a, way=b) for (a, b), f in curves.items()]
    return pd.concat(parts, ignore_index=True).rename(columns={"persist": "share"})


def by_group(
    compared: Mapping[str, Fates], groups: Sequence | np.ndarray | pd.Categorical
) -> pd.DataFrame:
    """`DOTS` and testable, per group and way of measuring; small groups are left out.

    Ordered groups stay in order; others are sorted by their number of testable features.
    """
    parts = [persistence_by(fates, groups).assign(way=way) for way, fates in compared.items()]
    table = pd.concat(parts, ignore_index=True)
    table = table[table["testable"] >= LEAST]
    if not isinstance(groups, pd.Categorical):
        table = table.sort_values("testable", ascending=False, kind="stable")
    return table.rename(columns={"group": "label"})


def in_print(kept_by: str) -> str:
    """`kept_by` of `transfer.recovered_features`, for a page."""
    return " and ".join(PRINT_NAMES.get(model, "neither") for model in kept_by.split("+"))


def recovered_examples(c: ControlRun, followed: pd.DataFrame) -> pd.DataFrame:
    """The clearest recovered features, `EXAMPLES` of those that neither or one child had kept."""
    recovered = followed[followed["recovered"]]
    ends = [f"r_{end}" for end in MERGE_OF]
    gain = recovered[f"r_{MERGED}"] - recovered[ends].min(axis=1)
    clear = recovered.assign(gain=gain).sort_values("gain", ascending=False)
    clear = clear.groupby("kept_by", observed=True, sort=False).head(EXAMPLES)
    return pd.DataFrame(
        {
            "feature": clear["feature"],
            "fires on": top_tokens(c, clear["feature"], 5),
            "firings": clear["firings"],
            **{f"r in {PRINT_NAMES[m]}": clear[f"r_{m}"] for m in (*MERGE_OF, MERGED)},
            "kept by": clear["kept_by"].map(in_print),
        }
    )


def top_tokens(c: ControlRun, chosen: Iterable[int], n: int) -> list[str]:
    """For each of the `chosen` features of the base the `n` tokens that it fires on most."""
    told = tokens_fired_on(c.acts[BASE][0], c.stream.ids, n)
    return [" ".join(visible(c.texts[token]) for token, _ in told[i]) for i in chosen]


def common_token(c: ControlRun, chosen: np.ndarray) -> str:
    """The token on which most of the `chosen` features [d_sae] of the base fire, quoted."""
    best = top_tokens(c, np.flatnonzero(chosen), 1)
    count = pd.Series(best).value_counts()
    return f"`{count.index[0]}` ({count.iloc[0]:,} of {len(best):,})" if len(count) else ""


def control_metrics(
    found: Findings,
    moved: Transfers,
    neurons: Mapping[Pair, float],
    followed: pd.DataFrame,
    twin: tuple[Estimate, float] | None,
    other_text: Mapping[Pair, Estimate],
    warm: Mapping[Pair, Estimate],
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
    shares = {f"transfer.{a}.{b}": share for (a, b), share in moved.shares.items()}
    shares |= {f"control.text.{b}": share for (_, b), share in other_text.items()}
    if twin:
        shares["control.twin"], metrics["control.twin.neurons"] = twin
    for name, share in shares.items():
        metrics |= share.named(f"{name}.persist")
    metrics |= {f"neurons.{a}.{b}.persist": share for (a, b), share in neurons.items()}
    metrics |= {f"warm.{a}.{b}.persist": share.value for (a, b), share in warm.items()}
    return {key: float(value) for key, value in metrics.items() if np.isfinite(value)}
