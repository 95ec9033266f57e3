"""What was measured of building blocks and of learning together, as rows of words; nothing is measured here."""

from collections.abc import Callable

from spai_lab.survey.crypto_headlines import (
    ckks_headline,
    federated_headline,
    garbled_headline,
    paillier_headline,
    sharing_headline,
    transfer_headline,
)
from spai_lab.survey.dp_headlines import mechanisms_headline
from spai_lab.survey.headline import Headline
from spai_lab.survey.headline_rows import shared_out
from spai_lab.survey.measure import rows_of_kind
from spai_lab.survey.privacy_tables import ranged
from spai_lab.survey.private_tables import shares

HEADLINES: dict[str, Callable[[dict], Headline]] = {
    "mechanisms": mechanisms_headline,
    "federated": federated_headline,
    "paillier block": paillier_headline,
    "ckks block": ckks_headline,
    "sharing block": sharing_headline,
    "transfer block": transfer_headline,
    "garbled block": garbled_headline,
}


def block_table(measurement: dict) -> list[tuple[str, ...]]:
    """What was measured, the value, the set-up, and what was spent."""
    found = [HEADLINES[row["kind"]](row) for row in measurement["rows"] if row["kind"] in HEADLINES]
    return [(each.metric, each.shown, each.setup, each.budget) for each in found]


def selective_table(measurement: dict) -> list[tuple[str, ...]]:
    """What participants share, the promise of a number, of all numbers together, and the accuracy."""
    return [
        (
            row["sharing"],
            *("no promise" if each is None else f"{each:,g}" for each in (row["epsilon_each"], row["epsilon"])),
            ranged(shares(row)),
        )
        for row in rows_of_kind(measurement, "selective")
    ]


def guessed_table(measurement: dict) -> list[tuple[str, ...]]:
    """How often the commonest answer of each victim is right about it."""
    return [
        (name, f"{100 * shared_out(row[name]):.1f} %")
        for row in rows_of_kind(measurement, "guessed")
        for name in ("regression", "lenet")
    ]
