"""`python -m benchmarks [attacks | latency | garbling | two_party | classroom | first_contact]
[--quick]`: time our code."""

import argparse

from benchmarks import attacks, classroom, first_contact, garbling, latency, two_party

BENCHMARKS = {
    "attacks": attacks.main,
    "latency": latency.main,
    "garbling": garbling.main,
    "two_party": two_party.main,
    "classroom": classroom.main,
    "first_contact": first_contact.main,
}
BY_NAME = {"first_contact"}  # installs 2 GB: runs only where it is named


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"which to run: {', '.join(BENCHMARKS)}; default all but {', '.join(BY_NAME)}",
    )
    parser.add_argument("--only", nargs="+", metavar="contest", help="contests that begin with these words")
    parser.add_argument("--quick", action="store_true", help="see that it runs; the numbers mean nothing")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    for name in options.names or (
        ["attacks"] if options.only else [name for name in BENCHMARKS if name not in BY_NAME]
    ):
        BENCHMARKS[name](quick=options.quick, **({"only": options.only} if name == "attacks" else {}))


if __name__ == "__main__":
    main()
