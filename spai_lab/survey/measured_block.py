"""A part of private AI as a block of four panels: its methods, what has no accuracy, and what others published."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spai_lab.survey.ledger import Comparison
from spai_lab.survey.measured_dots import (
    FONT,
    PITCH,
    WIDTH,
    draw_dots,
    draw_gap,
    draw_names,
    draw_title,
    largest,
    share_of,
)
from spai_lab.survey.measured_private import in_words
from spai_lab.survey.measured_published import draw_differences, draw_ratios, split
from spai_lab.survey.measured_rows import Line

TITLES = {
    "differential privacy": "Differential privacy: accuracy and epsilon",
    "cryptography": "Cryptography: accuracy, time, bytes",
}
NAMES, HEAD, AXIS = 2.6, 0.85, 0.5  # inches: for the names of the methods, a title, the ticks below an axis
LEFT = (3.05, 9.35)  # inches, where the panels of what was published begin
ACROSS = 1.4


@dataclass(frozen=True)
class Block:
    """What `figure_private_ai` draws of one part.

    Args:
        part: of the taxonomy.
        rows: its lines, those of a method together.
        published: figures that others published of the same methods.
    """

    part: str
    rows: Sequence[Sequence[Line]]
    published: Sequence[Comparison]

    @property
    def lines(self) -> list[Line]:
        """All lines."""
        return [line for row in self.rows for line in row]

    @property
    def placed(self) -> list[Sequence[Line]]:
        """The methods that have a share."""
        return [row for row in self.rows if row not in self.told]

    @property
    def told(self) -> list[Sequence[Line]]:
        """The methods that are told without an axis: those without a share, measured or not."""
        return [row for row in self.rows if (top := largest(row).headline) is None or share_of(top) is None]

    @property
    def below(self) -> float:
        """The height of what was published."""
        most = max(map(len, split(self.published)))
        return most * PITCH + HEAD if most else 0.0

    @property
    def height(self) -> float:
        """The height without the title above it, in inches."""
        gap = AXIS if self.placed else 0.0
        return self.below + len(self.rows) * PITCH + gap

    def places(self, bottom: float) -> dict[str, tuple[float, float, float, float]]:
        """Where its panels stand, from `bottom` on, in inches; panels without a row are left out."""
        told, placed = len(self.told) * PITCH, len(self.placed) * PITCH
        start = bottom + self.below
        found = {f"{self.part} told": (NAMES, start, WIDTH - NAMES - 0.1, told)} if told else {}
        if placed:
            found[self.part] = (NAMES, start + told + AXIS, 3.2, placed)
        for name, left, figures in zip(("differences", "ratios"), LEFT, split(self.published), strict=True):
            if tall := len(figures) * PITCH:
                found[f"{self.part} {name}"] = (left, bottom + self.below - HEAD - tall, ACROSS, tall)
        return found

    def draw(self, fig: Figure, axes: dict[str, Axes]) -> None:
        """Draw its panels where `places` put them."""
        if self.placed:
            draw_dots(axes[self.part], self.placed, "private", in_words)
        if self.told:
            draw_told(axes[f"{self.part} told"], self.told)
        first = axes[self.part] if self.placed else axes[f"{self.part} told"]
        draw_title(fig, first, TITLES[self.part], "private", reach=NAMES)
        panels = zip(("differences", "ratios"), (draw_differences, draw_ratios), split(self.published), strict=True)
        for name, draw, figures in panels:
            if figures:
                ax = axes[f"{self.part} {name}"]
                draw(ax, figures)
                title = "Measured less published, in points" if name == "differences" else "Measured / published"
                draw_title(fig, ax, title, "private", reach=LEFT[0])


def draw_told(ax: Axes, rows: Sequence[Sequence[Line]]) -> None:
    """Methods that have no place on a scale: a name and words each, without an axis."""
    ax.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5))
    ax.set_xticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    draw_names(ax, [row[0].name for row in rows])
    for height, row in enumerate(rows):
        line = largest(row)
        if line.headline is None:
            draw_gap(ax, line, height, 0.005)
        else:
            ax.text(0.005, height, in_words(line), fontsize=FONT, va="center", gid=f"{line.row.id} value")
