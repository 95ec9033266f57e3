"""Hybrid inference with a party, or a wire, that does what it must not: an error that says so, in time."""

import functools
import time
from functools import partial
from itertools import product

import numpy as np
import pytest

from spai_lab.crypto.authenticated import mac_key, unsealed
from spai_lab.crypto.channel import Disconnected
from spai_lab.crypto.fixed_network import FixedNetwork, fixed_logits, fixed_network
from spai_lab.crypto.frames import ProtocolError, pack
from spai_lab.crypto.hybrid_terms import HybridTerms, public_terms
from spai_lab.crypto.relu_networks import relu_network
from tests.crypto.mutations import DAMAGES, damaged
from tests.crypto.test_hybrid_inference import authenticated, conversation, images, parties, tiny
from tests.crypto.transfers import WAIT, instead, leave, stall, talk

NETWORK, X = tiny(), images(1, (1, 2, 2))
TERMS = public_terms(NETWORK)
RIGHT = fixed_logits(NETWORK, X)


def changed_terms(**change):
    fields = {"network": TERMS.network, "bits": TERMS.bits, "images": 1, "degree": 4096}
    return HybridTerms(**fields | change)


OTHERS = {
    "bits": changed_terms(bits=(TERMS.bits[0], TERMS.bits[1] + 2)),
    "degree": changed_terms(degree=8192),
    "value_places": changed_terms(network=FixedNetwork(TERMS.network.stages, 5, 9)),
    "weight_places": changed_terms(network=FixedNetwork(TERMS.network.stages, 6, 8)),
    "the shapes": public_terms(fixed_network(relu_network((1, 2, 2), 3, hidden=2), (1, 2, 2)), bits=24),
}


@pytest.mark.parametrize("name", OTHERS)
def test_parties_that_agreed_on_different_things_are_told(name):
    server, client = parties(NETWORK, X, TERMS)
    other = OTHERS[name]
    terms = HybridTerms(other.network, TERMS.bits, 1, other.degree) if name == "the shapes" else other
    refused, victim, *_ = conversation(server, partial(client, terms=terms))
    assert type(refused) is ProtocolError and f"{name} is another one than was agreed on" in str(refused)
    assert isinstance(victim, Disconnected)


def test_another_hash_or_number_of_images_is_refused():
    server, client = parties(NETWORK, X, TERMS)
    refused, *_ = conversation(server, partial(client, label_hash=lambda *a: None))
    assert type(refused) is ProtocolError and "the hash is another one" in str(refused)
    two = partial(client, x=images(2, (1, 2, 2)), terms=changed_terms(images=2))
    refused, *_ = conversation(server, two)
    assert type(refused) is ProtocolError and "the number of images is another one" in str(refused)


SERVER = {"masked outputs": 0, "masked outputs, c1": 1, "shares of the logits": -1}
CLIENT = {"hybrid inference": 0, "public key": 1, "encrypted share": 2}
FORMS = {
    "short": (lambda a: a[..., 1:], "holds"),
    "long": (lambda a: np.concatenate([a, a], axis=-1), "holds"),
    "another type": (lambda a: a.astype(np.int64), "holds"),
    "another shape": (lambda a: a.reshape(-1), "holds"),
    "empty": (lambda a: a[:0], "holds"),
    "numbers beyond": (lambda a: a | np.uint32(2**31), "has numbers beyond their prime"),
    "text": (lambda a: "garbage", "holds (str)"),
}


