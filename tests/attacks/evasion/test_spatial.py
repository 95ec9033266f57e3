"""Spatial attacks against SciPy's interpolation, foolbox's grid and SciPy's L-BFGS, and against closed forms."""

import copy
import itertools
from importlib import import_module

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.optimize import minimize
from torch import nn

from spai_lab.attacks.evasion.spatial import flow_field, flow_variation, random_moves, spatial, transform, warp
from spai_lab.models import mlp
from spai_lab.query import Query
from spai_lab.threat import fooled, margin

module = import_module("spai_lab.attacks.evasion.spatial")  # the package has a function of this name
SHAPE = (2, 7, 10)
ROBUST_LATER = pytest.mark.parametrize(
    "victim", ["lenet", pytest.param("lenet-robust", marks=pytest.mark.full)], indirect=True
)
LIMITS = {"rotation": 15.0, "shift": 1.0, "grid": (7, 3)}  # at which foolbox fools about half of the digits


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.rand(4, *SHAPE, dtype=torch.float64, generator=seeded())


@pytest.fixture(scope="module")
def small():
    """A network of random weights, images of which it reads each as their label, and a class for each to aim at."""
    model = mlp((1, 6, 6), 4, hidden=16, generator=seeded(3)).double().eval()
    with torch.no_grad():
        model[-1].weight.mul_(10)
    x = torch.rand(12, 1, 6, 6, dtype=torch.float64, generator=seeded(1))
    return model, x, model(x).argmax(1)


def by_scipy(image, angle, right, down):
    """Rotation, then shift, of one picture (H, W), from the definition: where each pixel comes from."""
    turn = np.deg2rad(angle)
    center = (np.array(image.shape) - 1) / 2
    back = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])  # rows (down, right)
    offset = center - back @ (center + np.array([down, right]))
    return ndimage.affine_transform(image, back, offset=offset, order=1, mode="grid-constant")


# --- the transformations ----------------------------------------------------------------------------------------------


def test_transform_equals_scipy(images):
    angles, shifts = random_moves(images, rotation=180, shift=4, generator=seeded())
    moved = transform(images, angles, shifts)
    for i, channel in itertools.product(range(4), range(2)):
        expected = by_scipy(images[i, channel].numpy(), angles[i].item(), *shifts[i].tolist())
        assert np.abs(expected - moved[i, channel].numpy()).max() <= 1e-12


def test_angles_turn_as_scipy_rotate_does(images):
    angles = torch.tensor([30.0, -30, 90, 7], dtype=torch.float64)
    moved = transform(images, angles, torch.zeros(4, 2, dtype=torch.float64))
    for image, angle, found in zip(images, angles, moved, strict=True):
        expected = ndimage.rotate(
            image.numpy(), angle.item(), axes=(2, 1), reshape=False, order=1, mode="grid-constant"
        )
        assert np.abs(expected - found.numpy()).max() <= 1e-12


def test_a_quarter_turn_is_exact():
    x = torch.rand(1, 1, 5, 5, dtype=torch.float64, generator=seeded())
    turned = transform(x, torch.tensor([90.0]).double(), torch.zeros(1, 2).double())
    torch.testing.assert_close(turned, x.rot90(1, (2, 3)), rtol=0, atol=1e-12)


def test_warp_equals_scipy_at_random_places(images):
    flow = 3 * torch.randn(4, 2, *SHAPE[1:], dtype=torch.float64, generator=seeded())
    rows, columns = np.indices(SHAPE[1:])
    for image, f, found in zip(images, flow.numpy(), warp(images, flow), strict=True):
        for channel in range(2):
            places = [rows + f[1], columns + f[0]]
            expected = ndimage.map_coordinates(image[channel], places, order=1, mode="grid-constant")
            assert np.abs(expected - found[channel].numpy()).max() <= 1e-12


def test_no_flow_is_the_image_and_a_constant_flow_is_a_shift(images):
    flow = torch.zeros(4, 2, *SHAPE[1:], dtype=torch.float64)
    torch.testing.assert_close(warp(images, flow), images, rtol=0, atol=1e-12)
    flow[:, 0], flow[:, 1] = -2, 1
    shifts = torch.tensor([[2.0, -1.0]]).double().expand(4, 2)
    torch.testing.assert_close(warp(images, flow), transform(images, torch.zeros(4).double(), shifts))
    assert torch.equal(warp(images, flow)[..., :2], torch.zeros(4, 2, 7, 2).double())
    torch.testing.assert_close(warp(images, flow)[:, :, :-1, 2:], images[:, :, 1:, :-2])


