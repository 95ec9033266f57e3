r"""The noise explorer: what two neighbors release through a mechanism, and how far one output can tell them apart."""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import ipywidgets as widgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon, Rectangle

from spai_lab.checks import check_choice, check_number
from spai_lab.privacy.mechanisms import gaussian_sigma, truth_probability
from spai_lab.style import COLORS, MARKERS, Backdrop, panels, styled
from spai_lab.widgets.choices import invert
from spai_lab.widgets.explorable import Explorable

MECHANISMS = {"laplace": "Laplace", "gaussian": "Gaussian", "response": "randomized response"}
EPSILONS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.0)
DELTAS = (0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6)
COUNTS = (10, 11)  # what is true of the two neighbors; the sensitivity of a count is 1
PEOPLE = 1000  # whose randomized responses are put together
SPREAD = 12  # how far from the counts outputs are drawn
STEEPEST = 5.6  # the largest log-ratio that is drawn
RATIOS = (0.01, 0.1, 1, 10, 100)
GROUPS = {
    "laplace": {"clean": "10 are counted, you are not there", "private": "11 are counted, you are one of them"},
    "gaussian": {"clean": "10 are counted, you are not there", "private": "11 are counted, you are one of them"},
    "response": {"clean": "your true answer is no", "private": "your true answer is yes"},
}
LINES = {"clean": "-", "private": "--"}


@dataclass(frozen=True)
class Release:
    r"""One output of a mechanism, on two neighbors.

    Args:
        mechanism: one of `MECHANISMS`; the first two release a count, of one record added or removed, the third an
            answer of yes or no, of one record replaced.
        epsilon: $\epsilon$, above 0.
        delta_dp: $\delta$ in (0, 1), which only the Gaussian mechanism needs.
    """

    mechanism: str
    epsilon: float
    delta_dp: float

    @property
    def counts(self) -> bool:
        """Whether a count is released, rather than an answer."""
        return self.mechanism != "response"

    @cached_property
    def scale(self) -> float:
        r"""$1 / \epsilon$ of the Laplace noise, $\sigma$ of the Gaussian, or the probability of the true answer."""
        if self.mechanism == "laplace":
            return 1 / self.epsilon
        if self.mechanism == "gaussian":
            return gaussian_sigma(1, self.epsilon, self.delta_dp)
        return truth_probability(2, self.epsilon)

    @cached_property
    def outputs(self) -> np.ndarray:
        """The outputs that are drawn: with the counts themselves, where the Laplace density has its corner."""
        if not self.counts:
            return np.arange(2.0)
        return np.sort([*np.linspace(*limits(), 241), *COUNTS])

    def likelihood(self, output: np.ndarray, group: str) -> np.ndarray:
        """How likely outputs are in a group: the density relative to its peak, or the probability of an answer."""
        truth = list(GROUPS[self.mechanism]).index(group)
        if not self.counts:
            return np.where(output == truth, self.scale, 1 - self.scale)
        away = np.abs(output - COUNTS[truth]) / self.scale
        return np.exp(-away if self.mechanism == "laplace" else -(away**2) / 2)

    def log_ratio(self, output: np.ndarray) -> np.ndarray:
        r"""$\log \frac{\Pr[M(D') = o]}{\Pr[M(D) = o]}$, where only $D'$ has the record, or the answer yes."""
        return np.log(self.likelihood(output, "private")) - np.log(self.likelihood(output, "clean"))

    @property
    def belief(self) -> float:
        r"""How sure somebody may become who held both for equally likely: $\frac{e^\epsilon}{1 + e^\epsilon}$."""
        return 1 / (1 + math.exp(-self.epsilon))

    @property
    def margins(self) -> tuple[float, float] | None:
        r"""The outputs beyond which the Gaussian mechanism breaks the bound: $10.5 \mp \epsilon \sigma^2$."""
        if self.mechanism != "gaussian":
            return None
        middle, away = sum(COUNTS) / 2, self.epsilon * self.scale**2
        return middle - away, middle + away

    @property
    def broken(self) -> float:
        """How probably a Gaussian output lies beyond the margin on the side of the neighbor that it points to."""
        return 0.0 if self.margins is None else math.erfc((self.margins[1] - COUNTS[1]) / self.scale / 2**0.5) / 2

    @property
    def error(self) -> float:
        """The error that 95 % of the noisy counts stay below; of a share of `PEOPLE` answers, 1.96 standard errors."""
        if self.mechanism == "laplace":
            return self.scale * math.log(20)
        if self.mechanism == "gaussian":
            return 1.96 * self.scale
        return 1.96 * math.sqrt(self.scale * (1 - self.scale) / PEOPLE) / (2 * self.scale - 1)


