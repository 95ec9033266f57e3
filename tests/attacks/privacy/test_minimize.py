"""Many small minimizations at once, held against torch's L-BFGS on each alone."""

import pytest
import torch

from spai_lab.attacks.privacy.minimize import lbfgs_steps


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def bowls(x):
    """Quadratics with axes of very different length."""
    return (torch.logspace(-1, 1, x.shape[1], dtype=x.dtype) * (x - 1).square()).sum(1)


def banana(x):
    """Rosenbrock's valley, flat enough to be walked without a line search."""
    return (x[:, 1:] - x[:, :-1].square()).square().sum(1) + 0.1 * (1 - x).square().sum(1)


def torchs(objective, start, steps, learning_rate):
    """Where torch's optimizer is after so many steps, one problem at a time."""
    found = []
    for row in start:
        x = row.clone().requires_grad_()
        settings = {"lr": learning_rate, "max_iter": steps, "max_eval": 10 * steps, "history_size": 100}
        optimizer = torch.optim.LBFGS([x], **settings, tolerance_grad=0, tolerance_change=0)

        def closure(x=x, optimizer=optimizer):
            optimizer.zero_grad()
            value = objective(x[None])[0]
            value.backward()
            return value

        optimizer.step(closure)
        found.append(x.detach())
    return torch.stack(found)


@pytest.mark.parametrize("objective", [bowls, banana])
@pytest.mark.parametrize("learning_rate", [1.0, 0.5])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_each_problem_walks_as_it_would_alone(objective, learning_rate, steps):
    start = torch.randn(5, 4, generator=seeded(), dtype=torch.float64)
    walk = lbfgs_steps(objective, start, learning_rate=learning_rate)
    for _ in range(steps):
        x, value = next(walk)
    assert torch.allclose(x, torchs(objective, start, steps, learning_rate), atol=1e-8)
    assert torch.allclose(value, objective(x))


def test_a_problem_that_is_solved_stays_solved_beside_one_that_is_not():
    start = torch.stack([torch.ones(4), torch.full((4,), 9.0)])
    walk = lbfgs_steps(bowls, start)
    for _ in range(30):
        x, value = next(walk)
    assert torch.equal(x[0], torch.ones(4)) and value[1] < 1e-8


def test_a_step_into_the_infinite_is_not_taken():
    walk = lbfgs_steps(lambda x: torch.where(x.sum(1) > 0, x.sum(1), torch.inf * x.sum(1)), torch.full((1, 2), 0.25))
    for _ in range(3):
        x, value = next(walk)
    assert x.isfinite().all() and value.isfinite().all()