def test_gradients_of_the_transformations_are_right(images):
    x = images[:2, :1, :3, :4].clone().requires_grad_()
    flow = (0.3 * torch.rand(2, 2, 3, 4, dtype=torch.float64, generator=seeded()) + 0.2).requires_grad_()
    assert torch.autograd.gradcheck(warp, (x, flow))
    angles, shifts = (moves.requires_grad_() for moves in random_moves(x, generator=seeded(1)))
    assert torch.autograd.gradcheck(transform, (x, angles, shifts))
    assert torch.autograd.gradcheck(lambda f: flow_variation(f, rounding=0.1), (flow,))


def test_rounding_neither_leaves_the_range_nor_stops_a_gradient():
    x = torch.ones(1, 1, 28, 28, requires_grad=True)
    angles, shifts = torch.tensor([17.3]), torch.tensor([[0.3, 0.7]])
    white = transform(x, angles, shifts)
    assert white.max() <= 1
    white[0, 0, 10:18, 10:18].sum().backward()
    assert x.grad.sum().item() == pytest.approx(64, rel=1e-5)


def test_flow_variation_by_hand():
    flow = torch.zeros(1, 2, 3, 3)
    flow[0, 0] += 5
    assert flow_variation(flow).item() == 0
    flow[0, :, 1, 1] += torch.tensor([3.0, 4.0])  # differs by 5 from each of four neighbors, each pair twice
    assert flow_variation(flow).item() == pytest.approx(2 * 4 * 5)
    assert flow_variation(flow, rounding=12.0).item() == pytest.approx(2 * 4 * 1)


def test_random_moves_fill_their_range():
    angles, shifts = random_moves(torch.zeros(10_000, 1, 1, 1), rotation=40, shift=2, generator=seeded())
    assert -40 <= angles.min() < -39.9 and 39.9 < angles.max() <= 40
    assert -2 <= shifts.min() < -1.99 and 1.99 < shifts.max() <= 2
    assert np.abs(np.corrcoef(torch.cat([angles[:, None], shifts], 1).T.numpy()) - np.eye(3)).max() < 0.05


# --- the grid ---------------------------------------------------------------------------------------------------------


def brute_force(model, x, y, *, rotation, shift, grid):
    """The smallest margin over the grid, one image and one transformation at a time."""
    angles, shifts = (np.linspace(-limit, limit, n) for limit, n in zip((rotation, shift), grid, strict=True))
    worst = []
    for image, label in zip(x, y, strict=True):
        moved = [by_scipy(image[0].numpy(), *move) for move in itertools.product(angles, shifts, shifts)]
        logits = model(torch.from_numpy(np.stack(moved))[:, None])
        worst.append(margin(logits, label.expand(len(moved))).min())
    return torch.stack(worst)


@pytest.mark.parametrize("reveals", ["logits", "scores"])
def test_the_grid_finds_the_worst(small, reveals):
    model, x, y = small
    limits = {"rotation": 25, "shift": 1.5, "grid": (5, 3)}
    query = Query(model, reveals)
    x_adv = spatial(query, x, y, **limits)
    torch.testing.assert_close(margin(model(x_adv), y), brute_force(model, x, y, **limits))
    assert (query.counts == 1 + 5 * 3 * 3).all()


@pytest.mark.parametrize("reveals", ["labels", "top-2"])
def test_labels_stop_at_the_first_success(small, reveals):
    model, x, y = small
    limits = {"rotation": 25, "shift": 1.5, "grid": (5, 3)}
    query = Query(model, reveals)
    x_adv = spatial(query, x, y, **limits)
    expected = brute_force(model, x, y, **limits) < 0
    assert 0 < expected.sum() < len(x)
    assert torch.equal(fooled(model, x_adv, y), expected)
    assert torch.equal(x_adv[~expected], x[~expected])
    assert (query.counts[~expected] == 46).all() and (query.counts[expected] <= 46).all()
    assert query.counts[expected].sum() < 46 * expected.sum()


def test_targets_are_sought_and_what_is_fooled_already_stays(small):
    model, x, y = small
    target = (y + 1) % 4
    x_adv = spatial(Query(model, "logits"), x, target, rotation=90, shift=2, grid=(9, 3), targeted=True)
    assert (margin(model(x_adv), target) >= margin(model(x), target)).all()
    assert fooled(model, x_adv, target, targeted=True).any()
    for labels, targeted in ((target, False), (y, True)):
        query = Query(model, "logits")
        assert torch.equal(spatial(query, x, labels, targeted=targeted), x)
        assert (query.counts == 1).all()


