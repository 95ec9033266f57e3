"""The workbook's files: copies for students, normalized masters, and executing them."""

import copy
import json
from datetime import date

import pytest

from spai_lab import workbook
from spai_lab.workbook import copy_chapters, first_cell, normalize, read, to_bytes

WIDGET = "application/vnd.jupyter.widget-view+json"
DAY = date(2026, 11, 23)


def code(source, outputs=(), count=1, **metadata):
    return {
        "cell_type": "code",
        "id": f"id-{source}"[:20].replace(" ", "-"),
        "source": source,
        "metadata": metadata,
        "outputs": list(outputs),
        "execution_count": count,
    }


def notebook(*cells, **metadata):
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": list(cells)}


def display(**data):
    return {"output_type": "display_data", "metadata": {}, "data": data}


def stream(name, text):
    return {"output_type": "stream", "name": name, "text": text}


@pytest.fixture
def masters(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("00_start_here", "01_models_and_threats"):
        master = notebook(code("answer", [stream("stdout", "42\n")]))
        (folder / f"{name}.ipynb").write_bytes(to_bytes(master))
    (folder / "notes.ipynb").write_text("not a chapter", encoding="utf-8")
    return folder


@pytest.fixture
def my(tmp_path):
    return tmp_path / "my"


def change(path, source="another question"):
    path.write_bytes(to_bytes(notebook(code(source))))


def test_chapters_arrive_without_outputs_and_other_files_stay_behind(masters, my):
    written = copy_chapters(masters, my)
    assert [copied.chapter for copied in written] == ["00_start_here", "01_models_and_threats"]
    cell = read(my / "00_start_here.ipynb")["cells"][0]
    assert cell["outputs"] == [] and cell["execution_count"] is None
    assert sorted(path.name for path in my.glob("*.ipynb")) == ["00_start_here.ipynb", "01_models_and_threats.ipynb"]


def test_a_second_copy_writes_nothing(masters, my):
    copy_chapters(masters, my)
    before = {path: path.stat().st_mtime_ns for path in my.iterdir()}
    assert copy_chapters(masters, my) == []
    assert {path: path.stat().st_mtime_ns for path in my.iterdir()} == before


def test_what_a_student_wrote_is_never_overwritten(masters, my):
    copy_chapters(masters, my)
    mine = my / "00_start_here.ipynb"
    change(mine, "my own work")
    change(masters / "00_start_here.ipynb")
    content = mine.read_bytes()
    [copied] = copy_chapters(masters, my, DAY)
    assert mine.read_bytes() == content
    assert copied.beside and copied.path.name == "00_start_here (new 2026-11-23).ipynb"
    assert read(copied.path)["cells"][0]["source"] == ["another question"]
    assert copy_chapters(masters, my, DAY) == [], "a new version is offered once"


def test_two_changes_in_a_day_make_two_copies(masters, my):
    copy_chapters(masters, my)
    for text in ("one", "two", "three"):
        change(masters / "00_start_here.ipynb", text)
        copy_chapters(masters, my, DAY)
    names = {path.name for path in my.glob("00*")}
    assert names == {"00_start_here.ipynb"} | {
        f"00_start_here (new 2026-11-23{again}).ipynb" for again in ("", ", 2", ", 3")
    }


def test_new_outputs_alone_make_no_new_copy(masters, my):
    copy_chapters(masters, my)
    (masters / "00_start_here.ipynb").write_bytes(
        to_bytes(notebook(code("answer", [stream("stdout", "43\n")], count=7)))
    )
    assert copy_chapters(masters, my) == []


def test_a_deleted_copy_comes_back(masters, my):
    copy_chapters(masters, my)
    (my / "00_start_here.ipynb").unlink()
    [copied] = copy_chapters(masters, my)
    assert copied.path == my / "00_start_here.ipynb" and not copied.beside


@pytest.mark.parametrize("memory", ["", "[1]", "{", "\x00"])
def test_a_lost_memory_overwrites_nothing(masters, my, memory):
    copy_chapters(masters, my)
    change(my / "00_start_here.ipynb", "my own work")
    (my / ".chapters.json").write_text(memory, encoding="utf-8")
    assert copy_chapters(masters, my) == []
    assert read(my / "00_start_here.ipynb")["cells"][0]["source"] == "my own work"


def test_a_full_disk_leaves_no_half_chapter(masters, my, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        copy_chapters(masters, my)
    assert list(my.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"nbformat": 3, "cells": []}', '{"nbformat": 4}'])
def test_what_is_no_notebook_is_named(tmp_path, content):
    path = tmp_path / "00_broken.ipynb"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"00_broken\.ipynb is not a notebook of format 4"):
        read(path)


def test_normalizing_removes_noise_and_keeps_results():
    picture = display(**{"image/png": "iVBOR", "text/plain": "<Figure at 0x7f01c2>", WIDGET: {"model_id": "1"}})
    picture["metadata"] = {"image/png": {"alt": "a seven"}}
    before = notebook(
        code("show", [picture], count=3, execution={"iopub.execute_input": "2026"}, tags=["nbval-check-output"]),
        kernelspec={"name": "spai", "display_name": "mine"},
        language_info={"name": "python", "version": "3.11.7"},
        widgets={"state": {}},
        title="One",
    )
    untouched = copy.deepcopy(before)
    after = normalize(before)
    assert before == untouched
    assert after["metadata"].keys() == {"kernelspec", "language_info", "title"}
    assert after["metadata"]["kernelspec"]["name"] == "python3"
    assert "version" not in after["metadata"]["language_info"]
    [cell] = after["cells"]
    assert cell["metadata"] == {"tags": ["nbval-check-output"]} and cell["execution_count"] == 3
    [output] = cell["outputs"]
    assert output["data"] == {"image/png": "iVBOR", "text/plain": ["<Figure>"]}
    assert output["metadata"] == {"image/png": {"alt": "a seven"}}
    assert normalize(after) == after


def test_a_widget_without_a_picture_leaves_nothing_and_one_with_html_its_html():
    bare = display(**{WIDGET: {"model_id": "1"}, "text/plain": "RadioButtons(options=('a', 'b'))"})
    spoken = display(**{WIDGET: {"model_id": "1"}, "text/html": "<p>a or b?</p>"})
    [cell] = normalize(notebook(code("ask", [bare, spoken])))["cells"]
    assert [output["data"] for output in cell["outputs"]] == [{"text/html": "<p>a or b?</p>"}]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("\r 10%|#         | 1/10 [00:01<00:09,  1.00it/s]\r100%|##########| 10/10 [00:10<00:00,  1.00s/it]\n", None),
        ("\r3it [00:00, 12.1it/s]", None),
        ("warning: zero gradients\n", "warning: zero gradients\n"),
        ("\r 50%|#####     | 1/2 [00:01<00:01,  1.00it/s]\nwarning: zero gradients\n", "warning: zero gradients\n"),
    ],
)
def test_progress_bars_go_and_warnings_stay(text, left):
    [cell] = normalize(notebook(code("fit", [stream("stderr", text), stream("stdout", "100%|done\n")])))["cells"]
    assert ["".join(o["text"]) for o in cell["outputs"]] == ([left] if left else []) + ["100%|done\n"]


