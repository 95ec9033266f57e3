"""What is measured of the poisonings that degrade a model or turn one image: over fractions, targets and seeds."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import nn

from spai_lab.attacks.poisoning import (
    adversarial_label_flip,
    back_gradient,
    convex_polytope,
    feature_collision,
    generative_poisoning,
    gradient_matching,
    influence_poison,
    label_flip,
    svm_poisoning,
)
from spai_lab.attacks.poisoning.influence import retrained_head
from spai_lab.attacks.poisoning.outcome import (
    Victim,
    disjoint,
    from_scratch,
    frozen_features,
    random_targets,
    targeted_outcome,
)
from spai_lab.attacks.poisoning.poisoned import Poisoned, added, budget
from spai_lab.attacks.poisoning.svm import train_svm
from spai_lab.data import Dataset, load
from spai_lab.metrics import accuracy_rate
from spai_lab.models import softmax_regression
from spai_lab.training import Recipe, train
from spai_lab.training.cache import cached
from spai_lab.training.recipes import REFERENCE

SEEDS = (1001, 1002, 1003)  # of the victims, which no attacker has seen

FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.3)
SLOW = {"SVM poisoning": FRACTIONS[:3]}  # which trains a machine at each step of each poison
SMALL = 200  # training images of 1-vs-7
LINEAR = Recipe("softmax", epochs=40, batch_size=32, learning_rate=3e-3)

TARGETS = 20
TRAINING = 1078  # images that are divided or trained on: all of the digits
STOPPED = (1, 2, 4, 8, 20)  # epochs after which the surrogates of gradient matching stop
DAMPING = 0.001  # of the last layer in the influence attack, and of its victim


def ones_and_sevens(name: str) -> Dataset:
    """The two classes on which machines are poisoned."""
    return load(name).only(1, 7).first(SMALL)


def ten_digits(name: str) -> Dataset:
    """All classes."""
    return load(name).first(TRAINING)


def untrained(data: Dataset, generator: torch.Generator) -> nn.Module:
    """The attacker's own softmax regression, from first weights of its own."""
    return softmax_regression(data.shape, data.num_classes, generator=generator)


def mislabeled_copies(data: Dataset, fraction: float, generator: torch.Generator) -> Poisoned:
    """Wrongly labeled copies of random training images, added: the yardstick of attacks that add inputs."""
    flipped = label_flip(data, fraction=fraction, generator=generator)
    return added(data, flipped.x[flipped.is_poison], flipped.y[flipped.is_poison])


Degrade = Callable[[Dataset, float, torch.Generator], Poisoned]
DEGRADE: dict[str, Degrade] = {
    "random flips": lambda data, fraction, generator: label_flip(data, fraction=fraction, generator=generator),
    "mislabeled copies": mislabeled_copies,
    "guided flips": lambda data, fraction, generator: adversarial_label_flip(
        data, fraction=fraction, generator=generator, progress=False
    ),
    "SVM poisoning": lambda data, fraction, generator: svm_poisoning(
        data, fraction=fraction, generator=generator, progress=False
    ),
    "back-gradient": lambda data, fraction, generator: back_gradient(
        data, untrained(data, generator), fraction=fraction, generator=generator, progress=False
    ),
    "generative": lambda data, fraction, generator: generative_poisoning(
        data, untrained(data, generator), fraction=fraction, generator=generator, progress=False
    ),
}
VICTIMS: dict[str, Callable[[Dataset, int], nn.Module]] = {
    "SVM": lambda data, seed: train_svm(data.x_train, data.y_train),
    "softmax": lambda data, seed: train(LINEAR, data, seed=seed, progress=False)[0],
}


TASKS: dict[str, Callable[[str], Dataset]] = {"1 against 7": ones_and_sevens, "ten digits": ten_digits}


