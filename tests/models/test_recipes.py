"""How a run's models are made: the placebo is a child but for its text, held-out text is spread."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import FINE_TUNE, small_run, weights_of

from featlib.family import BASE, CHILDREN, DOMAINS, PLACEBO, TRAINING_MIX
from featlib.models import recipes
from featlib.models.mistral import load_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("runs"))


def test_the_placebo_reads_its_parents_mix_as_long_as_a_child(run, monkeypatch):
    given = {}

    def spy(model, ids, **settings):
        given[settings["label"]] = ids, settings
        return train(model, ids, **settings)

    train = recipes.train
    monkeypatch.setattr(recipes, "train", spy)
    before = weights_of(load_checkpoint(run.model(BASE)))
    for name in (PLACEBO, CHILDREN[0]):
        model, curve = recipes.fine_tune(run, name, FINE_TUNE)
        assert not torch.equal(model.lm_head.weight, before["lm_head.weight"])
        assert len(curve) == 20
    (mix, one), (text, other) = given.values()
    domains = {(int(i) - 10) // 50 for i in np.unique(mix)}
    assert {DOMAINS[n] for n in domains} == set(TRAINING_MIX[PLACEBO]) == set(TRAINING_MIX[BASE])
    assert {DOMAINS[(int(i) - 10) // 50] for i in np.unique(text)} == set(TRAINING_MIX[CHILDREN[0]])
    apart = {key for key in one if one[key] != other[key]}
    assert apart - {"on_snapshot"} == {"label", "seed"}
    order = recipes.training_text(run, TRAINING_MIX[BASE], FINE_TUNE.seed, "mix", BASE).ids
    assert mix.shape == order.shape and not np.array_equal(mix, order)


def test_held_out_text_is_of_all_documents(run):
    """A third of the blocks, drawn by the seed, against the first third: 20 documents, not 7."""
    texts = recipes.validation_texts(run, FINE_TUNE.evaluation_tokens, seed=0)
    assert [len(blocks) for blocks in texts.values()] == [20] * len(DOMAINS)
    assert min(len(np.unique(blocks.documents)) for blocks in texts.values()) > 10
    few = recipes.validation_texts(run, FINE_TUNE.evaluation_tokens // 2, seed=0)
    other = recipes.validation_texts(run, FINE_TUNE.evaluation_tokens, seed=1)
    for domain, blocks in texts.items():
        np.testing.assert_array_equal(few[domain].ids, blocks.ids[:10])
        assert not np.array_equal(other[domain].ids, blocks.ids)
