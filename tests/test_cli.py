"""The command `spai-lab`: exit statuses, and one sentence where something is wrong."""

from pathlib import Path

import pytest

from spai_lab import data, training, workbook
from spai_lab.cli import main


@pytest.fixture
def without_mnist(monkeypatch):
    monkeypatch.setattr(
        data, "available", lambda: {"digits": None, "mnist": "MNIST is not here", "faces": Path("faces")}
    )


def test_data_tells_what_is_there_and_answers_with_its_status(without_mnist, capsys):
    assert main(["data"]) == 0
    assert capsys.readouterr().out.splitlines() == ["digits: embedded", "mnist: MNIST is not here", "faces: faces"]
    assert main(["data", "digits", "faces"]) == 0
    assert main(["data", "digits", "mnist"]) == 1


def test_an_unknown_data_set_is_named(without_mnist, capsys):
    assert main(["data", "mnits"]) == 1
    assert "no data set 'mnits'; there are digits, mnist, faces" in capsys.readouterr().err


def test_fetch_says_in_one_line_that_the_digits_serve(without_mnist, monkeypatch, capsys):
    def fail():
        raise data.DataUnavailable("no mirror\nanswered")

    monkeypatch.setattr(data, "fetch_mnist", fail)
    assert main(["fetch"]) == 1
    assert main(["fetch", "--brief"]) == 1
    long, short = capsys.readouterr().out.splitlines()
    assert "the embedded digits serve" in long and "no mirror answered" in long
    assert "the embedded digits serve" in short and "no mirror" not in short


def test_fetch_downloads_what_is_missing_and_nothing_else(without_mnist, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(data, "fetch_mnist", lambda: tmp_path)
    assert main(["fetch"]) == 0
    assert str(tmp_path) in capsys.readouterr().out
    monkeypatch.setattr(data, "available", lambda: {"mnist": tmp_path})
    assert main(["fetch"]) == 0
    assert capsys.readouterr().out == ""


def test_copy_says_what_is_new(tmp_path, capsys):
    masters, my = tmp_path / "notebooks", tmp_path / "my"
    masters.mkdir()
    master = masters / "00_start_here.ipynb"
    arguments = ["copy", "--notebooks", str(masters), "--my", str(my)]
    assert main(arguments) == 1
    assert "There are no chapters" in capsys.readouterr().out
    markdown = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# One"}
    master.write_bytes(workbook.to_bytes({"nbformat": 4, "metadata": {}, "cells": [markdown]}))
    assert main(arguments) == 0
    assert "Copied 1 chapter to" in capsys.readouterr().out
    assert main(arguments) == 0
    assert capsys.readouterr().out == ""
    master.write_bytes(workbook.to_bytes({"nbformat": 4, "metadata": {}, "cells": [markdown, {**markdown, "id": "b"}]}))
    assert main(arguments) == 0
    assert "00_start_here has changed" in capsys.readouterr().out


def test_a_damaged_master_is_one_sentence(tmp_path, capsys):
    (tmp_path / "00_start_here.ipynb").write_text("{", encoding="utf-8")
    assert main(["copy", "--notebooks", str(tmp_path), "--my", str(tmp_path / "my")]) == 1
    assert "is not a notebook" in capsys.readouterr().err


def test_notebooks_executes_the_chapters_that_are_named(monkeypatch, capsys):
    renewed = []
    monkeypatch.setattr(
        workbook, "chapters", lambda folder: [Path("00_a.ipynb"), Path("01_b.ipynb"), Path("02_c.ipynb")]
    )
    monkeypatch.setattr(workbook, "renew", lambda path: renewed.append(path.stem) or 1)
    assert main(["notebooks", "01", "02"]) == 0
    assert main(["notebooks"]) == 0
    assert renewed == ["01_b", "02_c", "00_a", "01_b", "02_c"]
    assert main(["notebooks", "17"]) == 1
    assert "no chapter begins with 17" in capsys.readouterr().err


def test_models_trains_what_is_named(monkeypatch):
    asked = []
    monkeypatch.setattr(training, "rebuild", lambda names, seeds: asked.append((names, seeds)))
    assert main(["models"]) == 0
    assert main(["models", "lenet-digits", "--seeds", "5"]) == 0
    assert asked == [(None, None), (["lenet-digits"], 5)]


def test_a_failing_chapter_is_a_sentence(monkeypatch, capsys):
    def fail(path):
        raise workbook.ChapterError("00_a: ZeroDivisionError: division by zero")

    monkeypatch.setattr(workbook, "chapters", lambda folder: [Path("00_a.ipynb")])
    monkeypatch.setattr(workbook, "renew", fail)
    assert main(["notebooks"]) == 1
    assert "division by zero" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["defenses", "detection", "robust_models"])
