"""Chapter 01: normalization belongs inside the model, eps to the pixels, and success to the images that were right."""

import numpy as np
import torch
from torch import Tensor, nn

from spai_lab.checks import describe
from spai_lab.exercises.exercise import Exercise, Fault, call
from spai_lab.models import softmax_regression

CHAPTER = "01_models_and_threats"
IMAGES, SHAPE, CLASSES = 4, (1, 3, 3), 3


def pixels(seed: int) -> Tensor:
    """Small images in [0, 1]."""
    return torch.rand(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(seed))


# --- normalize_inside


def my_normalize_inside(model, mean, std):
    """A victim that takes pixels: a function from images in [0, 1] to logits.

    model: expects normalized images, (pixel - mean) / std.
    mean, std: two numbers.
    Returns a function, or a module, through which gradients come.
    """

    def victim(x):
        return model((x - mean) / std)

    return victim


def normalizes_twice(model, mean, std):
    """The images are normalized twice; once is what the model was trained on."""
    return lambda x: model(((x - mean) / std - mean) / std)


def forgets_std(model, mean, std):
    """The mean is subtracted, but the result is not divided by std."""
    return lambda x: model(x - mean)


def divides_by_variance(model, mean, std):
    """It divides by the variance, `std**2`; normalization divides by the standard deviation."""
    return lambda x: model((x - mean) / std**2)


def does_not_normalize(model, mean, std):
    """The pixels reach the model as they are: subtract the mean and divide by std first."""
    return model


def normalized_cases(seed: int = 0) -> list[dict]:
    victim = softmax_regression(SHAPE, CLASSES, generator=torch.Generator().manual_seed(seed + 1))
    linear = victim[1:].requires_grad_(False)  # without its own normalization
    return [
        {"model": linear, "mean": mean, "std": std, "x": pixels(seed + number)}
        for number, (mean, std) in enumerate([(0.1307, 0.3081), (0.5, 0.25)])
    ]


def logits_of_victim(answer, model, mean, std, x):
    """The victim's logits on pixels.

    Raises:
        Fault: there is no victim to call, or no gradient comes through it.
    """
    victim = call(answer, model=model, mean=mean, std=std)
    if not callable(victim):
        raise Fault(f"It returns {describe(victim)}; expected something that can be called with images.")
    logits = victim(x)
    through = victim(x.clone().requires_grad_() * 1)
    if isinstance(through, Tensor) and not through.requires_grad:
        raise Fault("No gradient comes through the victim: stay in PyTorch, without `detach`, `no_grad` or NumPy.")
    return logits


def linear_logits(model, mean, std, x) -> np.ndarray:
    r"""$W (x - \mu) / \sigma + b$, in NumPy."""
    weight, bias = (parameter.detach().double().numpy() for parameter in model.parameters())
    return (x.detach().double().numpy().reshape(len(x), -1) - mean) / std @ weight.T + bias


