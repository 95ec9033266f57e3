"""`run.py`: what it installs, when it installs nothing, and how it says what is wrong. Nothing is installed here."""

import ast
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

GPU_FREE = ["filelock", "torch", "typing_extensions"]
WITH_CUDA = [*GPU_FREE, "nvidia-cublas-cu12", "triton"]


class Pip:
    """Stands in for the commands that `ensure` starts: remembers them, and answers dry runs with a report."""

    def __init__(self, plain=GPU_FREE, pytorch=GPU_FREE, fails=(), says=""):
        self.plans = {False: plain, True: pytorch}
        self.fails, self.says = fails, says
        self.commands, self.titles = [], []

    def __call__(self, command, title=""):
        self.commands.append(command)
        self.titles.append(title)
        if "--report" in command:
            plan = self.plans["--extra-index-url" in command]
            if plan is None:
                return 1, self.says
            report = {"install": [{"metadata": {"name": name}} for name in plan]}
            Path(command[command.index("--report") + 1]).write_text(json.dumps(report), encoding="utf-8")
        elif "venv" in command:
            Path(command[-1]).mkdir(exist_ok=True)
        return int(any(word in command for word in self.fails)), self.says

    def installed(self):
        """What followed the constraints in each installation that was not a dry run."""
        pips = (c for c in self.commands if "constraints.txt" in c and "--dry-run" not in c)
        return [c[c.index("constraints.txt") + 1 :] for c in pips]


@pytest.fixture
def project(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project]", encoding="utf-8")
    (tmp_path / "constraints.txt").write_text("torch==2.13.0", encoding="utf-8")
    return tmp_path


@pytest.fixture
def ensure(run, project, monkeypatch):
    """`run.ensure` in an empty project on Linux without a GPU; the environment exists once pip made it.

    The disk has room, and no proxy is dead, whatever machine runs the tests.
    """
    monkeypatch.setattr(run, "ROOM", dict.fromkeys(("cpu", "cuda"), (0, 0)))
    monkeypatch.setattr(run, "dead_proxy", lambda: None)

    def call(stage, pip, **changes):
        settings = {"build": "cpu", "platform": "linux", "version_of": lambda _: version(project)}
        return run.ensure(stage, root=project, call=pip, **{**settings, **changes})

    def version(root):
        return "3.12.1" if (root / ".venv").exists() else None

    return call


def test_lab_installs_torch_first_and_then_the_project(ensure):
    pip = Pip()
    ensure("lab", pip)
    assert pip.installed()[:2] == [["torch"], ["-e", ".[lab]"]]
    assert pip.commands[0][1:3] == ["-m", "venv"]


def test_lab_tries_a_wheel_of_tenseal_and_does_without_where_there_is_none(ensure, project, capsys):
    pip = Pip()
    ensure("lab", pip)
    assert pip.installed()[2:] == [["--only-binary", "tenseal", "tenseal"]]
    assert "TenSEAL" not in capsys.readouterr().out
    (project / "constraints.txt").write_text("changed", encoding="utf-8")
    ensure("lab", Pip(fails=["--only-binary"]))
    assert "TenSEAL has no wheel" in capsys.readouterr().out
    again = Pip()
    ensure("lab", again)
    assert again.commands == []


def test_a_second_start_runs_no_command(ensure):
    ensure("lab", Pip())
    pip = Pip()
    ensure("lab", pip)
    assert pip.commands == []


def test_test_adds_the_oracles_and_torchattacks_without_its_dependencies(ensure):
    ensure("lab", Pip())
    pip = Pip()
    ensure("test", pip)
    everything = ["-e", ".[lab,book,lecture,hub,assignments,test,oracles]"]
    assert pip.installed()[1:] == [everything, ["--no-deps", "torchattacks"]]
    again = Pip()
    ensure("lab", again)
    assert again.commands == [], "the test environment holds the lab"


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_requirement_is_installed_into_the_same_environment(ensure, project, name):
    ensure("lab", Pip())
    (project / name).write_text("changed", encoding="utf-8")
    pip = Pip()
    ensure("lab", pip)
    assert pip.installed() and not any("venv" in command for command in pip.commands)


