"""A sum of two numbers that whoever adds them cannot read, and that nobody recognizes: Paillier, by hand."""

import math
import operator
import random
import secrets
from collections.abc import Callable
from functools import cache

import numpy as np

from spai_lab.checks import describe
from spai_lab.crypto import paillier
from spai_lab.crypto.paillier_keys import Ciphertext, SecretKey, generate_key
from spai_lab.exercises.exercise import Exercise, Fault, call

CHAPTER = "14_homomorphic_encryption"
KEY_BITS = (256, 320)  # enough to be sure of a verdict, too few for secrets
HIGHEST = 10**6
FEW = 1000  # so many r anybody tries
RIGHT, UNKNOWN = 0.0, -1.0


def my_encrypted_salaries(n, c1, c2):
    """An encryption of the sum of two salaries, that nobody can tell from a new one.

    n: the public key, a product of two large primes.
    c1, c2: the encrypted salaries, whole numbers from 1 to n^2 - 1.
    Returns a ciphertext of the sum, from 1 to n^2 - 1, another one each time.
    """
    r = 1 + secrets.randbelow(n - 1)
    return c1 * c2 * pow(r, n, n**2) % n**2


def drawn(n: int) -> int:
    """A fresh r; less than once in 2^126 times it shares a factor with n."""
    return 1 + secrets.randbelow(n - 1)


def adds_the_ciphertexts(n, c1, c2):
    """It adds the ciphertexts; the salaries stand in exponents, and exponents are added by a product, c1 c2."""
    return (c1 + c2) * pow(drawn(n), n, n**2) % n**2


def reduces_modulo_n(n, c1, c2):
    """It reduces modulo n, where 1 + n is 1 and every salary is gone; ciphertexts live modulo n^2."""
    return c1 * c2 * pow(drawn(n), n, n) % n


def never_reduces(n, c1, c2):
    """Its result is n^2 or more, and longer with each salary that is added; take it modulo n^2."""
    return c1 * c2 * pow(drawn(n), n, n**2)


def leaves_it_recognizable(n, c1, c2):
    """It returns c1 c2, which whoever saw both can compute, too; multiply by a fresh r^n, which encrypts 0."""
    return c1 * c2 % n**2


def takes_the_same_r(n, c1, c2):
    """It makes the same ciphertext each time, which who knows its r recognizes; draw r afresh, with `secrets`."""
    return c1 * c2 * pow(12345, n, n**2) % n**2


def draws_a_small_r(n, c1, c2):
    """Its r is a small number, and anybody can try these one by one; draw it from 1 to n - 1."""
    return c1 * c2 * pow(2 + secrets.randbelow(98), n, n**2) % n**2


def draws_from_random(n, c1, c2):
    """It draws from `random`, whose next numbers follow from earlier ones; what must hide something is `secrets`."""
    return c1 * c2 * pow(random.randrange(1, n), n, n**2) % n**2


def hides_without_the_power(n, c1, c2):
    """Its mask is a number below n, no n-th power modulo n^2, and changes the sum; `pow(r, n, n**2)` is one."""
    return c1 * c2 * drawn(n) % n**2


def adds_a_random_number(n, c1, c2):
    """Its mask is a power of 1 + n, which encrypts a number: that is added to the sum; multiply by r^n alone."""
    return c1 * c2 * pow(1 + n, drawn(n), n**2) % n**2


def subtracts_a_salary(n, c1, c2):
    """It divides by a ciphertext, and so subtracts a salary; a product adds."""
    return c1 * pow(c2, -1, n**2) * pow(drawn(n), n, n**2) % n**2


KINDS = (
    adds_the_ciphertexts,
    reduces_modulo_n,
    never_reduces,
    leaves_it_recognizable,
    takes_the_same_r,
    draws_a_small_r,
    draws_from_random,
    hides_without_the_power,
    adds_a_random_number,
    subtracts_a_salary,
)


def kind(failure: Callable) -> float:
    """A number for a kind of failure, above that of a right answer."""
    return 1.0 + KINDS.index(failure)


# --- how an answer is judged


@cache
def secret_keys() -> dict[int, SecretKey]:
    """From n to the key that decrypts, for some n of different lengths; only the judge knows them."""
    keys = [generate_key(bits, for_learning=True) for bits in KEY_BITS]
    return {key.public.n: key for key in keys}


def payrolls() -> list[dict]:
    """Two salaries, freshly encrypted, under each key; and one that is 0."""
    n, other = secret_keys()
    salaries = [(n, secrets.randbelow(HIGHEST), secrets.randbelow(HIGHEST)) for n in (n, other)] + [(n, HIGHEST, 0)]
    encrypted = [(n, *(paillier.encrypt(secret_keys()[n], m).value for m in both)) for n, *both in salaries]
    return [{"n": n, "c1": c1, "c2": c2} for n, c1, c2 in encrypted]


