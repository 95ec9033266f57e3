"""The pictures of an explorable for each place of its controls, drawn beforehand, so that they need no kernel later."""

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ipywidgets import Checkbox, FloatSlider, IntSlider, ValueWidget
from PIL import Image

from spai_lab.checks import check_count
from spai_lab.widgets.explorable import SLIDERS, Explorable

MOST_FRAMES = 120
MAIN_PLACES = 20  # of the main slider where another control lives beside it
FEWEST_PLACES = 4  # a slider with fewer is no slider; such a control stays where it is


@dataclass(frozen=True)
class Control:
    """A control of an explorable: what is written beside it, whether it slides, and what it says at first.

    Args:
        name: by which `render` knows its value.
        label: what is written beside it.
        slides: whether its values have an order.
        said: the value at first, as the reader sees it.
        offered: how many values the lab offers.
        kept: how many of them were drawn; 1 where it stays as it is.
    """

    name: str
    label: str
    slides: bool
    said: str
    offered: int
    kept: int


@dataclass(frozen=True)
class Frame:
    """A picture of an explorable: what the live controls say, its file, and its words."""

    says: tuple[str, ...]
    file: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Frames:
    """All that a page needs of an explorable.

    Args:
        live: the controls that were walked over, in the explorable's order.
        fixed: the others.
        frames: at least one picture.
        landings: pairs: the words of the first few live controls, of which the last was moved, and then those of all
            live controls. A control that offers other values after that begins there.
        start: which frame is that of the explorable as it opens.
        size: width and height of the picture at the start, in pixels.
    """

    live: tuple[Control, ...]
    fixed: tuple[Control, ...]
    frames: tuple[Frame, ...]
    landings: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    start: int
    size: tuple[int, int]


def sayings(control: ValueWidget) -> list[str]:
    """The values that a control offers, as the reader sees them.

    >>> sayings(IntSlider(min=2, max=4)), sayings(FloatSlider(min=0, max=0.2, step=0.1))
    (['2', '3', '4'], ['0.00', '0.10', '0.20'])
    """
    if hasattr(control, "options"):
        return [option[0] if isinstance(option, tuple) else str(option) for option in control.options]
    return [said(control, value) for value in values(control)]


def values(control: ValueWidget) -> list:
    """The values that a control without options offers."""
    if isinstance(control, Checkbox):
        return [False, True]
    if isinstance(control, IntSlider):
        return list(range(control.min, control.max + 1, control.step))
    if isinstance(control, FloatSlider):
        steps = round((control.max - control.min) / control.step)
        return [control.min + step * control.step for step in range(steps + 1)]
    return [control.value]


def said(control: ValueWidget, value: object) -> str:
    """A value of a control without options, as the reader sees it."""
    if isinstance(control, Checkbox):
        return "yes" if value else "no"
    return format(value, control.readout_format) if isinstance(control, SLIDERS) else str(value)


def place_of(control: ValueWidget) -> int:
    """Which of its values a control has."""
    if hasattr(control, "options"):
        return control.index
    return min(range(len(values(control))), key=lambda place: abs(values(control)[place] - control.value))


def move(control: ValueWidget, place: int) -> None:
    """Give a control one of its values, as a reader who moves it."""
    if hasattr(control, "options"):
        control.index = place
    else:
        control.value = values(control)[place]


def thinned(count: int, most: int, keep: int) -> list[int]:
    """At most `most` of `count` places, 3 or more, evenly spread, both ends and `keep` among them.

    >>> thinned(5, 9, 0), thinned(100, 7, 0), thinned(28, 5, 14)
    ([0, 1, 2, 3, 4], [0, 16, 33, 50, 66, 82, 99], [0, 7, 14, 20, 27])
    >>> thinned(28, 5, 1)
    [0, 1, 14, 20, 27]
    """
    if count <= most:
        return list(range(count))
    places = [round(step * (count - 1) / (most - 1)) for step in range(most)]
    if keep not in places:
        places[min(range(1, most - 1), key=lambda step: abs(places[step] - keep))] = keep
    return sorted(places)


def shares(explorable: Explorable, most: int = MOST_FRAMES) -> dict[str, int]:
    """How many places of each control to draw, at most `most` frames in all; controls that are left out stay fixed.

    The last slider is the main one. It gets all its places, or 20 where that lets another control live beside it.
    What is left goes to the others, from the last to the first: menus whole or not at all, sliders thinned where they
    must be. Controls that need a computation stay, and so do those whose two ends show the same picture.

    Args:
        explorable: as it opens.
        most: how many frames there may be, at least 1.
    Returns:
        name of each live control to the number of its places, in the explorable's order.
    Raises:
        ValueError: `most` is not a positive integer.
    """
    check_count("most", most)
    cheap = {name: control for name, control in explorable.controls.items() if name not in explorable.slow}
    controls = {name: control for name, control in cheap.items() if shows(explorable, control)}
    whole, beside = (shared(controls, most, main) for main in (most, min(most, MAIN_PLACES)))
    return beside if len(beside) > 1 else whole


