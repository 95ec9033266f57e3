"""Bars of a class's votes: one question in a lecture, many on a page for the lecturer."""

from collections.abc import Sequence
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spai_lab.poll.tally import ROUNDS, Tally, letter
from spai_lab.style import COLORS, SETTINGS, panels, styled

ROLES = ("baseline", "clean")  # of the first count and the second
HATCHES = ("", "//")
WIDTH, LABELS, WORDS = 8.6, 3.75, 1.25  # inches: of a figure, of its labels, and of the words beside a full bar
MARK, CALLED, SAID = 0.06, 0.42, 0.6  # inches from the left: the band of the right row, its letter's end, its words
LINE, TITLE = 28, 74  # letters of a label's line, and of a question's
TALL, APART, HEAD = 0.26, 0.17, 0.4  # inches: a line of a row, between two rows, and what is above them
LEAST = 0.5  # share of the class that a full bar stands for, unless more have voted for one choice
PALE = 0.4


def draw(tally: Tally) -> Figure:
    """One question's votes for a hall, a row for each choice; what is right is marked once it is known.

    The second count stands beside the first, on the same scale, so that the type stays large.

    Args:
        tally: the votes.
    Returns:
        the figure.

    >>> from spai_lab.poll.question import Question
    >>> fig = draw(Tally(Question("a", "Which?", options=("up", "down")), ((4, 6), (9, 1)), right=0))
    >>> [text.get_text() for axes in fig.axes for text in axes.texts if "(" in text.get_text()]
    [' 4 (40 %)', ' 6 (60 %)', ' 9 (90 %)', ' 1 (10 %)']
    """
    up, across = height(tally), (WIDTH - LABELS) / len(tally.rounds)
    places = {str(number): (LABELS + across * number, 0.02, across - WORDS, up) for number in range(len(tally.rounds))}
    fig, axes = panels(WIDTH, up + HEAD, **places)
    for number, total in enumerate(tally.answers):
        draw_votes(axes[str(number)], tally, number)
        with styled():
            axes[str(number)].set_title(f"{ROUNDS[number]}, n = {total}", fontsize=SETTINGS["font.size"])
    label_rows(axes["0"], tally)
    return fig


def height(tally: Tally) -> float:
    """How tall the rows of a question are together, in inches."""
    lines = [len(wrap(row, LINE)) for row in tally.question.rows]
    return max(TALL * sum(lines) + APART * len(lines), TALL * max(lines) * len(lines) * 0.9)


def draw_votes(ax: Axes, tally: Tally, number: int = 0) -> None:
    """The bars of one count, as long as shares of the class, so that two counts of different size compare."""
    counts, total = tally.rounds[number], tally.answers[number]
    shares = [count / max(all_, 1) for each, all_ in zip(tally.rounds, tally.answers, strict=True) for count in each]
    full = max(LEAST, *shares)
    look = {"color": COLORS[ROLES[number]], "hatch": HATCHES[number], "edgecolor": "white", "height": 0.74}
    with styled():
        for row, count in enumerate(counts):
            length = count / max(total, 1)
            ax.barh(row, length, alpha=PALE if tally.right not in (None, row) else 1, **look)
            said = f" {count} ({100 * length:.0f} %)" if total else f" {count}"
            ax.text(length, row, said, va="center_baseline", ha="left", fontsize=SETTINGS["font.size"])
        ax.set(xlim=(0, full), ylim=(len(counts) - 0.5, -0.5), xticks=[], yticks=[])
        ax.spines["bottom"].set_visible(False)
        ax.patch.set_visible(False)  # the band of the right row runs behind both counts


def label_rows(ax: Axes, tally: Tally) -> None:
    """The letters and the words of the rows, left of the bars; the right row's are bold, with a check, on a band."""
    across = ax.get_position().width * WIDTH  # inches
    look = {"transform": ax.get_yaxis_transform(), "fontsize": SETTINGS["font.size"], "parse_math": False}
    with styled():
        for place, row in enumerate(tally.question.rows):
            right, lines = place == tally.right, wrap(row, LINE)
            look["fontweight"] = "bold" if right else "normal"
            look["va"] = "center_baseline" if len(lines) == 1 else "center"
            name = f"✔ {letter(place)}" if right else letter(place)
            ax.text((CALLED - LABELS) / across, place, name, ha="right", **look)
            ax.text((SAID - LABELS) / across, place, "\n".join(lines), ha="left", linespacing=1.05, **look)
        if tally.right is not None:
            edges = (MARK - LABELS) / across, (WIDTH - LABELS - 0.02) / across
            band = {"color": COLORS["defended"], "alpha": 0.16, "linewidth": 0, "zorder": -1, "gid": "right"}
            low, high = tally.right - 0.48, tally.right + 0.48
            ax.fill_between(edges, low, high, transform=ax.get_yaxis_transform(), clip_on=False, **band)


def draw_all(tallies: Sequence[Tally]) -> Figure:
    """Many questions' votes below each other, each under its question.

    Args:
        tallies: the votes; of two counts the first is drawn.
    Returns:
        the figure.
    Raises:
        ValueError: there is nothing to draw.
    """
    if not tallies:
        raise ValueError("tallies is empty; accepted: at least one question with answers")
    titles = [wrap(f"{tally.question.key}. {tally.question.text} n = {tally.answers[0]}.", TITLE) for tally in tallies]
    heads = [0.24 * len(title) + 0.34 for title in titles]
    total = sum(heads) + sum(map(height, tallies)) + 0.2
    top, places = total, {}
    for number, (tally, head) in enumerate(zip(tallies, heads, strict=True)):
        top -= head + height(tally)
        places[str(number)] = (LABELS, top, WIDTH - LABELS - WORDS, height(tally))
    fig, axes = panels(WIDTH, total, **places)
    look = {"va": "bottom", "fontsize": SETTINGS["font.size"], "fontweight": "bold", "parse_math": False}
    for number, (tally, title) in enumerate(zip(tallies, titles, strict=True)):
        draw_votes(axes[str(number)], tally)
        label_rows(axes[str(number)], tally)
        _, bottom, _, up = places[str(number)]
        with styled():
            fig.text(0.2 / WIDTH, (bottom + up + 0.06) / total, "\n".join(title), **look)
    return fig
