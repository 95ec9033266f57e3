"""Adaptive attacks: wrap a defended model so that every attack applies, whatever the defense hides from a gradient."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spai_lab.checks import check_callable, check_count, check_like
from spai_lab.threat import fresh_generator, logits_of

Transformation = Callable[[Tensor, torch.Generator], Tensor]


def bpda(model: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor] | None = None) -> nn.Module:
    r"""Backward pass differentiable approximation: forward through the defense itself, backward through a stand-in.

    Forward $z = g(x)$, exactly; backward $\nabla_x z := \nabla_x \tilde g(x)$ with a differentiable
    $\tilde g(x) \approx g(x)$. Two uses, the same function:

    - A step g in front of a classifier f, such as rounding or compression: `nn.Sequential(bpda(g), f)` answers
      $f(g(x))$ and has the gradient $\nabla f$ at $g(x)$: where $g(x) \approx x$ the identity is a good stand-in.
    - A defended model that is closed as a whole: `bpda(defended, stand_in)`, where the stand-in is the network without
      its defense, or a substitute trained to answer alike.

    Args:
        model: g, what the defender runs, from `x` to any tensor; neither needs nor gets a gradient.
        backward: the stand-in, differentiable, with an output like that of `model`; None takes the identity.
    Returns:
        a model that answers as `model` does; its parameters are those of `model` and `backward`. Without a gradient
        (under `torch.no_grad()`) the stand-in is not run.
    Raises:
        ValueError: an argument cannot be called; when the model runs: the outputs differ in shape or dtype.
    Reference: Athalye et al. 2018, arXiv 1802.00420, sections 4.1.1 and 4.1.2.
    Survey: evasion, white-box.
    Simplified: nothing; for a stand-in that has to be learned see `substitute`.

    >>> levels = bpda(lambda x: (4 * x).round() / 4)
    >>> x = torch.tensor([[0.3, 0.7]], requires_grad=True)
    >>> z = levels(x)
    >>> z.square().sum().backward()
    >>> z.detach(), x.grad
    (tensor([[0.2500, 0.7500]]), tensor([[0.5000, 1.5000]]))

    >>> network = nn.Linear(2, 3)
    >>> defended = bpda(lambda x: network(x).round(decimals=1), network)
    >>> torch.equal(defended(x), network(x).round(decimals=1))
    True
    """
    check_callable("model", model)
    backward = nn.Identity() if backward is None else backward
    check_callable("backward", backward)
    return StandIn(model, backward)


def eot(
    model: nn.Module,
    samples: int,
    *,
    transformation: Transformation | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    r"""Expectation over transformation: attack what a random model, or a random view, answers on average.

    $\bar z_k(x) = \frac{1}{S} \sum_{s=1}^{S} \log P_s(k \mid t_s(x)) \approx E_{t \sim T}[\log P(k \mid t(x))]$, the
    expectation that the paper maximizes, one for each class; its gradient is the mean of the gradients. Differences
    between classes, and so margins and the softmax, are those of the mean of the logits.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`; draws its own randomness anew whenever it is called.
        samples: S, how often `model` is run each time, at least 1.
        transformation: t, `(x, generator) -> x`, differentiable, random through the generator it is given; None leaves
            `x` as it is and averages over the randomness of `model` alone.
        generator: source of the transformations; None draws a fresh one. The returned model owns it:
            `wrapped.generator.manual_seed(0)` repeats the draws.
    Returns:
        a model like any other, from `x` to $\bar z$, `(N, K)`. It is for the attack to climb; whether the attack
        succeeded is for the defended model itself to say.
    Raises:
        ValueError: an argument is out of its range; when the model runs: it does not return logits.
    Reference: Athalye et al. 2017, arXiv 1707.07397, section 2.1; for random defenses Athalye et al. 2018,
        arXiv 1802.00420, section 4.2.
    Survey: evasion, white-box and physical.
    Simplified: the penalty on the expected distance in the transformed views is left to the attack's own limit;
        cross-entropy of the result is $-\bar z_y + \log \sum_k e^{\bar z_k}$, at most the mean cross-entropy.

    >>> from spai_lab.attacks.evasion.spatial import random_moves, transform
    >>> def turned(x, generator):
    ...     return transform(x, *random_moves(x, rotation=20, shift=1, generator=generator))
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    >>> robustly = eot(model, 8, transformation=turned, generator=torch.Generator().manual_seed(0))
    >>> robustly(torch.rand(2, 1, 4, 4)).shape
    torch.Size([2, 3])
    """
    check_callable("model", model)
    check_count("samples", samples)
    if transformation is not None:
        check_callable("transformation", transformation)
    parameter = next(model.parameters(), torch.empty(0)) if isinstance(model, nn.Module) else torch.empty(0)
    return Expected(model, samples, transformation, fresh_generator(generator, parameter.device))


class StandIn(nn.Module):
    """Answers as `model`, is differentiated as `backward`."""

    def __init__(self, model: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.backward = model, backward
        self.training = getattr(model, "training", False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            exact = self.model(x)
        if not torch.is_grad_enabled():
            return exact
        approximate = self.backward(x)
        check_like("what backward returns", approximate, exact)
        return Replace.apply(approximate, exact)


class Replace(torch.autograd.Function):
    """The second argument forward, the gradient of the first one backward; no rounding error in either."""

    @staticmethod
    def forward(ctx: object, approximate: Tensor, exact: Tensor) -> Tensor:
        return exact.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class Expected(nn.Module):
    """The mean of the log-probabilities over `samples` runs of a random model on random views."""

    def __init__(
        self, model: nn.Module, samples: int, transformation: Transformation | None, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.model, self.samples, self.transformation, self.generator = model, samples, transformation, generator
        self.training = getattr(model, "training", False)

    def forward(self, x: Tensor) -> Tensor:
        any_class = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return (
            sum(logits_of(self.model, self.view(x), any_class).log_softmax(1) for _ in range(self.samples))
            / self.samples
        )

    def view(self, x: Tensor) -> Tensor:
        """One random view of each image."""
        return x if self.transformation is None else self.transformation(x, self.generator)
