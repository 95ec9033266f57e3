"""What may be concluded from a measured figure beside a published one."""

import numpy as np

from spai_lab.checks import describe
from spai_lab.exercises.chapter_16.intervals import CHAPTER
from spai_lab.exercises.exercise import Exercise, Fault, call
from spai_lab.survey.ledger import COMPUTED, OUTCOMES, Comparison

WORDS = tuple(word for word in OUTCOMES if word != COMPUTED)  # of what is measured


def my_verdict(published, measured, tolerance, standing, differs):
    """What may be concluded from a measured figure beside a published one.

    published, measured: two numbers in the same unit.
    tolerance: how far apart they may be; stated before anything was measured.
    standing: "V" read in the source, "M" known from memory, "U" unsure.
    differs: what our set-up differs in, in words; "" if in nothing.
    Returns "reproduced", "deviates", "not comparable", or "none" for no verdict.
    """
    if standing == "U":
        return "none"
    if differs:
        return "not comparable"
    return "reproduced" if abs(measured - published) <= tolerance else "deviates"


def outcome(published, measured, tolerance, standing, differs) -> str:
    """The ledger's own verdict."""
    figure = {"value": published, "tolerance": tolerance, "standing": standing}
    return Comparison(figure, measured, 1, (measured, measured), "", differs).outcome


def judges_the_unsure(published, measured, tolerance, standing, differs):
    """It judges a figure of standing U: whoever is not sure what was published cannot say whether it was reproduced."""
    return outcome(published, measured, tolerance, "V", differs)


def judges_another_set_up(published, measured, tolerance, standing, differs):
    """It compares figures of two set-ups: on other data or another network even equal numbers reproduce nothing."""
    return outcome(published, measured, tolerance, standing, "")


def excuses_what_deviates(published, measured, tolerance, standing, differs):
    """It blames the set-up only where the figures are apart, and takes what fits for reproduced: that is picking."""
    found = outcome(published, measured, tolerance, standing, "")
    return "not comparable" if found == "deviates" and differs else found


def takes_better_for_reproduced(published, measured, tolerance, standing, differs):
    """It takes a figure above the published one for reproduced, however far above; too good deviates as well."""
    return outcome(published, min(measured, published), tolerance, standing, differs)


def forgives_what_is_below(published, measured, tolerance, standing, differs):
    """It takes a figure below the published one for reproduced, however far below: the gap's absolute value counts."""
    return outcome(published, max(measured, published), tolerance, standing, differs)


def takes_shares_of_the_figure(published, measured, tolerance, standing, differs):
    """It takes the tolerance for a share of the published figure; it is in the figure's own unit."""
    return outcome(published, measured, tolerance * abs(published), standing, differs)


def leaves_the_tolerance_out(published, measured, tolerance, standing, differs):
    """A gap that is just the tolerance is within it: `<=`, not `<`."""
    return outcome(published, measured, tolerance - 1e-12, standing, differs)


def rejects_memory(published, measured, tolerance, standing, differs):
    """It gives no verdict to figures of standing M; theirs is provisional, and still one of the four."""
    return outcome(published, measured, tolerance, "U" if standing == "M" else standing, differs)


def comparisons() -> list[dict]:
    """Figures with gaps that are exact in binary, each kind of standing and of set-up."""
    names = ("published", "measured", "tolerance", "standing", "differs")
    rows = (
        (0.875, 0.9375, 0.125, "V", ""),
        (0.875, 0.75, 0.125, "V", ""),
        (0.5, 0.4375, 0.125, "V", ""),
        (0.5, 0.125, 0.25, "V", ""),
        (0.25, 0.75, 0.125, "V", ""),
        (64.0, 48.0, 2.0, "V", ""),
        (0.5, 0.5, 0.125, "U", ""),
        (0.5, 0.5, 0.125, "U", "another network"),
        (0.75, 0.75, 0.125, "V", "other data"),
        (0.75, 0.25, 0.125, "V", "other data"),
        (0.5, 0.5625, 0.125, "M", ""),
    )
    return [dict(zip(names, row, strict=True)) for row in rows]


def place_of(answer, **case: object) -> int:
    """Which of the four words it returns, by number.

    Raises:
        Fault: it is none of them.
    """
    word = call(answer, **case)
    if word not in WORDS:
        accepted = ", ".join(f'"{each}"' for each in WORDS)
        raise Fault(f"It returns {describe(word)}; expected one of {accepted}.")
    return WORDS.index(word)


def other_word(result: np.ndarray, published, measured, tolerance, standing, differs) -> str:
    """The case, the word that came, and the right one."""
    right = outcome(published, measured, tolerance, standing, differs)
    set_up = f"set-up differs in {differs}" if differs else "same set-up"
    return (
        f"Published {published:g} (standing {standing}), measured {measured:g}, tolerance {tolerance:g}, {set_up}: "
        f'it says "{WORDS[int(result)]}"; expected "{right}".'
    )


verdict = Exercise(
    chapter=CHAPTER,
    task=r"""
        **May you say "reproduced"?** A figure was published, you measured your own. Write
        `my_verdict(published, measured, tolerance, standing, differs)`, which returns one of four words:
        "none" where the published figure is unsure (standing "U"); else "not comparable" where your set-up differs in
        anything; else "reproduced" where the two are at most `tolerance` apart, and "deviates" where they are not.
        Where your figure is *better* than the published one, the same rules hold.
    """,
    solution=my_verdict,
    truth=lambda **case: WORDS.index(outcome(**case)),
    cases=comparisons,
    tested="eleven figures: gaps of both signs, within, at and beyond the tolerance, each standing, two set-ups",
    hints=(
        "In which order do the questions come? An unsure figure is never judged, whatever else holds.",
        "`differs` is a text, and an empty text counts as false.",
        "How far apart two numbers are has no sign: `abs`.",
    ),
    mistakes=(
        judges_the_unsure,
        judges_another_set_up,
        excuses_what_deviates,
        takes_better_for_reproduced,
        forgives_what_is_below,
        takes_shares_of_the_figure,
        leaves_the_tolerance_out,
        rejects_memory,
    ),
    call=place_of,
    look=other_word,
)
