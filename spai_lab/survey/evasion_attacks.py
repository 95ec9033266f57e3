"""The evasion attacks beside each other, and beside what others published of them."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from spai_lab.metrics import Rate
from spai_lab.models import lenet, mlp
from spai_lab.survey.evasion_jobs import (
    CARLINI_WAGNER,
    DEEPFOOL,
    JOBS,
    JSMA,
    MODELS,
    SUMMARY,
    ZOO,
    Attacked,
)
from spai_lab.survey.ledger import Comparison, published
from spai_lab.survey.measure import measure
from spai_lab.survey.taxonomy import load_taxonomy, rows_of

PIXELS = 28 * 28
NORMS = {"linf": "L-inf", "l2": "L2", "l0": "L0", None: "–"}
RESAMPLES = 1000


def measure_evasion_attacks(*, seed: int = 0, fresh: bool = False, file: Path | None = None) -> dict:
    """Measure all of it; the arguments are those of `measure`."""
    return measure("evasion_attacks", JOBS, MODELS, seed=seed, fresh=fresh, file=file)


@dataclass(frozen=True)
class Pooled:
    """What several jobs measured, as if it were one.

    Args:
        knowledge: what the attack reads of its victim.
        hits, trials: images misread (read as the target), of how many.
        far: how far each was moved, `(trials,)`, `inf` for a failure; empty where no norm says so.
        lengths: norm of each clean image, like `far`.
        queries: of a victim image, the median; None where the model is not asked.
        seconds: of one processor, for all of it.
    """

    knowledge: str
    hits: int
    trials: int
    far: Tensor
    lengths: Tensor
    queries: float | None
    seconds: float

    @property
    def rate(self) -> Rate:
        """The success."""
        return Rate(self.hits, self.trials)


def pooled(measurement: dict, jobs: Sequence[Attacked]) -> Pooled | None:
    """What was measured of these jobs so far; None if nothing was."""
    rows = [row for job in jobs for row in measurement["rows"] if row.items() >= job.key.items()]
    if not rows:
        return None
    asked = [row["queries"] for row in rows if row["queries"] is not None]
    return Pooled(
        knowledge=rows[0]["knowledge"],
        hits=sum(row["hits"] for row in rows),
        trials=sum(row["trials"] for row in rows),
        far=numbers(rows, "distortions"),
        lengths=numbers(rows, "lengths"),
        queries=statistics.median(asked) if asked else None,
        seconds=sum(row["processor_seconds"] for row in rows),
    )


def numbers(rows: Sequence[dict], name: str) -> Tensor:
    """A list that rows hold, in one piece; None is infinity."""
    listed = [math.inf if number is None else number for row in rows for number in row.get(name, ())]
    return torch.tensor(listed, dtype=torch.float64)


def table_attacks(measurement: dict) -> pd.DataFrame:
    """All evasion attacks on the same images of MNIST: what each knows, changes, reaches and costs.

    Args:
        measurement: as `measure_evasion_attacks` returns it.
    Returns:
        a line for each attack and setting, in the order of the taxonomy, every cell as it is printed.
    Reference: Bae et al. 2018, arXiv 1807.11655.
    Survey: secure AI, evasion attacks.
    """
    names = {row.id: row.name for row in rows_of(load_taxonomy(), "evasion")}
    order = list(names)
    lines = []
    for job in sorted(SUMMARY, key=lambda job: order.index(job.attack)):
        measured = pooled(measurement, [job])
        if measured is not None:
            lines.append({"attack": names[job.attack], "setting": setting(job), **cells(job, measured)})
    return pd.DataFrame(lines)


def setting(job: Attacked) -> str:
    """A job's setting, and what the victim wears."""
    return job.setting if job.defense == "none" else f"{job.setting}; victim: {job.defense}"


