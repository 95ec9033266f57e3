"""A small run of the survey, made up: every kind of row that its tables and figures must show."""

from spai_lab.metrics import Rate
from spai_lab.survey.defense_headlines import CERTIFIED, EVADED, NOT_ADAPTIVE, ROBUST
from spai_lab.survey.headline import Headline
from spai_lab.survey.ledger import Comparison
from spai_lab.survey.threat_headlines import CONTROL

WORDS = {"budget": "10 gradients an image", "better": "higher"}


def rate(metric: str, hits: int, trials: int, setup: str, **details: object) -> Headline:
    return Headline.of_rate(metric, Rate(hits, trials), setup=setup, details=details, **WORDS)


def value(metric: str, number: float, unit: str, setup: str, interval=None, **details: object) -> Headline:
    return Headline(metric, number, unit, 20, interval, setup, "10 of each", "lower", details)


HEADLINES = {
    "fgsm": [
        rate(
            "success rate", 30, 40, "LeNet, mnist, eps 0.2",
            **{"norm": "linf", "eps": 0.2, "random signs": {"0.2": [4, 40]}},
        )
    ],
    "pgd": [rate("success rate", 36, 40, "LeNet, digits, eps 0.2")],
    "deepfool": [
        value("median distortion", 1.5, "L2", "LeNet, mnist, L2", (1.4, 1.6), within=[12, 40], eps=1.5, norm="l2")
    ],
    "label_flip": [value("test error added", 18.7, "points", "SVM, digits, 1 against 7", (14.6, 23.3))],
    "badnets": [
        rate("triggers that open", 190, 200, "LeNet, digits", data="digits", **{"without the backdoor": {}}),
        rate(
            "triggers that open",
            180,
            200,
            "LeNet, MNIST",
            **{"data": "mnist", "without the backdoor": {"success_before": [2, 200]}},
        ),
    ],
    "lira": [
        rate(
            "members found at 1 % false positives", 10, 100, "20 MLPs, each trained on 500 MNIST images",
            **{CONTROL: 0.01},
        )
    ],
    "memorization": [value("exposure, of 13.3 at most", 12.4, "bits", "language model of characters, 4 secret digits")],
    "thermometer": [
        rate(
            ROBUST, 1, 10, "LeNet, mnist, eps 0.3 in L-inf",
            clean=[9, 10], undefended=[0, 10], attacks={"adaptive": [2, 10], "PGD": [2, 10], "FGSM": [8, 10]},
        )
    ],
    "ibp": [
        rate(
            CERTIFIED, 5, 10, "LeNet, digits, eps 0.1 in L-inf",
            **{"clean": [9, 10], "attacks": {"PGD": [7, 10]}, "survive all": [6, 10]},
        )
    ],
    "magnet": [
        rate(
            EVADED, 8, 10, "LeNet, mnist, eps 3 in L2",
            clean=[9, 10], undefended=[1, 10], attacks={"adaptive, L2": [2, 10]},
        )
    ],
    "fine_pruning": [
        rate(
            "success left to the strongest of 2 backdoors", 6, 10, "LeNet, digits; the strongest: badnets",
            **{
                "data": "digits", "clean": [9, 10], "strongest": "badnets", "made for it": "blended",
                "attacks": {"badnets": [6, 10], "blended": [1, 10]},
                "undefended": {"badnets": [9, 10], "blended": [10, 10]},
            },
        )
    ],
    "roni": [
        value(
            "test error that is still added", 12.5, "points", "SVM, MNIST, 1 against 7", (10, 15),
            clean=[100, 100], attacks={"guided flips": [80, 100]}, undefended={"guided flips": [60, 100]},
            **{NOT_ADAPTIVE: "not in this `book`"},
        )
    ],
    "robust_aggregation": [
        rate(
            "success of the strongest attackers under the median", 1, 10, "softmax, MNIST",
            **{"clean": [9, 10], "made for it": "adaptive", "undefended": [10, 10]},
            aggregates={"coordinate_median": {"loud": [0, 10], "adaptive": [1, 10]}, "mean": {"loud": [10, 10]}},
        )
    ],
    "dp_sgd": [rate("test accuracy", 90, 100, "ten digits, 50,000 MNIST images", epsilon=1.99999, delta_dp=1e-5)],
    "accounting": [value("epsilon of many steps", 2.6, "epsilon", "no data: 256 of 60,000 records a step")],
    "paillier": [value("an encryption", 0.275, "s", "Paillier", **{"bytes of a ciphertext": 544})],
    "cryptonets": [
        rate(
            "accuracy on encrypted images", 99, 100, "CryptoNets, MNIST",
            **{"seconds of a batch": [18.0, 20.0], "bytes there and back": [300_000_000, 1_000_000]},
        )
    ],
}  # fmt: skip
FAILED = {"zoo": "TimeoutError: not done within 900 s", "trades": "ValueError: a | b <c>"}
MEASUREMENT = {
    "name": "survey_quick",
    "data": "digits",
    "seed": 3,
    "measured": "2026-02-03",
    "rows": [
        *({"row": row, "headlines": [each.row for each in found], "seconds": 1.0} for row, found in HEADLINES.items()),
        *({"row": row, "failed": error, "seconds": 1.0} for row, error in FAILED.items()),
    ],
}
EMPTY = {"name": "survey_full", "rows": []}


def figure(row: str, name: str, number: float, unit: str | None = None, standing: str = "V") -> dict:
    found = {"row": row, "id": name, "metric": f"metric of {name}", "setup": "MNIST, theirs", "value": number}
    found |= {"tolerance": 0.02, "source": "Somebody 2016", "standing": standing, "images": 100}
    return found if unit is None else found | {"unit": unit}


COMPARISONS = [
    Comparison(figure("dp_sgd", "dp-95", 0.95), 0.94, 1000, (0.93, 0.95), "ours"),
    Comparison(figure("dp_sgd", "dp-80", 0.80), 0.94, 1000, (0.93, 0.95), "ours"),
    Comparison(figure("cryptonets", "batch-seconds", 250, "s"), 25.0, 10, (25.0, 25.0), "ours", "another machine"),
    Comparison(figure("fgsm", "fgsm-error", 0.9), 0.91, 10, (0.8, 0.95), "ours"),
]
