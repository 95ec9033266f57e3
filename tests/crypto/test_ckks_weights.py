"""Constants against encoded constants, bit by bit; weighted sums against constants one by one; both within bounds."""

import numpy as np
import pytest

from spai_lab.crypto import ckks_weights
from spai_lab.crypto.ckks import (
    add,
    ckks_context,
    decode,
    decrypt,
    encode,
    encrypt,
    lower,
    multiply,
    multiply_constant,
    multiply_plain,
    public_key,
    relinearization_key,
    relinearize,
    rescale,
    secret_key,
)
from spai_lab.crypto.ckks_encoding import SAME_SCALE
from spai_lab.crypto.ckks_noise import encryption_error
from spai_lab.crypto.ckks_weights import shifted, weighted_sums


@pytest.fixture(scope="module")
def context():
    return ckks_context(1024, (30, 28, 28, 28), insecure=True)


@pytest.fixture(scope="module")
def secret(context):
    return secret_key(context)


@pytest.fixture(scope="module")
def xs(context, secret):
    """Numbers, and each of 40 rows encrypted."""
    z = np.random.default_rng(0).uniform(-1, 1, (40, context.slots))
    key = public_key(secret)
    return z, [encrypt(key, encode(context, row)) for row in z]


def ratio(secret, x, true):
    return float((np.abs(decode(decrypt(secret, x)) - true) / decrypt(secret, x).error).max())


@pytest.mark.parametrize("c", [1.5, -0.3, 0.0, 1 / 3, 100.0])
@pytest.mark.parametrize("scale", [2.0**12, 2.0**28])
def test_a_constant_is_its_encoding_without_the_work(context, xs, c, scale):
    x = xs[1][0]
    slow = multiply_plain(x, encode(context, c, scale=scale))
    fast = multiply_constant(x, c, scale=scale)
    assert (fast.parts == slow.parts).all()
    assert (fast.scale, fast.level) == (slow.scale, x.level)
    assert fast.limit <= slow.limit
    assert np.max(fast.error) <= np.max(slow.error)


@pytest.mark.parametrize("c", [1.5, -0.3, 1 / 3])
@pytest.mark.parametrize("scale", [2.0**6, 2.0**28])
def test_a_constant_keeps_its_bound_and_reaches_a_thousandth(secret, xs, c, scale):
    z, encrypted = xs
    x = encrypted[0]
    product = multiply_constant(x, c, scale=scale)
    assert 1e-3 < ratio(secret, product, c * z[0]) < 1
    assert 1e-3 < ratio(secret, multiply_constant(lower(x, 1), c, scale=scale), c * z[0]) < 1
    assert ratio(secret, product, c * z[0] + 1.01 * product.error + abs(c * z[0]).max() * 1e-9) > 1
    assert multiply_constant(x, c).scale == x.scale * x.context.scale


def test_three_parts_and_the_next_rescale_work(secret, xs):
    z, encrypted = xs
    cube = multiply_constant(multiply(encrypted[0], encrypted[1]), -0.7, scale=2.0**10)
    assert len(cube.parts) == 3
    assert 1e-3 < ratio(secret, cube, -0.7 * z[0] * z[1]) < 1
    down = rescale(relinearize(cube, relinearization_key(secret)))
    assert 1e-3 < ratio(secret, down, -0.7 * z[0] * z[1]) < 1


@pytest.mark.parametrize("count", [1, 31, 32, 33, 40])
def test_weighted_sums_are_sums_of_constants_bit_by_bit(secret, xs, count):
    z, encrypted = xs
    random = np.random.default_rng(count)
    W, b = random.normal(size=(3, count)), random.normal(size=3)
    sums = weighted_sums(iter(encrypted[:count]), W, b, scale=2.0**12)
    for y, w, bias in zip(sums, W, b, strict=True):
        total = multiply_constant(encrypted[0], w[0], scale=2.0**12)
        for x, c in zip(encrypted[1:count], w[1:], strict=True):
            total = add(total, multiply_constant(x, c, scale=2.0**12))
        total = shifted(total, bias)
        assert (y.parts == total.parts).all()
        assert y.scale == total.scale
        assert np.isclose(y.limit, total.limit)
        assert y.error == pytest.approx(total.error, rel=1e-9, abs=2 * SAME_SCALE * total.limit)
        assert 1e-3 < ratio(secret, y, w @ z[:count] + bias) < 1


def test_bounds_of_each_slot_are_kept(context, secret):
    z = np.random.default_rng(1).uniform(0, 1, (3, context.slots)) * np.linspace(0, 1, context.slots)
    key = public_key(secret)
    encrypted = [encrypt(key, encode(context, row, limit=row + 0.01)) for row in z[:2]]
    encrypted.append(encrypt(key, encode(context, z[2])))
    W = np.array([[0.3, -0.2, 0.9]])
    (y,) = weighted_sums(encrypted, W, scale=2.0**8)
    limits = np.stack(np.broadcast_arrays(*(x.limit for x in encrypted)))
    assert np.allclose(y.limit, (np.abs(W) @ limits)[0])
    assert 1e-3 < ratio(secret, y, (W @ z)[0]) < 1


