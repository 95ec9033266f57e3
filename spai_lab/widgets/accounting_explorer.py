r"""The accounting explorer: what private training spends as it goes on, added up in four ways."""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spai_lab.checks import check_count, check_number
from spai_lab.privacy.accounting import ORDERS, epsilon_of_rdp, rdp_sampled_gaussian
from spai_lab.privacy.composition import (
    advanced_composition,
    amplified_by_sampling,
    basic_composition,
    gaussian_guarantee,
)
from spai_lab.privacy.guarantee import Guarantee
from spai_lab.style import COLORS, MARKERS, Backdrop, panels, styled
from spai_lab.widgets.explorable import Explorable

RECORDS = 60_000
DELTA = 1e-5
BATCHES = (64, 128, 256, 512, 1024, 2048, 4096)
NOISES = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.3, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
EPOCHS = (1, 2, 3, 5, 8, 10, 15, 20, 30, 45, 60, 80, 100)
ACCOUNTANTS = {
    "basic": "the sum of all steps",
    "advanced": "advanced composition",
    "mironov": "Rényi, older conversion",
    "canonne": "Rényi, tighter conversion",
}
LOOKS = {
    "basic": {"color": COLORS["baseline"], "marker": "v", "linestyle": "-.", "linewidth": 2.5},
    "advanced": {"color": COLORS["baseline"], "marker": "^", "linestyle": ":", "linewidth": 3},
    "mironov": {"color": COLORS["private"], "marker": "s", "linestyle": "--", "linewidth": 2.5},
    "canonne": {"color": COLORS["private"], "marker": MARKERS["private"], "linestyle": "-", "linewidth": 4},
}
LOWEST, HIGHEST = 0.005, 20_000.0  # epsilon on the axis
VAGUE = 8.0  # an epsilon above which the belief that is allowed is nearly certainty


@dataclass(frozen=True)
class Training:
    r"""Private training on Poisson samples.

    Args:
        batch: how many of `RECORDS` are drawn on average: n q.
        noise_multiplier: $\sigma$, the noise in units of the clipping norm.
    """

    batch: int
    noise_multiplier: float

    @property
    def sampling_rate(self) -> float:
        """q: each record is drawn by a coin of its own."""
        return self.batch / RECORDS

    def steps(self, epochs: float) -> int:
        """How many steps there are in so many epochs, in each of which a record is drawn once on average."""
        return int(epochs * RECORDS / self.batch)

    @cached_property
    def rdp(self) -> np.ndarray:
        """The curve of one step; that of several is so many times as high."""
        return rdp_sampled_gaussian(self.sampling_rate, self.noise_multiplier)

    @cached_property
    def drawn(self) -> np.ndarray:
        """The numbers of steps of which curves are made."""
        return np.unique(np.geomspace(1, self.steps(EPOCHS[-1]), 25).round().astype(int))

    @cached_property
    def curves(self) -> dict[str, np.ndarray]:
        """What `drawn` steps spend, by accountant."""
        return {name: self.spent(name, self.drawn) for name in ACCOUNTANTS}

    def spent(self, accountant: str, steps: np.ndarray) -> np.ndarray:
        r"""$\epsilon$ at `DELTA` after some numbers of steps, by one of `ACCOUNTANTS`."""
        if accountant in ("mironov", "canonne"):
            return np.array([epsilon_of_rdp(ORDERS, count * self.rdp, DELTA, accountant)[0] for count in steps])
        return np.array([self.composed(accountant, int(count)).epsilon for count in steps])

    def composed(self, accountant: str, count: int) -> Guarantee:
        """Equal steps put together without a curve: each gets its part of `DELTA`, "advanced" half of it for all."""
        if accountant == "basic":
            return basic_composition(self.step(DELTA / count), count)
        return advanced_composition(self.step(DELTA / (2 * count)), count, delta_slack=DELTA / 2)

    def step(self, delta_dp: float) -> Guarantee:
        """One step: Gaussian noise on a sample, with so much delta."""
        alone = gaussian_guarantee(self.noise_multiplier, min(1.0, delta_dp / self.sampling_rate))
        return amplified_by_sampling(alone, self.sampling_rate)


