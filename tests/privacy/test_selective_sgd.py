"""Selective SGD against federated averaging and closed forms, and on digits: what little sharing costs, and noise."""

import importlib
import itertools
import math
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from spai_lab.models import mlp
from spai_lab.privacy.guarantee import composed
from spai_lab.privacy.selective_sgd import noise_scales, selective_guarantee, selective_sgd, sparse_vector
from spai_lab.training import accuracy
from spai_lab.training.federated import federated_averaging, participant, split_evenly, vector_of

module = importlib.import_module("spai_lab.privacy.selective_sgd")  # the package has the function under this name
FALSE_ALARM = 1e-6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(seed: int = 0) -> nn.Module:
    return mlp((1, 2, 2), 2, hidden=3, generator=seeded(seed))


X = torch.rand(12, 1, 2, 2, generator=seeded())
Y = torch.tensor([0, 1] * 6)


# --- what is shared ---------------------------------------------------------------------------------------------------


def test_who_shares_all_is_an_honest_participant():
    shards = split_evenly(X, Y, 3, generator=seeded())
    settings = {"epochs": 1, "batch_size": 2, "learning_rate": 0.3}
    plain = [participant(x, y, generator=seeded(i), **settings) for i, (x, y) in enumerate(shards)]
    selective = [selective_sgd(x, y, upload=1.0, generator=seeded(i), **settings) for i, (x, y) in enumerate(shards)]
    run = partial(federated_averaging, small(), rounds=3, sample=1 / 3, progress=False)
    ours, theirs = (vector_of(run(each, generator=seeded())[0]) for each in (selective, plain))
    assert torch.allclose(ours, theirs, atol=1e-6) and not torch.allclose(ours, vector_of(small()))


def test_one_step_on_all_its_data_sends_the_gradient():
    model = small()
    loss = nn.functional.cross_entropy(model(X), Y)
    gradient = nn.utils.parameters_to_vector(torch.autograd.grad(loss, list(model.parameters())))
    sent = selective_sgd(X, Y, upload=1.0, batch_size=len(X), learning_rate=0.5)(model, 0)
    assert torch.allclose(sent, -0.5 * gradient, atol=1e-6)


@pytest.mark.parametrize(("upload", "count"), [(1.0, 35), (0.4, 14), (0.1, 3), (0.001, 1)])
def test_the_largest_share_is_sent(upload, count):
    """35 parameters, none of which stays exactly as it was; NumPy sorts."""
    model = mlp((1, 2, 2), 2, hidden=3, generator=seeded(1))
    assert len(vector_of(model)) == 35
    x = X.sqrt()
    whole = selective_sgd(x, Y, upload=1.0, learning_rate=0.1, generator=seeded())(model, 0)
    sent = selective_sgd(x, Y, upload=upload, learning_rate=0.1, generator=seeded())(model, 0)
    places = np.argsort(-whole.abs().numpy(), kind="stable")[:count]
    expected = np.zeros(35, dtype=np.float32)
    expected[places] = whole.numpy()[places]
    assert np.array_equal(sent.numpy(), expected)


def test_above_a_threshold_each_is_as_likely_as_the_others():
    """6 of 12 exceed it, 2 are drawn: each with probability 1/3, chi-square over 3,000 draws."""
    changes = torch.linspace(0.1, 1.2, 12) * torch.tensor([1.0, -1.0] * 6)
    generator, hits = seeded(), torch.zeros(12)
    for _ in range(3000):
        sent = module.above_threshold(changes, 2, 0.65, generator)
        assert (sent != 0).sum() == 2 and torch.equal(sent[sent != 0], changes[sent != 0])
        hits += sent != 0
    assert hits[:6].sum() == 0
    assert stats.chisquare(hits[6:].numpy()).pvalue > FALSE_ALARM
    assert (module.above_threshold(changes, 12, 0.65, generator) != 0).sum() == 6


@pytest.mark.parametrize("choice", ["largest", "threshold"])
def test_changes_are_clipped(choice):
    send = partial(selective_sgd, X, Y, upload=1.0, choice=choice, learning_rate=1.0)
    free, bounded = (send(bound=bound, generator=seeded())(small(), 0) for bound in (None, 0.01))
    assert torch.equal(bounded, free.clamp(-0.01, 0.01)) and free.abs().max() > 0.02


