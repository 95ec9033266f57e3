r"""Outlier removal by a sphere and a slab, and Steinhardt's bound on the damage that any poison within them can do.

The bound is a game: the defender picks a linear SVM $\theta$, the attacker answers with the point of the feasible set F
that has the largest hinge loss. Whatever $\theta$ the defender picks, the loss of that answer bounds all attacks.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from torch import Tensor, nn
from tqdm.auto import trange

from spai_lab.attacks.poisoning.poisoned import Poisoned, added, budget
from spai_lab.checks import check_count, check_flag, check_images, check_labels, check_model, check_number, describe
from spai_lab.data import Dataset
from spai_lab.models import features


@dataclass(frozen=True)
class Region:
    r"""Where a class's inputs may lie: $\|x - \mu\|_2 \le r$ and $|\langle x - \mu, v \rangle| \le s$.

    Args:
        center: $\mu$, the class's centroid `(D,)`.
        axis: $v$, the unit vector `(D,)` along the line to the nearest other centroid.
        radius: r, of the sphere.
        width: s, half the thickness of the slab.
    """

    center: Tensor
    axis: Tensor
    radius: Tensor
    width: Tensor

    def holds(self, points: Tensor) -> Tensor:
        """Which of the points, `(N, D)`, lie in the sphere and in the slab, bool `(N,)`."""
        offset = points - self.center
        return (offset.norm(dim=1) <= self.radius) & ((offset @ self.axis).abs() <= self.width)


def regions(points: Tensor, y: Tensor, remove: float) -> dict[int, Region]:
    """The region of each class: sphere and slab each leave out the share `remove` of the class's points, `(N, D)`."""
    centers = {label: points[y == label].mean(0) for label in y.unique().tolist()}
    found = {}
    for label, center in centers.items():
        others = torch.stack([other for name, other in centers.items() if name != label])
        axis = F.normalize(others[(others - center).norm(dim=1).argmin()] - center, dim=0)
        offset = points[y == label] - center
        sizes = torch.stack([offset.norm(dim=1), (offset @ axis).abs()])
        radius, width = sizes.sort(dim=1)[0][:, math.ceil((1 - remove) * len(offset)) - 1]
        found[label] = Region(center, axis, radius, width)
    return found


def sphere_slab(model: nn.Module | None, x: Tensor, y: Tensor, *, remove: float = 0.3) -> Tensor:
    r"""Keep what is near its class's centroid, and near it along the line to the other class.

    $F = \{(x, y): \|x - \mu_y\|_2 \le r_y, \; |\langle x - \mu_y, v_y \rangle| \le s_y\}$, with
    $v_y = (\mu_{y'} - \mu_y) / \|\mu_{y'} - \mu_y\|_2$.

    Args:
        model: its penultimate features are what is measured; None measures pixels.
        x: training inputs, float `(N, C, H, W)` in [0, 1], perhaps poisoned.
        y: their labels `(N,)`, int64, of at least two classes.
        remove: share of each class that the sphere leaves out, and the slab too, from 0 to below 1.
    Returns:
        which inputs to keep, bool `(N,)`.
    Raises:
        ValueError: names the argument.
    Reference: Steinhardt 2017, arXiv 1706.03691, section 2, equations 1 and 2; `remove` from section 4.
    Survey: defenses against poisoning, data sanitization.
    Simplified: centroids and thresholds both come from the data as given, poisons included. With more than two classes,
        which the paper does not treat, the slab of a class runs toward the nearest other centroid.

    >>> x = torch.tensor([0.1, 0.2, 0.3, 1.0, 0.7, 0.8, 0.9, 0.0]).view(-1, 1, 1, 1)
    >>> sphere_slab(None, x, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]))
    tensor([ True,  True,  True, False,  True,  True,  True, False])
    """
    check_two_classes(x, y)
    check_share(remove)
    if model is not None:
        check_model(model, x)
    with torch.no_grad():
        points = x.flatten(1) if model is None else features(model, x)
    keep = torch.zeros(len(y), dtype=torch.bool, device=x.device)
    for label, region in regions(points, y, remove).items():
        keep[y == label] = region.holds(points[y == label])
    return keep


