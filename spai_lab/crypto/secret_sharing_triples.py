r"""Beaver triples: products of shared numbers cost random triples that were made before anybody knew the numbers.

A triple is a, b and $c = a b$, uniform a and b, all of them shared. To multiply x and y, both parties open
$e = x - a$ and $f = y - b$, which tells nothing as a and b are uniform, and used nowhere else; then

$x y = (e + a)(f + b) = e f + e b + a f + c$

is a sum of what everybody knows, and of shares times what everybody knows. Matrices work alike. So a product takes one
exchange of messages, and no cryptography once the triples are there (the online phase); all that is costly comes
before (the offline phase), where only shapes matter.

A **source** is a function from a `Request` to this party's share of a new triple. `stock` makes one of triples that
were made before, by whomever; both parties ask in the same order. **A triple serves once**: used twice, $e_1 - e_2$ is
the difference of two secrets.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spai_lab.checks import check_choice, describe
from spai_lab.crypto.paillier_keys import check_whole
from spai_lab.crypto.secret_sharing import share
from spai_lab.crypto.secret_sharing_ring import RING, Ring, check_elements, check_ring

KINDS = ("multiply", "matmul")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Request:
    """Which product a triple is for.

    Args:
        kind: "multiply", entry by entry, or "matmul".
        x, y: the shapes of the factors: the same one; or `(..., M, K)` and `(..., K, N)`.
    Raises:
        ValueError: names the argument.

    >>> Request("matmul", (2, 3), (3, 4)).z
    (2, 4)
    """

    kind: str
    x: Shape
    y: Shape

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        for name in ("x", "y"):
            shape = getattr(self, name)
            if not isinstance(shape, list | tuple) or not shape:
                raise ValueError(f"{name} is {describe(shape)}; accepted: a shape of at least one dimension")
            object.__setattr__(self, name, tuple(check_whole(name, side, 1, 2**31) for side in shape))
        if self.kind == "multiply" and self.x != self.y:
            raise ValueError(f"y is {self.y}; accepted: {self.x}, the shape of x")
        if self.kind == "matmul":
            if len(self.x) < 2:
                raise ValueError(f"x is {self.x}; accepted: the shape of matrices, (..., M, K)")
            if (*self.x[:-2], self.x[-1]) != self.y[:-1]:
                raise ValueError(f"y is {self.y}; accepted: {(*self.x[:-2], self.x[-1])} and N, as x is {self.x}")

    @property
    def z(self) -> Shape:
        """The shape of the product."""
        return self.x if self.kind == "multiply" else (*self.x[:-1], self.y[-1])

    @property
    def terms(self) -> int:
        """How many products an entry of the result sums up."""
        return 1 if self.kind == "multiply" else self.x[-1]

    @property
    def elements(self) -> int:
        """How many elements each party keeps for it."""
        return sum(map(math.prod, (self.x, self.y, self.z)))

    def product(self, x: np.ndarray, y: np.ndarray, ring: Ring) -> np.ndarray:
        """The product of elements."""
        return ring.reduce(x * y) if self.kind == "multiply" else ring.matmul(x, y)


@dataclass(frozen=True, repr=False, eq=False)
class Triple:
    """A party's shares of a, b and $c = a b$; it prints none of them."""

    request: Request
    a: np.ndarray
    b: np.ndarray
    c: np.ndarray

    def __repr__(self) -> str:
        return f"Triple({self.request})"


Source = Callable[[Request], Triple]


def deal_triple(request: Request, *, ring: Ring = RING) -> tuple[Triple, Triple]:
    r"""A triple, shared between two parties: uniform a and b, $c = a b$, each cut by `share`.

    Who calls it knows a, b and c: a third party that both trust not to talk to the other one.

    Args:
        request: for which product.
        ring: the ring.
    Returns:
        the shares of party 0 and of party 1.
    Raises:
        ValueError: names the argument.
    Reference: Beaver 1991, "Efficient multiparty protocols using circuit randomization", section 2.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: a party's shares could grow from a seed of 16 bytes, all but one c, which the dealer would send alone.

    >>> one, other = deal_triple(Request("multiply", (4,), (4,)))
    >>> a, b, c = (getattr(one, part) + getattr(other, part) for part in "abc")
    >>> np.array_equal(c, a * b)
    True
    """
    check_requests([request])
    check_ring(ring)
    a, b = ring.draw(request.x), ring.draw(request.y)
    parts = (share(part, ring=ring) for part in (a, b, request.product(a, b, ring)))
    one, other = zip(*parts, strict=True)
    return Triple(request, *one), Triple(request, *other)


def stock(triples: Sequence[Triple]) -> Source:
    """A source of triples that were made before, each handed out once, in order.

    Args:
        triples: a party's own.
    Returns:
        a source; it raises `ValueError` for another product than the next triple is for, and when none is left.
    Raises:
        ValueError: names the argument.

    >>> request = Request("multiply", (1,), (1,))
    >>> source = stock([deal_triple(request)[0]])
    >>> source(request)
    Triple(Request(kind='multiply', x=(1,), y=(1,)))
    >>> source(request)
    Traceback (most recent call last):
    ValueError: request is Request(kind='multiply', x=(1,), y=(1,)); accepted: none any more, all 1 triples are used
    """
    if not isinstance(triples, list | tuple) or not all(isinstance(each, Triple) for each in triples):
        raise ValueError(f"triples is {describe(triples)}; accepted: a list of Triple")
    left, count = deque(triples), len(triples)

    def source(request: Request) -> Triple:
        if not left:
            raise ValueError(f"request is {request}; accepted: none any more, all {count} triples are used")
        if left[0].request != request:
            raise ValueError(f"request is {request}; accepted: {left[0].request}, for which the next triple was made")
        return left.popleft()

    return source


def check_requests(requests: Sequence[Request]) -> None:
    """Raise `ValueError` unless this is a list of at least one `Request`."""
    if not isinstance(requests, list | tuple) or not requests or not all(isinstance(r, Request) for r in requests):
        raise ValueError(f"requests is {describe(requests)}; accepted: a list of at least one Request")


def check_triple(triple: Triple, request: Request, ring: Ring) -> Triple:
    """The triple; raise `ValueError` unless it is one for this product, of elements of this ring."""
    if not isinstance(triple, Triple) or triple.request != request:
        raise ValueError(f"triples gives {describe(triple)}; accepted: a Triple for {request}")
    for name, shape in (("a", request.x), ("b", request.y), ("c", request.z)):
        check_elements(f"{name} of a triple", getattr(triple, name), ring, shape)
    return triple
