"""Matrix products modulo 2^64 against Python's integers, at the entries where float64 has least room."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spai_lab.crypto import ring_matmul as module
from spai_lab.crypto.ring_matmul import limb_matmul, limbs, ring_matmul

M = 2**64
WIDEST = 2**21
BORDERS = (0, 1, 2, 2**21 - 1, 2**21, 2**22 - 1, 2**22, 2**43, 2**44 - 1, 2**53, 2**62, 2**63 - 1, 2**63, M - 2, M - 1)


def from_limbs(*parts):
    return sum(part << 22 * i for i, part in enumerate(parts)) % M


EXTREME = (from_limbs(1 - WIDEST, 1 - WIDEST, 1 - 2**19), from_limbs(WIDEST - 1, WIDEST - 1, 2**19 - 1))


def by_python(x, y):
    """The product of Python's integers, which know no limit."""
    return (x.astype(object) @ y.astype(object) % M).astype(np.uint64)


def filled(value, *shape):
    return np.full(shape, value, dtype=np.uint64)


both = pytest.mark.parametrize("product", [ring_matmul, limb_matmul])
entries = st.integers(0, M - 1) | st.sampled_from(BORDERS + EXTREME)


@both
@given(data=st.data(), m=st.integers(1, 5), k=st.integers(1, 7), n=st.integers(1, 5))
def test_products_are_those_of_pythons_integers(product, data, m, k, n):
    x, y = (
        np.array(data.draw(st.lists(entries, min_size=a * b, max_size=a * b)), dtype=np.uint64).reshape(a, b)
        for a, b in ((m, k), (k, n))
    )
    assert (product(x, y) == by_python(x, y)).all()


@both
@pytest.mark.parametrize("k", [module.BLOCK - 1, module.BLOCK, module.BLOCK + 1, module.MOST, 3 * module.MOST + 1])
@pytest.mark.parametrize("pair", [(M - 1, M - 1), (2**63, M - 1), EXTREME, EXTREME[:1] * 2, EXTREME[1:] * 2], ids=str)
def test_the_largest_entries_and_long_sums(product, pair, k):
    x, y = filled(pair[0], 2, k), filled(pair[1], k, 3)
    assert (product(x, y) == pair[0] * pair[1] * k % M).all()


def test_blocks_may_be_as_long_as_is_said_and_not_much_longer(monkeypatch):
    """All products have one sign, so that sums only grow; the middle bracket holds two of the largest an index."""
    odd = from_limbs(WIDEST - 1, WIDEST - 1, 1)
    x, y = filled(odd, 1, 8192), filled(odd, 8192, 1)
    y[::3] = from_limbs(WIDEST - 2, WIDEST - 1, 1)
    for size, exact in ((module.MOST, True), (8 * module.MOST, False)):
        monkeypatch.setattr(module, "BLOCK", size)
        assert (limb_matmul(x, y) == by_python(x, y)).all() == exact


def test_limbs_add_up_and_keep_their_bounds():
    random = np.random.default_rng(1)
    x = np.array([*BORDERS, *EXTREME, *random.integers(0, M, 10_000, dtype=np.uint64)], dtype=np.uint64)
    parts = [limb.astype(object) for limb in limbs(x)]
    assert (sum(part * 2 ** (22 * i) for i, part in enumerate(parts)) % M == x.astype(object)).all()
    assert [max(abs(part)) <= bound for part, bound in zip(parts, (WIDEST, WIDEST, 2**19), strict=True)] == [True] * 3
    assert max(abs(parts[2])) == 2**19


@both
def test_batches_and_views_agree(product):
    random = np.random.default_rng(2)
    x, y = (random.integers(0, M, shape, dtype=np.uint64) for shape in ((3, 1, 6, 150), (2, 150, 5)))
    frozen = x.copy()
    frozen.flags.writeable = False
    for left in (x, frozen, x[..., ::-2, :], x[:1], np.asfortranarray(x), np.broadcast_to(x[:1], x.shape)):
        z = product(left, y)
        assert z.shape == (len(left), 2, left.shape[-2], 5) and z.dtype == np.uint64
        assert all((z[i, j] == by_python(left[i, 0], y[j])).all() for i, j in np.ndindex(z.shape[:2]))


@both
def test_factors_stay_as_they_were(product):
    x, y = filled(M - 3, 40, 40), filled(2**63 + 1, 40, 40)
    product(x, y)
    assert (x == M - 3).all() and (y == 2**63 + 1).all()


@both
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": np.ones((2, 2))}, ("x is float64 of shape (2, 2)",)),
        ({"x": np.ones((2, 2), np.int64)}, ("x is int64",)),
        ({"y": [[1]]}, ("y is [[1]]",)),
        ({"y": filled(1, 2)}, ("y is uint64 of shape (2,)", "matrices")),
        ({"y": filled(1, 3, 2)}, ("y is uint64 of shape (3, 2)", "(..., 2, N)")),
        ({"x": filled(1, 3, 2, 2), "y": filled(1, 2, 2, 2)}, ("y is uint64 of shape (2, 2, 2)",)),
        ({"x": filled(1, 0, 2)}, ("x is uint64 of shape (0, 2)", "none of them empty")),
    ],
)
def test_bad_factors_are_named(refuses, product, change, words):
    refuses(product, {"x": filled(1, 2, 2), "y": filled(1, 2, 2)} | change, *words)
