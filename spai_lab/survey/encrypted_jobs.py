"""Inference on encrypted images, measured: a batch with one image a slot, single images, a linear model under Paillier.

The secret key decrypts in the client's part alone; times are those of one thread. Networks are trained on the training
part, limits of activations come from the validation part, and test labels only judge.
"""

from dataclasses import asdict, dataclass

import numpy as np
from torch import Tensor, nn

from spai_lab.crypto.ckks import public_key, relinearization_key, secret_key
from spai_lab.crypto.ckks_messages import public_key_to_bytes, relinearization_key_to_bytes
from spai_lab.crypto.cryptonets import Layer, cryptonet, fold, largest_activations, plain_logits
from spai_lab.crypto.cryptonets_encrypted import decrypt_batch, encrypt_batch, encrypted_logits
from spai_lab.crypto.cryptonets_plan import cryptonets_plan, logit_error
from spai_lab.crypto.cryptonets_tenseal import DEGREE, tenseal_context, tenseal_decrypt, tenseal_encrypt, tenseal_logits
from spai_lab.crypto.paillier_keys import generate_key
from spai_lab.crypto.paillier_linear import encrypted_linear, linear_model, plain_linear
from spai_lab.crypto.paillier_numbers import encode, fixed_point
from spai_lab.crypto.paillier_vectors import decrypt_ks, encrypt_vector, vector_to_bytes
from spai_lab.crypto.polynomials import SQUARE, chebyshev, least_squares, products_in_sequence, with_activation
from spai_lab.data import Dataset
from spai_lab.metrics import accuracy_rate
from spai_lab.models import softmax_regression
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.encrypted_networks import (
    SMALLER,
    agreement,
    folded,
    images,
    learned,
    parameters,
    peak_bytes,
    sent,
    timed,
    trained,
)
from spai_lab.survey.measure import counted
from spai_lab.survey.packed_jobs import Single
from spai_lab.training import fit

INTERVAL = 4.0  # that activations are trained to keep

