"""A server that computes without a key to look; what sharing its answers gives away; how much noise prevents that.

Bounds fail with probability 1e-9 for each operation, of which these tests make less than a thousand; the test that
compares rates of success has a false-alarm rate of 1e-6.
"""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy import stats

from spai_lab.crypto.authenticated import AuthenticatedChannel, mac_key
from spai_lab.crypto.channel import Disconnected, pair
from spai_lab.crypto.ckks import (
    ckks_context,
    decode,
    decrypt,
    encode,
    encrypt,
    lower,
    multiply,
    public_key,
    relinearize,
    rescale,
    rotate,
    secret_key,
)
from spai_lab.crypto.ckks_encoding import embed_inverse
from spai_lab.crypto.ckks_keys import SecretKey
from spai_lab.crypto.ckks_linear import linear, linear_steps, logits_of, packed
from spai_lab.crypto.ckks_messages import ciphertext_to_bytes
from spai_lab.crypto.ckks_noise import ROUNDING, slot_bound
from spai_lab.crypto.ckks_parties import ckks_client, ckks_server, seen, send_keys, server_keys
from spai_lab.crypto.ckks_sharing import flood, flooding_cost, flooding_noise, flooding_sigma, inverses, recover_secret
from spai_lab.crypto.frames import ProtocolError, pack
from spai_lab.crypto.parties import run_parties
from tests.crypto.leaks import secrets_in, state

ALPHA = 1e-6
VIEW = 10**8


class Client:
    """A secret key and what a server gets."""

    def __init__(self, degree, bits, *, features=1, relinearize=True, **settings):
        self.context = ckks_context(degree, bits, **settings)
        self.secret = secret_key(self.context)
        self.keys = server_keys(self.secret, steps=linear_steps(features), relinearize=relinearize)

    def encrypted(self, values, **settings):
        return encrypt(self.keys.public, encode(self.context, values, **settings))

    def decrypted(self, x):
        return decode(decrypt(self.secret, x))


@pytest.fixture(scope="module")
def toy():
    return Client(256, (30, 28, 28), features=64, insecure=True)


@pytest.fixture(scope="module")
def real():
    return Client(4096, (30, 24, 24), features=64, relinearize=False)


def conversation(client, questions, function, *, answers, key=None, server_key=None, wire=None, **settings):
    """Results, the server's count, and what arrived at each; `wire` may change what a client and a server say."""
    key, channels = key or mac_key(), {}

    def asks(channel):
        channels["client"] = channel
        settings.setdefault("mac_key", key)
        return ckks_client(channel, client.secret, client.keys, questions, answers=answers, **settings)

    def serves(channel):
        channels["server"] = channel
        return ckks_server(channel, function, mac_key=server_key or key, insecure=not client.context.secure)

    if wire is None:
        results, count = run_parties(asks, serves, view=VIEW, names=("client", "server"))
    else:
        _, results, count = run_parties(
            wire, asks, serves, topology="star", names=("wire", "client", "server"), return_exceptions=True
        )
    return results, count, channels


def squares(inputs, keys):
    """x y, of two ciphertexts."""
    x, y = inputs
    return [rescale(relinearize(multiply(x, y), keys.relinearization))]


# --- what they compute ------------------------------------------------------------------------------------------------


def test_encrypted_logits_of_digits_agree_with_plain_ones_within_the_bound(toy, digits):
    from sklearn.linear_model import LogisticRegression

    images = digits.x_test[:3, 0, ::3, ::3].reshape(3, -1)[:, :64].double().numpy()
    train = digits.x_train[:300, 0, ::3, ::3].reshape(300, -1)[:, :64].double().numpy()
    model = LogisticRegression(max_iter=200).fit(train, digits.y_train[:300].numpy())
    limit = float(np.abs(np.column_stack([model.coef_, model.intercept_])).max())
    function = partial(linear, w=model.coef_, b=model.intercept_, limit=limit)
    questions = [[packed(x, toy.context.slots)] for x in images]
    results, count, _ = conversation(toy, questions, function, answers=10)
    assert count == 3
    ratios = []
    for x, answers in zip(images, results, strict=True):
        true = model.decision_function(x[None])[0]
        assert logits_of(answers).argmax() == true.argmax()
        for answer, logit in zip(answers, true, strict=True):  # every slot has the logit, and no part of it
            ratios.append(np.abs(decode(answer) - logit).max() / answer.error)
    assert 1e-3 < max(ratios) < 1


