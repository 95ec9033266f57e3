"""What a lecture shows of each chapter: no exercises, no outputs, and nothing that needs what was left out."""

import ast
import builtins
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from spai_lab.lecture.pages import lecture_notebook, sections, start_page
from spai_lab.lecture.serve import EXTENSIONS, HOST, SERVER, kernel_spec, lay_out, settings
from spai_lab.workbook import chapter_of, chapters, notebooks_folder, read

MASTERS = chapters(notebooks_folder())
EXERCISE = re.compile(r"NotImplementedError|\bcheck\.\w+\(|\bhint\(\"|\bsolution\(\"|\bmy_\w+")


def code(cells) -> list[str]:
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def headings(cells) -> list[str]:
    texts = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return [title for text in texts for title, _ in sections(text) if title]


@pytest.fixture(params=MASTERS, ids=lambda path: path.stem[:2])
def pair(request):
    """A chapter and what a lecture shows of it."""
    master = read(request.param)
    return master, lecture_notebook(master, "title")


def test_all_sections_are_there_but_the_exercises(pair):
    master, shown = pair
    assert headings(shown["cells"]) == [title for title in headings(master["cells"]) if title != "Exercises"]


def test_no_stub_no_check_and_no_solution_is_left(pair):
    _, shown = pair
    for source in code(shown["cells"]):
        assert not EXERCISE.search(source), source
    assert not any(cell.get("outputs") for cell in shown["cells"]), "stored outputs would give predictions away"


def test_what_is_shown_needs_nothing_that_is_hidden(pair):
    master, shown = pair
    kept = code(shown["cells"])
    hidden = [source for source in code(master["cells"])[1:] if source not in kept]
    assert not names(hidden, ast.Store) & (names(kept, ast.Load) - names(kept, ast.Store) - set(dir(builtins)))


def names(sources, context) -> set[str]:
    """Names that are read, or bound, at the top of the cells or inside."""
    found = set()
    for source in sources:
        for node in ast.walk(ast.parse(re.sub(r"^\s*%.*$", "", source, flags=re.MULTILINE))):
            if isinstance(node, ast.Name) and isinstance(node.ctx, context):
                found.add(node.id)
            elif context is ast.Store and isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif context is ast.Store and isinstance(node, ast.Import | ast.ImportFrom):
                found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return found


def test_the_first_page_lists_the_chapters_in_their_order():
    page = start_page([chapter_of(path) for path in MASTERS])
    links = re.findall(r'href="/voila/render/(\w+)\.ipynb"', page)
    assert links == [path.stem for path in MASTERS] and links[0].startswith("00")
    assert "Gradient attacks" in page and "How little must change" in page


def test_nothing_is_written_beside_the_masters_and_no_template_names_another_host(tmp_path):
    masters = tmp_path / "notebooks"
    masters.mkdir()
    (masters / "02_x.ipynb").write_bytes(MASTERS[2].read_bytes())
    before = [(path, path.read_bytes()) for path in masters.rglob("*")]
    place = tmp_path / "place"
    place.mkdir()
    lay_out(place, masters)
    assert [(path, path.read_bytes()) for path in masters.rglob("*")] == before
    written = [path for path in place.rglob("*") if path.is_file() and path.suffix != ".ipynb"]
    assert {path.name for path in written} >= {"index.html.j2", "tree.html", "lecture.css", "kernel.json"}
    for path in written:
        assert not re.search(r"https?://", path.read_text(encoding="utf-8")), path


def test_the_server_itself_does_without_torch():
    """It would start seconds later, and only kernels compute."""
    script = "import sys, spai_lab.lecture.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=notebooks_folder().parent).returncode == 0


def test_a_folder_without_chapters_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no chapters"):
        lay_out(tmp_path, tmp_path)


def test_the_server_listens_to_this_machine_with_a_token_and_runs_what_it_should():
    chosen = settings(Path("place"), 8899, "secret")
    assert chosen["Voila"]["ip"] == HOST == "127.0.0.1" and chosen["Voila"]["token"] == "secret"
    assert SERVER["allow_remote_access"] is False, "a page under another name is refused"
    assert chosen["VoilaConfiguration"]["extension_allowlist"] == EXTENSIONS, "none of the user's own"
    assert json.loads(json.dumps(kernel_spec()))["argv"][0] == os.sys.executable
