r"""Keys of secure aggregation: seeds that two clients agree on, and shares of secrets, each sealed for its receiver.

A client draws two pairs of keys for each round, and a seed. From one pair it makes masks with each other client; of its
secret half and of the seed the others hold shares. With the other pair shares are sealed, since the server, which
carries them, must not read them. It could compute all masks of a client, old and new, whose keys served twice: so they
do not.

| | bytes |
|---|---|
| what a client announces: public keys for masks and for shares, hash of its seed | 3 x 32 |
| the two shares for a receiver: nonce 24, two shares of 64, tag 16 | 168 |

That clients say a hash of their seeds is an addition to the paper: with it, and with the public key of the other
secret, the server notices shares that are wrong, which would give it a wrong sum.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from nacl import bindings as sodium
from nacl.exceptions import CryptoError

from spai_lab.checks import check_choice
from spai_lab.crypto.paillier_keys import check_whole
from spai_lab.crypto.secret_sharing_shamir import FIELD, shamir_reconstruct, shamir_share
from spai_lab.crypto.secure_aggregation import SEED, Terms, check_secret, check_terms

WORDS = SEED // 4  # a secret of 32 bytes is 8 numbers below 2^32
NONCE, TAG = sodium.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES, sodium.crypto_aead_xchacha20poly1305_ietf_ABYTES
SEALED = NONCE + 2 * 8 * WORDS + TAG
NONE = np.uint64(2**64 - 1)  # where a client has no share of another; no element of the field
PURPOSES = {"mask": b"spai-lab mask 1", "shares": b"spai-lab share 1"}


@dataclass(frozen=True)
class KeyPair:
    """Two halves of a key for X25519, 32 bytes each; the secret one is not shown."""

    secret: bytes = field(repr=False)
    public: bytes


@dataclass(frozen=True)
class ClientKeys:
    """All secrets of a client in a round: a pair of keys for masks, one for sealed shares, and the seed $b_u$."""

    masks: KeyPair
    shares: KeyPair
    seed: bytes = field(repr=False)


def key_pair() -> KeyPair:
    """A fresh pair of keys, from the operating system: $s$ and $s B$ on Curve25519.

    >>> one, other = key_pair(), key_pair()
    >>> agree(one, other.public, bytes(32), "mask") == agree(other, one.public, bytes(32), "mask")
    True
    """
    secret = secrets.token_bytes(SEED)
    return KeyPair(secret, sodium.crypto_scalarmult_base(secret))


def client_keys() -> ClientKeys:
    """Fresh secrets for one round, from the operating system; they take no seed."""
    return ClientKeys(key_pair(), key_pair(), secrets.token_bytes(SEED))


def agree(own: KeyPair, other: bytes, digest: bytes, purpose: str) -> bytes:
    r"""What two clients know and nobody else: Diffie and Hellman's point, hashed with whose it is and what it is for.

    $s_{uv} = H(d, \min(P_u, P_v), \max(P_u, P_v), \mathrm{X25519}(s_u, P_v))$. The hash
    makes uniform bytes of a point; with both keys, the terms and the purpose in it no seed serves twice.

    Args:
        own: $(s_u, P_u)$.
        other: $P_v$, 32 bytes.
        digest: d, 32 bytes, of the `Terms` with the round.
        purpose: "mask" or "shares".
    Returns:
        32 bytes, the same for both.
    Raises:
        ValueError: names the argument; so does a point of small order, with which everybody knows the result.
    Reference: Bonawitz et al. 2017, IACR 2017/281, section 3.2; X25519: RFC 7748.
    Survey: private AI, cryptography, multi-party computation.
    """
    check_secret("other", other)
    check_secret("digest", digest)
    check_choice("purpose", purpose, tuple(PURPOSES))
    shared = times(own.secret, other)
    parts = (digest, *sorted((own.public, other)), shared)
    return blake2b(b"".join(parts), digest_size=SEED, person=PURPOSES[purpose]).digest()


def times(secret: bytes, public: bytes) -> bytes:
    """X25519, 32 bytes; `ValueError` for the points of small order, whose multiples everybody knows."""
    try:
        return sodium.crypto_scalarmult(secret, public)
    except CryptoError:
        raise ValueError("a public key is a point of small order; accepted: one of key_pair") from None


def check_public(public: bytes) -> None:
    """Raise `ValueError` unless these 32 bytes can be a public key.

    >>> check_public(bytes(32))
    Traceback (most recent call last):
    ValueError: a public key is a point of small order; accepted: one of key_pair
    """
    check_secret("public", public)
    times(bytes(SEED), public)


def commitment(seed: bytes) -> bytes:
    """The hash by which a client binds itself to its seed, 32 bytes; the seed, one of $2^{256}$, stays hidden."""
    check_secret("seed", seed)
    return blake2b(seed, digest_size=SEED, person=b"spai-lab seed 1").digest()


def announcement(keys: ClientKeys) -> np.ndarray:
    """What a client announces, uint8 `(3, 32)`: public keys for masks and for shares, hash of its seed."""
    rows = (keys.masks.public, keys.shares.public, commitment(keys.seed))
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), SEED)


# --- shares -----------------------------------------------------------------------------------------------------------


def share_secret(secret: bytes, threshold: int, parties: int) -> np.ndarray:
    """Shamir shares of 32 bytes: of each of 8 words of 4 bytes, modulo $2^{61} - 1$.

    Args:
        secret: 32 bytes.
        threshold: t, from 2 to n.
        parties: n.
    Returns:
        uint64 `(n, 8)`; row u is of client u, its point is u + 1.
    Raises:
        ValueError: names the argument.
    Reference: Shamir 1979, "How to share a secret"; Bonawitz et al. 2017, IACR 2017/281, section 3.1.
    Survey: private AI, cryptography, multi-party computation.

    >>> shares = share_secret(bytes(range(32)), 2, 3)
    >>> recover_secrets([0, 2], shares[[0, 2], None], 2)[0] == bytes(range(32))
    True
    """
    check_secret("secret", secret)
    return shamir_share(np.frombuffer(secret, "<u4").astype(np.uint64), threshold, parties)


def recover_secrets(clients: Sequence[int], shares: np.ndarray, threshold: int) -> list[bytes]:
    """Secrets of 32 bytes, each from the shares of the same clients.

    Args:
        clients: m numbers of clients, at least t.
        shares: uint64 `(m, k, 8)`, in the order of the clients.
        threshold: t.
    Returns:
        k secrets.
    Raises:
        ValueError: names the argument; so do shares that do not fit together, or give what is no word of 4 bytes.
    Reference: Shamir 1979, "How to share a secret"; Bonawitz et al. 2017, IACR 2017/281, section 3.1.
    Survey: private AI, cryptography, multi-party computation.
    """
    words = shamir_reconstruct([client + 1 for client in clients], shares, threshold)
    if words.max() >= 2**32:
        raise ValueError("shares give a word beyond 2^32; accepted: shares of share_secret")
    return [row.astype("<u4").tobytes() for row in words]


def seal_shares(key: bytes, shares: np.ndarray, *, digest: bytes, sender: int, receiver: int) -> bytes:
    r"""Encrypt two shares for their receiver: $r \,\|\, \mathrm{AE}_k(r, (d, u, v), \mathrm{shares})$.

    Args:
        key: k, of `agree`.
        shares: of the seed and of the key of u, for v, uint64 `(2, 8)`.
        digest: d, of the terms.
        sender: u, which is authenticated, as is v: a server that hands them to another is found out.
        receiver: v.
    Returns:
        168 bytes.
    Raises:
        ValueError: names the argument.
    Reference: Bonawitz et al. 2017, IACR 2017/281, section 3.3 and figure 4, round 1; XChaCha20-Poly1305 of libsodium.
    Survey: private AI, cryptography, multi-party computation.

    >>> shares = np.arange(16, dtype=np.uint64).reshape(2, 8)
    >>> sealed = seal_shares(bytes(32), shares, digest=bytes(32), sender=0, receiver=1)
    >>> (unseal_shares(bytes(32), sealed, digest=bytes(32), sender=0, receiver=1) == shares).all()
    np.True_
    >>> unseal_shares(bytes(32), sealed, digest=bytes(32), sender=1, receiver=0) is None
    True
    """
    check_secret("key", key)
    if not isinstance(shares, np.ndarray) or shares.shape != (2, WORDS) or shares.dtype != np.uint64:
        raise ValueError(f"shares is a {type(shares).__name__} that is not shown; accepted: uint64 (2, {WORDS})")
    nonce = secrets.token_bytes(NONCE)
    data = shares.astype("<u8").tobytes()
    return nonce + sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(data, way(digest, sender, receiver), nonce, key)


def unseal_shares(key: bytes, sealed: bytes, *, digest: bytes, sender: int, receiver: int) -> np.ndarray | None:
    """The two shares, uint64 `(2, 8)`, of `seal_shares`; None if they were changed, or are no elements of the field."""
    check_secret("key", key)
    check_secret("sealed", sealed, SEALED)
    head, rest = sealed[:NONCE], sealed[NONCE:]
    try:
        data = sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(rest, way(digest, sender, receiver), head, key)
    except CryptoError:
        return None
    shares = np.frombuffer(data, "<u8").astype(np.uint64).reshape(2, WORDS)
    return shares if shares.max() < FIELD.prime else None


def sealed_shares(
    keys: ClientKeys, boxes: Mapping[int, bytes], terms: Terms, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of a client's seed and key: its own, uint64 `(2, 8)`; the others', sealed, uint8 `(n, 168)`."""
    both = (keys.seed, keys.masks.secret)
    shares = np.stack([share_secret(each, terms.threshold, terms.clients) for each in both], axis=1)
    sealed = np.zeros((terms.clients, SEALED), np.uint8)
    for v, box in boxes.items():
        data = seal_shares(box, shares[v], digest=terms.digest, sender=number, receiver=v)
        sealed[v] = np.frombuffer(data, np.uint8)
    return shares[number], sealed


def way(digest: bytes, sender: int, receiver: int) -> bytes:
    """What is authenticated beside the shares: the terms, and from whom to whom."""
    check_secret("digest", digest)
    numbers = (check_whole(name, n, 0, 2**32 - 1) for name, n in (("sender", sender), ("receiver", receiver)))
    return digest + b"".join(number.to_bytes(4, "little") for number in numbers)


def check_client(number: int, terms: Terms) -> int:
    """The number of a client, from 0 to n - 1, or `ValueError`."""
    check_terms(terms)
    return check_whole("number", number, 0, terms.clients - 1)
