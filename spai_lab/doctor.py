"""What this machine has, and for whatever the workbook misses one line that says what to do.

Needs the standard library alone, so that it also runs where the installation failed. Each function judges what it is
given; `examine` gives it what this machine has.
"""

import html
import importlib.util
import os
import platform
import shutil
import socket
import struct
import sys
import tempfile
import webbrowser
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

SHOWN = ("torch", "numpy", "scikit-learn", "matplotlib", "ipywidgets", "jupyterlab")
OLDEST_PYTHON, NEWEST_ON_INTEL_MAC = (3, 11), (3, 12)
INSTALLATION_BYTES, PASSING_BYTES, WORKING_BYTES = 2_000_000_000, 1_000_000_000, 500_000_000
PROXY_VARIABLES = ("https_proxy", "all_proxy", "http_proxy")
PORT = 8888


@dataclass(frozen=True)
class Finding:
    """One row: what was looked at, what is there, and what to do about it, or None where all is well."""

    topic: str
    value: str
    action: str | None = None


@dataclass(frozen=True)
class Report:
    """Findings that show themselves as a table, in a terminal and in a notebook."""

    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        width = max((len(finding.topic) for finding in self.findings), default=0)
        lines = []
        for finding in self.findings:
            lines.append(f"{'!' if finding.action else ' '} {finding.topic:<{width}}  {finding.value}")
            if finding.action:
                lines.append(f"  {'':<{width}}  -> {finding.action}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        todo = [finding for finding in self.findings if finding.action]
        words = f"{len(todo)} of the checks need you" if todo else "Your machine is ready"
        summary = f"<summary><strong>{words}.</strong> All {len(self.findings)} checks</summary>"
        rows = "".join(
            f"<tr><td>{'&#9888; to do' if finding.action else '&#10003; fine'}</td>"
            f"<th scope='row' style='text-align:left'>{html.escape(finding.topic)}</th>"
            f"<td style='text-align:left'>{html.escape(finding.value)}"
            + (f"<br><strong>{html.escape(finding.action)}</strong>" if finding.action else "")
            + "</td></tr>"
            for finding in self.findings
        )
        return f"<details{' open' if todo else ''}>{summary}<table>{rows}</table></details>"


def python(version: tuple[int, ...], intel_mac: bool = False, bits: int = 64) -> Finding:
    """Whether the workbook runs on this Python, a program of so many bits.

    >>> python((3, 10, 2)).action
    'Install Python 3.11 or later from https://www.python.org and start again with it.'
    """
    value, action = ".".join(map(str, version[:3])), None
    if version[:2] < OLDEST_PYTHON:
        action = "Install Python 3.11 or later from https://www.python.org and start again with it."
    elif intel_mac and version[:2] > NEWEST_ON_INTEL_MAC:
        action = "torch for Intel Macs needs Python 3.11 or 3.12: start again with one of these."
    elif bits < 64:
        value, action = (
            f"{value}, {bits} bits",
            "There is no torch for it: install the 64-bit one and start again with it.",
        )
    return Finding("Python", value, action)


def system(name: str, machine: str) -> Finding:
    """The operating system and the processor; an Intel Mac gets an older torch."""
    action = "torch for Intel Macs ends at 2.2: `run.py` installs that, with Python 3.11 or 3.12."
    return Finding("system", f"{name} on {machine}", action if is_intel_mac(name, machine) else None)


def is_intel_mac(name: str, machine: str) -> bool:
    """Whether these are the names of a Mac with an Intel processor, as `platform` gives them."""
    return (name, machine) == ("Darwin", "x86_64")


def venv_module(there: bool) -> Finding:
    """Whether this Python can create environments."""
    action = "Install it: `sudo apt install python3-venv` on Debian and Ubuntu; elsewhere Python from https://www.python.org."
    return Finding("venv module", "there" if there else "missing", None if there else action)


def versions(installed: Mapping[str, str], required: Iterable[str]) -> list[Finding]:
    """The versions of the main packages, and each package that is missing or outside the project's range.

    Args:
        installed: names and versions.
        required: the project's requirements, as in pyproject.toml; those of its extras are left aside.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    have = {canonicalize_name(name): version for name, version in installed.items()}
    findings = {name: Finding(name, have[name]) for name in SHOWN if name in have}
    for requirement in map(Requirement, required):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        version = have.get(name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wanted = f"{name}{requirement.specifier}"
            action = f'The workbook needs {wanted}: `python -m pip install "{wanted}"`.'
            findings[name] = Finding(name, version or "missing", action)
    return list(findings.values())


def accelerator(cuda_build: str | None, cuda: bool, mps: bool) -> Finding:
    """What torch computes on.

    Args:
        cuda_build: the CUDA version that torch was built for, or None for a CPU build.
        cuda: whether torch sees a GPU of NVIDIA's.
        mps: whether torch sees one of Apple's.
    """
    if cuda:
        return Finding("accelerator", f"NVIDIA GPU, CUDA {cuda_build}; the chapters use the CPU")
    if cuda_build:
        action = "The CPU build saves several GB: delete .venv, set SPAI_TORCH=cpu and start `run.py lab` again."
        return Finding("accelerator", f"none, but torch is built for CUDA {cuda_build}", action)
    return Finding("accelerator", f"{'Apple GPU' if mps else 'none'}; the chapters use the CPU")


def threads(torch_threads: int | None, cores: int | None) -> Finding:
    """How many threads torch uses; None where torch is not installed."""
    used = "" if torch_threads is None else f"torch uses {torch_threads} of "
    return Finding("threads", f"{used}{cores or 'an unknown number of'} cores")


def disk(free: int, needed: int) -> Finding:
    """Whether the disk of the project's folder has room, both in bytes."""
    action = f"Free some space, or move the project to another disk: about {needed / 1e9:.1f} GB are needed."
    return Finding("disk", f"{free / 1e9:.1f} GB free", action if free < needed else None)


def temporary(free: int, needed: int) -> Finding:
    """Whether pip can put its temporary files somewhere, both in bytes."""
    action = (
        f"About {needed / 1e9:.1f} GB are needed for a while: free some space, or set TMPDIR (on Windows: TEMP) to a "
        "folder on a disk with more room."
    )
    return Finding("temporary files", f"{free / 1e9:.1f} GB free", action if free < needed else None)


def folder(writable: bool) -> Finding:
    """Whether the environment and the student's work can be written into the project's folder."""
    action = "The environment and your work go there: copy the project to a folder of your own, and start there."
    return Finding("folder", "can be written" if writable else "cannot be written", None if writable else action)


def screen(opens: bool, ssh: bool) -> Finding:
    """Whether a browser can open by itself, and whether we are on this machine from another one."""
    if opens:
        return Finding("browser", "opens by itself")
    reach = ", and the ssh command that reaches it from your own machine" if ssh else ""
    return Finding("browser", f"none opens by itself: `run.py lab` prints the address to open{reach}")


def port(number: int, free: bool) -> Finding:
    """Whether JupyterLab's usual port is free."""
    action = "Nothing, if a JupyterLab of yours is open; `run.py lab` takes the next free port, `--port` chooses one."
    return Finding(f"port {number}", "free" if free else "taken", None if free else action)


def proxy(environ: Mapping[str, str], answers: Callable[[str], bool] = lambda address: True) -> Finding:
    """Whether a proxy stands between this machine and the network, answers, and lets local connections through.

    The proxy's address is not shown: it may hold a password.

    Args:
        environ: the environment variables.
        answers: whether a proxy answers at an address.
    """
    lower = {name.lower(): value for name, value in environ.items() if value}
    named = [name for name in PROXY_VARIABLES if name in lower]
    if not named:
        return Finding("proxy", "none")
    exceptions = {entry.strip() for entry in lower.get("no_proxy", "").split(",")}
    direct = "*" in exceptions or {"localhost", "127.0.0.1"} <= exceptions
    action = None if direct else "Set NO_PROXY=localhost,127.0.0.1 so that the browser and JupyterLab reach each other."
    if not answers(lower[named[0]]):
        action = f"Nothing answers there: correct {named[0].upper()}, or unset it where the network needs no proxy."
    return Finding("proxy", f"set by {', '.join(named)}", action)


def data(found: Mapping[str, Path | str | None]) -> list[Finding]:
    """Which data is there, as `spai_lab.data.available()` says: a place, None if embedded, or a reason."""
    findings = []
    for name, place in found.items():
        value = "embedded" if place is None else "not here" if isinstance(place, str) else "there"
        missing = name == "mnist" and value == "not here"
        action = "`spai-lab fetch` downloads it; until then the embedded digits serve." if missing else None
        findings.append(Finding(f"data: {name}", value, action))
    return findings


def examine() -> tuple[Finding, ...]:
    """All findings for this machine."""
    name, machine = platform.system(), platform.machine()
    installed = {item.metadata["Name"]: item.version for item in metadata.distributions() if item.metadata["Name"]}
    findings = [
        python(sys.version_info, is_intel_mac(name, machine), 8 * struct.calcsize("P")),
        system(name, machine),
        venv_module(all(importlib.util.find_spec(module) for module in ("venv", "ensurepip"))),
        *_room(Path.cwd(), "torch" in installed),
        proxy(os.environ, _answers),
    ]
    if "JPY_PARENT_PID" not in os.environ:  # in a notebook the port is rightly taken, and a browser there
        findings += [
            folder(os.access(Path.cwd(), os.W_OK)),
            port(PORT, _is_free(PORT)),
            screen(_opens(), bool(os.environ.get("SSH_CONNECTION"))),
        ]
    try:
        import torch

        from spai_lab.data import available
    except ImportError as error:
        action = "`python3 run.py lab` installs everything; with conda: `conda env create --file environment.yml`."
        missing = Finding("spai_lab", f"not installed for this Python: {error}", action)
        return *findings, threads(None, os.cpu_count()), missing
    mps = torch.backends.mps.is_available()
    return (
        *findings,
        *versions(installed, _required()),
        threads(torch.get_num_threads(), os.cpu_count()),
        accelerator(torch.version.cuda, torch.cuda.is_available(), mps),
        *data(available()),
    )


def _required() -> list[str]:
    """The project's requirements; none where it runs from its folder without being installed."""
    try:
        return metadata.requires("spai-lab") or []
    except metadata.PackageNotFoundError:
        return []


def _room(here: Path, installed: bool) -> list[Finding]:
    """What the disks have, where the project lies and where temporary files go."""
    if installed:
        return [disk(shutil.disk_usage(here).free, WORKING_BYTES)]
    try:
        there = Path(tempfile.gettempdir())
    except OSError:
        return [disk(shutil.disk_usage(here).free, INSTALLATION_BYTES), temporary(0, PASSING_BYTES)]
    if here.stat().st_dev == there.stat().st_dev:
        return [disk(shutil.disk_usage(here).free, INSTALLATION_BYTES + PASSING_BYTES)]
    return [
        disk(shutil.disk_usage(here).free, INSTALLATION_BYTES),
        temporary(shutil.disk_usage(there).free, PASSING_BYTES),
    ]


def _answers(address: str) -> bool:
    """Whether a server takes connections at a proxy's address."""
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")
        socket.create_connection((parts.hostname or "", parts.port or 80), 5).close()
    except (OSError, ValueError):
        return False
    return True


def _opens() -> bool:
    """Whether a browser can open on this machine's own screen, and not in the terminal."""
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    if any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")):
        return True
    return not sys.platform.startswith("linux") and "SSH_CONNECTION" not in os.environ


def _is_free(number: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return False
    return True


def report() -> Report:
    """This machine's findings as a table; chapter 00 shows it."""
    return Report(examine())
