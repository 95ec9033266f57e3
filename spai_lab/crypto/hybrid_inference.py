r"""Inference between two parties: linear layers under ring-LWE, ReLU and pools in garbled circuits, both exact.

A client has an image, a server has a network. Between any two layers neither has the values: they have shares, whose
sum modulo $2^l$ is the value. Homomorphic encryption is good at sums of products, and bad at comparing; with garbled
circuits it is the other way round. So each does its part (MiniONN, GAZELLE):

| step of a stage | client | server |
|---|---|---|
| before | share a | share b; at first a is the image and b is 0 |
| linear | sends $\mathrm{Enc}(a)$ | sends $\mathrm{Enc}(W a - r)$, keeps $W b + \text{bias} + r$, r uniform |
| garbled | evaluates `shared_relu` on the shares | garbles it, with a fresh share b of the result |
| last | gets the logits | sends its share |

No number wraps around: `limits` bounds each $|z|$ for all images in [0, 1] by less than $2^{l - 1}$, so that the signed
sum of the shares is z, always. So the logits are those of `fixed_logits`, to the last bit.

| who | sees | does not see |
|---|---|---|
| client | its image, the logits, shapes, f, g, each l, uniform shares, one label a wire | weights, z, activations |
| server | its weights, the same terms, a public key, ciphertexts, oblivious transfers | the image, z, logits |

Why the client does not see weights. Its decryption has N coefficients, of which a few are outputs; the others are sums
of its own share and weights as well. The server's r covers all of them, and is drawn anew each time: what the client
decrypts is uniform. What it could learn beside it, from $c_1$ and the noise, is hidden for each ciphertext to $2^{-40}$
in statistical distance, and under ring-LWE (`spai_lab.crypto.rlwe_flooding`). Only the wanted coefficients of $c_0$ are
sent, which saves nearly half of the bytes. What logits themselves tell of weights, to who asks often, is another matter
(chapter 11); and so is l (`spai_lab.crypto.hybrid_terms`).

Both follow the protocol (semi-honest). A ciphertext is made to be changed: who changes one on the way changes numbers,
and nobody notices, unless the channel is an `spai_lab.crypto.authenticated.AuthenticatedChannel`.

For learning, not for secrets.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from torch import Tensor

from spai_lab.checks import check_callable
from spai_lab.crypto.channel import Channel, Lap, lap
from spai_lab.crypto.circuits import Circuit
from spai_lab.crypto.circuits_bits import from_bits, to_bits
from spai_lab.crypto.circuits_words import shared_relu
from spai_lab.crypto.ckks_ciphertext import check_type
from spai_lab.crypto.fixed_network import FixedNetwork, Stage, fixed_images, squares, windows
from spai_lab.crypto.garbled_circuit_labels import LabelHash, blake2_hash
from spai_lab.crypto.garbled_circuit_parties import evaluator, garbler
from spai_lab.crypto.hybrid_terms import HybridTerms, check_network, receive_residues, receive_terms, send_terms
from spai_lab.crypto.rlwe import (
    Ciphertext,
    SecretKey,
    add_plain,
    decrypt_at,
    encrypt,
    fresh_bound,
    secret_key,
    trimmed,
)
from spai_lab.crypto.rlwe_flooding import PublicKey, flood, public_key
from spai_lab.crypto.rlwe_linear import (
    Layout,
    encoded_weights,
    encrypted_products,
    input_polynomials,
    outputs_of,
    stage_layout,
)
from spai_lab.crypto.secret_sharing_parties import receive_elements
from spai_lab.crypto.secret_sharing_ring import Ring, to_signed

SHARE, OUTPUTS, REST, LOGITS = "encrypted share", "masked outputs", "masked outputs, c1", "shares of the logits"
TRANSFERS = 2**18  # oblivious transfers in one run, so that a frame has 8 MiB

# --- the parties ------------------------------------------------------------------------------------------------------


def hybrid_server(
    channel: Channel, network: FixedNetwork, terms: HybridTerms, *, label_hash: LabelHash = blake2_hash
) -> list[Lap]:
    """Compute the logits of a `hybrid_client`'s images, and see neither.

    Args:
        channel: to the client.
        network: this party's own.
        terms: of `public_terms`, as agreed on.
        label_hash: of the garbled circuits, as agreed on.
    Returns:
        what each part cost, as `lap` counts.
    Raises:
        ValueError: names the argument; `NoiseTooLarge`, the weights are too large for the degree.
        ProtocolError: the client broke the protocol.
        TimeoutError: the client stalled longer than the channel's `timeout`.
    Reference: Liu, Juuti, Lu and Asokan 2017, "Oblivious neural network predictions via MiniONN transformations", IACR
        2017/452; Juvekar, Vaikuntanathan and Chandrakasan 2018, "GAZELLE", arXiv 1801.05507; Huang, Lu, Hong and Ding
        2022, "Cheetah", IACR 2022/207, for products of polynomials.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: all is done when the image is there; MiniONN and GAZELLE prepare garbled circuits, or products of random
        shares, before. GAZELLE rotates slots instead. Semi-honest.
    """
    check_network(network, terms)
    check_callable("label_hash", label_hash)
    laps = []
    with lap(channel, "terms", laps):
        public = receive_terms(channel, terms, label_hash)
    share = np.zeros((terms.images, *network.stages[0].shape), np.uint64)
    schemes = terms.schemes
    for k, (stage, scheme) in enumerate(zip(network.stages, schemes, strict=True)):
        with lap(channel, f"stage {k + 1}: linear", laps):
            z = linear_server(channel, replace(public, scheme=scheme), stage, share)
        if k + 1 < len(schemes):
            with lap(channel, f"stage {k + 1}: garbled", laps):
                ring = schemes[k + 1].ring
                share = relu_server(channel, stage, z, scheme.ring, ring, network.weight_places, label_hash)
    with lap(channel, "logits", laps):
        channel.send(LOGITS, z[:, :, 0])
    return laps


def hybrid_client(
    channel: Channel, x: Tensor, terms: HybridTerms, *, label_hash: LabelHash = blake2_hash
) -> tuple[np.ndarray, list[Lap]]:
    """Get the logits of images from a `hybrid_server`, which does not see them; keys are drawn here anew.

    Args:
        channel: to the server.
        x: images `(N, C, H, W)` in [0, 1], as many as agreed on.
        terms: of `public_terms`, as agreed on.
        label_hash: of the garbled circuits, as agreed on.
    Returns:
        logits as whole numbers, int64 `(N, K)`, those of `fixed_logits`, and what each part cost, as `lap` counts.
    Raises:
        ValueError: names the argument.
        ProtocolError: the server broke the protocol.
        TimeoutError: the server stalled longer than the channel's `timeout`.
    Reference: as `hybrid_server`: Liu et al. 2017 (MiniONN), IACR 2017/452; Juvekar et al. 2018 (GAZELLE), arXiv
        1801.05507; Huang et al. 2022 (Cheetah), IACR 2022/207.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: as in `hybrid_server`.

    >>> import torch
    >>> from functools import partial
    >>> from spai_lab.crypto.fixed_network import fixed_logits, fixed_network
    >>> from spai_lab.crypto.hybrid_terms import public_terms
    >>> from spai_lab.crypto.parties import run_parties
    >>> from spai_lab.crypto.relu_networks import relu_network
    >>> network = fixed_network(relu_network((1, 3, 3), 2, hidden=3), (1, 3, 3), value_places=4, weight_places=4)
    >>> x, terms = torch.rand(1, 1, 3, 3), public_terms(network)
    >>> server, client = partial(hybrid_server, network=network, terms=terms), partial(hybrid_client, x=x, terms=terms)
    >>> _, (logits, laps) = run_parties(server, client)
    >>> (logits == fixed_logits(network, x)).all(), [each.name for each in laps][:3]
    (np.True_, ['terms', 'stage 1: linear', 'stage 1: garbled'])
    """
    check_type("terms", terms, HybridTerms)
    check_callable("label_hash", label_hash)
    laps, schemes, stages = [], terms.schemes, terms.network.stages
    share = schemes[0].ring.reduce(fixed_images(terms.network, x).astype(np.uint64))
    if len(share) != terms.images:
        raise ValueError(f"x holds {len(share)} images; accepted: {terms.images}, as in terms")
    with lap(channel, "terms", laps):
        secret = secret_key(schemes[0])
        send_terms(channel, terms, public_key(secret), label_hash)
    for k, (stage, scheme) in enumerate(zip(stages, schemes, strict=True)):
        with lap(channel, f"stage {k + 1}: linear", laps):
            z = linear_client(channel, replace(secret, scheme=scheme), stage, share)
        if k + 1 < len(schemes):
            with lap(channel, f"stage {k + 1}: garbled", laps):
                ring = schemes[k + 1].ring
                share = relu_client(channel, stage, z, scheme.ring, ring, terms.network.weight_places, label_hash)
    with lap(channel, "logits", laps):
        ring, z = schemes[-1].ring, z[:, :, 0]
        (other,) = receive_elements(channel, LOGITS, [z.shape], ring)
        return to_signed(ring.reduce(z + other), ring), laps


# --- linear layers ----------------------------------------------------------------------------------------------------


def linear_server(channel: Channel, public: PublicKey, stage: Stage, share: np.ndarray) -> np.ndarray:
    """The server's share of a linear layer, `(N, M, P)`: of its own share in the clear, of the client's encrypted."""
    scheme, layout = public.scheme, stage_layout(stage, public.scheme.degree)
    shape = (layout.groups, 2, len(scheme.primes), scheme.degree)
    came = [receive_residues(channel, SHARE, scheme, shape) for _ in share]
    weights = encoded_weights(scheme, layout, stage.weight)
    z = scheme.ring.reduce(linear(stage, share) + stage.bias.astype(np.uint64)[:, None])
    for i, parts in enumerate(came):
        masks = scheme.ring.draw((layout.blocks, scheme.degree))
        products = encrypted_products([Ciphertext(scheme, each, fresh_bound()) for each in parts], weights)
        answers = masked_products(public, products, masks)
        c0, c1 = (np.stack(each) for each in zip(*(trimmed(c, layout.wanted.ravel()) for c in answers), strict=True))
        channel.send(OUTPUTS, c0)
        channel.send(REST, c1)
        z[i] += outputs_of(layout, masks[:, layout.wanted])
    return scheme.ring.reduce(z)


def linear_client(channel: Channel, secret: SecretKey, stage: Stage, share: np.ndarray) -> np.ndarray:
    """The client's share of a linear layer, `(N, M, P)`: what it decrypts."""
    layout = stage_layout(stage, secret.scheme.degree)
    for each in share:
        polynomials = input_polynomials(layout, each)
        channel.send(SHARE, np.stack([encrypt(secret, m).parts for m in polynomials]).astype(np.uint32))
    return np.stack([receive_outputs(channel, secret, layout) for _ in share])