@dataclass(frozen=True)
class Degraded:
    """The accuracy that a poisoning leaves.

    Args:
        data: name of the data set.
        task: one of `TASKS`.
        attack: one of `DEGRADE`.
        fraction: poisons as a share of the clean training images.
    """

    data: str
    task: str
    attack: str
    fraction: float

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "degraded", **asdict(self)}

    def run(self, seed: int) -> dict:
        """By victim, test images read rightly, hits and trials, after training on clean and on poisoned data.

        Three poisonings, each judged by a victim of another seed, are counted together.
        """
        data = TASKS[self.task](self.data)
        counts = {name: {victim: [0, 0] for victim in VICTIMS} for name in ("accuracy_before", "accuracy_after")}
        for number, victim_seed in enumerate(SEEDS):
            poisoned = DEGRADE[self.attack](data, self.fraction, torch.Generator().manual_seed(seed + number))
            for name, trained_on in (("accuracy_before", data), ("accuracy_after", poisoned.within(data))):
                for victim, train_on in VICTIMS.items():
                    rate = accuracy_rate(train_on(trained_on, victim_seed), data.x_test, data.y_test)
                    hits, trials = counts[name][victim]
                    counts[name][victim] = [hits + rate.hits, trials + rate.trials]
        return {**counts, "poisons": poisoned.count}


@dataclass(frozen=True)
class Scene:
    """Where a targeted attack acts.

    Args:
        data: what is poisoned.
        given: the models that the attacker holds, as the attack's argument.
        victim: who trains on it.
    """

    data: Dataset
    given: dict[str, object]
    victim: Victim


def digit_recipe(victim: str) -> Recipe:
    """How extractors, surrogates and victims are trained, on either data set, since both give about as many images."""
    return REFERENCE[victim, "digits"]