def shows(explorable: Explorable, control: ValueWidget) -> bool:
    """Whether the two ends of a control show different pictures; afterwards it is where it was."""
    home, pictures = places(explorable), set()
    for place in (0, len(sayings(control)) - 1):
        move(control, place)
        pictures.add(explorable.png)
    put_back(explorable, home)
    return len(pictures) > 1


def places(explorable: Explorable) -> dict[str, int]:
    """Where each control of an explorable is."""
    return {name: place_of(control) for name, control in explorable.controls.items()}


def put_back(explorable: Explorable, home: Mapping[str, int]) -> None:
    """Put the controls back; twice, since the range of one may hang on another that comes back after it."""
    for name, place in [*home.items(), *home.items()]:
        if place < len(sayings(explorable.controls[name])):
            move(explorable.controls[name], place)


def shared(controls: Mapping[str, ValueWidget], most: int, main: int) -> dict[str, int]:
    """As `shares`, with at most `main` places of the main slider."""
    sliders = [name for name, control in controls.items() if isinstance(control, SLIDERS)]
    menus = [name for name in controls if name not in sliders]
    left, given = most, {}
    for name in [*sliders[-1:], *reversed(menus), *reversed(sliders[:-1])]:
        offered = len(sayings(controls[name]))
        allowed = min(left, main) if name in sliders[-1:] else left
        share = min(offered, allowed) if name in sliders else offered
        if share < 2 or share > left or share < min(offered, FEWEST_PLACES):
            continue
        given[name], left = share, left // share
    return {name: given[name] for name in controls if name in given}


def draw(
    explorable: Explorable,
    keep: Callable[[str, bytes], None],
    *,
    most: int = MOST_FRAMES,
    progress: Callable[[], object] = lambda: None,
) -> Frames:
    """Walk over the controls of an explorable and keep each picture; afterwards it is as it was.

    Args:
        explorable: as it opens.
        keep: `keep(name, png)` gets each picture that differs from those before.
        most: how many frames there may be, at least 1.
        progress: called after each frame.
    Returns:
        the frames.
    Raises:
        ValueError: `most` is not a positive integer.
        RuntimeError: a place of the controls has no picture; says which.
    """
    given = shares(explorable, most)
    controls = {name: described(name, control, given.get(name, 1)) for name, control in explorable.controls.items()}
    first = words(explorable, given)
    size = Image.open(io.BytesIO(explorable.png)).size
    landings: dict[tuple[str, ...], tuple[str, ...]] = {}
    frames: list[Frame] = []
    kept: set[str] = set()
    for wanted in walk(explorable, given, landings):
        if words(explorable, given) != wanted:
            continue  # a control moved on another one's account: the lab does not reach this place
        name = f"{hashlib.sha256(explorable.png).hexdigest()[:20]}.webp"
        if name not in kept:
            keep(name, explorable.png)
            kept.add(name)
        frames.append(Frame(wanted, name, explorable.alt, explorable.caption))
        progress()
    return Frames(
        tuple(controls[name] for name in given),
        tuple(control for name, control in controls.items() if name not in given),
        tuple(frames),
        tuple(landings.items()),
        next(place for place, frame in enumerate(frames) if frame.says == first),
        size,
    )


def described(name: str, control: ValueWidget, kept: int) -> Control:
    """A control as it stands now."""
    offered = sayings(control)
    return Control(
        name, control.description, isinstance(control, SLIDERS), offered[place_of(control)], len(offered), kept
    )


def words(explorable: Explorable, names: Sequence[str]) -> tuple[str, ...]:
    """What some controls say now."""
    controls = (explorable.controls[name] for name in names)
    return tuple(sayings(control)[place_of(control)] for control in controls)


def walk(
    explorable: Explorable, given: dict[str, int], landings: dict[tuple[str, ...], tuple[str, ...]]
) -> Iterator[tuple[str, ...]]:
    """Move the controls to each of their places in turn; yields the words that each place should show.

    A control may offer other values after one before it was moved. Behind each loop the control goes back to where it
    was, so that every round begins alike.
    """
    names = list(given)

    def onward(depth: int, before: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if depth == len(names):
            yield before
            return
        control, home = explorable.controls[names[depth]], places(explorable)
        offered = sayings(control)
        most = given[names[depth]] if isinstance(control, SLIDERS) else len(offered)
        for place in thinned(len(offered), most, home[names[depth]]):
            move(control, place)
            if explorable.failed:
                raise RuntimeError(f"{', '.join(words(explorable, names))}: {explorable.failed}")
            said = (*before, offered[place])
            if depth + 1 < len(names):
                landings[said] = words(explorable, names)
            yield from onward(depth + 1, said)
        put_back(explorable, home)

    yield from onward(0, ())


def as_webp(png: bytes) -> bytes:
    """A picture as WebP, every pixel as it was, about a third of the size."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, format="webp", lossless=True, quality=50, method=3)
    return buffer.getvalue()