normalize_inside = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Normalize inside.** Somebody hands you a network that was trained on normalized images, $(\text{pixel} -
        \text{mean}) / \text{std}$. Write `my_normalize_inside(model, mean, std)`: it returns a victim that takes
        pixels in [0, 1], so that an attack outside needs to know nothing about the normalization.
    """,
    solution=my_normalize_inside,
    truth=linear_logits,
    cases=normalized_cases,
    tested=f"logits of {IMAGES} images on a linear model, two normalizations",
    hints=(
        "You return a function (or an `nn.Module`), not numbers: what should it do when somebody calls it with images?",
        "A function may be defined inside a function: `def victim(x): ...`, then `return victim`. It remembers "
        "`model`, `mean` and `std`.",
        "`victim` normalizes its pixels once, hands the result to `model` and returns the logits.",
    ),
    mistakes=(normalizes_twice, forgets_std, divides_by_variance, does_not_normalize),
    call=logits_of_victim,
)


# --- eps_in_pixels

UNITS = ("pixels", "gray levels", "normalized")


def my_eps_in_pixels(eps, unit, mean, std):
    """The same radius in pixel units of [0, 1].

    eps: a radius.
    unit: "pixels" for [0, 1], "gray levels" for 0 to 255,
        or "normalized" for (pixel - mean) / std.
    Returns a number.
    """
    if unit == "gray levels":
        return eps / 255
    if unit == "normalized":
        return eps * std
    return eps


def divides_by_std(eps, unit, mean, std):
    """A normalized radius is divided by std; normalizing divided already, so going back to pixels multiplies."""
    return eps / std if unit == "normalized" else my_eps_in_pixels(eps, unit, mean, std)


def adds_the_mean(eps, unit, mean, std):
    """It adds the mean to a normalized radius; eps is a distance between two images, and the mean cancels in it."""
    return eps * std + mean if unit == "normalized" else my_eps_in_pixels(eps, unit, mean, std)


def multiplies_by_255(eps, unit, mean, std):
    """Gray levels are multiplied by 255; 8 of 255 gray levels is a small radius, 8 / 255."""
    return eps * 255 if unit == "gray levels" else my_eps_in_pixels(eps, unit, mean, std)


def divides_by_256(eps, unit, mean, std):
    """Gray levels are divided by 256; they run from 0 to 255, so that white, 1.0, is level 255."""
    return eps / 256 if unit == "gray levels" else my_eps_in_pixels(eps, unit, mean, std)


def ignores_the_unit(eps, unit, mean, std):
    """The radius comes back as it was for every unit: `unit` decides what to do with it."""
    return eps


def radii() -> list[dict]:
    return [
        {"eps": eps, "unit": unit, "mean": mean, "std": std}
        for eps, unit in [
            (0.3, "pixels"),
            (8.0, "gray levels"),
            (16.0, "gray levels"),
            (0.5, "normalized"),
            (1.0, "normalized"),
        ]
        for mean, std in [(0.1307, 0.3081), (0.5, 0.25)]
    ]


def measured_radius(eps, unit, mean, std) -> float:
    """The distance of two images, eps apart in their unit, after both went back to pixels."""
    back = {"pixels": lambda v: v, "gray levels": lambda v: v / 255.0, "normalized": lambda v: v * std + mean}[unit]
    return back(eps) - back(0.0)


eps_in_pixels = Exercise(
    chapter=CHAPTER,
    task=r"""
        **One unit for eps.** Papers state eps in pixels of [0, 1], in gray levels from 0 to 255, or in normalized
        units, after $(\text{pixel} - \text{mean}) / \text{std}$. Write `my_eps_in_pixels(eps, unit, mean, std)`: it
        returns the same radius in pixels of [0, 1]. The three units are `'pixels'`, `'gray levels'`,
        `'normalized'`.
    """,
    solution=my_eps_in_pixels,
    truth=measured_radius,
    cases=radii,
    tested=f"{len(radii())} radii in {len(UNITS)} units, under two normalizations",
    hints=(
        "eps is a distance, not a place: take two pixels that are eps apart in the given unit and ask how far apart "
        "they are in [0, 1].",
        "Black is 0 in [0, 1] and 0 in gray levels. White is 1, and which gray level?",
        "Two normalized values $a$ and $b$ are the pixels $a \\cdot \\text{std} + \\text{mean}$ and "
        "$b \\cdot \\text{std} + \\text{mean}$. Subtract them.",
    ),
    mistakes=(divides_by_std, adds_the_mean, multiplies_by_255, divides_by_256, ignores_the_unit),
    tolerance=1e-6,
)


# --- success_rate


def my_success_rate(model, x, x_adv, y, target=None):
    """The share of images that an attack turned, of those that were right before.

    model: images to logits (N, K); y: true labels (N,).
    x: clean images; x_adv: the same images after the attack.
    target: the classes that the attacker wants (N,); None: any wrong class will do.
    Returns a number from 0 to 1; 0 if the model had none right.
    """
    right = model(x).argmax(1) == y
    after = model(x_adv).argmax(1)
    turned = after != y if target is None else after == target
    return (right & turned).sum().item() / max(right.sum().item(), 1)


def counts_all_images(model, x, x_adv, y, target=None):
    """It counts images that the model had wrong before any attack; they are no success of the attacker."""
    after = model(x_adv).argmax(1)
    turned = after != y if target is None else after == target
    return turned.float().mean().item()


def divides_by_all_images(model, x, x_adv, y, target=None):
    """It divides by all images; only those that the model had right before could be turned."""
    return my_success_rate(model, x, x_adv, y, target) * (model(x).argmax(1) == y).float().mean().item()


def any_class_will_do(model, x, x_adv, y, target=None):
    """With a `target` it counts every wrong class; a targeted attack succeeds only where the model says the target."""
    return my_success_rate(model, x, x_adv, y)


def counts_what_is_left(model, x, x_adv, y, target=None):
    """That is the accuracy which the attack leaves; the attacker's success counts the other images."""
    return 1 - my_success_rate(model, x, x_adv, y, target)


def scores(classes: list[int]) -> Tensor:
    """Images of one pixel a class, on which a model that returns its pixels says `classes`."""
    return nn.functional.one_hot(torch.tensor(classes), CLASSES).float()[:, :, None, None] * 0.5


def outcomes() -> list[dict]:
    y, before, after = [0, 0, 1, 1, 2, 2, 0, 1], [0, 0, 1, 1, 2, 1, 2, 1], [1, 0, 2, 1, 1, 0, 2, 2]
    target = [1, 1, 0, 2, 0, 0, 2, 2]
    images = {"model": nn.Flatten(), "x": scores(before), "x_adv": scores(after), "y": torch.tensor(y)}
    none_right = {**images, "x": scores([1, 1, 2, 2, 0, 0, 1, 2])}
    return [{**images, "target": None}, {**images, "target": torch.tensor(target)}, {**none_right, "target": None}]


def counted(model, x, x_adv, y, target) -> float:
    """Image by image, with plain numbers."""
    before, after = (batch.flatten(1).argmax(1).tolist() for batch in (x, x_adv))
    wanted = [None] * len(y) if target is None else target.tolist()
    images = zip(before, after, y.tolist(), wanted, strict=True)
    turned = [a != label if t is None else a == t for b, a, label, t in images if b == label]
    return sum(turned) / len(turned) if turned else 0.0


def not_a_share(result: np.ndarray, **case: object) -> str | None:
    """What stands out in a rate that is none."""
    return None if 0 <= result <= 1 else f"It returns {result:.4g}; a share runs from 0 to 1 (not in percent)."


success_rate = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Who was turned?** An attacker deserves credit only for images that the model had right. Write
        `my_success_rate(model, x, x_adv, y, target=None)`: of the images that the model had right on `x`, the share
        that it gets wrong on `x_adv`. With a `target`, only those count that it takes for the target class.
    """,
    solution=my_success_rate,
    truth=counted,
    cases=outcomes,
    tested="8 images, two of them wrong before the attack: untargeted, targeted, and with none right before",
    hints=(
        "First find out which images the model had right before: `model(x).argmax(1)` gives its classes.",
        "Comparing two tensors gives True or False for each image; `&` joins two such answers, `.sum()` counts.",
        "Without a target, an image is turned when its class after the attack is not `y`; with one, when it is "
        "`target`. Both counts, above and below the line, look only at the images that were right.",
    ),
    mistakes=(counts_all_images, divides_by_all_images, any_class_will_do, counts_what_is_left),
    look=not_a_share,
)

EXERCISES = (normalize_inside, eps_in_pixels, success_rate)
