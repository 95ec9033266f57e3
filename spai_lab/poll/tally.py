"""Counts of a class's answers, and what they say."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from spai_lab.checks import check_count, describe
from spai_lab.poll.question import Question

ROUNDS = ("first count", "after discussion")


@dataclass(frozen=True)
class Tally:
    """How many of a class chose what.

    Args:
        question: what was asked.
        rounds: the counts of the first show of hands, a number for each of `question.rows`, and those of the second.
        right: the place of the row that turned out right, once it is known.
        middle: the median of numbers that are known one by one.
        other: answers that are none of the choices; they are in no count.
    Raises:
        ValueError: no round or more than two, counts that do not fit the rows, or no such row.
    """

    question: Question
    rounds: tuple[tuple[int, ...], ...]
    right: int | None = None
    middle: float | None = field(default=None, kw_only=True)
    other: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        rows = len(self.question.rows)
        if not 1 <= len(self.rounds) <= len(ROUNDS) or any(len(counts) != rows for counts in self.rounds):
            raise ValueError(f"rounds is {describe(self.rounds)}; accepted: one count or two, each of {rows} numbers")
        for count in (count for counts in self.rounds for count in counts):
            check_count("rounds", count, low=0)
        if self.right is not None and not 0 <= self.right < rows:
            raise ValueError(f"right is {self.right}; accepted: the place of a row, 0 to {rows - 1}")

    @property
    def answers(self) -> tuple[int, ...]:
        """How many answered, in each round."""
        return tuple(map(sum, self.rounds))


def letter(place: int) -> str:
    """What a row is called in the hall.

    >>> letter(0), letter(4), letter(26)
    ('A', 'E', 'A2')
    """
    again, within = divmod(place, 26)
    return chr(ord("A") + within) + (str(again + 1) if again else "")


def count_answers(question: Question, answers: Iterable[str | float]) -> Tally:
    """Count answers that are known one by one.

    Args:
        question: what was asked.
        answers: an option each, or a number.
    Returns:
        the counts of one round; what is no choice of the question is counted apart.

    >>> tally = count_answers(Question("a", "How many?", high=10), [1, 1.5, 9, "much"])
    >>> tally.rounds, tally.middle, tally.other
    (((2, 0, 0, 0, 1),), 1.5, 1)
    """
    counts, numbers, other = [0] * len(question.rows), [], 0
    for answer in answers:
        row = question.row_of(answer)
        if row is None:
            other += 1
        else:
            counts[row] += 1
            numbers += [] if question.options else [float(answer)]
    return Tally(question, (tuple(counts),), middle=median(numbers) if numbers else None, other=other)


def pasted(question: Question, text: str) -> tuple[tuple[int, ...], list[str]]:
    """Counts of numbers that were typed or pasted, between them spaces, semicolons or line ends.

    Args:
        question: what was asked, a number.
        text: the numbers.
    Returns:
        the counts, and what is no number within the bounds.

    >>> pasted(Question("a", "How many?", high=100, unit="%"), "10 2,5; 99 %\\n150")
    ((2, 0, 0, 0, 1), ['150'])
    """
    if question.unit:
        text = text.replace(question.unit, " ")
    counts, refused = [0] * len(question.rows), []
    for word in text.replace(";", " ").split():
        number = question.parse(word)
        if number is None:
            refused.append(word)
        else:
            counts[question.row_of(number)] += 1
    return tuple(counts), refused


def share(count: int, total: int) -> str:
    """A count and its share of all.

    >>> share(12, 30), share(0, 0)
    ('12 of 30 (40 %)', '0 of 0')
    """
    return f"{count} of {total}" + (f" ({100 * count / total:.0f} %)" if total else "")


def verdict(tally: Tally) -> str:
    """Who had it right, once that is known; empty where it is not, or where nobody answered.

    >>> question = Question("a", "Which?", options=("up", "down"))
    >>> verdict(Tally(question, ((4, 6), (9, 1)), right=0))
    'Right is A: up. 4 of 10 (40 %) had it, after discussion 9 of 10 (90 %).'
    >>> verdict(Tally(question, ((0, 0), (9, 1)), right=0))
    'Right is A: up. After discussion 9 of 10 (90 %) had it.'
    """
    if tally.right is None or not any(tally.answers):
        return ""
    counted = zip(("", "after discussion "), tally.rounds, tally.answers, strict=False)
    shares = [f"{when}{share(counts[tally.right], total)}" for when, counts, total in counted if total]
    said = ", ".join([f"{shares[0]} had it", *shares[1:]])
    return f"Right is {letter(tally.right)}: {tally.question.rows[tally.right]}. {said[0].upper()}{said[1:]}."


def in_words(tally: Tally) -> str:
    """The whole picture for somebody who does not see it.

    >>> in_words(Tally(Question("a", "Which?", options=("up", "down")), ((4, 6),)))
    'Bars of the votes, first count of 10: A, up: 4; B, down: 6.'
    """
    named = [f"{letter(place)}, {row}" for place, row in enumerate(tally.question.rows)]
    counted = [
        f"{name} of {total}: " + "; ".join(f"{row}: {count}" for row, count in zip(named, counts, strict=True))
        for name, counts, total in zip(ROUNDS, tally.rounds, tally.answers, strict=False)
    ]
    return f"Bars of the votes, {'. '.join(counted)}. {verdict(tally)}".rstrip()


def fits(question: Question, rounds: Sequence[Sequence[int]]) -> bool:
    """Whether counts from a file are counts for this question, whose options may have changed since.

    >>> question = Question("a", "Which?", options=("up", "down"))
    >>> fits(question, [[1, 2]]), fits(question, [[1, 2, 3]]), fits(question, [[1, -2]]), fits(question, "x")
    (True, False, False, False)
    """
    try:
        Tally(question, tuple(tuple(counts) for counts in rounds))
    except (TypeError, ValueError):
        return False
    return True