def test_ids_are_kept_where_they_are_good_and_follow_from_the_content_elsewhere():
    cells = [code("a"), code("a"), {**code("b"), "id": "not valid!"}, code("c")]
    del cells[3]["id"]
    first, second = normalize(notebook(*cells)), normalize(notebook(*cells))
    names = [cell["id"] for cell in first["cells"]]
    assert first == second
    assert names[0] == "id-a" and len(set(names)) == 4
    assert [cell["id"] for cell in normalize(notebook(code("new"), *first["cells"]))["cells"]][1:] == names


def test_the_same_notebook_is_the_same_bytes_and_valid():
    nbformat = pytest.importorskip("nbformat")
    book = normalize(notebook({"cell_type": "markdown", "id": "m", "metadata": {}, "source": "# Größe\n"}, code("1")))
    assert to_bytes(json.loads(to_bytes(book))) == to_bytes(book)
    nbformat.validate(nbformat.reads(to_bytes(book).decode(), as_version=4))
    assert nbformat.writes(nbformat.reads(to_bytes(book).decode(), as_version=4)) + "\n" == to_bytes(book).decode()


@pytest.mark.parametrize("text", ["/tmp", ""])
def test_the_students_folder_is_the_one_that_was_set(monkeypatch, root, text):
    monkeypatch.setenv("SPAI_MY", text)
    assert str(workbook.my_folder()) == (text or str(root / "my"))


