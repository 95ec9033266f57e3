r"""The votes explorer: teachers vote on a public image, noise joins the count, and perhaps another class wins."""

import math
from dataclasses import dataclass
from functools import lru_cache, partial

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from scipy.special import ndtr
from torch import Tensor

from spai_lab.checks import check_choice, check_count
from spai_lab.checks import describe as describe_value
from spai_lab.data import load
from spai_lab.privacy.guarantee import SENTENCES, Guarantee
from spai_lab.privacy.pate import train_teachers
from spai_lab.privacy.pate_bounds import DataDependent, gnmax_guarantee
from spai_lab.privacy.pate_votes import gnmax, votes, with_gaussian_noise
from spai_lab.style import COLORS, MARKERS, Backdrop, image_colors, panels, styled
from spai_lab.survey.private_jobs import linear, on_ball
from spai_lab.widgets.accounting_explorer import number
from spai_lab.widgets.choices import offline_datasets, starting_dataset
from spai_lab.widgets.explorable import Explorable

DELTA = 1e-5
TEACHERS = (10, 25, 50, 100, 200)
SIGMAS = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0)
QUERIES = (1, 5, 10, 25, 50, 100, 200)
DRAWS = 20
PRIVATE = {"digits": 878, "mnist": 5_000}  # the first training images; the last are public
AGREEMENT = (0.0, 0.1, 0.3, 0.6, 0.8, 1.0)  # where the images that are shown stand, from disputed to clear
JUDGES = 50  # the teachers whose agreement that is
STEPS = 100  # of a teacher's training
GRID = np.arange(-8.0, 8.01, 0.4)  # of a standard normal, for an integral that is right to nine decimals


@dataclass(frozen=True, eq=False)
class Ballot:
    """What teachers say of public images.

    Args:
        dataset: its name.
        x: the public images, `(N, 1, H, W)`.
        y: their labels, which no teacher and no student sees, `(N,)`.
        counts: by the number of teachers, their votes on each image, `(N, K)`.
        shown: the numbers of the images that can be looked at, from the most disputed to the clearest.
        each: by the number of teachers, how many private images each of them had.
    """

    dataset: str
    x: Tensor
    y: Tensor
    counts: dict[int, Tensor]
    shown: tuple[int, ...]
    each: dict[int, int]

    def votes(self, teachers: int, image: int) -> Tensor:
        """The votes on one of the images that can be looked at, from 1 on, `(1, K)`."""
        return self.counts[teachers][[self.shown[image - 1]]]

    def label(self, image: int) -> int:
        """What one of the images is."""
        return int(self.y[self.shown[image - 1]])


