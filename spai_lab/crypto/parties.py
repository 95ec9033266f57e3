"""Parties, run as threads or as processes: plain functions that meet over channels and nowhere else."""

import multiprocessing
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from itertools import combinations
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from socket import socket
from typing import NamedTuple

from spai_lab.checks import check_callable, check_choice, check_flag, describe
from spai_lab.crypto.channel import Channel, Disconnected, ProtocolError, pair
from spai_lab.crypto.transports import Tcp, loopback

Party = Callable[..., object]
Link = tuple[int, int]
GRACE = 5.0


class PartyLost(RuntimeError):
    """A party's process ended, or hung, without a result."""


class Outcome(NamedTuple):
    """What a party returned, or what it raised."""

    result: object = None
    error: BaseException | None = None


def run_parties(
    *parties: Party,
    transport: str = "threads",
    topology: str = "mesh",
    names: Sequence[str] | None = None,
    return_exceptions: bool = False,
    **settings: object,
) -> list:
    """Run parties that talk to each other, each a plain function of its channels.

    The first party runs in the caller's own thread. If one fails, all channels close, so that nobody goes on waiting,
    and the caller gets the error of the first cause.

    Args:
        parties: n functions, at least 2. In a mesh, party i is called with n - 1 channels, to the others in their
            order; in a star, the first with its channels to all others, and each of them with one channel, to it.
        transport: "threads", which talk in memory; or "processes", spawned, which talk over TCP on this machine and
            cannot look into each other's memory: there all but the first party must be functions that `pickle` finds
            in a module (the launcher pickles; the protocol never does).
        topology: "mesh" or "star".
        names: one for each party, for errors.
        return_exceptions: put what a party raised in the place of its result. The others go on without it: only its
            own channels close.
        settings: of all channels, as in `Channel`.
    Returns:
        what each party returned, in order.
    Raises:
        ValueError: names the argument.
        Exception: what a party raised.

    >>> def alice(channel):
    ...     channel.send("number", 20)
    ...     return channel.receive("double", int)
    >>> def bob(channel):
    ...     (number,) = channel.receive("number", int)
    ...     channel.send("double", 2 * number)
    >>> run_parties(alice, bob)
    [(40,), None]
    """
    for party in parties:
        check_callable("parties", party)
    count = len(parties)
    if count < 2:
        raise ValueError(f"parties holds {count}; accepted: at least 2 functions")
    check_choice("transport", transport, ("threads", "processes"))
    check_choice("topology", topology, ("mesh", "star"))
    check_flag("return_exceptions", return_exceptions)
    names = [f"party {i}" for i in range(count)] if names is None else list(names)
    if len(names) != count:
        raise ValueError(f"names is {describe(names)}; accepted: {count} of them, one for each party")
    links = list(combinations(range(count), 2)) if topology == "mesh" else [(0, i) for i in range(1, count)]
    run = run_threads if transport == "threads" else run_processes
    outcomes = run(parties, links, names, settings, together=not return_exceptions)
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if errors and not return_exceptions:
        raise min(errors, key=consequence)
    return [outcome.result if outcome.error is None else outcome.error for outcome in outcomes]


def consequence(error: BaseException) -> int:
    """How likely an error only follows from another party's."""
    return 2 if isinstance(error, Disconnected) else 1 if isinstance(error, ProtocolError | PartyLost) else 0


def outcome_of(party: Party, name: str, channels: Sequence[Channel], others: Sequence[Channel] = ()) -> Outcome:
    """Run a party, and close its channels, so that nobody waits for it; if it fails, those of the others too."""
    try:
        return Outcome(party(*channels))
    except BaseException as error:
        error.add_note(f"raised by {name}")
        channels = [*channels, *others]
        return Outcome(error=error)
    finally:
        for channel in channels:
            channel.close()


