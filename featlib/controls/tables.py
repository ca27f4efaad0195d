"""Tables of chapter 11: what its figures draw and its pages list, from `control_run`'s numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from featlib.claims import StepShares
from featlib.controls.run import RANDOM, SHUFFLES, ControlRun, Nulls, Transfers, named
from featlib.dictionaries.features import tokens_fired_on
from featlib.estimate import Estimate
from featlib.family import MODELS, PAIRS, PRINT_NAMES
from featlib.matching import ceilings as controls
from featlib.matching.fates import Fates
from featlib.text.tokens import visible

CEILING = "ceiling: other seed"
DOTS = ["label", "way", "share", "low", "high"]  # what a chart of shares draws


def sparsity_table(sparsity: pd.DataFrame) -> pd.DataFrame:
    """One row per model from `control_run.compare_dictionaries`; ranges are over seeds."""

    def span(values: pd.Series, digits: int) -> str:
        low, high = (f"{x:.{digits}f}" for x in (values.min(), values.max()))
        return low if low == high else f"{low} to {high}"

    return pd.DataFrame(
        [
            {
                "model": PRINT_NAMES[model],
                "L0, own text": span(part["own_l0"], 1),
                "L0, common text": span(part["l0"], 1),
                "FVU, own text": span(part["own_fvu"], 3),
            }
            for model, part in sparsity.groupby("model", sort=False)
        ]
    )


def beside_ceilings(c: ControlRun) -> pd.DataFrame:
    """Columns `DOTS`: every step's share by matching and its parent's seed ceiling."""
    rows = [
        (named(*pair), way, *vars(c.share(pair, kind)).values())
        for pair in PAIRS
        for way, kind in (("matching", "persist"), (CEILING, "ceiling"))
    ]
    return pd.DataFrame(rows, columns=DOTS)


def every_seed_pair(c: ControlRun, table: pd.DataFrame) -> pd.DataFrame:
    """Columns `DOTS` and seeds: one row per step and pair of seeds, from chapter 06's table."""
    parts = []
    for parent, child in PAIRS:
        for way, other in (("matching", child), (CEILING, parent)):
            part = table[(table["parent"] == parent) & (table["child"] == other)]
            seeds = part["parent_seed"].astype(str) + " → " + part["child_seed"].astype(str)
            shares = part[["persist", "persist_low", "persist_high"]].set_axis(DOTS[2:], axis=1)
            parts.append(shares.assign(label=named(parent, child), way=way, seeds=seeds))
    return pd.concat(parts, ignore_index=True)[[*DOTS, "seeds"]]


def calibrated_table(c: ControlRun) -> pd.DataFrame:
    rows = []
    for pair in PAIRS:
        ratio = c.share(pair, "calibrated")
        rows.append(
            {
                "step": named(*pair),
                "persist": f"{c.share(pair).value:.1%}",
                "seed ceiling": f"{c.share(pair, 'ceiling').value:.1%}",
                "calibrated: persist / ceiling": f"{ratio.value:.2f} "
                f"({ratio.low:.2f} to {ratio.high:.2f})",
            }
        )
    return pd.DataFrame(rows)


def index_table(
    c: ControlRun,
    equal: Mapping[tuple[str, str], Fates],
    different: Mapping[tuple[str, str], Fates],
) -> pd.DataFrame:
    """Shares that persist, and matches of equal index, with equal and with different seeds."""

    def same(fates: Fates, digits: int) -> str:
        share = fates.same_index
        return f"{share:.{digits}%}" if np.isfinite(share) else "no match"

    return pd.DataFrame(
        [
            {
                "step": named(*pair),
                "persist, equal seeds": f"{equal[pair].persist:.1%}",
                "persist, different seeds": f"{different[pair].persist:.1%}",
                "seed ceiling": f"{c.share(pair, 'ceiling').value:.1%}",
                "same index, equal seeds": same(equal[pair], 0),
                "same index, different seeds": same(different[pair], 1),
            }
            for pair in equal
        ]
    )


def null_table(found: Nulls, neurons: Mapping[tuple[str, str], float]) -> pd.DataFrame:
    """Per step: the share that passes in each null, and neurons for comparison."""

    def share(null: str, pair: tuple[str, str]) -> str:
        value = found.by_step.get((null, *pair), np.nan)
        return f"{value:.2%}" if np.isfinite(value) else ""

    steps = dict.fromkeys(key[1:] for key in found.by_step.index)
    return pd.DataFrame(
        [
            {
                "step": named(*pair),
                **{null: share(null, pair) for null in (*SHUFFLES, RANDOM)},
                "neurons, for comparison": f"{neurons[pair]:.0%}",
            }
            for pair in steps
        ]
    )


def four_ways(
    c: ControlRun, moved: Transfers, neurons: Mapping[tuple[str, str], float]
) -> pd.DataFrame:
    """parent, child and `DOTS`: matching, its ceiling, transfer and neurons for every step."""
    rows = []
    for pair in PAIRS:
        ways = {
            "matching": c.share(pair),
            CEILING: c.share(pair, "ceiling"),
            "transfer": moved.shares[pair],
        }
        rows += [(*pair, named(*pair), way, *vars(s).values()) for way, s in ways.items()]
        rows.append((*pair, named(*pair), "neurons", neurons[pair], np.nan, np.nan))
    return pd.DataFrame(rows, columns=["parent", "child", *DOTS])


def both_ways(matched: Fates, kept: Fates) -> tuple[int, int, int]:
    """Numbers of testable parent features that transfer keeps, that have a match, and both."""
    testable = (matched.parents["fate"] != "untestable").to_numpy()
    by_match, by_transfer = (
        (f.parents["fate"] == "persists").to_numpy() & testable for f in (matched, kept)
    )
    return int(by_transfer.sum()), int(by_match.sum()), int((by_transfer & by_match).sum())


