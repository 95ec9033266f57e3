"""The traffic explorer: a protocol's messages, one after the other, as a channel really carried them."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from spai_lab.checks import check_choice, check_count
from spai_lab.crypto.channel import Channel, Sent
from spai_lab.crypto.circuits_words import less_than
from spai_lab.crypto.garbled_circuit_parties import evaluator, garbler
from spai_lab.crypto.oblivious_transfer import ot_receiver, ot_sender
from spai_lab.crypto.oblivious_transfer_extension import extended_receiver, extended_sender
from spai_lab.crypto.parties import run_parties
from spai_lab.crypto.secret_sharing_parties import Link, matmul, open_shares, share_both
from spai_lab.crypto.secret_sharing_ring import RING
from spai_lab.crypto.secret_sharing_triples import Request, deal_triple, stock
from spai_lab.he_figures import in_bytes
from spai_lab.mpc_figures import arrows, diagram
from spai_lab.style import Backdrop, styled
from spai_lab.widgets.explorable import Explorable

Party = Callable[[Channel], object]
TRANSFERS, BITS, SIDE = 1000, 32, 20
PALE = {"facecolor": "white", "alpha": 0.82, "linewidth": 0}


def transfer_parties(offer: Callable, take: Callable, count: int) -> tuple[Party, Party]:
    """Two parties of so many oblivious transfers of 16 bytes."""
    pairs = np.frombuffer(np.random.default_rng().bytes(32 * count), np.uint8).reshape(count, 2, 16)
    choices = np.arange(count) % 2 == 1
    return partial(offer, pairs=pairs), partial(take, choices=choices)


def comparison_parties() -> tuple[Party, Party]:
    """Who is richer, of two numbers of 32 bits, by a garbled circuit."""
    circuit, bits = less_than(BITS), np.random.default_rng().random((2, 1, BITS)) < 0.5
    return partial(garbler, circuit=circuit, inputs=bits[0]), partial(evaluator, circuit=circuit, inputs=bits[1])


def product_parties() -> tuple[Party, Party]:
    """The product of two 20 x 20 matrices, one of each party, on shares, with a triple that was dealt before."""
    halves = deal_triple(Request("matmul", (SIDE, SIDE), (SIDE, SIDE)))

    def party(channel: Channel, number: int) -> None:
        link = Link(channel, number, stock([halves[number]]))
        x, y = share_both(link, RING.draw((SIDE, SIDE)), (SIDE, SIDE))
        open_shares(link, matmul(link, x, y))

    return partial(party, number=0), partial(party, number=1)


PROTOCOLS: dict[str, tuple[tuple[str, str], Callable[[], tuple[Party, Party]]]] = {
    "one transfer": (("sender", "receiver"), partial(transfer_parties, ot_sender, ot_receiver, 1)),
    f"{TRANSFERS:,} transfers": (
        ("sender", "receiver"),
        partial(transfer_parties, extended_sender, extended_receiver, TRANSFERS),
    ),
    "comparison": (("garbler", "evaluator"), comparison_parties),
    "product": (("party 0", "party 1"), product_parties),
}


@lru_cache(maxsize=len(PROTOCOLS))
def traffic(protocol: str) -> tuple[Sent, ...]:
    """The log of the first party after a run; kept while the kernel runs."""
    check_choice("protocol", protocol, tuple(PROTOCOLS))
    first, second = PROTOCOLS[protocol][1]()

    def logging(channel: Channel) -> Sequence[Sent]:
        first(channel)
        return channel.log

    return tuple(run_parties(logging, second, log=True)[0])


@lru_cache(maxsize=len(PROTOCOLS))
def backdrop(protocol: str) -> Backdrop:
    """All arrows."""
    return Backdrop.of(*diagram(traffic(protocol), PROTOCOLS[protocol][0]))


def check_setting(protocol: str, messages: int) -> int:
    """How many arrows a protocol has; `ValueError` unless the setting is on the controls."""
    most = len(arrows(traffic(protocol)))
    check_count("messages", messages)
    if messages > most:
        raise ValueError(f"messages is {messages}; accepted: 1 to {most}")
    return most


def render(protocol: str, messages: int) -> Figure:
    """The messages of a protocol up to one of them; the others are pale.

    Args:
        protocol: one of `PROTOCOLS`.
        messages: how many arrows have been sent.
    Returns:
        the figure; the veil over those to come has the name (gid) "to come".
    Raises:
        ValueError: names the argument.
    """
    most = check_setting(protocol, messages)
    behind = backdrop(protocol)
    ax = behind.axes["diagram"]
    with styled():
        fig = behind.picture()
        veil = Rectangle((0, messages - 0.55), 1, most - messages + 1.5, gid="to come", transform=ax.transData, **PALE)
        fig.add_artist(veil)
    return fig


def verdict(protocol: str, messages: int) -> str:
    """What to see."""
    most = check_setting(protocol, messages)
    found, (first, second) = arrows(traffic(protocol)), PROTOCOLS[protocol][0]
    last = found[messages - 1]
    sender, receiver = (first, second) if last.outgoing else (second, first)
    sent = [sum(each.size for each in found[:messages] if each.outgoing is way) for way in (True, False)]
    return (
        f"{messages} of {most}: {sender} to {receiver}, “{last.kind}”, {in_bytes(last.size)}. So far "
        f"{in_bytes(sent[0])} from {first}, {in_bytes(sent[1])} from {second}."
    )


def describe(protocol: str, messages: int) -> str:
    """The picture for somebody who cannot see it."""
    check_setting(protocol, messages)
    first, second = PROTOCOLS[protocol][0]
    told = (
        f"{first if each.outgoing else second}: {each.kind}, {in_bytes(each.size)}"
        for each in arrows(traffic(protocol))[:messages]
    )
    return f"Sequence diagram, {protocol}, the first {messages} arrows. {'; '.join(told)}."


def traffic_explorer() -> Explorable:
    """The explorable: choose a protocol, which then runs, and follow its messages.

    Returns:
        the widget.
    """
    controls = {
        "protocol": widgets.Dropdown(description="protocol", options=list(PROTOCOLS), value="comparison"),
        "messages": widgets.IntSlider(description="messages", value=1, min=1, max=1),
    }

    def fit(name: str) -> None:
        if name == "protocol":
            slider = controls["messages"]
            slider.value = 1
            slider.max = len(arrows(traffic(controls["protocol"].value)))
            slider.value = slider.max

    fit("protocol")
    return Explorable(render, controls, alt=describe, caption=verdict, slow=("protocol",), adapt=fit)
