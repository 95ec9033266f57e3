"""Stochastic activation pruning, against the law of its draws, and attacks that know or ignore the randomness."""

import copy

import pytest
import scipy.stats
import torch
from torch import nn

from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.attacks.evasion.search import square
from spai_lab.attacks.evasion.transfer import transfer
from spai_lab.defenses.evasion.activation_pruning import activation_pruning, prune, pruning_view
from spai_lab.models import lenet, mlp
from spai_lab.query import Query
from spai_lab.threat import fooled
from spai_lab.training.weights import reference

FALSE_ALARM = 1e-6
H = torch.tensor([0.1, 3.0, 0.0, 1.0, -0.5, 2.0], dtype=torch.float64)
RUNS = 100_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(r, h=H, runs=RUNS):
    """Many prunings of the same activations."""
    return prune(h.expand(runs, -1), r, seeded())


def chance_of_a_draw(r, h=H):
    return 1 - (1 - h.abs() / h.abs().sum()) ** r


def limit(tests: int) -> float:
    """How large the largest of so many standard normal numbers may be."""
    return scipy.stats.norm.isf(FALSE_ALARM / 2 / tests)


# --- one layer --------------------------------------------------------------------------------------------------------


def biased(found, r) -> bool:
    """Whether the mean is not h: each entry is h / q with probability q, so its variance is h^2 (1 - q) / q."""
    q = chance_of_a_draw(r)[H != 0]
    error = (found.mean(0) - H)[H != 0] / (H[H != 0].abs() * ((1 - q) / q / len(found)).sqrt())
    return bool(error.abs().max() > limit(len(q)))


@pytest.mark.parametrize("r", [2, 4, 10])
def test_the_expectation_is_the_activation(r):
    assert not biased(draws(r), r)


def test_survivors_that_are_not_scaled_up_are_caught():
    assert biased(torch.where(draws(4) == 0, 0, H), 4)


@pytest.mark.parametrize("r", [1, 2, 4, 10])
def test_survivors_are_scaled_by_the_chance_to_be_drawn_and_zeros_stay(r):
    found = draws(r, runs=1000)
    expected = torch.where(found == 0, 0, H / chance_of_a_draw(r).clamp_min(1e-300))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert (found[:, H == 0] == 0).all()


def test_one_draw_keeps_one_unit_with_the_weight_of_all():
    found = draws(1, runs=1000)
    assert ((found != 0).sum(1) == 1).all()
    torch.testing.assert_close(found.abs().sum(1), H.abs().sum().expand(1000), rtol=1e-12, atol=0)


def paired_wrongly(kept, r) -> bool:
    """Whether units 1 and 5 survive together more or less often than r draws with replacement let them."""
    p = H.abs() / H.abs().sum()
    both = 1 - (1 - p[1]) ** r - (1 - p[5]) ** r + (1 - p[1] - p[5]) ** r
    together = int((kept[:, 1] & kept[:, 5]).sum())
    return scipy.stats.binomtest(together, len(kept), both.item()).pvalue < FALSE_ALARM


def test_units_compete_for_the_draws():
    assert not paired_wrongly(draws(3) != 0, 3)
    independent = torch.rand(RUNS, len(H), generator=seeded(), dtype=torch.float64) < chance_of_a_draw(3)
    assert paired_wrongly(independent, 3)


def test_many_draws_prune_nothing():
    torch.testing.assert_close(draws(100_000, runs=2), H.expand(2, -1), rtol=1e-12, atol=0)


def test_the_mean_gradient_is_that_of_the_mean():
    """The mean is h, whose gradient is 1: the gradient of each draw is its scale."""
    h = H.expand(RUNS, -1).clone().requires_grad_()
    found = prune(h, 4, seeded())
    found.sum().backward()
    assert torch.equal(found.detach(), (h.grad * h).detach())
    assert not biased(h.grad * H, 4)


def test_dead_and_lone_units_leave_no_nan():
    h = torch.tensor([[0.0, 0.0, 0.0], [0.0, 5.0, 0.0], [1e30, 1e-30, 0.0]], requires_grad=True)
    found = prune(h, 2, seeded())
    found.sum().backward()
    assert torch.equal(found, torch.tensor([[0.0, 0.0, 0.0], [0.0, 5.0, 0.0], [1e30, 0.0, 0.0]]))
    assert h.grad.isfinite().all()


# --- a network --------------------------------------------------------------------------------------------------------


class Nested(nn.Module):
    """The same ReLU at two places, and another one deeper inside."""

    def __init__(self):
        super().__init__()
        self.first = self.second = nn.ReLU()
        self.block = nn.Sequential(nn.Identity(), nn.Sequential(nn.ReLU(inplace=True)))

    def forward(self, x):
        return self.block(self.second(self.first(x.flatten(1)) + 1) + 1)


def test_every_relu_is_pruned():
    """One draw leaves one unit; each of three layers adds 1 to all units before the next one draws again."""
    defended = activation_pruning(Nested(), share=1e-9, generator=seeded())
    found = defended(torch.ones(5, 1, 2, 2))
    assert ((found != 0).sum(1) == 1).all()
    torch.testing.assert_close(found.sum(1), torch.full((5,), 4.0 + 4 + 4))


def test_the_number_of_draws_is_a_share_of_each_layer():
    """With equal activations the number kept tells r: on average 1 - (1 - 1/n)^r of n units."""
    model = nn.Sequential(nn.Flatten(), nn.ReLU())
    found = activation_pruning(model, share=0.5, generator=seeded())(torch.ones(2000, 1, 20, 20))
    kept, expected = (found != 0).double().mean(1), 1 - (1 - 1 / 400) ** 200
    assert abs(kept.mean() - expected) < limit(1) * kept.std() / 2000**0.5