def test_questions_of_several_ciphertexts_and_many_questions(toy):
    x, y = np.linspace(-1, 1, 128), np.linspace(1, 0, 128)
    results, count, channels = conversation(toy, [[x, y], [y, y]], squares, answers=1)
    assert count == 2
    for (answer,), true in zip(results, [x * y, y * y], strict=True):
        assert (np.abs(decode(answer) - true) < answer.error).all()
    assert [line.split()[0] for line in seen(channels["client"])] == ["nonce:", "answer:", "answer:"]


def test_packing_and_its_limits(refuses):
    assert linear_steps(1) == () and linear_steps(5) == (1, 2, 4)
    refuses(packed, {"x": np.ones(9), "slots": 8}, "x has the shape (9,); accepted: (D,) with 1 to 8")
    refuses(linear_steps, {"features": 0}, "features is 0")


# --- who sees what ----------------------------------------------------------------------------------------------------


def test_no_secret_is_in_what_the_server_holds_or_received(real):
    held = []

    def function(inputs, keys):
        held.append((inputs, keys))
        answers = linear(inputs, keys, w=np.full((1, 64), 0.5), b=[0.25], limit=1.0)
        held.append(answers)
        return answers

    x = np.linspace(0, 1, 64)
    ((answer,),), _, channels = conversation(real, [[packed(x, real.context.slots)]], function, answers=1)
    assert real.context.secure
    assert 1e-3 < np.abs(decode(answer) - (x.sum() / 2 + 0.25)).max() / answer.error < 1
    server = channels["server"]
    assert server.unseen == 0 and server.bytes_received == channels["client"].bytes_sent
    received = b"".join(pack(kind, *values) for kind, values in server.view)
    assert len(received) == server.bytes_received > 10 * 200_000
    everything = state(held)
    assert len(everything) > 2 * len(received)
    assert secrets_in(received, real.secret) == secrets_in(everything, real.secret) == 0
    assert secrets_in(state([*held, real.secret]), real.secret) > 0  # planted: the server has the key
    leaky = replace(real.keys, public=replace(real.keys.public, key=np.stack([real.keys.public.key[0], real.secret.s])))
    alice, bob = pair(view=VIEW)  # planted: the client sends it
    bob.send("nonce", bytes(32))
    send_keys(AuthenticatedChannel(alice, bytes(32), role="client"), leaky)
    bob.receive("nonce"), bob.receive("sealed")
    assert secrets_in(b"".join(pack(kind, *values) for kind, values in bob.view), real.secret) > 0


def test_each_party_sees_what_the_table_says(toy):
    x = np.linspace(-1, 1, 128)
    _, _, channels = conversation(toy, [[x, x]], squares, answers=1)
    name, key = toy.context.fingerprint, toy.secret.fingerprint
    assert seen(channels["client"]) == [
        "nonce: 32 bytes",
        f"answer: ciphertext of 4,183 bytes, context {name}, key {key}",
    ]
    switching = 59 + 4 * 3 * 2 * 4 * 256
    text = f"question: ciphertext of 6,231 bytes, context {name}, key {key}"
    assert seen(channels["server"]) == [
        "nonce: 32 bytes",
        f"keys: context of 59 bytes, context {name}",
        f"keys: public key of {59 + 4 * 2 * 4 * 256:,} bytes, context {name}, key {key}",
        f"keys: relinearization key of {switching:,} bytes, context {name}, key {key}",
        "keys: 6",
        *[f"rotation key: rotation key of {switching + 4:,} bytes, context {name}, key {key}"] * 6,
        text,
        text,
        "goodbye",
    ]
    alice, _ = pair()
    with pytest.raises(ValueError, match="view is None"):
        seen(alice)


