"""AutoAttack: four attacks without parameters in sequence; an image counts as robust if it survives them all."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion.adaptive import eot
from spai_lab.attacks.evasion.apgd import climb_in_turn, cross_entropy, dlr, four_largest, looking, targeted_dlr
from spai_lab.attacks.evasion.fab import likeliest_wrong, walk_in_turn
from spai_lab.attacks.evasion.search import square
from spai_lab.checks import check_ball, check_choice, check_count, check_inputs
from spai_lab.query import Query
from spai_lab.threat import fooled, fresh_generator, logits_of, norms

TARGETS = 9
ROUNDING = 1e-6


@dataclass(frozen=True)
class Verdict:
    """What AutoAttack found, and by which attack.

    Args:
        x_adv: like `x`; an image that stands is as it was.
        broken_by: for each image the name of the first attack that broke it: "none needed" where the model misread the
            clean image, None where the image stands.

    >>> Verdict(torch.zeros(3, 1), ("APGD-CE", None, "APGD-CE")).counts
    {'APGD-CE': 2, None: 1}
    """

    x_adv: Tensor
    broken_by: tuple[str | None, ...]

    @property
    def counts(self) -> dict[str | None, int]:
        """How many images each attack broke; `None` counts those that stand."""
        return dict(Counter(self.broken_by))


def auto_attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 100,
    queries: int = 5000,
    version: str = "standard",
    samples: int = 20,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""AutoAttack: APGD-CE, APGD-T, FAB-T and Square in sequence, each on the images that still stand.

    Robust is $x$ only if no $x' \in B(x, \epsilon)$ that any of them finds has $\arg\max_k z_k(x') \ne y$.

    - APGD-CE: `apgd` with cross-entropy.
    - APGD-T: `apgd` with the targeted DLR loss, toward the nine likeliest wrong classes in turn, or all if fewer.
    - FAB-T: `fab` toward the same classes; it counts where it comes within `eps`.
    - Square: a black-box attack, which needs no gradients and so sees through a model that hides them.

    For a model that answers at random, "randomized" runs APGD-CE and APGD-DLR, each step along the mean of the
    gradients of `samples` looks.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, K at least 4: the DLR loss divides by the gap to the third
            and fourth logit. With two or three classes, run `apgd`, `fab` and `square` in its place.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: true labels `(N,)`, int64.
        eps: radius of the ball, in pixel units of [0, 1].
        norm: "linf" or "l2".
        steps: steps of each APGD and FAB, toward each class; at least 1.
        queries: what each image may cost Square, at least 1.
        version: "standard", or "randomized" for a model that answers at random.
        samples: looks that "randomized" averages in each step, and in judging what it found; at least 1.
        generator: source of the random starts and squares; None draws a fresh one.
    Returns:
        `x_adv`, like `x`, in [0, 1] and within `eps` of `x`; an image that no attack broke is as it was.
        `auto_attack_verdict` also tells which attack broke which image.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Croce and Hein 2020, arXiv 2003.01690, section 5; "randomized" as in section 6.
    Survey: evasion, white-box and black-box.
    Simplified: there is no `targeted`, since it measures robustness.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5))
    >>> x = torch.full((2, 1, 2, 2), 0.5)
    >>> x_adv = auto_attack(model, x, model(x).argmax(1), eps=0.1, steps=5, queries=10)
    >>> bool((x_adv - x).abs().max() <= 0.1 + 1e-6)
    True
    """
    arguments = {"eps": eps, "norm": norm, "steps": steps, "queries": queries, "version": version, "samples": samples}
    return auto_attack_verdict(model, x, y, **arguments, generator=generator).x_adv


def auto_attack_verdict(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 100,
    queries: int = 5000,
    version: str = "standard",
    samples: int = 20,
    generator: torch.Generator | None = None,
) -> Verdict:
    """What `auto_attack` makes, and which of its attacks broke which image.

    Args:
        model, x, y, eps, norm, steps, queries, version, samples, generator: as in `auto_attack`.
    Returns:
        the images, for each the name of the attack that broke it, and how many each broke.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Croce and Hein 2020, arXiv 2003.01690, section 5.
    Survey: evasion, white-box and black-box.

    >>> model = lambda x: 4 * nn.functional.pad(x.flatten(1), (0, 2))
    >>> x = torch.tensor([[[[0.5, 0.4]]], [[[0.9, 0.1]]]])
    >>> auto_attack_verdict(model, x, torch.tensor([0, 0]), eps=0.1, steps=5, queries=10).counts
    {'APGD-CE': 1, None: 1}
    """
    check_ball(x, eps, norm)
    check_inputs(model, x, y, generator=generator)
    for name, count in (("steps", steps), ("queries", queries), ("samples", samples)):
        check_count(name, count)
    check_choice("version", version, ("standard", "randomized"))
    x_adv, broken_by = x.detach().clone(), [None] * len(x)
    if len(x) == 0:
        return Verdict(x_adv, ())
    looks = samples if version == "randomized" else 1
    mean = model if looks == 1 else eot(model, looks)
    with torch.no_grad():
        four_largest(logits_of(mean, x, y))  # refuses fewer classes, however the images fare
    ball = {"eps": eps, "norm": norm, "generator": fresh_generator(generator, x.device)}
    attacks = (
        standard(model, steps, queries, **ball) if version == "standard" else randomized(model, steps, samples, **ball)
    )
    standing = torch.arange(len(x), device=x.device)
    for name, attack in {"none needed": lambda x, y: x, **attacks}.items():
        if len(standing) == 0:
            break
        here, labels = x_adv[standing], y[standing]
        found = attack(here, labels)
        broken = fooled(mean, found, labels) & (norms(found - here, norm) <= eps + ROUNDING)
        x_adv[standing[broken]] = found[broken]
        for image in standing[broken].tolist():
            broken_by[image] = name
        standing = standing[~broken]
    return Verdict(x_adv, tuple(broken_by))


Attack = Callable[[Tensor, Tensor], Tensor]


def standard(model: nn.Module, steps: int, queries: int, **ball: object) -> dict[str, Attack]:
    """The four attacks, each from images and labels to what it found, in the order in which they run."""
    look = looking(model, samples=1, targeted=False)

    def apgd_ce(x: Tensor, y: Tensor) -> Tensor:
        return climb_in_turn(look, cross_entropy, x, [[y]], steps=steps, **ball)

    def apgd_t(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            targets = likeliest_wrong(logits_of(model, x, y), y, TARGETS)
        return climb_in_turn(look, targeted_dlr, x, [[y, target] for target in targets.T], steps=steps, **ball)

    def fab_t(x: Tensor, y: Tensor) -> Tensor:
        return walk_in_turn(model, x, y, TARGETS, norm=ball["norm"], steps=steps, enough=ball["eps"])

    def by_square(x: Tensor, y: Tensor) -> Tensor:
        return square(Query(model), x, y, queries=queries, **ball)

    return {"APGD-CE": apgd_ce, "APGD-T": apgd_t, "FAB-T": fab_t, "Square": by_square}


def randomized(model: nn.Module, steps: int, samples: int, **ball: object) -> dict[str, Attack]:
    """The two attacks that average over `samples` looks in each step."""
    look = looking(model, samples=samples, targeted=False)
    losses = {"APGD-CE": cross_entropy, "APGD-DLR": dlr}
    return {
        name: lambda x, y, loss=loss: climb_in_turn(look, loss, x, [[y]], steps=steps, **ball)
        for name, loss in losses.items()
    }
