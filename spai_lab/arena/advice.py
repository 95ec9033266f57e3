"""What to try next, in sentences that are computed from what was measured."""

from typing import TYPE_CHECKING

from spai_lab.arena.opponents import HINTS
from spai_lab.metrics import Rate

if TYPE_CHECKING:
    from spai_lab.arena.result import Result

MOST = 3  # sentences
BLIND = "no slope is to be had: try patches of pixels, as Square does; where labels are all, a surrogate (chapter 04)"
USEFUL = 0.8  # of the clean images, below which a defense costs too much


def above(one: Rate, other: Rate) -> bool:
    """Whether one share is larger than another by more than chance: their intervals do not meet.

    >>> above(Rate(60, 64), Rate(10, 64)), above(Rate(60, 64), Rate(58, 64))
    (True, False)
    """
    return one.interval[0] > other.interval[1]


def advice_for_attack(result: "Result") -> tuple[str, ...]:
    """Where ours at the same access does better, and why that may be; else what would be worth a try."""
    behind = [row for row in result.rows if row.ours and above(row.left, row.ours)]
    behind.sort(key=lambda row: row.left.value - row.ours.value, reverse=True)
    blind = result.budget.startswith("black-box")  # then what is said of gradients would not help
    said = [
        f"On {row.name} yours leaves {100 * row.left.value:.0f} %, ours {100 * row.ours.value:.0f} %"
        + ("." if blind else f": {HINTS[row.name]}.")
        for row in behind[:MOST]
    ]
    if behind and blind:
        said.append(f"{BLIND[0].upper()}{BLIND[1:]}.")
    ahead = [row.name for row in result.rows if row.ours and above(row.ours, row.left)]
    if ahead:
        said.append(f"On {', '.join(ahead)} yours is ahead of ours: say what it does differently.")
    if not behind:
        hardest = max(result.rows, key=lambda row: row.left.value)
        said.append(
            f"Nowhere is it behind ours by more than chance. {hardest.name.capitalize()} holds best, with "
            f"{100 * hardest.left.value:.0f} %; then try the same with half the budget, or with labels alone."
        )
    return tuple(said)


def advice_for_defense(result: "Result") -> tuple[str, ...]:
    """What broke it, what that says, and how far it is from models that everybody knows."""
    whole, clean = result.survivors, result.rows[0].clean
    worst = min(result.rows, key=lambda row: row.left.value)
    kinds = {finding.kind for finding in result.found}
    said = [f"{worst.name} did the most harm and left {100 * worst.left.value:.0f} %: look at the images it turned."]
    if "masked gradient" in kinds or "misleading gradient" in kinds or "blind beats seeing" in kinds:
        said.append(
            "Your gradient hides the way, and does not close it. Take the step that has none out, and see what is left."
        )
    elif "randomized" in kinds:
        said.append("Draws are averaged away: more noise helps only if the network has learned with it (chapter 08).")
    elif whole.interval[1] < 0.5:
        said.append(
            "Nothing is hidden, little is left: train on adversarial images, longer, or with TRADES (chapter 08)."
        )
    if clean.value < USEFUL:
        said.append(
            f"On clean images it is right on {100 * clean.value:.0f} % only: that is the price to look at first."
        )
    for name, rate in result.others.items():
        if above(rate, whole):
            said.append(f"{name.capitalize()} keeps {100 * rate.value:.0f} % under the same attacks, yours less.")
        elif above(whole, rate):
            said.append(f"It keeps more than {name}, with {100 * rate.value:.0f} %, by more than chance.")
    return tuple(said)
