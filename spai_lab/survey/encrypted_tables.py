"""What was measured of inference on encrypted images, as rows of words and beside what was published."""

import statistics
from collections.abc import Iterator

from spai_lab.he_figures import in_bytes, in_seconds
from spai_lab.metrics import Rate
from spai_lab.survey.backdoors import Measured
from spai_lab.survey.measure import load_measurement, results_file, rows_of_kind
from spai_lab.survey.privacy_tables import ranged

TRAINED = "no padding, 720 numbers in place of 845 after the convolution; trained on shifted images"


def share(counts: list[int]) -> str:
    """A rate in percent, and of how many."""
    return f"{100 * Rate(*counts).value:.2f} % of {counts[1]:,}"


# --- tables -----------------------------------------------------------------------------------------------------------


def batch_seconds(row: dict) -> list[float]:
    """The median seconds to encrypt, to compute and to decrypt a batch."""
    return [statistics.median(times) for times in zip(*row["batch_seconds"], strict=True)]


def answering_rows(measurement: dict) -> list[dict]:
    """Single images, then batches."""
    return [*rows_of_kind(measurement, "single"), *rows_of_kind(measurement, "batch")]


def way(row: dict) -> tuple[str, str]:
    """How images were encrypted, by whose scheme, and the network."""
    packing = "one image" if row["kind"] == "single" else "a batch"
    return f"{packing}, {row.get('library', 'ours')}", row["network"]


def answers_table(measurement: dict) -> list[tuple[str, ...]]:
    """Way, network, accuracy in the clear and encrypted, classes as in the clear, largest error, bound."""
    return [
        (
            *way(row),
            share(row["accuracy"]),
            share(row["encrypted"]),
            f"{row['agree'][0]:,} of {row['agree'][1]:,}",
            f"{row['largest_error']:.1e}",
            f"{row['error_bound']:.1e}" if "error_bound" in row else "not given",
        )
        for row in answering_rows(measurement)
    ]


def costs_table(measurement: dict) -> list[tuple[str, ...]]:
    """Way, network, seconds to encrypt, to compute (and of that for an image) and to decrypt, bytes there and back,
    bytes of the keys, memory of the server, levels used.
    """
    table = []
    for row in answering_rows(measurement):
        single = row["kind"] == "single"
        encrypting, computing, decrypting = row["image_seconds"] if single else batch_seconds(row)
        memory, keys = (in_bytes(row[name]) if name in row else "–" for name in ("memory", "key_bytes"))
        table.append(
            (
                *way(row),
                in_seconds(encrypting),
                in_seconds(computing),
                in_seconds(computing if single else computing / row["batch"]),
                in_seconds(decrypting),
                in_bytes(row["bytes_up"]),
                in_bytes(row["bytes_back"]),
                keys,
                memory,
                f"{row['levels_used']} of {row['levels']}" if "levels" in row else "–",
            )
        )
    return table


def activation_table(measurement: dict) -> list[tuple[str, ...]]:
    """Activation, test accuracy, products in sequence, the largest number that each activation read."""
    table = []
    for row in rows_of_kind(measurement, "activation"):
        accuracies = [Rate(*counts).value for counts in row["accuracy"]]
        read = [max(of) for of in zip(*row.get("largest", []), strict=True)]
        table.append(
            (
                row["activation"],
                f"{100 * accuracies[0]:.1f} %" if len(accuracies) == 1 else ranged(accuracies, digits=1),
                str(row.get("products", "none will do")),
                ", ".join(f"{a:.1f}" for a in read) or "–",
            )
        )
    return table


def paillier_table(measurement: dict) -> list[tuple[str, ...]]:
    """Images, accuracy, exact logits, time to encrypt, compute and decrypt an image, bytes each way."""
    return [
        (
            f"{row['images']}",
            share(row["accuracy"]),
            f"{row['exact'][0]} of {row['exact'][1]}",
            *map(in_seconds, row["image_seconds"]),
            in_bytes(row["bytes_up"]),
            in_bytes(row["bytes_back"]),
        )
        for row in rows_of_kind(measurement, "paillier")
    ]


# --- beside what was published ----------------------------------------------------------------------------------------


def encrypted_compared() -> Iterator[tuple[str, Rate | Measured, str, str]]:
    """By the id of a published figure: what we measured, our set-up, and what that differs in."""
    if not results_file("encrypted_mnist").exists():
        return
    measured = load_measurement("encrypted_mnist")
    machine = "another machine, one thread, the server's part, weights encoded before"
    for row in rows_of_kind(measured, "batch"):
        if (row["library"], row["network"]) == ("ours", "small"):
            yield "lola-small-accuracy", Rate(*row["encrypted"]), "the same kind of network, in batches", TRAINED
        elif row["library"] == "ours":
            yield "cryptonets-accuracy", Rate(*row["encrypted"]), "the same layers", TRAINED
            computing = batch_seconds(row)[1]
            spread = Measured(computing, row["batch"], (computing, computing))
            yield "cryptonets-batch-seconds", spread, "the server's part of a batch", machine
            hourly = 3600 * row["batch"] / computing
            spread = Measured(hourly, row["batch"], (hourly, hourly))
            yield "cryptonets-hour", spread, "the server's part, batch after batch", machine
    for row in rows_of_kind(measured, "single"):
        seconds = row["image_seconds"][1]
        spread = Measured(seconds, row["agree"][1], (seconds, seconds))
        if row["network"] == "CryptoNets":
            yield "lola-seconds", spread, "the server's part of one image", machine
        elif row["network"] == "small":
            yield "lola-small-seconds", spread, "the server's part of one image", machine
