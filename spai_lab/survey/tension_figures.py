"""What hardening costs, drawn from measured tensions: accuracy on clean images, and what the loss tells of members."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spai_lab.style import COLORS, MARKERS, panels, styled
from spai_lab.survey.headline_rows import shared_out
from spai_lab.survey.measure import rows_of_kind
from spai_lab.survey.measured_words import Words

GRAYS = ("#222222", "#666666", "#999999")


def series(measurement: dict, value: Callable[[dict], float | None]) -> dict[float, list[float]]:
    """By the eps of the training, a value of each repetition; without rows that do not have it.

    >>> series({"rows": [{"kind": "hardened", "eps": 0.1, "test": [3, 4]}]}, lambda row: row["test"][0])
    {0.1: [3]}
    """
    found: dict[float, list[float]] = {}
    for row in sorted(hardened(measurement), key=lambda row: row["eps"]):
        if (number := value(row)) is not None:
            found.setdefault(row["eps"], []).append(number)
    return found


def hardened(measurement: dict) -> list[dict]:
    """The rows of models on few images."""
    return rows_of_kind(measurement, "hardened")


def clean(row: dict) -> float:
    """The accuracy on test images as they are."""
    return shared_out(row["test"])


def area(row: dict, *, attacked: bool) -> float | None:
    """The area of the attack by the loss on each image, or on each image attacked within the eps of the training."""
    eps = row["eps"] if attacked else 0.0
    return None if attacked and not eps else row["leaks"][f"{eps:g}"]["area"]


def share_of_counts(counts: Sequence[int]) -> str:
    """Hits of trials for a table.

    >>> share_of_counts([3, 4])
    '75.0 % (n = 4)'
    """
    return f"{100 * shared_out(counts):.1f} % (n = {counts[1]:,})"


def members_found(measurement: dict) -> list[int]:
    """How many members the loss finds at few false alarms, of how many, over all models and both kinds of loss."""
    counts = [leak["caught"] for row in hardened(measurement) for leak in row["leaks"].values()]
    return [sum(column) for column in zip(*counts, strict=True)]


def draw_series(ax: Axes, values: dict[float, Sequence[float]], label: str, **look: object) -> None:
    """A line through the means, a dot for each repetition."""
    ax.plot(list(values), [np.mean(each) for each in values.values()], label=label, **look)
    dots = [(eps, number) for eps, each in values.items() for number in each]
    ax.plot(*zip(*dots, strict=True), ".", color=look["color"], markersize=7, alpha=0.6)


def name_at_end(ax: Axes) -> None:
    """The name of each line at its right end, in its color."""
    for line in ax.get_lines():
        if not line.get_label().startswith("_"):
            (*_, x), (*_, y) = line.get_data()
            look = {"color": line.get_color(), "va": "center", "fontsize": 14, "textcoords": "offset points"}
            ax.annotate(line.get_label(), (x, y), (12, 0), **look)


def figure_tensions(measurement: dict) -> Figure:
    """Left what is right, clean and under attack, right how well the loss tells members, by the eps of the training.

    Args:
        measurement: as `measure_tensions` returns it.
    Returns:
        the figure; a dot is one training, a line goes through the means.
    Reference: Tsipras et al. 2018, arXiv 1805.12152; Song, Shokri and Mittal 2019, arXiv 1905.10291.
    Survey: open problems.
    """
    fig, axes = panels(14.6, 4.6, accuracy=(0.95, 0.8, 4.4, 3.3), leak=(8.0, 0.8, 4.2, 3.3))
    with styled():
        left, right = axes["accuracy"], axes["leak"]
        draw_series(left, series(measurement, clean), "clean", color=COLORS["clean"], marker=MARKERS["clean"])
        for tested, gray in zip(radii_tried(measurement), GRAYS, strict=False):
            left_under = series(measurement, lambda row, tested=tested: shared_out(row["under attack"][tested]))
            look = {"color": gray, "marker": MARKERS["adversarial"], "linestyle": "--"}
            draw_series(left, left_under, f"attacked, eps {tested}", **look)
        look = {"color": COLORS["private"], "marker": MARKERS["private"]}
        draw_series(right, series(measurement, lambda row: area(row, attacked=False)), "loss on\nthe image", **look)
        attacked = series(measurement, lambda row: area(row, attacked=True))
        look = {"color": COLORS["adversarial"], "marker": MARKERS["adversarial"]}
        draw_series(right, attacked, "loss on the\nattacked image", **look)
        right.axhline(0.5, color=COLORS["baseline"], linestyle="--")
        right.text(0, 0.503, "guessing", color="#555555", va="bottom", fontsize=14)
        left.set(title="Test images read rightly", ylim=(-0.03, 1.03))
        left.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
        right.set(title="Members told from others", ylabel="area under the curve")
        for ax in (left, right):
            ax.set(xlabel="eps of the training, L-inf (0: plain training)", xticks=list(series(measurement, clean)))
            name_at_end(ax)
    return fig


def radii_tried(measurement: dict) -> list[str]:
    """The radii at which the models were attacked."""
    return list(hardened(measurement)[0]["under attack"])


def tensions_in_words(measurement: dict) -> Words:
    """Caption and alt text of `figure_tensions`, computed."""
    row = hardened(measurement)[0]
    members, images = row["members"], row["test"][1]
    runs = len({row["repetition"] for row in hardened(measurement)})
    accuracy, leak = series(measurement, clean), series(measurement, lambda row: area(row, attacked=False))
    attacked = series(measurement, lambda row: area(row, attacked=True))
    first, *_, last = accuracy

    def mean(values: dict[float, list[float]], eps: float) -> float:
        return float(np.mean(values[eps]))

    worst, best = (max(each, key=partial(mean, each)) for each in (attacked, accuracy))
    caption = (
        f"A LeNet on {members} MNIST images, {runs} trainings for each eps, all else alike. From eps {first:g} to "
        f"{last:g} the accuracy on {images} clean test images goes from {100 * mean(accuracy, first):.1f} to "
        f"{100 * mean(accuracy, last):.1f} %, and is highest at {best:g}. "
        f"The attack by the loss has an area of {mean(leak, first):.2f} on the plain model, and its largest, "
        f"{mean(attacked, worst):.2f}, on attacked images at eps {worst:g}."
    )
    told = "; ".join(
        f"eps {eps:g}: {100 * mean(accuracy, eps):.1f} % clean, area {mean(leak, eps):.2f}"
        + (f", {mean(attacked, eps):.2f} on attacked images" if eps in attacked else "")
        for eps in accuracy
    )
    return Words(caption, f"Two panels of lines against the eps of the training. {told}.")
