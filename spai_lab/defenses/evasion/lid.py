r"""Detection by local intrinsic dimensionality: around an adversarial image the model's layers see more dimensions."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spai_lab.checks import (
    check_batch,
    check_callable,
    check_count,
    check_images,
    check_inputs,
    check_like,
    check_model,
    describe,
)
from spai_lab.models import Normalize
from spai_lab.threat import fooled, fresh_generator, norms, per_image

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
NOT_LAYERS = (Normalize, nn.Flatten, nn.Dropout, nn.Identity)  # they change no neighbors
BATCH = 500


def lid(
    model: nn.Module,
    x_train: Tensor,
    y_train: Tensor,
    attack: Attack,
    *,
    k: int = 20,
    minibatch: int = 100,
    generator: torch.Generator | None = None,
) -> "Lid":
    r"""A detector that has learned how local intrinsic dimensionality tells adversarial images from clean ones.

    $s(x) = w \cdot \mathrm{LID}(x) + b$, the log-odds of logistic regression on the features of `lid_features`:
    adversarial images against clean and noisy ones. The noise is Gaussian, and of each image as large in L2 as its
    adversarial perturbation, so that the detector cannot learn to suspect noise.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x_train: training inputs, float `(N, C, H, W)` in [0, 1], more than `minibatch`.
        y_train: their labels `(N,)`, int64.
        attack: `(model, x, y) -> x_adv`, the attack that the detector learns from; `partial` sets the rest.
        k: nearest neighbors that an estimate rests on, at least 2, at most `minibatch`.
        minibatch: training inputs, drawn once, among which neighbors are sought.
        generator: draws the minibatch and the noise; None draws a fresh one.
    Returns:
        the detector, from inputs to scores `(N,)`, differentiable; higher is more suspicious. Choose its threshold
        with `threshold_at` on clean validation inputs.
    Raises:
        ValueError: names the argument; too few images are classified rightly and then fooled.
    Reference: Ma 2018, arXiv 1801.02613, algorithm 1; k = 20 and minibatches of 100 as on MNIST.
    Survey: defenses against evasion, detection.
    Simplified: one minibatch is drawn and kept, for training and for use, and it holds none of the images that the
        regression learns from; the paper draws one for each batch, and leaves out an image's own clean copy. The
        features are standardized, and the regression has scikit-learn's usual L2 penalty rather than a tuned one.

    >>> model = nn.Flatten()
    >>> x = torch.rand(60, 2, 1, 1)
    >>> detector = lid(model, x, model(x).argmax(1), lambda model, x, y: 1 - x, k=5, minibatch=20)
    >>> detector(x[:3]).shape
    torch.Size([3])
    """
    from sklearn.linear_model import LogisticRegression  # here, since it takes seconds to import

    check_inputs(model, x_train, y_train, generator=generator)
    check_callable("attack", attack)
    check_count("k", k, low=2)
    check_count("minibatch", minibatch, low=k)
    if len(x_train) <= minibatch:
        raise ValueError(f"x_train is {describe(x_train)}; accepted: more inputs than the minibatch of {minibatch}")
    generator = fresh_generator(generator, x_train.device)
    order = torch.randperm(len(x_train), generator=generator, device=x_train.device)
    drawn, rest = order[:minibatch], order[minibatch:]
    around = x_train[drawn]
    x, x_noisy, x_adv = training_set(model, x_train[rest], y_train[rest], attack, generator)
    with torch.no_grad():
        parts = torch.cat([x, x_noisy, x_adv]).split(BATCH)
        features = torch.cat([lid_features(model, part, around, k) for part in parts]).double()
    is_adversarial = torch.arange(len(features)) >= 2 * len(x)
    mean, deviation = features.mean(0), features.std(0).clamp_min(torch.finfo(x.dtype).eps)
    fitted = LogisticRegression().fit(((features - mean) / deviation).cpu().numpy(), is_adversarial.numpy())
    w = torch.from_numpy(fitted.coef_[0]).to(features) / deviation
    b = float(fitted.intercept_[0]) - float(w @ mean)
    return Lid(model, around, k, w.to(x), b)


class Lid(nn.Module):
    """From inputs `(N, C, H, W)` in [0, 1] to the log-odds that they are adversarial, `(N,)`."""

    def __init__(self, model: nn.Module, minibatch: Tensor, k: int, w: Tensor, b: float) -> None:
        super().__init__()
        self.model, self.k, self.b = model, k, b
        self.register_buffer("minibatch", minibatch)
        self.register_buffer("w", w)
        self.training = getattr(model, "training", False)

    def forward(self, x: Tensor) -> Tensor:
        return lid_features(self.model, x, self.minibatch, self.k) @ self.w + self.b


def lid_features(model: nn.Module, x: Tensor, minibatch: Tensor, k: int = 20) -> Tensor:
    r"""The local intrinsic dimensionality of each input at each layer, among a minibatch of clean inputs.

    $\mathrm{LID}_l(x) = -\left(\frac{1}{k} \sum_{i=1}^{k} \log \frac{r_i}{r_k}\right)^{-1}$
    with $r_i$ the distance from the activations of layer l for x to the i-th nearest ones of the minibatch.

    Args:
        model: a network of layers, `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: inputs `(N, C, H, W)` in [0, 1].
        minibatch: clean inputs like `x`, at least k of them, none of them in `x`.
        k: number of neighbors, at least 2.
    Returns:
        `(N, L)`: for the input itself and for each layer, in the order in which they run; differentiable in `x`.
    Raises:
        ValueError: names the argument.
    Reference: Ma 2018, arXiv 1801.02613, equation 4 and algorithm 1.
    Survey: defenses against evasion, detection.
    Simplified: normalization, flattening and dropout are no layers here, since they move no neighbors; distances are
        computed in float64.

    >>> lid_features(nn.Sequential(nn.ReLU()), torch.zeros(1, 1), torch.tensor([[1.0], [2.0], [4.0]]), k=3).tolist()
    [[1.4426950216293335, 1.4426950216293335]]
    """
    check_images(x)
    check_model(model, x)
    check_count("k", k, low=2)
    check_batch("minibatch", minibatch)
    if len(minibatch) < k or minibatch.shape[1:] != x.shape[1:] or minibatch.dtype != x.dtype:
        raise ValueError(f"minibatch is {describe(minibatch)}; accepted: at least k = {k} inputs like x, {describe(x)}")
    with torch.no_grad():
        around = activations(model, minibatch)
    layers = zip(activations(model, x), around, strict=True)
    return torch.stack([lid_of(nearest(at, others, k)) for at, others in layers], 1).to(x.dtype)


def lid_of(r: Tensor) -> Tensor:
    r"""The maximum likelihood estimate of the dimension from distances $r_1 \le \dots \le r_k$, `(N, k)`, to `(N,)`.

    Points spread evenly over a ball of dimension m around x give about m. Where all the distances are equal the
    estimate would be infinite; it stays finite, and very large.

    >>> lid_of(torch.tensor([[0.25, 0.5, 1.0]]))
    tensor([1.4427])
    """
    r = r.clamp_min(torch.finfo(r.dtype).tiny)
    return 1 / (r[:, -1:] / r).log().mean(1).clamp_min(torch.finfo(r.dtype).eps)


def nearest(points: Tensor, others: Tensor, k: int) -> Tensor:
    """The distances from points, `(N, d)`, to the k nearest of others, `(M, d)`, in rising order: `(N, k)`, float64.

    >>> nearest(torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [0.0, 1.0], [9.0, 9.0]]), 2)
    tensor([[1., 5.]], dtype=torch.float64)
    """
    distances = torch.cdist(points.double(), others.double(), compute_mode="use_mm_for_euclid_dist")
    return distances.topk(k, largest=False).values


def activations(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The input and what each layer makes of it, `(N, d)` each, copied, since a next layer may work in place."""
    leaves = [layer for layer in model.modules() if not list(layer.children())]
    layers = [layer for layer in leaves if not isinstance(layer, NOT_LAYERS)]
    read = [x.flatten(1)]
    handles = [
        layer.register_forward_hook(lambda _, inputs, output: read.append(output.flatten(1).clone()))
        for layer in layers
    ]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return read


def training_set(
    model: nn.Module, x: Tensor, y: Tensor, attack: Attack, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Clean, noisy and adversarial versions of the images that the model gets right and the attack turns."""
    x_adv = attack(model, x, y)
    check_like("what attack returns", x_adv, x)
    turned = ~fooled(model, x, y) & fooled(model, x_adv, y)
    if turned.sum() < 2:
        raise ValueError(f"attack turns {int(turned.sum())} of {len(x)} training inputs; accepted: at least 2")
    x, x_adv = x[turned], x_adv[turned]
    noise = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
    scale = norms(x_adv - x, "l2") / norms(noise, "l2")
    return x, (x + per_image(scale, x) * noise).clamp(0, 1), x_adv
