r"""CKKS, part seven: a client whose numbers stay encrypted, and a server that computes on them without a key to look.

The parties are plain functions of a channel, for `spai_lab.crypto.parties.run_parties`. All that travels carries a MAC
(`spai_lab.crypto.authenticated`). Both follow the protocol (semi-honest).

| | sees | does not see |
|---|---|---|
| client | its numbers, the answers, and what their noise tells of the function | the function itself |
| server | its function, context, public and evaluation keys, ciphertexts, their levels, limits and times | any number |
| who hears the wire | what the server sees, and the encrypted answers | any number |

An answer also has a limit, an error and a scale that the client reads: they must depend on nothing that is secret.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spai_lab.checks import check_callable, check_count, check_flag, describe
from spai_lab.crypto.authenticated import AuthenticatedChannel, unsealed
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.ckks import decrypt, encrypt
from spai_lab.crypto.ckks_ciphertext import Ciphertext, check_type
from spai_lab.crypto.ckks_context import Bound, Context
from spai_lab.crypto.ckks_encoding import Plaintext, encode
from spai_lab.crypto.ckks_headers import described
from spai_lab.crypto.ckks_keys import (
    PublicKey,
    RelinearizationKey,
    RotationKeys,
    SecretKey,
    check_secret,
    public_key,
    relinearization_key,
    rotation_keys,
)
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

MOST_TEXTS = 1024  # ciphertexts in a question or an answer


@dataclass(frozen=True, eq=False)
class ServerKeys:
    """All that a server holds: what the client made public. `relinearization` and `rotations` may be missing."""

    context: Context
    public: PublicKey
    relinearization: RelinearizationKey | None = None
    rotations: RotationKeys | None = None


Function = Callable[[list[Ciphertext], ServerKeys], Sequence[Ciphertext]]


def server_keys(secret: SecretKey, *, steps: Sequence[int] = (), relinearize: bool = False) -> ServerKeys:
    """The keys that a server needs, made by the client.

    Args:
        secret: stays with the client.
        steps: rotations that the function takes.
        relinearize: whether it multiplies ciphertexts.
    Returns:
        public keys alone.
    Raises:
        ValueError: names the argument.
    """
    check_secret(secret)
    check_flag("relinearize", relinearize)
    products = relinearization_key(secret) if relinearize else None
    rotations = rotation_keys(secret, steps) if steps else None
    return ServerKeys(secret.context, public_key(secret), products, rotations)


# --- the two parties --------------------------------------------------------------------------------------------------


def ckks_client(
    channel: Channel,
    secret: SecretKey,
    keys: ServerKeys,
    questions: Sequence[Sequence[np.ndarray]],
    *,
    answers: int,
    mac_key: bytes,
    limit: Bound = 1.0,
) -> list[list[Plaintext]]:
    """Send the keys once, then questions, each of one or more encrypted vectors, and decrypt the answers.

    Args:
        channel: to the server.
        secret: its own secret key, which stays here.
        keys: of `server_keys`, made from that secret.
        questions: each a list of vectors for the slots, at least one.
        answers: how many ciphertexts an answer has.
        mac_key: 32 bytes that both have.
        limit: on the size of all numbers, known to both, so that no header tells how large they are.
    Returns:
        the answers to each question; `decode` gives the numbers. Their `error` is what the server claims, and only as
        good as the server. Show them to nobody without `spai_lab.crypto.ckks_sharing.flood`.
    Raises:
        ValueError: names the argument, or what is wrong with an answer.
        ProtocolError: the server broke the protocol.
    Reference: Gilad-Bachrach et al. 2016, "CryptoNets", for the setting.
    Survey: private AI, cryptography, homomorphic encryption.

    >>> from functools import partial
    >>> from spai_lab.crypto.authenticated import mac_key
    >>> from spai_lab.crypto.ckks import ckks_context, decode, rotate, secret_key
    >>> from spai_lab.crypto.parties import run_parties
    >>> def swapped(inputs, keys):
    ...     return [rotate(inputs[0], 1, keys.rotations)]
    >>> secret, key = secret_key(ckks_context(64, (30, 28), insecure=True)), mac_key()
    >>> client = partial(ckks_client, secret=secret, keys=server_keys(secret, steps=(1,)), mac_key=key,
    ...     questions=[[[0.25, -0.5]]], answers=1)
    >>> server = partial(ckks_server, function=swapped, mac_key=key, insecure=True)
    >>> ((answer,),), _ = run_parties(client, server)
    >>> decode(answer).real[:1].round(2)
    array([-0.5])
    """
    check_secret(secret)
    check_type("keys", keys, ServerKeys)
    if keys.public.fingerprint != secret.fingerprint:
        raise ValueError(f"keys belong to {keys.public.fingerprint}; accepted: those of secret, {secret.fingerprint}")
    check_count("answers", answers)
    with AuthenticatedChannel(channel, mac_key, role="client") as server:
        send_keys(server, keys)
        results = [ask(server, secret, keys.public, vectors, answers=answers, limit=limit) for vectors in questions]
        server.send("goodbye")
    return results


def ckks_server(channel: Channel, function: Function, *, mac_key: bytes, insecure: bool = False) -> int:
    """Receive keys, then answer questions with the function of their ciphertexts, until the client leaves.

    Args:
        channel: to the client.
        function: from the ciphertexts of a question and `ServerKeys` to those of the answer.
        mac_key: 32 bytes that both have.
        insecure: accept the keys of a toy.
    Returns:
        how many questions were answered.
    Raises:
        ValueError: names the argument, or what is wrong with a message.
        ProtocolError: the client broke the protocol.
    Simplified: answers keep their noise, in which a client that looks may read the function. Whoever must hide it adds
        an encryption of 0 with flooding noise, as in Gentry 2009, "A fully homomorphic encryption scheme".
    """
    check_callable("function", function)
    with AuthenticatedChannel(channel, mac_key, role="server") as client:
        keys, count = receive_keys(client, insecure=insecure), 0
        while (came := client.receive_any({"question": (tuple,), "goodbye": ()})).kind == "question":
            client.send("answer", texts_to_bytes(function(texts_from_bytes(keys.public, *came.values), keys)))
            count += 1
    return count


# --- what they say ----------------------------------------------------------------------------------------------------


def send_keys(server: AuthenticatedChannel, keys: ServerKeys) -> None:
    """The context and all keys, once; each rotation key is a message of its own, so that no frame grows too long."""
    rotations = rotation_keys_to_bytes(keys.rotations) if keys.rotations else ()
    products = relinearization_key_to_bytes(keys.relinearization) if keys.relinearization else b""
    head = context_to_bytes(keys.context), public_key_to_bytes(keys.public), products
    server.send("keys", *head, len(rotations))
    for data in rotations:
        server.send("rotation key", data)


def receive_keys(client: AuthenticatedChannel, *, insecure: bool = False) -> ServerKeys:
    """What `send_keys` sent; raise `ValueError` for a context that is not secure, unless toys are welcome."""
    head, public, products, count = client.receive("keys", bytes, bytes, bytes, int)
    context = context_from_bytes(head, insecure=insecure)
    public = public_key_from_bytes(context, public)
    key = public.fingerprint
    relinearization = relinearization_key_from_bytes(context, products, key=key) if products else None
    if not 0 <= count <= context.slots:
        raise ValueError(f"the client announces {count:,} rotation keys; accepted: from 0 to {context.slots:,}")
    rotations = [client.receive("rotation key", bytes)[0] for _ in range(count)]
    held = rotation_keys_from_bytes(context, rotations, key=key) if rotations else None
    return ServerKeys(context, public, relinearization, held)


def ask(
    server: AuthenticatedChannel,
    secret: SecretKey,
    public: PublicKey,
    vectors: Sequence[np.ndarray],
    *,
    answers: int,
    limit: Bound,
) -> list[Plaintext]:
    """One question and its answer; as in `ckks_client`."""
    texts = [encrypt(public, encode(secret.context, vector, limit=limit)) for vector in vectors]
    server.send("question", texts_to_bytes(texts))
    (data,) = server.receive("answer", tuple)
    if len(data) != answers:
        raise ValueError(f"the answer has {len(data):,} ciphertexts; accepted: {answers:,}")
    return [decrypt(secret, x) for x in texts_from_bytes(public, data)]


def texts_to_bytes(texts: Sequence[Ciphertext]) -> tuple[bytes, ...]:
    """Ciphertexts as they travel, together."""
    if not isinstance(texts, list | tuple) or not 0 < len(texts) <= MOST_TEXTS:
        raise ValueError(f"a function or a question gives {describe(texts)}; accepted: a list of 1 to {MOST_TEXTS:,}")
    return tuple(map(ciphertext_to_bytes, texts))


def texts_from_bytes(public: PublicKey, data: tuple[bytes, ...]) -> list[Ciphertext]:
    """Ciphertexts of this key, each read by `ciphertext_from_bytes`."""
    if not 0 < len(data) <= MOST_TEXTS:
        raise ValueError(f"data has {len(data):,} ciphertexts; accepted: from 1 to {MOST_TEXTS:,}")
    return [ciphertext_from_bytes(public.context, each, key=public.fingerprint) for each in data]


def seen(channel: Channel) -> list[str]:
    """What a party saw, a line for each thing that it received; the channel must have kept a `view`.

    >>> from spai_lab.crypto.channel import pair
    >>> alice, bob = pair("Alice", "Bob", view=1000)
    >>> alice.send("bid", 5)
    >>> bob.receive("bid"), seen(bob)
    ((5,), ['bid: 5'])
    """
    lines = []
    for kind, values in unsealed(channel.view):
        flat = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
        lines += [f"{kind}: {described(x) if isinstance(x, bytes) else describe(x)}" for x in flat] or [kind]
    return lines
