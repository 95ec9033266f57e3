"""Channels: frames against their arithmetic, both transports against each other, and all that must be refused."""

import math
import os
import pickle
import socket
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from spai_lab.crypto.channel import Channel, Disconnected, pair
from spai_lab.crypto.channel_ports import connect, listen
from spai_lab.crypto.frames import DTYPES, TENSOR_DTYPES, Message, ProtocolError, pack, unpack
from spai_lab.crypto.parties import PartyLost, run_parties

VALUES = st.recursive(
    st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"])) | st.binary(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)


def over_tcp(**settings):
    """Two connected channels over TCP."""
    with listen() as door:
        bob = connect(door.address, name="Bob", peer="Alice", **settings)
        return door.accept(name="Alice", peer="Bob", **settings), bob


def in_memory(**settings):
    return pair("Alice", "Bob", **settings)


def raw(**settings):
    """A bare socket, and the channel at its other end."""
    with listen() as door:
        wire = socket.create_connection(door.address)
        return wire, door.accept(name="Alice", peer="Bob", **settings)


both = pytest.mark.parametrize("ends", [in_memory, over_tcp])


# --- frames -----------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.lists(VALUES, max_size=4))
@example("ints", [0, -1, 127, 128, -128, -129, 255, 256, 2**4096, -(2**4096)])
@example("floats", [0.0, -0.0, math.inf, math.nan, 5e-324])
def test_what_is_packed_is_unpacked(kind, values):
    message = unpack(pack(kind, *values)[4:])
    assert message.kind == kind and repr(message.values) == repr(tuple(values))  # repr tells -0.0 and NaN


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)], ids=str)
def test_arrays_and_tensors_come_back_as_they_were(dtype, shape):
    array = np.random.default_rng(0).integers(0, 2 if dtype.kind == "b" else 100, shape).astype(dtype)
    (back,) = unpack(pack("a", array)[4:]).values
    assert back.dtype == array.dtype and back.shape == shape and (back == array).all() and back.flags.writeable
    if dtype in TENSOR_DTYPES:
        tensor = torch.from_numpy(np.array(array))
        (back,) = unpack(pack("t", tensor)[4:]).values
        assert back.dtype == tensor.dtype and torch.equal(back, tensor) and back.shape == shape


def test_views_byte_orders_and_gradients_do_not_matter():
    grid = torch.arange(6.0, requires_grad=True).view(2, 3).T
    (back,) = unpack(pack("t", grid)[4:]).values
    assert torch.equal(back, grid) and back.is_contiguous() and not back.requires_grad
    assert pack("a", np.arange(3, dtype=">i4")) == pack("a", np.arange(3, dtype="<i4"))


def test_the_length_of_a_frame_is_the_arithmetic_of_its_table():
    values = (2**64, 0.5, "äh", b"abc", torch.zeros(2, 3), np.zeros(5, np.uint8), (1, ()))
    sizes = (5 + 9, 9, 5 + 3, 5 + 3, 3 + 4 * 2 + 6 * 4, 3 + 4 + 5, 5 + (5 + 1) + 5)
    assert len(pack("kind", *values)) == 4 + (5 + 4) + sum(sizes)


NOT_SENT = {
    "None": None,
    "bool": True,
    "list": [1],
    "dict": {1: 2},
    "complex": 1j,
    "object": object(),
    "scalar of NumPy": np.int64(1),
    "array of str": np.array(["a"]),
    "array of objects": np.array([None]),
    "complex tensor": torch.zeros(1) * 1j,
    "bfloat16": torch.zeros(1, dtype=torch.bfloat16),
    "sparse": torch.eye(2).to_sparse(),
    "deep": ((((((),),),),),),
    "nine dimensions": np.zeros((1,) * 9),
    "half a character": "\ud800",
}


@pytest.mark.parametrize("value", NOT_SENT.values(), ids=NOT_SENT)
def test_nothing_else_is_sent(value):
    with pytest.raises(ValueError, match=r"value|surrogates"):
        pack("kind", value)


def word(*numbers):
    return b"".join(number.to_bytes(4, "big") for number in numbers)


