r"""What everybody agrees on before an inference on shares, how far its logits may be off, and how likely it fails.

`truncate` takes g binary places off a shared product without a message. It rounds up or down as the shares fall, so
that each number may be one unit above what the network in whole numbers has, never below: between $\lfloor z / 2^g
\rfloor$ and $\lceil z / 2^g \rceil$. The next layers multiply this unit. If the numbers of a layer are off by something
in $[l_j, h_j]$, those of the next one are within

$\sum_j (W_{ij}^+ l_j + W_{ij}^- h_j)$ and $\sum_j (W_{ij}^+ h_j + W_{ij}^- l_j)$,

which `logit_errors` follows to the end: a bound for all images, from the weights alone.
"""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from spai_lab.checks import check_choice, check_count, describe
from spai_lab.crypto.authenticated import AuthenticatedChannel
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.fixed_network import FixedNetwork, Stage, limits, squares, windows
from spai_lab.crypto.oblivious_transfer import refuse
from spai_lab.crypto.paillier_keys import check_whole
from spai_lab.crypto.secret_sharing import truncation_failure
from spai_lab.crypto.secret_sharing_ring import RING, Ring, check_ring
from spai_lab.crypto.secret_sharing_triples import Request

LOGITS_TO = ("client", "owner", "both")
WORKING = "still working"
Fields = dict[str, int | str]