@pytest.mark.parametrize(("change", "words"), FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("kind", ["masked outputs", "masked outputs, c1", "public key", "encrypted share"])
def test_ciphertexts_that_are_none_are_refused_by_name(kind, change, words):
    who, place = ("sender", SERVER[kind]) if kind in SERVER else ("receiver", CLIENT[kind])
    server, client, *_ = conversation(*parties(NETWORK, X, TERMS), who=who, place=place, change=instead(change))
    refused, victim = (client, server) if who == "sender" else (server, client)
    assert type(refused) is ProtocolError and kind in str(refused) and words in str(refused)
    assert isinstance(victim, Disconnected)


def messages():
    """How many messages server and client send, and the kinds of them."""
    *_, server, client = conversation(*parties(NETWORK, X, TERMS), log=True)
    return [[sent.kind for sent in channel.log if sent.outgoing] for channel in (server, client)]


KINDS = messages()
PLACES = [("sender", place) for place in range(len(KINDS[0]))] + [("receiver", place) for place in range(len(KINDS[1]))]
FEW = [("sender", 0), ("sender", 4), ("sender", len(KINDS[0]) - 1), ("receiver", 2)]


@pytest.mark.parametrize("places", [FEW, pytest.param(PLACES, marks=pytest.mark.full)], ids=["few", "all"])
@pytest.mark.parametrize("change", [leave, stall], ids=["leaves", "stalls"])
def test_nobody_waits_for_a_party_that_leaves_or_stalls(places, change):
    for who, place in places:
        start = time.monotonic()
        server, client, *_ = conversation(
            *parties(NETWORK, X, TERMS), who=who, place=place, change=change, timeout=WAIT
        )
        victim = client if who == "sender" else server
        assert isinstance(victim, Disconnected if change is leave else TimeoutError | ProtocolError), (who, place)
        assert time.monotonic() - start < 10 * WAIT
        assert isinstance(client, Exception)  # no partial result


def test_a_message_too_many_is_refused():
    for who, place in FEW[1:]:
        twice = lambda channel, *values, s=(who, place): (  # noqa: E731
            channel.send(KINDS[s[0] == "receiver"][s[1]], *values) or values
        )
        server, client, *_ = conversation(*parties(NETWORK, X, TERMS), who=who, place=place, change=twice)
        if place != len(KINDS[0]) - 1 or who != "sender":  # after the last one nobody listens
            assert any(type(each) is ProtocolError for each in (server, client)), (who, place)


def test_frames_that_lie_about_their_length_are_refused():
    def lying(size):
        return lambda channel, *values: channel._transport.write(size.to_bytes(4, "big") + b"s\0\0\0\1a", WAIT)

    for (who, place), size in product([("sender", 0), ("receiver", 2)], [0, 5, 7, 2**16, 2**26 + 1, 2**32 - 1]):
        start = time.monotonic()
        run = parties(NETWORK, X, TERMS)
        server, client, *_ = conversation(*run, who=who, place=place, change=lying(size), timeout=WAIT)
        assert isinstance(client, ProtocolError | TimeoutError) and isinstance(server, ProtocolError | TimeoutError)
        assert time.monotonic() - start < 10 * WAIT


class Damaging:
    """A channel that damages one message that it should send, as it travels."""

    def __init__(self, channel, place, change):
        self._channel, self._place, self._change, self._sent, self.kind = channel, place, change, 0, None

    def __getattr__(self, name):
        return getattr(self._channel, name)

    def send(self, kind, *values):
        if self._sent == self._place:
            frame = pack(kind, *values)
            data = self._change(frame[4:])
            self.kind = None if data == frame[4:] else kind  # some swaps change nothing
            self._channel._transport.write(len(data).to_bytes(4, "big") + data, WAIT)
        else:
            self._channel.send(kind, *values)
        self._sent += 1


LINEAR = ("public key", "encrypted share", "masked outputs", "masked outputs, c1", "shares of the logits")
ERRORS = ProtocolError | TimeoutError


def frames_of(view):
    return [pack(message.kind, *message.values)[4:] for message in view]


@functools.cache
def recorded(sealed):
    """Messages of another conversation, to splice in."""
    run, key = parties(NETWORK, X, TERMS), mac_key()
    if sealed:
        run = [authenticated(key, role, party) for role, party in zip(("server", "client"), run, strict=True)]
    *_, server, client = conversation(*run, view=10**8)
    return frames_of(server.view) + frames_of(client.view)


def damaged_conversation(random, damage, *, sealed):
    """What server and client came to, and the kind of the message that was damaged; None if nothing changed."""
    who, place = PLACES[int(random.integers(len(PLACES)))]
    change = lambda data: damaged(random, data, recorded(sealed), damage, {0: "<B", 1: "<I", 10: "<I"})  # noqa: E731
    made, key = [], mac_key()

    def wrap(channel):
        made.append(Damaging(channel, place, change))
        return made[0]

    run = []
    for role, name, party in zip(("sender", "receiver"), ("server", "client"), parties(NETWORK, X, TERMS), strict=True):
        around = wrap if role == who else lambda channel: channel
        below = partial(authenticated, key, name) if sealed else (lambda party, wrap: lambda c: party(wrap(c)))
        run.append(below(party, wrap=around))
    results, _ = talk(*run, timeout=5)
    return results["sender"], results["receiver"], made[0].kind


@pytest.mark.parametrize("count", [11, pytest.param(180, marks=pytest.mark.full)])
def test_damaged_messages_are_refused_or_do_no_harm_unless_they_are_ciphertexts(count):
    """Of 77 messages, in full tests 1,260. A ciphertext that was changed is another one: nothing authenticates it."""
    random, errors = np.random.default_rng(0), 0
    for damage in DAMAGES * count:
        server, client, kind = damaged_conversation(random, damage, sealed=False)
        assert isinstance(server, ERRORS | list) and isinstance(client, ERRORS | tuple), (damage, kind, server, client)
        errors += isinstance(client, ERRORS)
        if isinstance(client, tuple):
            assert client[0].shape == RIGHT.shape
            assert (client[0] == RIGHT).all() or kind in LINEAR, (damage, kind)
    assert errors > len(DAMAGES) * count / 2


@pytest.mark.parametrize("count", [11, pytest.param(180, marks=pytest.mark.full)])
def test_with_macs_every_damaged_message_ends_in_an_error(count):
    """Of 77 messages, in full tests 1,260: never in a number, wrong or right."""
    random = np.random.default_rng(1)
    for damage in DAMAGES * count:
        server, client, kind = damaged_conversation(random, damage, sealed=True)
        if kind is None:
            assert (client[0] == RIGHT).all()
        else:
            assert isinstance(client, ERRORS | ValueError), (damage, server, client)
            assert isinstance(server, ERRORS | ValueError | list), (damage, server, client)


def test_a_ciphertext_that_was_changed_is_another_number_unless_there_is_a_mac():
    shift = instead(lambda a: np.roll(a, 1, axis=-1))
    place = len(KINDS[0]) - 3
    _, client, *_ = conversation(*parties(NETWORK, X, TERMS), who="sender", place=place, change=shift)
    assert KINDS[0][place] == "masked outputs" and (client[0] != RIGHT).any()


def test_seals_can_be_read_in_a_view():
    key = mac_key()
    server, client = parties(NETWORK, X, TERMS)
    run = authenticated(key, "server", server), authenticated(key, "client", client)
    *_, channel, _ = conversation(*run, view=10**8)
    assert [message.kind for message in unsealed(channel.view)][1:4] == list(CLIENT)
