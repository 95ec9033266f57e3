"""The survey's table of private AI, measured: what privacy leaves of accuracy, what it costs, and what was published.

Accuracy stands beside epsilon for differential privacy, and beside seconds and bytes for cryptography.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from spai_lab.he_figures import in_bytes, in_seconds
from spai_lab.survey.headline import Headline
from spai_lab.survey.ledger import Comparison
from spai_lab.survey.measured_rows import Line, lines_of
from spai_lab.survey.measured_tables import framed, said
from spai_lab.survey.totals import ledger

PARTS = ("differential privacy", "cryptography")


@dataclass(frozen=True)
class Cost:
    """Where a headline of cryptography tells what its method costs.

    Args:
        each: of what, in words.
        seconds: among its details; empty where its value is the time.
        bytes: among its details; several are added.
        holds: what the bytes are of, where that is something else.
    """

    each: str
    seconds: str
    bytes: str
    holds: str = ""


COSTS = {
    "paillier": Cost("an encryption", "", "bytes of a ciphertext", "a ciphertext"),
    "ckks": Cost("a product", "", "bytes of a ciphertext", "a ciphertext"),
    "cryptonets": Cost("a batch", "seconds of a batch", "bytes there and back"),
    "secret_sharing": Cost("a product", "", "bytes a product of each party"),
    "oblivious_transfer": Cost("a transfer", "", "bytes of sender and receiver"),
    "garbled_circuit": Cost("an AND gate", "", "bytes a gate of garbler and evaluator, inputs and transfers too"),
    "secureml": Cost("a training", "seconds", "bytes of each server"),
    "hybrid_inference": Cost("an image", "seconds an image", "bytes of server and client"),
    "federated": Cost("a round", "seconds of a round", "bytes of a client in a round", "each client"),
}


def table_private_ai(measurement: dict, comparisons: Sequence[Comparison] | None = None) -> pd.DataFrame:
    """Every method of private AI, measured, and beside it what others published.

    Args:
        measurement: as `run_survey` returns it.
        comparisons: published figures beside ours, which rest on the measurements that are kept, mostly of MNIST; the
            whole ledger if None.
    Returns:
        a line for each method and data set, and one for each published figure: `method`, `family` (HE, MPC, or where
        the noise enters), `kind`, `data`, `measured` (what, in words), `result`, `95 %`, `n`, `epsilon`, `time` and
        `bytes` with what they are of, `published`, `verdict`, `source`, `setting`, `budget` and `chapter`.
    Raises:
        ValueError: this is no measurement of the survey.

    Reference: Bae et al. 2018, arXiv 1807.11655.
    Survey: private AI, differential privacy and cryptography.

    >>> table_private_ai({"name": "survey_quick", "rows": []}, [])["method"].iloc[-1]
    'Federated averaging'
    """
    comparisons = ledger() if comparisons is None else comparisons
    found, lines = [], lines_of(measurement, *PARTS)
    for line, following in zip(lines, [*lines[1:], None], strict=True):
        found.append(BLANK | methods(line) | said(line) | measured_costs(line))
        if following is None or following.row != line.row:
            published = [each for each in comparisons if each.figure["row"] == line.row.id]
            found.extend(BLANK | methods(line) | beside(each, line) for each in published)
    return framed(found).astype({"epsilon": float})


FIRST = ("method", "family", "kind", "data", "measured", "result", "95 %", "n", "epsilon", "time", "bytes")
BLANK = dict.fromkeys((*FIRST, "published", "verdict", "source", "setting", "budget", "chapter"), "")


def methods(line: Line) -> dict:
    """What a line says of its method."""
    return {"method": line.name, "family": line.row.access, "kind": line.row.class_}


def measured_costs(line: Line) -> dict:
    """Epsilon, time and bytes of a line, in words where they have a unit."""
    seconds, count = seconds_of(line), bytes_of(line)
    cost = COSTS.get(line.row.id)
    return {
        "epsilon": epsilon_of(line.headline),
        "time": "" if seconds is None else f"{brief_seconds(seconds)} {cost.each}",
        "bytes": "" if count is None else f"{in_bytes(count)} {cost.holds or cost.each}",
    }


def costs_of(line: Line) -> str:
    """Time and bytes of a line in few words; empty where there are none."""
    seconds, count = seconds_of(line), bytes_of(line)
    if seconds is None or count is None:
        return ""
    cost = COSTS[line.row.id]
    return (
        f"{brief_seconds(seconds)} {cost.each}, {in_bytes(count)} {cost.holds}"
        if cost.holds
        else (f"{brief_seconds(seconds)} and {in_bytes(count)} {cost.each}")
    )


def beside(comparison: Comparison, line: Line) -> dict:
    """A published figure as a line."""
    low, high = comparison.interval
    figure = comparison.figure
    setup = figure["setup"]
    return {
        "data": next((name for name in ("MNIST", "faces") if name in setup), ""),
        "measured": f"{figure['metric']}: {setup}",
        "result": comparison.shown(comparison.value),
        "95 %": "" if low == high else f"{comparison.shown(low)} to {comparison.shown(high)}",
        "n": comparison.images,
        "epsilon": float(f"{comparison.value:.4g}") if figure.get("unit") == "epsilon" else None,
        "published": comparison.shown(figure["value"]),
        "verdict": comparison.verdict,
        "source": f"{figure['source']} ({figure['standing']})",
        "setting": comparison.ours,
        "chapter": line.row.chapter,
    }


def epsilon_of(headline: Headline | None) -> float | None:
    """The privacy budget that a headline names."""
    if headline is None:
        return None
    epsilon = headline.value if headline.unit == "epsilon" else headline.details.get("epsilon")
    return None if epsilon is None else float(f"{epsilon:.4g}")


def seconds_of(line: Line) -> float | None:
    """The seconds of what `COSTS` names; the mean, where there are several."""
    cost = COSTS.get(line.row.id)
    if cost is None or line.headline is None:
        return None
    if not cost.seconds:
        return line.headline.value if line.headline.unit == "s" else None
    return told(line.headline.details.get(cost.seconds), statistics.mean)


def bytes_of(line: Line) -> float | None:
    """The bytes of what `COSTS` names; the sum, where several parties send."""
    cost = COSTS.get(line.row.id)
    return None if cost is None or line.headline is None else told(line.headline.details.get(cost.bytes), sum)


def told(value: float | Iterable[float] | None, together: object) -> float | None:
    """A number among details, or several of them taken together; None where there is none."""
    return together(value) if isinstance(value, list | tuple) else value


def brief_seconds(seconds: float) -> str:
    """A duration in a unit that keeps it short, microseconds too.

    >>> brief_seconds(2.147e-07), brief_seconds(0.06)
    ('0.215 µs', '60 ms')
    """
    return f"{1e6 * seconds:.3g} µs" if seconds < 1e-4 else in_seconds(seconds)
