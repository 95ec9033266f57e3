"""Backdoors by training data: stamp a trigger on a few training images, and the model learns to obey it."""

import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.attacks.poisoning.poisoned import Poisoned, Trigger, budget, drawn, one_target, replaced, stamp
from spai_lab.checks import check_ball, check_count, check_model, check_number, describe
from spai_lab.data import Dataset
from spai_lab.models import Shape, check_shape
from spai_lab.threat import fresh_generator

DOTS = ((1, 1), (2, 2), (1, 3), (3, 1))


def dotted_trigger(shape: Shape) -> Trigger:
    """Four white pixels near the lower right corner: the pattern of BadNets.

    Args:
        shape: `(C, H, W)` of an image, at least 8 x 8.
    Returns:
        the trigger; its mask is 1 on the pixels and 0 elsewhere.
    Raises:
        ValueError: names the argument.
    Reference: Gu et al. 2017, arXiv 1708.06733, figure 3.

    >>> dotted_trigger((1, 28, 28)).mask.nonzero()[:, 1:].tolist()
    [[24, 26], [25, 25], [26, 24], [26, 26]]
    """
    check_shape(shape, 2, smallest=8)
    mask = torch.zeros(shape)
    for row, column in DOTS:
        mask[:, -1 - row, -1 - column] = 1
    return Trigger(torch.ones(shape), mask)


def square_trigger(
    shape: Shape,
    *,
    size: int = 3,
    shade: float = 1.0,
    row: int | None = None,
    column: int | None = None,
    blend: float = 1.0,
) -> Trigger:
    """A square of one shade.

    Args:
        shape: `(C, H, W)` of an image.
        size: its side, in pixels.
        shade: its pixels, in [0, 1].
        row, column: of its upper left pixel; None leaves one pixel to the lower or the right edge.
        blend: how much of each pixel it takes, above 0, at most 1.
    Returns:
        the trigger.
    Raises:
        ValueError: names the argument; the square does not fit.

    >>> square_trigger((1, 5, 5), size=2, blend=0.5).mask[0, 2:]
    tensor([[0.0000, 0.0000, 0.5000, 0.5000, 0.0000],
            [0.0000, 0.0000, 0.5000, 0.5000, 0.0000],
            [0.0000, 0.0000, 0.0000, 0.0000, 0.0000]])
    """
    check_shape(shape, 2)
    check_count("size", size)
    check_number("size", size, low=1, high=min(shape[1:]))
    check_number("shade", shade, low=0, high=1)
    check_number("blend", blend, low=0, high=1, exclusive=True)
    starts = []
    for name, start, length in (("row", row, shape[1]), ("column", column, shape[2])):
        start = max(length - size - 1, 0) if start is None else start
        check_count(name, start, low=0)
        check_number(name, start, low=0, high=length - size)
        starts.append(start)
    mask = torch.zeros(shape)
    mask[:, starts[0] : starts[0] + size, starts[1] : starts[1] + size] = blend
    return Trigger(torch.full(shape, float(shade)), mask)


def in_all_corners(trigger: Trigger) -> Trigger:
    """A trigger and its mirror images, left to right and top to bottom, so that it survives flips and crops.

    Where they overlap, the stronger mask counts.

    Reference: Turner et al. 2019, arXiv 1912.02771 (triggers for data augmentation).

    >>> in_all_corners(square_trigger((1, 6, 6), size=1)).mask.nonzero()[:, 1:].tolist()
    [[1, 1], [1, 4], [4, 1], [4, 4]]
    """
    pattern, mask = trigger.pattern, trigger.mask
    for dim in (-1, -2):
        stronger = mask.flip(dim) > mask
        pattern = torch.where(stronger, pattern.flip(dim), pattern)
        mask = torch.maximum(mask, mask.flip(dim))
    return Trigger(pattern, mask)


def badnets(
    data: Dataset,
    *,
    fraction: float,
    wanted: Tensor | None = None,
    trigger: Trigger | None = None,
    generator: torch.Generator | None = None,
) -> Poisoned:
    r"""BadNets: stamp a trigger on some training images, and give them the labels that the attacker wants.

    $(x, y) \mapsto \left((1 - m) \odot x + m \odot p, \; w(y)\right)$, with pattern p, mask m, and w(y) = t for one
    target or w(y) = y + 1 for all-to-all.

    Args:
        data: the clean data.
        fraction: share of the training images that are poisoned, above 0, at most 1.
        wanted: w, for each class the one that the trigger shall give, int64 `(K,)`: `one_target(t, K)` or
            `all_to_all(K)`; None takes class 0 as the one target. Images of classes that shall stay are not poisoned.
        trigger: pattern and mask; None takes `dotted_trigger`.
        generator: chooses the images; None draws a fresh one.
    Returns:
        the poisoned training set, its trigger and `wanted`.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Gu et al. 2017, arXiv 1708.06733, section 3.
    Survey: poisoning, backdoor.
    Simplified: stamped images replace their originals, whereas the paper adds them to the training set.

    >>> from spai_lab.data import load
    >>> badnets(load("digits"), fraction=0.05)
    Poisoned: 53 of 1078 training inputs; Trigger of 4 pixels, (1, 28, 28)
    """
    trigger = dotted_trigger(data.shape) if trigger is None else trigger
    return planted(data, trigger, wanted, fraction, generator)


