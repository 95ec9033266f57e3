"""Where the workbook keeps its files, and how it writes them: whole or not at all."""

import os
from pathlib import Path
from uuid import uuid4

from platformdirs import user_cache_path

PACKAGE = Path(__file__).resolve().parent


def data_folder() -> Path:
    """The folder `data/`: of the repository, or the copy inside an installed package."""
    installed = PACKAGE / "_data"
    return installed if installed.is_dir() else PACKAGE.parent / "data"


def cache_folder() -> Path:
    """The user's cache: `SPAI_CACHE` if it is set, else the place that the operating system names."""
    chosen = os.environ.get("SPAI_CACHE")
    return Path(chosen).expanduser() if chosen else user_cache_path("spai-lab", appauthor=False)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part of it.

    Args:
        path: the file; its folder is made where it is missing.
        content: what it shall hold.
    Raises:
        OSError: no space, no permission; the old file is then as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid4().hex}.part")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
