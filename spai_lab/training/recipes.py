"""How each victim is trained: settings, augmentation, adversarial training. All were chosen on validation data."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.checks import check_callable, check_count, check_number, unsuspecting
from spai_lab.data import Dataset
from spai_lab.defenses.evasion.adversarial import adversarial_training
from spai_lab.defenses.evasion.distillation import defensive_distillation, softened
from spai_lab.defenses.evasion.ibp import ibp, strided_for_ibp
from spai_lab.defenses.evasion.regularization import trades
from spai_lab.defenses.evasion.thermometer import thermometer_lenet
from spai_lab.models import Shape, build
from spai_lab.training.digests import digest_tensors
from spai_lab.training.loop import History, fit


class Perturbation(Protocol):
    """A frozen dataclass that changes a batch for training; its `repr` says all that determines what it does."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class Shift:
    """Move each image by up to `pixels` in both directions, and fill with zeros: a light augmentation.

    >>> x = torch.zeros(1, 1, 5, 5)
    >>> x[..., 2, 2] = 1
    >>> moved = Shift(1)(None, x, None, generator=torch.Generator().manual_seed(0))
    >>> moved.sum(), moved[..., 1:4, 1:4].sum()
    (tensor(1.), tensor(1.))
    """

    pixels: int

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        height, width = x.shape[-2:]
        padded = nn.functional.pad(x, [self.pixels] * 4)
        down, right = torch.randint(2 * self.pixels + 1, (2, len(x), 1), generator=generator, device=x.device)
        rows = (down + torch.arange(height, device=x.device))[:, None, :, None]
        columns = (right + torch.arange(width, device=x.device))[:, None, None, :]
        image = torch.arange(len(x), device=x.device)[:, None, None, None]
        channel = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
        return padded[image, channel, rows, columns]


@dataclass(frozen=True)
class Adversarial:
    r"""Train on what an attacker would send.

    $\min_\theta \sum_i \max_{\|\delta\|_\infty \le \epsilon} L(f_\theta(x_i + \delta), y_i)$, the inner part by `pgd`.

    Args:
        eps: radius of the ball in L-inf, in pixel units of [0, 1].
        steps: steps of `pgd`, from a random start.
        step_size: size of a step, in pixel units.
    Reference: Madry et al. 2017, arXiv 1706.06083, equation 2.1; with `steps=1` Wong et al. 2020, arXiv 2001.03994,
        algorithm 3 (fast adversarial training).
    Simplified: the reference models take few, long steps.
    """

    eps: float
    steps: int
    step_size: float

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        with unsuspecting():
            return pgd(model, x, y, eps=self.eps, steps=self.steps, step_size=self.step_size, generator=generator)


@dataclass(frozen=True)
class Pretrained:
    """A reference model as a setting of a training loss: a teacher, a static model."""

    name: str

    def on(self, data: Dataset) -> nn.Module:
        """The model with its committed weights."""
        from spai_lab.training.weights import reference

        return reference(self.name, data)


@dataclass(frozen=True)
class Trained:
    """A model that is trained first, as a setting of another training: a teacher."""

    recipe: "Recipe"

    def on(self, data: Dataset) -> nn.Module:
        """The model trained on the data from seed 0, or taken from the user's cache."""
        from spai_lab.training.cache import cached

        return cached(self.recipe, data, seed=0, progress=False)[0]


@dataclass(frozen=True, init=False)
class Robustly:
    """A training loss with its settings: what `Recipe.objective` holds.

    Args:
        loss: `(model, x, y, *, generator, ...) -> loss`, such as `spai_lab.defenses.evasion.trades`.
        ramp: share of the training, from 0 to below 1, during which `eps` grows from 0 to its value.
        **settings: the other arguments of `loss`: numbers, strings, `Pretrained`, `Trained`, or a tuple of those.

    >>> Robustly(len, eps=0.3, ramp=0.5).settings_at(0.25)
    {'eps': 0.15}
    """

    loss: Callable[..., Tensor]
    ramp: float
    settings: dict[str, object]

    def __init__(self, loss: Callable[..., Tensor], *, ramp: float = 0.0, **settings: object) -> None:
        check_callable("loss", loss)
        check_number("ramp", ramp, low=0, high=1)
        if ramp and "eps" not in settings:
            raise ValueError(f"ramp is {ramp}, without an eps that could grow; accepted: 0")
        for name, value in (("loss", loss), ("ramp", ramp), ("settings", settings)):
            object.__setattr__(self, name, value)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, t: float, *, generator: torch.Generator) -> Tensor:
        return self.loss(model, x, y, **self.settings_at(t), generator=generator)

    def on(self, data: Dataset) -> "Robustly":
        """The same, with each `Pretrained` and `Trained` as the model that it stands for."""

        def resolved(value: object) -> object:
            if isinstance(value, tuple):
                return tuple(resolved(part) for part in value)
            return value.on(data) if isinstance(value, Pretrained | Trained) else value

        settings = {name: resolved(value) for name, value in self.settings.items()}
        return Robustly(self.loss, ramp=self.ramp, **settings)

    def settings_at(self, t: float) -> dict[str, object]:
        """The settings after a share `t` of the training."""
        if t >= self.ramp:
            return self.settings
        return self.settings | {"eps": self.settings["eps"] * t / self.ramp}

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in sorted(self.settings.items()))
        return f"{self.loss.__name__}({settings}, ramp={self.ramp:g})"


