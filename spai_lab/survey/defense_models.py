"""The defended models that are measured: how each is built on a data set, and what an attacker who knows it climbs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor, nn

from spai_lab.data import load
from spai_lab.defenses.evasion import (
    activation_pruning,
    defense_gan,
    ensemble_adversarial_training,
    fast_adversarial_training,
    gradient_regularization,
    input_transformation,
    magnet,
    random_resize_pad,
)
from spai_lab.defenses.evasion.activation_pruning import pruning_view
from spai_lab.defenses.evasion.defense_gan import gan_view
from spai_lab.defenses.evasion.distillation import distillation_view
from spai_lab.defenses.evasion.image_networks import train_autoencoder, train_generator
from spai_lab.defenses.evasion.random_resize import resize_pad_view
from spai_lab.defenses.evasion.thermometer import thermometer_view
from spai_lab.defenses.evasion.transformation import jpeg, reduce_depth, total_variation, transformation_view
from spai_lab.training import Robustly, reference
from spai_lab.training.cache import cached
from spai_lab.training.recipes import REFERENCE, TEMPERATURE, Pretrained

SAMPLES = 10  # looks at a random defense that the adaptive attack averages in each step
EPS = {"linf": {"digits": 0.2, "mnist": 0.3}, "l2": {"digits": 2.0, "mnist": 2.0}}


@dataclass(frozen=True, eq=False)
class Defended:
    """A defended model, and what an attacker meets.

    Args:
        model: what is judged.
        view: what an attacker who knows the defense climbs: differentiable; the model itself where nothing hides its
            gradient.
        network: what an attacker takes it for who does not know of the defense.
    """

    model: nn.Module
    view: nn.Module
    network: nn.Module


def alike(model: nn.Module) -> Defended:
    """A defended model that hides nothing."""
    return Defended(model, model, model)


def plain(name: str) -> Defended:
    """No defense: the reference LeNet."""
    return alike(reference("lenet", name))


def distilled(name: str) -> Defended:
    """A student of a LeNet, both at a high temperature."""
    student = reference("lenet-distilled", name)
    return Defended(student, distillation_view(student, temperature=TEMPERATURE), student)


def encoded(name: str) -> Defended:
    """A LeNet that reads thermometer codes."""
    model = reference("thermometer", name)
    return Defended(model, thermometer_view(model), model)


def resized(name: str) -> Defended:
    """The reference LeNet behind random resizing and padding."""
    network = reference("lenet", name)
    model = random_resize_pad(network, smallest=24, size=28, generator=seeded())
    return Defended(model, resize_pad_view(model, samples=SAMPLES), network)


def pruned(name: str) -> Defended:
    """The reference LeNet with stochastic activation pruning."""
    network = reference("lenet", name)
    model = activation_pruning(network, generator=seeded())
    return Defended(model, pruning_view(model, samples=SAMPLES), network)


def transformed(transform: Callable[..., Tensor], samples: int = 1) -> Callable[[str], Defended]:
    """The reference LeNet behind an input transformation."""

    def build(name: str) -> Defended:
        network = reference("lenet", name)
        model = input_transformation(network, transform, generator=seeded())
        return Defended(model, transformation_view(model, samples=samples), network)

    return build


def projected(name: str, *, training: int = 1500, **search: int) -> Defended:
    """The reference LeNet behind the range of a generator, trained for so many steps and searched with these."""
    data, network = load(name), reference("lenet", name)
    drawn = train_generator(data.x_train[:10_000], steps=training, generator=seeded(), progress=False)
    model = defense_gan(network, drawn, generator=seeded(1), **search)
    return Defended(model, gan_view(model, generator=seeded(2)), network)


def reformed(name: str) -> Defended:
    """The reference LeNet behind MagNet's reformer; its detectors are judged apart."""
    data, network = load(name), reference("lenet", name)
    reformer = train_autoencoder(data.x_train[:10_000], generator=seeded(), progress=False)
    model = magnet(network, reformer, data.x_val).reformed
    return Defended(model, model, network)


def robust(name: str) -> Callable[[str], Defended]:
    """A robust model: the committed one of MNIST; on the digits one that is trained alike, at their eps."""

    def build(data: str) -> Defended:
        if (name, data) in REFERENCE:
            return alike(reference(name, data))
        recipe = REFERENCE[name, "mnist"]
        wider = recipe.objective.settings["eps"] / EPS["linf"]["mnist"]
        radii = {key: wider * EPS["linf"][data] for key in ("eps", "eps_final") if key in recipe.objective.settings}
        objective = Robustly(recipe.objective.loss, ramp=recipe.objective.ramp, **recipe.objective.settings | radii)
        recipe = replace(recipe, epochs=60, batch_size=32, objective=objective)
        return alike(cached(recipe, load(data), seed=0, progress=False)[0])

    return build


def robustly(loss: Callable[..., Tensor], **settings: object) -> Callable[[str], Defended]:
    """A LeNet trained with a loss in place of the cross-entropy, else as the reference LeNet."""

    def build(name: str) -> Defended:
        radius = {"eps": EPS["linf"][name]} if "weight" not in settings else {}
        objective = Robustly(loss, **radius, **settings)
        recipe = replace(REFERENCE["lenet", name], perturb=None, objective=objective)
        return alike(cached(recipe, load(name), seed=0, progress=False)[0])

    return build


DEFENSES: dict[str, Callable[[str], Defended]] = {
    "none": plain,
    "defensive distillation": distilled,
    "thermometer": encoded,
    "random resizing, padding": resized,
    "activation pruning": pruned,
    "bit depth 1": transformed(partial(reduce_depth, bits=1)),
    "JPEG 75": transformed(jpeg),
    "total variation": transformed(total_variation, samples=SAMPLES),
    "Defense-GAN": projected,
    "MagNet's reformer": reformed,
    "gradient regularization": robustly(gradient_regularization, weight=1.0),
    "fast adversarial training": robustly(fast_adversarial_training, ramp=0.4),
    "ensemble adversarial training": robustly(
        ensemble_adversarial_training, static_models=(Pretrained("mlp"), Pretrained("lenet")), ramp=0.4
    ),
    "PGD training": robust("strided-pgd"),
    "TRADES": robust("strided-trades"),
    "IBP": robust("strided-ibp"),
}
RANDOM = {"random resizing, padding", "activation pruning", "total variation", "Defense-GAN"}
COSTLY = {"total variation": 50, "Defense-GAN": 30}  # images, since each answer takes an optimization


@cache
def built(defense: str, name: str) -> Defended:
    """The defended model, trained once for all attacks."""
    return DEFENSES[defense](name)


def seeded(seed: int = 0) -> torch.Generator:
    """A generator for one use."""
    return torch.Generator().manual_seed(seed)
