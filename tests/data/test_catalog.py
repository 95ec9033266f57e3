from pathlib import Path

import pytest

from spai_lab.data import DataUnavailable, available, catalog, load


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("asked for a download")

    monkeypatch.setattr("spai_lab.data.sources.urlopen", refuse)


def test_default_is_digits_where_mnist_is_missing():
    assert load().name == "digits"


def test_default_is_mnist_where_it_is(toy_folder):
    assert load().name == "mnist"


def test_incomplete_mnist_is_not_there(toy_folder):
    next(toy_folder.iterdir()).unlink()
    assert load().name == "digits"


def test_data_folder_comes_before_the_cache(toy_mnist, toy_folder, tmp_path, monkeypatch):
    own = tmp_path / "own" / "mnist"
    own.mkdir(parents=True)
    for name, content in toy_mnist.items():
        (own / name).write_bytes(content)
    assert available()["mnist"] == toy_folder
    monkeypatch.setenv("SPAI_DATA", str(tmp_path / "own"))
    assert available()["mnist"] == own


def test_variable_decides(toy_folder, monkeypatch):
    monkeypatch.setenv("SPAI_DATASET", "digits")
    assert load().name == "digits"
    assert load("mnist").name == "mnist"
    monkeypatch.setenv("SPAI_DATASET", "mnist")
    assert load().name == "mnist"
    monkeypatch.setenv("SPAI_DATASET", "")
    assert load().name == "mnist"


def test_variable_that_asks_for_missing_mnist(cache, monkeypatch):
    monkeypatch.setenv("SPAI_DATASET", "mnist")
    with pytest.raises(DataUnavailable, match=f"MNIST is not in {cache / 'mnist'}: `spai-lab fetch` downloads it"):
        load()


def test_wrong_variable(monkeypatch):
    monkeypatch.setenv("SPAI_DATASET", "MNIST")
    with pytest.raises(ValueError, match="SPAI_DATASET is 'MNIST'; accepted: 'digits', 'mnist'"):
        load()


def test_only_a_name_downloads():
    with pytest.raises(AssertionError, match="asked for a download"):
        load("mnist")


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("cifar", False, "name is 'cifar'; accepted: 'digits', 'mnist', 'faces', 'olivetti', 'moons', 'tabular'"),
        ("", False, "name is ''; accepted: 'digits'"),
        (7, False, "name is 7; accepted: 'digits'"),
        ("moons", True, r"raw is True for 'moons'; accepted: False, or load\(\"digits\", raw=True\)"),
        ("digits", 1, "raw is 1; accepted: True or False"),
    ],
)
def test_bad_arguments_are_named(name, raw, message):
    with pytest.raises(ValueError, match=message):
        load(name, raw=raw)


def test_available_says_where_or_how(toy_folder):
    found = available()
    assert tuple(found) == catalog.NAMES
    assert found["mnist"] == toy_folder
    assert found["digits"] is found["moons"] is found["tabular"] is None
    assert "https://" in found["faces"] and 'load("olivetti")' in found["olivetti"]


def test_available_without_anything(tmp_path, monkeypatch):
    monkeypatch.setenv("SPAI_DATA", str(tmp_path / "nowhere"))
    assert not any(isinstance(place, Path) for place in available().values())
    assert str(tmp_path / "nowhere") in available()["mnist"]
