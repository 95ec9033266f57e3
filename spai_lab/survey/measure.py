"""Measurements that take longer than a chapter may: run by a command, kept in `data/results/`, drawn by the chapters.

A run can be interrupted: every row is on disk when it is measured, and the next run continues behind it.
"""

import json
import multiprocessing
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from tqdm.auto import tqdm

from spai_lab.files import data_folder, write_atomically
from spai_lab.metrics import Rate
from spai_lab.training import manifest


class Job(Protocol):
    """One row to measure: `key` tells it from all others, `run` measures it; both are written down."""

    @property
    def key(self) -> dict: ...

    def run(self, seed: int) -> dict: ...


def results_file(name: str) -> Path:
    """Where a measurement is kept.

    >>> results_file("gradient_attacks").name
    'gradient_attacks.json'
    """
    return data_folder() / "results" / f"{name}.json"


def measure(
    name: str,
    jobs: Sequence[Job],
    models: Sequence[str] = (),
    *,
    data: str = "mnist",
    seed: int = 0,
    fresh: bool = False,
    workers: int = 1,
    file: Path | None = None,
) -> dict:
    """Measure each job, and keep it on disk.

    Args:
        name: of the measurement; names the file.
        jobs: what to measure.
        models: the reference models that the jobs use; other weights make another measurement.
        data: the name of the data set that the jobs measure on.
        seed: of everything random in the attacks.
        fresh: measure every job again, and forget an earlier run.
        workers: how many jobs to measure at a time; above 1 each runs in a process of its own, on one thread.
        file: where to keep it; None takes `results_file(name)`.
    Returns:
        the measurement: `data`, `seed`, `versions`, `machine`, and `rows`: each job's key, what it measured, and its
        seconds.
    Raises:
        spai_lab.data.DataUnavailable: the data is not there.
    """
    weights = {model: manifest()["models"][f"{model}-{data}"]["sha256"] for model in sorted(models)}
    versions = {"torch": torch.__version__.split("+")[0]}
    head = {"name": name, "data": data, "seed": seed, "versions": versions, "weights": weights}
    threads = torch.get_num_threads() if workers == 1 else 1
    machine = {"system": platform.system(), "processor": platform.machine(), "threads": threads}
    measuring = partial(outcomes, seed=seed, workers=workers)
    file = results_file(name) if file is None else file
    return continued(file, head, jobs, measuring, machine=machine, fresh=fresh)


def continued(
    file: Path,
    head: dict,
    jobs: Sequence[Job],
    measuring: Callable[[Sequence[Job]], Iterator[dict]],
    *,
    machine: dict,
    wanted: Sequence[Job] | None = None,
    fresh: bool = False,
) -> dict:
    """Measure the jobs that a file lacks or holds as failed, and write the file whenever a row is there.

    Args:
        file: where the rows are kept.
        head: what tells the measurement from others, its name among it; a file with another head is measured anew.
        jobs: all of the measurement, in the order in which the file keeps them.
        measuring: from some jobs to the row of each, as soon as it is measured.
        machine: what measures now.
        wanted: the jobs to measure now; all if None. Rows of others stay as they are.
        fresh: measure the wanted ones again, whatever the file holds of them.
    Returns:
        the measurement, as the file holds it.
    """
    earlier = earlier_rows(file, head)
    rows = [row for row in earlier if stays(row, jobs, wanted, fresh)]
    wanted = jobs if wanted is None else wanted
    missing = [job for job in wanted if not any(is_row_of(job, row) for row in rows)]

    def keep() -> None:
        today = datetime.now(UTC).date().isoformat()
        content = {**head, "machine": machine, "measured": today, "rows": in_order(rows, jobs)}
        write_atomically(file, (json.dumps(content, indent=1) + "\n").encode())

    if len(rows) < len(earlier) and not fresh:
        keep()
    start, failed = len(wanted) - len(missing), 0
    with (
        tqdm(total=len(wanted), initial=start, desc=head["name"], unit="row", smoothing=0) as bar,
        closing(measuring(missing)) as measured,
    ):
        for row in measured:
            rows.append(row)
            keep()
            failed += "failed" in row
            bar.set_postfix({"failed": failed} if failed else {}, refresh=False)
            bar.update()
    return json.loads(file.read_text(encoding="utf-8"))


def is_row_of(job: Job, row: dict) -> bool:
    """Whether a row is what the job measured."""
    return row.items() >= job.key.items()


def stays(row: dict, jobs: Sequence[Job], wanted: Sequence[Job] | None, fresh: bool) -> bool:
    """Whether a row of an earlier run is kept: a job asks for it, and it is not to be measured again."""
    job = next((job for job in jobs if is_row_of(job, row)), None)
    asked = wanted is None or job in wanted
    return job is not None and not (asked and (fresh or "failed" in row))


def in_order(rows: Sequence[dict], jobs: Sequence[Job]) -> list[dict]:
    """The rows in the order of their jobs, whichever was measured first."""
    return [row for job in jobs for row in rows if is_row_of(job, row)]


def outcomes(jobs: Sequence[Job], seed: int, workers: int) -> Iterator[dict]:
    """The row of each job as soon as it is measured: one after the other, or several at a time in other processes."""
    if workers == 1:
        yield from (outcome(job, seed) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        try:
            for future in as_completed([pool.submit(outcome, job, seed) for job in jobs]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def outcome(job: Job, seed: int) -> dict:
    """Its key, what it measured, and the seconds that took."""
    start = time.perf_counter()
    measured = job.run(seed)
    return {**job.key, **measured, "seconds": round(time.perf_counter() - start, 1)}


def earlier_rows(file: Path, head: dict) -> list[dict]:
    """The rows of an earlier run of the same measurement; none if it had other data, seed or versions."""
    if not file.exists():
        return []
    earlier = json.loads(file.read_text(encoding="utf-8"))
    return earlier["rows"] if all(earlier.get(key) == value for key, value in head.items()) else []


def load_measurement(name: str) -> dict:
    """A measurement that was committed, or made by `spai-lab measure`.

    Raises:
        ValueError: there is none of this name.
    """
    file = results_file(name)
    if not file.exists():
        raise ValueError(f"name is {name!r}; accepted: a measurement in data/results, made by `spai-lab measure`")
    return json.loads(file.read_text(encoding="utf-8"))


def rows_of_kind(measurement: dict, kind: str) -> list[dict]:
    """The rows of one kind of job."""
    return [row for row in measurement["rows"] if row["kind"] == kind]


def row_of(measurement: dict, **key: object) -> dict:
    """The one row of a measurement that fits.

    Args:
        measurement: as `measure` returns it.
        key: fields of a row and their values, such as `model="lenet", attack="fgsm", eps=0.3`.
    Raises:
        ValueError: no row fits, or several do.
    """
    rows = [row for row in measurement["rows"] if all(row.get(name) == value for name, value in key.items())]
    if len(rows) != 1:
        raise ValueError(f"key is {key}; accepted: one that fits exactly one measured row, this one fits {len(rows)}")
    return rows[0]


def counted(rate: Rate) -> list[int]:
    """A rate as a row holds it: hits and trials."""
    return [rate.hits, rate.trials]
