"""A protocol that gives right results and gives a secret away: one triple serves for several products."""

import inspect
import secrets
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from torch import Tensor

from spai_lab.checks import describe
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.parties import run_parties
from spai_lab.crypto.secret_sharing_parties import Link, open_shares, reveal, share_both
from spai_lab.crypto.secret_sharing_ring import RING, to_ring, to_signed
from spai_lab.crypto.secret_sharing_triples import Request, Triple, deal_triple
from spai_lab.exercises.chapter_15.verdicts import CHAPTER, RIGHT, UNKNOWN, first_alike, kind, put, right
from spai_lab.exercises.exercise import Exercise, Fault

X_BITS, Y_BITS = 20, 30  # sums of products stay far below 2^63
SIZES = ((2, -1), (5, 1), (8, -1))  # how many terms, and the sign of the last secret number


class View(NamedTuple):
    """What party 0 has after `careless_sum`, and may look at as long as it likes; all elements, uint64.

    Args:
        x: its own numbers `(n,)`.
        y: its shares of the other party's numbers `(n,)`.
        a, b, c: its shares of the triple `(1,)`.
        e, f: what was opened `(n,)`.
        total: the sum of products, as revealed to it `(1,)`; party 1 has None.
    """

    x: np.ndarray
    y: np.ndarray
    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    e: np.ndarray
    f: np.ndarray
    total: np.ndarray | None


def careless_sum(channel: Channel, party: int, own: np.ndarray, triple: Triple) -> View:
    """The sum of x_i y_i, for party 0 alone: it has the numbers x, and party 1 has y."""
    link, a, b, c = Link(channel, party), triple.a, triple.b, triple.c
    x, y = share_both(link, own, own.shape)
    e, f = open_shares(link, x - a, y - b)
    z = c + e * b + a * f + (e * f if party == 0 else 0)
    total = reveal(link, z.sum(keepdims=True), to=0)
    return View(own, y, a, b, c, e, f, total)


def careless_view(x: Sequence[int], y: Sequence[int]) -> View:
    """Run `careless_sum` with a fresh triple, for party 0's numbers and party 1's, and return what party 0 has seen.

    >>> view = careless_view([3, 4], [10, -1])
    >>> to_signed(view.total).tolist(), view.f.shape
    ([26], (2,))
    """
    triples = deal_triple(Request("multiply", (1,), (1,)))
    numbers = to_ring(x), to_ring(y)
    parties = (
        partial(careless_sum, party=i, own=own, triple=triple)
        for i, (own, triple) in enumerate(zip(numbers, triples, strict=True))
    )
    return run_parties(*parties)[0]


def my_find_the_leak(view):
    """The numbers of party 1, from what party 0 has seen.

    view: with party 0's `x`, its shares `y`, `a`, `b`, `c`, the opened `e` and `f`,
        and the `total`, as arrays of elements modulo 2^64.
    Returns n whole numbers, as a list or an array.
    """
    x, total = to_signed(view.x), to_signed(view.total)[0]
    d = to_signed(view.f - view.f[-1])  # y_i minus the last y: b cancels
    last = (total - d @ x) // x.sum()
    return d + last


def parts(view: View) -> tuple[list[int], list[int], int]:
    """Party 0's numbers, the differences to the other one's last number, and the sum of products."""
    return to_signed(view.x).tolist(), to_signed(view.f - view.f[-1]).tolist(), int(to_signed(view.total)[0])


def dot(x: Sequence[int], y: Sequence[int]) -> int:
    """The sum of products."""
    return sum(map(int.__mul__, x, y))


def takes_f(view):
    """It returns f, and each f_i is y_i - b, uniform: one alone tells nothing; look at what two of them share."""
    return view.f


def adds_its_share_of_b(view):
    """It adds its own share of b to f; that is uniform, too, and the other share of b never comes. Cancel b instead."""
    return view.f + view.b


def takes_its_shares(view):
    """It returns its shares of y, which party 1 has drawn: they say nothing. Look at what was opened."""
    return view.y


def takes_its_own_numbers(view):
    """It finds x, which party 0 has brought itself; the secret is y, so use f rather than e."""
    return view.x


def stops_at_differences(view):
    """It has the differences of secret numbers, so b is gone; all are off by one number, which the total gives."""
    return parts(view)[1]