KIND = b"s" + word(1) + b"k"
MALFORMED = {
    "empty": (b"", "does not begin with the kind"),
    "kind is a number": (b"i" + word(1) + b"\0", "does not begin with the kind"),
    "no such tag": (KIND + b"p", "begins no value"),
    "a pickle": (KIND + pickle.dumps([1]), "begins no value"),
    "short str": (b"s" + word(2) + b"k", "needs 2 more bytes, 1 are left"),
    "short length": (KIND + b"b\0\0", "needs 4 more bytes"),
    "no UTF-8": (b"s" + word(1) + b"\xff", "not UTF-8"),
    "short float": (KIND + b"f1234567", "needs 8"),
    "many values": (KIND + b"(" + word(2**32 - 1), "4,294,967,295 values in 0 bytes"),
    "deep": (KIND + (b"(" + word(1)) * 6, "begins no value here"),
    "no such dtype": (KIND + b"n" + bytes([99, 0]), "dtype 99"),
    "no dtype of tensors": (KIND + b"t" + bytes([len(DTYPES) - 1, 0]), "dtype"),
    "many dimensions": (KIND + b"t" + bytes([7, 200]), "200 dimensions"),
    "large shape": (KIND + b"t" + bytes([7, 2]) + word(2**31, 2**31), "too large"),
    "large shape around nothing": (KIND + b"t" + bytes([7, 4]) + word(0, 2**31, 2**31, 2**31), "too large"),
    "short array": (KIND + b"t" + bytes([7, 1]) + word(2) + b"1234567", "needs 8 more bytes"),
    "bool": (KIND + b"t" + bytes([0, 1]) + word(3) + b"\0\2\1", "neither 0 nor 1"),
}


