"""Chapter 14's exercises: right answers of other styles, odd answers, and the truths that answers are held against."""

import functools
import math
import random
import secrets
from collections import deque

import numpy as np
import pytest
import torch
from numpy.polynomial import Polynomial
from scipy.integrate import quad

from spai_lab.crypto import ckks, paillier
from spai_lab.crypto.ckks_context import SECURE_BITS
from spai_lab.crypto.paillier_keys import Ciphertext, PublicKey
from spai_lab.exercises import EXERCISES, check
from spai_lab.exercises.chapter_14 import activations, chains, circuits, products, rotations, salaries
from spai_lab.exercises.exercise import sentence


def said(feedback) -> str:
    return " ".join(repr(feedback).split())


def explained(name: str, answer, message: str) -> None:
    feedback = getattr(check, name)(answer)
    assert feedback.verdict == "wrong"
    assert message in said(feedback)


def passes(name: str, answer) -> None:
    feedback = getattr(check, name)(answer)
    assert feedback.verdict == "passed", feedback


# --- encrypted_salaries


def with_the_package(n, c1, c2):
    public = PublicKey(n, for_learning=True)
    c, other = (Ciphertext(value, public.fingerprint) for value in (c1, c2))
    return paillier.rerandomize(public, paillier.add(public, c, other))


def adds_an_encryption_of_zero(n, c1, c2):
    zero = paillier.encrypt(PublicKey(n, for_learning=True), 0)
    return c1 * zero.value * c2 % (n * n)


def step_by_step(n, c1, c2):
    r = 0
    while math.gcd(r, n) != 1:
        r = secrets.SystemRandom().randrange(n)
    total = c1 * c2 % n**2
    for _ in range(1):
        total = total * pow(r, n, n**2) % n**2
    return total


def with_a_large_exponent(n, c1, c2):
    return c1 * c2 * pow(secrets.randbits(200), 3 * n, n**2) % n**2


@pytest.mark.parametrize(
    "answer",
    [with_the_package, adds_an_encryption_of_zero, step_by_step, with_a_large_exponent],
    ids=lambda f: f.__name__,
)
def test_any_way_to_a_fresh_sum_passes(answer):
    passes("encrypted_salaries", answer)


ODD_SUMS = {
    "nothing": (lambda n, c1, c2: None, "returns None"),
    "words": (lambda n, c1, c2: "c", "returns 'c'; expected a whole number"),
    "a list": (lambda n, c1, c2: [c1, c2], "expected a whole number"),
    "an array": (lambda n, c1, c2: np.arange(3), "expected one whole number"),
    "a truth value": (lambda n, c1, c2: True, "expected a whole number"),
    "a fraction": (lambda n, c1, c2: 0.5, "expected a whole number"),
    "zero": (lambda n, c1, c2: 0, "number below 1"),
    "a multiple of n": (lambda n, c1, c2: 2 * n, "shares a factor with n"),
    "the first salary": (lambda n, c1, c2: c1, "of another number than the sum"),
    "twice the first": (lambda n, c1, c2: c1**2 * pow(5, n, n**2) % n**2, "of another number than the sum"),
    "a random number": (lambda n, c1, c2: 1 + secrets.randbelow(n**2 - 1), "of another number than the sum"),
    "a division": (lambda n, c1, c2: c1 / 0, "ZeroDivisionError"),
}


@pytest.mark.parametrize(("answer", "message"), ODD_SUMS.values(), ids=ODD_SUMS)
def test_odd_sums_are_explained(answer, message):
    explained("encrypted_salaries", answer, message)


def test_an_answer_that_fails_under_one_key_alone_gets_a_guess():
    def forgets_now_and_then(n, c1, c2):
        right = EXERCISES["encrypted_salaries"].solution
        return c1 * c2 % n**2 if n.bit_length() == 320 else right(n, c1, c2)

    text = said(check.encrypted_salaries(forgets_now_and_then))
    assert "Not each of its results is a fresh ciphertext of the sum. A guess: It returns c1 c2" in text


