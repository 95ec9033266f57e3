"""Building blocks, measured one operation at a time: what each takes, what travels, and that the result is right.

What a ciphertext hides is drawn by a seed; keys, masks and labels come from the cryptographic source. Times are those
of one thread, medians over the repetitions, or a run of both parties divided by what they did together.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch

from spai_lab.crypto import ckks, paillier
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.circuits_bits import from_bits, to_bits
from spai_lab.crypto.circuits_words import adder
from spai_lab.crypto.ckks import public_key, relinearization_key, secret_key
from spai_lab.crypto.ckks_context import ckks_context
from spai_lab.crypto.ckks_encoding import decode, encode
from spai_lab.crypto.ckks_keys import rotation_keys
from spai_lab.crypto.ckks_messages import ciphertext_to_bytes
from spai_lab.crypto.ckks_rotations import rotate
from spai_lab.crypto.garbled_circuit import decode_outputs, encode_inputs, evaluate, garble
from spai_lab.crypto.garbled_circuit_parties import evaluator, garbler
from spai_lab.crypto.oblivious_transfer import ot_receiver, ot_sender
from spai_lab.crypto.oblivious_transfer_extension import extended_receiver, extended_sender
from spai_lab.crypto.paillier_keys import generate_key, to_bytes
from spai_lab.crypto.parties import run_parties
from spai_lab.crypto.secret_sharing import reconstruct, share, truncate
from spai_lab.crypto.secret_sharing_parties import Link, multiply
from spai_lab.crypto.secret_sharing_ring import to_ring, to_signed
from spai_lab.crypto.secret_sharing_shamir import shamir_reconstruct, shamir_share
from spai_lab.crypto.secret_sharing_triples import Request, deal_triple, stock
from spai_lab.survey.defense_models import seeded


def clocked(function: Callable, arguments: Iterable[tuple]) -> tuple[list, float]:
    """What a function gives for each, and the median of its seconds.

    >>> clocked(max, [(1, 2), (4, 3)])[0]
    [2, 4]
    """
    results, seconds = [], []
    for each in arguments:
        start = time.perf_counter()
        results.append(function(*each))
        seconds.append(time.perf_counter() - start)
    return results, float(np.median(seconds))


def numbers(count: int, bits: int, generator: torch.Generator) -> list[int]:
    """Whole numbers of so many bits at most."""
    return torch.randint(2**bits, (count,), generator=generator).tolist()


def both(one: Callable, other: Callable) -> tuple[list, float, list[int], int]:
    """What two parties return, the seconds of the run, the bytes that each sent, and the rounds."""

    def counting(party: Callable) -> Callable:
        return lambda channel: (party(channel), channel.bytes_sent, channel.rounds)

    start = time.perf_counter()
    ended = run_parties(counting(one), counting(other))
    seconds = time.perf_counter() - start
    results, sent, rounds = zip(*ended, strict=True)
    return list(results), seconds, list(sent), max(rounds)


# --- homomorphic encryption -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PaillierBlock:
    """Paillier's operations.

    Reference: Paillier 1999, "Public-key cryptosystems based on composite degree residuosity classes".

    Args:
        bits: of the modulus.
        numbers: how many are encrypted, each operation as often.
    """

    bits: int
    numbers: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "paillier block", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Seconds of each operation, results that are exactly right, bytes of a ciphertext."""
        generator = seeded(seed)
        a, b, k = (numbers(self.numbers, bits, generator) for bits in (32, 32, 16))
        secret = generate_key(self.bits)
        public, seconds = secret.public, {}
        texts, seconds["encrypt"] = clocked(paillier.encrypt, [(public, m) for m in a])
        others = [paillier.encrypt(public, m) for m in b]
        sums, seconds["add"] = clocked(paillier.add, [(public, *two) for two in zip(texts, others, strict=True)])
        products, seconds["multiply_plain"] = clocked(
            paillier.multiply_plain, [(public, *two) for two in zip(texts, k, strict=True)]
        )
        again, seconds["rerandomize"] = clocked(paillier.rerandomize, [(public, c) for c in texts])
        read, seconds["decrypt"] = clocked(paillier.decrypt, [(secret, c) for c in sums + products + again])
        wanted = [x + y for x, y in zip(a, b, strict=True)] + [x * y for x, y in zip(a, k, strict=True)] + a
        right = sum(x == y for x, y in zip(read, wanted, strict=True))
        return {"each": rounded(seconds), "exact": [right, len(wanted)], "bytes": len(to_bytes(public, texts[0]))}


