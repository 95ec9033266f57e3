r"""Influence functions: which training inputs a prediction rests on, and how to change them so that it falls.

At the minimum of the training loss, $\hat\theta = \arg\min_\theta \frac{1}{N} \sum_i L(z_i, \theta) +
\frac{\lambda}{2} \|\theta\|^2$, with Hessian $H$, giving one input more weight moves the weights by
$-H^{-1} \nabla_\theta L(z)$. No model is trained again.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import jvp
from tqdm.auto import trange

from spai_lab.attacks.poisoning.back_gradient import flat_weights, logits_at, loss_at, losses_at
from spai_lab.attacks.poisoning.poisoned import Poisoned, budget, replaced
from spai_lab.checks import (
    check_ball,
    check_classes,
    check_count,
    check_flag,
    check_generator,
    check_images,
    check_labels,
    check_model,
    check_number,
    check_steps,
    describe,
)
from spai_lab.data import Dataset
from spai_lab.models import features
from spai_lab.threat import logits_of, project
from spai_lab.training.loop import in_mode

NEWTON_STEPS = 100
CONVERGED = 1e-7  # the length of the slope at which training the last layer ends


def influence(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    x_test: Tensor,
    y_test: Tensor,
    *,
    damping: float,
    tolerance: float = 1e-6,
    iterations: int = 2000,
) -> Tensor:
    r"""What more weight on each training input would do to the loss on test inputs.

    $I_{up,loss}(z_i, z_{test}) = -\nabla_\theta L(z_{test})^\top H^{-1} \nabla_\theta L(z_i)$, with
    $H = \frac{1}{N} \sum_i \nabla^2_\theta L(z_i) + \lambda 1$.
    Below 0 the input helps. To leave it out is a weight of $-1/N$, which changes the loss by about $-I / N$.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, trained on `x` and `y`; used in evaluation mode.
        x: training inputs, floating point `(N, C, H, W)` in [0, 1], N at least 1.
        y: their labels `(N,)`, int64.
        x_test: the inputs that are asked about, `(M, C, H, W)` in [0, 1], M at least 1; of several the mean loss.
        y_test: their labels `(M,)`, int64.
        damping: $\lambda$, above 0: the L2 penalty $\frac{\lambda}{2} \|\theta\|^2$ that the model was trained with, or
            what it takes to make H positive where the loss is not convex.
        tolerance: of the conjugate gradients, $\|H s - b\| \le$ `tolerance` $\|b\|$, above 0.
        iterations: of the conjugate gradients, at most.
    Returns:
        $I_{up,loss}$ of each training input, `(N,)`, in the dtype of `x`.
    Raises:
        ValueError: an argument is out of its range; H is not positive, or the iterations do not suffice; names it.
    Reference: Koh and Liang 2017, arXiv 1703.04730, equation 2 and section 3 (conjugate gradients).
    Survey: poisoning, targeted.
    Simplified: every Hessian-vector product reads all N inputs, where the paper offers a stochastic estimate too.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    >>> _ = model[1].weight.data.zero_()
    >>> x, y = torch.tensor([0.2, 0.4, 0.6]).view(3, 1, 1, 1), torch.tensor([0, 0, 1])
    >>> influence(model, x, y, x[2:], y[2:], damping=1.0).sign()
    tensor([ 1.,  1., -1.])
    """
    check_trained(model, x, y, damping)
    check_trained(model, x_test, y_test, damping, "x_test")
    check_number("tolerance", tolerance, low=0, exclusive=True)
    check_count("iterations", iterations)
    exact = deepcopy(model).double().eval()
    theta, z = flat_weights(exact), (x.detach().double(), y)
    s_test = influence_direction(
        exact, theta, *z, x_test.detach().double(), y_test, damping, tolerance=tolerance, iterations=iterations
    )
    slopes = jvp(lambda theta: losses_at(exact, theta, *z), (theta,), (s_test,))[1]
    return -slopes.to(x.dtype)


def hessian(loss: Tensor, theta: Tensor, damping: float) -> Callable[[Tensor], Tensor]:
    r"""The product $v \mapsto (\nabla^2_\theta L + \lambda 1) v$, which never writes the matrix down.

    The gradient of $(\nabla_\theta L)^\top v$ is $\nabla^2_\theta L \, v$: one more pass backward for each product.

    Args:
        loss: a number that was computed from `theta`.
        theta: the weights `(P,)`, with `requires_grad`.
        damping: $\lambda$, at least 0.
    Returns:
        from v `(P,)` to the product `(P,)`.

    >>> theta = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> hessian(theta[0] ** 2 * theta[1], theta, damping=1.0)(torch.tensor([1.0, 0.0]))
    tensor([5., 2.])
    """
    gradient = torch.autograd.grad(loss, theta, create_graph=True)[0]

    def product(v: Tensor) -> Tensor:
        return torch.autograd.grad(gradient, theta, v, retain_graph=True)[0] + damping * v

    return product


def conjugate_gradients(
    A: Callable[[Tensor], Tensor], b: Tensor, *, tolerance: float = 1e-6, iterations: int = 2000
) -> Tensor:
    r"""Solve $A s = b$ for a symmetric positive matrix that is known by its products alone.

    Each step minimizes $\frac{1}{2} s^\top A s - b^\top s$ along a direction $d$, which is the residual $r = b - A s$
    made conjugate to all directions before: $\alpha = \frac{r^\top r}{d^\top A d}$, then $s \leftarrow s + \alpha d$.

    Args:
        A: from v `(P,)` to the product `(P,)`.
        b: the right side `(P,)`.
        tolerance: ends when $\|r\| \le$ `tolerance` $\|b\|$.
        iterations: at most so many products.
    Returns:
        s, `(P,)`.
    Raises:
        ValueError: A is not positive along some direction, or `iterations` do not suffice.
    Reference: Hestenes and Stiefel 1952, "Methods of conjugate gradients for solving linear systems".

    >>> A = torch.tensor([[4.0, 1.0], [1.0, 3.0]])
    >>> conjugate_gradients(lambda v: A @ v, torch.tensor([1.0, 2.0]))
    tensor([0.0909, 0.6364])
    """
    s, r, d = torch.zeros_like(b), b, b
    enough = tolerance * b.norm()
    for _ in range(iterations):
        if r.norm() <= enough:
            return s
        A_d = A(d)
        curvature = d @ A_d
        if curvature <= 0:
            raise ValueError("damping is too small: the Hessian has a direction that curves down; accepted: more")
        alpha = (r @ r) / curvature
        s, last = s + alpha * d, r @ r
        r = r - alpha * A_d
        d = r + (r @ r) / last * d
    if r.norm() <= enough:
        return s
    raise ValueError(
        f"iterations is {iterations}: conjugate gradients miss the tolerance {tolerance:g}; accepted: more of them, or "
        "more damping"
    )


def influence_poison(
    data: Dataset,
    model: nn.Module,
    x_target: Tensor,
    wanted: int,
    *,
    fraction: float,
    eps: float,
    steps: int = 50,
    step_size: float | None = None,
    damping: float = 0.01,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Poisoned:
    r"""Poison by influence: change a few training images a little, keep their labels, and move one prediction.

    $I_{pert,loss}(z, z_t) = -\nabla_\theta L(z_t)^\top H^{-1} \nabla_x \nabla_\theta L(z)$ says how the loss at the
    target falls or rises with each pixel of a training image. With $z_t = (x_t, t)$, the class t that is wanted,
    $\tilde x \leftarrow \Pi_{B(x, \epsilon)}(\tilde x - \alpha \, \mathrm{sign}(I_{pert,loss}))$;
    then the last layer is trained again, and the next step starts from there, until the target has the wanted class.

    Args:
        data: whose training part is poisoned.
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, whose last layer is an `nn.Linear`. The victim keeps the
            rest of it, and trains the last layer as `retrained_head` does.
        x_target: the input that shall be misread, `(1, C, H, W)` in [0, 1].
        wanted: the class that it shall get, t, from 0 to K - 1.
        fraction: of the training inputs to poison, above 0, at most 1: those whose pixels have most influence.
        eps: how far each pixel may move, from 0 to 1.
        steps: how often all poisons move at most, at least 1.
        step_size: $\alpha$, in pixel units, above 0; None takes `2.5 * eps / steps`.
        damping: $\lambda$, the L2 penalty of the victim's last layer, above 0.
        generator: not used, since nothing is random; here so that every attack is called alike.
        progress: show a bar with the time left.
    Returns:
        the poisoned training set: images within `eps` of the clean ones, labels unchanged.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Koh and Liang 2017, arXiv 1703.04730, equation 5 and section 5.2.
    Survey: poisoning, targeted.
    Simplified: toward a class that is wanted, where the paper raises the loss of the right one, which is the same for
        its two classes. At most `steps` steps, shorter than the paper's, and none after the target has the wanted
        class; pixels are not rounded to 8 bits.

    >>> from spai_lab.data import load
    >>> from spai_lab.models import softmax_regression
    >>> data = load("digits").first(100)
    >>> model = softmax_regression(generator=torch.Generator().manual_seed(0))
    >>> x_target = data.x_test[:1]
    >>> influence_poison(data, model, x_target, 3, fraction=0.02, eps=0.1, steps=1, damping=1.0, progress=False)
    Poisoned: 2 of 100 training inputs
    """
    check_influence_poison(data, model, x_target, wanted, eps, steps, step_size, damping, generator, progress)
    count = budget(data, fraction)
    alpha = 2.5 * eps / steps if step_size is None else step_size
    model = deepcopy(model).double().eval()
    head = last_layer(model)
    x, y, t = data.x_train.double(), data.y_train, torch.tensor([wanted], device=data.y_train.device)
    with torch.no_grad():
        phi, phi_target = features(model, x), features(model, x_target.double())
    theta = trained_head(head, phi, y, damping)
    s_target = influence_direction(head, theta, phi, y, phi_target, t, damping)
    places = perturbing(model, head, theta, x, y, s_target).abs().flatten(1).sum(1).topk(count).indices
    x_p = x[places]
    for _ in trange(steps, desc="influence", disable=not progress):
        I_pert = perturbing(model, head, theta, x_p, y[places], s_target)
        x_p = project(x_p - alpha * I_pert.sign(), x[places], eps, "linf")
        with torch.no_grad():
            phi[places] = features(model, x_p)
        theta = trained_head(head, phi, y, damping, start=theta)
        if logits_at(head, theta, phi_target).argmax() == wanted:
            break
        s_target = influence_direction(head, theta, phi, y, phi_target, t, damping)
    return replaced(data, places, x_p.to(data.x_train), y[places])


def influence_direction(
    model: nn.Module, theta: Tensor, x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, damping: float, **solver
) -> Tensor:
    r"""$s_{test} = H^{-1} \nabla_\theta L(z_{test})$, `(P,)`: every training input's influence is read from it."""
    theta = theta.detach().requires_grad_()
    with torch.enable_grad():
        of_test = torch.autograd.grad(loss_at(model, theta, x_test, y_test), theta)[0]
        H = hessian(loss_at(model, theta, x, y), theta, damping)
        return conjugate_gradients(H, of_test, **solver)


