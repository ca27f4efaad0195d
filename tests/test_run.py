"""A run's folder: what is written there is whole or not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pandas as pd
import pytest

from featlib import FeatlibError
from featlib.params import Params
from featlib.run import Run, atomic_path, check_held_out, expected_bytes, prepare_run


def test_atomic_path_replaces_files_and_folders(tmp_path):
    for text in ("one", "two"):
        with atomic_path(tmp_path / "deep/file") as tmp:
            tmp.write_text(text)
        assert (tmp_path / "deep/file").read_text() == text
    for name in ("a", "b"):
        with atomic_path(tmp_path / "folder") as tmp:
            tmp.mkdir()
            (tmp / name).touch()
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["b"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "folder"]


def test_an_error_or_a_killed_writer_leaves_the_old_file_and_its_rest_is_swept_up(tmp_path):
    final = tmp_path / "file"
    final.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(final) as tmp:
        tmp.write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and final.read_text() == "old"
    code = f"""
        import time
        from featlib.run import atomic_path
        with atomic_path({str(final)!r}) as tmp:
            tmp.write_text("half")
            print("writing", flush=True)
            time.sleep(60)
    """
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout.readline() == "writing\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert final.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2  # the rest of the killed writer
    with atomic_path(final) as tmp:
        tmp.write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and final.read_text() == "new"


def test_metrics_of_a_chapter_replace_its_older_ones_only(tmp_path):
    run = Run("r", tmp_path)
    run.record_chapter("02", {"seconds": 1}, {"a": 1, "gone": 2})
    run.record_chapter("03", {"seconds": 1}, {"b": 3})
    run.record_chapter("02", {"seconds": 2}, {"a": 4})
    assert run.metrics() == {"a": 4.0, "b": 3.0}
    provenance = run.provenance()
    assert provenance["chapters"]["02"]["seconds"] == 2
    assert provenance["hardware"]["cores"] == os.cpu_count()
    assert provenance["versions"]["torch"]


def test_a_number_that_is_not_finite_is_refused(tmp_path):
    with pytest.raises(FeatlibError, match=r"chapter 05: not finite: sae\.fvu"):
        Run("r", tmp_path).record_chapter("05", {}, {"sae.fvu": float("nan"), "ok": 1.0})
    assert not (tmp_path / "r/metrics.json").exists()


def test_resolved_parameters_come_back_as_they_were(tmp_path):
    run, params = Run("r", tmp_path), Params(run_name="r", merge_t=0.25, l1=1e-5)
    prepare_run(run, params)
    assert Params(**run.recorded_params()) == params


def test_too_little_held_out_text_is_refused_with_the_key_that_asks_for_it(tmp_path):
    run = Run("r", tmp_path)
    prepare_run(run, Params(run_name="r", card_tokens=900, evaluation_tokens=800, sweep_tokens=700))
    check_held_out(run, "lua", "train", 1)
    check_held_out(run, "lua", "validation", 900)
    for split, key in (("validation", "card_tokens = 900"), ("test", "stream_tokens = 40,000")):
        with pytest.raises(FeatlibError, match=f"{key}, but the {split} split of lua has 899"):
            check_held_out(run, "lua", split, 899)


def test_an_unwritable_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FeatlibError, match="cannot be written"):
        prepare_run(Run("r", tmp_path / "file"), Params())


def test_too_small_a_disk_is_refused(tmp_path, monkeypatch):
    free = expected_bytes(Params()) - 1
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("U", (), {"free": free})())
    with pytest.raises(FeatlibError, match=r"GB free, this run needs about"):
        prepare_run(Run("r", tmp_path), Params())


def test_chapters_that_end_together_lose_nothing_and_a_killed_one_leaves_no_lock(tmp_path):
    code = (
        "import sys, time; from featlib.run import Run; run = Run('r', sys.argv[1])\n"
        "run.record_chapter(sys.argv[2], {}, {sys.argv[2]: 1.0})\n"
        "with run._locked() if sys.argv[2] == 'dies' else open('/dev/null'):\n"
        "    print('held', flush=True); time.sleep(60 * (sys.argv[2] == 'dies'))"
    )
    workers = {
        name: subprocess.Popen(
            [sys.executable, "-c", code, tmp_path, name], stdout=subprocess.PIPE, text=True
        )
        for name in ("a", "b", "c")
    }
    assert [w.wait() for w in workers.values()] == [0] * 3
    holder = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path, "dies"], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    Run("r", tmp_path).record_chapter("01", {}, {"x": 1})  # would wait for ever on a lock left
    assert sorted(Run("r", tmp_path).metrics()) == ["a", "b", "c", "dies", "x"]


def test_a_damaged_file_is_named_with_the_chapter_that_makes_it(tmp_path):
    run = Run("r", tmp_path)
    run.save_table("matches", pd.DataFrame({"r": range(100)}))
    whole = run.table("matches").read_bytes()
    for rest in (whole[: len(whole) // 2], b""):
        run.table("matches").write_bytes(rest)
        with pytest.raises(FeatlibError, match=r"matches.parquet is damaged .*chapter 06_matching"):
            run.read_table("matches")
    (run.folder / "metrics.json").write_text('{"a": 1')
    with pytest.raises(FeatlibError, match=r"metrics.json is damaged"):
        run.metrics()
