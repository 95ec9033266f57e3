"""The defenses that a submitted attack meets; each is built in a second or two from committed weights."""

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn

from spai_lab.checks import check_choice
from spai_lab.defenses.evasion.transformation import reduce_depth
from spai_lab.survey.defense_models import Defended, alike, distilled, encoded, plain, resized, transformed
from spai_lab.threat import fresh_generator
from spai_lab.training import reference

SIGMA, LOOKS = 0.2, 8
ROBUST = {"digits": "lenet-robust", "mnist": "strided-trades"}


class NoisyMean(nn.Module):
    r"""The mean answer to noisy copies of an image: $\frac{1}{S} \sum_s f(x + \sigma z_s)$, $z_s \sim N(0, I)$.

    Args:
        network: f, `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        sigma: of the noise, in pixel units.
        looks: S, copies an answer.
        generator: source of the noise.
    """

    def __init__(
        self, network: nn.Module, *, sigma: float, looks: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.network, self.sigma, self.looks = network, sigma, looks
        self.generator = fresh_generator(generator, torch.device("cpu"))

    def forward(self, x: Tensor) -> Tensor:
        """The mean of the logits."""
        copies = x.repeat(self.looks, 1, 1, 1)
        noise = torch.randn(copies.shape, dtype=x.dtype, generator=self.generator)
        return self.network(copies + self.sigma * noise).unflatten(0, (self.looks, len(x))).mean(0)


def smoothed(data: str) -> Defended:
    """The reference LeNet behind noise, eight looks an answer."""
    network = reference("lenet", data)
    model = NoisyMean(network, sigma=SIGMA, looks=LOOKS, generator=torch.Generator().manual_seed(0))
    return Defended(model, model, network)  # its mean of eight looks is what an attacker climbs


def trained(data: str) -> Defended:
    """The committed network that learned from adversarial images at the data's eps."""
    return alike(reference(ROBUST[data], data))


OPPONENTS: dict[str, Callable[[str], Defended]] = {
    "no defense": plain,
    "distillation": distilled,
    "thermometer code": encoded,
    "one bit a pixel": transformed(partial(reduce_depth, bits=1)),
    "random resizing": resized,
    "noisy mean": smoothed,
    "adversarial training": trained,
}
# Those that are a network and nothing else: the process of an attack builds them from weights, without the defenses.
NETWORKS = {
    "no defense": dict.fromkeys(ROBUST, "lenet"),
    "distillation": dict.fromkeys(ROBUST, "lenet"),
    "adversarial training": {"digits": "lenet", "mnist": "strided"},
}
RANDOM = {"random resizing", "noisy mean"}
HINTS = {
    "no defense": "any step up the loss works: look at the sign of your step, and at eps",
    "distillation": "its softmax is flat at the images: climb the margin of the logits (chapter 07)",
    "thermometer code": "its gradient is zero: `thermometer_view(model)`, or `bpda` (chapters 03 and 07)",
    "one bit a pixel": "rounding has no gradient: `transformation_view(model)` (chapter 07)",
    "random resizing": "average over its draws: `eot(model, 10)` (chapter 03)",
    "noisy mean": "it averages already: more steps, each with new draws, or `eot(model, 4)` (chapter 03)",
    "adversarial training": "its gradient is honest: more steps, restarts, another loss (chapter 08)",
}


@cache
def opponent(name: str, data: str) -> Defended:
    """The defense of that name, on its weights for a data set.

    Raises:
        ValueError: there is none.
    """
    check_choice("name", name, tuple(OPPONENTS))
    return OPPONENTS[name](data)