@dataclass(frozen=True, eq=False, repr=False)
class Bound:
    """How much a linear SVM can lose to any poison in the feasible set, and an attack that comes near it.

    Args:
        loss: no attack of this budget brings the SVM's training loss above it; hinge loss of clean and poisoned inputs
            together, divided by the number of clean ones. It bounds the share of clean training inputs that the SVM
            gets wrong too, since each of those costs at least 1.
        reached: the attack below brings the training loss at least to here. It holds for `steps` poisons of equal
            weight, which the attack samples evenly where its budget is smaller.
        attack: the clean training set with the attack's poisons at its end.
        losses: what each step bounds the loss by, `(steps,)`; the least of them is `loss`.
        svm: the model whose worst case is `loss`.
    """

    loss: float
    reached: float
    attack: Poisoned
    losses: Tensor
    svm: nn.Module

    def __repr__(self) -> str:
        return f"Bound: training loss at most {self.loss:.4f}; an attack reaches at least {self.reached:.4f}"


def poisoning_bound(
    data: Dataset,
    *,
    fraction: float,
    remove: float = 0.3,
    radius: float = math.sqrt(0.8),
    step_size: float = 0.1,
    steps: int | None = None,
    progress: bool = True,
) -> Bound:
    r"""Bound the loss of a linear SVM under every poisoning that sphere and slab let through.

    $\max_{D_p \subseteq F} \min_{\|\theta\| \le \rho} \frac{1}{n} L(\theta; D_c \cup D_p) \le
    \min_{\|\theta\| \le \rho} \; \frac{1}{n} L(\theta; D_c) + \epsilon \max_{(x, y) \in F} \ell(\theta; x, y)$.
    The right side is minimized by dual averaging; the maximizers on the way are the attack.

    Args:
        data: two classes, 0 and 1; only the training part is read.
        fraction: poisons as a share of the clean training set, above 0, at most 1.
        remove: share of each class that the sphere leaves out, and the slab too, from 0 to below 1.
        radius: $\rho$, the most that the SVM's weights and bias may have together in L2, above 0.
        step_size: $\eta$ of dual averaging, above 0.
        steps: T, at least the number of poisons; None takes that number, but at least 2,000. More tighten the bound.
        progress: show a bar.
    Returns:
        the bound, and the attack that comes with it.
    Raises:
        ValueError: names the argument.
    Reference: Steinhardt 2017, arXiv 1706.03691, algorithm 1 and propositions 1 and 2; rho and eta from its code.
    Survey: defenses against poisoning, data sanitization.
    Simplified: F has the centroids and thresholds of the clean data (the paper's oracle defense), and holds against an
        attacker who cannot move them. Its points are images in [0, 1], a limit that the paper does not set on MNIST.
        The paper takes T = $\epsilon n$; if T is larger, the attack is sampled evenly from the T maximizers.

    >>> from spai_lab.data import load
    >>> poisoning_bound(load("digits").only(1, 7), fraction=0.1, steps=50, progress=False)
    Bound: training loss at most 0.0320; an attack reaches at least 0.0000
    """
    check_bound(data, remove, radius, step_size, progress)
    count = budget(data, fraction)
    steps = max(count, 2000) if steps is None else steps
    check_count("steps", steps, low=count)
    points, sign = data.x_train.flatten(1).double(), 2.0 * data.y_train.double() - 1
    feasible = regions(points, data.y_train, remove)
    clean = sign[:, None] * with_bias(points)
    epsilon = count / len(clean)
    theta = z = torch.zeros(clean.shape[1], dtype=torch.float64)
    scale, linear, reached, best = 1 / step_size, 0.0, 0.0, theta
    losses, poisons, labels = [], [], []
    for _ in trange(steps, desc="bounding", disable=not progress):
        label, x, worst = worst_point(theta, feasible)
        poison = (2 * label - 1) * with_bias(x[None])[0]
        slack, harm = 1 - clean @ theta, float((1 - poison @ theta).clamp_min(0))
        clean_loss = float(slack.clamp_min(0).mean())
        losses.append(clean_loss + epsilon * worst)
        best = theta if losses[-1] <= min(losses) else best
        g = -clean[slack > 0].sum(0) / len(clean) - epsilon * (harm > 0) * poison
        linear += float(g @ theta)
        reached += clean_loss + epsilon * harm
        z = z - g
        scale = max(scale, float(z.norm()) / radius)
        theta = z / scale
        poisons.append(x)
        labels.append(label)
    regret = linear + radius * float(z.norm())
    places = torch.linspace(0, steps - 1, count).long()
    attack = added(data, torch.stack(poisons)[places].float().view(-1, *data.shape), torch.tensor(labels)[places])
    return Bound(min(losses), max(0.0, (reached - regret) / steps), attack, torch.tensor(losses), as_model(best))


