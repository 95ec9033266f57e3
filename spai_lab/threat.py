r"""What every evasion attack shares: the ball it may move in, the direction it climbs, where it starts.

The attacker wants $x' = x + \delta$ with $\|\delta\|_p \le \epsilon$ and every pixel of $x'$ in [0, 1].
Everything here works on a batch `(N, ...)` and treats each input by itself.
"""

import math
import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.checks import (
    NORMS,
    check_ball,
    check_batch,
    check_choice,
    check_flag,
    check_generator,
    check_images,
    check_labels,
    check_like,
    check_logits,
    warn_suspicious,
)

Gradient = Callable[[nn.Module, Tensor, Tensor], Tensor]
WORDS = 624  # of 32 bits, the state of the Mersenne Twister
HEADER = 24  # bytes of a CPU generator's state before them; each word fills 8


def norms(delta: Tensor, norm: str) -> Tensor:
    r"""The size of each perturbation, $\|\delta_i\|_p$.

    Args:
        delta: perturbations `(N, ...)`.
        norm: "linf", "l2", "l1" or "l0" (the number of entries that are not zero).
    Returns:
        `(N,)`, in the dtype of `delta`.
    Raises:
        ValueError: unknown norm.

    >>> norms(torch.tensor([[3.0, -4.0]]), "l2")
    tensor([5.])
    """
    orders = {"linf": float("inf"), "l2": 2.0, "l1": 1.0, "l0": 0.0}
    check_choice("norm", norm, tuple(orders))
    check_batch("delta", delta)
    return torch.linalg.vector_norm(delta.flatten(1), ord=orders[norm], dim=1)


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """One number for each input, `(N,)`, shaped `(N, 1, ..., 1)` so that it multiplies a batch like `like`."""
    return values.view(len(values), *[1] * (like.ndim - 1))


def shortened(delta: Tensor, eps: float, norm: str) -> Tensor:
    r"""The perturbation of size at most `eps` nearest to each one, whatever the pixels beneath; differentiable.

    L-inf: $\mathrm{clip}(\delta, -\epsilon, \epsilon)$; L2: $\delta \min(1, \epsilon / \|\delta\|_2)$.

    >>> shortened(torch.tensor([[3.0, -4.0]]), 1.0, "l2")
    tensor([[ 0.6000, -0.8000]])
    """
    if norm == "linf":
        return delta.clamp(-eps, eps)
    scale = (eps / norms(delta, norm).clamp_min(torch.finfo(delta.dtype).tiny)).clamp_max(1)
    return delta * per_image(scale, delta)


@torch.no_grad()
def project(x_adv: Tensor, x: Tensor, eps: float, norm: str) -> Tensor:
    r"""The point of the ball around `x` nearest to `x_adv`, then clipped to the range of images.

    With $\delta = x' - x$, L-inf: $x + \mathrm{clip}(\delta, -\epsilon, \epsilon)$;
    L2: $x + \delta \min(1, \epsilon / \|\delta\|_2)$.
    Clipping to [0, 1] afterwards never leaves the ball, since `x` itself is in [0, 1].

    Args:
        x_adv: candidates `(N, ...)`, anywhere.
        x: the centers, like `x_adv`, in [0, 1].
        eps: radius, in pixel units.
        norm: "linf" or "l2".
    Returns:
        like `x`, in [0, 1] and within `eps` of `x`; a new tensor without a gradient.
    Raises:
        ValueError: names the argument.
    Simplified: in L2 a point that had to be clipped is not always the nearest one that obeys both limits.

    >>> project(torch.tensor([[0.9, 0.0]]), torch.tensor([[0.5, 0.05]]), 0.1, "linf")
    tensor([[0.6000, 0.0000]])
    """
    check_ball(x, eps, norm)
    check_like("x_adv", x_adv, x)
    return (x + shortened(x_adv - x, eps, norm)).clamp(0, 1)


