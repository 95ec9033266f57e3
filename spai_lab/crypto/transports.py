"""What carries a channel's bytes, in order: two queues between threads, or a TCP connection between processes."""

import math
import queue
import selectors
import socket
import time
from collections import deque
from typing import Protocol

CHUNK = 2**18
EARLY = 2**26


class Transport(Protocol):
    """What carries bytes, in order: memory or TCP."""

    def write(self, data: bytes, timeout: float) -> None:
        """Send all of it; `TimeoutError` after so many seconds, `OSError` if nobody is there."""

    def read(self, timeout: float) -> bytes:
        """Some bytes, at least one; none if the other end was closed."""

    def close(self) -> None:
        """End the conversation, at both ends."""


class Memory:
    """Bytes from thread to thread, through two queues."""

    def __init__(self, incoming: queue.SimpleQueue, outgoing: queue.SimpleQueue) -> None:
        self._incoming, self._outgoing = incoming, outgoing

    def write(self, data: bytes, timeout: float) -> None:
        """Put it in the other's queue, which has no limit."""
        self._outgoing.put(data)

    def read(self, timeout: float) -> bytes:
        """The next bytes from the queue."""
        try:
            return self._incoming.get(timeout=None if timeout == math.inf else timeout)
        except queue.Empty:
            raise TimeoutError from None

    def close(self) -> None:
        """Tell the other that no more will come."""
        self._outgoing.put(b"")


class Tcp:
    """Bytes through a connected socket. While it cannot write it reads, so that two who send at once do not block."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket, self._early = connected, deque()

    def write(self, data: bytes, timeout: float) -> None:
        """Send all; keep what arrives meanwhile for `read`."""
        end, rest = time.monotonic() + timeout, memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest[:CHUNK]) :]
            except BlockingIOError:
                may_read = sum(map(len, self._early)) < EARLY
                events = selectors.EVENT_WRITE | (selectors.EVENT_READ if may_read else 0)
                if self._wait(events, end) & selectors.EVENT_READ:
                    self._early.append(self._receive())

    def read(self, timeout: float) -> bytes:
        """What came during a `write`, else what comes next."""
        if self._early:
            return self._early.popleft()
        end = time.monotonic() + timeout
        while True:
            try:
                return self._socket.recv(CHUNK)
            except BlockingIOError:
                self._wait(selectors.EVENT_READ, end)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _receive(self) -> bytes:
        data = self._socket.recv(CHUNK)
        if not data:
            raise ConnectionResetError
        return data

    def _wait(self, events: int, end: float) -> int:
        """Wait until the socket is ready for one of these events; which they are."""
        left = end - time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, events)
            for _, ready in selector.select(None if left == math.inf else max(left, 0)):
                return ready
        raise TimeoutError


def memory() -> tuple[Memory, Memory]:
    """Two ends of a connection in memory."""
    one, other = queue.SimpleQueue(), queue.SimpleQueue()
    return Memory(one, other), Memory(other, one)


def loopback() -> tuple[socket.socket, socket.socket]:
    """Two sockets that are connected over TCP within this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = socket.create_connection(listening.getsockname())
        return one, listening.accept()[0]
