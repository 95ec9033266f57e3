"""What was measured of the settings of DP-SGD, as rows of words; nothing is trained here."""

from spai_lab.metrics import Rate
from spai_lab.survey.measure import rows_of_kind
from spai_lab.survey.privacy_tables import ranged


def tuning_table(measurement: dict) -> list[tuple[str, ...]]:
    """Lot, noise, C, learning rate, epsilon, then the accuracy on the validation part: the mean, and how far it ranges;
    last, the share of gradients that were clipped."""
    return [
        (
            f"{row['lot']:,}",
            f"{row['noise_multiplier']:g}",
            f"{row['clip']:g}",
            f"{row['step_length'] / row['clip']:.3g}",
            "no promise" if row["epsilon"] is None else f"{row['epsilon']:.3g}",
            ranged([Rate(*counts).value for counts in row["validation"]]),
            f"{100 * sum(row['clipped']) / len(row['clipped']):.0f} %",
        )
        for row in rows_of_kind(measurement, "tuning")
    ]
