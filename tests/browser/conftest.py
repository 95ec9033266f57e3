"""A real JupyterLab in a real Chromium, with a home, settings and chapters of their own."""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Locator, Page, expect, sync_playwright

from spai_lab.workbook import copy_chapters

PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
ELSEWHERE = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    *(
        str(Path(os.environ[folder], "Google", "Chrome", "Application", "chrome.exe"))
        for folder in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")
        if folder in os.environ
    ),
)
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# Every cell stays in the page, so that a test finds it without scrolling.
WHOLE_NOTEBOOK = {"@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"}}
SECONDS = 120  # for whatever is awaited; a busy machine is slow
CHAPTER_SECONDS = 600

KERNEL_IS_READY = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
RUN_ALL = """() => {
    window.finished = false
    window.jupyterapp.commands.execute('notebook:run-all-cells').finally(() => { window.finished = true })
}"""
CODE_CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets
    .map(cell => cell.model.toJSON())
    .filter(cell => cell.cell_type === 'code' && cell.source.length)"""


@dataclass(frozen=True)
class Notebook:
    """A notebook in JupyterLab, its kernel ready."""

    page: Page

    def run_all(self) -> None:
        """Run every cell from top to bottom; each must run, and none may fail."""
        self.page.evaluate(RUN_ALL)
        self.page.wait_for_function("() => window.finished", timeout=1000 * CHAPTER_SECONDS)
        for cell in self.page.evaluate(CODE_CELLS):
            source = "".join(cell["source"])
            for output in cell["outputs"]:
                if output["output_type"] == "error":
                    pytest.fail(f"{output['ename']}: {output['evalue']}, in the cell\n{source}")
            if not cell["execution_count"]:
                pytest.fail(f"This cell did not run:\n{source}")

    def cell(self, source: str) -> Locator:
        """The first code cell with these words in its source."""
        editor = self.page.locator(".jp-InputArea-editor", has_text=source)
        return self.page.locator(".jp-CodeCell", has=editor).first

    def outputs(self, source: str) -> Locator:
        """What stands under the first code cell with these words in its source."""
        return self.cell(source).locator(".jp-OutputArea-output")

    def run_cell(self, source: str, replacement: str | None = None) -> None:
        """Run that cell as a student does: click it, perhaps type something else into it, press Shift and Enter."""
        self.cell(source).locator(".cm-content").click()
        if replacement is not None:
            self.page.keyboard.press("ControlOrMeta+A")
            self.page.keyboard.insert_text(replacement)
        self.page.keyboard.press("Shift+Enter")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium: that of SPAI_BROWSER, else an installed one, else playwright's own; skipped where none starts.

    It lives as long as a module, because asyncio serves nobody else while playwright runs.
    """
    with sync_playwright() as playwright:
        refusals = []
        for program in browsers():
            try:
                browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
                break
            except Error as error:
                refusals.append(f"{program or 'playwright'}: {error.message.splitlines()[0]}")
        else:
            give_up = pytest.fail if os.environ.get("SPAI_REQUIRE_BROWSER") else pytest.skip
            give_up("no browser; install Chromium, or run `playwright install chromium`. " + "; ".join(refusals))
        yield browser
        browser.close()


def browsers() -> list[str | None]:
    """Programs to try, in this order; None is playwright's own."""
    if chosen := os.environ.get("SPAI_BROWSER"):
        return [chosen]
    return [*filter(None, map(shutil.which, (*PROGRAMS, *ELSEWHERE))), None]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, root) -> Path:
    """A student's folder, with the chapters as `run.py lab` copies them."""
    folder = tmp_path_factory.mktemp("workplace") / "my"
    copy_chapters(root / "notebooks", folder)
    return folder


@pytest.fixture(scope="module")
def lab(browser, workplace, tmp_path_factory, root, run) -> Iterator[str]:
    """The address of a JupyterLab, started as `run.py lab` does; the user's own set-up is neither read nor changed."""
    home, token = tmp_path_factory.mktemp("home"), secrets.token_hex(16)
    for setting, value in (run.QUIET_SETTINGS | WHOLE_NOTEBOOK).items():
        place = home / "JUPYTERLAB_SETTINGS_DIR" / f"{setting.replace(':', '/')}.jupyterlab-settings"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(value), encoding="utf-8")
    jupyter = [f"JUPYTER_{name}_DIR" for name in ("CONFIG", "DATA", "RUNTIME")]
    places = [*jupyter, "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR"]
    variables = {name: str(home / name) for name in places}
    variables |= {"HOME": str(home), "USERPROFILE": str(home), "PYTHONPATH": str(root)}
    variables |= {"SPAI_MY": str(workplace), "SPAI_DATASET": "digits"}
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    extra = [f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True"]
    command = run.lab_command(Path(sys.executable), workplace, port, browser=False, extra=extra)
    record = home / "jupyterlab.log"
    with record.open("w", encoding="utf-8") as log:
        server = subprocess.Popen(command, env=run.environment(**variables), stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for(f"{address}/api/status?token={token}", server, record)
            yield f"{address}/lab/tree/{{}}?reset&token={token}"
        finally:
            end(server)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(address: str, server: subprocess.Popen, record: Path) -> None:
    """Wait until the server answers; if it never does, fail with what it wrote."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=5).close()
            return
        time.sleep(0.2)
    pytest.fail(f"JupyterLab does not start:\n{record.read_text(encoding='utf-8', errors='replace')}")


def end(server: subprocess.Popen) -> None:
    """End a server and its kernels; those that do not go when asked are killed."""
    family = []
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(server.pid)
        family = [parent, *parent.children(recursive=True)]
    server.terminate()
    _, alive = psutil.wait_procs(family, timeout=20)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    server.wait()


@pytest.fixture
def notebook(browser, lab) -> Iterator[Callable[[str], Notebook]]:
    """`notebook(name)` opens a notebook of the workplace in JupyterLab."""
    with profile(browser) as context:
        yield partial(open_notebook, context, lab)


@pytest.fixture(scope="module")
def kept_notebook(browser, lab) -> Iterator[Callable[[str], Notebook]]:
    """As `notebook`, but what it opens stays open for all tests of the module."""
    with profile(browser) as context:
        yield partial(open_notebook, context, lab)


@contextlib.contextmanager
def profile(browser: Browser) -> Iterator[BrowserContext]:
    """A browser profile without a past."""
    expect.set_options(timeout=1000 * SECONDS)
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(1000 * SECONDS)
    yield context
    context.close()


def open_notebook(context: BrowserContext, lab: str, name: str) -> Notebook:
    """The notebook of this name, in a page of its own."""
    page = context.new_page()
    page.goto(lab.format(name))
    page.wait_for_function(KERNEL_IS_READY)
    return Notebook(page)


@pytest.fixture(autouse=True)
def album(tmp_path) -> Path:
    """Where the pages of a test that fails are photographed."""
    return tmp_path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where a test in the browser fails, keep a picture of each page, and say where it lies."""
    report = yield
    if call.when == "call" and report.failed and "browser" in item.funcargs:
        pages = [page for context in item.funcargs["browser"].contexts for page in context.pages]
        for number, page in enumerate(pages):
            path = item.funcargs["album"] / f"page-{number}.png"
            with contextlib.suppress(Error):
                page.screenshot(path=path, timeout=10_000)
                report.sections.append(("the page when the test failed", str(path)))
    return report
