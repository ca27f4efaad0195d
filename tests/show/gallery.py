"""One chart of each builder with each of its options, drawn from small tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from featlib.family import DOMAINS, MODELS, SKIPPED, STEPS, step_name
from featlib.show.flow import design_diagram, flow
from featlib.show.hists import hist, hists
from featlib.show.marks import areas, bars, dots, lines, stack
from featlib.show.picks import match_histogram
from featlib.show.scales import WAYS, Axis, t_axis

SHARES = dict(zip(STEPS, (0.44, 0.03, 0.40, 0.9), strict=True))  # thin and thick bands
TESTABLE, UNTESTABLE = 1870, 130
OWNERS = ("parent only", "more in one", "shared", "child only")
SHARE = Axis("share", "share of testable features", "%", zero=True)


def flows() -> pd.DataFrame:
    rows = []
    for (parent, child), share in SHARES.items():
        kept = round(share * TESTABLE)
        lost = (TESTABLE - kept) // 3
        counts = {"persists": kept, "lost": lost, "cannot tell": TESTABLE - kept - lost}
        counts |= {"emerges": 1950 - kept, "untestable": UNTESTABLE}
        rows += [(parent, child, fate, n) for fate, n in counts.items()]
    table = pd.DataFrame(rows, columns=["parent", "child", "fate", "count"])
    return table.assign(children=1950)


def every(**columns: Any) -> pd.DataFrame:
    """All combinations, with shares between their ends."""
    table = pd.MultiIndex.from_product(list(columns.values()), names=list(columns)).to_frame(False)
    table["share"] = np.linspace(0.2, 0.9, len(table))
    return table.assign(low=table["share"] - 0.05, high=table["share"] + 0.05)


def gallery() -> dict[str, Any]:
    """The charts by name; each builder's options stand in its name."""
    rng = np.random.default_rng(0)
    steps = [step_name(*step) for step in (*STEPS, SKIPPED)]
    t = t_axis()
    by_model, by_way = every(name=["one", "two, three"], model=MODELS), every(name=steps, way=WAYS)
    swept = every(t=[0.0, 0.5, 1.0], domain=DOMAINS)
    routes = every(t=[0.0, 0.5, 1.0], route=["labels", "transfer"])
    many = pd.concat(
        pd.DataFrame(
            {"parent": a, "child": b, "r": rng.random(99), "firings": rng.integers(0, 5000, 99)}
        )
        for a, b in STEPS
    )
    own = many.rename(columns={"parent": "model"})
    middle = pd.DataFrame({"parent": MODELS[:3], "median": 0.6, "low": 0.5, "high": 0.7})
    span = ("low", "high")
    ways = {"color": "way", "shape": "way", "beside": "way", "span": span, "columns": 2}
    band = {"band": span, "height": 170}
    return {
        "design": design_diagram(),
        "flow": flow(flows()),
        "dots": dots(by_model, SHARE, "name", color="model", order="-x", rule=0.5),
        "dots-beside": dots(by_model, SHARE, "name", color="model", beside="model", span=span),
        "dots-shape-each": dots(by_way, SHARE, "name", each=by_way, **ways),
        "dots-stacked": stack(
            *[dots(by_model, SHARE, "model", color="model", title=x) for x in ("above", "below")],
            left=90,
        ),
        "lines": lines(swept, t, SHARE, color="domain", points=True, rule=(0.58, "used"),
                       levels=swept[swept["t"] == 0]),
        "lines-dash": lines(routes, t, SHARE, color="route", dash="route", rule=(0.9, "late")),
        "lines-dash-apart": lines(by_way.assign(t=by_way["share"]), t, SHARE, color="way",
                                   dash="name", columns=1),
        "lines-band-stacked": stack(*[lines(routes, t, SHARE, color="route", legend=shown, **band)
                                      for shown in (True, False)], left=46),
        "lines-log": lines(own, Axis("firings", log=True), Axis("r"), color="model"),
        "areas": areas(swept, t, SHARE, color="domain", rule=(0.5, "half"), columns=3),
        "areas-one": areas(swept[swept["domain"] == DOMAINS[0]], t, SHARE),
        "bars": bars(every(name=steps, whose=OWNERS), SHARE, "name", color="whose", columns=2),
        "bars-shade": bars(swept, SHARE, "domain", color="domain", shade="t"),
        "bars-beside": bars(by_model, SHARE, "name", color="model", beside=True, text="share"),
        "bars-upto": bars(by_way[by_way["way"] == "matching"].assign(said="10% of 20%"), SHARE,
                           "name", upto="high", span=span, text="said"),
        "hist": hist(own, Axis("r", domain=(0, 1)), np.linspace(0, 1, 11), color="model"),
        "hists": hists(many, "r", by="parent", middle=middle),
        "matches": match_histogram(many, own, threshold=0.8),
    }  # fmt: skip
