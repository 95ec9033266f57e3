"""Secure noise against ordinary noise: what it costs that no seed and no last bit gives a secret away.

"success" is the share of the noise within one deviation, 68.3 % for normals and 63.2 % for Laplace's, or of the answers
that are the true class, or of the choices that are the best: it tells that all draw from the same distribution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.contest import Contest, Run
from spai_lab.privacy.mechanisms import (
    exponential_mechanism,
    gaussian_mechanism,
    gaussian_sigma,
    laplace_mechanism,
    randomized_response,
)
from spai_lab.privacy.secure import add_secure_noise, secure_normal

PRIVACY = {"sensitivity": 1.0, "epsilon": 1.0}
RELEASES, CLASSES = 100, 10
SCORES = torch.arange(10.0)


@dataclass(frozen=True)
class NoiseContest(Contest):
    """Competitors return noise, or classes; none looks at the images. The victim is there for the size of its gradient.

    Args:
        inside: from what a competitor returns to what counts as a success, bool.
    """

    inside: Callable[[Tensor], Tensor] = lambda noise: noise.abs() < 1
    images: int = 1

    def judge(self, x_adv: Tensor) -> tuple[float, None]:
        """The share inside."""
        return self.inside(x_adv).double().mean().item(), None


# --- a gradient -------------------------------------------------------------------------------------------------------


def length(model: nn.Module) -> tuple[int]:
    return (sum(parameter.numel() for parameter in model.parameters()),)


def secure_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    """As DP-SGD adds it: on the grid."""
    gradient = torch.zeros(length(model))
    return lambda: add_secure_noise(gradient, 1.0)


def normals_alone(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    return lambda: secure_normal(length(model))


def ordinary_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    gradient = torch.zeros(length(model))
    return lambda: gradient + torch.randn(gradient.shape)


def opacus_gradient(model: nn.Module, x: Tensor, y: Tensor, *, secure: bool) -> Run:
    """Its secure mode sums as many normals as ours; its generator is torch's own unless torchcsprng is installed."""
    from opacus.optimizers.optimizer import _generate_noise

    gradient = torch.zeros(length(model))
    return lambda: gradient + _generate_noise(1.0, gradient, secure_mode=secure)


# --- single numbers and classes ---------------------------------------------------------------------------------------


def released(model: nn.Module, x: Tensor, y: Tensor, *, mechanism: Callable[..., float], secure: bool) -> Run:
    return lambda: torch.tensor([mechanism(0.0, **PRIVACY, secure=secure) for _ in range(RELEASES)])


def answered(model: nn.Module, x: Tensor, y: Tensor, *, secure: bool) -> Run:
    """One call a respondent, since nobody sees the others' values."""
    value = torch.zeros(1, dtype=torch.int64)
    settings = {"epsilon": 1.0, "secure": secure}
    return lambda: torch.cat([randomized_response(value, CLASSES, **settings) for _ in range(RELEASES)])


def chosen(model: nn.Module, x: Tensor, y: Tensor, *, secure: bool) -> Run:
    return lambda: torch.tensor([exponential_mechanism(SCORES, **PRIVACY, secure=secure) for _ in range(RELEASES)])


def against(prepare: Callable[..., Run], **settings) -> dict[str, Callable[..., Run]]:
    return {"ours": partial(prepare, secure=True, **settings), "ordinary": partial(prepare, secure=False, **settings)}


GAUSSIAN = {**PRIVACY, "delta_dp": 1e-5}
SIGMA = gaussian_sigma(**GAUSSIAN)

CONTESTS = (
    NoiseContest(
        "Secure noise for a gradient",
        {
            "ours": secure_gradient,
            "normals alone": normals_alone,
            "torch.randn": ordinary_gradient,
            "Opacus secure": partial(opacus_gradient, secure=True),
        },
        rounds=20,
    ),
    NoiseContest(f"Secure Laplace, {RELEASES} numbers", against(released, mechanism=laplace_mechanism), rounds=20),
    NoiseContest(
        f"Secure Gaussian, {RELEASES} numbers",
        against(released, mechanism=partial(gaussian_mechanism, delta_dp=1e-5)),
        rounds=20,
        inside=lambda noise: noise.abs() < SIGMA,
    ),
    NoiseContest(
        f"Secure randomized response, {RELEASES} answers",
        against(answered),
        rounds=20,
        inside=lambda answers: answers == 0,
    ),
    NoiseContest(
        f"Secure exponential mechanism, {RELEASES} choices of {len(SCORES)}",
        against(chosen),
        rounds=20,
        inside=lambda choices: choices == len(SCORES) - 1,
    ),
)
