"""A student's server: private folders, copies of the chapters that nothing overwrites, then JupyterLab.

The hub starts `python -P -m spai_lab.hub.student` as the student's own account; `-P`, because a file `json.py` in the
home would else stop every start. What follows on the command line goes to `jupyterhub-singleuser`.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from spai_lab.workbook import copy_chapters, my_folder, notebooks_folder

FIRST_CHAPTER = "00_start_here.ipynb"
PRIVATE = 0o700


def main(arguments: Sequence[str]) -> None:
    """Prepare the student's folder and become the server; on a full disk too, so that the student can make room."""
    os.umask(0o077)
    my = my_folder()
    for line in prepare(my, notebooks_folder()):
        print(line, file=sys.stderr, flush=True)
    command = server_command(my, arguments)
    os.execv(command[0], command)


def prepare(my: Path, notebooks: Path) -> list[str]:
    """Make the student's folder private and copy to it what is missing or new.

    Args:
        my: the student's folder.
        notebooks: the masters, which are only read.
    Returns:
        sentences for the hub's log: what was copied, or why that failed.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     prepare(Path(folder) / "my", Path(folder) / "notebooks")
    ['there are no chapters in the folder notebooks: nothing was copied']
    """
    try:
        my.mkdir(parents=True, exist_ok=True)
        my.chmod(PRIVATE)
        if not notebooks.is_dir():
            return [f"there are no chapters in the folder {notebooks.name}: nothing was copied"]
        return [f"{copied.path.name} was copied" for copied in copy_chapters(notebooks, my)]
    except (OSError, ValueError) as error:
        return [f"not all chapters could be copied, the server starts all the same: {error}"]


def server_command(my: Path, arguments: Sequence[str]) -> list[str]:
    """The command that serves a folder, its kernels behind sockets that belong to the student.

    Jupyter's kernels listen on TCP ports by default, and whatever a kernel prints can be read there by every account of
    the machine. Sockets in the student's runtime folder are guarded by the rights of that folder.

    >>> server_command(Path("my"), ["--debug"])[1:]
    ['-P', '-m', 'jupyterhub.singleuser', '--ServerApp.root_dir=my', '--ConnectionFileMixin.transport=ipc', '--debug']
    """
    settings = [f"--ServerApp.root_dir={my}", "--ConnectionFileMixin.transport=ipc"]
    if (my / FIRST_CHAPTER).exists():
        settings.append(f"--ServerApp.default_url=/lab/tree/{FIRST_CHAPTER}")
    return [sys.executable, "-P", "-m", "jupyterhub.singleuser", *settings, *arguments]


if __name__ == "__main__":
    main(sys.argv[1:])
