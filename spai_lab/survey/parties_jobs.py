"""Two parties and many, measured: inference between two, training on shares, sums of many clients' updates.

Networks are trained on the training part; test labels only judge. Both parties run on this machine, one thread each;
what another network would add is found by a replay of the logs (`spai_lab.crypto.network_time`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from spai_lab.crypto.channel import Channel, Lap, Sent
from spai_lab.crypto.fixed_network import FixedNetwork, fixed_images, fixed_logits, fixed_network, limits
from spai_lab.crypto.garbled_circuit_labels import blake2_hash, tmmo_hash
from spai_lab.crypto.hybrid_inference import hybrid_client, hybrid_server
from spai_lab.crypto.hybrid_terms import public_terms
from spai_lab.crypto.network_time import recorded
from spai_lab.crypto.parties import run_parties
from spai_lab.crypto.relu_networks import minionn_network, relu_network
from spai_lab.crypto.secret_sharing import reconstruct, share
from spai_lab.crypto.secret_sharing_parties import Link
from spai_lab.crypto.secret_sharing_ring import to_ring, to_signed
from spai_lab.crypto.secret_sharing_triples import deal_triple, stock
from spai_lab.crypto.secureml import infer_on_shares
from spai_lab.crypto.secureml_terms import inference_failure, inference_terms, logit_errors
from spai_lab.crypto.secureml_training import secureml_training
from spai_lab.crypto.secureml_training_terms import (
    TrainingTerms,
    fixed_examples,
    plain_training,
    predicted,
    sigmoid_training,
    training_error,
)
from spai_lab.data import Dataset
from spai_lab.metrics import accuracy_rate
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.encrypted_networks import images
from spai_lab.survey.measure import counted
from spai_lab.training import fit
from spai_lab.training.secure_federated import secure_federated_average

MODELS = {"digits": relu_network, "mnist": minionn_network}
TRAINING = {
    "digits": {"epochs": 40, "learning_rate": 1e-2, "batch_size": 64},
    "mnist": {"epochs": 8, "learning_rate": 3e-3},
}
HYBRID_PLACES = {"value_places": 4, "weight_places": 6}
SHARES_PLACES = {"value_places": 13, "weight_places": 13}
HASHES = {"BLAKE2b": blake2_hash, "AES": tmmo_hash}
WORD = 8  # bytes of an element

# --- inference --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def trained(name: str, seed: int) -> nn.Module:
    """64-32-10 on the raw digits, or MiniONN's network on MNIST."""
    data, generator = images(name), seeded(seed)
    model = MODELS[name](data.shape, generator=generator)
    fit(model, data.x_train, data.y_train, generator=generator, progress=False, **TRAINING[name])
    return model.eval()


def right(network: FixedNetwork, x: Tensor, y: Tensor) -> list[int]:
    """How many of all test images the network in whole numbers names rightly."""
    parts = zip(x.split(500), y.split(500), strict=True)
    return [sum(int((fixed_logits(network, part).argmax(1) == own.numpy()).sum()) for part, own in parts), len(y)]


def spelled_log(log: Sequence[Sent]) -> list[list]:
    """A log as it is kept."""
    return [[round(each.asked, 5), round(each.at, 5), each.outgoing, each.kind, each.size] for each in log]


def spelled_laps(laps: Sequence[Lap]) -> list[list]:
    """What each part cost, as it is kept."""
    return [[each.name, each.bytes_sent, each.bytes_received, each.rounds, round(each.seconds, 4)] for each in laps]


@dataclass(frozen=True)
class Run:
    """One image between two parties: the logits, and at each end what each part cost and what was sent."""

    logits: np.ndarray
    laps: tuple[Sequence[Lap], Sequence[Lap]]
    logs: tuple[Sequence[Sent], Sequence[Sent]]
    seconds: float


