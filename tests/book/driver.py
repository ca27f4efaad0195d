"""The real Snakemake and papermill, called as a user calls them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9]*.py"))]
SMOKE = ["--cores", "2", "--configfile", str(ROOT / "params/smoke.yaml")]


def call(program: str, *words: str, runs: Path, **more) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", program, *words]
    environment = {**os.environ, "FEATLIB_RUNS": str(runs)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, **more
    )


def said(done: subprocess.CompletedProcess) -> str:
    return done.stdout + done.stderr


def jobs(*words: str, runs: Path) -> set[str]:
    """Names of the rules that Snakemake would run."""
    done = call("snakemake", *SMOKE, "--dry-run", "--quiet", "host", *words, runs=runs)
    assert done.returncode == 0, said(done)
    lines = said(done).splitlines()
    return {
        line.split()[1].rstrip(":") for line in lines if line.startswith(("rule ", "localrule "))
    } - {"all"}
