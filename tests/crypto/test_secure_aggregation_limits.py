"""What secure aggregation does not stop, as its docstring says: a server of several stories, noise with no bound."""

from functools import partial

import numpy as np
import pytest

from spai_lab.crypto.frames import ProtocolError
from spai_lab.crypto.parties import run_parties
from spai_lab.crypto.secret_sharing_ring import RING, to_ring, to_signed
from spai_lab.crypto.secure_aggregation import Terms, unmask
from spai_lab.crypto.secure_aggregation_keys import SEALED, KeyPair, agree, recover_secrets
from spai_lab.crypto.secure_aggregation_messages import (
    ALL_KEYS,
    ALL_SHARES,
    ANSWER,
    INPUT,
    KEYS,
    REQUEST,
    SHARES,
)
from spai_lab.crypto.secure_aggregation_parties import aggregation_client, aggregation_server

N, T = 5, 3
GONE = {2: (0, 1, 3), 3: (0, 2, 4), 4: (1, 2, 3)}  # who is told that a client left: T others, N - T stories each
STORIES = {u: {v for v, told in GONE.items() if u in told} for u in range(N)}


def lying_server(*channels, terms):
    """The sum of the first two, though each client was told of a sum of at least t."""
    keys = {u: c.receive(KEYS, np.ndarray, np.ndarray)[1] for u, c in enumerate(channels)}
    for c in channels:
        c.send(ALL_KEYS, np.stack([keys[u][:2] for u in range(N)]))
    mail = np.zeros((N, N, SEALED), np.uint8)
    for u, c in enumerate(channels):
        mail[:, u] = c.receive(SHARES, np.ndarray, np.ndarray)[1]
        mail[u, u] = 0
    for u, c in enumerate(channels):
        c.send(ALL_SHARES, mail[u])
    masked = {u: c.receive(INPUT, np.ndarray, np.ndarray)[1] for u, c in enumerate(channels)}
    for u, c in enumerate(channels):
        c.send(REQUEST, np.array([[v not in STORIES[u], v in STORIES[u]] for v in range(N)]))
    answers = {u: c.receive(ANSWER, np.ndarray, np.ndarray)[1] for u, c in enumerate(channels)}
    secret = {}
    for v in range(N):
        helpers = [u for u in range(N) if (v in STORIES[u]) == (v in GONE)][:T]
        secret[v] = recover_secrets(helpers, np.stack([answers[u][[v]] for u in helpers]), T)[0]
    kept = [u for u in range(N) if u not in GONE]
    lost = {
        v: {
            u: agree(KeyPair(secret[v], keys[v][0].tobytes()), keys[u][0].tobytes(), terms.digest, "mask") for u in kept
        }
        for v in GONE
    }
    return to_signed(unmask({u: masked[u] for u in kept}, {u: secret[u] for u in kept}, lost))


def test_a_server_that_lies_to_each_client_opens_the_sum_of_two():
    """Signatures of who is in the sum, the paper's round 3, would show the clients that their stories differ."""
    terms, x = Terms(N, T, 4), np.arange(4 * N).reshape(N, 4)
    clients = [partial(aggregation_client, x=to_ring(x[u]), terms=terms, number=u) for u in range(N)]
    total, *told = run_parties(partial(lying_server, terms=terms), *clients, topology="star")
    assert total.tolist() == (x[0] + x[1]).tolist()
    assert all(len(included) >= T for included in told)


class Noisy:
    """A client's channel that puts noise in the place of its masked input."""

    def __init__(self, channel):
        self._channel = channel

    def __getattr__(self, name):
        return getattr(self._channel, name)

    def send(self, kind, *values):
        self._channel.send(kind, *((values[0], RING.draw(values[1].shape)) if kind == INPUT else values))


@pytest.mark.parametrize("largest", [None, 1000])
def test_noise_is_found_out_only_under_a_bound(largest):
    """Twenty entries of noise are within 3,000 of 0 with a probability of 2^-1000."""
    terms, x = Terms(3, 2, 20, largest), np.ones(20, np.uint64)
    clients = [partial(aggregation_client, x=x, terms=terms, number=u) for u in range(2)]
    noisy = partial(aggregation_client, x=x, terms=terms, number=2)
    served, *_ = run_parties(
        partial(aggregation_server, terms=terms),
        *clients,
        lambda channel: noisy(Noisy(channel)),
        topology="star",
        return_exceptions=True,
    )
    if largest is None:
        assert served.included == (0, 1, 2) and (served.total != 3).all()
    else:
        assert isinstance(served, ProtocolError) and "a masked input was wrong" in str(served)
