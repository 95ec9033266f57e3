r"""Shadow models: many small networks, each trained on a half of the same inputs that its owner chose.

An attacker who wants to know what a model says of an input that it has seen, and of one that it has not, trains models
of their own and looks. All of them learn at once: the weights of S models are stacked, one step moves them all.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from tqdm.auto import trange

from spai_lab.checks import (
    check_callable,
    check_count,
    check_flag,
    check_images,
    check_labels,
    check_number,
    describe,
)
from spai_lab.threat import fresh_generator
from spai_lab.training.loop import finite

Weights = dict[str, Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class Shadows:
    """Models whose training sets are known, and what each says.

    Args:
        weights: by name, stacked, `(S, ...)` each.
        inside: which inputs each model was trained on, bool `(S, N)`.
        skeleton: the network that the weights belong to.
    """

    weights: Weights
    inside: Tensor
    skeleton: nn.Module

    def __len__(self) -> int:
        return len(self.inside)

    def __repr__(self) -> str:
        count, inputs = self.inside.shape
        return f"Shadows: {count} models, each trained on {int(self.inside[0].sum()):,} of {inputs:,} inputs"

    @torch.no_grad()
    def logits(self, x: Tensor, *, batch_size: int = 1000) -> Tensor:
        """What every model says of every input, `(S, N, K)`.

        Args:
            x: `(N, C, H, W)` in [0, 1].
            batch_size: inputs at a time.
        """
        check_images(x)
        check_count("batch_size", batch_size)
        answer = vmap(self._answer, in_dims=(0, None))
        return torch.cat([answer(self.weights, part) for part in x.split(batch_size)], dim=1)

    def model(self, number: int) -> nn.Module:
        """One of the models, in evaluation mode."""
        if not 0 <= number < len(self):
            raise ValueError(f"number is {describe(number)}; accepted: 0 to {len(self) - 1}")
        model = copy.deepcopy(self.skeleton)
        model.load_state_dict({name: stack[number] for name, stack in self.weights.items()})
        return model.eval()

    def some(self, numbers: Tensor) -> "Shadows":
        """These models alone, by a mask or by their numbers."""
        return Shadows(
            {name: stack[numbers] for name, stack in self.weights.items()}, self.inside[numbers], self.skeleton
        )

    def _answer(self, weights: Weights, x: Tensor) -> Tensor:
        return functional_call(self.skeleton, weights, (x,))


def random_halves(count: int, inputs: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Random halves of the inputs, in pairs of a half and the other one, so that each input is in half of them.

    Args:
        count: S, how many halves, an even number.
        inputs: N, an even number.
        generator: draws them; None draws a fresh one.
    Returns:
        bool `(S, N)`; N / 2 in each row, S / 2 in each column.
    Raises:
        ValueError: names the argument.
    Reference: Carlini 2022, arXiv 2112.03570, section IV-A: each input is trained on by half of the shadow models.

    >>> random_halves(4, 6).sum(0), random_halves(4, 6).sum(1)
    (tensor([2, 2, 2, 2, 2, 2]), tensor([3, 3, 3, 3]))
    """
    for name, value in (("count", count), ("inputs", inputs)):
        check_count(name, value, low=2)
        if value % 2:
            raise ValueError(f"{name} is {value}; accepted: an even number")
    generator = fresh_generator(generator, torch.device("cpu"))
    order = torch.stack([torch.randperm(inputs, generator=generator) for _ in range(count // 2)])
    half = torch.zeros(count // 2, inputs, dtype=torch.bool).scatter(1, order[:, : inputs // 2], True)
    return torch.stack([half, ~half], 1).flatten(0, 1)


def train_shadows(
    x: Tensor,
    y: Tensor,
    inside: Tensor,
    build: Callable[[torch.Generator], nn.Module],
    *,
    epochs: int = 30,
    batch_size: int = 50,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Shadows:
    r"""Train S models at once, each on its own part of the inputs.

    $\theta_s \leftarrow \theta_s - \alpha \nabla \sum_s L(f_{\theta_s}(x_{b_s}), y_{b_s})$: a weight of one model has
    no part in the loss of another, so the sum's gradient is every model's own. The step is AdamW's.

    Args:
        x: all inputs, float `(N, C, H, W)` in [0, 1].
        y: their labels `(N,)`, int64.
        inside: which inputs each model is trained on, bool `(S, N)`, as many for each, at least 1.
        build: from a generator to a network with first weights, as `spai_lab.models.build` draws them; without dropout
            and batch norm, which would tie the models or their batches together.
        epochs: passes over a model's own part.
        batch_size: inputs of a step, for each model.
        learning_rate: above 0.
        weight_decay: of AdamW, at least 0.
        generator: draws first weights and batches; None draws a fresh one.
        progress: show a bar.
    Returns:
        the models.
    Raises:
        ValueError: names the argument.
        spai_lab.training.Diverged: a loss is no longer finite.
    Reference: shadow models: Shokri 2017, arXiv 1610.05820, section V-C.

    >>> from spai_lab.models import softmax_regression
    >>> build = lambda generator: softmax_regression((1, 2, 2), 2, generator=generator)
    >>> x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
    >>> train_shadows(x, y, random_halves(4, 8), build, progress=False)
    Shadows: 4 models, each trained on 4 of 8 inputs
    """
    check_shadows(x, y, inside, build, progress)
    check_count("epochs", epochs)
    check_count("batch_size", batch_size)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)
    check_number("weight_decay", weight_decay, low=0)
    generator = fresh_generator(generator, x.device)
    models = [build(generator).train() for _ in inside]
    weights, buffers = stack_module_state(models)
    if buffers or any(isinstance(layer, nn.modules.dropout._DropoutNd) for layer in models[0].modules()):
        raise ValueError("build makes a network with dropout or buffers; accepted: one with neither")
    weights = {name: stack.detach().requires_grad_() for name, stack in weights.items()}
    skeleton = copy.deepcopy(models[0]).eval()
    losses = vmap(lambda theta, x, y: F.cross_entropy(functional_call(models[0], theta, (x,)), y))
    optimizer = torch.optim.AdamW(weights.values(), lr=learning_rate, weight_decay=weight_decay)
    own = torch.stack([row.nonzero()[:, 0] for row in inside])
    for _ in trange(epochs, desc=f"training {len(own)} shadow models", unit="epoch", disable=not progress):
        order = torch.rand(own.shape, generator=generator, device=own.device).argsort(1)
        for batch in own.gather(1, order).split(batch_size, dim=1):
            loss = losses(weights, x[batch], y[batch]).sum()
            finite(loss, learning_rate)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Shadows({name: stack.detach() for name, stack in weights.items()}, inside.clone(), skeleton)


def check_shadows(x: Tensor, y: Tensor, inside: Tensor, build: Callable, progress: bool) -> None:
    """Raise `ValueError` unless each model has as many inputs of its own."""
    check_images(x)
    check_labels(y, x)
    check_callable("build", build)
    check_flag("progress", progress)
    if not isinstance(inside, Tensor) or inside.dtype != torch.bool or inside.ndim != 2 or inside.shape[1] != len(x):
        raise ValueError(f"inside is {describe(inside)}; accepted: bool (S, {len(x)}), a row for each model")
    sizes = inside.sum(1)
    if len(inside) == 0 or sizes.min() < 1 or sizes.min() < sizes.max():
        raise ValueError("inside gives the models parts of different size, or none; accepted: as many inputs for each")


def check_known(x: Tensor, y: Tensor, shadows: Shadows) -> None:
    """Raise `ValueError` unless the shadow models know which of the inputs they were trained on."""
    check_images(x)
    check_labels(y, x)
    if not isinstance(shadows, Shadows) or shadows.inside.shape[1] != len(x):
        raise ValueError(f"shadows is {describe(shadows)}; accepted: Shadows of the same {len(x)} inputs")
