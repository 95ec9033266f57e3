"""Carlini and Wagner's trade: what the weight c of their objective buys, and what it costs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets as widgets
import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from spai_lab.attacks.evasion.carlini_wagner import minimize_at
from spai_lab.checks import check_number
from spai_lab.figures import sayings
from spai_lab.style import COLORS, DIVERGING, MARKERS, Backdrop, frame, image_colors, magnified, outcome, panels, styled
from spai_lab.threat import margin, norms
from spai_lab.training import reference
from spai_lab.widgets.choices import starting_dataset, well_read_image, well_read_options
from spai_lab.widgets.explorable import Explorable

WEIGHTS = tuple(float(f"{10 ** (step / 3):.2g}") for step in range(-9, 7))
CONFIDENCES = (0, 5, 10)
STEPS, LEARNING_RATE = 200, 0.05


@dataclass(frozen=True, eq=False)
class Trade:
    r"""The minimizers of $\|\delta\|_2^2 + c \, f(x + \delta)$ for one image, at every c of a grid.

    Args:
        dataset: its name.
        confidence: kappa, in units of the logits.
        classes: names of the K classes.
        y: true label.
        x: the original, `(C, H, W)`.
        c: the grid, M weights.
        x_adv: the minimizers, `(M, C, H, W)`.
        found: where the goal is reached, bool `(M,)`.
        logits: of the original and of the minimizers, `(1 + M, K)`.
    """

    dataset: str
    confidence: float
    classes: tuple[str, ...]
    y: int
    x: Tensor
    c: tuple[float, ...]
    x_adv: Tensor
    found: Tensor
    logits: Tensor

    @property
    def distance(self) -> Tensor:
        """The L2 norm of the change at each c, `(M,)`."""
        return norms(self.x_adv - self.x, "l2")

    @property
    def lead(self) -> Tensor:
        """By how much the best wrong class leads at each c, in logits, `(M,)`; below 0 the image is read rightly."""
        return -margin(self.logits[1:], torch.full((len(self.c),), self.y))

    @property
    def nearest(self) -> int | None:
        """The place of the c that reaches the goal with the least change; None if none does."""
        return int(self.distance.masked_fill(~self.found, torch.inf).argmin()) if self.found.any() else None

    def says(self, step: int | None = None) -> str:
        """What the model says of the original, or at a place of the grid, such as "3 (98 %)"."""
        row = 0 if step is None else 1 + step
        return sayings(self.logits[[row]].softmax(1), self.classes)[0]

    def outcome(self, step: int) -> str:
        """Whether the goal is reached at a place of the grid, in words."""
        if self.found[step]:
            return "goal reached"
        return "misread, short of kappa" if self.lead[step] > 0 else "still read rightly"


@lru_cache(maxsize=15)
@torch.no_grad()
def trade(dataset: str, image: int, confidence: float = 0) -> Trade:
    """Minimize C&W's objective on LeNet at every c of `WEIGHTS`, all in one batch.

    Args:
        dataset: "digits" or "mnist".
        image: one of those that LeNet reads rightly, as `choices.well_read` lists them.
        confidence: kappa, at least 0, in units of the logits.
    Returns:
        the trade; the last fifteen are kept.
    Raises:
        ValueError: names the argument.
    """
    check_number("confidence", confidence, low=0)
    x, y, classes = well_read_image(dataset, image)
    victim = reference("lenet", dataset).eval()
    x_adv, found = minimize_at(
        *(victim, x.expand(len(WEIGHTS), -1, -1, -1), y.expand(len(WEIGHTS)), torch.tensor(WEIGHTS, dtype=x.dtype)),
        confidence=confidence,
        steps=STEPS,
        learning_rate=LEARNING_RATE,
    )
    logits = victim(torch.cat([x, x_adv]))
    return Trade(dataset, confidence, classes, int(y), x[0], WEIGHTS, x_adv, found, logits)


IMAGE = 1.96  # inches: 7 screen pixels for each of the image's 28
PLACES = {
    "original": (0.2, 3.05, IMAGE, IMAGE),
    "adversarial": (2.45, 3.05, IMAGE, IMAGE),
    "perturbation": (2.45, 0.4, IMAGE, IMAGE),
    "distance": (5.45, 3.05, 5.55, IMAGE),
    "lead": (5.45, 0.7, 5.55, 1.66),
}
REACHED = {"marker": MARKERS["adversarial"], "color": COLORS["adversarial"], "markersize": 10}
MISSED = {"marker": "o", "color": COLORS["baseline"], "markersize": 7, "fillstyle": "none"}


@lru_cache(maxsize=15)
def backdrop(trade: Trade) -> Backdrop:
    """What c does not change: the frames, and both curves."""
    fig, axes = panels(11.2, 5.4, **PLACES)
    with styled():
        for name in ("original", "adversarial", "perturbation"):
            frame(axes[name], "clean" if name == "original" else "adversarial", width=6)
            axes[name].set_title(name, loc="center")
        draw_curve(axes["distance"], trade, trade.distance)
        draw_curve(axes["lead"], trade, trade.lead)
        axes["distance"].set_title("distortion, L2")
        axes["distance"].set(xticklabels=[], ylim=(-0.06 * float(trade.distance.max()), None))
        axes["lead"].set_ylim(None, float(trade.lead.max()) + 2)
        axes["lead"].set_title("lead of the best wrong class, in logits")
        axes["lead"].set_xlabel("c, the weight of the margin")
        axes["lead"].axhline(trade.confidence, color="black", linewidth=1.2, linestyle="--", zorder=0)
        axes["lead"].annotate(
            f"kappa = {trade.confidence:g}",
            (WEIGHTS[0], trade.confidence),
            (0, -4),
            textcoords="offset points",
            va="top",
        )
        handles = [
            Line2D([], [], linestyle="", label=label, **look)
            for label, look in (("goal reached", REACHED), ("not reached", MISSED))
        ]
        axes["distance"].legend(handles=handles, loc="upper left")
    return Backdrop.of(fig, axes)


def draw_curve(ax: Axes, trade: Trade, values: Tensor) -> None:
    """A value against c; a marker tells where the goal is reached."""
    ax.plot(trade.c, values, color=COLORS["baseline"], linewidth=1.5, zorder=1)
    for hit, look in ((True, REACHED), (False, MISSED)):
        rows = (trade.found == hit).nonzero()[:, 0]
        ax.plot([trade.c[row] for row in rows], values[rows], linestyle="", **look)
    ax.set(xscale="log", xlim=(trade.c[0] / 1.4, trade.c[-1] * 1.4))
    decades = [0.001, 0.01, 0.1, 1, 10, 100]
    ax.set_xticks(decades, [f"{c:g}" for c in decades])
    ax.minorticks_off()


def render(trade: Trade, c: float) -> Figure:
    """One image and its minimizer at one c, and where on the curves it is.

    Args:
        trade: the minimizers.
        c: one of its weights.
    Returns:
        the figure. Its parts have names (gid): the images "original", "adversarial" and "perturbation", what is said
        under them "says original" and so on, the points on the curves "present distance" and "present lead", and the
        words "outcome".
    Raises:
        ValueError: names the argument.
    """
    step = step_of(trade, c)
    change, _, magnification = magnified(trade.x_adv[step] - trade.x)
    drawn = {
        "original": (image_colors(trade.x), trade.says()),
        "adversarial": (image_colors(trade.x_adv[step]), trade.says(step)),
        "perturbation": (mpl.colormaps[DIVERGING]((1 + change) / 2, bytes=True), magnification),
    }
    behind = backdrop(trade)
    distance, lead = float(trade.distance[step]), float(trade.lead[step])
    with styled():
        fig = behind.picture()
        role, _ = outcome(lead > 0)
        behind.lay_frame(fig, "adversarial", role)
        for name, (pixels, words) in drawn.items():
            behind.lay_image(fig, name, pixels, gid=name)
            place = behind.axes[name].transAxes
            fig.text(0.5, -0.05, words, transform=place, ha="center", va="top", fontsize=15, gid=f"says {name}")
        for name, value in (("distance", distance), ("lead", lead)):
            draw_present(fig, behind.axes[name], name, c, value)
        place = behind.axes["perturbation"].transAxes
        numbers = f"c = {c:g}\nL2 = {distance:.2f}\nlead = {lead:.1f}"
        fig.text(-1.15, 0.97, numbers, transform=place, va="top", fontsize=15, linespacing=1.5, gid="numbers")
        look = {"va": "top", "fontsize": 15, "weight": "bold", "color": COLORS[role]}
        words = trade.outcome(step).replace(", ", ",\n")
        fig.text(-1.15, 0.3, words, transform=place, gid="outcome", **look)
    return fig


def draw_present(fig: Figure, ax: Axes, name: str, c: float, value: float) -> None:
    """The present c on a curve: a line through the panel, and a ring around the point."""
    low, high = ax.get_ylim()
    line = Line2D([c, c], [low, high], color="black", linewidth=1.5, transform=ax.transData)
    ring = Line2D([c], [value], color="black", marker="o", markersize=15, fillstyle="none", gid=f"present {name}")
    ring.set(transform=ax.transData, markeredgewidth=2)
    fig.add_artist(line)
    fig.add_artist(ring)


def step_of(trade: Trade, c: float) -> int:
    """Where `c` is on the grid, after a check."""
    if c not in trade.c:
        raise ValueError(f"c is {c!r}; accepted: a weight of the grid, {trade.c[0]:g} to {trade.c[-1]:g}")
    return trade.c.index(c)


def verdict(trade: Trade, c: float) -> str:
    """In words: what this c does, and which c does it with the least change."""
    step = step_of(trade, c)
    distance, lead = float(trade.distance[step]), float(trade.lead[step])
    if trade.found[step]:
        happened = (
            f"At c = {c:g} the goal is reached: the wrong class leads by {lead:.1f} logits, at L2 {distance:.2f}."
        )
    elif lead > 0:
        happened = f"At c = {c:g} the image is misread, but the lead of {lead:.1f} logits falls short of kappa."
    else:
        happened = f"At c = {c:g} the true class still leads by {-lead:.1f} logits: the distance outweighs f."
    if trade.nearest is None:
        return f"{happened} No c of the grid reaches the goal."
    best, least = trade.c[trade.nearest], float(trade.distance[trade.nearest])
    if step == trade.nearest:
        hint = "No c of the grid does it with less change."
    elif c < best:
        hint = "Raise c." if not trade.found[step] else f"c = {best:g} does it at L2 {least:.2f}."
    else:
        hint = f"c = {best:g} does it at L2 {least:.2f}: a larger c cares less for the distance."
    return f"{happened} {hint}"


def describe(trade: Trade, c: float) -> str:
    """The picture for somebody who cannot see it."""
    step = step_of(trade, c)
    hits = [f"{value:g}" for value, hit in zip(trade.c, trade.found.tolist(), strict=True) if hit]
    reach = f"is reached at c = {', '.join(hits)}" if hits else "is never reached"
    return (
        f"LeNet on {trade.dataset}: of the original, a {trade.classes[trade.y]}, it says {trade.says()}; "
        f"of the minimizer at c = {c:g} it says {trade.says(step)}: {trade.outcome(step)}. "
        f"Two curves against c show the distortion, here {float(trade.distance[step]):.2f} in L2, and the lead of the "
        f"best wrong class, here {float(trade.lead[step]):.1f} logits; the goal, a lead of {trade.confidence}, {reach}."
    )


def cw_tradeoff(dataset: str | None = None) -> Explorable:
    """The explorable: move c, and watch Carlini and Wagner's attack trade distortion against confidence.

    Args:
        dataset: "digits" or "mnist"; None takes the one that `load()` takes.
    Returns:
        the widget.
    Raises:
        ValueError: names the argument.
    """
    dataset = starting_dataset(dataset)
    weights = [(f"{c:g}", c) for c in WEIGHTS]
    controls = {
        "image": widgets.Dropdown(description="image", options=well_read_options(dataset)),
        "confidence": widgets.Dropdown(description="kappa", options=CONFIDENCES),
        "c": widgets.SelectionSlider(description="c", options=weights, value=0.1),
    }

    def of_trade(show: Callable[[Trade, float], object]) -> Callable[..., object]:
        return lambda image, confidence, c: show(trade(dataset, image, confidence), c)

    return Explorable(
        of_trade(render),
        controls,
        alt=of_trade(describe),
        caption=of_trade(verdict),
        slow=("image", "confidence"),
    )
