r"""Who sends what: a client whose features stay encrypted, and clients whose updates are added unread.

The parties are plain functions of channels, for `spai_lab.crypto.parties.run_parties`. Formats are agreed on before
and passed to both sides; what comes in another one is refused. All follow the protocol (semi-honest), and nothing is
authenticated: who can change a message on its way changes the number in it.

| | sees | does not see |
|---|---|---|
| linear model: client | its features, the logits | weights, but for what logits tell |
| linear model: server | its model, the public key, ciphertexts, sizes and formats | features, logits, class |
| sum: each client | its update, the public key | other updates, the sum |
| sum: server | all encrypted updates, who sent which | any update, the sum |
| sum: key holder | the sum | single updates, unless the server hands them over or it hears the clients' wire |
"""

from collections.abc import Sequence

import numpy as np

from spai_lab.checks import check_count
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.paillier_keys import SecretKey, check_key, key_from_bytes, key_to_bytes
from spai_lab.crypto.paillier_linear import LinearModel, encrypted_linear
from spai_lab.crypto.paillier_numbers import FixedPoint, linear_format, sum_format
from spai_lab.crypto.paillier_vectors import (
    decrypt_vector,
    encrypt_vector,
    encrypted_sum,
    vector_from_bytes,
    vector_to_bytes,
)

# --- a linear model ---------------------------------------------------------------------------------------------------


def linear_client(
    channel: Channel,
    key: SecretKey,
    x: Sequence[float],
    *,
    classes: int,
    input_fmt: FixedPoint,
    weight_fmt: FixedPoint,
) -> np.ndarray:
    r"""Ask a server for the logits of features that it must not see: send $E(x)$, receive $E(w x + b)$, decrypt.

    Args:
        channel: to the server.
        key: its own secret key, which stays here.
        x: features `(D,)`, within `input_fmt`.
        classes: K, how many logits are expected.
        input_fmt, weight_fmt: the formats that were agreed on.
    Returns:
        the logits, float64 `(K,)`; the largest one's number is the class.
    Raises:
        ValueError: names the argument, or what is wrong with the answer.
        ProtocolError: the server broke the protocol.
    Reference: Paillier 1999, "Public-key cryptosystems based on composite degree residuosity classes", section 8.
    Survey: private AI, cryptography, homomorphic encryption.

    >>> from functools import partial
    >>> from spai_lab.crypto.paillier_keys import generate_key
    >>> from spai_lab.crypto.paillier_linear import linear_model
    >>> from spai_lab.crypto.paillier_numbers import fixed_point
    >>> from spai_lab.crypto.parties import run_parties
    >>> formats = {"input_fmt": fixed_point(4, 1.0), "weight_fmt": fixed_point(6, 2.0)}
    >>> key, model = generate_key(64, for_learning=True), linear_model([[0.5, -1.0], [1.0, 1.0]], [0.25, 0], **formats)
    >>> client = partial(linear_client, key=key, x=[1.0, 0.5], classes=2, **formats)
    >>> run_parties(client, partial(linear_server, model=model, for_learning=True))
    [array([0.25, 1.5 ]), None]
    """
    check_key("key", key, SecretKey)
    check_count("classes", classes)
    features = encrypt_vector(key, x, input_fmt)
    channel.send("features", key_to_bytes(key.public), vector_to_bytes(key.public, features))
    (data,) = channel.receive("logits", bytes)
    fmt = linear_format(len(features.values), input_fmt, weight_fmt)
    return decrypt_vector(key, vector_from_bytes(key.public, data, size=classes, fmt=fmt))


def linear_server(channel: Channel, model: LinearModel, *, for_learning: bool = False) -> None:
    """Answer one question of a `linear_client`, without the key that would show it.

    Args:
        channel: to the client.
        model: the server's own.
        for_learning: accept a key too small for secrets.
    Raises:
        ValueError: what is wrong with the question.
        ProtocolError: the client broke the protocol.
    """
    key, data = channel.receive("features", bytes, bytes)
    public = key_from_bytes(key, for_learning=for_learning)
    x = vector_from_bytes(public, data, size=len(model.w[0]), fmt=model.input_fmt)
    channel.send("logits", vector_to_bytes(public, encrypted_linear(public, model, x)))