def test_a_measurement_that_a_chapter_names_is_known(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["measure", name, "--help"])
    assert ended.value.code == 0 and name in capsys.readouterr().out


@pytest.fixture
def surveyed(monkeypatch):
    """What `spai-lab survey` asks of the runner; the rows that this answers with are `surveyed.rows`."""
    from spai_lab.survey import runner

    def run(profile, **settings):
        asked.append((profile, settings))
        if run.error:
            raise run.error
        return {"rows": run.rows}

    asked, run.rows, run.error = [], [], None
    run.asked = asked
    monkeypatch.setattr(runner, "run_survey", run)
    return run


def test_survey_hands_on_its_options_and_ends_with_totals(surveyed, capsys):
    assert main(["survey"]) == 0
    printed = capsys.readouterr().out
    assert "0 rows measured, 0 failed, 90 missing" in printed and "published figures" in printed
    options = ["--profile", "full", "--only", "pgd", "fgsm", "--workers", "1", "--fresh", "--timeout", "5"]
    assert main(["survey", *options, "--scheduler", "tls://h:1", "--tls-ca", "ca", "--results", "r.json"]) == 0
    [(profile, settings), (other, chosen)] = surveyed.asked
    assert (profile, settings["workers"], settings["scheduler"], settings["only"]) == ("quick", 2, None, ())
    assert (other, chosen["only"], chosen["workers"], chosen["fresh"]) == ("full", ["pgd", "fgsm"], 1, True)
    assert (chosen["scheduler"], chosen["certificates"].ca, chosen["timeout"]) == ("tls://h:1", Path("ca"), 5)
    assert chosen["file"] == Path("r.json")


def test_survey_answers_with_its_status_where_a_row_failed(surveyed, capsys):
    surveyed.rows = [{"row": "pgd", "failed": "ValueError: eps", "seconds": 1.0}]
    assert main(["survey"]) == 1
    assert "| pgd | failed: ValueError: eps |" in capsys.readouterr().out


def test_an_interrupted_survey_says_how_to_go_on(surveyed, capsys):
    surveyed.error = KeyboardInterrupt()
    surveyed.error.add_note("2 of 90 rows are kept")
    assert main(["survey"]) == 130
    assert "2 of 90 rows are kept" in capsys.readouterr().out


def test_survey_refuses_a_cluster_that_nobody_can_trust(capsys, tmp_path):
    assert main(["survey", "--scheduler", "tcp://192.0.2.7:8786", "--results", str(tmp_path / "r.json")]) == 1
    assert "accepted: tls://host:port of a cluster that you trust" in capsys.readouterr().err


def test_survey_draws_what_it_measured(surveyed, capsys, monkeypatch, tmp_path):
    from spai_lab.survey import prints

    asked = []
    monkeypatch.setattr(prints, "save_all", lambda *given, **settings: asked.append((given, settings)) or [tmp_path])
    assert main(["survey", "--profile", "full", "--figures", str(tmp_path)]) == 0
    assert asked == [((tmp_path, "full"), {"measurement": {"rows": []}})]
    assert str(tmp_path) in capsys.readouterr().out


def test_a_stopped_book_says_that_its_frames_are_kept(monkeypatch, capsys):
    from spai_lab.book import build as builder

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(builder, "build", stop)
    assert main(["book"]) == 130
    assert "goes on from there" in capsys.readouterr().err


def test_the_book_names_a_chapter_that_is_not_there(tmp_path, capsys):
    assert main(["book", "--only", "99", "--out", str(tmp_path / "book")]) == 1
    assert "no chapter begins with 99" in capsys.readouterr().err
