"""Snakemake's profiles: each is read whole, and names nothing that does not exist."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEFAULT, SLURM = (
    yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text())
    for name in ("default", "slurm")
)


def plan(runs: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm"]
    more = ["--configfile", "params/smoke.yaml", "--dry-run", *words]
    environment = {**os.environ, "FEATLIB_RUNS": str(runs)}
    return subprocess.run(
        [*command, *more], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_the_slurm_profile_names_chapters_that_exist_and_room_for_all_its_jobs():
    chapters = {f"chapter_{path.stem}" for path in (ROOT / "notebooks").glob("[0-9]*.py")}
    assert set(SLURM["set-resources"]) <= chapters
    assert SLURM["cores"] == SLURM["jobs"] * SLURM["max-threads"]
    # It takes the place of the default profile, so it must say all that the default says.
    assert DEFAULT.items() <= SLURM.items()


def test_snakemake_takes_every_key_of_the_slurm_profile(tmp_path):
    done = plan(tmp_path, "--executor", "local")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "chapter_11_controls" in done.stdout + done.stderr


def test_without_the_plugin_it_is_said_which_executor_is_missing(tmp_path):
    done = plan(tmp_path)
    if done.returncode != 0:  # the plugin is no dependency; where it is installed, the plan works
        assert "invalid choice: 'slurm'" in done.stderr and "Traceback" not in done.stderr