@dataclass(frozen=True)
class Recipe:
    """All that determines how a victim is trained, but the data and the seed.

    Args:
        victim: what `spai_lab.models.build` calls it.
        epochs, batch_size, learning_rate, weight_decay, patience: as in `fit`.
        perturb: changes the batches; a frozen dataclass such as `Shift` or `Adversarial`.
        objective: takes the place of the cross-entropy.
    """

    victim: str
    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    patience: int | None = None
    perturb: Perturbation | None = None
    objective: Robustly | None = None

    def settings(self) -> dict:
        """The recipe as JSON can hold it."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        settings["perturb"] = None if self.perturb is None else repr(self.perturb)
        objective = settings.pop("objective")
        return settings if objective is None else settings | {"objective": repr(objective)}


TEMPERATURE = 100.0  # of the distilled reference models, the highest that their paper tries


def distilled(recipe: Recipe) -> Recipe:
    """The recipe of a student whose teacher is trained by `recipe`; both at `TEMPERATURE`."""
    teacher = Trained(replace(recipe, objective=Robustly(softened, temperature=TEMPERATURE)))
    return replace(recipe, objective=Robustly(defensive_distillation, teacher=teacher, temperature=TEMPERATURE))


LENET = {
    "digits": Recipe("lenet", epochs=20, batch_size=32, learning_rate=3e-3, perturb=Shift(1)),
    "mnist": Recipe("lenet", epochs=8, learning_rate=4e-3, perturb=Shift(1)),
}
REFERENCE = {
    ("softmax", "digits"): Recipe("softmax", epochs=30, batch_size=32, learning_rate=3e-3),
    ("mlp", "digits"): Recipe("mlp", epochs=20, batch_size=32, learning_rate=3e-3, perturb=Shift(1)),
    ("lenet", "digits"): LENET["digits"],
    ("lenet-robust", "digits"): Recipe(
        "lenet", epochs=30, batch_size=32, learning_rate=3e-3, perturb=Adversarial(0.2, steps=3, step_size=0.1)
    ),
    ("lenet-distilled", "digits"): distilled(LENET["digits"]),
    ("thermometer", "digits"): replace(LENET["digits"], victim="thermometer"),
    ("softmax", "mnist"): Recipe("softmax", epochs=5, learning_rate=3e-3),
    ("mlp", "mnist"): Recipe("mlp", epochs=8, learning_rate=3e-3),
    ("lenet", "mnist"): LENET["mnist"],
    ("lenet-robust", "mnist"): Recipe(
        "lenet", epochs=6, learning_rate=4e-3, perturb=Adversarial(0.2, steps=3, step_size=0.1)
    ),
    ("lenet-distilled", "mnist"): distilled(LENET["mnist"]),
    ("thermometer", "mnist"): replace(LENET["mnist"], victim="thermometer"),
    ("strided-trades", "mnist"): Recipe(
        "strided", learning_rate=3e-3, objective=Robustly(trades, eps=0.32, beta=4.0, steps=7, ramp=0.4)
    ),
    ("strided-pgd", "mnist"): Recipe(
        "strided", learning_rate=3e-3, objective=Robustly(adversarial_training, eps=0.32, steps=7, ramp=0.4)
    ),
    ("strided-ibp", "mnist"): Recipe(
        "strided-for-ibp", epochs=60, learning_rate=3e-3, objective=Robustly(ibp, eps=0.35, eps_final=0.35, ramp=0.5)
    ),
    ("mlp", "moons"): Recipe("mlp", epochs=50, batch_size=64, learning_rate=1e-2),
}

DEFENDED = {"thermometer": thermometer_lenet, "strided-for-ibp": strided_for_ibp}


def built(victim: str, shape: Shape, classes: int, *, generator: torch.Generator | None = None) -> nn.Module:
    """A victim by its name, untrained: one of `DEFENDED`, or one that `spai_lab.models.build` knows."""
    if victim in DEFENDED:
        return DEFENDED[victim](shape, classes, generator=generator)
    return build(victim, shape, classes, generator=generator)


def train(
    recipe: Recipe, data: Dataset, *, seed: int = 0, checkpoint: Path | None = None, progress: bool = True
) -> tuple[nn.Module, History]:
    """Build a victim and train it.

    Args:
        recipe: how.
        data: on what; the test part is not touched.
        seed: starts the one generator of first weights, shuffling and perturbation.
        checkpoint, progress: as in `fit`.
    Returns:
        the model in evaluation mode, and its history.
    Raises:
        ValueError: names the argument.
    """
    check_count("seed", seed, low=0)
    generator = torch.Generator().manual_seed(seed)
    model = built(recipe.victim, data.shape, data.num_classes, generator=generator)
    history = fit(
        model,
        data.x_train,
        data.y_train,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        x_val=data.x_val,
        y_val=data.y_val,
        patience=recipe.patience,
        perturb=partial(recipe.perturb, generator=generator) if recipe.perturb else None,
        objective=partial(recipe.objective.on(data), generator=generator) if recipe.objective else None,
        generator=generator,
        checkpoint=checkpoint,
        progress=progress,
    )
    return model.eval(), history


def fingerprint(data: Dataset) -> str:
    """SHA-256 of every tensor of a data set."""
    parts = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test")
    return digest_tensors({part: getattr(data, part) for part in parts})
