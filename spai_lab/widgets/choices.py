"""What the explorables let a student choose: data, models, attacks, norms, images."""

from functools import lru_cache, partial

import ipywidgets as widgets
from torch import Tensor

from spai_lab.attacks.evasion import bim, fgsm, mim, pgd
from spai_lab.checks import check_choice
from spai_lab.data import available, default_name, load
from spai_lab.threat import fooled
from spai_lab.training import reference

DATASETS = ("digits", "mnist")
ATTACKS = {
    "fgsm": fgsm,
    "bim": partial(bim, steps=10),
    "pgd": partial(pgd, steps=20),
    "mim": partial(mim, steps=10),
}
ATTACK_NAMES = {"fgsm": "FGSM, 1 step", "bim": "BIM, 10 steps", "pgd": "PGD, 20 steps", "mim": "MIM, 10 steps"}
MODELS = {"softmax": "softmax regression", "mlp": "MLP", "lenet": "LeNet", "lenet-robust": "LeNet, robust"}
NORM_NAMES = {"linf": "L-inf", "l2": "L2"}
IMAGES = 100


def starting_dataset(name: str | None) -> str:
    """The data set to start with: the one that was asked for, else the one that `load()` takes.

    Raises:
        ValueError: it is not one of those on this machine.
    """
    check_choice("dataset", name := name or default_name(), offline_datasets())
    return name


def offline_datasets() -> tuple[str, ...]:
    """The image data sets that need no download."""
    return tuple(name for name in DATASETS if not isinstance(available()[name], str))


@lru_cache(maxsize=2)
def sample_images(dataset: str, count: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """A sample of a test set, with its labels and the names of the classes."""
    data = load(dataset)
    return *data.sample(count), data.classes


def invert(names: dict[str, str]) -> list[tuple[str, str]]:
    """Pairs (what the student reads, the value behind it), as ipywidgets wants them."""
    return [(shown, value) for value, shown in names.items()]


def image_options(dataset: str, images: int) -> list[tuple[str, int]]:
    """The images, each with its number and its label."""
    _, y, classes = sample_images(dataset, images)
    return [(f"{place}: a {classes[label]}", place) for place, label in enumerate(y.tolist())]


@lru_cache(maxsize=8)
def well_read(dataset: str, models: tuple[str, ...] = ("lenet",), count: int = 5) -> tuple[int, ...]:
    """The numbers of the first test images that all these models read rightly, each of another class."""
    x, y, _ = sample_images(dataset, IMAGES)
    right = ~sum(fooled(reference(model, dataset).eval(), x, y) for model in models).bool()
    first = {int(y[place]): place for place in reversed(right.nonzero()[:, 0].tolist())}
    return tuple(sorted(first.values())[:count])


def well_read_options(dataset: str, models: tuple[str, ...] = ("lenet",)) -> list[tuple[str, int]]:
    """The images of `well_read`, each with its number and its label."""
    options = image_options(dataset, IMAGES)
    return [options[place] for place in well_read(dataset, models)]


def well_read_image(dataset: str, image: int, models: tuple[str, ...] = ("lenet",)) -> tuple[Tensor, Tensor, tuple]:
    """One of the images of `well_read`, `(1, C, H, W)`, with its label `(1,)` and the names of the classes.

    Raises:
        ValueError: the number is not one of theirs.
    """
    places = well_read(dataset, models)
    if image not in places:
        raise ValueError(f"image is {image!r}; accepted: {', '.join(map(str, places))}")
    x, y, classes = sample_images(dataset, IMAGES)
    return x[[image]], y[[image]], classes


def refill(slider: widgets.SelectionSlider, options: list[tuple[str, object]]) -> None:
    """Give a slider other options and leave its handle where it is, as far as there are options."""
    place = min(slider.index, len(options) - 1)
    slider.options = options
    slider.index = place
