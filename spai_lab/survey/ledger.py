"""The ledger: figures that others published, each beside the one measured here, and what may be concluded."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass

from spai_lab.files import data_folder

OUTCOMES = ("reproduced", "deviates", "not comparable", "none")


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
        images: how many images that rests on.
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
        """The verdict in a word, one of `OUTCOMES`: is ours within the tolerance that the ledger stated before?

        Another set-up reproduces nothing, and an unsure figure is not judged.
        """
        if self.figure["standing"] == "U":
            return "none"
        if self.differs:
            return "not comparable"
        return "reproduced" if abs(self.value - self.figure["value"]) <= self.figure["tolerance"] else "deviates"

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
        return f"{value:{sign}.2g} {unit}" if unit else f"{100 * value:{sign}.1f} points"

    def shown(self, value: float) -> str:
        """A value in the figure's unit; a share in percent."""
        return amount_of(self.figure, value)


def comparison_table(comparisons: Iterable[Comparison]) -> str:
    """Published beside measured as a Markdown table, with set-ups, interval, verdict, source and standing."""
    return "\n".join([*COMPARISON_HEAD, *map(comparison_line, comparisons)])


COMPARISON_HEAD = ("| published | | measured here | | verdict | source (standing) |", "|---|---:|---|---:|---|---|")


def comparison_line(row: Comparison) -> str:
    """One line of `comparison_table`."""
    low, high = map(row.shown, row.interval)
    interval = f", 95 % interval {low} to {high}" if low != high else ""
    measured = f"{row.ours} | {row.shown(row.value)} (n = {row.images:,}{interval})"
    return figure_line(row.figure, measured, row.verdict)


def figure_line(figure: dict, measured: str, verdict: str) -> str:
    """A published figure as a line, beside two cells of what was measured, and the verdict."""
    return (
        f"| {figure['metric']}: {figure['setup']} | {amount_of(figure, figure['value'])} | {measured} "
        f"| {verdict} | {figure['source']} ({figure['standing']}) |"
    )


def amount_of(figure: dict, value: float) -> str:
    """A value in the figure's unit; a share in percent."""
    unit = figure.get("unit")
    return f"{value:.4g} {unit}" if unit else f"{100 * value:.1f} %"
