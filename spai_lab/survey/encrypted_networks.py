"""What rows of encrypted inference share: trained networks, clocks, bytes, agreement."""

import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from spai_lab.crypto.ckks_ciphertext import Ciphertext
from spai_lab.crypto.ckks_context import Context
from spai_lab.crypto.ckks_messages import ciphertext_to_bytes
from spai_lab.crypto.cryptonets import Layer, cryptonet, fit_cryptonet, fold, largest_activations
from spai_lab.crypto.inference_terms import rounded_up
from spai_lab.data import Dataset, load
from spai_lab.survey.defense_models import seeded

MARGIN = 1.25  # over the largest activation of validation data
EPOCHS = {"digits": 25, "mnist": 12}
SMALLER = {"digits": {"maps": 8, "units": 16}, "mnist": {}}  # for images of 8 x 8 pixels


def images(name: str) -> Dataset:
    """The digits as they are, 8 x 8, or MNIST."""
    return load(name, raw=True) if name == "digits" else load(name)


@lru_cache(maxsize=3)
def trained(name: str, seed: int, *, hidden: bool = True) -> nn.Module:
    """CryptoNets' network, trained; or LoLa's small one, without the hidden linear layer."""
    settings = SMALLER[name] if hidden else SMALLER[name] | {"units": None}
    return learned(name, cryptonet(images(name).shape, **settings, generator=seeded(seed)), seed)


def learned(name: str, model: nn.Module, seed: int) -> nn.Module:
    """A network after its training."""
    fit_cryptonet(model, images(name), epochs=EPOCHS[name], generator=seeded(seed), progress=False)
    return model.eval()


def folded(model: nn.Module, data: Dataset) -> tuple[Layer, ...]:
    """Its weights, with the limits that validation data suggests, of two digits, since they are public."""
    limits = tuple(rounded_up(MARGIN * a, 2) for a in largest_activations(model, data.x_val))
    return fold(model, data.shape, limits=limits)


def timed(function: Callable, *arguments: object) -> tuple[object, float]:
    """What a function gives, and its seconds."""
    start = time.perf_counter()
    result = function(*arguments)
    return result, round(time.perf_counter() - start, 4)


def peak_bytes(function: Callable, *arguments: object) -> int:
    """The most that Python and NumPy hold at a time while a function runs, beside what they held before."""
    tracemalloc.start()
    try:
        function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def sent(texts: Sequence[Ciphertext]) -> int:
    """The bytes of ciphertexts as they travel, without frames and seals."""
    return sum(len(ciphertext_to_bytes(text)) for text in texts)


def agreement(model: nn.Module, x: Tensor, y: Tensor, logits: np.ndarray) -> dict:
    """How many encrypted answers are right, and how many are the class that the trained network gives."""
    with torch.no_grad():
        plain = torch.cat([model(part).argmax(1) for part in x.split(1000)])
    found = torch.from_numpy(logits.argmax(1))
    return {
        "encrypted": [int((found == y).sum()), len(y)],
        "agree": [int((found == plain).sum()), len(y)],
    }


def parameters(context: Context, answer: Ciphertext) -> dict:
    """The ring, and how many levels were used."""
    return {
        "degree": context.degree,
        "modulus_bits": context.total_bits,
        "levels": context.levels,
        "levels_used": context.levels - answer.level,
    }
