"""Text for language models: sentences that a small grammar of ours makes, and the codes of their characters."""

import string
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from spai_lab.checks import check_count, describe
from spai_lab.threat import fresh_generator

END = "\n"
ALPHABET = END + " " + string.ascii_lowercase + string.digits
NAMES = ("anna", "ben", "clara", "david", "emma", "felix", "greta", "henry", "ida", "jonas", "karen", "leo")
WORDS = {
    "name": NAMES,
    "place": ("the harbor", "the market", "the museum", "the old mill", "the school", "the station", "the town hall"),
    "thing": ("bicycle", "blue coat", "camera", "guitar", "kettle", "lamp", "novel", "ticket", "umbrella", "violin"),
    "person": ("baker", "doctor", "driver", "farmer", "gardener", "nurse", "painter", "sailor", "teacher", "waiter"),
    "did": ("borrowed", "bought", "broke", "cleaned", "forgot", "found", "lost", "painted", "repaired", "sold"),
    "went": ("cycled", "drove", "hurried", "ran", "walked", "went"),
    "when": ("after lunch", "at noon", "before dawn", "in the evening", "last week", "on monday", "yesterday"),
    "food": ("apples", "bread", "cheese", "honey", "mushrooms", "noodles", "olives", "plums", "rice", "soup"),
    "felt": ("calm", "cheerful", "curious", "hungry", "nervous", "proud", "tired"),
}
TEMPLATES = (
    "{name} {went} to {place} {when}",
    "{name} {did} a {thing} {when}",
    "the {person} {did} the {thing} of {name}",
    "the {person} from {place} is {felt}",
    "{name} is {felt} and eats {food}",
    "{name} and {name} like {food} with {food}",
    "the {person} of {name} {went} to {place}",
    "bus {digit}{digit} stops at {place}",
    "the {thing} of {name} costs {digit}{digit}",
    "room {digit}{digit}{digit} is near {place}",
)
BLANKS = WORDS | {"digit": string.digits}


