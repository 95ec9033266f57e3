"""Measurements that take longer than a chapter may: run by a command, kept in `data/results/`, drawn by the chapters.

A run can be interrupted: every row is on disk when it is measured, and the next run continues behind it.
"""

import json
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import torch
from tqdm.auto import tqdm

from spai_lab.files import data_folder, write_atomically
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
        file: where to keep it; None takes `results_file(name)`.
    Returns:
        the measurement: `data`, `seed`, `versions`, `machine`, and `rows`: each job's key, what it measured, and its
        seconds.
    Raises:
        spai_lab.data.DataUnavailable: the data is not there.
    """
    file = results_file(name) if file is None else file
    weights = {model: manifest()["models"][f"{model}-{data}"]["sha256"] for model in sorted(models)}
    versions = {"torch": torch.__version__.split("+")[0]}
    head = {"name": name, "data": data, "seed": seed, "versions": versions, "weights": weights}
    rows = [] if fresh else earlier_rows(file, head)
    rows = [row for row in rows if any(row.items() >= job.key.items() for job in jobs)]
    for job in tqdm(jobs, desc=name, unit="row"):
        if any(row.items() >= job.key.items() for row in rows):
            continue
        start = time.perf_counter()
        measured = job.run(seed)
        rows.append({**job.key, **measured, "seconds": round(time.perf_counter() - start, 1)})
        machine = {"system": platform.system(), "processor": platform.machine(), "threads": torch.get_num_threads()}
        today = datetime.now(UTC).date().isoformat()
        content = {**head, "machine": machine, "measured": today, "rows": rows}
        write_atomically(file, (json.dumps(content, indent=1) + "\n").encode())
    return json.loads(file.read_text(encoding="utf-8"))


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
