"""Bytes of CKKS: what is sent comes back, by a layout that is spelled out here again; anything else is an error."""

import hashlib
import pickle
import struct
import tracemalloc
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spai_lab.crypto import authenticated
from spai_lab.crypto.authenticated import AuthenticatedChannel, mac_key, seal, unseal, unsealed
from spai_lab.crypto.channel import ProtocolError, pair
from spai_lab.crypto.ckks import (
    add,
    ckks_context,
    conjugate,
    decode,
    decrypt,
    encode,
    encrypt,
    lower,
    multiply,
    public_key,
    relinearization_key,
    relinearize,
    rescale,
    rotate,
    rotation_keys,
    secret_key,
)
from spai_lab.crypto.ckks_headers import MOST_BYTES, described
from spai_lab.crypto.ckks_messages import (
    ciphertext_from_bytes,
    ciphertext_to_bytes,
    context_from_bytes,
    context_to_bytes,
    public_key_from_bytes,
    public_key_to_bytes,
    relinearization_key_from_bytes,
    relinearization_key_to_bytes,
    rotation_keys_from_bytes,
    rotation_keys_to_bytes,
)
from spai_lab.crypto.parties import run_parties
from tests.crypto.mutations import DAMAGES, damaged, in_a_child, put

ROOT = Path(__file__).resolve().parents[2]
CONTEXT = ckks_context(64, (30, 28), insecure=True)
SECRET = secret_key(CONTEXT)
PUBLIC = public_key(SECRET)
KEY = SECRET.fingerprint
VALUES = np.linspace(-1, 1, 32)
HEAD = 30 + 17 + 2 * 4  # bytes before what is of the kind


def encrypted(values=VALUES, **settings):
    return encrypt(PUBLIC, encode(CONTEXT, values, **settings))


TEXT = ciphertext_to_bytes(encrypted())
HEADER = context_to_bytes(CONTEXT)
read_text = partial(ciphertext_from_bytes, CONTEXT, key=KEY)
read_context = partial(context_from_bytes, insecure=True)


def refused(words, function, *arguments, **named):
    """The call raises our own `ValueError`, in which these words are found."""
    with pytest.raises(ValueError, match=words) as caught:
        function(*arguments, **named)
    assert Path(caught.traceback[-1].path).is_relative_to(ROOT / "spai_lab")


