"""Defense-GAN, against least squares, closed forms and the two attacks that know it."""

import numpy as np
import pytest
import torch
from torch import nn

from spai_lab.attacks.evasion.gradient import fgsm, pgd
from spai_lab.defenses.evasion.defense_gan import defense_gan, gan_view, latent_attack
from spai_lab.defenses.evasion.image_networks import train_generator
from spai_lab.threat import input_gradient, margin
from spai_lab.training.loop import accuracy


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear_generator(matrix: torch.Tensor, offset: torch.Tensor, shape: tuple[int, ...]) -> nn.Module:
    """$G(z) = A z + b$, whose range a projection reaches in closed form."""
    layer = nn.Linear(matrix.shape[1], matrix.shape[0]).to(matrix.dtype)
    layer.weight.data, layer.bias.data = matrix.clone(), offset.clone()
    return nn.Sequential(layer, nn.Unflatten(1, shape)).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def victim():
    from spai_lab.training.weights import reference

    return reference("lenet", "digits")


@pytest.fixture(scope="module")
def principal(digits):
    """A generator without training: the 20 principal components of the digits, for latent vectors from N(0, I)."""
    flat = digits.x_train.flatten(1)
    mean = flat.mean(0)
    _, S, V = torch.linalg.svd(flat - mean, full_matrices=False)
    return linear_generator(V[:20].T * S[:20] / len(flat) ** 0.5, mean, digits.x_train.shape[1:])


def test_the_projection_on_a_linear_range_is_numpys_least_squares():
    A, b, x = (
        torch.rand(*size, generator=seeded(s), dtype=torch.float64) for s, size in enumerate([(9, 3), (9,), (5, 9)])
    )
    G = linear_generator(A, b, (1, 3, 3))
    projection = defense_gan(nn.Flatten(), G, steps=2000, restarts=2, step_size=1.0, generator=seeded()).projection
    z = np.linalg.lstsq(A.numpy(), (x - b).T.numpy(), rcond=None)[0]
    np.testing.assert_allclose(projection(x.view(5, 1, 3, 3)).flatten(1), (A.numpy() @ z).T + b.numpy(), atol=1e-8)


def test_the_step_is_ten_times_the_slope_of_the_mean_over_pixels():
    """One step of a large and one of a tenth of its size, with momentum, by hand."""
    G = linear_generator(torch.tensor([[1.0], [0.0]]), torch.zeros(2), (1, 1, 2))
    defended = defense_gan(nn.Flatten(), G, steps=2, restarts=1, step_size=0.5, momentum=0.7, generator=seeded())
    z = torch.randn(1, 1, generator=seeded()).item()
    slope = z - 0.6  # the mean over two pixels, one of which the generator cannot change
    first = z - 0.5 * slope
    second = first - 0.5 * (0.7 * slope + first - 0.6)
    assert defended(torch.tensor([[[[0.6, 0.3]]]]))[0].tolist() == pytest.approx([second, 0.0], abs=1e-6)


def test_of_all_restarts_the_nearest_counts():
    """From the left of the hill the descent ends in the worse of two valleys."""
    valleys = nn.Sequential(nn.Linear(1, 1, bias=False), Valley(), nn.Unflatten(1, (1, 1, 1)))
    nn.init.constant_(valleys[0].weight, 1.0)
    x = torch.ones(200, 1, 1, 1)
    error = {
        R: (defense_gan(nn.Flatten(), valleys, restarts=R, step_size=0.1, generator=seeded()).projection(x) - x).abs()
        for R in (1, 10)
    }
    assert 0.2 < (error[1] > 0.3).float().mean() < 0.8  # about half of the first latent vectors are on each side
    assert (error[10] > 0.3).float().mean() < 0.02  # expected: 2 ** -10


