"""The attacks, victims and images that the tests of evasion share."""

import inspect
from collections.abc import Callable

import pytest
from scipy.optimize import brentq
from torch import Tensor, nn

from spai_lab.attacks import evasion
from spai_lab.query import Query

LEARN = {"advgan", "universal_perturbation"}  # return a network and a perturbation, not images


def takes(attack: Callable, argument: str) -> bool:
    return argument in inspect.signature(attack).parameters


PUBLIC = {name: getattr(evasion, name) for name in evasion.__all__ if name not in LEARN}
WITHIN_A_BALL = {
    name: attack for name, attack in PUBLIC.items() if takes(attack, "eps") and not name.endswith("verdict")
}
WHITE_BOX = {name: attack for name, attack in WITHIN_A_BALL.items() if not takes(attack, "query")}
CLIMBING = {name: attack for name, attack in WITHIN_A_BALL.items() if takes(attack, "gradient")}


@pytest.fixture(scope="session", params=WITHIN_A_BALL.values(), ids=WITHIN_A_BALL)
def attack(request):
    """Every public evasion attack that takes an `eps`: a new one is tested from the day it is exported."""
    return request.param


@pytest.fixture(scope="session", params=WHITE_BOX.values(), ids=WHITE_BOX)
def white_box(request):
    """Those of them that see gradients, of the victim or of a model of their own."""
    return request.param


@pytest.fixture(scope="session", params=CLIMBING.values(), ids=CLIMBING)
def climber(request):
    """Those of them that climb a loss by the `gradient` hook."""
    return request.param


@pytest.fixture(scope="session")
def attacks():
    return list(WITHIN_A_BALL.values())


@pytest.fixture(scope="session")
def few_steps():
    """`few_steps(attack)`: the arguments that make an iterative attack short."""
    return lambda attack: {name: few for name, few in (("steps", 3), ("queries", 10)) if takes(attack, name)}


def shown_to(attack: Callable, model: nn.Module) -> dict[str, object]:
    """What the attacker gets: the model, a query of it, or the model as one of his own."""
    given = {"model": model, "query": Query(model), "surrogates": [model]}
    return {name: what for name, what in given.items() if takes(attack, name)}


@pytest.fixture(scope="session")
def perform():
    """`perform(attack, model, x, y, ...)`: runs any attack, with those of the arguments that it takes."""

    def run(attack: Callable, model: nn.Module, x: Tensor, y: Tensor, **arguments: object) -> Tensor:
        taken = {name: value for name, value in arguments.items() if takes(attack, name)}
        return attack(**shown_to(attack, model), x=x, y=y, **taken)

    return run


@pytest.fixture(scope="session")
def resting():
    r"""`resting(x, w, eps, step)`: where steps along w, each brought back into the L2 ball and clipped, come to rest.

    A point rests if $x + \delta = \mathrm{clip}(x + s (\delta + \eta \hat w))$ with
    $s \|\delta + \eta \hat w\| = \epsilon$. Where nothing is clipped this gives $\delta_i = t \hat w_i$ with
    $s = t / (t + \eta)$. So the point is $\mathrm{clip}(x + t \hat w)$, the worst case of its own length. With a step
    of 0 that is $\epsilon$: the worst case of the ball.
    """

    def rest(x: Tensor, w: Tensor, eps: float, step: float) -> Tensor:
        w = w / w.norm()

        def excess(t: float) -> float:
            delta = (x + t * w).clamp(0, 1) - x
            return t / (t + step) * (delta + step * w).norm().item() - eps

        return (x + brentq(excess, 1e-9, 1e3) * w).clamp(0, 1)

    return rest


@pytest.fixture(params=["lenet", "lenet-robust"])
def victim(request):
    """A naturally and an adversarially trained network for digits; a fresh one, since some peers leave gradients."""
    from spai_lab.training import reference

    return reference(request.param, "digits")