@dataclass(frozen=True)
class CkksBlock:
    """The operations of CKKS on full ciphertexts.

    Reference: Cheon et al. 2016, IACR 2016/421.

    Args:
        degree: N; half as many numbers share a ciphertext.
        levels: products in sequence; a prime of 28 bits each, beside one of 30.
        repeats: how often each operation is done.
    """

    degree: int
    levels: int
    repeats: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "ckks block", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Seconds of each operation, the largest error of a product that was turned, its bound, bytes."""
        context = ckks_context(self.degree, (30, *[28] * self.levels))
        z = 2 * torch.rand(2, context.slots, generator=seeded(seed), dtype=torch.float64).numpy() - 1
        secret = secret_key(context)
        public, products, turns = public_key(secret), relinearization_key(secret), rotation_keys(secret, (1,))
        seconds, times = {}, self.repeats
        plain, seconds["encode"] = clocked(encode, [(context, z[0])] * times)
        x, seconds["encrypt"] = clocked(ckks.encrypt, [(public, text) for text in plain])
        y = ckks.encrypt(public, encode(context, z[1]))
        long, seconds["multiply"] = clocked(ckks.multiply, [(each, y) for each in x])
        short, seconds["relinearize"] = clocked(ckks.relinearize, [(each, products) for each in long])
        scaled, seconds["rescale"] = clocked(ckks.rescale, [(each,) for each in short])
        turned, seconds["rotate"] = clocked(rotate, [(each, 1, turns) for each in scaled])
        read, seconds["decrypt"] = clocked(ckks.decrypt, [(secret, each) for each in turned])
        errors = [np.abs(decode(each) - np.roll(z[0] * z[1], -1)).max() for each in read]
        return {
            "each": rounded(seconds),
            "slots": context.slots,
            "largest_error": float(max(errors)),
            "error_bound": float(np.max(turned[0].error)),
            "bytes": len(ciphertext_to_bytes(x[0])),
        }


def rounded(seconds: dict[str, float]) -> dict[str, float]:
    """Seconds to four digits."""
    return {name: float(f"{value:.4g}") for name, value in seconds.items()}


# --- between parties --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SharingBlock:
    """Shares between two parties, and Shamir's among five of whom three are enough.

    Reference: Beaver 1991; Shamir 1979; Mohassel and Zhang 2017, IACR 2017/396, section 4.1.

    Args:
        numbers: how many are shared at once.
    """

    numbers: int

    @property
    def key(self) -> dict:
        """Its field."""
        return {"kind": "sharing block", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Seconds of a number in each operation, results that are right, bytes of a product of each party, rounds."""
        generator, n, places = seeded(seed), self.numbers, 8
        x, y = (np.array(numbers(n, 24, generator)) for _ in range(2))
        seconds = {}
        (halves,), seconds["share"] = clocked(share, [(to_ring(x),)])
        other = share(to_ring(y))
        (whole,), seconds["reconstruct"] = clocked(reconstruct, [(halves,)])
        cut, seconds["truncate"] = clocked(truncate_of(places), [(half, party) for party, half in enumerate(halves)])
        near = np.abs(to_signed(reconstruct(cut)) - (x >> places)) <= 1
        triples = deal_triple(Request("multiply", (n,), (n,)))
        parties = [
            partial(product, party=party, triple=triples[party], x=halves[party], y=other[party]) for party in (0, 1)
        ]
        found, run_seconds, sent, rounds = both(*parties)
        seconds["multiply"] = run_seconds
        secrets = x.astype(np.uint64)
        (points,), seconds["shamir_share"] = clocked(shamir_share, [(secrets, 3, 5)])
        (again,), seconds["shamir_reconstruct"] = clocked(shamir_reconstruct, [([5, 1, 3], points[[4, 0, 2]], 3)])
        right = [whole == to_ring(x), near, reconstruct(found) == to_ring(x * y), again == secrets]
        return {
            "each": rounded({name: value / n for name, value in seconds.items()}),
            "right": [int(sum(each.sum() for each in right)), 4 * n],
            "bytes": [each / n for each in sent],
            "rounds": rounds,
        }


