"""Every figure of a built book has its finding in words, the table behind it, and what made it."""

from __future__ import annotations

import base64
import csv
import io
import re
from pathlib import Path

from bs4 import BeautifulSoup, Tag

DIAGRAMS = {"fig-design"}  # drawn from no table


def figure_faults(html: Path) -> list[str]:
    """Faults of all figures of the pages below `html`."""
    faults = []
    for path in sorted(p for p in html.rglob("*.html") if "_static" not in p.parts):
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for figure in page.select("figure.fl-figure"):
            where = f"{path.relative_to(html)}: {figure.get('id')}"
            faults += [f"{where}: {fault}" for fault in _faults(figure)]
    return faults


def _faults(figure: Tag) -> list[str]:
    faults = []
    said = figure.select_one(":is([role=img], [role=group])[aria-label]")
    told = str(said["aria-label"]) if said else ""
    diagram = figure.get("id") in DIAGRAMS
    if len(told.split()) < 4 or not (diagram or re.search(r"\d", told)):
        faults.append(f"the alternative text {told!r} states no finding")
    if not figure.select_one(".fl-made"):
        faults.append("nothing says what made it")
    if diagram:
        return faults
    link = figure.select_one("a[download]")
    if link is None:
        return [*faults, "no table to download"]
    text = base64.b64decode(str(link["href"]).split("base64,")[1]).decode()
    rows = list(csv.reader(io.StringIO(text)))
    promised = re.search(r"\(([\d,]+) rows?", figure.select_one("summary").get_text())
    wanted = int(promised[1].replace(",", "")) if promised else -1
    if len(rows) - 1 != wanted:
        faults.append(f"its table has {len(rows) - 1} rows to download, of {wanted}")
    if len({len(row) for row in rows}) != 1:
        faults.append("its table is ragged")
    return faults
