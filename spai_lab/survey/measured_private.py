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
from spai_lab.survey.ledger_tables import gap_of, interval_of, reason_of
from spai_lab.survey.measured_rows import Line, lines_of
from spai_lab.survey.measured_tables import framed, result_of, spent_on
from spai_lab.survey.totals import ledger

PARTS = ("differential privacy", "cryptography")
PROMISES = 100  # up to which epsilon anything is promised: beyond, an answer may be e^100 times as likely


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
    "cryptonets": Cost("a batch, client and server", "seconds of a batch", "bytes there and back"),
    "secret_sharing": Cost("a product", "", "bytes a product of each party"),
    "oblivious_transfer": Cost("a transfer", "", "bytes of sender and receiver"),
    "garbled_circuit": Cost(
        "an AND gate, labels and transfers included",
        "",
        "bytes a gate of garbler and evaluator, inputs and transfers too",
    ),
    "secureml": Cost("a training", "seconds", "bytes of each server"),
    "hybrid_inference": Cost("an image, both on one machine", "seconds an image", "bytes of server and client"),
    "federated": Cost("a round", "seconds of a round", "bytes of a client in a round", "each client"),
}


def table_private_ai(measurement: dict, comparisons: Sequence[Comparison] | None = None) -> pd.DataFrame:
    """Every method of private AI, measured, and beside it what others published.

    Args:
        measurement: as `run_survey` returns it.
        comparisons: published figures beside ours, which rest on the measurements that are kept, mostly of MNIST; the
            whole ledger if None.
    Returns:
        a line for each method and data set, and one for each published figure: `method`, `result`, `95 %`, `n`,
        `published`, `gap` and `verdict`, `epsilon`, `time` and `bytes` with what they are of, `data`, `measured` (what,
        in words), `family` (HE, MPC, or where the noise enters), `kind`, `reason` (why a figure is not reproduced),
        `source`, `setting`, `budget` and `chapter`.
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
        found.append(BLANK | methods(line) | result_of(line) | spent_on(line) | measured_costs(line))
        if following is None or following.row != line.row:
            published = [each for each in comparisons if each.figure["row"] == line.row.id]
            found.extend(BLANK | methods(line) | beside(each, line) for each in published)
    return framed(found).astype({"epsilon": float})


COLUMNS = (
    "method", "result", "95 %", "n", "published", "gap", "verdict", "epsilon", "time", "bytes", "data", "measured",
    "family", "kind", "reason", "source", "setting", "budget", "chapter",
)  # fmt: skip
BLANK = dict.fromkeys(COLUMNS, "")


def methods(line: Line) -> dict:
    """What a line says of its method."""
    told = {"method": line.name, "family": line.row.access, "kind": line.row.class_}
    return told | {"data": line.data, "measured": line.measured}


def measured_costs(line: Line) -> dict:
    """Epsilon, time and bytes of a line, in words where they have a unit."""
    seconds, count = seconds_of(line), bytes_of(line)
    cost = COSTS.get(line.row.id)
    return {
        "epsilon": epsilon_of(line.headline),
        "time": "" if seconds is None else f"{brief_seconds(seconds)} {cost.each}",
        "bytes": "" if count is None else f"{in_bytes(count)} {cost.holds or cost.each}",
    }


def in_words(line: Line) -> str:
    """The number of a method, with its epsilon, or its time and bytes."""
    if line.headline is None:
        return line.failed
    budget, spent = epsilon_of(line.headline), costs_of(line)
    if line.headline.unit and not spent:
        named = line.measured.startswith(line.headline.unit)
        return f"{line.result.removesuffix(line.headline.unit).strip() if named else line.result}: {line.measured}"
    number = "" if line.headline.unit == "s" else line.result
    return ", ".join(part for part in (number, promise_of(budget), spent) if part)


def promise_of(budget: float | None) -> str:
    """An epsilon in words, and whether it promises anything; empty where there is none.

    >>> promise_of(2.0), promise_of(54_950.0)
    ('epsilon 2', 'epsilon 54,950, which promises nothing')
    """
    if budget is None:
        return ""
    return f"epsilon {budget:,g}{', which promises nothing' if budget > PROMISES else ''}"


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
    figure = comparison.figure
    setup = figure["setup"]
    return {
        "data": next((name for name in ("MNIST", "faces") if name in setup), ""),
        "measured": f"{figure['metric']}: {setup}",
        "result": comparison.shown(comparison.value),
        "95 %": interval_of(comparison),
        "n": comparison.images,
        "epsilon": float(f"{comparison.value:.4g}") if figure.get("unit") == "epsilon" else None,
        "published": comparison.shown(figure["value"]),
        "gap": gap_of(comparison),
        "verdict": comparison.outcome,
        "reason": reason_of(comparison),
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
