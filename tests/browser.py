"""A reader with the network cut: opens pages of a built book in headless Chromium and checks them.

`open_browser()` gives a browser, `check_page(browser, path)` a list of faults (empty: the page is
sound), `check_search(browser, html, term)` the pages that the book's own search finds.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, NARROW = (1280, 900), (360, 780)


def find_chromium() -> str | None:
    """Path of Chromium: $CHROMIUM, or what the system has; None where there is none."""
    named = os.environ.get("CHROMIUM")
    if named:
        return named if Path(named).exists() else None
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """One page open in its own context, with what it said and what it asked for."""

    page: Page
    context: BrowserContext
    errors: list[str] = field(default_factory=list)  # console errors and uncaught exceptions
    requests: list[str] = field(default_factory=list)  # that would have left the file system


@contextmanager
def visit(
    browser: Browser, path: Path | str, *, size: tuple[int, int] = WIDE, mode: str = "light"
) -> Iterator[Visit]:
    """Open a file of the book with the network cut. `path` may end in ?query or #anchor."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=mode,
        reduced_motion="reduce",  # colours that are still on their way are nobody's fault
        offline=True,
    )
    # The theme keeps the reader's choice in local storage; without one it follows the system.
    context.add_init_script(f"localStorage.mode = localStorage.theme = {mode!r}")
    context.set_default_timeout(120_000)  # a busy machine is not a fault of the page
    page = context.new_page()
    seen = Visit(page, context)

    def route(route: Any) -> None:
        url = route.request.url
        if url.startswith(("file://", "data:", "blob:")):
            route.continue_()
        else:
            seen.requests.append(url)
            route.abort()

    context.route("**/*", route)
    page.on("console", lambda m: seen.errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on(
        "requestfailed",
        lambda r: seen.errors.append(f"not loaded: {r.url}") if r.url.startswith("file:") else None,
    )
    url = path if str(path).startswith("file://") else Path(path).resolve().as_uri()
    try:
        page.goto(str(url), wait_until="load")
        yield seen
    finally:
        context.close()


DRAW = """async ([mode, seconds]) => {
  const figures = [...document.querySelectorAll('figure.fl-figure:has(script.fl-spec)')];
  const done = (figure) => ['failed', mode].includes(figure.dataset.drawn);
  const end = performance.now() + 1000 * seconds;
  for (const figure of figures) {
    while (!done(figure) && performance.now() < end) {
      // Again and again, since what is drawn above may move this one away.
      figure.scrollIntoView({block: 'center', behavior: 'instant'});
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  return [figures.length, figures.filter((figure) => !done(figure)).map((figure) => figure.id)];
}"""


def draw_charts(page: Page, mode: str = "light", seconds: float = 120) -> int:
    """Scroll through the page until each chart is drawn live in `mode`; how many there are."""
    count, undrawn = page.evaluate(DRAW, [mode, seconds])
    assert not undrawn, f"not drawn in {mode} within {seconds} s: {', '.join(undrawn)}"
    return int(count)


MARKS = """() => [...document.querySelectorAll('figure.fl-figure:has(script.fl-spec)')].map(f => ({
  name: f.id,
  drawn: f.dataset.drawn ?? 'not drawn',
  marks: f.querySelectorAll('.fl-live svg :is(path, text, line)').length,
  width: f.querySelector('.fl-live svg')?.getBoundingClientRect().width ?? 0,
  room: f.querySelector('.fl-chart').clientWidth,
  staticShown: f.querySelector('.fl-static').checkVisibility(),
  alt: f.querySelector('.fl-live')?.getAttribute('aria-label') ?? '',
  svgAlt: f.querySelector('.fl-static svg')?.getAttribute('aria-label') ?? '',
  caption: f.querySelector('figcaption p')?.textContent ?? '',
  nan: /NaN|undefined|Infinity/.test(f.querySelector('.fl-live')?.innerHTML ?? ''),
}))"""


def check_page(
    browser: Browser, path: Path | str, *, size: tuple[int, int] = WIDE, mode: str = "light"
) -> list[str]:
    """Faults of one page in one mode and size: errors, requests, charts, maths, overflow."""
    faults: list[str] = []
    with visit(browser, path, size=size, mode=mode) as seen:
        page = seen.page
        draw_charts(page, mode)
        for chart in page.evaluate(MARKS):
            where = f"chart {chart['name']}"
            if chart["drawn"] != mode:
                faults.append(f"{where}: {chart['drawn']}, expected {mode}")
            if chart["marks"] < 5:
                faults.append(f"{where}: only {chart['marks']} marks")
            if chart["width"] > chart["room"] + 1:
                faults.append(f"{where}: {chart['width']:.0f} px in a room of {chart['room']}")
            if chart["staticShown"]:
                faults.append(f"{where}: the static drawing shows beside the live one")
            if not chart["alt"] or chart["alt"] != chart["svgAlt"]:
                faults.append(f"{where}: alternative text {chart['alt']!r}, {chart['svgAlt']!r}")
            if not chart["caption"]:
                faults.append(f"{where}: no caption")
            if chart["nan"]:
                faults.append(f"{where}: NaN or undefined in the drawing")
        faults += page.evaluate(
            """() => [...document.querySelectorAll('.math')]
              .filter(m => !m.querySelector('math'))
              .map(m => `maths not shown: ${m.textContent.slice(0, 60)}`)"""
        )
        faults += page.evaluate(
            """() => [...document.querySelectorAll('.fl-equation:has(math)')]
              .filter(e => e.querySelector('math').getBoundingClientRect().left
                < e.getBoundingClientRect().left - 1)
              .map(e => `no scrolling leads to the beginning of ${e.textContent.slice(0, 60)}`)"""
        )
        faults += page.evaluate(
            """() => [...document.querySelectorAll('main img')]
              .filter(i => !i.naturalWidth || !i.alt).map(i => `image ${i.src}: broken, no alt`)"""
        )
        faults += page.evaluate(
            """() => [...document.querySelectorAll('[id]')].map(e => e.id)
              .filter((id, i, all) => all.indexOf(id) !== i).map(id => `id ${id} used twice`)"""
        )
        over = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if over > 1:
            faults.append(f"the page is {over} px wider than the window of {size[0]}")
        faults += [f"console: {text}" for text in seen.errors]
        faults += [f"request left: {url}" for url in seen.requests]
    return [f"{Path(str(path)).name} ({mode}, {size[0]} px): {fault}" for fault in faults]


def check_theme_switch(browser: Browser, path: Path | str) -> list[str]:
    """Faults when the reader presses the theme button: every chart is drawn anew in the other."""
    with visit(browser, path, mode="light") as seen:
        page = seen.page
        if draw_charts(page, "light") == 0:
            return [f"{path}: no chart to switch"]
        texts = "[...document.querySelectorAll('.fl-live svg text')]"
        inks = f"() => {texts}.map(t => t.getAttribute('fill'))"
        before = page.evaluate(inks)
        for _ in range(3):  # the button goes round light, dark and the system's own
            page.locator("button.theme-switch-button:visible").first.click()
            if page.evaluate("document.documentElement.dataset.theme") == "dark":
                break
        draw_charts(page, "dark")
        after = page.evaluate(inks)
        faults = [] if before and set(before) != set(after) else ["charts kept their ink"]
        return faults + seen.errors + seen.requests


def switch_mode(page: Page, mode: str) -> int:
    """Put an open page into the other mode, as the theme button does; how many charts it drew."""
    page.evaluate("mode => (document.documentElement.dataset.theme = mode)", mode)
    return draw_charts(page, mode)


PRINTED = """() => [...document.querySelectorAll('figure.fl-figure, .fl-strip')]
  .filter(f => !f.closest('#fl-atlas')).map(f => {  // the atlas is for the screen
  const still = f.querySelector('.fl-static svg, .fl-tokens') ?? f.querySelector('svg');
  const { width, height } = still?.getBoundingClientRect() ?? { width: 0, height: 0 };
  return {
    name: f.id || f.className,
    still: (still?.checkVisibility() ?? false) && width > 50 && height > 10,
    live: f.querySelector('.fl-live')?.checkVisibility() ?? false,
    ink: getComputedStyle(still ?? f).color,
  };
})"""


def print_faults(page: Page) -> list[str]:
    """Faults of an open page as it is printed: figures and strips show, still and in dark ink."""
    page.emulate_media(media="print")
    faults = [
        f"{f['name']}: printed still {f['still']}, live {f['live']}, ink {f['ink']}"
        for f in page.evaluate(PRINTED)
        if not f["still"] or f["live"] or f["ink"] != "rgb(31, 35, 40)"
    ]
    page.emulate_media(media="screen")
    return faults


def check_print(browser: Browser, path: Path | str) -> list[str]:
    """Faults of the printed page, opened in the dark with all its charts drawn."""
    with visit(browser, path, mode="dark") as seen:
        draw_charts(seen.page, "dark")
        return print_faults(seen.page)


def check_search(browser: Browser, html: Path, term: str) -> tuple[list[str], list[str]]:
    """(titles that the book's search finds for `term`, faults), from the file system."""
    url = f"{(html / 'search.html').resolve().as_uri()}?q={term}"
    with visit(browser, url) as seen:
        seen.page.wait_for_function(
            "() => /finished|did not match/i.test("
            "document.querySelector('#search-results')?.innerText)"
        )
        titles = seen.page.locator("#search-results li a").all_inner_texts()
        return titles, seen.errors + seen.requests
