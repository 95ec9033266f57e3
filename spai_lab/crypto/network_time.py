r"""How long a protocol would take over another network: its messages are sent once more, on paper.

Both ends kept a log (`spai_lab.crypto.channel`): which message went when, and how large it was. Between two networks
only the waiting differs. So the logs are replayed: a party computes as long as it did, a message leaves when it is
ready and the wire is free, and arrives $s / b + \lambda$ later, with s its bytes, b the bandwidth and $\lambda$ the
latency of one way. What two parties send each other at once waits once.

| network | latency of one way | bandwidth |
|---|---|---|
| `LAN`, machines of one room | .15 ms | 1 Gbit/s |
| `WAN`, two countries | 40 ms | 100 Mbit/s |

Both are round settings of our own, not those of a paper. Survey: private AI, cryptography, multi-party computation.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spai_lab.checks import check_number, describe
from spai_lab.crypto.channel import Channel, Sent

MEGABIT = 125_000.0  # bytes


@dataclass(frozen=True)
class Network:
    """What a message meets on its way.

    Args:
        latency: seconds that one way takes, at least 0.
        bandwidth: bytes a second, each way, above 0.
    Raises:
        ValueError: names the argument.
    """

    latency: float
    bandwidth: float

    def __post_init__(self) -> None:
        check_number("latency", self.latency, low=0)
        check_number("bandwidth", self.bandwidth, low=0, exclusive=True)


LAN = Network(0.15e-3, 1000 * MEGABIT)
WAN = Network(40e-3, 100 * MEGABIT)


@dataclass(frozen=True)
class Duration:
    """What a replay found.

    Args:
        seconds: until the last message has arrived.
        computing: seconds of these that would pass on a network without latency and of endless bandwidth.
        rounds: messages of the longest chain in which each waits for the one before.
        size: bytes, both ways.
    """

    seconds: float
    computing: float
    rounds: int
    size: int


def replay(first: Sequence[Sent], second: Sequence[Sent], network: Network) -> Duration:
    r"""The time that a protocol would have taken over a network, from the logs of both ends.

    Args:
        first, second: the log of each end, of the same run; channels keep one with `log=True`.
        network: latency and bandwidth.
    Returns:
        seconds, rounds and bytes. What is computed after a party's last message is not in it.
    Raises:
        ValueError: names the argument; logs that are not of one conversation are refused.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: a message arrives whole; no slow start, no loss, no headers of the network's own.

    >>> ping = [Sent(0.0, 0.0, True, "ping", 1000), Sent(0.0, 0.6, False, "pong", 1000)]
    >>> pong = [Sent(0.0, 0.1, False, "ping", 1000), Sent(0.6, 0.6, True, "pong", 1000)]
    >>> replay(ping, pong, Network(latency=0.1, bandwidth=1e4))  # there and back, and half a second between
    Duration(seconds=0.9, computing=0.5, rounds=2, size=2000)
    """
    if not isinstance(network, Network):
        raise ValueError(f"network is {describe(network)}; accepted: a Network")
    logs = {"first": first, "second": second}
    for name, log in logs.items():
        if not isinstance(log, list | tuple) or not all(isinstance(each, Sent) for each in log):
            raise ValueError(f"{name} is {describe(log)}; accepted: a channel's log")
    seconds, rounds = arrival(first, second, network)
    computing, _ = arrival(first, second, Network(0, float(2**62)))
    size = sum(each.size for log in logs.values() for each in log if each.outgoing)
    return Duration(round(seconds, 9), round(computing, 9), rounds, size)


def arrival(first: Sequence[Sent], second: Sequence[Sent], network: Network) -> tuple[float, int]:
    """When the last message has arrived, and how many messages the longest chain has."""
    logs, at = (first, second), [0, 0]
    clock, depth, free, before = [0.0, 0.0], [0, 0], [0.0, 0.0], [0.0, 0.0]
    wires: tuple[deque, deque] = (deque(), deque())
    while True:
        ready = [p for p in (0, 1) if at[p] < len(logs[p]) and (logs[p][at[p]].outgoing or wires[1 - p])]
        if not ready:
            break
        p = ready[0]
        event = logs[p][at[p]]
        at[p] += 1
        if event.outgoing:
            clock[p] += max(0.0, event.at - before[p])
            free[p] = max(free[p], clock[p]) + event.size / network.bandwidth
            wires[p].append((event, free[p] + network.latency, depth[p] + 1))
        else:
            clock[p] += max(0.0, event.asked - before[p])
            sent, arrived, chain = wires[1 - p].popleft()
            if (sent.kind, sent.size) != (event.kind, event.size):
                raise ValueError(f"first and second differ: {sent.kind!r} was sent and {event.kind!r} received")
            clock[p], depth[p] = max(clock[p], arrived), max(depth[p], chain)
        before[p] = event.at
    left = sum(map(len, wires)) + sum(len(log) - done for log, done in zip(logs, at, strict=True))
    if left:
        raise ValueError(f"first and second differ: {left} messages have no counterpart; accepted: logs of one run")
    return max(clock), max(depth)


def recorded(party: Callable[..., object]) -> Callable[..., tuple[object, tuple[Sent, ...]]]:
    """A party that gives the log of its channel beside its result; its channels need `log=True`.

    >>> from spai_lab.crypto.parties import run_parties
    >>> hello = recorded(lambda channel: channel.send("hello"))
    >>> (_, log), _ = run_parties(hello, lambda channel: channel.receive("hello"), log=True)
    >>> [sent.kind for sent in log]
    ['hello']
    """

    def run(channel: Channel, *others: Channel) -> tuple[object, tuple[Sent, ...]]:
        return party(channel, *others), channel.log

    return run
