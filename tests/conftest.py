"""What the tests share: the data sets, and how long properties are searched for counterexamples."""

import importlib.util
import os
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("quick", deadline=None, max_examples=50, derandomize=True)
settings.register_profile("full", deadline=None, max_examples=1000)
settings.load_profile("full" if os.environ.get("SPAI_FULL") else "quick")


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def digits():
    from spai_lab.data import load

    return load("digits")


@pytest.fixture(scope="session")
def mnist():
    """MNIST; the test is skipped, with the reason, where it is not on this machine."""
    from spai_lab.data import available, load

    place = available()["mnist"]
    if isinstance(place, str):
        pytest.skip(place)
    return load("mnist")


@pytest.fixture(scope="session")
def small_book(tmp_path_factory):
    """Two chapters of the book, on the digits, with few pictures of each explorable; built once for all workers."""
    from spai_lab.book.build import build

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "small" / "a book"
    with FileLock(shared / "small_book.lock"), pytest.MonkeyPatch.context() as patch:
        if not folder.exists():
            patch.setenv("SPAI_DATASET", "digits")
            build(folder, ["00", "02"], most=17)
    return folder


@pytest.fixture(scope="session")
def run():
    """The program `run.py` as a module."""
    spec = importlib.util.spec_from_file_location("run", ROOT / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def refuses():
    """`refuses(function, arguments, *words)`: the call raises our own `ValueError`, which holds each of the words."""

    def check(function, arguments: dict, *words: str) -> None:
        with pytest.raises(ValueError) as caught:
            function(**arguments)
        deepest = Path(caught.traceback[-1].path)
        assert deepest.is_relative_to(ROOT / "spai_lab"), f"raised deep inside, in {deepest}"
        missing = [word for word in words if word not in str(caught.value)]
        assert not missing, f"{missing} not in {caught.value}"

    return check
