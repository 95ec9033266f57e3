"""Serve the chapters to a lecture hall's browser, with Voila: to this machine alone, and only with a token."""

import contextlib
import html
import importlib.util
import json
import logging
import os
import secrets
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from spai_lab.lecture.pages import KERNEL, lecture_notebook, start_page
from spai_lab.lecture.spare import with_spare
from spai_lab.lecture.votes import VARIABLE, check_file
from spai_lab.workbook import (
    Chapter,
    chapter_of,
    chapters,
    notebooks_folder,
    read,
    to_bytes,
    without_output_widget_stalls,
)

HOST = "127.0.0.1"
TEMPLATE = "spai-lecture"
STATIC = ("lecture.css",)
TEMPLATES = ("index.html.j2", "page.html", "tree.html")
START = "{{ start_page }}"  # where the list of chapters goes in tree.html
EXTENSIONS = ["@jupyter-widgets/jupyterlab-manager", "@voila-dashboards/widgets-manager8"]
# A kernel imports what every chapter needs while nobody waits for it, or while the browser still loads the page.
WARM_UP = "__import__('threading').Thread(target=__import__, args=('spai_lab.lecture.warm',), daemon=True).start()"
# Voila answers no ping while a chapter runs, and would be hung up on after half a minute: no pings.
SERVER = {"allow_remote_access": False, "ws_ping_interval": 0}
# What Voila logs, with a page of traceback, when a page is left while its cells run: that is no error of anybody's.
LEFT = {"DeadKernelError", "WebSocketClosedError", "StreamClosedError"}
LOGGERS = ("tornado.application", "tornado.general", "tornado.access")
FORGOTTEN_SECONDS = 300  # how long a chapter lives whose page has gone without saying so
REMEDY = "`python3 run.py lecture` brings it, or `pip install -e '.[lecture]'`"


def serve(port: int = 0, *, browser: bool = True, masters: Path | None = None, votes: Path | str | None = None) -> int:
    """Serve the chapters until Ctrl-C; the masters are only read.

    Args:
        port: where to listen; 0 takes a free one.
        browser: whether to open a browser.
        masters: the folder of the chapters; the repository's if left out.
        votes: the file in which the hall's votes are kept beyond this lecture; the lecture's own folder, which goes
            with it, if left out: another class starts from nothing.
    Returns:
        the exit status.
    Raises:
        ValueError: there are no chapters, or the file of the votes is another one or lies beside the masters.
        RuntimeError: Voila is not installed.
        OSError: the port is taken.
    """
    if importlib.util.find_spec("voila") is None:
        raise RuntimeError(f"Voila is not installed; {REMEDY}")
    masters = Path(masters or notebooks_folder())
    kept = check_file(votes, masters) if votes else None
    with tempfile.TemporaryDirectory(prefix="spai-lecture-") as folder:
        place = Path(folder)
        lay_out(place, masters)
        prepare_environment(place, kept or place / "votes.json")
        return run_voila(place, port or free_port(), browser)


def lay_out(place: Path, masters: Path) -> list[Chapter]:
    """Write what Voila serves: the chapters as a lecture shows them, and our template.

    Raises:
        ValueError: there are no chapters.
    """
    found = chapters(masters)
    if not found:
        raise ValueError(f"there are no chapters in {masters}")
    (place / "chapters").mkdir()
    listed = [chapter_of(path) for path in found]
    for path, chapter in zip(found, listed, strict=True):
        (place / "chapters" / path.name).write_bytes(to_bytes(lecture_notebook(read(path), chapter.title)))
    kernel = place / "kernels" / KERNEL / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps(kernel_spec()), encoding="utf-8")
    template = place / "voila" / "templates" / TEMPLATE
    (template / "static").mkdir(parents=True)
    ours = resources.files("spai_lab.lecture") / "static"
    for name in STATIC:
        (template / "static" / name).write_bytes((ours / name).read_bytes())
    for name in TEMPLATES:
        text = (ours / name).read_text(encoding="utf-8")
        start = f"{{% raw %}}{start_page(listed)}{{% endraw %}}"
        (template / name).write_text(text.replace(START, start), encoding="utf-8")
    (template / "conf.json").write_text(json.dumps({"base_template": "lab"}), encoding="utf-8")
    return listed