@lru_cache(maxsize=2)
def ballot(dataset: str) -> Ballot:
    """Train the teachers, and let them vote on the public images.

    Args:
        dataset: "digits" or "mnist".
    Returns:
        the votes; kept.
    Raises:
        ValueError: names the argument.
    """
    check_choice("dataset", dataset, offline_datasets())
    data, count = load(dataset), PRIVATE[dataset]
    x, y = on_ball(data.x_train[:count]), data.y_train[:count]
    x_public = data.x_train[-QUERIES[-1] :]
    counts = {}
    for teachers in TEACHERS:
        passes = math.ceil(STEPS / math.ceil(count // teachers / 20))
        how = {"epochs": passes, "learning_rate": 0.2, "generator": seeded(0), "progress": False}
        taught = train_teachers(x, y, teachers, partial(linear, data.num_classes), **how)
        counts[teachers] = votes(taught, on_ball(x_public))
    order = counts[JUDGES].amax(1).argsort(stable=True)
    shown = tuple(int(order[round(place * (len(order) - 1))]) for place in AGREEMENT)
    each = {teachers: count // teachers for teachers in TEACHERS}
    return Ballot(dataset, x_public, data.y_train[-QUERIES[-1] :], counts, shown, each)


def seeded(number: int) -> torch.Generator:
    """The same draws each time."""
    return torch.Generator().manual_seed(number)


def chances(counts: Tensor, sigma: float) -> np.ndarray:
    r"""How likely each class wins the noisy vote.

    $\Pr[M = j] = \int \varphi(z) \prod_{i \ne j} \Phi\left(\frac{n_j - n_i}{\sigma} + z\right) dz$, by the trapezoidal
    rule, which is right to nine decimals for a function as smooth as this one.

    Args:
        counts: votes `(N, K)`.
        sigma: $\sigma$, the noise's standard deviation, in votes.
    Returns:
        the probabilities, `(N, K)`; each row adds up to 1.

    >>> chances(torch.tensor([[6, 6, 0], [9, 3, 0]]), 1.0).round(4)
    array([[0.5, 0.5, 0. ],
           [1. , 0. , 0. ]])
    """
    n = counts.double().numpy() / sigma
    above = ndtr(n[:, :, None, None] - n[:, None, :, None] + GRID)  # (N, K, K, Z): j is above i
    places = np.arange(n.shape[1])
    above[:, places, places] = 1
    weights = np.exp(-(GRID**2) / 2) * (GRID[1] - GRID[0]) / math.sqrt(2 * math.pi)
    return above.prod(2) @ weights


@dataclass(frozen=True, eq=False)
class Answers:
    """What the first queries are answered, on average over the noise, and what the answers spend.

    Args:
        changed: how many of them get another class than without noise.
        right: how many are the image's label.
        right_without: how many are without noise.
        promise: the guarantee, whatever the votes.
        these: what these very votes spend.
    """

    changed: float
    right: float
    right_without: int
    promise: Guarantee
    these: DataDependent


@lru_cache(maxsize=512)
def answers(found: Ballot, teachers: int, sigma: float, queries: int) -> Answers:
    """What so many queries are answered and what that spends; kept."""
    counts, y = found.counts[teachers][:queries], found.y[:queries]
    won, winners = all_chances(found, teachers, sigma)[:queries], counts.argmax(1)
    row = np.arange(queries)
    how = {"sigma": sigma, "delta_dp": DELTA}
    return Answers(
        changed=float((won.sum(1) - won[row, winners.numpy()]).sum()),
        right=float(won[row, y.numpy()].sum()),
        right_without=int((winners == y).sum()),
        promise=gnmax_guarantee(counts, **how),
        these=gnmax_guarantee(counts, **how, data_dependent=True),
    )


@lru_cache(maxsize=128)
def all_chances(found: Ballot, teachers: int, sigma: float) -> np.ndarray:
    """The chances of each class on each public image; kept."""
    return chances(found.counts[teachers], sigma)


@dataclass(frozen=True, eq=False)
class Vote:
    """One vote with one draw of the noise.

    Args:
        counts: the votes, `(K,)`.
        noisy: the votes with noise, `(K,)`.
        winner, told: the class that wins without noise and with it.
        chance: how likely each class wins, `(K,)`.
    """

    counts: np.ndarray
    noisy: np.ndarray
    winner: int
    told: int
    chance: np.ndarray

    @property
    def changes(self) -> float:
        """How likely the noise makes another class win."""
        return float(np.delete(self.chance, self.winner).sum())

    @property
    def lead(self) -> int:
        """By how many votes the winner leads."""
        return int(self.counts[self.winner] - np.delete(self.counts, self.winner).max())


@lru_cache(maxsize=512)
def vote(found: Ballot, teachers: int, image: int, sigma: float, draw: int) -> Vote:
    """The vote on an image, and what `gnmax` says of it with the noise of a draw; kept.

    Raises:
        ValueError: names the argument.
    """
    for name, value, accepted in (("teachers", teachers, TEACHERS), ("sigma", sigma, SIGMAS)):
        if value not in accepted:
            raise ValueError(f"{name} is {describe_value(value)}; accepted: {', '.join(f'{a:g}' for a in accepted)}")
    for name, value, most in (("image", image, len(found.shown)), ("draw", draw, DRAWS)):
        check_count(name, value)
        if value > most:
            raise ValueError(f"{name} is {value}; accepted: 1 to {most}")
    counts = found.votes(teachers, image)
    return Vote(
        counts[0].numpy(),
        with_gaussian_noise(counts, "sigma", sigma, False, seeded(draw))[0].numpy(),
        int(counts.argmax()),
        int(gnmax(counts, sigma=sigma, generator=seeded(draw))),
        chances(counts, sigma)[0],
    )


def check_queries(queries: int) -> None:
    """`ValueError` unless so many queries are on the slider."""
    if queries not in QUERIES:
        raise ValueError(f"queries is {describe_value(queries)}; accepted: {', '.join(map(str, QUERIES))}")


PLACES = {
    "votes": (0.95, 2.75, 6.15, 3.55),
    "chances": (0.95, 0.75, 6.15, 1.3),
    "image": (7.75, 5.2, 1.6, 1.6),
    "spent": (8.2, 0.75, 3.25, 3.05),
}
BOLD = {"fontsize": 15, "weight": "bold", "va": "bottom"}
WIDTH = 0.7  # of a bar
NOISY = {"marker": MARKERS["private"], "markersize": 11, "linestyle": ""}
WINNER = {"marker": "v", "markersize": 15, "linestyle": "", "markeredgecolor": "black"}
ASIDE = 0.17  # how far from the middle of its bar a winner's mark stands, where both winners are one
REACH = 3.2  # standard deviations of the noise that the axis has room for
LOWEST, HIGHEST = 0.01, 1000.0  # epsilon on the axis
LOOKS = {
    "promise": {"color": COLORS["private"], "marker": MARKERS["private"], "linestyle": "-", "linewidth": 3.5},
    "these": {"color": COLORS["baseline"], "marker": "v", "linestyle": "--", "linewidth": 2.5},
}


@lru_cache(maxsize=4)
def backdrop(found: Ballot) -> Backdrop:
    """What only the data set changes: the axes and the legends."""
    classes = np.arange(next(iter(found.counts.values())).shape[1])
    fig, axes = panels(11.8, 7.15, **PLACES)
    with styled():
        for ax in (axes["votes"], axes["chances"]):
            ax.set(xlim=(-0.6, classes[-1] + 0.6), ylim=(0, 1), xticks=classes)
            ax.tick_params(labelsize=15)
        ax = axes["votes"]
        ax.set(yticks=[])
        ax.set_ylabel("votes", fontsize=15, labelpad=38)
        samples = (
            Rectangle((0, 0), 1, 1, color=COLORS["clean"], alpha=0.55, label="votes"),
            Line2D([], [], color=COLORS["private"], **NOISY, label="votes with noise"),
            Line2D([], [], color=COLORS["clean"], **WINNER, label="wins"),
            Line2D([], [], color=COLORS["private"], **WINNER, label="wins with noise"),
        )
        place = {"loc": "lower left", "bbox_to_anchor": (-0.02, 0.97), "borderpad": 0.2}
        ax.legend(handles=samples, **place, ncols=4, fontsize=14, columnspacing=1, handlelength=1.2, handletextpad=0.4)
        ax = axes["chances"]
        ax.set_xlabel("class", fontsize=15)
        ax.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"], fontsize=13)
        axes["image"].set(xticks=[], yticks=[])
        ax = axes["spent"]
        ax.set(xscale="log", yscale="log", xlim=(SIGMAS[0] / 1.3, SIGMAS[-1] * 1.3), ylim=(LOWEST, HIGHEST))
        ax.set_xticks(ticks := [1, 3, 10, 30], [f"{tick}" for tick in ticks])
        ax.set_yticks(ticks := [0.01, 0.1, 1, 10, 100, 1000], [f"{tick:,g}" for tick in ticks])
        ax.minorticks_off()
        ax.grid(color=COLORS["baseline"], alpha=0.3)
        ax.tick_params(labelsize=13)
        ax.set_xlabel("noise σ, in votes", fontsize=15)
        ax.set_ylabel(f"ε at δ = {DELTA:g}", fontsize=15)
    return Backdrop.of(fig, axes)


def render(found: Ballot, teachers: int, image: int, sigma: float, draw: int, queries: int) -> Figure:
    r"""The votes on an image with one draw of noise, how likely each class wins, and what answers spend.

    Args:
        found: a ballot.
        teachers: one of `TEACHERS`.
        image: which of the images, from 1, the most disputed.
        sigma: $\sigma$, in votes, one of `SIGMAS`.
        draw: which draw of the noise, from 1 to `DRAWS`.
        queries: how many queries are answered, one of `QUERIES`.
    Returns:
        the figure. Its parts have names (gid): "votes 0", "noise 0", "chance 0" and so on for each class, "noisy" (the
        diamonds), "winner" and "told" (the triangles), "changes" (the words), "promise" and "these" (the curves of
        epsilon), "promise now" and "these now", "promise words" and "these words".
    Raises:
        ValueError: names the argument.
    """
    check_queries(queries)
    seen = vote(found, teachers, image, sigma, draw)
    behind = backdrop(found)
    with styled():
        fig = behind.picture()
        behind.lay_image(fig, "image", image_colors(found.x[found.shown[image - 1]]))
        behind.lay_frame(fig, "image", "clean")
        lay_label(fig, behind, found, seen, teachers, image)
        lay_votes(fig, behind, seen, teachers, sigma)
        lay_chances(fig, behind, seen)
        lay_spent(fig, behind, found, teachers, sigma, queries)
    return fig


def lay_label(fig: Figure, behind: Backdrop, found: Ballot, seen: Vote, teachers: int, image: int) -> None:
    """What stands beside the image."""
    place = {"transform": behind.axes["image"].transAxes, "fontsize": 14}
    lines = (
        f"image {image} of {len(found.shown)}, a {found.label(image)}",
        f"{seen.counts.max()} of {teachers} agree",
        f"teachers of {found.each[teachers]} images",
    )
    for height, line in zip((0.84, 0.5, 0.16), lines, strict=True):
        fig.text(1.1, height, line, va="center", **place)


def lay_votes(fig: Figure, behind: Backdrop, seen: Vote, teachers: int, sigma: float) -> None:
    """Bars of the votes, the noise on each as a line to a diamond, and a triangle over both winners."""
    ax = behind.axes["votes"]
    low, high = -REACH * sigma, 1.06 * max(teachers, seen.counts.max() + REACH * sigma)
    here, inside = {"transform": ax.transData}, {"transform": ax.transAxes}

    def height(value: float) -> float:
        return float(np.clip((value - low) / (high - low), 0.01, 0.99))

    zero = height(0)
    for tick in MaxNLocator(4, integer=True).tick_values(low, high):
        if low < tick < high:
            look = {"color": "black" if tick == 0 else COLORS["baseline"], "linewidth": 1.5 if tick == 0 else 0.6}
            fig.add_artist(Line2D(ax.get_xlim(), [height(tick)] * 2, zorder=0, **look, **here))
            words = f"{tick:.0f}".replace("-", "−")
            fig.text(-0.75, height(tick), words, ha="right", va="center", fontsize=13, **here)
    tops = [height(value) for value in seen.noisy]
    for k, count in enumerate(seen.counts):
        shape = {"facecolor": COLORS["clean"], "alpha": 0.55, "gid": f"votes {k}", "zorder": 1}
        fig.add_artist(Rectangle((k - WIDTH / 2, zero), WIDTH, height(count) - zero, **shape, **here))
        stem = {"color": COLORS["private"], "linewidth": 2.5, "gid": f"noise {k}", "zorder": 2}
        fig.add_artist(Line2D([k, k], [height(count), tops[k]], **stem, **here))
    fig.add_artist(Line2D(range(len(tops)), tops, color=COLORS["private"], gid="noisy", zorder=3, **NOISY, **here))
    aside = ASIDE if seen.told == seen.winner else 0
    for gid, role, k, shift in (("winner", "clean", seen.winner, -aside), ("told", "private", seen.told, aside)):
        over = max(height(seen.counts[k]), tops[k] + 0.02) + 0.05
        fig.add_artist(Line2D([k + shift], [min(over, 0.98)], color=COLORS[role], gid=gid, zorder=4, **WINNER, **here))
    if height(teachers) - zero > 0.15:
        line = {"color": COLORS["clean"], "linewidth": 1.5, "linestyle": ":", "zorder": 0}
        fig.add_artist(Line2D(ax.get_xlim(), [height(teachers)] * 2, **line, **here))
        fig.text(0.99, height(teachers) - 0.01, f"all {teachers} agree", ha="right", va="top", fontsize=13, **inside)
    outcome = f"says {seen.told}" if seen.told == seen.winner else f"turns {seen.winner} into {seen.told}"
    fig.text(0, 1.12, f"this draw of the noise {outcome}", gid="outcome", **inside, **BOLD)


def lay_chances(fig: Figure, behind: Backdrop, seen: Vote) -> None:
    """How likely each class wins, as bars, and the chance that it is not the one with the most votes."""
    ax = behind.axes["chances"]
    for k, share in enumerate(seen.chance):
        role, hatch = ("clean", "") if k == seen.winner else ("private", "//")
        shape = {"facecolor": COLORS[role], "edgecolor": "white", "linewidth": 0, "hatch": hatch}
        place = (k - WIDTH / 2, 0), WIDTH, float(share)
        fig.add_artist(Rectangle(*place, transform=ax.transData, gid=f"chance {k}", **shape))
    words = f"chance to win; the winner changes: {percent(seen.changes)}"
    fig.text(0, 1.07, words, transform=ax.transAxes, gid="changes", **BOLD)


def lay_spent(fig: Figure, behind: Backdrop, found: Ballot, teachers: int, sigma: float, queries: int) -> None:
    """Epsilon against the noise: what is promised whatever the votes, and what these very votes spend."""
    ax = behind.axes["spent"]
    here = {"transform": ax.transData, "clip_box": ax.bbox}
    curves = [answers_spent(found, teachers, each, queries) for each in SIGMAS]
    place = SIGMAS.index(sigma)
    names = {"promise": "promised", "these": "these votes, not sanitized"}
    for (gid, name), values, height in zip(names.items(), zip(*curves, strict=True), (1.12, 1.03), strict=True):
        values = np.clip(values, LOWEST, HIGHEST)
        fig.add_artist(Line2D(SIGMAS, values, gid=gid, **LOOKS[gid] | {"marker": ""}, **here))
        point = LOOKS[gid] | {"linestyle": "", "markersize": 13, "markeredgecolor": "black"}
        fig.add_artist(Line2D([sigma], [values[place]], gid=f"{gid} now", zorder=5, **point, transform=ax.transData))
        sample = LOOKS[gid] | {"markersize": 9, "linestyle": "", "transform": ax.transAxes}
        fig.add_artist(Line2D([-0.19], [height + 0.035], **sample))
        words = f"ε {number(curves[place][gid == 'these'])} {name}"
        look = {"fontsize": 14, "weight": "bold" if gid == "promise" else "normal", "va": "bottom"}
        fig.text(-0.13, height, words, transform=ax.transAxes, gid=f"{gid} words", **look)
    title = f"{in_answers(queries)} with σ = {sigma:g}:"
    fig.text(-0.22, 1.21, title, transform=ax.transAxes, gid="title", **BOLD)


@lru_cache(maxsize=1024)
def answers_spent(found: Ballot, teachers: int, sigma: float, queries: int) -> tuple[float, float]:
    """Epsilon whatever the votes, and for these votes; kept."""
    counts, how = found.counts[teachers][:queries], {"sigma": sigma, "delta_dp": DELTA}
    bounds = (gnmax_guarantee(counts, **how, data_dependent=these) for these in (False, True))
    return tuple(bound.epsilon for bound in bounds)


def percent(share: float) -> str:
    """A probability in percent, with what digits it needs.

    >>> percent(0.251), percent(0.0123), percent(0.00002), percent(1e-9)
    ('25 %', '1.2 %', '0.002 %', 'under 0.001 %')
    """
    if share < 1e-5:
        return "under 0.001 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"


def in_answers(queries: int) -> str:
    """So many answers.

    >>> in_answers(1), in_answers(50)
    ('1 answer', '50 answers')
    """
    return "1 answer" if queries == 1 else f"{queries} answers"


def verdict(found: Ballot, teachers: int, image: int, sigma: float, draw: int, queries: int) -> str:
    """In words: who wins, how likely the noise changes that, what the answers spend, and what may not be shown."""
    check_queries(queries)
    seen, told = vote(found, teachers, image, sigma, draw), answers(found, teachers, sigma, queries)
    won = f"{seen.counts.max()} of {teachers} teachers say {seen.winner}"
    lead = f"a lead of {seen.lead}" if seen.lead else "no more than another class got"
    outcome = "leaves it so" if seen.told == seen.winner else f"makes {seen.told} win"
    return (
        f"{found.dataset}: {won}, {lead}; draw {draw} of the noise {outcome}. Noise of sigma {sigma:g} makes "
        f"another class win with a probability of {percent(seen.changes)} (an integral, right to nine decimals). "
        f"{in_answers(queries).capitalize()} {'spends' if queries == 1 else 'spend'} epsilon "
        f"{number(told.promise.epsilon)} at delta {DELTA:g}, {SENTENCES[told.promise.adjacency]}, "
        f"whatever the votes; on average the noise changes {told.changed:.1f} of them, and {told.right:.1f} are right, "
        f"without noise {told.right_without}. For these very votes it is {number(told.these.epsilon)}: that number "
        "tells of the votes, is not sanitized, and must not be published, nor must the bars. The noise has a seed "
        "here: a demonstration, not private."
    )


def describe(found: Ballot, teachers: int, image: int, sigma: float, draw: int, queries: int) -> str:
    """The picture for somebody who cannot see it."""
    check_queries(queries)
    seen, told = vote(found, teachers, image, sigma, draw), answers(found, teachers, sigma, queries)
    counted = ", ".join(f"{count} for {k}" for k, count in enumerate(seen.counts) if count)
    likely = ", ".join(f"{k} {percent(share)}" for k, share in enumerate(seen.chance) if share >= 0.005)
    return (
        f"Public image {image}, a {found.label(image)}, and the votes of {teachers} teachers as bars: {counted}. Draw "
        f"{draw} of noise with sigma {sigma:g} lifts or lowers each; then {seen.told} wins. Below, how likely each "
        f"class wins: {likely}. Beside it epsilon against sigma for {in_answers(queries)}: two curves, promised "
        f"{number(told.promise.epsilon)}, for these votes {number(told.these.epsilon)}."
    )


def votes_explorer(dataset: str | None = None) -> Explorable:
    """The explorable: let teachers vote on a public image, add noise, and see how often the winner changes and what the
    answers spend.

    Args:
        dataset: "digits" or "mnist" to start with; None takes what `load()` finds.
    Returns:
        the widget.
    Raises:
        ValueError: names the argument.
    """
    start = starting_dataset(dataset)
    found = ballot(start)
    controls = {
        "dataset": widgets.Dropdown(description="data set", options=offline_datasets(), value=start),
        "teachers": widgets.SelectionSlider(
            description="teachers", options=[(f"{count}", count) for count in TEACHERS], value=50
        ),
        "image": widgets.IntSlider(description="image", min=1, max=len(found.shown), value=5),
        "sigma": widgets.SelectionSlider(
            description="noise", options=[(f"{sigma:g}", sigma) for sigma in SIGMAS], value=5.0
        ),
        "draw": widgets.IntSlider(description="draw again", min=1, max=DRAWS, value=1),
        "queries": widgets.SelectionSlider(
            description="answers", options=[(f"{count}", count) for count in QUERIES], value=50
        ),
    }

    def prepare(found: Ballot) -> None:
        for teachers in TEACHERS:
            for sigma in SIGMAS:
                all_chances(found, teachers, sigma)

    def adapt(name: str) -> None:
        if name == "dataset":
            prepare(ballot(controls["dataset"].value))

    def of_ballot(show):
        return lambda dataset, **setting: show(ballot(dataset), **setting)

    prepare(found)
    return Explorable(
        of_ballot(render),
        controls,
        alt=of_ballot(describe),
        caption=of_ballot(verdict),
        adapt=adapt,
        slow=("dataset",),
    )
