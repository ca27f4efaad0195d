"""The real chain, at toy size: Snakemake, papermill and Jupyter Book, as a user calls them.

Two runs are made. The first goes through undisturbed. The driver of the second, with the same seed,
is stopped and then killed in the middle of its work; it must end with the same numbers.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
import yaml
from driver import CHAPTERS, ROOT, SMOKE, call, jobs, said

from featlib.chapter import declared_parameters
from featlib.family import DOMAINS, MODELS, PAIRS
from featlib.params import check_params
from featlib.run import ASIDE, Run


def test_every_number_of_the_contract_is_there(smoke):
    metrics = smoke.metrics()
    seeds = range(check_params(yaml.safe_load((ROOT / "params/smoke.yaml").read_text())).sae_seeds)
    expected = {f"lm.{m}.{d}.{k}" for m in MODELS for d in DOMAINS for k in ("loss", "accuracy")}
    expected |= {
        f"sae.{m}.{s}.{k}"
        for m in MODELS
        for s in seeds
        for k in ("l0", "fvu", "ce_recovered", "ce_delta", "alive")
    }
    expected |= {
        f"match.{a}.{b}.{k}"
        for a, b in PAIRS
        for k in (
            "persist", "persist_low", "persist_high", "median_r", "same_index", "ceiling",
            "calibrated", "testable",
        )
    }  # fmt: skip
    expected |= {f"null.{a}.{b}.persist" for a, b in PAIRS} | {"merge.t"}
    assert expected <= set(metrics), sorted(expected - set(metrics))
    assert any(k.startswith("merge.") and k.endswith(".cosine") for k in metrics)
    assert all(isinstance(v, float) and np.isfinite(v) for v in metrics.values())


def test_provenance_says_how_each_chapter_was_made(smoke):
    provenance = smoke.provenance()
    assert set(provenance["chapters"]) == set(CHAPTERS)
    for chapter in provenance["chapters"].values():
        assert chapter["seconds"] > 0 and chapter["peak_memory_mb"] > 50
    hashes = provenance["chapters"]["01_corpora"]["corpora"]
    assert set(hashes) == set(DOMAINS) and len(set(hashes.values())) == 4


def test_models_open_with_transformers_alone(smoke):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name in MODELS:
        tokenizer = AutoTokenizer.from_pretrained(smoke.model(name))
        model = AutoModelForCausalLM.from_pretrained(smoke.model(name))
        ids = tokenizer("raise ValueError", return_tensors="pt").input_ids
        assert model(ids).logits.shape[-1] == len(tokenizer) == model.config.vocab_size


def test_splits_share_no_document(smoke):
    documents = pd.read_parquet(smoke.tokens / "documents.parquet")
    assert set(documents["split"]) == {"validation", "test"}
    held_out = documents.groupby("split")["text"].apply(set)
    assert not held_out["validation"] & held_out["test"]


def test_fates_add_up(smoke):
    matches = pd.read_parquet(smoke.table("matches"))
    d_sae = check_params(yaml.safe_load((ROOT / "params/smoke.yaml").read_text())).d_sae
    sizes = matches.groupby(["parent", "child", "side"]).size()
    assert len(sizes) == 2 * len(PAIRS) and (sizes == d_sae).all()
    assert matches["fate"].notna().all()


def test_executed_notebooks_hold_no_error_and_stay_small(smoke):
    for chapter in CHAPTERS:
        path = smoke.notebook(chapter)
        notebook = nbformat.read(path, as_version=4)
        outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
        assert outputs and all(o.output_type != "error" for o in outputs)
        assert path.stat().st_size < 1_000_000, f"{chapter} is too large to commit"


def test_nothing_is_left_to_do(smoke, runs):
    assert jobs(runs=runs) == set()


def test_a_changed_autoencoder_parameter_reruns_its_chapter_and_what_follows(smoke, runs):
    later = {f"chapter_{c}" for c in CHAPTERS if "05" <= c < "13"}  # 13 shows published tables
    assert jobs("--config", "d_sae=256", runs=runs) == later | {"book"}


def test_a_changed_matching_parameter_leaves_the_models_alone(smoke, runs):
    planned = jobs("--config", "threshold=0.7", runs=runs)
    assert "chapter_06_matching" in planned and "chapter_05_autoencoders" not in planned


def test_a_changed_page_only_renders_the_book(smoke, runs):
    page = ROOT / "book/experiment.md"
    before, times = page.read_text(), page.stat()
    try:
        page.write_text(before + "\nOne more sentence.\n")
        assert jobs(runs=runs) == {"book"}
    finally:
        page.write_text(before)
        os.utime(page, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_driver_that_dies_takes_its_chapter_along_and_the_next_one_goes_on(smoke, runs):
    words = [*SMOKE, "--config", "run_name=killed"]
    # Chapters 08 and later only read what these leave; their own randomness is tested with them.
    run = Run("killed", runs)
    target = str(run.notebook("07_flow"))
    for number, chapter in ((signal.SIGTERM, "01_corpora"), (signal.SIGKILL, "02_base_model")):
        driver = subprocess.Popen(
            [sys.executable, "-m", "snakemake", target, *words], cwd=ROOT, text=True,
            env={**os.environ, "FEATLIB_RUNS": str(runs)}, stderr=subprocess.PIPE,
        )  # fmt: skip
        deadline = time.monotonic() + 300
        working = run.notebook(chapter).with_name(f"{chapter}.failed.ipynb")
        while not (working.exists() and (run.folder / ".chapters").exists()):
            assert driver.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1.5)
        started = time.monotonic()
        driver.send_signal(number)  # to the driver alone
        said_last = driver.communicate()[1]
        assert time.monotonic() - started < 10 and not Path(target).exists()
        if number == signal.SIGTERM:
            assert "the same command goes on" in said_last.strip().splitlines()[-1]

    done = call("snakemake", target, *words, runs=runs)
    assert done.returncode == 0, said(done)[-5000:]
    again = run.metrics()
    assert len(again) > 80 and again.items() <= smoke.metrics().items()
    rest = [p.name for p in run.folder.rglob("*") if ".tmp-" in p.name or "failed" in p.name]
    assert not rest, f"left behind: {rest}"


def test_another_training_makes_what_the_headline_numbers_need(smoke, runs):
    words = ("--config", "seed=1", "run_name=smoke-seed-1", "--", "headlines")
    wanted = {f"chapter_{chapter}" for chapter in CHAPTERS if chapter not in ASIDE}
    assert jobs(*words, runs=runs) == wanted | {"headlines"}


def test_two_processes_do_not_share_a_run(smoke, runs):
    import fcntl

    with (smoke.folder / ".running").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        done = call("snakemake", *SMOKE, "--force", "book", runs=runs)
    assert done.returncode != 0
    assert "being made by another process" in said(done)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["thresold=0.8"], "did you mean 'threshold'"),
        (["heads=3"], "divisor of hidden_size (64)"),
        (["source=files", "corpora_folder=/nowhere"], "/nowhere"),
    ],
)
def test_bad_parameters_stop_before_anything_starts(runs, words, expected):
    done = call("snakemake", *SMOKE, "--config", "run_name=bad", *words, runs=runs)
    assert done.returncode != 0
    assert expected in said(done)
    assert "Traceback" not in said(done)
    assert not (runs / "bad/tokens").exists()


def test_chapters_alone_by_papermill(smoke, runs, tmp_path):
    shutil.copytree(smoke.folder, runs / "alone")
    params = smoke.recorded_params() | {"run_name": "alone"}
    (runs / "alone/params.yaml").write_text(yaml.safe_dump(params))
    run = Run("alone", runs)

    def papermill_chapter(chapter: str, **values: object) -> subprocess.CompletedProcess:
        words = [f"-p {key} {value}" for key, value in {"run": "alone", **values}.items()]
        notebook = str(ROOT / f"notebooks/{chapter}.ipynb")
        out = str(tmp_path / "out.ipynb")
        return call("papermill", notebook, out, *" ".join(words).split(), runs=runs)

    # Another label, found in another model.
    done = papermill_chapter("09_exception", label="assignment", model="lua")
    assert done.returncode == 0, said(done)[-3000:]
    assert run.metrics()["case.assignment.lua.f1"] > 0.3

    done = papermill_chapter("05_autoencoders", l2=1)
    assert (
        done.returncode != 0
        and "a parameter = 'l2'" in said(done)
        and "Did you mean 'l1'" in said(done)
    )
    assert run.notebook("05_autoencoders").exists()
    done = papermill_chapter("05_autoencoders", l1=0.01, sae_architecture="relu")
    assert done.returncode == 0, said(done)[-3000:]
    used = run.provenance()["chapters"]["05_autoencoders"]["parameters"]
    assert used["l1"] == 0.01 and used["d_sae"] == 512
    cfg = json.loads((run.autoencoder("base", 0) / "cfg.json").read_text())
    assert cfg["architecture"] == "standard"
    # the run's own page no longer describes what lies there, so it was withdrawn
    assert not run.notebook("05_autoencoders").exists()


def test_notebook_and_source_are_in_step_and_papermill_can_explain_each_parameter():
    for chapter in CHAPTERS:
        path = ROOT / f"notebooks/{chapter}"
        pair = jupytext.writes(jupytext.read(path.with_suffix(".ipynb")), "py:percent")
        assert pair.partition("# %%")[2] == path.with_suffix(".py").read_text().partition("# %%")[2]
        known = papermill.inspect_notebook(path.with_suffix(".ipynb"))
        assert set(known) == set(declared_parameters(path.with_suffix(".py").read_text()))
        assert all(parameter["help"] for parameter in known.values())
