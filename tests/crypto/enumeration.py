"""All that a protocol may draw, at once: entry j of each draw is what the j-th assignment of the randomness says.

Protocols work entry by entry, so that one run over arrays is one run for every assignment, and what a party sees is
counted instead of sampled.
"""

import threading
from contextlib import contextmanager

import numpy as np
import pytest

from spai_lab.crypto.secret_sharing_ring import Ring


def assignments(bits, count):
    """All values of so many elements, one array of $2^{bits count}$ entries for each."""
    grid = np.indices((2**bits,) * count, dtype=np.uint64)
    return list(grid.reshape(count, -1))


@contextmanager
def enumerated(bits, draws, *, change=lambda name, columns: columns):
    """Draws come from all assignments: `draws` says how many elements each thread draws; yields what was drawn.

    `change` may plant a fault in the columns of a thread.
    """
    columns = iter(assignments(bits, sum(draws.values())))
    left = {name: change(name, [next(columns) for _ in range(count)]) for name, count in draws.items()}
    drawn = {name: list(own) for name, own in left.items()}

    def draw(ring, shape):
        own = left[threading.current_thread().name]
        parts = [own.pop(0) for _ in range(int(np.prod(shape[1:])))]
        return np.stack(parts, axis=1).reshape(shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ring, "draw", draw)
        yield drawn
    assert not any(left.values()), "not all was drawn"


def distribution(bits, parts):
    """How often each combination of elements occurs among the assignments: keys and counts."""
    columns = [column for part in parts for column in part.reshape(len(part), -1).T]
    assert bits * len(columns) < 63, "keys would wrap around"
    key = 0
    for column in columns:
        key = key * 2**bits + column.astype(np.int64)
    keys, counts = np.unique(key, return_counts=True)
    return keys.tolist(), counts.tolist()
