"""A planted family with known fates: what chapter 06 says of it is what was planted.

The base has 48 true features. The child kept the first 16, kept the next 8 but writes them
elsewhere, and dropped the others for features of its own. Seeds 0 to 2 of every model find the
first 32 of its features and invent the rest; random directions match what fires with the two
loudest ones.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted import csr, even_documents, noisy_copy, sparse_features

from featlib.estimate import document_weights
from featlib.family import DOMAINS
from featlib.matching.ceilings import over_pairs
from featlib.matching.fates import Rule, compare
from featlib.matching.steps import (
    NUMBERS,
    SHARES,
    Compared,
    best_random_r,
    count_flows,
    list_matches,
    list_seed_pairs,
    shares_by_kind,
    step_metrics,
    summarize_steps,
)

N, D, D_IN = 8000, 48, 96
STABLE, KEPT, MOVED = 32, 16, 8
DOCUMENTS, RULE = even_documents(N, 80), Rule(0.8, 30)
STEP, PLACEBO = ("base", "lua"), ("base", "placebo")


@pytest.fixture(scope="module")
def family():
    rng = np.random.default_rng(0)
    truth = {"base": sparse_features(N, D, 0.03, rng)}
    new = sparse_features(N, D, 0.03, rng)
    truth["lua"] = np.hstack([truth["base"][:, : KEPT + MOVED], new[:, KEPT + MOVED :]])
    truth["placebo"] = truth["base"]
    writes = {m: rng.normal(size=(D, D_IN)).astype("f4") for m in truth}
    writes["lua"][:KEPT] = writes["placebo"][:KEPT] = writes["base"][:KEPT]
    matrices, decoders = {}, {}
    for model in truth:
        matrices[model], decoders[model] = {}, {}
        for n in range(3):
            invented = sparse_features(N, D - STABLE, 0.03, rng)
            found = noisy_copy(truth[model][:, :STABLE], 0.97, rng)
            order = rng.permutation(D)
            own = rng.normal(size=(D - STABLE, D_IN))
            matrices[model][n] = csr(np.hstack([found, invented])[:, order])
            decoders[model][n] = np.vstack([writes[model][:STABLE], own])[order]
    weights = document_weights(DOCUMENTS, 40, rng)
    common = {"documents": DOCUMENTS, "weights": weights, "rng": rng, "rule": RULE}
    pairs = (STEP, PLACEBO)
    text = {n: csr(noisy_copy(truth["base"][:, :D], [0.97] * 24 + [0] * 24, rng)) for n in (1, 2)}
    neurons = rng.normal(size=(N, D_IN)).astype("f4")
    firings = np.full(D, 200)
    by_random = {}
    for child in truth:
        parents = {(a, b): matrices[a] for a, b in (*pairs, (child, child)) if b == child}
        by_random |= best_random_r(neurons, firings, parents, rng)
    compared = Compared(
        crossed={(a, b): over_pairs(matrices[a], matrices[b], **common) for a, b in pairs},
        own={m: over_pairs(matrices[m], **common) for m in truth},
        through=dict.fromkeys(pairs, over_pairs(matrices["base"], text, **common)),
        by_random=by_random,
        equal={(a, b): compare(matrices[a][0], matrices[b][0], RULE) for a, b in pairs},
        decoders=decoders,
        rule=RULE,
    )
    return compared, matrices, text


def test_a_family_of_known_fates_comes_back(family):
    steps = summarize_steps(family[0]).set_index(["parent", "child"])
    lua, placebo = steps.loc[STEP], steps.loc[PLACEBO]
    assert lua["persist"] == pytest.approx((KEPT + MOVED) / D, abs=0.02)
    assert lua["ceiling"] == pytest.approx(STABLE / D, abs=0.02)
    assert lua["text_ceiling"] == pytest.approx(24 / D, abs=0.02)
    assert lua["of_text"] == lua["persist"] / lua["text_ceiling"]
    assert lua["calibrated"] == lua["persist"] / lua["ceiling"]
    assert lua["stable_persist"] == pytest.approx((KEPT + MOVED) / STABLE, abs=0.02)
    assert lua["median_cosine"] == pytest.approx(1), "most of what persists writes alike"
    assert placebo["persist"] == pytest.approx(placebo["ceiling"], abs=0.02)
    assert placebo["stable_persist"] == pytest.approx(1, abs=0.02)
    for name in SHARES:
        assert (steps[f"{name}_low"] <= steps[name]).all()
        assert (steps[name] <= steps[f"{name}_high"]).all()


def test_what_random_directions_match_is_left_out(family):
    """At chance a random dictionary matches nothing; what it does match no longer counts."""
    compared = family[0]
    steps = summarize_steps(compared)
    assert all((r < 0.5).all() for by in compared.by_random.values() for r in by.values())
    assert (steps["persist_real"] == steps["persist"]).all()
    only = {i: ~compared.crossed[STEP].fates[i, 0 if i else 1].persisting for i in range(3)}
    easy = {i: np.where(hard, 0.1, 0.9) for i, hard in only.items()}
    changed = replace(compared, by_random={**compared.by_random, STEP: easy})
    left = summarize_steps(changed).set_index(["parent", "child"]).loc[STEP]
    assert left["persist_real"] == pytest.approx(0, abs=0.05), "without all that persists none does"
    assert left["persist"] == steps["persist"][0]


def test_a_placebo_is_never_called_lost_and_a_dropped_feature_is(family):
    flows = count_flows(family[0]).pivot(index=["parent", "child"], columns="fate", values="count")
    assert (flows.drop(columns="emerges").sum(axis=1) == D).all()
    assert flows.loc[PLACEBO, "lost"] <= 0.5
    assert flows.loc[STEP, "lost"] == pytest.approx(STABLE - KEPT - MOVED, abs=1)
    assert flows.loc[STEP, "cannot tell"] == pytest.approx(D - STABLE, abs=1)


def test_a_feature_that_is_written_elsewhere_fires_alike(family):
    compared, matrices, _ = family
    matches = list_matches(compared, matrices, DOCUMENTS, np.random.default_rng(1))
    assert len(matches) == 2 * 2 * D
    mine = matches[(matches["child"] == "lua") & (matches["side"] == "parent")]
    kept = mine[mine["fate"] == "persists"]
    assert (kept["cosine"] > 0.99).sum() == pytest.approx(KEPT, abs=1)
    assert (kept["cosine"].abs() < 0.5).sum() == pytest.approx(MOVED, abs=1)
    assert (kept["stability"] == 1).all() and (kept["r_own"] >= 0.8).all()
    assert (mine["r_shifted"] < 0.5).all(), "out of step nothing passes"
    back = matches[(matches["child"] == "lua") & (matches["side"] == "child")].set_index("feature")
    for row in kept[kept["mutual"]].itertuples():
        assert back.loc[row.best, "cosine"] == pytest.approx(row.cosine)


def test_each_kind_of_text_is_read_by_itself(family):
    _, matrices, text = family
    kinds = np.repeat(np.arange(len(DOMAINS)), N // len(DOMAINS))
    table = shares_by_kind(STEP, matrices, text, kinds, Rule(0.8, 10)).set_index("kind")
    rows = np.flatnonzero(kinds == 2)
    a, b = matrices["base"][0][rows], matrices["lua"][1][rows]
    assert table.loc[DOMAINS[2], "persist"] == compare(a, b, Rule(0.8, 10)).persist
    assert (table["persist"] < table["ceiling"]).all()


def test_metrics_are_the_rows_of_the_tables(family):
    compared, matrices, _ = family
    steps = summarize_steps(compared)
    matches = list_matches(compared, matrices, DOCUMENTS, np.random.default_rng(2))
    metrics = step_metrics(compared, steps, matches)
    for row in steps.to_dict("records"):
        for key in (*SHARES, *NUMBERS):
            name = f"match.{row['parent']}.{row['child']}.{key}"
            assert metrics[name] == row[key] if np.isfinite(row[key]) else name not in metrics
    assert metrics["null.base.lua.persist"] == 0
    assert metrics["sae.base.stable"] == pytest.approx(STABLE / D, abs=0.02)
    assert STABLE / D < metrics["sae.base.pwmcc"] < 1
    pairs = list_seed_pairs(compared).groupby(["parent", "child"]).size()
    assert (pairs == 6).all() and len(pairs) == 5
