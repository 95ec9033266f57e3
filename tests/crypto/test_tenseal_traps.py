"""TenSEAL's silent traps: the wrong way is wrong, the right way is within bounds that are computed from the noise.

Bounds are those of our own CKKS for SEAL's primes, as it draws and rounds alike; they fail with probability 1e-9 for
each of some hundred operations.
"""

import math

import numpy as np
import pytest

from spai_lab.crypto import tenseal_library
from spai_lab.crypto.ckks_context import SECURE_BITS
from spai_lab.crypto.ckks_noise import encoding_error, encryption_error, rescaling_error, switching_error
from spai_lab.crypto.ntt import ntt_primes
from spai_lab.crypto.tenseal_library import check_secure, library_degree, library_primes, tenseal
from spai_lab.crypto.tenseal_traps import (
    CHAIN_BITS,
    CHAIN_SCALE,
    DEGREE,
    MATRIX_BITS,
    MATRIX_SCALE,
    forced_scale,
    gains,
    list_before_matrix,
    list_before_packing,
    trap_context,
)

pytestmark = pytest.mark.oracle
pytest.importorskip("tenseal", reason="tenseal, whose traps these are, is not installed")


@pytest.fixture(scope="module")
def matrices():
    return trap_context()


@pytest.fixture(scope="module")
def chain():
    return trap_context(CHAIN_BITS, CHAIN_SCALE, rotations=False)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def product_noise(context, level, scale):
    """What encoding both factors up to 1, relinearization and rescaling may add to one product."""
    *primes, special = library_primes(context)
    fresh = encoding_error(DEGREE, scale, 1.0) + encryption_error(DEGREE, special) / scale
    switching = switching_error(DEGREE, tuple(primes[: level + 1]), special) / scale**2
    return fresh, switching + rescaling_error(DEGREE) / scale


# --- plain lists ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["add", "multiply"])
@pytest.mark.parametrize("n", [3, 8])
def test_a_list_before_a_matrix_is_wrong_and_a_ciphertext_right(matrices, random, operation, n):
    x, b = random.uniform(-1, 1, (2, n))
    W = random.uniform(-1, 1, (n, 3))
    trap = list_before_matrix(matrices, x, b, W, operation=operation)
    steps = 2 if operation == "multiply" else 1
    fresh, step = product_noise(matrices, 3, MATRIX_SCALE)
    gain = np.prod([MATRIX_SCALE / q for q in library_primes(matrices)[3 : 3 - steps : -1]])
    inner = 2 * fresh + (2 * fresh**2 + step if steps == 2 else 0)
    switching = switching_error(DEGREE, library_primes(matrices)[:4], library_primes(matrices)[-1]) / MATRIX_SCALE**2
    encoding = encoding_error(DEGREE, MATRIX_SCALE, 1.0)
    bound = gain * (n * (2 * encoding + (1 + encoding) * inner + switching) + fresh + step)
    assert np.abs(trap.right - gain * trap.plain).max() < bound
    assert np.abs(trap.wrong - gain * trap.plain).max() > 50 * bound
    assert np.allclose(trap.plain, (x + b if operation == "add" else x * b) @ W)


def test_what_a_list_reaches_decrypts_right_which_is_why_nobody_sees_it(matrices, random):
    x, b = random.uniform(-1, 1, (2, 5))
    y = tenseal().ckks_vector(matrices, x.tolist()) + b.tolist()
    fresh, _ = product_noise(matrices, 3, MATRIX_SCALE)
    assert np.abs(np.array(y.decrypt()) - x - b).max() < 2 * fresh


def test_a_list_before_packing_is_lost(matrices, random):
    x, y, b = random.uniform(-1, 1, (3, 6))
    trap = list_before_packing(matrices, x, y, b)
    gain = MATRIX_SCALE / library_primes(matrices)[3]
    fresh, step = product_noise(matrices, 3, MATRIX_SCALE)
    bound = 2 * (2 * fresh + 2 * encoding_error(DEGREE, MATRIX_SCALE, 1.0) * (2 + fresh) + step)
    assert np.allclose(trap.plain, np.concatenate([x, y + b]))
    assert np.abs(trap.right - gain * trap.plain).max() < gain * bound
    assert np.abs(trap.wrong - gain * np.concatenate([x, y])).max() < gain * bound  # as if there were no b


# --- one scale for all ------------------------------------------------------------------------------------------------


def test_primes_are_seals_own(chain):
    """The largest of 26 bits that serve; the library drops the largest first."""
    assert set(library_primes(chain)[1:-1]) == set(ntt_primes(26, 6, DEGREE))
    assert library_degree(chain) == DEGREE