def one_by_one(run: Callable[[Tensor], Run], network: FixedNetwork, data: Dataset, count: int) -> dict:
    """What the first test images give, one by one; laps and logs are those of the run of median time."""
    runs = [run(x[None]) for x in data.x_test[:count]]
    middle = sorted(runs, key=lambda each: each.seconds)[len(runs) // 2]
    whole = np.concatenate([each.logits for each in runs])
    plain = fixed_logits(network, data.x_test[:count])
    sizes = [sum(sent.size for sent in log if sent.outgoing) for log in middle.logs]
    return {
        "agree": [int((whole.argmax(1) == plain.argmax(1)).sum()), count],
        "exact": [int((whole == plain).all(1).sum()), count],
        "largest_error": int(np.abs(whole - plain).max()),
        "image_seconds": round(middle.seconds, 3),
        "bytes": sizes,
        "laps": [spelled_laps(laps) for laps in middle.laps],
        "logs": [spelled_log(log) for log in middle.logs],
    }


def accuracies(model: nn.Module, network: FixedNetwork, data: Dataset) -> dict:
    """Of the trained network, and of the one in whole numbers, on all test images."""
    return {
        "accuracy": counted(accuracy_rate(model, data.x_test, data.y_test)),
        "fixed": right(network, data.x_test, data.y_test),
        "bits": [limit.bit_length() + 1 for limit in limits(network)],
    }


@dataclass(frozen=True)
class Hybrid:
    """Linear layers under ring-LWE, ReLU and pools in garbled circuits.

    Reference: Liu et al. 2017, IACR 2017/452 (MiniONN); Juvekar et al. 2018, arXiv 1801.05507 (GAZELLE).

    Args:
        data: "digits" or "mnist".
        images: how many test images, one by one.
        label_hash: of the garbled circuits, "BLAKE2b" or "AES" (`tmmo_hash`, on processors that have it built in).
    """

    data: str
    images: int
    label_hash: str = "BLAKE2b"

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "hybrid", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Accuracies, agreement, seconds of an image, bytes each way, laps and logs of both ends."""
        data, model = images(self.data), trained(self.data, seed)
        network = fixed_network(model, data.shape, **HYBRID_PLACES)
        terms, label_hash = public_terms(network), HASHES[self.label_hash]
        server = recorded(partial(hybrid_server, network=network, terms=terms, label_hash=label_hash))

        def answered(x: Tensor) -> Run:
            start = time.perf_counter()
            client = recorded(partial(hybrid_client, x=x, terms=terms, label_hash=label_hash))
            (served, sent), ((logits, laps), asked) = run_parties(server, client, log=True)
            return Run(logits, (served, laps), (sent, asked), time.perf_counter() - start)

        found = one_by_one(answered, network, data, self.images)
        return accuracies(model, network, data) | {"agreed_bits": list(terms.bits), "wrap": 0.0} | found


@dataclass(frozen=True)
class OnShares:
    """SecureML's way: weights and images in shares, triples dealt before.

    Reference: Mohassel and Zhang 2017, IACR 2017/396.

    Args:
        data: "digits" or "mnist".
        images: how many test images, one by one.
        relu_bits: how many bits the circuits add; up to 64 - g, a wrap is never seen.
    """

    data: str
    images: int
    relu_bits: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "shares", **asdict(self)}

    def run(self, seed: int) -> dict:
        """As `Hybrid`, and the bound on errors, the chance of a wrap, the bytes and products of the triples."""
        data, model = images(self.data), trained(self.data, seed)
        network = fixed_network(model, data.shape, **SHARES_PLACES)
        terms = inference_terms(network, relu_bits=self.relu_bits)
        weights = [tuple(map(share, map(to_ring, (stage.weight, stage.bias)))) for stage in network.stages]

        def server(channel: Channel, party: int, halves: list, values: tuple) -> tuple[np.ndarray, list[Lap]]:
            laps: list[Lap] = []
            own = [(W[party], b[party]) for W, b in weights]
            link = Link(channel, party, stock([each[party] for each in halves]))
            return infer_on_shares(link, terms, own, values[party], laps=laps), laps

        def answered(x: Tensor) -> Run:
            halves = [deal_triple(request) for request in terms.requests]
            values = share(to_ring(fixed_images(network, x)))
            start = time.perf_counter()
            parties = [recorded(partial(server, party=p, halves=halves, values=values)) for p in (0, 1)]
            ((one, laps), log), ((other, others), answers) = run_parties(*parties, log=True)
            seconds = time.perf_counter() - start
            return Run(to_signed(reconstruct([one, other])), (laps, others), (log, answers), seconds)

        low, high = logit_errors(network)
        elements = sum(request.elements for request in terms.requests)
        return {
            **accuracies(model, network, data),
            "error_bound": int(max(high.max(), -low.min())),
            "wrap": inference_failure(network, relu_bits=self.relu_bits),
            "triple_bytes": WORD * elements,
            "products": sum(request.terms * int(np.prod(request.z)) for request in terms.requests),
            **one_by_one(answered, network, data, self.images),
        }


# --- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OnSharedExamples:
    """Ten logistic regressions trained at once on shares of all examples.

    Reference: Mohassel and Zhang 2017, IACR 2017/396, section 4.1.

    Args:
        data: "digits" or "mnist".
        examples: how many.
        epochs: how often all of them are used.
    """

    data: str
    examples: int
    epochs: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "training", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Accuracy on shares, in plain fixed point and with the true sigmoid; difference and bound; seconds, bytes."""
        data = images(self.data)
        order = torch.randperm(len(data.x_train), generator=seeded(seed))[: self.examples]
        terms = TrainingTerms(self.examples, data.x_train[0].numel() + 1, classes=10, epochs=self.epochs)
        x, y = fixed_examples(terms, data.x_train[order], data.y_train[order])
        plain, smooth = plain_training(terms, x, y), sigmoid_training(terms, x, y)
        start = time.perf_counter()
        trained_on_shares, laps = secureml_training(terms, x, y, timeout=None)
        seconds = time.perf_counter() - start
        scale = 2.0**-terms.weight_places

        def judged(weights: np.ndarray) -> list[int]:
            return [int((predicted(weights, data.x_test) == data.y_test.numpy()).sum()), len(data.y_test)]

        bound = training_error(terms, x)
        return {
            "shares": judged(trained_on_shares * scale),
            "fixed": judged(plain.weights * scale),
            "sigmoid": judged(smooth),
            "largest_difference": int(np.abs(trained_on_shares - plain.weights).max()),
            "difference_bound": bound if np.isfinite(bound) else None,
            "wrap": plain.failure,
            "batch": terms.batch,
            "steps": len(terms.batches) * self.epochs,
            "run_seconds": round(seconds, 2),
            "laps": [spelled_laps(each) for each in laps],
        }


# --- many clients -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Aggregated:
    """A round of secure aggregation of updates as large as a network.

    Reference: Bonawitz et al. 2017, IACR 2017/281; McMahan et al. 2016, arXiv 1602.05629.

    Args:
        clients: n.
        leave: how many leave after they have shared their keys, the costly case.
        size: numbers of an update.
    """

    clients: int
    leave: int
    size: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "aggregation", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Who is in the sum, its error and bound, seconds, bytes that a client and the server send."""
        generator = seeded(seed)
        updates = [0.01 * torch.randn(self.size, generator=generator) for _ in range(self.clients)]
        counts = torch.randint(50, 500, (self.clients,), generator=generator).tolist()
        gone = dict.fromkeys(range(self.leave), "masked input")
        start = time.perf_counter()
        average = secure_federated_average(updates, counts, dropouts=gone)
        seconds, kept = time.perf_counter() - start, average.aggregate.included
        weighed = sum(counts[i] * updates[i].double() for i in kept) / sum(counts[i] for i in kept)
        up = [average.aggregate.bytes_up[i] for i in kept]
        return {
            "included": len(kept),
            "examples": [average.examples, sum(counts[i] for i in kept)],
            "largest_error": float((average.update.double() - weighed).abs().max()),
            "run_seconds": round(seconds, 2),
            "client_bytes": int(np.median(up)),
            "plain_bytes": updates[0].nbytes,
        }


def parties_jobs(name: str) -> Sequence[Hybrid | OnShares | OnSharedExamples | Aggregated]:
    """What is measured on a data set."""
    if name == "digits":
        return (
            Hybrid("digits", 200),
            *(OnShares("digits", 200, bits) for bits in (64, 40)),
            OnSharedExamples("digits", 1078, 10),
            *(Aggregated(n, leave, 10_000) for n, leave in ((10, 0), (10, 4), (50, 0), (50, 24))),
        )
    return (
        *(Hybrid("mnist", 50, label_hash) for label_hash in HASHES),
        *(OnShares("mnist", 20, bits) for bits in (64, 40)),
        OnSharedExamples("mnist", 10_000, 3),
    )
