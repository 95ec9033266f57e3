"""How a decision-based attack walked: what it asked, and which of those points it kept."""

import math

import torch
from torch import Tensor

from spai_lab.checks import NORMS, check_choice
from spai_lab.query import Query
from spai_lab.threat import norms


class Recorded(Query):
    """A query that reveals labels and remembers: `shown` holds points, images and labels of every call.

    >>> query = Recorded(torch.nn.Flatten(), "labels")
    >>> query(torch.tensor([[[0.2, 0.6]]])), len(query.shown)
    (tensor([1]), 1)
    """

    def restart(self) -> None:
        """Forget what was counted and shown: another attack begins."""
        super().restart()
        self.shown: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, x: Tensor, images: Tensor | None = None) -> Tensor:
        """As `Query`."""
        answer = super().__call__(x, images)
        self.shown.append((x.clone(), torch.arange(len(x)) if images is None else images.clone(), answer))
        return answer


def walk(query: Recorded, x: Tensor, y: Tensor, *, image: int = 0, norm: str = "l2", targeted: bool = False) -> Tensor:
    """The points that an attack kept for one image, in their order: each adversarial, and nearer than all before.

    The first is the start, the last is what the attack returned. Calls that show several points for the same image at
    once, as `hop_skip_jump` does to see which way the boundary faces, are looks, not steps; attack one image at a time
    if its walk is what you want, since a large batch looks around point by point.

    Args:
        query: what the attack was given; reveals "labels".
        x: clean inputs `(N, C, H, W)`, as the attack got them.
        y: labels `(N,)`, as the attack got them.
        image: the number of the image.
        norm: "linf" or "l2", in which the attack measured.
        targeted: as the attack got it.
    Returns:
        `(M, C, H, W)`; M is 0 if no adversarial point was found.
    """
    query.require("labels")
    check_choice("norm", norm, NORMS)
    path, nearest = [], math.inf
    for points, images, labels in query.shown:
        of_image = images == image
        if of_image.sum() != 1 or (labels[of_image] == y[image]).item() != targeted:
            continue
        distance = norms(points[of_image] - x[image], norm).item()
        if distance < nearest:
            path, nearest = [*path, points[of_image]], distance
    return torch.cat(path) if path else x[:0]
