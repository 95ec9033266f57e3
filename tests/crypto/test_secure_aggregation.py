"""The mathematics of secure aggregation against NumPy's sums, RFC 7748, and a library that somebody else wrote."""

import secrets
import struct
from hashlib import blake2b
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings as sodium
from scipy import stats

from spai_lab.crypto.secret_sharing_ring import Ring, to_ring
from spai_lab.crypto.secret_sharing_shamir import PRIME
from spai_lab.crypto.secure_aggregation import Terms, check_input, expand, mask_input, pairwise_mask, unmask
from spai_lab.crypto.secure_aggregation_keys import (
    KeyPair,
    agree,
    check_public,
    client_keys,
    commitment,
    key_pair,
    recover_secrets,
    seal_shares,
    share_secret,
    times,
    unseal_shares,
)

ALPHA = 1e-6
DIGEST = bytes(range(32))


# --- sums -------------------------------------------------------------------------------------------------------------


def pair_seeds(n):
    """A seed for each pair of clients, as each of both looks it up."""
    drawn = {frozenset(pair): secrets.token_bytes(32) for pair in combinations(range(n), 2)}
    return lambda u, others: {v: drawn[frozenset((u, v))] for v in others if v != u}


@given(st.data(), st.integers(2, 7), st.integers(1, 20), st.sampled_from([1, 3, 32, 63, 64]))
def test_what_is_left_of_all_masks_is_numpys_sum(data, n, size, bits):
    ring, seeds, pairs = Ring(bits), [secrets.token_bytes(32) for _ in range(n)], pair_seeds(n)
    x = [ring.draw((size,)) for _ in range(n)]
    shared = data.draw(st.sets(st.integers(0, n - 1), min_size=1))  # who has agreed on masks
    stay = data.draw(st.sets(st.sampled_from(sorted(shared)), min_size=1))
    masked = {u: mask_input(x[u], u, seeds[u], pairs(u, shared), ring=ring) for u in stay}
    lost = {v: pairs(v, stay) for v in shared - stay}
    total = unmask(masked, {u: seeds[u] for u in stay}, lost, ring=ring)
    assert (total == np.sum([x[u].astype(object) for u in stay], axis=0) % 2**bits).all()


def test_masks_of_a_pair_cancel_and_are_those_of_their_order():
    seed = secrets.token_bytes(32)
    for u, v in ((0, 1), (5, 2)):
        one, other = pairwise_mask(u, v, seed, 9), pairwise_mask(v, u, seed, 9)
        assert (one + other == 0).all() and ((one if u < v else other) == expand(seed, 9)).all()


def test_a_mask_that_is_left_on_is_seen():
    x, seeds, pairs = [to_ring([1]), to_ring([2])], [bytes(32), bytes([1]) * 32], pair_seeds(2)
    masked = {u: mask_input(x[u], u, seeds[u], pairs(u, (0, 1))) for u in (0, 1)}
    assert unmask(masked, dict(enumerate(seeds)), {}).tolist() == [3]
    assert unmask({0: masked[0]}, {0: seeds[0]}, {}).tolist() != [1]
    assert unmask({0: masked[0]}, {0: seeds[0]}, {1: pairs(1, [0])}).tolist() == [1]


# --- the generator ----------------------------------------------------------------------------------------------------


@pytest.mark.oracle
def test_masks_are_the_first_bytes_of_shake_256():
    hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes")
    for size in (1, 1000):
        seed = secrets.token_bytes(32)
        theirs = hashes.Hash(hashes.SHAKE256(8 * size))
        theirs.update(seed)
        words = np.frombuffer(theirs.finalize(), "<u8")
        assert (expand(seed, size) == words).all()
        assert (expand(seed, size, ring=Ring(5)) == words % 32).all()


@pytest.mark.parametrize("x", [0, 2**64 - 1])
def test_what_one_client_sends_is_uniform_whatever_it_hides(x):
    """Chi-square of 2^16 bytes at each of 8 places; false alarms at 1e-6 each. A constant mask is found."""
    vector = np.full(2**16, x, np.uint64)
    seen = mask_input(vector, 1, secrets.token_bytes(32), {0: secrets.token_bytes(32), 2: secrets.token_bytes(32)})
    for column in seen.view(np.uint8).reshape(-1, 8).T:
        assert stats.chisquare(np.bincount(column, minlength=256)).pvalue >= ALPHA
    planted = (vector + expand(bytes(32), 1)).view(np.uint8)
    assert stats.chisquare(np.bincount(planted, minlength=256)).pvalue < ALPHA


