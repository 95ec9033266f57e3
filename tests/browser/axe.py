"""What axe-core, a checker of accessibility, finds wrong with a page; it lies in a package and needs no network."""

import json

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

GRAVE = ("serious", "critical")
SMALLEST = 12  # px
SMALL_TYPE = """selectors => [...new Set(selectors.flatMap(s => [...document.querySelectorAll(s)]))]
    .flatMap(root => [root, ...root.querySelectorAll("*")])
    .filter(e => e.checkVisibility({visibilityProperty: true, opacityProperty: true}))
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
    .filter(e => !e.closest("script, style, mjx-container, sup, sub, svg"))
    .filter(e => parseFloat(getComputedStyle(e).fontSize) < %d)
    .map(e => `${getComputedStyle(e).fontSize}: ${e.outerHTML.slice(0, 160)}`)"""


def complaints(page: Page, *parts: str, leaving_out: tuple[str, ...] = ()) -> list[str]:
    """The serious and the critical violations in parts of a page, by selectors; in all of it if none is given."""
    page.evaluate(AXE_SCRIPT)
    where = {"include": [[part] for part in parts] or [["html"]], "exclude": [[part] for part in leaving_out]}
    found = page.evaluate(f"axe.run({json.dumps(where)}, {{resultTypes: ['violations']}})")["violations"]
    return [
        f"{violation['impact']} {violation['id']}: {node['target']} {node['html'][:200]} {node['failureSummary']}"
        for violation in found
        if violation["impact"] in GRAVE
        for node in violation["nodes"]
    ]


def small_type(page: Page, *parts: str) -> list[str]:
    """Words in parts of a page that are set smaller than anybody should have to read."""
    return page.evaluate(SMALL_TYPE % SMALLEST, list(parts) or ["body"])
