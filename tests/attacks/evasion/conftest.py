"""The attacks, victims and images that the tests of evasion share."""

import inspect

import pytest

from spai_lab.attacks import evasion

WITHIN_A_BALL = {
    name: attack
    for name, attack in ((name, getattr(evasion, name)) for name in evasion.__all__)
    if "eps" in inspect.signature(attack).parameters
}


@pytest.fixture(scope="session", params=WITHIN_A_BALL.values(), ids=WITHIN_A_BALL)
def attack(request):
    """Every public evasion attack that takes an `eps`: a new one is tested from the day it is exported."""
    return request.param


@pytest.fixture(scope="session")
def attacks():
    return list(WITHIN_A_BALL.values())


@pytest.fixture(scope="session")
def few_steps():
    """`few_steps(attack)`: the arguments that make an iterative attack short."""
    return lambda attack: {"steps": 3} if "steps" in inspect.signature(attack).parameters else {}


@pytest.fixture(scope="session", params=["lenet", "lenet-robust"])
def victim(request):
    """A naturally and an adversarially trained network for digits."""
    from spai_lab.training import reference

    return reference(request.param, "digits")
