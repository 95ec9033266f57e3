"""The measured survey, run: rows in parallel, on disk as soon as it is measured, whatever happens to others."""

import hashlib
import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from joblib import Parallel, delayed, parallel_config

from spai_lab.checks import check_count, check_number
from spai_lab.survey.cluster import Certificates, connected, machines
from spai_lab.survey.measure import continued, earlier_rows, results_file
from spai_lab.survey.profiles import PROFILES, chosen, headlines_of, survey_jobs
from spai_lab.survey.row_process import RowJob, attempt, stop, versions
from spai_lab.training import manifest

if TYPE_CHECKING:
    from distributed import Client


def run_survey(
    profile: str,
    *,
    workers: int = 2,
    scheduler: str | None = None,
    certificates: Certificates | None = None,
    only: Sequence[str] = (),
    fresh: bool = False,
    seed: int = 0,
    file: Path | None = None,
    timeout: float | None = None,
) -> dict:
    """Measure the rows of a profile that its file lacks or holds as failed.

    Args:
        profile: "quick" or "full".
        workers: how many rows at a time on this machine, each on one thread.
        scheduler: the address of a trusted Dask cluster that measures in place of this machine, "tls://host:port".
        certificates: for TLS.
        only: ids of the rows to measure; all if empty. The file keeps what it holds of the others.
        fresh: measure again what the file holds.
        seed: of everything random.
        file: where the rows are kept; None takes `data/results/survey_quick.json` or `survey_full.json`.
        timeout: after how many seconds a row is marked as failed; None takes the profile's.
    Returns:
        the measurement: name, data, model, seed, versions, weights, measurements that it tells of, machine, day, and
        `rows`. A row has `budget`, `headlines` and `seconds`, or `failed`: the kind of its error and the message.
    Raises:
        ValueError: names the argument.
        RuntimeError: the cluster cannot be used.
        KeyboardInterrupt: what was measured is kept; a note says how to go on.
    """
    jobs = survey_jobs(profile)
    check_count("workers", workers)
    check_count("seed", seed, low=0)
    if timeout is not None:
        check_number("timeout", timeout, low=0, exclusive=True)
    file = results_file(f"survey_{profile}") if file is None else Path(file)
    settings = {"wanted": chosen(jobs, only) if only else None, "fresh": fresh, "seed": seed, "workers": workers}
    head = head_of(profile, seed)
    if only:
        check_same(file, head)
    timeout = PROFILES[profile].timeout if timeout is None else timeout
    with nullcontext() if scheduler is None else connected(scheduler, certificates) as client:
        return run_rows(file, head, jobs, timeout=timeout, client=client, **settings)


def run_rows(
    file: Path,
    head: dict,
    jobs: Sequence[RowJob],
    *,
    wanted: Sequence[RowJob] | None = None,
    fresh: bool = False,
    seed: int = 0,
    workers: int = 2,
    timeout: float | None = None,
    client: "Client | None" = None,
) -> dict:
    """Measure some jobs in parallel, and keep their rows.

    Args:
        file, head, jobs, wanted, fresh: as in `continued`.
        seed, workers, timeout: as in `run_survey`.
        client: of a Dask cluster; None measures on this machine.
    Returns:
        the measurement.
    Raises:
        KeyboardInterrupt: what was measured is kept; a note says how to go on.
    """
    measuring = partial(measured_rows, seed=seed, workers=workers, timeout=timeout, client=client)
    try:
        return continued(file, head, jobs, measuring, machine=machines(client), wanted=wanted, fresh=fresh)
    except KeyboardInterrupt as interrupt:
        kept = len(earlier_rows(file, head))
        interrupt.add_note(f"Interrupted: {kept} of {len(jobs)} rows are kept in {file}; the same call goes on there.")
        raise


def measured_rows(
    jobs: Sequence[RowJob], *, seed: int, workers: int, timeout: float | None, client: "Client | None"
) -> Iterator[dict]:
    """The row of each job, as soon as it is measured or has failed."""
    run = uuid4().hex
    if client is None:
        calm = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN), "idle_worker_timeout": 2}
        place = {"backend": "loky", "n_jobs": workers, "inner_max_num_threads": 1, **calm}
    else:
        place = {"backend": "dask", "client": client, "pure": False}
    with parallel_config(**place):
        parallel = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="2 * n_jobs")
        rows = parallel(delayed(attempt)(job, seed, timeout=timeout, run=run) for job in jobs)
    try:
        with closing(rows):
            yield from rows
    finally:
        stop(run)
        if client is not None:
            client.run(stop, run)


def head_of(profile: str, seed: int) -> dict:
    """What tells a run of the survey from others: data, models, seed, versions, and the measurements it tells of."""
    models = {name: entry["sha256"] for name, entry in manifest()["models"].items()}
    names = PROFILES[profile].data.split(", ")
    used = {name: sha256 for name, sha256 in models.items() if name.endswith(tuple(f"-{data}" for data in names))}
    kept = sorted(results_file("any").parent.glob("*.json")) if profile == "full" else []
    return {
        "name": f"survey_{profile}",
        "data": PROFILES[profile].data,
        "model": "the reference models, and what each row says",
        "seed": seed,
        "versions": versions(),
        "weights": used,
        "measurements": {
            path.stem: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in kept
            if not path.stem.startswith("survey_")
        },
    }


def check_same(file: Path, head: dict) -> None:
    """Raise `ValueError` where measuring some rows would lose the others: they depend on something else."""
    if not file.exists():
        return
    earlier = json.loads(file.read_text(encoding="utf-8"))
    differing = [name for name, value in head.items() if earlier.get(name) != value]
    if differing:
        raise ValueError(
            f"only names some rows, and {file.name} was measured with other {', '.join(differing)}; accepted: the "
            "same, or another file, or a run of all rows"
        )


def survey_table(measurement: dict, jobs: Sequence[RowJob] = ()) -> str:
    """A run of the survey as a Markdown table: a line for each headline or failure, and the totals beneath.

    Args:
        measurement: as `run_survey` returns it.
        jobs: what could be measured; rows that are missing are counted.
    Returns:
        the table, an empty line, and a sentence.
    """
    rows = measurement["rows"]
    lines = ["| row | what was measured | | 95 % | n | s |", "|---|---|---:|---|---:|---:|"]
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['row']} | failed: {row['failed']} | | | | {row['seconds']:.1f} |")
        for headline in headlines_of(row):
            bounds = "–"
            if headline.interval is not None:
                bounds = " to ".join(
                    f"{100 * end:.1f}" if not headline.unit else f"{end:.3g}" for end in headline.interval
                )
            lines.append(
                f"| {row['row']} | {headline.metric}; {headline.setup} | {headline.shown} | {bounds} "
                f"| {headline.trials:,} | {row['seconds']:.1f} |"
            )
    failed = sum("failed" in row for row in rows)
    missing = sum(not any(row.items() >= job.key.items() for row in rows) for job in jobs)
    counts = f"{len(rows) - failed} rows measured, {failed} failed, {missing} missing"
    minutes = sum(row["seconds"] for row in rows) / 60
    return "\n".join([*lines, "", f"{counts}; {minutes:.1f} minutes of computing."])
