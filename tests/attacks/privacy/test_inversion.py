"""MI-Face against closed forms, ART and its stopping rule; its victims; faces, in the full run."""

import numpy as np
import pytest
import torch
from torch import nn

from spai_lab.attacks.privacy.inversion import (
    identification_rate,
    measured,
    model_inversion,
    nl_means,
    process_dae,
    sharpen,
)
from spai_lab.checks import SuspiciousResult
from spai_lab.data import available, load
from spai_lab.inversion_victims import StackedDAE, halved, pretrain, train_face_victim, train_judge
from spai_lab.query import Query
from spai_lab.training import accuracy, reference

SHAPE = (1, 2, 3)
QUIET = {"progress": False}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(classes: int = 3, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, classes)).to(dtype)
    for parameter in model.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=seeded(), dtype=dtype)
    return model


def middle(count: int = 1) -> torch.Tensor:
    """Starts so far from 0 and 1 that nothing is clipped."""
    return torch.full((count, *SHAPE), 0.5, dtype=torch.float64)


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [0, 1])
def test_with_two_classes_a_step_goes_along_the_difference_of_their_weights(target):
    model, x = linear(2), middle()
    W = model[1].weight.detach()
    p = model(x).softmax(1)[0, target].item()
    inverted = model_inversion(
        model, torch.tensor([target]), shape=SHAPE, start=x, steps=1, step_size=0.1, every=1, **QUIET
    )
    expected = x + 0.1 * p * (1 - p) * (W[target] - W[1 - target]).view(SHAPE)
    assert torch.allclose(inverted.path[1], expected, atol=1e-12) and inverted.iterations == (0, 1)


def test_with_the_logarithm_a_step_goes_from_the_mean_weights_to_the_targets(target=1):
    model, x = linear(3), middle()
    W, p = model[1].weight.detach(), model(x).softmax(1).detach()
    inverted = model_inversion(
        *(model, torch.tensor([target])), shape=SHAPE, start=x, steps=1, step_size=0.1, logarithm=True, every=1, **QUIET
    )
    expected = x + 0.1 * (W[target] - p[0] @ W).view(SHAPE)
    assert torch.allclose(inverted.path[1], expected, atol=1e-12)


def test_the_start_is_black_and_each_target_is_drawn_by_itself():
    model, targets = linear(3), torch.tensor([2, 0, 1])
    settings = {"shape": SHAPE, "steps": 20, "step_size": 0.5, "every": 1, **QUIET}
    together = model_inversion(model, targets, **settings)
    assert not together.path[0].any() and together.path.shape == (len(together.iterations), 3, *SHAPE)
    for n, target in enumerate(targets):
        alone = model_inversion(model, target.view(1), **settings)
        assert torch.allclose(alone.x[0], together.x[n], atol=1e-12) and alone.taken[0] == together.taken[n]


# --- algorithm 1 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step_size", "threshold"), [(0.05, 0.6), (60.0, 1.0), (0.3, 1.0)])
def test_it_stops_when_the_paper_says_and_answers_the_least_cost(step_size, threshold):
    model, targets, patience = linear(3, scale=2.0), torch.arange(3), 4
    settings = {"steps": 60, "patience": patience, "threshold": threshold, "step_size": step_size}
    inverted = model_inversion(model, targets, shape=SHAPE, every=1, **settings, **QUIET)
    assert inverted.iterations == tuple(range(inverted.taken.max() + 1))
    for n, target in enumerate(targets):
        with torch.no_grad():
            costs = [1 - f for f in model(inverted.path[:, n]).softmax(1)[:, target].tolist()]
        last = inverted.taken[n].item()

        def over(i, costs=costs):
            worse = i >= patience and costs[i] >= max(costs[i - patience : i]) - 1e-12
            return worse or costs[i] <= 1 - threshold

        assert not any(over(i) for i in range(1, last)) and (over(last) or last == 60)
        assert (inverted.path[last:, n] == inverted.path[last, n]).all(), "a target that has stopped stays"
        best = min(range(last + 1), key=costs.__getitem__)
        assert inverted.confidence[n].item() == pytest.approx(1 - costs[best], abs=1e-9)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["softmax", "mlp"])
