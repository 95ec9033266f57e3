"""What `spai-lab poll` does: a class's predictions, counted from the files that the students hand in."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

FORMATS = (".pdf", ".svg", ".png")


def add_options(sub: ArgumentParser) -> None:
    """The command's arguments."""
    sub.add_argument("places", nargs="+", type=Path, metavar="PLACE", help="a progress.json, or a folder of them")
    sub.add_argument(
        "--chapter",
        action="append",
        default=[],
        metavar="NAME",
        help="how its name begins, such as 02; may be repeated",
    )
    sub.add_argument("--figure", type=Path, metavar="FILE", help="draw the votes there: .pdf, .svg or .png")
    sub.add_argument("--csv", type=Path, metavar="FILE", help="write the counts there")
    sub.add_argument("--small", action="store_true", help="show questions with fewer than three answers, too")
    sub.add_argument("--notebooks", type=Path, metavar="FOLDER", help="of the chapters; the project's if left out")


def run(options: Namespace) -> int:
    """Count, print, draw; the status is 1 where nothing could be counted."""
    from spai_lab.files import write_atomically
    from spai_lab.poll.book import book
    from spai_lab.poll.handed_in import collect
    from spai_lab.poll.report import count, drawn, is_shown, report, to_csv
    from spai_lab.workbook import notebooks_folder

    for name in ("figure", "csv"):
        path = getattr(options, name)
        accepted = FORMATS if name == "figure" else (".csv",)
        if path and path.suffix.lower() not in accepted:
            raise ValueError(f"{name} is {path.name}; accepted: a file that ends in {', '.join(accepted)}")
    chapters = book(options.notebooks or notebooks_folder(), options.chapter)
    handed_in = collect(options.places)
    for path, reason in handed_in.left_out:
        print(f"left out: {printable(path)}: {reason}", file=sys.stderr)
    tallies = count(chapters, handed_in.answers)
    print(report(chapters, tallies, handed_in, small=options.small))
    shown = {key: tally for key, tally in tallies.items() if is_shown(tally, small=options.small)}
    if options.csv:
        write_atomically(options.csv, to_csv(chapters, shown).encode())
        print(f"The counts are in {options.csv}.")
    if options.figure and shown:
        write_atomically(options.figure, drawn(list(shown.values()), options.figure.suffix.lower()[1:]))
        print(f"The votes are drawn in {options.figure}.")
    elif options.figure:
        print(f"There is nothing to draw: {options.figure} was not written.", file=sys.stderr)
    return 0 if handed_in.files and shown else 1


def printable(path: Path) -> str:
    """A path from others' folders, without what would move a terminal's cursor.

    >>> printable(Path("a\\x1b[2J/progress.json"))
    'a?[2J/progress.json'
    """
    return "".join(letter if letter.isprintable() else "?" for letter in str(path))
