"""The ledger: figures that others published, each beside the one measured here, and what may be concluded."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass

from spai_lab.files import data_folder


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
    """

    figure: dict
    value: float
    images: int
    interval: tuple[float, float]
    ours: str
    differs: str = ""

    @property
    def verdict(self) -> str:
        """Whether ours is within the tolerance that the ledger stated before; another set-up reproduces nothing."""
        if self.figure["standing"] == "U":
            return "none: the published figure is unsure"
        tolerance, gap = self.figure["tolerance"], self.value - self.figure["value"]
        within = "inside" if abs(gap) <= tolerance else "outside"
        if self.differs:
            return f"not comparable ({self.differs}); {self.amount(gap, sign='+')}"
        word = {"inside": "reproduced", "outside": "deviates"}[within]
        provisional = " (provisional)" if self.figure["standing"] == "M" else ""
        return f"{word}{provisional}: {self.amount(gap, sign='+')}, tolerance {self.amount(tolerance)}"

    def amount(self, value: float, sign: str = "") -> str:
        """A value in the figure's unit; shares are differences, hence in points."""
        unit = self.figure.get("unit")
        return f"{value:{sign}.2g} {unit}" if unit else f"{100 * value:{sign}.1f} points"

    def shown(self, value: float) -> str:
        """A value in the figure's unit; a share in percent."""
        unit = self.figure.get("unit")
        return f"{value:.4g} {unit}" if unit else f"{100 * value:.1f} %"


def comparison_table(comparisons: Iterable[Comparison]) -> str:
    """Published beside measured as a Markdown table, with set-ups, interval, verdict, source and standing."""
    lines = ["| published | | measured here | | verdict | source (standing) |", "|---|---:|---|---:|---|---|"]
    for row in comparisons:
        figure, (low, high) = row.figure, map(row.shown, row.interval)
        interval = f", 95 % interval {low} to {high}" if low != high else ""
        lines.append(
            f"| {figure['metric']}: {figure['setup']} | {row.shown(figure['value'])} "
            f"| {row.ours} | {row.shown(row.value)} (n = {row.images:,}{interval}) "
            f"| {row.verdict} | {figure['source']} ({figure['standing']}) |"
        )
    return "\n".join(lines)
