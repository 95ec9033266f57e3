"""Exact ring-LWE: messages against whole numbers of Python, noise against its bound, and what a result may not tell."""

import itertools
import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from spai_lab.crypto import rlwe, rlwe_flooding
from spai_lab.crypto.ckks_context import SECURE_BITS
from spai_lab.crypto.ntt import forward, inverse
from spai_lab.crypto.rlwe import (
    Ciphertext,
    add,
    add_plain,
    decrypt,
    decrypt_at,
    encrypt,
    multiply_plain,
    plain,
    rounded,
    scaled,
    secret_key,
    trimmed,
)
from spai_lab.crypto.rlwe_flooding import check_hidden, flood, public_key
from spai_lab.crypto.rlwe_scheme import CHAINS, HIDING, NoiseTooLarge, rlwe_scheme
from spai_lab.crypto.rns import column, from_residues, to_residues
from tests.crypto.leaks import secrets_in

ALPHA = 1e-6
SECRET = secret_key(rlwe_scheme(20))
SCHEME, PUBLIC = SECRET.scheme, public_key(SECRET)
N, T, Q = SCHEME.degree, SCHEME.ring.modulus, SCHEME.q
WIDE = 12  # bytes between two coefficients of a polynomial that is one long number


def exact_product(a, b):
    """a b modulo X^N + 1, by Python: both as one long number each, at X = 2^96; b may be negative."""
    half, size = 2 ** (8 * WIDE - 1), len(a)
    spell = lambda values: b"".join((int(value) + half).to_bytes(WIDE, "little") for value in values)  # noqa: E731
    number = lambda values, size: int.from_bytes(spell(values), "little") - halves(size)  # noqa: E731
    halves = lambda size: int.from_bytes(half.to_bytes(WIDE, "little") * size, "little")  # noqa: E731
    digits = (number(a, size) * number(b, size) + halves(2 * size)).to_bytes(2 * size * WIDE, "little")
    starts = range(0, len(digits), WIDE)
    c = [int.from_bytes(digits[start : start + WIDE], "little") - half for start in starts]
    return np.array([low - high for low, high in zip(c[:size], c[size:], strict=True)], dtype=object)


def weights(random, largest, size=N):
    return random.integers(-largest, largest + 1, size)


def phase_of(secret, c):
    """$c_0 + c_1 s$, as Python's integers around 0."""
    values = (c.parts[0] + c.parts[1] * secret.s) % column(c.scheme.primes)
    return from_residues(inverse(values, c.scheme.primes), c.scheme.primes)


def noise_of(secret, c, m):
    """$2 t v$ with $v = c_0 + c_1 s - q m / t$ modulo q, around 0: twice t times, so that it is whole."""
    t, q = c.scheme.ring.modulus, c.scheme.q
    twice = 2 * (t * phase_of(secret, c) - q * m.astype(object)) % (2 * t * q)
    return np.where(twice > t * q, twice - 2 * t * q, twice)


def largest_noise(secret, c, m):
    return Fraction(int(np.abs(noise_of(secret, c, m)).max()), 2 * c.scheme.ring.modulus)


# --- exact ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", CHAINS)
@pytest.mark.parametrize("bits", [1, 20, 30, 60])
def test_messages_come_back(degree, bits):
    secret = secret_key(rlwe_scheme(bits, degree=degree))
    m = secret.scheme.ring.draw((degree,))
    np.testing.assert_array_equal(decrypt(secret, encrypt(secret, m)), m)


def test_a_product_sums_and_a_flood_are_those_of_pythons_integers():
    random = np.random.default_rng(0)
    m, other, r = SCHEME.ring.draw((3, N))
    w, v = weights(random, 100), weights(random, 100)
    c = add(
        multiply_plain(encrypt(SECRET, m), plain(SCHEME, w)), multiply_plain(encrypt(SECRET, other), plain(SCHEME, v))
    )
    c = flood(PUBLIC, add_plain(c, r))
    expected = (exact_product(m, w) + exact_product(other, v) + r.astype(object)) % T
    np.testing.assert_array_equal(decrypt(SECRET, c).astype(object), expected)
    places = np.array([5, 0, N - 1])
    c0, c1 = trimmed(c, places)
    assert c0.dtype == c1.dtype == np.uint32 and c0.shape == (4, 3)
    np.testing.assert_array_equal(decrypt_at(SECRET, c0, c1.astype(np.int64), places).astype(object), expected[places])