@pytest.mark.parametrize(("payload", "words"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_frames_are_refused_and_release_the_sender(payload, words):
    with pytest.raises(ProtocolError, match=words):
        unpack(payload)
    wire, alice = raw()
    wire.sendall(word(len(payload)) + payload)
    with pytest.raises(ProtocolError, match=f"Bob to Alice: .*{words}"):
        alice.receive("k")
    assert wire.recv(1) == b""
    wire.close()


@given(
    st.binary(max_size=60)
    | st.tuples(st.binary(max_size=40), st.integers(0, 40), VALUES).map(
        lambda planted: (
            (frame := pack("k", planted[2], torch.ones(2))[4:])[: planted[1]] + planted[0] + frame[planted[1] + 3 :]
        )
    )
)
def test_arbitrary_bytes_are_a_message_or_a_protocol_error(payload):
    try:
        message = unpack(payload)
    except ProtocolError:
        return
    assert isinstance(message, Message)


# --- channels ---------------------------------------------------------------------------------------------------------


@both
def test_both_ends_count_the_bytes_of_the_frames_and_the_turns(ends):
    alice, bob = ends()
    sent = [("one", 1), ("two", torch.zeros(1000)), ("three", "x")]
    for kind, value in sent:
        alice.send(kind, value)
    for kind, _ in sent:
        bob.receive(kind)
    bob.send("four", 4.0)
    alice.receive("four", float)
    alice.send("five")
    bob.receive("five")
    there = sum(len(pack(*message)) for message in sent) + len(pack("five"))
    assert alice.bytes_sent == bob.bytes_received == there
    assert bob.bytes_sent == alice.bytes_received == len(pack("four", 4.0)) == 4 + 9 + 9
    assert alice.rounds == bob.rounds == 3
    alice.close(), bob.close()


def test_the_bytes_on_the_wire_are_the_frame():
    wire, alice = raw()
    alice.send("update", 3, torch.ones(2))
    frame = pack("update", 3, torch.ones(2))
    assert wire.recv(1000) == frame
    wire.sendall(frame[:11])
    threading.Timer(0.05, wire.sendall, [frame[11:]]).start()
    assert alice.receive("update")[0] == 3
    wire.close(), alice.close()


@both
def test_two_who_send_megabytes_at_once_do_not_block_each_other(ends):
    alice, bob = ends(timeout=20)
    big = torch.arange(2**21)
    thread = threading.Thread(target=lambda: (bob.send("big", big), bob.receive("big"), bob.close()))
    thread.start()
    alice.send("big", big)
    assert torch.equal(alice.receive("big")[0], big)
    thread.join()
    alice.close()


def test_an_announced_length_takes_no_memory_before_it_is_checked():
    wire, alice = raw(max_frame=100)
    wire.sendall(word(101))
    with pytest.raises(ProtocolError, match="announces 101 bytes; at most 100"):
        alice.receive("k")
    wire.close()


def test_a_frame_too_long_is_not_sent():
    alice, bob = pair(max_frame=20)
    alice.send("k", b"123456789")
    with pytest.raises(ProtocolError, match="takes 21 bytes; a frame holds at most 20"):
        alice.send("k", b"1234567890")
    assert bob.receive("k") == (b"123456789",) and alice.bytes_sent == 24


@both
def test_another_kind_or_other_types_are_refused(ends):
    for words, wanted in (
        ("message is 'bid', expected 'ask'", ("ask",)),
        (r"holds \(int\), expected \(str\)", ("bid", str)),
    ):
        alice, bob = ends()
        alice.send("bid", 5)
        with pytest.raises(ProtocolError, match=f"Alice to Bob: the .*{words}"):
            bob.receive(*wanted)
        with pytest.raises(Disconnected, match="Bob to Alice: the other end has left"):
            alice.receive("answer")


@both
def test_whoever_waits_is_told_for_whom_and_may_wait_again(ends):
    alice, bob = ends(timeout=0.05)
    with pytest.raises(TimeoutError, match=r"Bob waited 0.05 s for 'bid' from Alice"):
        bob.receive("bid")
    alice.send("bid", 5)
    assert bob.receive("bid") == (5,)
    alice.close(), bob.close()


def test_time_runs_out_within_a_frame_and_the_rest_may_follow():
    wire, alice = raw()
    wire.sendall(pack("bid", 5)[:7])
    with pytest.raises(TimeoutError):
        alice.receive("bid", timeout=0.05)
    wire.sendall(pack("bid", 5)[7:])
    assert alice.receive("bid", timeout=0.5) == (5,)
    wire.sendall(pack("bid", 5)[:7])
    wire.close()
    with pytest.raises(Disconnected, match="Bob to Alice: the other end has left, with 7 of 18 bytes"):
        alice.receive("bid")


def test_a_party_that_does_not_listen_does_not_hold_the_sender_for_ever():
    wire, alice = raw(timeout=0.1)
    with pytest.raises(TimeoutError, match="Bob did not take 'big' from Alice"):
        alice.send("big", torch.zeros(2**23))
    with pytest.raises(Disconnected, match="closed"):
        alice.send("big")
    wire.close()


@both
def test_what_was_sent_before_leaving_still_arrives(ends):
    alice, bob = ends()
    with alice:
        alice.send("last", 1)
    assert bob.receive("last") == (1,)
    with pytest.raises(Disconnected, match="Alice to Bob: the other end has left"):
        bob.receive("more")
    with pytest.raises(Disconnected, match="the channel of Alice to Bob is closed"):
        alice.send("more")


def test_the_view_is_what_was_received_and_is_bounded():
    size = len(pack("k", b"12345")) - 4
    alice, bob = pair(view=3 * size - 1)  # the third does not fit; the fourth would
    for data in (b"12345", b"67890", b"abcde", b""):
        alice.send("k", data)
        bob.receive("k")
    assert bob.view == (Message("k", (b"12345",)), Message("k", (b"67890",))) and bob.unseen == 2
    assert alice.view == () and pair()[0].view is None


def test_the_view_does_not_change_with_what_was_received():
    alice, bob = pair(view=1000)
    alice.send("k", torch.ones(2))
    bob.receive("k")[0].zero_()
    assert torch.equal(bob.view[0].values[0], torch.ones(2))


def test_only_this_machine_unless_told_otherwise():
    for host in ("0.0.0.0", "192.0.2.1", "example.org", ""):
        with pytest.raises(ValueError, match=r"host is .*anywhere=True"):
            listen(host)
        with pytest.raises(ValueError, match=r"host is .*anywhere=True"):
            connect((host, 1))
    with listen("0.0.0.0", anywhere=True) as door:
        bob = connect(("127.0.0.1", door.address[1]))
        door.accept().close()
        bob.close()
    with listen() as door, pytest.raises(TimeoutError, match="nobody connected"):
        door.accept(timeout=0.01)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"timeout": -1}, "timeout is -1"),
        ({"max_frame": 0}, "max_frame is 0"),
        ({"max_frame": 2**33}, "max_frame is"),
        ({"view": -1}, "view is -1"),
    ],
)
def test_channels_refuse(refuses, change, words):
    refuses(Channel, {"transport": None} | change, words)