def perturbing(model: nn.Module, head: nn.Module, theta: Tensor, x: Tensor, y: Tensor, s_test: Tensor) -> Tensor:
    r"""$I_{pert,loss} = -\nabla_x \left(s_{test}^\top \nabla_\theta L(z)\right)$ of each input, like `x`."""
    x, theta = x.detach().requires_grad_(), theta.detach().requires_grad_()
    with torch.enable_grad():
        losses = losses_at(head, theta, features(model, x), y)
        slope = torch.autograd.grad(losses.sum(), theta, create_graph=True)[0] @ s_test
        return -torch.autograd.grad(slope, x)[0]


def retrained_head(model: nn.Module, x: Tensor, y: Tensor, *, damping: float = 0.01) -> nn.Module:
    r"""The model with its last layer trained to convergence while the rest stays: transfer learning.

    $\hat\theta = \arg\min_\theta \frac{1}{N} \sum_i L(z_i, \theta) + \frac{\lambda}{2} \|\theta\|^2$, over the last
    layer's weights and biases.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, whose last layer is an `nn.Linear`.
        x: training inputs, floating point `(N, C, H, W)` in [0, 1], N at least 1.
        y: their labels `(N,)`, int64.
        damping: $\lambda$, above 0.
    Returns:
        a new model, in evaluation mode, in the dtype of the old one.
    Raises:
        ValueError: an argument is out of its range; names it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    >>> x, y = torch.tensor([0.2, 0.4, 0.6, 0.8]).view(4, 1, 1, 1), torch.tensor([0, 0, 1, 1])
    >>> retrained_head(model, x, y, damping=1e-4)(x).argmax(1)
    tensor([0, 0, 1, 1])
    """
    check_trained(model, x, y, damping)
    model = deepcopy(model).eval()
    exact = deepcopy(model).double()
    with torch.no_grad():
        phi = features(exact, x.double())
    theta = trained_head(last_layer(exact), phi, y, damping)
    nn.utils.vector_to_parameters(theta.to(x.dtype), last_layer(model).parameters())
    return model


