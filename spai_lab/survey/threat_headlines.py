"""Attacks on privacy in one number each: what was recovered, beside what one has without access, in the details."""

import math
import statistics
from collections.abc import Sequence

import torch

from spai_lab.metrics import Rate, psnr
from spai_lab.survey.headline import DATA_NAMES, Headline
from spai_lab.survey.headline_rows import of_runs, shared_out
from spai_lab.survey.leakage_jobs import INPUTS, RECOGNIZED, STEPS, pictures
from spai_lab.survey.secrets_jobs import CANARY, JUDGED, ROUNDS

STRICT = "0.01"  # false positives, as a row spells them
CONTROL = "control, without access"
MOST = round(math.log2(CANARY.size), 3)  # exposure in bits, as rows round it


def inversion_headline(row: dict) -> Headline:
    """How many classes a judge recognizes in what the attacker drew.

    The control is exact: a picture that has nothing to do with the victim shows one of the K classes at most.
    """
    rate, classes = Rate(*row["identified"]), row["identified"][1]
    return Headline.of_rate(
        "classes that a judge recognizes in the attacker's drawing",
        rate,
        setup=f"{row['victim']}, {DATA_NAMES[row['data']]}, {row['access']}",
        budget="300 gradients a class" if row["queries"] is None else f"{row['queries']:,} queries a class",
        better="higher",
        details={
            CONTROL: 1 / classes,
            "among the judge's first five": shared_out(row["among five"]),
            "the victim's test error": shared_out(row["errors"]),
            "the victim's confidence": row["confidence"],
        },
    )


def membership_headline(row: dict, attack: str, budget: str) -> Headline:
    """How many members an attack finds while it accuses one in a hundred others."""
    found = row["attacks"][attack]
    value, low, high = found["caught"][STRICT]
    members = row["accuracy"]["members"][1]
    return Headline(
        "members found at 1 % false positives",
        value,
        "",
        members,
        (min(low, value), max(high, value)),
        f"{row['targets']} MLPs, each trained on {row['inputs'] // 2} of {row['inputs']:,} "
        f"{DATA_NAMES[row['data']]} images",
        budget,
        "higher",
        {
            CONTROL: float(STRICT),
            "attack": attack,
            "area": round(found["area"], 4),
            "others": found["innocent"],
            "found at other rates": {rate: caught[0] for rate, caught in found["caught"].items()},
            "accuracy": {where: shared_out(counts) for where, counts in row["accuracy"].items()},
        },
    )


def attribute_headline(row: dict) -> Headline:
    """How often the hidden value is guessed, of people that the victim was trained on."""
    groups = {attack: of for attack, of in row.items() if isinstance(of, dict) and set(of) == {"members", "others"}}
    told = {name: {where: shared_out(counts) for where, counts in of.items()} for name, of in groups.items()}
    return Headline.of_rate(
        "sex guessed rightly, of patients in the training data",
        Rate(*row["both"]["members"]),
        setup=f"five MLPs on diabetes patients, {row['epochs']} epochs, {row['level']}; of other patients "
        f"{100 * told['both']['others']:.1f} %",
        budget="2 queries a patient",
        better="higher",
        details={CONTROL: told["imputation"]["members"], **told},
    )


def solved_headline(row: dict, apart: Sequence[dict], guess: Sequence[int]) -> Headline:
    """How often victim and copy agree, beside the best that one can say without a question: always the same class."""
    complete = [sum(each["complete"] for each in apart), len(apart)]
    return Headline.of_rate(
        "test images on which the copy says what the victim says",
        Rate(*row["agree"]),
        setup=f"softmax regression, {DATA_NAMES[row['data']]}, all confidences in full",
        budget=f"{row['queries']} queries, {row['parameters']} parameters a class",
        better="higher",
        details={
            CONTROL: shared_out(guess),
            "largest error of a probability": row["error"],
            "ReLU networks taken apart completely": complete,
            "queries of those": [each["queries"] for each in apart],
        },
    )


def learned_headline(row: dict, guess: Sequence[int]) -> Headline:
    """As `solved_headline`, of a copy that is trained."""
    budget, agree = list(row["agree"].items())[-1]
    return Headline.of_rate(
        "test images on which the copy says what the victim says",
        Rate(*agree),
        setup=f"LeNet, {DATA_NAMES[row['data']]}, {row['strategy']} images, {row['level']}",
        budget=f"{int(budget):,} queries",
        better="higher",
        details={
            CONTROL: shared_out(guess),
            "by budget": {queries: shared_out(counts) for queries, counts in row["agree"].items()},
        },
    )


def leak_headline(row: dict, seed: int, others: dict[str, dict] | None = None) -> Headline:
    """How many images come back from their gradients, beside a blank page; other attacks by their name."""
    x, _, classes = pictures(row["data"], INPUTS, seed)
    blank = psnr(x, torch.zeros_like(x)) >= RECOGNIZED
    return Headline.of_rate(
        f"images read from their gradient, at least {RECOGNIZED:g} dB",
        Rate(*row["recognized"]),
        setup=f"untrained sigmoid network, {DATA_NAMES[row['data']]}, one image a gradient, iDLG",
        budget=f"{STEPS} steps of L-BFGS an image",
        better="higher",
        details={
            CONTROL: blank.double().mean().item(),
            "median PSNR in dB": statistics.median(row["psnr"]),
            "PSNR of a blank page": row["blank"],
            "labels found": shared_out(row["labels_found"]),
            "labels found, control": 1 / classes,
            **{name: shared_out(other["recognized"]) for name, other in (others or {}).items()},
        },
    )


def drawn_headline(row: dict, control: dict) -> Headline:
    """How much of what the participant draws a judge takes for the class that only the victim has."""
    return of_runs(
        "drawings that a judge takes for the victim's class",
        row["taken"],
        setup=f"two participants, MLP, {DATA_NAMES[row['data']]}; the last {JUDGED} rounds",
        budget=f"{ROUNDS} rounds",
        better="higher",
        low=0.0,
        high=1.0,
        details={
            CONTROL: round(statistics.mean(control["taken"]), 4),
            "likeness": round(statistics.mean(row["likeness"]), 4),
            "likeness, control": round(statistics.mean(control["likeness"]), 4),
            "accuracy of the model": round(statistics.mean(row["accuracy"]), 4),
        },
    )


def memorized_headline(rows: Sequence[dict], controls: Sequence[dict]) -> Headline:
    """The exposure of a secret in the text, beside secrets that are not in it."""
    exposures = [row["exposure"] for row in rows]
    times = rows[0]["insertions"]
    return of_runs(
        f"exposure of a secret that stands {times} times in the text, of {MOST:.1f} at most",
        exposures,
        unit="bits",
        setup=f"language model of characters, {CANARY.blanks} secret digits among 2,000 lines",
        budget=f"{CANARY.size:,} candidates compared; a search that opens {rows[0]['opened']:,}",
        better="higher",
        low=0.0,
        high=MOST,
        details={
            CONTROL: round(statistics.mean(row["exposure"] for row in controls), 3),
            "exposures": exposures,
            "secrets that the search finds": [sum(row["found"] for row in rows), len(rows)],
            "found, control": [sum(row["found"] for row in controls), len(controls)],
        },
    )