def test_what_is_not_taken_from_the_server_stays_as_it_was_left(monkeypatch):
    """Of 10 parameters 2 are taken, those that moved most at the server; each round adds 1 to all of its own."""
    starts = []

    def adds_one(model, round):
        starts.append(vector_of(model))
        return torch.ones(10)

    monkeypatch.setattr(module, "participant", lambda *data, **settings: adds_one)
    send = selective_sgd(X, Y, upload=1.0, download=0.2)
    model = nn.Linear(9, 1)
    for served in (torch.zeros(10), torch.arange(10.0)):
        nn.utils.vector_to_parameters(served.clone(), model.parameters())
        send(model, 0)
    assert torch.equal(starts[0], torch.zeros(10))
    assert torch.equal(starts[1], torch.tensor([1.0] * 8 + [8.0, 9.0]))


# --- the sparse vector technique --------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 20.0])
def test_the_three_noises_cost_what_a_number_may_cost(epsilon):
    """Threshold and comparison as in AboveThreshold, 2 and 4 sensitivities over 8/9 of it; the value the other 1/9."""
    gamma = 0.01
    scales = noise_scales(bound=gamma, epsilon_per_parameter=epsilon)
    assert 2 * (2 * gamma) / scales["threshold"] == pytest.approx(8 / 9 * epsilon)
    assert 4 * (2 * gamma) / scales["comparison"] == pytest.approx(8 / 9 * epsilon)
    assert (2 * gamma) / scales["value"] == pytest.approx(epsilon / 9)


def above(t: float, a: float, b: float) -> float:
    """P(X - Y >= t) for independent Laplace X, Y of scales a and b, a > b."""
    tail = (a**2 * math.exp(-abs(t) / a) - b**2 * math.exp(-abs(t) / b)) / (2 * (a**2 - b**2))
    return tail if t >= 0 else 1 - tail


@pytest.mark.parametrize(("value", "threshold"), [(0.0, 2.0), (1.0, 0.2), (-0.5, 1.5), (1e3, 0.2), (-1e3, 0.2)])
def test_how_often_a_number_is_sent(value, threshold):
    """One number alone, 1,500 times; half the comparison's noise would be seen, and one that was not clipped before."""
    epsilon, bound, n = 9.0, 1.0, 1500
    scales = noise_scales(bound=bound, epsilon_per_parameter=epsilon)
    settings = {"threshold": threshold, "bound": bound, "epsilon_per_parameter": epsilon, "generator": seeded()}
    said = np.array([sparse_vector(torch.tensor([value]), count=1, **settings).item() for _ in range(n)])
    sent = said != 0
    clipped = min(abs(value), bound)
    p = above(threshold - clipped, scales["comparison"], scales["threshold"])
    assert stats.binomtest(int(sent.sum()), n, p).pvalue > FALSE_ALARM
    at_bound = stats.laplace.sf(bound - clipped, scale=scales["value"])
    hits = int((said == math.copysign(bound, value)).sum())
    assert stats.binomtest(hits, int(sent.sum()), at_bound).pvalue > FALSE_ALARM
    if value == 0:
        halved = above(threshold, scales["comparison"] / 2, scales["threshold"] * 0.999 / 2)
        assert stats.binomtest(int(sent.sum()), n, halved).pvalue < FALSE_ALARM


