"""Attacks on privacy, from what `spai-lab measure` has kept: MNIST and faces, and digits where there is no more."""

from collections.abc import Callable
from functools import partial

from spai_lab.survey.headline import Headline
from spai_lab.survey.headline_rows import kept
from spai_lab.survey.measure import load_measurement, rows_of_kind
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

IMAGES = ("digits", "mnist")
TOLD = 4  # insertions of the secret
BUDGETS = {
    "loss": "1 query a record",
    "shadow models": "1 query a record, {} shadow models",
    "LiRA, online": "1 query a record, {} shadow models",
}


def inversions() -> list[Headline]:
    """The victim that is a network of one hidden layer, with its weights."""
    key = {"kind": "inversion", "victim": "mlp", "access": "white-box"}
    return [inversion_headline(kept(f"inversion_{name}", **key)) for name in (*IMAGES, "faces")]


def memberships(attack: str) -> list[Headline]:
    """Against the most overfitted population of each data set, which is the first."""
    rows = [rows_of_kind(load_measurement(f"membership_{name}"), "members")[0] for name in IMAGES]
    return [membership_headline(row, attack, BUDGETS[attack].format(row["shadows"])) for row in rows]


def attributes() -> list[Headline]:
    """Diabetes patients, whose file is that of the digits."""
    return [attribute_headline(kept("inversion_digits", kind="attribute", epochs=60, level="scores"))]


def solutions() -> list[Headline]:
    """Ten classes, every confidence in full; ten ReLU networks."""
    return [
        solved_headline(
            kept(f"extraction_{name}", kind="solved", classes=10, decimals=None),
            rows_of_kind(load_measurement(f"extraction_{name}"), "apart"),
            kept(f"blocks_{name}", kind="guessed")["regression"],
        )
        for name in IMAGES
    ]


def copies() -> list[Headline]:
    """Images of the same kind as the training data, labels alone."""
    return [
        learned_headline(
            kept(f"extraction_{name}", kind="learned", strategy="natural", level="labels"),
            kept(f"blocks_{name}", kind="guessed")["lenet"],
        )
        for name in IMAGES
    ]


def leaks() -> list[Headline]:
    """Single images by iDLG; DLG beside it, and batches."""
    found = []
    for name in (*IMAGES, "faces"):
        one = partial(kept, f"leakage_{name}", kind="leak", defense="none", adaptive=False, epochs=0)
        others = {"read by DLG": one(labels="optimized", batch=1)}
        others |= {f"read by DLG, {n} a gradient": one(labels="optimized", batch=n) for n in (2, 4, 8)}
        seed = load_measurement(f"leakage_{name}")["seed"]
        found.append(leak_headline(one(labels="analytic", batch=1), seed, others))
    return found


def drawings() -> list[Headline]:
    """A victim that sends what it learned."""
    key = {"kind": "drawn", "clip": None, "noise_multiplier": 0.0}
    return [
        drawn_headline(*(kept(f"secrets_{name}", **key, absent=absent) for absent in (False, True))) for name in IMAGES
    ]


def memories() -> list[Headline]:
    """Sentences and a secret, which have nothing to do with images; their file is that of the digits."""
    rows = rows_of_kind(load_measurement("secrets_digits"), "memorized")
    told, controls = ([row for row in rows if row["insertions"] == times] for times in (TOLD, 0))
    return [memorized_headline(told, controls)]


FULL: dict[str, Callable[[], list[Headline]]] = {
    "model_inversion": inversions,
    "membership_shadow": partial(memberships, "shadow models"),
    "membership_loss": partial(memberships, "loss"),
    "lira": partial(memberships, "LiRA, online"),
    "attribute_inference": attributes,
    "extraction_equations": solutions,
    "extraction_learning": copies,
    "gradient_leakage": leaks,
    "gan_attack": drawings,
    "memorization": memories,
}