def test_random_tries_are_each_image_its_own_and_repeat_with_the_seed(small):
    model, x, y = small
    query = Query(model, "logits")
    first = spatial(query, x, y, tries=6, generator=seeded(5))
    assert (query.counts == 7).all()
    assert torch.equal(first, spatial(Query(model), x, y, tries=6, generator=seeded(5)))
    assert not torch.equal(first, spatial(Query(model), x, y, tries=6, generator=seeded(6)))
    twins = spatial(Query(model), x[:1].expand(8, -1, -1, -1), y[:1].expand(8), tries=1, generator=seeded())
    assert len(twins.unique(dim=0)) > 1
    lead = [margin(model(spatial(Query(model), x, y, tries=k, generator=seeded(5))), y) for k in (1, 6, 40)]
    assert (lead[0] >= lead[1]).all() and (lead[1] >= lead[2]).all() and (lead[2] < lead[0]).any()


def test_the_cap_ends_the_search_with_the_best_so_far(small):
    model, x, y = small
    limits = {"rotation": 25, "shift": 1.5, "grid": (5, 3)}
    query = Query(model, "logits", cap=20)
    x_adv = spatial(query, x, y, **limits)
    assert (query.counts == 20).all() and query.exhausted.all()
    assert (margin(model(x_adv), y) <= margin(model(x), y)).all() and not torch.equal(x_adv, x)
    uncapped = Query(model, "logits", cap=46)
    spatial(uncapped, x, y, **limits)
    assert not uncapped.exhausted.any()


@pytest.mark.oracle
def test_transform_equals_foolbox(digits):
    """Foolbox reads from R p + t, we from R (p - s), and its pixel is 27/28 of ours."""
    import eagerpy
    from foolbox.attacks.spatial_attack_transformations import rotate_and_shift

    x, degrees, (right, down) = digits.x_test[:8], 20.0, (2.0, -1.0)
    theirs = rotate_and_shift(eagerpy.astensor(x), (right, down), degrees).raw
    turn = np.deg2rad(degrees)
    back = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    shifts = -27 / 28 * torch.from_numpy(back @ [right, down]).float().expand(8, 2)
    assert (transform(x, torch.full((8,), degrees), shifts) - theirs).abs().max() <= 2e-5


@pytest.mark.oracle
@pytest.mark.parametrize(
    "limits", [{"rotation": 15.0, "shift": 0.0, "grid": (9, 1)}, {"rotation": 0.0, "shift": 2.0, "grid": (1, 5)}]
)
def test_rotations_alone_and_shifts_alone_fool_the_images_that_foolbox_fools(victim, digits, limits):
    from benchmarks.contests.spatial import by_foolbox

    x, y = digits.x_test[:128], digits.y_test[:128]
    theirs = fooled(victim, by_foolbox(victim, x, y, **limits)(), y)
    assert 0.05 < theirs.float().mean() < 0.95
    assert torch.equal(fooled(victim, spatial(Query(victim, "labels"), x, y, **limits), y), theirs)
    assert torch.equal(fooled(victim, spatial(Query(victim, "logits"), x, y, **limits), y), theirs)


@pytest.mark.oracle
@ROBUST_LATER
def test_the_grid_fools_as_many_images_as_foolbox(victim, digits):
    """Foolbox turns the shifts with the image: two grids of the same size and limits whose corners differ."""
    from benchmarks.contests.spatial import by_foolbox

    deficits = []
    for seed in range(3):
        pick = torch.randperm(len(digits.x_test), generator=seeded(seed))[:64]
        x, y = digits.x_test[pick], digits.y_test[pick]
        theirs = fooled(victim, by_foolbox(victim, x, y)(), y).double().mean()
        assert 0.3 <= theirs <= 0.7
        deficits.append(theirs - fooled(victim, spatial(Query(victim), x, y, **LIMITS), y).double().mean())
    assert sum(deficits) / 3 <= 0.02


# --- the flow ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def flows(monkeypatch):
    """Every flow that an attack tries, with the images it gives."""
    tried = []

    def noted(x, flow):
        bent = warp(x, flow)
        tried.append((flow.detach().clone(), bent.detach().clone()))
        return bent

    monkeypatch.setattr(module, "warp", noted)
    return tried


