"""The survey's attacks, defenses and private AI, drawn from a run of the measured survey."""

import math
from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from spai_lab.style import COLORS, MARKERS, SEQUENTIAL, panels, styled
from spai_lab.survey.ledger import OUTCOMES, Comparison
from spai_lab.survey.measured_dots import FONT, draw_dots, draw_gap, draw_legend, draw_source, largest, rows_of_lines
from spai_lab.survey.measured_private import PARTS, costs_of, epsilon_of
from spai_lab.survey.measured_rows import Line, lines_of
from spai_lab.survey.measured_tables import (
    AGAINST,
    KNOWS,
    attack_columns,
    clean,
    headed,
    proven,
    strongest,
    survival,
    surviving_all,
)
from spai_lab.survey.regions import shade
from spai_lab.survey.totals import ledger

TITLES = {
    "evasion": ("Evasion: images misread", "adversarial"),
    "poisoning": ("Poisoning: error added, targets turned", "poisoned"),
    "threats": ("Threats to privacy: what is found out", "private"),
}


def figure_attacks(measurement: dict) -> Figure:
    """Every attack of the survey as a dot on a scale from nothing to everything, with its 95 % interval and its value.

    An attack that seeks the least distortion stands at the share of images that it fools within the radius that its row
    names. A gray dot shows how far one comes without the attack, where that was measured.

    Args:
        measurement: as `run_survey` returns it.
    Returns:
        the figure; the file that it was made from stands at its bottom.
    Raises:
        ValueError: this is no measurement of the survey.

    Reference: Bae et al. 2018, arXiv 1807.11655.
    Survey: secure AI and private AI, attacks.
    """
    lines = {part: lines_of(measurement, part) for part in TITLES}
    rows = {part: rows_of_lines(found) for part, found in lines.items()}
    width, pitch, head, foot, apart = 17.6, 0.355, 0.6, 0.95, 1.15
    upper, lower = (len(rows[part]) * pitch for part in ("poisoning", "threats"))
    tall = upper + apart + lower
    height = tall + head + foot
    fig, axes = panels(
        width,
        height,
        evasion=(2.75, foot, 4.4, tall),
        poisoning=(12.0, foot + tall - upper, 4.1, upper),
        threats=(12.0, foot, 4.1, lower),
    )
    with styled():
        for part, (title, role) in TITLES.items():
            draw_dots(axes[part], rows[part], role)
            draw_title(fig, axes[part], title, role)
        draw_legend(fig, [line for found in lines.values() for line in found], (0.5, 0.1 / height))
        draw_source(fig, measurement)
    return fig


def draw_title(fig: Figure, ax: Axes, title: str, role: str, above: float = 0.18, reach: float = 2.7) -> None:
    """A title in the color of a role, so many inches above the axes and to their left, where their labels begin."""
    place, height = ax.get_position(), fig.get_figheight()
    left = place.x0 - reach / fig.get_figwidth()
    look = {"fontsize": 18, "weight": "bold", "color": shade(COLORS[role], "black", 0.32)}
    fig.text(max(left, 0.006), place.y1 + above / height, title, **look)


def figure_defenses(measurement: dict) -> Figure:
    """Every defense against the attacks as a heatmap of what survives, the number in every cell.

    Each defense stands there with its largest data set. A frame marks the strongest attack, ◆ one that knows the
    defense; a gray cell says that the attack was not run. The bounds of the attacks differ between rows: L2 says where
    they are in L2, all others are in L-inf.

    Args:
        measurement: as `run_survey` returns it.
    Returns:
        the figure; the file that it was made from stands at its bottom.
    Raises:
        ValueError: this is no measurement of the survey.

    Reference: Bae et al. 2018, arXiv 1807.11655.
    Survey: secure AI, defenses.
    """
    lines = {name: [largest(row) for row in rows_of_lines(lines_of(measurement, AGAINST[name]))] for name in AGAINST}
    heads = {name: columns_of(found) for name, found in lines.items()}
    width, left, pitch, head = 17.0, 3.95, 0.36, 1.75
    cells = width - left - 1.0
    tall = {name: pitch * len(found) for name, found in lines.items()}
    height = sum(tall.values()) + 2 * head + 0.4
    places = {
        "evasion": (left, height - head - tall["evasion"], cells, tall["evasion"]),
        "poisoning": (left, 0.4, cells, tall["poisoning"]),
    }
    fig, axes = panels(width, height, **places)
    with styled():
        for name, found in lines.items():
            small = all(line.data in ("", "digits only") for line in found)
            draw_matrix(axes[name], found, heads[name], [labelled(line, small) for line in found])
            title = f"Defenses against {name}{', on digits' if small else ''}: what survives, in %"
            draw_title(fig, axes[name], title, "defended", 1.3, left)
        draw_source(fig, measurement)
    return fig