# --- there and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("degree", "bits", "insecure"), [(8, (30,), True), (64, (30, 28), True), (8192, (30, 26, 26, 26), False)]
)
def test_contexts_and_keys_come_back_and_work(degree, bits, insecure):
    context = ckks_context(degree, bits, insecure=insecure)
    secret = secret_key(context)
    key, public = secret.fingerprint, public_key(secret)
    products, rotations = relinearization_key(secret), rotation_keys(secret, (-1, 2, 0), conjugate=True)
    there = context_from_bytes(context_to_bytes(context), insecure=insecure)
    assert there == context
    again = public_key_from_bytes(there, public_key_to_bytes(public))
    assert np.array_equal(again.key, public.key) and again.fingerprint == key and not again.key.flags.writeable
    again = relinearization_key_from_bytes(there, relinearization_key_to_bytes(products), key=key)
    assert np.array_equal(again.key, products.key)
    messages = rotation_keys_to_bytes(rotations)
    again = rotation_keys_from_bytes(there, messages, key=key)
    assert again.steps == (2, degree // 2 - 1) and len(messages) == 3
    assert {*again.keys} == {*rotations.keys} - {1}
    assert all(np.array_equal(again.keys[g], rotations.keys[g]) for g in again.keys)
    assert {len(data) for data in messages} == {47 + 4 * len(bits) + 4 + len(bits) * 2 * (len(bits) + 1) * degree * 4}
    x = encrypt(public, encode(context, VALUES[:4], scale=2.0**20))
    assert np.array_equal(rotate(x, -1, again).parts, rotate(x, -1, rotations).parts)
    assert np.array_equal(conjugate(x, again).parts, conjugate(x, rotations).parts)


def test_ciphertexts_come_back_with_all_that_they_know():
    each = encrypted(limit=np.abs(VALUES) + 0.5)
    product = multiply(each, encrypted())
    for x in [encrypted(), each, product, add(each, each), lower(each, 0)]:
        data = ciphertext_to_bytes(x)
        again = read_text(data)
        assert (
            np.array_equal(again.parts, x.parts) and again.parts.dtype == np.int64 and not again.parts.flags.writeable
        )
        assert np.array_equal(again.limit, x.limit) and np.array_equal(again.error, x.error)
        assert (again.key, again.scale, again.context, np.ndim(again.limit)) == (
            x.key,
            x.scale,
            CONTEXT,
            np.ndim(x.limit),
        )
        numbers = sum(32 if np.ndim(bound) else 1 for bound in (x.limit, x.error))
        assert len(data) == HEAD + 12 + 8 * numbers + 4 * x.parts.size
        assert ciphertext_to_bytes(again) == data
    again = read_text(ciphertext_to_bytes(product))
    result = decrypt(SECRET, rescale(relinearize(again, relinearization_key(SECRET))))
    assert (np.abs(decode(result) - VALUES**2) < result.error).all()


def test_the_layout_is_the_table():
    x = encrypted(limit=2.0)
    body = struct.pack("<IdIB", 64, 2.0**28, CONTEXT.special, 2) + struct.pack("<II", *CONTEXT.primes)
    body += bytes([2, 1]) + struct.pack("<d", 2.0**28) + bytes([0, 0]) + struct.pack("<dd", 2.0, x.error)
    body += b"".join(int(value).to_bytes(4, "little") for value in x.parts.ravel())
    size = (14 + 16 + len(body)).to_bytes(8, "little")
    names = bytes.fromhex(CONTEXT.fingerprint) + bytes.fromhex(KEY)
    assert ciphertext_to_bytes(x) == b"CKKS" + bytes([1, 4]) + size + names + body
    assert described(TEXT) == f"ciphertext of 1,107 bytes, context {CONTEXT.fingerprint}, key {KEY}"
    assert described(HEADER) == f"context of 55 bytes, context {CONTEXT.fingerprint}"
    assert described(b"CKKS") == "4 bytes" and described(put(HEADER, 5, b"\x63")) == "55 bytes"


def test_a_secret_key_has_no_bytes():
    writers = [public_key_to_bytes, relinearization_key_to_bytes, rotation_keys_to_bytes, ciphertext_to_bytes]
    for write in [context_to_bytes, *writers]:
        with pytest.raises(ValueError, match="is a SecretKey; accepted"):
            write(SECRET)


def test_what_cannot_be_sent_is_refused_by_the_sender():
    for change, words in [
        ({"scale": 0.5}, "x has the scale 0.5"),
        ({"limit": -1.0}, "the limit of x is not finite, or below 0"),
        ({"error": np.full(32, np.nan)}, "the error of x is not finite, or below 0"),
        ({"error": 1e300}, "x: sizes up to 1e.300 .* do not fit level 1"),
    ]:
        with pytest.raises(ValueError, match=words):
            ciphertext_to_bytes(replace(encrypted(), **change))
    with pytest.raises(ValueError, match="context has 33 primes; accepted: at most 32"):
        context_to_bytes(replace(CONTEXT, primes=CONTEXT.primes[:1] * 33))


# --- what is refused --------------------------------------------------------------------------------------------------


OTHER = ckks_context(64, (30, 27), insecure=True)
PARTS, LEVEL, SCALE, EACH, LIMIT, ERROR, FIRST = HEAD, HEAD + 1, HEAD + 2, HEAD + 10, HEAD + 12, HEAD + 20, HEAD + 28


REFUSED = [
    (None, "data is None; accepted: bytes, at least 47"),
    (bytearray(TEXT), "data is .*; accepted: bytes"),
    (b"", "data is 0 bytes"),
    (TEXT[:46], "data is 46 bytes"),
    (pickle.dumps(VALUES), "data begins with .*; accepted: b'CKKS', version 1"),
    (put(TEXT, 4, b"\2"), "version 2; accepted: b'CKKS', version 1"),
    (HEADER, "data is a message of a context; accepted: of a ciphertext"),
    (put(TEXT, 5, b"\x09"), "data is a message of a kind 9; accepted"),
    (TEXT + b"\0", "data has 1,108 bytes and announces 1,107"),
    (TEXT[:-4], "data has 1,103 bytes and announces 1,107"),
    (put(TEXT, 6, b"\xff" * 8), "announces 18,446,744,073,709,551,615"),
    (put(TEXT, 6, struct.pack("<Q", 1111)) + bytes(4), "data has 1,056 bytes where its header asks for 1,052"),
    (put(TEXT, 14, bytes(8)), "data names the context 0000000000000000; accepted: that of its fields"),
    (put(TEXT, 22, bytes(8)), f"data belongs to the key 0000000000000000; accepted: {KEY}"),
    (put(TEXT, 30, b"\x41"), "data has N = 65 and 2 primes"),
    (put(TEXT, 46, b"\xff"), "data has N = 64 and 255 primes"),
    (put(TEXT, 46, b"\0"), "data has N = 64 and 0 primes"),
    (put(TEXT, 34, struct.pack("<d", 2.0**27)), "data names the context .*; accepted: that of its fields"),
    (TEXT[:PARTS][:6] + struct.pack("<Q", PARTS) + TEXT[14:PARTS], "data has 0 bytes where its header asks for 12"),
    (put(TEXT, PARTS, b"\1"), "data has 1 parts"),
    (put(TEXT, PARTS, b"\3"), "where its header asks for"),
    (put(TEXT, LEVEL, b"\2"), "data has 2 parts, level 2 .*; accepted: 2 or 3, a level from 0 to 1"),
    (put(TEXT, LEVEL, b"\0"), "where its header asks for"),
    (put(TEXT, EACH, b"\2"), "bounds of kinds .2, 0."),
    (put(TEXT, EACH, b"\1"), "where its header asks for"),
    (put(TEXT, SCALE, struct.pack("<d", 0.0)), "data has the scale 0.0; accepted: a finite number"),
    (put(TEXT, SCALE, struct.pack("<d", np.nan)), "data has the scale nan"),
    (put(TEXT, SCALE, struct.pack("<d", np.inf)), "data has the scale inf"),
    (put(TEXT, SCALE, struct.pack("<d", 2.0**70)), "data: sizes up to 1 at scale 2.70.00 do not fit level 1"),
    (put(TEXT, LIMIT, struct.pack("<d", np.nan)), "the limit of data is not finite, or below 0"),
    (put(TEXT, LIMIT, struct.pack("<d", -1.0)), "the limit of data is not finite, or below 0"),
    (put(TEXT, ERROR, struct.pack("<d", np.inf)), "the error of data is not finite, or below 0"),
    (put(TEXT, ERROR, struct.pack("<d", 1e308)), "data: sizes up to .* do not fit"),
    (put(TEXT, FIRST, struct.pack("<I", CONTEXT.primes[0])), "data has residues that are not below their prime"),
    (put(TEXT, FIRST + 4 * 64, struct.pack("<I", CONTEXT.primes[1])), "residues that are not below their prime"),
]


@pytest.mark.parametrize(("data", "words"), REFUSED, ids=range(len(REFUSED)))
def test_ciphertexts_that_are_refused(data, words):
    refused(words, read_text, data)


def test_largest_residues_are_accepted():
    for i, q in enumerate(CONTEXT.primes):
        assert read_text(put(TEXT, FIRST + 4 * 64 * i, struct.pack("<I", q - 1))).parts[0, i, 0] == q - 1


def test_another_context_or_key_is_refused():
    refused("data is of context .*; accepted: of context", ciphertext_from_bytes, OTHER, TEXT, key=KEY)
    refused("data belongs to the key .*; accepted: 00", ciphertext_from_bytes, CONTEXT, TEXT, key="00" * 8)
    refused("data is of context", public_key_from_bytes, OTHER, public_key_to_bytes(PUBLIC))
    refused("context is a str; accepted: a Context", public_key_from_bytes, "context", public_key_to_bytes(PUBLIC))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"primes": (CONTEXT.primes[0] + 128, CONTEXT.primes[1])},
            "data has the prime .*; accepted: primes of 14 to 30",
        ),
        ({"primes": (101, 103)}, "data has the prime 101"),
        ({"primes": (2**31 - 1,)}, "data has the prime 2147483647"),
        ({"primes": (998244353 * 4 + 1,)}, "data has the prime"),
        ({"special": 0}, "data has the prime 0"),
        ({"special": CONTEXT.primes[0]}, "data has a prime twice"),
        ({"primes": CONTEXT.primes[:1] * 2}, "data has a prime twice"),
        ({"scale": 0.5}, "data has the scale 0.5; accepted: from 1 to 2"),
        ({"scale": float("nan")}, "data has the scale nan"),
        ({"degree": 4}, "data has N = 4 and 2 primes"),
        ({"degree": 2**15}, "data has N = 32,768"),
        ({"degree": 0}, "data has N = 0"),
        ({"degree": 1024}, "data has the prime"),
    ],
)
def test_contexts_that_are_refused(change, words):
    refused(words, read_context, context_to_bytes(replace(CONTEXT, **change)))


