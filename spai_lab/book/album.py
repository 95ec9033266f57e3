"""The explorables of an edition: found in the cells, drawn once, and kept from one build to the next."""

import ast
import hashlib
import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from spai_lab.book.frames import Control, Frame, Frames, as_webp, draw
from spai_lab.files import PACKAGE, data_folder, write_atomically
from spai_lab.widgets.explorable import Explorable

LONGEST_START = 60.0  # seconds that an explorable may take to open; a page shows what takes longer as it was stored
ALL_SLOW = "Each of its controls starts a computation, and a page cannot compute."
NONE_WANTED = "This edition was built without its other pictures."
SLOW_START = "It takes {:.0f} s to open, too long to draw it for a page."


@dataclass(frozen=True)
class Drawn:
    """An explorable of an edition: the call that shows it, its frames or why there are none, the seconds it took."""

    call: str
    frames: Frames | None = None
    still: str = ""
    seconds: float = 0.0


def last_call(source: str) -> str:
    """The call that a cell ends with, or nothing.

    >>> last_call("x = load()\\nmoons_explorer()"), last_call("x = 3"), last_call("%pip install x")
    ('moons_explorer()', '', '')
    """
    try:
        lines = ast.parse(source).body
    except SyntaxError:  # a line for IPython alone
        return ""
    shown = lines and isinstance(lines[-1], ast.Expr) and isinstance(lines[-1].value, ast.Call)
    return ast.unparse(lines[-1]) if shown else ""


def explorable_call(source: str) -> str:
    """The call that a cell ends with, if it is one of `spai_lab.widgets` that may open an explorable, else nothing.

    >>> explorable_call("moons_explorer()"), explorable_call("show_source(fgsm)"), explorable_call("load()")
    ('moons_explorer()', '', '')
    """
    from spai_lab import widgets

    call = last_call(source)
    name, _, arguments = call.partition("(")
    return call if name in widgets.__all__ and arguments in (")", "dataset=data.name)") else ""


def opened(call: str, dataset: str) -> Explorable:
    """What a chapter's cell shows, where `data` is this data set."""
    from spai_lab import widgets

    name, _, arguments = call.partition("(")
    return getattr(widgets, name)(**({"dataset": dataset} if arguments != ")" else {}))


def version(dataset: str, most: int) -> str:
    """What frames depend on: the package's sources, its weights and results, the data set, and how many are drawn.

    No explorable draws the survey's own rows, so that a new one leaves the frames as they are.
    """
    digest = hashlib.sha256(f"{most} ".encode())
    sources = (path for path in PACKAGE.rglob("*.py") if path.parent.name != "book" or path.name == "frames.py")
    kept = (path for path in data_folder().rglob("*") if path.is_file() and not path.name.startswith("survey_"))
    for path in sorted([*sources, *kept]):
        digest.update(f"{path.name} ".encode() + path.read_bytes())
    return f"{dataset}-{digest.hexdigest()[:16]}"


def album(folder: Path, dataset: str, most: int) -> Path:
    """Where the frames of this version are kept; those of the same data and another version are removed.

    Args:
        folder: where the frames of all versions lie.
        dataset: "digits" or "mnist".
        most: how many frames an explorable may have.
    """
    place = Path(folder) / version(dataset, most)
    for other in Path(folder).glob(f"{dataset}-*"):
        if other != place:
            shutil.rmtree(other)
    place.mkdir(parents=True, exist_ok=True)
    return place


def drawn(call: str, dataset: str, place: Path, most: int) -> Drawn:
    """An explorable's frames: those that are kept, else drawn now and kept. Interrupted, whatever is whole stays.

    Args:
        call: as `explorable_call` finds it.
        dataset: "digits" or "mnist".
        place: the folder of this version, as `album` gives it.
        most: how many frames it may have; with 0 it stays as it was stored.
    Returns:
        the frames, or why there are none; its pictures lie in `place`.
    Raises:
        RuntimeError: a place of the controls has no picture.
    """
    began = time.monotonic()
    record = place / f"{call.partition('(')[0]}.json"
    if (kept := read(record, call)) is None:
        kept = draw_now(call, dataset, place, most)
        write_atomically(record, json.dumps(asdict(kept), ensure_ascii=False).encode())
    return replace(kept, seconds=time.monotonic() - began)


def draw_now(call: str, dataset: str, place: Path, most: int) -> Drawn:
    """As `drawn`, whatever is kept."""
    if most == 0:
        return Drawn(call, still=NONE_WANTED)
    began = time.monotonic()
    explorable = opened(call, dataset)
    opening = time.monotonic() - began
    if opening > LONGEST_START:
        return Drawn(call, still=SLOW_START.format(opening))
    if explorable.slow >= explorable.controls.keys():
        return Drawn(call, still=ALL_SLOW)

    def keep(file: str, png: bytes) -> None:
        if not (place / file).exists():
            write_atomically(place / file, as_webp(png))

    frames = draw(explorable, keep, most=most)
    explorable.close()
    return Drawn(call, frames)


def read(record: Path, call: str) -> Drawn | None:
    """What `drawn` kept; None where it is not there, not whole, or of another call."""
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
        frames = kept["frames"] and of_json(kept["frames"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if kept["call"] != call or (frames and not all((record.parent / f.file).exists() for f in frames.frames)):
        return None
    return Drawn(call, frames, kept["still"])


def of_json(kept: dict) -> Frames:
    """Frames, as `asdict` and JSON left them."""
    return Frames(
        live=tuple(Control(**control) for control in kept["live"]),
        fixed=tuple(Control(**control) for control in kept["fixed"]),
        frames=tuple(Frame(tuple(f["says"]), f["file"], f["alt"], f["caption"]) for f in kept["frames"]),
        landings=tuple((tuple(moved), tuple(says)) for moved, says in kept["landings"]),
        start=kept["start"],
        size=tuple(kept["size"]),
    )
