r"""The tuning explorer: clipping norm, noise and lot size of DP-SGD, and what each setting gave and spent."""

import statistics
from dataclasses import dataclass
from functools import cached_property, lru_cache

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from spai_lab.checks import check_choice
from spai_lab.checks import describe as describe_value
from spai_lab.data import default_name
from spai_lab.metrics import Rate
from spai_lab.privacy.guarantee import SENTENCES
from spai_lab.style import COLORS, MARKERS, SEQUENTIAL, Backdrop, panels, styled
from spai_lab.survey.measure import load_measurement, results_file, rows_of_kind
from spai_lab.survey.tuning_jobs import STEP_LENGTHS
from spai_lab.widgets.accounting_explorer import number
from spai_lab.widgets.choices import DATASETS, refill
from spai_lab.widgets.explorable import Explorable

START = {"clip": 1.0, "noise_multiplier": 1.0}
CLEARLY = 0.02  # of accuracy; less than that is not called better


@dataclass(frozen=True)
class Cell:
    r"""What was measured of one setting.

    Args:
        clip: C.
        noise_multiplier: $\sigma$.
        lot: how many records a step draws on average.
        steps: how many there were.
        epsilon: what they spent; None without noise, where nothing is promised.
        learning_rate: the best one of two trials.
        shares: the accuracy of each training on the validation part.
        clipped: the share of the gradients that were longer than C, of all trainings.
    """

    clip: float
    noise_multiplier: float
    lot: int
    steps: int
    epsilon: float | None
    learning_rate: float
    shares: tuple[float, ...]
    clipped: float

    @property
    def accuracy(self) -> float:
        """The mean of the trainings."""
        return statistics.mean(self.shares)

    @property
    def spent(self) -> str:
        """Its epsilon in a word."""
        return "∞" if self.epsilon is None else number(self.epsilon)


@dataclass(frozen=True, eq=False)
class Grid:
    """What was measured of all settings on one data set.

    Args:
        dataset: its name.
        cells: one for each setting.
        records, epochs: of each training.
        delta_dp, adjacency, covers: what belongs to each epsilon.
    """

    dataset: str
    cells: tuple[Cell, ...]
    records: int
    epochs: int
    delta_dp: float
    adjacency: str
    covers: str

    def values(self, name: str) -> tuple:
        """The values of a setting, "clip", "noise_multiplier" or "lot", in rising order."""
        return tuple(sorted({getattr(cell, name) for cell in self.cells}))

    @cached_property
    def by_setting(self) -> dict[tuple[float, float, int], Cell]:
        """The cells by C, noise and lot."""
        return {(cell.clip, cell.noise_multiplier, cell.lot): cell for cell in self.cells}

    def steps(self, lot: int) -> int:
        """How many steps the epochs are, in such lots."""
        return next(cell.steps for cell in self.cells if cell.lot == lot)

    def at(self, clip: float, noise_multiplier: float, lot: int) -> Cell:
        """The cell of a setting; `ValueError` names what is not on the grid."""
        for name, value in (("clip", clip), ("noise_multiplier", noise_multiplier), ("lot", lot)):
            if value not in self.values(name):
                accepted = ", ".join(f"{accepted:g}" for accepted in self.values(name))
                raise ValueError(f"{name} is {describe_value(value)}; accepted: {accepted}")
        return self.by_setting[clip, noise_multiplier, lot]

    def best(self, epsilon: float | None) -> Cell:
        """The setting of the highest accuracy that spends no more; None allows those that promise nothing."""
        cells = [
            cell for cell in self.cells if epsilon is None or (cell.epsilon is not None and cell.epsilon <= epsilon)
        ]
        return max(cells, key=lambda cell: cell.accuracy)

    @cached_property
    def frontier(self) -> tuple[Cell, ...]:
        """The settings that beat all those which spend no more, in the order of what they spend."""
        private = sorted((cell for cell in self.cells if cell.epsilon is not None), key=lambda cell: cell.epsilon)
        return tuple(cell for cell in private if cell is self.best(cell.epsilon))

    @cached_property
    def promised(self) -> tuple[float, float]:
        """The least and the largest epsilon of the grid."""
        spent = [cell.epsilon for cell in self.cells if cell.epsilon is not None]
        return min(spent), max(spent)

    @cached_property
    def lowest(self) -> float:
        """The lowest accuracy of the grid."""
        return min(cell.accuracy for cell in self.cells)


