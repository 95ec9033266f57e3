"""Every chapter as a page: alt texts, no solutions, links, what is left out; once as sources, once built."""

import ast
import base64
import copy
import html
import json
import re

import pytest

from spai_lab.book import build as builder
from spai_lab.book import pages
from spai_lab.book.build import build, choose
from spai_lab.book.links import Reader, broken_links
from spai_lab.exercises import EXERCISES
from spai_lab.workbook import chapter_of, chapters, first_cell, notebooks_folder, read

MASTERS = chapters(notebooks_folder())
NAMES = {path.stem for path in MASTERS}
MARK = re.compile(r"<[^>]+>")


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """All chapters, with no frames, so that it is there in half a minute."""
    return build(tmp_path_factory.mktemp("book") / "book", most=0).folder


def stored_pictures(path):
    """Alt text and bytes of each picture that a page shows of a chapter as it was stored, in order."""
    for cell in read(path)["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if (
                "image/png" in data
                and "text/html" not in data
                and pages.last_call("".join(cell["source"])) != pages.MAP_CALL
            ):
                yield output["metadata"]["image/png"]["alt"], base64.b64decode("".join(data["image/png"]))


@pytest.mark.parametrize("path", MASTERS, ids=lambda path: path.stem)
def test_every_picture_of_a_page_carries_the_alt_text_that_was_stored(book, path):
    found = Reader((book / f"{path.stem}.html").read_text(encoding="utf-8")).pictures
    expected = list(stored_pictures(path))
    assert [picture["alt"] for picture in found] == [alt for alt, _ in expected]
    assert [(book / picture["src"]).read_bytes() for picture in found] == [png for _, png in expected]
    assert expected and all(alt.strip() for alt, _ in expected)


def words_of(text):
    """The words of code, however it is laid out or colored."""
    return re.sub(r"\s+", "", html.unescape(MARK.sub("", text)))


def solved(exercise):
    """The statements of a solution that its stub lacks, as one word."""
    from spai_lab.exercises import solution

    tree = ast.parse(repr(solution(exercise.name))).body[0]
    body = tree.body[1:] if isinstance(tree, ast.FunctionDef) else [tree]
    return words_of("\n".join(map(ast.unparse, body)))


def test_no_solution_is_in_a_page(book):
    """The body of a solution, as one piece; most of the package's own functions hold parts of it."""
    texts = {path.name: words_of(path.read_text(encoding="utf-8")) for path in book.glob("*.html")}
    texts["searchindex.js"] = words_of((book / "searchindex.js").read_text(encoding="utf-8"))
    answers = {exercise.name: solved(exercise).replace("'", '"') for exercise in EXERCISES.values()}
    for name, text in texts.items():
        text = text.replace("'", '"')
        told = [exercise for exercise, answer in answers.items() if len(answer) > 40 and answer in text]
        assert not told, f"{name} tells {told}"
        assert "raiseNotImplementedError" in text or not re.search(r"check\.\w+\(my_", text)


def test_every_exercise_is_asked_and_none_is_attempted(book):
    for path in MASTERS:
        text = (book / f"{path.stem}.html").read_text(encoding="utf-8")
        asked = [exercise for exercise in EXERCISES.values() if exercise.chapter == path.stem]
        assert text.count("Not attempted yet") >= len(asked)
        assert "Passed" not in MARK.sub("", text) or not asked or "✔ Passed" not in text


def test_all_links_lead_somewhere(book):
    assert broken_links(book) == []


def test_nothing_of_colab_and_no_machine_path_is_in_a_page(book):
    for path in book.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert "Only on Colab" not in text and "%pip" not in text
        assert not re.search(r"(?<![\w/.])/(home|work|tmp|root)/\w", text), path.name


def test_the_chapters_follow_each_other(book):
    names = ["index", *sorted(NAMES)]
    for before, name, after in zip([None, *names], names, [*names[1:], None], strict=False):
        text = (book / f"{name}.html").read_text(encoding="utf-8")
        assert (f'class="right-next"\n       href="{after}.html"' in text) == (after is not None)
        assert (f'class="left-prev"\n       href="{before}.html"' in text) == (before is not None)
        for other in NAMES - {name}:
            assert f'href="{other}.html"' in text


