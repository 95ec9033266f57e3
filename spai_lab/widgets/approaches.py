"""How an attack of least distortion comes near to a point of the moons' plane: iterate by iterate, query by query."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spai_lab.attacks.evasion.decision import boundary, hop_skip_jump
from spai_lab.attacks.evasion.least_distortion import deepfool
from spai_lab.attacks.evasion.walks import Recorded, walk
from spai_lab.checks import check_choice
from spai_lab.threat import jacobian
from spai_lab.widgets.moons_walk import POINTS, plane

DECISIONS = {"boundary": boundary, "hop_skip_jump": hop_skip_jump}
CAP = 1000  # queries of a decision-based attack


@dataclass(frozen=True, eq=False)
class Approach:
    """One attack on one point of the plane: where it was, and what the model said there.

    Args:
        attack: "deepfool" or one of `DECISIONS`.
        x: the point, `(2,)`.
        y: its true label.
        gap: its L2 distance to the boundary.
        path: `(T + 1, 2)`, from the start to the result.
        probabilities: what the model says along the path, `(T + 1, K)`.
        values, slopes: for DeepFool, by how much the other class leads at each place, `(T + 1,)`, and how that changes
            with the input, `(T + 1, 2)`; together they are the model as DeepFool sees it from there.
        asked: for a decision-based attack, all points that it asked about, `(Q, 2)`.
        misread: which of them the model misread, `(Q,)`.
        spent: how many of them were asked up to each place of the path, `(T + 1,)`.
    """

    attack: str
    x: Tensor
    y: int
    gap: float
    path: Tensor
    probabilities: Tensor
    values: Tensor
    slopes: Tensor
    asked: Tensor
    misread: Tensor
    spent: Tensor

    @property
    def asks(self) -> bool:
        """Whether the attack asks for labels; else it has slopes."""
        return self.attack in DECISIONS

    @property
    def steps(self) -> int:
        """How many steps the attack took."""
        return len(self.path) - 1

    @property
    def fooled(self) -> list[bool]:
        """Where along the path the model is wrong, `T + 1` answers."""
        return (self.probabilities.argmax(1) != self.y).tolist()

    @property
    def distances(self) -> list[float]:
        """How far each place of the path is from the point, in L2."""
        return (self.path - self.x).norm(dim=1).tolist()


@lru_cache(maxsize=POINTS)
def deepfool_from(point: int) -> Approach:
    """DeepFool's iterates from one of the plane's points.

    Args:
        point: 0 to `POINTS - 1`, nearest to the boundary first.
    Returns:
        the approach; its last place is what `deepfool` returns.
    Raises:
        ValueError: names the argument.
    """
    x, y = start(point)
    model, iterates = plane().model, []

    def noting(x: Tensor) -> Tensor:
        if x.requires_grad:  # DeepFool asks for slopes once an iteration, at its iterate
            iterates.append(x.detach().clone())
        return model(x)

    result = deepfool(noting, x, y)
    return approach("deepfool", point, torch.cat([*iterates, result]))


@lru_cache(maxsize=2 * POINTS)
def decision_from(point: int, attack: str) -> Approach:
    """The points that a decision-based attack kept on its way to one of the plane's points, within `CAP` queries.

    Args:
        point: 0 to `POINTS - 1`, nearest to the boundary first.
        attack: one of `DECISIONS`.
    Returns:
        the approach; its last place is what the attack returns.
    Raises:
        ValueError: names the argument.
    """
    check_choice("attack", attack, tuple(DECISIONS))
    x, y = start(point)
    query = Recorded(plane().model, "labels", cap=CAP)
    DECISIONS[attack](query, x, y, generator=torch.Generator().manual_seed(0))
    path = walk(query, x, y)
    asked = torch.cat([points for points, _, _ in query.shown]).flatten(1)
    labels = torch.cat([labels for _, _, labels in query.shown])
    spent = torch.tensor([int((asked == kept).all(1).nonzero()[0]) + 1 for kept in path.flatten(1)])
    return approach(attack, point, path, asked, labels != y, spent)


def start(point: int) -> tuple[Tensor, Tensor]:
    """One of the points that can be chosen, `(1, 2, 1, 1)`, and its label `(1,)`."""
    if point not in range(POINTS):
        raise ValueError(f"point is {point!r}; accepted: 0 to {POINTS - 1}")
    return plane().x[point : point + 1], plane().y[point : point + 1]


def approach(
    attack: str,
    point: int,
    path: Tensor,
    asked: Tensor | None = None,
    misread: Tensor | None = None,
    spent: Tensor | None = None,
) -> Approach:
    """The approach along `path`, `(T + 1, 2, 1, 1)`, with what the model says and how it slopes at each place."""
    x, y = start(point)
    z, slopes = jacobian(plane().model, path, y.expand(len(path)))
    other = 1 - int(y)
    return Approach(
        *(attack, x.flatten(), int(y), plane().distance["l2"][point], path.flatten(1), z.softmax(1)),
        values=z[:, other] - z[:, y[0]],
        slopes=(slopes[:, other] - slopes[:, y[0]]).flatten(1),
        asked=path.new_zeros(0, 2) if asked is None else asked,
        misread=torch.zeros(0, dtype=torch.bool) if misread is None else misread,
        spent=torch.zeros(len(path), dtype=torch.int64) if spent is None else spent,
    )
