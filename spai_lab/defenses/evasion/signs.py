"""Tell-tale signs of a hidden gradient: what a defense shows that makes attacks fail and images no safer."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.attacks.evasion.search import square
from spai_lab.checks import check_ball, check_count, check_inputs, describe, unsuspecting
from spai_lab.metrics import Rate
from spai_lab.query import Query
from spai_lab.threat import fooled, fresh_generator, input_gradient


@dataclass(frozen=True)
class Signs:
    """What attacks that do not know a defense meet behind it.

    Args:
        zero: inputs whose gradient is exactly zero.
        few_steps, more_steps: inputs that stand under PGD with 10 and with 100 steps.
        unbounded: inputs that stand under PGD that may change every pixel as it likes.
        black_box: inputs that stand under Square, which asks for logits and needs no gradient.
    """

    zero: Rate
    few_steps: Rate
    more_steps: Rate
    unbounded: Rate
    black_box: Rate

    @property
    def found(self) -> tuple[str, ...]:
        """The signs that are there, in words.

        >>> ten = {hits: Rate(hits, 10) for hits in range(11)}
        >>> Signs(ten[0], ten[5], ten[3], ten[0], ten[4]).found
        ()
        >>> Signs(ten[9], ten[8], ten[8], ten[8], ten[4]).found[0]
        'zero gradients'
        """
        seen = {
            "zero gradients": self.zero.value > 0.1,
            "more steps do not help": self.more_steps.hits > self.few_steps.hits or self.more_steps.value == 1,
            "an unbounded attack fails": self.unbounded.value > 0.05,
            "black-box beats white-box": self.black_box.hits < self.more_steps.hits,
        }
        return tuple(sign for sign, there in seen.items() if there)


def masking_signs(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    queries: int = 500,
    generator: torch.Generator | None = None,
) -> Signs:
    """Run the attacks whose failure together betrays a hidden gradient.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, as it is defended.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1], N at least 1.
        y: true labels `(N,)`, int64.
        eps: radius of the ball in L-inf, in pixel units of [0, 1].
        queries: what each input may cost Square, at least 1.
        generator: source of what the attacks draw; None draws a fresh one.
    Returns:
        how many inputs show each sign, or stand under each attack.
    Raises:
        ValueError: names the argument; the model has no gradient at all.
    Reference: Athalye et al. 2018, arXiv 1802.00420, section 3.1 (identifying obfuscated gradients).
    Survey: defenses against evasion, gradient masking.
    Simplified: random sampling inside the ball, the paper's fifth sign, is left to Square.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x = torch.full((2, 1, 2, 2), 0.5)
    >>> masking_signs(model, x, model(x).argmax(1), eps=0.1, queries=10).zero
    Rate(hits=0, trials=2)
    """
    check_ball(x, eps, "linf")
    check_inputs(model, x, y, generator=generator)
    check_count("queries", queries)
    if len(x) == 0:
        raise ValueError(f"x is {describe(x)}; accepted: at least one input")
    generator = fresh_generator(generator, x.device)

    def standing(x_adv: Tensor) -> Rate:
        return Rate(int((~fooled(model, x_adv, y)).sum()), len(y))

    with unsuspecting():
        zero = (input_gradient(model, x, y).flatten(1).abs().amax(1) == 0).sum()
        few, more = (pgd(model, x, y, eps=eps, steps=steps, generator=generator) for steps in (10, 100))
        unbounded = pgd(model, x, y, eps=1.0, steps=100, generator=generator)
    black_box = square(Query(model, "logits"), x, y, eps=eps, queries=queries, generator=generator)
    return Signs(Rate(int(zero), len(y)), *(standing(x_adv) for x_adv in (few, more, unbounded, black_box)))