def test_art_draws_the_same(name):
    """ART runs while its stopping rule holds, not until it does, so with the threshold 1 it takes all its steps."""
    from art.attacks.inference.model_inversion import MIFace
    from art.estimators.classification import PyTorchClassifier

    model, targets, steps = reference(name, "digits"), torch.arange(10), 30
    victim = nn.Sequential(model, nn.Softmax(dim=1))
    classifier = PyTorchClassifier(
        victim, nn.CrossEntropyLoss(), (1, 28, 28), 10, clip_values=(0, 1), device_type="cpu"
    )
    settings = {"shape": (1, 28, 28), "threshold": 1.0, "patience": steps + 1, "step_size": 0.5, "every": 1}
    ours = model_inversion(model, targets, steps=steps, **settings, **QUIET)
    for k in (1, 5, steps):
        attack = MIFace(
            classifier, max_iter=k, window_length=steps + 1, threshold=1.0, learning_rate=0.5, verbose=False
        )
        theirs = torch.from_numpy(attack.infer(None, y=targets.numpy()))
        assert (ours.path[k] - theirs).abs().max() < 1e-4
    assert ours.path[steps].amax((1, 2, 3)).mean() > 0.1, "the comparison needs pictures that have moved"


# --- black-box --------------------------------------------------------------------------------------------------------


def test_looks_along_each_pixel_measure_the_slope():
    """One-sided quotients are off by h / 2 times the curvature; with h = 1e-6 by less than 1e-5, rounding included."""
    model, targets = linear(3), torch.arange(3)
    x = torch.cat([middle(2), torch.ones(1, *SHAPE, dtype=torch.float64)])

    def cost(x, images):
        return 1 - model(x).softmax(1).gather(1, targets[images, None])[:, 0]

    leaf = x.clone().requires_grad_()
    exact = torch.autograd.grad(cost(leaf, targets).sum(), leaf)[0]
    with torch.no_grad():
        here = cost(x, targets)
        estimate = measured(cost, x, targets, here, samples=None, h=1e-6, generator=seeded())
    assert exact.abs().max() > 0.05 and (estimate - exact).abs().max() < 1e-5


@pytest.mark.parametrize("reveals", ["scores", "logits"])
def test_exact_queries_draw_what_the_weights_draw(reveals):
    model, targets = linear(3), torch.arange(3)
    settings = {"shape": SHAPE, "steps": 15, "step_size": 0.5, "start": middle(), "threshold": 1.0, **QUIET}
    query = Query(model, reveals)
    white, black = model_inversion(model, targets, **settings), model_inversion(query, targets, h=1e-6, **settings)
    assert (white.x - black.x).abs().max() < 1e-4
    assert query.counts.tolist() == [1 + 15 * 7] * 3, "one look at the start; then each pixel and the new cost"


def test_random_directions_cost_what_they_say_and_repeat_with_their_seed():
    query, targets = Query(linear(3), "scores"), torch.arange(3)
    settings = {"shape": SHAPE, "steps": 10, "samples": 4, "start": middle(), "step_size": 0.5, "threshold": 1.0}
    first = model_inversion(query, targets, generator=seeded(3), **settings, **QUIET)
    assert query.counts.tolist() == [1 + 10 * 5] * 3
    again = model_inversion(query, targets, generator=seeded(3), **settings, **QUIET)
    other = model_inversion(query, targets, generator=seeded(4), **settings, **QUIET)
    assert torch.equal(first.x, again.x) and not torch.equal(first.x, other.x)
    before = linear(3)(middle()).softmax(1)[0].detach()
    assert (first.confidence > before).all()


def test_no_target_costs_more_than_its_cap():
    query = Query(linear(3), "scores", cap=40)
    inverted = model_inversion(query, torch.arange(3), shape=SHAPE, start=middle(), steps=100, step_size=0.1, **QUIET)
    assert query.counts.tolist() == [1 + 5 * 7] * 3 and inverted.taken.tolist() == [5] * 3 and query.exhausted.all()


def test_rounding_hides_the_slope_from_short_looks_and_not_from_long_ones(digits):
    """A pixel's slope s shows in confidences rounded to r only where s h > r / 2."""
    model, targets = reference("softmax", "digits"), torch.arange(10)
    settings = {"shape": digits.shape, "steps": 2, "step_size": 1.0, "start": digits.x_train.mean(0, keepdim=True)}
    with pytest.warns(SuspiciousResult, match="10 of 10 targets has no slope.*rounded.*Chapter 11"):
        blind = model_inversion(Query(model, "scores", decimals=1), targets, h=1e-3, **settings, **QUIET)
    assert (blind.x == settings["start"]).all()
    seeing = model_inversion(Query(model, "scores", decimals=3), targets, h=0.5, **settings, **QUIET)
    assert (seeing.x != settings["start"]).flatten(1).any(1).float().mean() > 0.5


