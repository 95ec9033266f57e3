"""The files of `deploy/` that no test can start: what they say fits the project and each other."""

import importlib.util
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import spai_lab

START = ["/opt/spai-lab/.venv/bin/python", "-P", "-m", "spai_lab.hub.student"]
# Every key that we set, as the chart's documentation names it (Zero to JupyterHub, versions 3 and 4).
CHART = {
    "singleuser": {
        "cmd": list,
        "cpu": {"guarantee", "limit"},
        "extraEnv": dict,
        "image": {"name", "tag"},
        "memory": {"guarantee", "limit"},
        "networkPolicy": {"enabled", "egressAllowRules"},
        "startTimeout": int,
        "storage": {"capacity", "homeMountPath"},
    },
    "hub": {"concurrentSpawnLimit": int},
    "prePuller": {"hook": {"enabled"}, "continuous": {"enabled"}},
    "cull": {"enabled": bool, "timeout": int, "every": int},
}


@pytest.fixture(scope="module")
def values(root):
    return yaml.safe_load((root / "deploy" / "kubernetes.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def dockerfile(root):
    return (root / "deploy" / "Dockerfile").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def install(root):
    spec = importlib.util.spec_from_file_location("install", root / "deploy" / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_values_name_keys_of_the_chart(values):
    for part, keys in values.items():
        for key, value in keys.items():
            kind = CHART[part][key]
            assert set(value) <= kind if isinstance(kind, set) else isinstance(value, kind), (part, key)


def test_image_and_values_start_the_same_server_of_this_version(values, dockerfile):
    assert values["singleuser"]["cmd"] == START
    assert values["singleuser"]["image"]["tag"] == spai_lab.__version__
    command = re.search(r'^CMD \["(.*)"\]$', dockerfile, re.MULTILINE)[1].split('", "')
    assert command[: len(START)] == START
    home = values["singleuser"]["storage"]["homeMountPath"]
    assert f"SPAI_MY={home}/" in dockerfile, "copies outside of the volume would be lost"


def test_the_last_layer_of_the_image_never_saw_the_answers(dockerfile):
    stages = re.split(r"^FROM ", dockerfile, flags=re.MULTILINE)[1:]
    assert "COPY . /source" in stages[0]
    copied = re.findall(r"^COPY (.*)$", stages[-1], re.MULTILINE)
    assert copied and all(line.startswith("--from=edition /opt/spai-lab") for line in copied)


def test_both_stages_of_the_image_have_one_python(dockerfile):
    """Byte code belongs to one version."""
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert len(bases) == 2 and len(set(bases)) == 1


def test_the_service_starts_the_hub_where_it_was_installed(install, root, tmp_path):
    shutil.copytree(root / "deploy", tmp_path / "deploy")
    unit = install.service_text(tmp_path)
    start = shlex.split(re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)[1])
    assert start[0] == str(tmp_path / ".venv" / "bin" / "python")
    assert (tmp_path / "deploy" / Path(start[-1]).name).is_file() and "/opt/" not in unit


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="asks systemd whether it understands the unit")
def test_systemd_understands_the_service(root, tmp_path):
    unit = (root / "deploy" / "spai-lab-hub.service").read_text(encoding="utf-8")
    file = tmp_path / "spai-lab-hub.service"
    for text, accepted in ((unit, True), (unit.replace("OOMPolicy=", "OomPolicy="), False)):
        file.write_text(text.replace(START[0], shutil.which("true")), encoding="utf-8")
        answer = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, encoding="utf-8")
        assert (answer.stderr.strip() == "") == accepted, answer.stderr


def test_who_is_not_root_is_told(install, monkeypatch, capsys):
    monkeypatch.setattr(install.os, "geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["install.py"])
    assert install.main() == 1
    assert "sudo" in capsys.readouterr().err


def test_mnist_is_copied_to_the_class_and_the_own_folder_stays_as_it_is(install, run, tmp_path, monkeypatch):
    own, state = tmp_path / "own", tmp_path / "state"
    (own / "mnist").mkdir(parents=True)
    (own / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"images")
    monkeypatch.setattr(install, "STATE", state)
    monkeypatch.setenv("SPAI_DATA", str(own))
    called = []
    monkeypatch.setattr(install.subprocess, "call", lambda command, env: called.append((command, env)))
    install.fetch(Path("python"), run)
    assert (state / "data" / "mnist" / "train-images-idx3-ubyte.gz").read_bytes() == b"images"
    ((command, variables),) = called
    assert command[-2:] == ["fetch", "--share"]
    assert variables["SPAI_DATA"] == variables["SPAI_CACHE"] == str(state / "data")
    assert [path.name for path in (own / "mnist").iterdir()] == ["train-images-idx3-ubyte.gz"]


def test_the_hub_listens_where_no_student_could_in_its_place(root):
    """A port below 1024 is root's, so nobody waits for the hub to stop and then asks for passwords."""
    text = (root / "deploy" / "jupyterhub_config.py").read_text(encoding="utf-8")
    urls = dict(re.findall(r'^c\.(\w+\.\w+url) = "http://127\.0\.0\.1:(\d+)"$', text, re.MULTILINE))
    assert urls.keys() == {"JupyterHub.bind_url", "JupyterHub.hub_bind_url", "ConfigurableHTTPProxy.api_url"}
    assert all(int(port) < 1024 for port in urls.values())
    guide = (root / "deploy" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"127\.0\.0\.1:(\d+)", guide)) == {urls["JupyterHub.bind_url"], "900"}
