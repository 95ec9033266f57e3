"""`python -m spai_lab.lecture`: what `run.py lecture` starts."""

import argparse
import os
import sys

from spai_lab.lecture.serve import serve
from spai_lab.lecture.votes import VARIABLE


def main() -> int:
    """Serve the chapters until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m spai_lab.lecture", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="a free one if left out")
    parser.add_argument("--no-browser", dest="browser", action="store_false", help="print the address, open no browser")
    parser.add_argument(
        "--votes", metavar="FILE", default=os.environ.get(VARIABLE), help="keep the hall's votes there, for another day"
    )
    options = parser.parse_args()
    try:
        return serve(options.port, browser=options.browser, votes=options.votes)
    except (OSError, RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