def measured_datasets() -> tuple[str, ...]:
    """The data sets that have a grid."""
    return tuple(name for name in DATASETS if results_file(f"tuning_{name}").exists())


@lru_cache(maxsize=4)
def grid_of(dataset: str) -> Grid:
    """What was measured on a data set.

    Args:
        dataset: "digits" or "mnist".
    Returns:
        the grid; kept.
    Raises:
        ValueError: names the argument.
    """
    check_choice("dataset", dataset, measured_datasets())
    rows = rows_of_kind(load_measurement(f"tuning_{dataset}"), "tuning")
    cells = tuple(
        Cell(
            *(row[name] for name in ("clip", "noise_multiplier", "lot", "steps", "epsilon")),
            learning_rate=row["step_length"] / row["clip"],
            shares=tuple(Rate(*counts).value for counts in row["validation"]),
            clipped=statistics.mean(row["clipped"]),
        )
        for row in rows
    )
    shared = {name: rows[0][name] for name in ("records", "epochs", "delta_dp", "adjacency")}
    return Grid(dataset, cells, **shared, covers=", ".join(rows[0]["covers"]))


PLACES = {"grid": (0.95, 1.1, 5.1, 4.35), "tradeoff": (7.2, 1.1, 4.3, 4.35)}
BOLD = {"fontsize": 15, "weight": "bold", "va": "bottom"}
FRONTIER = {"color": COLORS["private"], "linewidth": 3, "linestyle": "--", "drawstyle": "steps-post"}
HERE = {"linestyle": "", "marker": "o", "fillstyle": "none", "markersize": 21, "markeredgewidth": 3, "color": "black"}
TICKS = (0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
FLOOR = 0.1  # below the lowest accuracy of a grid, what is left free on the axis


@lru_cache(maxsize=8)
def backdrop(found: Grid, lot: int) -> Backdrop:
    """What clipping norm and noise leave as they are: the accuracies at this lot, and those of all settings."""
    fig, axes = panels(11.8, 6.25, **PLACES)
    with styled():
        draw_grid(axes["grid"], found, lot)
        draw_tradeoff(axes["tradeoff"], found, lot)
    return Backdrop.of(fig, axes)


def draw_grid(ax: Axes, found: Grid, lot: int) -> None:
    """The accuracy of each C and noise in its color and as a number; under each noise what it spends at this lot."""
    clips, noises = found.values("clip"), found.values("noise_multiplier")
    shares = np.array([[found.at(clip, noise, lot).accuracy for noise in noises] for clip in clips])
    scale = mpl.colors.Normalize(found.lowest, max(cell.accuracy for cell in found.cells))
    ax.pcolormesh(shares, cmap=SEQUENTIAL, norm=scale, edgecolors="white", linewidth=2)
    for (row, column), share in np.ndenumerate(shares):
        color = "black" if scale(share) > 0.55 else "white"
        place = {"ha": "center", "va": "center", "fontsize": 16}
        ax.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", color=color, **place)
    spent = [found.at(clips[0], noise, lot).spent for noise in noises]
    ax.set_xticks(np.arange(len(noises)) + 0.5, [f"{noise:g}\n{e}" for noise, e in zip(noises, spent, strict=True)])
    ax.set_yticks(np.arange(len(clips)) + 0.5, [f"{clip:g}" for clip in clips])
    ax.tick_params(length=0, labelsize=15)
    ax.spines[:].set_visible(False)
    ax.set_ylabel("clipping norm C", fontsize=15)
    for height, name in zip((-0.04, -0.096), ("σ", "ε"), strict=True):
        ax.text(-0.03, height, name, transform=ax.transAxes, ha="right", va="center", fontsize=16, weight="bold")
    ax.set_xlabel(f"noise σ, and the ε that it spends at δ = {found.delta_dp:g}", fontsize=15)
    ax.set_title(f"accuracy in %, lots of {lot:,}: {in_steps(found.steps(lot))}", fontsize=15, weight="bold")


def draw_tradeoff(ax: Axes, found: Grid, lot: int) -> None:
    """All settings as points, those of this lot apart; the best for each epsilon; on the right, those without noise."""
    low, high = found.promised
    end = 4 * high
    ax.set(xscale="log", xlim=(low / 1.6, 2 * end), ylim=(max(0, found.lowest - FLOOR), 1))
    ax.axvspan(end / 1.9, 2 * end, color=COLORS["baseline"], alpha=0.15, linewidth=0)
    others = {"color": COLORS["baseline"], "marker": MARKERS["baseline"], "markersize": 8, "label": "other lots"}
    these = {"color": COLORS["private"], "marker": MARKERS["private"], "markersize": 8, "label": f"lots of {lot:,}"}
    for look, is_shown in ((others, lambda cell: cell.lot != lot), (these, lambda cell: cell.lot == lot)):
        cells = [cell for cell in found.cells if is_shown(cell)]
        places = [end if cell.epsilon is None else cell.epsilon for cell in cells]
        ax.plot(places, [cell.accuracy for cell in cells], linestyle="", alpha=0.8, **look)
    best = [(cell.epsilon, cell.accuracy) for cell in found.frontier]
    ax.plot(*np.transpose([*best, (high, best[-1][1])]), label="best of the grid", gid="frontier", **FRONTIER)
    ticks = [tick for tick in TICKS if low / 1.6 <= tick <= high * 1.2][:: 2 if high / low > 1000 else 1]
    ax.set_xticks([*ticks, end], [*(f"{tick:g}" for tick in ticks), "∞"])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    ax.tick_params(labelsize=14)
    ax.set_xlabel(f"ε at δ = {found.delta_dp:g}", fontsize=15)
    ax.set_ylabel("accuracy, validation part", fontsize=15)
    ax.legend(loc="lower right", bbox_to_anchor=(0.84, 0.0), handletextpad=0.4, borderaxespad=0.3, fontsize=13)


def render(found: Grid, clip: float, noise_multiplier: float, lot: int) -> Figure:
    r"""The accuracy of every C and noise at this lot, beside accuracy against epsilon of all settings.

    Args:
        found: a grid.
        clip: C, one of the grid's.
        noise_multiplier: $\sigma$, one of the grid's.
        lot: how many records a step draws on average, one of the grid's.
    Returns:
        the figure. Its parts have names (gid): "cell" (the frame), "now" (the ring), "range" (from the worst to the
        best training), "title", and "rate" (the learning rate).
    Raises:
        ValueError: names the argument.
    """
    cell = found.at(clip, noise_multiplier, lot)
    behind = backdrop(found, lot)
    ax, beside = behind.axes["grid"], behind.axes["tradeoff"]
    row, column = found.values("clip").index(clip), found.values("noise_multiplier").index(noise_multiplier)
    place = 4 * found.promised[1] if cell.epsilon is None else cell.epsilon
    with styled():
        fig = behind.picture()
        for color, width, gid in (("white", 9, "halo"), ("black", 4.5, "cell")):
            frame = {"fill": False, "edgecolor": color, "linewidth": width, "gid": gid, "transform": ax.transData}
            fig.add_artist(Rectangle((column, row), 1, 1, **frame))
        here = {"transform": beside.transData}
        ends = [min(cell.shares), max(cell.shares)]
        fig.add_artist(Line2D([place] * 2, ends, color="black", linewidth=3, gid="range", **here))
        fig.add_artist(Line2D([place], [cell.accuracy], gid="now", **HERE, **here))
        title = f"{100 * cell.accuracy:.0f} % at ε = {cell.spent}"
        fig.text(0, 1.1, title, transform=beside.transAxes, gid="title", **BOLD)
        words = f"learning rate {cell.learning_rate:.3g}, the best of {len(STEP_LENGTHS)} in two trials"
        fig.text(0, 1.03, words, transform=beside.transAxes, fontsize=13, va="bottom", gid="rate")
    return fig


def verdict(found: Grid, clip: float, noise_multiplier: float, lot: int) -> str:
    """In words: what this setting gave and spent, which did better for no more, and what no epsilon here contains."""
    cell = found.at(clip, noise_multiplier, lot)
    low, high = (100 * end for end in (min(cell.shares), max(cell.shares)))
    neighbors = SENTENCES[found.adjacency]
    promise = (
        "Without noise nothing is promised to anybody, however hard one clips."
        if cell.epsilon is None
        else f"The steps spend epsilon {cell.spent} at delta {found.delta_dp:g}, {neighbors}; covers {found.covers}."
    )
    return (
        f"{found.dataset}: {found.epochs} epochs over {found.records:,} images in lots of about {lot:,} are "
        f"{in_steps(cell.steps)}. With C = {clip:g} and noise {noise_multiplier:g} a small network reads "
        f"{100 * cell.accuracy:.0f} % of the validation part ({low:.0f} to {high:.0f} % in {len(cell.shares)} "
        f"trainings); {100 * cell.clipped:.0f} % of the gradients were clipped. {promise} {better(found, cell)} "
        f"Each setting has the learning rate that did best in two trials, here {cell.learning_rate:.3g}. "
        "Choosing by such a grid looks at data many times: no epsilon here covers that, and the best of "
        f"{len(found.cells)} was lucky too. The noise has a seed: a demonstration, not private."
    )


def better(found: Grid, cell: Cell) -> str:
    """Which setting did clearly better for no more epsilon."""
    best = found.best(cell.epsilon)
    if best.accuracy - cell.accuracy < CLEARLY:
        return "No setting of the grid does clearly better for no more epsilon."
    spent = "without noise too" if cell.epsilon is None else f"for epsilon {best.spent}"
    if best.epsilon is not None and cell.epsilon is None:
        spent = f"with noise even, for epsilon {best.spent}"
    return (
        f"The best for no more epsilon is C = {best.clip:g}, noise {best.noise_multiplier:g} and lots of "
        f"{best.lot:,}: {100 * best.accuracy:.0f} %, {spent}."
    )


def in_steps(steps: int) -> str:
    """So many steps.

    >>> in_steps(1), in_steps(1_250)
    ('1 step', '1,250 steps')
    """
    return "1 step" if steps == 1 else f"{steps:,} steps"


def describe(found: Grid, clip: float, noise_multiplier: float, lot: int) -> str:
    """The picture for somebody who cannot see it."""
    cell = found.at(clip, noise_multiplier, lot)
    noises = found.values("noise_multiplier")
    row = ", ".join(
        f"{100 * each.accuracy:.0f} % with noise {each.noise_multiplier:g}, epsilon {each.spent}"
        for each in (found.at(clip, noise, lot) for noise in noises)
    ).replace("∞", "infinite")
    first, last = found.frontier[0], found.frontier[-1]
    return (
        f"A heatmap of the accuracy on {found.dataset} over clipping norm and noise, for lots of {lot}. Its row of "
        f"C = {clip:g}: {row}. Marked: C = {clip:g}, noise {noise_multiplier:g}, {100 * cell.accuracy:.0f} %. Beside "
        f"it accuracy against epsilon for all {len(found.cells)} settings; the best rise from "
        f"{100 * first.accuracy:.0f} % at epsilon {first.spent} to {100 * last.accuracy:.0f} % at {last.spent}."
    )


def tuning_explorer(dataset: str | None = None) -> Explorable:
    """The explorable: choose clipping norm, noise and lot size, and see the measured accuracy and its epsilon.

    Args:
        dataset: "digits" or "mnist" to start with; None takes what `load()` finds. Where one has no measured grid, the
            explorable starts with digits, and says so.
    Returns:
        the widget.
    Raises:
        ValueError: names the argument.
    """
    check_choice("dataset", asked := dataset or default_name(), DATASETS)
    names = measured_datasets()
    start = asked if asked in names else DATASETS[0]
    first = grid_of(start)
    missing = "" if start == asked else f"{asked} has no measured grid here, so this is {start}. "

    def lots(found: Grid) -> list[tuple[str, int]]:
        return [(f"{lot}", lot) for lot in found.values("lot")]

    controls = {"dataset": widgets.Dropdown(description="data set", options=names, value=start)}
    for name, title in (("clip", "clip"), ("noise_multiplier", "noise")):
        options = [(f"{value:g}", value) for value in first.values(name)]
        controls[name] = widgets.SelectionSlider(description=title, options=options, value=START[name])
    controls["lot"] = widgets.SelectionSlider(description="lot", options=lots(first), value=first.values("lot")[1])

    def prepare(found: Grid) -> None:
        for lot in found.values("lot"):
            backdrop(found, lot)

    def adapt(name: str) -> None:
        if name == "dataset":
            found = grid_of(controls["dataset"].value)
            refill(controls["lot"], lots(found))
            prepare(found)

    def of_grid(show):
        return lambda dataset, **setting: show(grid_of(dataset), **setting)

    def caption(dataset: str, **setting: object) -> str:
        return (missing if dataset == start else "") + verdict(grid_of(dataset), **setting)

    prepare(first)
    return Explorable(of_grid(render), controls, alt=of_grid(describe), caption=caption, adapt=adapt, slow=("dataset",))