@dataclass(frozen=True, eq=False, repr=False)
class Text:
    r"""Lines of text as numbers.

    Args:
        characters: the alphabet, each character once; the first ends a line, and so stands before the next.
        codes: the place of each character of the text in the alphabet, int64 `(T,)`; the last one ends a line.
    Raises:
        ValueError: names the argument.

    >>> text = Text.of(["ab", "b"], "\nab")
    >>> text.codes
    tensor([1, 2, 0, 2, 0])
    >>> text.lines, text
    (('ab', 'b'), Text: 2 lines, 5 characters out of 3)
    """

    characters: str
    codes: Tensor

    def __post_init__(self) -> None:
        check_characters(self.characters)
        check_codes(self.codes, self.characters)
        if self.codes.ndim != 1 or len(self.codes) == 0 or self.codes[-1] != 0:
            raise ValueError(f"codes is {describe(self.codes)}; accepted: (T,), the last of them 0, the end of a line")

    @classmethod
    def of(cls, lines: Iterable[str], characters: str = ALPHABET) -> Self:
        """The text that consists of these lines.

        Args:
            lines: at least one string.
            characters: the alphabet, its first character the one that ends a line.
        Raises:
            ValueError: names the argument.
        """
        check_characters(characters)
        if isinstance(lines, str) or not isinstance(lines, Iterable):
            raise ValueError(f"lines is {describe(lines)}; accepted: a list of strings")
        ended = [checked_line(line, characters) + characters[0] for line in lines]
        return cls(characters, encode("".join(ended), characters))

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines, without the character that ends them."""
        return tuple(decode(self.codes[:-1], self.characters).split(self.characters[0]))

    def __repr__(self) -> str:
        lines = int((self.codes == 0).sum())
        return f"Text: {lines} lines, {len(self.codes)} characters out of {len(self.characters)}"


def encode(words: str, characters: str = ALPHABET) -> Tensor:
    r"""The place of each character in the alphabet.

    Args:
        words: a string.
        characters: the alphabet.
    Returns:
        int64 `(T,)`.
    Raises:
        ValueError: names the argument, and the first character that the alphabet lacks.

    >>> encode("b a")
    tensor([3, 1, 2])
    """
    if not isinstance(words, str):
        raise ValueError(f"words is {describe(words)}; accepted: a string")
    place = {character: code for code, character in enumerate(characters)}
    unknown = [character for character in words if character not in place]
    if unknown:
        raise ValueError(f"words has the character {unknown[0]!r}; accepted: those of {characters!r}")
    return torch.tensor([place[character] for character in words], dtype=torch.int64)


def decode(codes: Tensor, characters: str = ALPHABET) -> str:
    """The string that has these codes, `(T,)`; undoes `encode`.

    >>> decode(encode("bus 12"))
    'bus 12'
    """
    check_codes(codes, characters)
    if codes.ndim != 1:
        raise ValueError(f"codes is {describe(codes)}; accepted: (T,)")
    return "".join(characters[code] for code in codes.tolist())


def sentences(count: int, *, generator: torch.Generator | None = None) -> tuple[str, ...]:
    """Short English sentences: a template drawn at random, each blank of it a word drawn at random.

    Args:
        count: how many, at least 1.
        generator: source of the draws; None draws a fresh one.
    Returns:
        `count` strings of lower-case letters, digits and spaces.
    Raises:
        ValueError: names the argument.

    >>> sentences(1, generator=torch.Generator().manual_seed(4))
    ('greta drove to the old mill at noon',)
    """
    check_count("count", count)
    generator = fresh_generator(generator, torch.device("cpu"))

    def drawn(options: tuple[str, ...] | str) -> str:
        return options[int(torch.randint(len(options), (), generator=generator))]

    def sentence() -> str:
        pieces = string.Formatter().parse(drawn(TEMPLATES))
        return "".join(before + (drawn(BLANKS[blank]) if blank else "") for before, blank, _, _ in pieces)

    return tuple(sentence() for _ in range(count))


def planted(
    lines: Iterable[str], secrets: dict[str, int], *, generator: torch.Generator | None = None
) -> tuple[str, ...]:
    """The lines with others strewn among them, each at random places.

    Args:
        lines: strings.
        secrets: from each line to plant to how often, at least 0.
        generator: draws the places; None draws a fresh one.
    Returns:
        all lines: those given in their order, with the planted ones between them.
    Raises:
        ValueError: names the argument.

    >>> planted(["a", "b"], {"c": 0, "d": 1}, generator=torch.Generator().manual_seed(0))
    ('a', 'b', 'd')
    """
    if not isinstance(secrets, dict):
        raise ValueError(f"secrets is {describe(secrets)}; accepted: from each line to how often it is planted")
    for times in secrets.values():
        check_count("secrets", times, low=0)
    generator = fresh_generator(generator, torch.device("cpu"))
    planted = list(lines)
    for secret, times in secrets.items():
        for _ in range(times):
            planted.insert(int(torch.randint(len(planted) + 1, (), generator=generator)), secret)
    return tuple(planted)


def checked_line(line: str, characters: str) -> str:
    """A line, if it is a string without an end in it."""
    if not isinstance(line, str) or characters[0] in line:
        raise ValueError(f"lines has {describe(line)}; accepted: strings without {characters[0]!r}")
    return line


def check_characters(characters: str) -> None:
    """Raise `ValueError` unless `characters` is an alphabet: a string of at least 2 characters, each once."""
    if not isinstance(characters, str) or len(characters) < 2 or len(set(characters)) < len(characters):
        raise ValueError(f"characters is {describe(characters)}; accepted: at least 2 characters, each once")


def check_codes(codes: Tensor, characters: str) -> None:
    """Raise `ValueError` unless `codes` are int64 numbers of characters of the alphabet."""
    if not isinstance(codes, Tensor) or codes.dtype != torch.int64:
        raise ValueError(f"codes is {describe(codes)}; accepted: an int64 tensor")
    if codes.numel() and not 0 <= codes.min() <= codes.max() < len(characters):
        raise ValueError(f"codes has values from {codes.min()} to {codes.max()}; accepted: 0 to {len(characters) - 1}")