def list_models(kept_by: str) -> str:
    """`kept_by` of `transfer.recovered_features` in print."""
    return " and ".join(PRINT_NAMES.get(model, "neither") for model in kept_by.split("+"))


def recovered_table(followed: pd.DataFrame) -> pd.DataFrame:
    """Testable features by which children kept them, and how many are themselves in the merge."""
    groups = followed.groupby("kept_by", observed=True)["in_merged"].agg(["size", "sum", "mean"])
    table = groups.set_axis(["features", "in LuaStories", "share"], axis=1).reset_index()
    table["kept_by"] = table["kept_by"].map(list_models).astype(str)
    return table.rename(columns={"kept_by": "kept by"})


def recovered_examples(c: ControlRun, followed: pd.DataFrame, each: int = 6) -> pd.DataFrame:
    """The clearest recovered features, `each` of those that neither or one child had kept."""
    recovered = followed[followed["recovered"]]
    gain = recovered["r_merged"] - recovered[["r_lua", "r_tinystories"]].min(axis=1)
    clear = recovered.assign(gain=gain).sort_values("gain", ascending=False)
    clear = clear.groupby("kept_by", observed=True, sort=False).head(each)
    return pd.DataFrame(
        {
            "feature": clear["feature"],
            "fires on": top_tokens(c, clear["feature"], 5),
            "firings": clear["firings"],
            **{f"r in {PRINT_NAMES[m]}": clear[f"r_{m}"] for m in MODELS[1:]},
            "kept by": clear["kept_by"].map(list_models),
        }
    )


def top_tokens(c: ControlRun, chosen: Iterable[int], n: int) -> list[str]:
    """For each of the `chosen` features of the base the `n` tokens that it fires on most."""
    told = tokens_fired_on(c.acts["base"][0], c.stream.ids, n)
    return [" ".join(visible(c.texts[token]) for token, _ in told[i]) for i in chosen]


def by_threshold(curves: Mapping[tuple[str, str], Fates]) -> pd.DataFrame:
    """Columns label, way, threshold, share, from fates by (label, way)."""
    return pd.concat(
        [
            controls.persistence_by_threshold(fates)
            .rename(columns={"persist": "share"})
            .assign(label=label, way=way)
            for (label, way), fates in curves.items()
        ],
        ignore_index=True,
    )


def by_group(
    compared: Mapping[str, Fates], groups: Sequence | np.ndarray | pd.Categorical, least: int = 5
) -> pd.DataFrame:
    """`DOTS` and testable, per group and way of measuring; small groups are left out.

    Ordered groups stay in order; others are sorted by their number of testable features.
    """
    table = pd.concat(
        [controls.persistence_by(fates, groups).assign(way=way) for way, fates in compared.items()],
        ignore_index=True,
    )
    table = table[table["testable"] >= least]
    if not isinstance(groups, pd.Categorical):
        table = table.sort_values("testable", ascending=False, kind="stable")
    return table.rename(columns={"group": "label"})


def common_token(c: ControlRun, chosen: np.ndarray) -> str:
    """The token on which most of the `chosen` features [d_sae] of the base fire, quoted."""
    best = top_tokens(c, np.flatnonzero(chosen), 1)
    count = pd.Series(best).value_counts()
    return f"`{count.index[0]}` ({count.iloc[0]:,} of {len(best):,})" if len(count) else ""


def step_shares(c: ControlRun, moved: Transfers, pair: tuple[str, str]) -> StepShares:
    return StepShares(
        matching=c.share(pair),
        ceiling=c.share(pair, "ceiling"),
        ratio=c.share(pair, "calibrated"),
        transfer=moved.shares[pair],
    )


def plants_table(planted: pd.DataFrame) -> pd.DataFrame:
    """`owners.judge_plants` for a page: one row a strength, "k of n"."""
    rows = []
    for times, part in planted.groupby("times"):
        own, common = part[part["own"]].iloc[0], part[~part["own"]].iloc[0]
        rows.append(
            {
                "strength, beside an average feature": f"{times:g} times",
                "in one model: found": f"{own['found']} of {own['planted']}",
                "called exclusive": int(own["exclusive"]),
                "in all: found": f"{common['found']} of {common['planted']}",
                "called shared": int(common["shared"]),
            }
        )
    return pd.DataFrame(rows)


def control_metrics(
    moved: Transfers,
    neurons: Mapping[tuple[str, str], float],
    found: Nulls,
    followed: pd.DataFrame,
    formatting: Mapping[str, Estimate],
    merged: float,
) -> dict[str, float]:
    """What `metrics.json` keeps of the controls that train nothing; undefined values left out.

    `merged`: share of the base's features that are themselves in the merge.
    """
    metrics = {}
    for (a, b), share in moved.shares.items():
        metrics |= share.named(f"transfer.{a}.{b}.persist")
    metrics |= {f"neurons.{a}.{b}.persist": share for (a, b), share in neurons.items()}
    recovered = followed[followed["recovered"]]
    metrics |= {
        "control.null.shuffled": found.shuffled,
        "control.null.random": found.random,
        "control.recovered.features": float(len(recovered)),
        "control.recovered.by_neither": float((recovered["kept_by"] == "none").sum()),
        "control.recovered.testable": float(len(followed)),
        "control.merged_kept": merged,
        "control.formatting.all": formatting["everything"].value,
        "control.formatting.survivors": formatting["survivors"].value,
    }
    return {key: value for key, value in metrics.items() if np.isfinite(value)}
