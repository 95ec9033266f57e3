"""Where data comes from: folders on this machine, and downloads that are checked before they land."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm.auto import tqdm

from spai_lab import __version__
from spai_lab.checks import check_flag, check_number, describe
from spai_lab.files import cache_folder, write_atomically

CHUNK = 1 << 16
LONGEST = 600.0


class DataUnavailable(RuntimeError):
    """Data is missing, damaged or out of reach; the message says what to do."""


@dataclass(frozen=True)
class Download:
    """A file to be had: its name on a mirror, where it lands, at most how many bytes, and a check that raises
    `ValueError` if the content is not what it should be."""

    remote: str
    path: Path
    cap: int
    check: Callable[[bytes], object]


def folders(name: str) -> list[Path]:
    """Where a data set may lie, in the order of search: under `SPAI_DATA`, then in the user's cache."""
    chosen = os.environ.get("SPAI_DATA")
    roots = [Path(chosen).expanduser()] if chosen else []
    return [root / name for root in [*roots, cache_folder()]]


def read(path: Path) -> bytes:
    """The content of a file.

    Raises:
        DataUnavailable: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataUnavailable(f"{path} cannot be read ({error.strerror}): check its permissions.") from error


def download(
    title: str,
    files: Sequence[Download],
    mirrors: Sequence[str],
    *,
    advice: str,
    timeout: float = 10.0,
    progress: bool = True,
) -> None:
    """Fetch files from the first mirrors that have them whole; what has landed stays, so that a second try goes on.

    Args:
        title: what the files are together.
        files: what is missing.
        mirrors: addresses that end before the remote names, tried in order.
        advice: what the user can do where all mirrors fail; ends the error's message.
        timeout: seconds that a mirror may be silent.
        progress: show a bar for each file.
    Raises:
        ValueError: `mirrors`, `timeout` or `progress` is of no use.
        DataUnavailable: no mirror gave a file, or it could not be written.
    """
    if isinstance(mirrors, str) or not mirrors:
        raise ValueError(f"mirrors is {describe(mirrors)}; accepted: a list of at least one address")
    check_number("timeout", timeout, low=0, exclusive=True)
    check_flag("progress", progress)
    missing = list(files)
    problems = []
    for mirror in mirrors:
        try:
            while missing:
                content = _get(mirror + missing[0].remote, cap=missing[0].cap, timeout=timeout, progress=progress)
                missing[0].check(content)
                _land(missing.pop(0), content)
            return
        except (OSError, HTTPException, ValueError) as error:
            problems.append(f"{mirror}{missing[0].remote} {_reason(error)}")
    raise DataUnavailable(f"{title} cannot be downloaded: {'; '.join(problems)}. {advice}")


def _get(url: str, *, cap: int, timeout: float, progress: bool) -> bytes:
    start = time.monotonic()
    received = bytearray()
    request = Request(url, headers={"User-Agent": f"spai-lab/{__version__}"})
    with urlopen(request, timeout=timeout) as response:
        length = response.headers.get("Content-Length", "")
        expected = int(length) if length.isdigit() else None
        bar = tqdm(total=expected, desc=url.rpartition("/")[2], unit="B", unit_scale=True, disable=not progress)
        with bar:
            while chunk := response.read1(CHUNK):
                received += chunk
                bar.update(len(chunk))
                if len(received) > cap:
                    raise ValueError(f"is larger than {cap:,} bytes")
                if time.monotonic() - start > LONGEST:
                    raise TimeoutError(f"took longer than {LONGEST:.0f} s")
    if expected is not None and len(received) < expected:
        raise ValueError(f"broke off after {len(received):,} of {expected:,} bytes")
    return bytes(received)


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"answered {error.code} {error.reason}"
    if isinstance(error, ValueError):
        return str(error)
    cause = getattr(error, "reason", error)
    return f"failed ({getattr(cause, 'strerror', None) or cause or type(cause).__name__})"


def _land(file: Download, content: bytes) -> None:
    """Write the file; where another process was faster and holds it open (Windows), its copy serves."""
    try:
        write_atomically(file.path, content)
    except OSError as error:
        try:
            file.check(file.path.read_bytes())
        except (OSError, ValueError):
            raise DataUnavailable(
                f"{file.path} cannot be written ({error.strerror}): see that you may write there and that "
                f"{len(content) / 1e6:.1f} MB are free, or set SPAI_CACHE to another folder."
            ) from error