def test_numbers_from_random_leave_its_state_to_the_caller():
    random.seed(3)
    state = random.getstate()
    explained("encrypted_salaries", salaries.draws_from_random, "`secrets`".replace("`", ""))
    assert random.getstate() == state


def test_keys_are_drawn_afresh_and_are_long_enough_for_a_verdict():
    first = set(salaries.secret_keys())
    salaries.secret_keys.cache_clear()
    assert not first & set(salaries.secret_keys())
    assert all(n.bit_length() in salaries.KEY_BITS for n in first)


# --- coefficient_chain


def chain_by_logarithms(operations, scale_bits, largest_logit, secure_bits):
    levels = len([name for name in operations if name in {"weights", "square"}])
    bits = [math.floor(math.log2(largest_logit)) + 2 + scale_bits] + levels * [scale_bits]
    return [np.int64(next(n for n in sorted(secure_bits) if secure_bits[n] >= sum(bits) + 30)), np.array(bits)]


def chain_by_trying(operations, scale_bits, largest_logit, secure_bits):
    first = scale_bits
    while 2 ** (first - 1) <= largest_logit * 2**scale_bits:
        first += 1
    sizes = (first, *(scale_bits for name in operations if name not in {"sum", "bias"}))
    for degree in secure_bits:
        try:
            ckks.ckks_context(degree, sizes)
        except ValueError:
            continue
        return torch.tensor(degree), torch.tensor(sizes)
    return None


def chain_with_the_first_prime_as_wide_as_is_free(operations, scale_bits, largest_logit, secure_bits):
    degree, (_, *rest) = EXERCISES["coefficient_chain"].solution(operations, scale_bits, largest_logit, secure_bits)
    return degree, (min(30, secure_bits[degree] - 30 - sum(rest)), *rest)


def chain_that_spoils_its_arguments(operations, scale_bits, largest_logit, secure_bits):
    answer = EXERCISES["coefficient_chain"].solution(operations, scale_bits, largest_logit, secure_bits)
    operations.clear()
    secure_bits.clear()
    return answer


@pytest.mark.parametrize(
    "answer",
    [
        chain_by_logarithms,
        chain_by_trying,
        chain_with_the_first_prime_as_wide_as_is_free,
        chain_that_spoils_its_arguments,
    ],
    ids=lambda f: f.__name__,
)
def test_any_way_to_a_chain_passes(answer):
    passes("coefficient_chain", answer)


ODD_CHAINS = {
    "nothing": (lambda *case: None, "returns None"),
    "the degree alone": (lambda *case: 8192, "a degree and a tuple of bits"),
    "three things": (lambda *case: (8192, (30, 26), 30), "a degree and a tuple of bits"),
    "swapped": (lambda *case: ((30, 26), 8192), "Does the degree come first?"),
    "a float": (lambda *case: (8192.0, (30, 26)), "Its degree is 8192.0"),
    "no degree of the table": (lambda *case: (8000, (30, 26)), "the table has 1024, 2048, 4096, 8192, 16384"),
    "one number of bits": (lambda *case: (8192, 30), "expected a tuple of whole numbers"),
    "words": (lambda *case: (8192, "thirty"), "expected a tuple of whole numbers"),
    "halves": (lambda *case: (8192, (30.5, 26)), "expected a tuple of whole numbers"),
    "no prime": (lambda *case: (8192, ()), "one prime at least"),
    "negative": (lambda *case: (8192, (30, -26)), "one prime at least, each of 1 to 60 bits"),
    "astronomic": (lambda *case: (8192, (30, 10**400)), "each of 1 to 60 bits"),
    "too long": (lambda *case: (8192, (30,) * 9), "it lists 9 primes; expected 4"),
    "other primes": (lambda *case: (8192, (30, 26, 25, 26)), "have 25 to 26 bits; with 26 each"),
    "a scalar tensor": (lambda *case: (8192, torch.tensor(30)), "expected a tuple of whole numbers"),
    "a wide prime": (lambda *case: (8192, (60, 26, 26, 26)), "our package's primes have 30 at most"),
}


