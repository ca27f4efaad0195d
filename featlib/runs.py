"""Runs, parameters and what is written about them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

MODELS = ("base", "lua", "tinystories", "merged")
DOMAINS = ("babylm", "python", "lua", "tinystories")
PRINT_NAMES = {
    "base": "BabyPython",
    "lua": "Lua",
    "tinystories": "TinyStories",
    "merged": "LuaStories",
}
DOMAIN_NAMES = {
    "babylm": "BabyLM",
    "python": "Python",
    "lua": "Lua",
    "tinystories": "TinyStories",
}


class FeatlibError(ValueError):
    """An error meant for the person at the keyboard: what was wrong, where, and what to do."""


@contextlib.contextmanager
def atomic_path(final: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `final`; rename it to `final` on success, remove it on error.

    Works for a file and for a folder (an existing folder at `final` is replaced). A process killed
    half-way leaves only a dot-file, which the next writer of the same path removes.
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    tmp = final.with_name(f".{final.name}.tmp-{os.getpid()}")
    for stale in final.parent.glob(f".{final.name}.tmp-*"):
        _remove(stale)
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
