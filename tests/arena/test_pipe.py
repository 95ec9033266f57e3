"""Frames over a pipe: what is written is read, and nothing else can be."""

import contextlib
import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spai_lab.arena.pipe import read_frame, write_frame
from spai_lab.crypto.frames import ProtocolError

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool])
TENSORS = st.builds(lambda shape, dtype, seed: drawn(shape, dtype, seed), SHAPES, DTYPES, st.integers(0, 2**31))
PLAIN = st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=20), st.binary(max_size=20))
MESSAGES = st.tuples(st.text(max_size=10), st.lists(PLAIN | TENSORS, max_size=5))


def drawn(shape, dtype, seed):
    return (10 * torch.rand(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    return one == other


class Dribble(io.BytesIO):
    """A stream that gives three bytes at a time, as a pipe may."""

    def read(self, size=-1):
        return super().read(min(size, 3))


@given(st.lists(MESSAGES, max_size=4))
def test_messages_come_back_in_order_however_the_pipe_cuts_them(messages):
    stream = io.BytesIO()
    for kind, values in messages:
        write_frame(stream, kind, *values)
    stream = Dribble(stream.getvalue())
    for kind, values in messages:
        read = read_frame(stream)
        assert read.kind == kind
        assert all(map(same, values, read.values))
    assert read_frame(stream) is None


@given(MESSAGES, st.data())
def test_a_frame_that_is_cut_off_is_no_message(message, data):
    stream = io.BytesIO()
    write_frame(stream, message[0], *message[1])
    whole = stream.getvalue()
    cut = data.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(ProtocolError):
        read_frame(io.BytesIO(whole[:cut]))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(payload):
    with contextlib.suppress(ProtocolError):
        read_frame(io.BytesIO(len(payload).to_bytes(4, "big") + payload))


def test_a_frame_that_announces_too_much_is_refused_before_it_is_read():
    stream = io.BytesIO(b"\xff\xff\xff\xff")
    with pytest.raises(ProtocolError, match=r"4,294,967,295 bytes, at most 1,000"):
        read_frame(stream, largest=1000)
    with pytest.raises(ProtocolError, match=r"at most 10"):
        write_frame(io.BytesIO(), "long", b"0" * 11, largest=10)


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, np.zeros(3), torch.zeros(2)])
def test_a_pickled_payload_is_refused(value):
    payload = pickle.dumps(value)
    with pytest.raises(ProtocolError):
        read_frame(io.BytesIO(len(payload).to_bytes(4, "big") + payload))


def test_what_only_pickle_could_send_is_not_sent():
    for value in ({"a": 1}, np.array([object()]), torch.nn.Linear(1, 1)):
        with pytest.raises(ValueError, match="value is"):
            write_frame(io.BytesIO(), "made", value)