def test_another_torch_build_gets_a_new_environment(ensure):
    ensure("lab", Pip())
    pip = Pip()
    ensure("lab", pip, build="cuda")
    assert "venv" in pip.commands[0] and "--clear" in pip.commands[0]


def test_an_environment_whose_python_is_gone_is_made_again(ensure):
    ensure("lab", Pip())
    answers = iter([None, "3.13.0"])
    pip = Pip()
    ensure("lab", pip, version_of=lambda _: next(answers))
    assert "venv" in pip.commands[0] and pip.installed()


def test_an_environment_of_an_old_python_is_made_again(ensure, project):
    (project / ".venv").mkdir()
    answers = iter(["3.9.18", "3.11.0"])
    pip = Pip()
    ensure("lab", pip, version_of=lambda _: next(answers))
    assert "venv" in pip.commands[0] and "--clear" in pip.commands[0]


def test_an_interrupted_installation_goes_on_at_the_next_start(ensure, run):
    with pytest.raises(run.Stop, match="start again to go on"):
        ensure("lab", Pip(fails=["-e"]))
    pip = Pip()
    ensure("lab", pip)
    assert ["-e", ".[lab]"] in pip.installed()


@pytest.mark.parametrize("content", ["", "[]", '{"key": 3}', "\x00"])
def test_a_broken_stamp_counts_as_nothing_installed(ensure, project, content):
    ensure("lab", Pip())
    (project / ".venv" / "spai-lab.json").write_text(content, encoding="utf-8")
    pip = Pip()
    ensure("lab", pip)
    assert pip.installed()


@pytest.mark.parametrize(("there", "fails"), [(False, []), (True, ["venv"])])
def test_a_machine_without_the_venv_module_is_told_what_to_install(ensure, run, project, monkeypatch, there, fails):
    monkeypatch.setattr(run, "has_venv", lambda: there)
    with pytest.raises(run.Stop, match="sudo apt install python3-venv"):
        ensure("lab", Pip(fails=fails))
    assert not (project / ".venv").exists(), "half an environment would be taken for a whole one"


def test_the_cpu_build_comes_from_pytorch_where_pypi_would_bring_cuda(ensure, run):
    pip = Pip(plain=WITH_CUDA)
    ensure("lab", pip)
    assert pip.installed()[0] == ["torch", "--extra-index-url", "https://download.pytorch.org/whl/cpu"]


@pytest.mark.parametrize("pytorch", [WITH_CUDA, None, ["torch", "cuda-bindings"], ["torch", "pytorch-triton"]])
def test_no_cuda_package_is_installed_without_a_gpu(ensure, run, pytorch):
    pip = Pip(plain=WITH_CUDA, pytorch=pytorch)
    with pytest.raises(run.Stop, match="SPAI_TORCH=cuda"):
        ensure("lab", pip)
    assert pip.installed() == []


@pytest.mark.parametrize(
    ("build", "platform", "arguments"),
    [
        ("cuda", "linux", ["torch"]),
        ("cu130", "win32", ["torch", "--extra-index-url", "https://download.pytorch.org/whl/cu130"]),
        ("cpu", "win32", ["torch"]),
        ("cpu", "darwin", ["torch"]),
    ],
)
def test_other_builds_and_systems_need_no_dry_run(run, build, platform, arguments):
    pip = Pip()
    assert run.torch_arguments(Path("python"), build, platform, pip) == arguments
    assert pip.commands == []


@pytest.mark.parametrize(
    ("variable", "platform", "gpu", "build"),
    [
        ("", "linux", False, "cpu"),
        ("", "linux", True, "cuda"),
        ("", "darwin", True, "cpu"),
        ("", "win32", True, "cpu"),
        ("cpu", "linux", True, "cpu"),
        (" CUDA ", "linux", False, "cuda"),
        ("cu130", "win32", True, "cu130"),
    ],
)
def test_the_machine_chooses_torch_unless_the_user_does(run, variable, platform, gpu, build):
    assert run.torch_build({"SPAI_TORCH": variable}, platform, gpu) == build


def test_an_unknown_torch_is_refused(run):
    with pytest.raises(run.Stop, match="'rocm'"):
        run.torch_build({"SPAI_TORCH": "rocm"}, "linux", False)


