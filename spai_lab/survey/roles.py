"""The survey's figure of who threatens privacy: what each of them sees, by what it attacks, and what answers."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse, FancyBboxPatch, Rectangle, Wedge

from spai_lab.style import COLORS, MARKERS, figure
from spai_lab.survey.figures import INK, ROUND, draw_line
from spai_lab.survey.regions import shade, short_name
from spai_lab.survey.taxonomy import Row, load_taxonomy

SIGHTS = ("answers", "model", "updates", "data")


@dataclass(frozen=True)
class Role:
    """One column: who threatens, by the word that `access` uses, what it sees, and how it behaves."""

    who: str
    title: str
    sees: tuple[str, ...]
    manner: str


ROLES = (
    Role("user", "a user", ("answers",), "It asks the finished model, as often as it is allowed."),
    Role(
        "silo",
        "an information silo",
        ("answers", "model", "updates"),
        "It trains along with others, and looks into what they share.",
    ),
    Role(
        "provider",
        "a service provider",
        SIGHTS,
        "It collects updates and runs the model. What it gets in the clear it need not attack.",
    ),
)


@dataclass(frozen=True)
class Measure:
    """One defense: against whom, what it does, its rows, what it leaves, and where noise enters, by `access`."""

    title: str
    against: tuple[str, ...]
    does: str
    holds: Callable[[Row], bool]
    leaves: str = ""
    levels: Mapping[str, str] = field(default_factory=dict)


MEASURES = (
    Measure(
        "Differential privacy",
        ("user", "silo"),
        "Noise bounds what one record, or all records of one participant, can change.",
        lambda row: row.part == "differential privacy",
        "It bounds what is learned of one of us, not what the model knows of us all.",
        {
            "query": "in the answer to a query",
            "gradient": "in the gradient",
            "function": "in the objective",
            "label": "in a vote on the label",
            "any": "counted, or put to the test",
        },
    ),
    Measure(
        "Homomorphic encryption",
        ("provider",),
        "It computes on what it cannot read.",
        lambda row: row.part == "cryptography" and row.who == ("HE",),
    ),
    Measure(
        "Multiparty computation",
        ("provider",),
        "Several compute; each sees shares.",
        lambda row: row.part == "cryptography" and "MPC" in row.who and row.class_ != "collaborative learning",
    ),
    Measure(
        "Secure aggregation",
        ("silo", "provider"),
        "Only the sum of the updates is seen: no single one gives its images away.",
        lambda row: row.part == "cryptography" and row.class_ == "collaborative learning",
        "The GAN attack, which reads the shared model, remains.",
    ),
)
OPEN = Measure(
    "Stopped by none of these",
    ("user",),
    "Extraction copies the model, not a record: what is told can only be limited.",
    lambda row: row.part == "threats" and row.class_ == "extraction",
)


def attacks_of(role: Role, rows: Sequence[Row]) -> list[Row]:
    """The attacks of the taxonomy that this role can mount."""
    return [row for row in rows if row.part == "threats" and role.who in row.who]


def figure_privacy_roles(rows: Sequence[Row] | None = None) -> Figure:
    """Who threatens privacy: a column for each role, with what it sees and by what it attacks; below, what defends.

    Who sees more can do what those do who see less; each attack stands under the roles that the taxonomy names. A
    defense is as wide as the roles that it stands against.

    Args:
        rows: the taxonomy; the project's if None.
    Returns:
        the figure.

    Reference: Bae et al. 2018, arXiv 1807.11655.
    Survey: Private AI, threats by a service provider, an information silo and a user.
    """
    rows = load_taxonomy() if rows is None else rows
    fig, axes = figure(WIDTH, HEIGHT)
    fig.set_layout_engine("none")
    ax = axes[0, 0]
    ax.set(position=(0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, HEIGHT))
    ax.axis("off")
    for label, (bottom, top) in {"sees": SEES, "attacks": ATTACKS, "defenses": (FLOOR, TOP)}.items():
        ax.text(0.26, (bottom + top) / 2, label, rotation=90, fontsize=18, weight="bold", ha="center", va="center")
    for role in ROLES:
        _draw_role(ax, role, attacks_of(role, rows))
    for measure, heights in zip((*MEASURES, OPEN), TILES, strict=True):
        _draw_measure(ax, measure, [row for row in rows if measure.holds(row)], heights)
    return fig


Span = tuple[float, float]

WIDTH, HEIGHT, GAP = 13.4, 8.75, 0.1
COLUMNS: dict[str, Span] = {"user": (0.5, 6.0), "silo": (6.1, 9.7), "provider": (9.8, 13.35)}
HEAD, SEES, ATTACKS = (7.95, 8.65), (7.1, 7.9), (4.98, 6.74)
FLOOR, LOW, MIDDLE, TOP = 0.1, 1.62, 3.24, 4.58
TILES: tuple[Span, ...] = ((LOW + GAP, TOP), (MIDDLE + GAP, TOP), (LOW + GAP, MIDDLE), (FLOOR, LOW), (FLOOR, LOW))
FONT, LINE, LETTER = 13, 0.245, 0.093  # in points, and in inches; the mean width of a letter


def _draw_role(ax: Axes, role: Role, attacks: Sequence[Row]) -> None:
    left, right = COLUMNS[role.who]
    width, middle = right - left, sum(HEAD) / 2
    ax.add_patch(Rectangle((left, SEES[0]), width, HEAD[1] - SEES[0], facecolor="#f3f3f3", edgecolor="none"))
    ax.add_patch(FancyBboxPatch((left, HEAD[0]), width, HEAD[1] - HEAD[0], boxstyle=ROUND, color=INK))
    ICONS[role.who](ax, left + 0.42, middle)
    ax.text(left + 0.8, middle, role.title, color="white", fontsize=17.5, weight="bold", va="center")
    for index, sight in enumerate(SIGHTS):
        x, seen = left + (index + 0.5) * width / len(SIGHTS), sight in role.sees
        look = {"markersize": 15, "markeredgecolor": INK, "markeredgewidth": 2}
        ax.plot(x, SEES[1] - 0.25, "o", color=INK if seen else "white", gid=f"{role.who} {sight}", **look)
        ax.text(x, SEES[1] - 0.58, sight, fontsize=FONT, color=INK if seen else "#767676", ha="center", va="center")
    draw_line(ax, ((left + right) / 2, SEES[0]), ((left + right) / 2, ATTACKS[1] + 0.04), COLORS["private"])
    said = textwrap.wrap(role.manner, _letters(width))
    title = f"{len(attacks)} attack{'' if len(attacks) == 1 else 's'}, {_chapters(attacks)}"
    top = _draw_box(ax, (left, right), ATTACKS, "private", title, said, style="italic")
    most = 1 + int((top - ATTACKS[0] - LINE / 2) / LINE)  # names below each other; the others go beside them
    for index, row in enumerate(attacks):
        across, down = divmod(index, most)
        ax.text(left + 0.12 + 0.57 * across * width, top - LINE * down, short_name(row), **TEXT)


def _draw_measure(ax: Axes, measure: Measure, rows: Sequence[Row], heights: Span) -> None:
    columns = [COLUMNS[who] for who in measure.against]
    across = columns[0][0], columns[-1][1]
    said = [measure.does, measure.leaves, *_named(measure, rows)]
    lines = [line for part in said for line in textwrap.wrap(part, _letters(across[1] - across[0]))]
    _draw_box(ax, across, heights, "baseline" if measure is OPEN else "defended", measure.title, lines)
    if heights[1] == TOP:
        for left, right in columns:
            draw_line(ax, ((left + right) / 2, TOP), ((left + right) / 2, ATTACKS[0] - 0.04), COLORS["defended"])


TEXT = {"fontsize": FONT, "va": "center", "zorder": 5}


def _draw_box(ax: Axes, across: Span, heights: Span, role: str, title: str, lines: Sequence[str], **look: str) -> float:
    """A box with its title and its lines; returns the height of the next line."""
    (left, right), (bottom, top) = across, heights
    edge = {"edgecolor": COLORS[role], "linewidth": 2.4, "linestyle": "--" if role == "baseline" else "-"}
    box = FancyBboxPatch((left, bottom), right - left, top - bottom, boxstyle=ROUND, facecolor="white", **edge)
    box.set_zorder(4)
    ax.add_patch(box)
    ax.plot(left + 0.2, top - 0.24, MARKERS[role], color=COLORS[role], markersize=11, zorder=5)
    title_look = {**TEXT, "fontsize": 15, "weight": "bold", "color": shade(COLORS[role], "black", 0.4)}
    ax.text(left + 0.38, top - 0.24, title, **title_look)
    for index, line in enumerate(lines):
        ax.text(left + 0.12, top - 0.56 - LINE * index, line, **TEXT, **look)
    return top - 0.56 - LINE * len(lines)


def _named(measure: Measure, rows: Sequence[Row]) -> list[str]:
    """The chapter and the methods; with levels, a line for each."""
    if not measure.levels:
        return [f"{_chapters(rows).capitalize()}: {', '.join(map(short_name, rows))}"]
    names = {access: [short_name(row) for row in rows if row.access == access] for access in measure.levels}
    lines = [f"• {measure.levels[access]}: {', '.join(named)}" for access, named in names.items() if named]
    return [f"{_chapters(rows).capitalize()}, with noise", *lines]


def _letters(width: float) -> int:
    return int((width - 0.2) / LETTER)


def _chapters(rows: Sequence[Row]) -> str:
    chapters = sorted({row.chapter for row in rows})
    return f"chapter{'' if len(chapters) == 1 else 's'} {', '.join(chapters)}"


def _draw_person(ax: Axes, x: float, y: float) -> None:
    ax.add_patch(Circle((x, y + 0.13), 0.12, color="white", zorder=5))
    ax.add_patch(Wedge((x, y - 0.25), 0.23, 0, 180, color="white", zorder=5))


def _draw_silo(ax: Axes, x: float, y: float) -> None:
    ax.add_patch(Rectangle((x - 0.2, y - 0.2), 0.4, 0.4, color="white", zorder=5))
    for height, ink in ((-0.2, "white"), (0.2, "white"), (0.07, INK), (-0.09, INK)):
        face = ink if ink == "white" else "none"
        ax.add_patch(Ellipse((x, y + height), 0.4, 0.13, facecolor=face, edgecolor=ink, linewidth=1.5, zorder=5))


def _draw_servers(ax: Axes, x: float, y: float) -> None:
    for height in (-0.27, -0.08, 0.11):
        ax.add_patch(Rectangle((x - 0.23, y + height), 0.46, 0.15, color="white", zorder=5))
        ax.add_patch(Circle((x + 0.15, y + height + 0.075), 0.03, color=INK, zorder=6))


ICONS = {"user": _draw_person, "silo": _draw_silo, "provider": _draw_servers}
