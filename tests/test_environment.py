"""The environment: one list of requirements for pip and conda, the pins, no CUDA without a GPU, and the wheel."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import spai_lab

MACHINES = {
    "Linux": {"sys_platform": "linux", "platform_machine": "x86_64"},
    "Windows": {"sys_platform": "win32", "platform_machine": "AMD64"},
    "Mac": {"sys_platform": "darwin", "platform_machine": "arm64"},
    "Intel Mac": {"sys_platform": "darwin", "platform_machine": "x86_64"},
}


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def constraints(root):
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def requirements(project, *extras):
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    return [Requirement(text) for text in texts]


def names(found):
    return {canonicalize_name(requirement.name) for requirement in found}


def pins(constraints, machine):
    """The pinned versions that count on a machine, by name."""
    environment = {**default_environment(), **MACHINES[machine]}
    counting = [pin for pin in constraints if pin.marker is None or pin.marker.evaluate(environment)]
    found = {canonicalize_name(pin.name): pin.specifier for pin in counting}
    assert len(found) == len(counting), "a package is pinned twice"
    return {name: str(specifier).removeprefix("==") for name, specifier in found.items()}


def test_torch_is_pinned_first_and_every_pin_is_one_public_version(constraints):
    assert constraints[0].name == "torch"
    for pin in constraints:
        [specifier] = pin.specifier
        assert specifier.operator == "==" and "+" not in specifier.version and "*" not in specifier.version, pin


@pytest.mark.parametrize("machine", MACHINES)
def test_every_requirement_is_pinned_within_its_range(project, constraints, machine):
    pinned = pins(constraints, machine)
    for requirement in requirements(project, *project["optional-dependencies"]):
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} on {machine}: {version}"
    assert "torchattacks" in pinned


def test_an_intel_mac_gets_the_last_torch_that_was_made_for_it(constraints):
    pinned = pins(constraints, "Intel Mac")
    assert pinned["torch"] == "2.2.2" and pinned["numpy"].startswith("1.")


@pytest.mark.parametrize("machine", MACHINES)
def test_the_pins_agree_with_each_other(constraints, machine):
    """Whatever an installed package requires of another, the pins for that machine fulfill."""
    pinned = pins(constraints, machine)
    environment = {**default_environment(), **MACHINES[machine], "extra": ""}
    for name, version in pinned.items():
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if installed.version.split("+")[0] != version or name == "torchattacks":
            continue
        for needed in map(Requirement, installed.requires or []):
            if (needed.marker is None or needed.marker.evaluate(environment)) and needed.name in pinned:
                assert needed.specifier.contains(pinned[needed.name]), f"{name} on {machine} needs {needed}"


def test_what_is_installed_is_what_was_pinned(run, root, constraints):
    stamp = run.read_stamp(root / ".venv")
    if Path(sys.prefix).resolve() != root / ".venv" or not stamp:
        pytest.skip("this environment was not made by run.py")
    machine = next(name for name, values in MACHINES.items() if _is_here(values))
    for name, version in pins(constraints, machine).items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        assert installed.split("+")[0] == version, name


def _is_here(values):
    here = default_environment()
    return all(here[key] == value for key, value in values.items())


def test_conda_builds_the_same_environment(root, project):
    conda = yaml.safe_load((root / "environment.yml").read_text(encoding="utf-8"))
    from_conda = [entry for entry in conda["dependencies"] if isinstance(entry, str)]
    [from_pip] = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    versions = {Requirement(entry).name: Requirement(entry).specifier for entry in from_conda}
    assert versions.keys() == {"python", "pip"}, "all else comes with the project"
    assert versions["python"] == SpecifierSet(project["requires-python"])
    assert "--editable .[lab]" in from_pip and "--constraint constraints.txt" in from_pip
    assert "lab" in project["optional-dependencies"]


def test_pip_and_conda_look_for_torch_at_the_same_address(run, root):
    assert f"--extra-index-url {run.TORCH_WHEELS}cpu" in (root / "environment.yml").read_text(encoding="utf-8")


def test_each_stage_names_extras_that_exist(run, project):
    for arguments in (arguments for stage in run.STAGES.values() for arguments in stage):
        if "-e" in arguments:
            assert (
                Requirement(f"spai_lab{arguments[1].removeprefix('.')}").extras
                <= project["optional-dependencies"].keys()
            )


def test_the_oracles_belong_to_the_tests_alone(project):
    assert not names(requirements(project, "lab")) & names(
        map(Requirement, project["optional-dependencies"]["oracles"])
    )
    assert not {"torchattacks", "torchvision"} & names(requirements(project, *project["optional-dependencies"]))


def test_no_cuda_package_is_installed_without_a_gpu(run):
    if run.has_gpu() or run.torch_build() != "cpu":
        pytest.skip("this machine has an NVIDIA GPU, or its user chose a CUDA build")
    installed = {canonicalize_name(item.metadata["Name"]) for item in metadata.distributions()}
    assert "torch" in installed
    assert not [name for name in installed if run.CUDA_PACKAGE.match(name)]


def modules():
    found = pkgutil.walk_packages(spai_lab.__path__, "spai_lab.")
    return [module.name for module in found if not module.name.endswith("__main__")]


def test_the_package_needs_neither_the_oracles_nor_the_tests_tools():
    """Imported in a fresh interpreter, since the tests themselves import these."""
    unwanted = [
        "foolbox",
        "art",
        "opacus",
        "dp_accounting",
        "phe",
        "torchattacks",
        "pytest",
        "hypothesis",
        "nbclient",
        "distributed",
        "sphinx",
        "myst_nb",
        "voila",
        "jupyterhub",
        "nbgrader",
    ]
    imported = [name for name in modules() if name != "spai_lab.hub.spawner"]  # which runs within a hub
    script = (
        "import importlib, json, sys\n"
        f"for name in {imported!r}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in {unwanted!r} if name in sys.modules]))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == []


def test_a_worker_started_by_spawn_computes_with_the_package(tmp_path):
    """Windows and macOS start workers this way: the main file is imported again, with no state of its parent's."""
    script = tmp_path / "workers.py"
    script.write_text(
        "import multiprocessing\n"
        "from spai_lab.models import build\n"
        "def parameters(name):\n"
        "    return sum(p.numel() for p in build(name).parameters())\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(parameters, ('softmax',)))\n",
        encoding="utf-8",
    )
    variables = {**os.environ, "PYTHONPATH": str(Path(spai_lab.__file__).parent.parent)}
    answer = subprocess.run([sys.executable, str(script)], env=variables, capture_output=True, encoding="utf-8")
    assert answer.returncode == 0, answer.stderr
    assert int(answer.stdout) == (28 * 28 + 1) * 10


def test_a_wheel_holds_the_package_and_its_data(root, tmp_path):
    builder = importlib.import_module("hatchling.builders.wheel").WheelBuilder(str(root))
    [wheel] = builder.build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    data = {path.relative_to(root / "data").as_posix() for path in (root / "data").rglob("*") if path.is_file()}
    assert data and {f"spai_lab/_data/{name}" for name in data} <= held
    files = [*(root / "spai_lab").rglob("*.py"), *(root / "spai_lab" / "book" / "static").iterdir()]
    assert {path.relative_to(root).as_posix() for path in files} <= held
    assert not [name for name in held if name.startswith(("my/", "tests/", "notebooks/"))]