# --- a batch, one image a slot ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """A network on batches of N / 2 images.

    Reference: Gilad-Bachrach et al. 2016, "CryptoNets"; Brutzkus et al. 2018, arXiv 1812.10659 (LoLa).

    Args:
        data: "digits" or "mnist".
        library: "ours", or "TenSEAL", whose pattern spends a level on each product.
        network: "CryptoNets", or LoLa's "small" one.
        images: how many test images; None takes all.
    """

    data: str
    library: str = "ours"
    network: str = "CryptoNets"
    images: int | None = None

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "batch", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Accuracy, agreement, errors, seconds of a batch, bytes each way, levels."""
        data = images(self.data)
        model = trained(self.data, seed, hidden=self.network == "CryptoNets")
        layers = folded(model, data)
        x, y = data.x_test[: self.images], data.y_test[: self.images]
        run = self.ours if self.library == "ours" else self.tenseal
        logits, told = run(layers, x)
        return {
            "accuracy": counted(accuracy_rate(model, data.x_test, data.y_test)),
            **agreement(model, x, y, logits),
            "largest_error": float(np.abs(logits - plain_logits(layers, x)).max()),
            **told,
        }

    def ours(self, layers: tuple[Layer, ...], x: Tensor) -> tuple[np.ndarray, dict]:
        """By our own scheme."""
        plan = cryptonets_plan()
        secret = secret_key(plan.context)
        public, relinearization = public_key(secret), relinearization_key(secret)
        logits, seconds = [], []
        for part in x.split(plan.context.slots):
            pixels, encrypting = timed(encrypt_batch, public, plan, part)
            back, computing = timed(encrypted_logits, layers, plan, pixels, relinearization)
            answer, decrypting = timed(decrypt_batch, secret, back, len(part))
            logits.append(answer)
            seconds.append([encrypting, computing, decrypting])
        return np.concatenate(logits), {
            "error_bound": float(logit_error(layers, plan).max()),
            "batch": plan.context.slots,
            "batch_seconds": seconds,
            "bytes_up": sent(pixels),
            "bytes_back": sent(back),
            "key_bytes": len(public_key_to_bytes(public)) + len(relinearization_key_to_bytes(relinearization)),
            "memory": peak_bytes(encrypted_logits, layers, plan, pixels, relinearization),
            **parameters(secret.context, back[0]),
        }

    def tenseal(self, layers: tuple[Layer, ...], x: Tensor) -> tuple[np.ndarray, dict]:
        """By the library."""
        context = tenseal_context()
        pixels, encrypting = timed(tenseal_encrypt, context, x)
        up = sum(len(pixel.serialize()) for pixel in pixels)
        back, computing = timed(tenseal_logits, layers, pixels)
        logits, decrypting = timed(tenseal_decrypt, back)
        down = sum(len(one.serialize()) for one in back)
        seconds = [[encrypting, computing, decrypting]]
        return logits, {"batch": DEGREE // 2, "batch_seconds": seconds, "bytes_up": up, "bytes_back": down}


# --- activations ------------------------------------------------------------------------------------------------------

ACTIVATIONS = {
    "ReLU": None,
    "square": SQUARE,
    "least squares, degree 2": least_squares(2, INTERVAL),
    "least squares, degree 4": least_squares(4, INTERVAL),
    "Chebyshev, degree 4": chebyshev(4, INTERVAL),
}


@dataclass(frozen=True)
class Activation:
    """CryptoNets' network with other activations, in the clear: what the square costs, and what it saves.

    Args:
        data: "digits" or "mnist".
        activation: a key of `ACTIVATIONS`.
        trainings: each with a seed of its own.
    """

    data: str
    activation: str
    trainings: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "activation", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Test accuracy, and the products in sequence that the encrypted network would need."""
        data, coefficients = images(self.data), ACTIVATIONS[self.activation]
        models = [self.model(data, seed + training) for training in range(self.trainings)]
        told = {"accuracy": [counted(accuracy_rate(model, data.x_test, data.y_test)) for model in models]}
        if coefficients is not None:
            told["products"] = 3 + 2 * products_in_sequence(len(coefficients) - 1)
            told["largest"] = [[round(a, 2) for a in largest_activations(model, data.x_test)] for model in models]
        return told

    def model(self, data: Dataset, seed: int) -> nn.Module:
        """One trained network."""
        coefficients = ACTIVATIONS[self.activation]
        how = {**SMALLER[self.data], "interval": INTERVAL, "generator": seeded(seed)}
        model = cryptonet(data.shape, **how, coefficients=coefficients or SQUARE)
        return learned(self.data, model if coefficients else with_activation(model, nn.ReLU()), seed)


# --- a linear model under Paillier ------------------------------------------------------------------------------------

BITS = 2048  # of the key
PIXELS, WEIGHTS = fixed_point(8, 1.0), fixed_point(16, 8.0)


@dataclass(frozen=True)
class PaillierLinear:
    """A linear model on pixels that are encrypted one by one.

    Reference: Paillier 1999, "Public-key cryptosystems based on composite degree residuosity classes".

    Args:
        data: "digits" or "mnist".
        images: how many test images are encrypted.
    """

    data: str
    images: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "paillier", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Accuracy, agreement, seconds of each image, bytes each way."""
        data = images(self.data)
        model = softmax_regression(data.shape, data.num_classes, generator=seeded(seed))
        settings = {"epochs": 5 if self.data == "mnist" else 60, "learning_rate": 3e-3, "weight_decay": 0.1}
        fit(model, data.x_train, data.y_train, **settings, generator=seeded(seed), progress=False)
        (layer,) = fold(model.eval(), data.shape)
        served = linear_model(layer.W, layer.b, weight_fmt=WEIGHTS, input_fmt=PIXELS)
        secret = generate_key(BITS)
        x, y = data.x_test[: self.images], data.y_test[: self.images]
        logits, exact, seconds = [], 0, []
        for image in x.flatten(1).tolist():
            question, encrypting = timed(encrypt_vector, secret, image, PIXELS)
            answer, computing = timed(encrypted_linear, secret.public, served, question)
            ks, decrypting = timed(decrypt_ks, secret, answer)
            exact += ks == plain_linear(served, encode(image, PIXELS))
            logits.append([float(k) for k in ks])
            seconds.append([encrypting, computing, decrypting])
        return {
            "accuracy": counted(accuracy_rate(model, data.x_test, data.y_test)),
            **agreement(model, x, y, np.array(logits)),
            "exact": [exact, len(x)],
            "key_bits": BITS,
            "image_seconds": np.median(seconds, axis=0).round(4).tolist(),
            "bytes_up": len(vector_to_bytes(secret.public, question)),
            "bytes_back": len(vector_to_bytes(secret.public, answer)),
        }


def encrypted_jobs(name: str) -> tuple[PaillierLinear | Single | Batch | Activation, ...]:
    """A linear model, single images, batches by both libraries, activations."""
    paillier = PaillierLinear(name, 5 if name == "mnist" else 50)
    batches = (
        Batch(name),
        Batch(name, network="small"),
        Batch(name, "TenSEAL", images=4096 if name == "mnist" else None),
    )
    trainings = 1 if name == "mnist" else 3
    singles = {
        "digits": (Single(name, "64-32-10", 539),),
        "mnist": (Single(name, "small", 1000), Single(name, "CryptoNets", 200)),
    }[name]
    return (paillier, *singles, *batches, *(Activation(name, activation, trainings) for activation in ACTIVATIONS))
