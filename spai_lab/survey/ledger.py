"""The ledger: figures that others published, each beside the one measured here, and what may be concluded."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass

from spai_lab.files import data_folder

COMPUTED = "computed alike"  # what is recomputed and comes out within the tolerance; it reproduces no experiment
OUTCOMES = ("reproduced", COMPUTED, "deviates", "not comparable", "none")
STANDINGS = {
    "V": "read in a copy of the source or of its repository",
    "M": "from memory of the paper, so that a verdict is provisional",
    "U": "unsure, so that there is no verdict",
}
TOGETHER = "†"  # marks a figure that was stated with its measurement
LEGEND = (
    f"Standing: {'; '.join(f'{standing} {meaning}' for standing, meaning in STANDINGS.items())}. "
    f"{TOGETHER} metric, sample size and tolerance were committed together with the measurement, or changed after it, "
    "not stated before."
)


def published() -> dict[str, dict]:
    """The ledger of published figures, `data/published.toml`, by id.

    >>> published()["fgsm-undefended"]["standing"]
    'V'
    """
    text = (data_folder() / "published.toml").read_text(encoding="utf-8")
    return {figure["id"]: figure for figure in tomllib.loads(text)["figure"]}


@dataclass(frozen=True)
class Comparison:
    """A published figure beside ours.

    Args:
        figure: a row of the ledger.
        value: what was measured, in the figure's unit.
        images: how many images that rests on; what else the figure counts, if it counts anything else.
        interval: its 95 % interval, in the same unit.
        ours: our set-up.
        differs: what our set-up differs in, if in anything.
        reason: where ours deviates in the published set-up, what explains it.
    """

    figure: dict
    value: float
    images: int
    interval: tuple[float, float]
    ours: str
    differs: str = ""
    reason: str = ""

    @property
    def outcome(self) -> str:
        """The verdict in a word, one of `OUTCOMES`: is ours within the tolerance that the ledger states?

        Another set-up reproduces nothing, an unsure figure is not judged, and to recompute is not to reproduce.
        """
        if self.figure["standing"] == "U":
            return "none"
        if self.differs:
            return "not comparable"
        if abs(self.value - self.figure["value"]) > self.figure["tolerance"]:
            return "deviates"
        return COMPUTED if self.figure.get("computed") else "reproduced"

    @property
    def verdict(self) -> str:
        """The outcome, with the gap and its tolerance, or with the reason why there is nothing to conclude."""
        tolerance, gap, word = self.figure["tolerance"], self.value - self.figure["value"], self.outcome
        if word == "none":
            return "none: the published figure is unsure"
        if word == "not comparable":
            return f"not comparable ({self.differs}); {self.amount(gap, sign='+')}"
        provisional = " (provisional)" if self.figure["standing"] == "M" else ""
        reason = f"; {self.reason}" if word == "deviates" and self.reason else ""
        return f"{word}{provisional}: {self.amount(gap, sign='+')}, tolerance {self.amount(tolerance)}{reason}"

    def amount(self, value: float, sign: str = "") -> str:
        """A value in the figure's unit; shares are differences, hence in points."""
        unit = self.figure.get("unit")
        return (
            f"{value:{sign}{',.0f' if abs(value) >= 100 else '.2g'}} {unit}"
            if unit
            else f"{100 * value:{sign}.1f} points"
        )

    def shown(self, value: float) -> str:
        """A value in the figure's unit; a share in percent."""
        return amount_of(self.figure, value)


def comparison_table(comparisons: Iterable[Comparison]) -> str:
    """Published beside measured as a Markdown table, with set-ups, interval, verdict, source and standing."""
    return "\n".join([*COMPARISON_HEAD, *map(comparison_line, comparisons)])


COMPARISON_HEAD = ("| published | | measured here | | verdict | source (standing) |", "|---|---:|---|---:|---|---|")


def comparison_line(row: Comparison, *, mark: str = "") -> str:
    """One line of `comparison_table`; `mark` stands behind the source."""
    low, high = map(row.shown, row.interval)
    interval = f", 95 % interval {low} to {high}" if low != high else ""
    rests_on = "computed" if row.figure.get("computed") else f"{sample(row.images, row.figure['images'])}{interval}"
    return figure_line(row.figure, f"{row.ours} | {row.shown(row.value)} ({rests_on})", row.verdict, mark=mark)


def sample(images: int, stated: int) -> str:
    """How many images a figure rests on, and how many the ledger states where that is another number.

    >>> sample(900, 900), sample(100, 900), sample(50, 1)
    ('n = 900', 'n = 100 of the 900 stated', 'n = 50, stated 1')
    """
    if images == stated:
        return f"n = {images:,}"
    return f"n = {images:,} of the {stated:,} stated" if images < stated else f"n = {images:,}, stated {stated:,}"


def missing_line(figure: dict, *, mark: str = "") -> str:
    """The line of a figure without a measured counterpart, with the reason if the ledger gives one."""
    reason = f": {figure['missing']}" if "missing" in figure else ""
    return figure_line(figure, "– | –", f"no measured counterpart{reason}", mark=mark)


def figure_line(figure: dict, measured: str, verdict: str, *, mark: str = "") -> str:
    """A published figure as a line, beside two cells of what was measured, and the verdict."""
    return (
        f"| {figure['metric']}: {figure['setup']} | {amount_of(figure, figure['value'])} | {measured} "
        f"| {verdict} | {figure['source']} ({figure['standing']}){mark} |"
    )


def amount_of(figure: dict, value: float) -> str:
    """A value in the figure's unit; a share in percent."""
    unit = figure.get("unit")
    return f"{value:{',.0f' if value >= 10_000 else '.4g'}} {unit}" if unit else f"{100 * value:.1f} %"
