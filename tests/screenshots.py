"""Pictures of a book's key pages, to look at: `python tests/screenshots.py runs/mini`.

Each page is taken whole at 1280 and 390 pixels, in light and dark, the network cut, into
`runs/<run>/screenshots/`; `index.html` there shows all of them side by side.
"""

from __future__ import annotations

import html
import itertools
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
    rows = []
    with atomic_path(run / "screenshots") as folder, open_browser() as browser:
        folder.mkdir()
        for page in pages:
            rows.append(f"<h2>{html.escape(page)}</h2>")
            for width, mode in itertools.product(WIDTHS, MODES):
                name = f"{page.rpartition('/')[2]}-{width}-{mode}.png"
                with visit(browser, book / f"{page}.html", size=(width, 900), mode=mode) as seen:
                    draw_charts(seen.page, mode)
                    if seen.page.locator("#fl-atlas").count():
                        seen.page.wait_for_selector("#fl-atlas[data-complete], [role=alert]")
                    # The window as high as the page: pictures of more than the window can shift.
                    height = seen.page.evaluate("document.documentElement.scrollHeight")
                    seen.page.set_viewport_size({"width": width, "height": max(height, 900)})
                    draw_charts(seen.page, mode)
                    seen.page.evaluate("scrollTo(0, 0)")
                    seen.page.screenshot(path=folder / name)
                rows.append(f'<img src="{name}" width="{width // 4}" alt="{name}" loading="lazy">')
        title = f"<meta charset=utf-8><title>Screenshots of {html.escape(run.name)}</title>"
        sheet = f"<!doctype html><html lang=en>{title}{''.join(rows)}</html>"
        (folder / "index.html").write_text(sheet, encoding="utf-8")
    return run / "screenshots" / "index.html"


if __name__ == "__main__":
    try:
        pages = sys.argv[2:] or PAGES
        print(f"The pictures: {take_screenshots(Path(sys.argv[1]), pages)}")
    except FeatlibError as problem:
        sys.exit(f"\n{problem}\n")
