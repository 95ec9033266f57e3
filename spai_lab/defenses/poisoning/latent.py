r"""Data sanitization by what the last layer sees: poison forms a cluster in its class, or spans a direction."""

import math
from dataclasses import dataclass

import torch
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from torch import Tensor, nn

from spai_lab.checks import (
    check_count,
    check_flag,
    check_generator,
    check_images,
    check_labels,
    check_model,
    check_number,
)
from spai_lab.models import features
from spai_lab.threat import fresh_generator

OVERSHOOT = 1.5


@dataclass(frozen=True, eq=False)
class Clusters:
    """The two clusters of the inputs that have one label.

    Args:
        label: the class.
        places: where its n inputs stand in the training set, int64 `(n,)`.
        points: their reduced activations, `(n, d)`, float64, the strongest direction first.
        in_smaller: which of them are in the smaller cluster, bool `(n,)`.
        silhouette: how well the clusters are apart, from -1 to 1; 0 where all points coincide.
    """

    label: int
    places: Tensor
    points: Tensor
    in_smaller: Tensor
    silhouette: float

    @property
    def sizes(self) -> tuple[int, int]:
        """How many inputs are in the smaller and in the larger cluster."""
        smaller = int(self.in_smaller.sum())
        return smaller, len(self.places) - smaller

    @property
    def relative_size(self) -> float:
        """The smaller cluster's share of the class, at most 1/2."""
        return self.sizes[0] / len(self.places)