def test_flow_field_keeps_the_smoothest_of_the_flows_that_fooled(small, flows):
    model, x, y = small
    x_adv = flow_field(model, x, y, steps=60)
    assert fooled(model, x_adv, y).float().mean() > 0.5
    sizes = torch.stack([flow_variation(f).where(fooled(model, bent, y), torch.inf) for f, bent in flows])
    smallest, step = sizes.min(0)
    best = torch.stack([flows[k][1][i] for i, k in enumerate(step.tolist())])
    assert torch.equal(x_adv, best.where(smallest.isfinite().view(-1, 1, 1, 1), x))


def test_flow_field_reaches_targets_and_confidence(small):
    model, x, y = small
    target = (y + 1) % 4
    bent = flow_field(model, x, target, targeted=True, tau=0.01)
    hit = fooled(model, bent, target, targeted=True)
    assert hit.float().mean() > 0.3 and torch.equal(bent[~hit], x[~hit])
    for kappa in (0.5, 2.0):
        lead = -margin(model(flow_field(model, x, y, kappa=kappa)), y)
        assert ((lead >= kappa) | (lead < 0)).all() and (lead >= kappa).any()


def test_without_drift_the_flow_has_no_mean(small, flows):
    model, x, y = small
    flow_field(model, x, y, steps=5, drift=False)
    assert max(f.mean((2, 3)).abs().max() for f, _ in flows) <= 1e-12
    flows.clear()
    flow_field(model, x, y, steps=5)
    assert max(f.mean((2, 3)).abs().max() for f, _ in flows) > 0.01


def test_a_shift_is_found_where_a_shift_is_enough(flows):
    """The model compares the two halves of the picture: to move the hill costs no unevenness at all."""
    half = torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0])

    def model(x):
        return 4 * torch.stack([(x[:, 0, 3] * half).sum(1), (x[:, 0, 3] * (1 - half)).sum(1)], dim=1)

    x = torch.zeros(1, 1, 8, 8)
    x += (-(torch.arange(8.0) - 2.5).square() / 4).exp()
    x_adv = flow_field(model, x, torch.tensor([0]), tau=0.05)
    assert fooled(model, x_adv, torch.tensor([0])).all()
    assert flow_variation(flows[-1][0]).item() < 0.1 and flows[-1][0][:, 0].mean() < -0.9


def test_a_flow_does_not_depend_on_the_batch(small):
    model, x, y = small
    together = flow_field(model, x, y, steps=10)
    alone = torch.cat([flow_field(model, x[i : i + 1], y[i : i + 1], steps=10) for i in range(len(x))])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)


def by_lbfgs(model, image, label, tau, evaluations):
    """Equation 2 for one image by SciPy's L-BFGS, from no flow: the smallest value on the way."""
    values = []

    def loss(flow):
        f = torch.from_numpy(flow).view(1, 2, *image.shape[1:]).requires_grad_()
        ell = margin(model(warp(image[None], f)), label[None])[0].clamp_min(0)
        value = ell + tau * flow_variation(f, rounding=1e-4)[0]
        value.backward()
        values.append((ell + tau * flow_variation(f.detach())[0]).item())
        return value.item(), f.grad.flatten().numpy()

    start = np.zeros(2 * image[0].numel())
    minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxfun": evaluations, "maxiter": evaluations})
    return min(values)


@pytest.mark.oracle
@ROBUST_LATER
def test_flow_field_comes_as_low_as_lbfgs(victim, digits, flows):
    """At equal numbers of gradients: the median of equation 2, at most 3 % above that of SciPy."""
    model, steps, tau = copy.deepcopy(victim).double(), 100, 0.05
    x, y = digits.x_test[:6].double(), digits.y_test[:6]
    x, y = x[~fooled(model, x, y)], y[~fooled(model, x, y)]
    flow_field(model, x, y, steps=steps, tau=tau)
    with torch.no_grad():
        ours = torch.stack([margin(model(bent), y).clamp_min(0) + tau * flow_variation(f) for f, bent in flows]).amin(0)
    theirs = torch.tensor([by_lbfgs(model, image, label, tau, steps) for image, label in zip(x, y, strict=True)])
    assert ours.median() <= 1.03 * theirs.median()


@pytest.mark.oracle
@pytest.mark.full
def test_flow_field_fools_both_victims(victim, digits):
    x, y = digits.x_test[:16], digits.y_test[:16]
    success = fooled(victim, flow_field(victim, x, y), y).double().mean()
    sharper = fooled(victim, flow_field(victim, x, y, drift=False, tau=0.5), y).double().mean()
    assert success >= 0.7 and sharper < success