def steepest(gradient: Tensor, norm: str) -> Tensor:
    r"""The unit step that raises the loss most: $\arg\max_{\|d\| \le 1} d \cdot g$.

    L-inf: $\mathrm{sign}(g)$. L2: $g / \|g\|_2$. A zero gradient gives a zero step.

    Args:
        gradient: `(N, ...)`.
        norm: "linf" or "l2".
    Returns:
        like `gradient`.
    Raises:
        ValueError: names the argument.

    >>> steepest(torch.tensor([[3.0, -4.0]]), "l2")
    tensor([[ 0.6000, -0.8000]])
    """
    check_choice("norm", norm, NORMS)
    check_batch("gradient", gradient)
    if norm == "linf":
        return gradient.sign()
    tiny = torch.finfo(gradient.dtype).tiny
    largest = gradient.abs().amax(tuple(range(1, gradient.ndim)), keepdim=True)
    gradient = gradient / largest.clamp_min(tiny)  # a confident model's gradients are so small that their squares are 0
    return gradient / per_image(norms(gradient, norm).clamp_min(tiny), gradient)


def fresh_generator(generator: torch.Generator | None, device: torch.device) -> torch.Generator:
    """The generator that was given, or a new one from the operating system's random bits; never the global state.

    `seed()` gives a CPU generator only 32 bits, few enough to try them all, so each word of its state is drawn. It is
    unpredictable at the start, but not cryptographic: who sees enough of its numbers computes the others. Private
    methods have `secure=True` against that.

    >>> first, second = (fresh_generator(None, torch.device("cpu")) for _ in range(2))
    >>> torch.equal(torch.rand(2, generator=first), torch.rand(2, generator=second))
    False
    """
    check_generator(generator, device)
    if generator is not None:
        return generator
    generator = torch.Generator(device=device)
    generator.seed()
    if device.type == "cpu":
        state = generator.get_state()
        words = torch.frombuffer(bytearray(os.urandom(4 * WORDS)), dtype=torch.int32)
        state[HEADER : HEADER + 8 * WORDS].view(torch.int64).copy_(words.long() & 0xFFFFFFFF)
        generator.set_state(state)
    return generator


def random_point(x: Tensor, eps: float, norm: str, generator: torch.Generator | None = None) -> Tensor:
    r"""A point drawn uniformly from the ball around each input, clipped to [0, 1].

    L2: a Gaussian direction times $\epsilon \, u^{1/d}$, since a ball's volume grows with the radius to the power $d$.

    Args:
        x: the centers `(N, ...)`, in [0, 1].
        eps: radius, in pixel units.
        norm: "linf" or "l2".
        generator: source of randomness; None draws a fresh one.
    Returns:
        like `x`, in [0, 1] and within `eps` of `x`.
    Raises:
        ValueError: names the argument.

    >>> x = torch.full((1, 1, 2, 2), 0.5)
    >>> bool((random_point(x, 0.1, "linf") - x).abs().max() <= 0.1 + 1e-6)
    True
    """
    check_ball(x, eps, norm)
    check_images(x)
    generator = fresh_generator(generator, x.device)
    if norm == "linf":
        noise = torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        return project(x + eps * (2 * noise - 1), x, eps, norm)
    direction = steepest(torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator), norm)
    u = torch.rand(len(x), dtype=x.dtype, device=x.device, generator=generator)
    radius = eps * u ** (1 / math.prod(x.shape[1:]))
    return project(x + per_image(radius, x) * direction, x, eps, norm)


def logits_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """`model(x)`, checked: an input that does not fit, probabilities or NaN end in a `ValueError` that says so."""
    check_labels(y, x)
    try:
        logits = model(x)
    except (RuntimeError, IndexError, TypeError) as error:
        raise ValueError(f"model fails on x of shape {tuple(x.shape)}, {x.dtype}: {error}") from error
    check_logits(logits, y)
    return logits