def shares_out_the_total(view):
    """It divides the total by the sum of x, as if all y were equal; f tells how far they are from each other."""
    x, _, total = parts(view)
    return [total // sum(x)] * len(x)


def divides_by_x(view):
    """It divides the total by each x_i, as if that were the only term; the total is a sum over all terms."""
    x, _, total = parts(view)
    return [total // each for each in x]


def forgets_to_weigh(view):
    """It takes the differences off the total as they are; in the total, y_i counts x_i times, and so does d_i."""
    x, d, total = parts(view)
    return [each + (total - sum(d)) // sum(x) for each in d]


def divides_by_their_number(view):
    """It divides by how many numbers there are; in the total, the last y counts as often as all x together."""
    x, d, total = parts(view)
    return [each + (total - dot(x, d)) // len(x) for each in d]


def adds_the_differences(view):
    """It adds the differences to the total where they are to be taken off: total = sum of x_i (y_n + d_i)."""
    x, d, total = parts(view)
    return [each + (total + dot(x, d)) // sum(x) for each in d]


def turns_the_differences(view):
    """Its differences have the wrong sign: f_i - f_n is y_i - y_n."""
    x, d, total = parts(view)
    return [-each + (total + dot(x, d)) // sum(x) for each in d]


def forgets_the_sign(view):
    """It divides an element that stands for a negative number as if it were a huge one; `to_signed` first."""
    x, d, total = parts(view)
    return [each + (total - dot(x, d)) % RING.modulus // sum(x) for each in d]


def inverts_modulo(view):
    """It divides modulo 2^64, where even numbers have no inverse; `to_signed`, and divide whole numbers, with `//`."""
    x, d, total = parts(view)
    return [each + (total - dot(x, d)) * pow(sum(x), -1, RING.modulus) for each in d]


KINDS = (
    takes_f,
    adds_its_share_of_b,
    takes_its_shares,
    takes_its_own_numbers,
    stops_at_differences,
    shares_out_the_total,
    divides_by_x,
    forgets_to_weigh,
    divides_by_their_number,
    adds_the_differences,
    turns_the_differences,
    forgets_the_sign,
    inverts_modulo,
)
INVERTIBLE = tuple(each for each in KINDS if each is not inverts_modulo)


# --- how an answer is judged


def runs() -> list[dict]:
    """The number of terms and the sign of the last secret; what is secret is drawn when an answer is judged."""
    return [{"view": size} for size in SIZES]


def drawn(n: int, sign: int) -> tuple[list[int], list[int]]:
    """Numbers above 0 with an even sum, and secret numbers, the last one of this sign."""
    x = [1 + secrets.randbelow(2**X_BITS) for _ in range(n)]
    x[0] += sum(x) % 2
    y = [secrets.randbelow(2 ** (Y_BITS + 1)) - 2**Y_BITS for _ in range(n - 1)]
    return x, [*y, sign * (1 + secrets.randbelow(2**Y_BITS))]


def as_numbers(result: object, n: int) -> list[int]:
    """The numbers modulo 2^64; floats are rounded.

    Raises:
        Fault: these are no n finite numbers.
    """
    try:
        values = result.detach().numpy() if isinstance(result, Tensor) else np.asarray(result, dtype=object)
        whole = [round(number) % RING.modulus for number in values.tolist()]
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise Fault(f"It returns {describe(result)}; expected {n} whole numbers.") from error
    if len(whole) != n:
        raise Fault(f"It returns {len(whole)} numbers; party 1 has {n}.")
    return whole


def attack(answer: Callable, view: tuple[int, int]) -> float:
    """`RIGHT`, `UNKNOWN` or the number of a kind of failure, in a run with fresh secrets."""
    n, sign = view
    x, y = drawn(n, sign)
    seen = careless_view(x, y)
    try:
        numbers = as_numbers(put(answer, view=seen), n)
    except ValueError as error:
        if "not invertible" not in str(error):
            raise
        return kind(inverts_modulo, KINDS)
    if numbers == as_numbers(y, n):
        return RIGHT
    return first_alike(lambda each: as_numbers(each(seen), n) == numbers, INVERTIBLE, KINDS)


def still_secret(result: np.ndarray, view: tuple[int, int]) -> str:
    """What is known of a failure of no kind."""
    given = f"From the view of {view[0]} terms"
    if result == UNKNOWN:
        return f"{given} it finds other numbers than those of party 1."
    return f"{given} it does not find the numbers of party 1 each time."


CODE = textwrap.indent(inspect.getsource(careless_sum).strip(), " " * 8).strip()

find_the_leak = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Right, and wide open.** A client, party 0, has numbers $x_i > 0$, and a server, party 1, has weights $y_i$.
        The client is to learn $\sum_i x_i y_i$ and nothing else. Both run this, each with its half of one triple
        (one a, one b and one c, for all i):

        ```python
        CODE
        ```

        The sum is right, and one run gives the client all weights. Try it: `careless_view([3, 4], [10, -1])` runs both
        parties and returns what party 0 has. Write `my_find_the_leak(view)`: the numbers $y_i$, whatever they are, from
        such a view. (`to_signed` reads elements as whole numbers. All sums of products are far below $2^{63}$.)
    """.replace("CODE", CODE),
    solution=my_find_the_leak,
    truth=right,
    cases=runs,
    tested="real runs with 2, 5 and 8 secret numbers of 31 bits, drawn anew for each",
    hints=(
        "How long are `a` and `b`, and how long are `x` and `y`? What is the same in all $f_i = y_i - b$?",
        "$d_i = f_i - f_n = y_i - y_n$. One number is missing, $y_n$, and one equation is unused: the total.",
        "$\\sum_i x_i (y_n + d_i)$ is the total; solve it for $y_n$.",
    ),
    mistakes=KINDS,
    call=attack,
    look=still_secret,
)