@pytest.mark.parametrize("squares", [False, True])
def test_numbers_grow_by_the_computed_gain_and_come_back(chain, squares):
    levels, x, w = 6, np.linspace(0.5, 1.0, 16), -0.9
    trap = forced_scale(chain, x, levels, weight=w, squares=squares)
    true = [x ** (2**k) if squares else w**k * x for k in range(1, levels + 1)]
    assert np.allclose(trap.plain, true)
    primes = library_primes(chain)
    by_hand, total = [], 1.0
    for q in primes[6:0:-1]:
        total = total * (total if squares else 1) * 2.0**26 / q
        by_hand.append(total)
    assert np.allclose(trap.computed, by_hand, rtol=1e-12, atol=0)
    assert np.allclose(gains(chain, levels, squares=squares), by_hand, rtol=1e-12, atol=0)
    error, before = product_noise(chain, 6, CHAIN_SCALE)[0], 1.0
    for level, (plain, wrong, right, observed, gain) in enumerate(
        zip(trap.plain, trap.wrong, trap.right, trap.observed, trap.computed, strict=True)
    ):
        step = product_noise(chain, 6 - level, CHAIN_SCALE)[1]
        ratio = CHAIN_SCALE / primes[6 - level]
        weight = 0 if squares else 0.5 / CHAIN_SCALE * before
        grown = 2 * before * error + error**2 if squares else abs(w) * error
        error, before = ratio * (grown + weight + step), gain
        assert np.abs(wrong - gain * plain).max() < error  # in units of what the library decrypts
        assert np.abs(right - plain).max() < error / gain
        assert abs(observed - gain) < error * np.abs(plain).sum() / (plain**2).sum()
    assert gain - 1 > error * np.abs(plain).sum() / (plain**2).sum()  # no noise could have made it
    assert np.abs(trap.wrong[-1] - trap.plain[-1]).max() > 10 * np.abs(trap.right[-1] - trap.plain[-1]).max()
    assert gain > (1.1 if squares else 1.025)  # a square squares what was gained before


def test_the_largest_hides_it(chain):
    """The class of three logits is right though each is off by 3 %."""
    trap = forced_scale(chain, np.array([0.2, 0.9, -0.4]), 6)
    assert trap.wrong[-1].argmax() == trap.plain[-1].argmax()
    assert np.abs(trap.wrong[-1] / trap.plain[-1] - 1).min() > 0.02


# --- security ---------------------------------------------------------------------------------------------------------


def test_all_contexts_that_we_make_respect_the_table(matrices, chain):
    from benchmarks.contests.encrypted_image import TENSEAL
    from spai_lab.crypto.bfv import bfv_context
    from spai_lab.crypto.cryptonets_tenseal import tenseal_context

    library = tenseal()
    benchmark = library.context(library.SCHEME_TYPE.CKKS, **TENSEAL)
    made = [matrices, chain, tenseal_context(), benchmark, bfv_context(4096).library, bfv_context().library]
    for context in made:
        degree, primes = library_degree(context), library_primes(context)
        assert sum(math.log2(q) for q in primes) <= SECURE_BITS[degree] == {4096: 109, 8192: 218}[degree]
        check_secure(context)
    assert (sum(CHAIN_BITS), sum(MATRIX_BITS)) == (218, 190)  # the first is the most that is secure


def test_our_table_and_seals_end_at_the_same_bit():
    import tenseal.sealapi as seal

    for degree, bits in SECURE_BITS.items():
        assert seal.CoeffModulus.MaxBitCount(degree, seal.SEC_LEVEL_TYPE.TC128) == bits
    ts = tenseal()
    check_secure(ts.context(ts.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[60, 49]))
    with pytest.raises(ValueError, match="encryption parameters are not set correctly"):
        ts.context(ts.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[60, 50])


def test_a_context_beyond_our_table_is_refused(monkeypatch, chain, refuses):
    monkeypatch.setattr(tenseal_library, "SECURE_BITS", {DEGREE: 217})
    refuses(check_secure, {"context": chain}, "context has a modulus of 218 bits for N = 8,192", "at most 217")
    monkeypatch.setattr(tenseal_library, "SECURE_BITS", {})
    refuses(check_secure, {"context": chain}, "at most 0")


# --- arguments --------------------------------------------------------------------------------------------------------


def test_bad_arguments_are_named(matrices, chain, refuses):
    x, W = np.ones(3), np.ones((3, 2))
    for change, words in [
        ({"operation": "divide"}, ("operation is 'divide'", "'add', 'multiply'")),
        ({"b": np.ones(4)}, ("a vector is (4,)", "the same for all")),
        ({"x": np.ones(2049), "b": np.ones(2049)}, ("a vector is (2049,)", "2,048")),
        ({"x": np.array([1, np.nan, 1])}, ("finite numbers",)),
        ({"W": np.ones((4, 2))}, ("W has the shape (4, 2)", "(3, m)")),
    ]:
        refuses(list_before_matrix, {"context": matrices, "x": x, "b": x, "W": W, **change}, *words)
    refuses(list_before_packing, {"context": matrices, "x": x, "y": x, "b": W}, "a vector is (3, 2)")
    refuses(gains, {"context": chain, "levels": 7}, "levels is 7", "1 to 6")
    refuses(gains, {"context": chain, "levels": 0}, "levels is 0")
    refuses(forced_scale, {"context": chain, "x": np.zeros(3), "levels": 1}, "x or weight is 0")
    refuses(forced_scale, {"context": chain, "x": x, "levels": 1, "weight": 0}, "x or weight is 0")
    refuses(forced_scale, {"context": chain, "x": x, "levels": 1, "weight": math.inf}, "weight is inf")
    refuses(trap_context, {"scale": 1}, "scale is 1")
