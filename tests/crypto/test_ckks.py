"""Each operation against plain vectors within its computed bound, which is not idle; faults break it; TenSEAL agrees.

A bound fails with probability 1e-9 for each operation. All tests of this file together make about a thousand, so that
they raise a false alarm with probability 1e-6. A bound is not idle if what is observed reaches a thousandth of it.
"""

import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special, stats

from spai_lab.crypto import ckks, ckks_encoding, ckks_keys, ckks_rotations
from spai_lab.crypto.ckks import (
    add,
    add_plain,
    assume_limit,
    ckks_context,
    conjugate,
    decode,
    decrypt,
    encode,
    encrypt,
    lower,
    multiply,
    multiply_plain,
    negate,
    public_key,
    relinearization_key,
    relinearize,
    rescale,
    rotate,
    rotate_many,
    rotate_sum,
    rotation_keys,
    secret_key,
    subtract,
)
from spai_lab.crypto.ckks_context import SECURE_BITS
from spai_lab.crypto.ckks_encoding import embed, embed_inverse
from spai_lab.crypto.ckks_keys import decompose, noise, ternary, uniform
from spai_lab.crypto.ckks_noise import FAILURE, ROUNDING, SIGMA, TERNARY, encoding_error, precision, slot_bound
from spai_lab.crypto.ntt import inverse

ALPHA = 1e-6
STEPS = (1, 2, 5, -3)


class Client:
    """A context with all its keys."""

    def __init__(self, degree, bits, **settings):
        self.context = ckks_context(degree, bits, **settings)
        self.secret = secret_key(self.context)
        self.public = public_key(self.secret)
        self.relinearization = relinearization_key(self.secret)
        self.rotations = rotation_keys(self.secret, STEPS, conjugate=True)

    def encrypted(self, values, **settings):
        return encrypt(self.public, encode(self.context, values, **settings))

    def decrypted(self, x):
        return decode(decrypt(self.secret, x))

    def product(self, x, y):
        return rescale(relinearize(multiply(x, y), self.relinearization))

    def ratio(self, x, true):
        """The largest error of all slots, as a share of the bound."""
        return (np.abs(self.decrypted(x) - true) / decrypt(self.secret, x).error).max()


@pytest.fixture(scope="module")
def toy():
    return Client(1024, (30, 28, 28, 28), insecure=True)


@pytest.fixture(scope="module")
def client():
    return Client(8192, (30, 28, 28, 28))


def values(context, seed=0, imaginary=0.5):
    random = np.random.default_rng(seed)
    return random.uniform(-0.8, 0.8, context.slots) + 1j * imaginary * random.uniform(-1, 1, context.slots)


# --- parameters and encoding ------------------------------------------------------------------------------------------


def test_the_security_table_is_that_of_the_standard_and_is_kept():
    assert SECURE_BITS == {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438}
    assert ckks_context(8192, (30, 30, 30, 30, 30, 30)).total_bits == 210
    for degree, bits, total in [
        (8192, (30,) * 7, 240),
        (4096, (30, 30, 21), 111),
        (2048, (30,), 60),
        (1024, (14,), 44),
    ]:
        with pytest.raises(ValueError, match=f"is {total} in all; accepted: at most {SECURE_BITS[degree]} for"):
            ckks_context(degree, bits)
        assert not ckks_context(degree, bits, insecure=True).secure
    with pytest.raises(ValueError, match=r"degree is 512; accepted: 1,024, .* a toy with insecure=True"):
        ckks_context(512, (20,))
    assert "INSECURE, a toy" in str(ckks_context(512, (20,), insecure=True))
    assert ckks_context(8192, (30, 28), insecure=True).secure