def test_a_wrong_weight_is_caught(secret, xs, monkeypatch):
    z, encrypted = xs
    W = np.full((1, 4), 0.5)
    monkeypatch.setattr(ckks_weights.np, "rint", lambda w: np.floor(w * (1 - 2**-6)))
    (y,) = weighted_sums(encrypted[:4], W, scale=2.0**12)
    y = ckks_weights.replace(y, error=4 * 0.5 * encrypted[0].error)
    assert ratio(secret, y, 0.5 * z[:4].sum(0)) > 1


def test_errors_of_different_ciphertexts_do_not_take_sides(context, secret):
    """What `logit_error` rests on: 100 fresh errors, weighted with numbers of square sum 1, are like a single one."""
    key, n = public_key(secret), 100
    fresh = [encrypt(key, encode(context, 0.0)) for _ in range(n)]
    u = np.full((1, n), 1 / np.sqrt(n))
    bound = encryption_error(context.degree, context.special) / context.scale
    largest = lambda xs: np.abs(decode(decrypt(secret, weighted_sums(xs, u, scale=2.0**20)[0]))).max()  # noqa: E731
    assert 1e-2 < largest(fresh) / bound < 1
    assert largest(fresh[:1] * n) / bound > 1  # one and the same error does


def test_sums_of_the_largest_residues_are_exact():
    context = ckks_context(64, (30, 30), insecure=True)
    secret = secret_key(context)
    x = encrypt(public_key(secret), encode(context, 0.5))
    top = ckks_weights.replace(x, parts=np.full_like(x.parts, (min(context.primes) - 1) // 2), limit=1e-9, error=1e-9)
    n, w = 64, 2**18 - 1  # n w 2^29 is just below 2^53
    (y,) = weighted_sums([top] * n, np.full((1, n), float(w)), scale=1.0)
    for row, q in enumerate(context.primes):
        assert (y.parts[:, row] == n * w * ((min(context.primes) - 1) // 2) % q).all()
    with pytest.raises(ValueError, match=r"scale is 2; accepted: at most 1,"):
        weighted_sums([top] * n, np.full((1, n), float(w)), scale=2.0)


def test_bad_arguments_are_named(refuses, context, secret, xs):
    x, y = xs[1][:2]
    W = np.ones((2, 2))
    refuses(multiply_constant, {"x": 1.0, "c": 2.0}, "x is a float", "Ciphertext")
    refuses(multiply_constant, {"x": x, "c": np.inf}, "c is inf")
    refuses(multiply_constant, {"x": x, "c": 1.0, "scale": 0.5}, "scale is 0.5")
    refuses(multiply_constant, {"x": lower(x, 0), "c": 4.0, "scale": 2.0**20}, "do not fit level 0")
    refuses(weighted_sums, {"xs": 1, "W": W, "scale": 1.0}, "xs is a int")
    refuses(weighted_sums, {"xs": [x], "W": W, "scale": 1.0}, "xs has 1 ciphertexts", "accepted: 2")
    refuses(weighted_sums, {"xs": [], "W": W, "scale": 1.0}, "xs has 0 ciphertexts")
    refuses(weighted_sums, {"xs": [x, y, x], "W": W, "scale": 1.0}, "of which xs has more")
    refuses(weighted_sums, {"xs": [x, 3], "W": W, "scale": 1.0}, "xs[1] is a int")
    refuses(weighted_sums, {"xs": [x, lower(y, 1)], "W": W, "scale": 1.0}, "xs[1] is at level 1", "level 3")
    refuses(weighted_sums, {"xs": [x, multiply(x, y)], "W": W, "scale": 1.0}, "the scales are")
    other = encrypt(public_key(secret_key(context)), encode(context, 0.0))
    refuses(weighted_sums, {"xs": [x, other], "W": W, "scale": 1.0}, "xs[1] is encrypted under")
    three = ckks_weights.replace(multiply(x, y), scale=x.scale)
    refuses(weighted_sums, {"xs": [x, three], "W": W, "scale": 1.0}, "xs[1] has 3 parts", "accepted: 2")
    refuses(weighted_sums, {"xs": [x, y], "W": np.ones(2), "scale": 1.0}, "W has the shape (2,)")
    refuses(weighted_sums, {"xs": [x, y], "W": W * np.nan, "scale": 1.0}, "W has the shape", "finite")
    refuses(weighted_sums, {"xs": [x, y], "W": W, "b": np.ones(3), "scale": 1.0}, "b has the shape (3,)")
    refuses(weighted_sums, {"xs": [x, y], "W": W, "scale": 0.0}, "scale is 0.0")