def halves(name: str) -> tuple[Dataset, Dataset]:
    """One half of the training images to pretrain extractors on, the other to poison."""
    return disjoint(load(name).first(TRAINING), TRAINING // 2)


def known_extractor(name: str) -> Scene:
    """The victim keeps the features of a LeNet that the attacker has too."""
    pretraining, data = halves(name)
    extractor = cached(digit_recipe("lenet"), pretraining, seed=0, progress=False)[0]
    return Scene(data, {"model": extractor}, partial(frozen_features, extractor=extractor))


def known_extractor_and_optimum(name: str) -> Scene:
    """As `known_extractor`, but the victim trains the last layer to its optimum, which depends on no seed."""
    scene = known_extractor(name)

    def victim(data: Dataset, seed: int) -> nn.Module:
        return retrained_head(scene.given["model"], data.x_train, data.y_train, damping=DAMPING)

    return replace(scene, victim=victim)


def unseen_extractors(name: str) -> Scene:
    """Each victim keeps the features of an MLP of its own seed; the attacker has six others, of the same data."""
    pretraining, data = halves(name)

    def extractor(seed: int) -> nn.Module:
        return cached(digit_recipe("mlp"), pretraining, seed=seed, progress=False)[0]

    def victim(data: Dataset, seed: int) -> nn.Module:
        return frozen_features(data, seed, extractor=extractor(seed))

    return Scene(data, {"models": [extractor(seed) for seed in range(6)]}, victim)


def untrained_victims(name: str) -> Scene:
    """Each victim trains an MLP from scratch; the attacker's five, of other seeds, stop ever later."""
    data, recipe = load(name).first(TRAINING), digit_recipe("mlp")
    surrogates = [
        cached(replace(recipe, epochs=epochs), data, seed=seed, progress=False)[0]
        for seed, epochs in enumerate(STOPPED)
    ]
    return Scene(data, {"models": surrogates}, partial(from_scratch, recipe=recipe))


@dataclass(frozen=True)
class Setting:
    """A targeted attack as it is measured.

    Args:
        attack: the method.
        scene: from the name of a data set to where it acts.
        victim: what the victim trains, in words.
        attacker: what the attacker holds, in words.
        settings: of the method, `fraction` and `eps` among them.
        seeds: of the victims.
        draw: of the targets; the settings were chosen on earlier ones.
    """

    attack: Callable[..., Poisoned]
    scene: Callable[[str], Scene]
    victim: str
    attacker: str
    settings: dict[str, float]
    seeds: tuple[int, ...] = SEEDS
    draw: int = 7


FROZEN_LENET = ("frozen features: LeNet, pretrained on other images", "the victim's extractor")
TARGETED: dict[str, Setting] = {
    "influence": Setting(
        influence_poison,
        known_extractor_and_optimum,
        f"{FROZEN_LENET[0]}; last layer trained to its optimum, the same from every seed",
        FROZEN_LENET[1],
        {"fraction": 0.02, "eps": 0.3, "steps": 30, "damping": DAMPING},
        seeds=SEEDS[:1],
    ),
    "feature collision": Setting(
        feature_collision, known_extractor, *FROZEN_LENET, {"fraction": 0.01, "eps": 1.0, "beta": 0.1, "steps": 50}
    ),
    "feature collision, watermark": Setting(
        feature_collision,
        known_extractor,
        *FROZEN_LENET,
        {"fraction": 0.01, "eps": 1.0, "beta": 1.0, "watermark": 0.3, "steps": 50},
    ),
    "convex polytope": Setting(
        convex_polytope,
        unseen_extractors,
        "frozen features: MLP of each seed, pretrained on other images",
        "six extractors, none of them a victim's",
        {"fraction": 0.02, "eps": 0.4, "steps": 100},
        draw=9,
    ),
    "gradient matching": Setting(
        gradient_matching,
        untrained_victims,
        "from scratch: MLP",
        f"five MLPs of other seeds, stopped after {', '.join(map(str, STOPPED))} epochs",
        {"fraction": 0.05, "eps": 0.4, "steps": 100, "restarts": 1},
    ),
}


@dataclass(frozen=True)
class Turned:
    """A targeted attack on random targets, judged by victims from unseen seeds.

    Args:
        data: name of the data set.
        attack: one of `TARGETED`.
        targets: how many.
    """

    data: str
    attack: str
    targets: int = TARGETS

    @property
    def key(self) -> dict:
        """Its fields, and the attack's settings."""
        setting = TARGETED[self.attack]
        return {
            "kind": "turned",
            **asdict(self),
            "victim": setting.victim,
            "attacker": setting.attacker,
            "seeds": list(setting.seeds),
            "draw": setting.draw,
            "settings": setting.settings,
        }

    def run(self, seed: int) -> dict:
        """Success, hits and trials; clean accuracy before and after; the number of poisons."""
        setting = TARGETED[self.attack]
        scene = setting.scene(self.data)
        generator = torch.Generator().manual_seed(seed + setting.draw)

        def attack(x_target: torch.Tensor, wanted: int, generator: torch.Generator) -> Poisoned:
            aim = {"x_target": x_target, "wanted": wanted, "generator": generator, "progress": False}
            return setting.attack(scene.data, **scene.given, **setting.settings, **aim)

        outcome = targeted_outcome(
            attack,
            scene.data,
            random_targets(scene.data, self.targets, generator=generator),
            victim=scene.victim,
            seeds=setting.seeds,
            generator=generator,
        )
        return {
            "success": [outcome.success.hits, outcome.success.trials],
            "accuracy_before": outcome.accuracy_before,
            "accuracy_after": outcome.accuracy_after,
            "poisons": budget(scene.data, setting.settings["fraction"]),
            "trained_on": len(scene.data.y_train),
        }


def jobs(name: str) -> tuple[Degraded | Turned, ...]:
    """All of it on one data set."""
    curves = [
        Degraded(name, "1 against 7", attack, fraction)
        for attack in DEGRADE
        for fraction in SLOW.get(attack, FRACTIONS)
    ]
    wider = [
        Degraded(name, "ten digits", attack, fraction)
        for attack in DEGRADE
        for fraction in FRACTIONS[1:4]
        if attack not in SLOW
    ]
    return (*(Turned(name, attack) for attack in TARGETED), *curves, *wider)
