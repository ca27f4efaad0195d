"""The four routes, the answer that follows from them, and one feature along a series of models."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from featlib.cases.answers import judge_models, write_reasons, write_short_answer
from featlib.cases.case import Case
from featlib.cases.detectors import labelled_stream
from featlib.cases.dictionaries import compare_dictionaries, dictionary_table, say_dictionaries
from featlib.cases.edits import Edit, feature_direction, loss_changes
from featlib.cases.elsewhere import BEST, RULE, SAME, say_elsewhere
from featlib.cases.series import Candidates, follow_feature, half_lives
from featlib.cases.subjects import (
    Found,
    best_correlated,
    best_dictionary,
    fit_subjects,
    read_subject,
    read_subjects,
    related_vocabulary,
    trace_feature,
    transfer_subject,
)
from featlib.cases.text import CaseText
from featlib.dictionaries.features import feature_activations
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.models.mistral import build_model
from featlib.text.labels import LABELS, Label

D_IN, D_SAE, WORD = 24, 12, 7


@pytest.fixture(scope="module")
def model():
    model = build_model(
        vocab_size=40, hidden_size=16, intermediate_size=D_IN, heads=2, kv_heads=1, context=16,
        seed=0,
    )  # fmt: skip
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(6)
    return model.eval()


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(0).integers(3, 40, (60, 16)).astype(np.int64)


@pytest.fixture(scope="module")
def documents():
    return np.repeat(np.arange(30), 2)[:, None] * np.ones((1, 16), dtype=np.int64)


@pytest.fixture(scope="module")
def sae(model, ids):
    """Feature 0 is planted: it fires on the token WORD, since its direction tells that token."""
    plain = SparseAutoencoder(
        torch.eye(D_IN)[:, :D_SAE].clone(), torch.zeros(D_SAE), torch.eye(D_IN)[:D_SAE].clone(),
        torch.zeros(D_IN), architecture="relu",
    )  # fmt: skip
    neurons = read_subject("base", model, plain, ids).sites.neurons
    here = torch.from_numpy(ids.reshape(-1) == WORD)
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
def stream(ids, documents):
    return labelled_stream(ids == WORD, ids, documents, seed=0)


def test_picked_features_are_the_same_features(model, sae, ids):
    whole = read_subject("base", model, sae, ids)
    few = sae.only([5, 0])
    found = few.encode(whole.sites.neurons).detach().numpy()
    assert np.allclose(found, whole.features.matrix.toarray()[:, [5, 0]], atol=1e-5)
    assert torch.equal(feature_direction(model, few, 1), feature_direction(model, sae, 0)), (
        "ablating it in the small autoencoder is ablating it in the large one"
    )


def test_best_correlated_finds_a_copy():
    rng = np.random.default_rng(1)
    dense = rng.random((500, 6)) * (rng.random((500, 6)) < 0.2)
    other = np.roll(dense, 2, axis=1)
    best, r = best_correlated(feature_activations(dense), 3, feature_activations(other))
    assert best == 5
    assert r == pytest.approx(1, abs=1e-5)


def test_transfer_to_the_same_model_changes_nothing(model, sae, ids, stream, documents):
    own = read_subject("base", model, sae, ids)
    moved = transfer_subject(own, 0, own, n_random=3, seed=0)
    fates, effects = trace_feature(
        own, 0, [Found(own, "labels", 0), Found(moved, "transfer", 0)], stream, documents,
        seed=0, n_random=3, n_boot=20,
    )  # fmt: skip
    first, second = fates.iloc[0], fates.iloc[1]
    assert first["r"] == pytest.approx(1) == pytest.approx(second["r"])
    assert first["f1"] == second["f1"] > 0.6
    for region in ("at", "elsewhere"):  # noqa: B007 (used by query)
        at = effects.query("who == 'feature' and region == @region")["delta"]
        assert at.iloc[0] == pytest.approx(at.iloc[1], abs=1e-5)


def fates(f1=0.9, effect=0.4, r=0.3, labels=0.4) -> pd.DataFrame:
    rows = [("base", "labels", False, 0.9, 0.4, float("nan"))]
    rows += [("base", "labels", True, 0.55, 0.2, float("nan"))]
    for model in ("lua", "tinystories", "merged"):
        rows.append((model, "labels", False, labels, 0.01, float("nan")))
        rows.append((model, "correlation", False, 0.2, 0.0, r))
        rows.append((model, "transfer", False, f1, effect, float("nan")))
    table = pd.DataFrame(rows, columns=["model", "route", "again", "f1", "effect", "r_stream"])
    for key in ("f1", "effect"):
        table[f"{key}_low"], table[f"{key}_high"] = table[key] - 0.05, table[key] + 0.05
    return table


@pytest.mark.parametrize(
    ("given", "word", "opening"),
    [
        ({}, "survives", "Yes: the exception feature survives in"),
        ({"f1": 0.6}, "weakened", "In part: the exception feature is weakened in"),
        ({"effect": 0.1}, "weakened", "In part: the exception feature is weakened in"),
        ({"f1": 0.2}, "lost", "No: the exception feature is lost in"),
        ({"f1": 0.6, "effect": 0.01}, "lost", "No: the exception feature is lost in"),
    ],
)
def test_another_run_gives_another_answer(given, word, opening):
    table = fates(**given)
    verdicts = judge_models(table, reference="base", feature="exception feature")
    assert {v.word for v in verdicts.values()} == {word}
    assert list(verdicts) == ["Lua", "TinyStories", "LuaStories"]
    short = write_short_answer(table, reference="base", feature="exception feature")
    assert short.startswith(opening)
    answer = write_reasons(table, reference="base", feature="exception feature")
    assert answer.startswith("- In Lua the exception feature ")
    assert "does not count as the same feature" in answer
    assert "it is lost in Lua (F1 0.40), is lost in Tiny" in answer
    assert "other autoencoders of BabyPython itself reach 0.55" in answer


@pytest.mark.parametrize(
    ("given", "opening"),
    [
        ({}, "Yes: the feature survives in Lua, TinyStories and LuaStories."),
        ({"f1": 0.6}, "In part: the feature is weakened in Lua, TinyStories and LuaStories."),
        ({"f1": 0.2}, "No: the feature is lost in Lua, TinyStories and LuaStories."),
    ],
)
def test_the_short_answer_is_two_sentences(given, opening):
    table = fates(**given)
    table.loc[len(table)] = {**table.iloc[1], "route": "correlation", "r_stream": 0.77}
    answer = write_short_answer(table, reference="base", feature="feature")
    assert answer.startswith(f"{opening} Read in each model, the same direction finds its tokens")
    assert "with F1 0.90 in BabyPython" in answer
    assert answer.count(". ") == 1, "two sentences"
    assert f"{given.get('f1', 0.9):.2f} in LuaStories, and each predicts worse" in answer
    assert "but the dictionary of LuaStories has nothing closer to it than r = 0.30" in answer
    assert answer.endswith("(between two dictionaries of BabyPython itself: 0.77).")
    table["r_stream"] = table["r_stream"].replace(0.3, 0.85)
    answer = write_short_answer(table, reference="base", feature="feature")
    assert "and the dictionary of LuaStories has it too, with r = 0.85" in answer
    table.loc[table["route"] == "transfer", "effect_low"] = -0.01
    assert "worse without it" not in write_short_answer(table, reference="base", feature="x")


def test_the_short_answer_without_a_feature():
    table = fates()
    table.loc[(table["model"] == "base") & ~table["again"], ["f1", "f1_low", "f1_high"]] = 0.2
    answer = write_short_answer(table, reference="base", feature="feature")
    assert answer.startswith("The question does not arise. BabyPython has no feature that")


def test_a_feature_is_looked_for_in_every_dictionary(model, sae, ids, documents, stream):
    """The planted feature is in the second dictionary only; the first holds what is random."""
    without = sae.only([3, 4, 5, 6])
    found = read_subjects("base", model, {4: without, 9: sae}, ids)
    assert found[0].sites is found[1].sites, "the model runs once"
    assert best_dictionary(found, stream).seed == 9
    fits, homes = fit_subjects(
        {"base": found}, {"word": stream}, chosen="word", seed=0, n_random=2, n_boot=10
    )
    assert homes["word", "base"].seed == 9
    assert fits["word", "base"].feature == 0
    silent = sae.only([3])
    with torch.no_grad():
        silent.b_enc.fill_(-1e6)
    assert best_dictionary(read_subjects("base", model, {0: silent}, ids), stream) is None


def test_no_feature_no_question():
    table = fates()
    table.loc[(table["model"] == "base") & ~table["again"], ["f1", "f1_low", "f1_high"]] = 0.2
    answer = write_reasons(table, reference="base", feature="exception feature")
    assert answer.startswith("BabyPython has no exception feature that could survive")
    assert "autoencoder" not in answer


def test_answers_differ_by_model():
    table = fates()
    lost = (table["model"] == "tinystories") & (table["route"] == "transfer")
    table.loc[lost, ["f1", "f1_low", "f1_high"]] = [0.1, 0.05, 0.15]
    answer = write_short_answer(
        table.assign(r_stream=table["r_stream"].fillna(0.3)), reference="base", feature="feature"
    )
    assert answer.startswith("In part: the feature survives in Lua and LuaStories and is lost in T")


def test_vocabulary_follows_the_label(ids, documents):
    ids = ids.copy()
    ids[:, 5], ids[:, 6] = WORD, 11
    stream = labelled_stream(ids == WORD, ids, documents, seed=0)
    words = related_vocabulary(Label("", {}), [str(i) for i in range(40)], stream, most=1)
    assert words.tolist() == [11]
    named = [*(str(i) for i in range(38)), " raise", "except"]
    assert {38, 39} <= set(related_vocabulary(LABELS["exception"], named, stream, most=1).tolist())


def test_a_feature_fades_as_its_direction_leaves_the_model(model, sae, ids, documents, stream):
    """Along a series in which the MLP's input is turned down, the feature ends up silent."""
    import copy

    def series():
        for x in (0.0, 0.5, 1.0):
            changed = copy.deepcopy(model)
            with torch.no_grad():
                changed.model.layers[0].mlp.up_proj.weight.mul_(1 - x)
            yield x, changed

    transferred = Candidates(sae.only([0, 3, 4, 5]), 1)
    offered = [Candidates(sae.only([2, 0, 6, 3, 4, 5]), 3)]
    table = follow_feature(
        series(), transferred, offered, stream, ids, documents, seed=0, n_boot=20
    )
    assert table["x"].tolist() == [0, 0, 0.5, 0.5, 1, 1]
    f1 = table.pivot(index="x", columns="route", values="f1")
    assert f1.loc[0.0, "transfer"] > 0.6
    assert f1.loc[0.0, "labels"] == f1.loc[0.0, "transfer"], "feature 0 is the best on offer"
    assert f1.loc[1.0, "transfer"] < 0.1, "no better than saying yes everywhere"
    lives = half_lives(table).set_index(["route", "measure"])
    assert 0 < lives.loc[("transfer", "f1"), "half_life"] <= 1