@pytest.mark.parametrize("whole", [False, True], ids=["sparse_vector", "selective_sgd"])
def test_the_values_carry_their_noise_and_stay_in_their_bounds(monkeypatch, whole):
    """What is sent of 0 is Laplace noise, clipped to 1 with probability e^(-1/b); a wrong scale would be seen.

    The same holds of what a participant sends that learned nothing: the budget is the one it was given.
    """
    scale = noise_scales(bound=1.0, epsilon_per_parameter=18.0)["value"]
    settings = {"threshold": 0.0, "bound": 1.0, "epsilon_per_parameter": 18.0, "generator": seeded()}
    if whole:
        monkeypatch.setattr(module, "participant", lambda *data, **settings: lambda model, round: torch.zeros(4000))
        sent = selective_sgd(X, Y, upload=1.0, choice="sparse vector", **settings)(nn.Linear(3999, 1), 0)
    else:
        sent = sparse_vector(torch.zeros(4000), count=4000, **settings)
    sent = sent[sent != 0]
    inside = sent[sent.abs() < 1].numpy()
    assert len(sent) > 1000 and sent.abs().max() == 1
    assert stats.binomtest(len(sent) - len(inside), len(sent), math.exp(-1 / scale)).pvalue > FALSE_ALARM
    laplace = stats.laplace(scale=scale)
    inner = lambda v: (laplace.cdf(v) - laplace.cdf(-1)) / (1 - 2 * laplace.cdf(-1))  # noqa: E731
    assert stats.kstest(inside, inner).pvalue > FALSE_ALARM
    assert stats.binomtest(len(sent) - len(inside), len(sent), math.exp(-2 / scale)).pvalue < FALSE_ALARM


@pytest.mark.parametrize("epsilon", [0.5, 4.0])
def test_no_two_values_of_a_number_differ_by_more_than_its_epsilon(epsilon):
    """Exactly, for one number: log ratios of sending, of not sending, and of the density of what is sent."""
    gamma = 1.0
    scales = noise_scales(bound=gamma, epsilon_per_parameter=epsilon)
    sent = np.array(
        [above(tau - v, scales["comparison"], scales["threshold"]) for tau in (0.0, 0.5, 3.0) for v in (0.0, gamma)]
    ).reshape(3, 2)
    choosing = max(np.abs(np.diff(np.log(sent))).max(), np.abs(np.diff(np.log1p(-sent))).max())
    saying = 2 * gamma / scales["value"]
    assert choosing <= 8 / 9 * epsilon and choosing + saying <= epsilon


def pattern_probabilities(sizes, count, threshold, scales, *, redrawn=True):
    r"""Which of some numbers are sent, exactly: the probability of each set, in a random order.

    Until a yes one noisy threshold holds: $\int p(t) \prod_{no} F(\tau + t - v_j) (1 - F(\tau + t - v_i)) dt$ with
    F the distribution function of a comparison's noise; after c yeses nobody is asked.
    """
    t = scales["threshold"] * np.concatenate([-np.geomspace(40, 1e-4, 1500), np.geomspace(1e-4, 40, 1500)])
    density = stats.laplace.pdf(t, scale=scales["threshold"])
    no = {v: stats.laplace.cdf(threshold + t - v, scale=scales["comparison"]) for v in set(sizes)}
    found = {sent: 0.0 for sent in itertools.product([False, True], repeat=len(sizes)) if sum(sent) <= count}
    for sent, order in itertools.product(found, itertools.permutations(range(len(sizes)))):
        p, segment, yeses = 1.0, density, 0
        for j in order:
            if yeses == count:
                break
            segment = segment * (1 - no[sizes[j]] if sent[j] else no[sizes[j]])
            yeses += sent[j]
            if sent[j] and redrawn:
                p, segment = p * np.trapezoid(segment, t), density
        found[sent] += p * np.trapezoid(segment, t) / math.factorial(len(sizes))
    return found


def test_a_sequence_is_sent_as_often_as_it_shall_be():
    """At most two of three: chi-square over which are sent; half of a noise and a threshold kept are seen."""
    changes, n, epsilon, found = torch.tensor([1.0, -1.0, 0.5]), 10_000, 9.0, Counter()
    settings = {"threshold": 0.75, "bound": 1.0, "epsilon_per_parameter": epsilon, "generator": seeded(7)}
    for _ in range(n):
        found[tuple((sparse_vector(changes, count=2, **settings) != 0).tolist())] += 1
    scales = noise_scales(bound=1.0, epsilon_per_parameter=epsilon)
    exact = partial(pattern_probabilities, (1.0, 1.0, 0.5), 2, 0.75)

    def pvalue(probabilities):
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4) and found.keys() <= probabilities.keys()
        expected = np.array(list(probabilities.values()))
        return stats.chisquare([found[sent] for sent in probabilities], n * expected / expected.sum()).pvalue

    assert pvalue(exact(scales)) > FALSE_ALARM
    assert pvalue(exact(scales, redrawn=False)) < FALSE_ALARM
    for name in ("threshold", "comparison"):
        assert pvalue(exact(scales | {name: scales[name] / 2})) < FALSE_ALARM


