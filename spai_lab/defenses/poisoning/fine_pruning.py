r"""Model repair without a trigger: prune the channels that clean images leave dormant, then fine-tune."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from spai_lab.checks import check_count, check_flag, check_generator, check_inputs, check_number, describe
from spai_lab.training.loop import accuracy, fit


class PruningCurve(NamedTuple):
    """What pruning costs, channel by channel.

    Args:
        order: the channels of the last convolution, the most dormant first, int64 `(C,)`.
        activations: their mean activations, in that order, `(C,)`.
        accuracies: with the first 0, 1, ..., C - 1 of them pruned, `(C,)`.
    """

    order: Tensor
    activations: Tensor
    accuracies: Tensor

    def prunable(self, max_drop: float) -> int:
        """How many channels go before the accuracy has dropped by more than `max_drop`."""
        low = self.accuracies < self.accuracies[0] - max_drop - 1e-9
        return int(low.int().argmax()) - 1 if low.any() else len(low) - 1


def fine_pruning(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    max_drop: float = 0.04,
    epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> nn.Module:
    r"""Fine-pruning: prune what clean images do not use, where a backdoor hides, then fine-tune what is left.

    $\theta' = \arg\min_\theta \sum_i L(f_{\theta \odot m}(x_i), y_i)$ from the weights of `model`, with m = 0 on the
    most dormant channels of the last convolution, as many as cost at most `max_drop` of the accuracy.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, with a convolution.
        x: the defender's trusted clean images, float `(N, C, H, W)` in [0, 1].
        y: their labels `(N,)`, int64.
        max_drop: of the accuracy on `x` by pruning, from 0 to 1.
        epochs: of fine-tuning; 0 only prunes.
        batch_size, learning_rate: of fine-tuning, as in `fit`.
        generator: shuffles the images; None draws a fresh one.
        progress: show a bar.
    Returns:
        the repaired model, in evaluation mode; pruned channels stay 0.
    Raises:
        ValueError: names the argument.
    Reference: Liu 2018, arXiv 1805.12185, sections 3.1 (pruning) and 3.3 (fine-pruning); a drop of 4 points.
    Survey: defenses against poisoning, model repair.
    Simplified: the same trusted images rank the channels, measure the drop and fine-tune; AdamW fine-tunes.

    >>> from spai_lab.data import load
    >>> from spai_lab.training import reference
    >>> data, model = load("digits"), reference("lenet", "digits")
    >>> repaired = fine_pruning(model, data.x_val, data.y_val, epochs=1, progress=False)
    >>> accuracy(repaired, data.x_val, data.y_val) > 0.9
    True
    """
    check_number("max_drop", max_drop, low=0, high=1)
    check_count("epochs", epochs, low=0)
    check_generator(generator, x.device if isinstance(x, Tensor) else torch.device("cpu"))
    check_flag("progress", progress)
    curve = pruning_curve(model, x, y)
    repaired = copy.deepcopy(model).eval()
    conv = last_convolution(repaired)
    mask(conv, curve.order[: curve.prunable(max_drop)])
    if epochs:
        settings = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
        fit(repaired, x, y, **settings, generator=generator, progress=progress)
    for name in masked_parameters(conv):
        prune.remove(conv, name)
    return repaired


def pruning_curve(model: nn.Module, x: Tensor, y: Tensor) -> PruningCurve:
    """The accuracy while the channels of the last convolution are pruned, the most dormant first.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, with a convolution.
        x: clean images, float `(N, C, H, W)` in [0, 1], N at least 1.
        y: their labels `(N,)`, int64.
    Returns:
        the order of the channels, their mean activations, and the accuracies.
    Raises:
        ValueError: names the argument.
    Reference: Liu 2018, arXiv 1805.12185, section 3.1.

    >>> from spai_lab.data import load
    >>> from spai_lab.training import reference
    >>> data = load("digits")
    >>> pruning_curve(reference("lenet", "digits"), data.x_val, data.y_val).accuracies.shape
    torch.Size([16])
    """
    check_inputs(model, x, y)
    check_count("the number of images in x", len(x))
    activations, order = mean_activations(model, x).sort()
    accuracies = [accuracy(pruned(model, order[:count]), x, y) for count in range(len(order))]
    return PruningCurve(order, activations, torch.tensor(accuracies))


def pruned(model: nn.Module, channels: Tensor) -> nn.Module:
    """A copy of the model, in evaluation mode, whose last convolution answers 0 in these channels, int64 `(M,)`."""
    smaller = copy.deepcopy(model).eval()
    conv = last_convolution(smaller)
    mask(conv, channels)
    for name in masked_parameters(conv):
        prune.remove(conv, name)
    return smaller


@torch.no_grad()
def mean_activations(model: nn.Module, x: Tensor, batch_size: int = 1000) -> Tensor:
    """How strongly images excite each channel of the last convolution, after its ReLU: the mean, `(C,)`."""
    sums = []
    handle = last_convolution(model).register_forward_hook(
        lambda _, inputs, output: sums.append(output.relu().mean((2, 3)).sum(0))
    )
    try:
        for batch in x.split(batch_size):
            model(batch)
    finally:
        handle.remove()
    return torch.stack(sums).sum(0) / len(x)


def last_convolution(model: nn.Module) -> nn.Conv2d:
    """The last convolution of a model; `ValueError` if it has none."""
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    if not convolutions:
        raise ValueError(f"model is {describe(model)}; accepted: one with a convolution, whose channels can be pruned")
    return convolutions[-1]


def mask(conv: nn.Conv2d, channels: Tensor) -> None:
    """Hold the weights and the biases of these channels at 0, in place, while the layer is trained."""
    for name in masked_parameters(conv):
        kept = torch.ones_like(getattr(conv, name))
        kept[channels] = 0
        prune.custom_from_mask(conv, name, kept)


def masked_parameters(conv: nn.Conv2d) -> tuple[str, ...]:
    """The names of a convolution's parameters."""
    return ("weight",) if conv.bias is None and not hasattr(conv, "bias_orig") else ("weight", "bias")
