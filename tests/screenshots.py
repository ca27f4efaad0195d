"""Pictures of a book's key pages, to look at: `python tests/screenshots.py runs/mini`.

Each page is taken whole at 1280 and 390 pixels, in light and dark, the network cut, into
`runs/<run>/screenshots/`; `index.html` there shows all of them side by side.
"""

from __future__ import annotations

import argparse
import html
import sys
from collections.abc import Sequence
from pathlib import Path

from browser import draw_charts, find_chromium, open_browser, visit

from featlib import FeatlibError
from featlib.run import atomic_path

PAGES = (
    "book/index", "book/experiment", "book/deviations", "notebooks/02_base_model",
    "notebooks/06_matching", "notebooks/07_flow", "notebooks/09_exception",
    "notebooks/11_controls", "book/atlas", "book/run-it-yourself", "book/glossary",
)  # fmt: skip
WIDTHS = (1280, 390)
MODES = ("light", "dark")


def take_screenshots(run: Path, pages: Sequence[str] = PAGES) -> Path:
    """Pictures of `pages` of the run's book; the page that shows them all."""
    book = run / "book" / "html"
    missing = [page for page in pages if not (book / f"{page}.html").exists()]
    if not (book / "index.html").exists():
        raise FeatlibError(f"{run} has no book yet: make book RUN={run.name}")
    if missing:
        known = sorted(str(p.relative_to(book))[:-5] for p in book.glob("[bn]*/*.html"))
        raise FeatlibError(
            f"no page {', '.join(missing)} in the book; there are {', '.join(known)}"
        )
    if find_chromium() is None:
        raise FeatlibError(
            "no Chromium to take pictures with: install one (Debian: apt install chromium), or "
            "name one: CHROMIUM=/path/to/chromium make screenshots"
        )
    with atomic_path(run / "screenshots") as folder, open_browser() as browser:
        folder.mkdir()
        for page in pages:
            for width in WIDTHS:
                for mode in MODES:
                    with visit(
                        browser, book / f"{page}.html", size=(width, 900), mode=mode
                    ) as seen:
                        draw_charts(seen.page, mode)
                        if seen.page.locator("#fl-atlas").count():
                            seen.page.wait_for_selector("#fl-atlas[data-complete], [role=alert]")
                        seen.page.evaluate("scrollTo(0, 0)")
                        path = folder / picture(page, width, mode)
                        seen.page.screenshot(path=path, full_page=True)
        (folder / "index.html").write_text(contact_sheet(run.name, pages), encoding="utf-8")
    return run / "screenshots" / "index.html"


def picture(page: str, width: int, mode: str) -> str:
    return f"{page.rpartition('/')[2]}-{width}-{mode}.png"


def contact_sheet(run: str, pages: Sequence[str]) -> str:
    """All pictures, one row a page."""
    rows = []
    for page in pages:
        rows.append(f"<h2>{html.escape(page)}</h2><div>")
        for width in WIDTHS:
            for mode in MODES:
                name = html.escape(picture(page, width, mode), quote=True)
                rows.append(
                    f'<a href="{name}"><img src="{name}" loading="lazy" '
                    f'alt="{html.escape(page)}, {width} pixels wide, {mode}"></a>'
                )
        rows.append("</div>")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>Screenshots of {html.escape(run)}</title>"
        "<style>body{font-family:sans-serif;margin:2rem}div{display:flex;gap:1rem;"
        "align-items:start}a{flex:1 1 0}a:nth-child(n+3){flex:0.4 1 0}"
        "img{width:100%;border:1px solid #8888}</style>"
        f"<h1>Screenshots of {html.escape(run)}</h1>{''.join(rows)}</html>\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished run, such as runs/mini")
    parser.add_argument("pages", nargs="*", help="pages, such as book/index; the key ones if none")
    arguments = parser.parse_args()
    try:
        print(f"The pictures: {take_screenshots(arguments.run, arguments.pages or PAGES)}")
    except FeatlibError as problem:
        sys.exit(f"\n{problem}\n")
