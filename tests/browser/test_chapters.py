"""The chapters as a student has them: a real JupyterLab, a real kernel, and the keyboard."""

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
from playwright.sync_api import Locator, expect

from spai_lab.exercises import EXERCISES
from spai_lab.survey.regions import short_name
from spai_lab.survey.taxonomy import load_taxonomy
from spai_lab.workbook import read, to_bytes

pytestmark = pytest.mark.browser

EXPLORER = "epsilon_explorer("
CHAPTER = "02_gradient_attacks"
MINIMAL, BLACK_BOX = "03_minimal_adaptive_physical", "04_black_box_attacks"
EXPLORABLES = {
    MINIMAL: (
        *("deepfool_walk(", "cw_tradeoff(", "saliency_explorer("),
        *("attack_gallery(", "universal_growth(", "patch_explorer("),
    ),
    BLACK_BOX: ("boundary_walk(",),
    "05_poisoning": ("poison_explorer(",),
    "06_backdoors": ("trigger_painter(",),
    "07_gradient_masking": ("distillation_explorer(",),
    "08_robust_training": ("robust_boundary(", "smoothing_explorer(", "interval_explorer("),
    "09_detection": ("detection_explorer(",),
    "10_cleaning_up": ("cleaning_explorer(",),
    "11_privacy_attacks": ("inversion_explorer(", "membership_explorer(", "copying_explorer("),
    "12_leaks_in_collaboration": ("leakage_explorer(",),
    "13_differential_privacy": (
        *("noise_explorer(", "accounting_explorer(", "clipping_explorer("),
        *("tuning_explorer(", "votes_explorer("),
    ),
    "14_homomorphic_encryption": (
        *("precision_explorer(", "levels_explorer(", "rotation_explorer("),
        *("degree_explorer(", "sides_explorer("),
    ),
    "15_multiparty_computation": (
        *("shares_explorer(", "gate_explorer("),
        *("traffic_explorer(", "network_explorer("),
    ),
    "17_arena": ("standings_explorer(",),
}
CHAPTER_OF = {call: chapter for chapter, calls in EXPLORABLES.items() for call in calls}
# Whose explorables are moved each time; those of the other chapters by the long tests.
EACH_TIME = {BLACK_BOX, "08_robust_training", "14_homomorphic_encryption", "17_arena"}


def cases(*rows: tuple) -> list:
    """Cases that begin with the call of an explorable, long ones marked."""
    return [pytest.param(*row, marks=() if CHAPTER_OF[row[0]] in EACH_TIME else pytest.mark.full) for row in rows]


FORGOT_THE_CLIP = """\
import torch

def my_fgsm(model, x, y, eps):
    x = x.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    return (x + eps * torch.autograd.grad(loss, x)[0].sign()).detach()
"""


@dataclass(frozen=True)
class Live:
    """An explorable on the page: what a student sees and moves."""

    output: Locator

    @property
    def picture(self) -> Locator:
        return self.output.locator(".spai-picture img")

    @property
    def caption(self) -> Locator:
        return self.output.locator(".spai-picture [aria-live]")

    def control(self, kind: str, name: str) -> Locator:
        """The control with this name beside it: ipywidgets does not tie the two together."""
        return self.output.locator(f".widget-{kind}", has=self.output.page.get_by_text(name, exact=True))

    def shows(self, words: str) -> None:
        """Wait until the picture's description has these words."""
        expect(self.picture).to_have_attribute("alt", re.compile(re.escape(words)))

    def moves(self, act: Callable[[], None], said: Callable[[], str]) -> None:
        """`act` gives another picture and caption, and a description with what `said` returns after it."""
        src, caption = self.picture.get_attribute("src"), self.caption.inner_text()
        act()
        self.shows(said())
        expect(self.picture).not_to_have_attribute("src", src)
        expect(self.caption).not_to_have_text(caption)


@pytest.fixture(scope="module")
def excerpt(workplace):
    """`excerpt(folder, chapter, name, *words)`: a chapter of a folder, under that name in the workplace, cut down.

    What stays are its first two code cells, which set it up, and the code cells with one of the words.
    """

    def write(folder, chapter: str, name: str, *words: str) -> str:
        book = read(folder / f"{chapter}.ipynb")
        cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
        wanted = [cell for cell in cells[2:] if any(word in "".join(cell["source"]) for word in words)]
        (workplace / name).write_bytes(to_bytes({**book, "cells": cells[:2] + wanted}))
        return name

    return write


