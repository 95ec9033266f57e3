"""What a party saw, in words and numbers: of real channels."""

import numpy as np
import pytest
import torch

from spai_lab.crypto.channel import pair
from spai_lab.crypto.views import received, told


@pytest.fixture
def view():
    alice, bob = pair("Alice", "Bob", view=10_000)
    alice.send("share", np.arange(6, dtype=np.uint64).reshape(2, 3))
    alice.send("hello", "Bob", 5)
    alice.send("share", np.array([7], dtype=np.uint64))
    alice.send("tensor", torch.tensor([0.5]))
    alice.send("end")
    for kind in ("share", "hello", "share", "tensor", "end"):
        bob.receive(kind)
    return bob.view


def test_messages_are_told_in_their_order(view):
    assert [kind for kind, _, _ in told(view)] == ["share", "hello", "share", "tensor", "end"]
    assert told(view)[0][1:] == ("uint64 (2, 3)", "0, 1, 2, …")
    assert told(view)[1][2] == "'Bob', 5"
    assert told(view)[4] == ("end", "nothing", "")


def test_all_numbers_of_a_kind_come_in_one_vector(view):
    assert received(view, "share").tolist() == [0, 1, 2, 3, 4, 5, 7]


def test_what_is_not_there_is_named(view):
    with pytest.raises(ValueError, match="kind is 'gossip'; accepted: end, hello, share, tensor"):
        received(view, "gossip")
    with pytest.raises(ValueError, match="kind is 'hello'"):
        received(view, "hello")
    for bad in (None, ["hello"]):
        with pytest.raises(ValueError, match="view is"):
            told(bad)