def test_a_saturated_softmax_is_named_and_the_logarithm_sees_past_it():
    model = linear(2, dtype=torch.float32)
    model[1].bias.data = torch.tensor([200.0, 0.0])
    settings = {"shape": SHAPE, "steps": 20, "step_size": 10.0, **QUIET}
    with pytest.warns(SuspiciousResult, match="1 of 1 targets.*saturated"):
        assert not model_inversion(model, torch.tensor([1]), **settings).x.any()
    assert model_inversion(model, torch.tensor([1]), logarithm=True, **settings).x.any()


# --- what the caller brings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("black", [False, True], ids=["white-box", "black-box"])
def test_the_auxiliary_term_pulls_with_its_own_slope(black):
    """From a victim that says the same of all pictures, one step of c = AuxTerm = |x - a|^2 is x - 2 lambda (x - a)."""
    model, a = linear(2), torch.linspace(0.2, 0.7, 6, dtype=torch.float64).view(SHAPE)
    model[1].weight.data.zero_()
    inverted = model_inversion(
        Query(model, "scores") if black else model,
        torch.tensor([0]),
        **{"shape": SHAPE, "start": middle(), "steps": 1, "every": 1, "step_size": 0.1, **QUIET},
        auxiliary=lambda x: (x - a).square().flatten(1).sum(1),
    )
    assert torch.allclose(inverted.path[1], middle() - 0.2 * (middle() - a), atol=1e-9)


def test_process_runs_once_an_iteration_and_observe_sees_its_work():
    calls, seen = [], []

    def process(x):
        calls.append(len(x))
        return x * torch.tensor([1.0, 0, 1], dtype=x.dtype)

    settings = {"shape": SHAPE, "steps": 4, "threshold": 1.0, "start": middle(), **QUIET}
    inverted = model_inversion(
        *(linear(), torch.arange(3)), process=process, observe=lambda i, x, f: seen.append((i, x, f)), **settings
    )
    assert calls == [3] * 4 and [i for i, _, _ in seen] == [1, 2, 3, 4]
    assert all(not x[..., 1].any() and x[..., 0].all() and f.shape == (3,) for _, x, f in seen)
    assert torch.equal(inverted.path[-1], seen[-1][1])


def test_nothing_else_changes():
    model, start, state = linear().train(), middle(), torch.get_rng_state()
    weights = [parameter.clone() for parameter in model.parameters()]
    model_inversion(model, torch.arange(3), shape=SHAPE, start=start, steps=3, **QUIET)
    assert all(map(torch.equal, weights, model.parameters())) and model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(start, middle()) and torch.equal(state, torch.get_rng_state())


# --- Process-DAE ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("patch", "window", "channels"), [(3, 5, 1), (5, 3, 2)])
def test_non_local_means_by_its_definition(patch, window, channels):
    x = np.random.default_rng(0).random((1, channels, 7, 8))
    r, p, s = window // 2, patch // 2, 0.4
    around = np.pad(x[0], [(0, 0), (r, r), (r, r)], mode="reflect")
    expected = np.zeros_like(x)
    for i, j in np.ndindex(7, 8):
        total, weights = np.zeros(channels), 0.0
        for a, b in np.ndindex(window, window):
            moved = around[:, a : a + 7, b : b + 8]
            squares = np.pad(((moved - x[0]) ** 2).mean(0), p, mode="reflect")
            w = np.exp(-squares[i : i + patch, j : j + patch].mean() / s**2)
            total, weights = total + w * moved[:, i, j], weights + w
        expected[0, :, i, j] = total / weights
    ours = nl_means(torch.from_numpy(x), strength=s, patch=patch, window=window)
    assert np.abs(ours.numpy() - expected).max() < 1e-12


