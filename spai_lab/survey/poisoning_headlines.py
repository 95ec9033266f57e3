"""Poisonings in one number each: the error that is added, the targets that turn, or how often a trigger opens."""

import math

from spai_lab.metrics import Rate, wilson
from spai_lab.survey.headline import DATA_NAMES, Headline
from spai_lab.survey.poisoning_jobs import SEEDS, SLOW

POINTS = "points"
MAKING = {
    "random flips": "labels drawn by chance",
    "guided flips": "at most 10 trainings of the attacker's machine",
    "SVM poisoning": "at most 50 gradients a poison, a machine trained for each",
    "back-gradient": "20 gradients through 20 steps of training",
    "generative": "an autoencoder rewarded 40 times, by an update of the attacker's model",
}


def added_error(before: Rate, after: Rate, repeats: int = 1) -> tuple[float, tuple[float, float]]:
    r"""By how many points the error grew, and Newcombe's 95 % interval for the difference of two rates.

    With $d = p_a - p_b$ and Wilson's intervals $[l, u]$ of both,
    $d - \sqrt{(p_a - l_a)^2 + (u_b - p_b)^2} \le \delta \le d + \sqrt{(u_a - p_a)^2 + (p_b - l_b)^2}$. It is for two
    samples; where the same images are asked before and after, it is rather wide.

    Args:
        before: the accuracy on clean data.
        after: the accuracy on poisoned data.
        repeats: how often the same images were asked; the interval is over the images, not over the answers.
    Returns:
        percentage points, from -100 to 100, and their interval.
    Reference: Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10.

    >>> added_error(Rate(100, 100), Rate(80, 100))[0]
    20.0
    """
    (low_b, high_b), (low_a, high_a) = (wilson(rate.value, rate.trials // repeats) for rate in (before, after))
    fall = before.value - after.value
    least = fall - math.hypot(before.value - low_b, high_a - after.value)
    most = fall + math.hypot(high_b - before.value, after.value - low_a)
    return round(100 * fall, 6), (100 * least, 100 * most)


def error_headline(metric: str, before: list[int], after: list[int], repeats: int, **words: object) -> Headline:
    """What poison, or what a cleaning leaves of it, adds to the test error; counts images, not answers about them."""
    value, interval = added_error(Rate(*before), Rate(*after), repeats)
    return Headline(metric, value, POINTS, after[1] // repeats, interval, **words)


def degraded_headline(row: dict, victim: str, yardstick: dict | None, only: str = "") -> Headline:
    """The test error that poison adds to a victim of 1 against 7.

    Args:
        row: what `Degraded` measured.
        victim: one of its victims.
        yardstick: a row of the same fraction in which chance picked; None if there is none.
        only: what to add to the setting, such as that there is no other data set.
    """
    before, after = row["accuracy_before"], row["accuracy_after"]
    by_chance = {} if yardstick is None else {yardstick["attack"]: yardstick["accuracy_after"][victim]}
    return error_headline(
        "test error that the poison adds",
        before[victim],
        after[victim],
        len(SEEDS),
        setup=f"{victim}, {DATA_NAMES[row['data']]}, 1 against 7, {100 * row['fraction']:g} % poison, {len(SEEDS)} "
        f"poisonings counted together, the interval over the test images{only}",
        budget=f"{row['poisons']} poisons, {MAKING[row['attack']]}",
        better="higher",
        details={
            "data": row["data"],
            "fraction": row["fraction"],
            "clean": before[victim],
            "poisoned": after[victim],
            "by chance": by_chance,
            "other victims": {name: [before[name], after[name]] for name in after if name != victim},
        },
    )


def turned_headline(row: dict, only: str = "") -> Headline:
    """The share of targets that a targeted attack turns, over victims of seeds that the attacker has not seen.

    The interval is over the targets: what one victim does with a target, another is likely to do as well.
    """
    settings, rate = row["settings"], Rate(*row["success"])
    steps = f"{settings['steps']} steps a target"
    return Headline(
        "targets that get the wanted class",
        rate.value,
        "",
        row["targets"],
        wilson(rate.value, row["targets"]),
        setup=f"{DATA_NAMES[row['data']]}, {row['victim']}; {row['targets']} targets by {len(row['seeds'])} "
        f"victim{'s' if len(row['seeds']) > 1 else ''}; the attacker has {row['attacker']}{only}",
        budget=f"{row['poisons']} of {row['trained_on']:,} images, eps {settings['eps']:g}, {steps}",
        better="higher",
        details={
            "data": row["data"],
            "settings": settings,
            "clean accuracy": {"before": row["accuracy_before"], "after": row["accuracy_after"]},
        },
    )


def opened_headline(row: dict, network: str, budget: str, clean: dict, **details: object) -> Headline:
    """How often the trigger opens the backdoor, beside the clean accuracy.

    Args:
        row: `data`, `success_after` and `accuracy_after`.
        network: what is attacked and how, in words.
        budget: what was spent, in words.
        clean: `success_before` and `accuracy_before` of a model without the backdoor, where they were measured.
        details: what else there is to say.
    """
    kept = {name: clean[name] for name in ("success_before", "accuracy_before") if name in clean}
    return Headline.of_rate(
        "images with the trigger that get the wanted class",
        Rate(*row["success_after"]),
        setup=f"{network}, {DATA_NAMES[row['data']]}",
        budget=budget,
        better="higher",
        details={"data": row["data"], "clean": row["accuracy_after"], "without the backdoor": kept, **details},
    )


def planted_headline(row: dict) -> Headline:
    """A backdoor that poisons data, as `Success` measured it."""
    victim = "last layer on a LeNet's features" if row["backdoor"] == "hidden trigger" else "LeNet from scratch"
    budget = f"{row['poisons']} poisons, {100 * row['fraction']:g} % of the images; {row['wrong_labels']} wrong labels"
    return opened_headline(row, victim, budget, row, fraction=row["fraction"])


def trojaned_headline(row: dict, clean: dict) -> Headline:
    """The Trojan attack on a finished model, as `Trojaned` measured it."""
    budget = f"no training data, {row['images']} made images a class"
    return opened_headline(row, "finished LeNet", budget, clean)


def federated_headline(row: dict, ordinary: dict, clean: dict) -> Headline:
    """One attacker among participants, as `Federated` measured it, beside one whose update is no larger than others."""
    unscaled = {"success": ordinary["success_after"], "clean": ordinary["accuracy_after"]}
    return opened_headline(
        row,
        f"LeNet, averaged over {row['participants']} participants",
        f"one of {row['participants']} participants, one round, an update {row['participants']} times as large",
        clean,
        **{"as large as the others": unscaled},
    )


DEGRADING = {  # row: the attack of its headline, the victim that it is made for, chance's counterpart
    "label_flip": ("guided flips", "SVM", "random flips"),
    "svm_poisoning": ("SVM poisoning", "SVM", "mislabeled copies"),
    "back_gradient": ("back-gradient", "softmax", "mislabeled copies"),
    "generative_poisoning": ("generative", "softmax", "mislabeled copies"),
}
TURNING = {
    "influence": "influence",
    "feature_collision": "feature collision",
    "convex_polytope": "convex polytope",
    "gradient_matching": "gradient matching",
}
PLANTED = {
    "badnets": "badnets",
    "blended": "blended",
    "clean_label_backdoor": "clean label",
    "hidden_trigger": "hidden trigger",
}
MADE_IMAGES = 50
PARTICIPANTS = 10


def fraction_of(attack: str, *, quick: bool) -> float:
    """How much poison the headline of a degrading attack is for: a tenth; less where that takes the quick one long."""
    return SLOW[attack][1] if quick and attack in SLOW else 0.1