def trained_head(head: nn.Module, phi: Tensor, y: Tensor, damping: float, start: Tensor | None = None) -> Tensor:
    r"""The weights `(P,)` of a linear layer at the minimum of the penalized loss on features `(N, D)`.

    Newton's method, $\theta \leftarrow \theta - t H^{-1} \nabla_\theta L$, with t halved until the loss falls.
    """
    theta = flat_weights(head) if start is None else start

    def penalized(theta: Tensor) -> Tensor:
        return loss_at(head, theta, phi, y) + damping / 2 * theta @ theta

    with torch.enable_grad():
        for _ in range(NEWTON_STEPS):
            theta = theta.detach().requires_grad_()
            loss = penalized(theta)
            g = torch.autograd.grad(loss, theta, retain_graph=True)[0]
            if g.norm() <= CONVERGED:
                break
            d = conjugate_gradients(hessian(loss, theta, 0.0), g, tolerance=0.01)
            t = 1.0
            while t > CONVERGED and penalized(theta - t * d) > loss - t * (g @ d) / 4:
                t /= 2
            theta = theta - t * d
    return theta.detach()


def last_layer(model: nn.Module) -> nn.Linear:
    """The linear layer that `features` stands before."""
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise ValueError(f"model is {describe(model)}; accepted: one that ends in a linear layer")
    return linear[-1]


