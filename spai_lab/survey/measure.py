"""Measurements that take longer than a chapter may: run by a command, kept in `data/results/`, drawn by the chapters.

A run can be interrupted: every row is on disk when it is measured, and the next run continues behind it.
"""

import json
import platform
import time
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.attacks.evasion import fgsm, pgd
from spai_lab.data import load
from spai_lab.files import data_folder, write_atomically
from spai_lab.metrics import Rate, accuracy_rate
from spai_lab.models import lenet, madry
from spai_lab.training import manifest, reference

BY_NAME: dict[str, Callable[..., Tensor] | None] = {"none": None, "fgsm": fgsm, "pgd": pgd}


@dataclass(frozen=True)
class Job:
    """One row to measure: a model, an attack with its radius and steps, and how many test images."""

    model: str
    attack: str
    eps: float = 0.0
    steps: int = 0
    images: int = 10_000


GRADIENT_ATTACKS = (
    Job("softmax", "none"),
    Job("softmax", "fgsm", eps=0.25),
    *(Job(model, "none") for model in ("lenet", "lenet-robust")),
    *(Job(model, "fgsm", eps=eps) for model in ("lenet", "lenet-robust") for eps in (0.1, 0.2, 0.3)),
    *(Job(model, "pgd", eps=eps, steps=40) for model in ("lenet", "lenet-robust") for eps in (0.1, 0.2, 0.3)),
)


def results_file(name: str) -> Path:
    """Where a measurement is kept.

    >>> results_file("gradient_attacks").name
    'gradient_attacks.json'
    """
    return data_folder() / "results" / f"{name}.json"


def measure(
    name: str,
    jobs: tuple[Job, ...] = GRADIENT_ATTACKS,
    *,
    seed: int = 0,
    fresh: bool = False,
    file: Path | None = None,
) -> dict:
    """Measure the accuracy that each job leaves on MNIST's test images, and keep it on disk.

    Args:
        name: of the measurement; names the file.
        jobs: what to measure.
        seed: of the attacks' random starts.
        fresh: measure every job again, and forget an earlier run.
        file: where to keep it; None takes `results_file(name)`.
    Returns:
        the measurement: `data`, `seed`, `versions`, `machine`, and `rows`, each a job with `hits` of `trials`.
    Raises:
        spai_lab.data.DataUnavailable: MNIST is not there.
    """
    data = load("mnist")
    file = results_file(name) if file is None else file
    models = sorted({job.model for job in jobs})
    weights = {model: manifest()["models"][f"{model}-mnist"]["sha256"] for model in models}
    versions = {"torch": torch.__version__.split("+")[0]}
    head = {"name": name, "data": data.name, "seed": seed, "versions": versions, "weights": weights}
    rows = [] if fresh else earlier_rows(file, head)
    for job in tqdm(jobs, desc=name, unit="row"):
        if any(all(row[key] == value for key, value in asdict(job).items()) for row in rows):
            continue
        start = time.perf_counter()
        rate = accuracy_left(
            reference(job.model, "mnist"), data.x_test[: job.images], data.y_test[: job.images], job, seed
        )
        seconds = round(time.perf_counter() - start, 1)
        rows.append({**asdict(job), "hits": rate.hits, "trials": rate.trials, "seconds": seconds})
        machine = {"system": platform.system(), "processor": platform.machine(), "threads": torch.get_num_threads()}
        measured = datetime.now(UTC).date().isoformat()
        content = {**head, "machine": machine, "measured": measured, "rows": rows}
        write_atomically(file, (json.dumps(content, indent=1) + "\n").encode())
    return json.loads(file.read_text(encoding="utf-8"))


def earlier_rows(file: Path, head: dict) -> list[dict]:
    """The rows of an earlier run of the same measurement; none if it had other data, seed or versions."""
    if not file.exists():
        return []
    earlier = json.loads(file.read_text(encoding="utf-8"))
    return earlier["rows"] if all(earlier.get(key) == value for key, value in head.items()) else []


def accuracy_left(model: nn.Module, x: Tensor, y: Tensor, job: Job, seed: int) -> Rate:
    """The accuracy that a job's attack leaves, attacked and counted a thousand images at a time."""
    attack = BY_NAME[job.attack]
    if attack is None:
        return accuracy_rate(model, x, y)
    generator = torch.Generator().manual_seed(seed)
    arguments = {"steps": job.steps} if job.steps else {}
    parts = [
        attack(model, *part, eps=job.eps, generator=generator, **arguments)
        for part in zip(x.split(1000), y.split(1000), strict=True)
    ]
    return accuracy_rate(model, torch.cat(parts), y)


