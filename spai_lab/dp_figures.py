"""Drawings of the chapter on differential privacy: what a budget costs, what it proves, and how it is spent."""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill

import matplotlib.ticker as ticker
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spai_lab.checks import check_choice, check_images, describe
from spai_lab.defense_figures import HATCHES
from spai_lab.figures import LINES
from spai_lab.metrics import Rate
from spai_lab.privacy.scattering import CHANNELS, DIRECTIONS, SCALES
from spai_lab.style import COLORS, MARKERS, ROLES, draw_image, figure, styled

Share = Rate | tuple[float, float, float]
SHAPES = ("^", "v", "*", "h")  # tells curves apart that share a color; those of `MARKERS` mean a role
BOUND = {"color": "black", "linestyle": (0, (5, 2)), "linewidth": 2.2}
GAP = 1.7  # how far, as a ratio, the line before "no privacy" stands from it
BESIDE = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)}


def spread(share: Share) -> tuple[float, float, float]:
    """A share with its interval: a `Rate`, or the value, the lower and the upper end as they are.

    >>> spread((0.5, 0.4, 0.7))
    (0.5, 0.4, 0.7)
    """
    return (share.value, *share.interval) if isinstance(share, Rate) else tuple(share)


def tradeoff(
    accuracy: Mapping[float, Share],
    attacks: Mapping[str, Mapping[float, Share]],
    bound: Mapping[float, float],
    *,
    bound_name: str = "proved: no attack above this",
    chance: tuple[float, str] | None = None,
) -> Figure:
    r"""What privacy costs and what it buys: accuracy, the success of attacks and its proved bound, against epsilon.

    Args:
        accuracy: of the model, by $\epsilon$; `math.inf` without privacy.
        attacks: name of an attack to its success by $\epsilon$, all in the same measure.
        bound: the highest success that is possible, in that measure, by $\epsilon$; finite ones.
        bound_name: what the bound says.
        chance: the success of guessing, and what to call it.
    Returns:
        the figure.
    Raises:
        ValueError: there is no accuracy, or an $\epsilon$ is not above 0.
    """
    places = check_epsilons("accuracy", accuracy)
    for name, curve in attacks.items():
        places |= check_epsilons(name, curve)
    check_epsilons("bound", bound)
    fig, axes = figure(11, 5)
    ax = axes[0, 0]
    with styled():
        end = budget_axis(ax, places)
        draw_shares(ax, accuracy, end, label="accuracy", role="private", number=0)
        for number, (name, curve) in enumerate(attacks.items()):
            draw_shares(ax, curve, end, label=name, role="adversarial", number=number)
        left, right = ax.get_xlim()
        shown = [epsilon for epsilon in sorted(bound) if left <= epsilon < min(right, end / GAP)]
        ax.plot(shown, [bound[epsilon] for epsilon in shown], label=bound_name, **BOUND)
        if chance is not None:
            ax.axhline(chance[0], color=COLORS["baseline"], linewidth=1.5, linestyle=":", label=chance[1])
        percent(ax)
        ax.set(ylabel="share", title="upright lines: 95 % interval")
        ax.legend(**BESIDE)
    return fig


def check_epsilons(name: str, curve: Mapping[float, object]) -> set[float]:
    """The budgets of a curve; `ValueError` unless there is one and each is above 0."""
    if not curve or not all(epsilon > 0 for epsilon in curve):
        raise ValueError(f"{name} is {describe(curve)}; accepted: at least one value, each at an epsilon above 0")
    return set(curve)


def budget_axis(ax: Axes, epsilons: set[float]) -> float:
    """A logarithmic axis of budgets with a tick at each, at its right end "no privacy"; returns where that stands."""
    finite = sorted(epsilon for epsilon in epsilons if epsilon < math.inf) or [1.0]
    end = 3 * finite[-1]
    private = max(epsilons) < math.inf
    ax.set(xscale="log", xlim=(finite[0] / 1.4, finite[-1] * 1.4 if private else end * 1.4))
    ticks, names = list(finite), [plain(epsilon) for epsilon in finite]
    if not private:
        ticks, names = [*ticks, end], [*names, "no\nprivacy"]
        ax.axvline(end / GAP, color=COLORS["baseline"], linewidth=1)
    ax.set_xticks(ticks, names)
    ax.set_xticks([], minor=True)
    ax.set_xlabel("epsilon")
    return end


