"""CKKS messages, what all of them share: a header that says what they are, and residues of an exact length."""

import math
import struct
from typing import NamedTuple

import numpy as np

from spai_lab.checks import describe
from spai_lab.crypto.ckks_ciphertext import check_type
from spai_lab.crypto.ckks_context import Context
from spai_lab.crypto.ntt import DEGREES
from spai_lab.crypto.rns import Primes, column

MAGIC, VERSION = b"CKKS", 1
KINDS = ("context", "public key", "relinearization key", "rotation key", "ciphertext")
HEAD = struct.Struct("<4sBBQ8s8s")
RING = struct.Struct("<IdIB")
RESIDUE = np.dtype("<u4")
MOST_PRIMES, MOST_BYTES = 32, 2**28


class Header(NamedTuple):
    """What every message begins with, and the bytes that follow."""

    context: Context
    key: str
    rest: memoryview


def message(kind: str, context: Context, key: str, *fields: bytes) -> bytes:
    """A message of these fields, with its header."""
    if len(context.primes) > MOST_PRIMES:
        raise ValueError(f"context has {len(context.primes)} primes; accepted: at most {MOST_PRIMES} in a message")
    ring = RING.pack(context.degree, context.scale, context.special, len(context.primes))
    body = b"".join([ring, struct.pack(f"<{len(context.primes)}I", *context.primes), *fields])
    size = HEAD.size + len(body)
    if size > MOST_BYTES:
        raise ValueError(f"the {kind} takes {size:,} bytes; accepted: at most {MOST_BYTES:,} in a message")
    names = bytes.fromhex(context.fingerprint), bytes.fromhex(key)
    return HEAD.pack(MAGIC, VERSION, KINDS.index(kind), size, *names) + body


def read(kind: str, data: bytes, context: Context | None = None, key: str | None = None) -> Header:
    """The header; raise `ValueError` unless it is one of this kind, and of this context and key where they are given.

    Without a context that of the header is returned, of which only the degree is checked.
    """
    if not isinstance(data, bytes) or len(data) < HEAD.size + RING.size:
        came = f"{len(data):,} bytes" if isinstance(data, bytes) else describe(data)
        raise ValueError(f"data is {came}; accepted: bytes, at least {HEAD.size + RING.size} of them")
    magic, version, number, size, context_name, key_name = HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise ValueError(f"data begins with {magic!r}, version {version}; accepted: {MAGIC!r}, version {VERSION}")
    if number >= len(KINDS) or KINDS[number] != kind:
        came = KINDS[number] if number < len(KINDS) else f"kind {number}"
        raise ValueError(f"data is a message of a {came}; accepted: of a {kind}")
    if size != len(data) or size > MOST_BYTES:
        raise ValueError(
            f"data has {len(data):,} bytes and announces {size:,}; accepted: as many as announced, at most "
            f"{MOST_BYTES:,}"
        )
    degree, scale, special, count = RING.unpack_from(data, HEAD.size)
    start = HEAD.size + RING.size
    end = start + RESIDUE.itemsize * count
    if degree not in DEGREES or not 1 <= count <= MOST_PRIMES or end > size:
        raise ValueError(
            f"data has N = {degree:,} and {count} primes; accepted: a power of two from {DEGREES[0]} to "
            f"{DEGREES[-1]:,}, and as many primes as are there, from 1 to {MOST_PRIMES}"
        )
    there = Context(degree, struct.unpack(f"<{count}I", data[start:end]), special, scale)
    if bytes.fromhex(there.fingerprint) != context_name:
        raise ValueError(f"data names the context {context_name.hex()}; accepted: that of its fields")
    if context is not None:
        check_type("context", context, Context)
        if there != context:
            raise ValueError(f"data is of context {there.fingerprint}; accepted: of context {context.fingerprint}")
    if key is not None and key_name.hex() != key:
        raise ValueError(f"data belongs to the key {key_name.hex()}; accepted: {key}")
    return Header(there, key_name.hex(), memoryview(data)[end:])


def exactly(data: memoryview, size: int) -> memoryview:
    """The bytes; raise `ValueError` unless there are so many."""
    if len(data) != size:
        raise ValueError(f"data has {len(data):,} bytes where its header asks for {size:,}; accepted: just these")
    return data


def residues(x: np.ndarray) -> bytes:
    """Residues, 4 bytes each."""
    return x.astype(RESIDUE).tobytes()


def array(data: memoryview, shape: tuple[int, ...], primes: Primes) -> np.ndarray:
    """Residues `(..., L, N)` in int64; raise `ValueError` unless there are just so many, each below its prime."""
    exactly(data, RESIDUE.itemsize * math.prod(shape))
    x = np.frombuffer(data, RESIDUE).reshape(shape).astype(np.int64)
    if (x >= column(primes)).any():
        raise ValueError("data has residues that are not below their prime; accepted: from 0 to prime - 1")
    return x


def described(data: bytes) -> str:
    """What a message says of itself, for people: its kind, size, context and key; other bytes are said to be bytes."""
    if len(data) < HEAD.size or not data.startswith(MAGIC) or data[5] >= len(KINDS):
        return f"{len(data):,} bytes"
    _, _, number, _, context_name, key_name = HEAD.unpack_from(data)
    of = f"context {context_name.hex()}" + (f", key {key_name.hex()}" if any(key_name) else "")
    return f"{KINDS[number]} of {len(data):,} bytes, {of}"
