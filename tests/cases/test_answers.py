"""Planted fates: what became of a feature is known, and each question must say so."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics
from streams import labelled_stream, lively_model

from featlib.cases.answers import (
    Match,
    answer_questions,
    best_match,
    coactive_costs,
    coactive_features,
    trace_feature,
)
from featlib.cases.detectors import Draws, f1_draws
from featlib.cases.edits import Subject, read_sites
from featlib.cases.fit import token_rule
from featlib.cases.peers import detect, find_peers
from featlib.dictionaries.features import feature_activations
from featlib.dictionaries.sae import SparseAutoencoder
from featlib.models.forward import hooked_module

D_IN, WORDS, FOLLOWER, BLOCKS = 96, tuple(range(5, 13)), 30, 800
DRAWS = Draws(seed=0, n_boot=60, n_random=8)
RNG = np.random.default_rng(0)
IDS = RNG.integers(3, 40, (BLOCKS, 16)).astype(np.int64)
IDS[:, 1:][np.isin(IDS[:, :-1], WORDS)] = FOLLOWER
DOCUMENTS = np.repeat(np.arange(BLOCKS // 5), 5)[:, None] * np.ones((1, 16), dtype=np.int64)
MASK = WORDS[0] == IDS
STREAM = labelled_stream(MASK, IDS, DOCUMENTS, seed=0)


@pytest.fixture(scope="module")
def model():
    sizes = {"vocab_size": 40, "heads": 2, "kv_heads": 1, "hidden_size": 64, "context": 16}
    made = lively_model(6, intermediate_size=D_IN, **sizes)
    made.model.layers[0].self_attn.o_proj.weight.data *= 0.05  # neurons tell the word
    return made


@pytest.fixture(scope="module")
def sae(model):
    """Feature j fires on the j-th of `WORDS`, and writes what follows it; the last ones do not."""
    neurons = read_sites(model, IDS).neurons
    n = len(WORDS)
    W = torch.randn(D_IN, n + 4, generator=torch.Generator().manual_seed(0)) / D_IN**0.5
    bias = torch.full((n + 4,), -0.1)
    for j, word in enumerate(WORDS):
        here = torch.from_numpy(IDS.reshape(-1) == word)
        x, y = neurons.double(), here.double() * 2 - 1
        W[:, j] = torch.linalg.solve(x.T @ x + 1e-3 * torch.eye(D_IN).double(), x.T @ y).float()
        W[:, j] *= 3 / W[:, j].norm()
        scores = neurons @ W[:, j]
        bias[j] = -(scores[here].mean() + scores[~here].mean()) / 2
    pull = torch.linalg.pinv(hooked_module(model).weight.detach()) @ model.lm_head.weight[FOLLOWER]
    W_dec = torch.randn(n + 4, D_IN, generator=torch.Generator().manual_seed(1))
    W_dec[:n] = pull.detach() + 0.3 * pull.norm().detach() / D_IN**0.5 * W_dec[:n]
    W_dec = torch.nn.functional.normalize(W_dec, dim=1)
    return SparseAutoencoder(W, bias, W_dec, torch.zeros(D_IN), architecture="relu")


def moved(model, order) -> None:
    """Neurons change places: the model computes the same, but no old direction reads it."""
    mlp = model.model.layers[0].mlp
    for linear in (mlp.gate_proj, mlp.up_proj):
        linear.weight.data = linear.weight.data[order]
    mlp.down_proj.weight.data = mlp.down_proj.weight.data[:, order]


def with_fate(model, sae, fate):
    """The child, and its own autoencoder, as training might have found it."""
    child, own = copy.deepcopy(model), copy.deepcopy(sae)
    down = hooked_module(child).weight.data
    with torch.no_grad():
        if fate == "moved":
            order = torch.randperm(D_IN, generator=torch.Generator().manual_seed(2))
            moved(child, order)
            own.W_enc.data, own.W_dec.data = own.W_enc[order], own.W_dec[:, order]
        elif fate == "dropped":
            up = child.model.layers[0].mlp.up_proj.weight.data
            up.copy_(up.flip(1).roll(3, 0))
            own = SparseAutoencoder(
                torch.randn(sae.W_enc.shape, generator=torch.Generator().manual_seed(5)) / 7,
                sae.b_enc, sae.W_dec, sae.b_dec, architecture="relu",
            )  # fmt: skip
        elif fate == "unused":
            row = sae.W_dec[0]
            down -= (down @ row)[:, None] * row
        elif fate == "elsewhere":
            own.W_dec.data = torch.randn(own.W_dec.shape, generator=torch.manual_seed(4))
        elif fate == "placebo":
            down += 0.01 * down.std() * torch.randn(down.shape, generator=torch.manual_seed(3))
    return child.eval(), own


@pytest.fixture(scope="module")
def asked(model, sae):
    """Every fate, asked the four questions."""
    own = Subject(model, sae, read_sites(model, IDS))
    peers = find_peers(own.features, STREAM, 0)
    mine = own.features.matrix[:, [0, *peers.index]]
    traces = {"base": trace_feature(own, 0, peers, STREAM, DRAWS)}
    matches = []
    for fate in ("base", "kept", "moved", "dropped", "unused", "elsewhere", "placebo"):
        child, theirs = with_fate(model, sae, fate)
        sites = read_sites(child, IDS)
        if fate != "base":
            carried = Subject(child, sae, sites)
            traces[fate] = trace_feature(carried, 0, peers, STREAM, DRAWS)
        other = Subject(child, theirs, sites).features.matrix
        found = best_match(
            mine, other, sae.W_dec.detach()[0], theirs.W_dec.detach(), DOCUMENTS, DRAWS
        )
        matches.append(Match(fate, "", 1, *found))
    answers = answer_questions(
        traces, matches, f1_draws(token_rule(STREAM), STREAM, DRAWS), dict.fromkeys(traces, 1.0),
        reference="base", placebo=traces["placebo"], labelled=500, firings=500, same=0.8,
    )  # fmt: skip
    return answers.set_index(["model", "question"]), traces, matches, peers


@pytest.mark.parametrize(
    ("fate", "readable", "found", "used"),
    [
        ("kept", "yes", "yes", "yes"),
        ("moved", "no", "yes", "no"),
        ("dropped", "no", "no", "no"),
        ("unused", "yes", "yes", "no"),
        ("elsewhere", "yes", "yes", "yes"),
        ("placebo", "yes", "yes", "yes"),
    ],
)
def test_every_fate_has_its_answers(asked, fate, readable, found, used):
    answers, _, matches, _ = asked
    words = answers.loc[fate]["word"]
    assert (words["readable"], words["found"], words["used"]) == (readable, found, used)
    assert words["concept"] == "nothing to lose", "the label is a word, so its rule is perfect"
    cosine = next(m.cosine for m in matches if m.model == fate)
    if found == "yes" and fate != "moved":  # to compare directions neurons must be the same
        assert abs(cosine - (fate != "elsewhere")) < 0.3, "does it write alike?"


def test_answers_stand_beside_their_references(asked):
    answers, traces, _, peers = asked
    assert 4 <= len(peers) < len(WORDS)
    kept = answers.loc["kept"]
    assert (kept.loc[["readable", "found", "used"], "base_rate"] == 1).all(), "peers are kept too"
    assert (kept["certainty"] == ["as its peers"] * 3 + ["no test"]).all()
    assert kept.loc["readable", "value"] == kept.loc["readable", "ceiling"] == 1
    assert kept.loc["found", "value"] == pytest.approx(1)
    assert kept.loc["used", "ceiling"] == pytest.approx(traces["base"].removal.mlp, rel=1e-4)
    dropped = answers.loc["dropped"]
    assert dropped.loc["found", "base_rate"] == 0, "a random dictionary has none of them"
    assert dropped.loc["readable", "base_rate"] < 0.5
    assert np.isfinite(answers.drop(columns=["word", "certainty"]).to_numpy(float)).all()
    assert answers["value"].between(answers["low"] - 1e-9, answers["high"] + 1e-9).all()


def test_more_than_the_token_is_a_concept(asked):
    """Every second of the word's tokens has the label: the token rule cannot say which."""
    _, traces, matches, _ = asked
    half = (RNG.random(MASK.shape) < 0.5) & MASK
    stream = replace(STREAM, mask=half.reshape(-1))
    rule = f1_draws(token_rule(stream), stream, DRAWS)
    assert rule[0] < 0.8
    sharp = replace(traces["base"], f1=np.ones_like(rule))
    dull = replace(traces["base"], f1=rule - 0.1)
    found = answer_questions(
        {"base": sharp, "kept": sharp, "moved": dull}, matches, rule,
        dict.fromkeys(("base", "kept", "moved"), 1.0), reference="base", placebo=None,
        labelled=500, firings=500, same=0.8,
    ).set_index(["model", "question"])  # fmt: skip
    assert found.loc[("kept", "concept"), "word"] == "yes"
    assert found.loc[("moved", "concept"), "word"] == "no"
    assert found.loc[("kept", "readable"), "ceiling"] == 1, "without a placebo"


