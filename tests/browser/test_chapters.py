"""The chapters as a student has them: a real JupyterLab, a real kernel, and the keyboard."""

import inspect
import json
import re

import pytest
from playwright.sync_api import expect

from spai_lab.exercises import EXERCISES
from spai_lab.survey.regions import short_name
from spai_lab.survey.taxonomy import load_taxonomy
from spai_lab.workbook import read, to_bytes

pytestmark = pytest.mark.browser

EXPLORER = "epsilon_explorer("
CHAPTER = "02_gradient_attacks"
FORGOT_THE_CLIP = """\
import torch

def my_fgsm(model, x, y, eps):
    x = x.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    return (x + eps * torch.autograd.grad(loss, x)[0].sign()).detach()
"""


@pytest.fixture(scope="module")
def excerpt(workplace):
    """`excerpt(folder, name, *words)`: chapter 02 of a folder, under that name in the workplace, cut down to be quick.

    What stays are its first two code cells, which set it up, and the code cells with one of the words.
    """

    def write(folder, name: str, *words: str) -> str:
        book = read(folder / f"{CHAPTER}.ipynb")
        cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
        wanted = [cell for cell in cells[2:] if any(word in "".join(cell["source"]) for word in words)]
        (workplace / name).write_bytes(to_bytes({**book, "cells": cells[:2] + wanted}))
        return name

    return write


@pytest.fixture(scope="module")
def as_copied(excerpt, workplace) -> str:
    """The explorer and the predictions of chapter 02 as the student has them, without outputs."""
    return excerpt(workplace, "as_copied.ipynb", EXPLORER, "predict(")


def attacked(alt: str) -> str:
    """What the picture's description says of the adversarial image: its class and the probability."""
    return re.search(r"it says (.+?)\. ", alt).group(1)


def test_the_epsilon_slider_moves_the_picture_its_words_and_the_caption(notebook, as_copied):
    chapter = notebook(as_copied)
    chapter.run_all()
    picture = chapter.outputs(EXPLORER).locator(".spai-picture img")
    caption = chapter.outputs(EXPLORER).locator(".spai-picture [aria-live]")
    src, alt, said = picture.get_attribute("src"), picture.get_attribute("alt"), caption.inner_text()

    # ipywidgets writes the name beside the slider, and does not tie the two together.
    slider = chapter.page.locator(".widget-slider", has=chapter.page.get_by_text("eps", exact=True))
    handle = slider.get_by_role("slider")
    handle.focus()
    for _ in range(8):
        handle.press("ArrowRight")

    eps = slider.locator(".widget-readout").inner_text()
    expect(picture).to_have_attribute("alt", re.compile(rf"at eps {re.escape(eps)} "))
    expect(picture).not_to_have_attribute("src", src)
    expect(caption).not_to_have_text(said)
    assert attacked(picture.get_attribute("alt")) != attacked(alt)


def test_a_prediction_chosen_by_keyboard_is_kept(notebook, as_copied, workplace):
    chapter = notebook(as_copied)
    chapter.run_all()
    kept = workplace / "progress.json"
    assert not kept.exists()

    options = chapter.page.locator(".widget-radio").first.get_by_role("radio")
    options.first.focus()
    chapter.page.keyboard.press("Tab")
    expect(options.nth(1)).to_be_focused()
    chapter.page.keyboard.press("Space")
    expect(chapter.page.get_by_text("Kept.")).to_have_count(1)

    number = chapter.page.locator(".widget-text").first.get_by_role("textbox")
    number.focus()
    chapter.page.keyboard.type("40")
    chapter.page.keyboard.press("Tab")
    expect(chapter.page.get_by_text("Kept.")).to_have_count(2)

    predictions = json.loads(kept.read_text(encoding="utf-8"))["predictions"].values()
    second = options.nth(1).locator("xpath=..").inner_text().strip()
    assert {entry["prediction"] for entry in predictions} == {second, 40}


def test_the_live_explorer_takes_the_place_of_the_stored_picture(notebook, excerpt, root):
    chapter = notebook(excerpt(root / "notebooks", "as_stored.ipynb", EXPLORER))
    pictures = chapter.outputs(EXPLORER).locator("img")
    expect(pictures).to_have_count(1)  # the masters are stored with their outputs
    expect(chapter.outputs(EXPLORER).locator(".spai-picture")).to_have_count(0)

    chapter.run_all()

    expect(chapter.outputs(EXPLORER).locator(".spai-picture img")).to_have_count(1)
    expect(pictures).to_have_count(1)


def test_a_method_on_the_map_opens_its_chapter_in_a_tab(notebook):
    start = notebook("00_start_here.ipynb")
    start.run_all()
    method = next(row for row in load_taxonomy() if row.notebook == CHAPTER)

    start.outputs("survey_map()").get_by_role("link", name=short_name(method)).press("Enter")

    expect(start.page.get_by_role("tab", name=f"{CHAPTER}.ipynb")).to_have_attribute("aria-selected", "true")
    start.page.wait_for_function(f"() => window.jupyterapp.shell.currentWidget.context?.path === '{CHAPTER}.ipynb'")


def test_an_exercise_says_what_is_wrong_and_passes_its_solution(notebook, excerpt, workplace):
    chapter = notebook(excerpt(workplace, "exercise.ipynb", "def my_fgsm", "check.fgsm("))
    chapter.run_all()
    verdict = chapter.outputs("check.fgsm(")
    expect(verdict).to_contain_text("Not attempted yet")

    chapter.run_cell("def my_fgsm", FORGOT_THE_CLIP)
    chapter.run_cell("check.fgsm(")
    expect(verdict).to_contain_text("Some pixels leave [0, 1]")

    chapter.run_cell("def my_fgsm", inspect.getsource(EXERCISES["fgsm"].solution))
    chapter.run_cell("check.fgsm(")
    expect(verdict).to_contain_text("Passed")


@pytest.mark.full
@pytest.mark.parametrize("name", ["00_start_here", "01_models_and_threats", CHAPTER])
def test_a_chapter_runs_from_top_to_bottom(notebook, name):
    notebook(f"{name}.ipynb").run_all()
