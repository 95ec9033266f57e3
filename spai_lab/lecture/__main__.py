"""`python -m spai_lab.lecture`: what `run.py lecture` starts."""

import argparse
import sys

from spai_lab.lecture.serve import serve


def main() -> int:
    """Serve the chapters until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m spai_lab.lecture", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="a free one if left out")
    parser.add_argument("--no-browser", dest="browser", action="store_false", help="print the address, open no browser")
    options = parser.parse_args()
    try:
        return serve(options.port, browser=options.browser)
    except (OSError, RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