# --- what is asked of the arguments, and what stays as it was ---------------------------------------------------------

X, Y = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1])
FLAT = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
NUMBER = "a finite number"
WRONG = [
    *[(spatial, {"rotation": value}, f"rotation is {value}", "from 0 to 180") for value in (-1, 181, float("nan"))],
    *[(spatial, {"shift": value}, f"shift is {value}", NUMBER) for value in (-1, float("inf"))],
    *[(spatial, {"grid": value}, "grid is", "two whole numbers") for value in (5, (3, 3, 3), None)],
    *[(spatial, {"grid": value}, "grid[", "whole number of at least 1") for value in ((0, 3), (3, 2.5))],
    *[(spatial, {"tries": value}, f"tries is {value}", "at least 1") for value in (0, 1.5, True)],
    *[(flow_field, {name: -1}, f"{name} is -1", NUMBER) for name in ("tau", "kappa")],
    *[(flow_field, {name: 0}, f"{name} is 0") for name in ("steps", "step_size")],
    (flow_field, {"drift": 1}, "drift is 1", "True or False"),
    *[
        (attack, {"x": torch.full((2, 16), 0.5)}, "x is a float32 tensor of shape (2, 16)", "(N, C, H, W)")
        for attack in (spatial, flow_field)
    ],
    *[(attack, {"targeted": 1}, "targeted is 1") for attack in (spatial, flow_field)],
    *[(attack, {"generator": 0}, "generator is 0") for attack in (spatial, flow_field)],
    *[(attack, {"x": 255 * X}, "x has values", "[0, 1]") for attack in (spatial, flow_field)],
]


@pytest.mark.parametrize(("attack", "change", "words"), [(row[0], row[1], row[2:]) for row in WRONG])
def test_bad_input_is_refused(refuses, attack, change, words):
    first = {"query": Query(FLAT, "logits")} if attack is spatial else {"model": FLAT}
    refuses(attack, {**first, "x": X, "y": Y, **change}, *words)


def test_transformations_refuse_what_does_not_fit(refuses):
    angles, shifts = torch.zeros(2), torch.zeros(2, 2)
    refuses(transform, {"x": X, "angles": 30.0, "shifts": shifts}, "angles is 30.0", "shape (2,)")
    refuses(transform, {"x": X, "angles": angles, "shifts": shifts[:1]}, "shifts is", "shape (2, 2)")
    refuses(transform, {"x": X[0], "angles": angles, "shifts": shifts}, "x is", "(N, C, H, W)")
    refuses(warp, {"x": X, "flow": torch.zeros(2, 2, 4, 5)}, "flow is", "shape (2, 2, 4, 4)")
    refuses(warp, {"x": X, "flow": torch.zeros(2, 2, 4, 4).double()}, "flow is a float64", "a float32")
    refuses(random_moves, {"x": X, "rotation": -1}, "rotation is -1")


def attacks(model):
    yield lambda x, y, **more: spatial(Query(model, "logits"), x, y, grid=(3, 3), **more)
    yield lambda x, y, **more: spatial(Query(model, "labels"), x, y, tries=3, **more)
    yield lambda x, y, **more: flow_field(model, x, y, steps=3, **more)


@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 1, 5), (3, 4, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_shape_and_layout_and_nothing_is_changed(shape, dtype):
    model = mlp(shape, 3, hidden=8, generator=seeded()).to(dtype).train()
    x = torch.rand(5, *shape, dtype=dtype, generator=seeded()).requires_grad_()
    y = model(x).argmax(1)
    before, state = x.detach().clone(), torch.get_rng_state()
    for attack in attacks(model):
        x_adv = attack(x, y, generator=seeded())
        assert (x_adv.shape, x_adv.dtype, x_adv.requires_grad) == (x.shape, dtype, False)
        assert ((x_adv >= 0) & (x_adv <= 1)).all() and torch.equal(x, before)
        with torch.no_grad():
            strided = x.repeat_interleave(2, dim=3)[..., ::2]
            torch.testing.assert_close(attack(strided, y, generator=seeded()), x_adv)
    assert x.grad is None and all(p.grad is None for p in model.parameters()) and model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_an_empty_batch_asks_nothing():
    class Stubborn(nn.Module):
        def forward(self, x):
            raise AssertionError("called")

    x, y = torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.int64)
    for attack in attacks(Stubborn()):
        assert attack(x, y).shape == x.shape
