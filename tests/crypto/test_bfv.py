"""BFV against arithmetic modulo t and against the library's own measure of its noise; where it fails without a word.

Bounds fail with probability 1e-9 for each operation, of which these tests make a few hundred.
"""

import ast
import math
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import sympy

from spai_lab.crypto import bfv, bfv_and_ckks, cryptonets_tenseal, tenseal_library, tenseal_traps
from spai_lab.crypto import bfv_context as bfv_parameters
from spai_lab.crypto.bfv import (
    bfv_add,
    bfv_context,
    bfv_decrypt,
    bfv_encrypt,
    bfv_multiply,
    expected_budgets,
    measured_budget,
    plain_modulus,
)
from spai_lab.crypto.bfv_and_ckks import squares_in_both
from spai_lab.crypto.ckks import ckks_context, secret_key
from spai_lab.crypto.ckks_context import SECURE_BITS

needs_tenseal = pytest.mark.oracle


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip("tenseal", reason="tenseal, through which BFV is computed, is not installed")


@pytest.fixture(scope="module")
def context(library):
    return bfv_context(8192)


def centered(value, t):
    """Modulo t, from -(t - 1) / 2 to (t - 1) / 2."""
    return (value + t // 2) % t - t // 2


def everywhere(context):
    """Numbers from the whole range, in all slots, the largest in size among them."""
    draw = random.Random(0)
    numbers = [draw.randint(-context.largest, context.largest) for _ in range(context.degree)]
    return [context.largest, -context.largest, *numbers[2:]]


# --- exact ------------------------------------------------------------------------------------------------------------


@needs_tenseal
def test_sums_and_products_are_those_of_whole_numbers(context):
    x, y = [3, -7, 0, 100, -181], [5, 11, -2, 181, 181]
    a, b = bfv_encrypt(context, x), bfv_encrypt(context, y)
    assert bfv_decrypt(a).tolist() == x and bfv_decrypt(a).dtype == np.int64
    assert bfv_decrypt(bfv_add(a, b)).tolist() == [p + q for p, q in zip(x, y, strict=True)]
    product = bfv_multiply(a, b)
    assert (product.limit, product.context.largest) == (256 * 256, 32768)
    assert bfv_decrypt(product, modulo=True).tolist() == [p * q for p, q in zip(x, y, strict=True)]
    limited = bfv_multiply(bfv_encrypt(context, x, limit=181), bfv_encrypt(context, y, limit=181))
    assert bfv_decrypt(limited).tolist() == [p * q for p, q in zip(x, y, strict=True)]


@needs_tenseal
def test_all_slots_are_exact_modulo_t_up_to_the_promised_depth(context):
    t, numbers = context.t, everywhere(context)
    x = bfv_encrypt(context, numbers)
    assert x.limit == context.largest and bfv_decrypt(x).tolist() == numbers
    for _ in range(context.depth):
        x, numbers = bfv_multiply(x, x), [centered(n * n, t) for n in numbers]
        assert bfv_decrypt(x, modulo=True).tolist() == numbers


@needs_tenseal
def test_numbers_that_may_have_wrapped_around_are_not_given_unasked(context, refuses):
    x = bfv_encrypt(context, [182, -300])
    y = bfv_multiply(x, x)
    refuses(bfv_decrypt, {"x": y}, "x has numbers up to 262,144", "65,537 tells only those up to 32,768", "modulo=True")
    assert bfv_decrypt(y, modulo=True).tolist() == [182**2 - 65537, 300**2 - 65537]
    assert "may wrap around" in str(y) and "may wrap around" not in str(x)
    large = bfv_context(8192, plain_modulus(8192, 2 * 512**2))
    z = bfv_encrypt(large, [182, -300])
    assert bfv_decrypt(bfv_multiply(z, z)).tolist() == [182**2, 300**2]


# --- the noise budget -------------------------------------------------------------------------------------------------


@needs_tenseal
@pytest.mark.parametrize(("degree", "t"), [(4096, 65537), (4096, 1032193), (8192, 65537), (8192, 786433)])
def test_the_wrapper_refuses_before_the_library_is_silently_wrong(library, degree, t, refuses):
    context = bfv_context(degree, t)
    numbers, promised = everywhere(context), expected_budgets(context)
    x, bare = bfv_encrypt(context, numbers), library.bfv_vector(context.library, numbers)
    products = 0
    while bare.decrypt() == numbers:
        if products <= context.depth:
            assert math.isclose(x.budget, promised[products])
            assert x.budget <= measured_budget(x) < x.budget + 12 * (products + 1)
        if products < context.depth:
            x = bfv_multiply(x, x)
        bare, numbers = bare * bare, [centered(n * n, t) for n in numbers]  # the library goes on
        products += 1
    failed = products  # this many products in sequence, and numbers are wrong, without a word
    right = np.mean([a == b for a, b in zip(bare.decrypt(), numbers, strict=True)])
    assert right < 0.01
    assert failed - 2 <= context.depth < failed
    assert len(promised) == context.depth + 1
    refuses(bfv_multiply, {"x": x, "y": x}, "the product would spend the noise budget", f"{context.depth} products in")
    measured = context.library.decryptor().data.invariant_noise_budget(bare.ciphertext()[0])
    assert measured == 0


@needs_tenseal
def test_depths_are_those_that_are_known():
    """One product in sequence at N = 4,096 and four at 8,192, with a t of 17 bits."""
    assert [bfv_context(degree).depth for degree in (4096, 8192)] == [1, 4]


@needs_tenseal
def test_sums_spend_budget_too_and_are_refused_in_time(refuses):
    context = bfv_context(4096, 1032193)
    x = bfv_encrypt(context, [1, -1], limit=1)
    y = bfv_multiply(x, x)
    sums = 0
    while y.budget > 1:
        before, y = y.budget, bfv_add(y, y)
        assert math.isclose(before - y.budget, 1)
        assert measured_budget(y) >= y.budget
        sums += 1
    assert sums >= 1
    refuses(bfv_add, {"x": y, "y": y}, "the sum would spend the noise budget", "or a smaller t")
    assert bfv_decrypt(y).tolist() == [2**sums, 2**sums]


@needs_tenseal
def test_mixed_circuits_are_right_until_they_are_refused(context):
    draw, t = random.Random(1), context.t
    numbers = [[draw.randint(-context.largest, context.largest) for _ in range(50)] for _ in range(3)]
    pool = [(bfv_encrypt(context, n), n) for n in numbers]
    refusals = 0
    for _ in range(25):
        (x, a), (y, b) = draw.choice(pool[-3:]), draw.choice(pool)
        multiply = draw.random() < 0.6
        try:
            z = (bfv_multiply if multiply else bfv_add)(x, y)
        except ValueError:
            refusals += 1
            pool = pool[:3]
            continue
        c = [centered(p * q if multiply else p + q, t) for p, q in zip(a, b, strict=True)]
        assert bfv_decrypt(z, modulo=True).tolist() == c
        assert measured_budget(z) >= z.budget
        pool.append((z, c))
    assert refusals >= 1


# --- beside CKKS ------------------------------------------------------------------------------------------------------


@needs_tenseal
def test_bfv_is_exact_modulo_t_and_ckks_nearly_right_at_any_size(context):
    secret = secret_key(ckks_context(8192, (30,) * 5))
    both = squares_in_both([3, -5, 7], 3, integers=context, secret=secret)
    assert both.plain[-1] == [3**8, 5**8, 7**8]
    for plain, exact, near, error in zip(both.plain, both.bfv, both.ckks, both.error, strict=True):
        assert exact.tolist() == [centered(n, context.t) for n in plain]
        assert 0 < np.abs(near - plain).max() < error
    assert both.bfv[2].tolist() == both.plain[2] and both.bfv[3].tolist() != both.plain[3]  # 390,625 wraps
    assert all(a - b > 16 for a, b in zip(both.budget, both.budget[1:], strict=False))  # the bits of t, at least


# --- parameters and arguments -----------------------------------------------------------------------------------------


def test_plain_moduli_are_the_smallest_primes_that_serve():
    for degree in (4096, 8192, 16384):
        for least in (1, 40961, 65538, 10**6):
            t = plain_modulus(degree, least)
            smaller = range(1 + 2 * degree * -(-(least - 1) // (2 * degree)), t, 2 * degree)
            assert sympy.isprime(t) and t % (2 * degree) == 1 and t >= least
            assert not any(sympy.isprime(n) for n in smaller)


@needs_tenseal
@pytest.mark.parametrize("degree", [4096, 8192])
def test_contexts_are_128_bits_secure(degree):
    context = bfv_context(degree)
    assert (math.prod(context.primes) * context.special).bit_length() <= SECURE_BITS[degree]
    assert all(q % (2 * degree) == 1 and sympy.isprime(q) for q in (*context.primes, context.special))
    assert "128-bit security" in str(context)


@needs_tenseal
def test_the_library_says_less(library, context):
    """What our messages replace: a refusal that names nothing, and numbers that are taken modulo t."""
    accepted = library.context(library.SCHEME_TYPE.BFV, 8192, plain_modulus=65536)
    with pytest.raises(ValueError, match="batching") as caught:  # only once it is used
        library.bfv_vector(accepted, [1])
    assert "65536" not in str(caught.value)
    assert library.bfv_vector(context.library, [65537 + 5]).decrypt() == [5]


@needs_tenseal
def test_bad_arguments_are_named(context, refuses):
    for t, words in [
        (65536, ("t is 65,536; accepted: a prime that is 1 modulo 2 N = 16,384, such as 65,537",)),
        (40961, ("t is 40,961", "such as 65,537")),
        (16385, ("t is 16,385", "such as 65,537")),
        (2**33 + 1, ("t is 8,589,934,593",)),
        (1, ("t is 1", "at least 2")),
        (65537.0, ("t is 65537.0",)),
    ]:
        refuses(bfv_context, {"degree": 8192, "t": t}, *words)
    refuses(bfv_context, {"degree": 2048}, "degree is 2,048; accepted: 4,096, 8,192, 16,384")
    refuses(plain_modulus, {"degree": 8192, "least": 2**32}, "least is 4294967296")
    x = bfv_encrypt(context, [1, 2])
    for values, words in [
        ([32769], ("values has 32,769; accepted: from -32,768 to 32,768", "65,537")),
        ([-32769], ("values has -32,769",)),
        ([1.5], ("values has 1.5; accepted: whole numbers",)),
        ([True], ("values has True",)),
        (np.array([1.0]), ("values has 1.0",)),
        ([], ("values is 0 numbers",)),
        ([1] * 8193, ("values is 8,193 numbers; accepted: 1 to 8,192",)),
        ("12", ("values is '12'",)),
    ]:
        refuses(bfv_encrypt, {"context": context, "values": values}, *words)
    assert bfv_decrypt(bfv_encrypt(context, np.array([32768, -32768]))).tolist() == [32768, -32768]
    refuses(bfv_encrypt, {"context": context, "values": [5], "limit": 4}, "values reach 5 in size", "limit, 4")
    refuses(bfv_encrypt, {"context": context, "values": [5], "limit": 0}, "limit is 0")
    refuses(bfv_encrypt, {"context": None, "values": [5]}, "context is a NoneType")
    refuses(bfv_add, {"x": x, "y": 3}, "y is a int")
    refuses(bfv_multiply, {"x": x, "y": bfv_encrypt(context, [1])}, "y has 1 numbers; accepted: 2")
    refuses(bfv_add, {"x": x, "y": bfv_encrypt(bfv_context(4096), [1, 2])}, "y is of another context")
    refuses(bfv_decrypt, {"x": x, "modulo": 1}, "modulo is 1")
    refuses(measured_budget, {"x": 3}, "x is a int")
    refuses(squares_in_both, {"values": [1], "squares": -1, "integers": context, "secret": 3}, "secret is a int")


def test_without_tenseal_modules_import_and_functions_say_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tenseal", None)
    monkeypatch.delitem(sys.modules, "tenseal.sealapi", raising=False)
    for module in (bfv, bfv_parameters, bfv_and_ckks, cryptonets_tenseal, tenseal_library, tenseal_traps):
        source = ast.parse(Path(module.__file__).read_text())
        imported = [node for node in ast.walk(source) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [getattr(node, "module", None) or node.names[0].name for node in imported]
        assert "tenseal" not in [name.split(".")[0] for name in names]
    for call in (bfv.bfv_context, cryptonets_tenseal.tenseal_context, tenseal_traps.trap_context):
        with pytest.raises(ModuleNotFoundError, match=r"TenSEAL cannot be imported .*its extra he, ") as caught:
            call()
        assert caught.value.name == "tenseal"