@pytest.mark.parametrize(("answer", "message"), ODD_CHAINS.values(), ids=ODD_CHAINS)
def test_odd_chains_are_explained(answer, message):
    explained("coefficient_chain", answer, message)


def run_network(operations, bits, scale_bits) -> ckks.Ciphertext:
    """The operations on a ciphertext of a tiny ring; weights are 1, at the scale that undoes what squares change."""
    context = ckks.ckks_context(64, bits, scale=2.0**scale_bits, insecure=True)
    secret = ckks.secret_key(context)
    products_key, rotation = ckks.relinearization_key(secret), ckks.rotation_keys(secret, (1,))
    x = ckks.encrypt(ckks.public_key(secret), ckks.encode(context, [0.5], limit=0.5))
    mended = lambda x: context.scale * context.primes[x.level] / x.scale  # noqa: E731
    run = {
        "weights": lambda x: ckks.rescale(ckks.multiply_constant(x, 1.0, scale=mended(x))),
        "square": lambda x: ckks.rescale(ckks.relinearize(ckks.multiply(x, x), products_key)),
        "sum": lambda x: ckks.assume_limit(ckks.add(x, ckks.rotate(x, 1, rotation)), 1.0),
        "bias": lambda x: ckks.assume_limit(ckks.add_plain(x, ckks.encode(context, 0.1, scale=x.scale)), 1.0),
    }
    for operation in operations:
        x = run[operation](x)
    return x


def test_chains_are_long_enough_for_their_networks_and_one_prime_less_is_not():
    for operations, scale_bits, largest_logit in chains.NETWORKS:
        _, bits = chains.my_coefficient_chain(operations, scale_bits, largest_logit, SECURE_BITS)
        y = run_network(operations, bits, scale_bits)
        assert y.level == 0
        assert 2 * largest_logit * y.scale < y.context.primes[0] < 4 * largest_logit * 2**scale_bits
        if len(bits) > 1:
            with pytest.raises(ValueError, match=r"no level is left|do not fit level 0"):
                run_network(operations, bits[:-1], scale_bits)


