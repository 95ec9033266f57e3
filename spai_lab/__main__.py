"""`python -m spai_lab`, the same as the command `spai-lab`."""

import sys

from spai_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