def check_trained(model: nn.Module, x: Tensor, y: Tensor, damping: float, name: str = "x") -> None:
    """Raise `ValueError` unless there are training inputs with labels that the model has logits for."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is {describe(model)}; accepted: a torch.nn.Module")
    labels = name.replace("x", "y")
    check_images(x, name)
    check_labels(y, x, labels)
    if len(x) == 0:
        raise ValueError(f"{name} is empty; accepted: at least one input")
    check_model(model, x)
    check_number("damping", damping, low=0, exclusive=True)
    with torch.no_grad(), in_mode(model, training=False):
        check_classes(y, logits_of(model, x[:1], torch.zeros_like(y[:1])), labels)


def check_influence_poison(
    data: Dataset,
    model: nn.Module,
    x_target: Tensor,
    wanted: int,
    eps: float,
    steps: int,
    step_size: float | None,
    damping: float,
    generator: torch.Generator | None,
    progress: bool,
) -> None:
    """Raise `ValueError` unless each argument of `influence_poison` is in its range."""
    check_trained(model, data.x_train, data.y_train, damping, "x_train")
    check_images(x_target, "x_target")
    if x_target.shape != (1, *data.shape):
        raise ValueError(f"x_target is {describe(x_target)}; accepted: {(1, *data.shape)}, one image like the data's")
    check_count("wanted", wanted, low=0)
    check_number("wanted", wanted, low=0, high=data.num_classes - 1)
    check_ball(x_target, eps, "linf")
    check_steps(steps, step_size)
    check_generator(generator, data.x_train.device)
    check_flag("progress", progress)
