"""Data that needs no file and no network: what scikit-learn brings, and what a formula makes.

scikit-learn takes a second to import, so it is imported where it is used.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from spai_lab.data.dataset import Dataset, Tabular, stratified_split

TEST_SHARE = 0.3
VALIDATION_SHARE = 0.1
MOON_POINTS = 1_000
MOON_MARGIN = 0.15
MOON_NOISE = 0.035

DIGITS_CREDIT = "Optical recognition of handwritten digits, by E. Alpaydin and C. Kaynak: UCI repository, scikit-learn"
CANCER_CREDIT = "Breast cancer Wisconsin (diagnostic), by W. Wolberg et al.: UCI repository, scikit-learn"


def digits(*, raw: bool = False) -> Dataset:
    """scikit-learn's 1,797 handwritten digits, enlarged to MNIST's shape.

    8x8 pixels become 20x20 by bicubic interpolation, clipped to [0, 1] where it overshoots, centered in 28x28.

    Args:
        raw: leave the images at 8x8; the split is the same.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images).float().div(16).reshape(-1, 1, 8, 8)
    return Dataset.from_split(
        "digits",
        x if raw else _enlarge(x),
        torch.from_numpy(labels).long(),
        **_sizes(len(labels)),
        classes=tuple("0123456789"),
        credit=DIGITS_CREDIT,
    )


def _enlarge(x: Tensor) -> Tensor:
    enlarged = F.interpolate(x, size=(20, 20), mode="bicubic", align_corners=False)
    return F.pad(enlarged.clamp(0, 1), (4, 4, 4, 4))


def moons() -> Dataset:
    """Two interleaved half circles in the unit square, as `(N, 2, 1, 1)`: a data set whose every point can be drawn.

    The curves stay `MOON_MARGIN` away from the square's border; Gaussian noise is then added to every coordinate.
    """
    angle = np.linspace(0, math.pi, MOON_POINTS)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    center, extent = np.array([0.5, 0.25]), np.array([3.0, 1.5])
    curves = 0.5 + (1 - 2 * MOON_MARGIN) * (np.concatenate([upper, lower]) - center) / extent
    points = curves + MOON_NOISE * np.random.RandomState(0).standard_normal(curves.shape)
    return Dataset.from_split(
        "moons",
        torch.from_numpy(points).float().reshape(-1, 2, 1, 1),
        torch.arange(2).repeat_interleave(MOON_POINTS),
        **_sizes(len(points)),
        classes=("upper moon", "lower moon"),
        credit="Made by a formula",
    )


def breast_cancer() -> Tabular:
    """scikit-learn's 569 tumors with 30 measurements each; every column scaled by the training part's range."""
    from sklearn.datasets import load_breast_cancer

    source = load_breast_cancer()
    parts = stratified_split(source.target, **_sizes(len(source.target)))
    train = source.data[parts[0]]
    low, high = train.min(axis=0), train.max(axis=0)
    x = torch.from_numpy((source.data - low) / (high - low)).float()
    y = torch.from_numpy(source.target).long()
    return Tabular(
        "tabular",
        tuple(str(name) for name in source.feature_names),
        *(tensor[part] for part in parts for tensor in (x, y)),
        tuple(str(name) for name in source.target_names),
        CANCER_CREDIT,
    )


def _sizes(count: int) -> dict[str, int]:
    return {"validation": round(VALIDATION_SHARE * count), "test": round(TEST_SHARE * count)}