def values_and_gradients(objectives: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Several scores of each input, $h_m(x_i)$, and how each changes with the pixels, $\nabla_x h_m(x_i)$.

    One pass forward, then one backward for each score. A score is summed over the batch before it is differentiated,
    so that an input's gradient does not depend on its batch.

    Args:
        objectives: from inputs like `x` to scores `(N, M)`, each of its own input alone.
        x: inputs `(N, ...)`.
    Returns:
        the scores `(N, M)` and the gradients `(N, M, ...)`; both detached.
    Raises:
        ValueError: the scores have no gradient, or one that is not finite.

    >>> values_and_gradients(lambda x: torch.stack([x.sum(1), x.prod(1)], 1), torch.tensor([[3.0, 4.0]]))
    (tensor([[ 7., 12.]]), tensor([[[1., 1.], [4., 3.]]]))
    """
    check_batch("x", x)
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "torch.inference_mode() is on; accepted: torch.no_grad() or neither, an attack needs gradients"
        )
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        values = objectives(x)
        totals = values.sum(0)
        last = len(totals) - 1
        gradients = [
            torch.autograd.grad(total, x, retain_graph=m < last, allow_unused=True)[0]
            for m, total in enumerate(totals)
            if values.requires_grad
        ]
    if not gradients or any(gradient is None for gradient in gradients):
        raise ValueError(
            "model gives logits without a gradient with respect to x; accepted: a differentiable model "
            "(wrap it with bpda, chapter 03)"
        )
    if not all(gradient.sum().isfinite() for gradient in gradients):
        raise ValueError("model gives NaN or infinite gradients with respect to x; accepted: finite gradients")
    return values.detach(), torch.stack(gradients, 1)


def value_and_gradient(objective: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    r"""What each input scores, $h(x_i)$, and how the score changes with its pixels, $\nabla_x h(x_i)$.

    Args:
        objective: from inputs like `x` to scores `(N,)`, each of its own input alone.
        x: inputs `(N, ...)`.
    Returns:
        the scores `(N,)` and the gradient, like `x`; both detached.
    Raises:
        ValueError: the scores have no gradient, or one that is not finite.

    >>> value_and_gradient(lambda x: x.square().sum(1), torch.tensor([[3.0, 4.0]]))
    (tensor([25.]), tensor([[6., 8.]]))
    """
    values, gradients = values_and_gradients(lambda x: objective(x)[:, None], x)
    return values[:, 0], gradients[:, 0]


def input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    r"""How the loss of each input changes with its pixels: $\nabla_x L(f(x), y)$, with cross-entropy as $L$.

    This is the default of the `gradient` argument of attacks; an adaptive attack passes its own function of the same
    form.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`; its parameters, their gradients and its mode stay.
        x: inputs `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`.
    Returns:
        like `x`.
    Raises:
        ValueError: the logits are probabilities, not finite or of the wrong shape, or have no finite gradient.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> input_gradient(model, torch.zeros(2, 1, 2, 2), torch.tensor([0, 2])).shape
    torch.Size([2, 1, 2, 2])
    """
    return value_and_gradient(lambda x: F.cross_entropy(logits_of(model, x, y), y, reduction="none"), x)[1]


def margin(logits: Tensor, y: Tensor) -> Tensor:
    r"""By how much the score of `y` leads every other: $z_y - \max_{i \ne y} z_i$; below 0 another class wins.

    Logits, their log-softmax and logarithms of probabilities give the same margin.

    Args:
        logits: `(N, K)`, K at least 2.
        y: labels `(N,)`; the margin of a target class is what a targeted attack raises.
    Returns:
        `(N,)`.

    >>> margin(torch.tensor([[2.0, 5.0, 1.0]]), torch.tensor([0]))
    tensor([-3.])
    """
    of_y = logits.gather(1, y[:, None])[:, 0]
    return of_y - logits.scatter(1, y[:, None], -math.inf).amax(1)


def runner_up(logits: Tensor, y: Tensor) -> Tensor:
    """The likeliest class other than `y`, `(N,)`: where an attack without a target finds the shortest way out.

    >>> runner_up(torch.tensor([[2.0, 5.0, 1.0]]), torch.tensor([1]))
    tensor([0])
    """
    return logits.scatter(1, y[:, None], -math.inf).argmax(1)


def jacobian(model: nn.Module, x: Tensor, y: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""The logits, and how each of them changes with the pixels: $\partial z_k / \partial x$.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: inputs `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`; only so that the logits can be checked against them.
        classes: which classes of each input, `(N, M)`, int64; None takes all K in order.
    Returns:
        logits `(N, M)` and Jacobian `(N, M, C, H, W)`; both detached.
    Raises:
        ValueError: as `values_and_gradients`.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> jacobian(model, torch.zeros(2, 1, 2, 2), torch.tensor([0, 2]))[1].shape
    torch.Size([2, 3, 1, 2, 2])
    """

    def chosen(x: Tensor) -> Tensor:
        logits = logits_of(model, x, y)
        return logits if classes is None else logits.gather(1, classes)

    return values_and_gradients(chosen, x)


def warn_of_zeros(g: Tensor) -> None:
    """Warn, with the number of inputs, where all gradients of an input, `(N, ...)`, are exactly zero."""
    zeros = int((g.flatten(1).abs().amax(1) == 0).sum())
    if zeros:
        warn_suspicious(
            f"{zeros} of {len(g)} inputs have a gradient of exactly zero: no gradient attack can move them.",
            "07 (gradient masking)",
        )


def checked(gradient: Gradient) -> Gradient:
    """A `gradient` hook whose answers are checked, for one run of an attack.

    An answer that does not fit `x` or is not finite raises `ValueError`; zeros in the first one are warned about, once.
    An empty batch never reaches the hook, since many models cannot flatten one.
    """
    first = True

    def answer(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        nonlocal first
        if len(x) == 0:
            return torch.zeros_like(x)
        g = gradient(model, x, y)
        check_like("what gradient returns", g, x)
        if not g.sum().isfinite():
            raise ValueError("gradient returns NaN or infinite values; accepted: finite gradients")
        if first:
            warn_of_zeros(g)
        first = False
        return g.detach()

    return answer


@torch.no_grad()
def fooled(model: nn.Module, x_adv: Tensor, y: Tensor, *, targeted: bool = False) -> Tensor:
    """Which inputs the model gets wrong, or takes for the target class.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x_adv: inputs `(N, C, H, W)` in [0, 1].
        y: true labels `(N,)`; target classes if `targeted`.
        targeted: whether `y` is what the attacker wants rather than what is right.
    Returns:
        bool `(N,)`.
    Raises:
        ValueError: names the argument.

    >>> model = nn.Flatten()
    >>> fooled(model, torch.tensor([[[0.0, 0.9]], [[0.0, 0.9]]]), torch.tensor([0, 1]))
    tensor([ True, False])
    """
    check_flag("targeted", targeted)
    check_batch("x_adv", x_adv)
    if len(x_adv) == 0:
        return torch.zeros(0, dtype=torch.bool, device=x_adv.device)
    hit = logits_of(model, x_adv, y).argmax(1) == y
    return hit if targeted else ~hit


def recording(path: list[Tensor], gradient: Gradient = input_gradient) -> Gradient:
    """A `gradient` hook that notes every place where the attack asks for the slope: its iterates.

    >>> path = []
    >>> hook = recording(path, lambda model, x, y: x)
    >>> hook(None, torch.zeros(1, 2), torch.tensor([0])), path
    (tensor([[0., 0.]]), [tensor([[0., 0.]])])
    """

    def recorded(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        path.append(x.detach().clone())
        return gradient(model, x, y)

    return recorded
