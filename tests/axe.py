"""Accessibility of an open page, by axe-core (https://github.com/dequelabs/axe-core)."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page


def check_axe(page: Page, *, impacts: tuple[str, ...] = ("serious", "critical")) -> list[str]:
    """Accessibility faults of a page that is open, as it stands, of the given impacts."""
    found = [v for v in Axe().run(page).response["violations"] if v["impact"] in impacts]
    return [
        f"{v['id']} ({v['impact']}, {len(v['nodes'])} places): {v['help']}: "
        + "  ///  ".join(f"{n['target']} | {n['failureSummary'][:200]}" for n in v["nodes"][:3])
        for v in found
    ]