def test_toys_and_contexts_with_a_key_or_a_tail_are_refused():
    refused("modulus of 88 bits for N = 64; accepted: what has 128-bit security, or a toy", context_from_bytes, HEADER)
    assert context_from_bytes(context_to_bytes(ckks_context(8192, (30, 30)))).secure
    refused("insecure is 1; accepted: True or False", context_from_bytes, HEADER, insecure=1)
    refused("data names the key .*; accepted: none in a context", read_context, put(HEADER, 22, b"\1"))
    refused("data has 1 bytes where its header asks for 0", read_context, put(HEADER, 6, b"\x38") + b"\0")


def test_rotation_keys_that_are_refused():
    one, two, turn = rotation_keys_to_bytes(rotation_keys(SECRET, (1, 2), conjugate=True))
    read = partial(rotation_keys_from_bytes, CONTEXT, key=KEY)
    assert read((one, turn)).steps == (1,) and read([]).keys == {}
    refused("data rotates by 1; accepted: from 3 to 32, each step once", read, (two, one))
    refused("data rotates by 1; accepted: from 2 to 32", read, (one, one))
    refused("data rotates by 0; accepted: from 1", read, (put(one, HEAD, b"\0"),))
    refused("data rotates by 33; accepted", read, (put(one, HEAD, b"\x21"),))
    refused("messages is .*; accepted: a list or tuple of bytes", read, one)
    short = put(one[: HEAD + 2], 6, struct.pack("<Q", HEAD + 2))
    refused("data has 2 bytes where its header asks for 4", read, (short,))


