"""The learned generator: on a linear model it must find the sign of the gradient; on digits it must beat chance.

No library has this attack, so there is nobody to compare with; what is known in closed form stands in.
"""

import pytest
import torch

from spai_lab.attacks.evasion.generator import Perturber, advgan
from spai_lab.metrics import fooled_rate
from spai_lab.models import softmax_regression
from spai_lab.threat import norms


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def linear():
    """Two classes, gray images, all of the first, and the direction toward the second, which changes by quadrant."""
    model = softmax_regression((1, 8, 8), 2, generator=seeded())
    w = torch.ones(1, 8, 8)
    w[:, :4, 4:] = w[:, 4:, :4] = -1
    with torch.no_grad():
        model[-1].weight.copy_(torch.stack([-w, w]).flatten(1) / 8)
        model[-1].bias.zero_()
    x = 0.4 + 0.2 * torch.rand(64, 1, 8, 8, generator=seeded(1))
    return model, x, w


@pytest.mark.parametrize("targeted", [False, True])
def test_the_best_output_on_a_linear_model_is_the_sign_of_its_weights(linear, targeted):
    model, x, w = linear
    y = torch.full((64,), int(targeted))
    G = advgan(
        model,
        *(x[:48], y[:48]),
        eps=0.1,
        targeted=targeted,
        confidence=1e3,
        gan_weight=0.0,
        size_weight=0.0,
        epochs=150,
        generator=seeded(),
        progress=False,
    )
    gained, best = (G(x[48:]) - x[48:]).mul(w).sum((1, 2, 3)), 0.1 * w.abs().sum()
    assert (gained <= best * (1 + 1e-5)).all()
    assert gained.mean() >= 0.85 * best


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_any_network_stays_in_the_ball_and_in_the_range(norm):
    x = torch.rand(16, 1, 8, 8, generator=seeded())
    for scale in (0.0, 1.0, 1e6):
        wild = torch.nn.Conv2d(1, 1, 3, padding=1)
        with torch.no_grad():
            wild.weight.mul_(scale)
        x_adv = Perturber(wild, 0.2, norm)(x)
        assert (norms(x_adv - x, norm) <= 0.2 + 1e-6).all() and x_adv.min() >= 0 and x_adv.max() <= 1


def test_the_hinge_keeps_the_perturbation_small(linear):
    model, x, _ = linear
    y = torch.zeros(64, dtype=torch.int64)
    settings = {"eps": 0.1, "epochs": 40, "gan_weight": 0.0, "confidence": 1e3, "progress": False}
    sizes = [
        norms(
            advgan(model, x, y, size_weight=weight, free_size=0.3, generator=seeded(), **settings)(x) - x, "l2"
        ).mean()
        for weight in (0.0, 100.0)
    ]
    assert sizes[1] < 0.5 < sizes[0]


def test_the_discriminator_takes_part_only_if_it_has_weight(linear):
    model, x, _ = linear
    y = torch.zeros(64, dtype=torch.int64)
    runs = [
        advgan(model, x, y, eps=0.1, gan_weight=weight, epochs=2, generator=seeded(), progress=False)(x)
        for weight in (0.0, 0.0, 1.0)
    ]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_everything_else_is_left_as_it_was(linear):
    model, x, _ = linear
    y, before = torch.zeros(64, dtype=torch.int64), (x.clone(), torch.get_rng_state())
    with torch.no_grad():
        G = advgan(model.train(), x, y, eps=0.1, epochs=1, progress=False)
    assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(x, before[0]) and torch.equal(torch.get_rng_state(), before[1])
    assert not G.training and not G(x).requires_grad
    assert torch.allclose(G(x)[:1], G(x[:1]), rtol=0, atol=1e-6)
    model.eval()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"confidence": -1}, ("confidence", "-1")),
        ({"gan_weight": -1}, ("gan_weight", "-1")),
        ({"size_weight": float("nan")}, ("size_weight", "nan")),
        ({"free_size": -0.1}, ("free_size", "-0.1")),
        ({"epochs": 0}, ("epochs", "0")),
        ({"batch_size": 0}, ("batch_size", "0")),
        ({"learning_rate": 0}, ("learning_rate", "0")),
        ({"progress": 1}, ("progress", "1")),
        ({"x": torch.zeros(0, 1, 8, 8), "y": torch.zeros(0, dtype=torch.int64)}, ("x", "N at least 1")),
        ({"x": torch.zeros(1, 2, 1, 1), "y": torch.tensor([0])}, ("x", "at least 5")),
    ],
)
def test_bad_arguments_are_named(linear, refuses, bad, words):
    model, x, _ = linear
    good = {"model": model, "x": x[:4], "y": torch.zeros(4, dtype=torch.int64), "eps": 0.1, "progress": False}
    refuses(advgan, {**good, **bad}, *words)


ROBUST_LATER = pytest.mark.parametrize(
    "victim", ["lenet", pytest.param("lenet-robust", marks=pytest.mark.full)], indirect=True
)


@pytest.mark.oracle
@ROBUST_LATER
def test_on_unseen_digits_it_beats_noise_of_its_own_size(victim, digits, request):
    eps = {"lenet": 0.15, "lenet-robust": 0.3}[request.node.callspec.params["victim"]]
    G = advgan(
        victim, digits.x_train, digits.y_train, eps=eps, epochs=8, gan_weight=0.0, generator=seeded(), progress=False
    )
    x, y = digits.x_test, digits.y_test
    signs = torch.randint(2, x.shape, generator=seeded(1)) * 2 - 1
    noise = fooled_rate(victim, (x + eps * signs).clamp(0, 1), y)
    assert fooled_rate(victim, G(x), y).interval[0] > noise.interval[1] + 0.1
