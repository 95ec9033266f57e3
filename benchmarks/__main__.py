"""`python -m benchmarks [names] [--quick]`: each module beside this one that has a `main(quick)` is a benchmark."""

import argparse
import importlib
from pathlib import Path

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"which to run: {', '.join(NAMES)}; all if left out")
    parser.add_argument("--quick", action="store_true", help="see that it runs; the numbers mean nothing")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    for name in options.names or NAMES:
        importlib.import_module(f"benchmarks.{name}").main(options.quick)


if __name__ == "__main__":
    main()
