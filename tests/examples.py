"""Small tables of the shapes that the chapters hand to the charts, one chart of each kind."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from featlib.family import DOMAINS, MODELS
from featlib.show import charts

PAIRS = [("base", "lua"), ("base", "tinystories"), ("lua", "merged"), ("tinystories", "merged")]
SHARES = dict(zip(PAIRS, (0.44, 0.03, 0.40, 0.9), strict=True))  # thin and thick bands
CEILINGS = dict(zip(MODELS, (0.62, 0.6, 0.65, 0.63), strict=True))


def flows() -> pd.DataFrame:
    rows = []
    for parent, child in PAIRS:
        testable = 1870
        kept = round(SHARES[parent, child] * testable)
        counts = {
            "persists": kept,
            "disappears": testable - kept,
            "emerges": 1950 - kept,
            "untestable": 130,
        }
        rows += [(parent, child, fate, n, CEILINGS[parent]) for fate, n in counts.items()]
    return pd.DataFrame(rows, columns=["parent", "child", "fate", "count", "ceiling"]).assign(
        children=1950
    )


def sweep() -> pd.DataFrame:
    ends = {"babylm": (0.22, 0.25), "python": (0.28, 0.2), "lua": (0.36, 0.24)}
    ends["tinystories"] = (0.25, 0.42)
    rows = [
        (method, t, domain, a + (z - a) * t - dip * t * (1 - t))
        for method, dip in {"slerp": 0.1, "linear": 0.12, "slerp_rows": 0.11}.items()
        for t in np.linspace(0, 1, 11)
        for domain, (a, z) in ends.items()
    ]
    return pd.DataFrame(rows, columns=["method", "t", "domain", "accuracy"])


def every_chart(seed: int = 0) -> dict[str, alt.TopLevelMixin]:
    """One chart of every kind, by name."""
    rng = np.random.default_rng(seed)
    tokens = np.linspace(8_000, 700_000, 85)
    curve = pd.concat(
        pd.DataFrame({"model": m, "tokens": tokens, "loss": 3 + 5 * np.exp(-tokens / 2e5)})
        for m in MODELS[:3]
    )
    scores = pd.DataFrame(
        [(m, d, 0.25 + 0.1 * (m == d)) for m in MODELS for d in DOMAINS],
        columns=["model", "domain", "accuracy"],
    ).assign(loss=3.2)
    base = pd.DataFrame({"domain": DOMAINS, "accuracy": [0.27, 0.29, 0.29, 0.27]})
    names = ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"]
    angles = pd.DataFrame({"tensor": [*names, "model.norm.weight"], "angle_degrees": [16, 22, 1.0]})
    angles["fallback"] = angles["angle_degrees"] < 1.8
    cards = pd.DataFrame(
        [
            (m, s, 16 + rng.normal(), 0.15 + 0.01 * s, 0.9 + 0.01 * s, 0.99)
            for m in MODELS
            for s in (0, 1)
        ],
        columns=["model", "seed", "l0", "fvu", "ce_recovered", "alive"],
    )
    densities = pd.concat(
        pd.DataFrame({"model": m, "log10_density": [-np.inf, *rng.normal(-2.6, 0.7, 300)]})
        for m in MODELS
    )
    matches = pd.concat(
        pd.DataFrame(
            {"parent": p, "child": c, "firings": rng.integers(0, 5000, 300), "r": rng.random(300)}
        )
        for p, c in PAIRS
    )
    ceiling = pd.concat(pd.DataFrame({"model": m, "r": rng.random(300) ** 0.5}) for m in MODELS)
    pairs = pd.DataFrame(
        [
            (p, c, s, max(s - 0.03, 0), s + 0.03, CEILINGS[p] if p != "lua" else np.nan)
            for (p, c), s in SHARES.items()
        ],
        columns=["parent", "child", "persist", "persist_low", "persist_high", "ceiling"],
    )
    splits = (("train", 0.9), ("validation", 0.05), ("test", 0.05))
    documents = pd.DataFrame(
        [(d, s, int(100 * f), int(3e6 * f)) for d in DOMAINS for s, f in splits],
        columns=["domain", "split", "documents", "characters"],
    )
    return {
        "design": charts.design_diagram(),
        "flow": charts.flow(flows()),
        "loss": charts.loss_curves(curve),
        "scores": charts.domain_scores(scores),
        "sweep": charts.merge_sweep(sweep(), base, t=0.58),
        "difference": charts.merge_difference(sweep()),
        "angles": charts.tensor_angles(angles),
        "cards": charts.autoencoder_cards(cards),
        "density": charts.density_histogram(densities),
        "matches": charts.match_histogram(matches[["parent", "child", "r"]], ceiling),
        "fates": charts.fate_bars(pairs),
        "firings": charts.correlation_by_firings(matches),
        "corpora": charts.corpus_bars(documents),
    }
