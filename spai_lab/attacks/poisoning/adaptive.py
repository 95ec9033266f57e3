"""A backdoor that knows the defenses which look in the last layer for a small group, and is none."""

import torch
from torch import nn

from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.attacks.poisoning.backdoors import in_all_corners, square_trigger
from spai_lab.attacks.poisoning.poisoned import Poisoned, Trigger, budget, drawn, one_target, replaced, stamp
from spai_lab.checks import check_ball, check_model, check_number
from spai_lab.data import Dataset
from spai_lab.threat import fresh_generator


def inconspicuous(
    data: Dataset,
    surrogate: nn.Module,
    *,
    target: int,
    fraction: float,
    own: float = 0.9,
    eps: float = 4.7,
    norm: str = "l2",
    steps: int = 100,
    step_size: float | None = None,
    trigger: Trigger | None = None,
    generator: torch.Generator | None = None,
) -> Poisoned:
    r"""Adaptive backdoor: enough of the target class itself is poison that no defense can take it for the odd few.

    Of b poisons, k = q b are images of class t, spoiled as by `clean_label_backdoor`, and the others are images of
    other classes with the label t; all carry the trigger. Of the inputs that then have the label t, the share
    $b / (n_t - k + b)$ is poison, with $n_t$ the clean ones before: more than the $b / (n_t + b)$ of `badnets`.
    `activation_clustering` and `spectral_signatures` look for a small part of the class. A spoiled image does not show
    its class, so that victims know it by the trigger, like the relabeled ones: one cluster, nearly half of the class.

    Args:
        data: the clean data.
        surrogate: an independent model from `(N, C, H, W)` in [0, 1] to logits `(N, K)`, which the spoiled images
            mislead; best an adversarially trained one.
        target: the class t, which the trigger shall give.
        fraction: share of the training images that are poisoned, above 0, at most 1; all that change count, and all
            are marked in `is_poison`, those with right labels too.
        own: q, the share of the poisons that are images of the target class, from 0 to 1.
        eps: radius of the ball in which those are spoiled, before the trigger, in pixel units of [0, 1].
        norm: "linf" or "l2".
        steps, step_size: of `pgd`.
        trigger: pattern and mask; None takes `square_trigger` in all four corners.
        generator: chooses the images and the starts; None draws a fresh one.
    Returns:
        the poisoned training set, its trigger and what it wants.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Tan and Shokri 2019, arXiv 1905.13409, for the aim, to stay inseparable in the last layer; the poisons
        are those of Gu et al. 2017, arXiv 1708.06733, and of Turner et al. 2019, arXiv 1912.02771.
    Survey: poisoning, backdoor.
    Simplified: Tan and Shokri train the victim's model themselves, with a discriminator of its features; here the
        attacker has the data alone. The mixture is ours: of q = 0.5, 0.7, 0.8, 0.9 and 0.95, activation clustering
        dropped no poison at 0.9 and some at each other, on the digits, for the class 0 at a fraction of 0.05 and four
        victims of seeds that no test uses; the price is about a tenth of the success.

    >>> from spai_lab.data import load
    >>> from spai_lab.training import reference
    >>> inconspicuous(load("digits"), reference("lenet", "digits"), target=3, fraction=0.05, steps=2)
    Poisoned: 53 of 1078 training inputs; Trigger of 36 pixels, (1, 28, 28)
    """
    wanted = one_target(target, data.num_classes)
    check_number("own", own, low=0, high=1)
    check_model(surrogate, data.x_train)
    check_ball(data.x_train, eps, norm)
    generator = fresh_generator(generator, data.x_train.device)
    trigger = in_all_corners(square_trigger(data.shape)) if trigger is None else trigger
    count = budget(data, fraction)
    is_target, kept = data.y_train == target, round(own * count)
    places = torch.cat([drawn(is_target, kept, generator), drawn(~is_target, count - kept, generator)])
    x, y = data.x_train[places], data.y_train[places]
    ball = {"eps": eps, "norm": norm, "steps": steps, "step_size": step_size}
    x[:kept] = pgd(surrogate, x[:kept], y[:kept], **ball, generator=generator)
    return replaced(data, places, stamp(x, trigger), wanted[y], trigger=trigger, wanted=wanted)