def draw_shares(ax: Axes, curve: Mapping[float, Share], end: float, *, label: str, role: str, number: int) -> None:
    """A curve of shares with their intervals; the one without privacy, at `end`, is not joined to the others."""
    check_choice("role", role, ROLES)
    color, marker = told_apart(role, number)
    look = {"color": color, "marker": marker, "capsize": 4, "markersize": 9, "elinewidth": 1.8}
    for epsilons, line in (
        (sorted(epsilon for epsilon in curve if epsilon < math.inf), LINES[number % len(LINES)]),
        ([epsilon for epsilon in curve if epsilon == math.inf], ""),
    ):
        if epsilons:
            values, low, high = np.array([spread(curve[epsilon]) for epsilon in epsilons]).T
            error = np.maximum([values - low, high - values], 0)
            places = np.minimum(epsilons, end)
            ax.errorbar(places, values, error, linestyle=line, label=label, **look)
            label = None


def told_apart(role: str, number: int) -> tuple[tuple[float, float, float], str]:
    """The color and the marker of one of several curves of a role, from number 0.

    >>> told_apart("private", 0)[1], told_apart("private", 1)[1]
    ('D', '^')
    """
    shades = sns.dark_palette(COLORS[role], len(LINES) + 1, reverse=True)
    return shades[min(number, len(LINES) - 1)], (MARKERS[role], *SHAPES)[min(number, len(SHAPES))]


def percent(ax: Axes) -> None:
    """Shares from 0 to 1 on the y-axis, in percent."""
    ax.set_ylim(-0.02, 1.02)
    ax.yaxis.set_major_formatter(ticker.PercentFormatter(1, symbol=" %"))


def levels(
    tasks: Mapping[str, Mapping[str, Mapping[float, Share]]], *, floor: Mapping[str, float] | None = None
) -> Figure:
    r"""Accuracy against epsilon for the levels at which noise may be added, a panel for each task.

    Args:
        tasks: title of a panel to its curves: name of a level to accuracy by $\epsilon$; `math.inf` without privacy.
        floor: title of a panel to the accuracy of guessing there.
    Returns:
        the figure.
    Raises:
        ValueError: a panel has no curve, or an $\epsilon$ is not above 0.
    """
    names = list(dict.fromkeys(name for curves in tasks.values() for name in curves))
    if not names or not all(tasks.values()):
        raise ValueError(f"tasks is {describe(tasks)}; accepted: at least one, each with at least one curve")
    fig, axes = figure(max(7.5, 4.9 * len(tasks)), 5.1, columns=len(tasks))
    with styled():
        for ax, (title, curves) in zip(axes[0], tasks.items(), strict=True):
            end = budget_axis(ax, set().union(*(check_epsilons(name, curve) for name, curve in curves.items())))
            for name, curve in curves.items():
                draw_shares(ax, curve, end, label=name, role="private", number=names.index(name))
            if floor and title in floor:
                look = {"color": COLORS["baseline"], "linestyle": ":", "linewidth": 1.5}
                ax.axhline(floor[title], label="guessing", **look)
            percent(ax)
            ax.set_title(title)
        axes[0, 0].set_ylabel("accuracy")
        found = {}
        for ax in axes[0]:
            found |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        shown = [name for name in (*names, "guessing") if name in found]
        columns = len(shown) if len(shown) < 5 else 3
        fig.legend([found[name] for name in shown], shown, loc="outside lower center", ncols=columns)
    return fig


