"""Defenses against poisoning in one number each: what is left of the attack that fares best against them."""

from collections.abc import Sequence

from spai_lab.metrics import Rate
from spai_lab.survey.backdoor_victims import MATRIX_BACKDOORS
from spai_lab.survey.cleaning_jobs import PARTITIONS
from spai_lab.survey.defense_headlines import NOT_ADAPTIVE
from spai_lab.survey.headline import DATA_NAMES, Headline
from spai_lab.survey.headline_rows import shared_out
from spai_lab.survey.poisoning_headlines import error_headline

CELLS = {  # row: the defense's name in the matrix, and what it spends
    "sphere_slab": ("sphere_slab", "features of all images once, one more training"),
    "activation_clustering": ("activation_clustering", "features of all images once, one more training"),
    "spectral_signatures": ("spectral_signatures", "features of all images once, one more training"),
    "partition_aggregation": ("partition_aggregation", f"{PARTITIONS} trainings, each on its part of the images"),
    "fine_pruning": ("fine_pruning", "10 epochs on the defender's trusted images"),
    "neural_cleanse": ("neural_cleanse", "50 rounds of search a class, one epoch of unlearning, on trusted images"),
    "strip": ("strip", "100 overlays an input"),
}
MADE_FOR = {  # what was made by somebody who knows the defense; of the others the strongest stands for it
    "activation_clustering": "inconspicuous",
    "spectral_signatures": "inconspicuous",
    "roni": "least impact",
    "robust_aggregation": "adaptive",
}
STRICTER = {"activation_clustering": "; a class is accused only where both tests of its paper accuse it"}
UNBUILT = {  # against whom nobody who knows the defense was built, and why
    "sphere_slab": "one is measured on two classes, against the bound of its paper: see `bound`",
    "partition_aggregation": "what its certificate counts holds against every poison: see `certified`",
    "fine_pruning": "its paper's pruning-aware attack is not in this book",
    "neural_cleanse": "triggers that hide from the search are not in this book",
    "strip": "triggers that depend on the input are not in this book",
}
HEADED = "coordinate_median"  # of the aggregates, the one whose source chapter 10 shows
RULES = {
    "coordinate_median": "the coordinate-wise median",
    "trimmed_mean": "the trimmed mean",
    "krum": "Krum",
    "multi_krum": "Multi-Krum",
}


def by_backdoor(cells: Sequence[dict], what: str) -> dict[str, list[int]]:
    """What the cells of one defense hold, by backdoor; without those that do not hold it."""
    return {cell["backdoor"]: cell[what] for cell in cells if what in cell}


def strongest(cells: Sequence[dict]) -> dict:
    """The cell of the backdoor that still opens most often behind the defense.

    >>> cells = [{"backdoor": "a", "success_after": [9, 10]}, {"backdoor": "b", "success_after": [11, 20]}]
    >>> strongest(cells)["backdoor"]
    'a'
    """
    return max((cell for cell in cells if "success_after" in cell), key=lambda cell: shared_out(cell["success_after"]))


def cleaned_details(row: str, cells: Sequence[dict]) -> dict:
    """What the matrix says of one defense, as counts: `clean` by the backdoor that leaves the least of it, `control`
    without any poison."""
    worst, attacked = strongest(cells), [cell for cell in cells if "success_after" in cell]
    control = [cell for cell in cells if cell["backdoor"] == "none"]
    return {
        "data": worst["data"],
        "attacks": by_backdoor(cells, "success_after"),
        "undefended": by_backdoor(cells, "success_before"),
        "strongest": worst["backdoor"],
        "made for it": MADE_FOR.get(row),
        **({NOT_ADAPTIVE: UNBUILT[row]} if row in UNBUILT else {}),
        "found": by_backdoor(cells, "true_positives"),
        "accused": by_backdoor(cells, "false_positives"),
        "clean": min((cell["accuracy_after"] for cell in attacked), key=shared_out),
        "clean, undefended": worst["accuracy_before"],
        "control": {"clean": control[0]["accuracy_after"]} if control else {},
    }


def cleaned_headline(row: str, cells: Sequence[dict], **more: object) -> Headline:
    """The success that the strongest backdoor has left.

    Args:
        row: one of `CELLS`.
        cells: what `Cleaned` measured of it on one data set, a backdoor each.
        more: further details.
    """
    worst, (_, spent) = strongest(cells), CELLS[row]
    return Headline.of_rate(
        f"success left to the strongest of {len(by_backdoor(cells, 'success_after'))} backdoors",
        Rate(*worst["success_after"]),
        setup=setup_of(worst) + STRICTER.get(row, ""),
        budget=spent,
        better="lower",
        details=cleaned_details(row, cells) | more,
    )


