"""The book in a real browser, opened as a plain file: sliders move, search finds, and nothing is fetched."""

import io
import json

import pytest
from PIL import Image
from playwright.sync_api import expect

from spai_lab.book.album import opened

pytestmark = pytest.mark.browser

CHAPTER = "02_gradient_attacks.html"
CALL = "epsilon_explorer(dataset=data.name)"
DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


@pytest.fixture
def page(browser, small_book):
    """A page that remembers what it asked for and complained of."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.asked, page.complaints = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("requestfailed", lambda request: complain_unless_left(page, request))
    page.on("console", lambda said: said.type in ("error", "warning") and page.complaints.append(said.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.go = lambda name: page.goto((small_book / name).as_uri())
    yield page
    assert page.complaints == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in page.asked)
    context.close()


def complain_unless_left(page, request):
    """A request that failed; one that ended because the reader went on to another page did not."""
    if "ERR_ABORTED" not in (request.failure or ""):
        page.complaints.append(f"{request.url}: {request.failure}")


def explorer(page):
    """The epsilon explorer, which is the chapter's first explorable."""
    return page.locator("figure.spai-live").first


def pixels(page, picture):
    """What a picture of the page shows, read back from the file that it names."""
    file = page.evaluate("image => decodeURI(new URL(image.currentSrc).pathname)", picture.element_handle())
    with Image.open(file) as image:
        return image.convert("RGB").tobytes()


def test_the_epsilon_slider_shows_what_the_explorable_shows(page):
    page.go(CHAPTER)
    figure, slider = explorer(page), explorer(page).get_by_role("slider", name="eps")
    picture, caption = figure.locator("img"), figure.locator("figcaption")
    lab = opened(CALL, "digits")
    slider.focus()
    for key, steps in (("ArrowRight", 3), ("ArrowLeft", 1), ("End", 1)):
        for _ in range(steps):
            page.keyboard.press(key)
            eps = lab.controls["eps"]
            eps.index = {"ArrowRight": eps.index + 1, "ArrowLeft": eps.index - 1, "End": len(eps.options) - 1}[key]
        expect(caption).to_have_text(lab.caption)
        expect(picture).to_have_attribute("alt", lab.alt)
        expect(slider).to_have_attribute("aria-valuetext", f"{lab.controls['eps'].value:g}")
        assert pixels(page, picture) == Image.open(io.BytesIO(lab.png)).convert("RGB").tobytes()
    expect(caption).to_have_attribute("aria-live", "polite")
    expect(figure).to_contain_text("Fixed here: data set digits, model LeNet")


def test_the_keyboard_reaches_the_slider(page):
    page.go(CHAPTER)
    page.locator("#the-epsilon-explorer h2").click()
    for _ in range(9):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.type") == "range":
            break
    expect(explorer(page).get_by_role("slider")).to_be_focused()
    before = explorer(page).locator("figcaption").inner_text()
    page.keyboard.press("Home")
    expect(explorer(page).locator("figcaption")).not_to_have_text(before)


def test_a_menu_moves_too_and_the_slider_behind_it_keeps_what_it_can(page, small_book):
    """Two controls that depend on each other, in a page of our own with the book's script."""
    says = [(kind, size) for kind, sizes in (("a", "123"), ("b", "345")) for size in sizes]
    data = {
        "controls": [{"label": "kind", "slides": False}, {"label": "size", "slides": True}],
        "frames": [[[kind, size], DOT, f"{kind} {size}", f"{kind}, {size}."] for kind, size in says],
        "landings": [[["b"], ["b", "4"]], [["a"], ["a", "2"]]],
        "start": 1,
    }
    page.go("index.html")
    page.set_content(
        f'<figure class="spai-live" aria-label="two"><img src="{DOT}" alt="a 2"><figcaption>a, 2.</figcaption>'
        f'<script type="application/json">{json.dumps(data)}</script></figure>'
    )
    page.add_script_tag(path=small_book / "_static" / "explorable.js")
    caption = page.locator("figcaption")
    page.get_by_label("kind").select_option("b")
    expect(caption).to_have_text("b, 4.")
    page.get_by_label("size").press("ArrowLeft")
    expect(caption).to_have_text("b, 3.")
    page.get_by_label("kind").select_option("a")
    expect(caption).to_have_text("a, 3.")


def test_search_finds_a_method_in_a_plain_file(page):
    page.go("index.html")
    page.keyboard.press("ControlOrMeta+K")
    page.keyboard.type("FGSM")
    page.keyboard.press("Enter")
    found = page.locator("#search-results a", has_text="Gradient attacks").first
    expect(found).to_be_visible()
    found.click()
    expect(page.locator("article h1")).to_contain_text("Gradient attacks")


def test_formulas_are_typeset_and_the_page_is_no_wider_than_the_window(page):
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        page.go(CHAPTER)
        expect(page.locator("mjx-container svg").first).to_be_visible()
        assert page.locator("mjx-container").count() > 30
        assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        shown = page.locator("figure.spai-live img").evaluate_all("images => images.map(image => image.clientWidth)")
        assert all(0 < each <= width for each in shown)


def test_a_chapter_leads_on_and_the_map_leads_into_it(page):
    page.go("index.html")
    page.get_by_role("link", name="the first chapter").click()
    expect(page.locator("article h1")).to_contain_text("Start here")
    page.locator("a.spai-map-chip", has_text="Fast gradient sign").click()
    expect(page.locator("article h1")).to_contain_text("Gradient attacks")


def test_what_the_page_holds_is_listed_behind_a_button(page):
    page.go(CHAPTER)
    page.locator(".secondary-toggle:visible").click()
    page.locator("dialog[open] a", has_text="The epsilon explorer").click()
    assert page.evaluate("location.hash") == "#the-epsilon-explorer"


def test_without_scripts_the_picture_and_its_words_stand_there(browser, small_book):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((small_book / CHAPTER).as_uri())
    lab = opened(CALL, "digits")
    figure = explorer(page)
    expect(figure.locator("img")).to_have_attribute("alt", lab.alt)
    expect(figure.locator("figcaption")).to_have_text(lab.caption)
    assert figure.locator("input, select").count() == 0
    context.close()


def test_print_shows_the_present_picture_and_no_controls(page):
    page.go(CHAPTER)
    explorer(page).get_by_role("slider").press("End")
    expect(explorer(page).locator("figcaption")).to_contain_text("eps 0.4")
    page.emulate_media(media="print")
    expect(explorer(page).locator("input")).to_be_hidden()
    expect(explorer(page).locator("img")).to_be_visible()
    expect(page.locator(".bd-sidebar-primary")).to_be_hidden()
