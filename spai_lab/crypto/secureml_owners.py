r"""Who hides something from the servers of `spai_lab.crypto.secureml`: the client its images, the owner its weights.

Each cuts what it has into two shares, $x = x_0 + x_1$ modulo $2^{64}$, and sends one to each server. A share is
uniform, whatever it is a share of. Afterwards who is to know the logits gets a share from each server, and adds both.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from spai_lab.crypto.authenticated import AuthenticatedChannel
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.fixed_network import FixedNetwork, fixed_images
from spai_lab.crypto.secret_sharing import reconstruct, share
from spai_lab.crypto.secret_sharing_parties import receive_elements
from spai_lab.crypto.secret_sharing_ring import RING, Ring, to_ring, to_signed
from spai_lab.crypto.secureml_terms import (
    Terms,
    agree,
    check_network,
    check_terms,
    inference_failure,
    inference_terms,
    largest_numbers,
    wait_for,
)

End = Channel | AuthenticatedChannel


def secureml_client(first: End, second: End, x: Tensor, *, terms: Terms, ring: Ring = RING) -> np.ndarray | None:
    r"""Send each server one share of the images, $x = x_0 + x_1$, and put the shares of the logits together.

    Args:
        first, second: channels to server 0 and server 1.
        x: images `(N, C, H, W)` in [0, 1].
        terms: as agreed on.
        ring: the ring.
    Returns:
        logits as whole numbers, int64 `(N, K)`, for `to_logits`; None if only the owner is to know them.
    Raises:
        ValueError: names the argument.
        ProtocolError: a server broke the protocol, or agreed on something else.
        TimeoutError: a server stalled longer than the channel's `timeout`.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, section 3.
    Survey: private AI, cryptography, multi-party computation.
    """
    check_terms(terms)
    values = fixed_images(terms.form, x)
    if len(values) != terms.images:
        raise ValueError(f"x has {len(values)} images; accepted: {terms.images}, as agreed on")
    deal_shares((first, second), terms, [values], ring)
    return logits_of((first, second), terms, ring) if terms.logits_to != "owner" else None


def secureml_owner(
    first: End, second: End, network: FixedNetwork, *, terms: Terms, ring: Ring = RING
) -> np.ndarray | None:
    """Send each server one share of all weights; else as `secureml_client`.

    Args:
        first, second: channels to server 0 and server 1.
        network: of the form that was agreed on.
        terms: as agreed on.
        ring: the ring.
    Returns:
        logits, if the owner is to know them.
    Raises:
        ValueError: names the argument; the network, too, if the ring has no room for its numbers.
        ProtocolError: a server broke the protocol, or agreed on something else.
        TimeoutError: a server stalled longer than the channel's `timeout`.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, section 3.
    Survey: private AI, cryptography, multi-party computation.
    """
    check_terms(terms)
    check_network(network)
    own = inference_terms(network, images=terms.images, logits_to=terms.logits_to, relu_bits=terms.relu_bits)
    if own.fields != terms.fields:
        raise ValueError("network has another form than terms says; accepted: the one of inference_terms")
    if inference_failure(network, images=terms.images, relu_bits=terms.relu_bits, ring=ring) == 1:
        raise ValueError(
            f"network reaches {max(largest_numbers(network)):,}; accepted: what {ring.bits} bits hold, and "
            f"{terms.relu_bits} after truncation"
        )
    deal_shares((first, second), terms, [part for s in network.stages for part in (s.weight, s.bias)], ring)
    return logits_of((first, second), terms, ring) if terms.logits_to != "client" else None


def deal_shares(servers: tuple[End, End], terms: Terms, parts: Sequence[np.ndarray], ring: Ring) -> None:
    """Agree with both servers, then send each of them its shares of whole numbers, one message a part."""
    for server in servers:
        agree(server, terms.fields)
    for part in parts:
        for server, each in zip(servers, share(to_ring(part, ring), ring=ring), strict=True):
            server.send("share", each)


def logits_of(servers: tuple[End, End], terms: Terms, ring: Ring) -> np.ndarray:
    """The logits from both servers' shares."""
    return opened(servers, "logits", terms.shape, len(terms.form.stages) - 1, ring)


def opened(servers: tuple[End, End], kind: str, shape: tuple[int, ...], steps: int, ring: Ring) -> np.ndarray:
    """Whole numbers from both servers' shares, int64, after so many steps."""
    shares = []
    for server in servers:
        wait_for(server, steps)
        shares += receive_elements(server, kind, [shape], ring)
    return to_signed(reconstruct(shares, ring=ring), ring)
