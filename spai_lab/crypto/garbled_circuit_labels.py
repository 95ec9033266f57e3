r"""Labels of a garbled circuit, and the hashes that hide them: of a label and a tweak, which no two gates share.

A gate's table is a sum of hashes. Free XOR gives all wires one difference $\Delta$, so that a hash must hide $H(x
\oplus \Delta, j) \oplus b \Delta$ too (Choi, Katz, Kumaresan and Zhou 2012, "On the security of the free-XOR
technique", IACR 2011/510). Without the tweak j, two gates that share an input differ by 0 or $\Delta$: all is lost. AES
under one fixed key, the fast choice for long, was insecure in several libraries' oblivious transfers for the lack of it
(Guo, Katz, Wang and Yu 2019, IACR 2019/074).

The salt is public and drawn anew for each garbling, so that what an attacker computes serves against one only (Guo,
Katz, Wang, Weng and Yu 2020, "Better concrete security for half-gates garbling (in the multi-instance setting)", IACR
2019/1168). Within one garbling of C gates, proofs for a fixed key lose a factor that grows with C: `tmmo_hash` has
fewer than 128 bits of proved security for large circuits, `blake2_hash`, with the tweak inside, loses nothing.

For learning, not for secrets.
"""

import secrets
from collections.abc import Callable
from hashlib import blake2b

import numpy as np

from spai_lab.checks import describe_kind

LABEL = SALT = 16  # bytes
LabelHash = Callable[[np.ndarray, np.ndarray, bytes], np.ndarray]
Hashed = Callable[..., list[np.ndarray]]
PERSON = b"spai-lab GC 1"


# --- hashes -----------------------------------------------------------------------------------------------------------


def blake2_hash(labels: np.ndarray, tweaks: np.ndarray, salt: bytes) -> np.ndarray:
    r"""$H(x, j)$ by BLAKE2b of x and j: salted, personalized, 16 bytes. Each label is a call from Python.

    Args:
        labels: x, uint8 `(m, 16)`.
        tweaks: j, uint64 `(m,)`.
        salt: 16 bytes.
    Returns:
        uint8 `(m, 16)`.
    Reference: Zahur, Rosulek and Evans 2014, IACR 2014/756, on what the hash of half gates must be; Yao 1986 left it
        open. BLAKE2: RFC 7693.
    Survey: private AI, cryptography, multi-party computation.

    >>> label, salt = np.arange(16, dtype=np.uint8), bytes(16)
    >>> digest = blake2b(bytes(label) + bytes([5, *bytes(7)]), digest_size=16, salt=salt, person=b"spai-lab GC 1")
    >>> blake2_hash(label[None], np.array([5], np.uint64), salt).tobytes() == digest.digest()
    True
    """
    data = np.concatenate([labels, tweaks.astype("<u8").view(np.uint8).reshape(-1, 8)], axis=1).tobytes()
    width = LABEL + 8
    fresh = blake2b(digest_size=LABEL, salt=salt, person=PERSON)
    digests = []
    for start in range(0, len(data), width):
        state = fresh.copy()
        state.update(data[start : start + width])
        digests.append(state.digest())
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, LABEL)


def tmmo_hash(labels: np.ndarray, tweaks: np.ndarray, salt: bytes) -> np.ndarray:
    r"""$H(x, j) = \pi(\pi(x) \oplus j) \oplus \pi(x)$, with $\pi$ AES-128 under the salt; needs `cryptography`.

    All labels go through the processor's AES together, ten times as fast as call by call. The proof takes $\pi$ under
    each salt for a random permutation.

    Args:
        labels: x, uint8 `(m, 16)`.
        tweaks: j, uint64 `(m,)`.
        salt: 16 bytes, the key of $\pi$, public.
    Returns:
        uint8 `(m, 16)`.
    Raises:
        ModuleNotFoundError: `cryptography` is not installed.
    Reference: Guo, Katz, Wang and Yu 2019, "Efficient and secure multiparty computation from fixed-key block ciphers",
        IACR 2019/074 (TMMO), for the half gates of Zahur, Rosulek and Evans 2014; Yao 1986 left the hash open.
    Survey: private AI, cryptography, multi-party computation.

    >>> two = tmmo_hash(np.zeros((2, 16), np.uint8), np.array([0, 1], np.uint64), bytes(16))
    >>> two.shape, bool((two[0] == two[1]).all())
    ((2, 16), False)
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    permutation = Cipher(algorithms.AES(salt), modes.ECB()).encryptor()
    once = np.frombuffer(permutation.update(labels.tobytes()), np.uint8).reshape(-1, LABEL)
    tweaked = once.copy()
    tweaked[:, :8] ^= tweaks.astype("<u8").view(np.uint8).reshape(-1, 8)
    return once ^ np.frombuffer(permutation.update(tweaked.tobytes()), np.uint8).reshape(-1, LABEL)


def hasher(label_hash: LabelHash, salt: bytes) -> Hashed:
    """Takes labels with their tweaks, all in one call of the hash, and gives as many hashes."""

    def hashed(*pairs: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
        labels, tweaks = (np.stack(part) for part in zip(*pairs, strict=True))
        digests = label_hash(labels.view(np.uint8).reshape(-1, LABEL), tweaks.reshape(-1), salt)
        return list(words(digests).reshape(labels.shape))

    return hashed


# --- labels -----------------------------------------------------------------------------------------------------------


def random_labels(*shape: int) -> np.ndarray:
    """Labels from the operating system's randomness, uint8 `(*shape, 16)`."""
    count = int(np.prod(shape)) * LABEL
    return np.frombuffer(bytearray(secrets.token_bytes(count)), np.uint8).reshape(*shape, LABEL)


def words(labels: np.ndarray) -> np.ndarray:
    """The same memory as two numbers a label, uint64 `(..., 2)`, where it lies together."""
    return np.ascontiguousarray(labels).view(np.uint64)


def color(label: np.ndarray) -> np.ndarray:
    """The lowest bit of labels, uint64 `(..., 1)`."""
    return label.view(np.uint8)[..., :1].astype(np.uint64) & np.uint64(1)


def check_labels(name: str, labels: np.ndarray, shape: tuple[int | None, ...]) -> None:
    """Raise `ValueError` unless these are labels, uint8 `(*shape, 16)`, None where any size from 1 will do."""
    wanted = (*shape, LABEL)
    shaped = isinstance(labels, np.ndarray) and labels.dtype == np.uint8 and labels.ndim == len(wanted)
    sides = zip(labels.shape, wanted, strict=True) if shaped else ()
    if not shaped or any(have != want if want is not None else not have for have, want in sides):
        text = ", ".join("n" if side is None else str(side) for side in wanted)
        raise ValueError(f"{name} is {describe_kind(labels)}; accepted: uint8 ({text})")
