"""Parameters: everything impossible is refused, with the key, the value and the way out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from featlib import FeatlibError
from featlib.chapter import declared_parameters
from featlib.params import Params, check_params, derive_seed

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
RUNS = sorted({*(ROOT / "params").glob("*.yaml")} - {ROOT / "params/controls.yaml"})


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.stem)
def test_every_shipped_run_is_valid_and_named_after_its_file(path):
    assert check_params(yaml.safe_load(path.read_text())).run_name == path.stem


def test_mini_spells_out_every_default():
    written = yaml.safe_load((ROOT / "params/mini.yaml").read_text())
    assert set(written) == set(Params.model_fields)
    assert check_params(written) == Params()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_defaults_are_those_of_mini_with_a_comment_each(path):
    source = path.read_text()
    declared = declared_parameters(source)
    assert declared.pop("run") == "mini"
    for key, value in declared.items():
        assert value == getattr(Params(), key), key
        line = next(line for line in source.splitlines() if line.startswith(f"{key}: "))
        assert "  # " in line, f"{key} has no comment for papermill --help-notebook"


def test_the_controls_have_parameters_of_their_own_and_a_file_that_sets_them():
    declared = declared_parameters((ROOT / "notebooks/controls.py").read_text())
    assert declared.pop("run") == "mini" and not set(declared) & set(Params.model_fields)
    assert yaml.safe_load((ROOT / "params/controls.yaml").read_text()) == declared


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"thresold": 0.8}, ["thresold", "0.8", "did you mean 'threshold'"]),
        ({"zzz": 1}, ["unknown parameter 'zzz'", "params/mini.yaml"]),
        ({"heads": 7}, ["heads = 7", "divisor of hidden_size (192)"]),
        ({"heads": 64, "kv_heads": 1}, ["heads = 64", "even head width"]),
        ({"kv_heads": 4}, ["kv_heads = 4", "divisor of heads (6)"]),
        ({"merge_t": 1.5, "sed": 1}, ["merge_t = 1.5", "'sed'"]),  # all faults at once
        ({"merge_t": -0.1}, ["merge_t = -0.1"]),
        ({"k": 4096}, ["k = 4096", "at most d_sae (2048)"]),
        ({"seed": 1.5}, ["seed = 1.5", "integer"]),
        ({"seed": True}, ["seed = True"]),
        ({"l1": "much"}, ["l1 = 'much'", "number"]),
        ({"l1": float("nan")}, ["l1", "number"]),
        ({"base_lr": float("inf")}, ["base_lr", "number"]),
        ({"source": "web"}, ["source = 'web'", "'embedded' or 'files'"]),
        ({"source": "files"}, ["corpora_folder = ''", "a folder when source is files"]),
        ({"corpora_folder": "x"}, ["corpora_folder = 'x'", "empty when it is embedded"]),
        ({"base_tokens": 10}, ["base_tokens = 10", "one batch of 1,024 tokens"]),
        ({"validation_share": 0.4, "test_share": 0.4}, ["test_share", "less than 0.6"]),
        ({"run_name": "../evil"}, ["run_name", "../evil"]),
    ],
)
def test_what_cannot_work_is_refused_with_the_way_out(values, words):
    with pytest.raises(FeatlibError) as caught:
        check_params(values, where="here")
    message = str(caught.value)
    assert all(word in message for word in ["here", *words])


def test_numbers_that_yaml_reads_as_text_are_numbers():
    values = yaml.safe_load("l1: 3e-4\nmerge_t: 1")
    assert values["l1"] == "3e-4"  # YAML 1.1
    params = check_params(values)
    assert params.l1 == 3e-4 and params.merge_t == 1.0


def test_each_purpose_has_a_seed_of_its_own():
    seeds = {derive_seed(s, a, b) for s in range(5) for a in "xy" for b in range(5)}
    assert len(seeds) == 50
    assert derive_seed(3, "order", "lua") == derive_seed(3, "order", "lua")
