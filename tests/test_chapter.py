"""The frame of a notebook: which value wins, what is refused, what is recorded."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from papermill.cli import _resolve_type
from publish import publish_controls

from featlib import FeatlibError
from featlib.chapter import Chapter, Provenance, declared_parameters, start_chapter
from featlib.params import Params
from featlib.run import Run, needed, prepare_run

CELL = 'run: str = "mini"  # name\nk: int = 16  # features\nmerge_t: float = 0.58  # where'


def begin(tmp_path, monkeypatch, injected: str = "", cell: str = CELL) -> Chapter:
    """Play the kernel: execute the cells as papermill would, keep their history in `In`."""
    monkeypatch.setenv("FEATLIB_RUNS", str(tmp_path))
    namespace: dict = {"In": ["", cell]}
    exec(cell, namespace)
    if injected:
        namespace["In"].append("# Parameters\n" + injected)
        exec(injected, namespace)
    namespace["In"].append("start_chapter(...)")
    return start_chapter("05_test", namespace)


def test_defaults_serve_a_new_run(tmp_path, monkeypatch):
    chapter = begin(tmp_path, monkeypatch)
    assert vars(chapter.params) == {"k": 16, "merge_t": 0.58}
    assert chapter.run.folder == tmp_path / "mini"


def test_injected_wins_over_recorded_wins_over_default(tmp_path, monkeypatch):
    prepare_run(Run("r", tmp_path), Params(run_name="r", k=4, merge_t=0.3))
    chapter = begin(tmp_path, monkeypatch, 'run = "r"\nk = 16')
    # k was given, though it equals the default; merge_t was not
    assert vars(chapter.params) == {"k": 16, "merge_t": 0.3}
    assert chapter.run.recorded_params()["k"] == 16


def test_a_cell_edited_by_hand_counts_as_given(tmp_path, monkeypatch):
    prepare_run(Run("mini", tmp_path), Params(k=4))
    chapter = begin(tmp_path, monkeypatch, cell=CELL.replace("16", "32"))
    assert chapter.params.k == 32


@pytest.mark.parametrize("name", ["merge_tt", "threshold"])  # unknown; of another chapter
def test_a_parameter_unknown_to_the_notebook_is_an_error(tmp_path, monkeypatch, name):
    with pytest.raises(FeatlibError, match=f"'{name}'"):
        begin(tmp_path, monkeypatch, f'run = "r"\n{name} = 0.3')
    assert not (tmp_path / "r").exists()


def test_a_page_made_with_other_parameters_is_withdrawn(tmp_path, monkeypatch):
    chapter = begin(tmp_path, monkeypatch)
    chapter.finish({"x": 1})
    page = chapter.run.notebook("05_test")
    page.parent.mkdir()
    page.touch()
    begin(tmp_path, monkeypatch)
    assert page.exists()
    begin(tmp_path, monkeypatch, "k = 8")
    assert not page.exists()


def test_a_chapter_reads_what_the_controls_kept_its_own_runs_first(tmp_path, monkeypatch):
    monkeypatch.setattr("featlib.chapter.PUBLISHED", tmp_path / "book")
    made = begin(tmp_path, monkeypatch, cell=f"{CELL}\nextra: list = [1, 2]  # its own")
    assert made.params.extra == [1, 2]
    reader = begin(tmp_path, monkeypatch, 'run = "other"')
    with pytest.raises(FeatlibError, match="make controls RUN=other"):
        reader.published("curve")
    table = pd.DataFrame({"tokens": [10, 20], "name": ["a", "b"], "share": [1 / 3, np.nan]})
    assert made.keep("curve", table) is table
    about = made.run.controls / "curve.json"
    about.write_text(about.read_text().replace("+changes", ""))
    publish_controls(made.run, tmp_path / "book")
    found = reader.published("curve")
    pd.testing.assert_frame_equal(found, table, rtol=1e-5)
    assert "run mini, commit" in found.attrs["made_by"]
    reader.keep("curve", table.head(1))
    assert len(reader.published("curve")) == 1


def test_the_closing_table_gives_the_command_that_repeats_the_page(tmp_path, monkeypatch):
    shown = begin(tmp_path, monkeypatch, 'run = "r"\nk = 8').finish({"sae.x": 0.5})
    assert shown.command == "papermill notebooks/05_test.ipynb out.ipynb -p run r -p k 8"
    page = shown._repr_html_()
    assert shown.command in page and "Features active per token" in page
    assert Run("r", tmp_path).metrics() == {"sae.x": 0.5}
    assert Run("r", tmp_path).provenance()["chapters"]["05_test"]["peak_memory_mb"] > 10


def test_the_command_writes_truth_values_as_papermill_reads_them():
    entry = {"parameters": {"control_step": True, "k": 8, "merge_method": "linear"}}
    command = Provenance("11_controls", "r", entry, {}).command
    assert command.endswith("-p run r -p control_step True -p k 8 -p merge_method linear")
    words = command.split(" -p ")[2:]
    given = {key: _resolve_type(value) for key, value in (word.split() for word in words)}
    assert given == entry["parameters"]


def test_only_the_first_parameters_cell_counts():
    tag = '# %% tags=["parameters"]'
    source = f"{tag}\na: int = 1  # one\n# %%\nb: int = 2\n{tag}\nc: int = 3"
    assert declared_parameters(source) == {"a": 1}


def test_a_missing_earlier_chapter_is_named(tmp_path):
    with pytest.raises(FeatlibError, match="chapter 02_base_model makes it"):
        needed(tmp_path / "models/base")
