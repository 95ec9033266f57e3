"""The images of a match: the arena keeps their labels, and moves the public ones a little, in secret."""

import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion.spatial import random_moves, transform
from spai_lab.checks import check_choice, check_count, check_images, check_labels, describe
from spai_lab.data import default_name, load
from spai_lab.metrics import Rate
from spai_lab.survey.defense_models import EPS
from spai_lab.threat import per_image
from spai_lab.training import reference

DATA = ("digits", "mnist")
ROTATION, SHIFT, DARKEST = 6.0, 0.75, 0.9  # degrees, pixels, a factor of all pixels
DRAWS = 5  # times that a randomized model is shown each image
BATCH = 500


@dataclass(frozen=True, eq=False)
class Scene:
    """What a match is about. It stays with the arena; only `x` travels.

    Args:
        data: "digits" or "mnist": whose weights and training images serve.
        x: the images, `(N, 1, 28, 28)` in [0, 1].
        y: their labels, `(N,)`.
        public: the images as everybody has them; None for the lecturer's own.
        eps: how far an attack may move each pixel.
        seed: of all draws of the match.
    """

    data: str
    x: Tensor
    y: Tensor
    public: Tensor | None
    eps: float
    seed: int

    norm = "linf"

    def generator(self, number: int = 0) -> torch.Generator:
        """A source of draws that begins anew with each call."""
        return torch.Generator().manual_seed(self.seed + number)

    def __str__(self) -> str:
        what = "test images, moved a little in secret" if self.public is not None else "images of the lecturer's own"
        return f"{len(self.x)} {what} ({self.data}), eps = {self.eps:g} in L-inf"


def scene_of(
    data: str | None = None, *, images: int | Path | str = 64, seed: int | None = None, eps: float | None = None
) -> Scene:
    """The images of a match.

    Args:
        data: "digits" or "mnist"; None takes what `load()` takes.
        images: how many of the test images; or a file `.npz` with images `x` and labels `y`, the lecturer's own.
        seed: of the choice, the secret moves and all draws; None draws one that nobody knows. Whoever knows the seed
            knows the images.
        eps: of the attacks, in L-inf; None takes what the book's matrix has for the data.
    Returns:
        the scene.
    Raises:
        ValueError: names the argument.

    >>> print(scene_of("digits", images=8, seed=0))
    8 test images, moved a little in secret (digits), eps = 0.2 in L-inf
    """
    data = default_name() if data is None else data
    check_choice("data", data, DATA)
    if seed is not None:
        check_count("seed", seed, low=0)
    seed = secrets.randbits(40) if seed is None else seed
    eps = EPS["linf"][data] if eps is None else eps
    if isinstance(images, str | Path):
        x, y = own_images(Path(images))
        return Scene(data, x, y, None, eps, seed)
    check_count("images", images)
    public, y = load(data).sample(images, seed=seed)
    return Scene(data, moved(public, torch.Generator().manual_seed(seed)), y, public, eps, seed)


def moved(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Each image turned, shifted and darkened by its own secret little.

    >>> x = load("digits").x_test[:4]
    >>> 0 < float((moved(x, torch.Generator().manual_seed(0)) - x).abs().mean()) < 0.1
    True
    """
    turned = transform(x, *random_moves(x, rotation=ROTATION, shift=SHIFT, generator=generator))
    return turned * per_image(DARKEST + (1 - DARKEST) * torch.rand(len(x), generator=generator), x)


def own_images(path: Path) -> tuple[Tensor, Tensor]:
    """The lecturer's images and labels, from a file that `numpy.savez` wrote.

    Raises:
        ValueError: the file cannot be read, or holds something else.
    """
    accepted = "accepted: an .npz file with images x, (N, 28, 28), 8 bits or in [0, 1], and labels y, (N,)"
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y = file["x"], file["y"]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"images is {str(path)!r}, which cannot be read ({error}); {accepted}") from error
    x = x.astype(np.float32) / (255 if x.dtype == np.uint8 else 1)
    images = torch.from_numpy(x.reshape(len(x), 1, *x.shape[-2:]) if x.ndim in (3, 4) else x)
    labels = torch.from_numpy(y.astype(np.int64))
    if images.ndim != 4 or images.shape[1:] != (1, 28, 28) or not len(images):
        raise ValueError(f"images holds x {describe(x)}; {accepted}")
    check_images(images, "images")
    check_labels(labels, images, "images")
    return images, labels


# --- the judge --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def read(model: nn.Module, x: Tensor, *, draws: int = 1) -> Tensor:
    """What the model says of each image, `(draws, N)`."""
    parts = [[model(part).argmax(1) for part in x.split(BATCH)] for _ in range(draws)]
    return torch.stack([torch.cat(each) for each in parts])


def stands(model: nn.Module, x: Tensor, y: Tensor, *, random: bool) -> Tensor:
    """Which images the model gets right; of a randomized one, in more than half of `DRAWS` answers."""
    draws = DRAWS if random else 1
    return (read(model, x, draws=draws) == y).sum(0) * 2 > draws


def rate(right: Tensor) -> Rate:
    """A mask as a share."""
    return Rate(int(right.sum()), len(right))


def lenet_of(data: str) -> nn.Module:
    """The network that a defense is given, and the stand-in for one whose gradient is hidden."""
    return reference("lenet", data)