# --- parties ----------------------------------------------------------------------------------------------------------


def ask(*channels, count=3):
    """Send numbers to all, and sum what comes back."""
    total = 0
    for number in range(count):
        for channel in channels:
            channel.send("number", number, torch.full((2,), float(number)))
        for channel in channels:
            total += channel.receive("square", int)[0]
    return total, [channel.bytes_sent for channel in channels], [channel.rounds for channel in channels]


def square(channel, count=3):
    """Answer with squares; who asked cannot look into this process."""
    for _ in range(count):
        number, _ = channel.receive("number", int, torch.Tensor)
        channel.send("square", number**2)
    return os.getpid(), channel.bytes_received


def test_threads_and_processes_say_the_same_in_as_many_bytes():
    (threads, *inside), (processes, *outside) = (
        run_parties(ask, square, square, topology="star", transport=transport) for transport in ("threads", "processes")
    )
    assert threads == processes == (10, [3 * len(pack("number", 0, torch.ones(2)))] * 2, [6, 6])
    assert inside == [(os.getpid(), threads[1][0])] * 2
    assert len({os.getpid(), *(process for process, _ in outside)}) == 3 and outside[0][1] == threads[1][0]


def test_in_a_mesh_everyone_has_a_channel_to_everyone_in_order():
    def party(i, *channels):
        for channel in channels:
            channel.send("i", i)
        return [channel.receive("i")[0] for channel in channels]

    assert run_parties(*(partial(party, i) for i in range(4))) == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


def wait(*channels):
    return [channel.receive("never") for channel in channels]


def fail(*channels):
    raise KeyError("planted")


def die(*channels):
    os._exit(7)


@pytest.mark.parametrize("parties", [(wait, fail), (fail, wait), (wait, wait, fail)], ids=["second", "first", "third"])
def test_a_party_that_fails_releases_the_others_and_its_error_is_raised(parties):
    start = time.monotonic()
    with pytest.raises(KeyError, match="planted") as caught:
        run_parties(*parties, names=["Alice", "Bob", "Carol"][: len(parties)])
    name = ["Alice", "Bob", "Carol"][parties.index(fail)]
    assert caught.value.__notes__ == [f"raised by {name}"] and time.monotonic() - start < 10
    assert threading.active_count() == 1 or all("party" not in thread.name for thread in threading.enumerate())


def test_processes_that_fail_or_die_release_the_others():
    with pytest.raises(KeyError, match="planted"):
        run_parties(wait, wait, fail, transport="processes")
    _, failed, lost = run_parties(tolerant, fail, die, topology="star", transport="processes", return_exceptions=True)
    assert isinstance(failed, KeyError) and "raised by party 1" in failed.__notes__[0]
    assert isinstance(lost, PartyLost) and "the process of party 2 ended with code 7" in str(lost)


def tolerant(*channels):
    for channel in channels:
        with pytest.raises(Disconnected):
            channel.receive("never")


def test_a_party_that_waits_too_long_says_so():
    with pytest.raises(TimeoutError, match=r"party [01] waited 0\.05 s for 'never' from party [01]"):
        run_parties(wait, wait, timeout=0.05)


PARTIES = {
    "one": ((fail,), {}, "parties holds 1"),
    "no function": ((fail, 3), {}, "parties is 3"),
    "transport": ((fail, fail), {"transport": "pigeons"}, "transport is 'pigeons'"),
    "topology": ((fail, fail), {"topology": "ring"}, "topology is 'ring'"),
    "names": ((fail, fail), {"names": ["Alice"]}, "names is ['Alice']"),
    "not for pickle": ((fail, lambda channel: None), {"transport": "processes"}, "party 1 is <function"),
    "timeout": ((fail, fail), {"timeout": -1}, "timeout is -1"),
}


@pytest.mark.parametrize(("parties", "settings", "words"), PARTIES.values(), ids=PARTIES)
def test_run_parties_refuses(refuses, parties, settings, words):
    refuses(partial(run_parties, *parties), settings, words)
