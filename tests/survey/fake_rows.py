"""Rows that the runner's tests measure, in processes that import them by name: quick, failing and deadly ones."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

HEADLINE = {"metric": "rows", "value": 0.5, "unit": "", "trials": 4, "interval": [0.1, 0.9], "setup": "fake"} | {
    "budget": "none",
    "better": "higher",
    "details": {},
}


@dataclass(frozen=True)
class Fake:
    """A row that does what it is told; each start adds its name to the file `log`."""

    row: str
    does: str
    log: str
    profile: str = "quick"

    @property
    def key(self) -> dict:
        return asdict(self)

    def run(self, seed: int) -> dict:
        with Path(self.log).open("a", encoding="utf-8") as log:
            log.write(f"{self.row}\n")
        return {"headlines": [HEADLINE], "found": seed, **(DOES[self.does](self) or {})}


def started(log: str) -> list[str]:
    """The rows that were started, in order."""
    return Path(log).read_text(encoding="utf-8").split() if Path(log).exists() else []


def sees(job: Fake) -> dict:
    print("a row may print")
    threads = [os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")]
    return {"pid": os.getpid(), "parent": os.getppid(), "threads": threads}


def fails(job: Fake) -> None:
    raise ValueError("eps is -1;\naccepted: 0 to 1")


def fails_once(job: Fake) -> None:
    if started(job.log).count(job.row) == 1:
        raise ValueError("not yet")


def kills_itself(job: Fake) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def exits(job: Fake) -> None:
    print("no license", file=sys.stderr, flush=True)
    os._exit(7)


def leaves(job: Fake) -> None:
    sys.exit(3)


def hangs(job: Fake) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    Path(f"{job.log}.pids").write_text(f"{os.getpid()} {child.pid}", encoding="utf-8")
    time.sleep(120)


def tells_an_object(job: Fake) -> dict:
    return {"value": object()}


def takes_time(job: Fake) -> dict:
    time.sleep(0.5)
    return {"pid": os.getpid(), "parent": os.getppid()}


def is_well(job: Fake) -> None:
    return


def waits(job: Fake) -> None:
    while not Path(f"{job.log}.go").exists():
        time.sleep(0.02)


def first_quick_then_waiting(log: str) -> list[Fake]:
    """Three rows that are there at once, and three that wait for the file `log`.go."""
    quick, waiting = (
        [Fake(f"{kind}{place}", does, log) for place in range(3)]
        for kind, does in (("quick", "is_well"), ("waiting", "waits"))
    )
    return [*quick, *waiting]


DOES = {
    function.__name__: function
    for function in (
        sees,
        fails,
        fails_once,
        kills_itself,
        exits,
        leaves,
        hangs,
        tells_an_object,
        takes_time,
        is_well,
        waits,
    )
}
