"""What a party saw: the messages that its channel kept, in words and as numbers.

A channel keeps them on request (`view`). Together with its own input and its own randomness, they are all a party has
to learn from.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from spai_lab.checks import describe, describe_kind
from spai_lab.crypto.frames import Message

FIRST = 3  # numbers of an array that are spelled out


def told(view: Sequence[Message]) -> list[tuple[str, str, str]]:
    """Each message in words: its kind, what it holds, the first numbers of it.

    Args:
        view: of a channel that keeps one.
    Returns:
        three words a message.
    Raises:
        ValueError: names the argument.

    >>> from spai_lab.crypto.channel import pair
    >>> alice, bob = pair("Alice", "Bob", view=1000)
    >>> alice.send("share", np.array([5, 7, 9, 11], dtype=np.uint64))
    >>> _ = bob.receive("share")
    >>> told(bob.view)
    [('share', 'uint64 (4,)', '5, 7, 9, …')]
    """
    check_view(view)
    return [(each.kind, ", ".join(map(describe_kind, each.values)) or "nothing", numbers(each)) for each in view]


def numbers(message: Message) -> str:
    """The first numbers of a message's last array, which is what it is about, or of what it holds."""
    for value in reversed(message.values):
        if isinstance(value, np.ndarray | Tensor):
            flat = np.asarray(value).reshape(-1)
            return ", ".join(f"{each:,}" for each in flat[:FIRST].tolist()) + (", …" if flat.size > FIRST else "")
    return ", ".join(map(describe, message.values[:FIRST]))


def received(view: Sequence[Message], kind: str) -> np.ndarray:
    """All numbers that came in messages of one kind, as one vector.

    Args:
        view: of a channel that keeps one.
        kind: of the messages.
    Returns:
        their arrays, one behind the other.
    Raises:
        ValueError: names the argument; there is no array of this kind.
    """
    check_view(view)
    arrays = [
        np.asarray(value).reshape(-1)
        for each in view
        if each.kind == kind
        for value in each.values
        if isinstance(value, np.ndarray | Tensor)
    ]
    if not arrays:
        raise ValueError(f"kind is {kind!r}; accepted: {', '.join(sorted({each.kind for each in view}))}, with arrays")
    return np.concatenate(arrays)


def check_view(view: Sequence[Message]) -> None:
    """Raise `ValueError` unless these are messages that a channel kept."""
    if not isinstance(view, list | tuple) or not all(isinstance(each, Message) for each in view):
        raise ValueError(f"view is {describe(view)}; accepted: what a channel with view=... kept")