def published() -> dict[str, dict]:
    """The ledger of published figures, `data/published.toml`, by id.

    >>> published()["fgsm-undefended"]["standing"]
    'V'
    """
    text = (data_folder() / "published.toml").read_text(encoding="utf-8")
    return {figure["id"]: figure for figure in tomllib.loads(text)["figure"]}


def measured_rate(measurement: dict, **job: object) -> Rate:
    """The rate of the one row that fits.

    Args:
        measurement: as `measure` returns it.
        job: fields of `Job` and their values, such as `model="lenet", attack="fgsm", eps=0.3`.
    Raises:
        ValueError: no row fits, or several do.
    """
    rows = [row for row in measurement["rows"] if all(row[key] == value for key, value in job.items())]
    if len(rows) != 1:
        raise ValueError(f"job is {job}; accepted: one that fits exactly one measured row, this one fits {len(rows)}")
    return Rate(rows[0]["hits"], rows[0]["trials"])


def load_measurement(name: str) -> dict:
    """A measurement that was committed, or made by `spai-lab measure`.

    Raises:
        ValueError: there is none of this name.
    """
    file = results_file(name)
    if not file.exists():
        raise ValueError(f"name is {name!r}; accepted: a measurement in data/results, made by `spai-lab measure`")
    return json.loads(file.read_text(encoding="utf-8"))


def attack_table(measurement: dict) -> str:
    """The measured rows as a Markdown table: accuracy left for each model and attack, with its interval.

    Args:
        measurement: as `measure` returns it.
    Returns:
        Markdown.
    """
    lines = ["| model | attack | eps | accuracy left | 95 % interval | n |", "|---|---|---:|---:|---:|---:|"]
    for row in measurement["rows"]:
        attack = f"{row['attack']}-{row['steps']}" if row["steps"] else row["attack"]
        eps = f"{row['eps']:g}" if row["eps"] else "–"
        rate = Rate(row["hits"], row["trials"])
        low, high = (f"{100 * end:.1f}" for end in rate.interval)
        left = f"{100 * rate.value:.1f} %"
        lines.append(f"| {row['model']} | {attack} | {eps} | {left} | {low} to {high} | {rate.trials:,} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Comparison:
    """A published figure beside ours; `ours` names our set-up, and `differs` what it differs in, if in anything."""

    figure: dict
    measured: Rate
    ours: str
    differs: str = ""

    @property
    def value(self) -> float:
        """Ours, in the published figure's own terms: an error rate where that is what was published."""
        return 1 - self.measured.value if self.figure["metric"].startswith("error") else self.measured.value

    @property
    def verdict(self) -> str:
        """Whether ours is within the tolerance that the ledger stated before; another set-up reproduces nothing."""
        tolerance, gap = self.figure["tolerance"], self.value - self.figure["value"]
        within = abs(gap) <= tolerance
        if self.differs:
            return f"not comparable ({self.differs}); {100 * gap:+.1f} points"
        word = "reproduced" if within else "deviates"
        return f"{word}: {100 * gap:+.1f} points, tolerance {100 * tolerance:g}"


def gradient_attacks_compared(measurement: dict) -> list[Comparison]:
    """The published figures for one-step attacks and undefended models, each beside the row measured for it."""
    ledger = published()
    sizes = [sum(p.numel() for p in victim().parameters()) for victim in (lenet, madry)]
    smaller = "our network has {:,} parameters, theirs {:,}".format(*sizes)
    jobs = {
        "fgsm-softmax": ({"model": "softmax", "attack": "fgsm", "eps": 0.25}, "softmax regression", ""),
        "fgsm-undefended": ({"model": "lenet", "attack": "fgsm", "eps": 0.3}, "LeNet-size network", smaller),
        "natural-undefended": ({"model": "lenet", "attack": "none"}, "LeNet-size network", smaller),
    }
    return [
        Comparison(ledger[key], measured_rate(measurement, **job), ours, differs)
        for key, (job, ours, differs) in jobs.items()
    ]


def comparison_table(comparisons: list[Comparison]) -> str:
    """Published beside measured as a Markdown table, with set-ups, verdict, source and standing."""
    lines = ["| published | | measured here | | verdict | source (standing) |", "|---|---:|---|---:|---|---|"]
    for comparison in comparisons:
        figure = comparison.figure
        lines.append(
            f"| {figure['metric']}: {figure['setup']} | {100 * figure['value']:.1f} % "
            f"| {comparison.ours} | {100 * comparison.value:.1f} % (n = {comparison.measured.trials:,}) "
            f"| {comparison.verdict} | {figure['source']} ({figure['standing']}) |"
        )
    return "\n".join(lines)