def test_the_landing_page_asks_each_chapters_question(book):
    text = html.unescape(MARK.sub("", (book / "index.html").read_text(encoding="utf-8"))).replace("’", "'")
    for path in MASTERS:
        chapter = chapter_of(path)
        assert chapter.question and chapter.minutes
        assert chapter.question.replace("*", "").replace("’", "'") in text.replace("*", "")


def test_the_map_leads_to_pages(book):
    found = Reader((book / "00_start_here.html").read_text(encoding="utf-8")).links
    assert len([link for link in found if link.target == "02_gradient_attacks.html"]) > 5
    assert not [link for link in found if ".ipynb" in link.target]


def test_a_chapter_stays_as_it_is_and_links_to_missing_ones_become_words():
    chapter = read(MASTERS[0])
    before = copy.deepcopy(chapter)
    source = pages.source_of(
        chapter, {MASTERS[0].stem}, {pages.MAP_CALL: '<a href="02_gradient_attacks.ipynb">x</a>'}, {}
    )
    assert chapter == before
    text = json.dumps(source.notebook)
    assert ".ipynb" not in text and "<span>x</span>" in text
    assert json.dumps(first_cell()) not in text


def test_what_a_cell_shows_live_replaces_its_picture_and_a_note_stands_below_a_still_one():
    [path] = [path for path in MASTERS if path.stem.startswith("02")]
    shown, notes = (
        {"epsilon_explorer(dataset=data.name)": "<figure>live</figure>"},
        {"moons_explorer()": "<p>still</p>"},
    )
    cells = pages.source_of(read(path), NAMES, shown, notes).notebook["cells"]
    outputs = {"".join(cell["source"]): cell.get("outputs", []) for cell in cells}
    assert [output["data"] for output in outputs["epsilon_explorer(dataset=data.name)"]] == [
        {"text/html": "<figure>live</figure>"}
    ]
    picture, note = (output["data"]["text/html"] for output in outputs["moons_explorer()"])
    assert picture.startswith("<img") and note == "<p>still</p>"


def test_an_edition_needs_a_chapter_and_a_place_of_its_own(tmp_path, refuses):
    refuses(choose, {"masters": notebooks_folder(), "only": ["99"]}, "99", "02_gradient_attacks")
    refuses(choose, {"masters": tmp_path, "only": []}, "is there")
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    refuses(build, {"out": tmp_path, "only": ["00"]}, "out", "something else")
    refuses(build, {"out": tmp_path / "new", "most": -1}, "most", "at least 0")
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "mine"
    (tmp_path / "02_x.ipynb").write_text('{"nbformat": 4, "cells": [{"source": ["no title"]}]}', encoding="utf-8")
    refuses(chapter_of, {"path": tmp_path / "02_x.ipynb"}, "title")


@pytest.mark.parametrize("trouble", [RuntimeError("Sphinx warned"), KeyboardInterrupt()], ids=["warning", "Ctrl-C"])
def test_a_build_that_does_not_end_leaves_the_old_book_and_nothing_else(tmp_path, monkeypatch, trouble):
    def fail(*_):
        raise trouble

    old = tmp_path / "book"
    old.mkdir()
    (old / builder.MARK).write_text("{}", encoding="utf-8")
    monkeypatch.setattr(builder, "run_sphinx", fail)
    with pytest.raises(type(trouble)):
        build(old, ["00"], most=0)
    assert [path.name for path in old.iterdir()] == [builder.MARK]
    assert {path.name for path in tmp_path.iterdir()} == {"book", "book-frames"}


def test_what_sphinx_warns_of_stops_the_build(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "landing", lambda *_: "# A page\n\n[x](nowhere.md)\n")
    with pytest.raises(RuntimeError, match="nowhere"):
        build(tmp_path / "book", ["00"], most=0)
    assert not (tmp_path / "book").exists()


def test_a_missing_package_is_named_before_anything_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(builder.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"sphinx is not installed; `python3 run.py book`"):
        build(tmp_path / "book", ["00"])
    assert list(tmp_path.iterdir()) == []