def audit_bars(audits: Mapping[str, tuple[float, float]], *, confidence: float = 0.95) -> Figure:
    r"""What is claimed of some programs, and what an audit proves of them: a bound above the claim refutes it.

    Args:
        audits: name of a program to the $\epsilon$ that is claimed and the lower bound that was measured; infinite
            ones are cut at the edge.
        confidence: of the lower bounds.
    Returns:
        the figure.
    Raises:
        ValueError: there is none, or a value is below 0.
    """
    if not audits or not all(value >= 0 for pair in audits.values() for value in pair):
        raise ValueError(f"audits is {describe(audits)}; accepted: at least one, with two values of at least 0 each")
    fig, axes = figure(10, 0.95 * len(audits) + 1.9)
    ax = axes[0, 0]
    finite = [value for pair in audits.values() for value in pair if value < math.inf]
    top = 1.35 * max([*finite, 0.1])
    with styled():
        for place, (claimed, measured) in enumerate(audits.values()):
            refuted = measured > claimed
            for shift, value, role, label in (
                (-0.19, claimed, "private", "claimed: at most"),
                (0.19, measured, "adversarial", "measured: at least"),
            ):
                look = {"color": COLORS[role], "hatch": HATCHES[role], "edgecolor": "white"}
                ax.barh(place + shift, min(value, top), 0.36, label=None if place else label, **look)
                words = "∞" if value == math.inf else f"{value:.2f}"
                if role == "adversarial":
                    words += "  ✕ refuted" if refuted else "  ○ not refuted"
                at_end = value > 0.75 * top
                look = {"va": "center", "ha": "right" if at_end else "left", "fontsize": 12}
                look |= {"bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1.5}} if at_end else {}
                ax.annotate(f" {words} ", (min(value, top), place + shift), weight="bold", **look)
        ax.set_yticks(range(len(audits)), [fill(name, 24) for name in audits])
        ax.invert_yaxis()
        ax.set(xlim=(0, top), xlabel=f"epsilon (lower bounds hold with {100 * confidence:g} %)")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return fig


def plain(epsilon: float) -> str:
    """An epsilon with three digits, and never as a power of ten.

    >>> plain(2.5968), plain(9781.2)
    ('2.6', '9,781')
    """
    return f"{epsilon:,.0f}" if epsilon >= 100 else f"{epsilon:.3g}"


def draw_line(
    ax: Axes, x: Sequence[float], y: Sequence[float], *, label: str, role: str, number: int, marks: int = 8
) -> None:
    """A curve; those of one role differ in shade, line and marker."""
    color, marker = told_apart(role, number)
    every = max(1, len(x) // marks)
    ax.plot(x, y, LINES[number % len(LINES)], color=color, marker=marker, markevery=every, label=label)


def training_curves(
    curves: Mapping[str, Mapping[int, Share]],
    *,
    without: Mapping[int, Share] | None = None,
    chance: float | None = None,
) -> Figure:
    """Accuracy as private training goes on, one curve for each noise.

    Args:
        curves: name of a curve, such as "σ = 1.1, epsilon 2.6", to the accuracy by epoch.
        without: accuracy by epoch of the same training without privacy.
        chance: accuracy of guessing.
    Returns:
        the figure.
    Raises:
        ValueError: there is no curve, or one is empty.
    """
    if not curves or not all(curves.values()):
        raise ValueError(f"curves is {describe(curves)}; accepted: at least one, with at least one epoch")
    fig, axes = figure(11, 4.8)
    ax = axes[0, 0]
    with styled():
        for number, (name, shares) in enumerate((curves | {"without privacy": without} if without else curves).items()):
            private = name in curves
            values, low, high = np.array([spread(share) for share in shares.values()]).T
            role, place = ("private", number) if private else ("baseline", 0)
            draw_line(ax, list(shares), values, label=name, role=role, number=place)
            ax.fill_between(list(shares), low, high, color=ax.lines[-1].get_color(), alpha=0.12, linewidth=0)
        if chance is not None:
            ax.axhline(chance, color=COLORS["baseline"], linewidth=1.5, linestyle=":", label="guessing")
        percent(ax)
        ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        ax.set(xlabel="epochs", ylabel="accuracy", title="band: 95 % interval")
        ax.legend(**BESIDE)
    return fig


def vote_histogram(
    votes: Tensor,
    winners: Sequence[int | None],
    classes: Sequence[str],
    *,
    noisy: Tensor | None = None,
    x: Tensor | None = None,
    y: Sequence[int] | None = None,
) -> Figure:
    """How the teachers voted on some inputs, and whom the noisy count named, a panel for each input.

    Args:
        votes: teachers for each class, `(N, K)`.
        winners: for each input the class with the most noisy votes; None where no answer was given.
        classes: names of the K classes.
        noisy: the noisy votes, `(N, K)`.
        x: the inputs, `(N, C, H, W)` in [0, 1], to be shown above.
        y: their true labels, for the titles.
    Returns:
        the figure.
    Raises:
        ValueError: an argument does not fit the votes.
    """
    if votes.ndim != 2 or len(votes) == 0 or votes.shape[1] != len(classes):
        raise ValueError(f"votes is {describe(votes)}; accepted: (N, {len(classes)}), a column for each class")
    for name, values in (("winners", winners), ("noisy", noisy), ("x", x), ("y", y)):
        if values is not None and len(values) != len(votes):
            raise ValueError(f"{name} has {len(values)} entries; accepted: {len(votes)}, one for each row of votes")
    if x is not None:
        check_images(x)
    count = len(votes)
    shown = votes if noisy is None else np.concatenate([votes, noisy])
    low, high = min(0.0, float(shown.min())), float(shown.max())
    low -= 0.08 * (high - low) if low < 0 else 0
    rows = (0.75, 1) if x is not None else (1,)
    fig, axes = figure(max(7.0, 2.85 * count + 0.6), 3.4 + (1.9 if x is not None else 0), columns=count, rows=rows)
    places = np.arange(len(classes))
    with styled():
        for column, winner in enumerate(winners):
            ax = axes[-1, column]
            named = places == winner
            for chosen, role, label in ((~named, "baseline", "votes"), (named, "private", "votes for the answer")):
                heights = votes[column].numpy()[chosen]
                look = {"color": COLORS[role], "hatch": HATCHES["clean" if role == "baseline" else role]}
                ax.bar(places[chosen], heights, 0.8, edgecolor="white", label=label, **look)
            if noisy is not None:
                look = {"color": "black", "marker": MARKERS["private"], "linestyle": "", "markersize": 6}
                ax.plot(places, noisy[column].tolist(), label="with noise", **look)
            ax.set_xticks(places, classes, fontsize=11)
            ax.set(ylim=(low, high + 0.1 * (high - low)), xlabel="class")
            ax.axhline(0, color="black", linewidth=0.8)
            above = axes[0, column]
            said = "no answer" if winner is None else f"answer {classes[winner]}"
            if y is not None:
                said = f"true {classes[y[column]]}, {said}"
                said += "" if winner is None else " ○" if winner == y[column] else " ✕"
            if x is not None:
                draw_image(above, x[column])
            above.set_title(said, loc="center", fontsize=13)
            if column:
                ax.set_yticklabels([])
        axes[-1, 0].set_ylabel("teachers")
        fig.legend(*axes[-1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def reports(true: Mapping[str, float], estimated: Mapping[str, Mapping[str, Share]], *, what: str = "share") -> Figure:
    """How common each class is, and what randomized responses say of it.

    Args:
        true: name of a class to its share.
        estimated: name of an estimate, such as "epsilon 1", to its shares by class with their intervals; a share may
            come out below 0.
        what: what a share says, for the axis.
    Returns:
        the figure.
    Raises:
        ValueError: there is no estimate, or one has other classes.
    """
    if not estimated or any(list(shares) != list(true) for shares in estimated.values()):
        raise ValueError(f"estimated is {describe(estimated)}; accepted: at least one, each with {list(true)}")
    fig, axes = figure(min(12.0, max(8.5, 0.4 * len(true) * (1 + len(estimated)) + 2)), 4.6)
    ax = axes[0, 0]
    places = np.arange(len(true))
    wide = 0.8 / len(estimated)
    with styled():
        ax.bar(places, list(true.values()), 0.86, color=COLORS["clean"], alpha=0.35, label="true")
        for number, (name, shares) in enumerate(estimated.items()):
            values, low, high = np.array([spread(share) for share in shares.values()]).T
            color, marker = told_apart("private", number)
            shift = (number - (len(estimated) - 1) / 2) * wide
            look = {"color": color, "marker": marker, "capsize": 4, "linestyle": ""}
            ax.errorbar(places + shift, values, np.maximum([values - low, high - values], 0), label=name, **look)
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set_xticks(places, [fill(name, 12) for name in true])
        ax.set(ylabel=what, title="line: 95 % interval")
        ax.yaxis.set_major_formatter(ticker.PercentFormatter(1, symbol=" %"))
        ax.legend(**BESIDE)
    return fig


def scattered(image: Tensor, coefficients: Tensor) -> Figure:
    """An image, and how strongly it waves in each direction near each place, a row for each scale.

    Args:
        image: `(1, H, W)` in [0, 1].
        coefficients: of the image, `(C, h, w)`, as `scattering` gives them.
    Returns:
        the figure.
    Raises:
        ValueError: these are not the coefficients of one image.
    """
    if image.ndim != 3 or coefficients.ndim != 3 or len(coefficients) != CHANNELS:
        raise ValueError(
            f"image is {describe(image)}, coefficients {describe(coefficients)}; "
            f"accepted: (1, H, W) and ({CHANNELS}, h, w)"
        )
    first = coefficients[1 : 1 + SCALES * DIRECTIONS].unflatten(0, (SCALES, DIRECTIONS))
    fig, axes = figure(14, 4.4, columns=1 + DIRECTIONS, rows=SCALES)
    with styled():
        draw_image(axes[0, 0], image, title="image")
        draw_image(axes[1, 0], coefficients[:1], title="its means")
        for row, of_scale in enumerate(first):
            for column, of_direction in enumerate(of_scale):
                ax = axes[row, 1 + column]
                look = {"cmap": "cividis", "vmin": 0, "vmax": float(of_scale.max()), "interpolation": "nearest"}
                ax.imshow(of_direction.numpy(), **look)
                ax.set(xticks=[], yticks=[])
                if row == 0:
                    ax.set_title(f"{180 * column / DIRECTIONS:g}°", loc="center")
            axes[row, 1].set_ylabel(("fine", "coarse")[row])
    return fig
