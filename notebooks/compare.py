# %% [markdown]
# # Runs side by side
#
# Every number of two runs or more, how it differs from the first run's, the parameters that differ,
# and what each chapter took.

# %% tags=["parameters", "remove-cell"]
runs: str = "mini again"  # names of finished runs, the first is what the others are compared with

# %% tags=["remove-input"]
import re

import pandas as pd
from IPython.display import display

from featlib import FeatlibError
from featlib.family import DOMAIN_NAMES, PRINT_NAMES
from featlib.run import Run
from featlib.show.figure import Markup, figure, fold, table
from featlib.show.marks import dots
from featlib.show.scales import Axis

opened = [Run(name) for name in runs.split()]
names = [run.name for run in opened]
if len(names) < 2 or len(set(names)) < len(names):
    raise FeatlibError(
        f"{runs or 'nothing'} to compare: name two runs or more, each once, such as "
        'make compare RUNS="mini again"'
    )
for run in opened:
    if not run.metrics():
        known = sorted(p.parent.name for p in run.folder.parent.glob("*/metrics.json"))
        raise FeatlibError(
            f"{run.folder} has no metrics.json: no such run, or none of its chapters is done. "
            f"There are: {', '.join(known) or 'none'}."
        )
numbers = pd.DataFrame({run.name: pd.Series(run.metrics(), dtype=float) for run in opened})
numbers = numbers.sort_index()

# %% [markdown]
# ## What differs in the parameters

# %% tags=["remove-input"]
values = pd.DataFrame({run.name: pd.Series(run.recorded_params()).astype(str) for run in opened})
values = values.drop(index="run_name", errors="ignore").fillna("–")
changed = (
    values[values.ne(values.iloc[:, 0], axis=0).any(axis=1)].rename_axis("parameter").reset_index()
)
table(changed) if len(changed) else Markup("<p>Nothing: all parameters are equal.</p>")

# %% [markdown]
# ## Charts
#
# One line a number, one dot a run.

# %% tags=["remove-input"]
PRINTED = {"base": "", **DOMAIN_NAMES, **PRINT_NAMES}  # models, and domains, in the book's order


def rows_of(pattern: str) -> tuple[pd.DataFrame, list[str]]:
    """The numbers whose key matches `pattern` in full (row, run, value), and the rows' order."""
    order = list(PRINTED)
    found = [(m.groups(), key) for key in numbers.index if (m := re.fullmatch(pattern, key))]
    found.sort(key=lambda f: [order.index(g) if g in order else len(order) for g in f[0]])
    told = {
        key: " · ".join(
            f"seed {g}" if g.isdigit() else PRINTED.get(g, g.replace(".", " ")) for g in groups
        )
        for groups, key in found
    }
    long = numbers.loc[list(told)].rename(index=told).rename_axis("row").reset_index()
    return long.melt("row", var_name="run", value_name="value").dropna(), list(told.values())


# Each chart: its name, the keys that it shows (their groups name the row), the title of its axis.
CHARTS = (
    ("accuracy", r"lm\.(\w+)\.(\w+)\.accuracy", "next-token accuracy"),
    ("persistence", r"match\.(\w+)\.(\w+)\.persist", "share that persists"),
    ("calibrated", r"match\.(\w+)\.(\w+)\.calibrated", "persisting share over seed ceiling"),
    ("recovered", r"sae\.(\w+)\.(\d+)\.ce_recovered", "cross-entropy recovered"),
    ("cases", r"case\.(.+)\.(\w+)\.f1", "F1"),
    ("explanations", r"explain\.(\w+)\.(\w+)_median", "median score"),
)
for name, pattern, title in CHARTS:
    rows, order = rows_of(pattern)
    if rows.empty:
        continue
    spread = rows.groupby("row")["value"].agg(lambda v: v.max() - v.min())
    most = f"the runs differ most, by {spread.max():.2g}, in {spread.idxmax()}"
    display(
        figure(
            dots(
                rows,
                Axis("value", title),
                "row",
                color="run",
                shape="run",
                order=list(dict.fromkeys(rows["row"])),
            ),
            name=name,
            caption=f"{title[0].upper()}{title[1:]}: {most}.",
            alt=f"{title}: {most}.",
            data=rows.pivot(index="row", columns="run", values="value").reset_index(),
        )
    )

# %% [markdown]
# ## Every number
#
# Differences are from the first run; a dash stands for what a run lacks.

# %% tags=["remove-input"]
shown = numbers.map(lambda v: "–" if pd.isna(v) else f"{v:.4f}".replace("-", "−"))
for name in names[1:]:
    difference = numbers[name] - numbers[names[0]]
    shown[f"{name} − {names[0]}"] = [
        "–" if pd.isna(d) else f"{d:+.4f}".replace("-", "−") for d in difference
    ]
shown = shown.rename_axis("number").reset_index()
for kind, part in shown.groupby(shown["number"].str.split(".").str[0], sort=False):
    display(fold(table(part), f"{kind} ({len(part)})"))

# %% [markdown]
# ## How they were made

# %% tags=["remove-input"]
made = {}
for run in opened:
    known = run.provenance()
    machine, chapters = known.get("hardware", {}), known.get("chapters", {})
    seconds = {name: c.get("seconds", 0) for name, c in chapters.items()}
    made[run.name] = {
        "commit": known.get("commit", "unknown"),
        "hardware": f"{machine.get('cpu', 'unknown')}, {machine.get('cores', '?')} cores",
        **{f"{name}, seconds": f"{s:.0f}" for name, s in sorted(seconds.items())},
        "all chapters, seconds": f"{sum(seconds.values()):.0f}",
    }
table(pd.DataFrame(made).fillna("–").rename_axis("").reset_index())