def test_headers_do_not_tell_how_large_numbers_or_weights_are(toy):
    heads = set()
    for size in [0.01, 1.0]:
        for w in [0.001, 0.9]:
            texts = []
            function = partial(linear, w=np.full((2, 64), w), b=[w, -w], limit=1.0)
            conversation(
                toy,
                [[np.full(128, size)]],
                lambda *a, f=function, t=texts: t.append([*a[0], *f(*a)]) or f(*a),
                answers=2,
            )
            heads |= {(str(x), ciphertext_to_bytes(x)[: 30 + 17 + 12 + 12 + 16]) for x in texts[0]}
    assert len(heads) == 2  # one of the question, one of the answer


# --- on the wire ------------------------------------------------------------------------------------------------------


def wire(change):
    """Somebody between client and server, who may change the n-th message of the client, or of the server."""

    def party(client, server):
        server.send("nonce", *client.receive("nonce"))
        client.send("nonce", *server.receive("nonce"))
        sent = []
        while True:
            try:
                data = client.receive("sealed", bytes)[0]
                sent.append(data)
                server.send("sealed", change(len(sent) - 1, data, sent))
                if len(sent) == 8:  # keys, six rotations, a question
                    client.send("sealed", change(-1, server.receive("sealed", bytes)[0], sent))
            except ProtocolError:
                return len(sent)

    return party


@pytest.mark.parametrize(
    ("who", "change", "words"),
    [
        (None, lambda n, data, sent: data, None),
        ("server", lambda n, data, sent: data[:-1] + bytes([data[-1] ^ 1]) if n == 7 else data, "right tag"),
        ("server", lambda n, data, sent: data[:-1] if n == 0 else data, "right tag"),
        ("server", lambda n, data, sent: sent[1] if n == 2 else data, "message 1 of the client; accepted: message 2"),
        ("server", lambda n, data, sent: sent[7] if n == 8 else data, "message 7 of the client; accepted: message 8"),
        ("client", lambda n, data, sent: data[:200] + bytes(4) + data[204:] if n == -1 else data, "right tag"),
        (
            "client",
            lambda n, data, sent: sent[0] if n == -1 else data,
            "message 0 of the client; accepted: message 0 of",
        ),
    ],
    ids=["nothing", "flipped", "cut", "again", "asked twice", "answer", "turned back"],
)
def test_whoever_changes_a_message_is_seen(toy, who, change, words):
    x = np.linspace(-1, 1, 128)
    results, count, _ = conversation(toy, [[x, x]], squares, answers=1, wire=wire(change))
    if who is None:
        assert count == 1 and (np.abs(decode(results[0][0]) - x * x) < results[0][0].error).all()
        return
    victim, other = (count, results) if who == "server" else (results, count)
    assert type(victim) is ValueError and words in str(victim)
    assert isinstance(other, Disconnected | list | int)


def test_a_mac_does_not_make_a_server_honest(toy):
    x = np.linspace(-1, 1, 128)
    ((answer,),), _, _ = conversation(toy, [[x, x]], lambda inputs, keys: [inputs[0]], answers=1)
    assert np.abs(decode(answer) - x * x).max() > 1  # a wrong answer with a right tag


