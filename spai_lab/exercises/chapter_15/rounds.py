"""How long two parties wait for each other: messages one after another, and the bytes that they carry."""

import math
import secrets
from collections.abc import Callable, Sequence
from numbers import Real

import numpy as np
from torch import Tensor

from spai_lab.checks import describe
from spai_lab.crypto.circuits_words import shared_relu
from spai_lab.crypto.garbled_circuit_parties import garbled_cost
from spai_lab.exercises.chapter_15.layers import Layer, inferences, measured, relu_cost
from spai_lab.exercises.chapter_15.verdicts import CHAPTER, RIGHT, UNKNOWN, as_whole, first_alike, put, right
from spai_lab.exercises.exercise import Exercise, Fault

Result = tuple[int, float]
OTHER_SECONDS = -2.0


def my_count_rounds(layers, latency, bandwidth):
    """How many messages follow one another, and how long two parties wait for them.

    layers: each with its `kind` ("linear", "bias", "relu" or "open"), its `shape`,
        and `sent`, the bytes that party 0 sends and those that party 1 sends.
    latency: seconds from one party to the other.
    bandwidth: bits a second each way; both ways can be full at once.
    Returns the number of messages and the seconds.
    """
    messages = sent = 0
    for layer in layers:
        if layer.kind in ("linear", "open"):  # both send at once
            messages += 1
            sent += max(layer.sent)
        elif layer.kind == "relu":  # one waits for the other
            messages += garbled_cost(shared_relu(64), layer.shape[0], 128).rounds
            sent += sum(layer.sent)
    return messages, messages * latency + 8 * sent / bandwidth


def tally(
    layers: Sequence[Layer],
    *,
    linear: Callable = lambda layer: 1,
    bias: int = 0,
    relu: Callable = lambda layer: relu_cost(layer.shape[0]).rounds,
    opened: int = 1,
    at_once: Callable = max,
    in_turn: Callable = sum,
) -> tuple[int, int]:
    """Messages and bytes one after another, with something counted otherwise."""
    messages = {"linear": linear, "bias": lambda layer: bias, "relu": relu, "open": lambda layer: opened}
    sent = sum((in_turn if layer.kind == "relu" else at_once)(layer.sent) for layer in layers)
    return sum(messages[layer.kind](layer) for layer in layers), sent


def time_of(counted: tuple[int, int], latency: float, bandwidth: float) -> Result:
    """The result for these counts."""
    messages, sent = counted
    return messages, messages * latency + 8 * sent / bandwidth


def counts_each_product(layers, latency, bandwidth):
    """It counts a message for each multiplication in a matrix; all e and f travel together: one exchange a layer."""
    return time_of(tally(layers, linear=lambda layer: int(np.prod(layer.shape))), latency, bandwidth)


def counts_each_entry(layers, latency, bandwidth):
    """It counts a message for each entry of a matrix product; one triple of matrices takes one exchange for all."""
    return time_of(tally(layers, linear=lambda layer: layer.shape[0] * layer.shape[2]), latency, bandwidth)


def garbles_one_by_one(layers, latency, bandwidth):
    """It garbles each ReLU of a layer after the other; they do not wait for each other, and share all messages."""
    relu = lambda layer: layer.shape[0] * relu_cost(1).rounds  # noqa: E731
    return time_of(tally(layers, relu=relu), latency, bandwidth)


def takes_one_message_for_relu(layers, latency, bandwidth):
    """It counts one message for ReLU; labels come by oblivious transfer, back and forth, as `garbled_cost` says."""
    return time_of(tally(layers, relu=lambda layer: 1), latency, bandwidth)


def forgets_the_transfers(layers, latency, bandwidth):
    """It counts tables alone for ReLU, 2 messages; the oblivious transfers come before, as `garbled_cost` says."""
    return time_of(tally(layers, relu=lambda layer: 2), latency, bandwidth)


def waits_for_sums(layers, latency, bandwidth):
    """It counts a message for a bias; sums of shares are shares of the sum, and nobody sends anything."""
    return time_of(tally(layers, bias=1), latency, bandwidth)


def forgets_to_open(layers, latency, bandwidth):
    """It forgets that the result is opened, which is a message, too."""
    return time_of(tally(layers, opened=0), latency, bandwidth)


def counts_exchanges_twice(layers, latency, bandwidth):
    """It counts an exchange as two messages, and its bytes both ways; both send at once, and wait once."""
    return time_of(tally(layers, linear=lambda layer: 2, opened=2, at_once=sum), latency, bandwidth)


def counts_messages_twice(layers, latency, bandwidth):
    """It counts an exchange as two messages; both send at once, and wait once."""
    return time_of(tally(layers, linear=lambda layer: 2, opened=2), latency, bandwidth)


def counts_bytes_both_ways(layers, latency, bandwidth):
    """It adds the bytes of both directions in an exchange; they travel at the same time, each in its own direction."""
    return time_of(tally(layers, at_once=sum), latency, bandwidth)


def forgets_one_direction(layers, latency, bandwidth):
    """It counts one direction alone in a ReLU; there one party waits for the other, so that the bytes add up."""
    return time_of(tally(layers, in_turn=max), latency, bandwidth)


def takes_bytes_for_bits(layers, latency, bandwidth):
    """It divides bytes by bits a second; a byte has 8 bits, so the bytes take 8 times as long."""
    messages, sent = tally(layers)
    return messages, messages * latency + sent / bandwidth


def divides_by_eight(layers, latency, bandwidth):
    """It divides the bytes by 8 where they are to be multiplied: each byte has 8 bits."""
    messages, sent = tally(layers)
    return messages, messages * latency + sent / 8 / bandwidth