def columns_of(lines: Sequence[Line]) -> list[str]:
    """The columns of a heatmap: clean, the attacks, all of them, and what is proven where anything is."""
    last = ["proven"] if any(proven(line) is not None for line in lines) else []
    return ["clean", *attack_columns(lines), "all attacks", *last]


def cells_of(line: Line, columns: Sequence[str]) -> list[float]:
    """The shares of a line, NaN where there is none."""
    known = {"clean": clean(line), **survival(line), "all attacks": surviving_all(line), "proven": proven(line)}
    return [math.nan if known.get(name) is None else known[name] for name in columns]


def draw_matrix(ax: Axes, lines: Sequence[Line], columns: Sequence[str], labels: Sequence[str]) -> None:
    """A heatmap of what survives, with the strongest attack of each row framed."""
    values = np.array([cells_of(line, columns) for line in lines])
    numbers = [["" if math.isnan(value) else f"{100 * value:.0f}" for value in row] for row in values]
    ax.set_facecolor("#eeeeee")
    sns.heatmap(
        values, ax=ax, annot=numbers, fmt="", annot_kws={"fontsize": FONT}, vmin=0, vmax=1, cmap=SEQUENTIAL,
        xticklabels=list(map(headed, columns)), yticklabels=labels, cbar=False,
        linewidths=1.5,
    )  # fmt: skip
    ax.tick_params(axis="both", length=0, labelsize=FONT)
    ax.tick_params(axis="x", labeltop=True, labelbottom=False)
    for label in ax.get_xticklabels():
        label.set(rotation=28, ha="left", rotation_mode="anchor")
    for label in ax.get_yticklabels():
        label.set(rotation=0)
    for place in (1, columns.index("all attacks"), columns.index("all attacks") + 1):
        ax.axvline(place, color="white", linewidth=7)
    for height, line in enumerate(lines):
        name = strongest(line).removesuffix(f" {KNOWS}")
        if name:
            edge = {
                "fill": False,
                "edgecolor": COLORS["adversarial"],
                "linewidth": 3.5,
                "gid": f"{line.row.id} strongest",
            }
            ax.add_patch(Rectangle((columns.index(name) + 0.04, height + 0.06), 0.92, 0.88, zorder=5, **edge))
        if line.headline is None:
            draw_gap(ax, line, height + 0.5, 0.1)


def labelled(line: Line, small: bool) -> str:
    """A defense's name, with the norm of its attacks where that is not L-inf, and its data if it alone has digits."""
    notes = ["L2"] if line.headline is not None and " in L2" in line.headline.setup else []
    notes += ["digits"] if line.data == "digits only" and not small else []
    return f"{line.name} ({', '.join(notes)})" if notes else line.name