def test_an_interpreter_tells_its_version_and_a_missing_one_none(run, tmp_path):
    assert run.interpreter_version(Path(sys.executable)) == ".".join(map(str, sys.version_info[:3]))
    assert run.interpreter_version(tmp_path / "python") is None


def test_a_taken_port_is_reported_and_the_next_one_found(run):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        assert not run.is_free(taken)
        with pytest.raises(run.Stop, match=f"Port {taken} is taken"):
            run.choose_port(taken)
    assert run.choose_port(free=lambda port: port > 8890) == 8891
    assert run.choose_port(9999, free=lambda port: True) == 9999


def test_the_lab_listens_to_this_machine_alone(run, tmp_path):
    (tmp_path / "00_start_here.ipynb").touch()
    command = run.lab_command(Path("python"), tmp_path, 8899, browser=False, extra=["--debug"])
    assert "--ServerApp.ip=127.0.0.1" in command
    assert "--ServerApp.port=8899" in command
    assert f"--ServerApp.root_dir={tmp_path}" in command
    assert "--LabApp.default_url=/lab/tree/00_start_here.ipynb" in command
    assert command[-2:] == ["--no-browser", "--debug"]
    assert not any("token" in word or "password" in word for word in command), "Jupyter makes a token by itself"


def test_the_news_are_off_where_jupyterlab_reads_its_settings(run, tmp_path):
    run.quiet_lab(tmp_path)
    settings = json.loads((tmp_path / "share/jupyter/lab/settings/overrides.json").read_text(encoding="utf-8"))
    assert settings["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"


def test_ctrl_c_lets_the_server_close_and_ends_without_an_error(run, monkeypatch):
    class Server:
        def __init__(self, *_, **__):
            self.signals = ["ctrl-c", "ctrl-c"]
            self.terminated = False
            servers.append(self)

        def wait(self, timeout=None):
            if self.signals:
                self.signals.pop()
                raise KeyboardInterrupt
            return -15

        def terminate(self):
            self.terminated = True

    servers = []
    monkeypatch.setattr(run.subprocess, "Popen", Server)
    assert run.serve(["jupyter"]) == 0
    assert servers[0].terminated


def test_the_closing_line_of_pytest_is_kept(run, capfd):
    closing = "=== 1 failed, 2 passed in 3.10s (0:00:03) ==="
    script = f"print('== test session starts =='); print({closing!r}); print('after'); raise SystemExit(1)"
    assert run.watch([sys.executable, "-c", script]) == (1, closing)
    assert "test session starts" in capfd.readouterr().out


def test_ci_runs_style_tests_and_the_notebooks_on_both_data_sets(run):
    rows = run.checks(Path("python"), full=False, mnist=True)
    titles = [title for title, _, _ in rows]
    assert [title for title in titles if "notebooks" in title] == ["notebooks on digits", "notebooks on mnist"]
    assert any("ruff" in title for title in titles)
    by_title = {title: (command, variables) for title, command, variables in rows}
    command, variables = by_title["notebooks on mnist"]
    assert variables["SPAI_DATASET"] == "mnist" and variables["OMP_NUM_THREADS"] == "1"
    assert command[command.index("--dist") + 1] == "loadscope", "the cells of a notebook stay in one kernel"
    assert "not full" in by_title["unit, doctest, oracle, property and browser tests"][0]


def test_full_selects_all_and_extra_arguments_run_pytest_alone(run):
    full = run.checks(Path("python"), full=True, mnist=False)
    assert not any("not full" in command for _, command, _ in full)
    assert not any(variables.get("SPAI_DATASET") == "mnist" for _, _, variables in full)
    [(title, command, _)] = run.checks(Path("python"), full=False, mnist=True, extra=["tests/test_run.py", "-x"])
    assert title == "pytest" and command[-2:] == ["tests/test_run.py", "-x"]


@pytest.mark.parametrize(("codes", "status"), [([0, 0, 0, 0], 0), ([0, 0, 1, 0], 1), ([1, 0, 0, 0], 1)])
def test_one_failure_fails_the_whole_and_a_missing_mnist_is_said(run, monkeypatch, capsys, codes, status):
    answers = iter(codes)
    monkeypatch.setattr(run, "ensure", lambda stage: Path("python"))
    monkeypatch.setattr(run, "has_mnist", lambda python: (False, "mnist: not here"))
    monkeypatch.setattr(run, "watch", lambda command, **variables: (next(answers), "=== 1 passed in 0.01s ==="))
    assert run.main(["test"]) == status
    printed = capsys.readouterr().out
    assert printed.count("=== 1 passed in 0.01s ===") == 4
    assert "skipped  notebooks on mnist: mnist: not here" in printed


def test_an_old_python_gets_a_sentence(run, monkeypatch, capsys):
    monkeypatch.setattr(run.sys, "version_info", (3, 8, 18))
    assert run.main(["lab"]) == 1
    assert "needs Python 3.11 or later; this is 3.8" in capsys.readouterr().err


def test_the_program_parses_on_old_pythons_and_needs_the_standard_library_alone(root):
    tree = ast.parse((root / "run.py").read_text(encoding="utf-8"), feature_version=(3, 7))
    imports = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imports |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imports} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("arguments", "started"),
    [
        (["notebooks", "02"], ["-m", "spai_lab", "notebooks", "02"]),
        (
            ["models", "lenet-digits", "--", "--seeds", "5"],
            ["-m", "spai_lab", "models", "lenet-digits", "--seeds", "5"],
        ),
        (["bench", "--", "--quick"], ["-m", "benchmarks", "--quick"]),
        (
            ["survey", "--profile", "full", "--", "--only", "pgd"],
            ["-m", "spai_lab", "survey", "--profile", "full", "--only", "pgd"],
        ),
    ],
)
def test_the_other_commands_hand_on_what_they_are_given(run, monkeypatch, arguments, started):
    commands = []
    monkeypatch.setattr(run, "ensure", lambda stage: Path("python"))
    for way in ("start", "serve"):
        monkeypatch.setattr(run, way, lambda command: commands.append(command[1:]) or 0)
    assert run.main(arguments) == 0
    assert commands == [started]


