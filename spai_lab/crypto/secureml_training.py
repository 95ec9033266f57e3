r"""SecureML trains: two servers find the weights of a logistic regression from examples that neither sees.

| who | has | sends | sees |
|---|---|---|---|
| owner | images, labels | a share of each to each server | the weights |
| server 0, server 1 | shares of all | masked factors, garbled circuits, its share of the weights | uniform numbers |
| dealer | a mask for the images | its shares, products with it | shapes |

A step of `spai_lab.crypto.secureml_training_terms`, on shares:

| step | how | each way, in numbers of 8 bytes |
|---|---|---|
| $X w$ | w masked and opened, against X that is masked already | d K |
| u, rounded | each server shifts its share | 0 |
| $f(u)$ | a garbled circuit, B K times; server 0 garbles | see `garbled_cost` |
| $X^\top (f(u) - y)$ | as the first product | B K |
| w less that, shifted | each server for itself | 0 |

**Masked once.** X is in two products of each step, in all epochs. So $E = X - A$ is opened once, n d numbers, and the
dealer makes all triples with rows of the same A. A second use of A tells nothing, as E stays the same; but what X is
multiplied by needs a fresh mask each time.

All parties follow the protocol (semi-honest). For learning, not for secrets.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from spai_lab.checks import check_flag
from spai_lab.crypto.channel import Lap, lap
from spai_lab.crypto.circuits_sigmoid import shared_sigmoid
from spai_lab.crypto.garbled_circuit_labels import LabelHash, blake2_hash
from spai_lab.crypto.paillier_keys import check_whole
from spai_lab.crypto.parties import run_parties
from spai_lab.crypto.secret_sharing import share
from spai_lab.crypto.secret_sharing_circuits import between_shares
from spai_lab.crypto.secret_sharing_masked import deal, masked_matmul
from spai_lab.crypto.secret_sharing_parties import Link, add_public, open_shares, receive_elements
from spai_lab.crypto.secret_sharing_ring import RING, Ring, to_ring
from spai_lab.crypto.secureml import middle
from spai_lab.crypto.secureml_owners import End, opened
from spai_lab.crypto.secureml_terms import WORKING, agree, check_terms
from spai_lab.crypto.secureml_training_terms import TrainingTerms, check_examples

NAMES = ("owner", "server 0", "server 1", "dealer")


class Training(NamedTuple):
    """What a run of all parties gives: the owner's weights, int64 `(d, K)` in units; what each part cost at servers."""

    weights: np.ndarray
    laps: tuple[tuple[Lap, ...], tuple[Lap, ...]]


# --- owner and dealer -------------------------------------------------------------------------------------------------


def training_owner(
    first: End, second: End, x: np.ndarray, y: np.ndarray, *, terms: TrainingTerms, ring: Ring = RING
) -> np.ndarray:
    """Send each server a share of all examples, batch by batch, and put the shares of the weights together.

    Args:
        first, second: channels to server 0 and server 1.
        x, y: of `fixed_examples`.
        terms: as agreed on.
        ring: the ring.
    Returns:
        weights, int64 `(d, K)`, for `to_weights`.
    Raises:
        ValueError: names the argument.
        ProtocolError: a server broke the protocol, or agreed on something else.
        TimeoutError: a server stalled longer than the channel's `timeout`.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, section 4.1.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: one owner, who gets the model; in SecureML the examples may come from many.
    """
    check_examples(terms, x, y)
    for server in (first, second):
        agree(server, terms.fields)
    for rows in terms.batches:
        parts = [share(to_ring(part[rows], ring), ring=ring) for part in (x, y)]
        for server, each in zip((first, second), zip(*parts, strict=True), strict=True):
            server.send("examples", *each)
    return opened((first, second), "weights", (terms.features, terms.classes), terms.steps, ring)


def training_dealer(first: End, second: End, *, terms: TrainingTerms, ring: Ring = RING) -> None:
    r"""Deal shares of a mask A for the examples; then for each product a fresh b and $A_B b$ or $A_B^\top b$.

    Args:
        first, second: channels to server 0 and server 1.
        terms: as agreed on.
        ring: the ring.
    Raises:
        ValueError: names the argument.
        ProtocolError: a server has left, or agreed on something else.
    Reference: Beaver 1991, "Efficient multiparty protocols using circuit randomization", section 2; Mohassel and Zhang
        2017, "SecureML", IACR 2017/396, section 4.1, for one mask in all epochs.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: trusted, as `spai_lab.crypto.secret_sharing_dealers.dealer` is. SecureML's servers make these triples
        themselves, by oblivious transfer or under Paillier encryption.
    """
    check_terms(terms, TrainingTerms)
    for server in (first, second):
        agree(server, terms.fields)
    masks = [ring.draw((rows.stop - rows.start, terms.features)) for rows in terms.batches]
    for a in masks:
        deal((first, second), "mask", [a], ring)
    for a in masks * terms.epochs:
        for left in (a, np.ascontiguousarray(a.T)):
            b = ring.draw((left.shape[1], terms.classes))
            deal((first, second), "product", [b, ring.matmul(left, b)], ring)


# --- servers ----------------------------------------------------------------------------------------------------------


