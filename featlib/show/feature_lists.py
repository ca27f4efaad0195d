"""Charts whose parts can be chosen, to see the features behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import altair as alt

from featlib.family import PRINT_NAMES


def list_features(
    chart: Any, pairs: Iterable[tuple[str, str]], choices: Mapping[str, Any], note: str
) -> Any:
    """Let a reader choose a part of the chart and see its features (`_static/feature-list.js`).

    `pairs` are steps (parent, child); `choices` by key: text (ends "features that ..."), fates (the
    first letters of those meant) and, where needed, r [thousandths] and firings as [from, below],
    side (child: the child's features), sort, and filter (the atlas can filter by it). A mark whose
    datum has `step` ("base>lua") and `choice` (a key) is chosen by a click; `picked_opacity` makes
    the others pale.
    """
    steps = {f"{a}>{b}": f"{PRINT_NAMES[a]} → {PRINT_NAMES[b]}" for a, b in pairs}
    meta = dict(chart.usermeta) if isinstance(chart.usermeta, dict) else {}
    meta["features"] = {"steps": steps, "choices": dict(choices), "note": note}
    return chart.add_params(alt.param(name="picked", value="")).properties(usermeta=meta)


def picked_opacity(full: float = 1.0) -> Any:
    """Opacity of a mark of a chart with `list_features`."""
    chosen = "picked == '' || picked == datum.step + datum.choice"
    return alt.condition(chosen, alt.value(full), alt.value(0.3 * full))
