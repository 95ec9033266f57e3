"""The gradient attacks against torchattacks, foolbox and ART, and against a linear model, whose worst case is known.

Where nothing is random the pixels agree to 1e-6. Where the start is random both attack the same images, at a radius at
which the peer succeeds on about half of them, and images that the peer alone fools are weighed against images that we
alone fool: were we as good, each kind would be equally likely, so their split follows a binomial law. The test errs
with probability `FALSE_ALARM`, and the same test must catch attacks that were broken on purpose.
"""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest
from torch import nn

from spai_lab.attacks.evasion import bim, fgsm, mim, pgd
from spai_lab.models import softmax_regression
from spai_lab.threat import fooled, input_gradient, norms

FALSE_ALARM = 1e-6
PIXEL = 1e-6
STEPS = 10
MISCHIEF = 0.25  # the share of images that the smallest fault to be caught costs


# --- the peers, each called the way we call ours ----------------------------------------------------------------------


def by_torchattacks(attack, model, x, y, *, eps, norm="linf", alpha=None, targeted=False, random_start=False):
    import torchattacks

    peer = {
        (fgsm, "linf"): lambda: torchattacks.FGSM(model, eps),
        (bim, "linf"): lambda: torchattacks.BIM(model, eps, alpha, STEPS),
        (pgd, "linf"): lambda: torchattacks.PGD(model, eps, alpha, STEPS, random_start),
        (pgd, "l2"): lambda: torchattacks.PGDL2(model, eps, alpha, STEPS, random_start, eps_for_division=0),
        (mim, "linf"): lambda: torchattacks.MIFGSM(model, eps, alpha, STEPS, decay=1.0),
    }[attack, norm]()
    if targeted:
        peer.set_mode_targeted_by_label(quiet=True)
    return peer(x, y)


def by_foolbox(attack, model, x, y, *, eps, norm="linf", alpha=None, targeted=False, random_start=False):
    import foolbox

    steps = {"abs_stepsize": alpha, "steps": STEPS, "random_start": random_start}
    peer = {
        (fgsm, "linf"): lambda: foolbox.attacks.LinfFastGradientAttack(),
        (fgsm, "l2"): lambda: foolbox.attacks.L2FastGradientAttack(),
        (bim, "linf"): lambda: foolbox.attacks.LinfBasicIterativeAttack(**steps),
        (bim, "l2"): lambda: foolbox.attacks.L2BasicIterativeAttack(**steps),
        (pgd, "linf"): lambda: foolbox.attacks.LinfPGD(**steps),
        (pgd, "l2"): lambda: foolbox.attacks.L2PGD(**steps),
    }[attack, norm]()
    criterion = foolbox.criteria.TargetedMisclassification(y) if targeted else foolbox.criteria.Misclassification(y)
    return peer.run(foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device), x, criterion, epsilon=eps)


def by_art(attack, model, x, y, *, eps, norm="linf", alpha=None, targeted=False, random_start=False):
    from art.attacks.evasion import (
        BasicIterativeMethod,
        FastGradientMethod,
        MomentumIterativeMethod,
        ProjectedGradientDescent,
    )
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model=copy.deepcopy(model),
        loss=nn.CrossEntropyLoss(reduction="sum"),
        input_shape=tuple(x.shape[1:]),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    common = {"eps": eps, "targeted": targeted, "batch_size": len(x)}
    order = {"linf": np.inf, "l2": 2}[norm]
    iterative = {"eps_step": alpha, "max_iter": STEPS, "verbose": False, **common}
    peer = {
        fgsm: lambda: FastGradientMethod(classifier, norm=order, **common),
        bim: lambda: BasicIterativeMethod(classifier, **iterative),
        pgd: lambda: ProjectedGradientDescent(classifier, norm=order, num_random_init=int(random_start), **iterative),
        mim: lambda: MomentumIterativeMethod(classifier, norm=order, decay=1.0, **iterative),
    }[attack]()
    return torch.from_numpy(peer.generate(x.numpy(), y=np.eye(10, dtype=np.float32)[y.numpy()]))


EXACT = [
    *[(fgsm, "linf", peer) for peer in (by_torchattacks, by_foolbox, by_art)],
    *[(fgsm, "l2", peer) for peer in (by_foolbox, by_art)],
    *[(bim, "linf", peer) for peer in (by_torchattacks, by_foolbox, by_art)],
    *[(bim, "l2", by_foolbox)],
    *[(pgd, "linf", peer) for peer in (by_torchattacks, by_foolbox, by_art)],
    *[(pgd, "l2", peer) for peer in (by_torchattacks, by_foolbox)],
    *[(mim, "linf", peer) for peer in (by_torchattacks, by_art)],
    *[(mim, "l2", by_art)],
]
TARGETED = [row for row in EXACT if row[::2] != (fgsm, by_foolbox)]  # foolbox's FGSM takes no target


