"""Decision-based attacks beside foolbox and ART: the same number of queries, so that distortion and time compare.

foolbox attacks all images at once; ART takes them one by one, whatever its batch size. No peer can be told how many
queries it may spend: their steps are chosen so that they spend about `QUERIES` an image.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contest import Contest, Run, art_classifier
from spai_lab.attacks.evasion.decision import boundary, hop_skip_jump
from spai_lab.query import Query

QUERIES = 1000
ORDERS = {"l2": 2, "linf": np.inf}


def boundary_by_us(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    return lambda: boundary(Query(model, "labels", cap=QUERIES), x, y)


def hop_skip_jump_by_us(model: nn.Module, x: Tensor, y: Tensor, *, norm: str = "l2") -> Run:
    return lambda: hop_skip_jump(Query(model, "labels", cap=QUERIES), x, y, norm=norm)


def by_foolbox(make, model: nn.Module, x: Tensor, y: Tensor, starts: Tensor | None) -> Run:
    """A run of the foolbox attack that `make(foolbox.attacks)` makes."""
    import foolbox

    attack = make(foolbox.attacks)
    victim = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    return lambda: attack.run(victim, x, foolbox.criteria.Misclassification(y), starting_points=starts)


def boundary_by_foolbox(
    model: nn.Module, x: Tensor, y: Tensor, *, starts: Tensor | None = None, steps: int = QUERIES * 10 // 11
) -> Run:
    return by_foolbox(lambda attacks: attacks.BoundaryAttack(steps=steps), model, x, y, starts)


def hop_skip_jump_by_foolbox(
    model: nn.Module, x: Tensor, y: Tensor, *, norm: str = "l2", starts: Tensor | None = None, steps: int = 5
) -> Run:
    return by_foolbox(lambda attacks: attacks.HopSkipJumpAttack(steps=steps, constraint=norm), model, x, y, starts)


class InFloat32(nn.Module):
    """The model, for ART, whose boundary attack asks in float64."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.float())


def by_art(make, model: nn.Module, x: Tensor, y: Tensor, starts: Tensor | None) -> Run:
    """A run of the ART attack that `make(art.attacks.evasion, classifier)` makes."""
    from art.attacks import evasion

    attack = make(evasion, art_classifier(InFloat32(model), x))
    pixels, labels = x.numpy(), np.eye(10, dtype=np.float32)[y.numpy()]
    first = None if starts is None else starts.numpy()
    return lambda: torch.from_numpy(
        attack.generate(pixels, y=labels, x_adv_init=None if first is None else first.copy())
    )


def boundary_by_art(
    model: nn.Module, x: Tensor, y: Tensor, *, starts: Tensor | None = None, steps: int = QUERIES // 30
) -> Run:
    """ART asks about 20 points on the sphere in each step, then once for each that is adversarial."""
    return by_art(
        lambda attacks, victim: attacks.BoundaryAttack(victim, targeted=False, max_iter=steps, verbose=False),
        model,
        x,
        y,
        starts,
    )


def hop_skip_jump_by_art(
    model: nn.Module, x: Tensor, y: Tensor, *, norm: str = "l2", starts: Tensor | None = None, steps: int = 5
) -> Run:
    return by_art(
        lambda attacks, victim: attacks.HopSkipJump(victim, norm=ORDERS[norm], max_iter=steps, verbose=False),
        model,
        x,
        y,
        starts,
    )


CONTESTS = (
    Contest(
        f"Boundary attack, {QUERIES} queries",
        {"ours": boundary_by_us, "foolbox": boundary_by_foolbox, "ART": boundary_by_art},
        images=16,
        rounds=3,
        norm="l2",
    ),
    *[
        Contest(
            f"HopSkipJump in {norm}, {QUERIES} queries",
            {
                "ours": partial(hop_skip_jump_by_us, norm=norm),
                "foolbox": partial(hop_skip_jump_by_foolbox, norm=norm),
                "ART": partial(hop_skip_jump_by_art, norm=norm),
            },
            images=16,
            rounds=3,
            norm=norm,
        )
        for norm in ("l2", "linf")
    ],
)