@lru_cache(maxsize=256)
def release(mechanism: str, epsilon: float, delta_dp: float) -> Release:
    r"""A mechanism with its budget.

    Args:
        mechanism: one of `MECHANISMS`.
        epsilon: $\epsilon$ from 0.1 to 5, what the picture has room for.
        delta_dp: $\delta$ in (0, 0.1].
    Returns:
        what it releases; kept.
    Raises:
        ValueError: names the argument.
    """
    check_choice("mechanism", mechanism, tuple(MECHANISMS))
    check_number("epsilon", epsilon, low=EPSILONS[0], high=EPSILONS[-1])
    check_number("delta_dp", delta_dp, low=0, high=DELTAS[0], exclusive=True)
    return Release(mechanism, epsilon, delta_dp)


def limits() -> tuple[float, float]:
    """From where to where outputs are drawn."""
    return sum(COUNTS) / 2 - SPREAD, sum(COUNTS) / 2 + SPREAD


PLACES = {"outputs": (1.15, 4.4, 8.7, 2.0), "ratio": (1.15, 0.75, 8.7, 2.75)}
BOLD = {"fontsize": 15, "weight": "bold", "va": "bottom"}
BOUND = {"color": "black", "linestyle": "--", "linewidth": 2.5}


@lru_cache(maxsize=len(MECHANISMS))
def backdrop(mechanism: str) -> Backdrop:
    """What the budget leaves as it is: the axes and the legend."""
    fig, axes = panels(11.3, 7.2, **PLACES)
    counts = mechanism != "response"
    with styled():
        for ax in axes.values():
            ax.set(xlim=limits() if counts else (-0.7, 1.7))
            if not counts:
                ax.set_xticks([0, 1], ["the answer “no”", "the answer “yes”"])
        name = "relative density" if counts else "probability"
        axes["outputs"].set(ylim=(0, 1.08), ylabel=name, yticks=[0, 0.5, 1])
        for role, words in GROUPS[mechanism].items():
            axes["outputs"].plot([], [], label=words, **look(role))
        axes["outputs"].legend(loc="lower left", bbox_to_anchor=(-0.02, 1.16), ncols=2, borderpad=0, fontsize=14)
        draw_beliefs(axes["ratio"], counts)
        axes["ratio"].set_xlabel("the count that is released" if counts else "the answer that is released")
    return Backdrop.of(fig, axes)


def draw_beliefs(ax: Axes, counts: bool) -> None:
    """The axes of the ratio, and at their right what somebody believes who held both for equally likely before."""
    ax.set(ylim=(-STEEPEST, STEEPEST), ylabel="likelier with you by" if counts else "likelier for yes by")
    ax.set_yticks(np.log(RATIOS), [f"{ratio:g} ×" if ratio >= 1 else f"1/{1 / ratio:.0f}" for ratio in RATIOS])
    ax.axhline(0, color=COLORS["baseline"], linewidth=1.5)
    right = ax.twinx()
    right.spines["right"].set_visible(True)
    right.set(ylim=ax.get_ylim(), ylabel="belief: you are in" if counts else "belief: you mean yes")
    right.set_yticks(np.log(RATIOS), [f"{100 * ratio / (1 + ratio):.0f} %" for ratio in RATIOS])


def look(role: str) -> dict:
    """How a group is drawn."""
    return {
        "color": COLORS[role],
        "linestyle": LINES[role],
        "marker": MARKERS[role],
        "markersize": 10,
        "markeredgecolor": "black",
    }


