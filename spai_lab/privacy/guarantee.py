r"""What a private release promises: epsilon, delta, which neighbors it speaks of, and what was released."""

import math
from dataclasses import dataclass, replace

from spai_lab.checks import check_choice, check_number, describe

ADD_REMOVE = "add/remove"
REPLACE = "replace"
ADJACENCIES = (ADD_REMOVE, REPLACE)
SENTENCES = {ADD_REMOVE: "one record added or removed", REPLACE: "one record replaced"}


@dataclass(frozen=True)
class Guarantee:
    r"""Differential privacy of a release: $\Pr[M(D) \in S] \le e^\epsilon \Pr[M(D') \in S] + \delta$ for neighbors.

    Args:
        epsilon: the budget $\epsilon$, at least 0; `math.inf` where nothing is promised.
        delta_dp: $\delta$ in [0, 1]; 0 is pure differential privacy.
        adjacency: which $D$ and $D'$ are neighbors: "add/remove" or "replace" one record.
        covers: what was released, each part a few words.
    Raises:
        ValueError: names the field.
    Reference: Dwork and Roth 2014, "The algorithmic foundations of differential privacy", definition 2.4.

    >>> print(Guarantee(2.0, 1e-5, "add/remove", ("the weights",)))
    epsilon 2 at delta 1e-05, one record added or removed; covers the weights
    """

    epsilon: float
    delta_dp: float
    adjacency: str
    covers: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.epsilon != math.inf:
            check_number("epsilon", self.epsilon, low=0)
        check_number("delta_dp", self.delta_dp, low=0, high=1)
        check_choice("adjacency", self.adjacency, ADJACENCIES)
        named = isinstance(self.covers, tuple) and all(isinstance(part, str) and part for part in self.covers)
        if not named or not self.covers:
            raise ValueError(f"covers is {describe(self.covers)}; accepted: a tuple of words for what was released")

    def __str__(self) -> str:
        covered = ", ".join(self.covers)
        return f"epsilon {self.epsilon:.4g} at delta {self.delta_dp:.4g}, {SENTENCES[self.adjacency]}; covers {covered}"


def labeled(guarantee: Guarantee, seeded: bool) -> str:
    """A guarantee in words; a run whose noise can be drawn again, from a seed, is labeled.

    >>> labeled(Guarantee(2.0, 0.0, "replace", ("a mean",)), seeded=True)
    'epsilon 2 at delta 0, one record replaced; covers a mean; demonstration, not private: the noise has a seed'
    """
    return f"{guarantee}; demonstration, not private: the noise has a seed" if seeded else str(guarantee)


def composed(*guarantees: Guarantee) -> Guarantee:
    r"""Several releases of the same data, seen together: $\left(\sum_i \epsilon_i, \sum_i \delta_i\right)$.

    Args:
        guarantees: at least one; all of one adjacency.
    Returns:
        what holds for all of them at once; `covers` lists what each of them covers.
    Raises:
        ValueError: they speak of different neighbors; `as_replacement` converts.
    Reference: Dwork and Roth 2014, theorem 3.16 (basic composition).

    >>> pca = Guarantee(0.5, 1e-6, "add/remove", ("the principal axes",))
    >>> print(composed(pca, Guarantee(1.5, 1e-6, "add/remove", ("the weights",))))
    epsilon 2 at delta 2e-06, one record added or removed; covers the principal axes, the weights
    """
    adjacency = common_adjacency(*guarantees)
    epsilon = sum(guarantee.epsilon for guarantee in guarantees)
    delta_dp = min(1.0, sum(guarantee.delta_dp for guarantee in guarantees))
    return Guarantee(epsilon, delta_dp, adjacency, tuple(part for each in guarantees for part in each.covers))


def as_replacement(guarantee: Guarantee) -> Guarantee:
    r"""The same release, seen from neighbors that differ in one replaced record.

    To replace a record is to remove one and to add another: $(2 \epsilon, (1 + e^\epsilon) \delta)$.
    The way back does not exist: a mechanism may tell how many records there are and still hide each one's content.

    Args:
        guarantee: of either adjacency.
    Returns:
        the guarantee for "replace"; itself where it is one already.
    Raises:
        ValueError: it is no `Guarantee`.
    Reference: Dwork and Roth 2014, theorem 2.2, with the delta of its proof.

    >>> as_replacement(Guarantee(1.0, 0.0, "add/remove", ("a count",))).epsilon
    2.0
    """
    common_adjacency(guarantee)
    if guarantee.adjacency == REPLACE:
        return guarantee
    grown = (1 + math.exp(min(guarantee.epsilon, 700))) * guarantee.delta_dp
    return replace(guarantee, epsilon=2 * guarantee.epsilon, delta_dp=min(1.0, grown), adjacency=REPLACE)


def common_adjacency(*guarantees: Guarantee) -> str:
    """The adjacency that all share; guarantees of different neighbors are neither added nor compared.

    Raises:
        ValueError: there is none, one is no `Guarantee`, or they differ.

    >>> common_adjacency(Guarantee(1, 0, "replace", ("a mean",)), Guarantee(2, 0, "add/remove", ("a count",)))
    Traceback (most recent call last):
    ValueError: guarantees have the adjacencies 'replace', 'add/remove'; accepted: one (as_replacement converts)
    """
    if not guarantees:
        raise ValueError("guarantees is empty; accepted: at least one Guarantee")
    for guarantee in guarantees:
        if not isinstance(guarantee, Guarantee):
            raise ValueError(f"guarantees has {describe(guarantee)}; accepted: Guarantee")
    adjacencies = tuple(dict.fromkeys(guarantee.adjacency for guarantee in guarantees))
    if len(adjacencies) > 1:
        found = ", ".join(map(repr, adjacencies))
        raise ValueError(f"guarantees have the adjacencies {found}; accepted: one (as_replacement converts)")
    return adjacencies[0]
