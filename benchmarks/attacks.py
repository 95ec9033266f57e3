"""FGSM and PGD-40 beside torchattacks, foolbox and ART: the same victim, images, radius, steps and step size.

Time: all attack in turn, in a new random order each round, so that what else the machine does meets all of them alike.
A peer's ratio is the median over the rounds of our time by its time in the same round, with a bootstrap interval; below
1 ours is faster. Our time includes our checks of the arguments.
Memory: each attack runs in a fresh process; what counts is how far its resident memory rises while it attacks.
"""

import multiprocessing
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion import fgsm, pgd
from spai_lab.data import load
from spai_lab.metrics import Rate, fooled_rate
from spai_lab.training import reference

STEPS = 40
RESAMPLES = 10_000
MEGABYTE = 2**20

Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Setting:
    """What is attacked: `images` test images of the default data set, in L-inf.

    Args:
        attack: "fgsm" or "pgd".
        images: number of images, attacked as one batch.
        eps: radius; FGSM and PGD get one at which they fool some of the victim's images, not all.
    """

    attack: str
    images: int
    eps: float

    def victim(self) -> tuple[nn.Module, Tensor, Tensor]:
        data = load()
        return reference("lenet", data), data.x_test[: self.images].clone(), data.y_test[: self.images].clone()

    def __str__(self) -> str:
        name = {"fgsm": "FGSM", "pgd": f"PGD-{STEPS}"}[self.attack]
        return f"{name}, {self.images} image{'s' if self.images > 1 else ''}, eps = {self.eps}"


SETTINGS = [Setting(attack, images, eps) for attack, eps in (("fgsm", 0.1), ("pgd", 0.1)) for images in (16, 256)]


# --- the competitors: each prepares all it can, and returns what is timed ---------------------------------------------


def ours(setting: Setting, model: nn.Module, x: Tensor, y: Tensor) -> Run:
    if setting.attack == "fgsm":
        return lambda: fgsm(model, x, y, eps=setting.eps)
    return lambda: pgd(model, x, y, eps=setting.eps, steps=STEPS)


def by_torchattacks(setting: Setting, model: nn.Module, x: Tensor, y: Tensor) -> Run:
    import torchattacks

    if setting.attack == "fgsm":
        attack = torchattacks.FGSM(model, eps=setting.eps)
    else:
        attack = torchattacks.PGD(model, eps=setting.eps, alpha=2.5 * setting.eps / STEPS, steps=STEPS)
    return lambda: attack(x, y)


def by_foolbox(setting: Setting, model: nn.Module, x: Tensor, y: Tensor) -> Run:
    import foolbox

    if setting.attack == "fgsm":
        attack = foolbox.attacks.FGSM()
    else:
        attack = foolbox.attacks.PGD(rel_stepsize=2.5 / STEPS, steps=STEPS)
    victim = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    criterion = foolbox.criteria.Misclassification(y)
    return lambda: attack.run(victim, x, criterion, epsilon=setting.eps)  # without foolbox's own count of successes


def by_art(setting: Setting, model: nn.Module, x: Tensor, y: Tensor) -> Run:
    """ART takes and returns NumPy arrays; one batch of all images is its fastest setting."""
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    common = {"eps": setting.eps, "batch_size": len(x)}
    if setting.attack == "fgsm":
        attack = FastGradientMethod(classifier, **common)
    else:
        step = 2.5 * setting.eps / STEPS
        attack = ProjectedGradientDescent(
            classifier, eps_step=step, max_iter=STEPS, num_random_init=1, verbose=False, **common
        )
    pixels, labels = x.numpy(), y.numpy()
    return lambda: torch.from_numpy(attack.generate(pixels, y=labels))


COMPETITORS = {"ours": ours, "torchattacks": by_torchattacks, "foolbox": by_foolbox, "ART": by_art}


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


def memory(setting: Setting, name: str, pipe) -> None:
    """In a process of its own: warm the libraries up on one image, then send the growth on the whole batch."""
    model, x, y = setting.victim()
    COMPETITORS[name](setting, model, x[:1], y[:1])()
    pipe.send(peak_growth(COMPETITORS[name](setting, model, x, y)))


def in_a_fresh_process(setting: Setting, name: str) -> int:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=memory, args=(setting, name, sender))
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
    name: str
    success: Rate
    seconds: float
    ratio: tuple[float, float, float]
    megabytes: float

    def __str__(self) -> str:
        ratio = "" if self.name == "ours" else "{:.3f} ({:.3f} to {:.3f})".format(*self.ratio)
        success = f"{100 * self.success.value:.1f} % of {self.success.trials}"
        return f"{self.name:<14}{success:>15}{1000 * self.seconds:>12.1f}{ratio:>28}{self.megabytes:>12.1f}"


HEAD = f"{'':<14}{'success':>15}{'median ms':>12}{'ours / theirs (95 %)':>28}{'memory MB':>12}"


def measure(setting: Setting, pairs: int, seed: int = 0) -> list[Row]:
    """One row for each competitor; ours comes first."""
    model, x, y = setting.victim()
    runs = {name: prepare(setting, model, x, y) for name, prepare in COMPETITORS.items()}
    success = {name: fooled_rate(model, run().float(), y) for name, run in runs.items()}  # and warms up
    seconds = rounds(runs, pairs, random.Random(seed))
    return [
        Row(
            name,
            success[name],
            float(np.median(seconds[name])),
            median_ratio(seconds["ours"], seconds[name]),
            in_a_fresh_process(setting, name) / MEGABYTE,
        )
        for name in runs
    ]


def main(quick: bool) -> None:
    """Print one table for each setting; `quick` does just enough to see that all of it runs."""
    settings = [Setting("pgd", 4, 0.1)] if quick else SETTINGS
    print(f"Victim: LeNet-size network on {load().name}; {torch.get_num_threads()} threads; torch {torch.__version__}")
    for setting in settings:
        pairs = 2 if quick else {"fgsm": 200, "pgd": 40 if setting.images < 100 else 25}[setting.attack]
        print(f"\n{setting}, {pairs} rounds\n{HEAD}")
        for row in measure(setting, pairs):
            print(row, flush=True)