def linear(stage: Stage, share: np.ndarray) -> np.ndarray:
    """The layer without its bias, `(N, M, P)`, modulo 2^64."""
    weight = stage.weight.astype(np.uint64)
    return np.stack([Ring().matmul(weight, columns) for columns in windows(share, stage)])


def masked_products(public: PublicKey, products: list[Ciphertext], masks: np.ndarray) -> list[Ciphertext]:
    """Less a uniform r in all coefficients, asked for or not, and flooded."""
    ring = public.scheme.ring
    return [flood(public, add_plain(c, ring.reduce(-r))) for c, r in zip(products, masks, strict=True)]


def receive_outputs(channel: Channel, secret: SecretKey, layout: Layout) -> np.ndarray:
    """The outputs of one image, `(M, P)`, decrypted."""
    scheme, wanted = secret.scheme, layout.wanted
    head = (layout.blocks, len(scheme.primes))
    c0 = receive_residues(channel, OUTPUTS, scheme, (*head, wanted.size))
    c1 = receive_residues(channel, REST, scheme, (*head, scheme.degree))
    blocks = [decrypt_at(secret, *parts, wanted.ravel()) for parts in zip(c0, c1, strict=True)]
    return outputs_of(layout, np.stack(blocks).reshape(-1, *wanted.shape))