def render(mechanism: str, epsilon: float, delta_dp: float) -> Figure:
    r"""How likely each output is on two neighbors, and below the ratio of the two, beside its bound.

    Args:
        mechanism: one of `MECHANISMS`.
        epsilon: $\epsilon$ from 0.1 to 5.
        delta_dp: $\delta$ in (0, 0.1], for the Gaussian mechanism.
    Returns:
        the figure. Its parts have names (gid): "clean" and "private" (outputs of each neighbor), "ratio", "allowed"
        (the band within the bound), "broken" (where a Gaussian output leaves it), and the words "noise" and "bound".
    Raises:
        ValueError: names the argument.
    """
    found = release(mechanism, epsilon, delta_dp)
    behind = backdrop(mechanism)
    with styled():
        fig = behind.picture()
        ax = behind.axes["outputs"]
        for role in GROUPS[mechanism]:
            (lay_density if found.counts else lay_answers)(fig, ax, found, role)
        fig.text(0, 1.03, noise_words(found), transform=ax.transAxes, gid="noise", **BOLD)
        lay_ratio(fig, behind.axes["ratio"], found)
        fig.text(0, 1.03, bound_words(found), transform=behind.axes["ratio"].transAxes, gid="bound", **BOLD)
    return fig


def lay_density(fig: Figure, ax: Axes, found: Release, role: str) -> None:
    """The density of a count, filled, with a marker on its peak."""
    height = found.likelihood(found.outputs, role)
    outline = np.column_stack([found.outputs, height])
    corners = [(found.outputs[0], 0), *outline, (found.outputs[-1], 0)]
    fill = {"facecolor": COLORS[role], "alpha": 0.2, "edgecolor": "none"}
    fig.add_artist(Polygon(corners, transform=ax.transData, **fill))
    place = [int(np.searchsorted(found.outputs, COUNTS[list(LINES).index(role)]))]
    fig.add_artist(Line2D(*outline.T, transform=ax.transData, gid=role, markevery=place, linewidth=2.5, **look(role)))


def lay_answers(fig: Figure, ax: Axes, found: Release, role: str) -> None:
    """The probabilities of both answers as bars, each with its number."""
    shift = -0.2 if role == "clean" else 0.2
    heights = found.likelihood(found.outputs, role)
    shape = {"facecolor": COLORS[role], "edgecolor": "white", "linewidth": 0, "hatch": "" if role == "clean" else "//"}
    for output, height in zip(found.outputs, heights, strict=True):
        place = (output + shift - 0.18, 0), 0.36, height
        fig.add_artist(Rectangle(*place, transform=ax.transData, gid=f"{role} bar", **shape))
    points = Line2D(found.outputs + shift, heights, transform=ax.transData, gid=role, **look(role))
    points.set_linestyle("")
    fig.add_artist(points)


def lay_ratio(fig: Figure, ax: Axes, found: Release) -> None:
    """The ratio of each output, the band that the budget allows, and where it is left."""
    (left, right), epsilon = ax.get_xlim(), found.epsilon
    here = {"transform": ax.transData, "clip_box": ax.bbox}
    band = {"facecolor": COLORS["private"], "alpha": 0.2, "edgecolor": "none", "gid": "allowed"}
    fig.add_artist(Rectangle((left, -epsilon), right - left, 2 * epsilon, **band, **here))
    for edge in (-epsilon, epsilon):
        fig.add_artist(Line2D([left, right], [edge, edge], **BOUND, **here))
    drawn = {"color": COLORS["adversarial"], "linewidth": 4, "gid": "ratio"}
    if not found.counts:
        drawn |= {"linestyle": "", "marker": MARKERS["adversarial"], "markersize": 15, "markeredgecolor": "black"}
    ratio = Line2D(found.outputs, found.log_ratio(found.outputs), **drawn, **here)
    fig.add_artist(ratio)
    shape = {"facecolor": "none", "hatch": "xx", "edgecolor": COLORS["adversarial"], "linewidth": 0, "alpha": 0.5}
    for start, end in zip((left, right), found.margins or (), strict=False):
        if left < end < right:
            side = Rectangle((start, -STEEPEST), end - start, 2 * STEEPEST, gid="broken", **shape, **here)
            fig.add_artist(side)


def noise_words(found: Release) -> str:
    """The noise and the error that it makes, in a line."""
    if not found.counts:
        share = f"the share among {PEOPLE:,}: ± {100 * found.error:.3g} points"
        return f"{100 * found.scale:.1f} % tell the truth; {share}"
    noise = f"{MECHANISMS[found.mechanism]} noise, {'scale' if found.mechanism == 'laplace' else 'σ'} {found.scale:.3g}"
    return f"{noise}: 95 % of the counts within ± {found.error:.3g}"