@pytest.mark.parametrize(
    "line", ["=== no tests ran in 0.01s ===", "3 passed in 1.25s", "== 2 errors in 61.00s (0:01:01) =="]
)
def test_closing_lines_in_all_their_forms(run, line):
    assert run.CLOSING_LINE.fullmatch(line)


def test_the_book_is_built_in_the_folder_that_was_asked_for(run, root, monkeypatch):
    commands, stages = [], []
    monkeypatch.setattr(run, "ensure", lambda stage: stages.append(stage) or Path("python"))
    monkeypatch.setattr(run, "serve", lambda command: commands.append(command[3:]) or 0)
    assert run.main(["book"]) == 0
    assert run.main(["book", "--only", "00", "02", "--out", "there", "--", "--frames", "9"]) == 0
    assert commands == [
        ["book", "--out", str(root / "build" / "book")],
        ["book", "--only", "00", "02", "--out", "there", "--frames", "9"],
    ]
    assert stages == ["book", "book"]


def test_a_lecture_gets_what_it_needs_and_a_free_port(run, monkeypatch):
    commands, stages = [], []
    monkeypatch.setattr(run, "ensure", lambda stage: stages.append(stage) or Path("python"))
    monkeypatch.setattr(run, "serve", lambda command: commands.append(command[1:]) or 0)
    monkeypatch.setattr(run, "is_free", lambda port: port > 8889)
    monkeypatch.setattr(run, "choose_port", partial(run.choose_port, free=run.is_free))
    assert run.main(["lecture"]) == 0
    assert run.main(["lecture", "--no-browser", "--port", "9000"]) == 0
    assert run.main(["lecture", "--port", "8889"]) == 1
    module = ["-m", "spai_lab.lecture", "--port"]
    assert commands == [[*module, "8890"], [*module, "9000", "--no-browser"]]
    assert stages == ["lecture", "lecture"], "a taken port is reported before anything is installed"