def test_the_label_abroad_in_words():
    rows = [
        (SAME, "base", 0.0), (SAME, "lua", 0.0), (BEST, "base", 0.1), (BEST, "lua", 0.7),
        (RULE, "base", 0.9), (RULE, "lua", 0.9),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["detector", "model", "f1"]).assign(n_labelled=20)
    said = say_elsewhere(table, "Lua")
    assert said.startswith("In no model does the feature detect the label in Lua (F1 at most 0.00)")
    assert "Lua has a feature of its own for it." in said and "this is a hint" in said
    table.loc[1, "f1"] = 0.8
    said = say_elsewhere(table.assign(n_labelled=500), "Lua")
    assert said.startswith("The feature detects the label in Lua too, in Lua;")
    assert "hint" not in said
    assert say_elsewhere(pd.DataFrame(), "Lua").startswith("The held-out Lua holds too few")


def test_every_dictionary_is_asked(model, sae, ids, documents, stream):
    """The second holds a copy of the planted feature that writes nothing: it detects alike."""
    mute = sae.only([1, 0])
    with torch.no_grad():
        mute.W_dec[1] = 0
    subjects = read_subjects("base", model, {0: sae, 3: mute}, ids)
    text = CaseText(
        ids, documents, np.full(len(ids), "python"), {"word": ids == WORD}, {"python": 1},
        {"python": 0},
    )  # fmt: skip
    fits, homes = fit_subjects(
        {"base": subjects}, {"word": stream}, chosen="word", seed=0, n_random=2, n_boot=5
    )
    case = Case(
        "word", "base", text, {"word": stream}, {"base": subjects, "lua": subjects[:1]}, fits,
        homes, [], pd.DataFrame(), pd.DataFrame(),
    )  # fmt: skip
    table = compare_dictionaries(case, SimpleNamespace(seed=0, bootstrap=20))
    assert table["autoencoder"].tolist() == [0, 0, 3, 3]
    assert table["feature"].tolist() == [0, 0, 1, 1]
    assert (table["f1"] == table["f1"][0]).all(), "the same activations"
    effects = table.set_index(["autoencoder", "model"])["effect"]
    own = subjects[0]
    change = loss_changes(own.model, own.sae, own.sites, own.features, Edit(0))
    at = (ids == WORD)[:, :-1] & (documents[:, 1:] == documents[:, :-1])
    assert effects[0, "base"] == pytest.approx(change[at].mean(), rel=1e-3)
    assert effects[3, "base"] == effects[3, "lua"] == 0
    assert list(dictionary_table(table).columns) == ["autoencoder", "feature", "BabyPython", "Lua"]
    said = say_dictionaries(table, reference="base")
    assert said.startswith("In 2 of 2 autoencoders of BabyPython the best feature keeps")