@pytest.fixture(scope="module")
def as_copied(excerpt, workplace) -> str:
    """The explorer and the predictions of chapter 02 as the student has them, without outputs."""
    return excerpt(workplace, CHAPTER, "as_copied.ipynb", EXPLORER, "predict(")


@pytest.fixture(scope="module")
def live(kept_notebook, excerpt, workplace):
    """`live(call)`: the explorable that this call makes in its chapter; a chapter's explorables are run once."""

    @cache
    def opened(chapter: str):
        book = kept_notebook(excerpt(workplace, chapter, f"explorables_{chapter}.ipynb", *EXPLORABLES[chapter]))
        book.run_all()
        return book

    def find(call: str) -> Live:
        book = opened(CHAPTER_OF[call])
        book.page.bring_to_front()  # a page behind another one does not open the list of a choice
        return Live(book.outputs(call))

    return find


def attacked(alt: str) -> str:
    """What the picture's description says of the adversarial image: its class and the probability."""
    return re.search(r"it says (.+?)\. ", alt).group(1)


def test_the_epsilon_slider_moves_the_picture_its_words_and_the_caption(notebook, as_copied):
    chapter = notebook(as_copied)
    chapter.run_all()
    explorer = Live(chapter.outputs(EXPLORER))
    alt = explorer.picture.get_attribute("alt")
    slider = explorer.control("slider", "eps")

    explorer.moves(
        lambda: [slider.get_by_role("slider").press("ArrowRight") for _ in range(8)],
        lambda: f"at eps {slider.locator('.widget-readout').inner_text()} ",
    )

    assert attacked(explorer.picture.get_attribute("alt")) != attacked(alt)


@pytest.mark.parametrize(
    ("call", "name", "presses", "words"),
    cases(
        ("deepfool_walk(", "step", 2, "after step {} of "),
        ("cw_tradeoff(", "c", 8, "of the minimizer at c = {} it says "),
        ("saliency_explorer(", "pixels", 3, "with {} pixels changed of "),
        ("universal_growth(", "images", 2, "made from {} training image"),
        ("patch_explorer(", "row", 9, "pixels at row {}, column "),
        ("patch_explorer(", "column", 12, ", column {}, turned by "),
        ("boundary_walk(", "step", 4, "after step {} of "),
        ("poison_explorer(", "horizontal", 6, "a poison at ({}, "),
        ("trigger_painter(", "column", 5, "column {}; the victim"),
        ("distillation_explorer(", "temperature", 3, "of a student of temperature {}, "),
        ("robust_boundary(", "eps", 2, "squares of radius {} around"),
        ("smoothing_explorer(", "sigma", 2, "Gaussian noise of sigma {}, "),
        ("interval_explorer(", "eps", 3, "its box of radius {}; "),
        ("detection_explorer(", "threshold", 6, "Threshold {}. "),
        ("cleaning_explorer(", "threshold", 6, "removed above {}. "),
        ("copying_explorer(", "queries", 2, "The point: {} queries, "),
        ("membership_explorer(", "threshold", 6, " {}. An ROC curve on logarithmic axes"),
        ("leakage_explorer(", "noise", 2, "with noise {}, after "),
        ("leakage_explorer(", "steps", 3, ", after {} steps: "),
        ("noise_explorer(", "epsilon", 3, "at epsilon {}. "),
        ("accounting_explorer(", "batch", 2, "batches of about {} and noise "),
        ("accounting_explorer(", "noise", 4, "and noise {}. "),
        ("clipping_explorer(", "clip", 5, "With C = {}, "),
        ("clipping_explorer(", "noise", 3, "with noise {} the released one, "),
        ("tuning_explorer(", "clip", 3, "Marked: C = {}, "),
        ("tuning_explorer(", "noise", 2, ", noise {}, "),
        ("tuning_explorer(", "lot", 2, ", for lots of {}. "),
        ("votes_explorer(", "teachers", 2, "the votes of {} teachers "),
        ("votes_explorer(", "noise", 4, "of noise with sigma {} lifts"),
        ("votes_explorer(", "draw again", 3, "Draw {} of noise "),
        ("precision_explorer(", "scale", 2, "At {}, after encrypt"),
        ("degree_explorer(", "degree N", 1, "Marked: N = {}, "),
        ("rotation_explorer(", "turn by", 3, "Turned left by {}: "),
        ("rotation_explorer(", "sums", 2, "and after {} of 4 rotations "),
        ("sides_explorer(", "stage", 2, "Right, the server, {}: "),
        ("sides_explorer(", "encryption", 3, " and of encryption {} as two "),
        ("shares_explorer(", "together", 2, " put together, {} of them at most"),
        ("shares_explorer(", "draw again", 2, ", sharing {}: "),
        ("gate_explorer(", "garbling", 2, "Garbling {} of "),
        ("traffic_explorer(", "messages", 3, ", the first {} arrows."),
        ("network_explorer(", "latency", 3, "Marks, with {} of latency"),
        ("network_explorer(", "Mbit/s", 2, " and {} Mbit/s: "),
        ("standings_explorer(", "eps", 2, "Ranking at eps {}: "),
    ),
)
def test_a_slider_moves_the_picture_its_words_and_the_caption(live, call, name, presses, words):
    explorable = live(call)
    slider = explorable.control("slider", name)
    handle, readout = slider.get_by_role("slider"), slider.locator(".widget-readout")
    handle.press("Home")
    first = readout.inner_text()
    explorable.shows(words.format(first))

    explorable.moves(
        lambda: [handle.press("ArrowRight") for _ in range(presses)], lambda: words.format(readout.inner_text())
    )

    assert readout.inner_text() != first