def test_a_lecture_is_installed_when_it_is_asked_for_and_no_sooner(ensure):
    pip = Pip()
    ensure("lab", pip)
    assert not any("lecture" in word for command in pip.installed() for word in command)
    pip = Pip()
    ensure("lecture", pip)
    assert ["-e", ".[lab,lecture]"] in pip.installed()
    again = Pip()
    ensure("lecture", again)
    assert again.commands == []


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_a_hub_gets_its_proxy_and_the_tests_do_without_where_npm_fails(ensure, run, capsys, system):
    pip = Pip(fails=[run.PROXY])
    ensure("test", pip, platform=system)
    asked = [command for command in pip.commands if run.PROXY in command]
    assert len(asked) == (system == "linux") and ("hub are skipped" in capsys.readouterr().out) == (system == "linux")


def test_a_hub_without_its_proxy_is_not_there(ensure, run):
    with pytest.raises(run.Stop, match=run.PROXY):
        ensure("hub", Pip(fails=[run.PROXY]))
    pip = Pip()
    ensure("hub", pip)
    assert ["-e", ".[lab,hub]"] in pip.installed() and run.PROXY in pip.commands[-1]


def test_jupyterlab_stays_as_it_is_where_voila_and_nbgrader_are_installed(run, tmp_path, monkeypatch):
    """Read as JupyterLab and its server read it: what comes later by name wins."""
    from jupyter_server.extension.config import ExtensionConfigManager
    from jupyterlab_server.config import get_page_config

    place = tmp_path / "etc" / "jupyter"
    (place / "jupyter_server_config.d").mkdir(parents=True)
    voila = {"ServerApp": {"jpserver_extensions": dict.fromkeys(run.ADDED_SERVERS, True)}}
    (place / "jupyter_server_config.d" / "voila.json").write_text(json.dumps(voila), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(place))
    run.quiet_lab(tmp_path)
    manager = ExtensionConfigManager(read_config_path=[str(place)])
    assert manager.get_jpserver_extensions() == dict.fromkeys(run.ADDED_SERVERS, False)
    assert set(get_page_config([])["disabledExtensions"]) >= set(run.ADDED_BUTTONS)


def test_the_doctor_needs_no_installed_package(root):
    """With -S and -E no site-packages are seen, as on a machine where the installation failed."""
    command = [sys.executable, "-S", "-E", "-m", "spai_lab", "doctor"]
    answer = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8")
    assert answer.returncode == 0, answer.stderr
    assert "python3 run.py lab" in answer.stdout


# --- what a new user sees, and what can be in the way ----------------------------------------------------------------


def test_each_step_is_one_line_with_its_time(run, capsys):
    script = "print('Collecting everything'); print('noise'); raise SystemExit(3)"
    assert run.follow([sys.executable, "-c", script], "(1 of 2) torch") == (3, "Collecting everything\nnoise\n")
    printed = capsys.readouterr().out
    assert printed.startswith("(1 of 2) torch ... ") and printed.endswith(" s\n") and printed.count("\n") == 1
    assert run.follow([sys.executable, "-c", "print('Collecting')"]) == (0, "Collecting\n")
    assert capsys.readouterr().out == "", "without a title nothing is shown"


def test_in_a_terminal_the_line_shows_what_pip_does_and_fits(run, capsys, monkeypatch):
    monkeypatch.setattr(run.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(run.shutil, "get_terminal_size", lambda: os.terminal_size((40, 20)))
    with run.Line("torch") as line:
        line.show("Downloading " + 90 * "x")
    shown = capsys.readouterr().out
    assert "torch ... 0 s  Downloading xxx" in shown and shown.endswith("torch: 0 s\n")
    assert all(len(part) <= 39 for part in shown.split("\r")), "a longer line would not be overwritten"


def test_elsewhere_a_dot_a_minute_shows_that_it_goes_on(run, capsys, monkeypatch):
    times = iter([0, 59, 61, 62, 121, 150])
    monkeypatch.setattr(run.time, "monotonic", lambda: next(times))
    with run.Line("torch") as line:
        for _ in range(4):
            line.show("")
    assert capsys.readouterr().out == "torch ..... 150 s\n"


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "TMPDIR"),
        ("WARNING: Retrying after NewConnectionError('[Errno -3] Temporary failure in name resolution')", "network"),
        ("ProxyError('Cannot connect to proxy.', NewConnectionError('refused'))", "HTTPS_PROXY=http://HOST:PORT"),
        ("SSLError(SSLCertVerificationError(1, 'certificate verify failed: self-signed')): /simple/", "PIP_CERT"),
        ("ERROR: No matching distribution found for torch==2.13.0", "delete .venv, then start with Python 3.11"),
        ("PermissionError: [WinError 5] Access is denied: 'torch.dll'", "close what uses .venv"),
    ],
)
def test_what_pip_says_is_followed_by_what_helps(run, said, advice):
    conflict = "\nERROR: ResolutionImpossible: for help visit the manual"
    printed = run.explained(f"Collecting torch\n{said}{conflict}")
    assert said in printed and advice in printed and "start again to go on" in printed
    assert "ResolutionImpossible" not in printed, "where the cause is known, its consequences would mislead"