# --- keys -------------------------------------------------------------------------------------------------------------


A, PUBLIC_A = (
    bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"),
    bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"),
)
B, PUBLIC_B = (
    bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"),
    bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"),
)
SHARED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")


def test_the_vectors_of_rfc_7748():
    """Section 6.1."""
    for own, public, other in ((A, PUBLIC_A, PUBLIC_B), (B, PUBLIC_B, PUBLIC_A)):
        assert sodium.crypto_scalarmult_base(own) == public and times(own, other) == SHARED
    seed = blake2b(DIGEST + PUBLIC_A + PUBLIC_B + SHARED, digest_size=32, person=b"spai-lab mask 1").digest()
    assert agree(KeyPair(A, PUBLIC_A), PUBLIC_B, DIGEST, "mask") == seed
    assert agree(KeyPair(B, PUBLIC_B), PUBLIC_A, DIGEST, "mask") == seed


@pytest.mark.oracle
def test_keys_agree_with_those_of_another_library():
    x25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.x25519")
    for _ in range(50):
        own, other = key_pair(), key_pair()
        theirs = x25519.X25519PrivateKey.from_private_bytes(own.secret)
        assert theirs.public_key().public_bytes_raw() == own.public
        shared = theirs.exchange(x25519.X25519PublicKey.from_public_bytes(other.public))
        assert shared == times(own.secret, other.public) == times(other.secret, own.public)


def test_a_seed_belongs_to_one_pair_one_purpose_and_one_round():
    a, b, c = key_pair(), key_pair(), key_pair()
    digests = [Terms(3, 2, 5, round=round).digest for round in (0, 1)]
    made = {
        agree(own, other.public, digest, purpose)
        for own, other in ((a, b), (a, c), (b, c))
        for digest in digests
        for purpose in ("mask", "shares")
    }
    assert len(made) == 12