def test_much_drawing_gives_the_network_back():
    model = mlp((1, 3, 3), 4, hidden=8, generator=seeded()).double()
    x = torch.rand(6, 1, 3, 3, dtype=torch.float64, generator=seeded())
    torch.testing.assert_close(activation_pruning(model, share=1e5)(x), model(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_given_model_stays_as_it_is(training):
    model = lenet(generator=seeded()).train(training)
    x = torch.rand(4, 1, 28, 28, generator=seeded())
    expected, modules, state = model(x), str(model), torch.get_rng_state()
    defended = activation_pruning(model)
    assert not torch.equal(defended(x), defended(x))
    assert torch.equal(model(x), expected) and str(model) == modules
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training is training for module in [*defended.modules(), *model.modules()])


def test_the_generator_repeats_the_draws_and_images_are_drawn_apart():
    model = mlp((1, 3, 3), 4, generator=seeded())
    x = torch.rand(1, 1, 3, 3, generator=seeded()).expand(6, -1, -1, -1)
    defended = activation_pruning(model, generator=seeded(3))
    first = defended(x)
    defended.generator.manual_seed(3)
    assert torch.equal(defended(x), first) and len(first.unique(dim=0)) == 6
    defended.generator.manual_seed(3)
    copied = copy.deepcopy(defended)
    assert torch.equal(copied(x), first)
    copied.generator.manual_seed(3)
    assert torch.equal(copied(x), first)
    assert not torch.equal(activation_pruning(model)(x), activation_pruning(model)(x))
    assert defended(x[:0]).shape == (0, 4)


def test_the_view_is_the_mean_of_the_log_probabilities_over_fresh_draws():
    defended = activation_pruning(mlp((1, 3, 3), 4, generator=seeded()), generator=seeded(1))
    x = torch.rand(8, 1, 3, 3, generator=seeded())
    seen = pruning_view(defended, samples=5)(x)
    defended.generator.manual_seed(1)
    torch.testing.assert_close(seen, torch.stack([defended(x).log_softmax(1) for _ in range(5)]).mean(0))


# --- on digits: judged by the expected accuracy over fresh draws ------------------------------------------------------


class OneDraw(nn.Module):
    """What an attacker climbs who takes the model for a fixed one: the same draws whenever it runs."""

    def __init__(self, defended):
        super().__init__()
        self.defended = copy.deepcopy(defended)

    def forward(self, x):
        self.defended.generator.manual_seed(0)
        return self.defended(x)


def left(defended, x, y, runs=10) -> float:
    """The expected accuracy, as the mean over fresh draws."""
    return 1 - sum(fooled(defended, x, y).double().mean().item() for _ in range(runs)) / runs


@pytest.fixture(scope="module")
def plain():
    return reference("lenet", "digits")


@pytest.fixture
def guarded(plain):
    return activation_pruning(plain, generator=seeded())


def test_clean_accuracy_is_kept(guarded, digits):
    assert left(guarded, digits.x_test, digits.y_test, runs=1) >= 0.97


def test_it_stops_who_ignores_it_and_falls_to_who_averages(guarded, plain, digits):
    x, y = digits.x_test[:48], digits.y_test[:48]
    eps, view = 0.1, pruning_view(guarded, samples=8)
    one_draw = pgd(OneDraw(guarded), x, y, eps=eps, steps=8, generator=seeded())
    adaptive = left(guarded, pgd(view, x, y, eps=eps, steps=8, generator=seeded()), y)
    others = square(Query(guarded), x, y, eps=eps, queries=30, generator=seeded()), transfer([plain], x, y, eps=eps)
    assert left(guarded, one_draw, y) - adaptive >= 0.05
    assert all(adaptive <= left(guarded, x_adv, y) for x_adv in others)
    assert left(guarded, pgd(pruning_view(guarded, samples=2), x, y, eps=0.3, steps=5, generator=seeded()), y) <= 0.1


@pytest.mark.full
@pytest.mark.parametrize("eps", [0.08, 0.12])
def test_averaging_beats_a_patient_square(eps, guarded, plain, digits):
    x, y = digits.x_test[:96], digits.y_test[:96]
    adaptive = pgd(pruning_view(guarded, samples=15), x, y, eps=eps, steps=15, generator=seeded())
    patient = square(Query(guarded), x, y, eps=eps, queries=500, generator=seeded())
    others = patient, transfer([plain], x, y, eps=eps)
    assert all(left(guarded, adaptive, y) <= left(guarded, x_adv, y) for x_adv in others)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"model": None}, ("model is None", "nn.ReLU")),
        ({"model": nn.Flatten()}, ("model is Flatten", "nn.ReLU")),
        ({"share": 0}, ("share is 0", "above 0")),
        ({"share": float("nan")}, ("share is nan",)),
        ({"generator": 3}, ("generator is 3",)),
    ],
    ids=["none", "flat", "zero", "nan", "generator"],
)
def test_bad_input_is_named(refuses, wrong, words):
    refuses(activation_pruning, {"model": nn.Sequential(nn.Flatten(), nn.ReLU())} | wrong, *words)


def test_a_view_needs_samples(refuses):
    refuses(pruning_view, {"defended": activation_pruning(nn.ReLU()), "samples": 0}, "samples is 0")
