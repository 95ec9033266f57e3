"""AND gates a second, garbled and evaluated, with each hash; and whole runs between two threads, transfers included."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from spai_lab.crypto.circuits import Circuit
from spai_lab.crypto.circuits_bristol import find_circuit, load_circuit
from spai_lab.crypto.circuits_words import argmax, shared_relu
from spai_lab.crypto.garbled_circuit import encode_inputs, evaluate, garble
from spai_lab.crypto.garbled_circuit_labels import blake2_hash, tmmo_hash
from spai_lab.crypto.garbled_circuit_parties import evaluator, garbled_cost, garbler
from spai_lab.crypto.parties import run_parties

ROUNDS = 5
HASHES = (blake2_hash, tmmo_hash)


def main(quick: bool = False) -> None:
    """Print medians; AES is left out where its circuit is not found."""
    circuits = {
        "ReLU of shares, 32 bits": (shared_relu(32), (1, 128, 10_000)),
        "argmax of 10": (argmax(10, 32), (128,)),
    }
    if find_circuit("aes_128") is not None:
        circuits["AES-128"] = (load_circuit("aes_128"), (1, 32))
    print("AND gates a second, in thousands; both parties with transfers in seconds, and megabytes on the wire")
    print(f"{'circuit':25}{'instances':>10}{'gates':>12}  {'hash':12}{'garble':>9}{'evaluate':>9}{'both':>8}{'MB':>8}")
    for name, (circuit, counts) in circuits.items():
        for n in counts[:1] if quick else counts:
            for label_hash in HASHES:
                row = measured(circuit, n, label_hash, rounds=1 if quick else ROUNDS)
                print(f"{name:25}{n:10,}{n * circuit.ands:12,}  {label_hash.__name__:12}" + row)


def measured(circuit: Circuit, n: int, label_hash: Callable, *, rounds: int) -> str:
    """The last columns of a line."""
    bits = np.random.default_rng(0).random((n, circuit.input_bits)) < 0.5
    m = circuit.input_bits // 2
    garbled, keys = garble(circuit, n, label_hash=label_hash)  # and warms up
    labels = encode_inputs(keys, bits)
    parties = partial(garbler, inputs=bits[:, :m]), partial(evaluator, inputs=bits[:, m:])
    run = [partial(party, circuit=circuit, label_hash=label_hash) for party in parties]
    garbling = seconds(lambda: garble(circuit, n, label_hash=label_hash), rounds)
    evaluating = seconds(lambda: evaluate(circuit, garbled, labels), rounds)
    both = seconds(lambda: run_parties(*run), rounds)
    cost = garbled_cost(circuit, n, m, label_hash=label_hash)
    gates, megabytes = n * circuit.ands / 1000, (cost.sender_bytes + cost.receiver_bytes) / 1e6
    return f"{gates / garbling:9,.0f}{gates / evaluating:9,.0f}{both:8.2f}{megabytes:8.2f}"


def seconds(run: Callable[[], object], rounds: int) -> float:
    """The median time of some runs."""
    durations = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        durations.append(time.perf_counter() - start)
    return float(np.median(durations))


if __name__ == "__main__":
    main()