def test_parties_refuse(toy):
    x = np.linspace(-1, 1, 128)
    other = Client(256, (30, 28, 28), features=2, insecure=True)
    for change, words in [
        ({"answers": 2}, "the answer has 1 ciphertexts; accepted: 2"),
        ({"questions": [[2 * x, x]]}, "values reach 2; accepted: at most limit, 1"),
        ({"questions": [[np.ones(129)]]}, "values has the shape"),
        ({"questions": [[]]}, "a function or a question gives .*; accepted: a list of 1"),
        ({"function": lambda inputs, keys: inputs[0]}, "a function or a question gives"),
        ({"function": lambda inputs, keys: [other.encrypted(x)]}, "data belongs to the key"),
        ({"function": lambda inputs, keys: ["42"]}, "x is a str; accepted: a Ciphertext"),
        (
            {"function": lambda inputs, keys: [rotate(inputs[0], 3, keys.rotations)]},
            "steps has 3; accepted: 1, 2, 4, 8",
        ),
        (
            {"function": partial(linear, w=np.ones((1, 64)), b=[1], limit=1.0)},
            "inputs holds 2 ciphertexts; accepted: 1",
        ),
        ({"function": partial(linear, w=np.ones(64), b=[1], limit=1.0)}, "w and b have the shapes"),
        ({"server_key": bytes(32)}, "without the right tag"),
        ({"key": b"short"}, "accepted: 32 bytes"),
    ]:
        arguments = {"questions": [[x, x]], "function": squares, "answers": 1, **change}
        with pytest.raises(ValueError, match=words):
            conversation(toy, **arguments)
    with pytest.raises(ValueError, match="keys has no rotations; accepted: those by"):
        linear([toy.encrypted(x)], replace(toy.keys, rotations=None), w=np.ones((1, 64)), b=[1], limit=1.0)
    for arguments, words in [
        ({"inputs": [toy.encrypted(x)], "w": np.full((1, 64), 2.0)}, "values reach 2; accepted: at most limit, 1"),
        ({"inputs": [lower(toy.encrypted(x), 0)], "w": np.ones((1, 64))}, "no level is left"),
        ({"inputs": [toy.encrypted(x)], "w": np.ones((1, 256))}, "x has the shape .*; accepted: .D,. with 1 to 128"),
        ({"inputs": [other.encrypted(x)], "w": np.ones((1, 64))}, "key belongs to|keys belongs to"),
        ({"inputs": [toy.encrypted(x)], "w": np.ones((1, 64)), "limit": 0.0}, "limit is 0.0; accepted"),
    ]:
        with pytest.raises(ValueError, match=words):
            linear(**{"keys": toy.keys, "b": [1.0], "limit": 1.0, **arguments})
    channel = pair()[0]
    with pytest.raises(ValueError, match=f"keys belong to {other.secret.fingerprint}; accepted: those of secret"):
        ckks_client(channel, toy.secret, other.keys, [[x]], answers=1, mac_key=bytes(32))
    with pytest.raises(ValueError, match="secret is a PublicKey"):
        ckks_client(channel, toy.keys.public, toy.keys, [[x]], answers=1, mac_key=bytes(32))


def test_a_server_takes_no_toys_unless_told(toy):
    client = partial(ckks_client, secret=toy.secret, keys=toy.keys, questions=[[[1.0]]], answers=1, mac_key=bytes(32))
    with pytest.raises(ValueError, match="data has a modulus of 116 bits for N = 256; accepted: what has 128-bit"):
        run_parties(client, partial(ckks_server, function=squares, mac_key=bytes(32)))