def label(part) -> str:
    return part if isinstance(part, str) else part.__name__


def settings(attack, eps, norm, targeted=False):
    """The arguments of our attack, and of the peer, for one run without randomness."""
    step = {} if attack is fgsm else {"alpha": 2.5 * eps / STEPS}
    ours = {"steps": STEPS, "step_size": step["alpha"]} if step else {}
    start = {"random_start": False} if attack is pgd else {}
    shared = {"eps": eps, "norm": norm, "targeted": targeted}
    return {**shared, **ours, **start}, {**shared, **step}


@pytest.fixture
def images(victim, digits):
    """64 test images that are off the plateau, where peers that divide by a guarded norm stop short.

    The number is a power of two, so that a peer's mean over the batch rescales its gradients without rounding. The
    pixels keep away from black and white: ART clips before it projects, the others after.
    """
    x, y = 0.25 + digits.x_test[:256] / 2, digits.y_test[:256]
    steep = norms(input_gradient(victim, x, y), "l2") > 1e-4
    assert steep.sum() >= 64
    return x[steep][:64], y[steep][:64]


def smooth(model: nn.Module) -> nn.Module:
    """The same weights without kinks, at which a rounding error in an L2 step would turn the next gradient."""
    swaps = {nn.ReLU: nn.Softplus(), nn.MaxPool2d: nn.AvgPool2d(2)}
    return nn.Sequential(*[swaps.get(type(layer), layer) for layer in model]).eval()


@pytest.mark.oracle
@pytest.mark.parametrize(("attack", "norm", "peer"), EXACT, ids=label)
def test_pixels_equal_the_peers(attack, norm, peer, victim, images):
    x, y = images
    model = smooth(victim) if norm == "l2" else victim
    ours, theirs = settings(attack, {"linf": 0.1, "l2": 1.0}[norm], norm)
    x_adv = attack(model, x, y, **ours)
    assert (x_adv - peer(attack, model, x, y, **theirs)).abs().max() <= PIXEL
    assert (x_adv - x).abs().max() > 0.05


@pytest.mark.oracle
@pytest.mark.parametrize(("attack", "norm", "peer"), TARGETED, ids=label)
def test_targeted_pixels_equal_the_peers(attack, norm, peer, victim, images):
    x, target = images[0], (images[1] + 1) % 10
    model = smooth(victim) if norm == "l2" else victim
    ours, theirs = settings(attack, {"linf": 0.1, "l2": 1.0}[norm], norm, targeted=True)
    assert (attack(model, x, target, **ours) - peer(attack, model, x, target, **theirs)).abs().max() <= PIXEL


@pytest.mark.oracle
@pytest.mark.parametrize("peer", [by_torchattacks, by_foolbox], ids=label)
@pytest.mark.parametrize("attack", [bim, pgd])
def test_pixels_equal_the_peers_where_clipping_bites(attack, peer, victim, digits):
    x, y = digits.x_test[:64], digits.y_test[:64]
    ours, theirs = settings(attack, 0.3, "linf")
    x_adv = attack(victim, x, y, **ours)
    assert (x_adv - peer(attack, victim, x, y, **theirs)).abs().max() <= PIXEL
    assert (x_adv == 0).any() and (x_adv == 1).any()


# --- with a random start ----------------------------------------------------------------------------------------------


def sample_size() -> int:
    """The fewest images at which a fault that costs `MISCHIEF` of them is missed with probability `FALSE_ALARM`."""
    needed = math.ceil(-math.log2(FALSE_ALARM))  # so many one-sided differences are significant
    return next(n for n in range(needed, 10_000) if binom.cdf(needed - 1, n, MISCHIEF) <= FALSE_ALARM)


