"""A lecture in a real browser: full-screen pages without code, their sliders alive, and nothing from elsewhere."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Locator, Page, expect

from spai_lab.workbook import chapters, notebooks_folder, read, to_bytes
from tests.browser.axe import complaints

pytestmark = pytest.mark.browser

CHAPTER = "02_gradient_attacks"
WORDS = ("predict(", "compare(", "robustness_curve(model, x, y, fgsm", "epsilon_explorer(", "show_source(fgsm)")
SECONDS = 120
RAN = "#lecture-state[hidden]"  # what says how far a chapter is goes once all of it ran
VOTES = {"first count": (12, 9, 4, 3, 2), "after discussion": (21, 5, 2, 1, 1)}
RECOMPUTE = "from spai_lab.widgets import Recompute\nRecompute(lambda: print('worked'), 'spai-lab x', minutes=1)"


@dataclass(frozen=True)
class Lecture:
    """A running lecture: its process, its address with and without the token, and the masters that it shows."""

    process: psutil.Process
    address: str
    masters: Path

    def chapter(self, name: str) -> str:
        return f"{self.address.partition('?')[0]}voila/render/{name}.ipynb"


@contextlib.contextmanager
def lecture_of(masters: Path, home: Path) -> Iterator[Lecture]:
    """A lecture of a folder's chapters, on the digits, with a home of its own; ended by Ctrl-C."""
    start = "from spai_lab.lecture import spare; spare.PAUSE = 5; from spai_lab.lecture.serve import serve; "
    start += f"serve(browser=False, masters={str(masters)!r})"
    jupyter = {f"JUPYTER_{name}_DIR": str(home / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    variables = {**os.environ, **jupyter, "HOME": str(home), "USERPROFILE": str(home), "IPYTHONDIR": str(home)}
    variables |= {"SPAI_DATASET": "digits", "PYTHONPATH": str(notebooks_folder().parent), "PYTHONUTF8": "1"}
    variables |= {"JUPYTER_PREFER_ENV_PATH": "1", "SPAI_MY": str(home)}
    with (home / "log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", start],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
            preexec_fn=listen_to_ctrl_c if os.name != "nt" else None,
        )
        try:
            said = (re.search(r"http://127\.0\.0\.1:\d+/\?token=\w+", line) for line in server.stdout)
            found = next(filter(None, said), None)
            if found is None:
                pytest.fail(f"no lecture:\n{(home / 'log').read_text(encoding='utf-8')}")
            yield Lecture(psutil.Process(server.pid), found[0], masters)
        finally:
            end(server)


def end(server: subprocess.Popen) -> None:
    """End a lecture by Ctrl-C, which shall end its kernels too and leave without an error; kill what does not go."""
    family = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
    server.send_signal(signal.SIGINT if os.name != "nt" else signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(timeout=20)
    _, alive = psutil.wait_procs(family, timeout=10)
    ended = server.poll() is not None
    for process in [*alive, *([] if ended else [server])]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    assert ended and not alive, "Ctrl-C ends a lecture and its kernels"
    assert os.name == "nt" or server.returncode == 0


def listen_to_ctrl_c() -> None:
    """A program that was started in the background is deaf to it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def masters(tmp_path_factory) -> Path:
    """Two chapters: the beginning of chapter 02 with its exercises, and one with a cell that fails."""
    folder = tmp_path_factory.mktemp("masters") / "notebooks"
    folder.mkdir()
    book = read(notebooks_folder() / f"{CHAPTER}.ipynb")
    is_code = [cell["cell_type"] == "code" for cell in book["cells"]]
    first = [place for place, code in enumerate(is_code) if code][:2]
    kept = [
        cell
        for place, cell in enumerate(book["cells"])
        if not is_code[place]
        or place in first
        or any(word in "".join(cell["source"]) for word in (*WORDS, "def my_fgsm", "check.fgsm("))
    ]
    kept = [cell for cell in kept if "02-strongest" not in "".join(cell["source"])]
    (folder / f"{CHAPTER}.ipynb").write_bytes(to_bytes({**book, "cells": kept}))
    sources = ["raise ValueError('eps is -1; accepted: more')", RECOMPUTE]
    bare = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [{"cell_type": "markdown", "id": "t", "metadata": {}, "source": ["# 03 · Trouble\n", "\n", "**Why?**"]}]
    cells += [{**bare, "id": f"c{place}", "source": [source]} for place, source in enumerate(sources)]
    (folder / "03_trouble.ipynb").write_bytes(to_bytes({**book, "cells": cells}))
    return folder


@pytest.fixture(scope="module")
def lecture(masters, tmp_path_factory) -> Iterator[Lecture]:
    before = snapshot(masters)
    with lecture_of(masters, tmp_path_factory.mktemp("home")) as running:
        yield running
    assert snapshot(masters) == before, "a lecture only reads the masters"


def snapshot(folder: Path) -> list[tuple[str, bytes]]:
    return sorted((str(path), path.read_bytes()) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def page(browser, lecture) -> Iterator[Page]:
    """A browser of a hall's projector, which has the token, and may ask nobody but the lecture."""
    context = browser.new_context(viewport={"width": 1920, "height": 1080})
    context.set_default_timeout(1000 * SECONDS)
    expect.set_options(timeout=1000 * SECONDS)
    page = context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(lecture.address)
    yield page
    context.close()
    own = lecture.address.partition("?")[0]
    assert [url for url in asked if not url.startswith((own, "data:", "blob:"))] == []


@pytest.fixture(scope="module")
def chapter(page, lecture) -> Page:
    """Chapter 02, all cells run."""
    expect(page.get_by_role("link")).to_have_text([re.compile("02 · Gradient attacks"), re.compile("03 · Trouble")])
    page.get_by_role("link", name="02 · Gradient attacks").press("Enter")
    wait_until_it_ran(page)
    return page


@pytest.fixture
def whole(chapter) -> Page:
    """Chapter 02 with all that waits for an outcome."""
    chapter.get_by_role("checkbox", name="Show all answers").check()
    return chapter


def wait_until_it_ran(page: Page) -> None:
    page.locator(RAN).wait_for(state="attached", timeout=5000 * SECONDS)
    expect(page.locator(".voila-skeleton-container")).to_have_count(0)


def test_without_the_token_or_under_another_name_nothing_is_served(lecture):
    bare = lecture.address.partition("?")[0]
    port = bare.rsplit(":", 1)[1].strip("/")
    for url, headers in (
        (bare, {}),
        (lecture.chapter(CHAPTER), {}),
        (f"{bare}voila/api/contents/{CHAPTER}.ipynb", {}),
        (lecture.address, {"Host": f"evil.example:{port}"}),
    ):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
                assert "/login" in answer.url and "Gradient attacks" not in answer.read().decode()
        except urllib.error.HTTPError as error:
            assert error.code == 403
    assert {each.laddr.ip for each in lecture.process.net_connections() if each.status == "LISTEN"} == {"127.0.0.1"}


def test_what_answers_a_question_waits_for_its_outcome_or_the_switch(chapter):
    switch = chapter.get_by_role("checkbox", name="Show all answers")
    expect(switch).not_to_be_checked()
    heading = chapter.get_by_role("heading", name="The epsilon explorer")
    pictures = chapter.locator("#rendered_cells img")
    assert pictures.count() >= 2 and not any(each.is_visible() for each in pictures.all())
    expect(chapter.get_by_role("heading", name="One step: FGSM")).to_be_visible()
    expect(chapter.get_by_text("The chapter goes on when the outcome is shown.")).to_be_visible()
    expect(heading).to_be_hidden()
    switch.press("Space")
    expect(heading).to_be_visible()
    assert all(each.is_visible() for each in pictures.all())
    switch.press("Space")
    expect(heading).to_be_hidden()


def boxes(page: Page, count: str) -> list[Locator]:
    return page.get_by_role("spinbutton", name=re.compile(f"^{count}: ")).all()


def votes(page: Page) -> Locator:
    return page.locator(".spai-hands .spai-votes img")


def test_hands_are_counted_by_keyboard_twice(chapter):
    chapter.get_by_role("button", name="Count hands").press("Enter")
    expect(chapter.get_by_role("textbox", name=re.compile("Your prediction"))).to_be_hidden()
    first = chapter.get_by_role("spinbutton", name="first count: A, under 20 %", exact=True)
    first.focus()
    for count in VOTES["first count"]:
        chapter.keyboard.press("ControlOrMeta+A")
        chapter.keyboard.type(str(count))
        chapter.keyboard.press("Tab")
    expect(votes(chapter)).to_have_attribute("alt", re.compile("first count of 30: A, under 20 %: 12; B, .*: 9;"))
    focused = chapter.evaluate("document.activeElement.textContent")
    assert focused == "Count again", "it comes after the boxes"
    chapter.keyboard.press("Enter")
    expect(chapter.get_by_role("spinbutton")).to_have_count(10)
    for box, count in zip(boxes(chapter, "after discussion"), VOTES["after discussion"], strict=True):
        box.fill(str(count))
        box.press("Enter")
    expect(votes(chapter)).to_have_attribute("alt", re.compile("after discussion of 30: A, under 20 %: 21;"))
    assert complaints(chapter) == []
    assert chapter.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_reload_keeps_the_votes_and_hides_the_answers_again(chapter, lecture):
    chapter.reload()
    wait_until_it_ran(chapter)
    expect(chapter.get_by_role("spinbutton")).to_have_count(10)
    for count, counts in VOTES.items():
        assert [int(box.input_value()) for box in boxes(chapter, count)] == list(counts)
    expect(chapter.get_by_role("heading", name="The epsilon explorer")).to_be_hidden()
    assert not list(lecture.masters.glob("*.json"))


def test_the_outcome_marks_the_right_answer_and_lifts_the_curtain(chapter):
    chapter.get_by_role("button", name="Show what came out").press("Enter")
    told = chapter.locator(".spai-outcome")
    said = "Right is A: under 20 %. 12 of 30 (40 %) had it, after discussion 21 of 30 (70 %)."
    expect(told.get_by_text(said)).to_be_visible()
    expect(told.locator("img")).to_have_attribute("alt", re.compile("Right is A"))
    expect(told.locator("img")).to_be_in_viewport()
    expect(chapter.get_by_role("heading", name="The epsilon explorer")).to_be_visible()
    chapter.get_by_role("button", name="Hide the count").press("Enter")
    expect(chapter.get_by_role("textbox", name=re.compile("Your prediction"))).to_be_visible()


def test_the_chapter_is_shown_without_code_exercises_and_answers(whole):
    chapter = whole
    text = chapter.inner_text("body")
    assert "One step: FGSM" in text and "The epsilon explorer" in text and "Summary" in text
    assert not re.search(
        r"import torch|NotImplementedError|Exercises|my_fgsm|Not attempted|You made no prediction", text
    )
    assert "def my_fgsm" not in chapter.content()
    assert chapter.locator(".jp-InputArea-editor, .cm-editor").count() == 0
    source = chapter.locator("details", has_text="Source: fgsm").first
    expect(source.locator("pre").first).to_be_hidden()
    assert "did not run" not in text


def test_a_slider_moves_the_picture_by_keyboard(whole):
    chapter = whole
    explorable = chapter.locator(".spai-explorable").first
    handle = explorable.get_by_role("slider", name="eps", exact=True)
    picture, caption = explorable.locator(".spai-picture img"), explorable.locator("[aria-live]")
    before, said = picture.get_attribute("src"), caption.inner_text()
    for _ in range(4):
        handle.press("ArrowRight")
    expect(picture).not_to_have_attribute("src", before)
    expect(caption).not_to_have_text(said)
    expect(handle).to_have_attribute("aria-valuetext", "0.2")


def test_one_of_the_hall_predicts_and_then_sees_what_came_out(whole):
    chapter = whole
    button = chapter.get_by_role("button", name="Show what came out")
    field = chapter.get_by_role("textbox", name=re.compile("Your prediction"))
    field.fill("40")
    field.press("Tab")
    expect(chapter.get_by_text("Kept for this session.")).to_be_visible()
    assert chapter.get_by_text("You predicted").count() == 0
    button.press("Enter")
    expect(chapter.get_by_text("You predicted 40 %")).to_be_visible()


def test_type_is_large_pictures_are_sharp_and_nothing_sticks_out(whole):
    chapter = whole
    assert chapter.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    sizes = chapter.evaluate("""() => [...document.querySelectorAll("#rendered_cells *")]
        .filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
        .filter(e => !e.closest("mjx-container, style, script, sup, sub"))
        .map(e => [parseFloat(getComputedStyle(e).fontSize), e.textContent.trim().slice(0, 40)])
        .filter(([size]) => size < 18)""")
    assert sizes == []
    paragraph = chapter.locator(".jp-MarkdownCell p").first
    assert paragraph.evaluate("e => parseFloat(getComputedStyle(e).fontSize)") >= 24
    drawn = chapter.locator("#rendered_cells img").evaluate_all(
        "images => images.filter(i => i.clientWidth).map(i => [i.naturalWidth, i.clientWidth])"
    )
    assert len(drawn) >= 2 and all(natural >= shown for natural, shown in drawn)
    explorable = chapter.locator(".spai-explorable").first.bounding_box()
    assert explorable["height"] <= 1080, "slider and picture are in view together"


def test_screen_readers_get_names_and_eyes_get_contrast(whole):
    chapter = whole
    assert complaints(chapter) == []
    handle = chapter.get_by_role("slider", name="eps", exact=True)
    handle.evaluate("handle => handle.removeAttribute('aria-label')")
    assert len(complaints(chapter)) == 1, "a missing name is found"


def test_a_cell_that_fails_says_so_kindly_and_the_rest_goes_on(page, lecture):
    page.goto(lecture.chapter("03_trouble"))
    wait_until_it_ran(page)
    text = page.inner_text("body")
    assert "This part did not run" in text and "eps is -1; accepted: more." in text
    assert "Traceback" not in text and "ValueError(" not in text
    page.get_by_role("button", name="compute again").press("Enter")
    expect(page.get_by_text("Done.")).to_be_visible()
    expect(page.get_by_text("worked")).to_be_visible()


@pytest.mark.full
def test_a_chapter_that_is_left_takes_its_kernel_along(page, lecture):
    if page.url != lecture.chapter("03_trouble"):
        page.goto(lecture.chapter("03_trouble"))
    wait_until_it_ran(page)
    wait_for(lambda: len(kernels(lecture)) == 2, "the kernel of the page that is open, one in reserve, and no other")
    page.goto(lecture.address)
    assert complaints(page) == []
    wait_for(lambda: len(kernels(lecture)) == 1, "the end of the kernel of a page that was left")
    [reserved] = kernels(lecture)
    page.goto(lecture.chapter("03_trouble"))  # its kernel is there when Ctrl-C ends the lecture
    wait_until_it_ran(page)
    assert reserved in kernels(lecture), "the kernel in reserve became that of the page"


def kernels(running: Lecture) -> list[psutil.Process]:
    """The kernels that are alive."""
    found = []
    for process in running.process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one, too
            found += [process] if "ipykernel_launcher" in " ".join(process.cmdline()) else []
    return found


def wait_for(happened, what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@pytest.mark.full
@pytest.mark.parametrize("name", [CHAPTER, "14_homomorphic_encryption"])
def test_a_whole_chapter_runs(browser, tmp_path, name):
    assert name in {path.stem for path in chapters(notebooks_folder())}
    with lecture_of(notebooks_folder(), tmp_path) as running:
        context = browser.new_context(viewport={"width": 1920, "height": 1080})
        page = context.new_page()
        page.goto(running.address)
        page.goto(running.chapter(name), wait_until="domcontentloaded")
        page.get_by_role("checkbox", name="Show all answers").check()
        expect(page.locator(".widget-slider").first).to_be_visible(timeout=1000 * SECONDS)
        wait_until_it_ran(page)
        assert "did not run" not in page.inner_text("body")
        assert page.locator("mjx-merror").count() == 0
        context.close()