# --- between them -----------------------------------------------------------------------------------------------------


def relu_server(
    channel: Channel, stage: Stage, z: np.ndarray, ring: Ring, result: Ring, places: int, label_hash: LabelHash
) -> np.ndarray:
    """The server's share of pool and ReLU of z, `(N, ...)`: r, drawn here."""
    shares = squares(z, stage)
    r = result.draw(shares.shape[:2])
    own = np.hstack([words(shares, ring), to_bits(r.reshape(-1), result.bits)])
    for part, circuit in runs(stage, len(own), ring, result, places):
        garbler(channel, circuit, own[part], label_hash=label_hash)
    return r.reshape(len(z), *stage.outputs)


def relu_client(
    channel: Channel, stage: Stage, z: np.ndarray, ring: Ring, result: Ring, places: int, label_hash: LabelHash
) -> np.ndarray:
    """The client's share of pool and ReLU of z, `(N, ...)`: what it evaluates."""
    own = words(squares(z, stage), ring)
    found = [
        evaluator(channel, circuit, own[part], label_hash=label_hash)
        for part, circuit in runs(stage, len(own), ring, result, places)
    ]
    return from_bits(np.concatenate(found)).reshape(len(z), *stage.outputs)


def words(shares: np.ndarray, ring: Ring) -> np.ndarray:
    """Numbers `(N, outputs, m)` as inputs of a circuit, bool `(N outputs, m l)`."""
    return to_bits(shares.reshape(-1), ring.bits).reshape(-1, shares.shape[2] * ring.bits)


def runs(stage: Stage, count: int, ring: Ring, result: Ring, places: int) -> Iterator[tuple[slice, Circuit]]:
    """The circuit, and which instances are garbled together: all, unless transfers would not fit a frame."""
    pool = stage.pool**2
    circuit = shared_relu(ring.bits, pool=pool, places=places, result_bits=result.bits)
    size = max(1, TRANSFERS // (pool * ring.bits))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count)), circuit
