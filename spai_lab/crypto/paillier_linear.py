r"""A linear model on features that it cannot read: the client encrypts x, the server computes $w x + b$ on that.

The server needs the public key and its own weights. Products of weights and ciphertexts are powers, sums are products;
and since the answer is re-randomized, it tells the client its logits and not how they came about.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from spai_lab.checks import describe
from spai_lab.crypto.paillier import rerandomize
from spai_lab.crypto.paillier_keys import Ciphertext, PublicKey, check_whole
from spai_lab.crypto.paillier_numbers import FixedPoint, check_fits, encode, linear_format, product_format
from spai_lab.crypto.paillier_vectors import EncryptedVector, check_vector


@dataclass(frozen=True)
class LinearModel:
    """A linear model in fixed point, as its owner keeps it; `linear_model` makes it.

    Args:
        w: K rows of D whole numbers, of `weight_fmt`.
        b: K whole numbers, at the exponent of the products.
        weight_fmt: agreed with the client; it tells how large weights may be, not how large they are.
        input_fmt: of the features.
    Raises:
        ValueError: names the argument; a weight beyond its format could make a logit wrap around.
    """

    w: tuple[tuple[int, ...], ...]
    b: tuple[int, ...]
    weight_fmt: FixedPoint
    input_fmt: FixedPoint

    def __post_init__(self) -> None:
        largest = product_format(self.input_fmt, self.weight_fmt).largest
        if len({len(row) for row in self.w}) != 1 or not self.w[0]:
            raise ValueError(f"w has rows of {[*map(len, self.w)]}; accepted: weights (K, D)")
        if len(self.b) != len(self.w):
            raise ValueError(f"b has {len(self.b)} biases for {len(self.w)} rows of w; accepted: one for each")
        for k in (k for row in self.w for k in row):
            check_whole("w", k, -self.weight_fmt.largest, self.weight_fmt.largest)
        for k in self.b:
            check_whole("b", k, -largest, largest)

    @property
    def output_fmt(self) -> FixedPoint:
        """Of the logits; the client computes it too."""
        return linear_format(len(self.w[0]), self.input_fmt, self.weight_fmt)


def linear_model(
    w: Sequence[Sequence[float]], b: Sequence[float], *, weight_fmt: FixedPoint, input_fmt: FixedPoint
) -> LinearModel:
    """A linear model, rounded to fixed point.

    Args:
        w: weights `(K, D)`, within `weight_fmt`.
        b: biases `(K,)`, at most the product of both formats' limits.
        weight_fmt, input_fmt: the formats of weights and features.
    Raises:
        ValueError: names the argument.

    >>> linear_model([[0.5, -1.0]], [0.25], weight_fmt=FixedPoint(-2, 8), input_fmt=FixedPoint(-1, 2))
    LinearModel(w=((2, -4),), b=(2,), weight_fmt=FixedPoint(exponent=-2, largest=8), input_fmt=FixedPoint(exponent=-1,
    largest=2))
    """
    if not isinstance(w, list | tuple | np.ndarray | Tensor):
        raise ValueError(f"w is {describe(w)}; accepted: weights (K, D)")
    rows = tuple(encode(row, weight_fmt, "w") for row in w)
    bias = encode(b, product_format(input_fmt, weight_fmt), "b")
    return LinearModel(rows, bias, weight_fmt, input_fmt)


def plain_linear(model: LinearModel, ks: Sequence[int]) -> tuple[int, ...]:
    r"""The model on features in the clear, in exact whole numbers: $z_j = \sum_i w_{ji} k_i + b_j$.

    >>> model = linear_model([[0.5, -1.0]], [0.25], weight_fmt=FixedPoint(-2, 8), input_fmt=FixedPoint(-1, 2))
    >>> plain_linear(model, encode([1.0, 0.5], model.input_fmt))  # 1/2 - 1/2 + 1/4, in eighths
    (2,)
    """
    if len(ks) != len(model.w[0]):
        raise ValueError(f"ks has {len(ks)} numbers; accepted: {len(model.w[0])}, as the model's features")
    return tuple(sum(w * k for w, k in zip(row, ks, strict=True)) + b for row, b in zip(model.w, model.b, strict=True))


def encrypted_linear(public: PublicKey, model: LinearModel, x: EncryptedVector) -> EncryptedVector:
    r"""The model on features that it cannot read: $c_j = g^{b_j} \prod_i c_i^{w_{ji}} \, r_j^n \bmod n^2$.

    Positive and negative weights are multiplied up apart, so that one inverse a class is enough. What $w x + b$ tells
    is a lot: D + 1 questions are enough to solve for the model, encrypted or not. And a client that breaks the format
    asks one: with features $2^{20 i}$, each logit spells all its weights, and the server cannot see it.

    Args:
        public: the client's key.
        model: of D features and K classes.
        x: D encrypted features, of the model's `input_fmt`.
    Returns:
        K encrypted logits of `output_fmt`, re-randomized: they tell the client $w x + b$ and nothing else.
    Raises:
        ValueError: names the argument; so do logits that might wrap around.
    Reference: Paillier 1999, "Public-key cryptosystems based on composite degree residuosity classes", section 8.
    Survey: private AI, cryptography, homomorphic encryption.

    >>> from spai_lab.crypto.paillier_keys import generate_key
    >>> from spai_lab.crypto.paillier_vectors import decrypt_vector, encrypt_vector
    >>> key = generate_key(64, for_learning=True)
    >>> model = linear_model([[0.5, -1.0]], [0.25], weight_fmt=FixedPoint(-2, 8), input_fmt=FixedPoint(-1, 2))
    >>> x = encrypt_vector(key.public, [1.0, 0.5], model.input_fmt)
    >>> decrypt_vector(key, encrypted_linear(key.public, model, x))
    array([0.25])
    """
    check_vector("x", x, public)
    if not isinstance(model, LinearModel):
        raise ValueError(f"model is {describe(model)}; accepted: a LinearModel")
    if (len(x.values), x.fmt) != (len(model.w[0]), model.input_fmt):
        raise ValueError(
            f"x has {len(x.values)} numbers of {x.fmt}; accepted: {len(model.w[0])} of {model.input_fmt}, as the "
            "model's features"
        )
    check_fits("model", model.output_fmt, public)
    return EncryptedVector(
        tuple(
            rerandomize(public, encrypted_dot(public, row, bias, x.values))
            for row, bias in zip(model.w, model.b, strict=True)
        ),
        model.output_fmt,
    )


def encrypted_dot(public: PublicKey, w: Sequence[int], b: int, x: Sequence[Ciphertext]) -> Ciphertext:
    r"""$g^b \prod_i c_i^{w_i} \bmod n^2$, not yet re-randomized: who knows the $c_i$ may still find w in it."""
    modulus = public.n_squared
    up = down = 1
    for k, c in zip(w, x, strict=True):
        power = pow(c.value, abs(k), modulus)
        up, down = (up * power % modulus, down) if k >= 0 else (up, down * power % modulus)
    return Ciphertext((1 + b * public.n) * up * pow(down, -1, modulus) % modulus, public.fingerprint)