class Valley(nn.Module):
    """Rises to 1 to the right of 0, only to 1/2 to the left of it."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.where(z > 0, z.tanh(), -z.tanh() / 2)


def test_a_defended_model_has_no_gradient_and_its_view_has_the_networks(victim, principal, digits):
    x, y = digits.x_test[:8], digits.y_test[:8]
    defended = defense_gan(victim, principal, steps=100, restarts=2, generator=seeded())
    with pytest.raises(ValueError, match="bpda"):
        input_gradient(defended, x, y)
    view = gan_view(defended, generator=seeded())
    defended.generator.manual_seed(0)
    torch.testing.assert_close(view(x), defended(x))
    view.generator.manual_seed(0)
    defended.generator.manual_seed(0)
    expected = input_gradient(victim, defended.projection(x), y)
    torch.testing.assert_close(input_gradient(view, x, y), expected)


def test_the_latent_attack_finds_the_shortest_way_out_of_a_linear_model():
    """Where G draws everything, the nearest image misread by kappa lies $(margin + kappa) / |w_0 - w_1|$ away."""
    f = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))
    f[1].weight.data = torch.randn(2, 9, generator=seeded())
    f[1].bias.data = -f[1].weight.data.sum(1) / 2  # an all-gray image lies on the border
    x = 0.4 + 0.2 * torch.rand(20, 1, 3, 3, generator=seeded(1))
    y = f(x).argmax(1)
    G = linear_generator(torch.eye(9), torch.zeros(9), (1, 3, 3))
    defended = defense_gan(f, G, restarts=2, generator=seeded())
    x_adv = latent_attack(
        defended,
        x,
        y,
        eps=2.0,
        steps=2000,
        restarts=1,
        step_size=0.002,
        confidence=0.1,
        weight=0.5,
        generator=seeded(),
        progress=False,
    )
    moved = (x_adv - x).flatten(1).norm(dim=1)
    shortest = (margin(f(x), y) + 0.1) / (f[1].weight[0] - f[1].weight[1]).norm()
    inside = ((x_adv > 0) & (x_adv < 1)).flatten(1).all(1)
    assert inside.sum() >= 10
    torch.testing.assert_close(moved[inside], shortest[inside].detach(), rtol=0.02, atol=0.002)
    assert (margin(f(x_adv), y)[inside] < 0).all()


def test_clean_digits_survive_and_the_attacks_that_know_the_defense_win(victim, principal, digits):
    x, y = digits.x_test[:24], digits.y_test[:24]
    defended = defense_gan(victim, principal, steps=40, restarts=1, generator=seeded())
    assert accuracy(defended, x, y) >= 0.9
    transferred = accuracy(defended, pgd(victim, x, y, eps=3.0, norm="l2", steps=10, generator=seeded()), y)
    view = gan_view(defended, steps=20, generator=seeded(1))
    through = accuracy(defended, pgd(view, x, y, eps=3.0, norm="l2", steps=10, generator=seeded()), y)
    x_adv = latent_attack(defended, x, y, eps=3.0, steps=80, restarts=2, generator=seeded(), progress=False)
    assert (x_adv - x).flatten(1).norm(dim=1).max() <= 3 + 1e-5
    assert min(through, accuracy(defended, x_adv, y)) <= min(0.15, transferred)


@pytest.mark.full
def test_a_trained_generator_defends_against_fgsm_and_falls_to_the_latent_attack(victim, digits):
    G = train_generator(digits.x_train, generator=seeded(), progress=False)
    defended = defense_gan(victim, G, generator=seeded())
    assert accuracy(defended, digits.x_test[:200], digits.y_test[:200]) >= 0.9
    x, y = digits.x_test[:48], digits.y_test[:48]
    x_adv = fgsm(victim, x, y, eps=0.1)
    assert accuracy(defended, x_adv, y) > accuracy(victim, x_adv, y) + 0.15
    x_adv = latent_attack(defended, x, y, eps=4.0, steps=300, restarts=5, generator=seeded(), progress=False)
    assert accuracy(defended, x_adv, y) <= 0.1


def test_nothing_is_changed_and_a_seed_repeats(victim, principal, digits):
    x, y = digits.x_test[:4], digits.y_test[:4]
    kept = [x.clone(), *(w.clone() for w in (*victim.parameters(), *principal.parameters()))]
    before, state = torch.get_rng_state(), victim.training
    defended = defense_gan(victim, principal, steps=10, restarts=2, generator=seeded())
    answers = [defended.generator.manual_seed(0) and defended(x) for _ in range(2)]
    assert torch.equal(*answers) and not torch.equal(answers[0], defended(x))
    attacks = [latent_attack(defended, x, y, eps=1, steps=5, generator=seeded(), progress=False) for _ in range(2)]
    assert torch.equal(*attacks)
    assert latent_attack(defended, x[:0], y[:0], eps=1, progress=False).shape == (0, 1, 28, 28)
    after = [x, *victim.parameters(), *principal.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(kept, after, strict=True))
    assert torch.equal(torch.get_rng_state(), before) and victim.training == state
    assert all(w.grad is None for w in (*victim.parameters(), *principal.parameters()))


SQUARE = linear_generator(torch.eye(4), torch.zeros(4), (1, 2, 2))
BAD = {
    "model": ({"model": 3}, ["model is 3"]),
    "no network": ({"image_generator": len}, ["image_generator", "nn.Linear"]),
    "no linear layer": ({"image_generator": nn.ReLU()}, ["image_generator", "nn.Linear"]),
    "steps": ({"steps": 0}, ["steps is 0"]),
    "restarts": ({"restarts": 1.5}, ["restarts is 1.5"]),
    "step size": ({"step_size": 0}, ["step_size is 0"]),
    "momentum": ({"momentum": -0.1}, ["momentum is -0.1"]),
    "generator": ({"generator": 7}, ["generator is 7"]),
}
BAD_ATTACK = {
    "defended": ({"defended": nn.Flatten()}, ["defended", "defense_gan"]),
    "eps": ({"eps": 3.0}, ["eps is 3"]),
    "pixels": ({"x": torch.full((2, 1, 2, 2), 9.0)}, ["x has values"]),
    "labels": ({"y": torch.zeros(3, dtype=torch.int64)}, ["y is", "(2,)"]),
    "steps": ({"steps": 0}, ["steps is 0"]),
    "restarts": ({"restarts": 0}, ["restarts is 0"]),
    "weight": ({"weight": 0}, ["weight is 0"]),
    "confidence": ({"confidence": -1}, ["confidence is -1"]),
    "step size": ({"step_size": 0}, ["step_size is 0"]),
    "class": ({"y": torch.tensor([0, 4])}, ["label 4"]),
    "progress": ({"progress": "no"}, ["progress is 'no'"]),
}


@pytest.mark.parametrize("case", BAD, ids=BAD)
def test_defense_gan_names_what_it_refuses(case, refuses):
    arguments, words = BAD[case]
    refuses(defense_gan, {"model": nn.Flatten(), "image_generator": SQUARE} | arguments, *words)


@pytest.mark.parametrize("case", BAD_ATTACK, ids=BAD_ATTACK)
def test_the_latent_attack_names_what_it_refuses(case, refuses):
    arguments, words = BAD_ATTACK[case]
    good = {
        "defended": defense_gan(nn.Flatten(), SQUARE),
        "x": torch.rand(2, 1, 2, 2),
        "y": torch.tensor([0, 3]),
        "eps": 0.5,
    }
    refuses(latent_attack, good | {"progress": False} | arguments, *words)


def test_images_of_another_size_and_a_view_of_a_view_are_refused(refuses):
    defended = defense_gan(nn.Flatten(), SQUARE, steps=2)
    refuses(defended, {"x": torch.rand(2, 1, 3, 3)}, "image_generator", "(20, 1, 2, 2)")
    refuses(gan_view, {"defended": gan_view(defended)}, "defended", "defense_gan")
    refuses(gan_view, {"defended": defended, "steps": 0}, "steps is 0")
