"""Paillier against phe, against the textbook's formula, and with tiny keys against everything there is."""

import math
import secrets
from collections import Counter
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from spai_lab.crypto import paillier, paillier_keys, paillier_linear, paillier_vectors
from spai_lab.crypto.paillier import (
    add,
    add_plain,
    constant_behind,
    decrypt,
    encrypt,
    mask,
    multiply_plain,
    random_unit,
    rerandomize,
)
from spai_lab.crypto.paillier_keys import (
    Ciphertext,
    PublicKey,
    SecretKey,
    from_bytes,
    generate_key,
    key_from_bytes,
    key_to_bytes,
    random_prime,
    to_bytes,
)
from spai_lab.crypto.paillier_linear import LinearModel, encrypted_dot, encrypted_linear, linear_model, plain_linear
from spai_lab.crypto.paillier_numbers import (
    FixedPoint,
    check_fits,
    decode,
    encode,
    fixed_point,
    linear_format,
    product_format,
    sum_format,
)
from spai_lab.crypto.paillier_parties import linear_client, linear_server, sum_client, sum_key_holder, sum_server
from spai_lab.crypto.paillier_vectors import (
    EncryptedVector,
    decrypt_ks,
    decrypt_vector,
    encrypt_vector,
    encrypted_sum,
    vector_from_bytes,
    vector_to_bytes,
)
from spai_lab.crypto.parties import run_parties

ALPHA = 1e-6  # the false-alarm rate of a statistical test
TINY = [SecretKey(5, 7, for_learning=True), SecretKey(11, 13, for_learning=True), SecretKey(17, 31, for_learning=True)]
tiny = pytest.mark.parametrize("key", TINY, ids=lambda key: f"n = {key.public.n}")


@pytest.fixture(scope="session")
def key():
    return generate_key()


@pytest.fixture(scope="session")
def small():
    """Fast, for many ciphertexts."""
    return generate_key(128, for_learning=True)


@pytest.fixture(scope="session")
def other():
    return generate_key(128, for_learning=True)


@pytest.fixture(scope="session")
def theirs(key):
    """The same key as phe holds it: public and private."""
    phe = pytest.importorskip("phe")
    public = phe.PaillierPublicKey(key.public.n)
    return public, phe.PaillierPrivateKey(public, key.p, key.q)


def textbook(key: SecretKey, c: int) -> int:
    r"""$m = L(c^\lambda \bmod n^2) \mu \bmod n$, with Carmichael's function and no remainder theorem."""
    n, carmichael = key.p * key.q, math.lcm(key.p - 1, key.q - 1)

    def L(x):
        return (x - 1) // n

    return L(pow(c, carmichael, n * n)) * pow(L(pow(1 + n, carmichael, n * n)), -1, n) % n


def randomness(key: SecretKey, c: Ciphertext) -> int:
    r"""The r of a ciphertext: modulo n it is $r^n$, and the key's owner takes the n-th root."""
    n = key.p * key.q
    return pow(c.value % n, pow(n, -1, math.lcm(key.p - 1, key.q - 1)), n)


# --- everything there is ----------------------------------------------------------------------------------------------


@tiny
def test_encryption_is_one_to_one_onto_all_units_modulo_n_squared(key, monkeypatch):
    """Paillier's lemma 3: each element of Z*_{n^2} is the ciphertext of one m with one r; each comes back."""
    n, found = key.public.n, {}
    units = [r for r in range(n) if math.gcd(r, n) == 1]
    for r in units:
        monkeypatch.setattr(paillier, "random_unit", lambda n, r=r: r)
        for m in range(n) if n < 200 else range(0, n, 41):
            c = encrypt(key.public, m)
            assert c == encrypt(key, m) and decrypt(key, c) == textbook(key, c.value) == m
            assert randomness(key, c) == r
            found[c.value] = m
    if n < 200:
        assert found.keys() == {c for c in range(n * n) if math.gcd(c, n) == 1}
    else:
        assert len(found) == len(units) * len(range(0, n, 41))


