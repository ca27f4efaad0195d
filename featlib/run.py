"""A run is a folder: where each thing in it lies, and where it came from.

`Run` knows the layout of `runs/<run>/` and writes `metrics.json` and `provenance.json` one chapter
at a time. `atomic_path` is the only way in which files are written: under a temporary name, then
renamed, so a killed process leaves no half-written file under a final name.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from featlib import FeatlibError
from featlib.family import BASE, CHILDREN, DOMAINS, MERGED, MODELS, PLACEBO
from featlib.params import Params

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("torch", "transformers", "transformer-lens", "tokenizers", "numpy", "scipy", "pandas")
ROOT = Path(__file__).resolve().parents[1]
# What each chapter leaves in the run's folder, besides its executed notebook.
MAKES: dict[str, list[str]] = {
    "01_corpora": ["tokens/"],
    "02_base_model": [f"models/{BASE}/"],
    "03_fine_tuning": [*(f"models/{m}/" for m in (*CHILDREN, PLACEBO)), "checkpoints/"],
    "04_merging": [f"models/{MERGED}/", "tables/merge_sweep.parquet"],
    "05_autoencoders": ["autoencoders/", "tables/autoencoder_cards.parquet"],
    "06_matching": [
        "features/",
        *(f"tables/{name}.parquet" for name in ("matches", "pairs", "flows", "seed_pairs")),
        *(f"tables/{name}.parquet" for name in ("kinds", "transfers", "transfer_shares")),
    ],
    "07_flow": [],
    "08_assignment": [],
    "09_exception": [f"tables/{name}.parquet" for name in ("answers", "merge_path")],
    "10_explanations": ["tables/explanations.parquet"],
    "11_controls": [f"tables/{name}.parquet" for name in ("control_shares", "recovered", "claims")],
    "12_atlas": ["atlas/"],
    "13_trust": [],
}
# The chapter after which each may run; where none is named, the one before it in the book.
AFTER = dict.fromkeys(
    ["08_assignment", "09_exception", "10_explanations", "11_controls"], "06_matching"
) | {"12_atlas": "10_explanations", "13_trust": "13_trust"}  # which reads published tables alone
NAMING = ("08_assignment", "09_exception")  # name features, each of which chapter 12 gives a page
# Chapters that make no headline number: other trainings do without them.
ASIDE = ("10_explanations", "12_atlas", "13_trust")


@contextlib.contextmanager
def atomic_path(final: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `final`; rename it to `final` on success, remove it on error.

    Works for a file and for a folder (an existing folder at `final` is replaced). A process killed
    half-way leaves only a dot-file, which the next writer of the same path removes.
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    for stale in final.parent.glob(f".{final.name}.tmp-*"):
        _remove(stale)
    tmp = final.with_name(f".{final.name}.tmp-{os.getpid()}")
    try:
        yield tmp
        if tmp.is_dir() and final.is_dir():
            old = final.with_name(f".{final.name}.tmp-old-{os.getpid()}")
            final.rename(old)
            tmp.rename(final)
            _remove(old)
        else:
            tmp.replace(final)
    finally:
        _remove(tmp)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    with atomic_path(path) as tmp:
        tmp.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


class Run:
    """The folder of one run and the names of what lies in it."""

    def __init__(self, name: str, root: str | Path | None = None) -> None:
        self.name = name
        self.folder = Path(root or os.environ.get("FEATLIB_RUNS") or ROOT / "runs") / name

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens"

    @property
    def tokenizer(self) -> Path:
        return self.tokens / "tokenizer"

    def model(self, model: str) -> Path:
        return self.folder / "models" / model

    def checkpoints(self, model: str) -> Path:
        """Folder of the weights kept along a fine-tune."""
        return self.folder / "checkpoints" / model

    def autoencoder(self, model: str, seed: int) -> Path:
        return self.folder / "autoencoders" / model / f"seed-{seed}"

    def features(self, model: str, seed: int) -> Path:
        return self.folder / "features" / f"{model}.seed-{seed}.npz"

    @property
    def controls(self) -> Path:
        """Folder of what notebooks/controls.py measured on this run."""
        return self.folder / "controls"

    def table(self, name: str) -> Path:
        return self.folder / "tables" / f"{name}.parquet"

    def save_table(self, name: str, table: pd.DataFrame) -> pd.DataFrame:
        """Keep a table under `tables/`, complete or not at all; gives it back."""
        with atomic_path(self.table(name)) as tmp:
            table.to_parquet(tmp)
        return table

    def read_table(self, name: str) -> pd.DataFrame:
        """A table of the run, or an error that names the chapter which makes it."""
        import pandas as pd

        path = needed(self.table(name))
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise damaged(path, error) from None

    def notebook(self, chapter: str) -> Path:
        return self.folder / "notebooks" / f"{chapter}.ipynb"

    def metrics(self) -> dict[str, float]:
        return self._read("metrics.json")

    def provenance(self) -> dict[str, Any]:
        return self._read("provenance.json")

    def recorded_params(self) -> dict[str, Any]:
        path = self.folder / "params.yaml"
        return yaml.safe_load(path.read_text()) if path.exists() else {}

    def write_params(self, params: Params) -> None:
        described = yaml.safe_dump(params.model_dump(), sort_keys=False)
        with atomic_path(self.folder / "params.yaml") as tmp:
            tmp.write_text(f"# All parameters of run {self.name}, resolved.\n{described}")

    def record_chapter(
        self, chapter: str, facts: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Add a chapter's facts to provenance.json and its numbers to metrics.json.

        Numbers that an earlier execution of the same chapter left are dropped first. A value that
        is not finite is refused: an absent number says "failed chapter", nan would hide it.
        """
        bad = [key for key, value in metrics.items() if not math.isfinite(value)]
        if bad:
            raise FeatlibError(f"chapter {chapter}: not finite: {', '.join(bad)}")
        with self._locked():
            provenance = self.provenance()
            before = provenance.get("chapters", {}).get(chapter, {}).get("metrics", [])
            kept = {k: v for k, v in self.metrics().items() if k not in set(before)}
            kept |= {k: float(v) for k, v in metrics.items()}
            write_json(self.folder / "metrics.json", kept)
            provenance |= {"run": self.name, **describe_machine()}
            chapters = provenance.setdefault("chapters", {})
            chapters[chapter] = {**facts, "metrics": sorted(metrics)}
            write_json(self.folder / "provenance.json", provenance)

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            return json.loads(path.read_text()) if path.exists() else {}
        except ValueError as error:
            raise damaged(path, error) from None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)  # released by the kernel even after kill -9
            yield


