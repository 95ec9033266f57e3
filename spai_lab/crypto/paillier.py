r"""Paillier encryption: multiply two ciphertexts, and the numbers inside are added.

A public key is $n = p q$. Everything happens modulo $n^2$, where $(1 + n)^m = 1 + m n$: the message sits in an exponent
and is read off without a search, once $r^n$, which hides it, is gone. Only who knows p and q can take that away, by
the *decisional composite residuosity* assumption. Who factors n breaks it, and so would a large quantum computer.

| what one does with ciphertexts | what happens to the plaintexts, modulo n |
|---|---|
| $c_1 c_2$ | $m_1 + m_2$ |
| $c \, (1 + k n)$ | $m + k$ |
| $c^k$ | $k \, m$ |
| $c \, r^n$ | nothing: the same message in another dress |

Two encrypted numbers cannot be multiplied with each other: that takes another scheme. Plaintexts here are the whole
numbers from 0 to n - 1 and sums wrap around at n; `spai_lab.crypto.paillier_numbers` adds signs, fractions and a range
that nothing leaves unnoticed.

**For learning, not for secrets.** Python's arithmetic takes longer for some numbers than for others, and nothing here
hides that, nor what stays in memory. Ciphertexts can be changed by anybody, as the table says: who must notice it adds
a signature or a MAC, and never decrypts for strangers.
"""

import math
import secrets
from collections.abc import Iterable

from spai_lab.crypto.paillier_keys import (
    Ciphertext,
    Key,
    PublicKey,
    SecretKey,
    check_ciphertext,
    check_key,
    check_whole,
    public_of,
)

# --- encryption -------------------------------------------------------------------------------------------------------


def encrypt(key: Key, m: int) -> Ciphertext:
    r"""Encrypt a whole number: $c = g^m r^n \bmod n^2$ with $g = 1 + n$, so that $g^m = 1 + m n$.

    A fresh r makes two encryptions of the same number look unrelated. With r = 1 the message could be read off; with
    the same r twice, $c_1 / c_2 = g^{m_1 - m_2}$ shows the difference.

    Args:
        key: the public key; or the secret one, which does the same in a third of the time.
        m: from 0 to n - 1.
    Returns:
        c.
    Raises:
        ValueError: names the argument; a number beyond n is not reduced silently.
    Reference: Paillier 1999, "Public-key cryptosystems based on composite degree residuosity classes", section 4,
        scheme 1, with the g of Damgård and Jurik 2001.
    Survey: private AI, cryptography, homomorphic encryption.
    Simplified: for learning; see the module.

    >>> key = SecretKey(4294967279, 4294967291, for_learning=True)
    >>> one, other = encrypt(key.public, 7), encrypt(key.public, 7)
    >>> one == other, decrypt(key, one), decrypt(key, other)
    (False, 7, 7)
    """
    public = public_of(key)
    m = check_whole("m", m, 0, public.n - 1)
    c = (1 + m * public.n) * mask(key, random_unit(public.n))
    return Ciphertext(c % public.n_squared, public.fingerprint)


def random_unit(n: int) -> int:
    r"""An element of $\mathbb{Z}_n^*$ from the cryptographic source, each with the same probability.

    >>> random_unit(3 * 5) in (1, 2, 4, 7, 8, 11, 13, 14)
    True
    """
    while True:
        r = secrets.randbelow(n)
        if math.gcd(r, n) == 1:
            return r


def mask(key: Key, r: int) -> int:
    r"""$r^n \bmod n^2$, what hides a message; modulo $p^2$ and $q^2$ and put together if p and q are known.

    $x^p \bmod p^2$ depends on $x \bmod p$ alone, so that $r^n = (r^q \bmod p)^p \bmod p^2$, with short numbers.

    >>> key = SecretKey(5, 7, for_learning=True)
    >>> [mask(key, r) == mask(key.public, r) == r**35 % 35**2 for r in (1, 2, 34)]
    [True, True, True]
    """
    if isinstance(key, PublicKey):
        return pow(r, key.n, key.n_squared)
    p, q = key.p, key.q
    return chinese(pow(pow(r, q, p), p, p * p), pow(pow(r, p, q), q, q * q), p * p, q * q)


def decrypt(key: SecretKey, c: Ciphertext) -> int:
    r"""Decrypt, modulo p and modulo q: $m_p = L_p(c^{p - 1} \bmod p^2) \, h_p \bmod p$ with $L_p(x) = (x - 1) / p$.

    To the power $p - 1$ the mask $r^n$ becomes 1 modulo $p^2$, and $1 + m n$ becomes $1 - m q \, p$. So
    $h_p = (-q)^{-1} \bmod p$. The same with q, and the Chinese remainder theorem gives m modulo n.

    Args:
        key: the secret key.
        c: a ciphertext of that key.
    Returns:
        m, from 0 to n - 1.
    Raises:
        ValueError: another key's ciphertext, or no ciphertext at all.
    Reference: Paillier 1999, "Public-key cryptosystems based on composite degree residuosity classes", section 7,
        "Decryption using Chinese-remaindering".
    Survey: private AI, cryptography, homomorphic encryption.
    Simplified: for learning; see the module.

    >>> key = SecretKey(4294967279, 4294967291, for_learning=True)
    >>> decrypt(key, encrypt(key.public, 42))
    42
    """
    check_key("key", key, SecretKey)
    check_ciphertext("c", c, key.public)

    def part(p: int, q: int) -> int:
        return (pow(c.value, p - 1, p * p) - 1) // p * pow(-q, -1, p) % p

    p, q = key.p, key.q
    return chinese(part(p, q), part(q, p), p, q)


