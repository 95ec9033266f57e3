"""Rows measured in processes of their own: one that crashes, dies or takes too long takes no other row with it.

A worker of joblib, here or on a cluster, calls `attempt`. That hands the row, as a line of JSON, to a process on one
thread, which measures rows one after the other, and answers with a line of JSON. Where the process dies or is late, the
row is marked as failed, and the next row gets a new process.
"""

import json
import os
import platform
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO, NamedTuple, Protocol

import spai_lab
from spai_lab.survey.taxonomy import function_of

PACKAGES = ("torch", "numpy")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
IDLE = 600


class RowJob(Protocol):
    """A row to measure: a dataclass at the top of a module, whose fields JSON knows."""

    @property
    def key(self) -> dict: ...

    def run(self, seed: int) -> dict: ...


class Measurer(NamedTuple):
    """A process that measures rows, and the file that takes what it says about itself."""

    process: subprocess.Popen
    errors: IO[bytes]


@dataclass
class Crew:
    """The processes that measure for one run within one worker: all of them, and those that wait for a row."""

    everyone: list[Measurer] = field(default_factory=list)
    idle: list[Measurer] = field(default_factory=list)


CREWS: defaultdict[str, Crew] = defaultdict(Crew)
STOPPED: set[str] = set()


# --- in the worker ----------------------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """What a measurement here depends on: Python, this package, and those that compute.

    >>> sorted(versions())
    ['numpy', 'python', 'spai_lab', 'torch']
    """
    found = {name: metadata.version(name).split("+")[0] for name in PACKAGES}
    return {**found, "python": platform.python_version(), "spai_lab": spai_lab.__version__}


def attempt(job: RowJob, seed: int, *, timeout: float | None, run: str) -> dict:
    """Measure a row, whatever it does.

    Args:
        job: the row.
        seed: of everything random in it.
        timeout: after how many seconds its process is ended; None waits.
        run: names the run; what it has started ends with `stop`.
    Returns:
        the job's key, what it measured, or `failed`, the kind of the error and its message; and the seconds.
    """
    if run in STOPPED:
        return {**job.key, "failed": "InterruptedError: the run was stopped"}
    start = time.perf_counter()
    task = {"job": f"{type(job).__module__}:{type(job).__qualname__}", "fields": asdict(job), "seed": seed}
    answer = ask(CREWS[run], json.dumps(task), timeout)
    return {**job.key, "seconds": round(time.perf_counter() - start, 1), **answer}


def ask(crew: Crew, task: str, timeout: float | None) -> dict:
    """The answer of a process to a task; where it gives none, why."""
    measurer = hire(crew)
    said = os.fstat(measurer.errors.fileno()).st_size
    late = threading.Event()

    def give_up() -> None:
        late.set()
        kill(measurer.process)

    timer = threading.Timer(timeout or 0, give_up)
    timer.daemon = True
    try:
        if timeout is not None:
            timer.start()
        with suppress(OSError):
            measurer.process.stdin.write(f"{task}\n")
            measurer.process.stdin.flush()
        answer = measurer.process.stdout.readline()
    except BaseException:
        dismiss(crew, measurer)
        raise
    finally:
        if timeout is not None:
            timer.cancel()
            timer.join()
    if answer.endswith("\n") and not late.is_set():
        crew.idle.append(measurer)
        return json.loads(answer)
    dismiss(crew, measurer)
    if late.is_set():
        return {"failed": f"TimeoutError: not done within {timeout:g} s"}
    return {"failed": f"ChildProcessError: {ending(measurer, said)}"}


def hire(crew: Crew) -> Measurer:
    """A process that waits for a row; a new one where there is none."""
    while crew.idle:
        measurer = crew.idle.pop()
        if measurer.process.poll() is None:
            return measurer
        dismiss(crew, measurer)
    errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by dismiss)
    paths = os.pathsep.join(path for path in sys.path if path)
    measurer = Measurer(
        subprocess.Popen(
            [sys.executable, "-m", "spai_lab.survey.row_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": paths, "PYTHONUTF8": "1", "TQDM_DISABLE": "1"},
            start_new_session=True,
        ),
        errors,
    )
    crew.everyone.append(measurer)
    return measurer


def kill(process: subprocess.Popen) -> None:
    """End a process that still runs, and, where the system has groups of processes, all that it started."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()


def dismiss(crew: Crew, measurer: Measurer) -> None:
    """End a process that belongs to a crew, and forget it; what it said last stays to be read."""
    kill(measurer.process)
    measurer.process.wait()
    for pipe in (measurer.process.stdin, measurer.process.stdout):
        with suppress(OSError):
            pipe.close()
    with suppress(ValueError):
        crew.everyone.remove(measurer)


def ending(measurer: Measurer, said: int) -> str:
    """How a process ended, and its last words, those after `said` bytes."""
    code = measurer.process.returncode
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    measurer.errors.seek(said)
    words = measurer.errors.read().decode("utf-8", "replace").strip().splitlines()
    measurer.errors.close()
    return f"its process {how}" + (f"; its last words: {words[-1][:200]}" if words else "")


def stop(run: str) -> None:
    """End the processes that measure for a run within this worker, busy ones too."""
    STOPPED.add(run)
    crew = CREWS.pop(run, Crew())
    for measurer in list(crew.everyone):
        kill(measurer.process)
    for measurer in list(crew.idle):
        dismiss(crew, measurer)


# --- in the process that measures -------------------------------------------------------------------------------------


def measured(job: str, fields: dict, seed: int) -> dict:
    """What a row came to, or the error that it ended with and where that was raised."""
    start = time.perf_counter()
    try:
        row = function_of(job)(**fields).run(seed)
        json.dumps(row)
    except BaseException as error:  # a row that calls sys.exit is a failed row, too
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = " ".join(str(error).split())
        failed = f"{type(error).__name__}: {message}".rstrip(": ")
        return {"failed": failed, "where": f"{Path(place.filename).name}:{place.lineno}"}
    return {**row, "seconds": round(time.perf_counter() - start, 1)}


def read_tasks(tasks: queue.SimpleQueue) -> None:
    """Take tasks as they come; when the worker is gone, end this process and all that it started."""
    for line in sys.stdin:
        tasks.put(json.loads(line))
    if os.name == "posix" and os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def serve() -> None:
    """Measure row after row, until none has come for a while; what rows print does not disturb the answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tasks: queue.SimpleQueue = queue.SimpleQueue()
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        threading.Thread(target=read_tasks, args=(tasks,), daemon=True).start()
        with suppress(queue.Empty):
            while True:
                answers.write(json.dumps(measured(**tasks.get(timeout=IDLE))) + "\n")
                answers.flush()


if __name__ == "__main__":
    serve()
