"""Cryptography in seconds: each protocol on a few of the digits, each building block on a few numbers."""

import time
from collections.abc import Callable
from functools import partial

from spai_lab.crypto.fixed_network import fixed_logits, fixed_network
from spai_lab.crypto.secureml import secureml_inference
from spai_lab.survey.block_jobs import CkksBlock, GarbledBlock, PaillierBlock, SharingBlock, TransferBlock
from spai_lab.survey.crypto_headlines import (
    ckks_headline,
    cryptonets_headline,
    federated_headline,
    garbled_headline,
    hybrid_headline,
    paillier_headline,
    secureml_headline,
    sharing_headline,
    transfer_headline,
)
from spai_lab.survey.encrypted_jobs import Batch
from spai_lab.survey.encrypted_networks import images
from spai_lab.survey.headline import Headline
from spai_lab.survey.headline_rows import fresh
from spai_lab.survey.measure import Job
from spai_lab.survey.packed_jobs import MLP, Single
from spai_lab.survey.parties_jobs import SHARES_PLACES, Hybrid, OnSharedExamples, trained
from spai_lab.survey.together_jobs import Federated

IMAGES = 64
RELU_BITS = 64


def block(job: Job, headline: Callable[[dict], Headline], seed: int) -> Headline:
    """A building block."""
    return headline(fresh(job, seed))


def cryptonets(seed: int, count: int = IMAGES) -> Headline:
    """A batch in the slots of its ciphertexts, and images one by one."""
    return cryptonets_headline(fresh(Batch("digits", images=count), seed), [fresh(Single("digits", MLP, count), seed)])


def secureml(seed: int, count: int = IMAGES, examples: int = 1_078, epochs: int = 2) -> Headline:
    """Training on shares, and inference by all five parties at once."""
    data = images("digits")
    network = fixed_network(trained("digits", seed), data.shape, **SHARES_PLACES)
    x = data.x_test[:count]
    start = time.perf_counter()
    logits, laps = secureml_inference(network, x, relu_bits=RELU_BITS)
    seconds = time.perf_counter() - start
    inference = {
        "relu_bits": RELU_BITS,
        "agree": [int((logits.argmax(1) == fixed_logits(network, x).argmax(1)).sum()), count],
        "image_seconds": round(seconds / count, 4),
        "bytes": [sum(lap.bytes_sent for lap in each) // count for each in laps],
    }
    return secureml_headline(fresh(OnSharedExamples("digits", examples, epochs), seed), [inference])


def hybrid(seed: int, count: int = IMAGES) -> Headline:
    """Images between a client and a server."""
    return hybrid_headline(fresh(Hybrid("digits", count), seed))


def federated(seed: int) -> Headline:
    """Ten clients."""
    return federated_headline(fresh(Federated("digits", 10, 1_078, 5), seed))


QUICK: dict[str, Callable[[int], Headline]] = {
    "paillier": partial(block, PaillierBlock(2048, 10), paillier_headline),
    "ckks": partial(block, CkksBlock(8192, 4, 10), ckks_headline),
    "cryptonets": cryptonets,
    "secret_sharing": partial(block, SharingBlock(100_000), sharing_headline),
    "oblivious_transfer": partial(block, TransferBlock(256, 100_000), transfer_headline),
    "garbled_circuit": partial(block, GarbledBlock(32, 1_000), garbled_headline),
    "secureml": secureml,
    "hybrid_inference": hybrid,
    "federated": federated,
}
