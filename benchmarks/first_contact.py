"""First contact: a new user on a bare machine, from the clone to the first slider that moved, each step timed.

`python -m benchmarks first_contact` clones the project into an empty folder, runs the README's first command there with
an empty home and a clean environment, and works through the first pages in Chromium as a person would, only faster. It
installs some 2 GB and removes them again, so that it runs only when it is named.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
KEPT = re.compile(
    r"PIP_\w+|(https?|all|no)_proxy|SSL_CERT_\w+|LANG|SYSTEMROOT|SYSTEMDRIVE|COMSPEC|PATHEXT", re.IGNORECASE
)
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\S*")
STAGE = re.compile(r"\(\d+ of \d+\) (.+?)(?: \.\.\.|:)[ .]*\d+ s$")
CHAPTER, SLIDER = "01_models_and_threats.ipynb", "eps_units(dataset"  # the first slider in reading order
PATIENCE = 1800.0


@dataclass
class Clock:
    """The steps so far, each with its seconds."""

    steps: list[tuple[str, float]] = field(default_factory=list)
    last: float = field(default_factory=time.perf_counter)

    def tick(self, step: str) -> None:
        """Book the time since the last step on this one."""
        now = time.perf_counter()
        self.steps.append((step, now - self.last))
        self.last = now

    @property
    def total(self) -> float:
        """All steps together, in seconds."""
        return sum(seconds for _, seconds in self.steps)

    def __str__(self) -> str:
        width = max(len(step) for step, _ in self.steps)
        rows = [*self.steps, ("together", self.total)]
        return "\n".join(f"{step:{width}}  {seconds:6.1f} s" for step, seconds in rows)


def browser_program() -> str | None:
    """Chromium: that of SPAI_BROWSER, else an installed one."""
    return os.environ.get("SPAI_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)


def what_is_missing() -> str | None:
    """Why this cannot run here, or None."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "needs playwright: run it as `python3 run.py bench -- first_contact`"
    return None if browser_program() else "needs Chromium; SPAI_BROWSER names it where it is not found"


def bare(home: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """A new user's variables: an empty home, programs, and what leads pip to the network.

    >>> sorted(bare(Path("empty"), {"PATH": "/bin", "OMP_NUM_THREADS": "1", "PIP_CERT": "c", "VIRTUAL_ENV": "v"}))
    ['APPDATA', 'HOME', 'LOCALAPPDATA', 'PATH', 'PIP_CERT', 'USERPROFILE']
    """
    kept = {name: value for name, value in environ.items() if KEPT.fullmatch(name)}
    own = str(Path(sys.prefix) / ("Scripts" if os.name == "nt" else "bin"))
    programs = [folder for folder in environ.get("PATH", os.defpath).split(os.pathsep) if folder != own]
    homes = dict.fromkeys(("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"), str(home))
    return {**kept, **homes, "PATH": os.pathsep.join(programs)}


def base_python() -> str:
    """The Python that the present environment was made with."""
    return getattr(sys, "_base_executable", None) or sys.executable


def clone(folder: Path) -> None:
    """Clone the project as a user would, then bring what is not committed yet, so that the present state is timed."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    for name in filter(None, names):
        source, target = ROOT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        else:
            target.unlink(missing_ok=True)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def folder_bytes(folder: Path) -> int:
    """What a folder takes."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


@dataclass
class Received:
    """Bytes that this machine has received since the start, its loopback left aside; None where nobody counts them."""

    begin: int | None = field(default_factory=lambda: received())

    def so_far(self) -> int | None:
        """How many."""
        now = received()
        return None if now is None or self.begin is None else now - self.begin


def received() -> int | None:
    """The counters of Linux's network devices, together."""
    try:
        lines = Path("/proc/net/dev").read_text(encoding="utf-8").splitlines()[2:]
    except OSError:
        return None
    counters = (line.split(":") for line in lines)
    return sum(int(numbers.split()[0]) for name, numbers in counters if name.strip() != "lo")


@contextlib.contextmanager
def lab(folder: Path, home: Path, clock: Clock, steps: bool) -> Iterator[str]:
    """`run.py lab` in a folder until the block ends; gives the address that it prints.

    Args:
        folder: the clone.
        home: of the user.
        clock: gets what it prints as steps.
        steps: whether each stage of the installation is a step.
    Raises:
        RuntimeError: it ended, or printed no address in time; holds all that it printed.
    """
    command = [base_python(), "run.py", "lab", "--no-browser", "--port", str(free_port())]
    own_group = {"start_new_session": True} if os.name != "nt" else {}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=bare(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        **own_group,
    )
    deadline = threading.Timer(PATIENCE, process.kill)
    deadline.start()
    printed = []
    try:
        for line in process.stdout:
            printed.append(line)
            print(f"    {line}", end="", flush=True)
            stage, address = STAGE.match(line.strip()), ADDRESS.search(line)
            if steps and stage:
                clock.tick(stage[1])
            elif steps and line.startswith("Copied"):
                clock.tick("data looked for, chapters copied")
            elif address:
                clock.tick("server answers" if steps else "second start, until the server answers")
                drain = threading.Thread(target=process.stdout.read, daemon=True)
                drain.start()
                yield address[0]
                return
        raise RuntimeError("run.py lab printed no address:\n" + "".join(printed))
    finally:
        deadline.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT) if own_group else process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        process.kill()
        process.wait()


