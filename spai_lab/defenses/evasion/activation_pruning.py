r"""Stochastic activation pruning: each layer keeps a random few of its activations, the large ones more often."""

import copy

import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion.adaptive import eot
from spai_lab.checks import check_batch, check_number, describe
from spai_lab.threat import fresh_generator


def activation_pruning(model: nn.Module, *, share: float = 1.0, generator: torch.Generator | None = None) -> nn.Module:
    r"""Prune a trained network anew whenever it runs, after each ReLU.

    Of the activations h of a layer, r are drawn with replacement, each with probability
    $p_j = |h_j| / \sum_k |h_k|$. Those drawn are kept and scaled up, the others become 0:
    $h_j \leftarrow \frac{h_j}{1 - (1 - p_j)^r}$, so that the expectation of each is what it was.

    Args:
        model: trained, `(N, C, H, W)` in [0, 1] to logits `(N, K)`, with a module `nn.ReLU` for each layer to prune;
            it is copied, and stays as it is.
        share: r as a share of the number of a layer's activations, above 0; 1 is the paper's SAP-100. Since large
            activations are drawn repeatedly, fewer than r are kept.
        generator: source of the draws, on the device of the model; None draws a fresh one. The returned model owns it:
            `defended.generator.manual_seed(0)` repeats the draws.
    Returns:
        a random model like any other; every image has draws of its own.
    Raises:
        ValueError: names the argument; `model` too, if it has no `nn.ReLU`.
    Reference: Dhillon 2018, arXiv 1803.01442, algorithm 1.
    Survey: defenses against evasion, gradient masking.
    Simplified: for the gradient, what was drawn and its scale count as constants: then the mean gradient of a layer is
        that of its mean. Layers without a ReLU, such as pooling, are not pruned.

    >>> model = nn.Sequential(nn.Flatten(), nn.ReLU())
    >>> defended = activation_pruning(model, share=0.25)
    >>> defended(torch.tensor([[[[0.5, 0.0], [0.0, 0.0]]]]))
    tensor([[0.5000, 0.0000, 0.0000, 0.0000]])
    """
    if not isinstance(model, nn.Module) or not any(isinstance(layer, nn.ReLU) for layer in model.modules()):
        raise ValueError(f"model is {describe(model)}; accepted: a network with at least one nn.ReLU")
    check_number("share", share, low=0, exclusive=True)
    parameter = next(model.parameters(), torch.empty(0))
    return Pruned(model, share, fresh_generator(generator, parameter.device))


def pruning_view(defended: nn.Module, *, samples: int = 10) -> nn.Module:
    r"""What an attacker who knows of the pruning climbs: the mean answer over the draws, by `eot`.

    Args:
        defended: what `activation_pruning` returned, or the attacker's copy of it with a generator of its own.
        samples: runs for each answer, at least 1.
    Returns:
        a model like any other, random, differentiable; whether the attack succeeded is for `defended` to say.
    Raises:
        ValueError: names the argument.
    Reference: Athalye et al. 2018, arXiv 1802.00420, section 5.3.1, with 10 runs.
    Survey: defenses against evasion, gradient masking.

    >>> defended = activation_pruning(nn.Sequential(nn.Flatten(), nn.ReLU()))
    >>> pruning_view(defended, samples=3)(torch.rand(5, 1, 2, 2)).shape
    torch.Size([5, 4])
    """
    return eot(defended, samples)


class Pruned(nn.Module):
    """A copy of a network in which each ReLU is followed by pruning."""

    def __init__(self, model: nn.Module, share: float, generator: torch.Generator) -> None:
        super().__init__()
        self.network, self.generator = copy.deepcopy(model), generator
        self.training = model.training
        for name, layer in list(self.named_modules(remove_duplicate=False)):
            if isinstance(layer, nn.ReLU):
                self.set_submodule(name, nn.Sequential(layer, Pruning(share, generator)).train(layer.training))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class Pruning(nn.Module):
    """The random pruning of one layer."""

    def __init__(self, share: float, generator: torch.Generator) -> None:
        super().__init__()
        self.share, self.generator = share, generator

    def forward(self, h: Tensor) -> Tensor:
        return prune(h, max(1, round(self.share * h[0].numel())), self.generator) if len(h) else h

    def extra_repr(self) -> str:
        return f"share={self.share:g}"


def prune(h: Tensor, r: int, generator: torch.Generator) -> Tensor:
    r"""Keep what r draws with replacement hit, scaled by $1 / q_j$ with $q_j = 1 - (1 - p_j)^r$; each input by itself.

    Args:
        h: activations `(N, ...)`; an input whose activations are all 0 stays as it is.
        r: number of draws, at least 1.
        generator: source of the draws.
    Returns:
        like `h`; its expectation is `h`.

    >>> prune(torch.tensor([[0.0, -3.0]]), 1, torch.Generator())
    tensor([[ 0., -3.]])
    """
    check_batch("h", h)
    with torch.no_grad():
        size = h.abs().flatten(1)
        p = size / size.sum(1, keepdim=True).clamp_min(torch.finfo(h.dtype).tiny)
        anywhere = (p.sum(1, keepdim=True) == 0).to(p)
        drawn = torch.multinomial(p + anywhere, r, replacement=True, generator=generator)
        q = -torch.expm1(r * torch.log1p(-p))
        scale = torch.zeros_like(p).scatter_(1, drawn, 1 / q.gather(1, drawn).clamp_min(torch.finfo(h.dtype).tiny))
    return h * scale.view_as(h)
