"""Cryptography in one number each: the accuracy or the agreement that is left, or the seconds of an operation.

Seconds, bytes and rounds stand in the details. Times are those of the machine that measured, one thread for each party.
"""

from collections.abc import Sequence

from spai_lab.metrics import Rate
from spai_lab.survey.headline import DATA_NAMES, Headline
from spai_lab.survey.headline_rows import shared_out

ALIKE = "images that get the class of the plain computation"


def operation(metric: str, seconds: float, trials: int, *, setup: str, budget: str, details: dict) -> Headline:
    """The headline of a building block: the seconds of one operation."""
    return Headline(metric, seconds, "s", trials, None, setup, budget, "lower", details)


def paillier_headline(row: dict, linear: Sequence[dict] = ()) -> Headline:
    """An encryption; the other operations, and linear models on encrypted pixels, beside it."""
    used = {
        DATA_NAMES[each["data"]]: {
            "agree": each["agree"],
            "seconds an image": round(sum(each["image_seconds"]), 3),
            "bytes": [each["bytes_up"], each["bytes_back"]],
        }
        for each in linear
    }
    return operation(
        "seconds of an encryption",
        row["each"]["encrypt"],
        row["numbers"],
        setup=f"Paillier, a key of {row['bits']:,} bits, numbers of 32 bits",
        budget=f"{row['numbers']} of each operation",
        details={
            "seconds": row["each"],
            "exact": shared_out(row["exact"]),
            "bytes of a ciphertext": row["bytes"],
            **({"linear models": used} if used else {}),
        },
    )


def ckks_headline(row: dict) -> Headline:
    """A product of two ciphertexts, with what must follow it."""
    each = row["each"]
    return operation(
        "seconds of a product: multiply, relinearize, rescale",
        each["multiply"] + each["relinearize"] + each["rescale"],
        row["repeats"],
        setup=f"CKKS, N = {row['degree']:,}, {row['levels']} levels, {row['slots']:,} numbers",
        budget=f"{row['repeats']} of each operation",
        details={
            "seconds": each,
            "largest error": row["largest_error"],
            "bound on it": row["error_bound"],
            "bytes of a ciphertext": row["bytes"],
        },
    )


def sharing_headline(row: dict) -> Headline:
    """A product of two shared numbers, between two parties."""
    return operation(
        "seconds of a product of two shared numbers",
        row["each"]["multiply"],
        row["numbers"],
        setup=f"two parties on one machine, 64-bit ring, {row['numbers']:,} products at once, triples dealt before",
        budget=f"a triple a product, {row['rounds']} messages in turn",
        details={
            "seconds of a number": row["each"],
            "right": shared_out(row["right"]),
            "bytes a product of each party": row["bytes"],
        },
    )


def transfer_headline(row: dict) -> Headline:
    """A transfer by public-key operations, and one of many that are stretched from 128 of those."""
    base, extended = (row["transfers"][name] for name in ("base", "extended"))
    return operation(
        "seconds of a transfer by public keys",
        base["each"],
        base["right"][1],
        setup="one of two messages of 16 bytes, two parties on one machine",
        budget=f"{base['right'][1]:,} transfers; {extended['right'][1]:,} extended ones",
        details={
            "seconds, extended": extended["each"],
            "right": shared_out(base["right"]),
            "right, extended": shared_out(extended["right"]),
            "bytes of sender and receiver": base["bytes"],
            "bytes, extended": extended["bytes"],
        },
    )


def garbled_headline(row: dict) -> Headline:
    """An AND gate, from the garbler's draw to the evaluator's output."""
    return operation(
        "seconds of an AND gate, both parties",
        row["each"]["both parties"],
        row["instances"] * row["ands"],
        setup=f"{row['instances']:,} sums of two {row['bits']}-bit numbers, half gates, BLAKE2b",
        budget=f"{row['ands']} AND gates a sum, {row['rounds']} messages in turn",
        details={
            "seconds of a gate": row["each"],
            "right": shared_out(row["right"]),
            "bytes a gate of garbler and evaluator, inputs and transfers too": row["bytes"],
        },
    )


