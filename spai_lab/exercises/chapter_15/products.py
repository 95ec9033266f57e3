"""A product of shared numbers with a triple: what each of two parties computes from what was opened."""

from collections.abc import Callable

from spai_lab.crypto.secret_sharing import share
from spai_lab.crypto.secret_sharing_ring import RING
from spai_lab.crypto.secret_sharing_triples import Request, deal_triple
from spai_lab.exercises.chapter_15.verdicts import CHAPTER, RIGHT, UNKNOWN, as_whole, first_alike, kind, put, right
from spai_lab.exercises.exercise import Exercise

MODULUS = RING.modulus
PARTIES = (0, 1)
DRAWS = 3


def my_beaver_product(party, x, y, a, b, c, e, f):
    """This party's share of x y modulo 2^64.

    party: 0 or 1; both call this function, each with its own shares.
    x, y: its shares of the factors.
    a, b, c: its shares of a triple, which the other party does not see, either.
    e, f: x - a and y - b as a whole, opened: the same numbers for both parties.
    All of them, and the result, are whole numbers from 0 to 2^64 - 1.
    """
    z = c + e * b + a * f
    if party == 0:
        z += e * f
    return z % 2**64


def with_public(party, own, public_of_0, public_of_1) -> int:
    """A sum of shares, and what each party adds to it that both know."""
    return (own + (public_of_1 if party else public_of_0)) % MODULUS


def both_add(party, x, y, a, b, c, e, f):
    """The shares add up to x y + e f: what both parties know counts twice if both add it; let one of them do so."""
    return with_public(party, c + e * b + a * f, e * f, e * f)


def nobody_adds(party, x, y, a, b, c, e, f):
    """The shares add up to x y - e f: nobody has added e f, which both know; let one of them do so."""
    return with_public(party, c + e * b + a * f, 0, 0)


def takes_it_away(party, x, y, a, b, c, e, f):
    """It subtracts e f; in (e + a)(f + b) all four terms are added."""
    return with_public(party, c + e * b + a * f, -e * f, 0)


def halves_it(party, x, y, a, b, c, e, f):
    """It lets each party add half of e f, and an odd number has no half among whole numbers; let one add all of it."""
    half = e * f % MODULUS // 2
    return with_public(party, c + e * b + a * f, half, half)


def subtracts_the_other_terms(party, x, y, a, b, c, e, f):
    """It subtracts e b and a f, as for e = a - x; here e is x - a, so that x is e + a, and all terms are added."""
    return with_public(party, c - e * b - a * f, e * f, 0)


def crosses_the_factors(party, x, y, a, b, c, e, f):
    """It multiplies e by a and f by b; in (e + a)(f + b) stand e b and a f."""
    return with_public(party, c + e * a + f * b, e * f, 0)


def takes_x_and_y_for_a_and_b(party, x, y, a, b, c, e, f):
    """It has e y and x f in the place of e b and a f: y has f inside, so e f comes in twice more; use b and a."""
    return with_public(party, c + e * y + x * f, e * f, 0)


def forgets_c(party, x, y, a, b, c, e, f):
    """It leaves out c, the share of a b, for which the triple was made."""
    return with_public(party, e * b + a * f, e * f, 0)


def multiplies_a_and_b(party, x, y, a, b, c, e, f):
    """It has a b of its own shares where c belongs; the product of sums has cross terms, which nobody can compute."""
    return with_public(party, a * b + e * b + a * f, e * f, 0)


def multiplies_its_shares(party, x, y, a, b, c, e, f):
    """It multiplies its shares of x and y; (x_0 + x_1)(y_0 + y_1) has cross terms, for which there is the triple."""
    return x * y % MODULUS


def opens_the_product(party, x, y, a, b, c, e, f):
    """Each party has e f alone; that is what is public, and the terms with a, b and c are missing."""
    return with_public(party, 0, e * f, 0)