def kernel_spec() -> dict:
    """How a chapter's kernel is started: with this Python, and silent in the lecturer's terminal."""
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--IPKernelApp.log_level=50"]
    command.append(f"--IPKernelApp.exec_lines={WARM_UP}")
    return {"argv": command, "display_name": "SPAI Lab, a lecture", "language": "python"}


def prepare_environment(place: Path, votes: Path) -> None:
    """Let Voila find our template and kernels the votes, and keep the lecturer's own predictions out of the hall."""
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(place), os.environ.get("JUPYTER_PATH")]))
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # the debugger's remark on frozen modules
    os.environ.pop("SPAI_MY", None)
    os.environ[VARIABLE] = str(votes)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def settings(place: Path, port: int, token: str) -> dict[str, dict]:
    """Voila's configuration."""
    from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager

    return {
        "Voila": {
            "ip": HOST,
            "port": port,
            "port_retries": 0,
            "root_dir": str(place / "chapters"),
            "token": token,
            "tornado_settings": SERVER,
            "log_level": "ERROR",
        },
        "VoilaConfiguration": {
            "template": TEMPLATE,
            "theme": "light",
            "allow_template_override": "NO",
            "allow_theme_override": "NO",
            "classic_tree": True,
            "progressive_rendering": True,
            "strip_sources": True,
            "file_allowlist": ["$^"],
            "extension_allowlist": EXTENSIONS,
            "multi_kernel_manager_class": with_spare(AsyncMappingKernelManager, KERNEL, place / "chapters"),
        },
        "VoilaExecutor": {"allow_errors": True, "timeout": None},
        "MappingKernelManager": {"cull_idle_timeout": FORGOTTEN_SECONDS, "cull_interval": 60},
        "NotebookNotary": {"db_file": ":memory:"},
    }


def run_voila(place: Path, port: int, browser: bool) -> int:
    """Start Voila and wait for its end, which ends the kernels."""
    from tornado.ioloop import IOLoop
    from traitlets.config import Config
    from voila.app import Voila

    token = secrets.token_hex(24)
    address = f"http://{HOST}:{port}/?token={token}"

    class Lecture(Voila):
        """Voila without the user's own configuration, which says by itself where it is."""

        def load_config_file(self, *_: object, **__: object) -> None:
            """Read none."""

        def launch_browser(self) -> None:
            """Called once the server listens."""
            print(f"The chapters are at\n\n    {address}\n\nCtrl-C here ends them.", flush=True)
            IOLoop.current().add_callback(self.kernel_manager.prepare_spare)
            if browser:
                open_browser(address, place)

    with without_stalls():
        app = Lecture(config=Config(settings(place, port, token)))
        app.initialize([])
        for log in (app.log, *map(logging.getLogger, LOGGERS)):
            log.addFilter(is_worth_reading)
        app.start()
    return 0


def is_worth_reading(record: logging.LogRecord) -> bool:
    """Whether a line belongs into the lecturer's terminal: not that somebody left a page.

    >>> left = logging.LogRecord("a", logging.ERROR, "", 0, "cell", None, (type("DeadKernelError", (), {}), None, None))
    >>> is_worth_reading(left), is_worth_reading(logging.LogRecord("a", logging.ERROR, "", 0, "no space", None, None))
    (False, True)
    """
    kind = record.exc_info[0] if record.exc_info else None
    return getattr(kind, "__name__", "") not in LEFT and "closed stream" not in record.getMessage()


@contextlib.contextmanager
def without_stalls() -> Iterator[None]:
    """nbclient, on which Voila builds, now and then waits for ever for an Output widget."""
    with without_output_widget_stalls():
        yield


def open_browser(address: str, place: Path) -> None:
    """Open the address by way of a file that only we can read: others see a browser's arguments, and so the token."""
    page = place / "open.html"
    page.write_text(
        f'<!doctype html><meta charset="utf-8"><title>SPAI Lab</title>'
        f'<meta http-equiv="refresh" content="0;url={html.escape(address)}">',
        encoding="utf-8",
    )
    with contextlib.suppress(webbrowser.Error):
        webbrowser.open(page.as_uri())
