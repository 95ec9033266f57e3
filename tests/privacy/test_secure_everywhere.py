"""With `secure=True` no method takes its noise from PyTorch's generators, and each takes it from the cryptographic one.

All draws are noted by the function that asks for them. What draws the noise without `secure` must not draw with it:
each row of `METHODS` names both sources, so that a method that ignores the flag cannot pass.
"""

import importlib
import inspect
import os
import pkgutil
import secrets
import sys
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

import spai_lab.privacy

FUNCTIONS = ("rand", "randn", "randint", "rand_like", "randn_like", "randperm", "normal", "bernoulli", "multinomial")
IN_PLACE = ("exponential_", "normal_", "uniform_", "bernoulli_", "geometric_", "cauchy_", "log_normal_", "random_")
OTHER = {"own_draws", "check_alone", "is_fast"}  # draw seeds of layers, and trials of the model: no noise


@pytest.fixture
def drawn(monkeypatch):
    """From a release to the names of the functions that drew by PyTorch, and by the operating system, for it.

    `fresh_generator` does not count: what it starts draws by PyTorch.
    """
    by_torch, by_system = set(), set()

    def noting(asked, draw):
        def noted(*args, **kwargs):
            asked.add(sys._getframe(1).f_code.co_name)
            return draw(*args, **kwargs)

        return noted

    def release(run):
        by_torch.clear(), by_system.clear()
        with monkeypatch.context() as patch:
            for owner, names in ((torch, FUNCTIONS), (torch.Tensor, IN_PLACE)):
                for name in names:
                    patch.setattr(owner, name, noting(by_torch, getattr(owner, name)))
            patch.setattr(os, "urandom", noting(by_system, os.urandom))
            patch.setattr(secrets, "randbelow", noting(by_system, secrets.randbelow))
            run()
        return set(by_torch), by_system - {"fresh_generator"}

    return release


def of(name):
    """A public function of the package, and the module that holds it."""
    module = importlib.import_module(f"spai_lab.privacy.{name.rpartition('.')[0]}")
    return getattr(module, name.rpartition(".")[2]), module


def call(name, **arguments):
    """A release: from whether it is `secure` to what is released."""
    return lambda secure, monkeypatch: of(name)[0](**arguments, secure=secure)


def train(secure, monkeypatch):
    dp_sgd, _ = of("dp_sgd.dp_sgd")
    settings = {"noise_multiplier": 1.0, "clip": 1.0, "sampling_rate": 0.5, "steps": 2, "learning_rate": 0.1}
    x = torch.full((8, 1, 2, 2), 0.5)
    dp_sgd(deepcopy(MODEL), x, LABELS, **settings, delta_dp=0.01, secure=secure, progress=False)


def teach(secure, monkeypatch):
    """The teachers' votes are made up, and the student learns nothing: what is left is the noise."""
    pate, module = of("pate.pate")
    digits = importlib.import_module("spai_lab.data").load("digits")
    data, x_public = replace(digits, x_test=digits.x_test[20:], y_test=digits.y_test[20:]), digits.x_test[:20]
    monkeypatch.setattr(module, "train_teachers", lambda *args, **kwargs: None)
    monkeypatch.setattr(module, "votes", lambda *args: VOTES.repeat(10, 1))
    monkeypatch.setattr(module, "fit", lambda *args, **kwargs: None)
    pate(data, x_public, lambda generator: nn.Flatten(), teachers=10, noise=5.0, delta_dp=1e-3, secure=secure,
         progress=False)  # fmt: skip


SCALAR = {"sensitivity": 1.0, "epsilon": 1.0}
LABELS = torch.tensor([0, 1] * 4)
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
ROWS = {"x": torch.linspace(-0.5, 0.5, 16).view(8, 2), "y": LABELS, "epsilon": 1.0}
VOTES = torch.tensor([[6, 4], [5, 5]])
CONFIDENT = {"counts": VOTES, "threshold": 5.0, "threshold_sigma": 2.0, "sigma": 1.0, "most": 2}
GRADIENT = {"gradients": {"weight": torch.ones(3, 4)}, "clip": 1.0, "noise_multiplier": 1.0, "expected_batch": 3}
EXACT = {"laplace_integer", "bernoulli_exp"}
NORMAL = {"box_muller"}
METHODS = {  # how to release; which functions draw the noise without `secure`, and with it
    "mechanisms.randomized_response": (
        call("mechanisms.randomized_response", values=LABELS, classes=2, epsilon=1.0),
        {"randomized_response"}, {"exact_choice", "bernoulli_exp"}),
    "mechanisms.laplace_mechanism": (
        call("mechanisms.laplace_mechanism", value=1.0, **SCALAR), {"laplace_mechanism"}, EXACT),
    "mechanisms.gaussian_mechanism": (
        call("mechanisms.gaussian_mechanism", value=1.0, **SCALAR, delta_dp=1e-5), {"gaussian_mechanism"}, EXACT),
    "mechanisms.exponential_mechanism": (
        call("mechanisms.exponential_mechanism", scores=torch.zeros(4), **SCALAR),
        {"exponential_mechanism"}, {"exact_choice"}),
    "objective_perturbation.objective_perturbation": (
        call("objective_perturbation.objective_perturbation", **ROWS, regularization=0.1), {"<lambda>"}, NORMAL),
    "functional_mechanism.functional_mechanism": (
        call("functional_mechanism.functional_mechanism", **ROWS), {"laplace_mechanism"}, EXACT),
    "pate_votes.gnmax": (call("pate_votes.gnmax", counts=VOTES, sigma=2.0), {"with_gaussian_noise"}, NORMAL),
    "pate_votes.confident_gnmax": (
        call("pate_votes.confident_gnmax", **CONFIDENT), {"with_gaussian_noise"}, NORMAL),
    "pate.pate": (teach, {"with_gaussian_noise"}, NORMAL),
    "dp_sgd.private_gradient": (call("dp_sgd.private_gradient", **GRADIENT), {"normal_like"}, NORMAL),
    "dp_sgd.poisson_batches": (
        lambda secure, monkeypatch: list(of("dp_sgd.poisson_batches")[0](9, 0.5, 2, secure=secure)),
        {"coins"}, {"coins"}),
    "dp_sgd.dp_sgd": (train, {"normal_like", "coins"}, NORMAL | {"coins"}),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_secure_noise_comes_from_the_operating_system_and_from_nothing_else(name, drawn, monkeypatch):
    release, _, sources = METHODS[name]
    by_torch, by_system = drawn(lambda: release(True, monkeypatch))
    assert by_torch <= OTHER, "noise that a seed determines"
    assert sources <= by_system


@pytest.mark.parametrize("name", METHODS)
def test_without_it_noise_comes_from_a_generator_and_is_seen(name, drawn, monkeypatch):
    """So that the test above would fail if the flag were ignored."""
    release, sources, _ = METHODS[name]
    by_torch, by_system = drawn(lambda: release(False, monkeypatch))
    assert sources <= by_torch and not sources & OTHER and not by_system


def test_every_method_with_the_flag_is_tested():
    """A public function that offers `secure=False` is one that must have a row."""
    offering = set()
    for found in pkgutil.iter_modules(spai_lab.privacy.__path__):
        module = importlib.import_module(f"spai_lab.privacy.{found.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            flag = inspect.signature(function).parameters.get("secure")
            if flag is not None and flag.default is False and function.__module__ == module.__name__:
                offering.add(f"{found.name}.{name}")
    assert offering == set(METHODS)