def needed(path: Path) -> Path:
    """`path`, or an error that names the chapter which makes it."""
    if not path.exists():
        raise FeatlibError(f"{path} is missing: {_maker(path)}")
    return path


def damaged(path: Path, error: Exception) -> FeatlibError:
    """What to say of a file that cannot be read to its end."""
    said = str(error).partition("\n")[0]
    return FeatlibError(f"{path} is damaged ({said}). Remove it: {_maker(path)}")


def _maker(path: Path) -> str:
    found = [c for c, made in MAKES.items() if any(f"/{m}" in f"{path.as_posix()}/" for m in made)]
    by = f"chapter {found[0]} makes it" if found else "the chapters make it"
    return f"{by}, run alone or by make book"


def prepare_run(run: Run, params: Params) -> None:
    """Make the run's folder and write params.yaml there.

    Raises `FeatlibError` where the folder cannot be written or its disk is too small for the run.
    """
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        if run.recorded_params() != params.model_dump():
            run.write_params(params)
        (run.folder / ".writable").touch()
        (run.folder / ".writable").unlink()
    except OSError as error:
        raise FeatlibError(
            f"{run.folder} cannot be written ({error.strerror}). Give it write permission, or set "
            "FEATLIB_RUNS to a folder where runs may lie."
        ) from None
    free, need = shutil.disk_usage(run.folder).free, expected_bytes(params)
    if free < need:
        raise FeatlibError(
            f"{run.folder}: {free / 1e9:.1f} GB free, this run needs about {need / 1e9:.1f} GB. "
            "Free some space, or set FEATLIB_RUNS to a folder on a larger disk."
        )


def check_held_out(run: Run, domain: str, split: str, tokens: int) -> None:
    """Refuse text of which a later chapter asks for more held-out tokens than there are."""
    params, read = run.recorded_params(), {"validation": ("evaluation", "sweep", "card")}
    for key in (f"{name}_tokens" for name in read.get(split, ["stream"] * (split == "test"))):
        if params[key] > tokens:
            raise FeatlibError(
                f"{key} = {params[key]:,}, but the {split} split of {domain} has {tokens:,}: "
                f"read more text, raise {split}_share, or ask for fewer"
            )


def expected_bytes(params: Params) -> int:
    """A generous estimate of what a run writes, from its sizes: twice what the arrays take."""
    d, mlp = params.hidden_size, params.intermediate_size
    model = 4 * (2 * params.vocab_size * d + 4 * d * d + 3 * d * mlp)
    autoencoder = 4 * (2 * mlp * params.d_sae + params.d_sae + mlp)
    megabytes = sum(getattr(params, f"{domain}_mb") for domain in DOMAINS)
    features = 4 * params.stream_tokens * params.k * 8
    per_model = model + params.sae_seeds * (autoencoder + features)
    return int(2 * (len(MODELS) * per_model + 4e6 * megabytes)) + 100_000_000  # and the book


def describe_machine() -> dict[str, Any]:
    """Commit, versions and hardware, as provenance.json keeps them."""
    import torch

    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, IndexError):
        text = Path("/proc/cpuinfo").read_text()
        cpu = text.split("model name", 1)[1].split(":", 1)[1].split("\n", 1)[0].strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    hardware = {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }
    versions = {"python": platform.python_version()} | {p: metadata.version(p) for p in PACKAGES}
    return {"commit": git_commit(), "hardware": hardware, "versions": versions}


def git_commit() -> str:
    """Short commit of the project, "+changes" where its code differs from it, or "unknown"."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return "unknown"
    changed = git("status", "--porcelain", "-uno", "--", "featlib", "notebooks/*.py")
    return f"{commit}+changes" if changed else commit