def figure_private_ai(measurement: dict, comparisons: Sequence[Comparison] | None = None) -> Figure:
    """Private AI: left what each method comes to and costs, right how that compares with what others published.

    Left, methods of differential privacy stand at their accuracy, with epsilon; protocols at their accuracy or their
    agreement with the plain computation, with time and bytes; building blocks have only these. Right, each mark is
    ours divided by theirs, on a log scale, whatever the unit.

    Args:
        measurement: as `run_survey` returns it.
        comparisons: published figures beside ours; the whole ledger if None.
    Returns:
        the figure; the file that it was made from stands at its bottom.
    Raises:
        ValueError: this is no measurement of the survey.

    Reference: Bae et al. 2018, arXiv 1807.11655.
    Survey: private AI, differential privacy and cryptography.
    """
    lines = {part: lines_of(measurement, part) for part in PARTS}
    ids = {line.row.id for found in lines.values() for line in found}
    published = [each for each in (ledger() if comparisons is None else comparisons) if each.figure["row"] in ids]
    rows = {part: rows_of_lines(found) for part, found in lines.items()}
    width, pitch, head, foot, apart = 19.3, 0.36, 0.6, 0.95, 1.15
    count = sum(map(len, rows.values()))
    tall = max(count * pitch + apart, (len(published) + 1) * pitch)
    upper, lower = (len(rows[part]) * (tall - apart) / count for part in PARTS)
    height = tall + head + foot
    fig, axes = panels(
        width,
        height,
        **{PARTS[0]: (2.75, foot + tall - upper, 3.0, upper), PARTS[1]: (2.75, foot, 3.0, lower)},
        published=(13.2, foot, 2.7, tall),
    )
    titles = {PARTS[0]: "Differential privacy: accuracy", PARTS[1]: "Cryptography: accuracy, time, bytes"}
    with styled():
        for part, title in titles.items():
            draw_dots(axes[part], rows[part], "private", beside)
            draw_title(fig, axes[part], title, "private")
        draw_ratios(axes["published"], published)
        draw_title(fig, axes["published"], "Measured / published", "private")
        draw_legend(fig, [line for found in lines.values() for line in found], (0.25, 0.1 / height))
        met = [name for name in OUTCOMES if name in {each.outcome for each in published}]
        handles = [Line2D([], [], label=name, **ratio_look(name)) for name in met]
        fig.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.75, 0.1 / height), ncols=4, fontsize=FONT)
        draw_source(fig, measurement)
    return fig


def beside(line: Line) -> str:
    """The number of a method of private AI, with its epsilon, or its time and bytes."""
    budget, spent = epsilon_of(line.headline), costs_of(line)
    epsilon = "" if budget is None or line.headline.unit == "epsilon" else f"epsilon {budget:,g}"
    number = "" if line.headline.unit == "s" and spent else line.result
    return ", ".join(part for part in (number, epsilon, spent) if part)


def draw_ratios(ax: Axes, comparisons: Sequence[Comparison]) -> None:
    """Ours divided by what others published, a row for each figure, both numbers to the right."""
    ratios = [each.value / each.figure["value"] if each.figure["value"] else math.nan for each in comparisons]
    reach = max([2.0, *(max(ratio, 1 / ratio) for ratio in ratios if ratio > 0)]) * 1.4
    ax.set(xscale="log", xlim=(1 / reach, reach), ylim=(len(comparisons) - 0.5, -0.5))
    ax.axvline(1, color=COLORS["baseline"], linewidth=2)
    ax.grid(axis="x", color=COLORS["baseline"], alpha=0.3)
    ax.xaxis.set_major_locator(
        ticker.FixedLocator([tick for tick in (0.01, 0.1, 1, 10, 100) if 1 / reach < tick < reach])
    )
    ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda ratio, _: f"{ratio:g} ×"))
    ax.minorticks_off()
    ax.tick_params(axis="x", labelsize=13)
    ax.tick_params(axis="y", length=0)
    ax.set_yticks(range(len(comparisons)), [each.figure["id"] for each in comparisons], fontsize=14)
    for height, (each, ratio) in enumerate(zip(comparisons, ratios, strict=True)):
        ax.plot([1, ratio], [height] * 2, color=COLORS["private"], linewidth=1.8, alpha=0.6)
        ax.plot(ratio, height, gid=each.figure["id"], **ratio_look(each.outcome))
        words = f"{each.shown(each.value)} / {each.shown(each.figure['value'])}"
        ax.text(1.03, height, words, transform=ax.get_yaxis_transform(), fontsize=14, va="center")


def ratio_look(outcome: str) -> dict[str, object]:
    """How a comparison looks: filled where it reproduces, crossed where it deviates, hollow where none is due."""
    marks = {"reproduced": MARKERS["private"], "deviates": MARKERS["adversarial"], "not comparable": "D", "none": "o"}
    color = COLORS["adversarial" if outcome == "deviates" else "private"]
    hollow = {} if outcome in ("reproduced", "deviates") else {"markerfacecolor": "white"}
    return {"marker": marks[outcome], "color": color, "markersize": 10, "markeredgewidth": 2, "linestyle": ""} | hollow
