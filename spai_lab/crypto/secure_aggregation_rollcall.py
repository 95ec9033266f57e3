r"""Who is still there: how the server of secure aggregation hears its clients, each step with a deadline.

Clients are asked in turn and briefly, over and over, so that one who stalls takes no time from the others. A client
that was missed once is gone: it is told so, and what it sends later is not used.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from spai_lab.checks import check_number, describe
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.frames import ProtocolError, Value
from spai_lab.crypto.secure_aggregation import Terms, check_terms

POLL = 0.01  # seconds that one client is listened to in turn
STOP = "aggregation stops"
LONGEST = 3600.0
Answer = TypeVar("Answer")


class TooFewClients(ProtocolError):
    """Fewer than t clients are left: the sum stays unknown."""


class Absence(NamedTuple):
    """Who left in which step, and why."""

    client: int
    step: str
    why: str


@dataclass(frozen=True)
class Rollcall:
    """The server's channels, one to each client in their order, and who has left so far."""

    channels: tuple[Channel, ...]
    terms: Terms
    deadline: float
    absences: dict[int, Absence] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_terms(self.terms)
        check_number("deadline", self.deadline, low=0, high=LONGEST, exclusive=True)
        if len(self.channels) != self.terms.clients:
            raise ValueError(f"channels holds {len(self.channels)}; accepted: {self.terms.clients}, one to each client")
        for channel in self.channels:
            if not isinstance(channel, Channel):
                raise ValueError(f"channels holds {describe(channel)}; accepted: Channels")


def hear(
    roll: Rollcall, step: str, present: Iterable[int], read: Callable[[Channel, int], Answer]
) -> dict[int, Answer]:
    """What each client sends in a step, before the deadline; who sends nothing, or what is refused, is gone.

    Args:
        roll: the channels; whoever leaves is noted there.
        step: its name.
        present: who is still there.
        read: `(channel, number)` to the answer; it receives one message, and refuses a wrong one by `ProtocolError`.
    Returns:
        answers by number, in the order of the numbers.
    Raises:
        TooFewClients: fewer than t answered; all have been told.
    Reference: Bonawitz et al. 2017, IACR 2017/281, figure 4, "wait for enough" clients.
    """
    waiting, answers = list(present), {}
    end = time.monotonic() + roll.deadline
    while waiting:
        left = end - time.monotonic()
        for number in tuple(waiting):
            try:
                with within(roll.channels[number], min(POLL, max(left, 0))):
                    answers[number] = read(roll.channels[number], number)
            except TimeoutError:
                if left > 0:
                    continue
                miss(roll, number, step, f"no answer within {roll.deadline:g} s")
            except ProtocolError as error:
                miss(roll, number, step, str(error))
            waiting.remove(number)
    enough(roll, step, answers)
    return dict(sorted(answers.items()))


def tell(roll: Rollcall, kind: str, values: dict[int, Value]) -> None:
    """Send each client its message; who does not take it before the deadline has its channel closed, and is missed."""
    end = time.monotonic() + roll.deadline
    for number, value in values.items():
        with suppress(ProtocolError, TimeoutError), within(roll.channels[number], max(end - time.monotonic(), 0)):
            roll.channels[number].send(kind, value)


def miss(roll: Rollcall, number: int, step: str, why: str) -> None:
    """Note that a client is gone, and tell it, if it still listens."""
    roll.absences[number] = Absence(number, step, why)
    dismiss(roll, [number], f"you are gone, in the step {step!r}: {why}")


def dismiss(roll: Rollcall, numbers: Iterable[int], why: str) -> None:
    """Tell clients that nothing more will come."""
    for number in numbers:
        with suppress(ProtocolError, TimeoutError), within(roll.channels[number], POLL):
            roll.channels[number].send(STOP, why)


def enough(roll: Rollcall, step: str, present: Iterable[int]) -> None:
    """Raise `TooFewClients` unless t are there; before, tell them."""
    numbers = list(present)
    if len(numbers) < roll.terms.threshold:
        gone = "; ".join(f"client {a.client} in the step {a.step!r} ({a.why})" for a in roll.absences.values())
        why = (
            f"{len(numbers)} of {roll.terms.clients} clients are left after the step {step!r}, at least "
            f"{roll.terms.threshold} are needed: no sum"
        )
        dismiss(roll, numbers, why)
        raise TooFewClients(f"{why}; gone: {gone}")


def late(roll: Rollcall, kinds: Iterable[str]) -> tuple[tuple[int, str], ...]:
    """Which messages came from clients after they were declared gone, `(number, kind)`; they are read, and not used."""
    came = []
    for number in roll.absences:
        with suppress(ProtocolError, TimeoutError), within(roll.channels[number], 0):
            came.append((number, roll.channels[number].receive_any(dict.fromkeys(kinds)).kind))
    return tuple(came)


@contextmanager
def within(channel: Channel, seconds: float) -> Iterator[None]:
    """Let a channel wait no longer than this, for once."""
    before, channel.timeout = channel.timeout, seconds
    try:
        yield
    finally:
        channel.timeout = before
