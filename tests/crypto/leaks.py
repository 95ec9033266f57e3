"""Whether a secret key lies about in bytes: how it may be spelled, and all that a party holds, as bytes."""

import types
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from spai_lab.crypto.ntt import inverse
from spai_lab.crypto.rns import centered, column


def coefficients(secret):
    """The ternary polynomial, int64 `(N,)`."""
    return centered(inverse(secret.s[:1], secret.context.primes[:1]), secret.context.primes[0])[0]


def spellings(secret):
    """Bytes in which a secret might lie about: rows of s and its coefficients, in several types, in pieces of 16."""
    s = coefficients(secret)
    primes = column((*secret.context.primes, secret.context.special))
    rows = [*secret.s, s, -s, *(s % primes), *(-secret.s % primes)]
    rows += [*centered(secret.s, primes)]
    for row in rows:
        for dtype in ("<i8", "<u4", "<i4", "<i2", "<i1", "<f8", "<f4", ">i8", ">u4"):
            if np.abs(row).max() <= 1 or np.dtype(dtype).itemsize >= 4:
                for start in range(0, len(row), max(16, len(row) // 4)):
                    yield row[start : start + 16].astype(dtype).tobytes()


def state(thing, known=None):
    """The bytes of all that something holds, however deep: numbers, text, bytes; residues also as they travel."""
    known = {} if known is None else known
    if id(thing) in known or isinstance(thing, types.ModuleType | type):
        return b""
    known[id(thing)] = thing  # kept alive, so that no other thing gets its id
    if isinstance(thing, bytes | bytearray | memoryview):
        return bytes(thing)
    if isinstance(thing, np.ndarray):
        return thing.tobytes() + (thing.astype("<u4").tobytes() if thing.dtype == np.int64 else b"")
    if isinstance(thing, Tensor):
        return state(thing.detach().numpy(), known)
    if isinstance(thing, Mapping):
        return b"".join(state(part, known) for pair in thing.items() for part in pair)
    if isinstance(thing, list | tuple | set | frozenset):
        return b"".join(state(part, known) for part in thing)
    if isinstance(thing, types.FunctionType):
        return b"".join(state(cell.cell_contents, known) for cell in thing.__closure__ or ())
    return repr(thing).encode() + state(vars(thing) if hasattr(thing, "__dict__") else {}, known)


def secrets_in(data, secret):
    """In how many of its spellings the secret occurs."""
    return sum(spelling in data for spelling in spellings(secret))
