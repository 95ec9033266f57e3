"""The standings explorer: who leads among the arena's defenses depends on eps, and on the attacks that count."""

from collections.abc import Callable
from functools import lru_cache

import ipywidgets as widgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from spai_lab.arena.advice import above
from spai_lab.arena.standings import ALL, ATTACKS, DEFENSES, EPS, Standings, standings
from spai_lab.figures import draw_rates
from spai_lab.metrics import Rate
from spai_lab.style import COLORS, MARKERS, Backdrop, panels, styled
from spai_lab.widgets.choices import offline_datasets, starting_dataset
from spai_lab.widgets.explorable import Explorable

PLACES = {"curves": (0.85, 0.75, 4.5, 3.6), "ranks": (8.55, 0.75, 2.3, 3.6)}
SAMPLE, NAME, SHARE = (-1.31, -1.21, -1.11), -1.06, 1.05  # where a row has its line, its name and its share
ROW = 15  # points of the text in a row
WORST = {"markersize": 16, "markeredgecolor": "white"}


@lru_cache(maxsize=12)
def backdrop(table: Standings, attack: str) -> Backdrop:
    """The curves, which eps leaves as they are, and the axes of the ranking."""
    fig, axes = panels(11.7, 4.85, **PLACES)
    with styled():
        ax = axes["curves"]
        for defense in reversed(DEFENSES):
            rates = {eps: table.left(defense, attack, eps) for eps in table.eps}
            draw_rates(ax, rates, defense, *look_of(defense))
            ax.lines[-1].set_markersize(6)
        ax.set(xlim=(-0.008, table.eps[-1] + 0.008), ylim=(-0.04, 1.04), xlabel="eps, L-inf, in pixel units")
        ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        ax.set_title(f"read rightly after {sentence_of(attack)}", fontsize=16, pad=12)
        plain(axes["ranks"])
    return Backdrop.of(fig, axes)


def plain(ax: Axes) -> None:
    """The axes of the ranking: a share across, a row for each defense."""
    ax.set(xlim=(-0.03, 1.03), ylim=(len(DEFENSES) - 0.4, -0.6))
    ax.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_title("gray: each attack alone", fontsize=13, pad=12)
    for row in range(len(DEFENSES)):
        ax.axhline(row, color=COLORS["baseline"], alpha=0.3, linewidth=1)


def look_of(defense: str) -> tuple[str, int]:
    """The role and number of a curve, as `draw_rates` takes them: gray without a defense, else a line of its own."""
    return ("baseline", 0) if defense == DEFENSES[0] else ("defended", DEFENSES.index(defense) - 1)


def sentence_of(attack: str) -> str:
    """The attacks that count, within a sentence.

    >>> sentence_of("PGD"), sentence_of(ALL)
    ('PGD alone', 'every attack')
    """
    return "every attack" if attack == ALL else f"{attack} alone"


def render(table: Standings, attack: str, eps: float) -> Figure:
    """The curves with the present eps, and the ranking there.

    Args:
        table: the standings.
        attack: one of `ATTACKS`, or `ALL`.
        eps: one of its radii.
    Returns:
        the figure. Its parts have names (gid): "eps", and for row k of the ranking "rank k", "share k" and "mark k".
    Raises:
        ValueError: names the argument.
    """
    ranking = table.ranking(attack, eps)
    behind = backdrop(table, attack)
    curves, ranks = behind.axes["curves"], behind.axes["ranks"]
    samples = dict(zip(reversed(DEFENSES), curves.lines, strict=False))
    with styled():
        fig = behind.picture()
        here = {"color": "black", "linewidth": 1.5, "transform": curves.transData, "gid": "eps"}
        fig.add_artist(Line2D([eps, eps], [-0.04, 1.04], **here))
        alone = [
            (table.left(name, each, eps).value, row) for row, (_, name, _) in enumerate(ranking) for each in ATTACKS
        ]
        dots = {"linestyle": "", "marker": MARKERS["baseline"], "markersize": 13, "color": COLORS["baseline"]}
        fig.add_artist(Line2D(*zip(*alone, strict=True), transform=ranks.transData, **dots))
        for row, (rank, defense, rate) in enumerate(ranking):
            line, across = samples[defense], ranks.get_yaxis_transform()
            color = line.get_color()
            style = {"color": color, "linestyle": line.get_linestyle(), "linewidth": 2.5, "marker": line.get_marker()}
            fig.add_artist(Line2D(SAMPLE, [row] * 3, transform=across, markevery=[1], markersize=7, **style))
            words = {"fontsize": ROW, "va": "center", "transform": across}
            fig.text(NAME, row, f"{rank}. {defense}", gid=f"rank {row}", **words)
            fig.add_artist(Line2D(rate.interval, [row] * 2, color=color, linewidth=3, transform=ranks.transData))
            mark = {"marker": line.get_marker(), "color": color, "transform": ranks.transData, "gid": f"mark {row}"}
            fig.add_artist(Line2D([rate.value], [row], **mark, **WORST))
            fig.text(SHARE, row, percent(rate), weight="bold", gid=f"share {row}", **words)
        title = {"fontsize": 16, "transform": ranks.transAxes, "va": "bottom", "weight": "bold"}
        fig.text(SAMPLE[0], 1.03, f"ranking at eps {eps:g}", **title)
    return fig


