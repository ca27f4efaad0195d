"""Routes to a counterpart, the word that follows from each, and one feature along a series."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from streams import lively_model

from featlib.cases.case import Case, Found, case_metrics, trace_feature
from featlib.cases.detectors import Draws, labelled_stream
from featlib.cases.edits import loss_changes
from featlib.cases.fit import fit_label
from featlib.cases.series import Offer, compare_dictionaries, follow_feature, half_lives
from featlib.cases.subjects import best_dictionary, read_sites, read_subjects
from featlib.cases.tables import case_strips, verdicts_by_route
from featlib.cases.text import CaseText
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.estimate import NAN

D_IN, D_SAE, WORD = 24, 12, 7
DRAWS = Draws(seed=0, n_boot=20, n_random=3)
IDS = np.random.default_rng(0).integers(3, 40, (60, 16)).astype(np.int64)
DOCUMENTS = np.repeat(np.arange(30), 2)[:, None] * np.ones((1, 16), dtype=np.int64)
STREAM = labelled_stream(IDS == WORD, IDS, DOCUMENTS, seed=0)
TEXT = CaseText(
    IDS, DOCUMENTS, np.full(len(IDS), "python"), {"word": IDS == WORD}, {"python": 30},
    {"python": 0},
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return lively_model(6, vocab_size=40, heads=2, kv_heads=1, context=16)


@pytest.fixture(scope="module")
def sae(model):
    """Feature 0 is planted: it fires on the token WORD, since its direction tells that token."""
    neurons = read_sites(model, IDS).neurons
    here = torch.from_numpy(IDS.reshape(-1) == WORD)
    x, y = neurons.double(), here.double() * 2 - 1
    ridge = torch.linalg.solve(x.T @ x + 1e-3 * torch.eye(D_IN).double(), x.T @ y).float()
    W = torch.randn(D_IN, D_SAE, generator=torch.Generator().manual_seed(0)) / D_IN**0.5
    W[:, 0] = ridge / ridge.norm() * 3
    bias = torch.full((D_SAE,), -0.1)
    scores = neurons @ W[:, 0]
    bias[0] = -(scores[here].mean() + scores[~here].mean()) / 2
    return SparseAutoencoder(
        W, bias, torch.nn.functional.normalize(W.T, dim=1), torch.zeros(D_IN), architecture="relu"
    )


@pytest.fixture(scope="module")
def own(model, sae):
    return read_subjects("base", model, {0: sae}, IDS)[0]


def make_case(dictionaries, found=(), fates=None) -> Case:
    fits = {("word", name): fit_label(own, STREAM, DRAWS) for name, own in dictionaries.items()}
    streams, found, effects = {"word": STREAM}, list(found), pd.DataFrame()
    return Case("word", "base", DRAWS, TEXT, streams, dictionaries, fits, found, fates, effects)


def test_transfer_to_the_same_model_changes_nothing(own):
    moved = own.through(own.sae.only(own.with_controls(0, 3, seed=0)))
    found = [Found(own, "labels", 0), Found(moved, "transfer", 0)]
    fates, effects = trace_feature(found, STREAM, DOCUMENTS, DRAWS)
    assert fates["r"].tolist() == pytest.approx([1, 1])
    assert fates["f1"][0] == fates["f1"][1] > 0.6
    of_feature = effects[effects["who"] == "feature"].set_index(["region", "route"])["delta"]
    for region in ("at", "elsewhere"):
        labels, transfer = of_feature[region]
        assert labels == pytest.approx(transfer, abs=1e-5)


def fates(f1=0.9, effect=0.4) -> pd.DataFrame:
    rows = [
        ("base", "labels", False, 0.9, 0.4, NAN),
        ("base", "labels", True, 0.55, 0.2, NAN),
        ("base", "correlation", True, 0.5, 0.2, 0.77),
    ]
    for model in ("lua", "tinystories", "merged"):
        rows.append((model, "labels", False, 0.4, 0.01, NAN))
        rows.append((model, "correlation", False, 0.2, 0.0, 0.3))
        rows.append((model, "transfer", False, 0.1 if model == "merged" else f1, effect, NAN))
    table = pd.DataFrame(rows, columns=["model", "route", "again", "f1", "effect", "r_stream"])
    for key in ("f1", "effect"):
        table[f"{key}_low"], table[f"{key}_high"] = table[key] - 0.05, table[key] + 0.05
    return table.assign(r=table["r_stream"])


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, "survives"),
        ({"f1": 0.6}, "weakened"),
        ({"effect": 0.1}, "weakened"),
        ({"f1": 0.2}, "lost"),
        ({"f1": 0.6, "effect": 0.01}, "lost"),
    ],
)
def test_another_run_gives_another_word(own, given, word):
    table = fates(**given)
    named = {name: replace(own, name=name) for name in ("base", "lua", "tinystories", "merged")}
    found = [Found(own, "labels", 0)]
    found += [
        Found(named[row.model], row.route, 0)
        for row in table.itertuples()
        if not row.again and row.model != "base"
    ]
    case = make_case({name: [one] for name, one in named.items()}, found, table)
    words = {model: verdict.word for model, verdict in case.judge("transfer").items()}
    assert words == {"lua": word, "tinystories": word, "merged": "lost"}
    assert {verdict.word for verdict in case.judge("labels").values()} == {"lost"}
    shown = verdicts_by_route(case, threshold=0.8).set_index("model")
    assert shown.loc["Lua", "by transfer"].startswith(word)
    assert shown["by correlation"].str.contains("not the same").all()
    strips = case_strips(case, "transfer", [str(i) for i in range(40)])
    assert len(strips["rows"]) == 4
    marked = [note == "word" for note in strips["notes"]]
    assert any(marked) and marked == [token == str(WORD) for token in strips["tokens"]]


def test_a_feature_is_looked_for_in_every_dictionary(model, sae):
    """The planted feature is in the second dictionary only; the first holds what is random."""
    without = sae.only([3, 4, 5, 6])
    found = read_subjects("base", model, {4: without, 9: sae}, IDS)
    assert found[0].sites is found[1].sites, "the model runs once"
    assert best_dictionary(found, STREAM).seed == 9
    case = make_case({"base": found})
    assert case.subjects["base"].seed == 9 and case.feature == 0
    metrics = case_metrics(case, "word", "case.word")
    assert metrics["case.word.base.f1"] == case.fits["word", "base"].row()["f1"]
    silent = sae.only([3])
    with torch.no_grad():
        silent.b_enc.fill_(-1e6)
    mute = read_subjects("lua", model, {0: silent}, IDS)
    assert best_dictionary(mute, STREAM) is None
    case = make_case({"base": found, "lua": mute})
    case.fits.pop(("word", "lua"))
    assert case_metrics(case, "word", "m")["m.lua.auroc"] == 0.5
    assert case.subjects["lua"] is mute[0]


def test_a_feature_fades_as_its_direction_leaves_the_model(model, sae):
    """Along a series in which the MLP's input is turned down, the feature ends up silent."""

    def series():
        for x in (0.0, 0.5, 1.0):
            changed = copy.deepcopy(model)
            with torch.no_grad():
                changed.model.layers[0].mlp.up_proj.weight.mul_(1 - x)
            yield x, changed

    offers = [Offer(sae.only([0, 3, 4, 5]), 1), Offer(sae.only([2, 0, 6, 3, 4, 5]), 3)]
    table = follow_feature(series(), offers, STREAM, IDS, DOCUMENTS, DRAWS)
    assert table["x"].tolist() == [0, 0, 0.5, 0.5, 1, 1]
    f1 = table.pivot(index="x", columns="route", values="f1")
    assert f1.loc[0.0, "transfer"] > 0.6
    assert f1.loc[0.0, "labels"] == f1.loc[0.0, "transfer"], "feature 0 is the best on offer"
    assert f1.loc[1.0, "transfer"] < 0.1, "no better than saying yes everywhere"
    lives = half_lives(table.assign(model="lua")).set_index(["model", "route", "measure"])
    assert 0 < lives.loc[("lua", "transfer", "f1"), "half_life"] <= 1


def test_every_dictionary_is_asked(model, sae):
    """The second holds a copy of the planted feature that writes nothing: it detects alike."""
    mute = sae.only([1, 0])
    with torch.no_grad():
        mute.W_dec[1] = 0
    subjects = read_subjects("base", model, {0: sae, 3: mute}, IDS)
    case = make_case({"base": subjects, "lua": subjects[:1]})
    table = compare_dictionaries(case)
    assert table["autoencoder"].tolist() == [0, 0, 3, 3]
    assert table["feature"].tolist() == [0, 0, 1, 1]
    assert (table["f1"] == table["f1"][0]).all(), "the same activations"
    effects = table.set_index(["autoencoder", "model"])["effect"]
    change = loss_changes(subjects[0], 0)
    at = (IDS == WORD)[:, :-1] & (DOCUMENTS[:, 1:] == DOCUMENTS[:, :-1])
    assert effects[0, "base"] == pytest.approx(change[at].mean(), rel=1e-3)
    assert effects[3, "base"] == effects[3, "lua"] == 0