def cells_to_slider() -> int:
    """How many cells of the chapter must be run until the slider is there."""
    cells = json.loads((ROOT / "notebooks" / CHAPTER).read_text(encoding="utf-8"))["cells"]
    return 1 + next(number for number, cell in enumerate(cells) if SLIDER in "".join(cell["source"]))


def work_through(address: str, clock: Clock, album: Path | None) -> None:
    """Open the address, then the first chapter with a slider, run its cells up to the slider, and move it.

    Args:
        address: as `run.py lab` printed it.
        clock: gets the steps.
        album: a folder for pictures of the pages, or None.
    """
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_program(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(120_000)
        expect.set_options(timeout=120_000)

        def photograph(name: str) -> None:
            if album is not None:
                page.screenshot(path=album / f"{name}.png")

        page.goto(address)
        expect(page.locator(".jp-Notebook h1", has_text="Start here")).to_be_visible()
        clock.tick("page shows chapter 00")
        expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first).to_be_visible()
        clock.tick("kernel ready")
        photograph("first-page")
        page.locator(".jp-DirListing-item", has_text=CHAPTER).dblclick()
        chapter = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
        expect(chapter.locator("h1", has_text="01")).to_be_visible()
        expect(chapter.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")).to_be_visible()
        clock.tick("chapter 01 shows, its kernel ready")
        chapter.locator(".jp-MarkdownCell").first.click()
        slider = chapter.locator(".spai-explorable .noUi-handle").first
        for _ in range(cells_to_slider()):
            page.keyboard.press("Shift+Enter")
            page.wait_for_timeout(50)
        expect(slider).to_be_visible()
        clock.tick("first slider there")
        picture = chapter.locator(".spai-picture img").first
        before = picture.get_attribute("src")
        slider.focus()
        page.keyboard.press("ArrowRight")
        expect(picture).not_to_have_attribute("src", before)
        clock.tick("first slider moved, the picture with it")
        photograph("first-slider")
        browser.close()


def main(quick: bool = False) -> None:
    """Print how long a new user waits for what."""
    missing = what_is_missing() or ("installs, which has no quick form" if quick else None)
    if missing:
        print(f"first_contact: {missing}")
        return
    album = os.environ.get("SPAI_ALBUM")
    scratch = Path(tempfile.mkdtemp(prefix="spai-first-"))
    try:
        folder, home = scratch / "spai-lab", scratch / "home"
        home.mkdir()
        clock, network = Clock(), Received()
        clone(folder)
        clock.tick("clone")
        with lab(folder, home, clock, steps=True) as address:
            work_through(address, clock, Path(album) if album else None)
        again = Clock()
        with lab(folder, home, again, steps=False):
            pass
        print(
            f"\nfrom the clone to the first slider on {os.cpu_count()} cores, Python {sys.version.split()[0]}\n{clock}"
        )
        print(f"\n{again.steps[0][0]}: {again.steps[0][1]:.1f} s")
        print(f"on the disk: .venv {folder_bytes(folder / '.venv') / 1e9:.2f} GB, the clone with my/ ", end="")
        print(f"{(folder_bytes(folder) - folder_bytes(folder / '.venv')) / 1e9:.2f} GB", end="")
        print(f", the user's home {folder_bytes(home) / 1e9:.2f} GB")
        bytes_ = network.so_far()
        print(f"received by this machine meanwhile: {'unknown' if bytes_ is None else f'{bytes_ / 1e6:.0f} MB'}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