@pytest.mark.oracle
def test_seal_keeps_the_same_table():
    tenseal = pytest.importorskip("tenseal", reason="tenseal, which compares our CKKS with SEAL, is not installed")
    make = lambda n, bits: tenseal.context(tenseal.SCHEME_TYPE.CKKS, n, coeff_mod_bit_sizes=bits)  # noqa: E731
    for degree, limit in SECURE_BITS.items():
        if limit < 40:
            continue
        count = -(-limit // 50)
        bits = [limit // count + (i < limit % count) for i in range(count)]
        make(degree, bits)
        with pytest.raises(ValueError, match="not set correctly"):
            make(degree, [bits[0] + 1, *bits[1:]])


@pytest.mark.parametrize("degree", [8, 64, 8192])
def test_the_embedding_is_evaluation_at_the_roots(degree):
    z = values(ckks_context(degree, (30,), insecure=True))
    m = embed_inverse(z)
    assert m.dtype == np.float64
    assert np.abs(embed(m) - z).max() < 1e-12
    for j in [0, 1, degree // 2 - 1]:
        root = np.exp(1j * np.pi * (pow(5, j, 2 * degree) / degree))
        assert abs(np.polynomial.polynomial.polyval(root, m) - z[j]) < 1e-9


@pytest.mark.parametrize("scale", [2.0**20, 2.0**28, 2.0**50])
def test_encoding_stays_within_its_bound(scale):
    context = ckks_context(8192, (30, 28, 28))
    z = values(context)
    plaintext = encode(context, z, scale=scale)
    error = np.abs(decode(plaintext) - z).max()
    assert plaintext.error / 1000 < error < plaintext.error == encoding_error(8192, scale, 1.0)


def test_numbers_lists_and_short_vectors_are_encoded(toy):
    assert np.abs(decode(encode(toy.context, 1.5)) - 1.5).max() < 1e-5
    three = decode(encode(toy.context, [1, -2j, 3]))
    assert np.abs(three - np.pad([1, -2j, 3], (0, 509))).max() < 1e-5
    assert encode(toy.context, [5.0]).limit == 8
    assert encode(toy.context, [0.3], limit=1.0).limit == 1
    assert encode(toy.context, [0.0]).limit == 1
    assert encode(toy.context, 1.0, level=1).level == 1


# --- randomness and bounds --------------------------------------------------------------------------------------------


def test_noise_follows_the_discrete_normal_distribution_and_a_wider_one_is_caught(monkeypatch):
    ends = np.arange(-19, 20)
    expected = np.exp(-(ends**2) / (2 * SIGMA**2))
    inner = np.abs(ends) <= 12  # beyond, fewer than five are expected
    n = 2**18

    def p_value():
        counts = np.array([(drawn == x).sum() for drawn in [noise((n,))] for x in ends])
        shares = expected / expected.sum()
        cells = [*counts[inner], n - counts[inner].sum()], [*(n * shares[inner]), n * (1 - shares[inner].sum())]
        return stats.chisquare(*cells).pvalue

    assert p_value() > ALPHA
    monkeypatch.setattr(ckks_keys, "SIGMA", 3.3)
    assert p_value() < ALPHA


@pytest.mark.parametrize("p", [3, 17, 2**14 - 3])
def test_uniform_draws_are_even(p):
    assert stats.chisquare(np.bincount(uniform(p, 2**18), minlength=p)).pvalue > ALPHA


def test_the_secret_is_ternary_and_no_two_are_the_same(toy):
    s = inverse(toy.secret.s[:1], toy.context.primes[:1])[0]
    counts = np.bincount((s + 1) % toy.context.primes[0], minlength=3)
    assert len(counts) == 3
    assert stats.chisquare(counts).pvalue > ALPHA
    assert (ternary(1024) != ternary(1024)).any()
    other = secret_key(toy.context)
    assert other.fingerprint != toy.secret.fingerprint
    assert (other.s != toy.secret.s).any()


def test_what_the_bound_takes_for_subgaussian_is(monkeypatch):
    lam = np.linspace(0.01, 8, 200)[:, None]
    normal = np.arange(-19, 20)
    weights = np.exp(-(normal**2) / (2 * SIGMA**2))
    ternary_mean = (1 + 2 * np.cosh(lam)) / 3
    digits = np.arange(-50, 51) / 101
    assert (np.log(ternary_mean) <= lam**2 * TERNARY**2 / 2).all()
    assert (np.log(np.exp(lam * digits).mean(1)) <= (lam[:, 0] * ROUNDING) ** 2 / 2).all()
    scaled = lam / SIGMA
    assert (np.log((np.exp(scaled * normal) * weights).sum(1) / weights.sum()) <= (scaled[:, 0] * SIGMA) ** 2 / 2).all()


def test_the_bound_is_above_the_exact_quantile_but_not_far():
    degree = 8192
    share = FAILURE / (degree / 2)
    one = math.sqrt(-degree * math.log(share))  # |z|^2 is exponential of mean N
    assert one < slot_bound(degree, plain=(1.0,)) < 1.2 * one
    tail = lambda r: 2 * r / degree * special.k1(2 * r / degree) - share  # noqa: E731, of |x| |y|
    two = optimize.brentq(tail, degree, 100 * degree)
    assert two < slot_bound(degree, products=(1.0,)) < 1.35 * two


def test_random_polynomials_keep_the_bound():
    degree, random = 1024, np.random.default_rng(1)
    x, y = SIGMA * random.standard_normal((2, 500, degree))
    s, z = random.integers(-1, 2, (500, degree)), random.uniform(-0.5, 0.5, (500, degree))
    e = np.array(
        [
            embed(a) * embed(b) + embed(a2) * embed(c) + embed(d)
            for a, a2, b, c, d in zip(x, y, s, s[::-1], z, strict=True)
        ]
    )
    bound = slot_bound(degree, (SIGMA * TERNARY,) * 2, (ROUNDING,))
    assert bound / 3 < np.abs(e).max() < bound


# --- each operation ---------------------------------------------------------------------------------------------------


def operations(client):
    """Name, result, true result."""
    x, y = values(client.context, 1), values(client.context, 2)
    p, q = encode(client.context, x), encode(client.context, y)
    X, Y = encrypt(client.public, p), encrypt(client.public, q)
    XY = client.product(X, Y)
    tripled = multiply(X, Y)
    yield "fresh", X, x
    yield "add", add(X, Y), x + y
    yield "subtract", subtract(X, Y), x - y
    yield "negate", negate(X), -x
    yield "add_plain", add_plain(X, q), x + y
    yield "multiply_plain", multiply_plain(X, q), x * y
    yield "multiply_plain and rescale", rescale(multiply_plain(X, q)), x * y
    yield "multiply", tripled, x * y
    yield "sums of three parts", add(tripled, tripled), 2 * x * y
    yield "three parts and two", add(tripled, multiply_plain(X, q)), 2 * x * y
    yield "relinearize", relinearize(tripled, client.relinearization), x * y
    yield "relinearize at a low scale", low_product(client, x, y), x * y
    yield "product", XY, x * y
    yield "product of products", client.product(XY, XY), (x * y) ** 2
    yield "lower", lower(X, 0), x
    yield "rotate", rotate(X, 1, client.rotations), np.roll(x, -1)
    yield "rotate back", rotate(X, -3, client.rotations), np.roll(x, 3)
    yield "rotate low", rotate(lower(X, 1), 5, client.rotations), np.roll(x, -5)
    yield "rotate around", rotate(X, 1 - client.context.slots, client.rotations), np.roll(x, -1)
    yield "rotate and sum", rotate_sum(X, (0, 1, 2, 5), client.rotations), sum(np.roll(x, -r) for r in (0, 1, 2, 5))
    yield "sum of others", rotate_sum(lower(X, 1), (2, -3), client.rotations), np.roll(x, -2) + np.roll(x, 3)
    yield "conjugate", conjugate(X, client.rotations), x.conj()


def low_product(client, x, y):
    """At a scale of 2^20, so that the noise of relinearization is seen."""
    X, Y = client.encrypted(x, scale=2.0**10), client.encrypted(y, scale=2.0**10)
    return relinearize(multiply(X, Y), client.relinearization)


@pytest.mark.parametrize("name", ["toy", "client"])
def test_each_operation_stays_within_its_bound_and_reaches_a_thousandth(name, request):
    client = request.getfixturevalue(name)
    for name, result, true in operations(client):
        assert 1e-3 < client.ratio(result, true) < 1, name


def test_scales_levels_and_sizes_are_kept(client):
    x = client.encrypted([0.5, -0.25])
    assert (x.level, x.scale, x.limit) == (3, 2.0**28, 0.5)
    square = multiply(x, x)
    assert (square.level, square.scale, square.limit, len(square.parts)) == (3, 2.0**56, 0.25, 3)
    y = rescale(relinearize(square, client.relinearization))
    assert (y.level, y.scale, len(y.parts)) == (2, 2.0**56 / client.context.primes[3], 2)
    assert (add(y, y).limit, assume_limit(y, 0.1).limit) == (0.5, 0.1)
    assert "level 2 of 3, scale 2^28.00, sizes up to 0.25, error below" in str(y)
    assert f"({precision(y.error):.1f} bits)" in str(y)


def test_a_constant_with_the_dropped_primes_scale_keeps_the_scale(client):
    x = values(client.context)
    X = client.encrypted(x)
    third = encode(client.context, 1 / 3, scale=client.context.primes[X.level])
    result = rescale(multiply_plain(X, third))
    assert result.scale == X.scale
    assert client.ratio(add(result, lower(X, 2)), x * 4 / 3) < 1


def test_bounds_of_each_slot_go_with_the_slots_and_are_the_smaller_ones(client):
    x, w = values(client.context, 3), values(client.context, 4) * np.linspace(0, 1, client.context.slots)
    X = client.encrypted(x, limit=np.abs(x) + 0.1)
    weighted = multiply_plain(X, encode(client.context, w, limit=np.abs(w)))
    total = rescale(rotate_sum(weighted, (0, 1, 5), client.rotations))
    assert np.allclose(total.limit, sum(np.roll((np.abs(x) + 0.1) * np.abs(w), -r) for r in (0, 1, 5)))
    assert 1e-3 < client.ratio(total, sum(np.roll(x * w, -r) for r in (0, 1, 5))) < 1
    flat = multiply_plain(client.encrypted(x), encode(client.context, w))
    assert (weighted.error[:100] < flat.error / 10).all()
    turned = rotate(weighted, 2, client.rotations)
    assert (turned.limit == np.roll(weighted.limit, -2)).all()
    assert client.ratio(turned, np.roll(x * w, -2)) < 1
    assert (assume_limit(turned, 0.1).limit == np.minimum(turned.limit, 0.1)).all()
    assert (conjugate(weighted, client.rotations).limit == weighted.limit).all()


def test_hoisted_rotations_are_the_same_rotations_and_digits_add_up(client):
    X = client.encrypted(values(client.context))
    for step, result in zip((0, *STEPS), rotate_many(X, (0, *STEPS), client.rotations), strict=True):
        assert (result.parts == (rotate(X, step, client.rotations) if step else X).parts).all()
    digits = decompose(client.context, X.parts[1])
    assert digits.shape == (4, 5, 8192)
    assert (digits[range(4), range(4)] == X.parts[1]).all()  # d_i is c modulo q_i
    small = inverse(digits[1, 4:], (client.context.special,))[0]
    assert (np.minimum(small, client.context.special - small) <= client.context.primes[1] // 2).all()


def test_sums_of_products_never_overflow():
    context = ckks_context(64, (30,) * 11, insecure=True)
    p = np.array(ckks_keys.chain(context, context.levels))[:, None]
    digits, key = np.tile(p - 1, (11, 1, 64)), np.tile(p - 1, (11, 2, 1, 64))
    assert (ckks_keys.inner_product(context, digits, key) == 11).all()  # (p - 1)^2 is 1
    long = Client(64, (30,) * 11, insecure=True)
    x = values(long.context)
    assert 1e-3 < long.ratio(rotate(long.encrypted(x, scale=2.0**28), 1, long.rotations), np.roll(x, -1)) < 1


def test_precision_is_what_the_docstring_says():
    bits = {28: (13, 9.5), 52: (36.5, 33)}  # observed and promised, after two products in sequence
    chains = {28: (30, 28, 28, 28), 52: (30, 30, 26, 26, 26, 26)}
    for scale, chain in chains.items():
        client = Client(8192, chain, scale=2.0**scale)
        divide = rescale if scale == 52 else lambda x: x  # the second of two
        x = values(client.context)
        X = client.encrypted(x)
        square = divide(client.product(X, X))
        fourth = divide(client.product(square, square))
        observed = np.abs(client.decrypted(fourth) - x**4).max()
        promised = decrypt(client.secret, fourth).error
        assert 1e-3 < observed / promised < 1
        assert precision(observed) > bits[scale][0]
        assert precision(promised) > bits[scale][1]


# --- circuits ---------------------------------------------------------------------------------------------------------

MOVES = ("add", "subtract", "add_plain", "multiply", "multiply_plain", "rotate", "conjugate", "negate")


@given(st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 9), st.integers(0, 9)), max_size=10))
def test_random_circuits_stay_within_their_bounds(toy, moves):
    plain, *start = (values(toy.context, seed) / 8 for seed in (7, 1, 2))
    pool = [(toy.encrypted(x), x) for x in start]
    for move, i, j in moves:
        (X, x), (Y, y) = pool[i % len(pool)], pool[j % len(pool)]
        level = min(X.level, Y.level)
        if move in ("multiply", "multiply_plain") and (level == 0 or X.limit * Y.limit > 8):
            continue
        X, Y = lower(X, level), lower(Y, level)
        if move in ("add", "subtract"):
            if X.limit + Y.limit > 1.5 or not math.isclose(X.scale, Y.scale, rel_tol=1e-12):
                continue
            pool.append((add(X, Y), x + y) if move == "add" else (subtract(X, Y), x - y))
        elif move == "add_plain" and X.limit < 0.5:
            pool.append((add_plain(X, encode(toy.context, plain, scale=X.scale, level=level)), x + plain))
        elif move == "multiply":
            pool.append((toy.product(X, Y), x * y))
        elif move == "multiply_plain":
            pool.append((rescale(multiply_plain(X, encode(toy.context, plain))), x * plain))
        elif move == "rotate":
            pool.append((rotate(X, STEPS[j % 4], toy.rotations), np.roll(x, -STEPS[j % 4])))
        elif move == "conjugate":
            pool.append((conjugate(X, toy.rotations), x.conj()))
        elif move == "negate":
            pool.append((negate(X), -x))
    for X, x in pool:
        assert toy.ratio(X, x) < 1


# --- planted faults ---------------------------------------------------------------------------------------------------


def test_a_wrong_galois_element_breaks_the_bound(toy, monkeypatch):
    monkeypatch.setattr(ckks_keys, "galois_element", lambda context, steps: pow(3, steps, 2 * context.degree))
    x = values(toy.context)
    keys = rotation_keys(toy.secret, (1,))
    assert toy.ratio(rotate(toy.encrypted(x), 1, keys), np.roll(x, -1)) > 100


def test_a_rotation_without_switching_breaks_the_bound(toy, monkeypatch):
    monkeypatch.setattr(
        ckks_rotations, "inner_product", lambda context, digits, key: np.zeros((2, 5, 1024), dtype=np.int64)
    )
    x = values(toy.context)
    assert toy.ratio(rotate(toy.encrypted(x), 1, toy.rotations), np.roll(x, -1)) > 100


def test_switching_without_the_division_breaks_the_bound(toy, monkeypatch):
    x = values(toy.context)
    X = toy.encrypted(x)
    monkeypatch.setattr(ckks_rotations, "divide_by_last", lambda x, primes: x[..., :-1, :].copy())
    assert toy.ratio(rotate(X, 1, toy.rotations), np.roll(x, -1)) > 100


def test_noise_ten_times_too_large_breaks_the_bound(toy, monkeypatch):
    monkeypatch.setattr(ckks_keys, "SIGMA", 10 * SIGMA)
    x = values(toy.context)
    keys = rotation_keys(toy.secret, STEPS)
    X = toy.encrypted(x)
    ratios = [toy.ratio(rotate(X, step, keys), np.roll(x, -step)) for step in STEPS]
    assert max(ratios) > 1
    zero = ckks_keys.encryption_of_zero(toy.secret)[:, :4]
    e = inverse((zero[0] + zero[1] * toy.secret.s[:4]) % ckks.column(toy.context.primes), toy.context.primes)
    noisy = ckks_encoding.from_residues(e, toy.context.primes).astype(float)
    assert np.abs(embed(noisy)).max() > slot_bound(1024, plain=(SIGMA,))


def test_a_forgotten_rescale_is_refused_and_would_be_wrong(toy):
    x = values(toy.context)
    X = toy.encrypted(x)
    product = relinearize(multiply(X, X), toy.relinearization)
    with pytest.raises(ValueError, match=r"the scales are .*; accepted: the same .a rescale may be missing"):
        add(product, X)
    assert toy.ratio(replace(product, scale=X.scale), x * x) > 100


# --- TenSEAL ----------------------------------------------------------------------------------------------------------


@pytest.mark.oracle
def test_errors_are_as_large_as_those_of_seal(client):
    tenseal = pytest.importorskip("tenseal", reason="tenseal, which compares our CKKS with SEAL, is not installed")
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[30, 28, 28, 28, 30], n_threads=1)
    context.global_scale = 2**28
    context.generate_relin_keys()
    ours, theirs = {}, {}
    for seed in range(4):
        x, y = (values(client.context, seed + shift, imaginary=0).real for shift in (0, 9))
        X, Y = client.encrypted(x), client.encrypted(y)
        collect(ours, "fresh", client.decrypted(X).real - x)
        collect(ours, "product", client.decrypted(client.product(X, Y)).real - x * y)
        X, Y = tenseal.ckks_vector(context, x.tolist()), tenseal.ckks_vector(context, y.tolist())
        product = np.array((X * Y).decrypt())
        gain = (product * x * y).sum() / (x * y * x * y).sum()  # its scale is forced back to 2^28
        assert abs(gain - 1) < 1e-2
        collect(theirs, "fresh", np.array(X.decrypt()) - x)
        collect(theirs, "product", product / gain - x * y)
    for name in ours:
        mean = lambda errors: np.sqrt(np.mean(np.square(errors)))  # noqa: E731
        assert 1 / 1.5 < mean(ours[name]) / mean(theirs[name]) < 1.5, name