def chinese(a: int, b: int, p: int, q: int) -> int:
    """The x below p q that is a modulo p and b modulo q.

    >>> chinese(2, 3, 5, 7)
    17
    """
    return a + p * ((b - a) * pow(p, -1, q) % q)


# --- computing on ciphertexts -----------------------------------------------------------------------------------------


def add(public: PublicKey, c: Ciphertext, other: Ciphertext) -> Ciphertext:
    r"""The sum of two encrypted numbers: $c_1 c_2 = g^{m_1 + m_2} (r_1 r_2)^n \bmod n^2$. `rerandomize` what you send.

    Args:
        public: the key of both.
        c, other: ciphertexts.
    Returns:
        a ciphertext of $m_1 + m_2 \bmod n$.
    Raises:
        ValueError: names the argument, such as the one of another key.
    Reference: Paillier 1999, "Public-key cryptosystems based on composite degree residuosity classes", section 8.

    >>> key = SecretKey(4294967279, 4294967291, for_learning=True)
    >>> decrypt(key, add(key.public, encrypt(key, 20), encrypt(key, 22)))
    42
    """
    check_ciphertext("c", c, public)
    check_ciphertext("other", other, public)
    return Ciphertext(c.value * other.value % public.n_squared, public.fingerprint)


def add_plain(public: PublicKey, c: Ciphertext, k: int) -> Ciphertext:
    r"""Add a number that is no secret: $c \, g^k = c \, (1 + k n) \bmod n^2$. `rerandomize` what you send.

    Args:
        public: the key of c.
        c: a ciphertext.
        k: from -(n - 1) / 2 to (n - 1) / 2.
    Returns:
        a ciphertext of $m + k \bmod n$.
    Raises:
        ValueError: names the argument.
    Reference: Paillier 1999, "Public-key cryptosystems based on composite degree residuosity classes", section 8.

    >>> key = SecretKey(4294967279, 4294967291, for_learning=True)
    >>> decrypt(key, add_plain(key.public, encrypt(key, 45), -3))
    42
    """
    check_ciphertext("c", c, public)
    k = check_whole("k", k, -(public.n // 2), public.n // 2)
    return Ciphertext(c.value * (1 + k * public.n) % public.n_squared, public.fingerprint)


def multiply_plain(public: PublicKey, c: Ciphertext, k: int) -> Ciphertext:
    r"""Multiply by a number that is no secret: $c^k = g^{k m} (r^k)^n \bmod n^2$. `rerandomize` what you send.

    Args:
        public: the key of c.
        c: a ciphertext.
        k: from -(n - 1) / 2 to (n - 1) / 2; a negative power inverts c.
    Returns:
        a ciphertext of $k \, m \bmod n$. That of k = 0 is the number 1, which everybody recognizes.
    Raises:
        ValueError: names the argument.
    Reference: Paillier 1999, "Public-key cryptosystems based on composite degree residuosity classes", section 8.

    >>> key = SecretKey(4294967279, 4294967291, for_learning=True)
    >>> decrypt(key, multiply_plain(key.public, encrypt(key, 21), 2))
    42
    """
    check_ciphertext("c", c, public)
    k = check_whole("k", k, -(public.n // 2), public.n // 2)
    return Ciphertext(pow(c.value, k, public.n_squared), public.fingerprint)


def rerandomize(key: Key, c: Ciphertext) -> Ciphertext:
    r"""The same number in a new ciphertext, $c \, r^n \bmod n^2$, as if it had just been encrypted.

    Without it a result tells how it was made: who has $c$ and receives $c^k$ tries all weights k, as
    `constant_behind` does, and the server's model is no secret any more. With it the result says what its plaintext
    says, and nothing else.

    Args:
        key: the public key of c; or the secret one, for speed.
        c: a ciphertext.
    Returns:
        a ciphertext of the same number; evenly distributed among all of them.
    Raises:
        ValueError: names the argument.
    Reference: Paillier 1999, "Public-key cryptosystems based on composite degree residuosity classes", section 8,
        "Self-blinding".

    >>> key = SecretKey(4294967279, 4294967291, for_learning=True)
    >>> c = encrypt(key, 42)
    >>> other = rerandomize(key.public, c)
    >>> c == other, decrypt(key, other)
    (False, 42)
    """
    public = public_of(key)
    check_ciphertext("c", c, public)
    return Ciphertext(c.value * mask(key, random_unit(public.n)) % public.n_squared, public.fingerprint)


def constant_behind(public: PublicKey, before: Ciphertext, after: Ciphertext, candidates: Iterable[int]) -> int | None:
    r"""An attack: the constant by which a ciphertext was multiplied, if nobody re-randomized the product.

    It tries $c^k \bmod n^2$ for each k. No secret key is needed: everybody who saw both ciphertexts can do it.

    Args:
        public: the key of both.
        before: c.
        after: what came back.
        candidates: the k to try, such as `range(-128, 128)` for weights of 8 bits.
    Returns:
        the first k that explains it, or None.
    Raises:
        ValueError: names the argument.

    >>> key = SecretKey(4294967279, 4294967291, for_learning=True)
    >>> c = encrypt(key, 5)
    >>> product = multiply_plain(key.public, c, -17)
    >>> constant_behind(key.public, c, product, range(-128, 128))
    -17
    >>> print(constant_behind(key.public, c, rerandomize(key.public, product), range(-128, 128)))
    None
    """
    check_ciphertext("after", after, public)
    return next((k for k in candidates if multiply_plain(public, before, k) == after), None)