def run_first_cell(found, source="", monkeypatch=None):
    """Run the cell in an IPython shell that has the package or has it not; what it would have installed."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    installed = []
    shell.register_magic_function(lambda line: installed.append(line), magic_name="pip")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if found else None)
    result = shell.run_cell(first_cell().replace('SOURCE = ""', f'SOURCE = "{source}"'))
    return result, installed


def test_the_first_cell_does_nothing_where_the_package_is_there(monkeypatch):
    result, installed = run_first_cell(True, monkeypatch=monkeypatch)
    assert result.success and installed == []


def test_the_first_cell_installs_from_the_source_on_colab(monkeypatch):
    result, installed = run_first_cell(False, "git+https://example.org/spai", monkeypatch=monkeypatch)
    assert result.success and installed == ["install --quiet git+https://example.org/spai"]


def test_the_first_cell_says_what_to_set_where_the_source_is_empty(monkeypatch):
    result, installed = run_first_cell(False, monkeypatch=monkeypatch)
    assert "set SOURCE" in str(result.error_in_exec) and installed == []


def test_the_first_cell_is_short():
    assert len(first_cell().splitlines()) < 10
    assert "torch" not in "".join(line for line in first_cell().splitlines() if not line.startswith("#"))


@pytest.fixture
def on_mnist(monkeypatch, tmp_path):
    """A machine that has MNIST, as far as `execute` looks."""
    monkeypatch.setattr("spai_lab.data.available", lambda: {"mnist": tmp_path})
    monkeypatch.delenv("SPAI_DATASET", raising=False)


def chapter(tmp_path, *sources):
    path = tmp_path / "00_tiny.ipynb"
    path.write_bytes(to_bytes(notebook(*(code(source, count=None) for source in sources))))
    return path


def test_a_chapter_is_executed_on_mnist_outside_the_repository(on_mnist, tmp_path):
    path = chapter(
        tmp_path,
        "import os, pathlib; os.environ['SPAI_DATASET'], os.listdir(), os.environ['SPAI_MY'] == os.getcwd()",
        "import ipywidgets\nout = ipywidgets.Output()\nwith out:\n    print('inside')\nout",
        "1 + 1",
    )
    size = workbook.renew(path)
    first, _, last = read(path)["cells"]
    assert "".join(first["outputs"][0]["data"]["text/plain"]) == "('mnist', [], True)"
    assert [first["execution_count"], last["execution_count"]] == [1, 3]
    assert "".join(last["outputs"][0]["data"]["text/plain"]) == "2"
    assert size == path.stat().st_size
    assert "widgets" not in read(path)["metadata"]


def test_a_failing_chapter_is_named_and_its_file_stays(on_mnist, tmp_path):
    path = chapter(tmp_path, "1 / 0")
    content = path.read_bytes()
    with pytest.raises(
        workbook.ChapterError, match=r"00_tiny: ZeroDivisionError: division by zero, in the cell\n1 / 0"
    ):
        workbook.renew(path)
    assert path.read_bytes() == content


def test_a_chapter_over_the_limit_is_refused_and_its_file_stays(on_mnist, tmp_path, monkeypatch):
    path = chapter(tmp_path, "print('x' * 3000)")
    content = path.read_bytes()
    monkeypatch.setattr(workbook, "LARGEST_NOTEBOOK", 3000)
    with pytest.raises(ValueError, match="fewer or smaller figures"):
        workbook.renew(path)
    assert path.read_bytes() == content


def test_masters_are_made_on_mnist_alone(monkeypatch, tmp_path):
    path = chapter(tmp_path, "1")
    monkeypatch.setenv("SPAI_DATASET", "digits")
    with pytest.raises(ValueError, match="'digits'; the masters are made on 'mnist'"):
        workbook.execute(path)
    monkeypatch.delenv("SPAI_DATASET")
    monkeypatch.setattr("spai_lab.data.available", lambda: {"mnist": "MNIST is not in the cache"})
    with pytest.raises(FileNotFoundError, match="MNIST is not in the cache"):
        workbook.execute(path)
