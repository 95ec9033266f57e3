"""Channels over TCP: one party listens on a port of this machine, the other connects.

Unauthenticated and in the clear, as `spai_lab.crypto.channel` says; on loopback addresses unless one asks for others.
"""

import ipaddress
import socket
from types import TracebackType
from typing import Self

from spai_lab.checks import describe
from spai_lab.crypto.channel import TIMEOUT, Channel
from spai_lab.crypto.transports import Tcp

Address = tuple[str, int]


class Listener:
    """Waits on a port for the other party; `listen` makes it."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening

    @property
    def address(self) -> Address:
        """Host and port, for `connect`."""
        return self._socket.getsockname()[:2]

    def accept(self, *, timeout: float | None = TIMEOUT, **settings: object) -> Channel:
        """The channel to the next party that connects; settings as in `Channel`, `TimeoutError` if nobody comes."""
        self._socket.settimeout(timeout)
        try:
            connected, _ = self._socket.accept()
        except TimeoutError:
            raise TimeoutError(f"nobody connected to {self.address} in {timeout:g} s") from None
        return Channel(Tcp(connected), timeout=timeout, **settings)

    def close(self) -> None:
        """Stop listening; channels that were accepted stay."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.close()


def listen(host: str = "127.0.0.1", port: int = 0, *, anywhere: bool = False) -> Listener:
    """Wait for another process on a port of this machine. Unauthenticated, semi-honest, for learning.

    Args:
        host: an address of this machine; a loopback one unless `anywhere`.
        port: 0 takes a free one.
        anywhere: let other machines in. Whoever reaches the port may speak, in the clear.
    Returns:
        a listener; `accept` gives the channel.
    Raises:
        ValueError: names the argument.

    >>> with listen() as door:
    ...     bob = connect(door.address, name="Bob", peer="Alice")
    ...     alice = door.accept(name="Alice", peer="Bob")
    >>> alice.send("hello", "Bob")
    >>> bob.receive("hello")
    ('Bob',)
    >>> alice.close(), bob.close()
    (None, None)
    """
    check_host(host, anywhere)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return Listener(socket.create_server((host, port), family=family))


def connect(
    address: Address, *, timeout: float | None = TIMEOUT, anywhere: bool = False, **settings: object
) -> Channel:
    """The channel to a party that listens. Unauthenticated, semi-honest, for learning.

    Args:
        address: host and port, such as a listener's `address`; a loopback host unless `anywhere`.
        timeout: seconds, to connect and as in `Channel`.
        anywhere: go to another machine, in the clear.
        settings: as in `Channel`.
    Returns:
        the channel.
    Raises:
        ValueError: names the argument.
        OSError: nobody listens there.
    """
    check_host(address[0], anywhere)
    return Channel(Tcp(socket.create_connection(address, timeout)), timeout=timeout, **settings)


def check_host(host: str, anywhere: bool) -> None:
    """Raise `ValueError` unless the host is this machine by its loopback address, or any is welcome.

    >>> check_host("0.0.0.0", False)
    Traceback (most recent call last):
    ValueError: host is '0.0.0.0'; accepted: a loopback address such as '127.0.0.1' (others with anywhere=True)
    """
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and anywhere is not True:
        raise ValueError(
            f"host is {describe(host)}; accepted: a loopback address such as '127.0.0.1' (others with anywhere=True)"
        )
