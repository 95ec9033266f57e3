r"""Each example's own gradient: visible with `vmap`, and fast, where it is never written down.

Private training needs $g_i = \nabla_\theta L(f_\theta(x_i), y_i)$ of every example i by itself, to bound how long each
may be: $\sum_i c_i g_i$ with $c_i = \min(1, C / \|g_i\|)$. `per_example_gradients` is the definition. The fast path
takes what one pass forward and one backward meet at each layer anyway: its inputs $a_i$ and the slopes $b_i$ of the
loss at its outputs. A linear layer's gradient is $b_i a_i^\top$, so its length is $\|b_i\| \|a_i\|$, and the sum
$\sum_i c_i b_i a_i^\top$ is one product of matrices.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from spai_lab.checks import check_images, check_labels, check_model, check_number, describe

Gradients = dict[str, Tensor]
Part = tuple[Tensor, Callable[[Tensor], Tensor]]


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training moves, by name; frozen ones are left out.

    >>> model = nn.Linear(2, 1)
    >>> _ = model.bias.requires_grad_(False)
    >>> list(trained_parameters(model))
    ['weight']
    """
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def per_example_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Gradients:
    r"""The gradient of each example's loss, $g_i = \nabla_\theta L(f_\theta(x_i), y_i)$, by `vmap`.

    `grad` turns the loss of one example into its gradient, `vmap` runs that for all examples at once. Each example goes
    through the model alone, so that no other can change its gradient.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`; frozen parameters are left out. Its mode is as it comes.
        x: inputs, floating point `(N, C, H, W)` in [0, 1]; N may be 0.
        y: labels `(N,)`, int64.
    Returns:
        by name of a parameter, `(N, ...)` each, detached.
    Raises:
        ValueError: names the argument.
    Reference: Abadi 2016, arXiv 1607.00133, algorithm 1, "compute gradient".
    Survey: private AI, differential privacy, gradient level.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> gradients = per_example_gradients(model, torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 1]))
    >>> {name: tuple(gradient.shape) for name, gradient in gradients.items()}
    {'1.weight': (3, 2, 4), '1.bias': (3, 2)}
    """
    check_examples(model, x, y)
    theta = {name: parameter.detach() for name, parameter in trained_parameters(model).items()}
    if len(x) == 0:
        return {name: parameter.new_zeros(0, *parameter.shape) for name, parameter in theta.items()}

    def loss(theta: Gradients, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, theta, (x[None],)), y[None])

    return vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")(theta, x, y)


def gradient_norms(gradients: Gradients) -> Tensor:
    r"""The length of each example's gradient over all parameters together, $\|g_i\|_2$, `(N,)`.

    >>> gradient_norms({"weight": torch.tensor([[3.0]]), "bias": torch.tensor([[4.0]])})
    tensor([5.])
    """
    return sum(gradient.flatten(1).square().sum(1) for gradient in gradients.values()).sqrt()


def clipping_factors(norms: Tensor, clip: float) -> Tensor:
    r"""$c_i = \min(1, C / \|g_i\|)$: what shortens a gradient to C, and leaves a shorter one as it is.

    >>> clipping_factors(torch.tensor([0.0, 1.0, 4.0]), 2.0)
    tensor([1.0000, 1.0000, 0.5000])
    """
    return (clip / norms).clamp_max(1)


def clipped_sum(gradients: Gradients, clip: float) -> Gradients:
    r"""The sum of the clipped gradients, $\sum_i \min(1, C / \|g_i\|) \, g_i$.

    One example more or less moves it by at most C in L2: its sensitivity under "add/remove", which is what the noise is
    measured by. Under "replace" it is $2C$.

    Args:
        gradients: by name of a parameter, `(N, ...)` each.
        clip: C, above 0; infinity does not clip.
    Returns:
        by name of a parameter, without the first dimension.

    >>> clipped_sum({"weight": torch.tensor([[3.0, 4.0], [0.0, 0.5]])}, 1.0)["weight"]
    tensor([0.6000, 1.3000])
    """
    c = clipping_factors(gradient_norms(gradients), clip)
    return {name: torch.tensordot(c, gradient, 1) for name, gradient in gradients.items()}


# --- the fast path ----------------------------------------------------------------------------------------------------