@pytest.mark.parametrize(
    ("call", "name", "words"),
    cases(
        ("attack_gallery(", "model", ", which {} on digits reads as "),
        ("boundary_walk(", "attack", "The walk of {} starts at "),
        ("detection_explorer(", "detector", "Two histograms of the scores of {}: "),
        ("inversion_explorer(", "target", "A training picture of {} of "),
        ("standings_explorer(", "attacks", " after {} alone, falling with eps. "),
    ),
)
def test_a_choice_changes_the_picture_its_words_and_the_caption(live, call, name, words):
    explorable = live(call)
    choice = explorable.control("dropdown", name).get_by_role("combobox")
    following = choice.locator("option:checked + option").inner_text().replace("\N{NO-BREAK SPACE}", " ")

    def choose_the_following():
        choice.press("Space")  # opens the list; while it is closed, JupyterLab takes the arrows for its cells
        explorable.output.page.keyboard.press("ArrowDown")
        explorable.output.page.keyboard.press("Enter")

    explorable.moves(choose_the_following, lambda: words.format(following))


@pytest.mark.parametrize(
    ("call", "name", "words"),
    cases(
        ("deepfool_walk(", "step", "after step {} of "),
        ("saliency_explorer(", "pixels", "with {} pixels changed of "),
        ("boundary_walk(", "step", "after step {} of "),
    ),
)
def test_the_play_button_walks_and_halts(live, call, name, words):
    explorable = live(call)
    slider = explorable.control("slider", name)
    slider.get_by_role("slider").press("Home")
    explorable.shows(words.format(0))
    play, readout = explorable.output.locator(".widget-play button").first, slider.locator(".widget-readout")

    def play_two_steps():
        play.press("Enter")
        expect(readout).to_have_text(re.compile("^([2-9]|[1-9][0-9]+)$"))
        play.press("Enter")

    explorable.moves(play_two_steps, lambda: words.format(readout.inner_text()))


def test_a_click_trains_a_victim_on_what_was_painted(live):
    painter = live("trigger_painter(")
    size = painter.control("slider", "size")
    size.get_by_role("slider").press("End")
    painter.shows("a square of {0} × {0}".format(size.locator(".widget-readout").inner_text()))
    rows = painter.picture.get_attribute("alt").count("clean accuracy")

    painter.output.get_by_role("button", name="Train").press("Enter")

    expect(painter.picture).to_have_attribute("alt", re.compile(rf"(clean accuracy.*){{{rows + 1}}}"), timeout=30_000)


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
    chapter = notebook(excerpt(root / "notebooks", CHAPTER, "as_stored.ipynb", EXPLORER))
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
    chapter = notebook(excerpt(workplace, CHAPTER, "exercise.ipynb", "def my_fgsm", "check.fgsm("))
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
@pytest.mark.parametrize("name", ["00_start_here", "01_models_and_threats", CHAPTER, *EXPLORABLES])
def test_a_chapter_runs_from_top_to_bottom(notebook, name):
    notebook(f"{name}.ipynb").run_all()
