"""What a student's server does before it serves; `tests/deploy` starts real ones."""

import errno
import os
import stat
from pathlib import Path

from spai_lab.hub import student
from spai_lab.workbook import chapters


def test_the_copies_are_private_and_complete(root, tmp_path):
    my = tmp_path / "my"
    said = student.prepare(my, root / "notebooks")
    assert stat.S_IMODE(my.stat().st_mode) == 0o700
    assert [path.name for path in chapters(my)] == [path.name for path in chapters(root / "notebooks")]
    assert len(said) == len(chapters(my)) and student.prepare(my, root / "notebooks") == []


def test_an_open_folder_is_closed(root, tmp_path):
    my = tmp_path / "my"
    my.mkdir(mode=0o755)
    student.prepare(my, root / "notebooks")
    assert stat.S_IMODE(my.stat().st_mode) == 0o700


def test_a_full_disk_is_said_and_does_not_stop_the_server(root, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(student, "copy_chapters", full)
    (said,) = student.prepare(tmp_path / "my", root / "notebooks")
    assert "No space left" in said and "starts all the same" in said


def test_what_follows_goes_to_the_server_and_wins(tmp_path):
    command = student.server_command(tmp_path, ["--ServerApp.root_dir=elsewhere"])
    assert command[-1] == "--ServerApp.root_dir=elsewhere"
    assert "--ConnectionFileMixin.transport=ipc" in command


def test_it_opens_the_first_chapter_where_there_is_one(tmp_path):
    assert not any("default_url" in word for word in student.server_command(tmp_path, []))
    (tmp_path / student.FIRST_CHAPTER).touch()
    assert any(word.endswith(student.FIRST_CHAPTER) for word in student.server_command(tmp_path, []))


def test_the_process_becomes_the_server_with_private_files(tmp_path, monkeypatch):
    became = []
    monkeypatch.setenv("SPAI_MY", str(tmp_path / "my"))
    monkeypatch.setattr(os, "execv", lambda program, command: became.append((program, command)))
    before = os.umask(0o022)
    try:
        student.main(["--debug"])
        (tmp_path / "new").touch()
    finally:
        os.umask(before)
    ((program, command),) = became
    assert Path(program).name.startswith("python") and command[-1] == "--debug"
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
