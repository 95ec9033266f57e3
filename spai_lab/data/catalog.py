"""Which data sets there are, and how to get one by its name."""

import os
from pathlib import Path

from spai_lab.checks import check_choice, check_flag
from spai_lab.data.dataset import Dataset, Tabular
from spai_lab.data.embedded import breast_cancer, digits, moons
from spai_lab.data.faces import HOME, fetch_olivetti, find_faces, find_olivetti, load_faces, load_olivetti
from spai_lab.data.mnist import fetch_mnist, find_mnist, load_mnist
from spai_lab.data.sources import DataUnavailable, folders

NAMES = ("digits", "mnist", "faces", "olivetti", "moons", "tabular")


def load(name: str | None = None, *, raw: bool = False) -> Dataset | Tabular:
    """Load a data set.

    Args:
        name: "digits", "mnist", "faces", "olivetti", "moons" or "tabular". Without a name: what `SPAI_DATASET` says
            ("digits" or "mnist"), else MNIST where it is on this machine, else the digits.
        raw: the digits at their own 8x8 instead of MNIST's 28x28.
    Returns:
        A `Dataset`, or a `Tabular` for "tabular". Each call makes new tensors: what you change is yours alone.
    Raises:
        ValueError: an unknown name, `raw` with anything but the digits, or a wrong `SPAI_DATASET`.
        DataUnavailable: the data is missing, damaged or cannot be downloaded; the message says what to do. Only a data
            set that is asked for by its name is downloaded ("mnist", "olivetti").

    >>> load("moons").shape
    (2, 1, 1)
    >>> load("tabular")
    Tabular tabular: 341 train, 57 validation, 171 test; 30 features; 2 classes
    """
    check_flag("raw", raw)
    if name is not None:
        check_choice("name", name, NAMES)
    chosen = name or default_name()
    if raw and chosen != "digits":
        raise ValueError(f'raw is True for {chosen!r}; accepted: False, or load("digits", raw=True)')
    match chosen:
        case "digits":
            return digits(raw=raw)
        case "mnist":
            return load_mnist(find_mnist() or fetch_mnist())
        case "faces":
            return load_faces(_found("faces", find_faces()))
        case "olivetti":
            return load_olivetti(find_olivetti() or fetch_olivetti())
        case "moons":
            return moons()
        case "tabular":
            return breast_cancer()


def available() -> dict[str, Path | str | None]:
    """What `load` finds on this machine, without a network; looks for files, and opens none.

    Returns:
        For each data set the place where it lies, None if it comes with the package, or one sentence that says how to
        get it.

    >>> sorted(available())
    ['digits', 'faces', 'mnist', 'moons', 'olivetti', 'tabular']
    """
    return {
        "digits": None,
        "mnist": find_mnist() or _advice("mnist"),
        "faces": find_faces() or _advice("faces"),
        "olivetti": find_olivetti() or _advice("olivetti"),
        "moons": None,
        "tabular": None,
    }


def default_name() -> str:
    """What `load()` loads: what `SPAI_DATASET` says, else MNIST where it is on this machine, else the digits."""
    chosen = os.environ.get("SPAI_DATASET")
    if not chosen:
        return "mnist" if find_mnist() else "digits"
    check_choice("SPAI_DATASET", chosen, ("digits", "mnist"))
    if chosen == "mnist":
        _found("mnist", find_mnist())
    return chosen


def _found(name: str, place: Path | None) -> Path:
    if place is None:
        raise DataUnavailable(_advice(name))
    return place


def _advice(name: str) -> str:
    match name:
        case "mnist":
            return f"MNIST is not in {_searched('mnist')}: `spai-lab fetch` downloads it, 12 MB."
        case "faces":
            return f"The AT&T faces are not in {_searched('att_faces')}: get them from {HOME} and put s1 to s40 there."
        case "olivetti":
            return f'The Olivetti faces are not in {_searched("olivetti")}: load("olivetti") downloads them, 4 MB.'


def _searched(name: str) -> str:
    return " or ".join(map(str, folders(name)))
