"""A question whose answers are counted: its options, or the ranges into which its numbers are sorted."""

import contextlib
import math
import re
from dataclasses import dataclass
from functools import cached_property

STEPS = (1.0, 2.0, 5.0)  # what a range's width may be, times a power of ten
MOST = 6  # ranges of equal width
WIDE = 100  # from which ratio of its bounds on a question is sorted by magnitude
WORDS = re.compile(r"a number from (\S+) to (\S+?)(?: (\S.*))?")


@dataclass(frozen=True)
class Question:
    """What is asked: one of some options, or a number from low to high."""

    key: str
    text: str
    options: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    unit: str = ""

    @property
    def choices(self) -> list[str]:
        """What may be answered, in words."""
        return [*self.options] or [f"a number from {self.low:g} to {self.high:g} {self.unit}".rstrip()]

    def parse(self, answer: str | None) -> str | float | None:
        """The option or the number (with or without its unit) that was entered; None if neither.

        Where the bounds allow two readings of it, that is neither.

        >>> Question("a", "", high=100).parse("2,5"), Question("b", "", high=5000).parse("2,500")
        (2.5, None)
        """
        if self.options:
            return answer if answer in self.options else None
        within = [value for value in readings(answer.strip().removesuffix(self.unit)) if self.low <= value <= self.high]
        return within[0] if len(within) == 1 else None

    @cached_property
    def edges(self) -> tuple[float, ...]:
        """Where the ranges of numbers begin and end; none for options."""
        return () if self.options else edges(self.low, self.high)

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """What is counted: the options, or the ranges of numbers in words.

        >>> Question("a", "", high=100, unit="%").rows
        ('under 20 %', '20 to under 40 %', '40 to under 60 %', '60 to under 80 %', '80 % or more')
        """
        if self.options:
            return self.options
        unit = f" {self.unit}" if self.unit else ""
        first, *inner, last = (
            (f"{low:,g}", f"{high:,g}") for low, high in zip(self.edges, self.edges[1:], strict=False)
        )
        return (
            f"under {first[1]}{unit}",
            *(f"{low} to under {high}{unit}" for low, high in inner),
            f"{last[0]}{unit} or more",
        )

    def row_of(self, answer: str | float) -> int | None:
        """The place of an answer's row; None for what is neither an option nor a number within the bounds.

        >>> Question("a", "", high=100).row_of(40), Question("a", "", high=100).row_of(100.5)
        (2, None)
        """
        if self.options or isinstance(answer, str):
            return self.options.index(answer) if answer in self.options else None
        if not self.low <= answer <= self.high:
            return None
        return min(sum(answer >= edge for edge in self.edges), len(self.edges) - 1) - 1


def readings(text: str) -> set[float]:
    """The numbers that a text may mean: a comma stands for a point, as in Germany or France, or it parts thousands.

    >>> readings("2,5"), sorted(readings("2,500")), readings("2,500.5"), readings("much")
    ({2.5}, [2.5, 2500.0], {2500.5}, set())
    """
    candidates = {text.replace(",", ".")}
    if re.fullmatch(r"\s*[1-9]\d{0,2}(,\d{3})+(\.\d+)?\s*", text):
        candidates.add(text.replace(",", ""))
    found = set()
    for candidate in candidates:
        with contextlib.suppress(ValueError):
            found.add(float(candidate))
    return found


def edges(low: float, high: float) -> tuple[float, ...]:
    """The ends of some ranges from low to high, round numbers inside: of equal width, or of equal ratio if far apart.

    Args:
        low: the least number.
        high: the largest, above `low`.
    Returns:
        at least three ends, so two ranges; the first is `low`, the last is `high`.
    Raises:
        ValueError: `high` is not above `low`.

    >>> edges(0, 100), edges(0, 16), edges(16, 5000)
    ((0, 20.0, 40.0, 60.0, 80.0, 100), (0, 5.0, 10.0, 16), (16, 30.0, 100.0, 300.0, 1000.0, 5000))
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"high is {high:g}; accepted: a finite number above low, {low:g}")
    if low > 0 and high / low >= WIDE:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        thirds = (1.0, 3.0) if len(decades) <= MOST else (1.0,)
        inner = [round(third * 10.0**decade, 9) for decade in decades for third in thirds]
        inner = [edge for edge in inner if 1.5 * low < edge < high / 1.8]
        return (low, *inner, high)
    magnitude = math.floor(math.log10(high - low)) - 1
    widths = (step * 10.0**power for power in (magnitude, magnitude + 1) for step in STEPS)
    width = next(width for width in widths if (high - low) / width <= MOST)
    first = math.floor(low / width) + 1
    inner = [round(place * width, 9) for place in range(first, math.ceil(high / width))]
    inner = [edge for edge in inner if low + width / 2 < edge < high - width / 2 + 1e-9]
    return (low, *(inner or [(low + high) / 2]), high)


def in_words(key: str, words: str) -> Question:
    """A question from the words that its cell shows where there is no widget.

    Args:
        key: under which its answers are kept.
        words: "Predict: " and the question, then a line "  ( ) " for each choice.
    Returns:
        the question.
    Raises:
        ValueError: these are not the words of a question.

    >>> in_words("a", "Predict: How many?\\n  ( ) a number from 0 to 200 %")
    Question(key='a', text='How many?', options=(), low=0.0, high=200.0, unit='%')
    """
    text, *lines = words.removeprefix("Predict: ").split("\n  ( ) ")
    with contextlib.suppress(ValueError):
        if words.startswith("Predict: ") and len(lines) > 1:
            return Question(key, text, options=tuple(lines))
        if words.startswith("Predict: ") and lines and (found := WORDS.fullmatch(lines[0])):
            return Question(key, text, low=float(found[1]), high=float(found[2]), unit=found[3] or "")
    raise ValueError(f"words is {words[:60]!r}; accepted: `Predict:`, a question, and its choices")