def deficit(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The probability of so many images that the peer alone fools, if both attacks were equally good."""
    they_alone, we_alone = int((theirs & ~ours).sum()), int((ours & ~theirs).sum())
    if they_alone + we_alone == 0:
        return 1.0
    return binomtest(they_alone, they_alone + we_alone, alternative="greater").pvalue


def even_odds(success, largest: float) -> float:
    """A radius at which `success(eps)` is near 50 %, by bisection."""
    low, high = 0.0, largest
    for _ in range(20):
        eps = (low + high) / 2
        share = success(eps)
        if 0.4 <= share <= 0.6:
            return eps
        low, high = (eps, high) if share < 0.5 else (low, eps)
    raise AssertionError(f"no radius up to {largest} at which the peer succeeds on about half of the images")


def half_the_step(model, x, y, **arguments):
    return pgd(model, x, y, **{**arguments, "step_size": arguments["step_size"] / 2})


def a_fifth_of_the_signs_wrong(model, x, y, **arguments):
    wrong = torch.where(torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(0)) < 0.2, -1, 1)
    return pgd(model, x, y, **arguments, gradient=lambda *inputs: wrong * input_gradient(*inputs))


FAULTS = [half_the_step, a_fifth_of_the_signs_wrong]


@pytest.mark.oracle
@pytest.mark.parametrize("victim", ["lenet", pytest.param("lenet-robust", marks=pytest.mark.full)], indirect=True)
@pytest.mark.parametrize(
    ("norm", "peer"), [("linf", by_torchattacks), ("linf", by_foolbox), ("linf", by_art), ("l2", by_foolbox)], ids=label
)
def test_pgd_succeeds_where_the_peer_does(norm, peer, victim, digits):
    n = sample_size()
    x, y = digits.x_test[:n], digits.y_test[:n]
    assert len(x) == n

    def theirs(eps, x, y):
        # steps so short that the ball's edge is just reached: a fault in them shows
        return fooled(victim, peer(pgd, victim, x, y, eps=eps, norm=norm, alpha=eps / STEPS, random_start=True), y)

    eps = even_odds(lambda eps: theirs(eps, x[:64], y[:64]).double().mean(), {"linf": 0.5, "l2": 8.0}[norm])
    expected = theirs(eps, x, y)
    assert 0.3 <= expected.double().mean() <= 0.7
    arguments = {"eps": eps, "norm": norm, "steps": STEPS, "step_size": eps / STEPS}
    assert deficit(fooled(victim, pgd(victim, x, y, **arguments), y), expected) > FALSE_ALARM
    for fault in FAULTS:
        assert deficit(fooled(victim, fault(victim, x, y, **arguments), y), expected) <= FALSE_ALARM, fault.__name__


# --- a linear model ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def linear():
    """Two classes, gray images, and for each label the direction in pixels that favors the other class."""
    generator = torch.Generator().manual_seed(0)
    model = softmax_regression((1, 5, 5), 2, generator=generator).double()
    x = 0.4 + 0.2 * torch.rand(40, 1, 5, 5, dtype=torch.float64, generator=generator)
    y = torch.arange(40) % 2
    weight = model[-1].weight.detach().view(2, 1, 5, 5)
    return model, x, y, weight[1 - y] - weight[y]


def test_one_step_is_the_worst_case_of_a_linear_model(linear, perform, climber):
    model, x, y, w = linear
    best = x + 0.1 * w.sign()
    found = perform(climber, model, x, y, eps=0.1, random_start=False)
    assert torch.allclose(found, best, rtol=0, atol=1e-9)
    best = x + 0.1 * w / w.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    found = perform(climber, model, x, y, eps=0.1, norm="l2", random_start=False)
    assert torch.allclose(found, best, rtol=0, atol=1e-9)


def test_a_target_is_approached_along_the_same_line(linear, perform, climber):
    model, x, y, w = linear
    toward = perform(climber, model, x, 1 - y, eps=0.1, targeted=True, random_start=False)
    assert torch.allclose(toward, x + 0.1 * w.sign(), rtol=0, atol=1e-9)


def test_clipping_keeps_the_worst_case_in_linf(linear, perform, climber):
    model, x, y, w = linear
    found = perform(climber, model, x, y, eps=0.9)
    assert torch.allclose(found, (x + 0.9 * w.sign()).clamp(0, 1), rtol=0, atol=1e-9)


def test_pgd_reaches_the_worst_case_from_a_random_start(linear):
    model, x, y, w = linear
    x_adv = pgd(model, x, y, eps=0.1, steps=20, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(x_adv, x + 0.1 * w.sign(), rtol=0, atol=1e-9)
    # in L2 each step of the length of the radius halves what is left of the start, across the best direction
    x_adv = pgd(model, x, y, eps=0.3, norm="l2", steps=40, step_size=0.3, generator=torch.Generator().manual_seed(1))
    best = x + 0.3 * w / w.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert torch.allclose(x_adv, best, rtol=0, atol=1e-9)


def test_pgd_ends_where_its_steps_rest_in_l2_where_pixels_clip(linear, resting):
    """Clipping after the projection costs about 1/1000 of the worst case's gain at this length of step."""
    model, x, y, w = linear
    x_adv = pgd(model, x, y, eps=1.5, norm="l2", steps=1000, step_size=0.02, generator=torch.Generator().manual_seed(1))
    for start, found, direction in zip(x, x_adv, w, strict=True):
        points = (found, resting(start, direction, 1.5, 0.02), resting(start, direction, 1.5, 0))
        gain, at_rest, best = ((direction * (point - start)).sum().item() for point in points)
        assert gain == pytest.approx(at_rest, rel=1e-4) and gain <= best * (1 + 1e-9)
