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
        "result": ["12 %", "1.5 L2", "100 %", "1.21 L2", "5.0 %"],
        "budget": ["at most 1,000 steps", "5,000 queries", "at most 50 steps", "", "at most 1.5 steps"],
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


def test_units_are_kept_apart_and_numbers_in_words_are_numbers(page):
    button = head(page, "result").get_by_role("button")
    button.click()
    assert names(page) == ["spatial", "PGD", "ZOO", "FGSM", "boundary"]  # percent, then L2
    button.click()
    assert names(page) == ["ZOO", "PGD", "spatial", "boundary", "FGSM"]
    head(page, "budget").get_by_role("button").click()
    assert names(page) == ["boundary", "spatial", "ZOO", "PGD", "FGSM"]  # 1.5, 50 and 1,000; nothing last


WIDE = pd.DataFrame(
    {"attack": [f"attack {row}" for row in range(80)]} | {f"column {place}": ["x" * 30] * 80 for place in range(12)}
)


@pytest.fixture
def wide(browser):
    """A page with a table that is larger than any screen, as small as a projector's."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    page = context.new_page()
    page.set_content(f"<!doctype html><div style='width:828px'>{sortable_table(WIDE, caption='Many.').html}</div>")
    yield page
    context.close()


def test_a_large_table_scrolls_in_its_box_and_heads_and_names_stay(wide):
    box = wide.locator(".spai-sortable-box")
    place = box.bounding_box()
    assert place["height"] <= 0.71 * 720 and place["width"] <= 828
    corner, name = wide.locator("thead th").first, wide.locator("tbody th").nth(60)
    box.evaluate("box => box.scrollTo(900, 1500)")
    assert corner.bounding_box()["x"] == pytest.approx(place["x"], abs=1)
    assert corner.bounding_box()["y"] == pytest.approx(place["y"], abs=1)
    assert wide.locator("thead th").nth(5).bounding_box()["y"] == pytest.approx(place["y"], abs=1)
    assert name.bounding_box()["x"] == pytest.approx(place["x"], abs=1)
    for cell in (corner, name):
        ground = cell.evaluate("cell => getComputedStyle(cell).backgroundColor")
        assert ground.startswith("rgb(")  # opaque


def test_a_large_table_is_whole_on_paper(wide):
    wide.emulate_media(media="print")
    whole = wide.locator("table.spai-sortable").bounding_box()["height"]
    assert wide.locator(".spai-sortable-box").bounding_box()["height"] >= whole > 2000
    assert wide.locator("thead th").first.evaluate("cell => getComputedStyle(cell).position") == "static"


def test_the_filter_says_what_it_searches(page):
    expect(page.locator(".spai-sortable-filter").first).to_contain_text("all cells of a row")


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


ACTIVE = "() => window.jupyterapp.shell.currentWidget.content.activeCellIndex"


def test_arrows_scroll_the_box_and_not_the_notebook(notebook, workplace):
    code = (
        "import pandas as pd\nfrom spai_lab.widgets.sortable import sortable_table\n"
        "sortable_table(pd.DataFrame({f'column {c}': ['x' * 30] * 60 for c in range(12)}), caption='Wide.')"
    )
    cells = [
        {
            "cell_type": "code",
            "id": f"cell{n}",
            "metadata": {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for n, source in enumerate(("1 + 1", code, "2 + 2"))
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    book = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (workplace / "wide.ipynb").write_bytes(to_bytes(book))
    chapter = notebook("wide.ipynb")
    chapter.run_all()
    page, box = chapter.page, chapter.page.locator(".spai-sortable-box")
    page.get_by_label("Show rows with").click()
    active = page.evaluate(ACTIVE)
    page.keyboard.press("Tab")
    expect(box).to_be_focused()
    for key, way in (("ArrowRight", "scrollLeft"), ("ArrowDown", "scrollTop")):
        for _ in range(3):
            page.keyboard.press(key)
        page.wait_for_function(f"() => document.querySelector('.spai-sortable-box').{way} > 20")
        expect(box).to_be_focused()
        assert page.evaluate(ACTIVE) == active
    dark = "() => window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
    light = box.locator("thead th").first.evaluate("cell => getComputedStyle(cell).backgroundColor")
    page.evaluate(dark)
    page.wait_for_function("() => document.body.dataset.jpThemeLight === 'false'")
    assert box.locator("thead th").first.evaluate("cell => getComputedStyle(cell).backgroundColor") != light
