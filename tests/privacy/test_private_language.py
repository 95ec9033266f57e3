"""Gradients of lines of text, held against autograd; private training, held against the definition of a step."""

import math

import pytest
import torch
import torch.nn.functional as F

from spai_lab.attacks.privacy.memorization import IGNORED, LanguageModel, bits_per_character, padded
from spai_lab.data.sentences import Text, sentences
from spai_lab.privacy.accounting import dp_sgd_guarantee
from spai_lab.privacy.dp_sgd import private_gradient
from spai_lab.privacy.private_language import line_gradients, train_private_language_model

SETTINGS = {
    "expected_batch": 8.0,
    "noise_multiplier": 0.0,
    "sampling_rate": 0.5,
    "steps": 10,
    "delta_dp": 1e-3,
    "hidden": 8,
    "progress": False,
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def text(count=16):
    return Text.of(sentences(count, generator=seeded(1)))


def test_the_gradient_of_each_line_is_that_of_autograd():
    words = text()
    given, wanted = padded(words)
    model = LanguageModel(words.characters, hidden=8, generator=seeded()).double()
    found = line_gradients(model, given, wanted)
    assert list(found) == [name for name, _ in model.named_parameters()]
    for i in range(len(given)):
        loss = F.cross_entropy(model(given[i : i + 1])[0], wanted[i], ignore_index=IGNORED, reduction="sum")
        slopes = torch.autograd.grad(loss, list(model.parameters()))
        for gradients, slope in zip(found.values(), slopes, strict=True):
            assert torch.allclose(gradients[i], slope, atol=1e-10)


def test_no_lines_have_no_gradients():
    model = LanguageModel("|ab", hidden=4)
    nothing = torch.zeros(0, 5, dtype=torch.int64)
    assert all(len(gradient) == 0 for gradient in line_gradients(model, nothing, nothing).values())


def test_a_line_moves_a_step_by_no_more_than_the_clipping_norm():
    """Without noise, the sums of two texts that differ in one line; plain steps would move by its whole gradient."""
    words = text()
    given, wanted = padded(words)
    model = LanguageModel(words.characters, hidden=8, generator=seeded())
    gradients = line_gradients(model, given, wanted)
    lengths = sum(gradient.flatten(1).square().sum(1) for gradient in gradients.values()).sqrt()
    assert lengths.min() > 1
    settings = {"clip": 1.0, "noise_multiplier": 0.0, "expected_batch": 1.0}
    whole = private_gradient(gradients, **settings)
    less = private_gradient({name: gradient[1:] for name, gradient in gradients.items()}, **settings)
    moved = sum((whole[name] - less[name]).square().sum() for name in whole).sqrt()
    assert moved.item() == pytest.approx(1.0, rel=1e-4)


def test_a_model_learns_without_noise_and_less_with_much():
    words, other = text(100), Text.of(sentences(50, generator=seeded(2)))
    settings = SETTINGS | {"steps": 40, "expected_batch": 50.0, "hidden": 16}
    clipped, _ = train_private_language_model(words, **settings, generator=seeded())
    noisy, guarantee = train_private_language_model(words, **settings | {"noise_multiplier": 50.0}, generator=seeded())
    uniform = math.log2(len(words.characters))
    assert (
        bits_per_character(clipped, other) < uniform - 1.5 < bits_per_character(noisy, other) and guarantee.epsilon < 2
    )
    assert not clipped.training and not any(parameter.requires_grad for parameter in clipped.parameters())


def test_what_is_promised_is_what_the_accountant_says():
    _, guarantee = train_private_language_model(text(), **SETTINGS | {"noise_multiplier": 2.0})
    expected = dp_sgd_guarantee(sampling_rate=0.5, noise_multiplier=2.0, steps=10, delta_dp=1e-3)
    assert (guarantee.epsilon, guarantee.delta_dp, guarantee.adjacency) == (expected.epsilon, 1e-3, "add/remove")
    assert train_private_language_model(text(), **SETTINGS)[1].epsilon == math.inf


def test_a_generator_makes_a_run_again_and_the_global_state_stays():
    state = torch.get_rng_state()
    pair = [
        train_private_language_model(text(), **SETTINGS | {"noise_multiplier": 1.0}, generator=seeded(seed))[0]
        for seed in (3, 3, 4)
    ]
    first, again, other = ([*model.parameters()] for model in pair)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0]) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "anna"}, "text is 'anna'"),
        ({"expected_batch": 0}, "expected_batch is 0"),
        ({"noise_multiplier": -1}, "noise_multiplier is -1"),
        ({"clip": 0}, "clip is 0"),
        ({"clip": math.inf, "noise_multiplier": 1.0}, "clip is inf"),
        ({"sampling_rate": 0}, "sampling_rate is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"delta_dp": 0}, "delta_dp is 0"),
        ({"hidden": 0}, "hidden is 0"),
        ({"generator": 3}, "generator is 3"),
        ({"progress": 1}, "progress is 1"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        train_private_language_model(**{"text": text(), **SETTINGS} | change)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [(torch.zeros(2, 3), None), (torch.zeros(2, 0, dtype=torch.int64),) * 2, (torch.zeros(2), torch.zeros(3))],
)
def test_lines_that_do_not_fit_are_named(given, wanted):
    with pytest.raises(ValueError, match=r"given is .*accepted: int64"):
        line_gradients(LanguageModel("|ab", hidden=4), given, wanted)


def test_only_language_models_have_lines():
    with pytest.raises(ValueError, match="model is"):
        line_gradients(torch.nn.Linear(2, 2), torch.zeros(1, 1), torch.zeros(1, 1))