def collect(errors, name, some):
    errors.setdefault(name, []).append(some)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_running_out_of_levels_says_so(toy):
    x = toy.encrypted(0.9, limit=1.0)
    for _ in range(3):
        x = toy.product(x, x)
    assert x.level == 0
    for one_more in [lambda: rescale(x), lambda: multiply(x, x), lambda: multiply_plain(x, encode(toy.context, 1.0))]:
        with pytest.raises(ValueError, match="no level is left: the chain has room for 3 products; accepted: fewer"):
            one_more()
    large = toy.encrypted(8.0)
    with pytest.raises(ValueError, match=r"the result: sizes up to .* do not fit level 3; accepted: below"):
        for _ in range(6):
            large = multiply_plain(large, encode(toy.context, 8.0))


def test_mixing_contexts_keys_levels_and_scales_is_refused(toy):
    other = Client(1024, (30, 28, 28, 28), insecure=True)
    smaller = ckks_context(1024, (30, 28), insecure=True)
    x, y = toy.encrypted(0.5), other.encrypted(0.5)
    refused = {
        "y is encrypted under": lambda: add(x, y),
        "y is encrypted": lambda: multiply(x, y),
        "secret belongs to": lambda: decrypt(other.secret, x),
        "key belongs to": lambda: relinearize(multiply(x, x), other.relinearization),
        "keys belongs to": lambda: rotate(x, 1, other.rotations),
        "plaintext is of context": lambda: add_plain(x, encode(smaller, 1.0)),
        "plaintext is of": lambda: encrypt(toy.public, encode(smaller, 1.0)),
        "plaintext is encoded for level 1": lambda: multiply_plain(x, encode(toy.context, 1.0, level=1)),
        "y is at level 2; accepted: level 3, that of x; lower": lambda: add(x, lower(x, 2)),
        "y is at level": lambda: multiply(x, lower(x, 2)),
        "the scales are": lambda: add_plain(x, encode(toy.context, 1.0, scale=2.0**20)),
        "the scales": lambda: subtract(x, toy.encrypted(0.5, scale=2.0**20)),
        "level is 3; accepted: at most 1": lambda: lower(lower(x, 1), 3),
        "level is 4": lambda: lower(x, 4),
        "x has 3 parts; accepted: 2; relinearize": lambda: rescale(multiply(x, x)),
        "y has 3 parts": lambda: multiply(x, multiply(x, x)),
        "x has 3 parts": lambda: rotate(multiply(x, x), 1, toy.rotations),
        "x has the scale 2.28.00, of which rescaling would leave 2.0.00, too little": lambda: rescale(x),
    }
    for named, call in refused.items():
        with pytest.raises(ValueError, match=f"{named}.*"):
            call()