@cache
def few_masks(n: int) -> frozenset[int]:
    """The masks of the smallest r."""
    return frozenset(pow(r, n, n * n) for r in range(1, FEW + 1))


def inside(n: int, c: int) -> int:
    """The number in a ciphertext."""
    key = secret_keys()[n]
    return paillier.decrypt(key, Ciphertext(c % (n * n), key.public.fingerprint))


def as_whole(result: object, n: int) -> int:
    """The result as an int.

    Raises:
        Fault: it cannot be a ciphertext.
    """
    if result is None:
        raise Fault("It returns None: is the `return` missing?")
    value = result.value if isinstance(result, Ciphertext) else result
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise Fault(f"It returns {describe(result)}; expected a whole number, the ciphertext.")
    try:
        value = operator.index(value)
    except (TypeError, ValueError) as error:
        raise Fault(f"It returns {describe(result)}; expected one whole number, the ciphertext.") from error
    if value <= 0 or math.gcd(value, n) > 1:
        raise Fault("It returns a number below 1, or one that shares a factor with n; no ciphertext does.")
    return value


def add_twice(answer: Callable, n, c1, c2) -> float:
    """`RIGHT`, `UNKNOWN` or the number of a kind of failure, from two sums of the same salaries."""
    state = random.getstate()
    sums = [as_whole(call(answer, n=n, c1=c1, c2=c2), n) for _ in range(2)]
    predictable = random.getstate() != state
    random.setstate(state)
    failure = what_fails(n, c1, c2, *sums)
    if failure is None and predictable:
        failure = draws_from_random
    return RIGHT if failure is None else failure if failure == UNKNOWN else kind(failure)


def what_fails(n: int, c1: int, c2: int, c: int, again: int) -> Callable | float | None:
    """The kind of failure, `UNKNOWN`, or None; $u = c / c_1 c_2$ is what the answer has multiplied by."""
    if c >= n * n:
        return never_reduces
    u = c * pow(c1 * c2, -1, n * n) % (n * n)
    if u == 1:
        return leaves_it_recognizable
    if inside(n, u) == 0:
        if u in few_masks(n):
            return draws_a_small_r
        return takes_the_same_r if c == again else None
    if c < n or inside(n, c) == inside(n, c1 * c2 % n):
        return reduces_modulo_n
    if math.gcd(c1 + c2, n) == 1 and inside(n, c) == inside(n, c1 + c2):
        return adds_the_ciphertexts
    if u < n:
        return hides_without_the_power
    if u % n == 1:
        return adds_a_random_number
    return subtracts_a_salary if inside(n, c) == (inside(n, c1) - inside(n, c2)) % n else UNKNOWN


def not_the_sum(result: np.ndarray, n, c1, c2) -> str:
    """What is known of a failure of no kind."""
    if result == UNKNOWN:
        return "It returns a ciphertext of another number than the sum of the two salaries."
    return "Not each of its results is a fresh ciphertext of the sum."


encrypted_salaries = Exercise(
    chapter=CHAPTER,
    task=r"""
        **A sum that nobody reads.** Paillier encrypts a whole number $m$ under the public key $n$ as

        $$c = (1 + n)^m \, r^n \bmod n^2,$$

        with a new $r$ each time, drawn from 1 to $n - 1$. (It must share no factor with $n$, a product of two large
        primes, and next to none does.) A service gets two salaries, encrypted as `c1` and `c2`, and has no key but `n`.

        Write `my_encrypted_salaries(n, c1, c2)`, which returns a ciphertext of their sum. It goes to people who have
        seen `c1` and `c2`, and they must not find out whose salaries were added: make it look like a new encryption.
    """,
    solution=my_encrypted_salaries,
    truth=lambda n, c1, c2: RIGHT,
    cases=payrolls,
    tested="random salaries under new keys of 256 and 320 bits, decrypted; each sum twice, for the r behind it",
    hints=(
        "Multiply two ciphertexts as the equation writes them: what stands in the exponent of $1 + n$, and what takes "
        "the place of $r$?",
        "So $c_1 c_2 \\bmod n^2$ has the sum inside, and everybody who has both can compute it as well. An encryption "
        "of 0, which is $r^n$, changes its look and nothing else.",
        "`secrets.randbelow(n - 1)` draws from 0 to n - 2, and `pow(r, n, n**2)` is r^n modulo n^2.",
    ),
    mistakes=KINDS,
    call=add_twice,
    look=not_the_sum,
)
