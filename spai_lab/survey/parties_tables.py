"""What was measured between parties, as rows of words and beside what was published."""

from collections.abc import Iterator, Sequence

from spai_lab.crypto.channel import Lap, Sent
from spai_lab.crypto.network_time import LAN, WAN, Duration, Network, replay
from spai_lab.he_figures import in_bytes, in_seconds
from spai_lab.survey.backdoors import Measured
from spai_lab.survey.encrypted_tables import share
from spai_lab.survey.measure import load_measurement, results_file, rows_of_kind

KINDS = ("hybrid", "shares")
MACHINE = "another machine, one thread a party, memory in place of a network; nothing prepared, theirs is the total"

# --- what is kept -----------------------------------------------------------------------------------------------------


def logs_of(measurement: dict) -> dict[str, tuple[list[Sent], list[Sent]]]:
    """The logs of both ends for one image, by protocol."""
    return {
        protocol(row): tuple([Sent(*each) for each in log] for log in row["logs"])
        for row in inference_rows(measurement)
    }


def laps_of(row: dict) -> tuple[list[Lap], list[Lap]]:
    """What each part of a row's run cost, at both ends."""
    first, second = ([Lap(*each) for each in laps] for laps in row["laps"])
    return first, second


def duration(row: dict, network: Network) -> Duration:
    """What a row's run would take over a network."""
    return replay(*([Sent(*each) for each in log] for log in row["logs"]), network)


# --- tables -----------------------------------------------------------------------------------------------------------


def inference_rows(measurement: dict) -> list[dict]:
    """One row a protocol."""
    return [row for kind in KINDS for row in rows_of_kind(measurement, kind)]


def protocol(row: dict) -> str:
    """Its name."""
    if row["kind"] == "shares":
        return f"shares, garbled, {row['relu_bits']} bits"
    return f"ring-LWE, garbled with {row['label_hash']}"


def inference_table(measurement: dict) -> list[tuple[str, ...]]:
    """Protocol, accuracy of the network and of the one in whole numbers, classes alike, largest difference of a logit
    in units of the last place, at most, chance of a wrap.
    """
    return [
        (
            protocol(row),
            share(row["accuracy"]),
            share(row["fixed"]),
            f"{row['agree'][0]} of {row['agree'][1]}",
            f"{row['largest_error']:,}",
            f"{row.get('error_bound', 0):,}",
            f"{row['wrap']:.0e}" if row["wrap"] else "0",
        )
        for row in inference_rows(measurement)
    ]


def traffic_table(measurement: dict) -> list[tuple[str, ...]]:
    """Protocol, seconds of one image on this machine, over a LAN, over a WAN, messages in turn, bytes of both parties,
    bytes of triples for each.
    """
    table = []
    for row in inference_rows(measurement):
        lan, wan = duration(row, LAN), duration(row, WAN)
        table.append(
            (
                protocol(row),
                in_seconds(row["image_seconds"]),
                in_seconds(lan.seconds),
                in_seconds(wan.seconds),
                f"{wan.rounds}",
                *map(in_bytes, row["bytes"]),
                in_bytes(row["triple_bytes"]) if "triple_bytes" in row else "–",
            )
        )
    return table


def layer_table(first: Sequence[Lap], second: Sequence[Lap]) -> list[tuple[str, ...]]:
    """Part, bytes that each party sends, turns of direction at the first one's end, seconds there."""
    return [
        (one.name, in_bytes(one.bytes_sent), in_bytes(other.bytes_sent), f"{one.rounds}", in_seconds(one.seconds))
        for one, other in zip(first, second, strict=True)
    ]


def training_table(measurement: dict) -> list[tuple[str, ...]]:
    """Examples, epochs, steps, accuracy on shares, in plain fixed point, with the true sigmoid; largest difference of a
    weight, at most, the chance that a number wraps around; seconds; bytes that both servers send each other.
    """
    return [
        (
            f"{row['examples']:,}",
            f"{row['epochs']}",
            f"{row['steps']}",
            *(share(row[name]) for name in ("shares", "fixed", "sigmoid")),
            f"{row['largest_difference']:,}",
            "–" if row["difference_bound"] is None else f"{row['difference_bound']:,.0f}",
            f"{row['wrap']:.0e}",
            in_seconds(row["run_seconds"]),
            in_bytes(sum(each.bytes_sent for laps in laps_of(row) for each in laps if between_servers(each))),
        )
        for row in rows_of_kind(measurement, "training")
    ]


def between_servers(lap: Lap) -> bool:
    """Whether this part of a training is one between the two servers.

    >>> [between_servers(Lap(name, 0, 0, 0, 0.0)) for name in ("epoch 1: garbled", "masks")]
    [True, False]
    """
    return lap.name.endswith((": linear", ": garbled")) or lap.name == "data masked"


def aggregation_table(measurement: dict) -> list[tuple[str, ...]]:
    """Clients, how many leave, who is in the sum, numbers of an update, largest error, seconds, bytes that a client
    sends, in the clear.
    """
    return [
        (
            f"{row['clients']}",
            f"{row['leave']}",
            f"{row['included']}",
            f"{row['size']:,}",
            f"{row['largest_error']:.0e}",
            in_seconds(row["run_seconds"]),
            in_bytes(row["client_bytes"]),
            in_bytes(row["plain_bytes"]),
        )
        for row in rows_of_kind(measurement, "aggregation")
    ]


# --- beside what was published ----------------------------------------------------------------------------------------


def parties_compared() -> Iterator[tuple[str, Measured, str, str]]:
    """By the id of a published figure: what we measured, our set-up, and what that differs in."""
    if not results_file("parties_mnist").exists():
        return
    for row in rows_of_kind(load_measurement("parties_mnist"), "hybrid"):
        if row["label_hash"] != "BLAKE2b":
            continue
        lan, images = duration(row, LAN).seconds, row["agree"][1]
        megabytes = sum(row["bytes"]) / 1e6
        for paper in ("minionn", "gazelle"):
            yield f"{paper}-seconds", Measured(lan, images, (lan, lan)), "the same layers, replayed over a LAN", MACHINE
            few, many = min(row["agreed_bits"]), max(row["agreed_bits"])
            differs = f"half gates, ring-LWE in coefficients, {few} to {many} bits, pools before ReLU"
            sent = Measured(megabytes, images, (megabytes, megabytes))
            yield f"{paper}-megabytes", sent, "the same layers, both directions", differs
