"""Several parties, one message of which is changed on its way, kept back, or never sent because its sender is gone."""

import time
from functools import partial

import numpy as np
from scipy.stats import chisquare

from spai_lab.crypto import secret_sharing_circuits
from spai_lab.crypto.authenticated import AuthenticatedChannel
from spai_lab.crypto.frames import HEADER, ProtocolError, unpack
from spai_lab.crypto.garbled_circuit_parties import evaluator, garbler
from spai_lab.crypto.oblivious_transfer import receive_array
from spai_lab.crypto.parties import run_parties
from tests.crypto.mutations import DAMAGES, damaged

WAIT = 0.2  # seconds, the patience of parties that are kept waiting
SIZES = (0, 1, 2**26, 2**26 + 1, 2**32 - 1)


class Left(Exception):
    """A party ended in the middle of a sentence."""


class Tampering:
    """A transport that calls `change` with the frame number `place` and sends what it gives; it keeps all frames."""

    def __init__(self, transport, place, change):
        self.transport, self.place, self.change, self.frames = transport, place, change, []

    def __getattr__(self, name):
        return getattr(self.transport, name)

    def write(self, data, timeout):
        self.frames.append(data)
        if len(self.frames) - 1 == self.place:
            data = self.change(data)
        if data:
            self.transport.write(data, timeout)


def leave(data):
    raise Left


def stall(data):
    time.sleep(3 * WAIT)
    return data


def talk(parties, names, *, sender=None, receiver=None, place=None, change=None, key=None, **settings):
    """What each party returned or raised, and all frames by who sent them to whom."""
    frames = {}

    def run(name, party, *channels):
        ends = []
        for channel in channels:
            here = (name, channel.peer) == (sender, receiver)
            channel._transport = Tampering(channel._transport, place if here else None, change)
            frames[name, channel.peer] = channel._transport.frames
            if key is not None:
                role = "client" if names.index(name) < names.index(channel.peer) else "server"
                channel = AuthenticatedChannel(channel, key, role=role)
            ends.append(channel)
        return party(*ends)

    runs = [partial(run, *each) for each in zip(names, parties, strict=True)]
    settings = {"timeout": WAIT, "return_exceptions": True} | settings
    return run_parties(*runs, names=names, **settings), frames


def mutated(random, data, others):
    """A frame with one thing wrong: in its payload, in the length that it announces, missing, or sent twice."""
    payload, kind = data[HEADER:], int(random.integers(8))
    if kind == 0:
        sizes = (*SIZES, len(payload) - 1, len(payload) + 1)
        return sizes[int(random.integers(len(sizes)))].to_bytes(HEADER, "big") + payload
    if kind == 1:
        return (b"", data + data)[int(random.integers(2))]
    lengths = {1: ">I", 5 + payload[4] + 3: ">I"}
    wrong = damaged(random, payload, [other[HEADER:] for other in others], str(random.choice(DAMAGES)), lengths)
    return len(wrong).to_bytes(HEADER, "big") + wrong


def mutations(roles, names, frames, count, seed, *, key=None):
    """What came of so many runs, each with one message of a conversation mutated: results, and errors that have a name.

    With a key, a changed seal is a `ValueError` that says so.
    """
    random, every = np.random.default_rng(seed), []
    for ends, sent in sorted(frames.items()):
        every += [(*ends, place, sent) for place in range(len(sent))]
    named = (ProtocolError, TimeoutError) if key is None else (ProtocolError, TimeoutError, ValueError)
    for i in random.integers(0, len(every), count):
        sender, receiver, place, sent = every[i]
        change = partial(mutated, random, others=sent)
        tampered = {"sender": sender, "receiver": receiver, "place": place, "change": change}
        results, _ = talk(roles(), names, key=key, timeout=WAIT / 2, **tampered)
        for result in results:
            assert not isinstance(result, Exception) or (isinstance(result, named) and str(result)), (every[i], result)
        yield results


# --- what is seen -----------------------------------------------------------------------------------------------------


def received(frames, receiver, kinds):
    """All numbers in messages of these kinds that a party got."""
    came = [unpack(frame[HEADER:]) for (_, to), sent in frames.items() if to == receiver for frame in sent]
    return np.concatenate([array.ravel() for message in came if message.kind in kinds for array in message.values])


def uniform(words):
    """How likely the nibbles of uniform numbers are as uneven as these, by chi-square."""
    data = np.ascontiguousarray(words).view(np.uint8).ravel()
    counts = np.bincount(np.concatenate([data >> 4, data & 15]), minlength=16)
    assert counts.sum() > 16 * 50
    return chisquare(counts).pvalue


# --- transfers that hide nothing, so that tests are fast --------------------------------------------------------------


def dealt_sender(channel, pairs):
    """In the place of oblivious transfer: it tells the garbler all choices."""
    choices = receive_array(channel, "choices", (len(pairs),), bool)
    channel.send("chosen", pairs[np.arange(len(pairs)), choices.astype(int)])


def dealt_receiver(channel, choices):
    channel.send("choices", choices)
    return receive_array(channel, "chosen", (len(choices), None))


def without_transfers(patch):
    """Let garbled circuits between shares do without oblivious transfer."""
    patch.setattr(secret_sharing_circuits, "garbler", partial(garbler, transfer=dealt_sender))
    patch.setattr(secret_sharing_circuits, "evaluator", partial(evaluator, transfer=dealt_receiver))
