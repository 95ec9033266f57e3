"""One encrypted image of the raw digits through the 64-32-10 network; timed is what the server computes on it.

The same trained network, N = 8,192 and 128-bit security for all, one thread each. TenSEAL as in its tutorials: an
encrypted vector, `mm` with plain matrices, biases added as ciphertexts, since adding plain lists goes wrong silently
(its issues #462 and #240). Ours stands beside what it would be without each of its levers, from the naive one up:
"diagonals", each rotation by itself, weights encoded for each image, a level to spare; then one lever more each time.
A run is one image, the next one each time. "success" is whether its class is that of the plain network, "distortion"
the largest error of its logits.

`python -m benchmarks.contests.encrypted_image` prints the table, then the errors on all images and the bytes each way.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from itertools import cycle

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

from benchmarks.contest import HEAD, Contest, Run, measure
from spai_lab.crypto import encrypted_matrix
from spai_lab.crypto.ckks import (
    Ciphertext,
    add_plain,
    assume_limit,
    ckks_context,
    decode,
    decrypt,
    encode,
    multiply,
    multiply_plain,
    public_key,
    relinearization_key,
    relinearize,
    rescale,
    rotate_sum,
    rotation_keys,
    secret_key,
)
from spai_lab.crypto.ckks_keys import RelinearizationKey, RotationKeys, SecretKey
from spai_lab.crypto.ckks_messages import ciphertext_to_bytes
from spai_lab.crypto.encrypted_layout import layout_of, recommended_context
from spai_lab.crypto.encrypted_mlp import EncodedNetwork, encode_network, encrypt_image, encrypted_logits, padded
from spai_lab.crypto.square_network import square_logits, train_square_network, weights_of, worst_limits
from spai_lab.data import load

SIZES = (64, 32, 10)
LONGER = (30,) * 5  # a level more than needed
TENSEAL = {"poly_modulus_degree": 8192, "coeff_mod_bit_sizes": [50, 30, 30, 30, 50], "n_threads": 1}


@dataclass(frozen=True)
class Answer:
    """What a server computed for one image: `logits` decrypts, `traffic` has the bytes to it and back."""

    number: int
    logits: Callable[[], Tensor]
    traffic: Callable[[], tuple[int, int]]


@cache
def trained() -> nn.Module:
    data = load("digits", raw=True)
    return train_square_network(data.x_train, data.y_train, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class EncryptedImage(Contest):
    """Runs return an `Answer`."""

    def victim(self) -> tuple[nn.Module, Tensor, Tensor]:
        """The network, and test images of 8x8 pixels."""
        data = load("digits", raw=True)
        return trained(), data.x_test[: self.images], data.y_test[: self.images]

    def judge(self, answer: Answer) -> tuple[float, float]:
        """Whether the class is that of the plain network, and the largest error of its logits."""
        model, x, _ = self.victim()
        plain = square_logits(weights_of(model), x)[answer.number]
        logits = answer.logits()
        return float(logits.argmax() == plain.argmax()), (logits - plain).abs().max().item()


def one_at_a_time(images: Iterable, evaluate: Callable[[int, object], Answer]) -> Run:
    """The encrypted images in turn, with one thread."""
    threads, turn = ThreadpoolController(), cycle(enumerate(images))

    def run() -> Answer:
        number, image = next(turn)
        with threads.limit(limits=1):
            return evaluate(number, image)

    return run


# --- our CKKS ---------------------------------------------------------------------------------------------------------


def answer(secret: SecretKey, number: int, x: Ciphertext, z: Ciphertext) -> Answer:
    logits = lambda: torch.from_numpy(decode(decrypt(secret, z)).real[: SIZES[2]].copy())  # noqa: E731
    return Answer(number, logits, lambda: (len(ciphertext_to_bytes(x)), len(ciphertext_to_bytes(z))))


def encrypted(secret: SecretKey, x: Tensor) -> list[Ciphertext]:
    public, layout = public_key(secret), layout_of(secret.context, *SIZES)
    return [encrypt_image(public, layout, image) for image in x]


def ours(model: nn.Module, x: Tensor, y: Tensor, *, early: bool = False) -> Run:
    """With `early`, the first layer is rescaled before its rotations: faster, but their noise counts more."""
    secret = secret_key(recommended_context(*SIZES))
    network = encode_network(secret.context, weights_of(model))
    keys = relinearization_key(secret), rotation_keys(secret, network.layout.rotations)
    evaluate = rescaled_early if early else encrypted_logits
    return one_at_a_time(
        encrypted(secret, x), lambda i, image: answer(secret, i, image, evaluate(network, image, *keys))
    )


def rescaled_early(
    network: EncodedNetwork, x: Ciphertext, relinearization: RelinearizationKey, rotations: RotationKeys
) -> Ciphertext:
    h = rescale(multiply_plain(x, network.W1))
    for steps in network.layout.neighbors:
        h = rotate_sum(h, steps, rotations)
    h = add_plain(h, network.b1)
    h = assume_limit(h, np.fmin(h.limit, network.limits))
    z = multiply_plain(rescale(relinearize(multiply(h, h), relinearization)), network.W2)
    for steps in network.layout.rows:
        z = rotate_sum(z, steps, rotations)
    return add_plain(z, network.b2)


def by_diagonals(
    model: nn.Module, x: Tensor, y: Tensor, *, baby: tuple[int, int], hoisted: bool, cached: bool, spare: bool
) -> Run:
    """Both matrices by diagonals, 32 of the first and 16 of the second; the input is packed alike in all."""
    context = ckks_context(8192, LONGER) if spare else recommended_context(*SIZES)
    secret, weights = secret_key(context), weights_of(model)
    repeated = lambda values: np.tile(values, context.slots // len(values))  # noqa: E731
    limits, b1 = repeated(worst_limits(weights).numpy()), repeated(weights.b1.numpy())
    W2, b2 = padded(weights.W2.numpy(), 16, 32), repeated(padded(weights.b2.numpy(), 16))
    top = context.levels
    q1, q2 = context.primes[top], context.primes[top - 1]
    square_scale = context.scale**2 / q2
    diagonals = partial(encrypted_matrix.encode_diagonals, context)

    def encoded() -> tuple:
        return (
            diagonals(weights.W1.numpy(), scale=float(q1), level=top, baby=baby[0]),
            encode(context, b1, level=top - 1, limit=np.abs(b1)),
            diagonals(W2, scale=2.0**20, level=top - 2, baby=baby[1]),
            encode(context, b2, scale=square_scale * 2.0**20, level=top - 2, limit=np.abs(b2)),
        )

    once = encoded()
    steps = sorted({*once[0].rotations, *once[2].rotations})
    relinearization, rotations = relinearization_key(secret), rotation_keys(secret, steps)

    def evaluate(number: int, image: Ciphertext) -> Answer:
        W1, c1, V, c2 = once if cached else encoded()
        h = rescale(encrypted_matrix.diagonal_product(image, W1, rotations, hoisted=hoisted))
        h = assume_limit(add_plain(h, c1), limits)
        square = rescale(relinearize(multiply(h, h), relinearization))
        z = add_plain(encrypted_matrix.diagonal_product(square, V, rotations, hoisted=hoisted), c2)
        return answer(secret, number, image, rescale(z) if spare else z)

    return one_at_a_time(encrypted(secret, x), evaluate)


# --- TenSEAL ----------------------------------------------------------------------------------------------------------


def by_tenseal(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, **TENSEAL)
    context.global_scale = 2**30
    context.generate_galois_keys()
    context.generate_relin_keys()
    weights = weights_of(model)
    W1, W2 = weights.W1.T.tolist(), weights.W2.T.tolist()
    b1, b2 = (tenseal.ckks_vector(context, b.tolist()) for b in (weights.b1, weights.b2))
    images = [tenseal.ckks_vector(context, image.flatten().tolist()) for image in x]

    def evaluate(number: int, image: "tenseal.CKKSVector") -> Answer:
        h = image.mm(W1) + b1
        h.square_()
        z = h.mm(W2) + b2
        logits = lambda: torch.tensor(z.decrypt(), dtype=torch.float64)  # noqa: E731
        return Answer(number, logits, lambda: (len(image.serialize()), len(z.serialize())))

    return one_at_a_time(images, evaluate)


# --- the levers, one more each time -----------------------------------------------------------------------------------

NAIVE = {"baby": (32, 16), "hoisted": False, "cached": False, "spare": True}
STEPS = {**NAIVE, "baby": (8, 4)}
HOISTED = {**STEPS, "hoisted": True}
CACHED = {**HOISTED, "cached": True}
FEWER = {**CACHED, "spare": False}
HAS_TENSEAL = find_spec("tenseal") is not None
COMPETITORS = {
    "ours": ours,
    **({"TenSEAL": by_tenseal} if HAS_TENSEAL else {}),
    "diagonals": partial(by_diagonals, **NAIVE),
    "baby + giant": partial(by_diagonals, **STEPS),
    "hoisted": partial(by_diagonals, **HOISTED),
    "cached": partial(by_diagonals, **CACHED),
    "fewer levels": partial(by_diagonals, **FEWER),
    "early rescale": partial(ours, early=True),
}
NAME = "Encrypted image, 64-32-10, one at a time"

CONTESTS = (
    EncryptedImage(NAME if HAS_TENSEAL else f"{NAME} (tenseal is not installed)", COMPETITORS, images=8, rounds=16),
)


def main() -> None:
    """The table, then errors and bytes."""
    contest = CONTESTS[0]
    print(f"{contest.name}, {contest.images} images, {contest.rounds} rounds\n{HEAD}", flush=True)
    for row in measure(contest):
        print(row, flush=True)
    model, x, y = contest.victim()
    print(f"\n{'':<14}{'classes':>9}{'largest error':>15}{'bytes there':>14}{'and back':>12}")
    for name, prepare in contest.competitors.items():
        run = prepare(model, x, y)
        answers = [run() for _ in x]
        right, errors = zip(*(contest.judge(answer) for answer in answers), strict=True)
        there, back = answers[0].traffic()
        print(f"{name:<14}{sum(right):>6.0f}/{len(x)}{max(errors):>15.1e}{there:>14,}{back:>12,}", flush=True)


if __name__ == "__main__":
    main()
