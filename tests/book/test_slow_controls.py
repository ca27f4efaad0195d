"""notebooks/controls.py on a finished run, by the real papermill, and what chapters read of it."""

from __future__ import annotations

import jupytext
import pandas as pd
import pytest
from driver import ROOT, call, said

from featlib.chapter import Chapter
from featlib.family import BASE, CHILDREN, STEPS

SMALL = (
    "{sections: curve instrument warm_start crosscoder, curve_shares: [0.25, 1], "
    "crosscoder_share: 0.5}"
)


def test_what_is_too_slow_for_every_run_is_measured_on_a_finished_one(smoke, runs, tmp_path):
    plain, made = tmp_path / "plain.ipynb", tmp_path / "made.ipynb"
    jupytext.write(jupytext.read(ROOT / "notebooks/controls.py"), plain)
    words = [
        plain,
        made,
        "--kernel",
        "python3",
        "--language",
        "python",
        "-f",
        ROOT / "params/controls.yaml",
    ]
    small = ["-p", "run", smoke.name, "-y", SMALL]
    done = call("papermill", *map(str, words), *small, runs=runs)
    assert done.returncode == 0, said(done)[-3000:]
    chapter = Chapter("05_autoencoders", smoke, None)
    names = ["training_curve", "paper_instrument", "warm_start", "crosscoder"]
    curve, instrument, warm, joint = (chapter.published(name) for name in names)
    assert "run smoke" in curve.attrs["made_by"]

    k = smoke.recorded_params()["k"]
    assert curve["l0"].to_numpy() == pytest.approx(k, rel=0.01)
    for _, setting in curve.groupby("batch"):
        assert setting["activations"].is_monotonic_increasing and len(setting) == 2
        assert setting["fvu"].is_monotonic_decreasing
    assert instrument["l0"].to_numpy() == pytest.approx(k, rel=0.1)
    theirs = instrument.groupby("instrument").tail(1)
    assert theirs["ceiling"].isna().all(), "one seed has no ceiling"
    # Where a handful of tokens decides, everything matches.
    loose, strict = (instrument[instrument["least"] == n] for n in sorted(set(instrument["least"])))
    assert loose[[*CHILDREN]].min().min() > strict[[*CHILDREN]].max().max()
    assert set(zip(warm["parent"], warm["child"], strict=True)) == {(BASE, BASE), *STEPS}
    by_start = warm.pivot(index=["parent", "child"], columns="start", values="same_index")
    assert (by_start["warm"] > by_start["own"]).all(), "a shared start makes indices agree"
    firing = joint.groupby(["parent", "child"])["features"].sum()
    assert len(firing) == len(STEPS) and firing.gt(50).all()
    assert pd.to_numeric(joint["fvu"]).between(0, 1).all()
