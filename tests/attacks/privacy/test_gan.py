"""The GAN attack on digits, read by a judge that had no part in it; the control, and each block alone."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chi2, norm
from torch import nn

from spai_lab.attacks.privacy.gan import (
    adversary,
    approach,
    class_generator,
    drawn,
    gan_attack,
    latent_vectors,
    likeness,
    protected,
    taken_for,
)
from spai_lab.defenses.evasion.image_networks import image_generator
from spai_lab.models import mlp, softmax_regression
from spai_lab.training import accuracy, reference
from spai_lab.training.federated import participant, vector_of

TARGET, FAKE = 0, 10
FALSE_ALARM = 1e-6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- digits -----------------------------------------------------------------------------------------------------------


def attacked(digits, *, classes=(0, 1, 2, 3, 4), protect=None):
    """The adversary has the digits from 5 on, the victim these classes."""
    x, y, generator = digits.x_train, digits.y_train, seeded()
    model = mlp(classes=11, generator=generator)
    held = torch.isin(y, torch.tensor(classes))
    victim = participant(x[held], y[held], epochs=1, batch_size=20, generator=generator)
    victim = protect(victim) if protect else victim
    others = y >= 5
    settings = {"target": TARGET, "fake": FAKE, "rounds": 12, "generator": generator, "progress": False}
    return gan_attack(model, [victim], x[others], y[others], **settings)


def last(result):
    """What G drew in the last six rounds: it swings, since each round the model learns to refuse its last images."""
    return result.path[-6:].flatten(0, 1)


@pytest.fixture(scope="module")
def attack(digits):
    return attacked(digits)


@pytest.fixture(scope="module")
def judge():
    return reference("lenet", "digits")


def test_the_adversary_draws_the_class_that_it_has_never_seen(digits, attack, judge):
    alike = likeness(last(attack), digits.x_train, digits.y_train)
    assert taken_for(judge, last(attack), TARGET).value > 0.6
    assert alike.argmax() == TARGET and alike[TARGET] > 0.7


def test_without_the_class_there_is_nothing_to_draw(digits, judge):
    control = attacked(digits, classes=(1, 2, 3, 4))
    assert taken_for(judge, last(control), TARGET).value < 0.2
    assert likeness(last(control), digits.x_train, digits.y_train)[TARGET] < 0.3


def test_a_victim_that_clips_and_adds_noise_is_not_drawn_and_teaches_nothing(digits, attack, judge):
    noisy = attacked(digits, protect=lambda send: protected(send, clip=1.0, noise_multiplier=0.3, generator=seeded(1)))
    images, x, y = last(noisy), digits.x_train, digits.y_train
    assert taken_for(judge, images, TARGET).value < taken_for(judge, last(attack), TARGET).value - 0.4
    assert likeness(images, x, y)[TARGET] < likeness(last(attack), x, y)[TARGET] - 0.3
    assert accuracy(noisy.model, digits.x_test, digits.y_test) < accuracy(attack.model, digits.x_test, digits.y_test)


def test_meanwhile_all_learn_to_read(digits, attack):
    """The shared model reads the victim's digits and the adversary's, though each has only half of them."""
    own = digits.y_test >= 5
    for part in (own, ~own):
        assert accuracy(attack.model, digits.x_test[part], digits.y_test[part]) > 0.7


def test_what_comes_back(attack):
    assert attack.samples.shape == (200, 1, 28, 28) and attack.path.shape == (13, 16, 1, 28, 28)
    assert torch.equal(attack.samples[:16], attack.path[-1])
    assert attack.samples.min() >= 0 and attack.samples.max() <= 1
    assert not any(parameter.requires_grad for parameter in attack.generator.parameters())


# --- blocks -----------------------------------------------------------------------------------------------------------

X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([1, 1, 1, 2, 2, 2])


def small(seed: int = 0) -> nn.Module:
    return softmax_regression((1, 4, 4), 4, generator=seeded(seed))


def test_the_same_seed_draws_the_same_and_nothing_else_changes():
    model, state = small(), torch.get_rng_state()
    before, images = vector_of(model), X.clone()
    settings = {"target": 0, "fake": 3, "rounds": 4, "samples": 5, "progress": False}
    first, second = (
        gan_attack(model, [participant(X, Y - 1, generator=seeded(1))], X, Y, generator=seeded(2), **settings)
        for _ in range(2)
    )
    assert torch.equal(first.samples, second.samples) and len(first.samples) == 5
    assert torch.equal(vector_of(model), before) and torch.equal(X, images) and model.training
    assert torch.equal(state, torch.get_rng_state())


def test_an_adversary_that_waits_is_honest():
    model, settings = small(), {"epochs": 2, "batch_size": 3}
    honest = participant(X, Y, generator=seeded(1), **settings)
    G = class_generator((1, 4, 4), generator=seeded())
    before = vector_of(G)
    attacker = adversary(G, X, Y, target=0, fake=3, patience=2, generator=seeded(1), **settings)
    for round in (0, 1):
        assert torch.equal(attacker(model, round), honest(model, round))
        assert torch.equal(vector_of(G), before)
    attacker(model, 2)
    assert not torch.equal(vector_of(G), before)


def test_the_update_is_that_of_a_participant_with_the_fakes_among_its_images():
    """One batch of all images: a single step of gradient descent, whose gradient we take ourselves."""
    model, G = small(), class_generator((1, 4, 4), generator=seeded())
    settings = {"target": 0, "fake": 3, "steps": 3, "fakes": 5, "patience": 0, "batch_size": 11, "learning_rate": 0.1}
    sent = adversary(G, X, Y, generator=seeded(4), **settings)(model, 0)
    generator = seeded(4)
    for _ in range(3):
        latent_vectors(G, 64, generator)
    x = torch.cat([X, drawn(G, latent_vectors(G, 5, generator))])
    loss = F.cross_entropy(model(x), torch.cat([Y, torch.full((5,), 3)]))
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    assert torch.allclose(sent, -0.1 * gradient, atol=1e-6)


def test_without_fakes_the_adversary_only_watches():
    model, G = small(), class_generator((1, 4, 4), generator=seeded())
    settings = {"batch_size": 6, "epochs": 1}
    watching = adversary(G, X, Y, target=0, fake=3, fakes=0, patience=0, generator=seeded(1), **settings)
    assert torch.allclose(watching(model, 0), participant(X, Y, **settings)(model, 0), atol=1e-6)


def test_the_generator_comes_nearer_to_the_class_and_leaves_the_model():
    model, G = small(), class_generator((1, 4, 4), generator=seeded())
    z, before = latent_vectors(G, 100, seeded(1)), vector_of(model)
    optimizer = torch.optim.Adam(G.parameters(), lr=1e-2)

    def loss():
        return F.cross_entropy(model(drawn(G, z)), torch.zeros(100, dtype=torch.int64)).item()

    first = loss()
    approach(G, optimizer, model, 0, 100, seeded(2))
    assert loss() < first - 0.1
    assert torch.equal(vector_of(model), before) and model.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_clipping_alone_is_exact():
    u = torch.randn(68, generator=seeded())
    for clip in (0.1, 1.0, u.norm().item() * 2):
        sent = protected(lambda model, round: u, clip=clip)(small(), 0)
        assert sent.norm().item() == pytest.approx(min(clip, u.norm().item()), rel=1e-6)
        assert F.cosine_similarity(sent, u, dim=0).item() == pytest.approx(1, abs=1e-6)
    assert torch.equal(sent, u)


def test_an_update_of_zero_stays_zero():
    assert protected(lambda model, round: torch.zeros(68), clip=1.0)(small(), 0).abs().max() == 0


def test_noise_has_the_right_size():
    """68 weights over 100 rounds: the sum of squares is chi-square, the sum normal, and no two rounds are alike."""
    sigma, clip = 0.5, 2.0
    send = protected(lambda model, round: torch.zeros(68), clip=clip, noise_multiplier=sigma, generator=seeded(3))
    model = small()
    noise = torch.stack([send(model, round) for round in range(100)]).double() / (sigma * clip)
    low, high = chi2(noise.numel()).ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2])
    assert low < noise.square().sum().item() < high
    assert abs(noise.sum().item()) < norm.isf(FALSE_ALARM / 2) * math.sqrt(noise.numel())
    assert not torch.equal(noise[0], noise[1])


def test_the_judge_counts(judge, digits):
    expected = int((judge(digits.x_test).argmax(1) == 3).sum())
    assert (taken_for(judge, digits.x_test, 3).hits, taken_for(judge, digits.x_test, 3).trials) == (expected, 539)


def test_each_digit_is_most_like_its_own_mean(digits):
    for label in range(10):
        alike = likeness(digits.x_test[digits.y_test == label], digits.x_train, digits.y_train)
        assert alike.argmax() == label and alike.max() > 0.9


def test_likeness_is_the_correlation_of_numpy(digits):
    numpy = pytest.importorskip("numpy")
    images, x, y = digits.x_test[:20], digits.x_train, digits.y_train
    expected = [
        numpy.corrcoef(images.mean(0).flatten().numpy(), x[y == label].mean(0).flatten().numpy())[0, 1]
        for label in range(10)
    ]
    assert likeness(images, x, y).tolist() == pytest.approx(expected, abs=1e-4)


def test_the_shape_of_what_is_drawn():
    for shape in ((1, 28, 28), (3, 9, 10), (1, 4, 4)):
        assert class_generator(shape)(torch.zeros(2, 32)).shape == (2, *shape)


# --- bad input --------------------------------------------------------------------------------------------------------

G = class_generator((1, 4, 4))
SEND = participant(X, Y)
ATTACK = {"model": small(), "honest": [SEND], "x": X, "y": Y, "target": 0, "fake": 3, "progress": False}
ROLE = {"G": G, "x": X, "y": Y, "target": 0, "fake": 3}
REFUSED = {
    "the adversary has the class": (gan_attack, ATTACK | {"target": 1}, "y has the label 1"),
    "fakes look like its own": (gan_attack, ATTACK | {"fake": 2}, "y has the label 2"),
    "no class of fakes": (gan_attack, ATTACK | {"fake": 0}, "fake is 0, like target"),
    "class that the model lacks": (gan_attack, ATTACK | {"fake": 4}, "4"),
    "nobody to attack": (gan_attack, ATTACK | {"honest": []}, "honest is []"),
    "victim that is no function": (gan_attack, ATTACK | {"honest": [3]}, "honest is 3"),
    "no images": (gan_attack, ATTACK | {"x": X[:0], "y": Y[:0]}, "x is"),
    "pixels": (gan_attack, ATTACK | {"x": 255 * X}, "x has values"),
    "no samples": (gan_attack, ATTACK | {"samples": 0}, "samples is 0"),
    "no rounds": (gan_attack, ATTACK | {"rounds": 0}, "rounds is 0"),
    "no numbers to draw from": (gan_attack, ATTACK | {"latent": 0}, "latent is 0"),
    "no steps": (adversary, ROLE | {"steps": 0}, "steps is 0"),
    "less than no fakes": (adversary, ROLE | {"fakes": -1}, "fakes is -1"),
    "less than no patience": (adversary, ROLE | {"patience": -1}, "patience is -1"),
    "no rate": (adversary, ROLE | {"generator_rate": 0}, "generator_rate is 0"),
    "no epochs": (adversary, ROLE | {"epochs": 0}, "epochs is 0"),
    "no generator": (adversary, ROLE | {"G": nn.Flatten()}, "G is Flatten"),
    "images of another shape": (adversary, ROLE | {"G": image_generator((1, 5, 5))}, "G draws images of shape"),
    "clip at nothing": (protected, {"send": SEND, "clip": 0.0}, "clip is 0.0"),
    "negative noise": (protected, {"send": SEND, "clip": 1.0, "noise_multiplier": -1.0}, "noise_multiplier is -1.0"),
    "nobody to protect": (protected, {"send": None, "clip": 1.0}, "send is None"),
    "update of another length": (
        protected(lambda model, round: torch.zeros(3), clip=1.0),
        {"model": small(), "round": 0},
        "send returns a float32 tensor of shape (3,)",
    ),
    "nothing to judge": (taken_for, {"judge": nn.Flatten(), "images": X[:0], "label": 0}, "images is empty"),
    "class below 0": (taken_for, {"judge": nn.Flatten(), "images": X, "label": -1}, "label is -1"),
    "class without an image": (likeness, {"images": X, "x": X, "y": Y}, "y has no label 0"),
    "another shape": (likeness, {"images": X[:, :, :2], "x": X, "y": Y - 1}, "images is"),
    "tiny images": (class_generator, {"shape": (1, 3, 3)}, "shape[1]"),
}


@pytest.mark.parametrize(("function", "arguments", "words"), REFUSED.values(), ids=REFUSED)
def test_refuses(refuses, function, arguments, words):
    refuses(function, arguments, words)


def test_a_protected_participant_may_drop_out():
    assert protected(lambda model, round: None, clip=1.0)(nn.Linear(2, 1), 0) is None
