r"""SecureML: two servers classify an image of which they see nothing, with a network of which they see nothing either.

| who | has | sends | sees |
|---|---|---|---|
| client | images | a share of each to each server | the logits, if agreed on |
| owner | weights | a share of each to each server | the logits, if agreed on |
| server 0, server 1 | shares of all | masked factors, garbled circuits, its share of the logits | uniform numbers |
| dealer | nothing | triples | shapes |

The servers must not talk to each other beyond the protocol, nor the dealer to any of them: two who put their shares
together know everything. In place of a dealer, the servers can make triples themselves (`make_triples`).

For each stage, with all numbers in shares modulo $2^{64}$ and in fixed point:

| step | how | messages between servers |
|---|---|---|
| $Z = W X + b$, X the windows | a Beaver triple of matrices; windows are cut from shares | one exchange |
| $\lfloor Z / 2^g \rceil$ | each server shifts its share (`truncate`) | none |
| largest of a square, ReLU | a garbled circuit on the shares: server 0 garbles | five |

The result is that of `fixed_logits` within `logit_errors`, except with a probability of at most `inference_failure`.
All parties follow the protocol (semi-honest). For learning, not for secrets.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from torch import Tensor

from spai_lab.checks import check_callable
from spai_lab.crypto.authenticated import AuthenticatedChannel
from spai_lab.crypto.channel import Channel, Lap, lap
from spai_lab.crypto.circuits_words import shared_relu
from spai_lab.crypto.fixed_network import FixedNetwork, fixed_images, squares, windows
from spai_lab.crypto.garbled_circuit_labels import LabelHash, blake2_hash
from spai_lab.crypto.paillier_keys import check_whole
from spai_lab.crypto.parties import run_parties
from spai_lab.crypto.secret_sharing import truncate
from spai_lab.crypto.secret_sharing_circuits import between_shares
from spai_lab.crypto.secret_sharing_dealers import dealer, receive_triples
from spai_lab.crypto.secret_sharing_parties import Link, add, matmul, receive_elements
from spai_lab.crypto.secret_sharing_ring import RING, Ring
from spai_lab.crypto.secret_sharing_triples import Request, Source
from spai_lab.crypto.secureml_owners import secureml_client, secureml_owner
from spai_lab.crypto.secureml_terms import WORKING, Terms, agree, check_terms, inference_terms

End = Channel | AuthenticatedChannel
Weights = list[tuple[np.ndarray, np.ndarray]]
NAMES = ("client", "server 0", "server 1", "owner", "dealer")


class Inference(NamedTuple):
    """What a run of all parties gives: the logits as whole numbers, `to_logits` has the fractions; costs of servers."""

    logits: np.ndarray
    laps: tuple[tuple[Lap, ...], tuple[Lap, ...]]


# --- servers ----------------------------------------------------------------------------------------------------------


def secureml_party(
    client: End,
    other: End,
    owner: End,
    third: End | None = None,
    *,
    party: int,
    terms: Terms,
    make_triples: Callable[[End, Sequence[Request]], Source] | None = None,
    label_hash: LabelHash = blake2_hash,
    ring: Ring = RING,
) -> tuple[Lap, ...]:
    """A server: it gets shares, computes with the other one, and gives its share of the logits away.

    Args:
        client, other, owner, third: channels to the client, the other server, the owner and the dealer; no dealer is
            needed with `make_triples`.
        party: 0 or 1, each once.
        terms: as agreed on.
        make_triples: called with the channel to the other server and all requests, in the place of a dealer: such as
            a `partial` of `paillier_triples` with one's own key.
        label_hash: of garbled circuits, the same for both.
        ring: the ring.
    Returns:
        what each part cost at this end, in order: inputs, triples, each stage, the result.
    Raises:
        ValueError: names the argument.
        ProtocolError: another party broke the protocol, or agreed on something else.
        TimeoutError: another party stalled longer than the channel's `timeout`.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, sections 3 and 4.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: each window of an image is masked anew, where the image could be masked once.
    """
    check_terms(terms)
    check_whole("party", party, 0, 1)
    if make_triples is not None:
        check_callable("make_triples", make_triples)
    elif third is None:
        raise ValueError("third is None; accepted: a channel to a dealer, or make_triples")
    laps, form = [], terms.form
    shapes = [part.shape for stage in form.stages for part in (stage.weight, stage.bias)]
    with lap(owner, "weights", laps):
        agree(owner, terms.fields)
        parts = [receive_elements(owner, "share", [shape], ring)[0] for shape in shapes]
    with lap(client, "images", laps):
        agree(client, terms.fields)
        (values,) = receive_elements(client, "share", [(terms.images, *form.stages[0].shape)], ring)
    source = third if make_triples is None else other
    with lap(other, "agreement", laps):
        agree(other, terms.fields)
    with lap(source, "triples", laps):
        triples = (
            make_triples(other, terms.requests) if make_triples else receive_triples(third, terms.requests, ring=ring)
        )
    link = Link(other, party, triples, ring)
    weights = list(zip(parts[::2], parts[1::2], strict=True))
    waiting = {name: end for name, end in (("client", client), ("owner", owner)) if terms.logits_to in (name, "both")}

    def report() -> None:
        for end in waiting.values():
            end.send(WORKING)

    logits = infer_on_shares(link, terms, weights, values, laps=laps, report=report, label_hash=label_hash)
    for name, end in waiting.items():
        with lap(end, f"logits for the {name}", laps):
            end.send("logits", logits)
    return tuple(laps)


def infer_on_shares(
    link: Link,
    terms: Terms,
    weights: Weights,
    values: np.ndarray,
    *,
    laps: list[Lap] | None = None,
    report: Callable[[], object] = tuple,
    label_hash: LabelHash = blake2_hash,
) -> np.ndarray:
    r"""The network on shares, between two servers: $Z = W X + b$, truncated, pooled, ReLU, stage by stage.

    Args:
        link: of a server, with triples for the `requests` of the terms.
        terms: as agreed on.
        weights: its shares of W and b of each stage.
        values: its share of the images as whole numbers, uint64 `(N, ...)`.
        laps: grows by what each step of each stage cost.
        report: called after each stage but the last; whoever waits for the result may be told.
        label_hash: of garbled circuits.
    Returns:
        its share of the logits, uint64 `(N, K)`, with f + g binary places.
    Raises:
        ValueError: names the argument.
        ProtocolError: the other server broke the protocol.
        TimeoutError: it stalled longer than the channel's `timeout`.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, sections 3 and 4.
    Survey: private AI, cryptography, multi-party computation.
    """
    laps, form, n = [] if laps is None else laps, terms.form, terms.images
    for number, (stage, (weight, bias)) in enumerate(zip(form.stages, weights, strict=True), start=1):
        with lap(link.channel, f"stage {number}: linear", laps):
            columns = np.ascontiguousarray(windows(values, stage).transpose(1, 0, 2)).reshape(weight.shape[1], -1)
            product = matmul(link, weight, columns).reshape(-1, n, stage.places).transpose(1, 0, 2)
            z = add(link, product, np.broadcast_to(bias[:, None], product.shape))
        if stage is form.stages[-1]:
            break
        with lap(link.channel, f"stage {number}: garbled", laps):
            z = squares(z, stage)
            z = truncate(z.reshape(-1, z.shape[-1]), form.weight_places, party=link.party, ring=link.ring)
            circuit = shared_relu(terms.relu_bits, pool=stage.pool**2, result_bits=link.ring.bits)
            values = between_shares(link, circuit, z, label_hash=label_hash).reshape(n, *stage.outputs)
        report()
    return np.ascontiguousarray(z[:, :, 0])


# --- all together -----------------------------------------------------------------------------------------------------


def secureml_inference(
    network: FixedNetwork,
    x: Tensor,
    *,
    relu_bits: int = 64,
    label_hash: LabelHash = blake2_hash,
    transport: str = "threads",
    **settings: object,
) -> Inference:
    """Run all five parties on this machine: client, two servers, owner, dealer.

    Args:
        network: the owner's, of `fixed_network`.
        x: the client's images `(N, C, H, W)` in [0, 1].
        relu_bits: as in `inference_terms`.
        label_hash: of garbled circuits.
        transport: "threads" or "processes", as in `run_parties`.
        settings: of all channels, as in `Channel`.
    Returns:
        the client's logits, and what each part cost at each server.
    Raises:
        ValueError: names the argument.
        Exception: what a party raised.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396.
    Survey: private AI, cryptography, multi-party computation.

    >>> import torch
    >>> from spai_lab.crypto.fixed_network import fixed_logits, fixed_network
    >>> from spai_lab.crypto.relu_networks import relu_network
    >>> network = fixed_network(relu_network(hidden=2), (1, 8, 8), value_places=13, weight_places=13)
    >>> x = torch.rand(1, 1, 8, 8)
    >>> logits, (laps, _) = secureml_inference(network, x)
    >>> bool(np.abs(logits - fixed_logits(network, x)).max() < 2**15)
    True
    >>> [each.name for each in laps if each.name.startswith("stage")]
    ['stage 1: linear', 'stage 1: garbled', 'stage 2: linear']
    """
    terms = inference_terms(network, images=len(fixed_images(network, x)), relu_bits=relu_bits)
    server = partial(secureml_party, terms=terms, label_hash=label_hash)
    parties = [
        partial(middle, secureml_client, (0, 1), x=x, terms=terms),
        *(partial(server, party=number) for number in (0, 1)),
        partial(middle, secureml_owner, (1, 2), network=network, terms=terms),
        partial(middle, dealer, (1, 2), requests=terms.requests),
    ]
    logits, *laps, _, _ = run_parties(*parties, names=NAMES, transport=transport, **settings)
    return Inference(logits, tuple(laps))


def middle(party: Callable, servers: tuple[int, int], *channels: Channel, **arguments: object) -> object:
    """Run a party that talks to the two servers alone, with its channels to all."""
    return party(*(channels[i] for i in servers), **arguments)
