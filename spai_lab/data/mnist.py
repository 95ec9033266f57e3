"""MNIST: found on this machine or downloaded, and never used unless it is the published one."""

import hashlib
import math
import zlib
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spai_lab.data.dataset import Dataset, stratified_split
from spai_lab.data.idx import read_idx
from spai_lab.data.shared import read_shared, write_shared
from spai_lab.data.sources import DataUnavailable, Download, download, folders, read
from spai_lab.files import cache_folder

CREDIT = "MNIST database of handwritten digits: Yann LeCun, Corinna Cortes, Christopher J. C. Burges"
VALIDATION = 5_000
SHAPES = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
SHARED = "mnist.safetensors"
GZIP_MAGIC = b"\x1f\x8b"
GZIP_OVERHEAD = 20_000


def find_mnist() -> Path | None:
    """The first folder that has all four files, compressed or not; their content is checked when they are read."""
    return next((folder for folder in folders("mnist") if all(_file(folder, name).is_file() for name in SHAPES)), None)


def fetch_mnist(
    folder: Path | None = None, *, mirrors: Sequence[str] = MIRRORS, timeout: float = 10.0, progress: bool = True
) -> Path:
    """Download what is missing or damaged of MNIST's four files, 12 MB in all.

    Args:
        folder: where the files go; the user's cache by default.
        mirrors: addresses that end before the file names, tried in order.
        timeout: seconds that a mirror may be silent.
        progress: show a bar for each file.
    Returns:
        The folder, which then holds the published MNIST.
    Raises:
        DataUnavailable: no mirror can be reached or has the published content, or there is no room to write.
    """
    folder = cache_folder() / "mnist" if folder is None else Path(folder)
    missing = [
        Download(f"{name}.gz", folder / f"{name}.gz", _size(name) + GZIP_OVERHEAD, partial(_unpack, name))
        for name in SHAPES
        if not _is_published(folder, name)
    ]
    advice = (
        'Check the network and the proxy (HTTPS_PROXY), then run `spai-lab fetch`; load("digits") needs no network.'
    )
    download("MNIST", missing, mirrors, advice=advice, timeout=timeout, progress=progress)
    return folder


def load_mnist(folder: Path) -> Dataset:
    """MNIST from a folder: 55,000 / 5,000 / 10,000 images; the test part is the official one, in its order.

    The bytes are kept for the next call, the pixels are made anew, so that nobody changes another's data. Where
    `share_mnist` has prepared the folder, the pixels are mapped instead, and many processes hold them once.
    """
    tensors = read_shared(folder / SHARED, SHA256) or _read_tensors(folder)
    return Dataset("mnist", *tensors, classes=tuple("0123456789"), credit=CREDIT)


def share_mnist(folder: Path) -> Path:
    """Prepare a folder with MNIST for many students on one machine: 220 MB on the disk, in memory once for all.

    Args:
        folder: holds the four files; everybody in it may read, and only who is trusted may write.
    Returns:
        the file that was written.
    Raises:
        DataUnavailable: the folder lacks MNIST, or it is damaged.
        OSError: no space, no permission.
    """
    file = Path(folder) / SHARED
    dataset = Dataset("mnist", *_read_tensors(Path(folder)), classes=tuple("0123456789"), credit=CREDIT)
    write_shared(dataset, file, SHA256)
    return file


def _read_tensors(folder: Path) -> tuple[Tensor, ...]:
    missing = [name for name in SHAPES if not _file(folder, name).is_file()]
    if missing:
        raise DataUnavailable(f"{folder} has no {missing[0]}: `spai-lab fetch` downloads it.")
    parts = _read_parts(tuple(_stamped(_file(folder, name)) for name in SHAPES))
    return tuple(tensor for images, labels in parts for tensor in (_pixels(images), labels.long()))


def _pixels(images: Tensor) -> Tensor:
    return images.unsqueeze(1).float().div_(255)


@lru_cache(maxsize=1)
def _read_parts(files: tuple[tuple[Path, int, int], ...]) -> tuple[tuple[Tensor, Tensor], ...]:
    contents = (_read_published(name, file) for name, (file, _, _) in zip(SHAPES, files, strict=True))
    x, y, x_test, y_test = map(torch.tensor, contents)
    train, val, _ = stratified_split(y.numpy(), validation=VALIDATION, test=0)
    return (x[train], y[train]), (x[val], y[val]), (x_test, y_test)


def _read_published(name: str, file: Path) -> np.ndarray:
    try:
        return read_idx(_unpack(name, read(file)))
    except ValueError as error:
        raise DataUnavailable(f"{file} {error}: delete it and run `spai-lab fetch`.") from None


def _unpack(name: str, content: bytes) -> bytes:
    """The IDX file within the content, compressed or not, if it is the published one; `ValueError` if not."""
    size = _size(name)
    if content.startswith(GZIP_MAGIC):
        try:
            content = zlib.decompressobj(wbits=31).decompress(content, size + 1)
        except zlib.error as error:
            raise ValueError(f"is a damaged gzip file ({error})") from None
    if len(content) < size:
        raise ValueError(f"is truncated: {len(content):,} of {size:,} bytes when unpacked")
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise ValueError("is not the published MNIST file (its SHA-256 differs)")
    return content


def _is_published(folder: Path, name: str) -> bool:
    try:
        _unpack(name, _file(folder, name).read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _size(name: str) -> int:
    return 4 + 4 * len(SHAPES[name]) + math.prod(SHAPES[name])


def _file(folder: Path, name: str) -> Path:
    compressed = folder / f"{name}.gz"
    return compressed if compressed.is_file() else folder / name


def _stamped(file: Path) -> tuple[Path, int, int]:
    """The file with what changes when its content does."""
    status = file.stat()
    return file, status.st_mtime_ns, status.st_size