def test_an_unknown_trouble_is_shown_in_pips_own_last_words(run):
    printed = run.explained("".join(f"line {number}\n" for number in range(20)))
    assert "line 19" in printed and "line 3" not in printed and "Troubleshooting" in printed


def test_a_machine_without_a_network_is_not_told_about_cuda(ensure, run):
    says = "WARNING: Retrying after NewConnectionError('Network is unreachable')"
    with pytest.raises(run.Stop, match="cannot reach the network") as stop:
        ensure("lab", Pip(plain=None, pytorch=None, says=says))
    assert "CUDA" not in str(stop.value)


def test_ctrl_c_during_the_installation_says_that_it_goes_on(ensure, run, project):
    class Interrupted(Pip):
        def __call__(self, command, title=""):
            if "-e" in command:
                raise KeyboardInterrupt
            return super().__call__(command, title)

    with pytest.raises(run.Stop, match=r"Interrupted\. What arrived stays"):
        ensure("lab", Interrupted())
    assert run.read_stamp(project / ".venv") == {}
    pip = Pip()
    ensure("lab", pip)
    assert ["-e", ".[lab]"] in pip.installed() and not any("venv" in command for command in pip.commands)


def test_half_an_environment_counts_as_none(run, tmp_path):
    """Ctrl-C while it was made leaves an interpreter without pip, which could install nothing."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    assert run.interpreter_version(run.scripts_python(tmp_path)) is None


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http://user:secret@", "user:secret@", "http://"])
def test_a_proxy_that_does_not_answer_is_named_without_its_password(run, scheme):
    port = closed_port()
    said = run.dead_proxy({"PATH": "/bin", "https_proxy": f"{scheme}127.0.0.1:{port}"})
    assert f"https_proxy is http://127.0.0.1:{port}, and no proxy answers" in said and "secret" not in said


def test_a_proxy_that_answers_and_none_at_all_are_fine(run):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert run.dead_proxy({"HTTPS_PROXY": f"http://127.0.0.1:{server.getsockname()[1]}"}) is None
    assert run.dead_proxy({"HTTPS_PROXY": ""}) is None
    assert "looks like http://HOST:PORT" in run.dead_proxy({"ALL_PROXY": "http://proxy:many"})


def test_behind_a_dead_proxy_pip_does_not_try_long(ensure, run, monkeypatch):
    pip = Pip()
    ensure("lab", pip)
    first = next(command for command in pip.commands if "--dry-run" in command)
    assert first[first.index("--retries") + 1] == "1"
    monkeypatch.setattr(run, "dead_proxy", lambda: "HTTPS_PROXY is http://proxy:1, and no proxy answers there.")
    pip = Pip(plain=None, says="ProxyError('Cannot connect to proxy.')")
    with pytest.raises(run.Stop, match="HTTPS_PROXY is http://proxy:1, and no proxy answers there"):
        ensure("lecture", pip)
    [command] = [command for command in pip.commands if "--dry-run" in command]
    assert command[command.index("--retries") + 1] == "0"


@pytest.mark.parametrize(
    ("free", "together", "there", "told"),
    [
        (3.1, True, 0, None),
        (2.9, True, 0, "the installation needs 3.0 GB there"),
        (2.1, False, 0, None),
        (1.9, False, 0, "move the project to a disk with more room"),
        (1.1, False, 1.5e9, None),
        (0.9, False, 1.5e9, "TMPDIR"),
    ],
)
def test_too_little_disk_is_said_before_anything_is_installed(run, project, monkeypatch, free, together, there, told):
    temporary = project / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(run.tempfile, "gettempdir", lambda: str(temporary))
    devices = {project: 1, temporary: 1 if together else 2}
    monkeypatch.setattr(run.Path, "stat", lambda path: type("Status", (), {"st_dev": devices[path]})())
    try:
        run.check_room(project, there, "cpu", free=lambda folder: free * 1e9)
    except run.Stop as stop:
        assert told and told in str(stop) and f"{free} GB free" in str(stop) and str(project) in str(stop)
    else:
        assert told is None


def test_a_full_disk_stops_the_installation(ensure, run, project, monkeypatch):
    monkeypatch.setattr(run, "ROOM", {"cpu": (1e9, 1e9)})
    pip = Pip()
    with pytest.raises(run.Stop, match="Too little disk"):
        ensure("lab", pip)
    assert pip.commands == []


def test_no_folder_for_temporary_files_gets_a_sentence(run, project, monkeypatch):
    def none():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(run.tempfile, "gettempdir", none)
    with pytest.raises(run.Stop, match="TMPDIR"):
        run.check_room(project, 0, "cpu")


def test_the_doctor_asks_for_the_room_that_the_installation_asks_for(run):
    from spai_lab import doctor

    assert run.ROOM["cpu"] == (doctor.INSTALLATION_BYTES / 1e9, doctor.PASSING_BYTES / 1e9)


def test_a_folder_that_cannot_be_written_gets_a_sentence(run, tmp_path, monkeypatch):
    run.check_folder(tmp_path)

    def refused(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run.tempfile, "TemporaryFile", refused)
    with pytest.raises(run.Stop, match=r"cannot be written \(Permission denied\).*copy the folder"):
        run.check_folder(tmp_path)


def test_a_python_of_32_bits_gets_a_sentence(run):
    run.check_python((3, 11, 0), 64)
    with pytest.raises(run.Stop, match="32 bits"):
        run.check_python((3, 13, 0), 32)


def test_older_pythons_show_the_way_in_the_line_that_they_cannot_read(root):
    """Python 3.6 and older print that line."""
    [line] = [line for line in (root / "run.py").read_text(encoding="utf-8").splitlines() if "__future__" in line]
    assert "Python 3.11 or later" in line


def test_conda_and_others_do_not_lead_our_python_elsewhere(run, monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX"):
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror")
    variables = run.environment(PYTHONPATH="ours")
    assert "/elsewhere" not in variables.values() and variables["PYTHONPATH"] == "ours"
    assert variables["PIP_USER"] == "0" and variables["PIP_INDEX_URL"] == "https://mirror"


def test_a_second_installation_in_the_same_folder_waits_for_the_first(run, project, capsys):
    order = []

    def second():
        with run.alone(project):
            order.append("second")

    other = threading.Thread(target=second)
    with run.alone(project):
        other.start()
        time.sleep(0.2)
        assert other.is_alive() and order == []
        order.append("first")
    other.join(timeout=10)
    assert order == ["first", "second"]
    assert capsys.readouterr().out.count("Another run.py is installing") == 1


@pytest.mark.parametrize(
    ("environ", "platform", "there", "opens"),
    [
        ({"DISPLAY": ":0"}, "linux", True, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True, True),
        ({}, "linux", True, False),
        ({"BROWSER": "wslview"}, "linux", True, True),
        ({"DISPLAY": ":0"}, "linux", False, False),
        ({}, "darwin", True, True),
        ({}, "win32", True, True),
        ({"SSH_CONNECTION": "1 2 3 4"}, "darwin", True, False),
    ],
)
def test_a_browser_opens_where_there_is_a_screen(run, monkeypatch, environ, platform, there, opens):
    def get():
        if not there:
            raise run.webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(run.webbrowser, "get", get)
    assert run.can_open_browser(environ, platform) is opens


def test_whoever_came_by_ssh_gets_the_command_of_the_tunnel(run):
    ssh = {"SSH_CONNECTION": "10.0.0.2 50022 10.0.0.7 22", "USER": "ada"}
    assert "`ssh -L 8890:127.0.0.1:8890 ada@10.0.0.7` on your own machine" in run.where_to_look(8890, False, ssh)
    assert "Open this address in a browser" in run.where_to_look(8890, False, {})
    assert "Your browser opens it" in run.where_to_look(8890, True, ssh), "over ssh -X it does"


@pytest.mark.parametrize(("port", "token"), [(8890, "ours"), (8891, "ours")])
def test_the_address_is_the_one_that_our_server_wrote_down(run, tmp_path, monkeypatch, capsys, port, token):
    """Also where another server of ours took the port meanwhile."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    for number, (place, secret) in enumerate({8890: "another", port: token}.items()):
        server = {"port": place, "url": f"http://127.0.0.1:{place}/", "token": secret}
        (tmp_path / f"jpserver-{number}.json").write_text(json.dumps(server), encoding="utf-8")
    (tmp_path / "jpserver-9.json").write_text("{", encoding="utf-8")
    run.announce(Path(sys.executable), 8890, opens=True, token="ours", patience=30)
    printed = capsys.readouterr().out
    assert f"    http://127.0.0.1:{port}/?token=ours\n" in printed
    assert "Shift+Enter" in printed and "Ctrl-C" in printed
    run.announce(Path(sys.executable), 8890, opens=True, token="nobody's", patience=0.5)
    assert capsys.readouterr().out == "", "where no server answers, none is announced"