def worst_point(theta: Tensor, feasible: dict[int, Region]) -> tuple[int, Tensor, float]:
    """The label and the point, `(D,)`, of the feasible set with the largest hinge loss, and a bound on that loss."""
    w, b = theta[:-1], float(theta[-1])
    found = []
    for label, region in feasible.items():
        sign = 2 * label - 1
        x, value = farthest(-sign * w, region)
        found.append((max(0.0, 1 - sign * b + value), label, x))
    worst, label, x = max(found, key=lambda item: item[0])
    return label, x, worst


def farthest(c: Tensor, region: Region) -> tuple[Tensor, float]:
    r"""The image of a region that goes farthest along `c`, and an upper bound on how far any does.

    $\max_x \langle c, x \rangle$ for x in sphere, slab and $[0, 1]^D$. A multiplier $\nu$ bends the direction to
    $d = c - \nu v$, so that the walk along d ends on the slab's face; then weak duality gives the bound, which holds
    whatever the accuracy of $\nu$. Where the end jumps over the face, x lies on it between the two ends.

    Args:
        c: direction `(D,)`.
        region: where x may lie; its centroid is in [0, 1].
    Returns:
        x, `(D,)`, and the bound; the two agree but for rounding.
    """

    mu, v, r, s = region.center, region.axis, float(region.radius), float(region.width)
    side = math.copysign(1.0, float((walked(c, region)[0] - mu) @ v))

    def bent(nu: float) -> tuple[Tensor, float]:
        """The end of the walk along d, and its rate."""
        return walked(c - nu * side * v, region)

    def beyond(x: Tensor) -> float:
        """How far a point lies beyond the slab's face."""
        return side * float((x - mu) @ v) - s

    def dual(x: Tensor, rate: float, nu: float) -> float:
        """The Lagrangian, with the multipliers nu of the slab and rate / 2 of the sphere."""
        return float(c @ x) - nu * beyond(x) - rate / 2 * (float((x - mu) @ (x - mu)) - r**2)

    if beyond(bent(0.0)[0]) <= 0:
        x, rate = bent(0.0)
        return x, dual(x, rate, 0.0)
    most = float(c.norm())
    while beyond(bent(most)[0]) > 0:
        most *= 2
    nu = brentq(lambda nu: beyond(bent(nu)[0]), 0.0, most, xtol=1e-9 * most)
    outer, inner = bent(nu - 4e-9 * most)[0], bent(nu + 4e-9 * most)[0]
    share = beyond(outer) / max(beyond(outer) - beyond(inner), 1e-300)
    return outer + share * (inner - outer), dual(*bent(nu), nu)


def walked(d: Tensor, region: Region) -> tuple[Tensor, float]:
    r"""Where the walk $\mu + t d$, each pixel stopping at 0 or 1, leaves the sphere; and $1 / t$, 0 if it never does.

    The squared length after t is $\sum_i \min(t |d_i|, a_i)^2$, with $a_i$ the way of pixel i to its end.
    """
    mu, speed = region.center, d.abs()
    room = torch.where(d > 0, 1 - mu, mu) * (speed > 0)
    stops, order = torch.where(speed > 0, room / speed.clamp_min(1e-300), 0.0).sort()
    stopped, moving = room[order].square().cumsum(0), speed[order].square().flip(0).cumsum(0).flip(0)
    before, after = F.pad(stopped, (1, 0)), F.pad(moving, (0, 1))
    lengths = stopped + stops.square() * after[1:]
    first = int(torch.searchsorted(lengths, region.radius.square()))
    if first == len(d):
        return torch.where(d > 0, 1.0, torch.where(d < 0, 0.0, mu)), 0.0
    t = float(((region.radius.square() - before[first]) / after[first]).sqrt())
    return (mu + t * d).clamp(0, 1), 1 / t