def worst_sequence_loss(count, epsilon, factor=1.0):
    """The largest log ratio over sets and any two sequences of three numbers, the values that are sent included."""
    scales = {name: factor * s for name, s in noise_scales(bound=1.0, epsilon_per_parameter=epsilon).items()}
    sizes = list(itertools.product([0.0, 0.5, 1.0], repeat=3))
    worst = 0.0
    for threshold in (0.0, 0.5, 3.0):
        logs = {v: pattern_probabilities(v, count, threshold, scales) for v in sizes}
        for v, w in itertools.permutations(sizes, 2):
            for sent, p in logs[v].items():
                said = sum(max(abs(a - b), abs(a + b)) for a, b, yes in zip(v, w, sent, strict=True) if yes)
                worst = max(worst, math.log(p / logs[w][sent]) + said / scales["value"])
    return worst


@pytest.mark.parametrize("count", [1, 2])
def test_no_two_sequences_differ_by_more_than_the_whole(count):
    """Exactly, for three numbers that may all change, with either sign.

    The comparisons see |v|, which moves by half of what they were made for: they cost 4/9, not 8/9, and with the values
    it is 5/9 of the promise. A quarter of the noise breaks that, an eighth the promise too.
    """
    assert 0.15 * count < worst_sequence_loss(count, 1.0) <= 5 / 9 * count
    assert worst_sequence_loss(count, 1.0, 1 / 4) > 5 / 9 * count and worst_sequence_loss(count, 1.0, 1 / 8) > count


def test_with_little_noise_it_sends_what_exceeds_the_threshold():
    changes = torch.tensor([0.9, 0.0, -0.8, 0.1, 5.0])
    settings = {"threshold": 0.5, "bound": 1.0, "epsilon_per_parameter": 1e7}
    assert torch.allclose(sparse_vector(changes, count=5, **settings), torch.tensor([0.9, 0, -0.8, 0, 1.0]), atol=1e-3)
    assert (sparse_vector(changes, count=2, **settings) != 0).sum() == 2


# --- what is promised -------------------------------------------------------------------------------------------------


def test_the_whole_is_the_sum_of_its_numbers():
    one = selective_guarantee(parameters=1, upload=1.0, epsilon_per_parameter=0.25)
    whole = selective_guarantee(parameters=200, upload=0.1, epsilon_per_parameter=0.25, rounds=3)
    assert one.epsilon == 0.25
    assert whole.epsilon == pytest.approx(composed(*[one] * 60).epsilon) and whole.adjacency == "replace"
    assert selective_guarantee(parameters=5, upload=0.5, epsilon_per_parameter=None).epsilon == math.inf


# --- digits -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def after(digits):
    """`after(**sharing)`: accuracy once each of 10 participants had about 10 turns, one at a time."""
    shards = split_evenly(digits.x_train, digits.y_train, 10, generator=seeded())

    def run(count=10, **sharing):
        settings = {"batch_size": 10, "learning_rate": 0.05}
        parties = [selective_sgd(x, y, generator=seeded(i), **settings, **sharing) for i, (x, y) in enumerate(shards)]
        turns = {"rounds": 10 * count, "sample": 1 / count, "generator": seeded(1), "progress": False}
        model, _ = federated_averaging(mlp(hidden=32, generator=seeded()), parties[:count], **turns)
        return accuracy(model, digits.x_test, digits.y_test)

    return run


def test_a_tenth_of_the_gradients_is_nearly_as_good_as_all(after):
    alone, everything = after(1, upload=1.0), after(upload=1.0)
    assert everything > alone + 0.1
    assert after(upload=0.1) > everything - 0.03 and after(upload=0.01) > alone + 0.05


@pytest.mark.full
def test_noise_that_means_something_leaves_nothing(after):
    """At 1 a number, some 26,500 in all, chance; at 100 a number, some 2.65 million in all, it learns."""
    private = partial(after, upload=0.1, choice="sparse vector", threshold=1e-4, bound=0.01)
    assert private(epsilon_per_parameter=1.0) < 0.3 and private(epsilon_per_parameter=100.0) > 0.85