def test_the_lab_keeps_its_token_out_of_the_command_and_opens_no_browser_without_a_screen(run, monkeypatch, tmp_path):
    served = []
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "ensure", lambda stage: Path("python"))
    monkeypatch.setattr(run, "start", lambda command: 0)
    monkeypatch.setattr(run, "can_open_browser", lambda: False)
    monkeypatch.setattr(run, "serve", lambda command, ready, **variables: served.append((command, variables)) or 0)
    assert run.main(["lab", "--offline"]) == 0
    [(command, variables)] = served
    assert "--no-browser" in command and len(variables["JUPYTER_TOKEN"]) >= 32
    assert not any(variables["JUPYTER_TOKEN"] in word for word in command)


@pytest.fixture
def fetching(run, monkeypatch):
    """`run.fetch` with a program in place of the one that fetches MNIST, and the seconds that it took."""

    def fetch(script, **settings):
        monkeypatch.setattr(run, "FETCH", f"import sys, time\n{script}")
        begin = time.monotonic()
        run.fetch(Path(sys.executable), **settings)
        return time.monotonic() - begin

    return fetch


def test_mirrors_that_never_answer_are_given_up_soon(fetching, capsys):
    assert fetching("print(flush=True); time.sleep(60)", patience=0.5) < 15
    assert "MNIST's mirrors do not answer; the embedded digits serve" in capsys.readouterr().out


