"""Privacy, measured: what attacks learn of the data, and what private training leaves of them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from spai_lab.metrics import Rate
from spai_lab.survey.audit_jobs import audit_jobs
from spai_lab.survey.backdoors import Measured
from spai_lab.survey.block_tables import block_table, guessed_table, selective_table
from spai_lab.survey.encrypted_jobs import encrypted_jobs
from spai_lab.survey.encrypted_tables import (
    activation_table,
    answers_table,
    costs_table,
    encrypted_compared,
    paillier_table,
)
from spai_lab.survey.extraction_jobs import extraction_jobs
from spai_lab.survey.inversion_jobs import inversion_jobs
from spai_lab.survey.leakage_jobs import STEPS, leakage_jobs
from spai_lab.survey.ledger import Comparison, published
from spai_lab.survey.measure import Job, load_measurement, measure, results_file, rows_of_kind
from spai_lab.survey.membership_jobs import membership_jobs
from spai_lab.survey.parties_jobs import parties_jobs
from spai_lab.survey.parties_tables import (
    aggregation_table,
    inference_table,
    parties_compared,
    traffic_table,
    training_table,
)
from spai_lab.survey.privacy_tables import (
    attribute_table,
    caught_table,
    copies_table,
    drawn_table,
    exposure_table,
    inversion_table,
    knob_table,
    leak_table,
    solved_table,
)
from spai_lab.survey.private_jobs import private_jobs
from spai_lab.survey.private_published import private_compared
from spai_lab.survey.private_tables import (
    audit_table,
    chosen_table,
    cost_table,
    levels_table,
    promise_table,
    published_table,
    scattered_table,
)
from spai_lab.survey.protected_jobs import protected_jobs
from spai_lab.survey.protected_tables import protected_leak_table, protected_members_table, protected_words_table
from spai_lab.survey.scattered_jobs import scattered_jobs
from spai_lab.survey.secrets_jobs import secrets_jobs
from spai_lab.survey.together_jobs import block_jobs
from spai_lab.survey.tuning_jobs import tuning_jobs
from spai_lab.survey.tuning_tables import tuning_table

FAMILIES: dict[str, tuple[Callable[[str], Sequence[Job]], tuple[str, ...]]] = {
    "membership": (membership_jobs, ("digits", "mnist")),
    "extraction": (extraction_jobs, ("digits", "mnist")),
    "leakage": (leakage_jobs, ("digits", "mnist", "faces")),
    "inversion": (inversion_jobs, ("digits", "mnist", "faces")),
    "secrets": (secrets_jobs, ("digits", "mnist")),
    "private": (private_jobs, ("digits", "mnist")),
    "scattered": (scattered_jobs, ("mnist",)),
    "audit": (audit_jobs, ("digits",)),
    "protected": (protected_jobs, ("digits", "mnist")),
    "tuning": (tuning_jobs, ("digits", "mnist")),
    "encrypted": (encrypted_jobs, ("digits", "mnist")),
    "parties": (parties_jobs, ("digits", "mnist")),
    "blocks": (block_jobs, ("digits", "mnist")),
}


def measure_privacy(
    family: str, name: str, *, seed: int = 0, fresh: bool = False, workers: int = 1, file: Path | None = None
) -> dict:
    """Measure one family of attacks on one data set.

    Args:
        family: one of `FAMILIES`.
        name: the data set.
        seed, fresh, workers, file: as in `measure`.
    Returns:
        the measurement.
    """
    jobs, _ = FAMILIES[family]
    models = ("lenet",) if family == "secrets" else ()
    return measure(
        f"{family}_{name}", jobs(name), models, data=name, seed=seed, fresh=fresh, workers=workers, file=file
    )


# --- beside what was published


def privacy_compared() -> list[Comparison]:
    """The published figures of attacks on privacy, each beside what was measured for it; nothing where nothing was."""
    ledger = published()
    found = ((ledger[name], rate, ours, differs) for name, rate, ours, differs in besides())
    return [
        Comparison(figure, rate.value, rate.trials, rate.interval, ours, differs)
        for figure, rate, ours, differs in found
    ]


def besides() -> Iterator[tuple[str, Rate | Measured, str, str]]:
    """By the id of a published figure: what we measured, our set-up, and what that differs in."""
    network = {"softmax": "", "mlp": "1,000 hidden units; ", "dae": "the first layer is not trained with labels; "}
    for row in kept_rows("inversion_faces", "inversion"):
        if row["access"] == "white-box":
            differs = f"{network[row['victim']]}pictures of half the size, 80 test pictures"
            yield f"faces-{row['victim']}", Rate(*row["errors"]), "faces", differs
    for row in kept_rows("membership_mnist", "precision"):
        ours = f"MLP, {row['members']:,} training images, {row['shadows']} shadow models"
        yield (
            "shadow-mnist",
            Rate(*row["called"]),
            ours,
            "another network, shadow models on the inputs in question",
        )
    yield from members_found()
    for row in kept_rows("extraction_mnist", "solved"):
        if row["classes"] == 2 and row["decimals"] is None:
            share = row["queries"] / row["parameters"]
            ours = f"MNIST, 1 against 7; largest error of a probability {row['error']:.0e}"
            yield "equations-queries", Measured(share, 1, (share, share)), ours, ""
    for row in kept_rows("leakage_mnist", "leak"):
        if (row["labels"], row["batch"], row["defense"], row["epochs"]) == ("optimized", 1, "none", 0):
            differs = f"{row['labels_found'][1]} images, other strides, {STEPS} steps in place of up to 6,000"
            yield "leakage-dlg", Rate(*row["labels_found"]), "sigmoid network, untrained", differs
    for row in kept_rows("leakage_mnist", "labels"):
        yield "leakage-idlg", Rate(*row["labels_found"]), "sigmoid network, untrained", "other strides"
    yield from private_compared()
    yield from encrypted_compared()
    yield from parties_compared()


FOUND_BY = {"lira-256": (64, "LiRA, online"), "lira-demo": (16, "LiRA, online"), "lira-demo-loss": (16, "loss")}


def members_found() -> Iterator[tuple[str, Measured, str, str]]:
    """The members found at one false positive in a thousand: by LiRA, and by one threshold on the loss."""
    for row in kept_rows("membership_mnist", "members"):
        judged = sum(total for _, total in row["accuracy"].values())
        ours = f"MLP on MNIST, {row['inputs']:,} inputs, {row['shadows']} shadow models"
        for name, (shadows, attack) in FOUND_BY.items():
            caught = row["attacks"].get(attack, {}).get("caught", {})
            if row["shadows"] == shadows and "0.001" in caught:
                value, *interval = caught["0.001"]
                yield name, Measured(value, judged, tuple(interval)), ours, "other data, another network"


def kept_rows(name: str, kind: str) -> list[dict]:
    """The rows of one kind of a measurement; none where there is no measurement."""
    return rows_of_kind(load_measurement(name), kind) if results_file(name).exists() else []


def tables(family: str, measurement: dict) -> dict[str, list[tuple[str, ...]]]:
    """All that was measured of a family on one data set, as rows of words, by title."""
    made = {
        "membership": {"attack, area, members found": caught_table, "members, epochs, weight decay": knob_table},
        "extraction": {
            "regression, decimals, queries, error, solved, fitted, the user's accuracy": solved_table,
            "copies": copies_table,
        },
        "leakage": {"attack, batch, defense, attacker, trained, recognized, labels, median": leak_table},
        "inversion": {
            "victim, window, errors, recognized, among five, confidence, queries": inversion_table,
            "epochs, level, rows, accuracy, majority, imputed, from the model, from both": attribute_table,
        },
        "secrets": {
            "the victim, taken, control, likeness, control, accuracy": drawn_table,
            "insertions, exposures in bits": exposure_table,
        },
        "private": {
            "task, records, level, method, accuracy without privacy, at epsilon 8, 4, 2, 1, .5": levels_table,
            "task, records, method, epsilon, points that it costs": cost_table,
            "what is promised": promise_table,
            "each setting on the validation part": chosen_table,
            "published set-up, epsilon as published, by a tighter account, noise, length, accuracy": published_table,
        },
        "scattered": {
            "method, epsilon by both conversions, promised, records, test accuracy, chosen, minutes": scattered_table
        },
        "audit": {"code, right or not, canary, claimed, proved, proved if Gaussian, verdict, runs": audit_table},
        "protected": {
            "training, epsilon, accuracies, members found, at most, balanced, at most": protected_members_table,
            "noise, epsilon, attack, what it knows, recognized, labels, likeness": protected_leak_table,
            "epsilon of a line, insertions, exposures, at most, bits a character": protected_words_table,
        },
        "encrypted": {
            "way, network, accuracy in the clear, encrypted, classes as plain, largest error, bound": answers_table,
            "way, network, encrypt, compute, an image, decrypt, there, back, keys, memory, levels": costs_table,
            "images, accuracy, exact, encrypt, compute, decrypt, up, back": paillier_table,
            "activation, accuracy, products in sequence, largest numbers read": activation_table,
        },
        "parties": {
            "protocol, accuracy, in whole numbers, classes alike, largest error, bound, wraps": inference_table,
            "protocol, one image here, over a LAN, over a WAN, in turn, bytes of each party, triples": traffic_table,
            "examples, epochs, steps, on shares, plain, sigmoid, difference, bound, wrap, time, bytes": training_table,
            "clients, leave, in the sum, size, error, time, bytes of a client, in the clear": aggregation_table,
        },
        "blocks": {
            "measured, value, set-up, spent": block_table,
            "what is shared, epsilon of a number, of all, accuracy": selective_table,
            "the victim, how often its commonest answer is the answer": guessed_table,
        },
        "tuning": {
            "lot, noise, C, learning rate, epsilon, accuracy on the validation part, gradients clipped": tuning_table,
        },
    }
    found = {title: table(measurement) for title, table in made[family].items()}
    return {title: rows for title, rows in found.items() if rows}
