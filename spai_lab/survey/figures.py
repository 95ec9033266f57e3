"""The survey's figures, redrawn by code: a model's life, and what an attacker sees of a model."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import BoxStyle, Circle, FancyBboxPatch, Rectangle
from sklearn.svm import SVC
from torch import Tensor, nn

from spai_lab.attacks.evasion import pgd
from spai_lab.checks import check_count, check_number
from spai_lab.data import Dataset
from spai_lab.style import COLORS, MARKERS, figure, styled
from spai_lab.survey.regions import shade, short_name
from spai_lab.survey.taxonomy import Row, load_taxonomy
from spai_lab.threat import fooled, fresh_generator, input_gradient, recording, steepest

STAGES = ("training data", "training", "model", "inference", "answer")


@dataclass(frozen=True)
class Strike:
    """One arrow of `figure_phases`: where it points, what it is called, its color, and the rows that it stands for."""

    stage: str
    title: str
    role: str
    holds: Callable[[Row], bool]


STRIKES = (
    Strike("training data", "Poisoning", "poisoned", lambda row: row.shape == "poisoning_attack"),
    Strike("training", "Collaboration leaks", "private", lambda row: row.class_ == "leak in collaboration"),
    Strike("model", "Backdoored models", "poisoned", lambda row: row.shape == "model_attack"),
    Strike("inference", "Evasion", "adversarial", lambda row: row.part == "evasion"),
    Strike(
        "answer",
        "Threats to privacy",
        "private",
        lambda row: row.part == "threats" and row.class_ != "leak in collaboration",
    ),
)

DEFENSES = (
    Strike("training data", "Data sanitization", "defended", lambda row: row.class_ == "data sanitization"),
    Strike(
        "training",
        "Robust training",
        "defended",
        lambda row: row.class_ in ("robustness", "certified", "insensitive training"),
    ),
    Strike(
        "training",
        "Private training",
        "private",
        lambda row: row.class_ in ("private training", "collaborative learning"),
    ),
    Strike("model", "Model repair", "defended", lambda row: row.class_ == "model repair"),
    Strike(
        "inference",
        "Masking, detection",
        "defended",
        lambda row: row.class_ in ("gradient masking", "detection"),
    ),
    Strike(
        "inference",
        "Cryptography",
        "private",
        lambda row: row.part == "cryptography" and row.class_ != "collaborative learning",
    ),
    Strike(
        "answer",
        "Noise, accounting",
        "private",
        lambda row: row.part == "differential privacy" and row.class_ != "private training",
    ),
)


def figure_phases(rows: Sequence[Row] | None = None) -> Figure:
    """A model's life from data to answer: above, where each attack strikes; below, what the defender does there.

    Args:
        rows: the taxonomy; the project's if None.
    Returns:
        the figure.

    Reference: Bae et al. 2018, arXiv 1807.11655.
    Survey: attacks in the training and in the inference phase.
    """
    rows = load_taxonomy() if rows is None else rows
    fig, axes = figure(WIDTH, HEIGHT)
    fig.set_layout_engine("none")
    ax = axes[0, 0]
    ax.set(position=(0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, HEIGHT))
    ax.axis("off")
    _draw_life(ax)
    for strike in STRIKES:
        callout = _callout(strike, rows)
        x, bottom = CENTERS[strike.stage], BOX_TOP + ARROW
        _draw_callout(ax, callout, x, bottom + callout.height)
        _draw_arrow(ax, x, bottom, BOX_TOP + 0.05, strike.role)
    for stage, center in CENTERS.items():
        measures = [_callout(strike, rows) for strike in DEFENSES if strike.stage == stage]
        top = BOX_BOTTOM - ARROW
        for callout, x in zip(measures, _side_by_side(center, len(measures)), strict=True):
            _draw_callout(ax, callout, center, top)
            _draw_arrow(ax, x, top, BOX_BOTTOM - 0.05, callout.role)
            top -= callout.height + 0.25
    return fig


def figure_knowledge(
    dataset: Dataset,
    model: nn.Module,
    *,
    eps: float = 0.15,
    index: int | None = None,
    queries: int = 150,
    generator: torch.Generator | None = None,
) -> Figure:
    """One model, seen by two attackers: left with its loss and gradients, right with its answers alone.

    White-box: the loss, the direction in which it rises, and the path of an L2 `pgd` inside the ball around one test
    point. Black-box: the same point, the answers to random queries, the boundary that a surrogate trained on the
    answers suggests, and the closest query whose answer differs.

    Args:
        dataset: points in the unit square, `(N, 2, 1, 1)`, in two classes.
        model: `(N, 2, 1, 1)` in [0, 1] to logits `(N, 2)`.
        eps: radius of the L2 ball, in units of the square.
        index: the test point under attack; None takes the most certain one that `pgd` fools, if there is one.
        queries: how often the black-box attacker may ask.
        generator: draws the queries; None draws a fresh one.
    Returns:
        the figure.
    Raises:
        ValueError: data without two coordinates and two classes, an index that is not there, a number out of its range.

    Reference: Bae et al. 2018, arXiv 1807.11655.
    Survey: white-box and black-box attacks.
    """
    if dataset.shape != (2, 1, 1) or len(dataset.classes) != 2:
        raise ValueError(
            f"dataset has shape {tuple(dataset.shape)} and {len(dataset.classes)} classes; accepted: (2, 1, 1) and 2"
        )
    check_number("eps", eps, low=0, exclusive=True)
    check_count("queries", queries, low=2)
    index = _most_certain_fooled(dataset, model, eps) if index is None else index
    if not 0 <= index < len(dataset.x_test):
        raise ValueError(f"index is {index}; accepted: 0 to {len(dataset.x_test) - 1}")
    x, y = dataset.x_test[index : index + 1], dataset.y_test[index : index + 1]
    asked = torch.rand(queries, 2, 1, 1, generator=fresh_generator(generator, x.device))

    fig, axes = figure(12, 6.4, columns=2)
    fig.get_layout_engine().set(rect=(0, 0, 1, 0.97))  # its titles stand above what the layout measures
    with styled():
        _draw_white_box(axes[0, 0], model, x, y, eps)
        _draw_black_box(axes[0, 1], model, x, y, eps, asked)
        for ax in axes.flat:
            ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
            ax.add_patch(Circle(_points(x)[0], eps, fill=False, linewidth=2, linestyle="--", color="#333333", zorder=4))
            ax.plot(
                *_points(x).T, MARKERS["clean"], color=COLORS["clean"], markersize=13, mec="white", zorder=6, label="x"
            )
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, handletextpad=0.4, columnspacing=1.2)
    return fig


WIDTH, HEIGHT, LEFT, PITCH = 12.6, 7.6, 0.5, 2.42
CENTERS = {stage: LEFT + PITCH * (index + 0.5) for index, stage in enumerate(STAGES)}
BOX_BOTTOM, BOX_TOP, ARROW = 3.9, 4.7, 0.55
PHASES = {"training phase": ("training data", "training"), "inference phase": ("inference", "answer")}
ROUND = BoxStyle("round", pad=0, rounding_size=0.1)
MOST = 3
INK = "#333333"


@dataclass(frozen=True)
class _Callout:
    title: str
    role: str
    text: str

    @property
    def height(self) -> float:
        return 0.56 + 0.225 * (1 + self.text.count("\n"))


def _callout(strike: Strike, rows: Sequence[Row]) -> _Callout:
    methods = [row for row in rows if strike.holds(row)]
    lines = [textwrap.fill(short_name(row), 24, subsequent_indent="   ") for row in _varied(methods)[:MOST]]
    if len(methods) > MOST:
        lines.append(f"and {len(methods) - MOST} more")
    return _Callout(strike.title, strike.role, "\n".join(lines))


def _draw_life(ax: Axes) -> None:
    for phase, stages in PHASES.items():
        left, right = CENTERS[stages[0]] - PITCH / 2 + 0.03, CENTERS[stages[-1]] + PITCH / 2 - 0.03
        ax.add_patch(Rectangle((left, 0), right - left, HEIGHT, facecolor="#f3f3f3", edgecolor="none", zorder=0))
        ax.text((left + right) / 2, HEIGHT - 0.3, phase, fontsize=18, weight="bold", ha="center", va="center")
    for label, y in (("attacks", BOX_TOP + 1.4), ("defenses", BOX_BOTTOM - 1.4)):
        ax.text(0.26, y, label, rotation=90, fontsize=18, weight="bold", ha="center", va="center")
    middle = (BOX_BOTTOM + BOX_TOP) / 2
    for stage, center in CENTERS.items():
        ax.add_patch(FancyBboxPatch((center - 0.95, BOX_BOTTOM), 1.9, BOX_TOP - BOX_BOTTOM, boxstyle=ROUND, color=INK))
        ax.text(center, middle, stage, color="white", fontsize=15.5, weight="bold", ha="center", va="center")
        if stage != STAGES[-1]:
            draw_line(ax, (center + 0.97, middle), (center + PITCH - 0.97, middle), INK)


def _draw_callout(ax: Axes, callout: _Callout, center: float, top: float) -> None:
    left, bottom = center - 1.14, top - callout.height
    box = FancyBboxPatch(
        (left, bottom), 2.28, callout.height, boxstyle=ROUND, facecolor="white", linewidth=2.2, zorder=4
    )
    box.set_edgecolor(COLORS[callout.role])
    ax.add_patch(box)
    ax.plot(left + 0.16, top - 0.24, MARKERS[callout.role], color=COLORS[callout.role], markersize=9, zorder=5)
    ink = shade(COLORS[callout.role], "black", 0.32)
    ax.text(left + 0.3, top - 0.24, callout.title, fontsize=12, weight="bold", va="center", color=ink, zorder=5)
    ax.text(left + 0.1, top - 0.43, callout.text, fontsize=11.5, va="top", linespacing=1.35, zorder=5)


def _draw_arrow(ax: Axes, x: float, start: float, end: float, role: str) -> None:
    draw_line(ax, (x, start), (x, end), COLORS[role])


def draw_line(ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    look = {"arrowstyle": "-|>", "color": color, "linewidth": 3.2, "mutation_scale": 24, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", xy=end, xytext=start, arrowprops=look, zorder=2)


def _side_by_side(center: float, count: int) -> list[float]:
    return [center + 0.9 * (index - (count - 1) / 2) for index in range(count)]


def _varied(rows: Sequence[Row]) -> list[Row]:
    """Rows so ordered that the first of every class lead, those that run today before the others."""
    seen: dict[str, int] = {}
    turns = []
    for row in sorted(rows, key=lambda row: not row.runnable):
        seen[row.class_] = seen.get(row.class_, -1) + 1
        turns.append((seen[row.class_], row))
    return [row for _, row in sorted(turns, key=lambda turn: turn[0])]


def _most_certain_fooled(dataset: Dataset, model: nn.Module, eps: float) -> int:
    x, y = dataset.x_test, dataset.y_test
    with torch.no_grad():
        certainty = torch.softmax(model(x), dim=1).gather(1, y[:, None])[:, 0]
    x_adv = pgd(model, x, y, eps=eps, norm="l2", random_start=False)
    reachable = fooled(model, x_adv, y) & (certainty > 0.5)
    return int(torch.where(reachable, certainty, certainty - 1).argmax())


def _draw_white_box(ax: Axes, model: nn.Module, x: Tensor, y: Tensor, eps: float) -> None:
    grid, side = _grid(120)
    with torch.no_grad():
        logits = model(grid)
    loss = nn.functional.cross_entropy(logits, y.expand(len(grid)), reduction="none")
    ticks = np.linspace(0, 1, side)
    shades = ax.contourf(ticks, ticks, loss.reshape(side, side).clamp(max=8), levels=24, cmap="Greys", alpha=0.75)
    ax.figure.colorbar(shades, ax=ax, label="loss of the true label", shrink=0.82, ticks=range(0, 9, 2))
    ax.contour(
        ticks, ticks, (logits[:, 1] - logits[:, 0]).reshape(side, side), levels=[0], colors="black", linewidths=2.5
    )

    coarse, _ = _grid(13)
    direction = input_gradient(model, coarse, y.expand(len(coarse)))
    direction = _points(steepest(direction, "l2"))
    ax.quiver(*_points(coarse).T, *direction.T, color=COLORS["adversarial"], alpha=0.55, scale=28, width=0.004)

    path: list[Tensor] = []
    x_adv = pgd(model, x, y, eps=eps, norm="l2", steps=10, random_start=False, gradient=recording(path))
    walked = _points(torch.cat([*path, x_adv]))
    ax.plot(*walked.T, "-", color=COLORS["adversarial"], linewidth=3, zorder=5)
    ax.plot(*walked[1:-1].T, "o", color=COLORS["adversarial"], markersize=5, zorder=5)
    _draw_point(ax, walked[-1], "adversarial", "after pgd")
    ax.plot([], [], color="black", linewidth=2.5, label="decision boundary")
    ax.set_title("White-box: the loss, its gradient, a path uphill")


def _draw_black_box(ax: Axes, model: nn.Module, x: Tensor, y: Tensor, eps: float, asked: Tensor) -> None:
    with torch.no_grad():
        answers = model(asked).argmax(1)
    same = answers == y
    points = _points(asked)
    for role, chosen, label in (("clean", same, "same answer as x"), ("adversarial", ~same, "another answer")):
        ax.plot(*points[chosen].T, MARKERS[role], color=COLORS[role], alpha=0.55, markersize=7, label=label)
    if same.any() and not same.all():
        grid, side = _grid(120)
        ticks = np.linspace(0, 1, side)
        surrogate = SVC(gamma="scale").fit(points, same).decision_function(_points(grid)).reshape(side, side)
        ax.contour(ticks, ticks, surrogate, levels=[0], colors="black", linewidths=2.5, linestyles=":")
        ax.plot([], [], ":", color="black", linewidth=2.5, label="surrogate's boundary")
        distances = (asked - x).flatten(1).norm(dim=1).where(~same, torch.inf)
        closest = int(distances.argmin())
        step = np.stack([_points(x)[0], points[closest]])
        ax.plot(*step.T, "-", color=COLORS["adversarial"], linewidth=3, zorder=5)
        where = "inside" if distances[closest] <= eps else "outside"
        _draw_point(ax, points[closest], "adversarial", f"closest of them, {where} the ball")
    ax.set_title(f"Black-box: {len(asked)} answers, and a guess")


def _draw_point(ax: Axes, point: np.ndarray, role: str, label: str) -> None:
    look = {"color": COLORS[role], "markersize": 14, "markeredgecolor": "white", "linestyle": "none"}
    ax.plot(*point, marker=MARKERS[role], zorder=7, label=label, **look)


def _grid(side: int) -> tuple[Tensor, int]:
    ticks = torch.linspace(0, 1, side)
    down, across = torch.meshgrid(ticks, ticks, indexing="ij")
    return torch.stack([across, down], dim=-1).reshape(-1, 2, 1, 1), side


def _points(x: Tensor) -> np.ndarray:
    return x.detach().flatten(1).numpy()