def cells(job: Attacked, measured: Pooled) -> dict[str, str]:
    """The measured part of a line of the table."""
    low, high = (f"{100 * end:.0f}" for end in measured.rate.interval)
    return {
        "knowledge": measured.knowledge,
        "success": f"{100 * measured.rate.value:.0f} % ({low} to {high})",
        "images": f"{measured.trials:,}",
        "norm": NORMS[job.norm],
        "median distortion": shown_distance(measured.far),
        "queries an image": "–" if measured.queries is None else f"{measured.queries:,.0f}",
        "processor seconds": f"{measured.seconds:.2g}" if measured.seconds < 10 else f"{measured.seconds:,.0f}",
    }


def shown_distance(far: Tensor) -> str:
    """The median distortion, failures being infinite.

    >>> shown_distance(torch.tensor([1.25, 0.5, math.inf])), shown_distance(torch.tensor([]))
    ('1.25', '–')
    """
    if len(far) == 0:
        return "–"
    median = statistics.median(far.tolist())
    return f"{median:.3g}" if math.isfinite(median) else "∞"


def summary_table(measurement: dict) -> str:
    """`table_attacks` as Markdown; a rate stays on one line."""
    table = table_attacks(measurement)
    table["success"] = table["success"].str.replace(" ", "\N{NO-BREAK SPACE}")
    words = ("attack", "setting", "knowledge", "norm")
    rule = ["---" if column in words else "---:" for column in table.columns]
    lines = [table.columns.tolist(), rule, *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


OF_PROBABILITIES = "saliency of probabilities, theirs is of logits"


def evasion_attacks_compared(measurement: dict) -> list[Comparison]:
    """The published figures of the least-distortion and black-box attacks, each beside what was measured for it.

    Rates have Wilson's interval, means and medians one by `bootstrap`. Figures for which nothing was measured yet are
    left out; what has been measured in part rests on fewer images, and says so.
    """
    ledger = published()
    found = ((ledger[name], beside, pooled(measurement, beside.jobs)) for name, beside in besides())
    return [compare(figure, beside, measured) for figure, beside, measured in found if measured is not None]


@dataclass(frozen=True)
class Beside:
    """What stands beside a published figure.

    Args:
        jobs: what is measured for it.
        statistic: from `(images, targets, 2)`, how far each was moved and the length of the image, to the figure; None
            takes the success.
        ours: our set-up.
        differs: what our set-up differs in.
        reason: what explains it where the figures deviate all the same.
        each_target: whether the figure counts targets; else a statistic counts images with all of theirs.
    """

    jobs: Sequence[Attacked]
    statistic: Callable[[Tensor], float] | None
    ours: str
    differs: str = ""
    reason: str = ""
    each_target: bool = False


def besides() -> list[tuple[str, Beside]]:
    """By the id of the published figure; differences between the networks are counted, not typed."""
    network, perceptron = (f"{name}, {size(model()):,} parameters" for name, model in (("LeNet", lenet), ("MLP", mlp)))
    narrower = f"our network has {size(mlp()):,} parameters, theirs {fully_connected(PIXELS, 500, 150, 10):,}"
    layers = sum(isinstance(layer, nn.Conv2d) for layer in lenet().modules())
    shallower = f"our network has {layers} convolutions, theirs four"
    unstated = f"our LeNet has {size(lenet()):,} parameters, the size of theirs is not stated"
    reason = f"{unstated}, nor is ours trained as theirs; by probabilities the same LeNet is fooled with fewer pixels"
    likely, logits = (f"{network}, F the {output}" for output in JSMA)
    remote = "a LeNet of ours in place of the remote model, PGD at eps .2"
    one = ("boundary", "carlini_wagner", "lbfgs", "substitute")
    untargeted = {job.attack: [job] for job in SUMMARY if job.attack in one}
    return [
        ("jsma-success", Beside(JSMA["probabilities"], None, likely, OF_PROBABILITIES)),
        ("jsma-pixels", Beside(JSMA["probabilities"], mean_share, likely, OF_PROBABILITIES, each_target=True)),
        ("jsma-success", Beside(JSMA["logits"], None, logits, reason=reason)),
        ("jsma-pixels", Beside(JSMA["logits"], mean_share, logits, reason=reason, each_target=True)),
        ("distillation-undefended", Beside(JSMA["logits"], None, logits, "another network")),
        ("deepfool-lenet", Beside(DEEPFOOL["lenet"], mean_relative, network, unstated)),
        ("deepfool-mlp", Beside(DEEPFOOL["mlp"], mean_relative, perceptron, narrower)),
        ("deepfool-lbfgs-lenet", Beside(untargeted["lbfgs"], mean_relative, network, unstated)),
        ("cw-best", Beside(CARLINI_WAGNER, mean_of_nearest, network, shallower)),
        ("cw-average", Beside(CARLINI_WAGNER, mean, network, shallower)),
        ("cw-worst", Beside(CARLINI_WAGNER, mean_of_farthest, network, shallower)),
        ("cw-success", Beside(CARLINI_WAGNER, None, network, shallower)),
        ("zoo-success", Beside(ZOO, None, network, shallower)),
        ("zoo-l2", Beside(ZOO, mean, network, shallower)),
        ("zoo-cw-l2", Beside(untargeted["carlini_wagner"], mean, network, shallower)),
        ("substitute-remote", Beside(untargeted["substitute"], None, network, remote)),
        ("boundary-l2", Beside(untargeted["boundary"], median_squared, network, "another network")),
        ("boundary-cw", Beside(untargeted["carlini_wagner"], median_squared, network, "another network")),
        ("boundary-deepfool", Beside(DEEPFOOL["lenet"], median_squared, network, "another network")),
    ]


def compare(figure: dict, beside: Beside, measured: Pooled) -> Comparison:
    """A published figure beside the one measured; a rate counts targets, all else what the figure counts."""
    targets = 9 if beside.jobs[0].every_target else 1
    images = measured.trials // targets
    ours = beside.ours if measured.queries is None else f"{beside.ours}, {measured.queries:,.0f} queries an image"
    if beside.statistic is None:
        rate = measured.rate
        return Comparison(figure, rate.value, measured.trials, rate.interval, ours, beside.differs, beside.reason)
    values = torch.stack([measured.far, measured.lengths], dim=1).view(images, targets, 2)
    interval = bootstrap(values, beside.statistic)
    count = measured.trials if beside.each_target else images
    return Comparison(figure, beside.statistic(values), count, interval, ours, beside.differs, beside.reason)


def mean(values: Tensor) -> float:
    """Of the distances, where the attack succeeded."""
    far = values[..., 0]
    return far[far.isfinite()].mean().item()


def mean_share(values: Tensor) -> float:
    """Of the pixels that changed, where the attack succeeded."""
    return mean(values) / PIXELS


def mean_relative(values: Tensor) -> float:
    """Of the distances by the lengths of the images."""
    return (values[..., 0] / values[..., 1]).mean().item()


def mean_of_nearest(values: Tensor) -> float:
    """Of the distances to each image's nearest target."""
    return values[..., 0].amin(1).mean().item()


def mean_of_farthest(values: Tensor) -> float:
    """Of the distances to each image's farthest target."""
    return values[..., 0].amax(1).mean().item()


def median_squared(values: Tensor) -> float:
    """Of the squared distances by the number of pixels."""
    return statistics.median((values[..., 0].square() / PIXELS).flatten().tolist())


def bootstrap(values: Tensor, statistic: Callable[[Tensor], float]) -> tuple[float, float]:
    """The 95 % interval of a statistic of images `(N, ...)`, by drawing N of them with replacement, many times.

    Reference: Efron 1979, "Bootstrap methods: another look at the jackknife" (the percentile interval).

    >>> bootstrap(torch.ones(5, 1, 2), mean)
    (1.0, 1.0)
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(values), (RESAMPLES, len(values)), generator=generator)
    found = torch.tensor([statistic(values[some]) for some in drawn], dtype=torch.float64).sort().values
    return found[round(0.025 * RESAMPLES)].item(), found[round(0.975 * RESAMPLES) - 1].item()


def size(model: nn.Module) -> int:
    """The number of its parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def fully_connected(*units: int) -> int:
    """The number of parameters of layers with so many units, biases included.

    >>> fully_connected(3, 2)
    8
    """
    return sum((before + 1) * after for before, after in pairwise(units))
