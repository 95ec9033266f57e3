r"""What both parties of a hybrid inference know: shapes, binary places, rings, and nothing else about the weights.

Stage k computes modulo $2^{l_k}$, with $2^{l_k - 1} > |z|$ for every image in [0, 1] (`limits`): no number ever wraps
around, the probability is 0. But $l_k$ is made of the weights, so that it tells of them: within a factor of 2, how
large a sum they reach. `public_terms` rounds up to an even number, a factor of 4; who wants to tell less names one
number of bits for all stages, which the server then checks against its weights before a word is said.
"""

from dataclasses import dataclass

import numpy as np

from spai_lab.checks import check_count, describe
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.ckks_ciphertext import check_type
from spai_lab.crypto.fixed_network import FixedNetwork, Stage, limits
from spai_lab.crypto.garbled_circuit_labels import LabelHash
from spai_lab.crypto.oblivious_transfer import receive_array, refuse
from spai_lab.crypto.paillier_keys import check_whole
from spai_lab.crypto.rlwe import fresh_bound
from spai_lab.crypto.rlwe_flooding import PublicKey, check_hidden
from spai_lab.crypto.rlwe_linear import product_norms, stage_layout
from spai_lab.crypto.rlwe_scheme import MOST_BITS, Scheme, rlwe_scheme
from spai_lab.crypto.rns import column

TERMS, KEY = "hybrid inference", "public key"
TERM_NAMES = ("value_places", "weight_places", "degree", "the number of images", "bits", "the shapes", "the hash")


@dataclass(frozen=True, eq=False)
class HybridTerms:
    """What both know beforehand; `public_terms` makes it.

    Args:
        network: of which only shapes and places count: all weights are 0.
        bits: $l_k$ of each stage.
        images: how many in one run.
        degree: N of the ciphertexts.
    """

    network: FixedNetwork
    bits: tuple[int, ...]
    images: int = 1
    degree: int = 4096

    def __post_init__(self) -> None:
        check_type("network", self.network, FixedNetwork)
        check_count("images", self.images)
        if not isinstance(self.bits, tuple) or len(self.bits) != len(self.network.stages):
            raise ValueError(f"bits is {describe(self.bits)}; accepted: a number for each stage")
        for bits in self.bits:
            check_whole("bits", bits, self.network.weight_places + 1, MOST_BITS)

    @property
    def schemes(self) -> list[Scheme]:
        """Of each stage; they differ in $l_k$ alone."""
        return [rlwe_scheme(bits, degree=self.degree) for bits in self.bits]


def public_terms(network: FixedNetwork, *, images: int = 1, bits: int | None = None, degree: int = 4096) -> HybridTerms:
    """What the server tells of its network: shapes, places, and in how many bits each stage fits.

    Args:
        network: the server's.
        images: how many in one run.
        bits: l of all stages; None takes for each stage the smallest even number.
        degree: N, 4,096 or 8,192.
    Returns:
        the terms, without weights.
    Raises:
        ValueError: names the argument; `NoiseTooLarge`, the degree is too small for these weights.
    Reference: Liu, Juuti, Lu and Asokan 2017 (MiniONN), IACR 2017/452; Juvekar, Vaikuntanathan and Chandrakasan 2018
        (GAZELLE), arXiv 1801.05507.
    Survey: private AI, cryptography, multi-party computation.

    >>> stage = Stage(np.array([[3, -5]]), np.array([1]), (2,))
    >>> public_terms(FixedNetwork((stage,), 2, 0)).bits
    (6,)
    """
    check_type("network", network, FixedNetwork)
    check_count("images", images)
    needed = [limit.bit_length() + 1 for limit in limits(network)]
    if bits is not None:
        check_whole("bits", bits, network.weight_places + 1, MOST_BITS)
    chosen = [need + need % 2 for need in needed] if bits is None else [int(bits)] * len(needed)
    blank = tuple(
        Stage(np.zeros_like(stage.weight), np.zeros_like(stage.bias), stage.shape, stage.kernel, stage.pool)
        for stage in network.stages
    )
    bare = FixedNetwork(blank, network.value_places, network.weight_places)
    terms = HybridTerms(bare, tuple(max(each, network.weight_places + 1) for each in chosen), int(images), degree)
    check_network(network, terms)
    return terms


def check_network(network: FixedNetwork, terms: HybridTerms) -> None:
    """Raise `ValueError` unless this network keeps to the terms: its shapes, its limits, and noise that is hidden."""
    check_type("network", network, FixedNetwork)
    check_type("terms", terms, HybridTerms)
    if spelled(terms) != spelled(HybridTerms(network, terms.bits, terms.images, terms.degree)):
        raise ValueError("network has other shapes or places; accepted: those of terms")
    for number, (stage, limit, scheme) in enumerate(
        zip(network.stages, limits(network), terms.schemes, strict=True), start=1
    ):
        if limit.bit_length() + 1 > scheme.bits:
            raise ValueError(
                f"terms has {scheme.bits} bits for stage {number}, whose numbers reach {limit:,}; accepted: at least "
                f"{limit.bit_length() + 1}"
            )
        norm = max(product_norms(stage_layout(stage, terms.degree), stage.weight))
        check_hidden(scheme, norm * fresh_bound() + 1, f"network: a product of stage {number}")


def spelled(terms: HybridTerms) -> tuple:
    """The terms as they travel."""
    network = terms.network
    shapes = tuple((each.shape, each.kernel, each.pool, len(each.weight)) for each in network.stages)
    return network.value_places, network.weight_places, terms.degree, terms.images, terms.bits, shapes


def hash_name(label_hash: LabelHash) -> str:
    """By what name a hash is agreed on."""
    return getattr(label_hash, "__name__", "a hash without a name")


def send_terms(channel: Channel, terms: HybridTerms, public: PublicKey, label_hash: LabelHash) -> None:
    """The client's first words: what it thinks was agreed on, and its public key."""
    channel.send(TERMS, *spelled(terms), hash_name(label_hash))
    channel.send(KEY, public.key.astype(np.uint32))


def receive_terms(channel: Channel, terms: HybridTerms, label_hash: LabelHash) -> PublicKey:
    """The public key of a client that agreed on the same; the channel is closed if it did not."""
    came = channel.receive(TERMS, int, int, int, int, tuple, tuple, str)
    for name, theirs, ours in zip(TERM_NAMES, came, (*spelled(terms), hash_name(label_hash)), strict=True):
        if theirs != ours:
            refuse(channel, f"{name} is another one than was agreed on")
    scheme = terms.schemes[0]
    return PublicKey(scheme, receive_residues(channel, KEY, scheme, (2, len(scheme.primes), scheme.degree)))


def receive_residues(channel: Channel, kind: str, scheme: Scheme, shape: tuple[int, ...]) -> np.ndarray:
    """Wait for residues, uint32 `(..., L, n)`, each below its prime; int64. The channel is closed on any other."""
    array = receive_array(channel, kind, shape, np.uint32).astype(np.int64)
    if (array >= column(scheme.primes)).any():
        refuse(channel, f"{kind!r} has numbers beyond their prime")
    return array