# --- sharing a result gives away the key ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("degree", "bits", "scale"),
    [(64, (30, 28), 2.0**28), (1024, (30, 28), 2.0**28), (8192, (30, 26, 26), 2.0**26), (8192, (30, 30), 2.0**50)],
)
def test_a_shared_decryption_gives_the_secret_key_exactly(degree, bits, scale):
    context = ckks_context(degree, bits, scale=scale, insecure=degree < 2048)
    secret = secret_key(context)
    x = encrypt(public_key(secret), encode(context, np.linspace(-1, 1, degree // 2)))
    found = recover_secret(x, decode(decrypt(secret, x)))
    assert isinstance(found, SecretKey) and np.array_equal(found.s, secret.s)
    another = encrypt(public_key(secret), encode(context, np.linspace(1, 3, degree // 2)))
    assert np.array_equal(decode(decrypt(found, another)), decode(decrypt(secret, another)))
    assert recover_secret(x, decode(decrypt(secret, another))) is None
    assert recover_secret(another, decode(decrypt(secret, another)).real) is None  # half of the numbers are not enough


def test_results_of_computations_give_it_away_too(toy):
    x = np.linspace(-1, 1, 128)
    for y in [squares([toy.encrypted(x)] * 2, toy.keys)[0], rotate(toy.encrypted(x), 1, toy.keys.rotations)]:
        assert np.array_equal(recover_secret(y, toy.decrypted(y)).s, toy.secret.s)


def test_a_zero_among_the_values_sends_the_attack_to_the_next_prime(toy):
    x = toy.encrypted(1.0)
    parts = x.parts.copy()
    parts[1, 0, 5] = 0
    blind = replace(x, parts=parts)
    assert np.array_equal(recover_secret(blind, decode(decrypt(toy.secret, x))).s, toy.secret.s)
    parts = parts.copy()
    parts[1] = 0
    assert recover_secret(replace(x, parts=parts), toy.decrypted(x)) is None


def test_inverses(toy):
    q = toy.context.primes[0]
    x = np.arange(1, 1000) * 1_000_003 % q
    assert inverses(x, q).tolist() == [pow(int(number), -1, q) for number in x]


# --- and noise prevents it --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact():
    """A result exact enough to be flooded: 40 bits, at a secure ring degree."""
    client = Client(8192, (30, 30), relinearize=False, scale=2.0**50)
    values = np.linspace(-0.5, 0.5, 4096)
    x = client.encrypted(values)
    return client, values, x, decrypt(client.secret, x)


def test_flooded_results_keep_the_key_and_their_bound(exact):
    client, values, x, result = exact
    shared = [flood(result, distance=2.0**-16, results=20) for _ in range(20)]
    errors = [np.abs(decode(each) - values).max() for each in shared]
    assert shared[0].error / 1000 < max(errors) < shared[0].error
    assert all(recover_secret(x, decode(each)) is None for each in shared[:3])
    assert recover_secret(x, np.mean([decode(each) for each in shared], axis=0)) is None
    assert np.array_equal(recover_secret(x, decode(result)).s, client.secret.s)  # without noise it works
    assert len({decode(each)[0] for each in shared}) == 20


def test_too_little_noise_does_not_prevent_it(exact):
    client, _, x, result = exact
    lied = 1e-3 / x.scale  # a server that understates its error
    assert flooding_sigma(client.context, x.scale, lied, distance=2.0**-6) < 0.1
    found = recover_secret(x, decode(flood(result, distance=2.0**-6, error=lied)))
    assert np.array_equal(found.s, client.secret.s)


def test_noise_that_hides_the_key_once_does_not_hide_it_from_who_asks_often():
    client = Client(1024, (30, 28), relinearize=False, insecure=True)
    x = client.encrypted(np.linspace(-1, 1, 512))
    result = decrypt(client.secret, x)
    each = [decode(flood(result, distance=0.4, error=1.0 / x.scale)) for _ in range(250)]
    assert recover_secret(x, each[0]) is None
    assert np.array_equal(recover_secret(x, np.mean(each, axis=0)).s, client.secret.s)
    each = [decode(flood(result, distance=0.4, results=250)) for _ in range(250)]
    assert recover_secret(x, np.mean(each, axis=0)) is None


@pytest.mark.parametrize("distance", [0.5, 2.0**-10, 2.0**-30])
@pytest.mark.parametrize("results", [1, 1000])
def test_the_noise_is_as_large_as_the_distance_of_two_normals_asks_for(toy, distance, results):
    error = np.linspace(0, 2.0**-10, 128)
    sigma = flooding_sigma(toy.context, 2.0**28, error, distance=distance, results=results)
    norm = 2.0**28 * math.sqrt((error**2).mean())
    exactly = results * (2 * stats.norm.cdf(norm / (2 * sigma)) - 1)
    assert 0.9 * distance < exactly <= distance * (1 + 1e-5)  # 1 - 2^-50 loses digits in 2 Phi - 1


def test_the_bound_on_slots_bounds_the_polynomial(exact):
    _, values, x, result = exact
    e = embed_inverse(decode(result) - values) * x.scale
    bound = x.scale * result.error
    assert bound / 1000 < np.linalg.norm(e) < bound


def test_no_test_tells_flooded_results_apart_better_than_stated():
    """The best one there is, likelihood; with a quarter of the noise it does, which is caught."""
    degree, draws, distance = 64, 20_000, 0.3
    context = ckks_context(degree, (30, 28), insecure=True)
    e = np.random.default_rng(0).normal(size=degree) * 1000
    error = np.linalg.norm(e) / 2.0**28  # a bound that is just reached
    sigma = flooding_sigma(context, 2.0**28, error, distance=distance)
    margin = 2 * math.sqrt(math.log(4 / ALPHA) / (2 * draws))  # Hoeffding, for two rates

    def advantage(sigma):
        rates = []
        for shift in [e, np.zeros(degree)]:
            seen = shift + flooding_noise(degree * draws, sigma).reshape(draws, degree)
            rates.append((seen @ e > e @ e / 2).mean())
        return rates[0] - rates[1]

    assert distance - 0.01 - margin < advantage(sigma) < distance + margin
    assert advantage(sigma / 4) > distance + margin


def test_what_flooding_costs(exact):
    client, _, _, result = exact
    for distance, results in [(2.0**-10, 1), (2.0**-20, 1), (2.0**-10, 100)]:
        shared = flood(result, distance=distance, results=results)
        lost = math.log2(shared.error / result.error)
        assert abs(lost - flooding_cost(8192, distance=distance, results=results)) < 0.01
    assert flooding_cost(8192, distance=2.0**-30) - flooding_cost(8192, distance=2.0**-20) == pytest.approx(
        10, abs=1e-3
    )
    sigma = flooding_sigma(client.context, result.scale, result.error, distance=0.5)
    shared = flood(result, distance=0.5)
    assert shared.error == result.error + slot_bound(8192, plain=(sigma, ROUNDING)) / result.scale


def test_flooding_refuses(refuses, exact, toy):
    _, _, x, result = exact
    rough = decrypt(toy.secret, lower(toy.encrypted(1.0), 0))
    for function, arguments, words in [
        (flood, {"plaintext": x, "distance": 0.1}, "plaintext is a Ciphertext; accepted: a Plaintext"),
        (flood, {"plaintext": result, "distance": 0}, "distance is 0; accepted: a finite number above 0, at most 1"),
        (flood, {"plaintext": result, "distance": 2}, "distance is 2"),
        (flood, {"plaintext": result, "distance": 0.1, "results": 0}, "results is 0"),
        (flood, {"plaintext": result, "distance": 0.1, "error": -1.0}, "error has the shape (); accepted"),
        (flood, {"plaintext": result, "distance": 0.1, "error": np.ones(3)}, "error has the shape (3,)"),
        (flood, {"plaintext": result, "distance": 2.0**-60}, "distance is 8.674e-19, for which noise of 2^"),
        (flood, {"plaintext": replace(rough, error=1.0), "distance": 2.0**-20}, "the flooded result: sizes up to"),
        (recover_secret, {"x": result, "z": decode(result)}, "x is a Plaintext; accepted: a Ciphertext"),
        (recover_secret, {"x": x, "z": np.ones(5)}, "z is float64 (5,); accepted: finite numbers (4,096,)"),
        (recover_secret, {"x": x, "z": np.full(4096, np.nan)}, "accepted: finite numbers"),
        (recover_secret, {"x": multiply(toy.encrypted(1.0), toy.encrypted(1.0)), "z": np.ones(128)}, "3 parts"),
    ]:
        refuses(function, arguments, words)
