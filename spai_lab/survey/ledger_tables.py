"""The ledger as a frame: a line for each published figure and each of its counterparts, numbers in plain digits."""

import math
from collections.abc import Sequence

import pandas as pd

from spai_lab.survey.ledger import LEGEND, TOGETHER, Comparison, amount_of, published
from spai_lab.survey.totals import ledger

COLUMNS = (
    "figure", "published", "measured", "gap", "tolerance", "95 %", "n", "verdict", "reason", "standing", "source",
)  # fmt: skip
UNMEASURED = "not measured"
UNSURE = "the published figure is unsure"


def ledger_frame(comparisons: Sequence[Comparison] | None = None) -> pd.DataFrame:
    """The whole ledger: every published figure, and beside it what was measured, or that nothing was.

    Args:
        comparisons: what was measured; the whole ledger if None.
    Returns:
        a line for each figure and counterpart, in the order of `data/published.toml`: `figure` (metric and set-up),
        `published`, `measured`, `gap` and `tolerance`, of shares in points; `95 %`; `n`, empty of what was computed;
        `verdict` in one or two words; the `reason` (what ours differs in, what explains a deviation, or why nothing was
        measured); `standing`, whose letters and mark the caption explains, and `source`.

    >>> ledger_frame([]).verdict.unique().tolist()
    ['not measured']
    """
    comparisons = ledger() if comparisons is None else comparisons
    lines = []
    for name, figure in published().items():
        found = [compared(each) for each in comparisons if each.figure["id"] == name]
        lines.extend(found or [alone(figure)])
    return pd.DataFrame(lines, columns=list(COLUMNS)).astype({"n": "Int64"})


def ledger_in_words(comparisons: Sequence[Comparison] | None = None) -> str:
    """The caption of `ledger_frame`.

    >>> ledger_in_words([]).split(":")[0].split(" lines")[0] == str(len(published()))
    True
    """
    lines, figures = len(ledger_frame(comparisons)), len(published())
    several = ", since a figure may have several counterparts" if lines > figures else ""
    return (
        f"{lines} lines for {figures} published figures{several}: published beside measured, with the tolerance and "
        f"what our set-up differs in. {LEGEND}"
    )


def compared(each: Comparison) -> dict:
    """A figure and a counterpart as a line."""
    return alone(each.figure) | {
        "measured": each.shown(each.value),
        "gap": gap_of(each),
        "95 %": interval_of(each),
        "n": None if each.figure.get("computed") else each.images,
        "verdict": each.outcome,
        "reason": reason_of(each),
    }


def alone(figure: dict) -> dict:
    """A figure without a counterpart as a line."""
    return dict.fromkeys(COLUMNS, "") | {
        "figure": f"{figure['metric']}: {figure['setup']}",
        "published": amount_of(figure, figure["value"]),
        "tolerance": difference(figure, figure["tolerance"]),
        "n": None,
        "verdict": UNMEASURED,
        "reason": figure.get("missing", ""),
        "standing": f"{figure['standing']} {TOGETHER}" if figure.get("stated") == "with" else figure["standing"],
        "source": figure["source"],
    }


def reason_of(each: Comparison) -> str:
    """Why a figure is not reproduced; empty where it is."""
    return {"none": UNSURE, "not comparable": each.differs, "deviates": each.reason}.get(each.outcome, "")


def interval_of(each: Comparison) -> str:
    """The 95 % interval of ours; empty where there is none."""
    low, high = each.interval
    start = each.shown(low).removesuffix(each.figure.get("unit") or "%").strip()
    return "" if low == high else f"{start} to {each.shown(high)}"


def gap_of(each: Comparison) -> str:
    """How far ours lies above the published figure, or below it."""
    return difference(each.figure, each.value - each.figure["value"], sign=True)


def difference(figure: dict, value: float, *, sign: bool = False) -> str:
    """A difference in the figure's unit, of shares in points.

    >>> difference({"unit": "s"}, -242.09, sign=True), difference({}, 0.0123, sign=True), difference({}, 0.0, sign=True)
    ('-242 s', '+1.23 points', '0 points')
    """
    unit = figure.get("unit")
    return f"{plain(value if unit else 100 * value, sign)} {unit or 'points'}"


def plain(value: float, sign: bool = False) -> str:
    """Three digits without an exponent; zero has no sign.

    >>> plain(1234.5), plain(0.00150), plain(-0.0, True), plain(4.0, True)
    ('1,234', '0.0015', '0', '+4')
    """
    if abs(value) < 1e-12:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:{'+' if sign else ''},.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits else text
