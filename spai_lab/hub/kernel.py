"""A student's kernel: IPython's, without the debugger.

The debugger listens on a TCP port that asks nobody for a name: once it was used, every account of the machine could
attach to the kernel and run code in it as its owner. JupyterLab hides the button where a kernel has none.
"""

import sys


def main() -> None:
    """Become the kernel that the command line describes."""
    sys.modules["debugpy"] = None  # from here on `import debugpy` fails, which ipykernel is prepared for
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


if __name__ == "__main__":
    main()
