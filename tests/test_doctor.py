"""The doctor: each finding from probes that are given, and the whole on this machine."""

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from spai_lab import doctor
from spai_lab.doctor import Finding, Report

GIGABYTE = 1_000_000_000


@pytest.mark.parametrize(
    ("finding", "action"),
    [
        (doctor.python((3, 11, 7)), None),
        (doctor.python((3, 10, 12)), "Install Python 3.11 or later"),
        (doctor.python((3, 13, 0)), None),
        (doctor.python((3, 12, 1), intel_mac=True), None),
        (doctor.python((3, 13, 0), intel_mac=True), "3.11 or 3.12"),
        (doctor.python((3, 12, 1), bits=32), "64-bit"),
        (doctor.system("Darwin", "x86_64"), "ends at 2.2"),
        (doctor.system("Darwin", "arm64"), None),
        (doctor.system("Linux", "x86_64"), None),
        (doctor.venv_module(True), None),
        (doctor.venv_module(False), "sudo apt install python3-venv"),
        (doctor.disk(10 * GIGABYTE, 3 * GIGABYTE), None),
        (doctor.disk(GIGABYTE, 3 * GIGABYTE), "about 3.0 GB are needed"),
        (doctor.temporary(2 * GIGABYTE, GIGABYTE), None),
        (doctor.temporary(GIGABYTE // 2, GIGABYTE), "TMPDIR"),
        (doctor.folder(True), None),
        (doctor.folder(False), "copy the project"),
        (doctor.screen(True, ssh=False), None),
        (doctor.screen(False, ssh=True), None),
        (doctor.port(8888, True), None),
        (doctor.port(8888, False), "--port"),
        (doctor.proxy({}), None),
        (doctor.proxy({"HTTPS_PROXY": ""}), None),
        (doctor.proxy({"HTTPS_PROXY": "http://proxy:3128"}), "NO_PROXY=localhost,127.0.0.1"),
        (doctor.proxy({"http_proxy": "http://proxy:3128", "no_proxy": "localhost, 127.0.0.1"}), None),
        (
            doctor.proxy({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "*"}, lambda address: False),
            "correct HTTPS_PROXY",
        ),
        (doctor.proxy({"all_proxy": "http://proxy:3128", "NO_PROXY": "*"}), None),
        (doctor.accelerator(None, cuda=False, mps=False), None),
        (doctor.accelerator(None, cuda=False, mps=True), None),
        (doctor.accelerator("13.0", cuda=True, mps=False), None),
        (doctor.accelerator("13.0", cuda=False, mps=False), "SPAI_TORCH=cpu"),
        (doctor.threads(2, 8), None),
        (doctor.threads(None, None), None),
    ],
    ids=lambda value: value.topic if isinstance(value, Finding) else "",
)
def test_a_finding_says_what_to_do_if_and_only_if_there_is_something_to_do(finding, action):
    assert finding.value
    if action is None:
        assert finding.action is None
    else:
        assert action in finding.action


def test_a_proxy_is_named_and_its_password_is_not_shown():
    finding = doctor.proxy({"HTTPS_PROXY": "http://user:secret@proxy:3128"})
    assert "https_proxy" in finding.value
    assert "secret" not in f"{finding.value}{finding.action}"


def test_a_proxy_is_asked_whether_it_answers():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert doctor._answers(f"http://user:secret@{address}") and doctor._answers(address)
    assert not doctor._answers(address) and not doctor._answers("http://proxy:many")


def test_whoever_came_by_ssh_is_told_of_the_command():
    assert "ssh command" in doctor.screen(False, ssh=True).value
    assert "ssh" not in doctor.screen(False, ssh=False).value


@pytest.mark.parametrize(("together", "topics"), [(True, ["disk"]), (False, ["disk", "temporary files"])])
def test_the_room_for_temporary_files_is_looked_at_where_they_go(tmp_path, monkeypatch, together, topics):
    there = tmp_path / "temporary"
    there.mkdir()
    monkeypatch.setattr(doctor.tempfile, "gettempdir", lambda: str(there))
    monkeypatch.setattr(Path, "stat", lambda path: SimpleNamespace(st_dev=1 if together or path == there else 2))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=2.5 * GIGABYTE))
    findings = doctor._room(tmp_path, installed=False)
    assert [finding.topic for finding in findings] == topics
    assert bool(findings[0].action) is together, "one disk must hold both"
    assert [finding.topic for finding in doctor._room(tmp_path, installed=True)] == ["disk"]


def test_versions_outside_the_ranges_and_missing_packages_are_found():
    installed = {"torch": "2.1.0", "numpy": "2.4.6", "jupyterlab": "4.6.6"}
    required = ["torch>=2.2", "numpy>=1.26", "Safetensors>=0.4", "jupyterlab>=99; extra == 'lab'"]
    findings = {finding.topic: finding for finding in doctor.versions(installed, required)}
    assert 'python -m pip install "torch>=2.2"' in findings["torch"].action
    assert findings["numpy"] == Finding("numpy", "2.4.6")
    assert findings["safetensors"].value == "missing" and findings["safetensors"].action
    assert findings["jupyterlab"] == Finding("jupyterlab", "4.6.6"), "an extra asks for nothing"


def test_local_and_preliminary_versions_lie_in_their_range():
    findings = doctor.versions({"torch": "2.13.0+cpu", "numpy": "2.5.0rc1"}, ["torch>=2.2", "numpy>=1.26"])
    assert [finding.action for finding in findings] == [None, None]


def test_data_shows_no_path_and_only_mnist_asks_for_something(tmp_path):
    found = {
        "digits": None,
        "mnist": f"MNIST is not in {tmp_path}",
        "faces": tmp_path,
        "olivetti": f"not in {tmp_path}",
    }
    findings = {finding.topic: finding for finding in doctor.data(found)}
    assert [finding.value for finding in findings.values()] == ["embedded", "not here", "there", "not here"]
    assert [topic for topic, finding in findings.items() if finding.action] == ["data: mnist"]
    assert not any(str(tmp_path) in f"{finding.value}{finding.action}" for finding in findings.values())


def test_this_machine_is_examined_whole():
    findings = doctor.examine()
    topics = {finding.topic for finding in findings}
    assert {"Python", "system", "disk", "proxy", "threads", "data: mnist", "torch", "accelerator"} <= topics
    assert not any(
        finding.action for finding in findings if finding.topic in ("Python", "torch", "numpy", "accelerator")
    )
    assert str(Path.home()) not in str(Report(findings)), "the report is stored in chapter 00"


def test_the_report_is_a_table_in_a_terminal_and_in_a_notebook():
    report = Report((Finding("disk", "1.0 GB free", "Free <some> space."), Finding("proxy", "none")))
    assert str(report).splitlines() == ["! disk   1.0 GB free", "         -> Free <some> space.", "  proxy  none"]
    page = report._repr_html_()
    assert "Free &lt;some&gt; space." in page and "<some>" not in page
    assert page.count("<tr>") == 2 and page.count("to do") == 1
