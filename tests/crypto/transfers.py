"""Two parties of an oblivious transfer, one of whose messages may be changed, kept back or never sent."""

import time

from spai_lab.crypto.parties import run_parties

WAIT = 0.5  # seconds, the patience of parties that are kept waiting


class Tampered:
    """A channel that does something else to one message that it should send: `change` gets its end and the values."""

    def __init__(self, channel, place, change):
        self._channel, self._place, self._change, self._sent = channel, place, change, 0

    def __getattr__(self, name):
        return getattr(self._channel, name)

    def send(self, kind, *values):
        if self._sent == self._place:
            changed = self._change(self._channel, *values)
            if changed is not None:
                self._channel.send(kind, *changed)
        else:
            self._channel.send(kind, *values)
        self._sent += 1


def stall(channel, *values):
    """Send nothing, stay until the other has lost patience, and go on."""
    time.sleep(2 * WAIT)


def leave(channel, *values):
    """Close the channel."""
    channel.close()


def instead(function):
    """Send something else."""
    return lambda channel, *values: (function(*values),)


def talk(sender, receiver, *, who=None, place=0, change=None, **settings):
    """What each party returned or raised, and their channels; `change` one message of `who`."""
    channels = {}

    def run(role, party):
        def function(channel):
            channels[role] = channel
            return party(Tampered(channel, place, change) if role == who else channel)

        return function

    parties = {"sender": sender, "receiver": receiver}
    runs = [run(role, party) for role, party in parties.items()]
    outcomes = run_parties(*runs, names=tuple(parties), return_exceptions=True, **settings)
    return dict(zip(parties, outcomes, strict=True)), channels
