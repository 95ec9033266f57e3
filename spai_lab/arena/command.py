"""What `spai-lab arena` does: submissions from files, for a class that hands them in."""

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_options(sub: ArgumentParser) -> None:
    """The command's arguments."""
    what = "what the file holds; board: show one; examples: four bad submissions, and what is said of them"
    sub.add_argument("what", choices=["attack", "defense", "board", "examples"], help=what)
    file = "a file of Python with the function; with `board`, the board's file; with `examples`, none"
    sub.add_argument("file", type=Path, nargs="?", help=file)
    sub.add_argument("--function", dest="named", metavar="NAME", help="its name; the last one of the file if left out")
    sub.add_argument("--data", choices=["digits", "mnist"], help="whose images; MNIST where it is found")
    sub.add_argument("--images", type=Path, metavar="NPZ", help="the lecturer's own images x and labels y")
    sub.add_argument("--count", type=int, default=64, help="how many test images otherwise; default 64")
    sub.add_argument("--seconds", type=float, default=30.0, help="for each defense, or to build one; default 30")
    sub.add_argument("--access", default="white-box", help="white-box, logits, scores or labels; default white-box")
    sub.add_argument("--eps", type=float, help="radius in L-inf; default 0.3 on MNIST, 0.2 on the digits")
    sub.add_argument("--seed", type=int, help="of the images and draws; a secret one if left out")
    sub.add_argument("--board", type=Path, metavar="FILE", help="write the score there")
    sub.add_argument("--who", help="under this name; needed with --board")


def run(options: Namespace) -> int:
    """Judge a file, print what came of it, and post the score; the status is 1 where it was caught."""
    from spai_lab.arena.arena import arena_attack, arena_defense
    from spai_lab.arena.board import post, read_board
    from spai_lab.arena.submission import Budget

    if options.what == "examples":
        return show_examples(options.data or "digits")
    if options.file is None:
        raise ValueError(f"file is missing; accepted: a file with the {options.what}")
    if options.what == "board":
        if not options.file.exists():
            raise ValueError(f"file is {str(options.file)!r}, which does not exist; accepted: a board's file")
        print(read_board(options.file))
        return 0
    if options.board and not options.who:
        raise ValueError("who is missing; accepted: a name for the board, --who NAME")
    judge = arena_attack if options.what == "attack" else arena_defense
    result = judge(
        options.file,
        budget=Budget(seconds=options.seconds, access=options.access),
        data=options.data,
        images=options.images or options.count,
        eps=options.eps,
        seed=options.seed,
        name=options.named,
    )
    print(result)
    if result.output.strip():
        print(f"It printed: {result.output[:600]!r}")
    if options.board and result.score is not None:
        print(f"\n{post(result, options.who, options.board)}")
    elif options.board:
        print(f"Nothing was written to {options.board}.")
    return int(result.caught)


def show_examples(data: str) -> int:
    """Print a table of four bad submissions: what was submitted, and the sentence that the student sees."""
    from spai_lab.arena.examples import examples

    print("| kind | submitted | what the arena says |\n| --- | --- | --- |")
    for kind, text, result in examples(data):
        finding = next(finding for finding in result.found if finding.fatal)
        print(f"| {kind} | `{' ⏎ '.join(filter(None, text.splitlines()))}` | {finding} |")
    return 0