# --- a federated sum --------------------------------------------------------------------------------------------------


def sum_key_holder(channel: Channel, key: SecretKey, *, clients: int, size: int, fmt: FixedPoint) -> np.ndarray:
    r"""Own the key under which clients encrypt, and decrypt their sum, the only ciphertexts that it gets.

    Two parties keep each other in check: the server has all updates and no key, the key holder a key and no update.
    If they talk, both read everything. With n clients, n - 1 who talk find the last one's update in the sum.

    Args:
        channel: to the server.
        key: its secret key, which stays here.
        clients: how many there are, at least 2: a sum of one is an update.
        size: D, of an update.
        fmt: of an update, as agreed on.
    Returns:
        the sum, float64 `(D,)`.
    Raises:
        ValueError: names the argument, or what is wrong with the sum.
        ProtocolError: the server broke the protocol.
    Reference: Paillier 1999, "Public-key cryptosystems based on composite degree residuosity classes", section 8.
    Survey: private AI, cryptography, homomorphic encryption.
    Simplified: nobody may drop out, and the exact sum is told; differential privacy would add noise to it.

    >>> from functools import partial
    >>> from spai_lab.crypto.paillier_keys import generate_key
    >>> from spai_lab.crypto.paillier_numbers import fixed_point
    >>> from spai_lab.crypto.parties import run_parties
    >>> fmt, key = fixed_point(8, 4.0), generate_key(64, for_learning=True)
    >>> server = partial(sum_server, size=2, fmt=fmt, for_learning=True)
    >>> holder = partial(sum_key_holder, key=key, clients=2, size=2, fmt=fmt)
    >>> clients = [partial(sum_client, update=u, fmt=fmt, for_learning=True) for u in ([0.5, -1.0], [0.25, 3.0])]
    >>> run_parties(server, holder, *clients, topology="star")
    [None, array([0.75, 2.  ]), None, None]
    """
    check_key("key", key, SecretKey)
    check_clients(clients)
    channel.send("key", key_to_bytes(key.public))
    (data,) = channel.receive("sum", bytes)
    total = vector_from_bytes(key.public, data, size=size, fmt=sum_format(clients, fmt))
    return decrypt_vector(key, total)


def sum_server(key_holder: Channel, *clients: Channel, size: int, fmt: FixedPoint, for_learning: bool = False) -> None:
    """Pass on the public key, add up what comes back, and send the re-randomized sum to who can read it.

    Args:
        key_holder: channel to the key's holder.
        clients: channels to at least 2 clients.
        size: D, of an update.
        fmt: of an update, as agreed on.
        for_learning: accept a key too small for secrets.
    Raises:
        ValueError: names the argument, or what is wrong with a message.
        ProtocolError: another party broke the protocol.
    Simplified: clients get the key from the server. One that cheats would hand out its own and read everything.
    """
    check_clients(len(clients))
    (key,) = key_holder.receive("key", bytes)
    public = key_from_bytes(key, for_learning=for_learning)
    for client in clients:
        client.send("key", key)
    updates = [vector_from_bytes(public, *client.receive("update", bytes), size=size, fmt=fmt) for client in clients]
    key_holder.send("sum", vector_to_bytes(public, encrypted_sum(public, updates)))


def sum_client(channel: Channel, update: Sequence[float], *, fmt: FixedPoint, for_learning: bool = False) -> None:
    """Encrypt an update under the key that the server passes on, and send it.

    Args:
        channel: to the server.
        update: `(D,)`, within `fmt`.
        fmt: as agreed on.
        for_learning: accept a key too small for secrets.
    Raises:
        ValueError: names the argument, or what is wrong with the key.
        ProtocolError: the server broke the protocol.
    """
    (key,) = channel.receive("key", bytes)
    public = key_from_bytes(key, for_learning=for_learning)
    channel.send("update", vector_to_bytes(public, encrypt_vector(public, update, fmt)))


def check_clients(count: int) -> None:
    """Raise `ValueError` for a sum of fewer than two.

    >>> check_clients(1)
    Traceback (most recent call last):
    ValueError: clients is 1; accepted: a whole number of at least 2
    """
    check_count("clients", count, low=2)
