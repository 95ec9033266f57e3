"""What `spai-lab poll` prints, writes and draws: counts of real questions, and never a name."""

import json

import pytest

from spai_lab.cli import main
from spai_lab.poll.book import book
from spai_lab.poll.handed_in import HandedIn
from spai_lab.poll.report import count, drawn, report, to_csv
from spai_lab.workbook import chapters, notebooks_folder, read

STUDENTS = ["ada", "bob", "cem", "dan", "eva"]
FGSM, FLIPS = "02-fgsm", "05-flips"


@pytest.fixture(scope="module")
def asked():
    return book(notebooks_folder())


@pytest.fixture
def handed(tmp_path):
    """Five students, one of whom answered nonsense; two of them answered chapter 05."""
    folder = tmp_path / "class"
    for place, who in enumerate(STUDENTS):
        answers = {FGSM: 10.0 * place, "02-strongest": "PGD, 20 steps" if place else f"I am {who}\x1b[2J"}
        answers |= {FLIPS: "about the same"} if place < 2 else {}
        entries = {key: {"prediction": value, "unit": ""} for key, value in answers.items()}
        (folder / who).mkdir(parents=True)
        (folder / who / "progress.json").write_text(json.dumps({"predictions": entries}))
    return folder


def test_every_question_of_every_chapter_is_known(asked):
    cells = [cell for path in chapters(notebooks_folder()) for cell in read(path)["cells"]]
    asks = sum("predict(" in "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    questions = [question for chapter in asked for question in chapter.questions]
    assert len(questions) == asks >= 26 and len({question.key for question in questions}) == asks
    assert all(question.key.startswith(chapter.number) for chapter in asked for question in chapter.questions)
    by_key = {question.key: question for question in questions}
    assert by_key[FGSM].high == 100 and by_key[FGSM].unit == "%"
    assert len(by_key["02-strongest"].options) == 5, "options that the cell computes"


def test_chapters_are_chosen_by_their_beginning():
    assert [chapter.number for chapter in book(notebooks_folder(), ["02", "05_p"])] == ["02", "05"]
    with pytest.raises(ValueError, match="no chapter begins with 99"):
        book(notebooks_folder(), ["99"])


def test_no_chapters_no_poll(tmp_path):
    with pytest.raises(ValueError, match="--notebooks"):
        book(tmp_path)


def test_the_table_counts_and_names_nobody(handed, capsys):
    assert main(["poll", str(handed)]) == 0
    said = capsys.readouterr()
    assert "02 · Gradient attacks" in said.out and "PGD, 20 steps" in said.out
    assert "under 20 %           2   40 %" in said.out and "5 answers, median 20 %" in said.out
    assert "4 answers; 1 more gave none of these" in said.out
    assert not [who for who in STUDENTS if who in said.out + said.err] and "\x1b" not in said.out


def test_few_answers_are_kept_back_with_the_reason_unless_the_lecturer_insists(handed, tmp_path, capsys):
    table = tmp_path / "votes.csv"
    assert main(["poll", str(handed), "--csv", str(table)]) == 0
    said = capsys.readouterr().out
    assert "2 answers, not shown" in said and "about the same" not in said and "point at persons" in said
    assert FLIPS not in table.read_text()
    assert main(["poll", str(handed), "--csv", str(table), "--small"]) == 0
    said = capsys.readouterr().out
    assert "about the same" in said and "not shown" not in said and FLIPS in table.read_text()


def test_a_chapter_s_table_and_figure_are_written(handed, tmp_path, capsys):
    for kind, begin in (("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")):
        figure = tmp_path / f"votes.{kind}"
        assert main(["poll", str(handed), "--chapter", "02", "--figure", str(figure)]) == 0
        assert figure.read_bytes().startswith(begin)
    assert "Poisoning" not in capsys.readouterr().out


def test_the_csv_is_a_line_a_choice(asked, handed):
    answers = {FGSM: [10.0, 20.0, 90.0]}
    tallies = {key: tally for key, tally in count(asked, answers).items() if sum(tally.answers)}
    lines = to_csv(asked, tallies).splitlines()
    assert lines[0] == "chapter,question,choice,count,answers"
    assert lines[1:] == [
        "02,02-fgsm,under 20 %,1,3",
        "02,02-fgsm,20 to under 40 %,1,3",
        "02,02-fgsm,40 to under 60 %,0,3",
        "02,02-fgsm,60 to under 80 %,0,3",
        "02,02-fgsm,80 % or more,1,3",
    ]


def test_a_figure_is_the_same_bytes_each_time(asked):
    tallies = [count(asked, {FGSM: [10.0, 20.0, 90.0]})[FGSM]]
    for kind in ("pdf", "svg"):
        assert drawn(tallies, kind) == drawn(tallies, kind)


def test_broken_files_are_named_on_stderr_alone(handed, capsys):
    (handed / "ada" / "progress.json").write_text("{")
    assert main(["poll", str(handed)]) == 0
    said = capsys.readouterr()
    assert "left out: " in said.err and "no JSON" in said.err and "ada" not in said.out
    assert said.out.startswith("4 files read, 1 left out.")


def test_questions_that_nobody_answered_are_counted(asked):
    said = report(asked, count(asked, {}), HandedIn({}, 1))
    assert "26 questions without an answer." in said and "point at persons" not in said


@pytest.mark.parametrize(
    ("extra", "named"), [(["--figure", "a.gif"], "figure is a.gif"), (["--csv", "a.txt"], "csv is a.txt")]
)
def test_another_ending_is_refused(handed, capsys, extra, named):
    assert main(["poll", str(handed), *extra]) == 1
    assert named in capsys.readouterr().err