@lru_cache(maxsize=256)
def training(batch: int, noise_multiplier: float) -> Training:
    r"""A way to train.

    Args:
        batch: of `RECORDS`, on average, from 64 to 4,096.
        noise_multiplier: $\sigma$, from 0.6 to 8.
    Returns:
        what it spends; kept.
    Raises:
        ValueError: names the argument.
    """
    check_count("batch", batch)
    check_number("batch", batch, low=BATCHES[0], high=BATCHES[-1])
    check_number("noise_multiplier", noise_multiplier, low=NOISES[0], high=NOISES[-1])
    return Training(batch, noise_multiplier)


PLACES = {"curves": (1.1, 0.85, 6.3, 4.75), "list": (7.55, 0.85, 3.75, 4.75)}
ROWS = {"basic": 0.97, "advanced": 0.79, "mironov": 0.61, "canonne": 0.43}  # height of each in the list
FALL = 0.075  # from a name to its number below


@lru_cache(maxsize=1)
def backdrop() -> Backdrop:
    """What no slider changes: the axes, and the names of the accountants."""
    fig, axes = panels(11.4, 6.3, **PLACES)
    with styled():
        ax = axes["curves"]
        most = RECORDS * EPOCHS[-1] / BATCHES[0]
        ax.set(xscale="log", yscale="log", xlim=(0.8, 1.3 * most), ylim=(LOWEST, HIGHEST))
        ax.set(xlabel="steps", ylabel=f"epsilon at delta {DELTA:g}")
        ax.set_xticks(ticks := [10**power for power in range(5)], [f"{tick:,}" for tick in ticks])
        ax.set_yticks(ticks := [0.01, 0.1, 1, 10, 100, 1000, 10_000], [f"{tick:,g}" for tick in ticks])
        ax.minorticks_off()
        ax.grid(color=COLORS["baseline"], alpha=0.3)
        beside = axes["list"]
        beside.set_axis_off()
        beside.set(xlim=(0, 1), ylim=(0, 1))
        for name, height in ROWS.items():
            beside.plot([0.02, 0.12], [height] * 2, **LOOKS[name] | {"marker": ""})
            beside.plot(0.07, height, **LOOKS[name], markersize=11, markeredgecolor="black")
            beside.text(0.16, height, ACCOUNTANTS[name], va="center", fontsize=14)
    return Backdrop.of(fig, axes)


def render(batch: int, noise_multiplier: float, epochs: int) -> Figure:
    r"""Epsilon against the steps, by four accountants, with the present number of steps marked.

    Args:
        batch: of `RECORDS`, on average, from 64 to 4,096.
        noise_multiplier: $\sigma$, from 0.6 to 8.
        epochs: from 1 to 100.
    Returns:
        the figure. Its parts have names (gid): a curve by each name of `ACCOUNTANTS`, its point "basic now" and so on,
        the number in the list "basic spent" and so on, "now" (the line) and "title".
    Raises:
        ValueError: names the argument.
    """
    found, steps, spent = at(batch, noise_multiplier, epochs)
    behind = backdrop()
    ax, beside = behind.axes["curves"], behind.axes["list"].transAxes
    here = {"transform": ax.transData, "clip_box": ax.bbox}
    with styled():
        fig = behind.picture()
        line = {"color": "black", "linestyle": "--", "linewidth": 2, "gid": "now"}
        fig.add_artist(Line2D([steps, steps], [LOWEST, HIGHEST], **line, **here))
        for name, values in found.curves.items():
            fig.add_artist(Line2D(found.drawn, values, gid=name, **LOOKS[name] | {"marker": ""}, **here))
            point = LOOKS[name] | {"linestyle": "", "markersize": 13, "markeredgecolor": "black"}
            fig.add_artist(Line2D([steps], [spent[name]], gid=f"{name} now", **point, **here))
            words = {"fontsize": 18, "weight": "bold", "va": "center", "transform": beside}
            fig.text(0.16, ROWS[name] - FALL, number(spent[name]), gid=f"{name} spent", **words)
        title = f"{epochs} {'epoch' if epochs == 1 else 'epochs'}: {steps:,} steps of about {batch:,} of {RECORDS:,}"
        fig.text(0, 1.03, title, transform=ax.transAxes, fontsize=16, weight="bold", gid="title")
        belief = f"belief that you are in:\nfrom 50 % to at most {sureness(spent['canonne'])}"
        fig.text(0.02, 0.18, belief, transform=beside, fontsize=14, va="top", gid="belief", linespacing=1.4)
    return fig