def test_non_local_means_at_its_limits():
    x = torch.rand(2, 1, 9, 9, generator=seeded(), dtype=torch.float64)
    assert torch.equal(nl_means(x, window=1), x)
    box = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, [2] * 4, mode="reflect"), 5, 1)
    assert torch.allclose(nl_means(x, window=5, strength=1e6), box, atol=1e-9)


def test_sharpening_raises_a_peak_by_its_lead_over_the_mean():
    x = torch.full((1, 1, 5, 5), 0.1, dtype=torch.float64)
    x[..., 2, 2] = 0.4
    mean = (8 * 0.1 + 0.4) / 9
    assert sharpen(x, 0.5)[0, 0, 2, 2].item() == pytest.approx(0.4 + 0.5 * (0.4 - mean))
    assert torch.equal(sharpen(x, 0.0), x)


def test_process_dae_goes_through_the_picture():
    dae = StackedDAE((1, 8, 8), 3, units=(20, 10), generator=seeded())
    code = torch.rand(4, 20, generator=seeded())
    settings = {"strength": 0.3, "patch": 3, "window": 3}
    expected = dae.encode(sharpen(nl_means(dae.decode(code), **settings), 0.7))
    assert torch.equal(process_dae(dae.encode, dae.decode, sharpness=0.7, **settings)(code), expected)


# --- victims and judge ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(digits):
    return halved(digits)


def test_halving_takes_the_mean_of_four(digits, small):
    assert small.x_test[3, 0, 5, 6] == pytest.approx(digits.x_test[3, 0, 10:12, 12:14].mean().item())


def test_autoencoders_learn_to_give_back_and_repeat_with_their_seed(small):
    def trained():
        dae = StackedDAE(small.shape, 10, units=(60, 30), generator=seeded())
        pretrain(dae, small.x_train, epochs=20, learning_rate=3e-3, generator=seeded(1), **QUIET)
        return dae

    dae, again = trained(), trained()
    assert all(map(torch.equal, dae.state_dict().values(), again.state_dict().values()))
    with torch.no_grad():
        error = (dae.decode(dae.encode(small.x_test)) - small.x_test).square().mean()
    assert error < 0.5 * (small.x_train.mean(0) - small.x_test).square().mean()


def test_digits_are_drawn_so_that_a_stranger_reads_them(small):
    """Chance is one in ten, so that 10 of 20 are right by luck in 7 of a million runs."""
    judge, targets = train_judge(small, epochs=40, generator=seeded(9), **QUIET), torch.arange(10)
    assert accuracy(judge, small.x_train, small.y_train) > 0.85
    settings = {"steps": 100, "step_size": 2.0, **QUIET}
    drawings = []
    for name in ("softmax", "mlp"):
        victim = train_face_victim(name, small, epochs=20, generator=seeded(1), **QUIET)
        assert accuracy(victim, small.x_test, small.y_test) > 0.85
        drawings.append(model_inversion(victim, targets, shape=small.shape, **settings).x)
    rate = identification_rate(judge, torch.cat(drawings), targets.repeat(2))
    assert rate.hits >= 10 and identification_rate(judge, torch.cat(drawings), targets.repeat(2), k=10).value == 1


@pytest.fixture(scope="module")
def faces():
    place = available()["faces"]
    if isinstance(place, str):
        pytest.skip(place)
    return halved(load("faces"))


@pytest.mark.full
def test_faces_are_recognized_and_rounded_confidences_hide_them(faces):
    judge, targets = train_judge(faces, generator=seeded(99), **QUIET), torch.arange(40)
    assert accuracy(judge, faces.x_train, faces.y_train) > 0.85
    victims = {name: train_face_victim(name, faces, generator=seeded(), **QUIET) for name in ("softmax", "mlp", "dae")}
    for victim in victims.values():
        assert accuracy(victim, faces.x_test, faces.y_test) > 0.9
    for name in ("softmax", "mlp"):
        drawn = model_inversion(victims[name], targets, shape=faces.shape, steps=300, step_size=2.0, **QUIET)
        assert identification_rate(judge, drawn.x, targets).value > 0.7
    dae = victims["dae"]
    settings = {"shape": (1000,), "steps": 60, "step_size": 5.0, "logarithm": True}
    process = process_dae(dae.encode, dae.decode, window=5)
    codes = model_inversion(dae.top, targets, process=process, **settings, **QUIET)
    with torch.no_grad():
        assert identification_rate(judge, dae.decode(codes.x), targets).value > 0.7
    found = {}
    for decimals in (None, 3):
        query = Query(victims["softmax"], "scores", decimals=decimals)
        drawn = model_inversion(query, targets[:10], shape=faces.shape, steps=8, step_size=20.0, **QUIET)
        found[decimals] = identification_rate(judge, drawn.x, targets[:10]).value
    assert found[None] > 0.6 and found[3] < 0.3


