"""Single encrypted images, measured: many numbers of one image share a ciphertext, so that its answer comes soon."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from torch import Tensor, nn

from spai_lab.crypto import encrypted_cnn, encrypted_mlp
from spai_lab.crypto.ckks import Ciphertext, public_key, relinearization_key, rotation_keys, secret_key
from spai_lab.crypto.ckks_context import Context
from spai_lab.crypto.ckks_keys import PublicKey, SecretKey
from spai_lab.crypto.ckks_messages import public_key_to_bytes, relinearization_key_to_bytes, rotation_keys_to_bytes
from spai_lab.crypto.cryptonets import plain_logits
from spai_lab.crypto.encrypted_cnn_layout import recommended_cnn_context
from spai_lab.crypto.encrypted_layout import recommended_context
from spai_lab.crypto.square_network import square_logits, train_square_network, weights_of
from spai_lab.data import Dataset
from spai_lab.metrics import accuracy_rate
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.encrypted_networks import agreement, folded, images, parameters, peak_bytes, sent, timed, trained
from spai_lab.survey.measure import counted

MLP = "64-32-10"


@dataclass(frozen=True)
class Roles:
    """A network for both parties.

    Args:
        model: in the clear.
        plain: images to logits, in float64: what encrypted logits are compared with.
        context: the parameters.
        rotations: that the server needs keys for.
        encrypt: the client's: a key and an image to ciphertexts.
        serve: the server's: ciphertexts and two keys to the encrypted logits.
        decrypt: the client's: a key and the answer to logits and their bounds.
    """

    model: nn.Module
    plain: Callable[[Tensor], np.ndarray]
    context: Context
    rotations: tuple[int, ...]
    encrypt: Callable[[PublicKey, Tensor], list[Ciphertext]]
    serve: Callable[..., Ciphertext]
    decrypt: Callable[[SecretKey, Ciphertext], tuple[Tensor, Tensor]]


def mlp_roles(data: Dataset, seed: int) -> Roles:
    """The network 64-32-10 on the raw digits."""
    model = train_square_network(data.x_train, data.y_train, generator=seeded(seed)).eval()
    weights = weights_of(model)
    context = recommended_context(*weights.sizes)
    network = encrypted_mlp.encode_network(context, weights)
    return Roles(
        model,
        lambda x: square_logits(weights, x).numpy(),
        context,
        network.layout.rotations,
        lambda public, image: [encrypted_mlp.encrypt_image(public, network.layout, image)],
        lambda question, *keys: encrypted_mlp.encrypted_logits(network, *question, *keys),
        lambda secret, answer: encrypted_mlp.decrypt_logits(secret, network.layout, answer),
    )


def cnn_roles(data: Dataset, model: nn.Module) -> Roles:
    """A convolution, and one linear layer or two."""
    layers = folded(model, data)
    context = recommended_cnn_context(layers)
    network = encrypted_cnn.encode_layers(context, layers)
    return Roles(
        model,
        partial(plain_logits, layers),
        context,
        network.layout.rotations,
        lambda public, image: encrypted_cnn.encrypt_windows(public, network.layout, image),
        partial(encrypted_cnn.encrypted_logits, network),
        lambda secret, answer: encrypted_cnn.decrypt_logits(secret, network.layout, answer),
    )


@dataclass(frozen=True)
class Single:
    """One image at a time, packed.

    Reference: Brutzkus et al. 2018, arXiv 1812.10659 (LoLa).

    Args:
        data: "digits" or "mnist".
        network: "64-32-10" on 64 pixels; "CryptoNets"; "small", which has a convolution and a linear layer.
        images: how many test images are encrypted.
    """

    data: str
    network: str
    images: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "single", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Accuracy, agreement, errors, seconds of an image, bytes each way, bytes of the keys, levels."""
        data = images(self.data)
        if self.network == MLP:
            roles = mlp_roles(data, seed)
        else:
            roles = cnn_roles(data, trained(self.data, seed, hidden=self.network == "CryptoNets"))
        secret = secret_key(roles.context)
        public, products, turns = (
            public_key(secret),
            relinearization_key(secret),
            rotation_keys(secret, roles.rotations),
        )
        x, y = data.x_test[: self.images], data.y_test[: self.images]
        logits, bounds, seconds = [], [], []
        for image in x:
            question, encrypting = timed(roles.encrypt, public, image)
            answer, computing = timed(roles.serve, question, products, turns)
            (found, bound), decrypting = timed(roles.decrypt, secret, answer)
            logits.append(found.numpy())
            bounds.append(bound.numpy())
            seconds.append([encrypting, computing, decrypting])
        errors = np.abs(np.stack(logits) - roles.plain(x))
        keys = [public_key_to_bytes(public), relinearization_key_to_bytes(products), *rotation_keys_to_bytes(turns)]
        return {
            "accuracy": counted(accuracy_rate(roles.model, data.x_test, data.y_test)),
            **agreement(roles.model, x, y, np.stack(logits)),
            "largest_error": float(errors.max()),
            "error_bound": float(np.max(bounds)),
            "within_bounds": [int((errors < np.stack(bounds)).sum()), errors.size],
            "image_seconds": np.median(seconds, axis=0).round(4).tolist(),
            "bytes_up": sent(question),
            "bytes_back": sent([answer]),
            "key_bytes": sum(map(len, keys)),
            "memory": peak_bytes(roles.serve, question, products, turns),
            **parameters(roles.context, answer),
        }
