"""Faces: ten pictures of each of forty people, as the AT&T tree of PGM files or as scikit-learn's smaller copy."""

import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from spai_lab.data.dataset import Dataset
from spai_lab.data.sources import DataUnavailable, Download, download, folders, read

CREDIT = "The Database of Faces: AT&T Laboratories Cambridge"
PEOPLE, PICTURES = 40, 10
VALIDATION, TEST = 1 * PEOPLE, 2 * PEOPLE
HEIGHT, WIDTH = 112, 92
TREE_SHA256 = "3ece859febb5dcb346af09c9a1cecc3b63793b7a3062d123f779eb443747e8e7"
HOME = "https://cam-orl.co.uk/facedatabase.html"
PGM_HEADER = re.compile(rb"P5\s(?:#[^\n]*\n|\s)*(\d+)\s+(\d+)\s+(\d+)\s")

OLIVETTI_MIRROR = "https://ndownloader.figshare.com/files/"
OLIVETTI_REMOTE = "5976027"
OLIVETTI_FILE = "olivettifaces.mat"
OLIVETTI_SHA256 = "b612fb967f2dc77c9c62d3e1266e0c73d5fca46a4b8906c18e454d41af987794"
OLIVETTI_CAP = 16_000_000


def find_faces() -> Path | None:
    """The first folder that has the 400 pictures `s1/1.pgm` to `s40/10.pgm`."""
    return next((folder for folder in folders("att_faces") if all(map(Path.is_file, _pictures(folder)))), None)


def load_faces(folder: Path) -> Dataset:
    """The AT&T faces from a folder, `(N, 1, 112, 92)`; of each person 7 pictures to train, 1 to validate, 2 to test."""
    files = [(picture, read(picture)) for picture in _pictures(folder)]
    images = np.stack([_read_picture(picture, content) for picture, content in files])
    if hashlib.sha256(b"".join(content for _, content in files)).hexdigest() != TREE_SHA256:
        raise DataUnavailable(
            f"{folder} is not the published set of faces (its SHA-256 differs): get it anew from {HOME}."
        )
    return _dataset("faces", torch.from_numpy(images).float() / 255)


def find_olivetti() -> Path | None:
    """scikit-learn's copy, if `load("olivetti")` has fetched it."""
    return next((file for folder in folders("olivetti") if (file := folder / OLIVETTI_FILE).is_file()), None)


def fetch_olivetti(mirrors: Sequence[str] = (OLIVETTI_MIRROR,)) -> Path:
    """Download the file from which scikit-learn makes its Olivetti faces, into the user's cache.

    Raises:
        DataUnavailable: it cannot be reached, is not the published file, or there is no room to write.
    """
    path = folders("olivetti")[-1] / OLIVETTI_FILE
    file = Download(OLIVETTI_REMOTE, path, OLIVETTI_CAP, _check_olivetti)
    advice = f"Check the network and HTTPS_PROXY and try again, or put the file at {path}."
    download("Olivetti faces", [file], mirrors, advice=advice)
    return path


def load_olivetti(file: Path) -> Dataset:
    """scikit-learn's Olivetti faces, `(N, 1, 64, 64)`, split like the AT&T faces; its pixels span [0, 1]."""
    content = read(file)
    try:
        _check_olivetti(content)
    except ValueError as error:
        raise DataUnavailable(f'{file} {error}: delete it; load("olivetti") fetches a new one.') from None
    from scipy.io import loadmat

    columns = torch.from_numpy(loadmat(io.BytesIO(content))["faces"].T.astype(np.float32))
    images = columns.reshape(-1, 64, 64).transpose(1, 2)
    return _dataset("olivetti", (images - images.min()) / (images.max() - images.min()))


def _dataset(name: str, images: torch.Tensor) -> Dataset:
    return Dataset.from_split(
        name,
        images.unsqueeze(1),
        torch.arange(PEOPLE).repeat_interleave(PICTURES),
        validation=VALIDATION,
        test=TEST,
        classes=tuple(f"person {number}" for number in range(1, PEOPLE + 1)),
        credit=CREDIT,
    )


def _pictures(folder: Path) -> list[Path]:
    people, pictures = range(1, PEOPLE + 1), range(1, PICTURES + 1)
    return [folder / f"s{person}" / f"{picture}.pgm" for person in people for picture in pictures]


def _read_picture(file: Path, content: bytes) -> np.ndarray:
    try:
        image = read_pgm(content)
        if image.shape != (HEIGHT, WIDTH):
            raise ValueError(f"has {image.shape[1]} x {image.shape[0]} pixels instead of {WIDTH} x {HEIGHT}")
        return image
    except ValueError as error:
        raise DataUnavailable(f"{file} {error}: replace it by a copy from {HOME}.") from None


def read_pgm(content: bytes) -> np.ndarray:
    """Read a binary PGM picture (P5, 8 bit).

    Args:
        content: the whole file.
    Returns:
        A read-only uint8 array `(H, W)`.
    Raises:
        ValueError: the content is no such picture, or is truncated.
    Simplified: 255 as the largest value alone, and comments only before the width.

    >>> read_pgm(b"P5 2 1 255\\n\\x07\\x08")
    array([[7, 8]], dtype=uint8)
    """
    header = PGM_HEADER.match(content)
    if not header:
        raise ValueError("is no binary PGM picture (P5)")
    width, height, largest = map(int, header.groups())
    if largest != 255:
        raise ValueError(f"has {largest} as its largest value; accepted is 255")
    pixels = content[header.end() :]
    if len(pixels) != width * height:
        raise ValueError(f"holds {len(pixels):,} pixels; {width} x {height} ask for {width * height:,}")
    return np.frombuffer(pixels, dtype=np.uint8).reshape(height, width)


def _check_olivetti(content: bytes) -> None:
    if hashlib.sha256(content).hexdigest() != OLIVETTI_SHA256:
        raise ValueError("is not the file that scikit-learn publishes (its SHA-256 differs)")
