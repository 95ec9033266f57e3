"""The survey's attacks, defenses and private AI, drawn from a run of the measured survey."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spai_lab.checks import check_choice
from spai_lab.style import panels, styled
from spai_lab.survey.ledger import Comparison
from spai_lab.survey.measured_block import Block
from spai_lab.survey.measured_dots import (
    FONT,
    PITCH,
    WIDTH,
    draw_dots,
    draw_legend,
    draw_source,
    draw_title,
    largest,
    rows_of_lines,
)
from spai_lab.survey.measured_matrix import draw_matrix, labels_of, setting_of
from spai_lab.survey.measured_private import PARTS
from spai_lab.survey.measured_published import LOOKS, published_of, ratio_look
from spai_lab.survey.measured_rows import lines_of
from spai_lab.survey.measured_survival import AGAINST

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
    pitch, head, foot, apart = 0.315, 0.6, 1.15, 1.0
    upper, lower = (len(rows[part]) * pitch for part in ("poisoning", "threats"))
    tall = upper + apart + lower
    height = tall + head + foot
    fig, axes = panels(
        WIDTH,
        height,
        evasion=(2.38, foot, 1.45, tall),
        poisoning=(9.55, foot + tall - upper, 1.4, upper),
        threats=(9.55, foot, 1.4, lower),
    )
    roles = [role for _, role in TITLES.values()]
    with styled():
        for part, (title, role) in TITLES.items():
            draw_dots(axes[part], rows[part], role)
            draw_title(fig, axes[part], title, role, reach=2.38 if part == "evasion" else 3.2)
        draw_legend(fig, [line for found in lines.values() for line in found], (0.5, 0.25 / height), roles)
        draw_source(fig, measurement)
    return fig


def figure_defenses(measurement: dict, against: str | None = None) -> Figure:
    """Every defense against the attacks as a heatmap of what survives, the number in every cell.

    Each defense stands there with its largest data set. A frame marks the strongest attack of a row, ◆ one that knows
    this defense; a gray cell says that the attack was not run. Ball and data set stand under the title; a row names its
    own where they differ.

    Args:
        measurement: as `run_survey` returns it.
        against: "evasion" or "poisoning" alone; None takes both.
    Returns:
        the figure; the file that it was made from stands at its bottom.
    Raises:
        ValueError: this is no measurement of the survey, or there are no such defenses.

    Reference: Bae et al. 2018, arXiv 1807.11655.
    Survey: secure AI, defenses.
    """
    if against is not None:
        check_choice("against", against, tuple(AGAINST))
    blocks = list(AGAINST) if against is None else [against]
    lines = {name: [largest(row) for row in rows_of_lines(lines_of(measurement, AGAINST[name]))] for name in blocks}
    left, head, bottom = 3.7, 1.85, 0.45
    places = {}
    for name in reversed(blocks):
        places[name] = (left, bottom, WIDTH - left - 0.85, PITCH * len(lines[name]))
        bottom += PITCH * len(lines[name]) + head
    fig, axes = panels(WIDTH, bottom - head + 1.65, **{name: places[name] for name in blocks})
    with styled():
        for name, found in lines.items():
            draw_matrix(axes[name], found, labels_of(found))
            draw_title(fig, axes[name], f"Against {name}", "defended", 1.2, left)
            draw_note(fig, axes[name], f"what survives, in %\n{setting_of(found)}", 1.05, left)
        draw_source(fig, measurement)
    return fig


def draw_note(fig: Figure, ax: Axes, words: str, above: float, reach: float) -> None:
    """A line under a title, in the size of the labels."""
    place = ax.get_position()
    left = max(place.x0 - reach / fig.get_figwidth(), 0.006)
    fig.text(left, place.y1 + above / fig.get_figheight(), words, fontsize=FONT, va="top")


def figure_private_ai(
    measurement: dict, comparisons: Sequence[Comparison] | None = None, part: str | None = None
) -> Figure:
    """Private AI: what each method comes to and costs, and below how that compares with what others published.

    Above, methods of differential privacy stand at their accuracy, with epsilon; protocols at their accuracy or their
    agreement with the plain computation, with time and bytes; what has neither is told without an axis. Below,
    published shares are compared by their difference in points, epsilons, times and bytes by their ratio on a log axis.

    Args:
        measurement: as `run_survey` returns it.
        comparisons: published figures beside ours; the whole ledger if None.
        part: "differential privacy" or "cryptography" alone; None takes both.
    Returns:
        the figure; the file that it was made from stands at its bottom.
    Raises:
        ValueError: this is no measurement of the survey, or there is no such part.

    Reference: Bae et al. 2018, arXiv 1807.11655.
    Survey: private AI, differential privacy and cryptography.
    """
    if part is not None:
        check_choice("part", part, PARTS)
    blocks = [block_of(name, measurement, comparisons) for name in (PARTS if part is None else (part,))]
    places, bottom = {}, 1.2
    for block in reversed(blocks):
        places |= block.places(bottom)
        bottom += block.height + 1.2
    height = bottom - 0.65
    fig, axes = panels(WIDTH, height, **places)
    with styled():
        for block in blocks:
            block.draw(fig, axes)
        draw_legend(fig, [line for block in blocks for line in block.lines], (0.235, 0.28 / height), ["private"])
        outcomes = {each.outcome for block in blocks for each in block.published}
        handles = [Line2D([], [], label=name, **ratio_look(name)) for name in LOOKS if name in outcomes]
        look = {"loc": "lower center", "ncols": 4, "fontsize": FONT, "frameon": False}
        look |= {"handletextpad": 0.2, "handlelength": 1.4, "columnspacing": 0.8}
        fig.legend(handles=handles, bbox_to_anchor=(0.735, 0.28 / height), **look)
        draw_source(fig, measurement)
    return fig


def block_of(part: str, measurement: dict, comparisons: Sequence[Comparison] | None) -> Block:
    """The methods of one part of private AI, with what others published of them."""
    rows = rows_of_lines(lines_of(measurement, part))
    return Block(part, rows, published_of({row[0].row.id for row in rows}, comparisons))