@given(st.binary(max_size=200), st.integers(0, 60))
def test_arbitrary_bytes_are_refused(data, kept):
    for whole, read in [(TEXT, read_text), (HEADER, read_context)]:
        if whole[:kept] + data != whole:
            with pytest.raises(ValueError, match="data"):
                read(whole[:kept] + data)


def test_a_length_that_lies_takes_no_memory():
    large = ckks_context(16384, (30,) * 8, insecure=True)
    honest = context_to_bytes(large)
    lie = put(honest, 5, b"\4") + bytes([3, 7]) + struct.pack("<d", 2.0**30) + bytes([1, 1])
    tracemalloc.start()
    for size in [len(lie), MOST_BYTES, 2**63]:
        with pytest.raises(ValueError, match="data has"):
            ciphertext_from_bytes(large, put(lie, 6, struct.pack("<Q", size)), key="00" * 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


# --- the MAC ----------------------------------------------------------------------------------------------------------


def by_hand(key, message):
    """HMAC-SHA256 as RFC 2104 writes it."""
    pads = [bytes(a ^ b for a, b in zip(key.ljust(64, b"\0"), [pad] * 64, strict=True)) for pad in (0x36, 0x5C)]
    return hashlib.sha256(pads[1] + hashlib.sha256(pads[0] + message).digest()).digest()


def test_the_tag_is_that_of_the_standard():
    assert by_hand(b"key", b"The quick brown fox jumps over the lazy dog").hex() == (
        "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"
    )
    key = mac_key()
    for i, sender in enumerate(["client", "server"]):
        head = bytes([i]) + (258).to_bytes(8, "big")
        sealed = head + by_hand(key, b"spai-lab message 1" + head + TEXT) + TEXT
        assert seal(key, TEXT, sender=sender, counter=258) == sealed
        assert unseal(key, sealed, sender=sender, counter=258) == TEXT
    assert mac_key() != mac_key()


def test_without_a_mac_a_flipped_bit_is_another_number_and_with_it_an_error():
    flipped = put(TEXT, FIRST, bytes([TEXT[FIRST] ^ 1]))
    true, wrong = (decode(decrypt(SECRET, read_text(data))).real for data in (TEXT, flipped))
    assert np.abs(true - VALUES).max() < 1e-5 < np.abs(wrong - VALUES).max()
    key = mac_key()
    sealed = seal(key, TEXT, sender="client", counter=0)
    assert sealed.endswith(TEXT)
    refused("without the right tag", unseal, key, sealed[: -len(TEXT)] + flipped, sender="client", counter=0)


def test_every_bit_counts_and_so_do_order_direction_and_key():
    key = mac_key()
    sealed = seal(key, b"numbers", sender="client", counter=3)
    read = partial(unseal, key, sender="client", counter=3)
    assert read(sealed) == b"numbers"
    for bit in range(8 * len(sealed)):
        wrong = put(sealed, bit // 8, bytes([sealed[bit // 8] ^ 1 << bit % 8]))
        refused("sealed is 48 bytes without the right tag", read, wrong)
    for end in range(len(sealed)):
        refused("without the right tag", read, sealed[:end])
    refused(
        "sealed is message 3 of the client; accepted: message 4 of the client",
        unseal,
        key,
        sealed,
        sender="client",
        counter=4,
    )
    refused(
        "sealed is message 3 of the client; accepted: message 3 of the server",
        unseal,
        key,
        sealed,
        sender="server",
        counter=3,
    )
    refused("without the right tag", unseal, mac_key(), sealed, sender="client", counter=3)
    odd = b"\7" + sealed[1:9]
    odd += by_hand(key, b"spai-lab message 1" + odd)
    refused("sealed is message 3 of the party 7", read, odd)


def test_tags_are_compared_in_constant_time(monkeypatch):
    calls = []
    compare = authenticated.hmac.compare_digest
    monkeypatch.setattr(authenticated.hmac, "compare_digest", lambda a, b: calls.append(1) or compare(a, b))
    key = mac_key()
    refused(
        "right tag", unseal, key, seal(key, b"", sender="client", counter=0)[:-1] + b"x", sender="client", counter=0
    )
    assert calls == [1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": b"short"}, "key is a bytes that is not shown; accepted: 32 bytes"),
        ({"key": "k" * 32}, "key is a str that is not shown"),
        ({"message": "text"}, "message is 'text'; accepted: bytes"),
        ({"sender": "eve"}, "sender is 'eve'; accepted: 'client', 'server'"),
        ({"counter": -1}, "counter is -1; accepted"),
        ({"counter": 2**64}, "counter is 18446744073709551616; accepted: below 2.64"),
    ],
)
def test_seal_refused(change, words):
    refused(words, seal, **{"key": bytes(32), "message": b"", "sender": "client", "counter": 0, **change})


def conversation(key, *messages, change=None, server_key=None):
    """A client's messages to a server, through somebody on the wire; what the server got, and its channel."""
    client, near = pair("client", "wire", view=10**6)
    far, server = pair("wire", "server", view=10**6)

    def wire():
        far.send("nonce", *near.receive("nonce"))
        near.send("nonce", *far.receive("nonce"))
        sealed = [near.receive("sealed", bytes)[0] for _ in messages]
        for data in change(sealed) if change else sealed:
            far.send("sealed", data)

    def speak():
        channel = AuthenticatedChannel(client, key, role="client")
        for kind, *values in messages:
            channel.send(kind, *values)

    def listen():
        channel = AuthenticatedChannel(server, server_key or key, role="server")
        return [channel.receive_any({"bid": (int,), "offer": (bytes,)}) for _ in messages]

    got = run_parties(lambda *_: listen(), lambda *_: wire(), lambda *_: speak(), return_exceptions=True)[0]
    return got, server


def test_a_channel_delivers_or_closes():
    key, messages = mac_key(), [("bid", 5), ("offer", TEXT), ("bid", 6)]
    got, server = conversation(key, *messages)
    assert [(kind, *values) for kind, values in got] == messages
    assert [(kind, *values) for kind, values in unsealed(server.view)][1:] == messages
    for change, words in [
        (lambda sent: [sent[0], sent[0], sent[1]], "message 0 of the client; accepted: message 1"),
        (lambda sent: sent[1:] + sent[:1], "message 1 of the client; accepted: message 0"),
        (lambda sent: [sent[0], sent[2], sent[1]], "message 2 of the client; accepted: message 1"),
        (lambda sent: [sent[0], sent[1][:-1] + bytes([sent[1][-1] ^ 1]), sent[2]], "without the right tag"),
    ]:
        error, server = conversation(key, *messages, change=change)
        assert isinstance(error, ValueError) and words in str(error)
        with pytest.raises(ProtocolError, match="closed"):
            server.send("anything")
    error, _ = conversation(key, *messages, server_key=mac_key())
    assert "without the right tag" in str(error)
    kept = []
    conversation(key, *messages, change=lambda sent: kept.extend(sent) or sent)
    error, _ = conversation(key, *messages, change=lambda sent: kept)  # a conversation under the same key, played again
    assert "without the right tag" in str(error)
    error, _ = conversation(key, ("offer", 5))
    assert isinstance(error, ProtocolError) and "'offer' (int), expected 'bid' (int) or 'offer' (bytes)" in str(error)


def test_what_a_client_says_is_not_turned_back_to_it():
    key = mac_key()
    client, wire = pair("client", "wire")
    wire.send("nonce", bytes(32))
    channel = AuthenticatedChannel(client, key, role="client")
    channel.send("bid", 5)
    wire.receive("nonce")
    wire.send("sealed", *wire.receive("sealed"))
    with pytest.raises(ValueError, match="message 0 of the client; accepted: message 0 of the server"):
        channel.receive("bid", int)
    client, wire = pair("client", "wire")
    wire.send("nonce", b"short")
    with pytest.raises(ProtocolError, match="the nonce of the server has 5 bytes, expected 32"):
        AuthenticatedChannel(client, key, role="client")


# --- mutations --------------------------------------------------------------------------------------------------------

CHILD = """
import numpy as np
from spai_lab.crypto.authenticated import unseal
from spai_lab.crypto.ckks import decode, decrypt
from spai_lab.crypto.ckks_keys import SecretKey
from spai_lab.crypto import ckks_messages as m

key = sys.argv[2]
context = m.context_from_bytes((folder / "context").read_bytes(), insecure=True)
secret = SecretKey(context, np.load(folder / "secret.npy", allow_pickle=False), key)
warnings.simplefilter("error")

def number(data):
    x = m.ciphertext_from_bytes(context, data, key=key)
    assert (x.parts >= 0).all() and (x.parts < np.array(context.at(x.level))[:, None]).all()
    float(decode(decrypt(secret, x))[0].real)
    return m.ciphertext_to_bytes(x)

READERS = {
    "context": lambda d: m.context_to_bytes(m.context_from_bytes(d, insecure=True)),
    "public": lambda d: m.public_key_to_bytes(m.public_key_from_bytes(context, d)),
    "product": lambda d: m.relinearization_key_to_bytes(m.relinearization_key_from_bytes(context, d, key=key)),
    "rotation": lambda d: m.rotation_keys_to_bytes(m.rotation_keys_from_bytes(context, (d,), key=key))[0],
    "text": number,
}

def read(data, kind, counter):
    if counter is not None:
        data = unseal(bytes(32), data, sender="client", counter=counter)
    return READERS[kind](data) == data

for case in cases():
    report(lambda: read(*case))
"""
OURS = {"ckks_messages.py", "ckks_headers.py", "ckks_context.py", "authenticated.py"}
LENGTHS = {6: "<Q", 46: "<B", HEAD: "<B", HEAD + 1: "<B", HEAD + 10: "<B", 30: "<I"}


def test_mutated_messages_end_in_an_error_with_the_mac_and_are_read_as_they_are_without(tmp_path):
    random = np.random.default_rng(0)
    each = multiply(encrypted(limit=np.abs(VALUES) + 0.5), encrypted())
    whole = [
        ("context", HEADER),
        ("public", public_key_to_bytes(PUBLIC)),
        ("product", relinearization_key_to_bytes(relinearization_key(SECRET))),
        ("rotation", rotation_keys_to_bytes(rotation_keys(SECRET, (1,)))[0]),
        ("text", TEXT),
        ("text", ciphertext_to_bytes(each)),
    ]
    sealed = [(kind, seal(bytes(32), data, sender="client", counter=i)) for i, (kind, data) in enumerate(whole)]
    cases, origins = [], []
    for group in (whole, sealed):
        others = [data for _, data in group]
        for i, (kind, data) in enumerate(group):
            counter = None if group is whole else i
            cases.append((kind, data, counter))
            origins.append("whole")
            for damage in DAMAGES:
                made = [damaged(random, data, others, damage, LENGTHS) for _ in range(30)]
                made = [wrong for wrong in made if wrong != data]
                cases += [(kind, wrong, counter) for wrong in made]
                origins += [damage] * len(made)
    (tmp_path / "context").write_bytes(HEADER)
    np.save(tmp_path / "secret.npy", SECRET.s, allow_pickle=False)
    outcomes = in_a_child(tmp_path, CHILD, [(data, kind, counter) for kind, data, counter in cases], KEY)
    with_mac, without = Counter(), Counter()
    for (kind, _, counter), origin, (seconds, *outcome) in zip(cases, origins, outcomes, strict=True):
        assert seconds < 5
        if origin == "whole":
            assert outcome == ["number", True], (kind, outcome)
            continue
        (without if counter is None else with_mac)[outcome[0]] += 1
        if outcome[0] == "error":
            _, name, text, where = outcome
            begins = ("data", "the limit of data", "the error of data") if counter is None else "sealed is"
            assert name == "ValueError" and text.startswith(begins) and where in OURS, (kind, origin, outcome)
        else:
            assert counter is None and outcome == ["number", True], (kind, origin, outcome)
    assert with_mac["error"] >= 1000 and with_mac["number"] == 0
    assert without["error"] + without["number"] >= 1000
    assert without["number"] > 50  # what the MAC is for
    assert {*origins} == {"whole", *DAMAGES}
