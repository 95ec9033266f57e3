"""The traffic explorer: what it draws is what the channel carried."""

import pytest

from spai_lab.crypto.circuits_words import less_than
from spai_lab.crypto.garbled_circuit_parties import garbled_cost
from spai_lab.crypto.oblivious_transfer_extension import extended_cost
from spai_lab.mpc_figures import arrows
from spai_lab.style import to_png
from spai_lab.widgets.traffic_explorer import (
    BITS,
    PROTOCOLS,
    TRANSFERS,
    describe,
    render,
    traffic,
    traffic_explorer,
    verdict,
)

every = pytest.mark.parametrize("protocol", PROTOCOLS)


def sent(protocol, outgoing):
    return sum(each.size for each in traffic(protocol) if each.outgoing is outgoing)


@pytest.mark.parametrize(
    ("protocol", "cost"),
    [
        (f"{TRANSFERS:,} transfers", extended_cost(TRANSFERS, 16)),
        ("comparison", garbled_cost(less_than(BITS), 1, BITS)),
    ],
)
def test_bytes_are_those_that_the_protocol_is_said_to_cost(protocol, cost):
    assert (sent(protocol, True), sent(protocol, False)) == (cost.sender_bytes, cost.receiver_bytes)


@every
def test_every_step_has_a_picture_and_words(protocol):
    found = arrows(traffic(protocol))
    assert sum(each.count for each in found) == len(traffic(protocol))
    for messages in (1, len(found)):
        fig = render(protocol, messages)
        (veil,) = (artist for artist in fig.findobj() if artist.get_gid() == "to come")
        assert messages - 1 < veil.get_y() < messages
        assert found[messages - 1].kind in verdict(protocol, messages)
        assert describe(protocol, messages).count(";") == messages - 1
    assert to_png(fig).startswith(b"\x89PNG")


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="protocol"):
        render("gossip", 1)
    for messages in (0, 99):
        with pytest.raises(ValueError, match="messages"):
            render("one transfer", messages)


def test_another_protocol_brings_its_own_number_of_messages():
    explorable = traffic_explorer()
    for protocol in PROTOCOLS:
        explorable.controls["protocol"].value = protocol
        assert explorable.controls["messages"].max == explorable.values["messages"] == len(arrows(traffic(protocol)))
        assert protocol in explorable.alt