def rejected_headline(row: str, cells: Sequence[dict]) -> Headline:
    """For a detector: how many inputs with the trigger it rejects, of the backdoor that it lets pass most often."""
    worst, (_, spent) = strongest(cells), CELLS[row]
    return Headline.of_rate(
        "inputs with the trigger that are rejected, at 1 % false alarms on trusted images; "
        f"the strongest of {len(by_backdoor(cells, 'success_after'))} backdoors",
        Rate(*worst["true_positives"]),
        setup=setup_of(worst),
        budget=spent,
        better="higher",
        details=cleaned_details(row, cells),
    )


def setup_of(cell: dict) -> str:
    """Network, data and backdoor in words."""
    backdoor, fraction = cell["backdoor"], MATRIX_BACKDOORS[cell["backdoor"]]
    poison = "" if fraction is None else f", {100 * fraction:g} % poison"
    return f"LeNet, {DATA_NAMES[cell['data']]}; the strongest: {backdoor}{poison}"


def sanitized_headline(rows: Sequence[dict]) -> Headline:
    """The test error that degrading poison still adds behind RONI, by the attack that adds most.

    Args:
        rows: what `Sanitized` measured on one data set, an attack each.
    """
    worst = min(rows, key=lambda row: shared_out(row["roni"]["accuracy"]))
    return error_headline(
        f"test error that the strongest of {len(rows)} poisonings still adds behind RONI",
        worst["accuracy_clean"],
        worst["roni"]["accuracy"],
        worst["poisonings"],
        setup=f"SVM, {DATA_NAMES[worst['data']]}, 1 against 7, {100 * worst['fraction']:g} % poison; the strongest: "
        f"{worst['attack']}, {worst['poisonings']} poisoning{'s' if worst['poisonings'] > 1 else ''} counted",
        budget="5 trainings for each of the images, with 20 trusted ones",
        better="lower",
        details={
            "data": worst["data"],
            "strongest": worst["attack"],
            "made for it": MADE_FOR["roni"],
            "clean": worst["accuracy_clean"],
            "undefended": {row["attack"]: row["accuracy_poisoned"] for row in rows},
            "attacks": {row["attack"]: row["roni"]["accuracy"] for row in rows},
            "found": {row["attack"]: row["roni"]["true_positives"] for row in rows},
            "accused": {row["attack"]: row["roni"]["false_positives"] for row in rows},
            "neighbors' vote": {row["attack"]: row["knn_relabel"]["accuracy"] for row in rows},
        },
    )


def bounded_details(row: dict) -> dict:
    """What `Bounded` says of sphere and slab: nobody goes beyond the bound, and one attack comes near it."""
    return {
        "fraction": row["fraction"],
        "no attack's training loss exceeds": row["loss"],
        "of that on clean images": row["clean_part"],
        "test errors": {"clean": row["errors_clean"], "the attack made for it": row["errors_attacked"]},
    }


def aggregated_headline(row: dict, rule: str = HEADED) -> Headline:
    """The success of the strongest crew under a robust aggregate; what all of them come to stands in the details.

    Args:
        row: what `Aggregated` measured.
        rule: the aggregate.
    """
    aggregates = row["aggregates"]

    def worst(name: str) -> str:
        return max(aggregates[name], key=lambda attacker: shared_out(aggregates[name][attacker]["success_after"]))

    under = aggregates[rule]
    return Headline.of_rate(
        f"success of the strongest attackers under {RULES[rule]}",
        Rate(*under[worst(rule)]["success_after"]),
        setup=f"softmax regression, {DATA_NAMES[row['data']]}, {row['byzantine']} of {row['participants']} attack "
        "together in every round; images dealt out at random",
        budget=f"{row['rounds']} rounds",
        better="lower",
        details={
            "data": row["data"],
            "attacks": {attacker: found["success_after"] for attacker, found in under.items()},
            "strongest": worst(rule),
            "made for it": MADE_FOR["robust_aggregation"],
            "undefended": aggregates["mean"][worst("mean")]["success_after"],
            "clean": under[worst(rule)]["accuracy_after"],
            "aggregates": {
                name: {attacker: found["success_after"] for attacker, found in by.items()}
                for name, by in aggregates.items()
            },
            "clean by aggregate": {name: by[worst(name)]["accuracy_after"] for name, by in aggregates.items()},
        },
    )
