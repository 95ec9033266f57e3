r"""What is measured of attacks on private models: who was trained on, what a gradient shows, what is memorized.

Every attacker knows the defense. Shadow models are trained by DP-SGD too, with the target's noise, clipping, steps and
learning rate; who reads a gradient knows the clipping norm and how much noise there is; a secret is looked for among
all candidates. Every guarantee is for one record added or removed: an image of a training set, an image of a gradient,
a line of text.

Clipping norm, sampling rate and steps were chosen on validation data, the learning rate is chosen there in every
job that trains images; the prior against noise on other images and another network (`pictures` of seed 1), the language
model's settings on sentences of seed 555. No guarantee covers these choices; what they were made on counts as public.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor, nn

from spai_lab.attacks.privacy import gradient_leakage
from spai_lab.attacks.privacy.leakage import (
    leak_network,
    leaked_labels,
    matched,
    noised,
    shared_gradients,
    shortened,
)
from spai_lab.attacks.privacy.memorization import bits_per_character, extract_secret, memorization
from spai_lab.attacks.privacy.shadows import Shadows, random_halves
from spai_lab.data import load
from spai_lab.data.sentences import Text, sentences
from spai_lab.metrics import roc
from spai_lab.models import mlp
from spai_lab.privacy.accounting import noise_for
from spai_lab.privacy.composition import gaussian_guarantee
from spai_lab.privacy.guarantee import Guarantee
from spai_lab.privacy.private_language import train_private_language_model
from spai_lab.privacy.shadows import train_private_shadows
from spai_lab.query import Query
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.leakage_jobs import INPUTS, PRIOR, RECOGNIZED, pictures
from spai_lab.survey.leakage_jobs import STEPS as LEAK_STEPS
from spai_lab.survey.membership_jobs import ATTACKS, Population, told
from spai_lab.survey.secrets_jobs import CANARY, LINES, secret_text

DELTA = 1e-5
CLIP = 1.0

SAMPLING, STEPS = 0.5, 100
RATES = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0)  # learning rates
TRIED = 4  # models that choose a learning rate
BUDGETS = (None, 100.0, 30.0, 8.0, 2.0, 0.5)  # None: clipping alone
TOLD = ("loss", "LiRA, offline", "LiRA, online")
STRICT = 0.01  # false positives that an attacker who rehearses aims at

NOISE = (0.0, 0.001, 0.003, 0.01, 0.1, 1.0)

WORDS = (None, 8.0, 2.0)  # budgets of the language models
INSERTIONS = {1: 3, 4: 2}  # how often a secret is planted, and how many trainings
READING = {"sampling_rate": 0.128, "steps": 200}
READING_RATE = 0.04


def promised(guarantee: Guarantee) -> dict:
    """A guarantee as a row holds it; epsilon is None where nothing is promised."""
    epsilon = None if math.isinf(guarantee.epsilon) else guarantee.epsilon
    return {"epsilon": epsilon, "delta_dp": guarantee.delta_dp, "adjacency": guarantee.adjacency}


def noise_of(budget: float | None, sampling_rate: float, steps: int) -> float:
    """The noise multiplier of a budget; 0 of none."""
    if budget is None:
        return 0.0
    return noise_for(epsilon=budget, delta_dp=DELTA, sampling_rate=sampling_rate, steps=steps)


# --- membership -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PrivateMembers:
    r"""Membership inference against private models, by who trains shadow models just like them.

    Each input is in a target's training set by a coin of its own. So for every record, whatever the others are, "in"
    and "out" are data sets that differ in this record alone, as the guarantee has it, and for every attack the true
    positives are at most $e^\epsilon$ times the false positives plus $\delta$. The attacker's own models need no coins:
    shadow models learn halves, so that each input is in half of them. Thresholds are chosen on other models of the
    attacker, the rehearsals.

    Args:
        data: name of the data set.
        budget: epsilon; None clips and adds no noise.
        inputs: how many training images there are; each model sees about half of them.
        shadows: how many models the attacker trains to compare with.
        rehearsals: how many more, to attack beforehand.
        targets: how many models are attacked.
        hidden: units of each of an MLP's two hidden layers.
        learning_rate: None chooses it on validation data.
    """

    data: str
    budget: float | None
    inputs: int = 1000
    shadows: int = 64
    rehearsals: int = 20
    targets: int = 22
    hidden: int = 64
    learning_rate: float | None = None

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "members", "private": True, **asdict(self)}

    def run(self, seed: int) -> dict:
        """What is promised, what the targets learned, and what each attack makes of them."""
        data = load(self.data)
        x, y = data.x_train[: self.inputs], data.y_train[: self.inputs]
        settings = {
            "expected_batch": SAMPLING * self.inputs / 2,
            "noise_multiplier": noise_of(self.budget, SAMPLING, STEPS),
            "clip": CLIP,
            "sampling_rate": SAMPLING,
            "steps": STEPS,
            "delta_dp": DELTA,
        }
        train = partial(train_private_shadows, x, y, build=self.build, **settings, progress=False)
        tried = {} if self.learning_rate else self.tried(train, seeded(1000 + seed))
        rate = self.learning_rate or max(tried, key=tried.get)
        generator = seeded(seed)
        own = [random_halves(count, len(x), generator=generator) for count in (self.shadows, self.rehearsals)]
        coins = torch.rand(self.targets, len(x), generator=generator) < 0.5
        models, guarantee = train(torch.cat([*own, coins]), learning_rate=rate, generator=generator)
        return {
            **promised(guarantee),
            **{name: settings[name] for name in ("noise_multiplier", "clip", "sampling_rate", "steps")},
            "rate": rate,
            "tried": {f"{one:g}": round(value, 4) for one, value in tried.items()},
            **attacked(self.data, x, y, *parted(models, self.shadows, self.rehearsals)),
        }

    def build(self, generator: torch.Generator) -> nn.Module:
        """A network with first weights."""
        data = load(self.data)
        return mlp(data.shape, data.num_classes, hidden=self.hidden, generator=generator)

    def tried(self, train: Callable[..., tuple[Shadows, Guarantee]], generator: torch.Generator) -> dict[float, float]:
        """The validation accuracy of a few models, for each learning rate."""
        data, inside = load(self.data), random_halves(TRIED, self.inputs, generator=generator)
        x, y = data.x_val[:1000], data.y_val[:1000]
        found = {rate: train(inside, learning_rate=rate, generator=generator)[0] for rate in RATES}
        return {rate: (models.logits(x).argmax(2) == y).double().mean().item() for rate, models in found.items()}


@dataclass(frozen=True)
class OpenMembers:
    """The same attacks on models of the same size that are trained without privacy, chapter 11's population.

    Args:
        data: name of the data set.
        inputs, shadows, rehearsals, targets, hidden: as `PrivateMembers`.
        epochs: passes over its half.
    """

    data: str
    inputs: int = 1000
    shadows: int = 64
    rehearsals: int = 20
    targets: int = 22
    hidden: int = 64
    epochs: int = 60

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "members", "private": False, **asdict(self)}

    def run(self, seed: int) -> dict:
        """What the targets learned, and what each attack makes of them."""
        count = self.shadows + self.rehearsals
        population = Population(self.data, self.inputs, count, self.targets, self.hidden, self.epochs)
        x, y, known, targets = population.trained(seed)
        return attacked(self.data, x, y, *parted(known, self.shadows, self.rehearsals)[:2], targets)


def parted(models: Shadows, shadows: int, rehearsals: int) -> tuple[Shadows, Shadows, Shadows]:
    """The first models, the next ones, and the others."""
    numbers = torch.arange(len(models)).tensor_split([shadows, shadows + rehearsals])
    return tuple(models.some(part) for part in numbers)


def attacked(data: str, x: Tensor, y: Tensor, shadows: Shadows, rehearsals: Shadows, targets: Shadows) -> dict:
    """Accuracies; for each attack what `told` says of it, and what it finds with thresholds that were chosen before.

    "rehearsal" is the share of members that it finds in rehearsal, by which an attacker chooses among the attacks.
    """
    test = load(data)
    right = targets.logits(x).argmax(2) == y
    of_test = (targets.logits(test.x_test).argmax(2) == test.y_test).sum(1)
    accuracy = {
        where: [int(right[mask].sum()), int(mask.sum())]
        for where, mask in (("members", targets.inside), ("others", ~targets.inside))
    }
    attacks = {}
    for name in TOLD:
        before, after = (
            [ATTACKS[name](Query(models.model(k), "logits"), x, y, shadows, None) for k in range(len(models))]
            for models in (rehearsals, targets)
        )
        attacks[name] = {
            **told(after, list(targets.inside)),
            "rehearsal": roc(torch.cat(before), torch.cat(list(rehearsals.inside))).best(false_positives=STRICT),
            "rehearsed": {
                aim: [called(scores >= threshold, inside) for scores, inside in zip(after, targets.inside, strict=True)]
                for aim, threshold in thresholds(before, list(rehearsals.inside)).items()
            },
        }
    return {"accuracy": accuracy, "test": {"right": of_test.tolist(), "of": len(test.y_test)}, "attacks": attacks}


def thresholds(scores: list[Tensor], inside: list[Tensor]) -> dict[str, float]:
    """Above which score to call an input a member: for the best balanced accuracy, and for few false positives."""
    curve = roc(torch.cat(scores), torch.cat(inside))
    gain = curve.true_positives - curve.false_positives
    few = curve.thresholds[curve.false_positives <= STRICT]
    return {"best": curve.thresholds[gain.argmax()].item(), f"{STRICT:g}": few[-1].item()}


def called(member: Tensor, inside: Tensor) -> list[int]:
    """Members called members, all members, others called members, all others."""
    return [int(part.sum()) for part in (member & inside, inside, member & ~inside, ~inside)]


# --- leakage ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PrivateLeak:
    """An attack on the gradients of single images that were clipped and noised as DP-SGD does.

    Who knows that compares with gradients that are clipped too, expects images of little total variation, the less the
    more noise there is, and reads the label off sums over the last layer's rows.

    Args:
        data: name of the data set.
        noise_multiplier: in units of the clipping norm.
        aware: whether the attacker knows the clipping norm and the noise.
        labels: "analytic" (iDLG) or "optimized" (DLG).
    """

    data: str
    noise_multiplier: float
    aware: bool
    labels: str = "analytic"

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "leak", **asdict(self)}

    def run(self, seed: int) -> dict:
        """What one release promises; PSNR of each image in dB, images recognized, and labels found."""
        x, y, classes = pictures(self.data, INPUTS, seed)
        generator = seeded(seed)
        model = leak_network(x.shape[1:], classes, generator=generator)
        x, y = x[:, None], y[:, None]
        whole = shared_gradients(model, x, y)
        lengths = sum(gradient.flatten(1).square().sum(1) for gradient in whole.values()).sqrt()
        sent = noised(shortened(whole, CLIP), self.noise_multiplier * CLIP, generator=generator)
        knows, labels = {}, self.labels
        if self.aware:
            knows = {"clipped": CLIP, "prior": PRIOR * (self.noise_multiplier * CLIP) ** 2}
            labels = leaked_labels(sent, positive=True)[:, None] if labels == "analytic" else labels
        leaked = gradient_leakage(
            model,
            sent,
            **knows,
            shape=x.shape[2:],
            labels=labels,
            steps=LEAK_STEPS,
            generator=generator,
            progress=False,
        )
        near, named = matched(leaked, x, y)
        noise = self.noise_multiplier
        released = gaussian_guarantee(noise, DELTA) if noise else Guarantee(math.inf, DELTA, "add/remove", ("a step",))
        return {
            **promised(released),
            "clip": CLIP,
            "clipped": [int((lengths > CLIP).sum()), len(lengths)],
            "psnr": [round(value, 1) for value in near.flatten().tolist()],
            "recognized": [int((near >= RECOGNIZED).sum()), near.numel()],
            "labels_found": [int(named.sum()), named.numel()],
        }


# --- memorization -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PrivateMemorized:
    """A language model that was trained privately on a text that held a secret; the text of `Memorized`.

    A record is a line. A secret that stands in k lines is k records, and only the guarantee of groups speaks of it.

    Args:
        budget: epsilon for one line; None clips and adds no noise.
        insertions: how often the secret is in the text.
        number: of the secret and of the training.
    """

    budget: float | None
    insertions: int
    number: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "memorized", **asdict(self)}

    def run(self, seed: int) -> dict:
        """What is promised, exposure and rank of the secret, whether the search finds it, and a character's cost."""
        generator = seeded(1000 * seed + self.number)
        secret, text = secret_text(self.insertions, generator)
        model, guarantee = train_private_language_model(
            text,
            expected_batch=READING["sampling_rate"] * LINES,
            noise_multiplier=noise_of(self.budget, **READING),
            clip=CLIP,
            **READING,
            learning_rate=READING_RATE,
            delta_dp=DELTA,
            generator=generator,
            progress=False,
        )
        found = memorization(model, CANARY, secret)
        return {
            **promised(guarantee),
            "noise_multiplier": noise_of(self.budget, **READING),
            "exposure": round(found.exposure, 3),
            "rank": found.rank,
            "found": extract_secret(model, CANARY).secret == secret,
            "bits": round(bits_per_character(model, Text.of(sentences(300, generator=seeded(777)))), 3),
        }


def protected_jobs(name: str) -> tuple[PrivateMembers | OpenMembers | PrivateLeak | PrivateMemorized, ...]:
    """Membership and leakage on a data set of images, at each budget; the language models with the digits."""
    sizes = {"inputs": 400, "shadows": 32, "targets": 20} if name == "digits" else {}
    jobs = (
        OpenMembers(name, **sizes),
        *(PrivateMembers(name, budget, **sizes) for budget in BUDGETS),
        PrivateMembers(name, None, **sizes, learning_rate=0.5),
        PrivateLeak(name, 0.0, aware=True, labels="optimized"),
        *(PrivateLeak(name, noise, aware=False) for noise in NOISE[:2]),
        *(PrivateLeak(name, noise, aware=True) for noise in NOISE),
    )
    if name == "digits":
        trainings = ((times, number) for times, count in INSERTIONS.items() for number in range(count))
        jobs += tuple(PrivateMemorized(budget, *training) for training in trainings for budget in WORDS)
    return jobs