def never_reduces(party, x, y, a, b, c, e, f):
    """Its shares add up to x y modulo 2^64, and are no elements, from 0 to 2^64 - 1; end with `% 2**64`."""
    return c + e * b + a * f + (0 if party else e * f)


KINDS = (
    both_add,
    nobody_adds,
    takes_it_away,
    halves_it,
    subtracts_the_other_terms,
    crosses_the_factors,
    takes_x_and_y_for_a_and_b,
    forgets_c,
    multiplies_a_and_b,
    multiplies_its_shares,
    opens_the_product,
    never_reduces,
)


# --- how an answer is judged


def meetings() -> list[dict]:
    """Fresh factors and triples, each as a pair: what party 0 holds, and party 1. A half of e f is never whole."""
    return [meeting() for _ in range(DRAWS)]


def meeting() -> dict[str, tuple[int, int]]:
    """Both parties' numbers before a product, drawn until e f is odd."""
    x, y = RING.draw((1,)), RING.draw((1,))
    triples = deal_triple(Request("multiply", (1,), (1,)))
    a, b, c = ([getattr(triple, name) for triple in triples] for name in "abc")
    e, f = x - sum(a), y - sum(b)
    if not e[0] & f[0] & 1:
        return meeting()
    shares = (PARTIES, share(x), share(y), a, b, c, (e, e), (f, f))
    return {
        name: tuple(int(part) if name == "party" else int(part[0]) for part in both)
        for name, both in zip(("party", "x", "y", "a", "b", "c", "e", "f"), shares, strict=True)
    }


def of_both(answer: Callable, meeting: dict[str, tuple[int, int]]) -> list[int]:
    """The shares that an answer gives to party 0 and to party 1."""
    results = [put(answer, **{name: both[i] for name, both in meeting.items()}) for i in PARTIES]
    return [as_whole(result, "its share") for result in results]


def multiply(answer: Callable, **meeting: tuple[int, int]) -> float:
    """`RIGHT`, `UNKNOWN` or the number of a kind of failure: what both shares add up to tells."""
    shares = of_both(answer, meeting)
    total = sum(shares) % MODULUS
    if total == sum(meeting["x"]) * sum(meeting["y"]) % MODULUS:
        return RIGHT if all(0 <= z < MODULUS for z in shares) else kind(never_reduces, KINDS)
    return first_alike(lambda each: sum(of_both(each, meeting)) % MODULUS == total, KINDS, KINDS)


def not_the_product(result, **meeting) -> str:
    """What is known of a failure of no kind."""
    if result == UNKNOWN:
        return "What party 0 and party 1 get from it does not add up to x y modulo 2^64."
    return "What party 0 and party 1 get from it does not add up to x y modulo 2^64 each time."


beaver_product = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Who adds what?** Two parties hold shares of $x$ and $y$ modulo $2^{64}$, and of a random triple $a$, $b$,
        $c = a b$. They have opened $e = x - a$ and $f = y - b$, so that

        $$x y = (e + a)(f + b) = e f + e b + a f + c.$$

        Write `my_beaver_product(party, x, y, a, b, c, e, f)`, what one party computes: its share of $x y$, such that
        both shares add up to $x y$ modulo $2^{64}$. `x` to `c` are its own shares, `e` and `f` what both know; all are
        Python's whole numbers, which do not wrap around by themselves.
    """,
    solution=my_beaver_product,
    truth=right,
    cases=meetings,
    tested="fresh factors, shares and triples of all 64 bits; what both parties get is added up",
    hints=(
        "Three of the four terms have one shared factor or are shared themselves: put this party's share in its place. "
        "What do the results of both parties add up to?",
        "The fourth term is the same number for both. If both add it, how often is it in the sum? `party` says who is "
        "calling.",
        "Python's whole numbers grow: reduce the result with `% 2**64`.",
    ),
    mistakes=KINDS,
    call=multiply,
    look=not_the_product,
)