def test_networks_reach_every_degree_that_has_room_for_one_and_the_limit_itself():
    chosen = [chains.my_coefficient_chain(*network, SECURE_BITS) for network in chains.NETWORKS]
    assert {degree for degree, _ in chosen} == set(SECURE_BITS) - {1024}  # a special prime of 30 bits is above 27
    assert {sum(bits) + 30 - SECURE_BITS[degree] for degree, bits in chosen} >= {0}
    assert any(sum(bits) + 30 == SECURE_BITS[degree // 2] + 1 for degree, bits in chosen)
    assert any(sum(bits) <= SECURE_BITS[degree // 2] < sum(bits) + 30 for degree, bits in chosen)


# --- polynomial_relu


def relu_by_polyfit(degree, a):
    z = np.linspace(-a, a, 1000)
    return np.polyfit(z, z * (z > 0), degree)[::-1].tolist()


def relu_by_fit_and_convert(degree, a):
    z = np.linspace(-a, a, 5001)
    return Polynomial.fit(z, np.maximum(z, 0), degree).convert().coef


def relu_by_the_integrals(degree, a):
    """Normal equations, with the integrals in closed form."""
    k = np.arange(degree + 1)
    powers = k[:, None] + k
    gram = np.where(powers % 2, 0.0, 2 * a ** (powers + 1.0) / (powers + 1))
    return tuple(np.linalg.solve(gram, a ** (k + 2.0) / (k + 2)))


def relu_by_torch(degree, a):
    z = torch.linspace(-a, a, 3001, dtype=torch.float64)
    powers = torch.stack([z**k for k in range(degree + 1)], 1)
    return torch.linalg.lstsq(powers, z.relu()[:, None]).solution[:, 0].requires_grad_()


@pytest.mark.parametrize(
    "answer",
    [relu_by_polyfit, relu_by_fit_and_convert, relu_by_the_integrals, relu_by_torch],
    ids=lambda f: f.__name__,
)
def test_any_way_to_a_polynomial_passes(answer):
    passes("polynomial_relu", answer)


ODD_POLYNOMIALS = {
    "nothing": (lambda degree, a: None, "returns None"),
    "a number": (lambda degree, a: 0.5, "it returns 0.5; expected 3"),
    "words": (lambda degree, a: "z", "returns 'z'; expected 3 numbers"),
    "a mapping": (lambda degree, a: {0: 1.0}, "expected 3 numbers"),
    "complex": (lambda degree, a: np.ones(degree + 1) * 1j, "infinite, NaN or complex"),
    "astronomic": (lambda degree, a: [10**400] * (degree + 1), "expected 3 numbers"),
    "ragged": (lambda degree, a: [[1.0], [1.0, 2.0]], "expected 3 numbers"),
    "a function": (lambda degree, a: max, "expected 3 numbers"),
    "an object": (lambda degree, a: Polynomial([0, 1]), "expected 3 numbers"),
    "one too many": (lambda degree, a: [0.0] * (degree + 2), "For degree = 2 it returns 4 numbers; expected 3"),
    "the square": (lambda degree, a: [0.0, 0.0, 1.0], "For degree = 4 it returns 3 numbers; expected 5"),
    "a matrix": (lambda degree, a: np.zeros((degree + 1, 1)), "expected 3"),
    "NaN": (lambda degree, a: [math.nan] * (degree + 1), "infinite, NaN or complex"),
    "infinite": (lambda degree, a: [math.inf] * (degree + 1), "infinite, NaN or complex"),
    "zero": (lambda degree, a: [0] * (degree + 1), "its polynomial is 0 at z = 1, where ReLU is 1"),
}


@pytest.mark.parametrize(("answer", "message"), ODD_POLYNOMIALS.values(), ids=ODD_POLYNOMIALS)
def test_odd_polynomials_are_explained(answer, message):
    explained("polynomial_relu", answer, message)


def test_the_closed_form_is_the_least_squares_fit_of_the_integral():
    def squared_distance(p):
        return quad(lambda t: (p(t) - max(0.0, t)) ** 2, -1, 1, points=[0])[0]

    for degree in sorted({degree for degree, _ in activations.INTERVALS}):
        best = activations.projected(degree)
        least = squared_distance(best)
        for k in range(degree + 1):
            for step in (-0.01, 0.01):
                assert squared_distance(best + step * Polynomial.basis(k)) > least


def test_the_tolerance_lies_between_a_coarse_grid_and_another_fit():
    for degree, a in activations.INTERVALS:
        z = np.linspace(-a, a, 1000)
        fit = np.polyval(np.polyfit(z, np.maximum(z, 0), degree), a * activations.AT) / a
        assert np.abs(fit - activations.by_legendre(degree, a)).max() < activations.polynomial_relu.tolerance / 10


# --- inner_product


def large_steps_first(x, w, keys):
    """The largest step first, with the rescaling at the end."""
    total = ckks.multiply_plain(x, ckks.encode(x.context, np.array(w)))
    for k in reversed(range(int(math.log2(len(w))))):
        total = ckks.add(ckks.rotate(total, 1 << k, keys), total)
    return ckks.rescale(total)


def recursively(x, w, keys):
    def sum_of(total, n):
        if n == 1:
            return total
        return sum_of(ckks.add(total, ckks.rotate_many(total, (n // 2,), keys)[0]), n // 2)

    return sum_of(ckks.rescale(ckks.multiply_plain(x, ckks.encode(x.context, w, level=x.level))), len(w))


def by_sums_of_two(x, w, keys):
    p = ckks.rescale(ckks.multiply_plain(x, ckks.encode(x.context, w)))
    steps = [2**k for k in range(len(w)) if 2**k < len(w)]
    return functools.reduce(lambda total, step: ckks.rotate_sum(total, (0, step), keys), steps, p)


@pytest.mark.parametrize("answer", [large_steps_first, recursively, by_sums_of_two], ids=lambda f: f.__name__)
def test_any_way_to_an_inner_product_passes(answer):
    passes("inner_product", answer)


def rotates_by_one_to_the_end(x, w, keys):
    total = rotated = rotations.weighted(x, w)
    for _ in range(len(w) - 1):
        rotated = ckks.rotate(rotated, 1, keys)
        total = ckks.add(total, rotated)
    return total


def baby_steps_and_giant_steps(x, w, keys):
    b = 2 ** (int(math.log2(len(w))) // 2)
    total = ckks.rotate_sum(rotations.weighted(x, w), range(b), keys)
    return ckks.rotate_sum(total, range(0, len(w), b), keys)


def rotates_to_the_right(x, w, keys):
    total = rotations.weighted(x, w)
    return ckks.add(total, ckks.rotate(total, -1, keys))


ODD_INNER_PRODUCTS = {
    "nothing": (lambda x, w, keys: None, "returns None"),
    "a number": (lambda x, w, keys: 0.5, "returns 0.5; expected a ciphertext"),
    "an array": (lambda x, w, keys: np.ones(3), "expected a ciphertext"),
    "a plaintext": (lambda x, w, keys: ckks.encode(x.context, w), "expected a ciphertext"),
    "a function": (lambda x, w, keys: max, "expected a ciphertext"),
    "itself": (lambda x, w, keys: x, "For 16 numbers slot 0 of its result has"),
    "one by one": (rotates_by_one_to_the_end, sentence(rotations.rotates_by_every_step)),
    "in two stages": (baby_steps_and_giant_steps, "For 16 numbers it rotates 6 times; 4 rotations are enough"),
    "to the right": (rotates_to_the_right, "ValueError: steps has -1; accepted: 1, 2, 3,"),
    "twice rescaled": (lambda x, w, keys: ckks.rescale(rotations.weighted(x, w)), "It stops in line"),
    "an operator": (lambda x, w, keys: x * w, "TypeError"),
}


@pytest.mark.parametrize(("answer", "message"), ODD_INNER_PRODUCTS.values(), ids=ODD_INNER_PRODUCTS)
def test_odd_inner_products_are_explained(answer, message):
    explained("inner_product", answer, message)


def test_a_ciphertext_under_another_key_is_refused():
    context = circuits.toy().context
    x = ckks.encrypt(ckks.public_key(ckks.secret_key(context)), ckks.encode(context, [1.0]))
    explained("inner_product", lambda *case: x, "under another key")
    explained("out_of_levels", lambda *case: x, "under another key")


def test_each_rotation_counts_once_however_it_is_asked_for():
    x, _, keys = rotations.vectors()[-1].values()
    ways = {
        1: lambda keys: ckks.rotate(x, 3, keys),
        0: lambda keys: ckks.rotate(x, 0, keys),
        2: lambda keys: ckks.rotate_many(x, (1, 0, 5), keys),
        5: lambda keys: ckks.rotate_sum(x, range(6), keys),
    }
    for expected, way in ways.items():
        counted = rotations.Counted(keys.keys)
        way(rotations.replace(keys, keys=rotations.MappingProxyType(counted)))
        assert counted.used == expected


def test_slots_behind_the_weights_hold_other_numbers():
    x, w, _ = rotations.vectors()[0].values()
    assert np.abs(circuits.decrypted(x)[len(w) :]).max() > 0.5


# --- out_of_levels


def with_a_queue(xs, key):
    queue = deque(xs)
    while len(queue) > 1:
        x, y = queue.popleft(), queue.popleft()
        level = min(x.level, y.level)
        product = ckks.multiply(ckks.lower(x, level), ckks.lower(y, level))
        queue.append(ckks.rescale(ckks.relinearize(product, key)))
    return queue[0]


def by_halves(xs, key):
    if len(xs) == 1:
        return xs[0]
    half = len(xs) // 2
    return products.times(by_halves(xs[:half], key), by_halves(xs[half:], key), key)


def lowering_what_waits(xs, key):
    while len(xs) > 1:
        level = xs[0].level - 1
        done = [products.times(xs[i], xs[i + 1], key) for i in range(0, len(xs) - 1, 2)]
        xs = done + [ckks.lower(x, level) for x in xs[2 * len(done) :]]
    return xs[0]


def three_in_a_last_product(xs, key):
    """What is left over joins the last product of its round: that costs no level more in the end."""
    while len(xs) > 1:
        done = [products.times(x, y, key) for x, y in zip(xs[::2], xs[1::2], strict=False)]
        xs = [*done[:-1], products.times(done[-1], xs[-1], key)] if len(xs) % 2 else done
    return xs[0]


def that_empties_its_list(xs, key):
    while len(xs) > 1:
        xs.sort(key=lambda x: -x.level)
        xs.append(products.times(xs.pop(0), xs.pop(0), key))
    return xs.pop()


STYLES = [with_a_queue, by_halves, lowering_what_waits, three_in_a_last_product, that_empties_its_list]


@pytest.mark.parametrize("answer", STYLES, ids=lambda f: f.__name__)
def test_any_way_to_a_shallow_product_passes(answer):
    passes("out_of_levels", answer)


ODD_PRODUCTS = {
    "nothing": (lambda xs, key: None, "returns None"),
    "the list": (lambda xs, key: xs, "expected a ciphertext"),
    "an array": (lambda xs, key: np.ones(4), "expected a ciphertext"),
    "an infinity": (lambda xs, key: math.inf, "returns inf; expected a ciphertext"),
    "the first": (lambda xs, key: xs[0], "For 8 ciphertexts slot"),
    "always two": (lambda xs, key: products.times(xs[0], xs[1], key), "For 8 ciphertexts slot"),
    "three parts": (lambda xs, key: ckks.rescale(ckks.multiply(xs[0], xs[1])), "relinearize it first"),
    "levels apart": (
        lambda xs, key: ckks.multiply(products.times(xs[0], xs[1], key), xs[2]),
        "lower() the higher one",
    ),
    "wasteful": (
        lambda xs, key: ckks.lower(EXERCISES["out_of_levels"].solution(xs, key), 2),
        "For 8 ciphertexts it uses 7 levels; 3 are enough",
    ),
}


@pytest.mark.parametrize(("answer", "message"), ODD_PRODUCTS.values(), ids=ODD_PRODUCTS)
def test_odd_products_are_explained(answer, message):
    explained("out_of_levels", answer, message)


def test_three_levels_stop_the_code_of_the_task_and_are_enough_for_the_solution():
    xs, key = products.factors()[0].values()
    lowered = [ckks.lower(x, 3) for x in xs]
    assert len(xs) == 8
    with pytest.raises(ValueError, match="no level is left"):
        products.product_of_all(lowered, key)
    y = EXERCISES["out_of_levels"].solution(lowered, key)
    assert y.level == 0
    expected = np.prod([circuits.decrypted(x) for x in xs], axis=0)
    np.testing.assert_allclose(circuits.decrypted(y), expected, atol=circuits.toy().context.slots * y.error)


def test_the_fewest_levels_are_those_of_a_tree_and_fewer_cannot_be():
    for count in range(1, 40):
        assert products.fewest_levels(count) == math.ceil(math.log2(count))


def test_the_task_shows_the_code_that_is_to_be_mended():
    task = EXERCISES["out_of_levels"].task
    assert "product = ckks.multiply(total, ckks.lower(x, total.level))" in task
    assert "CODE" not in task
