"""PGD through BPDA beside ART's, on a network behind squeezed pixels; PGD with EOT beside torchattacks', under noise.

The table counts success on the victim without its defense, alike for all.
"""

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.contest import Contest, Run
from spai_lab.attacks.evasion.adaptive import bpda, eot
from spai_lab.attacks.evasion.gradient import pgd

BITS, SIGMA, SAMPLES = 3, 0.5, 10
EPS, STEPS = 0.1, 10


def squeezed(x: Tensor) -> Tensor:
    """Pixels of few bits."""
    levels = 2**BITS - 1
    return (x * levels).round() / levels


class Noisy(nn.Module):
    """Gaussian noise on the pixels, drawn anew at every call."""

    def __init__(self, model: nn.Module, seed: int = 0) -> None:
        super().__init__()
        self.model, self.generator = model, torch.Generator().manual_seed(seed)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x + SIGMA * torch.randn(x.shape, dtype=x.dtype, generator=self.generator))


def bpda_ours(model: nn.Module, x: Tensor, y: Tensor, *, eps: float = EPS) -> Run:
    defended = nn.Sequential(bpda(squeezed), model)
    return partial(pgd, defended, x, y, eps=eps, steps=STEPS, step_size=eps / STEPS, random_start=False)


def bpda_by_art(model: nn.Module, x: Tensor, y: Tensor, *, eps: float = EPS) -> Run:
    """ART squeezes in NumPy, so that its NumPy version of PGD is the one that can attack it."""
    from art.attacks.evasion import ProjectedGradientDescentNumpy
    from art.defences.preprocessor import FeatureSqueezing
    from art.estimators.classification import PyTorchClassifier

    class Float32Squeezing(FeatureSqueezing):
        def __call__(self, x, y=None):
            pixels, y = super().__call__(x, y)  # in float64
            return pixels.astype(x.dtype), y

    classifier = PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        preprocessing_defences=Float32Squeezing(clip_values=(0.0, 1.0), bit_depth=BITS),
        device_type="cpu",
    )
    attack = ProjectedGradientDescentNumpy(
        classifier, eps=eps, eps_step=eps / STEPS, max_iter=STEPS, batch_size=len(x), verbose=False
    )
    return lambda: torch.from_numpy(attack.generate(x.numpy(), y=y.numpy()))


def eot_ours(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    return partial(pgd, eot(Noisy(model), SAMPLES), x, y, eps=EPS, steps=STEPS, step_size=EPS / STEPS)


def eot_by_torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    import torchattacks

    attack = torchattacks.EOTPGD(Noisy(model).eval(), eps=EPS, alpha=EPS / STEPS, steps=STEPS, eot_iter=SAMPLES)
    return partial(attack, x, y)


CONTESTS = (
    Contest("bpda (PGD-10)", {"ours": bpda_ours, "ART": bpda_by_art}, images=256, rounds=10),
    Contest("eot (PGD-10)", {"ours": eot_ours, "torchattacks": eot_by_torchattacks}, images=256, rounds=5),
)
