"""The matrix of defenses and attacks: which columns it has, what its cells hold, and how it is drawn."""

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from spai_lab.style import COLORS, SEQUENTIAL
from spai_lab.survey.measured_dots import FONT, data_name, draw_gap
from spai_lab.survey.measured_rows import Line
from spai_lab.survey.measured_survival import (
    KNOWS,
    LEFT,
    attack_columns,
    clean,
    known,
    proven,
    rule_of,
    survival,
    surviving_all,
    weakest_point,
)

THIN = "\u2009"  # a space
BALL = re.compile(r"eps ([\d.]+) in (L(?:-inf|\d))")


def columns_of(lines: Sequence[Line]) -> list[str]:
    """The columns of a matrix: clean, the attacks, what is left of all, and what is proven where anything is."""
    last = ["proven"] if any(proven(line) is not None for line in lines) else []
    return ["clean", *attack_columns(lines), LEFT[lines[0].row.part], *last]


def cells_of(line: Line, columns: Sequence[str]) -> list[float]:
    """The shares of a line, NaN where there is none."""
    known_shares = {"clean": clean(line), **survival(line), LEFT[line.row.part]: surviving_all(line)}
    known_shares["proven"] = proven(line)
    return [math.nan if known_shares.get(name) is None else known_shares[name] for name in columns]


def marked(line: Line, columns: Sequence[str]) -> list[str]:
    """What the cells of a line say: percent, and ◆ where the attack knows this defense."""
    knowing = known(line)
    return [
        "" if math.isnan(share) else f"{100 * share:.0f}{f'{THIN}{KNOWS}' if name in knowing else ''}"
        for name, share in zip(columns, cells_of(line, columns), strict=True)
    ]


def draw_matrix(ax: Axes, lines: Sequence[Line], labels: Sequence[str]) -> None:
    """A heatmap of what survives, with the strongest attack of each row framed."""
    columns = columns_of(lines)
    values = np.array([cells_of(line, columns) for line in lines])
    ax.set_facecolor("#eeeeee")
    sns.heatmap(
        values, ax=ax, annot=[marked(line, columns) for line in lines], fmt="", annot_kws={"fontsize": FONT},
        vmin=0, vmax=1, cmap=SEQUENTIAL, xticklabels=columns, yticklabels=labels, cbar=False, linewidths=1.5,
    )  # fmt: skip
    ax.tick_params(axis="both", length=0, labelsize=FONT)
    ax.tick_params(axis="x", labeltop=True, labelbottom=False)
    for label in ax.get_xticklabels():
        label.set(rotation=45, ha="left", rotation_mode="anchor")
    for label in ax.get_yticklabels():
        label.set(rotation=0)
    end = columns.index(LEFT[lines[0].row.part])
    for place in (1, end, end + 1):
        ax.axvline(place, color="white", linewidth=7)
    for height, line in enumerate(lines):
        if name := weakest_point(line):
            frame(ax, columns.index(name), height, f"{line.row.id} strongest")
        if line.headline is None:
            draw_gap(ax, line, height + 0.5, 0.1)


def frame(ax: Axes, column: int, row: int, gid: str) -> None:
    """A frame around a cell."""
    look = {"fill": False, "edgecolor": COLORS["adversarial"], "linewidth": 3.5, "gid": gid}
    ax.add_patch(Rectangle((column + 0.04, row + 0.06), 0.92, 0.88, zorder=5, **look))


def ball_of(line: Line) -> str:
    """The ball of a line's attacks, as its set-up names it; empty where there is none.

    >>> BALL.search("LeNet, mnist, eps 0.3 in L-inf").groups()
    ('0.3', 'L-inf')
    """
    found = None if line.headline is None else BALL.search(line.headline.setup)
    return "" if found is None else f"{found.group(2)}, eps {found.group(1)}"


def usual(words: Sequence[str]) -> str:
    """Of some words the commonest that is not empty; of equals the first."""
    counts = Counter(filter(None, words))
    return max(counts, key=counts.get, default="")


def usual_of(lines: Sequence[Line]) -> tuple[str, str]:
    """Data and ball of most rows."""
    return usual([data_name(line) for line in lines]), usual(list(map(ball_of, lines)))


def setting_of(lines: Sequence[Line]) -> str:
    """Data and ball of most rows, and that a row says where it differs."""
    common = usual_of(lines)
    differs = any(notes_of(line, common) for line in lines)
    return ", ".join(filter(None, common)) + differs * "\n(a row says where it differs)"


def notes_of(line: Line, common: tuple[str, str]) -> list[str]:
    """What a row's ball and data have that those of most rows have not."""
    data, ball = common
    own = zip(filter(None, ball_of(line).split(", ")), ball.split(", "), strict=False)
    return [part for part, most in own if part != most] + [data_name(line)] * (data_name(line) not in ("", data))


def labels_of(lines: Sequence[Line]) -> list[str]:
    """The defenses' names, each with what its ball and its data differ in, and by which rule it takes updates
    together."""
    common, labels = usual_of(lines), []
    for line in lines:
        rule = re.split(r"the |-wise ", rule_of(line))[-1]
        notes = [*notes_of(line, common), *filter(None, [rule])]
        labels.append(f"{line.name} ({', '.join(notes)})" if notes else line.name)
    return labels