# --- state and bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sharing",
    [{}, {"choice": "threshold"}, {"choice": "sparse vector", "bound": 0.1, "epsilon_per_parameter": 1.0}],
    ids=["largest", "threshold", "sparse vector"],
)
def test_nothing_else_changes_and_the_same_seed_sends_the_same(sharing):
    model, state = small().train(), torch.get_rng_state()
    before = vector_of(model)
    first, second = (selective_sgd(X, Y, upload=0.3, generator=seeded(), **sharing)(model, 0) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(before, vector_of(model)) and model.training
    assert torch.equal(state, torch.get_rng_state())
    changes = torch.ones(5)
    sparse_vector(changes, count=2, threshold=0.1, bound=0.5, epsilon_per_parameter=1.0)
    assert torch.equal(changes, torch.ones(5))


GOOD = {"x": X, "y": Y}
NOISY = {"choice": "sparse vector", "bound": 0.1, "epsilon_per_parameter": 1.0}
REFUSED = {
    "nothing shared": ({"upload": 0.0}, "upload is 0.0"),
    "more than all": ({"upload": 1.5}, "upload is 1.5"),
    "nothing taken": ({"download": 0}, "download is 0"),
    "another choice": ({"choice": "smallest"}, "choice is 'smallest'"),
    "negative threshold": ({"threshold": -1.0}, "threshold is -1.0"),
    "no room": ({"bound": 0.0}, "bound is 0.0"),
    "noise without bound": (NOISY | {"bound": None}, "bound is None"),
    "noise without budget": (NOISY | {"epsilon_per_parameter": None}, "epsilon_per_parameter is None"),
    "budget without noise": ({"epsilon_per_parameter": 1.0}, "epsilon_per_parameter is 1.0"),
    "no budget": (NOISY | {"epsilon_per_parameter": 0.0}, "epsilon_per_parameter is 0.0"),
    "no data": ({"x": X[:0], "y": Y[:0]}, "x is empty"),
    "no images": ({"x": None}, "x is None"),
    "pixels": ({"x": 255 * X + 1}, "x has values"),
    "no epochs": ({"epochs": 0}, "epochs is 0"),
    "no batch": ({"batch_size": 0}, "batch_size is 0"),
    "no rate": ({"learning_rate": 0}, "learning_rate is 0"),
    "no generator": ({"generator": 1}, "generator is 1"),
}


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_refuses(refuses, change, words):
    refuses(selective_sgd, GOOD | change, words)


VECTOR = {"changes": torch.ones(3), "count": 2, "threshold": 0.1, "bound": 1.0, "epsilon_per_parameter": 1.0}
VECTORS = {
    "no vector": ({"changes": torch.ones(3, 1)}, "changes is"),
    "NaN": ({"changes": torch.ones(3) * math.nan}, "changes is"),
    "empty": ({"changes": torch.ones(0)}, "changes is"),
    "none sent": ({"count": 0}, "count is 0"),
    "more than there are": ({"count": 4}, "count is 4"),
    "negative threshold": ({"threshold": -0.1}, "threshold is -0.1"),
    "no bound": ({"bound": None}, "bound is None"),
    "no budget": ({"epsilon_per_parameter": 0}, "epsilon_per_parameter is 0"),
    "no generator": ({"generator": "seed"}, "generator is 'seed'"),
}


@pytest.mark.parametrize(("change", "words"), VECTORS.values(), ids=VECTORS)
def test_the_sparse_vector_refuses(refuses, change, words):
    refuses(sparse_vector, VECTOR | change, words)


PROMISE = {"parameters": 10, "upload": 0.5, "epsilon_per_parameter": 1.0}
PROMISES = {
    "no parameters": ({"parameters": 0}, "parameters is 0"),
    "nothing shared": ({"upload": 0.0}, "upload is 0.0"),
    "no budget": ({"epsilon_per_parameter": -1.0}, "epsilon_per_parameter is -1.0"),
    "no rounds": ({"rounds": 0}, "rounds is 0"),
}


@pytest.mark.parametrize(("change", "words"), PROMISES.values(), ids=PROMISES)
def test_the_guarantee_refuses(refuses, change, words):
    refuses(selective_guarantee, PROMISE | change, words)