def test_a_slow_start_and_a_slow_download_are_no_silence(fetching, capsys):
    fetching(
        "time.sleep(1); print(flush=True); sys.stderr.write('10 %'); sys.stderr.flush(); time.sleep(1); print('done')",
        patience=0.7,
    )
    assert capsys.readouterr().out.replace("\r", "") == "10 %done\n"


def test_a_kernel_starts_without_a_warning_that_would_frighten(run, tmp_path):
    run.quiet_lab(tmp_path)
    settings = json.loads((tmp_path / "etc/ipython/ipython_kernel_config.json").read_text(encoding="utf-8"))
    assert settings == {"IPKernelApp": {"log_level": logging.ERROR}}
    assert "--Application.log_level=ERROR" in run.lab_command(Path("python"), tmp_path, 1, browser=True, extra=[])


@pytest.mark.parametrize("stage", ["lab", "book", "lecture", "hub", "test"])
def test_the_steps_are_counted_and_none_is_without_a_title(ensure, stage):
    pip = Pip()
    ensure(stage, pip)
    numbers = [re.match(r"\((\d+) of (\d+)\) ", title).groups() for title in pip.titles]
    last = len(set(numbers))
    assert sorted(set(numbers)) == [(str(number), str(last)) for number in range(1, last + 1)]


def test_what_is_compiled_beforehand_can_be_imported(run, root):
    """A failure would go unnoticed, and the first cell of a chapter would take long."""
    answer = subprocess.run([sys.executable, "-c", run.FIRST_IMPORTS], cwd=root, capture_output=True, encoding="utf-8")
    assert answer.returncode == 0, answer.stderr
