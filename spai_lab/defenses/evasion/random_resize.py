r"""Random resizing and padding: the network sees each image at a size and a place that nobody knows in advance."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.attacks.evasion.adaptive import eot
from spai_lab.checks import check_batch, check_callable, check_count, describe
from spai_lab.threat import fresh_generator


def random_resize_pad(
    model: nn.Module, *, smallest: int, size: int, generator: torch.Generator | None = None
) -> nn.Module:
    r"""Show the network each image at a random size, at a random place on a black canvas.

    $f(\mathrm{pad}_{a, b}(\mathrm{resize}_s(x)))$ with $s \sim U\{S_0, \dots, S - 1\}$ and
    $a, b \sim U\{0, \dots, S - s\}$: the image becomes s x s, then S x S with a rows above and b columns to its left.

    Args:
        model: f, reads `(N, C, S, S)` in [0, 1], returns logits `(N, K)`; it is used as it is, not trained again.
        smallest: $S_0$, the smallest side, in pixels, at least 1.
        size: S, the side of the canvas, in pixels, above `smallest`. The paper has 299 and 331 for images of side 299;
            for a network that reads 28 x 28 the same ratio is 25 and 28.
        generator: source of sizes and places, on the device of the model; None draws a fresh one. The returned model
            owns it: `defended.generator.manual_seed(0)` repeats the draws.
    Returns:
        a random model, from square images `(N, C, H, H)` in [0, 1] to logits `(N, K)`.
    Raises:
        ValueError: names the argument; when the model runs: `x` is not a batch of square images.
    Reference: Xie 2017, arXiv 1711.01991, figure 2; 299 and 331 from its experiments.
    Survey: defenses against evasion, gradient masking.
    Simplified: each image has its own size and place, where the authors' code draws them once for a batch; resizing is
        bilinear with antialiasing, as Pillow's, where their code takes the nearest pixel; their entry to a competition
        also mirrors images and averages 30 draws. Where the network reads images of the original size only, as those
        of this book do, the images shrink; in the paper they grow.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> defended = random_resize_pad(model, smallest=6, size=8, generator=torch.Generator().manual_seed(0))
    >>> defended(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 3])
    """
    check_callable("model", model)
    check_count("smallest", smallest)
    check_count("size", size, low=smallest + 1)
    parameter = next(model.parameters(), torch.empty(0)) if isinstance(model, nn.Module) else torch.empty(0)
    return ResizedAndPadded(model, smallest, size, fresh_generator(generator, parameter.device))


def resize_pad_view(defended: nn.Module, *, samples: int = 10) -> nn.Module:
    r"""What an attacker who knows of the randomness climbs: the mean answer over sizes and places, by `eot`.

    Args:
        defended: what `random_resize_pad` returned, or the attacker's copy of it with a generator of its own.
        samples: draws for each answer, at least 1.
    Returns:
        a model like any other, random, differentiable; whether the attack succeeded is for `defended` to say.
    Raises:
        ValueError: names the argument.
    Reference: Athalye et al. 2018, arXiv 1802.00420, section 5.3.2.
    Survey: defenses against evasion, gradient masking.

    >>> defended = random_resize_pad(nn.Flatten(), smallest=1, size=2)
    >>> resize_pad_view(defended, samples=3)(torch.rand(5, 1, 2, 2)).shape
    torch.Size([5, 4])
    """
    return eot(defended, samples)


class ResizedAndPadded(nn.Module):
    """A network behind random resizing and padding."""

    def __init__(self, model: nn.Module, smallest: int, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.model, self.smallest, self.size, self.generator = model, smallest, size, generator
        self.training = getattr(model, "training", False)

    def forward(self, x: Tensor) -> Tensor:
        check_batch("x", x)
        if x.ndim != 4 or x.shape[2] != x.shape[3]:
            raise ValueError(f"x is {describe(x)}; accepted: square images (N, C, H, H)")
        patterns = random_patterns(len(x), self.smallest, self.size, self.generator)
        return self.model(resize_and_pad(x, patterns, self.size))


def random_patterns(n: int, smallest: int, size: int, generator: torch.Generator) -> Tensor:
    """Side, rows above and columns to the left for each of `n` images, `(n, 3)`, int64."""
    sides = torch.randint(smallest, size, (n,), generator=generator, device=generator.device)
    places = torch.rand(2, n, generator=generator, device=generator.device) * (size - sides + 1)
    return torch.stack([sides, *places.long()], dim=1)


def resize_and_pad(x: Tensor, patterns: Tensor, size: int) -> Tensor:
    """Each image at its side and place on a black canvas, `(N, C, size, size)`; differentiable in `x`.

    >>> resize_and_pad(torch.ones(1, 1, 2, 2), torch.tensor([[1, 1, 2]]), 3)
    tensor([[[[0., 0., 0.],
              [0., 0., 1.],
              [0., 0., 0.]]]])
    """
    canvas = x.new_zeros(*x.shape[:2], size, size)
    patterns, which = patterns.unique(dim=0, return_inverse=True)
    for i, (side, top, left) in enumerate(patterns.tolist()):
        small = F.interpolate(x[which == i], (side, side), mode="bilinear", antialias=True)
        canvas[which == i, :, top : top + side, left : left + side] = small
    return canvas
