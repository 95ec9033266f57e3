"""The chapters as files: what a code host shows, what nbval can compare, and what a reader may rely on."""

import ast
import json
import re
from pathlib import Path

import pytest

from spai_lab.workbook import LARGEST_NOTEBOOK, chapters, first_cell, normalize, read, to_bytes

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = chapters(ROOT / "notebooks")
PERCENTAGE = re.compile(r"\d+(?:[.,]\d+)?\s*(?:\\?%|per ?cent\b)")
CONFIDENCE = re.compile(r"95\s*\\?%\s*(?:confidence|interval)")


@pytest.fixture(params=CHAPTERS, ids=[path.stem for path in CHAPTERS])
def path(request):
    return request.param


@pytest.fixture
def book(path):
    return read(path)


def text(cell):
    return "".join(cell["source"])


def code(book):
    return [cell for cell in book["cells"] if cell["cell_type"] == "code" and text(cell).strip()]


def outputs(book):
    return [output for cell in code(book) for output in cell["outputs"]]


def typed_percentages(prose):
    """Percentages that somebody typed; the level of an interval is a convention, and no result.

    >>> typed_percentages("about 83.0 % of the images, 95 % interval 74 to 89")
    ['83.0 %']
    """
    return PERCENTAGE.findall(CONFIDENCE.sub("", prose))


def test_the_chapters_of_this_edition_are_there():
    names = [path.stem for path in CHAPTERS]
    assert names[:3] == ["00_start_here", "01_models_and_threats", "02_gradient_attacks"]


def test_every_chapter_begins_with_the_cell_that_prepares_colab(book):
    assert text(code(book)[0]) == first_cell()


def test_every_chapter_is_stored_as_it_was_executed_from_top_to_bottom(book):
    counts = [cell["execution_count"] for cell in code(book)]
    assert counts == list(range(1, len(counts) + 1))


def test_every_checked_cell_has_a_count_and_an_output_to_be_compared_with(book):
    for cell in book["cells"]:
        if "nbval-check-output" in cell["metadata"].get("tags", []):
            assert cell["execution_count"] is not None, text(cell)
            compared = [
                key for output in cell["outputs"] for key in (*output.get("data", ()), *output.get("text", ())[:1])
            ]
            assert [key for key in compared if not key.startswith("image/")], text(cell)


SHOWS = re.compile(r"(compare|predict|show_source|Recompute|hint|solution|\w+_explorer|\w+_walk)")


def test_what_a_cell_returns_to_be_seen_is_its_last_expression(book):
    """Jupyter shows the last expression alone; a `compare(...)` before it would never be seen."""
    for cell in code(book):
        for statement in ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", text(cell), flags=re.M)).body[:-1]:
            call = getattr(statement, "value", None) if isinstance(statement, ast.Expr) else None
            name = getattr(call.func, "id", "") if isinstance(call, ast.Call) else ""
            assert not SHOWS.fullmatch(name), f"{name} is not the last expression of: {text(cell)}"


def test_no_cell_is_left_out_by_nbval(book):
    for cell in code(book):
        assert not {"nbval-skip", "nbval-ignore-output"} & set(cell["metadata"].get("tags", [])), text(cell)
        assert not re.search(r"NBVAL_(SKIP|IGNORE)", text(cell)), text(cell)


def test_no_error_is_stored_but_where_one_is_shown_on_purpose(book):
    for cell in code(book):
        if "raises-exception" not in cell["metadata"].get("tags", []):
            assert not [output for output in cell["outputs"] if output["output_type"] == "error"], text(cell)


def test_the_file_is_normalized_small_and_the_same_on_every_system(path, book):
    assert path.read_bytes() == to_bytes(normalize(book)), "run `run.py notebooks`"
    assert path.stat().st_size <= LARGEST_NOTEBOOK
    assert "widgets" not in book["metadata"]


def test_no_output_names_a_folder_of_the_machine_that_made_it(book):
    stored = json.dumps(outputs(book))
    for folder in (ROOT, Path.home()):
        assert str(folder) not in stored
    assert not re.search(r"/(home|Users|tmp)/\w|ipykernel_\d+|[A-Z]:\\\\Users", stored)


def test_every_picture_says_what_it_shows_to_those_who_cannot_see_it(book):
    pictures = [output for output in outputs(book) if "image/png" in output.get("data", {})]
    for picture in pictures:
        assert picture["metadata"].get("image/png", {}).get("alt", "").strip()
    pages = [
        text({"source": output["data"]["text/html"]})
        for output in outputs(book)
        if "text/html" in output.get("data", {})
    ]
    pages += [text(cell) for cell in book["cells"] if cell["cell_type"] == "markdown"]
    for image in re.findall(r"<img\b[^>]*>", "".join(pages)):
        assert re.search(r"""\balt=["'][^"']""", image), image[:100]
    assert not re.search(r"!\[\s*\]\(", "".join(pages)), "a picture in the prose without alt text"


def test_no_result_is_typed_in_the_prose(book):
    for cell in book["cells"]:
        if cell["cell_type"] == "markdown":
            assert not typed_percentages(text(cell)), text(cell)


@pytest.mark.parametrize(
    ("prose", "found"),
    [
        ("It falls to 6.4 %.", ["6.4 %"]),
        ("It falls to $6.4\\%$ of 98% accuracy.", ["6.4\\%", "98%"]),
        ("Ten percent, 10 percent", ["10 percent"]),
        ("with its 95 % interval and a 95% confidence", []),
        ("eps = 0.3 and 40 steps", []),
    ],
)
def test_typed_percentages_are_seen(prose, found):
    assert typed_percentages(prose) == found