@pytest.mark.parametrize("key", TINY[:2], ids=lambda key: f"n = {key.public.n}")
def test_all_sums_and_products(key):
    """All pairs modulo 35, and every seventh modulo 143."""
    public, n = key.public, key.public.n
    encrypted = [encrypt(key, m) for m in range(n)]
    for m, c in enumerate(encrypted):
        assert decrypt(key, rerandomize(public, c)) == m
        for k in range(m % 7 if n > 100 else 0, n, 7 if n > 100 else 1):
            centered = (k + n // 2) % n - n // 2
            assert decrypt(key, add(public, c, encrypted[k])) == (m + k) % n
            assert decrypt(key, add_plain(public, c, centered)) == (m + k) % n
            assert decrypt(key, multiply_plain(public, c, centered)) == m * k % n


@pytest.mark.parametrize("key", TINY[:2], ids=lambda key: f"n = {key.public.n}")
def test_signs_up_to_the_last_number_that_fits(key):
    """All sums of two numbers of the largest format whose sum fits; a format one larger is refused."""
    public, half = key.public, key.public.n // 2
    fmt = FixedPoint(-1, half // 2)
    ks = range(-fmt.largest, fmt.largest + 1)
    for k in ks:
        one = EncryptedVector((encrypt(key, k % public.n),) * len(ks), fmt)
        all_of_them = EncryptedVector(tuple(encrypt(key, j % public.n) for j in ks), fmt)
        assert decrypt_ks(key, encrypted_sum(public, [one, all_of_them])) == tuple(k + j for j in ks)
    large = encrypt_vector(key, [half / 2], FixedPoint(-1, half))
    assert decrypt_ks(key, large) == (half,)
    with pytest.raises(ValueError, match=f"vectors may reach {2 * half}, and wraps around"):
        encrypted_sum(public, [large, large])


# --- another's implementation -----------------------------------------------------------------------------------------

MESSAGES = [0, 1, 2**64 + 3, -1, -(2**1000)]


@pytest.mark.oracle
@pytest.mark.parametrize("m", MESSAGES, ids=["0", "1", "2^64", "-1", "-2^1000"])
def test_phe_decrypts_ours_and_we_decrypt_theirs(key, theirs, m):
    public, private = theirs
    m = m % public.n
    ours = encrypt(key, m)
    assert private.raw_decrypt(ours.value) == m == textbook(key, ours.value)
    assert decrypt(key, Ciphertext(public.raw_encrypt(m), key.public.fingerprint)) == m


@pytest.mark.oracle
def test_the_same_ciphertext_as_phe_for_the_same_randomness(key, theirs, monkeypatch):
    public, _ = theirs
    r = random_unit(public.n)
    monkeypatch.setattr(paillier, "random_unit", lambda n: r)
    for m in (5, public.n - 5):
        assert encrypt(key.public, m).value == encrypt(key, m).value == public.raw_encrypt(m, r_value=r)


@pytest.mark.oracle
def test_sums_and_products_agree_with_phe(key, theirs):
    """Ours from their ciphertexts, theirs from ours; exponents too: phe counts in powers of 16, we in powers of 2."""
    phe = pytest.importorskip("phe")
    public, private = theirs
    a, b = encrypt(key, 3 * 2**8), encrypt(key, (-5 * 2**7) % public.n)
    one, two = (phe.EncryptedNumber(public, c.value, exponent=-2) for c in (a, b))
    assert private.decrypt(one + two) == 0.5 and private.decrypt(two * 3) == -7.5
    assert private.raw_decrypt(add(key.public, a, b).value) == 2**7
    assert private.raw_decrypt(multiply_plain(key.public, a, -2).value) == public.n - 3 * 2**9
    assert private.raw_decrypt(add_plain(key.public, a, -(2**8)).value) == 2**9
    for c, expected in ((one + two, 0.5), (two * 3, -7.5), (one + 0.25, 3.25)):
        back = (Ciphertext(c.ciphertext(), key.public.fingerprint),)
        fmt = FixedPoint(4 * c.exponent, 2**200)
        assert decrypt_vector(key, EncryptedVector(back, fmt)).tolist() == [expected]
    assert add(key.public, a, b).value == (one + two).ciphertext(be_secure=False)


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_has_two_primes_of_equal_length_and_2048_bits(key):
    n = key.public.n
    assert n.bit_length() == 2048 and key.p.bit_length() == key.q.bit_length() == 1024 and n == key.p * key.q
    assert math.gcd(n, (key.p - 1) * (key.q - 1)) == 1 and abs(key.p - key.q) >= 2**924
    assert all(pow(base, prime - 1, prime) == 1 for prime in (key.p, key.q) for base in (2, 3, 5, 7))  # Fermat
    assert "learning" not in repr(key.public) and key.public.fingerprint.hex()[:8] in repr(key.public)


@pytest.mark.parametrize("bits", [16, 18, 64, 98, 1024])
def test_a_small_key_says_so(bits):
    public = generate_key(bits, for_learning=True).public
    assert public.n.bit_length() == bits and "too small for secrets" in repr(public)


def test_a_secret_key_shows_neither_prime(key):
    text = repr(key) + str(key.public)
    assert str(key.p) not in text and str(key.q) not in text
    with pytest.raises(ValueError, match="shares a factor") as caught:
        decrypt(key, Ciphertext(key.p, key.public.fingerprint))
    assert str(key.p)[:20] not in str(caught.value)


PRIMES = (193, 197, 199, 211, 223, 227, 229, 233, 239, 241, 251)


def next_prime(bits):
    """The faulty way: a random start, and the first prime from there. Primes after large gaps come too often."""
    start = secrets.randbits(bits) | 3 << (bits - 2)
    return next((p for p in PRIMES if p >= start), PRIMES[0])


def even(draws, expected) -> bool:
    """Whether each of the expected values comes equally often, by chi-square at 1e-6; no other may come."""
    counts = Counter(draws)
    if counts.keys() - set(expected):
        return False
    return stats.chisquare([counts[value] for value in expected]).pvalue > ALPHA


def test_primes_are_drawn_evenly():
    """2,200 draws; the faulty way gives 211 a share of 12 / 64 instead of 1 / 11, hundreds beyond chi-square's cut."""
    assert even([random_prime(8) for _ in range(2200)], PRIMES)
    assert not even([next_prime(8) for _ in range(2200)], PRIMES)


def test_close_primes_are_drawn_again(monkeypatch):
    near = [2**127 + 2**126 + 1, 2**127 + 2**126 + 3, 2**127 + 2**126 + 2**30]
    drawn = iter(near)
    monkeypatch.setattr(paillier_keys, "random_prime", lambda bits: next(drawn))
    monkeypatch.setattr(paillier_keys, "SecretKey", lambda p, q, for_learning: (p, q))
    assert generate_key(256, for_learning=True) == (near[0], near[2])


def test_keys_and_masks_come_from_the_operating_system(small, monkeypatch):
    """Without `secrets` nothing is drawn, and global random states do not matter."""

    class Asked(Exception):
        pass

    def asked(_):
        raise Asked

    monkeypatch.setattr(secrets, "randbits", asked)
    monkeypatch.setattr(secrets, "randbelow", asked)
    for draw in (generate_key, partial(encrypt, small, 1), partial(rerandomize, small, Ciphertext(1, name_of(small)))):
        with pytest.raises(Asked):
            draw()


def name_of(key: SecretKey) -> bytes:
    return key.public.fingerprint


# --- randomness -------------------------------------------------------------------------------------------------------


def randomized(key: SecretKey, ciphertexts) -> bool:
    """Whether no ciphertext is bare (r = 1) and no two share their r.

    With a key of 128 bits, honest ones fail with a probability of at most 100^2 / 2^125.
    """
    drawn = [randomness(key, c) for c in ciphertexts]
    return 1 not in drawn and len(set(drawn)) == len(drawn)


def ways(key: SecretKey) -> dict:
    """All that is sent to another party."""
    public, fmt = key.public, FixedPoint(0, 100)
    x = encrypt_vector(public, [3, 5], fmt)
    model = linear_model([[2, -1], [0, 0]], [7, 1], weight_fmt=fmt, input_fmt=fmt)
    return {
        "encrypt": [encrypt(public, 5) for _ in range(100)],
        "encrypt with the secret key": [encrypt(key, 5) for _ in range(100)],
        "rerandomize": [rerandomize(public, x.values[0]) for _ in range(100)] + list(x.values),
        "vector": encrypt_vector(public, [5] * 100, fmt).values,
        "sum": [*x.values, *(c for _ in range(5) for c in encrypted_sum(public, [x]).values)],
        "linear": [*x.values, *(c for _ in range(5) for c in encrypted_linear(public, model, x).values)],
    }


def test_all_that_is_sent_is_randomized(small):
    assert {way: randomized(small, sent) for way, sent in ways(small).items()} == dict.fromkeys(ways(small), True)


def test_planted_faults_are_caught(small, monkeypatch):
    """r = 1 and r reused wherever r is drawn; results that are not re-randomized."""
    for r in (1, random_unit(small.public.n)):
        with monkeypatch.context() as patch:
            patch.setattr(paillier, "random_unit", lambda n, r=r: r)
            assert not any(randomized(small, sent) for sent in ways(small).values())
    for module in (paillier_linear, paillier_vectors):
        monkeypatch.setattr(module, "rerandomize", lambda public, c: c)
    caught = {way for way, sent in ways(small).items() if not randomized(small, sent)}
    assert caught == {"sum", "linear"}


def test_what_the_faults_would_tell(small):
    """A bare message is read, a reused r shows a difference, a bare product shows its constant: without any key."""
    public, n = small.public, small.public.n
    assert ((1 + 5 * n) * mask(public, 1) % n**2 - 1) // n == 5
    r = random_unit(n)
    one, two = ((1 + m * n) * mask(public, r) % n**2 for m in (90, 48))
    assert (one * pow(two, -1, n**2) % n**2 - 1) // n == 90 - 48
    x = encrypt(public, 9)
    bare = encrypted_dot(public, [-77], 0, [x])
    assert constant_behind(public, x, bare, range(-128, 128)) == -77
    assert constant_behind(public, x, rerandomize(public, bare), range(-128, 128)) is None


def test_r_is_even_among_the_units():
    """2,400 draws over the 24 units of 35, from ciphertexts; one fault draws too low, one forgets to check the gcd."""
    key, units = TINY[0], [r for r in range(35) if math.gcd(r, 35) == 1]
    assert even([randomness(key, encrypt(key.public, 3)) for _ in range(2400)], units)
    c = encrypt(key, 3)
    assert even([rerandomize(key.public, c).value for _ in range(2400)], sorted(all_of(key, 3)))
    low = [r for r in (secrets.randbelow(18) for _ in range(5000)) if math.gcd(r, 35) == 1]
    assert not even(low, units) and not even([secrets.randbelow(35) for _ in range(2400)], units)


def all_of(key: SecretKey, m: int) -> set[int]:
    """All ciphertexts of m under a tiny key."""
    n = key.public.n
    return {(1 + m * n) * r**n % n**2 for r in range(n) if math.gcd(r, n) == 1}


# --- fixed point ------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-100, 100, width=32) | st.integers(-100, 100), min_size=1), st.integers(0, 60))
def test_encoding_rounds_exactly_and_comes_back(values, places):
    fmt = fixed_point(places, 100)
    ks = encode(values, fmt)
    nearest = [Fraction(v) * 2**places for v in np.asarray(values).tolist()]
    for k, v in zip(ks, nearest, strict=True):
        assert abs(k - v) < Fraction(1, 2) or (abs(k - v) == Fraction(1, 2) and k % 2 == 0)
    assert encode(decode(ks, fmt), fmt) == ks  # float32 and small integers: 53 bits hold them
    assert decode(ks, fmt).tolist() == [k / 2**places for k in ks]


@pytest.mark.parametrize(
    "values",
    [[0.5, -1.0], (0.5, -1.0), np.array([0.5, -1.0], np.float32), torch.tensor([0.5, -1.0], requires_grad=True)],
    ids=lambda values: type(values).__name__,
)
def test_vectors_of_any_kind(small, values):
    vector = encrypt_vector(small.public, values, fixed_point(8, 1))
    assert decrypt_vector(small, vector).tolist() == [0.5, -1.0]


def test_the_ranges_that_are_stated_are_reached(small):
    """Not idle: the largest inputs reach the largest output exactly, in both directions."""
    fx, fw = FixedPoint(-3, 9), FixedPoint(-5, 70)
    x = EncryptedVector(tuple(encrypt(small, 9) for _ in range(4)), fx)
    model = LinearModel(((70,) * 4, (-70,) * 4), (630, -630), fw, fx)
    ks = decrypt_ks(small, encrypted_linear(small.public, model, x))
    assert ks == (model.output_fmt.largest, -model.output_fmt.largest) == (5 * 630, -5 * 630)
    assert model.output_fmt == linear_format(4, fx, fw) == sum_format(5, product_format(fx, fw))
    assert decrypt_ks(small, encrypted_sum(small.public, [x] * 3))[0] == sum_format(3, fx).largest == 27


def test_overflow_is_an_error_and_never_a_wrap(refuses):
    """n = 143, so that numbers go to 71: what may leave that is refused, whatever the numbers are."""
    key = TINY[1]
    x = encrypt_vector(key, [1, 1], FixedPoint(0, 7))
    model = linear_model([[1, 1]], [0], weight_fmt=FixedPoint(0, 4), input_fmt=x.fmt)
    refuses(
        encrypted_linear, {"public": key.public, "model": model, "x": x}, "model may reach 84", "wraps around", "71"
    )
    fits = linear_model([[1, 1]], [0], weight_fmt=FixedPoint(0, 3), input_fmt=x.fmt)
    assert decrypt_ks(key, encrypted_linear(key.public, fits, x)) == (2,)
    refuses(encrypted_sum, {"public": key.public, "vectors": [x] * 11}, "vectors may reach 77", "wraps around")
    refuses(encrypt_vector, {"key": key, "values": [1], "fmt": FixedPoint(0, 72)}, "fmt may reach 72")
    refuses(check_fits, {"name": "x", "fmt": FixedPoint(0, 2**80), "public": key.public}, "about 2^80", "71")


def test_a_sender_who_breaks_the_format_is_seen_by_who_decrypts(small, refuses):
    vector = EncryptedVector((encrypt(small, 8),), FixedPoint(0, 7))
    refuses(decrypt_vector, {"key": small, "vector": vector}, "vector holds a number beyond", "largest=7")


# --- models and sums --------------------------------------------------------------------------------------------------

PIXELS, WEIGHTS = fixed_point(4, 1.0), fixed_point(10, 8.0)


@pytest.fixture(scope="session")
def classifier():
    """A logistic regression on raw 8x8 digits, and images and labels that it has not seen."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    x, y = load_digits(return_X_y=True)
    fitted = LogisticRegression(max_iter=200).fit(x[:1200] / 16, y[:1200])
    model = linear_model(fitted.coef_, fitted.intercept_, weight_fmt=WEIGHTS, input_fmt=PIXELS)
    return fitted, model, x[1200:] / 16, y[1200:]


def fixed_logits(fitted, x):
    """Fixed-point logits by NumPy's own rounding and int64 products."""
    w, b = np.rint(fitted.coef_ * 2**10).astype(np.int64), np.rint(fitted.intercept_ * 2**14).astype(np.int64)
    return np.rint(x * 16).astype(np.int64) @ w.T + b


def test_encrypted_digits_have_exactly_the_logits_of_fixed_point(small, classifier):
    fitted, model, x, y = classifier
    expected = fixed_logits(fitted, x[:20])
    for image, logits in zip(x[:20], expected, strict=True):
        vector = encrypted_linear(small.public, model, encrypt_vector(small, image, PIXELS))
        assert decrypt_ks(small, vector) == tuple(logits.tolist()) == plain_linear(model, encode(image, PIXELS))
        assert (decrypt_vector(small, vector) == logits / 2**14).all()
    everything = np.array([plain_linear(model, encode(image, PIXELS)) for image in x])
    assert (everything == fixed_logits(fitted, x)).all() and (everything.argmax(1) == y).mean() > 0.88


def test_rounding_is_within_its_bound_and_not_idle(classifier):
    """|z - z'| <= (sum of pixels + 1/16) 2^-11: a half step of each weight, and of the bias at its finer step."""
    fitted, model, x, _ = classifier
    z = np.array([decode(plain_linear(model, encode(image, PIXELS)), model.output_fmt) for image in x])
    error = np.abs(z - fitted.decision_function(x))
    bound = (x.sum(1, keepdims=True) + 2**-4) * 2**-11
    float64 = 65 * 2**-52 * (x @ np.abs(fitted.coef_).T + np.abs(fitted.intercept_))  # of the sum that we compare with
    assert (error <= bound + float64).all() and (error / bound).max() > 1e-3


def test_one_digit_under_a_real_key_between_two_parties(key, classifier):
    fitted, model, x, _ = classifier
    client = partial(linear_client, key=key, x=x[0], classes=10, input_fmt=PIXELS, weight_fmt=WEIGHTS)
    channels = []

    def server(channel):
        channels.append(channel)
        linear_server(channel, model)

    logits, _ = run_parties(client, server, view=2**20)
    assert (logits == fixed_logits(fitted, x[:1])[0] / 2**14).all()
    ((kind, values),) = channels[0].view
    seen = b"".join(values)
    assert kind == "features" and len(seen) == 256 + (32 + 2 + 256 + 64 * 512)
    for secret in (key.p, key.q):
        assert secret.to_bytes(128, "big") not in seen and secret.to_bytes(128, "little") not in seen
    assert channels[0].bytes_sent < 32 + 2 + 256 + 10 * 512 + 50


def test_each_party_of_a_sum_sees_what_its_table_says(small):
    updates = [[0.5, -1.0, 0.25], [0.25, 3.0, -4.0], [-1.0, 0.0, 4.0]]
    fmt, views = fixed_point(8, 4.0), {}

    def kept(name, party):
        def run(*channels):
            try:
                return party(*channels)
            finally:
                views[name] = [message for channel in channels for message in channel.view]

        return run

    server = partial(sum_server, size=3, fmt=fmt, for_learning=True)
    holder = partial(sum_key_holder, key=small, clients=3, size=3, fmt=fmt)
    clients = [partial(sum_client, update=update, fmt=fmt, for_learning=True) for update in updates]
    named = {"server": server, "holder": holder, **{f"client {i}": c for i, c in enumerate(clients)}}
    results = run_parties(*(kept(*item) for item in named.items()), topology="star", view=2**20)
    assert results[1].tolist() == np.sum(updates, axis=0).tolist() and results[0] is None
    public = ("key", (key_to_bytes(small.public),))
    assert all(views[f"client {i}"] == [public] for i in range(3))
    assert [message.kind for message in views["server"]] == ["key"] + 3 * ["update"]
    assert views["server"][0] == public
    ((kind, (data,)),) = views["holder"]
    assert kind == "sum"
    received = vector_from_bytes(small.public, data, size=3, fmt=sum_format(3, fmt))
    assert decrypt_vector(small, received).tolist() == [-0.25, 2.0, 0.25]
    for message, update in zip(views["server"][1:], updates, strict=True):  # with the key it would read them all
        vector = vector_from_bytes(small.public, *message.values, size=3, fmt=fmt)
        assert decrypt_vector(small, vector).tolist() == update
        assert not set(vector.values) & set(received.values)


def test_a_client_that_breaks_the_format_reads_the_weights_from_one_logit(key):
    """Why the docstring says semi-honest: features of 2^(20 i) make the logit spell the weights."""
    w = [3, -700, 0, 8191, -8192]
    model = linear_model([np.array(w) / 2**10], [0], weight_fmt=WEIGHTS, input_fmt=PIXELS)
    x = EncryptedVector(tuple(encrypt(key, 2 ** (20 * i)) for i in range(5)), PIXELS)
    z = decrypt(key, encrypted_linear(key.public, model, x).values[0])
    z, read = (z + key.public.n // 2) % key.public.n - key.public.n // 2, []
    for _ in w:
        read.append((z + 2**19) % 2**20 - 2**19)
        z = (z - read[-1]) >> 20
    assert read == w


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_bytes_come_back(small, key):
    for one in (small, key):
        c = encrypt(one, 5)
        data = to_bytes(one.public, c)
        assert from_bytes(one.public, data) == c and len(data) == 32 + one.public.n.bit_length() // 4
        assert key_from_bytes(key_to_bytes(one.public), for_learning=True) == one.public
    vector = encrypt_vector(small, [1, -2, 3], FixedPoint(-1, 10))
    data = vector_to_bytes(small.public, vector)
    assert vector_from_bytes(small.public, data, size=3, fmt=vector.fmt) == vector
    assert len(data) == 32 + 2 + 16 + 3 * 32


def with_value(key: SecretKey, value: int) -> bytes:
    return name_of(key) + value.to_bytes(2 * key.public.width, "big")


def test_bytes_that_are_no_ciphertext_are_refused_by_name(small, other, refuses):
    public, n = small.public, small.public.n
    good = to_bytes(public, encrypt(small, 5))
    bad = {
        "63 bytes; accepted: 64 bytes": good[:-1],
        "65 bytes": good + b"\0",
        "data is 0 bytes": b"",
        "data is encrypted under another key": to_bytes(other.public, encrypt(other, 5)),
        "data is outside 1 to n^2 - 1": with_value(small, n * n),
        "outside 1 to n^2 - 1": with_value(small, 0),
        "data shares a factor with n": with_value(small, small.p),
        "shares a factor with n": with_value(small, n * 5),
    }
    for words, data in bad.items():
        refuses(from_bytes, {"public": public, "data": data}, words)
    for data in (None, "a", bytearray(good), 5):
        refuses(from_bytes, {"public": public, "data": data}, "data is")


def test_vectors_in_bytes_must_be_what_was_agreed_on(small, other, refuses):
    public, fmt = small.public, FixedPoint(-1, 10)
    data = vector_to_bytes(public, encrypt_vector(small, [1, -2], fmt))
    agreed = {"public": public, "data": data, "size": 2, "fmt": fmt}
    assert vector_from_bytes(**agreed).fmt == fmt
    refuses(vector_from_bytes, agreed | {"size": 3}, "data is 114 bytes; accepted: 146 bytes, 3 numbers")
    refuses(vector_from_bytes, agreed | {"fmt": FixedPoint(-2, 10)}, "data has another format")
    refuses(vector_from_bytes, agreed | {"fmt": FixedPoint(-1, 11)}, "data has another format")
    refuses(vector_from_bytes, agreed | {"public": other.public}, "data is encrypted under another key")
    refuses(vector_from_bytes, agreed | {"data": data[:-32] + bytes(32)}, "data is outside 1 to n^2 - 1")
    refuses(vector_from_bytes, agreed | {"data": data[:-1]}, "data is 113 bytes")
    refuses(vector_from_bytes, agreed | {"size": 0}, "size is 0")


def test_flipped_bits_are_an_error_or_another_message(small):
    """Nothing notices a change of c itself; one of the fingerprint always is."""
    data = to_bytes(small.public, encrypt(small, 5))
    numbers = errors = 0
    for i in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[i // 8] ^= 1 << (i % 8)
        try:
            numbers += decrypt(small, from_bytes(small.public, bytes(flipped))) != 5
        except ValueError:
            errors += 1
    assert numbers + errors == 8 * len(data) and errors >= 8 * 32 and numbers > 0


# --- bad input --------------------------------------------------------------------------------------------------------


def test_keys_are_not_mixed(small, other, refuses):
    c, foreign = encrypt(small, 5), encrypt(other, 5)
    words = ("is encrypted under another key", name_of(other).hex()[:8], name_of(small).hex()[:8])
    refuses(add, {"public": small.public, "c": c, "other": foreign}, "other", *words)
    refuses(add, {"public": small.public, "c": foreign, "other": c}, "c is", *words)
    refuses(decrypt, {"key": small, "c": foreign}, *words)
    refuses(rerandomize, {"key": small, "c": foreign}, *words)
    x, fmt = encrypt_vector(small, [1, 2], FixedPoint(0, 9)), FixedPoint(0, 9)
    mixed = EncryptedVector((x.values[0], foreign), fmt)
    refuses(encrypted_sum, {"public": small.public, "vectors": [x, mixed]}, "vectors", *words)
    refuses(decrypt_vector, {"key": small, "vector": mixed}, "vector", *words)


KEY = SecretKey(4294967279, 4294967291, for_learning=True)
PUBLIC, C, FMT = KEY.public, encrypt(KEY, 5), FixedPoint(-2, 100)
X = encrypt_vector(KEY, [1, 2], FMT)
MODEL = linear_model([[1.0, -1.0]], [0.5], weight_fmt=FMT, input_fmt=FMT)
NOT_WHOLE = (1.5, "1", None, True, float("nan"))
REFUSED = [
    *((generate_key, {"bits": bad}, "bits") for bad in (2046, 1024, 2049, 0, -2, 2**20, *NOT_WHOLE)),
    *((generate_key, {"bits": bad, "for_learning": True}, "bits") for bad in (14, 17, 65)),
    (generate_key, {"bits": 64, "for_learning": 1}, "for_learning is 1"),
    *((PublicKey, {"n": bad, "for_learning": True}, "n is") for bad in (13, 36, -35, 2**16_384 + 1, *NOT_WHOLE)),
    (PublicKey, {"n": 35}, "n has 6 bits; accepted: at least 2,048"),
    (SecretKey, {"p": 5, "q": 7}, "n has 6 bits"),
    (SecretKey, {"p": 15, "q": 13, "for_learning": True}, "p is no prime"),
    (SecretKey, {"p": 13, "q": 15, "for_learning": True}, "q is no prime"),
    (SecretKey, {"p": 13, "q": 13, "for_learning": True}, "same"),
    (SecretKey, {"p": 7, "q": 11, "for_learning": True}, "differ in length"),
    (SecretKey, {"p": 2, "q": 3, "for_learning": True}, "gcd"),
    *((SecretKey, {"p": bad, "q": 7, "for_learning": True}, "p is no prime") for bad in (*NOT_WHOLE, -5, 0, 1)),
    *((encrypt, {"key": KEY, "m": bad}, "m is") for bad in (-1, PUBLIC.n, *NOT_WHOLE)),
    *((encrypt, {"key": bad, "m": 1}, "key is") for bad in (None, 35, "key")),
    (decrypt, {"key": PUBLIC, "c": C}, "key is", "accepted: a SecretKey"),
    *((decrypt, {"key": KEY, "c": bad}, "c is") for bad in (None, C.value, X, Ciphertext(C.value, b"abc"))),
    *((decrypt, {"key": KEY, "c": Ciphertext(bad, C.fingerprint)}, "c is outside")
      for bad in (0, -1, PUBLIC.n**2, 2.0, None)),
    *((f, {"public": PUBLIC, "c": C, "k": bad}, "k is") for f in (add_plain, multiply_plain)
      for bad in (PUBLIC.n // 2 + 1, -(PUBLIC.n // 2) - 1, *NOT_WHOLE)),
    *((f, {"public": PUBLIC, "c": 5, "k": 1}, "c is 5") for f in (add_plain, multiply_plain)),
    (add, {"public": KEY, "c": C, "other": C}, "public is"),
    (add, {"public": PUBLIC, "c": C, "other": 5}, "other is 5"),
    (rerandomize, {"key": PUBLIC, "c": 5}, "c is 5"),
    (constant_behind, {"public": PUBLIC, "before": C, "after": 5, "candidates": range(3)}, "after is 5"),
    *((key_from_bytes, {"data": bad}, "data is") for bad in (b"", b"\0\1", bytes(3000), "n", 35, None)),
    (key_from_bytes, {"data": b"\1\1"}, "n has 9 bits"),
    *((FixedPoint, {"exponent": bad, "largest": 9}, "exponent is") for bad in (513, -513, *NOT_WHOLE)),
    *((FixedPoint, {"exponent": 0, "largest": bad}, "largest is") for bad in (0, -1, *NOT_WHOLE)),
    *((fixed_point, {"places": bad, "limit": 1}, "places is") for bad in (-1, 513, *NOT_WHOLE)),
    *((fixed_point, {"places": 2, "limit": bad}, "limit is") for bad in (0, -1, 0.1, math.inf, None)),
    *((sum_format, {"count": bad, "fmt": FMT}, "count is") for bad in (0, *NOT_WHOLE)),
    (product_format, {"fmt": FixedPoint(-512, 1), "other": FixedPoint(-1, 1)}, "exponent is -513"),
    *((encode, {"values": bad, "fmt": FMT}, "values is")
      for bad in ([], [[1.0]], 5, None, "12", [True], [1j], [[1], [1, 2]], [None])),
    *((encode, {"values": [0, bad], "fmt": FMT}, "values has NaN or an infinite") for bad in (math.nan, math.inf)),
    *((encode, {"values": [0, bad], "fmt": FMT}, "values has", "at 1", "at most 25") for bad in (25.2, -1e300)),
    (decode, {"ks": [2**9000], "fmt": FMT}, "ks has a number beyond float64"),
    *((encrypt_vector, {"key": KEY, "values": [1], "fmt": bad}, "fmt") for bad in (None, 8, FixedPoint(0, 2**63))),
    *((encrypted_sum, {"public": PUBLIC, "vectors": bad}, "vectors is") for bad in ([], None, X, [C])),
    *((encrypted_sum, {"public": PUBLIC, "vectors": [X, bad]}, "vectors has") for bad in (
        encrypt_vector(KEY, [1], FMT), encrypt_vector(KEY, [1, 2], FixedPoint(-3, 100)))),
    (encrypted_sum, {"public": PUBLIC, "vectors": [EncryptedVector((), FMT)]}, "vectors is"),
    (linear_model, {"w": [1.0], "b": [1.0], "weight_fmt": FMT, "input_fmt": FMT}, "w is"),
    (linear_model, {"w": [[1], [1, 2]], "b": [1, 1], "weight_fmt": FMT, "input_fmt": FMT}, "w has rows of [1, 2]"),
    (linear_model, {"w": [[1.0]], "b": [1.0, 2.0], "weight_fmt": FMT, "input_fmt": FMT}, "b has 2 biases"),
    (linear_model, {"w": [[26.0]], "b": [1.0], "weight_fmt": FMT, "input_fmt": FMT}, "w has 26"),
    (linear_model, {"w": [[1.0]], "b": [626.0], "weight_fmt": FMT, "input_fmt": FMT}, "b has 626"),
    (plain_linear, {"model": MODEL, "ks": (1,)}, "ks has 1 numbers; accepted: 2"),
    (encrypted_linear, {"public": PUBLIC, "model": MODEL, "x": encrypt_vector(KEY, [1], FMT)}, "x has 1 numbers"),
    (encrypted_linear, {"public": PUBLIC, "model": MODEL, "x": EncryptedVector(X.values, FixedPoint(-3, 9))}, "x has"),
    (LinearModel, {"w": ((101,),), "b": (0,), "weight_fmt": FMT, "input_fmt": FMT}, "w is 101"),
    (LinearModel, {"w": ((1,),), "b": (10_001,), "weight_fmt": FMT, "input_fmt": FMT}, "b is 10001"),
    (LinearModel, {"w": ((),), "b": (0,), "weight_fmt": FMT, "input_fmt": FMT}, "w has rows of [0]"),
    *((linear_model, {"w": bad, "b": [1.0], "weight_fmt": FMT, "input_fmt": FMT}, "w ") for bad in (None, 5, [], "1")),
    (encrypted_linear, {"public": PUBLIC, "model": None, "x": X}, "model is None"),
    (encrypted_linear, {"public": PUBLIC, "model": MODEL, "x": [C]}, "x is"),
    (sum_server, {"key_holder": None, "size": 2, "fmt": FMT}, "clients is 0"),
    (sum_key_holder, {"channel": None, "key": KEY, "clients": 1, "size": 2, "fmt": FMT}, "clients is 1"),
    (sum_key_holder, {"channel": None, "key": PUBLIC, "clients": 2, "size": 2, "fmt": FMT}, "key is"),
    (linear_client, {"channel": None, "key": KEY, "x": [1], "classes": 0, "input_fmt": FMT, "weight_fmt": FMT},
     "classes is 0"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "arguments", "words"), [(f, a, words) for f, a, *words in REFUSED])
def test_refuses(refuses, function, arguments, words):
    if isinstance(function, type):
        with pytest.raises(ValueError, match=r".") as caught:
            function(**arguments)
        assert all(word in str(caught.value) for word in words), caught.value
    else:
        refuses(function, arguments, *words)
