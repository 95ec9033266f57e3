"""`run.py`: what it installs, when it installs nothing, and how it says what is wrong. Nothing is installed here."""

import ast
import json
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

GPU_FREE = ["filelock", "torch", "typing_extensions"]
WITH_CUDA = [*GPU_FREE, "nvidia-cublas-cu12", "triton"]


class Pip:
    """Stands in for the commands that `ensure` starts: remembers them, and answers dry runs with a report."""

    def __init__(self, plain=GPU_FREE, pytorch=GPU_FREE, fails=()):
        self.plans = {False: plain, True: pytorch}
        self.fails = fails
        self.commands = []

    def __call__(self, command):
        self.commands.append(command)
        if "--report" in command:
            plan = self.plans["--extra-index-url" in command]
            if plan is None:
                return 1
            report = {"install": [{"metadata": {"name": name}} for name in plan]}
            Path(command[command.index("--report") + 1]).write_text(json.dumps(report), encoding="utf-8")
        elif "venv" in command:
            Path(command[-1]).mkdir(exist_ok=True)
        return int(any(word in command for word in self.fails))

    def installed(self):
        """What followed the constraints in each installation that was not a dry run."""
        return [c[c.index("constraints.txt") + 1 :] for c in self.commands if "install" in c and "--dry-run" not in c]


@pytest.fixture
def project(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project]", encoding="utf-8")
    (tmp_path / "constraints.txt").write_text("torch==2.13.0", encoding="utf-8")
    return tmp_path


@pytest.fixture
def ensure(run, project):
    """`run.ensure` in an empty project on Linux without a GPU; the environment exists once pip made it."""

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
    assert pip.installed()[2:] == [["--only-binary", "tenseal", "-e", ".[he]"]]
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
    assert pip.installed()[1:] == [["-e", ".[lab,book,lecture,test,oracles]"], ["--no-deps", "torchattacks"]]
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
    tree = ast.parse((root / "run.py").read_text(encoding="utf-8"), feature_version=(3, 8))
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


def test_jupyterlab_stays_as_it_is_where_voila_is_installed(run, tmp_path, monkeypatch):
    """Read as JupyterLab and its server read it: what comes later by name wins."""
    from jupyter_server.extension.config import ExtensionConfigManager
    from jupyterlab_server.config import get_page_config

    place = tmp_path / "etc" / "jupyter"
    (place / "jupyter_server_config.d").mkdir(parents=True)
    voila = {"ServerApp": {"jpserver_extensions": {"voila.server_extension": True}}}
    (place / "jupyter_server_config.d" / "voila.json").write_text(json.dumps(voila), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(place))
    run.quiet_lab(tmp_path)
    manager = ExtensionConfigManager(read_config_path=[str(place)])
    assert manager.get_jpserver_extensions() == {"voila.server_extension": False}
    assert "@voila-dashboards/jupyterlab-preview" in get_page_config([])["disabledExtensions"]


def test_the_doctor_needs_no_installed_package(root):
    """With -S and -E no site-packages are seen, as on a machine where the installation failed."""
    command = [sys.executable, "-S", "-E", "-m", "spai_lab", "doctor"]
    answer = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8")
    assert answer.returncode == 0, answer.stderr
    assert "python3 run.py lab" in answer.stdout
