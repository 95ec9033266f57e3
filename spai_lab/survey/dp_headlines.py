"""Differential privacy in one number each: accuracy at a stated promise, what is promised, what an audit proves."""

import math
import statistics
from collections.abc import Sequence

from spai_lab.metrics import Z_95
from spai_lab.privacy.accounting import ORDERS, dp_sgd_guarantee, epsilon_of_rdp, noise_for, rdp_sampled_gaussian
from spai_lab.privacy.composition import advanced_composition, amplified_by_sampling, gaussian_guarantee
from spai_lab.privacy.guarantee import SENTENCES
from spai_lab.survey.headline import DATA_NAMES, Headline
from spai_lab.survey.headline_rows import of_runs, shared_out
from spai_lab.survey.private_tables import shares

METHODS = {
    "dp_sgd": ("DP-SGD, network", "a network of 32 units on 14 x 14 pixels"),
    "objective_perturbation": ("objective perturbation", "a linear model of 49 numbers"),
    "functional_mechanism": ("functional mechanism", "a linear model of 49 numbers"),
    "pate": ("PATE", "linear teachers and a linear student of 49 numbers"),
}
SETTING = {"sampling_rate": 256 / 60_000, "steps": 14_062}  # 60 epochs of 60,000 records
SIGMA, DELTA = 1.1, 1e-5


def promised(epsilon: float, delta_dp: float, adjacency: str) -> str:
    """A promise in words.

    >>> promised(2.0, 1e-5, "replace")
    'epsilon 2 and delta 1e-05, one record replaced'
    """
    spelled = f"{epsilon:.4g}" if epsilon < 1000 else f"{epsilon:,.0f}"
    return f"epsilon {spelled} and delta {delta_dp:.3g}, {SENTENCES[adjacency]}"


def mechanisms_headline(row: dict) -> Headline:
    """How far a count with Laplace noise is off on average; the other mechanisms beside it, and their closed forms."""
    laplace, n = row["errors"]["laplace"], row["errors"]["laplace"]["answers"]
    half = Z_95 * laplace["deviation"] / math.sqrt(n)
    return Headline(
        f"mean error of a count at epsilon {row['epsilon']:g}, Laplace",
        laplace["mean"],
        "records",
        n,
        (laplace["mean"] - half, laplace["mean"] + half),
        f"sevens among {row['records']:,} {DATA_NAMES[row['data']]} images: {row['count']:,}; one record replaced",
        f"epsilon {row['epsilon']:g} an answer; delta {row['delta_dp']:g} for the Gaussian, 0 for the others",
        "lower",
        {
            "mean errors": {name: round(each["mean"], 3) for name, each in row["errors"].items()},
            "closed forms": {name: round(each["expected"], 3) for name, each in row["errors"].items()},
            "commonest digit named": shared_out(row["commonest"]),
            "closed form of that": round(row["commonest expected"], 4),
        },
    )


def private_headline(row: dict, model: str, plain: dict | None = None, details: dict | None = None) -> Headline:
    """The accuracy of a method of private learning, beside the same without privacy."""
    beside = {} if plain is None else {"without privacy": round(statistics.mean(shares(plain)), 4)}
    setting = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in row["setting"].items())
    promise = promised(row["spent"], row["delta_dp"], row["adjacency"])
    return of_runs(
        f"test accuracy at {promise}",
        shares(row),
        setup=f"{row['task']}, {row['records']:,} {DATA_NAMES[row['data']]} images, {model}",
        budget=f"{promise}; {setting}",
        better="higher",
        low=0.0,
        high=1.0,
        details={
            "epsilon": row["spent"],
            "delta_dp": row["delta_dp"],
            "adjacency": row["adjacency"],
            "test images": row["accuracy"][0][1],
            "public images": row["public"],
            "chance": 1 / {"even or odd": 2, "ten digits": 10}[row["task"]],
            **beside,
            **(details or {}),
        },
    )


def selective_headline(row: dict, others: Sequence[dict]) -> Headline:
    """The accuracy of sharing noisy gradients, at the promise for all of them together; other sharings beside it."""
    promise = promised(row["epsilon"], row["delta_dp"], row["adjacency"])
    return of_runs(
        f"test accuracy at {promise}",
        shares(row),
        setup=f"softmax regression, {row['participants']} participants with 100 {DATA_NAMES[row['data']]} images each, "
        f"{row['sharing']}",
        budget=f"{row['turns']} turns; epsilon {row['epsilon_each']:g} for each of "
        f"{row['parameters'] // 10:,} numbers in each of {row['took_part']} turns",
        better="higher",
        low=0.0,
        high=1.0,
        details={
            "epsilon": row["epsilon"],
            "epsilon of a number": row["epsilon_each"],
            "others": {
                other["sharing"]: {"accuracy": round(statistics.mean(shares(other)), 4), "epsilon": other["epsilon"]}
                for other in others
            },
        },
    )


def accounting_headline() -> Headline:
    """The promise of a common setting of DP-SGD, by the tightest of our accounts; by others beside it.

    Nothing is measured, all is computed, by one path through Renyi divergences and, in the details, by older ones.
    """
    how = {**SETTING, "noise_multiplier": SIGMA, "delta_dp": DELTA}
    tight, older = (dp_sgd_guarantee(**how, conversion=conversion).epsilon for conversion in ("canonne", "mironov"))
    curve = SETTING["steps"] * rdp_sampled_gaussian(SETTING["sampling_rate"], SIGMA)
    by_hand, order = epsilon_of_rdp(ORDERS, curve, DELTA)
    step = amplified_by_sampling(gaussian_guarantee(SIGMA, DELTA / 10), SETTING["sampling_rate"])
    composed = advanced_composition(step, SETTING["steps"], delta_slack=DELTA)
    return Headline(
        f"epsilon of {SETTING['steps']:,} steps of DP-SGD at delta {DELTA:g}",
        tight,
        "epsilon",
        1,
        None,
        f"no data: 256 of 60,000 records a step, noise {SIGMA} times the clip, one record added or removed",
        "computed",
        "lower",
        {
            "by the older conversion": older,
            "by its Renyi curve": by_hand,
            "best order": order,
            "noise that the epsilon asks for": noise_for(epsilon=tight, delta_dp=DELTA, **SETTING),
            "by advanced composition": {"epsilon": composed.epsilon, "delta_dp": composed.delta_dp},
        },
    )


def audit_headline(row: dict, details: dict | None = None) -> Headline:
    """What the runs prove of a right implementation, whatever its mechanism, beside what is claimed."""
    return Headline(
        f"epsilon proved at confidence {row['confidence']:g}, {row['epsilon']:.3g} claimed",
        row["bounds"]["any"],
        "epsilon",
        row["runs"],
        None,
        f"DP-SGD on 20 {DATA_NAMES[row['data']]} images, {row['code']}; the adversary puts in a {row['canary']}",
        f"{row['runs']:,} runs, half of them with the canary",
        "higher",
        {
            "claimed": row["epsilon"],
            "delta_dp": row["delta_dp"],
            "refuted": row["refuted"],
            **({"proved if Gaussian": row["bounds"]["gaussian"]} if "gaussian" in row["bounds"] else {}),
            **(details or {}),
        },
    )
