"""Minutes of reading in a built book, page by page: `python tests/reading.py runs/mini`.

Tables count; what is folded or drawn does not, nor what each page says of its run.
"""

import sys
from pathlib import Path

from bs4 import BeautifulSoup

WORDS = 230  # read in a minute
UNREAD = "script, style, svg, details, .headerlink, .fl-provenance, .fl-made, .fl-tokens"


def reading_minutes(html: Path) -> dict[str, float]:
    """Minutes for each page below `html`, by its name."""
    found = {}
    for path in [*sorted(html.glob("book/*.html")), *sorted(html.glob("notebooks/*.html"))]:
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").select_one("article")
        for part in page.select(UNREAD):
            part.decompose()
        for formula in page.select("math"):
            formula.replace_with("formula")
        found[f"{path.parent.name}/{path.stem}"] = len(page.get_text(" ").split()) / WORDS
    return found


if __name__ == "__main__":
    minutes = reading_minutes(Path(*sys.argv[1:]) / "book/html")
    for name, took in [*minutes.items(), ("all", sum(minutes.values()))]:
        print(f"{took:5.1f}  {name}")