@given(st.data())
def test_toys_of_all_kinds_against_the_same(data):
    scheme = rlwe_scheme(data.draw(st.integers(1, 40)), degree=data.draw(st.sampled_from([8, 16, 64])), insecure=True)
    secret, size = secret_key(scheme), scheme.degree
    m = np.array(data.draw(st.lists(st.integers(0, scheme.ring.modulus - 1), min_size=size, max_size=size)), np.uint64)
    w = np.array(data.draw(st.lists(st.integers(-(2**20), 2**20), min_size=size, max_size=size)), np.int64)
    found = decrypt(secret, multiply_plain(encrypt(secret, m), plain(scheme, w)))
    np.testing.assert_array_equal(found.astype(object), exact_product(m, w) % scheme.ring.modulus)


@pytest.mark.parametrize("bits", [1, 2, 24, 60])
def test_scaling_and_rounding_are_those_of_fractions(bits):
    scheme = rlwe_scheme(bits)
    t, q = scheme.ring.modulus, scheme.q
    m = np.array([0, 1 % t, t // 2, t - 1, *scheme.ring.draw((20,))], np.uint64)
    x = from_residues(scaled(scheme, m), scheme.primes)
    half = lambda value: math.floor(value + Fraction(1, 2))  # noqa: E731
    assert [int(v) % q for v in x] == [half(Fraction(q * int(k), t)) % q for k in m]
    for beyond in (-1, 0, 1):  # the last number that rounds to m, and the next
        edge = [math.floor(Fraction(q * (2 * int(k) + 1), 2 * t)) + beyond for k in m]
        found = rounded(scheme, to_residues(np.array([e % q for e in edge], object), scheme.primes))
        assert found.tolist() == [half(Fraction(t * e, q)) % t for e in edge]
        assert (found == m).all() == (beyond < 1)


# --- noise ------------------------------------------------------------------------------------------------------------


def program(secret, m, r, w):
    """A ciphertext and its message after all that a linear layer does."""
    c = multiply_plain(add_plain(encrypt(secret, m), r), plain(secret.scheme, w))
    return add(c, c), 2 * exact_product((m + r) % np.uint64(secret.scheme.ring.modulus), w) % secret.scheme.ring.modulus


def worst(monkeypatch, sign=1):
    """Draws whose noise is as large as it can be, everywhere."""
    monkeypatch.setattr(rlwe, "noise", lambda shape: np.full(shape, sign * rlwe.TAILS))


@pytest.mark.parametrize("bits", [8, 24, 40])
def test_noise_stays_within_its_bound_and_reaches_nearly_all_of_it(bits, monkeypatch):
    scheme = rlwe_scheme(bits, degree=64, insecure=True)
    secret = secret_key(scheme)
    worst(monkeypatch)
    m, r = scheme.ring.draw((2, 64))
    c, message = program(secret, m, r, np.full(64, 1000))  # all of one sign: the last coefficient adds all up
    assert 0.85 * c.bound < largest_noise(secret, c, message) <= c.bound
    for _ in range(20):
        c, message = program(secret, *scheme.ring.draw((2, 64)), weights(np.random.default_rng(bits), 2**20, 64))
        assert largest_noise(secret, c, message) <= c.bound


def test_a_rest_of_q_by_t_that_nobody_counts_is_found(monkeypatch):
    """Planted: $\\lfloor q / t \\rfloor m$ in the place of $\\lfloor q m / t \\rceil$."""
    scheme = rlwe_scheme(24, degree=64, insecure=True)
    secret, m, r = secret_key(scheme), *scheme.ring.draw((2, 64))
    floor = scheme.q // scheme.ring.modulus
    assert scheme.q % scheme.ring.modulus > 2**20
    monkeypatch.setattr(rlwe, "scaled", lambda s, m: to_residues(m.astype(object) * floor, s.primes))
    c, message = program(secret, m, r, np.full(64, 1000))
    assert largest_noise(secret, c, message) > 100 * c.bound


def test_decryption_is_refused_just_beyond_the_room():
    c = encrypt(SECRET, SCHEME.ring.draw((N,)))
    decrypt(SECRET, Ciphertext(SCHEME, c.parts, SCHEME.room))
    with pytest.raises(NoiseTooLarge, match=r"c has noise up to .*; accepted: up to q / 2 t"):
        decrypt(SECRET, Ciphertext(SCHEME, c.parts, SCHEME.room + 1))


def test_noise_within_the_room_is_always_rounded_away():
    m = SCHEME.ring.draw((N,))
    for sign in (1, -1):
        x = from_residues(scaled(SCHEME, m), SCHEME.primes) + sign * (SCHEME.room - 1)  # 1/2 is off already
        parts = np.stack([forward(to_residues(x, SCHEME.primes), SCHEME.primes), np.zeros((4, N), np.int64)])
        np.testing.assert_array_equal(decrypt(SECRET, Ciphertext(SCHEME, parts, SCHEME.room)), m)


@pytest.mark.parametrize("bits", range(1, 41))
def test_a_flood_fits_the_room_and_hides_what_it_says(bits):
    for degree in CHAINS:
        scheme = rlwe_scheme(bits, degree=degree)
        k = scheme.flood_bits
        hidden = 2**k // (degree << HIDING) - 2 * degree * rlwe.TAILS  # the largest bound that is
        assert 2**k <= scheme.room < 2 ** (k + 1)
        if hidden > 0:
            check_hidden(scheme, hidden)
            assert scheme.flooded <= scheme.room
            assert Fraction(degree * (hidden + 2 * degree * rlwe.TAILS), 2**k) <= Fraction(1, 2**40)
        with pytest.raises(NoiseTooLarge, match="does not hide"):
            check_hidden(scheme, max(hidden, 0) + 1)


def test_parameters_keep_to_the_standards_table():
    for degree, sizes in CHAINS.items():
        scheme = rlwe_scheme(30, degree=degree)
        assert scheme.secure and scheme.q.bit_length() <= SECURE_BITS[degree] and len(scheme.primes) == len(sizes)
        assert all(prime % (2 * degree) == 1 for prime in scheme.primes) and len(set(scheme.primes)) == len(sizes)
    assert not rlwe_scheme(30, degree=2048, insecure=True).secure


# --- what a result tells ----------------------------------------------------------------------------------------------


def bins(values, span, count=64):
    """The p-value of whole numbers from 0 to span - 1 being uniform: chi-square on equal parts."""
    found = np.bincount([int(value) * count // span for value in values], minlength=count)
    return stats.chisquare(found).pvalue


def flooded_noise(w, m=None):
    """The noise of a flooded product, moved to 0 to $2^k - 1$ where a flood alone would be."""
    m = SCHEME.ring.draw((N,)) if m is None else m
    c = flood(PUBLIC, multiply_plain(encrypt(SECRET, m), plain(SCHEME, w)))
    message = decrypt(SECRET, c)
    twice = noise_of(SECRET, c, message)
    assert np.abs(twice).max() <= 2 * T * SCHEME.flooded
    return [min(max(int(v) // (2 * T) + 2 ** (SCHEME.flood_bits - 1), 0), 2**SCHEME.flood_bits - 1) for v in twice]


BOTH_WEIGHTS = {"none": np.zeros(N, np.int64), "large": np.full(N, 250)}


@pytest.mark.parametrize("w", BOTH_WEIGHTS.values(), ids=BOTH_WEIGHTS)
def test_noise_after_a_flood_is_uniform_whatever_the_weights(w):
    """Of the highest 6 bits and of the lowest 6, each with a false-alarm rate of 1e-6."""
    found = flooded_noise(w)
    assert bins(found, 2**SCHEME.flood_bits) > ALPHA
    assert bins([value % 64 for value in found], 64) > ALPHA


@pytest.mark.parametrize("bits_less", [3, 83])
def test_a_flood_that_is_too_small_is_found(bits_less, monkeypatch):
    """Planted: no flood at all, or one of an eighth."""
    honest = rlwe_flooding.uniform_noise
    small = lambda scheme: (  # noqa: E731
        to_residues(from_residues(honest(scheme), scheme.primes) >> bits_less, scheme.primes)
    )
    monkeypatch.setattr(rlwe_flooding, "uniform_noise", small)
    assert bins(flooded_noise(BOTH_WEIGHTS["large"]), 2**SCHEME.flood_bits) < ALPHA


def divided(c, old):
    """$c_1$ divided by the one that the client sent: the weights, if they are all that it was multiplied by."""
    primes = c.scheme.primes[:1]
    inverses = np.array([pow(int(value), -1, primes[0]) if value else 0 for value in old.parts[1, 0]])
    return inverse(c.parts[1, :1] * inverses[None] % primes[0], primes)[0]


def test_the_client_cannot_divide_the_weights_out(monkeypatch):
    """After a flood the quotient is uniform, false alarm 1e-6; planted, without the encryption of 0, it is w."""
    w = weights(np.random.default_rng(1), 500)
    c = encrypt(SECRET, SCHEME.ring.draw((N,)))
    product = multiply_plain(c, plain(SCHEME, w))
    assert bins(divided(flood(PUBLIC, product), c), SCHEME.primes[0]) > ALPHA
    monkeypatch.setattr(rlwe_flooding, "ternary", lambda degree: np.zeros((1, degree), np.int64))
    monkeypatch.setattr(rlwe_flooding, "noise", lambda shape: np.zeros(shape, np.int64))
    found = divided(flood(PUBLIC, product), c)
    assert (found == w % SCHEME.primes[0]).mean() > 0.99  # all, unless a value of c1 happens to be 0


def test_floods_are_drawn_from_all_their_values():
    x = from_residues(rlwe_flooding.uniform_noise(SCHEME), SCHEME.primes)
    half = 2 ** (SCHEME.flood_bits - 1)
    assert -half <= x.min() and x.max() < half
    for shift in range(0, SCHEME.flood_bits, 16):  # each 16 bits that are drawn at a time
        width = min(6, SCHEME.flood_bits - shift)
        assert bins([(int(v) + half >> shift) % 2**width for v in x], 2**width, 2**width) > ALPHA


def test_ciphertexts_of_a_message_differ_and_hold_no_secret():
    m = np.zeros(N, np.uint64)
    c, d = encrypt(SECRET, m), encrypt(SECRET, m)
    assert not (c.parts == d.parts).all(axis=(1, 2)).any()
    seen = b"".join(part.astype(dtype).tobytes() for part in (c.parts, PUBLIC.key) for dtype in ("<i8", "<u4"))
    known = SimpleNamespace(s=SECRET.s, context=SimpleNamespace(primes=SCHEME.primes[:-1], special=SCHEME.primes[-1]))
    assert secrets_in(seen, known) == 0 and secrets_in(SECRET.s.astype("<u4").tobytes(), known) > 0
    assert all(bins(row, p) > ALPHA for part in c.parts for row, p in zip(part, SCHEME.primes, strict=True))
    assert "array" not in repr(SECRET)
    with pytest.raises(ValueError, match="read-only"):
        SECRET.s[0, 0] = 1


def test_keys_differ():
    keys = [secret_key(SCHEME).s.tobytes() for _ in range(3)]
    assert all(one != other for one, other in itertools.combinations(keys, 2))


# --- arguments --------------------------------------------------------------------------------------------------------


def test_arguments_are_refused(refuses):
    m, c = np.zeros(N, np.uint64), encrypt(SECRET, np.zeros(N, np.uint64))
    refuses(rlwe_scheme, {"bits": 0}, "bits is 0; accepted: a whole number from 1 to 60")
    refuses(rlwe_scheme, {"bits": 24, "degree": 2048}, "degree is 2048; accepted: 4,096 or 8,192")
    refuses(rlwe_scheme, {"bits": 24, "degree": 16384, "insecure": True}, "degree is 16384")
    refuses(rlwe_scheme, {"bits": 24, "degree": 100, "insecure": True}, "degree is 100; accepted: a power of two")
    refuses(rlwe_scheme, {"bits": 24, "insecure": 1}, "insecure is 1")
    refuses(secret_key, {"scheme": 5}, "scheme is a int; accepted: a Scheme")
    refuses(public_key, {"secret": PUBLIC}, "secret is a PublicKey")
    refuses(encrypt, {"secret": SECRET, "m": m.astype(int)}, "m is int64")
    refuses(encrypt, {"secret": SECRET, "m": m[1:]}, "m is uint64 of shape (4095,)")
    refuses(encrypt, {"secret": SECRET, "m": m + np.uint64(T)}, "m has 1048576; accepted: elements from 0 to 1048575")
    refuses(encrypt, {"secret": 1, "m": m}, "secret is a int")
    other = secret_key(rlwe_scheme(21))
    refuses(decrypt, {"secret": other, "c": c}, "c belongs to another scheme")
    refuses(add, {"c": c, "d": encrypt(other, m)}, "d belongs to another scheme")
    refuses(add, {"c": c, "d": m}, "d is a ndarray")
    refuses(add_plain, {"c": m, "m": m}, "c is a ndarray")
    refuses(plain, {"scheme": SCHEME, "w": m}, "w is uint64 (4096,); accepted: int64 (4096,)")
    refuses(plain, {"scheme": SCHEME, "w": np.full(N, 2**26 + 1)}, "w is int64 (4096,); accepted", "2^26")
    refuses(multiply_plain, {"c": c, "w": m}, "w is a ndarray; accepted: a Plain")
    refuses(flood, {"public": SECRET, "c": c}, "public is a SecretKey")
    refuses(flood, {"public": PUBLIC, "c": Ciphertext(SCHEME, c.parts, SCHEME.room)}, "does not hide to 2^-40")
