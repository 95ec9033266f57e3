"""A data set as one file that many processes map: a class on one machine then holds the pixels in memory once.

Each process sees the file's pages as its own. A page that nobody changes is the same memory for all; one that a student
writes to is copied for that student first.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from spai_lab.data.dataset import Dataset
from spai_lab.files import write_atomically

PARTS = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test")


def write_shared(dataset: Dataset, file: Path, source: Mapping[str, str]) -> None:
    """Write the tensors of a data set for `read_shared`.

    Args:
        dataset: what is shared.
        file: where; a file that is there is replaced, and those who map it keep what they have.
        source: the digests of the files that the data set was read from, by name.
    Raises:
        OSError: no space, no permission; what was there is as it was.
    """
    tensors = {part: getattr(dataset, part).contiguous() for part in PARTS}
    write_atomically(file, save(tensors, metadata={"source": _stated(source)}))


def read_shared(file: Path, source: Mapping[str, str]) -> tuple[Tensor, ...] | None:
    """The tensors of a shared file, mapped and not read; None where there is none that was made from this source.

    What the file holds is not compared with the source again: it is as trusted as the folder in which it lies.

    Args:
        file: what `write_shared` wrote.
        source: the digests of the files that the data set is read from, by name.
    Returns:
        `x_train, y_train, x_val, y_val, x_test, y_test`, private to this process as soon as it changes them.
    """
    try:
        with safe_open(file, "pt") as content:
            stated = (content.metadata() or {}).get("source")
            if stated != _stated(source) or set(content.keys()) != set(PARTS):
                return None
        tensors = load_file(file)
    except (OSError, SafetensorError):
        return None
    return tuple(tensors[part] for part in PARTS)


def _stated(source: Mapping[str, str]) -> str:
    return json.dumps(dict(source), sort_keys=True)
