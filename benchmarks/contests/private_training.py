"""An epoch of DP-SGD from fresh weights, on Poisson batches of 256 in the mean; "success" is the test accuracy.

Opacus gets its batches for nothing, and no checks; ours tosses its coins, counts the budget, and tries its fast path
first. "plain SGD" trains on the same batches without clipping and noise: what privacy costs in time.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from benchmarks.contest import Contest, Run
from spai_lab.data import load
from spai_lab.metrics import accuracy_rate
from spai_lab.models import build
from spai_lab.privacy.dp_sgd import dp_sgd, poisson_batches

BATCH = 256
RATE = 0.5
SIGMA = 1.1
CLIP = 1.0


@dataclass(frozen=True)
class Epoch(Contest):
    """One pass over `images` training images, repeated where the data set has fewer; runs return the weights."""

    def victim(self) -> tuple[nn.Module, Tensor, Tensor]:
        """The untrained model, the images, and the labels."""
        data = load()
        model = build(self.model, data.shape, data.num_classes, generator=torch.Generator().manual_seed(0))
        chosen = torch.arange(self.images) % len(data.x_train)
        return model, data.x_train[chosen], data.y_train[chosen]

    def judge(self, weights: Tensor) -> tuple[float, float | None]:
        """The accuracy on test images."""
        model, data = self.victim()[0], load()
        vector_to_parameters(weights, model.parameters())
        return accuracy_rate(model.eval(), *data.sample(1000)).value, None


def settings(x: Tensor) -> tuple[float, int]:
    """The sampling rate, and the steps of an epoch."""
    q = min(1.0, BATCH / len(x))
    return q, round(1 / q)


def from_the_start(model: nn.Module, epoch: Callable[[], object]) -> Run:
    """An epoch that begins with the same weights whenever it is run."""
    start = parameters_to_vector(model.parameters()).detach().clone()

    def run() -> Tensor:
        vector_to_parameters(start.clone(), model.parameters())
        epoch()
        return parameters_to_vector(model.parameters()).detach()

    return run


def ours(model: nn.Module, x: Tensor, y: Tensor, path: str = "fast") -> Run:
    model = deepcopy(model)
    q, steps = settings(x)
    privacy = {"noise_multiplier": SIGMA, "clip": CLIP, "sampling_rate": q, "steps": steps, "delta_dp": 1e-5}
    train = partial(dp_sgd, model, x, y, **privacy, learning_rate=RATE, path=path, progress=False)
    return from_the_start(model, train)


def plain(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    model = deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE / 10)

    def epoch() -> None:
        for batch in poisson_batches(len(x), *settings(x)):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()

    return from_the_start(model, epoch)


def by_opacus(model: nn.Module, x: Tensor, y: Tensor, *, functorch: bool = False) -> Run:
    """Gradients of each example by hooks, or by functorch."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    model = deepcopy(model)
    sampled = GradSampleModule(model, loss_reduction="mean", force_functorch=functorch)
    optimizer = DPOptimizer(torch.optim.SGD(model.parameters(), lr=RATE), **noise_of(x))
    batches = list(poisson_batches(len(x), *settings(x)))

    def epoch() -> None:
        for batch in batches:
            optimizer.zero_grad()
            F.cross_entropy(sampled(x[batch]), y[batch]).backward()
            optimizer.step()

    return from_the_start(model, epoch)


def by_opacus_ghost(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    """Lengths without gradients, then a second pass backward."""
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    model = deepcopy(model)
    sampled = GradSampleModuleFastGradientClipping(model, max_grad_norm=CLIP, use_ghost_clipping=True)
    optimizer = DPOptimizerFastGradientClipping(torch.optim.SGD(model.parameters(), lr=RATE), **noise_of(x))
    criterion = DPLossFastGradientClipping(sampled, optimizer, nn.CrossEntropyLoss())
    batches = list(poisson_batches(len(x), *settings(x)))

    def epoch() -> None:
        for batch in batches:
            optimizer.zero_grad()
            criterion(sampled(x[batch]), y[batch]).backward()
            optimizer.step()

    return from_the_start(model, epoch)


def noise_of(x: Tensor) -> dict:
    return {
        "noise_multiplier": SIGMA,
        "max_grad_norm": CLIP,
        "expected_batch_size": round(settings(x)[0] * len(x)),
        "loss_reduction": "mean",
    }


EPOCH = {
    "ours": ours,
    "our vmap": partial(ours, path="vmap"),
    "plain SGD": plain,
    "Opacus hooks": by_opacus,
    "Opacus vmap": partial(by_opacus, functorch=True),
    "Opacus ghost": by_opacus_ghost,
}

CONTESTS = (
    Epoch("DP-SGD, an epoch of LeNet", EPOCH, images=10_000, rounds=9, model="lenet", memory=True),
    Epoch("DP-SGD, an epoch of the MLP", EPOCH, images=10_000, rounds=9, model="mlp", memory=True),
)