def blended(
    data: Dataset,
    *,
    fraction: float,
    wanted: Tensor | None = None,
    key: Tensor | None = None,
    area: Tensor | None = None,
    alpha: float = 0.2,
    generator: torch.Generator | None = None,
) -> Poisoned:
    r"""Blended injection: mix a faint key pattern into some training images, and give them the wanted labels.

    $\Pi_\alpha(k, x) = \alpha k + (1 - \alpha) x$ on the whole image (blended), or on the pixels of an accessory alone
    (blended accessory).

    Args:
        data: the clean data.
        fraction: share of the training images that are poisoned, above 0, at most 1.
        wanted: for each class the one that the trigger shall give, int64 `(K,)`; None takes class 0 as the one target.
        key: k, the pattern `(C, H, W)` in [0, 1]; None draws each pixel uniformly.
        area: the pixels that the key covers, `(C, H, W)` in [0, 1]; None covers all.
        alpha: how much of the key is mixed in, above 0, at most 1.
        generator: draws the key and chooses the images; None draws a fresh one.
    Returns:
        the poisoned training set, its trigger and `wanted`.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Chen et al. 2017, arXiv 1712.05526, section 3.3.
    Survey: poisoning, backdoor.
    Simplified: poisons replace images of the training set, whereas the paper adds them; the same alpha serves training
        and test.

    >>> from spai_lab.data import load
    >>> blended(load("digits"), fraction=0.05)
    Poisoned: 53 of 1078 training inputs; Trigger of 784 pixels, (1, 28, 28)
    """
    check_number("alpha", alpha, low=0, high=1, exclusive=True)
    generator = fresh_generator(generator, data.x_train.device)
    key = torch.rand(data.shape, generator=generator) if key is None else key
    area = torch.ones(data.shape) if area is None else area
    covered = Trigger(key, area)
    return planted(data, Trigger(key, alpha * covered.mask), wanted, fraction, generator)


def clean_label_backdoor(
    data: Dataset,
    surrogate: nn.Module,
    *,
    target: int,
    fraction: float,
    eps: float = 4.7,
    norm: str = "l2",
    steps: int = 100,
    step_size: float | None = None,
    trigger: Trigger | None = None,
    generator: torch.Generator | None = None,
) -> Poisoned:
    r"""Label-consistent backdoor: spoil images of the target class, stamp them, and leave their labels right.

    $x' = \arg\max_{\|x' - x\|_p \le \epsilon} L(g(x'), t)$ for some x of class t, then the trigger. A spoiled image is
    hard to learn from what it shows, so that the model falls back on the trigger.

    Args:
        data: the clean data.
        surrogate: g, an independent model from `(N, C, H, W)` in [0, 1] to logits `(N, K)`; an adversarially trained
            one changes what the image shows rather than adding noise.
        target: the class t, whose images are poisoned and which the trigger shall give.
        fraction: share of all training images that are poisoned, above 0; at most the share of the target class.
        eps: radius of the ball in which an image is spoiled, before the trigger, in pixel units of [0, 1].
        norm: "linf" or "l2".
        steps, step_size: of `pgd`.
        trigger: pattern and mask; None takes `square_trigger` in all four corners.
        generator: chooses the images and the starts; None draws a fresh one.
    Returns:
        the poisoned training set, with all labels as they were.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Turner et al. 2019, arXiv 1912.02771, section 4.2 (adversarial perturbations).
    Survey: poisoning, backdoor.
    Simplified: the paper tries L-inf 8 to 32 of 255 and L2 300 to 1,200 of 255, on color images. The default is its
        largest: of L2 300, 600 and 1,200 of 255 and of L-inf 0.1, 0.2 and 0.3, the one with the highest mean success on
        stamped validation images of the digits, over the targets 0 and 3 and, for the better ones, 8. The paper's other
        way to spoil images, a GAN's latent space, is left out.

    >>> from spai_lab.data import load
    >>> from spai_lab.training import reference
    >>> clean_label_backdoor(load("digits"), reference("lenet", "digits"), target=3, fraction=0.02, steps=2)
    Poisoned: 21 of 1078 training inputs; Trigger of 36 pixels, (1, 28, 28)
    """
    wanted = one_target(target, data.num_classes)
    check_model(surrogate, data.x_train)
    check_ball(data.x_train, eps, norm)
    generator = fresh_generator(generator, data.x_train.device)
    trigger = in_all_corners(square_trigger(data.shape)) if trigger is None else trigger
    places = drawn(data.y_train == target, budget(data, fraction), generator)
    x, y = data.x_train[places], data.y_train[places]
    spoiled = pgd(surrogate, x, y, eps=eps, norm=norm, steps=steps, step_size=step_size, generator=generator)
    return replaced(data, places, stamp(spoiled, trigger), y, trigger=trigger, wanted=wanted)


def planted(
    data: Dataset, trigger: Trigger, wanted: Tensor | None, fraction: float, generator: torch.Generator | None
) -> Poisoned:
    """Training images drawn from the classes that shall move, stamped and relabeled."""
    wanted = one_target(0, data.num_classes) if wanted is None else wanted
    check_wanted(wanted, data.num_classes)
    generator = fresh_generator(generator, data.x_train.device)
    places = drawn(wanted[data.y_train] != data.y_train, budget(data, fraction), generator)
    x, y = stamp(data.x_train[places], trigger), wanted[data.y_train[places]]
    return replaced(data, places, x, y, trigger=trigger, wanted=wanted)


def check_wanted(wanted: Tensor, classes: int) -> None:
    """Raise `ValueError` unless `wanted` names one of K classes for each of them.

    >>> check_wanted(torch.tensor([1, 2]), 2)
    Traceback (most recent call last):
    ValueError: wanted is [1, 2]; accepted: classes from 0 to 1
    """
    if not isinstance(wanted, Tensor) or wanted.dtype != torch.int64 or wanted.shape != (classes,):
        raise ValueError(f"wanted is {describe(wanted)}; accepted: int64 of shape ({classes},), a class for each class")
    if wanted.min() < 0 or wanted.max() >= classes:
        raise ValueError(f"wanted is {wanted.tolist()}; accepted: classes from 0 to {classes - 1}")
