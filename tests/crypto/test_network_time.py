"""The replay of a log: closed forms of simple conversations, and a real one slowed down on its way."""

import time

import pytest

from spai_lab.crypto.channel import Sent
from spai_lab.crypto.network_time import LAN, WAN, Network, replay
from spai_lab.crypto.parties import run_parties

SLOW = Network(0.25, 1000.0)


def conversation(*messages):
    """Logs of both ends: who sends, seconds computed before, bytes; received as soon as the other end listens."""
    logs, clock = ([], []), [0.0, 0.0]
    for sender, seconds, size in messages:
        clock[sender] += seconds
        logs[sender].append(Sent(clock[sender], clock[sender], True, "message", size))
        asked, clock[1 - sender] = clock[1 - sender], max(clock)
        logs[1 - sender].append(Sent(asked, clock[1 - sender], False, "message", size))
    return logs


def test_messages_in_turn_take_a_latency_each():
    found = replay(*conversation(*[(turn % 2, 0.0, 500) for turn in range(6)]), SLOW)
    assert (found.rounds, found.size) == (6, 3000)
    assert found.seconds == pytest.approx(6 * (0.25 + 0.5))


def test_messages_one_way_wait_for_the_wire_and_not_for_each_other():
    found = replay(*conversation(*[(0, 0.0, 500)] * 6), SLOW)
    assert found.rounds == 1
    assert found.seconds == pytest.approx(6 * 0.5 + 0.25)


def test_an_exchange_waits_once():
    send, receive = Sent(0.0, 0.0, True, "share", 500), Sent(0.0, 0.0, False, "share", 500)
    found = replay([send, receive] * 3, [send, receive] * 3, SLOW)
    assert found.rounds == 3
    assert found.seconds == pytest.approx(3 * (0.25 + 0.5))


def test_what_is_computed_stays():
    found = replay(*conversation((0, 1.0, 500), (1, 2.0, 500)), SLOW)
    assert found.computing == pytest.approx(3.0)
    assert found.seconds == pytest.approx(3.0 + 2 * (0.25 + 0.5))


def test_what_is_computed_before_a_message_is_read_stays_too():
    sent = [Sent(0.0, 0.0, True, "message", 10)] * 2
    read = [Sent(0.0, 0.0, False, "message", 10), Sent(2.0, 2.0, False, "message", 10)]
    found = replay(sent, read, SLOW)
    assert found.computing == pytest.approx(2.0)
    assert found.seconds == pytest.approx(0.01 + 0.25 + 2.0)


def test_a_faster_network_is_never_slower():
    logs = conversation((0, 0.1, 10**6), (1, 0.1, 100), (0, 0.0, 10**5))
    fast, slow = replay(*logs, LAN), replay(*logs, WAN)
    assert fast.computing == slow.computing <= fast.seconds < slow.seconds


def test_a_real_conversation_is_replayed_with_all_that_was_computed():
    """Both parties compute, which is sleeping here, before they send and before they read; no sleep is too short."""

    def asking(channel):
        for _ in range(3):
            time.sleep(0.01)
            channel.send("question", bytes(100))
            channel.send("more", bytes(100))
            channel.receive("answer", bytes)
        return channel.log

    def answering(channel):
        for _ in range(3):
            channel.receive("question", bytes)
            time.sleep(0.02)
            channel.receive("more", bytes)
            time.sleep(0.03)
            channel.send("answer", bytes(200))
        return channel.log

    first, second = run_parties(asking, answering, log=True)
    found = replay(first, second, LAN)
    assert found.rounds == 6
    assert 3 * (0.01 + 0.02 + 0.03) <= found.computing <= first[-1].at + second[-1].at


@pytest.mark.parametrize("change", ["a message less", "another size", "another kind"])
def test_logs_of_different_runs_are_refused(change):
    first, second = conversation((0, 0.0, 500), (1, 0.0, 500))
    if change == "a message less":
        second = second[:1]
    else:
        what = {"kind": "other"} if change == "another kind" else {"size": 501}
        second = [Sent(0.0, 0.0, False, **({"kind": "message", "size": 500} | what)), second[1]]
    with pytest.raises(ValueError, match="first and second differ"):
        replay(first, second, LAN)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="network is"):
        replay([], [], 0.1)
    with pytest.raises(ValueError, match="first is"):
        replay(None, [], LAN)
    with pytest.raises(ValueError, match="bandwidth is 0"):
        Network(0.1, 0)
    with pytest.raises(ValueError, match="latency is -1"):
        Network(-1, 1)