def test_terms_differ_in_their_digest_wherever_they_differ():
    terms = [Terms(4, 3, 5), Terms(5, 3, 5), Terms(4, 4, 5), Terms(4, 3, 6), Terms(4, 3, 5, largest=7)]
    terms += [Terms(4, 3, 5, round=1), Terms(4, 3, 5, ring=Ring(63))]
    assert len({each.digest for each in terms}) == len(terms)
    assert Terms(4, 3, 5).digest == Terms(4, 3, 5, largest=(2**63 - 1) // 4).digest


# On the curve or its twist: 0, 1, -1 and both points of order 8, from RFC 7748's remark and its papers.
SMALL = [0, 1, 2**255 - 20, 325606250916557431795983626356110631294008115727848805560023387167927233504,
         39382357235489614581723060781553021112529911719440698176882885853963445705823]  # fmt: skip


@pytest.mark.parametrize("point", SMALL)
def test_points_of_small_order_are_refused(point, refuses):
    public = point.to_bytes(32, "little")
    refuses(check_public, {"public": public}, "small order")
    refuses(agree, {"own": key_pair(), "other": public, "digest": DIGEST, "purpose": "mask"}, "small order")


def test_secrets_are_not_shown_and_never_the_same():
    keys = client_keys()
    held = (keys.seed, keys.masks.secret, keys.shares.secret)
    assert not any(repr(secret) in repr(keys) for secret in held)
    assert len({*held, client_keys().seed, keys.masks.public, keys.shares.public}) == 6
    assert len(commitment(keys.seed)) == 32 and commitment(keys.seed) != commitment(client_keys().seed)


# --- shares -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "threshold"), [(2, 2), (3, 2), (5, 3), (5, 5)])
def test_any_t_clients_have_the_secret_and_fewer_do_not(n, threshold):
    secret = secrets.token_bytes(32)
    shares = share_secret(secret, threshold, n)
    for size in range(2, n + 1):
        for chosen in combinations(range(n), size):
            if size >= threshold:
                assert recover_secrets(chosen, shares[list(chosen), None], threshold) == [secret]
            else:
                with pytest.raises(ValueError, match="at least"):
                    recover_secrets(chosen, shares[list(chosen), None], threshold)


def test_extreme_secrets_and_several_at_once():
    both = [b"\xff" * 32, bytes(32)]
    shares = np.stack([share_secret(secret, 3, 4) for secret in both], axis=1)
    assert recover_secrets([3, 1, 0], shares[[3, 1, 0]], 3) == both


def test_a_share_that_is_not_one_gives_words_that_are_none(refuses):
    """8 words below 2^32 by chance: 2^-232."""
    shares = share_secret(secrets.token_bytes(32), 2, 2)
    shares[1] = share_secret(secrets.token_bytes(32), 2, 2)[1]
    refuses(recover_secrets, {"clients": [0, 1], "shares": shares[:, None], "threshold": 2}, "a word beyond 2^32")


def test_sealed_shares_open_only_as_they_were_sealed():
    key, shares = secrets.token_bytes(32), np.stack([share_secret(bytes(32), 2, 2)[0]] * 2)
    way = {"digest": DIGEST, "sender": 3, "receiver": 1}
    sealed = seal_shares(key, shares, **way)
    assert len(sealed) == 168 and (unseal_shares(key, sealed, **way) == shares).all()
    assert sealed != seal_shares(key, shares, **way)
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        assert unseal_shares(key, bytes(changed), **way) is None
    for other in ({"sender": 1, "receiver": 3}, {"receiver": 2}, {"sender": 2}, {"digest": bytes(32)}):
        assert unseal_shares(key, sealed, **way | other) is None
    assert unseal_shares(bytes(32), sealed, **way) is None


@pytest.mark.oracle
def test_sealed_shares_are_xchacha20_poly1305():
    """By ChaCha20-Poly1305 of another library, with the subkey that XChaCha20 takes."""
    aead = pytest.importorskip("cryptography.hazmat.primitives.ciphers.aead")
    key, shares = secrets.token_bytes(32), np.arange(16, dtype=np.uint64).reshape(2, 8)
    sealed = seal_shares(key, shares, digest=DIGEST, sender=3, receiver=1)
    nonce, rest = sealed[:24], sealed[24:]
    opened = aead.ChaCha20Poly1305(hchacha20(key, nonce[:16])).decrypt(
        bytes(4) + nonce[16:], rest, DIGEST + (3).to_bytes(4, "little") + (1).to_bytes(4, "little")
    )
    assert opened == shares.astype("<u8").tobytes()


def hchacha20(key, nonce):
    """The subkey of XChaCha20, from draft-irtf-cfrg-xchacha, section 2.2."""
    state = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key), *struct.unpack("<4I", nonce)]

    def quarter(a, b, c, d):
        for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) % 2**32
            state[z] ^= state[x]
            state[z] = (state[z] << turn | state[z] >> 32 - turn) % 2**32

    for _ in range(10):
        for i in range(4):
            quarter(i, i + 4, i + 8, i + 12)
        for i in range(4):
            quarter(i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12)
    return struct.pack("<8I", *state[:4], *state[12:])


def test_shares_beyond_the_field_are_none():
    beyond = np.full((2, 8), PRIME, np.uint64)
    way = {"digest": DIGEST, "sender": 0, "receiver": 1}
    assert unseal_shares(bytes(32), seal_shares(bytes(32), beyond, **way), **way) is None
    assert unseal_shares(bytes(32), seal_shares(bytes(32), beyond - np.uint64(1), **way), **way) is not None


# --- bounds and arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [3, 8, 63, 64])
@pytest.mark.parametrize("n", [2, 3, 7])
def test_sums_of_the_largest_inputs_do_not_wrap_around_and_larger_ones_are_refused(n, bits, refuses):
    ring = Ring(bits)
    terms = Terms(n, n, 2, ring=ring)
    assert n * terms.largest < 2 ** (bits - 1) <= n * (terms.largest + 1)
    for sign in (1, -1):
        check_input(to_ring([sign * terms.largest] * 2, ring), terms)
        if terms.largest + 1 < 2 ** (bits - 1):
            refuses(check_input, {"x": to_ring([0, sign * (terms.largest + 1)], ring), "terms": terms}, "x has", "wrap")
    refuses(Terms, {"clients": n, "threshold": n, "size": 2, "largest": terms.largest + 1, "ring": ring}, "largest is")


