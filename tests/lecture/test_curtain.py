"""Nothing on a projected page gives a prediction away before the hall has seen its outcome."""

import re

import pytest

from spai_lab.lecture.curtain import ASKS, TELLS, Curtain, curtains, style_sheet
from spai_lab.lecture.pages import lecture_notebook
from spai_lab.workbook import chapters, notebooks_folder, read

MASTERS = chapters(notebooks_folder())
# What may be seen between a question and the button that shows its outcome: text and sources that explain the question,
# and poisons that it is about. A chapter that puts anything else there must say so here, after a look at it.
SEEN = {
    "02-fgsm": ["## One step: FGSM", "show_source(fgsm)", "**Is it the size of the change, or its direction?**"],
    "06-badnets": ["poisoned = badnets("],
}
QUESTIONS = 26


def source(cell) -> str:
    return "".join(cell["source"])


def code(text: str) -> dict:
    return {"cell_type": "code", "source": text}


def text(words: str) -> dict:
    return {"cell_type": "markdown", "source": words}


@pytest.fixture(scope="module")
def pages():
    """Each chapter as a lecture shows it, with the outputs that the master keeps for a cell."""
    found = []
    for path in MASTERS:
        master = read(path)
        stored = {source(cell): cell.get("outputs", []) for cell in master["cells"] if cell["cell_type"] == "code"}
        cells = lecture_notebook(master, "title")["cells"]
        found.append((path.stem, cells, [stored.get(source(cell), []) for cell in cells]))
    return found


def place_of(cells, pattern: re.Pattern, key: str) -> int:
    places = [place for place, cell in enumerate(cells, 1) if key in pattern.findall(source(cell))]
    assert len(places) == 1, f"{key} is asked and answered once"
    return places[0]


def test_every_question_has_a_curtain(pages):
    drawn = [(key, name) for name, cells, _ in pages for key in (each.key for each in curtains(cells))]
    asked = [(key, name) for name, cells, _ in pages for cell in cells for key in ASKS.findall(source(cell))]
    assert sorted(drawn) == sorted(asked) and len(drawn) == QUESTIONS


def test_between_a_question_and_its_button_only_what_is_listed_can_be_seen(pages):
    for _, cells, _ in pages:
        for curtain in curtains(cells):
            first = place_of(cells, ASKS, curtain.key)
            assert place_of(cells, TELLS, curtain.key) == curtain.button > first
            between = [place for place in range(first + 1, curtain.button) if place not in curtain.hidden]
            begun = [source(cells[place - 1]) for place in between]
            expected = SEEN.get(curtain.key, [])
            assert len(begun) == len(expected) and all(map(str.startswith, begun, expected)), curtain.key


def test_below_a_button_nothing_can_be_seen_until_it_is_pressed(pages):
    for _, cells, _ in pages:
        for curtain in curtains(cells):
            assert set(range(curtain.button + 1, len(cells) + 1)) <= set(curtain.hidden), curtain.key


def test_what_is_above_a_question_stays(pages):
    for _, cells, _ in pages:
        for curtain in curtains(cells):
            assert min(curtain.hidden) > place_of(cells, ASKS, curtain.key)


def test_no_stored_output_of_what_can_be_seen_tells_the_outcome(pages):
    """The outcome's own number or option, as the master measured it, in whatever a visible cell shows."""
    for _, cells, outputs in pages:
        for curtain in curtains(cells):
            said = next(
                text
                for output in outputs[curtain.button - 1]
                if (text := "".join(output.get("data", {}).get("text/plain", ""))).startswith("You made no prediction.")
            )
            told = re.match(r"You made no prediction\. (?:Measured|Answer): (.+)\.", said.splitlines()[0])[1]
            first = place_of(cells, ASKS, curtain.key)
            for place in (place for place in range(first + 1, curtain.button) if place not in curtain.hidden):
                shown = [source(cells[place - 1])] if cells[place - 1]["cell_type"] == "markdown" else []
                for output in outputs[place - 1]:
                    shown += ["".join(output.get("data", {}).get(kind, "")) for kind in ("text/plain", "text/markdown")]
                assert told not in "\n".join(shown), curtain.key


def test_a_figure_put_between_a_question_and_its_button_is_hidden_as_is_all_that_follows():
    cells = [
        *(code('predict("a", "?", ["x", "y"])'), code("show_source(f)"), code("style.show(fig)"), text("So.")),
        *(code('style.show_table(t)\ncompare("a", "x")'), text("Therefore."), code("explorer()")),
        *(code("predict('b', '?')"), code("rates"), code("compare('b', 1)"), text("End.")),
    ]
    assert curtains(cells) == [Curtain("a", 5, (3, 6, 7, 8, 9, 10, 11)), Curtain("b", 10, (9, 11))]


def test_a_page_without_outcomes_has_no_curtain():
    assert curtains([text("predict('a', 1)"), code("show(fig)")]) == [] == curtains([code('predict("a", "?")')])
    assert style_sheet([]) == ""


def test_the_rules_name_places_and_no_markup():
    rules = style_sheet([Curtain('a"</style><b>', 2, (3,))])
    assert "<" not in rules and '[cell-index="3"]' in rules and '[cell-index="2"] .spai-excuse' in rules
