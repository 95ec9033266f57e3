"""Our attacks beside the libraries users would pick instead: the same victim, images, budget; printed as ratios.

Time: all compete in turn, in a new random order each round, so that what else the machine does meets all of them
alike. A peer's ratio is the median over the rounds of our time by its time in the same round, with a bootstrap
interval; below 1 ours is faster. Our time includes our checks of the arguments. A ratio means something where success
(or distortion) is equal, so both are printed.
Memory: each attack runs in a fresh process; what counts is how far its resident memory rises while it attacks.
"""

import multiprocessing
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import psutil
from torch import Tensor, nn

from spai_lab.data import load
from spai_lab.metrics import distortions, fooled_rate
from spai_lab.training import reference

RESAMPLES = 10_000
MEGABYTE = 2**20

Run = Callable[[], Tensor]
Prepare = Callable[[nn.Module, Tensor, Tensor], Run]


@dataclass(frozen=True)
class Contest:
    """One attack, ours and theirs, on the first test images of the default data set.

    Args:
        name: what the table is headed.
        competitors: by name, "ours" first; each gets `(model, x, y)`, prepares all it can, and returns what is timed.
        images: attacked as one batch.
        rounds: how often everybody runs.
        targeted: attack toward the class after the right one rather than away from it.
        norm: for attacks that seek the least distortion: the norm whose median is printed beside the success.
        model: the victim, a name that `reference` knows.
        memory: whether to measure memory too.
    """

    name: str
    competitors: Mapping[str, Prepare]
    images: int = 64
    rounds: int = 5
    targeted: bool = False
    norm: str | None = None
    model: str = "lenet"
    memory: bool = False

    def victim(self) -> tuple[nn.Module, Tensor, Tensor]:
        """The model, the images, and the labels or target classes."""
        data = load()
        x, y = data.x_test[: self.images].clone(), data.y_test[: self.images].clone()
        return reference(self.model, data), x, (y + 1) % data.num_classes if self.targeted else y

    def judge(self, x_adv: Tensor) -> tuple[float, float | None]:
        """The share of images that fool the model, and the median distortion where a norm is named."""
        model, x, y = self.victim()
        x_adv = x_adv.to(x.dtype)
        success = fooled_rate(model, x_adv, y, targeted=self.targeted).value
        if self.norm is None:
            return success, None
        return success, distortions(model, x, x_adv, y, norm=self.norm, targeted=self.targeted).median().item()


def art_classifier(model: nn.Module, x: Tensor):
    """The model as ART wants it; its attacks take and return NumPy arrays, and are fastest with one batch of all."""
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


# --- time -------------------------------------------------------------------------------------------------------------


def rounds(runs: dict[str, Run], count: int, shuffle: random.Random) -> dict[str, np.ndarray]:
    """The seconds of each competitor in each round."""
    seconds = {name: np.empty(count) for name in runs}
    for number in range(count):
        for name in shuffle.sample(list(runs), len(runs)):
            start = time.perf_counter()
            runs[name]()
            seconds[name][number] = time.perf_counter() - start
    return seconds


def median_ratio(ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """The median of the paired ratios, and its 95 % bootstrap interval.

    >>> median_ratio(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]))
    (0.5, 0.5, 0.5)
    """
    ratios = ours / theirs
    picks = np.random.default_rng(seed).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[picks], axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


# --- memory -----------------------------------------------------------------------------------------------------------


def peak_growth(run: Run, interval: float = 0.0005) -> int:
    """The bytes by which resident memory rises at most while `run` runs, by samples from a second thread."""
    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(interval):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return max(peak, process.memory_info().rss) - before


def memory(contest: Contest, name: str, pipe) -> None:
    """In a process of its own: warm the libraries up on one image, then send the growth on the whole batch."""
    model, x, y = contest.victim()
    prepare = contest.competitors[name]
    prepare(model, x[:1], y[:1])()
    pipe.send(peak_growth(prepare(model, x, y)))


def in_a_fresh_process(contest: Contest, name: str) -> int:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=memory, args=(contest, name, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"{name} ended without an answer while its memory was measured") from None
    finally:
        process.join()


# --- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """What one competitor reached; `ratio` is our time by its own, with its interval."""

    name: str
    success: float
    distortion: float | None
    seconds: float
    ratio: tuple[float, float, float]
    megabytes: float | None

    def __str__(self) -> str:
        ratio = "" if self.name == "ours" else "{:.3f} ({:.3f} to {:.3f})".format(*self.ratio)
        distortion = "" if self.distortion is None else f"{self.distortion:.3f}"
        megabytes = "" if self.megabytes is None else f"{self.megabytes:.1f}"
        success = f"{100 * self.success:.1f} %"
        return f"{self.name:<14}{success:>9}{distortion:>11}{1000 * self.seconds:>12.1f}{ratio:>28}{megabytes:>12}"


HEAD = f"{'':<14}{'success':>9}{'distortion':>11}{'median ms':>12}{'ours / theirs (95 %)':>28}{'memory MB':>12}"


def measure(contest: Contest, seed: int = 0) -> list[Row]:
    """One row for each competitor; ours comes first."""
    model, x, y = contest.victim()
    runs = {name: prepare(model, x, y) for name, prepare in contest.competitors.items()}
    judged = {name: contest.judge(run()) for name, run in runs.items()}  # and warms up
    seconds = rounds(runs, contest.rounds, random.Random(seed))
    return [
        Row(
            name,
            *judged[name],
            float(np.median(seconds[name])),
            median_ratio(seconds["ours"], seconds[name]),
            in_a_fresh_process(contest, name) / MEGABYTE if contest.memory else None,
        )
        for name in runs
    ]
