r"""Gradients leak: whoever sees what a participant sends can compute what it was trained on.

The server, or another participant, knows the model and the update. It looks for inputs that give the same gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from tqdm.auto import trange

from spai_lab.attacks.privacy.minimize import lbfgs_steps
from spai_lab.checks import check_count, check_flag, check_images, check_labels, check_model, check_number, describe
from spai_lab.metrics import psnr
from spai_lab.models import Shape, check_shape
from spai_lab.threat import fresh_generator, logits_of

Gradients = dict[str, Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class Leaked:
    """What was read out of gradients.

    Args:
        x: images, `(N, B, C, H, W)` in [0, 1], in no order within a batch.
        y: their labels, `(N, B)`.
        distances: how far the gradients of these images are from those that were sent, and the prior's part, `(N,)`.
        path: the images after every so many steps, `(T, N, B, C, H, W)`; the last are `x`.
    """

    x: Tensor
    y: Tensor
    distances: Tensor
    path: Tensor

    def __repr__(self) -> str:
        count, batch = self.y.shape
        return f"Leaked: {count} gradients of {batch} image{'s' if batch > 1 else ''} each"


def shared_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Gradients:
    r"""What honest participants send: the mean gradient over each one's batch, $\nabla_\theta \frac1B \sum_b L$.

    Args:
        model: `(B, C, H, W)` in [0, 1] to logits `(B, K)`.
        x: the batches, `(N, B, C, H, W)` in [0, 1].
        y: their labels `(N, B)`, int64.
    Returns:
        by name of a weight, `(N, ...)` each.
    Raises:
        ValueError: names the argument.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> sent = shared_gradients(model, torch.zeros(3, 1, 1, 2, 2), torch.zeros(3, 1, dtype=torch.int64))
    >>> {name: tuple(gradient.shape) for name, gradient in sent.items()}
    {'1.weight': (3, 2, 4), '1.bias': (3, 2)}
    """
    check_batches(model, x, y)
    return vmap(update_of(model), in_dims=(None, 0, 0))(weights_of(model), x, y)


def update_of(model: nn.Module, steps: int = 1, learning_rate: float = 1.0) -> Callable[..., Gradients]:
    r"""What a participant sends, as a function `(theta, x, y)`: its way by the length of its steps.

    $(\theta - \theta_k) / (\alpha k)$ after k steps of gradient descent on the whole batch; for k = 1 the gradient.
    """

    def loss(theta: Gradients, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, theta, (x,)), y)

    def sends(theta: Gradients, x: Tensor, y: Tensor) -> Gradients:
        total = grad(loss)(theta, x, y)
        for _ in range(steps - 1):
            local = {name: theta[name] - learning_rate * total[name] for name in theta}
            slope = grad(loss)(local, x, y)
            total = {name: total[name] + slope[name] for name in theta}
        return {name: total[name] / steps for name in theta}

    return sends


def weights_of(model: nn.Module) -> Gradients:
    """The weights by name, detached."""
    return {name: weight.detach() for name, weight in model.named_parameters()}


def gradient_leakage(
    model: nn.Module,
    gradients: Gradients,
    *,
    shape: Shape,
    batch: int = 1,
    labels: str | Tensor = "optimized",
    steps: int = 300,
    learning_rate: float = 1.0,
    pruned: bool = False,
    local: tuple[int, float] = (1, 1.0),
    clipped: float | None = None,
    prior: float = 0.0,
    snapshots: int = 1,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Leaked:
    r"""Deep leakage from gradients: move noise until its gradient is the one that was sent.

    $\min_{x', y'} \| \nabla_\theta L(f_\theta(x'), y') - \nabla_\theta L(f_\theta(x), y) \|_2^2$, by L-BFGS. In DLG the
    label is looked for too, as $\mathrm{softmax}(y')$; iDLG first reads it off the last layer: of all rows of that
    gradient, only the true class's is negative, since $\partial L / \partial z_k = p_k - 1[k = y]$.

    Args:
        model: `(B, C, H, W)` in [0, 1] to logits `(B, K)`; twice differentiable, so sigmoid rather than ReLU.
        gradients: N that were sent, by name of a weight, `(N, ...)` each, such as `shared_gradients` makes.
        shape: `(C, H, W)` of an input.
        batch: B, how many inputs each gradient is the mean of.
        labels: "optimized" (DLG), or "analytic" (iDLG), which needs `batch=1`; or what the attacker knows, `(N, B)`,
            int64.
        steps: of L-BFGS.
        learning_rate: the length of its steps.
        pruned: whether the attacker knows that zeros stand for numbers that were not sent, and compares the others.
        local: steps and learning rate of the local training, if the attacker knows of it, as in `local_steps`.
        clipped: the clipping norm, if the attacker knows that longer gradients were cut to it, as in `shortened`.
        prior: how much the total variation of an image counts beside the distance, at least 0: what an attacker expects
            of images who knows that noise of variance $\sigma^2$ was added; a few $\sigma^2$.
        snapshots: how many images of the way to keep, at even distances; the last is the result.
        generator: draws the noise; None draws a fresh one.
        progress: show a bar.
    Returns:
        what was found.
    Raises:
        ValueError: names the argument.
    Reference: Zhu 2019, arXiv 1906.08935, algorithm 1; Zhao 2020, arXiv 2001.02610, algorithm 1 (iDLG); Geiping 2020,
        arXiv 2003.14053, equation 4 (total variation).
    Survey: Private AI, threats by a service provider or a silo.
    Simplified: all inputs of a batch move at once; the best images of the way are kept, since L-BFGS without a line
        search may run away. The paper takes 300 calls of torch's L-BFGS, which are up to 20 of these steps each. N
        gradients are attacked side by side.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.rand(2, 1, 1, 2, 2), torch.tensor([[2], [0]])
    >>> sent = shared_gradients(model, x, y)
    >>> leaked = gradient_leakage(model, sent, shape=(1, 2, 2), labels="analytic", progress=False)
    >>> leaked.y.tolist(), (leaked.x - x).abs().max() < 0.01
    ([[2], [0]], tensor(True))
    """
    sent = check_gradients(model, gradients, shape, batch)
    check_leak_labels(labels, sent, batch)
    for name, value in (("steps", steps), ("snapshots", snapshots)):
        check_count(name, value)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)
    for name, value in (("progress", progress), ("pruned", pruned)):
        check_flag(name, value)
    if not isinstance(local, tuple) or len(local) != 2:
        raise ValueError(f"local is {describe(local)}; accepted: steps and learning rate, such as (5, 0.1)")
    check_count("local[0], the steps,", local[0])
    check_number("local[1], the learning rate,", local[1], low=0, exclusive=True)
    if clipped is not None:
        check_number("clipped", clipped, low=0, exclusive=True)
    check_number("prior", prior, low=0)
    check_number("snapshots", snapshots, low=1, high=steps)
    count, pixels = len(next(iter(sent.values()))), (batch, *shape)
    generator = fresh_generator(generator, torch.device("cpu"))
    classes = last_layer(sent)[0].shape[1]
    image = torch.randn(count, *pixels, generator=generator).flatten(1)
    guess = torch.randn(count, batch, classes, generator=generator).flatten(1)
    known = leaked_labels(sent)[:, None] if isinstance(labels, str) and labels == "analytic" else labels
    fixed = None if isinstance(known, str) else F.one_hot(known, classes).float()
    start = image if fixed is not None else torch.cat([image, guess], 1)
    theta, updates = weights_of(model), vmap(update_of(model, *local), in_dims=(None, 0, 0))
    compared = {name: g != 0 if pruned else torch.ones_like(g) for name, g in sent.items()}

    def parts(point: Tensor) -> tuple[Tensor, Tensor]:
        """Images, and the class probabilities that go with them."""
        x, z = point[:, : image.shape[1]], point[:, image.shape[1] :]
        return x.view(-1, *pixels), fixed if fixed is not None else z.view(-1, batch, classes).softmax(2)

    def distance(point: Tensor) -> Tensor:
        """Squared distance between what each candidate would send and what was sent, and the prior's part, `(N,)`."""
        x, y = parts(point)
        found = updates(theta, x, y)
        found = found if clipped is None else shortened(found, clipped)
        far = sum(((found[name] - sent[name]) * compared[name]).square().flatten(1).sum(1) for name in sent)
        return far + prior * total_variation(x) if prior else far

    kept = {round((k + 1) * steps / snapshots) for k in range(snapshots)}
    best, nearest, path = start, distance(start).detach(), []
    walk = lbfgs_steps(distance, start, learning_rate=learning_rate)
    for number in trange(1, steps + 1, desc="leaking", disable=not progress):
        point, value = next(walk)
        closer = value < nearest
        nearest = torch.where(closer, value, nearest)
        best = torch.where(closer[:, None], point, best)
        if number in kept:
            path.append(parts(best)[0].clamp(0, 1))
    return Leaked(path[-1], parts(best)[1].expand(count, batch, classes).argmax(2), nearest, torch.stack(path))


def total_variation(x: Tensor) -> Tensor:
    r"""How much neighboring pixels differ, summed over the images of each batch `(N, B, C, H, W)`: `(N,)`.

    $\sum \sqrt{d^2 + 10^{-4}}$ over all differences d, which is smooth where $\sum |d|$ is not.
    """
    return sum((x.diff(dim=axis).square() + 1e-4).sqrt().flatten(1).sum(1) for axis in (-1, -2))


def leaked_labels(gradients: Gradients, *, positive: bool = False) -> Tensor:
    r"""iDLG: the label of a single input, from the gradient of the last layer.

    With a bias, $\partial L / \partial b_k = p_k - 1[k = y]$ is negative for the true class alone. Without, the row of
    the true class points against all others, since the features that it multiplies are the same. Where no feature is
    negative, the sum of a row has the bias's sign, and noise on its numbers averages out.

    Args:
        gradients: by name of a weight, `(N, ...)` each; the last layer is the last matrix `(N, K, D)`.
        positive: whether the attacker knows that no feature is negative, as behind a sigmoid, and sums the rows.
    Returns:
        labels `(N,)`, int64.
    Reference: Zhao 2020, arXiv 2001.02610, section 3.

    >>> leaked_labels({"weight": torch.tensor([[[0.3], [-0.7], [0.4]]]), "bias": torch.tensor([[0.3, -0.7, 0.4]])})
    tensor([1])
    """
    weight, bias = last_layer(gradients)
    if positive:
        return (weight.sum(2) + (0 if bias is None else bias)).argmin(1)
    if bias is not None:
        return bias.argmin(1)
    if weight.shape[1] == 2:
        raise ValueError(
            "gradients has two classes and no bias: both rows look alike; accepted: a bias, or more classes"
        )
    alignment = weight @ weight.transpose(1, 2)
    others = alignment.diagonal_scatter(torch.full(alignment.shape[:2], -torch.inf), dim1=1, dim2=2)
    return others.amax(2).argmin(1)


def linear_input(weight_gradient: Tensor, bias_gradient: Tensor) -> Tensor:
    r"""What a linear layer read, from its gradient alone: no search, one division.

    $\partial L / \partial W_k = \frac{\partial L}{\partial z_k} x^\top$ and $\partial L / \partial b_k =
    \frac{\partial L}{\partial z_k}$, so $x = (\partial L / \partial W_k) / (\partial L / \partial b_k)$ for any k whose
    denominator is not 0; the largest is taken. For a batch it is a weighted mean of the inputs.

    Args:
        weight_gradient: `(K, D)`, of one input.
        bias_gradient: `(K,)`.
    Returns:
        `(D,)`.
    Raises:
        ValueError: names the argument; the bias gradient is 0 everywhere.
    Reference: Zhu 2019, arXiv 1906.08935; Phong 2018, "Privacy-preserving deep learning via additively homomorphic
        encryption", IEEE TIFS, section III.

    >>> linear_input(torch.tensor([[0.0, 0.0], [-2.0, 1.0]]), torch.tensor([0.0, -2.0]))
    tensor([ 1.0000, -0.5000])
    """
    shaped = isinstance(weight_gradient, Tensor) and weight_gradient.ndim == 2
    if not shaped or not isinstance(bias_gradient, Tensor) or bias_gradient.shape != weight_gradient.shape[:1]:
        raise ValueError(
            f"weight_gradient is {describe(weight_gradient)}, bias_gradient {describe(bias_gradient)}; accepted: (K, D)"
            " and (K,)"
        )
    if not (weight_gradient.isfinite().all() and bias_gradient.isfinite().all()):
        raise ValueError("weight_gradient or bias_gradient has NaN or infinite numbers; accepted: finite ones")
    row = bias_gradient.abs().argmax()
    if bias_gradient[row] == 0:
        raise ValueError("bias_gradient is 0 everywhere; accepted: one that is not, the layer learned from its input")
    return weight_gradient[row] / bias_gradient[row]


def leak_network(
    shape: Shape = (1, 28, 28), classes: int = 10, *, generator: torch.Generator | None = None
) -> nn.Module:
    """The network on which leakage is shown: LeNet's size, sigmoids, strides in place of pooling, wide first weights.

    Args:
        shape: `(C, H, W)` of an input.
        classes: number of classes K, at least 2.
        generator: draws the weights, uniform on [-1/2, 1/2]; None draws a fresh one.
    Returns:
        `(N, C, H, W)` in [0, 1] to logits `(N, K)`; untrained, as in the paper's experiments.
    Raises:
        ValueError: names the argument.
    Reference: Zhu 2019, arXiv 1906.08935, section 4.1 and its code.
    Simplified: strides of 2, 2 and 1, whatever the size of the images.

    >>> leak_network()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    check_shape(shape, classes)
    layers = [
        *[nn.Conv2d(shape[0], 12, 5, padding=2, stride=2), nn.Sigmoid()],
        *[nn.Conv2d(12, 12, 5, padding=2, stride=2), nn.Sigmoid()],
        *[nn.Conv2d(12, 12, 5, padding=2), nn.Sigmoid(), nn.Flatten()],
        nn.Linear(12 * -(-shape[1] // 4) * -(-shape[2] // 4), classes),
    ]
    model = nn.Sequential(*layers)
    generator = fresh_generator(generator, torch.device("cpu"))
    with torch.no_grad():
        for weight in model.parameters():
            weight.uniform_(-0.5, 0.5, generator=generator)
    return model


def noised(gradients: Gradients, sigma: float, *, generator: torch.Generator | None = None) -> Gradients:
    """A defense: Gaussian noise on every number that is sent, `sigma` its standard deviation, at least 0."""
    check_number("sigma", sigma, low=0)
    check_sent(gradients)
    generator = fresh_generator(generator, torch.device("cpu"))
    return {name: g + sigma * torch.randn(g.shape, generator=generator) for name, g in gradients.items()}


def shortened(gradients: Gradients, clip: float) -> Gradients:
    r"""A defense: whoever sends more than the clipping norm C sends $g \min(1, C / \|g\|)$, by L2 over all weights.

    >>> shortened({"weight": torch.tensor([[3.0, 4.0], [0.0, 0.5]])}, 1.0)["weight"]
    tensor([[0.6000, 0.8000],
            [0.0000, 0.5000]])
    """
    check_number("clip", clip, low=0, exclusive=True)
    check_sent(gradients)
    lengths = sum(gradient.flatten(1).square().sum(1) for gradient in gradients.values()).sqrt()
    factors = (clip / lengths).clamp_max(1)
    return {name: g * factors.view(-1, *[1] * (g.ndim - 1)) for name, g in gradients.items()}


def sparse(gradients: Gradients, share: float) -> Gradients:
    """A defense: the smallest numbers are sent as 0, a `share` of them from 0 to below 1, of each sent gradient."""
    check_number("share", share, low=0, high=1)
    if share == 1:
        raise ValueError("share is 1, which sends nothing; accepted: below 1")
    check_sent(gradients)
    flat = torch.cat([gradient.flatten(1) for gradient in gradients.values()], 1).abs()
    cut = round(share * flat.shape[1])
    if cut == 0:
        return dict(gradients)
    line = flat.kthvalue(min(cut, flat.shape[1]), 1).values
    return {name: g * (g.abs() > line.view(-1, *[1] * (g.ndim - 1))) for name, g in gradients.items()}


def local_steps(model: nn.Module, x: Tensor, y: Tensor, *, steps: int, learning_rate: float) -> Gradients:
    r"""A defense: several steps before sending; what is sent looks like a gradient, $(\theta - \theta_k) / (\alpha k)$.

    Args:
        model: `(B, C, H, W)` in [0, 1] to logits `(B, K)`.
        x: the batches, `(N, B, C, H, W)` in [0, 1].
        y: their labels `(N, B)`, int64.
        steps: k, steps of gradient descent on the whole batch.
        learning_rate: $\alpha$, above 0.
    Returns:
        by name of a weight, `(N, ...)` each; with one step `shared_gradients`.
    Raises:
        ValueError: names the argument.
    """
    check_batches(model, x, y)
    check_count("steps", steps)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)
    return vmap(update_of(model, steps, learning_rate), in_dims=(None, 0, 0))(weights_of(model), x, y)


def matched(leaked: Leaked, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """How near the leaked images are to the true ones, each beside the one that fits it best.

    Args:
        leaked: of N gradients of B inputs.
        x: what they were computed on, `(N, B, C, H, W)` in [0, 1].
        y: their labels `(N, B)`.
    Returns:
        PSNR in dB, and whether the label is right, both `(N, B)`, in the order of `x`.
    """
    from scipy.optimize import linear_sum_assignment

    if leaked.y.shape != y.shape or leaked.x.shape != x.shape:
        raise ValueError(f"x is {describe(x)}; accepted: {describe(leaked.x)}, like what was leaked")
    batch = y.shape[1]
    near, right = torch.empty(y.shape), torch.empty(y.shape, dtype=torch.bool)
    for n in range(len(y)):
        pairs = torch.cartesian_prod(torch.arange(batch), torch.arange(batch)).view(-1, 2)
        table = psnr(x[n, pairs[:, 0]], leaked.x[n, pairs[:, 1]]).view(batch, batch)
        rows, columns = linear_sum_assignment(table.clamp_max(200), maximize=True)
        near[n], right[n] = table[rows, columns], leaked.y[n, columns] == y[n]
    return near, right


def last_layer(gradients: Gradients) -> tuple[Tensor, Tensor | None]:
    """The gradients of the last matrix `(N, K, D)` and of the bias behind it `(N, K)`, if there is one."""
    names = list(gradients)
    matrices = [number for number, name in enumerate(names) if gradients[name].ndim == 3]
    if not matrices:
        raise ValueError("gradients has no matrix (N, K, D); accepted: those of a network that ends in a linear layer")
    last = matrices[-1]
    bias = gradients[names[last + 1]] if last + 1 < len(names) else None
    return gradients[names[last]], bias


def check_batches(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Raise `ValueError` unless there are batches with labels that the model can read."""
    if not isinstance(x, Tensor) or x.ndim != 5 or len(x) == 0:
        raise ValueError(f"x is {describe(x)}; accepted: (N, B, C, H, W), at least one batch")
    if not isinstance(y, Tensor) or y.shape != x.shape[:2]:
        raise ValueError(f"y is {describe(y)}; accepted: int64 labels of shape {tuple(x.shape[:2])}")
    check_images(x.flatten(0, 1))
    check_labels(y.flatten(), x.flatten(0, 1))
    check_differentiable(model)
    check_model(model, x)
    with torch.no_grad():
        logits_of(model, x[:, 0], y.amax(1))


def check_gradients(model: nn.Module, gradients: Gradients, shape: Shape, batch: int) -> Gradients:
    """The gradients, detached; `ValueError` unless there is a finite one for each weight of the model."""
    check_count("batch", batch)
    check_shape(shape, 2)
    names = dict(model.named_parameters()) if isinstance(model, nn.Module) else {}
    if not names or not isinstance(gradients, dict) or gradients.keys() != names.keys():
        raise ValueError(f"gradients is {describe(gradients)}; accepted: one for each weight of the model, by its name")
    for name, gradient in gradients.items():
        if gradient.ndim == 0 or gradient.shape[1:] != names[name].shape or not gradient.isfinite().all():
            wanted = f"finite (N, {', '.join(map(str, names[name].shape))})"
            raise ValueError(f"gradients[{name!r}] is {describe(gradient)}; accepted: {wanted}")
    check_differentiable(model)
    parameter = next(model.parameters())
    with torch.no_grad():
        blank = torch.zeros(1, *shape, dtype=parameter.dtype, device=parameter.device)
        logits_of(model, blank, torch.zeros(1, dtype=torch.int64, device=parameter.device))
    return {name: gradient.detach() for name, gradient in gradients.items()}


def check_leak_labels(labels: str | Tensor, sent: Gradients, batch: int) -> None:
    """Raise `ValueError` unless it is said how the labels are found, or what they are."""
    count, classes = last_layer(sent)[0].shape[:2]
    if isinstance(labels, Tensor):
        fits = labels.dtype == torch.int64 and labels.shape == (count, batch)
        if not fits or labels.min() < 0 or labels.max() >= classes:
            raise ValueError(
                f"labels is {describe(labels)}; accepted: int64 ({count}, {batch}), from 0 to {classes - 1}"
            )
    elif labels not in ("optimized", "analytic") or (labels == "analytic" and batch > 1):
        raise ValueError(
            f"labels is {describe(labels)}; accepted: 'optimized', or 'analytic' with batch = 1, or a tensor"
        )


def check_differentiable(model: nn.Module) -> None:
    """Raise `ValueError` if a layer draws at random or keeps averages: then a gradient is not of its inputs alone."""
    layers = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
    if isinstance(model, nn.Module) and model.training and any(isinstance(layer, layers) for layer in model.modules()):
        raise ValueError("model has dropout or batch norm in training mode; accepted: neither, or model.eval()")


def check_sent(gradients: Gradients) -> None:
    """Raise `ValueError` unless there are gradients by name, each with the senders in its first dimension."""
    sound = (
        isinstance(gradients, dict) and gradients and all(isinstance(g, Tensor) and g.ndim for g in gradients.values())
    )
    if not sound:
        raise ValueError(f"gradients is {describe(gradients)}; accepted: by name of a weight, (N, ...) each")