@pytest.mark.parametrize("n", range(2, 9))
def test_a_threshold_is_more_than_half(n, refuses):
    for threshold in range(-1, n + 3):
        if 2 * threshold > n and threshold <= n:
            assert Terms(n, threshold, 1).threshold == threshold
        else:
            refuses(Terms, {"clients": n, "threshold": threshold, "size": 1}, "threshold is")


SEEDS = {0: bytes(32)}
X = np.zeros(3, np.uint64)


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (Terms, {"clients": 1, "threshold": 1, "size": 1}, ("clients is 1", "2 to 1000")),
        (Terms, {"clients": 3.0, "threshold": 2, "size": 1}, ("clients is 3.0",)),
        (Terms, {"clients": 3, "threshold": True, "size": 1}, ("threshold is True",)),
        (Terms, {"clients": 3, "threshold": 2, "size": 0}, ("size is 0",)),
        (Terms, {"clients": 3, "threshold": 2, "size": 1, "largest": -1}, ("largest is -1",)),
        (Terms, {"clients": 3, "threshold": 2, "size": 1, "largest": 0.5}, ("largest is 0.5",)),
        (Terms, {"clients": 3, "threshold": 2, "size": 1, "round": -1}, ("round is -1",)),
        (Terms, {"clients": 3, "threshold": 2, "size": 1, "ring": 64}, ("ring is 64",)),
        (expand, {"seed": b"short", "size": 1}, ("seed is a bytes that is not shown", "32 bytes")),
        (expand, {"seed": bytes(32), "size": 0}, ("size is 0",)),
        (expand, {"seed": bytes(32), "size": 1, "ring": None}, ("ring is None",)),
        (mask_input, {"x": [1], "number": 0, "seed": bytes(32), "pair_seeds": {}}, ("x is [1]",)),
        (mask_input, {"x": X[None], "number": 0, "seed": bytes(32), "pair_seeds": {}}, ("a vector",)),
        (mask_input, {"x": X, "number": 0, "seed": 5, "pair_seeds": {}}, ("seed is a int that is not shown",)),
        (mask_input, {"x": X, "number": 0, "seed": bytes(32), "pair_seeds": {1: b""}}, ("seed is a bytes",)),
        (unmask, {"masked": {}, "seeds": {}, "lost": {}}, ("at least one",)),
        (unmask, {"masked": {0: X}, "seeds": {1: bytes(32)}, "lost": {}}, ("other clients",)),
        (unmask, {"masked": {0: X}, "seeds": SEEDS, "lost": {2: {}}}, ("other clients",)),
        (unmask, {"masked": {0: X, 1: X[:2]}, "seeds": {**SEEDS, 1: bytes(32)}, "lost": {}}, ("masked is", "(3,)")),
        (check_input, {"x": X, "terms": Terms(2, 2, 4)}, ("x is", "(4,)")),
        (agree, {"own": key_pair(), "other": b"", "digest": DIGEST, "purpose": "mask"}, ("other is",)),
        (agree, {"own": key_pair(), "other": PUBLIC_A, "digest": b"", "purpose": "mask"}, ("digest is",)),
        (agree, {"own": key_pair(), "other": PUBLIC_A, "digest": DIGEST, "purpose": "all"}, ("purpose is 'all'",)),
        (check_public, {"public": "key"}, ("public is a str that is not shown",)),
        (commitment, {"seed": b""}, ("seed is",)),
        (share_secret, {"secret": b"", "threshold": 2, "parties": 3}, ("secret is",)),
        (share_secret, {"secret": bytes(32), "threshold": 4, "parties": 3}, ("threshold is 4",)),
        (seal_shares, {"key": b"", "shares": X, "digest": DIGEST, "sender": 0, "receiver": 1}, ("key is",)),
        (seal_shares, {"key": bytes(32), "shares": X, "digest": DIGEST, "sender": 0, "receiver": 1}, ("shares is",)),
        (
            unseal_shares,
            {"key": bytes(32), "sealed": b"", "digest": DIGEST, "sender": 0, "receiver": 1},
            ("168 bytes",),
        ),
        (
            unseal_shares,
            {"key": bytes(32), "sealed": bytes(168), "digest": DIGEST, "sender": -1, "receiver": 1},
            ("sender is -1",),
        ),
    ],
)
def test_bad_arguments_are_named(refuses, function, arguments, words):
    refuses(function, arguments, *words)