def test_missing_keys_and_bad_values_are_refused(toy):
    x = toy.encrypted(0.5)
    bare = rotation_keys(toy.secret, (1,))
    refused = {
        "steps has 7; accepted: 1, 2, 5, 509": lambda: rotate(x, 7, toy.rotations),
        "keys has none for conj.*; accepted": lambda: conjugate(x, bare),
        "steps is .1, 1, 2.; accepted": lambda: rotate_sum(x, (1, 1, 2), toy.rotations),
        "steps is ..; accepted": lambda: rotate_sum(x, (), toy.rotations),
        "the sum: sizes up to": lambda: rotate_sum(toy.encrypted(1.5, level=0, limit=1.9), (0, 1), toy.rotations),
        "steps has 1.5": lambda: rotate(x, 1.5, bare),
        "steps is 1; accepted: a tuple": lambda: rotation_keys(toy.secret, 1),
        "steps is '12'": lambda: rotate_many(x, "12", bare),
        "values reach 2; accepted: at most limit, 1": lambda: encode(toy.context, 2.0, limit=1.0),
        "values: sizes up to 4 at .* level 0; accepted: below": lambda: encode(toy.context, 4.0, level=0),
        "values, times the scale": lambda: encode(toy.context, 64.0, scale=2.0**60),
        "values has the shape .513": lambda: encode(toy.context, np.zeros(513)),
        "values has the shape .0": lambda: encode(toy.context, []),
        "values has the shape .2, 2": lambda: encode(toy.context, np.zeros((2, 2))),
        "values has entries": lambda: encode(toy.context, [math.nan]),
        "values is a str": lambda: encode(toy.context, "one"),
        "context is a str": lambda: encode("toy", 1.0),
        "level is 9": lambda: encode(toy.context, 1.0, level=9),
        "scale is 0.5": lambda: encode(toy.context, 1.0, scale=0.5),
        "limit is 0": lambda: encode(toy.context, 0.0, limit=0.0),
        "limit is -1": lambda: assume_limit(x, -1.0),
        "limit is of shape .3,.; accepted": lambda: encode(toy.context, 0.5, limit=np.ones(3)),
        "values reach 0.5; accepted: at most limit, 0.4": lambda: encode(toy.context, 0.5, limit=np.full(512, 0.4)),
        "the result: sizes up to": lambda: lower(toy.encrypted(8.0), 0),
        "key is a SecretKey; accepted: a PublicKey": lambda: encrypt(toy.secret, encode(toy.context, 1.0)),
        "secret is a PublicKey": lambda: decrypt(toy.public, x),
        "secret is a PublicKey; accepted: a SecretKey": lambda: rotation_keys(toy.public, (1,)),
        "y is a float": lambda: add(x, 1.0),
        "plaintext is a list": lambda: add_plain(x, [1.0]),
        "bits is": lambda: ckks_context(1024, (), insecure=True),
        "bits is 31": lambda: ckks_context(1024, (31,), insecure=True),
        "special_bits is 13": lambda: ckks_context(1024, (30,), special_bits=13, insecure=True),
        "bits is 29.5": lambda: ckks_context(1024, (29.5,), insecure=True),
        "degree is 1000": lambda: ckks_context(1000, (30,), insecure=True),
        "insecure is 1": lambda: ckks_context(1024, (30,), insecure=1),
    }
    for named, call in refused.items():
        with pytest.raises(ValueError, match=f"{named}.*"):
            call()


def test_nothing_can_be_changed_and_no_secret_is_shown(toy):
    x, p = toy.encrypted(0.5), encode(toy.context, 0.5)
    with pytest.raises(FrozenInstanceError):
        x.scale = 1.0
    arrays = [x.parts, p.values, toy.secret.s, toy.public.key, toy.relinearization.key, *toy.rotations.keys.values()]
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(TypeError):
        toy.rotations.keys[1] = 0
    before = [a.copy() for a in (x.parts, p.values)]
    for result in [add(x, x), multiply(x, x), add_plain(x, p), rescale(multiply_plain(x, p))]:
        assert result.parts is not x.parts
    rotate(x, 1, toy.rotations)
    assert all((a == b).all() for a, b in zip(before, (x.parts, p.values), strict=True))
    assert "[" not in repr(toy.secret)
