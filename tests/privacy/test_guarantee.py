"""Guarantees: what they say, how they add up, and what is not added."""

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spai_lab.privacy.guarantee import (
    ADD_REMOVE,
    ADJACENCIES,
    REPLACE,
    Guarantee,
    as_replacement,
    common_adjacency,
    composed,
)
from spai_lab.privacy.mechanisms import gaussian_delta

COUNT = Guarantee(0.5, 0.0, ADD_REMOVE, ("a count",))
WEIGHTS = Guarantee(2.0, 1e-5, ADD_REMOVE, ("the weights", "the number of steps"))
COVERS = st.sampled_from([("a count",), ("the weights", "a mean")])
guarantees = st.builds(Guarantee, st.floats(0, 100), st.floats(0, 1), st.just(ADD_REMOVE), COVERS)


def test_it_says_all_four_parts():
    assert str(WEIGHTS) == (
        "epsilon 2 at delta 1e-05, one record added or removed; covers the weights, the number of steps"
    )
    assert "inf" in str(Guarantee(math.inf, 0, REPLACE, ("all",))) and "replaced" in str(as_replacement(COUNT))


def test_releases_add_up():
    both = composed(COUNT, WEIGHTS)
    assert (both.epsilon, both.delta_dp, both.adjacency) == (2.5, 1e-5, ADD_REMOVE)
    assert both.covers == ("a count", "the weights", "the number of steps")
    assert composed(*[Guarantee(1.0, 0.6, REPLACE, ("x",))] * 2).delta_dp == 1


@given(st.lists(guarantees, min_size=1, max_size=4))
def test_to_compose_hides_nothing(several):
    together = composed(*several)
    assert together.epsilon >= max(each.epsilon for each in several)
    assert together.delta_dp >= max(each.delta_dp for each in several)
    assert composed(several[0]) == several[0]


@pytest.mark.parametrize(("epsilon", "sigma"), list(product([0.1, 1.0, 3.0], [0.5, 1.0, 4.0])))
def test_to_replace_is_to_remove_and_to_add(epsilon, sigma):
    """A sum with Gaussian noise, each record within [-1, 1]: a replaced record moves it twice as far; closed forms."""
    replaced = as_replacement(Guarantee(epsilon, gaussian_delta(sigma, 1.0, epsilon), ADD_REMOVE, ("a sum",)))
    assert gaussian_delta(sigma, 2.0, replaced.epsilon) <= replaced.delta_dp
    assert replaced.adjacency == REPLACE and as_replacement(replaced) is replaced


def test_an_infinite_epsilon_stays_infinite():
    assert as_replacement(Guarantee(math.inf, 0.1, ADD_REMOVE, ("x",))).epsilon == math.inf
    assert composed(COUNT, Guarantee(math.inf, 0.0, ADD_REMOVE, ("x",))).epsilon == math.inf
    assert as_replacement(Guarantee(1e6, 1e-5, ADD_REMOVE, ("x",))).delta_dp == 1


# --- bad input --------------------------------------------------------------------------------------------------------

GOOD = {"epsilon": 1.0, "delta_dp": 1e-5, "adjacency": REPLACE, "covers": ("the weights",)}
REFUSED = [
    *(({"epsilon": bad}, "epsilon is") for bad in (-1.0, math.nan, -math.inf, "1", True, None)),
    *(({"delta_dp": bad}, "delta_dp is") for bad in (-1e-9, 1.1, math.nan, None)),
    *(({"adjacency": bad}, "adjacency is") for bad in ("remove", None)),
    *(({"covers": bad}, "covers is") for bad in ((), "weights", ("",), (1,), ["weights"])),
]


@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_refuses(refuses, change, words):
    refuses(Guarantee, GOOD | change, words)


@pytest.mark.parametrize("function", [composed, common_adjacency])
def test_different_neighbors_are_not_added(function):
    other = as_replacement(COUNT)
    with pytest.raises(ValueError, match="adjacencies 'add/remove', 'replace'"):
        function(COUNT, other)
    with pytest.raises(ValueError, match="guarantees is empty"):
        function()
    with pytest.raises(ValueError, match=r"guarantees has 1\.0"):
        function(COUNT, 1.0)
    assert function(other, other) in (REPLACE, composed(other, other)) and REPLACE in ADJACENCIES


def test_only_guarantees_are_converted():
    with pytest.raises(ValueError, match="guarantees has"):
        as_replacement(2.0)