def waits_once(layers, latency, bandwidth):
    """It adds the latency once; each message can only be sent when the one before has come, so all latencies add up."""
    messages, sent = tally(layers)
    return messages, latency + 8 * sent / bandwidth


def goes_back_and_forth(layers, latency, bandwidth):
    """It adds twice the latency for a message, as for a way there and back; each message is one way."""
    messages, sent = tally(layers)
    return messages, 2 * messages * latency + 8 * sent / bandwidth


def forgets_the_bytes(layers, latency, bandwidth):
    """It counts latencies alone; a garbled circuit has so many bytes that they take longer than all waiting."""
    messages, _ = tally(layers)
    return messages, messages * latency


KINDS = (
    counts_each_product,
    counts_each_entry,
    garbles_one_by_one,
    takes_one_message_for_relu,
    forgets_the_transfers,
    waits_for_sums,
    forgets_to_open,
    counts_exchanges_twice,
    counts_messages_twice,
    counts_bytes_both_ways,
    forgets_one_direction,
    takes_bytes_for_bits,
    divides_by_eight,
    waits_once,
    goes_back_and_forth,
    forgets_the_bytes,
)


# --- how an answer is judged


def journeys() -> list[dict]:
    """The networks, each with a latency from 1 to 100 ms and a bandwidth from 10 to 1,000 Mbit/s."""
    return [
        {
            "layers": layers,
            "latency": (10**6 + secrets.randbelow(99 * 10**6)) / 10**9,
            "bandwidth": 10**7 + secrets.randbelow(99 * 10**7),
        }
        for layers in inferences()
    ]


def in_sequence(layers: Sequence[Layer]) -> tuple[int, int]:
    """Messages and bytes one after another, as measured."""
    messages = sent = 0
    for layer in layers:
        _, rounds = measured(layer.kind, *layer.shape)
        messages += rounds
        sent += sum(layer.sent) if rounds > 1 else max(layer.sent)
    return messages, sent


def as_result(result: object) -> Result:
    """Messages and seconds.

    Raises:
        Fault: it is no such pair.
    """
    try:
        messages, seconds = result
    except (TypeError, ValueError, RuntimeError) as error:
        raise Fault("It does not return two numbers; end with `return messages, seconds`.") from error
    whole = as_whole(messages, "how many messages follow one another")
    if isinstance(seconds, Real | Tensor | np.ndarray) and not isinstance(seconds, bool):
        try:
            return whole, float(seconds)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            pass
    raise Fault(f"Its seconds are {describe(seconds)}; expected a number.")


def close(one: Result, other: Result) -> bool:
    """Whether two results are the same, but for rounding."""
    return one[0] == other[0] and math.isclose(one[1], other[1], rel_tol=1e-9)


def count(answer: Callable, layers, latency, bandwidth) -> float:
    """`RIGHT`, the number of a kind of failure, `UNKNOWN` for other messages, or `OTHER_SECONDS`."""
    given = layers, latency, bandwidth
    result = as_result(put(answer, layers=layers, latency=latency, bandwidth=bandwidth))
    truth = time_of(in_sequence(layers), latency, bandwidth)
    if close(result, truth):
        return RIGHT
    found = first_alike(lambda each: close(each(*given), result), KINDS, KINDS)
    return OTHER_SECONDS if found == UNKNOWN and result[0] == truth[0] else found


def other_counts(result: np.ndarray, layers, latency, bandwidth) -> str:
    """Which of the two numbers is not right."""
    given = f"For {', '.join(layer.kind for layer in layers)}"
    messages, _ = in_sequence(layers)
    if result == OTHER_SECONDS:
        return f"{given} its {messages} messages are right, and the seconds are not."
    return (
        f"{given} it counts another number of messages than the {messages} that follow one another. "
        "Is the opening at the end among them?"
    )


count_rounds = Exercise(
    chapter=CHAPTER,
    task=r"""
        **What waiting costs.** Two parties compute a neural network on shares of 64 bits. A linear layer takes one
        exchange, in which both send at once; a bias sends nothing. ReLU is a garbled circuit, all numbers of a layer
        together: its parties take turns, as often as `garbled_cost(shared_relu(64), n, 128).rounds` says for n
        numbers (128 are the garbler's bits, a share and r), and each byte waits for those before it. In the end the
        result is opened, in one exchange. If $m$ messages follow one another, and carry $b$ bits one after another, a
        connection of latency $t$ (in seconds, one way) and bandwidth $B$ (in bits a second, each way) takes

        $$m \, t + \frac{b}{B}.$$

        Write `my_count_rounds(layers, latency, bandwidth)`, which returns $m$ and these seconds. A layer has a `kind`
        ("linear", "bias", "relu" or "open"), a `shape` (for a product of `(M, K)` and `(K, N)`: (M, K, N); else (n,),
        how many numbers), and `sent`: the bytes of party 0 and those of party 1. Two messages that travel at once,
        one each way, count as one, and take as long as the longer one. Computing takes no time here.
    """,
    solution=my_count_rounds,
    truth=right,
    cases=journeys,
    tested="three networks with the bytes of real channels and of garbled_cost, latency and bandwidth drawn anew",
    hints=(
        "Go through the layers with two sums, messages and bytes. Which kinds of layers send nothing?",
        "In an exchange the longer message counts, `max(layer.sent)`; where parties take turns, all bytes do.",
        "The number of multiplications, or of ReLUs, makes messages longer, and not more.",
    ),
    mistakes=KINDS,
    call=count,
    look=other_counts,
)