def cryptonets_headline(row: dict, singles: Sequence[dict]) -> Headline:
    """The accuracy of answers that were computed on encrypted images; single images beside it."""
    seconds = [sum(each) for each in row["batch_seconds"]]
    return Headline.of_rate(
        "accuracy on encrypted images",
        Rate(*row["encrypted"]),
        setup=f"{row['network']}' network, {DATA_NAMES[row['data']]}, CKKS, one image a slot",
        budget=f"{sum(seconds) / len(seconds):.3g} s for a batch of up to {row['batch']:,} images",
        better="higher",
        details={
            "accuracy in the clear": shared_out(row["accuracy"]),
            "agree": shared_out(row["agree"]),
            "largest error": row["largest_error"],
            "bound on it": row["error_bound"],
            "seconds of a batch": [round(each, 3) for each in seconds],
            "bytes there and back": [row["bytes_up"], row["bytes_back"]],
            "single images": {
                each["network"]: {
                    "agree": each["agree"],
                    "seconds an image": round(sum(each["image_seconds"]), 3),
                    "bytes there and back": [each["bytes_up"], each["bytes_back"]],
                }
                for each in singles
            },
        },
    )


def secureml_headline(training: dict, inference: Sequence[dict]) -> Headline:
    """The accuracy of models that were trained on shares; inference on shares beside it."""
    return Headline.of_rate(
        "test accuracy of training on shares",
        Rate(*training["shares"]),
        setup=f"ten logistic regressions, {training['examples']:,} shared {DATA_NAMES[training['data']]} images",
        budget=f"{training['epochs']} epochs, {training['steps']} steps, {training['run_seconds']:.3g} s",
        better="higher",
        details={
            "accuracy in plain fixed point": shared_out(training["fixed"]),
            "accuracy with the true sigmoid": shared_out(training["sigmoid"]),
            "bytes of each server": [sum(lap[1] for lap in laps) for laps in training["laps"]],
            "seconds": training["run_seconds"],
            "inference": {f"{row['relu_bits']} bits a ReLU": inferred(row) for row in inference},
        },
    )


def inferred(row: dict) -> dict:
    """Inference on shares, as `secureml_headline` tells it."""
    return {"agree": row["agree"], "seconds an image": row["image_seconds"], "bytes": row["bytes"]}


def hybrid_headline(row: dict, others: Sequence[dict] = ()) -> Headline:
    """How often client and server come to the class that the same network gives in plain numbers."""
    return Headline.of_rate(
        ALIKE,
        Rate(*row["agree"]),
        setup=f"{'MiniONN network' if row['data'] == 'mnist' else '64-32-10'}, {DATA_NAMES[row['data']]}, ring-LWE and "
        f"garbled circuits by {row['label_hash']}",
        budget=f"{row['image_seconds']:.3g} s and {sum(row['bytes']) / 1e6:.3g} MB an image",
        better="higher",
        details={
            "logits exactly alike": row["exact"],
            "accuracy in whole numbers": shared_out(row["fixed"]),
            "accuracy of the trained network": shared_out(row["accuracy"]),
            "seconds an image": row["image_seconds"],
            "bytes of server and client": row["bytes"],
            **{f"seconds an image, {each['label_hash']}": each["image_seconds"] for each in others},
        },
    )


def federated_headline(row: dict, sums: Sequence[dict] = ()) -> Headline:
    """The accuracy of federated averaging whose server sees no update."""
    return Headline.of_rate(
        "test accuracy, no update seen by the server",
        Rate(*row["secure"]),
        setup=f"{row['clients']} clients, {row['records']:,} {DATA_NAMES[row['data']]} images, MLP of "
        f"{row['parameters']:,} weights",
        budget=f"{row['rounds']} rounds, {row['round_seconds']:.3g} s each, training too",
        better="higher",
        details={
            "accuracy, every update seen": shared_out(row["plain"]),
            "agree": shared_out(row["agree"]),
            "largest difference of a weight": row["largest_difference"],
            "seconds of a round": row["round_seconds"],
            "bytes of a client in a round": row["client_bytes"],
            "bytes of an update in the clear": row["update_bytes"],
            "difference where a third leave": row["difference after they left"],
            **{f"sum of {each['clients']}, {each['leave']} leave": each["run_seconds"] for each in sums},
        },
    )
