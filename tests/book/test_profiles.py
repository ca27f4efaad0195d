"""Snakemake's profile for Slurm: it is read whole, and names nothing that does not exist."""

from __future__ import annotations

import yaml
from driver import CHAPTERS, ROOT, SMOKE, call, said

DEFAULT, SLURM = (
    yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text())
    for name in ("default", "slurm")
)


def test_the_slurm_profile_names_chapters_that_exist_and_snakemake_takes_every_key(tmp_path):
    assert set(SLURM["set-resources"]) <= {f"chapter_{chapter}" for chapter in CHAPTERS}
    assert SLURM["cores"] == SLURM["jobs"] * SLURM["max-threads"]
    # It takes the place of the default profile, so it must say all that the default says.
    assert DEFAULT.items() <= SLURM.items()
    words = ["--workflow-profile", str(ROOT / "profiles/slurm"), "--dry-run", "--executor", "local"]
    done = call("snakemake", *SMOKE, *words, runs=tmp_path)
    assert done.returncode == 0 and "chapter_11_controls" in said(done), said(done)[-2000:]
