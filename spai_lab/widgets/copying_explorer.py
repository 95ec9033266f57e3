"""The copying explorer: how well a stolen copy agrees with its victim, by the queries that were spent on it."""

from functools import lru_cache

import ipywidgets as widgets
import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spai_lab.checks import check_choice
from spai_lab.metrics import Rate
from spai_lab.style import COLORS, MARKERS, Backdrop, panels, styled
from spai_lab.survey.extraction_jobs import BUDGETS, LEVELS
from spai_lab.survey.measure import load_measurement
from spai_lab.survey.privacy_tables import agreement_by_budget, fooled_by_copy
from spai_lab.widgets.choices import DATASETS, starting_dataset
from spai_lab.widgets.explorable import Explorable
from spai_lab.widgets.roc_panel import in_percent

STRATEGIES = {"random": "noise", "natural": "random images", "active": "uncertain images"}
LOOKS = {"random": ("baseline", ":"), "natural": ("clean", "--"), "active": ("adversarial", "-")}
PRESENT = {"color": "black", "linestyle": "", "marker": "o", "fillstyle": "none", "markersize": 20, "gid": "present"}


@lru_cache(maxsize=8)
def curves(dataset: str, level: str) -> dict[str, dict[int, Rate]]:
    """The agreement by strategy and budget; kept.

    Args:
        dataset: "digits" or "mnist".
        level: one of `LEVELS`.
    Raises:
        ValueError: names the argument.
    """
    check_choice("dataset", dataset, DATASETS)
    check_choice("level", level, tuple(LEVELS))
    found = agreement_by_budget(load_measurement(f"extraction_{dataset}"))
    return {strategy: found[strategy, level] for strategy in STRATEGIES}


@lru_cache(maxsize=8)
def backdrop(dataset: str, level: str) -> Backdrop:
    """What the slider leaves as it is: the curves with their intervals."""
    fig, axes = panels(11, 5.2, agreement=(0.95, 0.85, 7.0, 3.9))
    ax = axes["agreement"]
    with styled():
        for strategy, rates in curves(dataset, level).items():
            role, line = LOOKS[strategy]
            budgets, values = list(rates), [rate.value for rate in rates.values()]
            low, high = zip(*(rate.interval for rate in rates.values()), strict=True)
            look = {"color": COLORS[role], "marker": MARKERS[role], "markersize": 9}
            ax.plot(budgets, values, line, linewidth=2.5, label=STRATEGIES[strategy], **look)
            ax.fill_between(budgets, low, high, color=COLORS[role], alpha=0.12, linewidth=0)
        ax.set_xscale("log")
        ax.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
        ax.minorticks_off()
        ax.set(xlabel="queries", ylabel="agrees with the victim", ylim=(-0.02, 1.02))
        ax.yaxis.set_major_formatter(ticker.PercentFormatter(1, symbol=" %"))
        ax.legend(loc="center left", bbox_to_anchor=(1.03, 0.5), fontsize=15, title="what it asks about")
    return Backdrop.of(fig, axes)


def render(dataset: str, level: str, strategy: str, budget: int) -> Figure:
    """The curves, with the point of one strategy and budget.

    Args:
        dataset: "digits" or "mnist".
        level: what the victim reveals, one of `LEVELS`.
        strategy: one of `STRATEGIES`.
        budget: queries, one of `BUDGETS[dataset]`.
    Returns:
        the figure; its parts named (gid) "present" and "said" are the point and its words.
    Raises:
        ValueError: names the argument.
    """
    rate = agreed(dataset, level, strategy, budget)
    behind = backdrop(dataset, level)
    ax = behind.axes["agreement"]
    with styled():
        fig = behind.picture()
        place = behind.axes["agreement"].transData
        point = Line2D([budget], [rate.value], transform=place, **PRESENT)
        point.set_markeredgewidth(3)
        fig.add_artist(point)
        words = {"fontsize": 17, "weight": "bold", "gid": "said", "transform": ax.transAxes}
        fig.text(0.0, 1.05, f"{budget:,} queries: the copy agrees on {in_percent(rate)}", **words)
    return fig


def agreed(dataset: str, level: str, strategy: str, budget: int) -> Rate:
    """How often copy and victim agree."""
    check_choice("strategy", strategy, tuple(STRATEGIES))
    rates = curves(dataset, level)[strategy]
    if budget not in rates:
        raise ValueError(f"budget is {budget}; accepted: {', '.join(map(str, rates))}")
    return rates[budget]


def verdict(dataset: str, level: str, strategy: str, budget: int) -> str:
    """In words: what these queries buy, and what the largest copy is good for."""
    rate = agreed(dataset, level, strategy, budget)
    fooled = fooled_by_copy(load_measurement(f"extraction_{dataset}"))[strategy, level]
    return (
        f"On {dataset}, {budget:,} queries about {STRATEGIES[strategy]}, answered with {level}: copy and victim agree "
        f"on {rate}. With all {BUDGETS[dataset][-1]:,} queries, PGD on the copy fools the "
        f"victim on {fooled['PGD']}, random signs of the same size on {100 * fooled['noise'].value:.0f} %."
    )


def describe(dataset: str, level: str, strategy: str, budget: int) -> str:
    """The picture for somebody who cannot see it."""
    shown = {
        name: [round(100 * rate.value) for rate in rates.values()] for name, rates in curves(dataset, level).items()
    }
    ends = "; ".join(f"{STRATEGIES[name]} from {first} to {last} %" for name, (first, *_, last) in shown.items())
    rate = agreed(dataset, level, strategy, budget)
    return f"Agreement against queries, {ends}. The point: {budget:,} queries, {in_percent(rate)}."


def copying_explorer(dataset: str | None = None) -> Explorable:
    """The explorable: choose what is asked and what is answered, move the budget, and see how good the copy is.

    Args:
        dataset: "digits" or "mnist" to start with; None takes what `load()` finds. Both were measured.
    Returns:
        the widget.
    Raises:
        ValueError: names the argument.
    """
    start = starting_dataset(dataset)
    controls = {
        "dataset": widgets.Dropdown(description="data set", options=DATASETS, value=start),
        "level": widgets.Dropdown(description="answers", options=tuple(LEVELS)),
        "strategy": widgets.Dropdown(
            description="asks about", options=[(shown, name) for name, shown in STRATEGIES.items()], value="natural"
        ),
        "budget": widgets.SelectionSlider(description="queries", options=options(start), value=BUDGETS[start][1]),
    }

    def adapt(name: str) -> None:
        if name == "dataset":
            place = np.clip(controls["budget"].index, 0, len(BUDGETS[controls["dataset"].value]) - 1)
            controls["budget"].options = options(controls["dataset"].value)
            controls["budget"].index = int(place)

    return Explorable(render, controls, alt=describe, caption=verdict, adapt=adapt)


def options(dataset: str) -> list[tuple[str, int]]:
    """The budgets, each with its text."""
    return [(f"{budget:,}", budget) for budget in BUDGETS[dataset]]