@lru_cache(maxsize=1024)
def at(batch: int, noise_multiplier: float, epochs: int) -> tuple[Training, int, dict[str, float]]:
    """The training, its steps, and what they spend by accountant; `ValueError` names the argument."""
    found = training(batch, noise_multiplier)
    check_count("epochs", epochs)
    check_number("epochs", epochs, low=EPOCHS[0], high=EPOCHS[-1])
    steps = found.steps(epochs)
    return found, steps, {name: float(found.spent(name, np.array([steps]))[0]) for name in ACCOUNTANTS}


def sureness(epsilon: float) -> str:
    r"""The surest that somebody becomes who gave one half before, but for delta: $\frac{e^\epsilon}{1 + e^\epsilon}$.

    >>> sureness(1.0), sureness(70.0)
    ('73.1 %', '> 99.9 %')
    """
    belief = 1 / (1 + math.exp(-epsilon))
    return f"{100 * belief:.1f} %" if belief < 0.999 else "> 99.9 %"


def number(epsilon: float) -> str:
    """An epsilon with three digits, or with all before the point where it is large.

    >>> number(2.5968), number(1043.2), number(0.00651)
    ('2.60', '1,043', '0.0065')
    """
    if epsilon >= 100:
        return f"{epsilon:,.0f}"
    return f"{epsilon:.1f}" if epsilon >= 10 else f"{epsilon:.2f}" if epsilon >= 0.1 else f"{epsilon:.2g}"


def verdict(batch: int, noise_multiplier: float, epochs: int) -> str:
    """In words: what the training spends, for which neighbors, what that lets one believe, and what more would cost."""
    found, steps, spent = at(batch, noise_multiplier, epochs)
    epsilon = spent["canonne"]
    longer = float(found.spent("canonne", np.array([2 * steps]))[0])
    worth = (
        "So large an epsilon promises next to nothing."
        if epsilon > VAGUE
        else "Whoever knows all other records, and gives one half to yours being among them, will, but for delta, "
        f"give at most {sureness(epsilon)} after seeing every step."
    )
    return (
        f"Each of {RECORDS:,} records is in a batch with probability {batch:,} / {RECORDS:,} = "
        f"{found.sampling_rate:.4f}, by a coin of its own; {in_epochs(epochs)} is {steps:,} steps, each with noise of "
        f"{noise_multiplier:g} clipping norms. They spend epsilon {number(epsilon)} at delta {DELTA:g}, for one record "
        f"added or removed. {worth} Of the same training the older conversion says {number(spent['mironov'])}, "
        f"advanced composition {number(spent['advanced'])}, the sum of all steps {number(spent['basic'])}: all are "
        f"true, and only the proof is better. Twice as many steps would spend {number(longer)}. Batches of a fixed "
        "size would need another proof."
    )


def in_epochs(epochs: int) -> str:
    """The length of the training.

    >>> in_epochs(1), in_epochs(60)
    ('1 epoch', 'a training of 60 epochs')
    """
    return "1 epoch" if epochs == 1 else f"a training of {epochs} epochs"


def describe(batch: int, noise_multiplier: float, epochs: int) -> str:
    """The picture for somebody who cannot see it."""
    _, steps, spent = at(batch, noise_multiplier, epochs)
    values = ", ".join(f"{ACCOUNTANTS[name]} {number(value)}" for name, value in spent.items())
    return (
        f"Curves of epsilon at delta {DELTA:g} against steps on logarithmic axes, for batches of about {batch} and "
        f"noise {noise_multiplier:g}. {in_epochs(epochs).capitalize()}, {steps:,} steps: {values}. The Rényi curves "
        "are nearly level for the first steps, and stay far below the other two in the long run."
    )


def accounting_explorer() -> Explorable:
    """The explorable: set how private training goes, and see what it spends by four accountants.

    Returns:
        the widget.
    """
    controls = {
        "batch": widgets.SelectionSlider(
            description="batch", options=[(f"{batch}", batch) for batch in BATCHES], value=256
        ),
        "noise_multiplier": widgets.SelectionSlider(
            description="noise", options=[(f"{noise:g}", noise) for noise in NOISES], value=1.1
        ),
        "epochs": widgets.SelectionSlider(
            description="epochs", options=[(f"{epochs}", epochs) for epochs in EPOCHS], value=60
        ),
    }
    return Explorable(render, controls, alt=describe, caption=verdict)