@dataclass(frozen=True)
class Terms:
    """What is public in an inference on shares: all but weights and images. `inference_terms` makes it.

    Args:
        form: the network with zeros for its weights.
        images: N, how many are classified together.
        logits_to: who will know the logits: "client", "owner" or "both".
        relu_bits: how many bits of each share the circuits of ReLU add.
    """

    form: FixedNetwork
    images: int
    logits_to: str
    relu_bits: int

    @property
    def fields(self) -> Fields:
        """What both ends of a channel compare."""
        stages = [(len(s.weight), s.shape, s.kernel, s.pool) for s in self.form.stages]
        return {
            "the network": fingerprint(repr(stages)),
            "value_places": self.form.value_places,
            "weight_places": self.form.weight_places,
            "images": self.images,
            "logits_to": self.logits_to,
            "relu_bits": self.relu_bits,
        }

    @property
    def requests(self) -> list[Request]:
        """The products for which triples are needed, one a stage: weights by all windows of all images."""
        return [
            Request("matmul", s.weight.shape, (s.weight.shape[1], self.images * s.places)) for s in self.form.stages
        ]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the logits."""
        return self.images, len(self.form.stages[-1].weight)


def inference_terms(network: FixedNetwork, *, images: int = 1, logits_to: str = "client", relu_bits: int = 64) -> Terms:
    """What the owner of a network tells everybody: how it looks, not what its weights are.

    Args:
        network: of `fixed_network`; or another one of the same form, with any weights.
        images: N, how many images are classified together.
        logits_to: who will know the logits: "client", "owner" or "both". No server ever does.
        relu_bits: how many bits of each share the circuits of ReLU add, from 3; at most those of the ring. A carry
            knows nothing of higher bits, so that w are enough where truncated numbers stay within
            $[-2^{w-1}, 2^{w-1})$; all then is cheaper.
    Returns:
        the terms; they hold no weight.
    Raises:
        ValueError: names the argument.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.fixed_network import fixed_network
    >>> from spai_lab.crypto.relu_networks import minionn_network
    >>> network = fixed_network(minionn_network(), (1, 28, 28), value_places=13, weight_places=13)
    >>> [request.z for request in inference_terms(network).requests]
    [(16, 576), (16, 64), (100, 1), (10, 1)]
    """
    check_network(network)
    check_whole("images", images, 1, 2**16)
    check_choice("logits_to", logits_to, LOGITS_TO)
    bits = check_whole("relu_bits", relu_bits, 3, 64)
    stages = [
        Stage(np.zeros(s.weight.shape, np.int64), np.zeros(s.bias.shape, np.int64), s.shape, s.kernel, s.pool)
        for s in network.stages
    ]
    form = FixedNetwork(tuple(stages), network.value_places, network.weight_places)
    return Terms(form, int(images), logits_to, bits)


# --- agreeing ---------------------------------------------------------------------------------------------------------


def agree(channel: Channel | AuthenticatedChannel, fields: Fields) -> None:
    """Both ends say on what they agreed; raise `ProtocolError`, with the first field that differs.

    >>> from spai_lab.crypto.channel import pair
    >>> alice, bob = pair("Alice", "Bob")
    >>> bob.send("terms", 2)
    >>> agree(alice, {"images": 1})
    Traceback (most recent call last):
    spai_lab.crypto.frames.ProtocolError: Bob to Alice: images is 2 there, 1 here
    """
    channel.send("terms", *fields.values())
    theirs = channel.receive("terms", *map(type, fields.values()))
    for (name, ours), other in zip(fields.items(), theirs, strict=True):
        if other != ours:
            huge = isinstance(other, int) and other.bit_length() > 64  # Python would refuse to spell it
            refuse(channel, f"{name} is {'a huge number' if huge else str(other)[:40]} there, {ours} here")


def wait_for(channel: Channel | AuthenticatedChannel, steps: int) -> None:
    """Wait for a server's word after each step: so nobody's patience must last longer than a step takes."""
    for _ in range(steps):
        channel.receive(WORKING)


def fingerprint(text: str) -> str:
    """Eight bytes in hexadecimal by which two parties see whether they mean the same."""
    return blake2b(text.encode(), digest_size=8, person=b"spai-lab terms").hexdigest()


# --- how far off, and how likely --------------------------------------------------------------------------------------


def logit_errors(network: FixedNetwork) -> tuple[np.ndarray, np.ndarray]:
    r"""How far the logits on shares may be from `fixed_logits`, for any image, unless a truncation wraps around.

    Args:
        network: of `fixed_network`.
    Returns:
        the lowest and the highest difference of each logit, in units of $2^{-f-g}$, int64 `(K,)` each.
    Raises:
        ValueError: names the argument.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, theorem 1, for one truncation.
    Survey: private AI, cryptography, multi-party computation.

    >>> ones = np.ones((1, 1), np.int64)
    >>> network = FixedNetwork((Stage(ones, ones[0], (1,)), Stage(-3 * ones, ones[0], (1,))), 4, 4)
    >>> [bound.tolist() for bound in logit_errors(network)]  # one unit too much, three times subtracted
    [[-3], [0]]
    """
    return all_errors(network)[-1]


def inference_failure(network: FixedNetwork, *, images: int = 1, relu_bits: int = 64, ring: Ring = RING) -> float:
    r"""How likely an inference goes wrong at most: that one of all truncated numbers wraps around.

    Who wraps is off by $2^{l-g}$. A circuit that adds $w \le l - g$ bits sees nothing of that, and nothing fails.

    Args:
        network: whose `limits` bound each number, for any image.
        images: how many are classified.
        relu_bits: w, as in `inference_terms`.
        ring: the ring.
    Returns:
        a probability, $\sum_i n_i \max |z_i| / 2^l$ over all stages but the last, 0 for $w \le l - g$; and 1 if numbers
        may be too large for the ring, or for w bits.
    Raises:
        ValueError: names the argument.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, theorem 1.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.fixed_network import fixed_network
    >>> from spai_lab.crypto.relu_networks import relu_network
    >>> network = fixed_network(relu_network(), (1, 8, 8), value_places=13, weight_places=13)
    >>> 0 < inference_failure(network) < 2**-28
    True
    """
    check_network(network)
    check_count("images", images)
    check_ring(ring)
    check_whole("relu_bits", relu_bits, 3, ring.bits)
    total, g = 0.0, network.weight_places
    for stage, largest in zip(network.stages, largest_numbers(network), strict=True):
        last = stage is network.stages[-1]
        if largest >= ring.modulus // 2 or not (last or (largest >> g) + 1 < 2 ** (relu_bits - 1)):
            return 1.0
        if g and not last and relu_bits > ring.bits - g:
            count = images * int(np.prod(stage.outputs)) * stage.pool**2
            total += truncation_failure(largest, count=count, ring=ring)
    return min(1.0, total)


def largest_numbers(network: FixedNetwork) -> list[int]:
    """The largest $|z|$ in each stage on shares, for any image: that of `limits` and what the errors add."""
    errors = all_errors(network)
    return [
        limit + int(max(high.max(), -low.min())) for limit, (low, high) in zip(limits(network), errors, strict=True)
    ]


def all_errors(network: FixedNetwork) -> list[tuple[np.ndarray, np.ndarray]]:
    """The lowest and the highest error of the numbers in each stage, int64 `(M, P)`; of the last `(K,)`."""
    check_network(network)
    g, errors = network.weight_places, []
    low = high = np.zeros((1, *network.stages[0].shape), np.int64)
    for stage in network.stages:
        low, high = (windows(bound, stage) for bound in (low, high))
        positive, negative = np.maximum(stage.weight, 0), np.minimum(stage.weight, 0)
        low, high = positive @ low + negative @ high, positive @ high + negative @ low
        errors.append((low[0], high[0]))
        low, high = squares(low, stage).min(-1), squares(high, stage).max(-1)
        # z = q 2^g + r with r < 2^g, so that rounding up z + h gives at most q + 1 + (h - 1) / 2^g, rounded up
        low, high = low >> g, 1 - ((1 - high) >> g) if g else high
        low, high = (bound.reshape(1, *stage.outputs) for bound in (low, high))
    errors[-1] = tuple(bound[:, 0] for bound in errors[-1])
    return errors


# --- what is refused --------------------------------------------------------------------------------------------------


def check_network(network: FixedNetwork) -> None:
    """Raise `ValueError` unless this is a `FixedNetwork`."""
    if not isinstance(network, FixedNetwork):
        raise ValueError(f"network is {describe(network)}; accepted: a FixedNetwork, as of fixed_network")


def check_terms(terms: Terms, kind: type = Terms) -> None:
    """Raise `ValueError` unless these are terms of this kind."""
    if not isinstance(terms, kind):
        raise ValueError(f"terms is {describe(terms)}; accepted: {kind.__name__}")
