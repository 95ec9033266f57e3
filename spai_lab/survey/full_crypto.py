"""Cryptography, from what `spai-lab measure` has kept; building blocks see no data set."""

from collections.abc import Callable
from functools import partial

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
from spai_lab.survey.headline import Headline
from spai_lab.survey.headline_rows import kept
from spai_lab.survey.measure import load_measurement, rows_of_kind

IMAGES = ("digits", "mnist")


def block(kind: str, headline: Callable[[dict], Headline]) -> list[Headline]:
    """A building block, measured once."""
    return [headline(kept("blocks_digits", kind=kind))]


def paillier() -> list[Headline]:
    """Its operations, beside linear models of both data sets on encrypted pixels."""
    linear = [kept(f"encrypted_{name}", kind="paillier") for name in IMAGES]
    return [paillier_headline(kept("blocks_digits", kind="paillier block"), linear)]


def cryptonets() -> list[Headline]:
    """Batches of all test images, beside single ones."""
    return [
        cryptonets_headline(
            kept(f"encrypted_{name}", kind="batch", library="ours", network="CryptoNets"),
            rows_of_kind(load_measurement(f"encrypted_{name}"), "single"),
        )
        for name in IMAGES
    ]


def secureml() -> list[Headline]:
    """Training, and inference with long and with short circuits."""
    return [
        secureml_headline(
            kept(f"parties_{name}", kind="training"), rows_of_kind(load_measurement(f"parties_{name}"), "shares")
        )
        for name in IMAGES
    ]


def hybrid() -> list[Headline]:
    """Inference between a client and a server."""
    found = []
    for name in IMAGES:
        first, *others = rows_of_kind(load_measurement(f"parties_{name}"), "hybrid")
        found.append(hybrid_headline(first, others))
    return found


def federated() -> list[Headline]:
    """Averages that no one sees the parts of; with the digits, sums of many clients whom some leave."""
    sums = rows_of_kind(load_measurement("parties_digits"), "aggregation")
    digits, mnist = (kept(f"blocks_{name}", kind="federated") for name in IMAGES)
    return [federated_headline(digits, sums), federated_headline(mnist)]


FULL: dict[str, Callable[[], list[Headline]]] = {
    "paillier": paillier,
    "ckks": partial(block, "ckks block", ckks_headline),
    "cryptonets": cryptonets,
    "secret_sharing": partial(block, "sharing block", sharing_headline),
    "oblivious_transfer": partial(block, "transfer block", transfer_headline),
    "garbled_circuit": partial(block, "garbled block", garbled_headline),
    "secureml": secureml,
    "hybrid_inference": hybrid,
    "federated": federated,
}
