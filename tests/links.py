"""Every link of a built book leads somewhere: files, and anchors inside them."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

OUTSIDE = re.compile(r"^(?:https?:|mailto:|data:|javascript:|//)")


def broken_links(html: Path) -> list[str]:
    """Faults of all pages below `html`: internal addresses and #anchors that lead nowhere.

    A page that makes its anchors itself, one for each feature, names in `data-deep-links` the index
    of the atlas, which says what features there are.
    """
    html = html.resolve()

    @cache
    def page(path: Path) -> BeautifulSoup:
        return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")

    @cache
    def anchors(path: Path) -> frozenset[str]:
        named = {tag["id"] for tag in page(path).find_all(id=True)}
        return frozenset(named | {tag["name"] for tag in page(path).select("a[name]")})

    @cache
    def features(path: Path) -> dict[str, set[int]]:
        """The features of each dictionary whose pages this page makes."""
        found = {}
        for tag in page(path).select("[data-deep-links]"):
            index = (path.parent / tag["data-deep-links"]).read_text(encoding="ascii")
            known = json.loads(index[index.index("{") : index.rindex("}") + 1])
            for one in known["dictionaries"]:
                found[one["name"]] = set(one.get("numbers", range(one["features"])))
        return found

    def fault(path: Path, address: str) -> str:
        parts = urlsplit(address)
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.is_relative_to(html) or not target.is_file():
            return "is no file of the book"
        anchor = unquote(parts.fragment)
        if anchor and target.suffix == ".html" and anchor not in anchors(target):
            name, _, number = anchor.partition("?")[0].rpartition("/")
            known = features(target).get(name.replace("/s0", "").replace("/s", "-s"), set())
            if not (number.isdigit() and int(number) in known):
                return "has no such anchor"
        return ""

    faults = []
    for path in sorted(p for p in html.rglob("*.html") if "_static" not in p.parts):
        tags = page(path).select("[href], [src]")
        for address in {str(tag.get("href") or tag.get("src") or "").strip() for tag in tags}:
            if address and not OUTSIDE.match(address) and (said := fault(path, address)):
                faults.append(f"{path.relative_to(html)}: {address} {said}")
    for path in sorted(html.rglob("*.css")):
        for address in re.findall(r"url\(\s*['\"]?([^'\")]+)", path.read_text(encoding="utf-8")):
            target = (path.parent / unquote(urlsplit(address).path)).resolve()
            if not OUTSIDE.match(address) and address[0] != "#" and not target.is_file():
                faults.append(f"{path.relative_to(html)}: {address} is no file")
    return sorted(faults)
