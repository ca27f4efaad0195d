"""Accessibility of an open page, by axe-core (https://github.com/dequelabs/axe-core).

axe-core is a package of npm: it is fetched once, at a pinned version and hash, into a cache.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Page

VERSION = "4.10.3"
SHA256 = "880970c081707360e64f34cea25ff91892f5bc95675b0776925b9709dd8a68bb"
SERIOUS = ("serious", "critical")


@cache
def axe_source() -> str:
    """The library's source; the test is skipped where it is neither cached nor to be had."""
    folder = Path(os.environ.get("FEATLIB_CACHE") or Path.home() / ".cache" / "featlib")
    cached = folder / f"axe-core-{VERSION}.min.js"
    if not cached.exists():
        source = _fetch()
        folder.mkdir(parents=True, exist_ok=True)
        cached.with_suffix(f".{os.getpid()}").write_bytes(source)
        cached.with_suffix(f".{os.getpid()}").replace(cached)
    source = cached.read_bytes()
    if hashlib.sha256(source).hexdigest() != SHA256:
        raise AssertionError(f"{cached} is not axe-core {VERSION}: delete it and run again")
    return source.decode()


def _fetch() -> bytes:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"no npm to fetch axe-core {VERSION} with: install Node.js to run this test")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"axe-core@{VERSION}", "--silent", "--pack-destination", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)
        if done.returncode != 0:
            pytest.skip(f"npm could not fetch axe-core {VERSION}: {done.stderr.strip()[-200:]}")
        archive = next(Path(folder).glob("*.tgz")).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        member = tar.extractfile("package/axe.min.js")
        assert member is not None
        return member.read()


RUN = """async ([options]) => {
  const { violations } = await axe.run(document, options);
  return violations.map(v => ({
    rule: v.id, impact: v.impact, help: v.help, n: v.nodes.length,
    where: v.nodes.slice(0, 3).map(n => n.target.join(' ') + ' | ' +
      [...n.any, ...n.all].map(c => c.message).join('; ').slice(0, 200)),
  }));
}"""


def check_axe(page: Page, *, impacts: tuple[str, ...] = SERIOUS) -> list[str]:
    """Accessibility faults of a page that is open, as it stands, of the given impacts."""
    page.evaluate(axe_source())
    found = page.evaluate(RUN, [{"resultTypes": ["violations"]}])
    return [
        f"{v['rule']} ({v['impact']}, {v['n']} places): {v['help']}: " + "  ///  ".join(v["where"])
        for v in found
        if v["impact"] in impacts
    ]
