"""A student's kernel: IPython's, without the debugger.

The debugger listens on a TCP port that asks nobody for a name: once it was used, every account of the machine could
attach to the kernel and run code in it as its owner. JupyterLab hides the button where a kernel has none.
"""

import sys
from pathlib import Path


def main() -> None:
    """Become the kernel that the command line describes; the folder that it starts in joins the path later."""
    if Path(sys.path[0]) == Path.cwd():
        del sys.path[0]  # as IPython's launcher does: no file of the student's stands in for what a kernel needs
    sys.modules["debugpy"] = None  # from here on `import debugpy` fails, which ipykernel is prepared for
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


if __name__ == "__main__":
    main()
