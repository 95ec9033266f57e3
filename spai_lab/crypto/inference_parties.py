r"""Encrypted inference between two parties: a client with images and a key, a server with weights and neither.

Two networks: single images (`spai_lab.crypto.encrypted_mlp`) and a batch with one image a slot
(`spai_lab.crypto.cryptonets_encrypted`). Each party is a plain function of a channel, for
`spai_lab.crypto.parties.run_parties`; all that travels carries a MAC. First both compare what they agreed on
(`spai_lab.crypto.inference_terms`), then the client sends its public keys, then questions, one ciphertext a message.

| | sees | does not see |
|---|---|---|
| client | its images, logits, sizes and limits agreed on, what the noise of logits tells of the weights | weights |
| server | weights, sizes and limits, context, public and evaluation keys, ciphertexts and when | pixels, logits |
| who hears the wire | what the server sees but the weights, and encrypted logits | pixels, logits, weights |

Both follow the protocol (semi-honest). For learning, not for secrets: as `spai_lab.crypto.ckks`.

Reference: Gilad-Bachrach et al. 2016, "CryptoNets"; Brutzkus, Elisha and Gilad-Bachrach 2018, "Low latency privacy
preserving inference", arXiv 1812.10659. Survey: private AI, homomorphic encryption.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spai_lab.checks import check_images
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.ckks import decode
from spai_lab.crypto.ckks_ciphertext import Ciphertext, check_type
from spai_lab.crypto.ckks_keys import SecretKey
from spai_lab.crypto.ckks_parties import ServerKeys, server_keys
from spai_lab.crypto.cryptonets import Layer
from spai_lab.crypto.cryptonets_encrypted import encrypt_batch
from spai_lab.crypto.cryptonets_encrypted import encrypted_logits as batch_logits
from spai_lab.crypto.encrypted_mlp import encode_network, encrypt_image
from spai_lab.crypto.encrypted_mlp import encrypted_logits as image_logits
from spai_lab.crypto.inference_agreements import (
    BatchAgreement,
    ImageAgreement,
    check_batch_layers,
    check_image_weights,
)
from spai_lab.crypto.inference_protocol import ask, check_context, serve
from spai_lab.crypto.inference_terms import Terms
from spai_lab.crypto.square_network import SquareWeights


@dataclass(frozen=True, eq=False)
class Inference:
    """What a client knows in the end: logits `(n, K)`, how wrong each can be, and what it cost.

    Bytes are those of the channel, keys and all, rounds how often the direction of talk changed.
    """

    logits: Tensor
    bound: float
    bytes_sent: int
    bytes_received: int
    rounds: int


def inference_keys(secret: SecretKey, terms: Terms) -> ServerKeys:
    """The keys that a server needs for these terms, made by the client.

    Args:
        secret: of the context agreed on; stays with the client.
        terms: of an agreement.
    Returns:
        public keys alone.
    Raises:
        ValueError: names the argument.
    """
    check_type("terms", terms, Terms)
    check_context("secret", secret, terms)
    return server_keys(secret, steps=terms.rotations, relinearize=True)


# --- one image --------------------------------------------------------------------------------------------------------


def image_client(
    channel: Channel,
    secret: SecretKey,
    keys: ServerKeys,
    images: Tensor,
    *,
    agreement: ImageAgreement,
    mac_key: bytes,
) -> Inference:
    r"""Ask for the logits of images, one question each, which the server never sees.

    Args:
        channel: to the server.
        secret: its own secret key, which stays here.
        keys: of `inference_keys`, made from that secret.
        images: float `(n, ...)` of d pixels in [0, 1], n at least 1.
        agreement: of `spai_lab.crypto.inference_agreements.image_agreement`.
        mac_key: 32 bytes that both have.
    Returns:
        logits, and a bound on their error that holds if the server keeps to the agreement.
    Raises:
        ValueError: names the argument, or what is wrong with an answer.
        ProtocolError: the server broke the protocol.
    Reference: Brutzkus, Elisha and Gilad-Bachrach 2018, arXiv 1812.10659.
    Survey: private AI, homomorphic encryption.

    >>> from functools import partial
    >>> from spai_lab.crypto.authenticated import mac_key
    >>> from spai_lab.crypto.ckks import ckks_context, secret_key
    >>> from spai_lab.crypto.inference_agreements import image_agreement
    >>> from spai_lab.crypto.parties import run_parties
    >>> from spai_lab.crypto.square_network import square_logits
    >>> W1, b1, W2, b2 = (torch.full(shape, 0.25, dtype=torch.float64) for shape in [(4, 4), (4,), (3, 4), (3,)])
    >>> weights, x, key = SquareWeights(W1, b1, W2, b2), torch.rand(2, 1, 2, 2), mac_key()
    >>> agreed = image_agreement(ckks_context(64, (30,) * 4, insecure=True), (4, 4, 3), rows=(2.0, 2.0))
    >>> secret = secret_key(agreed.terms.context)
    >>> client = partial(image_client, secret=secret, keys=inference_keys(secret, agreed.terms), images=x,
    ...     agreement=agreed, mac_key=key)
    >>> server = partial(image_server, weights=weights, agreement=agreed, mac_key=key, insecure=True)
    >>> answer, count = run_parties(client, server)
    >>> bool(((answer.logits - square_logits(weights, x)).abs() < answer.bound).all()), count
    (True, 2)
    """
    check_type("agreement", agreement, ImageAgreement)
    check_images(images, "images")
    if len(images) == 0:
        raise ValueError("images holds none; accepted: at least one")
    layout, terms = agreement.layout, agreement.terms
    questions = ([encrypt_image(keys.public, layout, image)] for image in images)
    answers = ask(channel, secret, keys, questions, terms=terms, mac_key=mac_key)
    logits = np.stack([decode(answer).real[: layout.classes] for (answer,) in answers])
    return inference(channel, logits, max(np.max(answer.error[: layout.classes]) for (answer,) in answers))


def image_server(
    channel: Channel,
    weights: SquareWeights,
    *,
    agreement: ImageAgreement,
    mac_key: bytes,
    insecure: bool = False,
) -> int:
    """Answer an `image_client` until it leaves, without a key to look.

    Args:
        channel: to the client.
        weights: the server's own; held to the agreement before anything is said.
        agreement: the same as the client's.
        mac_key: 32 bytes that both have.
        insecure: accept the keys of a toy.
    Returns:
        how many images were answered.
    Raises:
        ValueError: names the argument, or what is wrong with a message.
        ProtocolError: the client broke the protocol.
    """
    check_image_weights(agreement, weights)
    limits = [agreement.hidden_limit] * agreement.layout.hidden
    network = encode_network(agreement.terms.context, weights, limits=limits, scale=agreement.scale)

    def function(texts: list[Ciphertext], keys: ServerKeys) -> list[Ciphertext]:
        return [image_logits(network, texts[0], keys.relinearization, keys.rotations)]

    return serve(channel, function, terms=agreement.terms, mac_key=mac_key, insecure=insecure)


# --- a batch ----------------------------------------------------------------------------------------------------------


def batch_client(
    channel: Channel,
    secret: SecretKey,
    keys: ServerKeys,
    images: Tensor | np.ndarray,
    *,
    agreement: BatchAgreement,
    mac_key: bytes,
) -> Inference:
    """Ask for the logits of up to N / 2 images at once, in one question of as many ciphertexts as pixels.

    Args:
        channel: to the server.
        secret: its own secret key, which stays here.
        keys: of `inference_keys`, made from that secret.
        images: `(B, C, H, W)` or rows `(B, n)`, in [0, 1], B from 1 to N / 2.
        agreement: of `spai_lab.crypto.inference_terms.batch_agreement`.
        mac_key: 32 bytes that both have.
    Returns:
        logits, and a bound on their error that holds if the server keeps to the agreement, and activations to their
        limits.
    Raises:
        ValueError: names the argument, or what is wrong with an answer.
        ProtocolError: the server broke the protocol.
    Reference: Gilad-Bachrach et al. 2016, "CryptoNets".
    Survey: private AI, homomorphic encryption.
    """
    check_type("agreement", agreement, BatchAgreement)
    questions = (encrypt_batch(keys.public, agreement.plan, images) for _ in range(1))
    (answer,) = ask(channel, secret, keys, questions, terms=agreement.terms, mac_key=mac_key)
    logits = np.stack([decode(each).real[: len(images)] for each in answer], axis=1)
    return inference(channel, logits, max(np.max(each.error) for each in answer))


def batch_server(
    channel: Channel,
    layers: Sequence[Layer],
    *,
    agreement: BatchAgreement,
    mac_key: bytes,
    insecure: bool = False,
) -> int:
    """Answer a `batch_client` until it leaves; else like `image_server`.

    Args:
        channel: to the client.
        layers: the server's own, of `spai_lab.crypto.cryptonets.fold`; held to the agreement before anything is said.
        agreement: the same as the client's.
        mac_key: 32 bytes that both have.
        insecure: accept the keys of a toy.
    Returns:
        how many batches were answered.
    Raises:
        ValueError: names the argument, or what is wrong with a message.
        ProtocolError: the client broke the protocol.
    """
    check_batch_layers(agreement, layers)

    def function(texts: list[Ciphertext], keys: ServerKeys) -> list[Ciphertext]:
        return batch_logits(layers, agreement.plan, texts, keys.relinearization)

    return serve(channel, function, terms=agreement.terms, mac_key=mac_key, insecure=insecure)


def inference(channel: Channel, logits: np.ndarray, bound: float) -> Inference:
    """The client's result."""
    costs = channel.bytes_sent, channel.bytes_received, channel.rounds
    return Inference(torch.from_numpy(logits.copy()), float(bound), *costs)