def test_the_costliest_is_ranked_on_one_half_and_measured_on_the_other(model, sae):
    """A twin of the feature fires with it and writes nothing: the bystander of a split pair."""
    both = sae.only([1, 0, 0])
    with torch.no_grad():
        both.W_dec[1] = 0
    subject = Subject(model, both, read_sites(model, IDS))
    ranked = coactive_features(subject, 1, STREAM)
    assert ranked["feature"].tolist() == [2, 1] and ranked["fires_on"].min() > 0.8
    costs = coactive_costs(subject, ranked, STREAM, DRAWS)
    assert costs["nats_low"][0] > 0 == costs["nats"][1]


def test_peers_are_detectors_of_a_word_or_two_that_fire_as_often():
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 20, 8000)
    dense = (rng.random((8000, 8)) < 0.02).astype(float)
    for feature, words in enumerate(([1], [2], [3, 4], [5, 6, 7], [8])):
        dense[np.isin(ids, words), feature] = 1 + rng.random(np.isin(ids, words).sum())
    dense[:, 4] *= rng.random(8000) < 0.1  # too seldom
    stream = labelled_stream(ids == 1, ids, np.repeat(np.arange(80), 100), seed=0)
    f = feature_activations(dense)
    peers = find_peers(f, stream, 0)
    assert peers.index.tolist() == [1, 2]
    assert [sorted(i for i in row if i >= 0) for row in peers.to_numpy()] == [[2], [3, 4]]
    rows = peers.itertuples()
    expected = [f1_by_hand(dense[:, j], np.isin(ids, words), stream) for j, *words in rows]
    assert detect(f, peers, stream)[1] == pytest.approx(expected)
    assert (detect(f, peers, stream, label=True)[1] < 0.15).all(), "the label is not theirs"
    assert len(find_peers(feature_activations(dense[:, [0, 7]]), stream, 0)) == 0
    nobody = peers.head(0)
    assert detect(f, nobody, stream).shape == detect(f, nobody, stream, label=True).shape == (2, 0)


def f1_by_hand(score, wanted, stream) -> float:
    """Threshold from trying them all on the selection half, F1 from counting on the other."""
    here = stream.selection

    def f1(cut, half):
        return metrics.f1_score(wanted[half], score[half] > cut)

    cuts = np.unique(np.append(score[here], 0.0))
    cuts = (cuts[1:] + cuts[:-1]) / 2
    return f1(max(cuts, key=lambda cut: f1(cut, here)), stream.test)
