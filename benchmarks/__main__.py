"""`python -m benchmarks [attacks | latency | garbling | two_party] [--only fgsm pgd] [--quick]`: time our code."""

import argparse

from benchmarks import attacks, garbling, latency, two_party

BENCHMARKS = {"attacks": attacks.main, "latency": latency.main, "garbling": garbling.main, "two_party": two_party.main}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"which to run: {', '.join(BENCHMARKS)}; default all")
    parser.add_argument("--only", nargs="+", metavar="contest", help="contests that begin with these words")
    parser.add_argument("--quick", action="store_true", help="see that it runs; the numbers mean nothing")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    for name in options.names or (["attacks"] if options.only else BENCHMARKS):
        BENCHMARKS[name](quick=options.quick, **({"only": options.only} if name == "attacks" else {}))


if __name__ == "__main__":
    main()