def fast_clipped_sum(model: nn.Module, x: Tensor, y: Tensor, clip: float) -> tuple[Gradients, Tensor]:
    r"""The sum of the clipped gradients, and how long each was, from one pass forward and one backward.

    Each layer gives, for each of its parameters, the squared lengths $\|g_i\|^2$, and a function from the factors
    $c_i$ to the sum $\sum_i c_i g_i$. The lengths of all parameters together give the factors.

    Args:
        model: one of which `is_fast` is True.
        x: inputs, floating point `(N, C, H, W)` in [0, 1], N at least 1.
        y: labels `(N,)`, int64.
        clip: C, above 0; infinity does not clip.
    Returns:
        what `clipped_sum(per_example_gradients(model, x, y), clip)` gives but for rounding, and the lengths
        $\|g_i\|_2$ before the clipping, `(N,)`.
    Reference: Goodfellow 2015, arXiv 1510.01799 (lengths); Bu et al. 2022, arXiv 2210.00038 (one backward pass).
    Simplified: a convolution's gradients are written down, which is quicker for small layers than their lengths alone.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> total, norms = fast_clipped_sum(model, torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 1]), 1.0)
    >>> total["1.weight"].shape, norms.shape
    (torch.Size([2, 4]), torch.Size([3]))
    """
    parts: dict[str, Part] = {}
    for name, layer, a, b in passed(model, x, y):
        parts |= {f"{name}.{kind}".lstrip("."): part for kind, part in LAYERS[type(layer)](layer, a, b).items()}
    trained = trained_parameters(model)
    used = {name: parts[name] for name in trained if name in parts}
    norms = sum((squares for squares, _ in used.values()), x.new_zeros(len(x))).sqrt()
    c = clipping_factors(norms, clip)
    unused = {name: torch.zeros_like(parameter) for name, parameter in trained.items() if name not in used}
    return {name: unused[name] if name in unused else used[name][1](c) for name in trained}, norms


