"""For everybody: names for screen readers, contrast, type that can be read, the keyboard alone, any language, paper."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from spai_lab.workbook import notebooks_folder, read, to_bytes
from tests.browser.axe import complaints, small_type

pytestmark = pytest.mark.browser

START, GRADIENTS, ENCRYPTION = "00_start_here", "02_gradient_attacks", "14_homomorphic_encryption"
OURS = ".jp-OutputArea-output"
TABLE = """\
import pandas as pd
from spai_lab.widgets.sortable import sortable_table
frame = pd.DataFrame({"attack": ["PGD", "FGSM"], "time": ["60 ms", "19 µs"], "n": [1000, 100]})
sortable_table(frame, caption="Two attacks.")"""
OUTCOME = 'compare("02-fgsm", 26.0, "Left after FGSM.")'
RECOMPUTE = 'Recompute(print, "spai-lab x", minutes=1)'
PRINTED = {"width": 718, "height": 1000}  # what A4 leaves between margins of 1 cm
MOST_TABS = 60


# --- the lab


@pytest.fixture(scope="module")
def chapter(kept_notebook, workplace) -> Page:
    """What chapters 02 and 14 let a reader do, and a table, in JupyterLab."""
    wanted = {
        GRADIENTS: (
            'name="FGSM, eps .2"',
            '"02-fgsm",\n    "FGSM',
            "02-strongest",
            "epsilon_explorer(",
            "moons_explorer()",
            "show_source(fgsm)",
        ),
        ENCRYPTION: ("precision_explorer()", "sides_explorer()"),
    }
    books = {name: read(notebooks_folder() / f"{name}.ipynb") for name in wanted}
    cells = []
    for name, words in wanted.items():
        code = [cell for cell in books[name]["cells"] if cell["cell_type"] == "code"]
        chosen = [cell for cell in code[2:] if any(word in "".join(cell["source"]) for word in words)]
        chosen = [cell for cell in chosen if not re.search(r"^compare\(", "".join(cell["source"]), re.MULTILINE)]
        cells += [code[1], *chosen] if name == GRADIENTS else chosen
    imports = "from spai_lab.widgets import precision_explorer, sides_explorer"
    extra = [OUTCOME, TABLE, RECOMPUTE, imports]
    bare = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    new = [{**bare, "id": f"new-{place}", "source": [source]} for place, source in enumerate(extra)]
    book = {**books[GRADIENTS], "cells": [new.pop(), *cells, *new]}
    (workplace / "access.ipynb").write_bytes(to_bytes(book))
    opened = kept_notebook("access.ipynb")
    opened.run_all()
    expect(opened.page.locator(".spai-explorable .spai-picture img")).to_have_count(4)
    return opened.page


def test_what_we_show_in_the_lab_has_names_contrast_and_readable_type(chapter):
    assert complaints(chapter, OURS) == []
    assert small_type(chapter, OURS) == []


def test_each_control_has_a_name_and_says_its_value(chapter):
    for control in chapter.locator(f"{OURS} :is([role=slider], select, button, input, [contenteditable=true])").all():
        snapshot = control.aria_snapshot()
        assert re.search(r'"[^"]+"', snapshot) or control.get_attribute("type") == "checkbox", snapshot
    eps = chapter.get_by_role("slider", name="eps", exact=True).first
    expect(eps).to_have_attribute("aria-valuetext", re.compile(r"^0\.\d+$"))
    expect(chapter.get_by_role("img", name="Seven digits in three rows")).to_have_count(1)
    expect(chapter.get_by_role("radiogroup", name="Your prediction")).to_have_count(1, timeout=20_000)


def test_the_keyboard_alone_goes_through_it(chapter):
    """Tab from control to control, and the keys that each control knows."""
    explorables = chapter.locator(".spai-explorable")
    tab_to = walker(chapter)
    chapter.locator(OURS).first.evaluate("e => { e.tabIndex = -1; e.focus() }")

    tab_to("textbox", "Your prediction (%)")
    chapter.keyboard.type("40,5")
    tab_to("combobox", "data set")
    expect(chapter.get_by_text("Kept.")).to_have_count(1)
    tab_to("combobox", "model")
    moves(chapter, explorables.nth(0), "ArrowDown")
    tab_to("slider", "eps")
    moves(chapter, explorables.nth(0), "ArrowRight")
    tab_to("radio", "FGSM, 1 step")
    chapter.keyboard.press("Space")
    expect(chapter.get_by_text("Kept.")).to_have_count(2)
    tab_to("button", "play or pause")
    chapter.keyboard.press("Enter")
    tab_to("button", "time")
    chapter.keyboard.press("Enter")
    expect(chapter.locator("table.spai-sortable tbody th").first).to_have_text("FGSM")


def test_the_keyboard_alone_goes_through_chapter_14(chapter):
    tab_to = walker(chapter)
    explorables = chapter.locator(".spai-explorable")
    chapter.locator(f"{OURS}:has(.spai-explorable)").nth(2).evaluate("e => { e.tabIndex = -1; e.focus() }")
    tab_to("slider", "scale")
    moves(chapter, explorables.nth(2), "ArrowRight")
    tab_to("slider", "stage")
    moves(chapter, explorables.nth(3), "ArrowRight")


def walker(page: Page) -> Callable[[str, str], None]:
    """`tab_to(role, name)` presses Tab until this control has the focus."""

    def tab_to(role: str, name: str) -> None:
        passed = []
        for _ in range(MOST_TABS):
            page.keyboard.press("Tab")
            said = page.locator(":focus").first.aria_snapshot() if page.locator(":focus").count() else ""
            if said.startswith(f'- {role} "{name}'):
                return
            passed.append(said.splitlines()[0] if said else "nothing")
        pytest.fail(f"Tab does not come to {role} {name}, but to {passed}")

    return tab_to


def moves(page: Page, explorable, key: str) -> None:
    """The key gives another picture."""
    picture = explorable.locator(".spai-picture img")
    before = picture.get_attribute("src")
    page.keyboard.press(key)
    expect(picture).not_to_have_attribute("src", before)


# --- the book


@pytest.fixture
def open_page(browser, small_book):
    """`open_page(name, **profile)` opens a page of the book, in a browser of any language."""
    contexts = []

    def go(name: str, **profile) -> Page:
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **profile}))
        page = contexts[-1].new_page()
        page.goto((small_book / f"{name}.html").as_uri())
        expect(page.locator("article h1")).to_be_visible()
        return page

    yield go
    for context in contexts:
        context.close()


def test_a_missing_text_is_found(open_page):
    page = open_page(START)
    page.locator("article img").first.evaluate("picture => picture.removeAttribute('alt')")
    assert len(complaints(page, "article")) == 1


@pytest.mark.parametrize("name", [START, GRADIENTS])
def test_a_page_of_the_book_has_names_contrast_and_readable_type(open_page, name):
    page = open_page(name)
    page.wait_for_function("() => !window.MathJax?.startup?.promise || MathJax.startup.promise.then(() => true)")
    assert complaints(page) == []
    assert small_type(page, "article") == []
    assert page.locator("article img:not([alt])").count() == 0
    alts = page.locator("article img").evaluate_all("images => images.map(image => image.alt)")
    assert all(len(alt.split()) > 3 for alt in alts)


@pytest.mark.full
def test_every_page_of_the_book_has_names_contrast_and_readable_type(browser, tmp_path):
    from spai_lab.book.build import build

    folder = build(tmp_path / "book", most=0).folder
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    found = {}
    for file in sorted(folder.glob("*.html")):
        page.goto(file.as_uri())
        page.wait_for_load_state()
        found[file.name] = complaints(page, "main") + small_type(page, "main")
    page.close()
    assert len(found) >= 19
    assert {name: said for name, said in found.items() if said} == {}


def test_the_keyboard_reaches_what_scrolls_on_a_narrow_screen(open_page):
    page = open_page(START, viewport={"width": 390, "height": 844})
    wide = page.locator("article :is(table, .pst-scrollable-table-container)[tabindex='0']")
    expect(wide.first).to_be_attached()
    assert complaints(page, "article") == []


def test_numbers_have_a_point_in_a_german_browser(open_page):
    page = open_page(GRADIENTS, locale="de-DE")
    assert page.evaluate("(0.5).toLocaleString()") == "0,5"
    figure = page.locator("figure.spai-live").first
    slider = figure.get_by_role("slider")
    slider.press("ArrowRight")
    expect(figure.locator("output").first).to_have_text(re.compile(r"^0\.\d+$"))
    expect(slider).to_have_attribute("aria-valuetext", re.compile(r"^0\.\d+$"))
    assert page.locator("input[type=number]").count() == 0, "its comma would be the browser's"
    assert not re.search(r"\b0,\d", page.inner_text("article"))


def test_a_page_fits_on_paper(open_page, tmp_path):
    page = open_page(GRADIENTS, viewport=PRINTED)
    page.emulate_media(media="print")
    for picture in page.locator("article img").all():
        box = picture.bounding_box()
        assert box and box["width"] > 50 and box["x"] >= 0 and box["x"] + box["width"] <= PRINTED["width"], box
    assert page.locator(":is(input, select, button):visible").count() == 0, "nobody moves a slider on paper"
    paper = page.pdf(format="A4", margin=dict.fromkeys(("top", "bottom", "left", "right"), "1cm"))
    sheets = len(re.findall(rb"/Type\s*/Page\b", paper))
    assert paper.startswith(b"%PDF") and len(paper) > 100_000 and 5 < sheets < 60, sheets
