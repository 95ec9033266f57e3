"""The command `spai-lab assignments`: export a course, and look at what was submitted."""

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """What may stand behind `spai-lab assignments`."""
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    words = "write the exercises as an nbgrader course, with hidden tests under your seed"
    sub = actions.add_parser("export", help=words, description=words)
    sub.add_argument("folder", type=Path, help="the course's folder, which students cannot read")
    sub.add_argument("--chapters", nargs="+", default=(), metavar="NAME", help="beginnings of names, such as 02")
    sub.add_argument("--points", type=float, default=10, help="for each exercise; default 10")
    seeds = sub.add_mutually_exclusive_group()
    seeds.add_argument(
        "--seed", help="what the hidden tests follow from; drawn once and kept in the folder if left out"
    )
    seeds.add_argument("--seed-file", type=Path, metavar="FILE", help="a file that holds the seed")
    words = "list submitted cells that read the package's answers"
    sub = actions.add_parser("look", help=words, description=words)
    sub.add_argument("folder", type=Path, help="the course's folder, with what was submitted")
    words = "say of each exercise where its hidden tests come from"
    actions.add_parser("list", help=words, description=words)


def run(options: argparse.Namespace) -> int:
    """Do what was asked; the exit status.

    Raises:
        ValueError, OSError: as `export` and `look`.
    """
    return {"export": _export, "look": _look, "list": _list}[options.action](options)


def _export(options: argparse.Namespace) -> int:
    from spai_lab.assignments.course import export, lecturer_seed

    if options.seed_file is not None:
        seed = options.seed_file.read_text(encoding="utf-8")
    else:
        seed = options.seed if options.seed is not None else lecturer_seed(options.folder)
    done = export(options.folder, seed=seed, chapters=options.chapters, points=options.points)
    for exported in done:
        many = f"{len(exported.exercises)} exercise{'s' * (len(exported.exercises) != 1)}"
        words = {"written": "written to", "as it was": "there already:", "beside": "yours stays; the new version is"}
        print(f"{exported.chapter}: {many}, {words[exported.state]} {exported.path}")
    fresh = [exported.chapter for exported in done if exported.state == "written"]
    if fresh:
        print(f"Next, in {options.folder}: nbgrader generate_assignment {fresh[0]}")
    return 0


def _look(options: argparse.Namespace) -> int:
    from spai_lab.assignments.course import look

    found = look(options.folder)
    for borrowed in found:
        print(f"{borrowed.student}, {borrowed.chapter}: {borrowed.sentence}")
    if not found:
        print("No submitted cell reads the package's answers.")
    return 0


def _list(options: argparse.Namespace) -> int:
    from spai_lab.assignments.fresh import way
    from spai_lab.exercises import EXERCISES

    words = {
        "seed": "drawn from the seed",
        "written": "drawn from the seed",
        "every time": "drawn afresh whenever an answer is judged",
        "fixed": "the visible ones, in another order",
    }
    for exercise in EXERCISES.values():
        print(f"{exercise.chapter}: {exercise.name}: {words[way(exercise)]}")
    return 0