def passed(model: nn.Module, x: Tensor, y: Tensor) -> list[tuple[str, nn.Module, Tensor, Tensor]]:
    """What passes each layer that is trained: its name, itself, its inputs, and the slopes of the loss at its outputs.

    The edge of the graph behind an output stays what it is where a later layer overwrites the output, as ReLU may.
    """
    seen: list[tuple[str, nn.Module, Tensor, object]] = []

    def note(name: str) -> Callable:
        def hook(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            if output.requires_grad:
                seen.append((name, layer, inputs[0].detach(), torch.autograd.graph.get_gradient_edge(output)))

        return hook

    layers = [(name, layer) for name, layer in model.named_modules() if trained_by(layer)]
    handles = [layer.register_forward_hook(note(name)) for name, layer in layers]
    try:
        with torch.enable_grad():
            losses = F.cross_entropy(model(x), y, reduction="sum")
    finally:
        for handle in handles:
            handle.remove()
    slopes = torch.autograd.grad(losses, [edge for *_, edge in seen], allow_unused=True)
    return [(*what, b) for (*what, _), b in zip(seen, slopes, strict=True) if b is not None]


def of_linear(layer: nn.Linear, a: Tensor, b: Tensor) -> dict[str, Part]:
    r"""$g_i = b_i a_i^\top$ for the weights, of length $\|b_i\| \|a_i\|$, and $b_i$ for the bias."""
    if a.ndim != 2:
        places = a.flatten(1, -2), b.flatten(1, -2)
        return {"weight": written(places[1].mT @ places[0]), "bias": written(places[1].sum(1))}
    squares = a.square().sum(1) * b.square().sum(1)
    return {"weight": (squares, lambda c: (c[:, None] * b).T @ a), "bias": written(b)}


def of_convolution(layer: nn.Conv2d, a: Tensor, b: Tensor) -> dict[str, Part]:
    """One convolution in which each example is a group of channels, so that no two examples are summed."""
    groups = a.reshape(1, -1, *a.shape[2:]), b.reshape(1, -1, *b.shape[2:])
    shape = (len(a) * layer.out_channels, *layer.weight.shape[1:])
    how = layer.stride, layer.padding, layer.dilation, len(a) * layer.groups
    weights = torch.nn.grad.conv2d_weight(groups[0], shape, groups[1], *how)
    return {"weight": written(weights.view(len(a), *layer.weight.shape)), "bias": written(b.sum((2, 3)))}


def of_group_norm(layer: nn.GroupNorm, a: Tensor, b: Tensor) -> dict[str, Part]:
    """A scale and a shift for each channel, after each example was normalized by itself."""
    normalized = F.group_norm(a, layer.num_groups, eps=layer.eps)
    return {"weight": written((b * normalized).flatten(2).sum(2)), "bias": written(b.flatten(2).sum(2))}


def written(gradients: Tensor) -> Part:
    r"""Gradients `(N, ...)` that are there: their squared lengths, and the function to $\sum_i c_i g_i$."""
    return gradients.flatten(1).square().sum(1), lambda c: torch.tensordot(c, gradients, 1)


LAYERS = {nn.Linear: of_linear, nn.Conv2d: of_convolution, nn.GroupNorm: of_group_norm}


def trained_by(layer: nn.Module) -> list[nn.Parameter]:
    """The parameters of a layer itself, without those of the layers in it, that training moves."""
    return [parameter for parameter in layer.parameters(recurse=False) if parameter.requires_grad]


def is_fast(model: nn.Module, x: Tensor) -> bool:
    """Whether the fast path gives this model's gradients: it knows the layers, and agrees with `vmap` on a trial.

    The trial finds what the list of layers does not: a layer used twice, weights that a function reads past its layer,
    or examples that are mixed. It runs on noise, on a copy of the model in training mode; a model that `vmap` cannot
    run is not fast.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: inputs `(N, C, H, W)`, of which the shape, dtype and device count.

    >>> is_fast(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.zeros(1, 1, 2, 2))
    True
    >>> is_fast(nn.Sequential(nn.Flatten(), nn.PReLU(), nn.Linear(4, 2)), torch.zeros(1, 1, 2, 2))
    False
    """
    layers = [layer for layer in model.modules() if trained_by(layer)]
    odd = [layer for layer in layers if isinstance(layer, nn.Conv2d) and not plain(layer)]
    if odd or not all(type(layer) in LAYERS for layer in layers):
        return False
    x = torch.rand(4, *x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
    try:
        return agrees_with_vmap(rehearsal(model), x)
    except RuntimeError:
        return False


def agrees_with_vmap(model: nn.Module, x: Tensor) -> bool:
    """Whether the fast path and `vmap` give the same lengths and sums for these inputs."""
    y = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    with same_draws():
        total, norms = fast_clipped_sum(model, x, y, 1.0)
    with same_draws():
        expected = per_example_gradients(model, x, y)
    pairs = [(norms, gradient_norms(expected)), *zip(total.values(), clipped_sum(expected, 1.0).values(), strict=True)]
    return all((ours - right).norm() <= 1e-3 * right.norm() + 1e-6 for ours, right in pairs)


def rehearsal(model: nn.Module) -> nn.Module:
    """A copy of a model to try training on: in training mode, but dropout drops nothing."""
    model = deepcopy(model).train()
    for layer in model.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0
    return model


@contextmanager
def same_draws() -> Iterator[None]:
    """What layers draw is the same each time; afterwards the global random state is what it was."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.default_generator.manual_seed(0)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(0)
        yield


def plain(layer: nn.Conv2d) -> bool:
    """Whether a convolution pads with zeros, by numbers."""
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def check_examples(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Raise `ValueError` unless the model has something to train, and there is a label for each input."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is {describe(model)}; accepted: a torch.nn.Module")
    check_images(x)
    check_labels(y, x)
    check_model(model, x)
    if not trained_parameters(model):
        raise ValueError("model has no parameter that is trained; accepted: at least one with requires_grad")


def check_clip(clip: float, noise_multiplier: float) -> None:
    """Raise `ValueError` unless clipping norm and noise fit together: without a bound there is no noise to hide it."""
    check_number("noise_multiplier", noise_multiplier, low=0)
    if clip == float("inf") and noise_multiplier > 0:
        raise ValueError("clip is inf; accepted: a finite number above 0, or noise_multiplier=0: noise needs a bound")
    if clip != float("inf"):
        check_number("clip", clip, low=0, exclusive=True)