def bound_words(found: Release) -> str:
    """The bound and what it leaves to believe, in a line."""
    words = f"at most $e^ε$ = {math.exp(found.epsilon):.3g} times: belief up to {100 * found.belief:.0f} %"
    return words if found.margins is None else f"{words}, but for δ = {found.delta_dp:g}"


def verdict(mechanism: str, epsilon: float, delta_dp: float) -> str:
    """In words: what one output may tell, where the bound is broken, and what the noise costs."""
    found = release(mechanism, epsilon, delta_dp)
    told = "you were counted" if found.counts else "your answer is yes"
    words = (
        f"{MECHANISMS[mechanism].capitalize()} at epsilon {epsilon:g}: no output is more than e^{epsilon:g} = "
        f"{math.exp(epsilon):.3g} times as likely on one neighbor as on the other. Whoever sees one, and held both for "
        f"equally likely, will believe that {told} with at least {100 * (1 - found.belief):.1f} and at most "
        f"{100 * found.belief:.1f} %."
    )
    if found.margins is not None:
        low, high = found.margins
        words = words.replace("no output is", f"but for delta {delta_dp:g}, no output is")
        words += (
            f" Outputs above {high:.1f} say more than that, without limit; they come with probability "
            f"{found.broken:.2g} if you are counted, of which delta is more than the bound allows. So do outputs below "
            f"{low:.1f} if you are not."
        )
    return f"{words} {cost(found)}"


def cost(found: Release) -> str:
    """What the noise does to what is released."""
    if not found.counts:
        return (
            f"{100 * (1 - found.scale):.1f} % of the answers are false, and nobody knows which; the share of yes among "
            f"{PEOPLE:,} people is still estimated within ± {100 * found.error:.3g} points in 95 % of the cases. "
            "Neighbors: one answer replaced."
        )
    return (
        f"The noise moves the count of {COUNTS[0]} by at most {found.error:.3g} in 95 % of the releases; a count of "
        "10,000 it would move no farther. Neighbors: one record added or removed."
    )


def describe(mechanism: str, epsilon: float, delta_dp: float) -> str:
    """The picture for somebody who cannot see it."""
    found = release(mechanism, epsilon, delta_dp)
    words = bound_words(found).replace("$e^ε$", "e to the epsilon").replace("δ", "delta")
    if not found.counts:
        true, false = (f"{100 * share:.1f} %" for share in (found.scale, 1 - found.scale))
        outputs = f"Bars: a true no says no with {true} and yes with {false}, a true yes the other way around"
        ratio = "Two points on the edges of the band: the answer no at the lower one, yes at the upper one"
    else:
        outputs = f"Two curves, of the counts {COUNTS[0]} and {COUNTS[1]}, {noise_words(found)}".replace("σ", "sigma")
        shape = {
            "laplace": "a step from the lower to the upper edge of the band between the two counts",
            "gaussian": "a straight line that leaves the band on both sides",
        }
        ratio = f"The ratio of the two: {shape[mechanism]}"
    return f"{MECHANISMS[mechanism].capitalize()} at epsilon {epsilon:g}. {outputs}. {ratio}; {words}."


def noise_explorer() -> Explorable:
    """The explorable: choose a mechanism and its budget, and see what an output tells and what the noise costs.

    Returns:
        the widget.
    """
    controls = {
        "mechanism": widgets.Dropdown(description="mechanism", options=invert(MECHANISMS)),
        "epsilon": widgets.SelectionSlider(
            description="epsilon", options=[(f"{epsilon:g}", epsilon) for epsilon in EPSILONS], value=1.0
        ),
        "delta_dp": widgets.SelectionSlider(
            description="delta", options=[(f"{delta:g}", delta) for delta in DELTAS], value=0.01, disabled=True
        ),
    }

    def adapt(name: str) -> None:
        if name == "mechanism":
            controls["delta_dp"].disabled = controls["mechanism"].value != "gaussian"

    return Explorable(render, controls, alt=describe, caption=verdict, adapt=adapt)
