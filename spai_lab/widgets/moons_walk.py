"""The plane of the moons: a model of two inputs with its boundary, and attacks that walk on it step by step."""

import warnings
from dataclasses import dataclass
from functools import lru_cache

import torch
from matplotlib.path import Path
from torch import Tensor, nn

from spai_lab.checks import NORMS, check_batch, check_choice, check_count, describe
from spai_lab.data import load
from spai_lab.style import panels
from spai_lab.threat import norms, recording
from spai_lab.training import reference
from spai_lab.widgets.choices import ATTACKS

POINTS = 20
SHOWN = 200
SIDE = 301  # points of the grid on which the boundary is found
SLACK = 2**0.5 / (SIDE - 1)  # by so much a distance to the boundary's corners may be too long


@dataclass(frozen=True, eq=False)
class Walk:
    """One attack on one point: where it was before each step, where it ended, and what the model said there.

    Args:
        attack, norm: names.
        eps: radius of the ball.
        x: the point, `(2,)`.
        y: its true label.
        path: `(T + 1, 2)`, from the start to the result.
        probabilities: what the model says along the path, `(T + 1, K)`.
        note: what the attack warned of, or nothing.
    """

    attack: str
    norm: str
    eps: float
    x: Tensor
    y: int
    path: Tensor
    probabilities: Tensor
    note: str

    @property
    def steps(self) -> int:
        """How many steps the attack took."""
        return len(self.path) - 1

    @property
    def fooled(self) -> list[bool]:
        """Where along the path the model is wrong, `T + 1` answers."""
        return (self.probabilities.argmax(1) != self.y).tolist()

    @property
    def first(self) -> int | None:
        """The first step at which the model is wrong; None if it never is."""
        return self.fooled.index(True) if any(self.fooled) else None


@torch.no_grad()
def walk(
    model: nn.Module, x: Tensor, y: Tensor, attack: str, norm: str = "linf", eps: float = 0.1, seed: int = 0
) -> Walk:
    """Run an attack on one point of the plane, and keep each place that it visits.

    Args:
        model: `(N, 2, 1, 1)` in [0, 1] to logits `(N, K)`.
        x: the point, `(1, 2, 1, 1)` in [0, 1].
        y: its label, `(1,)`.
        attack: one of `ATTACKS`, with as many steps as stand there.
        norm: "linf" or "l2".
        eps: radius of the ball, in units of the square.
        seed: of the random start.
    Returns:
        the walk; its last point is what the attack returns.
    Raises:
        ValueError: names the argument.
    """
    check_choice("attack", attack, tuple(ATTACKS))
    check_count("seed", seed, low=0)
    check_batch("x", x)
    if x.shape != (1, 2, 1, 1):
        raise ValueError(f"x is {describe(x)}; accepted: one point, of shape (1, 2, 1, 1)")
    path: list[Tensor] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        generator = torch.Generator().manual_seed(seed)
        x_adv = ATTACKS[attack](model, x, y, eps=eps, norm=norm, gradient=recording(path), generator=generator)
    visited = torch.cat([*path, x_adv])
    return Walk(
        *(attack, norm, eps, x.flatten().clone(), int(y), visited.flatten(1)),
        probabilities=model(visited).softmax(1),
        note=str(caught[0].message) if caught else "",
    )


@dataclass(frozen=True, eq=False)
class Plane:
    """The unit square as the reference model divides it, and the test points to choose from.

    Args:
        model: the MLP.
        classes: the names of the two classes.
        x, y: test points `(N, 2, 1, 1)` and their labels `(N,)`; the first `POINTS` can be chosen, and stand in the
            order of their distance from the boundary.
        region: where the model answers the second class.
        boundary: where both are equally likely.
        distance: by norm, how far each point that can be chosen is from the boundary.
    """

    model: nn.Module
    classes: tuple[str, ...]
    x: Tensor
    y: Tensor
    region: Path
    boundary: Path
    distance: dict[str, tuple[float, ...]]


@lru_cache(maxsize=1)
@torch.no_grad()
def plane() -> Plane:
    """Find the boundary of the reference MLP, and `POINTS` test points from the nearest to it to the farthest.

    The points are among those that the model gets right, and equally many lie between one and the next.
    """
    data, model = load("moons"), reference("mlp", "moons").eval()
    ticks = torch.linspace(0, 1, SIDE)
    grid = torch.cartesian_prod(ticks, ticks).flip(1)
    logits = model(grid.reshape(-1, 2, 1, 1))
    margin = (logits[:, 1] - logits[:, 0]).reshape(SIDE, SIDE).numpy()
    _, axes = panels(1, 1, square=(0, 0, 1, 1))
    region = axes["square"].contourf(ticks, ticks, margin, levels=[0, margin.max()]).get_paths()[0]
    boundary = axes["square"].contour(ticks, ticks, margin, levels=[0]).get_paths()[0]

    right = model(data.x_test).argmax(1) == data.y_test
    x, y = data.x_test[right], data.y_test[right]
    vertices = torch.from_numpy(boundary.vertices).float()
    order = torch.cdist(x.flatten(1), vertices).amin(1).argsort()
    chosen = order[torch.linspace(0, len(order) - 1, POINTS).round().long()]
    distance = {
        norm: tuple(float(norms(vertices - point, norm).amin()) for point in x[chosen].flatten(1)) for norm in NORMS
    }
    x, y = torch.cat([x[chosen], x[:SHOWN]]), torch.cat([y[chosen], y[:SHOWN]])
    return Plane(model, data.classes, x, y, region, boundary, distance)


@lru_cache(maxsize=512)
def walk_from(point: int, attack: str, norm: str, eps: float) -> Walk:
    """The walk of an attack from one of the plane's points; recent walks are kept.

    Args:
        point: 0 to `POINTS - 1`, nearest to the boundary first.
        attack: one of `ATTACKS`.
        norm: "linf" or "l2".
        eps: radius of the ball, in units of the square.
    Returns:
        the walk.
    Raises:
        ValueError: names the argument.
    """
    if point not in range(POINTS):
        raise ValueError(f"point is {point!r}; accepted: 0 to {POINTS - 1}")
    square = plane()
    return walk(square.model, square.x[point : point + 1], square.y[point : point + 1], attack, norm, eps)