def activation_clustering(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    dimensions: int = 10,
    whiten: bool = True,
    silhouette: float = 0.15,
    relative_size: float = 0.35,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Activation clustering: split each class in two, and drop the smaller part if it is small and stands apart.

    An input goes if it is in the smaller cluster S of its class D, $|S| / |D| < r$ and $\bar s(S, D \setminus S) > s$,
    with $\bar s$ the mean silhouette.

    Args:
        model: trained on `x` and `y`; `(N, C, H, W)` in [0, 1] to logits `(N, K)`, ending in a linear layer.
        x: training inputs, float `(N, C, H, W)` in [0, 1], perhaps poisoned.
        y: their labels `(N,)`, int64.
        dimensions, whiten: how the activations are reduced, as in `activation_clusters`.
        silhouette: s, from -1 to 1.
        relative_size: r, above 0, at most 1/2.
        generator: starts 2-means; None draws a fresh one.
    Returns:
        which inputs to keep, bool `(N,)`.
    Raises:
        ValueError: names the argument; a class has fewer than three inputs.
    Reference: Chen 2018, arXiv 1811.03728, algorithm 1, with the tests by relative size and by silhouette; 10
        dimensions and s from 0.10 to 0.15 as in the paper.
    Survey: defenses against poisoning, data sanitization.
    Simplified: both tests must agree, where the paper offers them as alternatives; s is the upper end of the paper's
        range; the paper states no r, and 0.35 is what libraries take. Its third test, to train without a cluster and to
        see how it is then classified, is left out. See `activation_clusters` for the independent components.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    >>> x = torch.tensor([0.1, 0.1, 0.2, 0.2, 0.9, 0.5, 0.6, 0.7, 0.8]).view(-1, 1, 1, 1)
    >>> y = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1])
    >>> activation_clustering(model, x, y, generator=torch.Generator().manual_seed(0)).int()
    tensor([1, 1, 1, 1, 0, 1, 1, 1, 1], dtype=torch.int32)
    """
    check_number("silhouette", silhouette, low=-1, high=1)
    check_number("relative_size", relative_size, low=0, high=0.5, exclusive=True)
    keep = torch.ones(len(y), dtype=torch.bool, device=y.device)
    for clusters in activation_clusters(model, x, y, dimensions=dimensions, whiten=whiten, generator=generator):
        if clusters.relative_size < relative_size and clusters.silhouette > silhouette:
            keep[clusters.places[clusters.in_smaller]] = False
    return keep


def activation_clusters(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    dimensions: int = 10,
    whiten: bool = True,
    generator: torch.Generator | None = None,
) -> list[Clusters]:
    """The two clusters that the activations of each class fall into.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, ending in a linear layer.
        x: training inputs, float `(N, C, H, W)` in [0, 1].
        y: their labels `(N,)`, int64.
        dimensions: to which the activations are reduced, at least 1; fewer where they span fewer.
        whiten: give each of them the same variance, as the paper's independent components have.
        generator: starts 2-means; None draws a fresh one.
    Returns:
        one item for each class that occurs, in order.
    Raises:
        ValueError: names the argument; a class has fewer than three inputs.
    Reference: Chen 2018, arXiv 1811.03728, algorithm 1.
    Simplified: independent components are the whitened principal ones, rotated, and a rotation changes no distance,
        hence neither the clusters nor the silhouette: the rotation is left out. `whiten=False` takes principal
        components as they are, which libraries do too.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    >>> x = torch.tensor([0.1, 0.1, 0.2, 0.9]).view(-1, 1, 1, 1)
    >>> activation_clusters(model, x, torch.tensor([0, 0, 0, 0]))[0].sizes
    (1, 3)
    """
    check_count("dimensions", dimensions)
    check_flag("whiten", whiten)
    check_generator(generator, x.device if isinstance(x, Tensor) else torch.device("cpu"))
    classes = features_by_class(model, x, y)
    small = [label for label, places, _ in classes if len(places) < 3]
    if small:
        raise ValueError(f"y has fewer than three inputs of class {small[0]}; accepted: at least three of each class")
    generator = fresh_generator(generator, x.device)
    return [two_means(label, places, reduced(R, dimensions, whiten), generator) for label, places, R in classes]


def two_means(label: int, places: Tensor, points: Tensor, generator: torch.Generator) -> Clusters:
    """The best 2-means of ten starts."""
    if points.shape[1] == 0:
        return Clusters(label, places, points, torch.zeros_like(places, dtype=torch.bool), 0.0)
    seed = int(torch.randint(2**31, (1,), generator=generator, device=points.device))
    cluster = KMeans(2, n_init=10, random_state=seed).fit_predict(points.cpu().numpy())
    silhouette = float(silhouette_score(points.cpu().numpy(), cluster))
    second = torch.from_numpy(cluster == 1).to(places.device)
    return Clusters(label, places, points, second if 2 * second.sum() <= len(second) else ~second, silhouette)


def reduced(R: Tensor, dimensions: int, whiten: bool) -> Tensor:
    """The strongest principal components of rows, `(n, d)`, each scaled to variance 1 if asked; d is at most the rank.

    >>> reduced(torch.tensor([[0.0, 5.0], [2.0, 5.0]]), 2, whiten=False).abs().round(decimals=6)
    tensor([[1.],
            [1.]], dtype=torch.float64)
    """
    U, S, _ = torch.linalg.svd((R - R.mean(0)).double(), full_matrices=False)
    rounding = S[0] * max(R.shape) * torch.finfo(R.dtype).eps
    d = min(dimensions, int(S.gt(rounding).sum()))
    return U[:, :d] * (math.sqrt(len(R)) if whiten else S[:d])


def spectral_signatures(model: nn.Module, x: Tensor, y: Tensor, *, fraction: float = 0.2) -> Tensor:
    r"""Spectral signatures: drop from each class the inputs that lie farthest out along its strongest direction.

    Of each class with n inputs the $\lfloor 1.5 \, \epsilon n \rfloor$ with the highest `spectral_scores` go.

    Args:
        model: trained on `x` and `y`; `(N, C, H, W)` in [0, 1] to logits `(N, K)`, ending in a linear layer.
        x: training inputs, float `(N, C, H, W)` in [0, 1], perhaps poisoned.
        y: their labels `(N,)`, int64.
        fraction: $\epsilon$, the largest share of a class that the defender thinks poisoned, from 0 to 0.66. A backdoor
            with one target has all its poisons in one class.
    Returns:
        which inputs to keep, bool `(N,)`.
    Raises:
        ValueError: names the argument.
    Reference: Tran 2018, arXiv 1811.00636, algorithm 1; it was tried with up to 10 % of a class.
    Survey: defenses against poisoning, data sanitization.
    Simplified: training again on what is kept is left to the caller. The paper bounds the number of poisons, rather
        than their share. The default is twice the paper's share, since few poisons of a small training set are many
        of one class.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    >>> x = torch.tensor([0.1, 0.2, 0.1, 0.9]).view(-1, 1, 1, 1)
    >>> spectral_signatures(model, x, torch.zeros(4, dtype=torch.int64), fraction=0.25)
    tensor([ True,  True,  True, False])
    """
    check_number("fraction", fraction, low=0, high=0.66)
    score = spectral_scores(model, x, y)
    keep = torch.ones(len(y), dtype=torch.bool, device=y.device)
    for label in y.unique():
        places = (y == label).nonzero()[:, 0]
        count = math.floor(OVERSHOOT * fraction * len(places) + 1e-9)
        keep[places[score[places].topk(count)[1]]] = False
    return keep


def spectral_scores(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    r"""How far each input lies out along the strongest direction of its class.

    $\tau_i = \left((R(x_i) - \hat R) \cdot v\right)^2$, with R the features, $\hat R$ their mean over the class, and v
    the top right singular vector of the matrix with the rows $R(x_i) - \hat R$.

    Args:
        model: trained on `x` and `y`; `(N, C, H, W)` in [0, 1] to logits `(N, K)`, ending in a linear layer.
        x: training inputs, float `(N, C, H, W)` in [0, 1].
        y: their labels `(N,)`, int64.
    Returns:
        $\tau$, `(N,)`, at least 0; higher is more suspicious, within a class.
    Raises:
        ValueError: names the argument.
    Reference: Tran 2018, arXiv 1811.00636, algorithm 1.
    Survey: defenses against poisoning, data sanitization.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    >>> x = torch.tensor([0.0, 0.5, 1.0]).view(-1, 1, 1, 1)
    >>> spectral_scores(model, x, torch.tensor([0, 0, 0]))
    tensor([0.2500, 0.0000, 0.2500])
    """
    tau = torch.zeros(len(y), dtype=x.dtype, device=x.device)
    for _, places, R in features_by_class(model, x, y):
        M = R - R.mean(0)
        v = torch.linalg.svd(M, full_matrices=False).Vh[0]
        tau[places] = (M @ v).square()
    return tau


@torch.no_grad()
def features_by_class(
    model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 1000
) -> list[tuple[int, Tensor, Tensor]]:
    """Of each class that occurs its label, the places of its inputs and their features `(n, D)`."""
    check_images(x)
    check_labels(y, x)
    check_model(model, x)
    if len(y) == 0:
        return []
    R = torch.cat([features(model, batch).flatten(1) for batch in x.split(batch_size)])
    if not R.isfinite().all():
        raise ValueError("model has NaN or infinite features; accepted: finite features")
    places = [(int(label), (y == label).nonzero()[:, 0]) for label in y.unique()]
    return [(label, where, R[where]) for label, where in places]