def training_party(
    owner: End,
    other: End,
    third: End,
    *,
    party: int,
    terms: TrainingTerms,
    label_hash: LabelHash = blake2_hash,
    ring: Ring = RING,
    progress: bool = False,
) -> tuple[Lap, ...]:
    """A server: it gets shares of examples, trains with the other one, and gives its share of the weights away.

    Args:
        owner, other, third: channels to the owner, the other server and the dealer.
        party: 0 or 1, each once.
        terms: as agreed on.
        label_hash: of garbled circuits, the same for both.
        ring: the ring.
        progress: show a bar with the time left.
    Returns:
        what each part cost at this end: inputs, masks, of each epoch products and circuits, the result.
    Raises:
        ValueError: names the argument.
        ProtocolError: another party broke the protocol, or agreed on something else.
        TimeoutError: another party stalled longer than the channel's `timeout`.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, section 4.1.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: batches are taken in order, of examples that their owner has shuffled.
    """
    check_terms(terms, TrainingTerms)
    check_whole("party", party, 0, 1)
    check_flag("progress", progress)
    laps, link, d, k = [], Link(other, party, ring=ring), terms.features, terms.classes
    sizes = [rows.stop - rows.start for rows in terms.batches]
    for name, channel in (("examples", owner), ("masks", third), ("data masked", other)):
        with lap(channel, name, laps):
            agree(channel, terms.fields)
            match name:
                case "examples":
                    examples = [receive_elements(owner, "examples", [(size, d), (size, k)], ring) for size in sizes]
                case "masks":
                    masks = [receive_elements(third, "mask", [(size, d)], ring)[0] for size in sizes]
                case "data masked":
                    masked = [
                        open_shares(link, ring.reduce(x - a))[0] for (x, _), a in zip(examples, masks, strict=True)
                    ]
    circuit = shared_sigmoid(ring.bits, terms.weight_places, width=terms.width)
    activate = partial(between_shares, link, circuit, label_hash=label_hash)
    step = partial(train_step, link, third, terms=terms, activate=activate)
    w = np.zeros((d, k), np.uint64)
    with tqdm(total=terms.steps, desc="training on shares", unit="step", disable=not progress) as bar:
        for epoch in range(1, terms.epochs + 1):
            parts = []
            for e, a, (_, y) in zip(masked, masks, examples, strict=True):
                w = step(w, e, a, y, parts=parts)
                owner.send(WORKING)
                bar.update()
            laps += [summed(parts, name, f"epoch {epoch}: {name}") for name in ("triples", "linear", "garbled")]
    with lap(owner, "weights for the owner", laps):
        owner.send("weights", w)
    return tuple(laps)


def train_step(
    link: Link,
    third: End,
    w: np.ndarray,
    e: np.ndarray,
    a: np.ndarray,
    y: np.ndarray,
    *,
    terms: TrainingTerms,
    activate: Callable[[np.ndarray], np.ndarray],
    parts: list[Lap],
) -> np.ndarray:
    r"""A server's share of $w - \lfloor X^\top (f(\lfloor X w / 2^f \rfloor) - y) / 2^{f+s} \rfloor$; `parts` grows."""
    ring, f, g, s = link.ring, terms.value_places, terms.weight_places, terms.step_places

    def product(e: np.ndarray, a: np.ndarray, right: np.ndarray, places: int) -> np.ndarray:
        with lap(third, "triples", parts):
            b, c = receive_elements(third, "product", [right.shape, (len(e), right.shape[1])], ring)
        with lap(link.channel, "linear", parts):
            return masked_matmul(link, e, a, right, b, c, places=places)

    u = product(e, a, w, f)
    v = add_public(link, u, np.full_like(u, 1 << g - 1))
    with lap(link.channel, "garbled", parts):
        activation = activate(v.reshape(-1, 1)).reshape(u.shape)
    gradient = product(*(np.ascontiguousarray(part.T) for part in (e, a)), ring.reduce(activation - y), f + s)
    return ring.reduce(w - gradient)


def summed(laps: list[Lap], name: str, title: str) -> Lap:
    """All laps of one name together."""
    costs = [(each.bytes_sent, each.bytes_received, each.rounds, each.seconds) for each in laps if each.name == name]
    return Lap(title, *map(sum, zip(*costs, strict=True)))


# --- all together -----------------------------------------------------------------------------------------------------


def secureml_training(
    terms: TrainingTerms,
    x: np.ndarray,
    y: np.ndarray,
    *,
    label_hash: LabelHash = blake2_hash,
    transport: str = "threads",
    progress: bool = False,
    **settings: object,
) -> Training:
    """Run all four parties on this machine: owner, two servers, dealer.

    Args:
        terms: what they agree on.
        x, y: of `fixed_examples`.
        label_hash: of garbled circuits.
        transport: "threads" or "processes", as in `run_parties`.
        progress: show a bar with the time left.
        settings: of all channels, as in `Channel`.
    Returns:
        the owner's weights, and what each part cost at each server.
    Raises:
        ValueError: names the argument.
        Exception: what a party raised.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, section 4.1.
    Survey: private AI, cryptography, multi-party computation.

    >>> terms = TrainingTerms(2, 2, batch=2, value_places=1, weight_places=8, step_places=1)
    >>> x, y = np.array([[0, 2], [2, 2]]), np.array([[0], [256]])
    >>> weights, _ = secureml_training(terms, x, y)
    >>> bool(np.abs(weights - [[64], [0]]).max() <= 1)
    True
    """
    server = partial(training_party, terms=terms, label_hash=label_hash)
    parties: list[Callable] = [
        partial(middle, training_owner, (0, 1), x=x, y=y, terms=terms),
        partial(server, party=0, progress=progress),
        partial(server, party=1),
        partial(middle, training_dealer, (1, 2), terms=terms),
    ]
    weights, *laps, _ = run_parties(*parties, names=NAMES, transport=transport, **settings)
    return Training(weights, tuple(laps))
