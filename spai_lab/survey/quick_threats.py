"""Attacks on privacy in seconds: each row runs once on the digits, on patients, or on sentences.

Victims and shadow models are trained on the spot; test labels only judge. Where a family of measurements has a job that
is quick enough, that very job runs; of membership inference and of copying a part of one does.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from spai_lab.attacks.privacy.copying import agreement, extraction_learning
from spai_lab.data import load
from spai_lab.models import lenet
from spai_lab.query import Query
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.extraction_jobs import Solved, TakenApart, regression, victim_and_pool
from spai_lab.survey.full_threats import BUDGETS, TOLD
from spai_lab.survey.headline import Headline
from spai_lab.survey.headline_rows import fresh
from spai_lab.survey.inversion_jobs import Attribute, Inversion
from spai_lab.survey.leakage_jobs import Leak
from spai_lab.survey.measure import counted
from spai_lab.survey.membership_jobs import ATTACKS, Population, told
from spai_lab.survey.secrets_jobs import TARGETS, Drawn, Memorized
from spai_lab.survey.threat_headlines import (
    attribute_headline,
    drawn_headline,
    inversion_headline,
    leak_headline,
    learned_headline,
    membership_headline,
    memorized_headline,
    solved_headline,
)
from spai_lab.survey.together_jobs import commonest

POPULATION = Population("digits", 200, 16, 10)
QUERIES = 100
NETWORKS = 5  # that are taken apart
SECRETS = 3  # language models whose text holds the secret


def inversion(seed: int) -> Headline:
    """A network with its weights, drawn class by class."""
    return inversion_headline(fresh(Inversion("digits", "mlp", "white-box"), seed))


def membership(attack: str, seed: int, population: Population = POPULATION) -> Headline:
    """One of the attacks on one population."""
    x, y, shadows, targets = population.trained(seed)
    generator, inside = seeded(seed), list(targets.inside)
    queries = [Query(targets.model(k), "logits") for k in range(len(targets))]
    scores = [ATTACKS[attack](query, x, y, shadows, generator) for query in queries]
    right = targets.logits(x).argmax(2) == y
    sides = {"members": targets.inside, "others": ~targets.inside}
    accuracy = {where: [int(right[mask].sum()), int(mask.sum())] for where, mask in sides.items()}
    row = {**asdict(population), "accuracy": accuracy, "attacks": {attack: told(scores, inside)}}
    return membership_headline(row, attack, BUDGETS[attack].format(population.shadows))


def attribute(seed: int) -> Headline:
    """The sex of patients, from confidences."""
    return attribute_headline(fresh(Attribute(60, "scores"), seed))


def equations(seed: int) -> Headline:
    """A softmax regression, and a few ReLU networks."""
    guess = commonest(regression(load("digits"), seed), load("digits").x_test[:1000])
    apart = [fresh(TakenApart("digits", 8, number), seed) for number in range(NETWORKS)]
    return solved_headline(fresh(Solved("digits", 10, None), seed), apart, guess)


def copying(seed: int, queries: int = QUERIES) -> Headline:
    """A LeNet, from the labels that it gives to images of others."""
    data, (victim, pool) = load("digits"), victim_and_pool("digits")
    student = lenet(data.shape, data.num_classes, generator=seeded(seed + 1))
    copied = extraction_learning(
        Query(victim, "labels"),
        pool,
        budget=queries,
        model=student,
        strategy="natural",
        shape=data.shape,
        generator=seeded(seed),
        progress=False,
    )
    x, _ = data.sample(1000, seed=seed)
    agree = {str(queries): counted(agreement(victim, copied.model, x))}
    row = {"data": "digits", "strategy": "natural", "level": "labels", "agree": agree}
    return learned_headline(row, commonest(victim, x))


def leakage(seed: int) -> Headline:
    """Single images, labels read off first."""
    return leak_headline(fresh(Leak("digits", "analytic"), seed), seed)


def drawing(seed: int) -> Headline:
    """A training for each of three classes, with the class in the victim's data and without it."""
    rows = []
    for absent in (False, True):
        job = Drawn("digits", absent=absent)
        runs = [job.attack(target, 100 * seed + number) for number, target in enumerate(TARGETS)]
        rows.append(job.key | {name: [run[name] for run in runs] for name in ("taken", "likeness", "accuracy")})
    return drawn_headline(*rows)


def memory(seed: int) -> Headline:
    """Language models whose text holds a secret, and one whose text does not."""
    rows = [fresh(Memorized(TOLD, number), seed) for number in range(SECRETS)]
    return memorized_headline(rows, [fresh(Memorized(0, 0), seed)])


QUICK: dict[str, Callable[[int], Headline]] = {
    "model_inversion": inversion,
    "membership_shadow": partial(membership, "shadow models"),
    "membership_loss": partial(membership, "loss"),
    "lira": partial(membership, "LiRA, online"),
    "attribute_inference": attribute,
    "extraction_equations": equations,
    "extraction_learning": copying,
    "gradient_leakage": leakage,
    "gan_attack": drawing,
    "memorization": memory,
}