# --- bad input --------------------------------------------------------------------------------------------------------

FLOAT = linear(dtype=torch.float32)
GOOD = {"victim": linear(), "targets": torch.tensor([0, 1]), "shape": SHAPE, "steps": 2, "progress": False}
REFUSED = {
    "no model": ({"victim": "softmax"}, "victim is 'softmax'"),
    "labels alone": ({"victim": Query(linear(), "labels")}, "query reveals 'labels'"),
    "top three": ({"victim": Query(linear(), "top-3")}, "query reveals 'top-3'"),
    "no target": ({"targets": torch.tensor([], dtype=torch.int64)}, "targets is"),
    "targets in a row": ({"targets": torch.tensor([[0]])}, "targets is"),
    "class that there is not": ({"targets": torch.tensor([3])}, "label 3"),
    "class that the query lacks": ({"victim": Query(FLOAT, "scores"), "targets": torch.tensor([3])}, "label 3"),
    "class below 0": ({"targets": torch.tensor([-1])}, "label -1"),
    "no shape": ({"shape": 6}, "shape is 6"),
    "another shape": ({"shape": (1, 2, 2)}, "model fails on x"),
    "start out of range": ({"start": 255 * middle()}, "start has values"),
    "starts for others": ({"start": middle(3)}, "start is"),
    "no steps": ({"steps": 0}, "steps is 0"),
    "no step size": ({"step_size": 0.0}, "step_size is 0.0"),
    "no patience": ({"patience": 0}, "patience is 0"),
    "no confidence": ({"threshold": 0.0}, "threshold is 0.0"),
    "more than sure": ({"threshold": 1.1}, "threshold is 1.1"),
    "odd samples": ({"samples": 3}, "samples is 3"),
    "far looks": ({"h": 0.6}, "h is 0.6"),
    "no snapshots": ({"every": 0}, "every is 0"),
    "process": ({"process": 3}, "process is 3"),
    "process of another shape": ({"process": lambda x: x[0]}, "process returns"),
    "process to NaN": ({"process": lambda x: x / 0 * 0}, "process returns"),
    "auxiliary": ({"auxiliary": lambda x: x.sum()}, "auxiliary returns"),
    "observe": ({"observe": 1}, "observe is 1"),
    "logarithm": ({"logarithm": 1}, "logarithm is 1"),
    "generator": ({"generator": 0}, "generator is 0"),
    "probabilities": ({"victim": nn.Sequential(linear(), nn.Softmax(1))}, "model returns probabilities"),
}


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_refuses(refuses, change, words):
    refuses(model_inversion, GOOD | change, words)


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (nl_means, {"x": torch.zeros(1, 1, 9, 9), "window": 4}, "window is 4"),
        (nl_means, {"x": torch.zeros(1, 1, 3, 9), "patch": 7}, "patch is 7"),
        (nl_means, {"x": torch.zeros(1, 1, 9, 9), "strength": 0}, "strength is 0"),
        (sharpen, {"x": torch.zeros(1, 1, 9, 9), "amount": -1.0}, "sharpness is -1.0"),
        (process_dae, {"encode": 0, "decode": abs}, "encode is 0"),
        (
            identification_rate,
            {"judge": nn.Flatten(), "x": torch.zeros(0, 2), "targets": torch.zeros(0).long()},
            "x is",
        ),
        (identification_rate, {"judge": linear(), "x": middle(), "targets": torch.tensor([0]), "k": 4}, "k is 4"),
        (train_face_victim, {"name": "resnet", "data": None}, "name is 'resnet'"),
        (pretrain, {"dae": None, "x": torch.zeros(1, 4), "corruption": 1.0}, "corruption is 1.0"),
        (StackedDAE, {"shape": (1, 4, 4), "classes": 2, "units": (0, 5)}, "units is 0"),
    ],
)
def test_the_others_refuse(refuses, function, arguments, words):
    refuses(function, arguments, words)