def truncate_of(places: int) -> Callable:
    """`truncate` by so many places, of a share and its party."""
    return lambda half, party: truncate(half, places, party=party)


def product(channel: Channel, *, party: int, triple: object, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A party's share of a product."""
    return multiply(Link(channel, party, stock([triple])), x, y)


TRANSFERS = {"base": (ot_sender, ot_receiver), "extended": (extended_sender, extended_receiver)}


@dataclass(frozen=True)
class TransferBlock:
    """One of two messages of 16 bytes, many times.

    Reference: Chou and Orlandi 2015, IACR 2015/267; Ishai et al. 2003, "Extending oblivious transfers efficiently".

    Args:
        base: how many transfers by public-key operations.
        extended: how many from 128 of those and hashes.
    """

    base: int
    extended: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "transfer block", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Of each way: seconds of a transfer, bytes of it that each party sends, right messages, rounds."""
        generator, told = np.random.default_rng(seed), {}
        for name, (sender, receiver) in TRANSFERS.items():
            n = getattr(self, name)
            pairs = generator.integers(0, 256, (n, 2, 16), dtype=np.uint8)
            choices = generator.integers(0, 2, n).astype(bool)
            ways = partial(sender, pairs=pairs), partial(receiver, choices=choices)
            (_, taken), seconds, sent, rounds = both(*ways)
            told[name] = {
                "each": float(f"{seconds / n:.4g}"),
                "right": [int((taken == pairs[np.arange(n), choices.astype(int)]).all(1).sum()), n],
                "bytes": [each / n for each in sent],
                "rounds": rounds,
            }
        return {"transfers": told}


@dataclass(frozen=True)
class GarbledBlock:
    """Sums of two parties' numbers in garbled circuits.

    Reference: Yao 1986; Zahur et al. 2014, IACR 2014/756.

    Args:
        bits: of each number.
        instances: how many sums.
    """

    bits: int
    instances: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "garbled block", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Seconds of an AND gate, to garble, to evaluate, and of both parties' run; right sums; bytes of a gate."""
        generator, circuit, n = seeded(seed), adder(self.bits), self.instances
        a, b = (np.array(numbers(n, self.bits, generator), dtype=np.uint64) for _ in range(2))
        ours, theirs = (to_bits(values, self.bits) for values in (a, b))
        gates = n * circuit.ands
        ((garbled, keys),), garbling = clocked(garble, [(circuit, n)])
        labels = encode_inputs(keys, np.concatenate([ours, theirs], axis=1))
        (outputs,), evaluating = clocked(evaluate, [(circuit, garbled, labels)])
        alone = from_bits(decode_outputs(garbled, outputs))
        ways = partial(garbler, circuit=circuit, inputs=ours), partial(evaluator, circuit=circuit, inputs=theirs)
        (_, found), seconds, sent, rounds = both(*ways)
        wanted = (a + b) & np.uint64(2**self.bits - 1)
        times = {"garble": garbling / gates, "evaluate": evaluating / gates, "both parties": seconds / gates}
        return {
            "ands": circuit.ands,
            "each": rounded(times),
            "right": [int((alone == wanted).sum() + (from_bits(found) == wanted).sum()), 2 * n],
            "bytes": [each / gates for each in sent],
            "rounds": rounds,
        }
