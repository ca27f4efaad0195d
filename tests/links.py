"""Every link of a built book leads somewhere: files, and anchors inside them."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

OUTSIDE = re.compile(r"^(?:https?:|mailto:|data:|javascript:|//)")
# Where an address can stand, by tag.
ADDRESSES = {
    "a": ("href",),
    "link": ("href",),
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "object": ("data",),
    "form": ("action",),
}


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
    def features(path: Path) -> dict[str, int]:
        """How many features each model has whose pages this page makes."""
        found = {}
        for tag in page(path).select("[data-deep-links]"):
            index = (path.parent / tag["data-deep-links"]).read_text(encoding="ascii")
            known = json.loads(index[index.index("{") : index.rindex("}") + 1])
            found |= {model["name"]: model["features"] for model in known["models"]}
        return found

    def is_feature(path: Path, anchor: str) -> bool:
        model, _, number = anchor.partition("?")[0].partition("/")
        return number.isdigit() and int(number) < features(path).get(model, 0)

    faults = []
    for path in sorted(p for p in html.rglob("*.html") if "_static" not in p.parts):
        for address in _addresses(page(path)):
            if not address or OUTSIDE.match(address):
                continue
            parts = urlsplit(address)
            where = f"{path.relative_to(html)}: {address}"
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_relative_to(html):
                faults.append(f"{where} leaves the book")
            elif not target.is_file():
                faults.append(f"{where} is no file")
            elif parts.fragment and target.suffix == ".html":
                anchor = unquote(parts.fragment)
                if anchor not in anchors(target) and not is_feature(target, anchor):
                    faults.append(f"{where} has no such anchor")
    for path in sorted(html.rglob("*.css")):
        for address in re.findall(r"url\(\s*['\"]?([^'\")]+)", path.read_text(encoding="utf-8")):
            target = (path.parent / unquote(urlsplit(address).path)).resolve()
            if not OUTSIDE.match(address) and address[0] != "#" and not target.is_file():
                faults.append(f"{path.relative_to(html)}: {address} is no file")
    return list(dict.fromkeys(faults))


def _addresses(page: BeautifulSoup) -> list[str]:
    found = []
    for tag, attributes in ADDRESSES.items():
        for node in page.find_all(tag):
            for attribute in attributes:
                value = (node.get(attribute) or "").strip()
                many = value.split(",") if attribute == "srcset" else [value]
                found += [one.split()[0] if one.split() else "" for one in many]
    return found