def linear_svm(x: Tensor, y: Tensor, *, radius: float = math.sqrt(0.8)) -> nn.Module:
    r"""The linear SVM of least hinge loss with $\|\theta\|_2 \le \rho$, weights and bias together.

    $\min_{\|\theta\| \le \rho} \sum_i \max(0, 1 - y_i \theta^\top (x_i, 1))$, the labels read as -1 and 1.
    scikit-learn penalizes the norm instead; the penalty is found by bisection.

    Args:
        x: training inputs, float `(N, C, H, W)` in [0, 1].
        y: labels 0 and 1, int64 `(N,)`.
        radius: $\rho$, above 0.
    Returns:
        `(N, C, H, W)` to logits `(N, 2)`, whose difference is $\theta^\top (x, 1)$.
    Raises:
        ValueError: names the argument.
    Reference: Steinhardt 2017, arXiv 1706.03691, section 2.

    >>> x, y = torch.tensor([0.0, 0.1, 0.9, 1.0]).view(-1, 1, 1, 1), torch.tensor([0, 0, 1, 1])
    >>> linear_svm(x, y, radius=5.0)(x).argmax(1)
    tensor([0, 0, 1, 1])
    """
    from sklearn.svm import LinearSVC

    check_two_classes(x, y)
    check_number("radius", radius, low=0, exclusive=True)
    points = x.flatten(1).double()

    def fitted(exponent: float) -> Tensor:
        svm = LinearSVC(C=10**exponent / len(y), loss="hinge", tol=1e-5, max_iter=1_000_000, random_state=0)
        svm.fit(points.numpy(), y.numpy())
        return torch.cat([torch.from_numpy(svm.coef_[0]), torch.from_numpy(svm.intercept_)])

    low = high = -4.0
    while high < 4 and fitted(high).norm() <= radius:
        low, high = high, high + 1
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if fitted(middle).norm() <= radius else (low, middle)
    return as_model(fitted(low))


def hinge_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    r"""The hinge loss of each input, $\max(0, 1 - y (z_1 - z_0))$, the labels read as -1 and 1; `(N,)`.

    >>> hinge_loss(nn.Flatten(), torch.tensor([[0.0, 0.5], [0.0, 0.5]]), torch.tensor([0, 1]))
    tensor([1.5000, 0.5000])
    """
    logits = model(x).detach()
    return (1 - (2 * y - 1) * (logits[:, 1] - logits[:, 0])).clamp_min(0)


def with_bias(points: Tensor) -> Tensor:
    """The points, each with a 1 behind it, which the bias multiplies."""
    return F.pad(points, (0, 1), value=1.0)


def as_model(theta: Tensor) -> nn.Module:
    """Weights and bias of a linear SVM, `(D + 1,)`, as a model with two logits."""
    layer = nn.Linear(len(theta) - 1, 2)
    halves = torch.stack([-theta, theta]).float() / 2
    layer.load_state_dict({"weight": halves[:, :-1], "bias": halves[:, -1]})
    return nn.Sequential(nn.Flatten(), layer)


def check_two_classes(x: Tensor, y: Tensor) -> None:
    """Raise `ValueError` unless these are labeled inputs of at least two classes."""
    check_images(x)
    check_labels(y, x)
    if len(y.unique()) < 2:
        raise ValueError(f"y is {describe(y)} of {len(y.unique())} classes; accepted: at least two")


def check_share(remove: float) -> None:
    """Raise `ValueError` unless `remove` leaves something."""
    check_number("remove", remove, low=0, high=1)
    if remove == 1:
        raise ValueError("remove is 1; accepted: below 1, so that something is kept")


def check_bound(data: Dataset, remove: float, radius: float, step_size: float, progress: bool) -> None:
    """Raise `ValueError` unless each setting of `poisoning_bound` is in its range."""
    if not isinstance(data, Dataset) or data.num_classes != 2 or len(data.y_train.unique()) < 2:
        raise ValueError(f"data is {describe(data)}; accepted: a Dataset of two classes, such as data.only(1, 7)")
    check_share(remove)
    check_number("radius", radius, low=0, exclusive=True)
    check_number("step_size", step_size, low=0, exclusive=True)
    check_flag("progress", progress)
