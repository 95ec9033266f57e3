"""Matrix products modulo 2^64 on uint64: ours, by torch's int64 product, against NumPy's loops, and limbs through BLAS.

"success" is the share of entries, of the first two rows, that Python's integers have too. Nothing here is an attack:
the shapes are those of a private network, 128 images of 784 pixels by 128 units, one image, and a square.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contest import Contest, Run
from spai_lab.crypto.ring_matmul import limb_matmul, ring_matmul


@dataclass(frozen=True)
class ProductContest(Contest):
    """Runs return the product, int64 with the bits of uint64.

    Args:
        inner, outer: the sides of the second factor; `images` is the other side of the first.
    """

    inner: int = 784
    outer: int = 128

    def victim(self) -> tuple[nn.Module, Tensor, Tensor]:
        """A model that nobody uses, and the factors."""
        generator = torch.Generator().manual_seed(0)
        draw = lambda *shape: torch.randint(-(2**63), 2**63 - 1, shape, generator=generator)  # noqa: E731
        return nn.Identity(), draw(self.images, self.inner), draw(self.inner, self.outer)

    def judge(self, product: Tensor) -> tuple[float, None]:
        """The share of entries that are right."""
        _, x, y = self.victim()
        exact = unsigned(x[:2]).astype(object) @ unsigned(y).astype(object) % 2**64
        return float((unsigned(product[:2]) == exact).mean()), None


def unsigned(x: Tensor) -> np.ndarray:
    return x.numpy().view(np.uint64)


def signed(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x.view(np.int64))


def ours(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    left, right = unsigned(x), unsigned(y)
    return lambda: signed(ring_matmul(left, right))


def by_numpy(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    left, right = unsigned(x), unsigned(y)
    return lambda: signed(left @ right)


def by_limbs(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    left, right = unsigned(x), unsigned(y)
    return lambda: signed(limb_matmul(left, right))


COMPETITORS = {"ours": ours, "NumPy uint64": by_numpy, "BLAS limbs": by_limbs}
CONTESTS = (
    ProductContest("Ring product, a batch of MNIST", COMPETITORS, images=128, rounds=30),
    ProductContest("Ring product, one image", COMPETITORS, images=1, rounds=200),
    ProductContest("Ring product, 512 x 512 squared", COMPETITORS, images=512, inner=512, outer=512, rounds=8),
)