def percent(rate: Rate) -> str:
    """A share for the eye.

    >>> percent(Rate(1, 3))
    '33 %'
    """
    return f"{100 * rate.value:.0f} %"


def joined(names: tuple[str, ...]) -> str:
    """Names within a sentence.

    >>> joined(("a",)), joined(("a", "b", "c"))
    ('a', 'a, b and c')
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def verdict(table: Standings, attack: str, eps: float) -> str:
    """In words: who leads here, and whether that is so with all attacks, and at another eps."""
    ranking, leaders = table.ranking(attack, eps), table.leaders(attack, eps)
    best, first = ranking[0][2], leaders[0]
    here = f"At eps {eps:g}, after {sentence_of(attack)},"
    if best.hits == 0:
        return f"{here} nothing is left of any defense."
    said = f"{here} {joined(leaders)} lead{'s' * (len(leaders) == 1)} with {best}."
    if len(leaders) == 1 and not above(best, ranking[1][2]):
        said += f" Its lead over {ranking[1][1]} could be chance."
    if eps == 0:
        return f"{said} Nothing has been moved yet: move eps to the right."
    worst = table.worst(first, eps)
    if attack != ALL:
        if table.left(first, ALL, eps).hits < best.hits:
            left = percent(table.left(first, worst, eps))
            return f"{said} But {worst} leaves {first} {left}: the worst attack counts."
        return f"{said} No other attack leaves {first} less."
    if len(leaders) == 1:
        said += f" The attack that harms it most is {worst}."
    others = (other for other in table.eps[1:] if table.ranking(ALL, other)[0][2].hits)
    other = next((other for other in others if set(table.leaders(ALL, other)).isdisjoint(leaders)), None)
    return said if other is None else f"{said} At eps {other:g} another leads: {joined(table.leaders(ALL, other))}."


def describe(table: Standings, attack: str, eps: float) -> str:
    """The picture for somebody who cannot see it."""
    rows = "; ".join(f"{rank}. {name}, {percent(rate)}" for rank, name, rate in table.ranking(attack, eps))
    return (
        f"Curves of the share that five defenses read rightly on {table.dataset} after {sentence_of(attack)}, falling "
        f"with eps. Ranking at eps {eps:g}: {rows}."
    )


def standings_explorer(dataset: str | None = None) -> Explorable:
    """The explorable of chapter 17: choose the attacks that count, move eps, and see who leads.

    Args:
        dataset: "digits" or "mnist" to start with; None takes what `load()` finds.
    Returns:
        the widget.
    Raises:
        ValueError: names the argument.
    """
    controls = {
        "dataset": widgets.Dropdown(
            description="data set", options=offline_datasets(), value=starting_dataset(dataset)
        ),
        "attack": widgets.Dropdown(description="attacks", options=(ALL, *ATTACKS)),
        "eps": widgets.SelectionSlider(description="eps", options=[(f"{eps:g}", eps) for eps in EPS], value=0.2),
    }

    def of_table(show: Callable[[Standings, str, float], object]) -> Callable[..., object]:
        return lambda dataset, attack, eps: show(standings(dataset), attack, eps)

    explorer = Explorable(
        of_table(render), controls, alt=of_table(describe), caption=of_table(verdict), slow=("dataset",)
    )
    controls["attack"].layout.width = "330px"  # its longest name
    return explorer
