"""The sortable table in a real browser: by mouse and keyboard, printed, without scripts, and without a network."""

import pandas as pd
import pytest
from playwright.sync_api import expect

from spai_lab.widgets.sortable import sortable_table
from spai_lab.workbook import to_bytes

pytestmark = pytest.mark.browser

FRAME = pd.DataFrame(
    {
        "attack": ["PGD", "boundary", "ZOO", "FGSM", "spatial"],
        "time": ["60 ms", "2.2 s", "failed", "19 µs", ""],
        "n": pd.array([1000, 64, None, 100, 9], dtype="Int64"),
    }
)
NAMES = FRAME["attack"].tolist()
BY_TIME = ["FGSM", "PGD", "boundary"]


@pytest.fixture
def file(tmp_path):
    """The address of a page with a table twice, as a chapter that shows two has it."""
    table = sortable_table(FRAME, caption="Five attacks.").html
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><meta charset='utf-8'><title>Tables</title>{table}<p>And</p>{table}", "utf-8")
    return path.as_uri()


@pytest.fixture
def page(browser, file):
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(file)
    yield page
    context.close()


def names(page, table=0):
    """The rows that are seen, from top to bottom."""
    rows = page.locator("table.spai-sortable").nth(table).locator("tbody tr")
    return [row.locator("th").inner_text() for row in rows.all() if row.is_visible()]


def head(page, name, table=0):
    return page.locator("table.spai-sortable").nth(table).get_by_role("columnheader", name=name)


def test_a_click_sorts_upward_then_downward_then_not_at_all(page):
    button = head(page, "time").get_by_role("button")
    for way, expected in (
        ("ascending", [*BY_TIME, "ZOO", "spatial"]),
        ("descending", [*BY_TIME[::-1], "ZOO", "spatial"]),
        ("none", NAMES),
    ):
        button.click()
        expect(head(page, "time")).to_have_attribute("aria-sort", way)
        assert names(page) == expected


def test_words_are_sorted_as_words_and_one_column_at_a_time(page):
    head(page, "n").get_by_role("button").click()
    assert names(page)[:4] == ["spatial", "boundary", "FGSM", "PGD"]
    head(page, "attack").get_by_role("button").click()
    assert names(page) == ["boundary", "FGSM", "PGD", "spatial", "ZOO"]
    expect(head(page, "n")).to_have_attribute("aria-sort", "none")


def test_the_keyboard_reaches_filter_and_heads(page):
    page.keyboard.press("Tab")
    field = page.get_by_role("searchbox", name="Show rows with").first
    expect(field).to_be_focused()
    page.keyboard.press("Tab")  # the box, to scroll
    page.keyboard.press("Tab")
    expect(head(page, "attack").get_by_role("button")).to_be_focused()
    page.keyboard.press("Enter")
    assert names(page)[0] == "boundary"
    page.keyboard.press("Space")
    assert names(page)[0] == "ZOO"


def test_typing_shows_the_rows_with_all_words_and_counts_them(page):
    field, count = page.get_by_label("Show rows with").first, page.get_by_role("status").first
    expect(count).to_have_text("5 of 5 rows")
    field.fill("s PG")
    assert names(page) == ["PGD"]
    field.fill("zoo FAILED")
    assert names(page) == ["ZOO"]
    expect(count).to_have_text("1 of 5 rows")
    field.fill("")
    assert names(page) == NAMES


def test_two_tables_do_not_disturb_each_other(page):
    head(page, "time", table=1).get_by_role("button").click()
    page.get_by_label("Show rows with").nth(1).fill("pgd")
    assert names(page) == NAMES
    assert names(page, table=1) == ["PGD"]
    assert page.get_by_role("searchbox").count() == 2


def test_print_shows_every_row_and_no_controls(page):
    page.get_by_label("Show rows with").first.fill("pgd")
    page.emulate_media(media="print")
    assert names(page) == NAMES
    expect(page.locator(".spai-sortable-filter").first).to_be_hidden()


def test_nothing_is_fetched(page, file):
    assert page.asked == [file]


def test_the_table_is_whole_and_plain_where_scripts_are_off(browser, file):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file)
    assert names(page) == NAMES
    assert page.locator("button, input").count() == 0
    assert page.locator("table").first.inner_text().split()[:4] == ["Five", "attacks.", "attack", "time"]
    context.close()


def test_markup_in_a_cell_is_text(browser):
    frame = pd.DataFrame({"<i>a</i>": ["<img src=x onerror=document.title='hit'>"]})
    context = browser.new_context()
    page = context.new_page()
    page.set_content(sortable_table(frame, caption="Markup.").html)
    page.get_by_role("button").click()
    assert page.locator("img, i").count() == 0
    assert page.title() == ""
    context.close()


def test_it_sorts_and_filters_in_jupyterlab(notebook, workplace):
    code = (
        "import pandas as pd\nfrom spai_lab.widgets.sortable import sortable_table\n"
        "sortable_table(pd.DataFrame({'attack': ['PGD', 'BIM'], 'n': [2, 10]}), caption='Two attacks.')"
    )
    cell = {"cell_type": "code", "id": "table", "metadata": {}, "source": code, "outputs": [], "execution_count": None}
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    book = {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (workplace / "sortable.ipynb").write_bytes(to_bytes(book))
    chapter = notebook("sortable.ipynb")
    chapter.run_all()
    table = chapter.page.locator("table.spai-sortable")
    button = table.get_by_role("columnheader", name="n", exact=True).get_by_role("button")
    for first in ("PGD", "BIM"):  # 2 before 10, then the other way round
        button.press("Enter")
        expect(table.locator("tbody th").first).to_have_text(first)
    chapter.page.get_by_label("Show rows with").press_sequentially("pgd dd")
    expect(table.locator("tbody tr:visible")).to_have_count(0)
    expect(chapter.outputs("sortable_table").first).to_be_visible()  # no key went to JupyterLab