def run_threads(
    parties: Sequence[Party], links: list[Link], names: list[str], settings: dict, *, together: bool
) -> list[Outcome]:
    """The parties as threads. Those that still compute soon after the first one failed are left to themselves."""
    channels = [[] for _ in parties]
    for link in links:
        for i, end in zip(link, pair(*(names[i] for i in link), **settings), strict=True):
            channels[i].append(end)
    others = [end for ends in channels for end in ends] if together else []
    outcomes = [Outcome(error=PartyLost(f"{name} still runs")) for name in names]

    def run(i: int) -> None:
        outcomes[i] = outcome_of(parties[i], names[i], channels[i], others)

    threads = [threading.Thread(target=run, args=(i,), name=names[i], daemon=True) for i in range(1, len(parties))]
    for thread in threads:
        thread.start()
    run(0)
    end = time.monotonic() + GRACE
    for thread in threads:
        thread.join(None if outcomes[0].error is None else max(0.0, end - time.monotonic()))
    return list(outcomes)


def run_processes(
    parties: Sequence[Party], links: list[Link], names: list[str], settings: dict, *, together: bool
) -> list[Outcome]:
    """The first party here, each other one in a process of its own, with sockets that were connected before."""
    pickled = [pickled_party(party, name) for party, name in zip(parties[1:], names[1:], strict=True)]
    ends = [[] for _ in parties]
    for i, j in links:
        left, right = loopback()
        ends[i].append((names[j], left))
        ends[j].append((names[i], right))
    channels = channels_of(names[0], ends[0], settings)
    outcomes = [Outcome(error=PartyLost(f"{name} still runs")) for name in names]
    context = multiprocessing.get_context("spawn")
    processes, reports = [], {}
    try:
        for i in range(1, len(parties)):
            report, sender = context.Pipe(duplex=False)
            process = context.Process(
                target=run_here, name=names[i], args=(pickled[i - 1], names[i], ends[i], settings, sender), daemon=True
            )
            process.start()
            sender.close()
            for _, end in ends[i]:
                end.close()
            processes.append(process)
            reports[report] = i
        listening = threading.Thread(target=listen_to, args=(reports, processes, outcomes, together), daemon=True)
        listening.start()
        outcomes[0] = outcome_of(parties[0], names[0], channels)
        listening.join(None if outcomes[0].error is None else GRACE)
        return list(outcomes)
    finally:
        for process in processes:
            process.kill()  # it has said all, or never will
            process.join()


def listen_to(
    reports: dict[Connection, int], processes: list[BaseProcess], outcomes: list[Outcome], together: bool
) -> None:
    """Put what processes report in its place; if one fails that ends the others, or else they go on."""
    waiting = dict(reports)
    while waiting:
        for report in wait(list(waiting)):
            i = waiting.pop(report)
            try:
                outcomes[i] = pickle.loads(report.recv_bytes())
            except EOFError:
                process = processes[i - 1]
                process.join()
                lost = f"the process of {process.name} ended with code {process.exitcode}, without a result"
                outcomes[i] = Outcome(error=PartyLost(lost))
            if together and outcomes[i].error is not None:
                for process in processes:
                    process.kill()


def pickled_party(party: Party, name: str) -> bytes:
    """The party as the launcher sends it to its process; tensors travel by value."""
    try:
        return pickle.dumps(party)
    except Exception as error:
        raise ValueError(
            f"{name} is {describe(party)}; accepted for processes: what pickle takes, such as a module's function "
            f"or a partial of one ({error})"
        ) from None


def channels_of(name: str, ends: list[tuple[str, socket]], settings: dict) -> list[Channel]:
    """The channels over a party's sockets."""
    return [Channel(Tcp(end), name=name, peer=peer, **settings) for peer, end in ends]


def run_here(pickled: bytes, name: str, ends: list[tuple[str, socket]], settings: dict, report: Connection) -> None:
    """What a spawned process does: run its party, and report what came of it."""

    def party(*channels: Channel) -> object:
        return pickle.loads(pickled)(*channels)

    outcome = outcome_of(party, name, channels_of(name, ends, settings))
    if outcome.error is not None:
        outcome.error.add_note("".join(traceback.format_exception(outcome.error)))
    try:
        message = pickle.dumps(outcome)
        pickle.loads(message)
    except Exception as error:
        text = f"{name}: {outcome.error!r} or {describe(outcome.result)} cannot be sent home ({error})"
        message = pickle.dumps(Outcome(error=RuntimeError(text)))
    report.send_bytes(message)
